"""The token losses from hidden states, without keeping the logits or any copy of them.

What enters: hidden states of the target positions, the head's weight, labels, stored top-k targets. What leaves:
the weighted sum of hard and soft losses, with gradients for hidden states and weight.

A plain graph would keep (n, vocab) tensors for the log-softmax, the gather, the tail and their gradients. Here the
logits of a chunk are made once and turned into their own gradient in place: with p the student's softmax, a the
gradient of the divergence with respect to the k + 1 bucket log-probs and A its sum,

    dL/dz_j = w_h (p_j − [j = y]) + w_s T (a_j [j in top] + a_tail p_j / p_tail [j in tail] − A p_j)

so every token of the tail is scaled by one factor a row, and only k + 1 entries are touched one by one. The tail's
mass is summed over the tail itself, not taken as 1 − Σ top, which in float32 has no digits left when the top k
hold nearly all of it. `potstill.train.losses` is the dense reference that the tests compare with.

Sources: arXiv:1503.02531 §2 (temperature); arXiv:2306.13649 §3 (divergences).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from potstill.train.losses import NEVER, bucket_logprobs, divergence, drawn_reverse_kl
from potstill.train.options import Divergence
from potstill.train.output_head import PLAIN, Form, products

_CHUNK_BYTES = 64 * 2**20
_SMALLEST_TAIL = 1e-30


@dataclass(frozen=True)
class TokenTargets:
    """What the student should give at each of n target positions.

    Attributes:
        labels: (n,) int64, the token that stands there.
        hard_weights: (n,) float32, factor of the cross-entropy.
        soft_weights: (n,) float32, factor of the divergence; 0 where there is no stored target.
        top_ids: (n, k) int64; the first place is used, unused places hold any id.
        top_logprobs: (n, k) float32 at T = 1; −inf marks an unused place.
        tail: (n,) float32, log Σ exp(logprob / T) of all other tokens.
        drawn: (n,) bool, where the first of `top_ids` is a token that the student drew from the tail, for a reverse KL
            of the whole vocabulary on average (`losses.drawn_reverse_kl`); None for the divergence over the events.
    """

    labels: Tensor
    hard_weights: Tensor
    soft_weights: Tensor
    top_ids: Tensor
    top_logprobs: Tensor
    tail: Tensor
    drawn: Tensor | None = None

    def part(self, place: slice) -> TokenTargets:
        """Some of the positions."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        some: dict[str, Any] = {name: None if value is None else value[place] for name, value in told.items()}
        return TokenTargets(**some)


def target_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: TokenTargets,
    *,
    temperature: float = 1.0,
    kind: Divergence = "forward_kl",
    beta: float = 0.5,
    bias: Tensor | None = None,
    form: Form = PLAIN,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Σ hard_weight · CE + Σ soft_weight · T² · divergence over the target positions.

    Args:
        hidden: (n, d) float, last hidden states of the positions that predict the targets.
        weight: (vocab, d) float, the output embedding.
        targets: Labels, stored targets and weights.
        temperature: T of the soft term.
        kind: Divergence of the soft term.
        beta: Weight of the teacher for `jsd`.
        bias: (vocab,) float, the output embedding's, where it has one.
        form: What the model does to the product.
        chunk: Positions whose logits exist at a time; None takes as many as fit 64 MiB.

    Returns:
        Scalar float32 loss, and the detached sums of its hard and its soft part.

    Raises:
        ValueError: temperature <= 0, or numbers of positions that differ.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if len(targets.labels) != len(hidden) or len(targets.top_ids) != len(hidden):
        raise ValueError(
            f"{len(hidden)} positions, {len(targets.labels)} labels and {len(targets.top_ids)} stored targets; "
            "the numbers must be equal"
        )
    rows = chunk or max(16, _CHUNK_BYTES // (4 * weight.shape[0]))
    loss, hard, soft = _TargetLoss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, form, targets, temperature, kind, beta, rows
    )
    return loss, hard, soft


