"""How wrong a model is on calibration text, and its gradient with respect to gates: the measure of every importance.

A causal model is asked for each next token; its logits exist for a few hundred positions at a time. A classifier is
asked for the labels, or, where the text has none, for what it said before anything was taken from it (`with_answers`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

from potstill.train.calibration_data import Calibration
from potstill.train.prune.stream import inputs_of

_POSITIONS = 512


def small_batches(calibration: Calibration, tokens: int = _POSITIONS) -> Iterator[dict[str, torch.Tensor]]:
    """The same rows in batches of at most `tokens` padded tokens (one row at least), cut to their longest row."""
    for batch in calibration.batches:
        rows, length = batch["input_ids"].shape
        size = max(1, tokens // length)
        for start in range(0, rows, size):
            part = {name: value[start : start + size] for name, value in batch.items()}
            end = int(part["attention_mask"].any(0).nonzero().max()) + 1
            yield {name: value[:, :end] if value.dim() == 2 else value for name, value in part.items()}


def losses(model: Any, batch: dict[str, torch.Tensor], kind: str) -> torch.Tensor:
    """Cross-entropy of each row, differentiable: (rows,) float32, nats a token (causal) or a row."""
    inputs = inputs_of(batch, model)
    if kind == "classification":
        logits = model(**inputs).logits.float()
        return F.cross_entropy(logits, batch["labels"].to(logits.device), reduction="none")
    logits = model(**inputs, use_cache=False).logits[:, :-1].float()
    labels = batch.get("labels", batch["input_ids"])[:, 1:].to(logits.device)
    counted = inputs["attention_mask"][:, 1:].bool() & (labels >= 0)
    each = F.cross_entropy(logits.transpose(1, 2), labels.masked_fill(~counted, 0), reduction="none")
    return (each * counted).sum(1) / counted.sum(1).clamp(min=1)


@torch.no_grad()
def with_answers(model: Any, calibration: Calibration) -> Calibration:
    """The same texts, those of a classifier with the labels that the model gives them now where they have none.

    Asked of a model that parts are taken from, its own answers would reward whatever makes it sure of anything.
    """
    if calibration.kind == "causal" or all("labels" in batch for batch in calibration.batches):
        return calibration
    answered = []
    for batch in calibration.batches:
        labels = batch["labels"] if "labels" in batch else model(**inputs_of(batch, model)).logits.argmax(-1).cpu()
        answered.append({**batch, "labels": labels})
    return Calibration(tuple(answered), calibration.kind)


@torch.no_grad()
def mean_loss(model: Any, calibration: Calibration, tokens: int = _POSITIONS) -> float:
    """Mean over rows of `losses`."""
    total, rows = 0.0, 0
    for batch in small_batches(calibration, tokens):
        found = losses(model, batch, calibration.kind)
        total += float(found.sum())
        rows += len(found)
    return total / max(rows, 1)
