"""Reject what is too like anything kept: ROUGE-L F1 above a threshold, exactly, at a cost that grows far slower than
the pool.

Self-Instruct (arXiv:2212.10560 §2.2) scores each new instruction against the whole pool. Here three bounds leave few
pairs to score, and none of them can lose a match. Let two texts have m and n tokens and share a longest common
subsequence of l; F1 = 2l/(m+n), so F1 > t needs l ≥ o(m, n) = ⌈t(m+n)/2⌉ (less one part in 10⁹, for rounding).

1. Length: l ≤ min(m, n), so n lies in [m·t/(2-t), m·(2-t)/t].
2. Overlap: the multisets of tokens share at least l. Sort each text's tokens by one fixed order, rarest first; two
   texts that share o ≥ 2 tokens share two among the first m-o+2 of the one and n-o+2 of the other (prefix filtering,
   Chaudhuri, Ganti, Kaushik, ICDE 2006, with two signs as in AdaptJoin, SIGMOD 2012). Of the two, either one is rare,
   or both are common: rare tokens of the prefixes are indexed alone, common ones in pairs. Common is what more than
   4·N^¼ of N texts hold, so lists stay short however often a word like `the` occurs.
3. The candidates' whole multisets are intersected, and the survivors' LCS is found with one big-integer addition a
   token (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004).

The order, and what is common, is by frequency in the pool when the index was last built; it is built anew each time
the pool has tripled. The last step computes precision, recall and F1 in floats the way the `rouge_score` package does,
so decisions equal its `RougeScorer(["rougeL"], use_stemmer=False)` at the boundary too.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

_NOT_ROUGE = re.compile(r"[^a-z0-9]+")
_UNICODE_WORD = re.compile(r"[a-z0-9]+|[^\W_a-z0-9]")
_SLACK = 1e-9
_REMEMBERED = 400

Tokenise = Callable[[str], list[str]]


def rouge_tokens(text: str) -> list[str]:
    """Tokens as `rouge_score` makes them without a stemmer: lower-cased runs of a-z and 0-9."""
    return _NOT_ROUGE.sub(" ", text.lower()).split()


def any_script_tokens(text: str) -> list[str]:
    """Tokens as `rouge_tokens`, and every other letter as a token of its own, so that no script is invisible."""
    lowered = text.lower()
    return rouge_tokens(text) if lowered.isascii() else _UNICODE_WORD.findall(lowered)


def lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    return _lcs(len(a), _masks(a), b)


def _masks(tokens: Sequence[str]) -> dict[str, int]:
    masks: dict[str, int] = {}
    bit = 1
    for token in tokens:
        masks[token] = masks.get(token, 0) | bit
        bit <<= 1
    return masks


def _lcs(length: int, masks: dict[str, int], other: Sequence[str]) -> int:
    full = (1 << length) - 1
    row = full
    for token in other:
        mask = masks.get(token)
        if mask is not None:
            used = row & mask
            row = ((row + used) | (row - used)) & full
    return length - row.bit_count()


def rouge_l_f1(a: str, b: str, tokenise: Tokenise = rouge_tokens) -> float:
    """ROUGE-L F1 of two texts, equal to `rouge_score`'s."""
    first, second = tokenise(a), tokenise(b)
    return rouge_f1(lcs_length(first, second), len(first), len(second))


def rouge_f1(lcs: int, m: int, n: int) -> float:
    """F1 of two texts of m and n tokens whose LCS is given, in floats as `rouge_score` computes it."""
    if not m or not n or not lcs:
        return 0.0
    precision, recall = lcs / n, lcs / m
    return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True)
class Match:
    """A kept text that a new one is too like: its index in the order of keeping, and their F1."""

    index: int
    f1: float


