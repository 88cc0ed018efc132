"""Keys and values of prompts read lately: a prompt that begins like one of them is read from where it differs.

Prompts for one label differ in a subject or in nothing at all. Of the 102 tokens of an average prompt of the support
task, 34 are left to read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile

import torch

from potstill.datagen.teachers.local_model import Slots

# A shorter rest is cheaper to read again than to keep.
_LEAST = 8


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
            same = zip(tokens, prompt[:-1], strict=False)
            length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], same))
            if length > most:
                best, most = tokens, length
        return best, most
