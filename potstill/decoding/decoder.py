"""Continuous batching for a model in this process: rows leave the batch when they end, new ones join the rest.

What enters is one row a request, as tokens with its sampling rules; what leaves is the row when it has ended. Rows
stay packed at the front of the key-value slots, so a step costs what the rows at work cost, and a long reply does
not hold the short ones back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from potstill.decoding.batch import Batch, Row, keeps_logprobs
from potstill.decoding.model import Slots, attention_masks, cache_argument, padded
from potstill.decoding.prefixes import Prefixes


class Decoder(Batch):
    """Rows in key-value slots, for a model with plain attention."""

    def __init__(self, model: Any, tokenizer: Any, slots: int, positions: int, ends: frozenset[int] | None = None):
        """Args: as those of `Batch`."""
        super().__init__(model, tokenizer, slots, positions, ends)
        self._cache = Slots(model.config.get_text_config(decoder=True).num_hidden_layers, slots)
        # Many small copies, which a GPU is slow at while it reads fast; there it has not been measured, so it is off.
        self._shares = model.device.type == "cpu"
        self._prefixes = Prefixes(positions // 8 if self._shares else 0)

    def unread(self, row: Row) -> int:
        """Tokens of a row's prompt that are to be read: all but those that it begins with like an earlier one."""
        return len(row.prompt) - self._prefixes.longest(row.prompt)

    def clear(self) -> None:
        """Leave all rows unfinished."""
        self.rows.clear()

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Read the prompts of new rows (several of like length at once) and choose their first tokens."""
        if not self.rows:
            self._cache.release()
        first, device = len(self.rows), self._model.device
        # Of rows with one prompt the first is read, the others are copies of it.
        origins = list(range(len(rows)))
        seen: dict[tuple[int, ...], int] = {}
        for place, row in enumerate(rows if self._shares else ()):
            origins[place] = seen.setdefault(tuple(row.prompt), place)
        places = sorted(set(origins))
        starts = [self._prefixes.longest(rows[place].prompt) for place in places]
        reach = max(starts) + max(len(rows[place].prompt) - start for place, start in zip(places, starts, strict=True))
        self._cache.reserve(max(reach, *(row.needs for row in rows)))
        for place in places:
            self._prefixes.fill(self._cache, first + place, rows[place].prompt)
        slots = [first + place for place in places]
        logits = self._read([rows[place].prompt for place in places], slots, starts, precise=keeps_logprobs(rows))
        for place, origin in enumerate(origins):
            length = len(rows[place].prompt)
            if place == origin:
                self._prefixes.keep(self._cache, first + place, rows[place].prompt)
            else:
                self._cache.fill(first + place, self._cache.saved(first + origin, length), length)
        logits = logits[torch.tensor([places.index(origin) for origin in origins], device=device)]
        self.rows.extend(rows)
        self._choose(rows, logits[:, -1].float())
        return self._ended()

    def _read(
        self, prompts: Sequence[Sequence[int]], slots: Sequence[int], starts: Sequence[int], *, precise: bool
    ) -> torch.Tensor:
        """Logits after each prompt, of which the first `starts` positions are in its slot: (n, 1, vocabulary)."""
        device = self._model.device
        ids = padded([prompt[start:] for prompt, start in zip(prompts, starts, strict=True)], self._pad, device)
        begin, reach = torch.tensor(starts, device=device), max(starts) + ids.shape[1]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device) - begin
        positions = begin.unsqueeze(1) + torch.arange(ids.shape[1], device=device)
        # Right-padded: no real token comes after a padding one, so the causal mask hides it.
        distance = (positions.unsqueeze(2) - torch.arange(reach, device=device)).unsqueeze(1)
        self._cache.prefill(torch.tensor(slots, device=device), begin, reach)
        with self._head.using(lengths - 1, precise=precise):
            logits: torch.Tensor = self._model(
                input_ids=ids,
                attention_mask=attention_masks(self._model, distance >= 0, distance),
                position_ids=positions,
                use_cache=True,
                **cache_argument(self._model, self._cache),
            ).logits
        return logits

    @torch.inference_mode()
    def step(self) -> Iterator[Row]:
        """One more token for every row; the rows that ended with it."""
        rows, device = self.rows, self._model.device
        positions = torch.tensor([len(row.prompt) + len(row.tokens) - 1 for row in rows], device=device)
        self._cache.step(positions)
        reach = torch.arange(int(positions.max()) + 1, device=device)
        distance = (positions.unsqueeze(1) - reach).view(len(rows), 1, 1, -1)
        with self._head.using(precise=keeps_logprobs(rows)):
            logits = self._model(
                input_ids=torch.tensor([[row.tokens[-1]] for row in rows], device=device),
                attention_mask=attention_masks(self._model, distance >= 0, distance),
                position_ids=positions.unsqueeze(1),
                use_cache=True,
                **cache_argument(self._model, self._cache),
            ).logits
        self._choose(rows, logits[:, -1].float())
        return self._ended()

    def _ended(self) -> Iterator[Row]:
        """Take ended rows out, from the back, so that each gap is filled by a row that stays."""
        ended = []
        for place in range(len(self.rows) - 1, -1, -1):
            if self.rows[place].finish is not None:
                ended.append(self.rows[place])
                last = len(self.rows) - 1
                self._cache.drop(place, last)
                self.rows[place] = self.rows[last]
                self.rows.pop()
        return reversed(ended)
