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

_CHUNK_BYTES = 48 * 2**20


def full_divergence(
    hidden: Tensor, weight: Tensor, teacher_hidden: Tensor, teacher_weight: Tensor, temperature: float = 1.0,
    chunk: int | None = None,
) -> Tensor:  # fmt: skip
    """T² Σ KL(teacher ‖ student) over n positions.

    Args:
        hidden: (n, d) float, the student's last hidden states.
        weight: (vocab, d) float, its output embedding.
        teacher_hidden: (n, d') float, the teacher's at the same positions.
        teacher_weight: (vocab, d') float.
        temperature: T > 0.
        chunk: Positions whose logits exist at a time; None takes as many as fit 48 MiB.

    Returns:
        Scalar float32, nats.

    Raises:
        ValueError: temperature <= 0, or shapes that do not fit.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if len(hidden) != len(teacher_hidden) or weight.shape[0] != teacher_weight.shape[0]:
        raise ValueError(
            f"{len(hidden)} and {len(teacher_hidden)} positions, {weight.shape[0]} and {teacher_weight.shape[0]} "
            "tokens; student and teacher need the same"
        )
    rows = chunk or max(16, _CHUNK_BYTES // (4 * weight.shape[0]))
    value: Tensor = _FullDivergence.apply(  # type: ignore[no-untyped-call]
        hidden, weight, teacher_hidden, teacher_weight, temperature, rows
    )
    return value


class _FullDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, teacher_hidden: Tensor, teacher_weight: Tensor, temperature: float,
        rows: int,
    ) -> Tensor:  # fmt: skip
        states, head = hidden.detach(), weight.detach()
        grad_hidden = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(head, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        total = torch.zeros((), device=hidden.device)
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            teacher = (teacher_hidden[part].to(teacher_weight.dtype) @ teacher_weight.T).float().div_(temperature)
            teacher = teacher.log_softmax(-1)
            student = (states[part] @ head.T).float().div_(temperature).log_softmax(-1)
            wanted = teacher.exp()
            total += (wanted * teacher.sub_(student)).sum()
            gradient = student.exp_().sub_(wanted).mul_(temperature).to(head.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, head, out=grad_hidden[part])
            if grad_weight is not None:
                grad_weight += gradient.T @ states[part]
        ctx.grads = grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype)
        return total * temperature**2

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        grads = tuple(None if grad is None else grad.mul_(upstream.to(grad.dtype)) for grad in ctx.grads)
        ctx.grads = (None, None)
        return (*grads, None, None, None, None)
