"""The confidence of a classifier, put right on held-out rows: one temperature for all logits.

A student that fitted its labels is surer than it is right. Dividing its logits by one number changes no answer; the
number is the one under which the held-out labels are likeliest. It is folded into the last linear layer, so that the
saved student needs no code of ours.

Few held-out rows say little, so the fit is drawn towards 1 by as many rows' worth of doubt (`_DOUBT_ROWS`).

Source: Guo et al., arXiv:1706.04599 §4.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from potstill.train import metrics

_DOUBT_ROWS = 5.0
_GRID = np.exp(np.linspace(np.log(0.25), np.log(10.0), 149))


def fit_temperature(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """The temperature under which `targets` are likeliest.

    Args:
        logits: (n, labels).
        targets: (n, labels), rows sum to 1: a one-hot label, or a teacher's distribution.

    Returns:
        A number in [0.25, 10]; 1 without rows.
    """
    losses = [_loss(logits / t, targets) * len(logits) + _DOUBT_ROWS * np.log(t) ** 2 for t in _GRID]
    return float(_GRID[int(np.argmin(losses))]) if len(logits) else 1.0


def held_out_figures(
    logits: NDArray[np.float64], labels: NDArray[np.int64], probs: NDArray[np.float32]
) -> dict[str, Any]:
    """How a student does on held-out rows.

    Args:
        logits: (n, labels).
        labels: (n,), −1 where a row has the teacher's distribution only.
        probs: (n, labels) of the teacher, read where there is no label.

    Returns:
        `rows`, `score` (macro-F1), `temperature`, and before and after it: `loss` and `calibrated_loss`
        (cross-entropy, nats), `ece` and `calibrated_ece`.
    """
    count = logits.shape[1]
    gold = np.where(labels >= 0, labels, probs.argmax(1))
    targets = np.where(labels[:, None] >= 0, np.eye(count)[gold], probs)
    temperature = fit_temperature(logits, targets)
    figures: dict[str, Any] = {
        "rows": len(labels),
        "score": float(metrics.macro_f1(metrics.confusion(gold, logits.argmax(1), count))),
        "temperature": round(temperature, 4),
    }
    for name, scaled in (("", logits), ("calibrated_", logits / temperature)):
        figures[f"{name}loss"] = _loss(scaled, targets)
        figures[f"{name}ece"] = metrics.expected_calibration_error(gold, np.exp(_log_softmax(scaled)))
    return figures


def divide_logits(model: Any, temperature: float, labels: int) -> bool:
    """Fold a temperature into the last linear layer of a classifier; False where it has none.

    That layer is looked for outside of the body, which XLM-R, say, names after its head.
    """
    base = getattr(model, "base_model", None)
    body = set() if base is None or base is model else set(base.modules())
    last = next((m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear) and m not in body), None)
    if last is None or last.out_features != labels:
        return False
    with torch.no_grad():
        last.weight.div_(temperature)
        if last.bias is not None:
            last.bias.div_(temperature)
    return True


def _loss(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    return float(-(targets * _log_softmax(logits)).sum(1).mean()) if len(logits) else 0.0


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    top = logits - logits.max(1, keepdims=True)
    return np.asarray(top - np.log(np.exp(top).sum(1, keepdims=True)), dtype=np.float64)
