"""KL over a whole vocabulary, from the hidden states of two models, without keeping the logits.

What enters: hidden states of the same positions and the two output embeddings. What leaves: the summed divergence,
with gradients for the student's states and embedding. With q the teacher's softmax and p the student's at T,

    L = T² Σ q (log q − log p)        dL/dz = T (p − q)

A chunk of logits is made, turned into its own gradient and multiplied back at once, so at most two chunks exist.

Source: arXiv:1503.02531 §2. `potstill.train.head_loss` does the same for the k likeliest tokens that were stored.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from potstill.train.output_head import Form, OutputHead, products

_CHUNK_BYTES = 48 * 2**20


def full_divergence(
    hidden: Tensor, head: OutputHead, teacher_hidden: Tensor, teacher_head: OutputHead, temperature: float = 1.0,
    chunk: int | None = None,
) -> Tensor:  # fmt: skip
    """T² Σ KL(teacher ‖ student) over n positions.

    Args:
        hidden: (n, d) float, the student's last hidden states.
        head: Its output projection, of (vocab, d).
        teacher_hidden: (n, d') float, the teacher's at the same positions.
        teacher_head: The teacher's, of (vocab, d').
        temperature: T > 0.
        chunk: Positions whose logits exist at a time; None takes as many as fit 48 MiB.

    Returns:
        Scalar float32, nats.

    Raises:
        ValueError: temperature <= 0, or shapes that do not fit.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if len(hidden) != len(teacher_hidden) or len(head) != len(teacher_head):
        raise ValueError(
            f"{len(hidden)} and {len(teacher_hidden)} positions, {len(head)} and {len(teacher_head)} "
            "tokens; student and teacher need the same"
        )
    rows = chunk or max(16, _CHUNK_BYTES // (4 * len(head)))
    value: Tensor = _FullDivergence.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, head.form, teacher_hidden, teacher_head, temperature, rows
    )
    return value


class _FullDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, form: Form, teacher_hidden: Tensor,
        teacher_head: OutputHead, temperature: float, rows: int,
    ) -> Tensor:  # fmt: skip
        states, head = hidden.detach(), weight.detach()
        grad_hidden = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(head, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        total = torch.zeros((), device=hidden.device)
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            teacher = teacher_head.logits(teacher_hidden[part]).div_(temperature).log_softmax(-1)
            logits = products(states[part], head, bias, form)
            slope = form.slope(logits)
            student = logits.div_(temperature).log_softmax(-1)
            wanted = teacher.exp()
            total += (wanted * teacher.sub_(student)).sum()
            gradient = form.unbend(student.exp_().sub_(wanted).mul_(temperature), slope)
            if grad_bias is not None:
                grad_bias += gradient.sum(0)
            gradient = gradient.to(head.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, head, out=grad_hidden[part])
            if grad_weight is not None:
                grad_weight += gradient.T @ states[part]
        ctx.grads = (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
        )
        return total * temperature**2

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        grads = tuple(None if grad is None else grad.mul_(upstream.to(grad.dtype)) for grad in ctx.grads)
        ctx.grads = (None, None, None)
        return (*grads, None, None, None, None, None)
