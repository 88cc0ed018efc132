"""What generation gives, for every way of generating."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from potstill.rows import Dropped

if TYPE_CHECKING:
    from datasets import Dataset

PURPOSE = "datagen"


@dataclass(frozen=True)
class GenerationResult:
    """What generation gives.

    Attributes:
        rows: The kept rows.
        dropped: What was refused, each with its reason.
        report: Counts, yields, balance and diversity, as JSON types.
        token_targets: Top-k log-probs of the outputs by row id (see `token_targets`), or None.
    """

    rows: Dataset
    dropped: tuple[Dropped, ...]
    report: dict[str, Any]
    token_targets: Dataset | None = None
