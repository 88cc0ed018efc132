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
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if kind == "classification":
        with torch.no_grad():
            wanted = teacher(**inputs).logits.float().softmax(-1)
        logits = model(**inputs).logits
        loss = label_divergence(logits, wanted, temperature).mean()
        return loss + hard_cross_entropy(logits, batch["labels"]).mean() if "labels" in batch else loss
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        theirs = teacher.base_model(**inputs, use_cache=False).last_hidden_state[real]
    ours = model.base_model(**inputs, use_cache=False).last_hidden_state[real]
    head = model.get_output_embeddings()
    loss = full_divergence(ours, head.weight, theirs, teacher.get_output_embeddings().weight, temperature)
    loss = loss / len(ours)
    if hidden_weight:
        loss = loss + hidden_weight * direction_loss(ours, theirs, torch.ones(len(ours), device=ours.device)) / len(
            ours
        )
    return loss
