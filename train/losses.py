"""Losses of the distillation, as plain differentiable functions: one value a row, so that the caller can weigh.

Two shapes of teacher target:

- a whole distribution (the calibrated label probabilities of a classifier), `(n, classes)`;
- the k likeliest tokens and one tail bucket for the mass of all others, `(n, k)` and `(n,)`. Student and teacher
  are compared as distributions over these k + 1 events. Without the tail, a student would be told that the top k
  are all there is; with it, k = 32 gives nearly the gradient of the whole vocabulary.

Three divergences between teacher q and student p: forward KL(q‖p) covers what the teacher covers, reverse
KL(p‖q) seeks its mode, and the generalised JSD with m = βq + (1−β)p lies between: β·KL(q‖m) + (1−β)·KL(p‖m).
All are multiplied by T², so that the gradient's size does not depend on the temperature.

Sources: Hinton et al., arXiv:1503.02531 §2 (temperature, T²); Agarwal et al., arXiv:2306.13649 §3 (GKD, JSD).
`potstill.train.head_loss` computes the token losses and their gradients without keeping the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from potstill.train.options import Divergence

# A log-probability whose exponential is 0 in float32. Unlike −inf it keeps every gradient finite.
NEVER = -1e4
# Log of the least probability of a label or a token in a reverse KL, which a teacher that is wholly sure would make
# infinite.
LEAST = -30.0


def hard_cross_entropy(student_logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with the labels.

    Args:
        student_logits: (n, classes) float.
        labels: (n,) int64; rows with a negative label get 0.
        label_smoothing: Mass spread evenly over all classes.

    Returns:
        (n,) float32, nats.

    Examples:
        >>> hard_cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([0.6931])
    """
    return F.cross_entropy(
        student_logits.float(), labels.clamp(min=-1), ignore_index=-1, reduction="none", label_smoothing=label_smoothing
    )


def divergence(student_logprobs: Tensor, teacher_logprobs: Tensor, kind: Divergence, beta: float = 0.5) -> Tensor:
    """Divergence between distributions over the same events. A teacher log-prob of −inf is an impossible event.

    Args:
        student_logprobs: (n, events) float32, normalised.
        teacher_logprobs: (n, events) float32, normalised, no gradient flows into it.
        kind: Which divergence.
        beta: Weight of the teacher in the mixture of `jsd`.

    Returns:
        (n,) float32, nats, not multiplied by T².

    Raises:
        ValueError: Unknown kind; beta outside (0, 1) for `jsd`; a reverse KL where the teacher says impossible
            for an event is infinite and is returned as such.
    """
    teacher = teacher_logprobs.exp()
    if kind == "forward_kl":
        return _expected(teacher, teacher_logprobs - student_logprobs)
    student = student_logprobs.exp()
    if kind == "reverse_kl":
        return _expected(student, student_logprobs - teacher_logprobs)
    if kind != "jsd":
        raise ValueError(f"unknown divergence {kind!r}; known: forward_kl, reverse_kl, jsd")
    if not 0 < beta < 1:
        raise ValueError(f"beta must lie between 0 and 1, got {beta}")
    weights = torch.tensor([beta, 1 - beta], device=student.device).log()
    mixture = torch.logaddexp(teacher_logprobs + weights[0], student_logprobs + weights[1])
    return beta * _expected(teacher, teacher_logprobs - mixture) + (1 - beta) * _expected(
        student, student_logprobs - mixture
    )


def drawn_reverse_kl(student_logprobs: Tensor, teacher_logprobs: Tensor, drawn: Tensor) -> Tensor:
    """Reverse KL over k tokens and a tail, put right on average by one token of the tail that the student drew.

    Over buckets a divergence is too small: KL(p‖q) = KL over buckets + p(tail) · KL(p‖q within the tail), and of the
    last term nothing is known but at the token that was drawn from p. With g = log p/q at that token less log p/q of
    the tail, `1[drawn from the tail] · g` is that term on average, and `g · ∇ log p` its gradient: what the tail's own
    g contributes vanishes. So value and gradient are those of the whole vocabulary on average over what is drawn, and
    only the part inside the tail is noisy.

    Args:
        student_logprobs: (n, 1 + k + 1) float32: the drawn token, the other events, and the rest of the tail.
        teacher_logprobs: The same.
        drawn: (n,) bool, whether the first event is a token that the student drew from the tail. Elsewhere it is an
            event as all others, and the divergence is that over the events.

    Returns:
        (n,) float32, nats; its value may be below 0, its gradient is to be taken as it is.
    """
    own, told = student_logprobs[:, 0], teacher_logprobs[:, 0]
    tail, told_tail = (torch.logaddexp(value[:, 0], value[:, -1]) for value in (student_logprobs, teacher_logprobs))
    coarse = divergence(
        torch.cat([student_logprobs[:, 1:-1], tail[:, None]], 1),
        torch.cat([teacher_logprobs[:, 1:-1], told_tail[:, None]], 1),
        "reverse_kl",
    )
    gap = (own - told - tail + told_tail).detach()
    plain = divergence(student_logprobs, teacher_logprobs, "reverse_kl")
    return torch.where(drawn, coarse + gap * (1 + own - own.detach()), plain)


