"""Rows that start together are written together, with the library's own cache: for models whose layers keep a state.

A state (of a linear attention, a convolution) has no position for each token, so a row cannot join others halfway as in
`decoder`. Rows that were read in one pass make a wave; each wave steps for itself, and rows that have ended leave it.
New rows are let in when half of the room is free, so that a step is few passes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from potstill.decoding.batch import Batch, Row, keeps_logprobs
from potstill.decoding.model import cache_argument


@dataclass
class _Wave:
    """Rows in step.

    Attributes:
        rows: Those under way.
        cache: The library's, a row each.
        mask: (rows, tokens so far) int64, 0 on the padding at the left.
    """

    rows: list[Row]
    cache: Any
    mask: torch.Tensor


class Waves(Batch):
    """Rows in waves, for a model that the library can batch."""

    def __init__(
        self, model: Any, tokenizer: Any, slots: int, positions: int, ends: frozenset[int] | None = None, *, pads: bool
    ):
        """Args: as those of `Batch`, and
        pads: Whether prompts of different lengths can be read in one pass, with padding at the left.
        """
        super().__init__(model, tokenizer, slots, positions, ends)
        self._pads = pads
        self._waves: list[_Wave] = []

    def fits(self, row: Row, joining: Sequence[Row] = ()) -> bool:
        """Whether a row may join now; none may while more than half of the slots are taken."""
        return 2 * len(self.rows) <= self._slots and super().fits(row, joining)

    def beside(self, size: int, other: int) -> bool:
        """Whether rows with so many tokens to be read can be read in one pass."""
        return self._pads or size == other

    def clear(self) -> None:
        """Leave all rows unfinished."""
        self.rows.clear()
        self._waves.clear()

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Read the prompts of new rows as a wave and choose their first tokens."""
        ids, mask = left_padded([row.prompt for row in rows], self._pad, self._model.device)
        wave = _Wave(list(rows), new_cache(self._model), mask)
        self._waves.append(wave)
        self.rows.extend(rows)
        self._pass(wave, ids, first=True)
        return self._ended()

    @torch.inference_mode()
    def step(self) -> Iterator[Row]:
        """One more token for every row; the rows that ended with it."""
        for wave in self._waves:
            wave.mask = torch.cat([wave.mask, wave.mask.new_ones(len(wave.rows), 1)], dim=1)
            self._pass(wave, [[row.tokens[-1]] for row in wave.rows], first=False)
        return self._ended()

    def _pass(self, wave: _Wave, ids: list[list[int]], *, first: bool) -> None:
        with self._head.using(keep=1, precise=keeps_logprobs(wave.rows)):
            logits = read_on(self._model, wave.cache, ids, wave.mask, first=first)
        self._choose(wave.rows, logits[:, -1].float())

    def _ended(self) -> Iterator[Row]:
        """Take ended rows out of their waves."""
        ended: list[Row] = []
        for wave in self._waves:
            stay = [place for place, row in enumerate(wave.rows) if row.finish is None]
            if len(stay) == len(wave.rows):
                continue
            ended += [row for row in wave.rows if row.finish is not None]
            wave.rows = [wave.rows[place] for place in stay]
            if stay:
                index = torch.tensor(stay, device=wave.mask.device)
                wave.cache.reorder_cache(index)
                wave.mask = wave.mask[index]
        self._waves = [wave for wave in self._waves if wave.rows]
        self.rows = [row for wave in self._waves for row in wave.rows]
        return iter(ended)


def left_padded(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> tuple[list[list[int]], torch.Tensor]:
    """Rows of one length, and (n, longest) int64, 0 on what was filled up at the left."""
    left = [max(map(len, rows)) - len(row) for row in rows]
    ids = [[fill] * count + list(row) for count, row in zip(left, rows, strict=True)]
    mask = [[0] * count + [1] * len(row) for count, row in zip(left, rows, strict=True)]
    return ids, torch.tensor(mask, device=device)


def read_on(model: Any, cache: Any, ids: list[list[int]], mask: torch.Tensor, *, first: bool) -> torch.Tensor:
    """Logits of a pass over the next tokens of each row, as the library's own loop makes it.

    Args:
        model: The model.
        cache: From `new_cache`; it grows.
        ids: The new tokens, as many a row.
        mask: (rows, all tokens so far) int64, 0 on the padding at the left.
        first: Whether nothing was read before.
    """
    length = len(ids[0])
    told: dict[str, Any] = cache_argument(model, cache)
    if "position_ids" in inspect.signature(type(model).forward).parameters:
        told["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -length:]
    inputs = model.prepare_inputs_for_generation(
        torch.tensor(ids, device=mask.device), next_sequence_length=length, attention_mask=mask, use_cache=True,
        is_first_iteration=first, **told,
    )  # fmt: skip
    logits: torch.Tensor = model(**inputs).logits
    return logits


def new_cache(model: Any) -> Any:
    """An empty cache of the library's, with what each layer of a model keeps."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config.get_text_config(decoder=True))