class _TargetLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, form: Form, targets: TokenTargets,
        temperature: float, kind: Divergence, beta: float, rows: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        device = hidden.device.type
        wanted = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        with torch.autocast(device, enabled=False):
            states, head = hidden.detach().to(wanted), weight.detach().to(wanted)
            grad_hidden = torch.empty_like(states) if ctx.needs_input_grad[0] else None
            grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
            grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
            sums = torch.zeros(2, device=hidden.device)
            for start in range(0, len(states), rows):
                part = slice(start, start + rows)
                logits = products(states[part], head, bias, form)
                slope = form.slope(logits)
                gradient, hard, soft = _chunk_gradient(logits, targets.part(part), temperature, kind, beta)
                gradient = form.unbend(gradient, slope)
                sums += torch.stack([hard, soft])
                if grad_bias is not None:
                    grad_bias += gradient.sum(0)
                if grad_hidden is not None or grad_weight is not None:
                    gradient = gradient.to(wanted)
                if grad_hidden is not None:
                    torch.mm(gradient, head, out=grad_hidden[part])
                if grad_weight is not None and wanted == torch.float32:
                    grad_weight.addmm_(gradient.T, states[part])
                elif grad_weight is not None:
                    grad_weight += gradient.T @ states[part]
        ctx.grads = (
            None if grad_hidden is None else grad_hidden.to(hidden.dtype),
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
        )
        ctx.mark_non_differentiable(sums)
        hard_sum, soft_sum = sums.unbind()
        ctx.mark_non_differentiable(hard_sum, soft_sum)
        return sums.sum(), hard_sum, soft_sum

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Any, ...]:
        grads = tuple(None if grad is None else grad.mul_(upstream.to(grad.dtype)) for grad in ctx.grads)
        ctx.grads = (None, None, None)
        return (*grads, None, None, None, None, None, None)


def _chunk_gradient(
    logits: Tensor, targets: TokenTargets, temperature: float, kind: Divergence, beta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of a chunk's loss, written over its logits, with the hard and the soft sum."""
    if temperature == 1.0:
        return _at_temperature(logits, targets, targets.hard_weights, targets.soft_weights, 1.0, kind, beta)
    none = torch.zeros_like(targets.hard_weights)
    hard_gradient, hard, _ = _at_temperature(logits.clone(), targets, targets.hard_weights, none, 1.0, kind, beta)
    gradient, _, soft = _at_temperature(logits, targets, none, targets.soft_weights, temperature, kind, beta)
    return gradient.add_(hard_gradient), hard, soft


def _at_temperature(
    logits: Tensor, targets: TokenTargets, hard_weights: Tensor, soft_weights: Tensor, temperature: float,
    kind: Divergence, beta: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    labels, top_ids = targets.labels[:, None], targets.top_ids
    used = targets.top_logprobs > -torch.inf
    if temperature != 1.0:
        logits.div_(temperature)
    logits.sub_(logits.amax(1, keepdim=True))
    at_label, at_top = logits.gather(1, labels)[:, 0], logits.gather(1, top_ids)
    exps = logits.exp_()
    exp_top = at_top.exp() * used
    exps.scatter_(1, top_ids.where(used, top_ids[:, :1]), 0.0)
    exp_tail = exps.sum(1).clamp(min=_SMALLEST_TAIL)
    total = exp_tail + exp_top.sum(1)
    log_total = total.log()

    cross_entropy = log_total - at_label
    student = torch.cat(
        [(at_top - log_total[:, None]).masked_fill(~used, NEVER), (exp_tail.log() - log_total)[:, None]], 1
    )
    value, slope = _bucket_divergence(
        student, bucket_logprobs(targets.top_logprobs, targets.tail, temperature), kind, beta, targets.drawn
    )
    soft_slope = soft_weights * temperature
    slope = slope * soft_slope[:, None]
    pull = hard_weights - slope.sum(1)
    at_top_gradient = exp_top * (pull / total)[:, None] + slope[:, :-1] * used
    exps.mul_((pull / total + slope[:, -1] / exp_tail)[:, None])
    exps.scatter_add_(1, top_ids, at_top_gradient)
    exps.scatter_add_(1, labels, -hard_weights[:, None])
    hard = (hard_weights * cross_entropy).sum()
    soft = (soft_weights * temperature**2 * value).masked_fill(soft_weights == 0, 0.0).sum()
    return exps, hard, soft


def _bucket_divergence(
    student: Tensor, teacher: Tensor, kind: Divergence, beta: float, drawn: Tensor | None
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = student.detach().requires_grad_()
        value = (
            drawn_reverse_kl(leaf, teacher, drawn)
            if drawn is not None and kind == "reverse_kl"
            else divergence(leaf, teacher, kind, beta)
        )
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), slope
