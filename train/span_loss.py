"""Losses between a student and a teacher of unlike vocabularies, at the places where both start at the same byte.

What enters: the student's log-probs, and the teacher's at the spans of `token_spans`. What leaves: one value a span.

`uld` sorts both distributions and takes the L1 distance, so that no token has to be known to both:

    Σ_i |p_(i) − q_(i)|

`gold` compares what can be compared. The events are: each token that both vocabularies have, the text of the span
itself (which both may cut into several tokens: the chain rule gives its probability on either side), and anything
else. Their divergence is proper: 0 where the two agree and never below. The tokens that only one vocabulary has are
compared as in `uld` beside it. With one vocabulary on both sides this is the divergence over the whole of it.

Stored targets hold k tokens and the mass of the rest. Then `uld` compares the k likeliest and that mass, a lower bound
of the whole distance, and `gold` counts the shared tokens outside the k as anything else.

Sources: Boizard et al., ULD, arXiv:2402.12030 §3, which pairs tokens by their number and not by their place in the
text; GOLD, as in `trl.experimental.gold`, which multiplies whole distributions by the chain rule's factors and has no
event for anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from potstill.train.losses import NEVER, divergence
from potstill.train.options import Divergence
from potstill.train.output_head import PLAIN, Form

_CHUNK_BYTES = 64 * 2**20
_LEAST = 1e-9


@dataclass(frozen=True)
class TeacherSpans:
    """What a teacher says at the start of m spans.

    Attributes:
        ids: (m, k) int64, the student's id of each listed token of the teacher; −1 where it has none.
        logprobs: (m, k) float, log-probs of the listed tokens; −inf marks an unused place.
        outside: (m,) float, mass of the teacher's tokens that are not listed.
        alone: (m, u) float, probabilities of tokens that the student lacks, falling; 0 marks an unused place.
        text: (m,) float, log-prob of the span's whole text; −inf where it is not known.
        first: (m,) int64, the student's id of the teacher's first token of the span; −1 where it has none.
        whole: Whether `alone` holds every such token, not only the stored ones.
    """

    ids: Tensor
    logprobs: Tensor
    outside: Tensor
    alone: Tensor
    text: Tensor
    first: Tensor
    whole: bool


def gold_divergence(
    student: Tensor, first: Tensor, later: Tensor, teacher: TeacherSpans, shared: Tensor, kind: Divergence, beta: float
) -> Tensor:
    """Divergence over shared tokens, the span's text and anything else, and the sorted distance of all other tokens.

    Args:
        student: (m, vocab) float32, the student's log-probs at the start of each span.
        first: (m,) int64, the student's first token of the span.
        later: (m,) float32, the sum of the log-probs of its later tokens; 0 where it is one token.
        teacher: The teacher's side.
        shared: (vocab,) bool, tokens of the student that the teacher has too.
        kind: Which divergence.
        beta: See `losses.divergence`.

    Returns:
        (m,) float32.
    """
    listed = (teacher.ids >= 0) & (teacher.logprobs > -torch.inf)
    # The first tokens of the span's own text are part of that event, on whichever side they are.
    used = listed & (teacher.ids != first[:, None]) & (teacher.ids != teacher.first[:, None])
    ids = teacher.ids.where(used, first[:, None])
    told = teacher.text > -torch.inf

    probs = student.exp()
    first_logprob = student.gather(1, first[:, None])[:, 0]
    inside = torch.zeros_like(probs, dtype=torch.bool).scatter_(1, torch.cat([ids, first[:, None]], 1), True)
    # Taken over the tokens themselves: 1 − Σ has no digits left where the listed ones hold nearly everything.
    rest = probs.masked_fill(inside, 0.0).sum(1) + first_logprob.exp() * torch.where(told, -torch.expm1(later), 1.0)
    text = torch.where(told, first_logprob + later, NEVER)
    ours = torch.cat(
        [
            student.gather(1, ids).masked_fill(~used, NEVER),
            text[:, None],
            rest.clamp(min=_LEAST).log()[:, None],
        ],
        1,
    )

    masses = teacher.logprobs.double().exp()
    listed_rest = masses.masked_fill(used | (teacher.ids < 0), 0.0).sum(1)
    spare = (teacher.outside.double() + listed_rest - teacher.text.double().exp()).clamp(min=_LEAST)
    theirs = torch.cat(
        [
            teacher.logprobs.float().masked_fill(~used, NEVER),
            teacher.text.float().clamp(min=NEVER)[:, None],
            spare.log().float()[:, None],
        ],
        1,
    )
    return divergence(ours, theirs, kind, beta) + _sorted_distance(
        probs.masked_fill(shared, 0.0), teacher.alone, whole=teacher.whole
    )


def uld_distance(student: Tensor, teacher: TeacherSpans) -> Tensor:
    """L1 distance of the sorted probabilities.

    Args:
        student: (m, vocab) float32, the student's log-probs at the start of each span.
        teacher: The teacher's side, with every token in `alone` and nothing listed.

    Returns:
        (m,) float32, at most 2.
    """
    probs = student.exp()
    distance = _sorted_distance(probs, teacher.alone, whole=teacher.whole)
    if teacher.whole:
        return distance
    likeliest = probs.topk(min(teacher.alone.shape[1], probs.shape[1]), dim=1).values
    counted = (teacher.alone[:, : likeliest.shape[1]] > 0).float()
    return distance + (1 - (likeliest * counted).sum(1) - teacher.outside).abs()


def _sorted_distance(ours: Tensor, theirs: Tensor, *, whole: bool) -> Tensor:
    """Σ |p_(i) − q_(i)|; of stored tokens over as many as are stored."""
    if whole:
        width = max(ours.shape[1], theirs.shape[1])
        ours = torch.nn.functional.pad(ours.sort(1, descending=True).values, (0, width - ours.shape[1]))
        theirs = torch.nn.functional.pad(theirs, (0, width - theirs.shape[1]))
        return (ours - theirs).abs().sum(1)
    count = min(ours.shape[1], theirs.shape[1])
    if count == 0:
        return ours.sum(1) * 0.0
    theirs = theirs[:, :count]
    return ((ours.topk(count, dim=1).values - theirs).abs() * (theirs > 0)).sum(1)


@dataclass(frozen=True)
class StoredSpans:
    """Stored targets at n target positions, those at which a span starts among them.

    Attributes:
        labels: (n,) int64, the token that stands there.
        hard_weights: (n,) float32, factor of the cross-entropy.
        soft_weights: (n,) float32, factor of the span loss; 0 where no span starts.
        counts: (n,) int64, the student's tokens of the span that starts there; 0 where none does.
        ids: (n, k) int64, the student's ids of the stored tokens; −1 where it has none.
        logprobs: (n, k) float32; −inf marks an unused place.
        tail: (n,) float32, log of the mass of all other tokens.
        text: (n,) float32, the teacher's log-prob of the span's text; −inf where it is not known.
        first: (n,) int64, as in `TeacherSpans`.
    """

    labels: Tensor
    hard_weights: Tensor
    soft_weights: Tensor
    counts: Tensor
    ids: Tensor
    logprobs: Tensor
    tail: Tensor
    text: Tensor
    first: Tensor


def stored_span_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: StoredSpans,
    shared: Tensor,
    *,
    method: str,
    kind: Divergence = "forward_kl",
    beta: float = 0.5,
    bias: Tensor | None = None,
    form: Form = PLAIN,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Σ hard_weight · CE + Σ soft_weight · span loss, without keeping the logits.

    Args:
        hidden: (n, d) float, last hidden states of the positions that predict the targets.
        weight: (vocab, d) float, the output embedding.
        targets: Labels, spans, stored targets and weights.
        shared: (vocab,) bool, tokens of the student that the teacher has too.
        method: `gold` or `uld`.
        kind: Divergence of `gold`.
        beta: Weight of the teacher for `jsd`.
        bias: (vocab,) float, the output embedding's, where it has one.
        form: What the model does to the product.
        chunk: Positions whose logits exist at a time, at least; None takes as many as fit 64 MiB.

    Returns:
        Scalar float32 loss, and the detached sums of its hard and its soft part.
    """
    size = chunk or max(16, _CHUNK_BYTES // (4 * weight.shape[0]))
    ends = _chunk_ends(targets.counts, size)

    def loss(products: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Hard and soft sum of some positions."""
        logits = form.bend(products)
        own = StoredSpans(*(getattr(targets, name)[part] for name in StoredSpans.__dataclass_fields__))
        return _stored_losses(logits, own, shared, method, kind, beta)

    total, hard, soft = _ChunkedLoss.apply(hidden, weight, bias, loss, ends)  # type: ignore[no-untyped-call]
    return total, hard, soft


def _stored_losses(
    logits: Tensor, targets: StoredSpans, shared: Tensor, method: str, kind: Divergence, beta: float
) -> tuple[Tensor, Tensor]:
    logprobs = logits.log_softmax(1)
    own = logprobs.gather(1, targets.labels[:, None])[:, 0]
    hard = -(targets.hard_weights * own).sum()
    starts = ((targets.counts > 0) & (targets.soft_weights > 0)).nonzero()[:, 0]
    if not len(starts):
        return hard, hard * 0.0
    sums = own.double().cumsum(0)
    later = (sums[starts + targets.counts[starts] - 1] - sums[starts]).float()
    ids, stored = targets.ids[starts], targets.logprobs[starts]
    alone = stored.exp() if method == "uld" else stored.exp().masked_fill(ids >= 0, 0.0)
    teacher = TeacherSpans(
        ids=ids, logprobs=stored, alone=alone.sort(1, descending=True).values, text=targets.text[starts],
        outside=targets.tail[starts].exp() + (0.0 if method == "uld" else alone.sum(1)), first=targets.first[starts],
        whole=False,
    )  # fmt: skip
    if method == "uld":
        values = uld_distance(logprobs[starts], teacher)
    else:
        values = gold_divergence(logprobs[starts], targets.labels[starts], later, teacher, shared, kind, beta)
    return hard, (targets.soft_weights[starts] * values).sum()


def _chunk_ends(counts: Tensor, size: int) -> list[int]:
    """Where chunks of at least `size` positions end, none inside a span."""
    ends: list[int] = []
    reach = 0
    for at, count in enumerate(counts.tolist()):
        if at - (ends[-1] if ends else 0) >= size and at >= reach:
            ends.append(at)
        reach = max(reach, at + count)
    return [*ends, len(counts)]


class _ChunkedLoss(torch.autograd.Function):
    """A summed loss over chunks of logits, each turned into its gradient before the next one is made."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None,
        loss: Callable[[Tensor, slice], tuple[Tensor, Tensor]], ends: list[int],
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        device = hidden.device.type
        wanted = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        with torch.autocast(device, enabled=False):
            states, head = hidden.detach().to(wanted), weight.detach().to(wanted)
            grad_hidden, grad_weight = torch.empty_like(states), None
            if ctx.needs_input_grad[1]:
                grad_weight = torch.zeros_like(weight, dtype=torch.float32)
            grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
            sums = torch.zeros(2, device=hidden.device)
            start = 0
            for end in ends:
                part = slice(start, end)
                with torch.enable_grad():
                    products = (states[part] @ head.T).float()
                    products = (products if bias is None else products + bias.detach().float()).requires_grad_()
                    hard, soft = loss(products, part)
                    (gradient,) = torch.autograd.grad(hard + soft, products)
                sums += torch.stack([hard.detach(), soft.detach()])
                if grad_bias is not None:
                    grad_bias += gradient.sum(0)
                torch.mm(gradient.to(wanted), head, out=grad_hidden[part])
                if grad_weight is not None:
                    grad_weight += gradient.to(wanted).T @ states[part]
                start = end
        ctx.grads = (
            grad_hidden.to(hidden.dtype) if ctx.needs_input_grad[0] else None,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
        )
        hard_sum, soft_sum = sums.unbind()
        ctx.mark_non_differentiable(hard_sum, soft_sum)
        return sums.sum(), hard_sum, soft_sum

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Any, ...]:
        grads = tuple(None if grad is None else grad.mul_(upstream.to(grad.dtype)) for grad in ctx.grads)
        ctx.grads = (None, None, None)
        return (*grads, None, None)


def whole_span_losses(
    student: Tensor,
    teacher: Tensor,
    *,
    first: Tensor,
    later: Tensor,
    teacher_first: Tensor,
    teacher_later: Tensor,
    pairs: tuple[Tensor, Tensor],
    method: str,
    kind: Divergence,
    beta: float,
) -> Tensor:
    """The losses from both whole distributions.

    Args:
        student: (m, vocab) float32 log-probs at the start of each span.
        teacher: (m, teacher's vocab) float32 log-probs there, no gradient flows into it.
        first: (m,) int64, the student's first token of each span.
        later: (m,) float32, log-prob of its later tokens.
        teacher_first: (m,) int64, the teacher's first token.
        teacher_later: (m,) float32, log-prob of its later tokens.
        pairs: The shared tokens, (s,) int64 ids of the student and (s,) of the teacher.
        method: `gold` or `uld`.
        kind: Divergence of `gold`.
        beta: Weight of the teacher for `jsd`.

    Returns:
        (m,) float32.
    """
    ours, theirs = pairs
    probs = teacher.exp()
    if method == "uld":
        ids = torch.zeros((len(teacher), 0), dtype=torch.int64, device=teacher.device)
        nothing, alone = torch.zeros((len(teacher), 0), device=teacher.device), probs
    else:
        ids, nothing = ours.expand(len(teacher), -1), teacher[:, theirs]
        alone = probs.index_fill(1, theirs, 0.0)
    place = torch.full((teacher.shape[1],), -1, dtype=torch.int64, device=teacher.device).index_put_((theirs,), ours)
    spans = TeacherSpans(
        ids=ids, logprobs=nothing, outside=alone.sum(1), alone=alone.sort(1, descending=True).values,
        text=teacher.gather(1, teacher_first[:, None])[:, 0] + teacher_later, first=place[teacher_first], whole=True,
    )  # fmt: skip
    if method == "uld":
        return uld_distance(student, spans)
    shared = torch.zeros(student.shape[1], dtype=torch.bool, device=student.device).index_fill_(0, ours, True)
    return gold_divergence(student, first, later, spans, shared, kind, beta)
