"""What a student hears from a teacher that is at hand: its answers to texts, batch after batch.

    causal          KL(teacher ‖ student) · T² at every position, plus c · (1 − cos of the last hidden states)
    classification  KL(teacher ‖ student) · T² on the logits, plus the cross-entropy with the labels where there are any

Sources: Hinton et al., arXiv:1503.02531 §2; Sanh et al., arXiv:1910.01108 §3 (cosine of hidden states).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from potstill.train.calibration_data import Calibration
from potstill.train.full_divergence import full_divergence
from potstill.train.losses import hard_cross_entropy, label_divergence
from potstill.train.output_head import head_of
from potstill.train.uncut import direction_loss


def fresh_batches(data: Calibration, seed: int = 0) -> Iterator[dict[str, torch.Tensor]]:
    """Batches without end: each once before any comes again, every round in another order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for index in torch.randperm(len(data.batches), generator=generator).tolist():
            yield data.batches[index]


def answer_loss(
    model: Any, teacher: Any, batch: dict[str, torch.Tensor], kind: str, temperature: float, hidden_weight: float
) -> torch.Tensor:
    """How far a student's answers to one batch are from its teacher's, differentiable.

    Args:
        model: The student.
        teacher: Whom it listens to; no gradient flows there.
        batch: `input_ids`, `attention_mask`, and for a classifier `labels` where there are any.
        kind: `causal` or `classification`.
        temperature: T of the soft targets.
        hidden_weight: Weight of 1 - cos of the last hidden states (causal).

    Returns:
        Scalar float32, nats a token (causal) or a row.
    """
    return heard(model, teacher, batch, kind, temperature, hidden_weight)[0]


States = tuple[torch.Tensor, ...]


def heard(
    model: Any, teacher: Any, batch: dict[str, torch.Tensor], kind: str, temperature: float,
    hidden_weight: float = 0.0, *, states: bool = False,
) -> tuple[torch.Tensor, States, States]:  # fmt: skip
    """`answer_loss`, and with `states` the outputs of every layer of student and teacher, from the same forward passes.

    Returns:
        The loss, and twice a tuple of (real tokens, width) float, one a layer; empty without `states`.
    """
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    real = inputs["attention_mask"].bool()
    causal = kind == "causal"
    ask = {**inputs, "output_hidden_states": states, **({"use_cache": False} if causal else {})}
    with torch.no_grad():
        theirs = (teacher.base_model if causal else teacher)(**ask)
    ours = (model.base_model if causal else model)(**ask)
    if causal:
        loss = _causal(model, teacher, ours.last_hidden_state[real], theirs.last_hidden_state[real], temperature)
        if hidden_weight:
            last, goal = ours.last_hidden_state[real], theirs.last_hidden_state[real]
            loss = loss + hidden_weight * direction_loss(last, goal, last.new_ones(len(last))) / len(last)
    else:
        loss = label_divergence(ours.logits, theirs.logits.float().softmax(-1), temperature).mean()
        if "labels" in batch:
            loss = loss + hard_cross_entropy(ours.logits, batch["labels"]).mean()
    if not states:
        return loss, (), ()
    mine, wanted = (tuple(state[real] for state in made.hidden_states[1:]) for made in (ours, theirs))
    return loss, mine, wanted


def _causal(model: Any, teacher: Any, ours: torch.Tensor, theirs: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean divergence over positions."""
    return full_divergence(ours, head_of(model), theirs, head_of(teacher), temperature) / len(ours)
