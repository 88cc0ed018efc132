"""What a training gives. Kept apart from the trainers, which load torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DistilResult:
    """A trained student.

    Attributes:
        path: Its folder, which `load_student` and plain transformers load.
        history: One entry an evaluation: epoch, step, train_loss, validation_loss, score, seconds (figures that
            were not measured are None).
        report: Resolved options, counts of rows, best step, seconds; JSON types.
    """

    path: Path
    history: list[dict[str, Any]]
    report: dict[str, Any] = field(default_factory=dict)