def label_divergence(
    student_logits: Tensor,
    teacher_probs: Tensor,
    temperature: float = 1.0,
    kind: Divergence = "forward_kl",
    beta: float = 0.5,
) -> Tensor:
    """T² · divergence from the teacher's distribution over labels, both softened by T.

    Args:
        student_logits: (n, classes) float, before temperature.
        teacher_probs: (n, classes) float, rows sum to 1, at temperature 1.
        temperature: T > 0.
        kind: Which divergence.
        beta: See `divergence`.

    Returns:
        (n,) float32, nats; finite, as a label that the teacher rules out has e⁻³⁰ in a reverse KL.

    Raises:
        ValueError: temperature <= 0.

    Source: arXiv:1503.02531 §2.

    Examples:
        >>> label_divergence(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), 1.0)
        tensor([0.6931])
    """
    _check_temperature(temperature)
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    told = teacher_probs.float().log()
    if kind == "reverse_kl":
        told = told.clamp(min=LEAST)
    teacher = F.log_softmax(told / temperature, dim=-1)
    return temperature**2 * divergence(student, teacher, kind, beta)


def topk_divergence(
    student_logits: Tensor,
    top_ids: Tensor,
    top_logprobs: Tensor,
    tail: Tensor,
    temperature: float = 1.0,
    kind: Divergence = "forward_kl",
    beta: float = 0.5,
) -> Tensor:
    """T² · divergence from the teacher's k likeliest tokens and one tail bucket.

    Args:
        student_logits: (n, vocab) float, before temperature.
        top_ids: (n, k) int64, distinct within a row where the log-prob is above −inf.
        top_logprobs: (n, k) float, at temperature 1; −inf marks an unused place.
        tail: (n,) float: log Σ exp(logprob / T) over all other tokens, which at T = 1 is the log of their mass.
        temperature: T > 0; `tail` must have been made with the same.
        kind: Which divergence.
        beta: See `divergence`.

    Returns:
        (n,) float32, nats.

    Raises:
        ValueError: temperature <= 0.
    """
    _check_temperature(temperature)
    used = top_logprobs > -torch.inf
    logits = student_logits.float() / temperature
    inside = torch.zeros_like(logits).scatter_add_(1, top_ids, used.float()) > 0
    top = logits.gather(1, top_ids)
    rest = logits.masked_fill(inside, -torch.inf).logsumexp(1, keepdim=True)
    student = torch.cat([top, rest], 1) - logits.logsumexp(1, keepdim=True)
    student = torch.cat([student[:, :-1].masked_fill(~used, NEVER), student[:, -1:].clamp(min=NEVER)], 1)
    teacher = bucket_logprobs(top_logprobs, tail, temperature)
    return temperature**2 * divergence(student, teacher, kind, beta)


def bucket_logprobs(top_logprobs: Tensor, tail: Tensor, temperature: float = 1.0) -> Tensor:
    """The teacher's distribution over k tokens and the tail at temperature T, normalised: (n, k + 1) float32."""
    buckets = torch.cat([top_logprobs.float() / temperature, tail.float()[:, None]], 1)
    return F.log_softmax(buckets, dim=-1).clamp(min=NEVER)


def _expected(probabilities: Tensor, values: Tensor) -> Tensor:
    # 0 · (−inf) is 0 in an expectation; masking the value first keeps its gradient finite as well.
    possible = probabilities > 0
    return (probabilities * values.masked_fill(~possible, 0.0)).sum(-1)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
