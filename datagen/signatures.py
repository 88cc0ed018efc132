"""Which kept texts can share enough tokens with a new one, by one pass of numpy over signatures of 64 bytes a text.

Each text keeps 512 bits, one set for each of its tokens (the second `the` is another token; two tokens may fall on one
bit). Two texts of m and n tokens whose F1 is above the threshold share at least o(m, n) tokens (see `novelty`). So of
the m tokens at most m - o miss in the other text, each of which can take one bit of its b from what both signatures
hold: texts with fewer than b - (m - o) bits in common, seen from either side, are left out. None that can match is.

Fifty thousand texts take a fifth of a millisecond, and their random words no more memory than any others: an index by
shared tokens is faster above that only, and its size depends on what the texts are made of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import numpy.typing as npt

_BITS = 512
_WORDS = _BITS // 64
# For rounding: a bound may be too low by one part in 10⁹, never too high.
SLACK = 1e-9


def fewest_shared(m: int, n: int, threshold: float) -> int:
    """Shared tokens without which texts of `m` and `n` tokens cannot have an F1 above the threshold."""
    return max(1, math.ceil(threshold * (m + n) / 2 - SLACK * (m + n)))


class Signatures:
    """Signatures of the texts added, all or the latest.

    Args:
        threshold: F1 above which a text is a match.
        size: Texts that are remembered, the latest; 0 remembers all.
    """

    def __init__(self, threshold: float, size: int = 0) -> None:
        self._threshold = threshold
        self._size = size
        self._count = 0
        # One column a text, so that the sum over a text's words runs along the texts.
        self._bits: npt.NDArray[np.uint64] = np.zeros((_WORDS, 0), np.uint64)
        self._own: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self._lengths: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self._grow(64)

    def _grow(self, room: int) -> None:
        room = min(room, self._size) if self._size else room
        more = room - len(self._lengths)
        self._bits = np.pad(self._bits, ((0, 0), (0, more)))
        self._own, self._lengths = np.pad(self._own, (0, more)), np.pad(self._lengths, (0, more))
        self._both = np.empty((_WORDS, room), np.uint64)
        self._shared = np.empty((_WORDS, room), np.uint8)

    def __len__(self) -> int:
        """Texts added so far, remembered or not."""
        return self._count

    def add(self, numbered: Sequence[str]) -> None:
        """Remember a text by its tokens as distinct strings (see `novelty.numbered`)."""
        held = len(self._lengths)
        if self._count == held and held != self._size:
            self._grow(2 * held)
        slot = self._count % len(self._lengths)
        bits, count = _signature(numbered)
        self._bits[:, slot] = bits
        self._own[slot] = count
        self._lengths[slot] = len(numbered)
        self._count += 1

    def near(self, numbered: Sequence[str]) -> list[int]:
        """Numbers of the remembered texts that can match one of these tokens, in the order of adding."""
        m, room = len(numbered), len(self._lengths)
        held = min(self._count, room)
        if not m or not held:
            return []
        bits, own = _signature(numbered)
        both, shared = self._both[:, :held], self._shared[:, :held]
        np.bitwise_and(self._bits[:, :held], bits[:, None], out=both)
        np.bitwise_count(both, out=shared)
        common = np.add.reduce(shared, axis=0, dtype=np.int16)
        # First for a text of the length that needs the fewest, which leaves few to look at one by one.
        shortest = max(1, math.ceil(m * self._threshold / (2 - self._threshold) - SLACK * m))
        slots = np.flatnonzero(common >= fewest_shared(m, shortest, self._threshold) + own - m)
        n = self._lengths[slots].astype(np.int64)
        least = np.maximum(1, np.ceil(self._threshold * (m + n) / 2 - SLACK * (m + n)))
        fits = (n >= least) & (m >= least) & (common[slots] >= least + np.maximum(own - m, self._own[slots] - n))
        found: npt.NDArray[np.int64] = slots[fits]
        if self._count > room:
            # Slots are reused round and round: the oldest is the one that the next text will replace.
            first = self._count - room
            found = np.sort(first + (found - first) % room)
        return [int(index) for index in found]


def _signature(numbered: Sequence[str]) -> tuple[npt.NDArray[np.uint64], int]:
    """Bits of a text as words, and how many are set."""
    bits = 0
    for token in numbered:
        bits |= 1 << (crc32(token.encode("utf-8", "surrogatepass")) & _BITS - 1)
    words = np.frombuffer(bits.to_bytes(_BITS // 8, "little"), dtype="<u8").astype(np.uint64)
    return words, bits.bit_count()