class NoveltyFilter:
    """The kept texts, indexed for `match`.

    Args:
        threshold: F1 above which a text is not new.
        tokenise: Text to tokens.
        texts: Kept from the start.
    """

    def __init__(
        self, threshold: float = 0.7, tokenise: Tokenise = any_script_tokens, texts: Iterable[str] = ()
    ) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1] (got {threshold})")
        self.threshold = threshold
        self._tokenise = tokenise
        self._tokens: list[list[str]] = []
        self._bags: list[frozenset[str]] = []
        self._rank: dict[str, int] = {}
        self._common: frozenset[str] = frozenset()
        self._index: dict[str | tuple[str, str], dict[int, dict[int, list[int]]]] = {}
        self._singles: dict[str, list[int]] = {}
        self._short = 2 / threshold - 1
        self._bounds: dict[int, dict[int, tuple[int, int]]] = {}
        self._rebuild_at = 64
        self.pairs_scored = 0
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._tokens)

    def match(self, text: str) -> Match | None:
        """The first kept text whose F1 with `text` is above the threshold, or None."""
        return self._match(self._tokenise(text)) if self._tokens else None

    def add(self, text: str) -> int:
        """Keep a text whatever it is like; returns its index."""
        return self._add(self._tokenise(text))

    def admit(self, text: str) -> Match | None:
        """Keep the text and return None, or return what it is too like."""
        tokens = self._tokenise(text)
        found = self._match(tokens)
        if found is None:
            self._add(tokens)
        return found

    def _match(self, tokens: list[str]) -> Match | None:
        m = len(tokens)
        if not m:
            return None
        t = self.threshold
        bounds = self._bounds_of(m)
        bag, ordered = self._numbered(tokens)
        found: set[int] = set()
        for key, last in self._keys(ordered[: 1 + max(last for last, _ in bounds.values())]):
            lengths = self._index.get(key)
            if not lengths:
                continue
            for n, places in lengths.items():
                bound = bounds.get(n)
                if bound is not None and last <= bound[0]:
                    for place, ids in places.items():
                        if place <= bound[1]:
                            found.update(ids)
        if m <= self._short:
            found.update(index for token in bag for index in self._singles.get(token, ()))
        if not found:
            return None
        masks: dict[str, int] | None = None
        for index in sorted(found):
            other = self._tokens[index]
            least = self._least(m, len(other))
            if len(bag & self._bags[index]) < least:
                continue
            masks = masks or _masks(tokens)
            self.pairs_scored += 1
            f1 = rouge_f1(_lcs(m, masks, other), m, len(other))
            if f1 > t:
                return Match(index, f1)
        return None

    def _least(self, m: int, n: int) -> int:
        """Fewest shared tokens that can give an F1 above the threshold."""
        return max(1, math.ceil(self.threshold * (m + n) / 2 - _SLACK * (m + n)))

    def _bounds_of(self, m: int) -> dict[int, tuple[int, int]]:
        """For each length n that can match m: the last places in both prefixes."""
        bounds = self._bounds.get(m)
        if bounds is None:
            t = self.threshold
            shortest = max(1, math.ceil(m * t / (2 - t) - _SLACK * m))
            longest = math.floor(m * (2 - t) / t + _SLACK * m)
            bounds = {
                n: (m - least + 1, n - least + 1)
                for n in range(shortest, longest + 1)
                if (least := self._least(m, n)) <= min(m, n)
            }
            if m <= _REMEMBERED:
                self._bounds[m] = bounds
        return bounds

    def _keys(self, prefix: list[str]) -> Iterator[tuple[str | tuple[str, str], int]]:
        """What a prefix is looked up and indexed by, each with the position of its last token."""
        common: list[tuple[int, str]] = []
        for position, token in enumerate(prefix):
            if token in self._common:
                for _, other in common:
                    yield (other, token), position
                common.append((position, token))
            else:
                yield token, position

    def _numbered(self, tokens: list[str]) -> tuple[frozenset[str], list[str]]:
        """A multiset as a set (the second `the` is `the 1`), whole and in the fixed order."""
        seen: Counter[str] = Counter()
        numbered = []
        for token in tokens:
            count = seen[token]
            seen[token] = count + 1
            numbered.append(f"{token} {count}" if count else token)
        rank = self._rank
        numbered.sort(key=lambda token: (rank.get(token, 0), token))
        return frozenset(numbered), numbered

    def _add(self, tokens: list[str]) -> int:
        index = len(self._tokens)
        self._tokens.append(tokens)
        bag, ordered = self._numbered(tokens)
        self._bags.append(bag)
        self._enter(index, ordered)
        if index + 1 >= self._rebuild_at:
            self._rebuild()
        return index

    def _enter(self, index: int, ordered: list[str]) -> None:
        n = len(ordered)
        if not n:
            return
        for key, last in self._keys(ordered[: 1 + max(last for last, _ in self._bounds_of(n).values())]):
            self._index.setdefault(key, {}).setdefault(n, {}).setdefault(last, []).append(index)
        if n <= self._short:
            # So short that one shared token may be enough: looked up whatever its frequency.
            for token in ordered:
                self._singles.setdefault(token, []).append(index)

    def _rebuild(self) -> None:
        self._rebuild_at = 3 * len(self._tokens)
        counts = Counter(token for bag in self._bags for token in bag)
        limit = 4 * len(self._bags) ** 0.25
        self._rank = dict(counts)
        self._common = frozenset(token for token, count in counts.items() if count > limit)
        self._index, self._singles = {}, {}
        for index, bag in enumerate(self._bags):
            self._enter(index, sorted(bag, key=lambda token: (self._rank[token], token)))
