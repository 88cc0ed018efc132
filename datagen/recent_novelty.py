"""Novelty against the latest kept texts alone, for runs whose pool would outgrow the memory.

`NoveltyFilter` compares with everything kept, exactly, and its index grows with every row. Here the latest `size`
texts are compared with, as exactly, in constant memory and at a constant cost a text: each text keeps a signature of
512 bits, one for each of its tokens (the second `the` is another token). Two texts of m and n tokens whose F1 is above
the threshold share at least o(m, n) tokens (see `novelty`), so at most m-o bits of the one are missing in the other.
One pass of numpy over the signatures leaves few pairs, and these are scored in full.
"""

from __future__ import annotations

import sys
from collections import Counter
from zlib import crc32

import numpy as np
import numpy.typing as npt

from potstill.datagen.novelty import Match, Tokenise, any_script_tokens, lcs_length, rouge_f1

_BITS = 512
_WORDS = _BITS // 64
_SLACK = 1e-9


class RecentNovelty:
    """The latest kept texts, for `match`.

    Args:
        size: How many texts are remembered.
        threshold: F1 above which a text is not new.
        tokenise: Text to tokens.
    """

    def __init__(self, size: int, threshold: float = 0.7, tokenise: Tokenise = any_script_tokens) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1 (got {size})")
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1] (got {threshold})")
        self.threshold = threshold
        self._size = size
        self._tokenise = tokenise
        self._signatures = np.zeros((size, _WORDS), dtype=np.uint64)
        self._lengths = np.zeros(size, dtype=np.int64)
        self._tokens: list[list[str]] = []
        self._count = 0
        # A text is looked up, and then kept.
        self._latest: tuple[str, list[str], npt.NDArray[np.uint64]] = ("", [], np.zeros(_WORDS, dtype=np.uint64))

    def __len__(self) -> int:
        return self._count

    def match(self, text: str) -> Match | None:
        """The oldest remembered text whose F1 with `text` is above the threshold, or None."""
        tokens, signature = self._read(text)
        m, held = len(tokens), len(self._tokens)
        if not m or not held:
            return None
        n = self._lengths[:held]
        least = np.maximum(1, np.ceil(self.threshold * (m + n) / 2 - _SLACK * (m + n)))
        held_signatures = self._signatures[:held]
        missing = np.bitwise_count(signature & ~held_signatures).sum(axis=1, dtype=np.int64)
        near = np.flatnonzero((missing <= m - least) & (n >= least))
        if not near.size:
            return None
        extra = np.bitwise_count(held_signatures[near] & ~signature).sum(axis=1, dtype=np.int64)
        near = near[extra <= (n - least)[near]]
        bag = Counter(tokens)
        first = self._count - held
        # Slots are reused round and round: the oldest is the one that the next text will replace.
        for index in sorted(first + (int(slot) - first) % self._size for slot in near):
            other = self._tokens[index % self._size]
            if (bag & Counter(other)).total() < least[index % self._size]:
                continue
            f1 = rouge_f1(lcs_length(tokens, other), m, len(other))
            if f1 > self.threshold:
                return Match(index, f1)
        return None

    def add(self, text: str) -> int:
        """Keep a text whatever it is like; returns its index in the order of keeping."""
        tokens, signature = self._read(text)
        tokens = [sys.intern(token) for token in tokens]
        slot = self._count % self._size
        if slot == len(self._tokens):
            self._tokens.append(tokens)
        else:
            self._tokens[slot] = tokens
        self._signatures[slot] = signature
        self._lengths[slot] = len(tokens)
        self._count += 1
        return self._count - 1

    def _read(self, text: str) -> tuple[list[str], npt.NDArray[np.uint64]]:
        if self._latest[0] != text:
            tokens = self._tokenise(text)
            self._latest = (text, tokens, _signature(tokens))
        return self._latest[1:]


def _signature(tokens: list[str]) -> npt.NDArray[np.uint64]:
    """One bit for each token; equal tokens of one text are told apart by their number."""
    seen: Counter[str] = Counter()
    bits = 0
    for token in tokens:
        count = seen[token]
        seen[token] = count + 1
        bits |= 1 << crc32(f"{token} {count}".encode("utf-8", "surrogatepass")) % _BITS
    return np.frombuffer(bits.to_bytes(_BITS // 8, "little"), dtype="<u8").astype(np.uint64)
