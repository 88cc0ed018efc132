"""Keys and values of what prompts begin with: read once, for all of them.

`Prefixes` keeps prompts read lately, and a prompt that begins like one of them is read from where it differs.
`Beginning` serves one pass over many prompts that all begin alike.

Prompts for one label differ in a subject or in nothing at all. Of the 102 tokens of an average prompt of the support
task, 34 are left to read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch

from potstill.decoding.model import Slots

# A shorter rest is cheaper to read again than to keep.
_LEAST = 8


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two prompts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


class Prefixes:
    """The prompts used last, up to a number of positions."""

    def __init__(self, most: int):
        """Args:
        most: Positions that may be kept, by memory.
        """
        self._most = most
        self._kept: OrderedDict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = OrderedDict()
        self._positions = 0

    def longest(self, prompt: Sequence[int]) -> int:
        """How many first tokens of a prompt need not be read; the last one always is, since its logits are wanted."""
        return self._find(prompt)[1]

    def fill(self, cache: Slots, row: int, prompt: Sequence[int]) -> None:
        """Write these tokens' keys and values into a row of the slots."""
        found, length = self._find(prompt)
        if found is not None:
            self._kept.move_to_end(found)
            cache.fill(row, self._kept[found], length)

    def keep(self, cache: Slots, row: int, prompt: Sequence[int]) -> None:
        """Keep a prompt that was read into a row, unless most of it is kept already."""
        if len(prompt) - self.longest(prompt) < _LEAST or len(prompt) > self._most:
            return
        self._kept[tuple(prompt)] = cache.saved(row, len(prompt))
        self._positions += len(prompt)
        while self._positions > self._most:
            old, _ = self._kept.popitem(last=False)
            self._positions -= len(old)

    def _find(self, prompt: Sequence[int]) -> tuple[tuple[int, ...] | None, int]:
        best, most = None, 0
        for tokens in self._kept:
            length = shared_length(tokens, prompt[:-1])
            if length > most:
                best, most = tokens, length
        return best, most


class Beginning:
    """What all prompts of a batch begin with; duck-types the library's cache.

    The first pass, over the beginning alone, fills it; later passes put it before the keys and values of every row.
    """

    is_compileable = False
    is_sliding = (False,)

    def __init__(self, length: int):
        """Args:
        length: Tokens of the beginning.
        """
        self.length = length
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What a layer's queries look at; called by the model."""
        kept = self._layers.get(layer_idx)
        if kept is None:
            self._layers[layer_idx] = keys, values
            return keys, values
        before_keys, before_values = (tensor.expand(keys.shape[0], -1, -1, -1) for tensor in kept)
        return torch.cat([before_keys, keys], dim=2), torch.cat([before_values, values], dim=2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions before this pass."""
        return self.length if layer_idx in self._layers else 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Key length and offset, for models that ask although the mask is given."""
        return query_length + self.get_seq_length(layer_idx), 0
