"""The tokens that a compression method looks at: batches ready for a model, and what kind of model they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class Calibration:
    """Texts as token ids, in batches.

    Attributes:
        batches: Each a mapping of `input_ids` and `attention_mask`, both (batch, length) int64, and for methods that
            learn `labels`: (batch,) int64 for a classifier, (batch, length) int64 with -100 for a causal model.
        kind: Kind of the model that they are for.
    """

    batches: tuple[dict[str, torch.Tensor], ...]
    kind: Literal["classification", "causal"]

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return sum(int(batch["attention_mask"].sum()) for batch in self.batches)
