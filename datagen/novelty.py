"""Reject what is too like anything kept: ROUGE-L F1 above a threshold, exactly, at a cost that grows far slower than
the pool.

Self-Instruct (arXiv:2212.10560 §2.2) scores each new instruction against the whole pool. Here bounds leave few pairs to
score, and none of them can lose a match. Let two texts have m and n tokens and share a longest common subsequence of l;
F1 = 2l/(m+n), so F1 > t needs l ≥ o(m, n) = ⌈t(m+n)/2⌉ (less one part in 10⁹, for rounding): their lengths must allow
it, and the multisets of their tokens must share at least o(m, n) tokens.

1. Up to 50,000 kept texts, one pass of numpy over their signatures leaves those that can share as many (`signatures`).
   It takes 64 bytes a text, whatever the texts are made of.
2. Above that, kept texts are listed by shared tokens. Sort each text's tokens by one fixed order, rarest first. If a
   shared token is the (d+1)-th that they share and has r tokens from itself to the end of a text, the overlap is at
   most d + r: an entry or a look-up for which that is below o is left out (prefix filtering, Chaudhuri, Ganti,
   Kaushik, ICDE 2006, with more signs where one is too common, as in AdaptJoin, SIGMOD 2012). A text stands under its
   first shared token. A list that outgrows 32 + N^¼ splits into lists under its token and the next shared one, and
   those again, up to four tokens deep. So lists stay short however often a word like `the` occurs and however large
   the pool is, and a look-up visits few of them. Texts so short that fewer shared tokens than the depth may be enough
   are listed at the split list as well. The order is by frequency in the pool when the lists were last built; they are
   built anew each time the pool has tripled. Tokens are numbers, and entries are packed into arrays: millions of small
   Python containers would make each pass of the garbage collector cost seconds. Where words come together in so many
   texts that the lists outgrow 32 entries a text, all is scanned as before.
3. The candidates' whole multisets are intersected, and the survivors' LCS is found with one big-integer addition a
   token (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004).

The last step computes precision, recall and F1 in floats the way the `rouge_score` package does, so decisions equal its
`RougeScorer(["rougeL"], use_stemmer=False)` at the boundary too. That package reads ASCII letters and digits alone: it
drops the é of `café` and the whole of a Chinese text, as `rouge_tokens` does. `any_script_tokens`, the default, gives
the same tokens, and beside them one for each other letter or digit. So decisions are those of `rouge_score` wherever
all letters and digits are ASCII; elsewhere texts that it cannot read, or takes to be the same, are told apart.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import regex

from potstill.datagen.signatures import SLACK, Signatures, fewest_shared

_NOT_ROUGE = re.compile(r"[^a-z0-9]+")
_UNICODE_WORD = regex.compile(r"[a-z0-9]+|[[\p{L}\p{N}]--[a-z0-9]]\p{M}*", regex.VERSION1)
# Texts up to which one pass over all signatures is at least as fast as the lists.
SCANNED = 50_000
_MOST_TOKENS = (1 << 20) - 1
_DEEPEST = 4
# Entries a kept text above which lists are given up: a text of real words has 4 to 16.
_MOST_ENTRIES = 32
_NEVER_SEEN = -(1 << 40)

Tokenise = Callable[[str], list[str]]


def rouge_tokens(text: str) -> list[str]:
    """Tokens as `rouge_score` makes them without a stemmer: lower-cased runs of a-z and 0-9.

    Examples:
        >>> rouge_tokens("The lamp's light, twice!")
        ['the', 'lamp', 's', 'light', 'twice']
    """
    return _NOT_ROUGE.sub(" ", text.lower()).split()


def any_script_tokens(text: str) -> list[str]:
    """Tokens as `rouge_tokens`, and every other letter with its marks as a token, so that no script is invisible.

    Examples:
        >>> rouge_tokens("Café 東京"), any_script_tokens("Café 東京")
        (['caf'], ['caf', 'é', '東', '京'])
    """
    lowered = text.lower()
    return rouge_tokens(text) if lowered.isascii() else [str(word) for word in _UNICODE_WORD.findall(lowered)]


def lcs_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence.

    Examples:
        >>> lcs_length("abcde", "ace")
        3
    """
    return _lcs(len(a), _masks(a), b)


def _masks(tokens: Sequence[Hashable]) -> dict[Hashable, int]:
    masks: dict[Hashable, int] = {}
    bit = 1
    for token in tokens:
        masks[token] = masks.get(token, 0) | bit
        bit <<= 1
    return masks


def _lcs(length: int, masks: dict[Hashable, int], other: Sequence[Hashable]) -> int:
    full = (1 << length) - 1
    row = full
    for token in other:
        mask = masks.get(token)
        if mask is not None:
            used = row & mask
            row = ((row + used) | (row - used)) & full
    return length - row.bit_count()


def rouge_l_f1(a: str, b: str, tokenise: Tokenise = any_script_tokens) -> float:
    """ROUGE-L F1 of two texts: of `rouge_tokens`, and of ASCII letters and digits, equal to `rouge_score`'s.

    Examples:
        >>> round(rouge_l_f1("a cat sat on the mat", "a dog sat on a mat"), 3)
        0.667
    """
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
        tokenise: Text to tokens. Of a text, the first 2^20 - 1 tokens count.
        texts: Kept from the start.
        scanned: Kept texts up to which signatures are scanned; above, lists are kept. Decisions are the same.

    Attributes:
        pairs_scored: Pairs whose longest common subsequence was computed.
        entries: Entries of the lists.
    """

    def __init__(
        self,
        threshold: float = 0.7,
        tokenise: Tokenise = any_script_tokens,
        texts: Iterable[str] = (),
        scanned: int = SCANNED,
    ) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1] (got {threshold})")
        self.threshold = threshold
        self._tokenise = tokenise
        self._number: dict[str, int] = {}
        self._rank: list[int] = []
        # Of each kept text: its tokens in their order, and the same as a multiset in the fixed order.
        self._tokens: list[tuple[int, ...]] = []
        self._bags: list[tuple[int, ...]] = []
        # Lists by the shared tokens that lead to them, packed into one integer; None marks a split one.
        self._lists: dict[int, array[int] | int | None] = {}
        self._ends: dict[int, array[int]] = {}
        self._limit = 32
        self._least: list[int] = []
        self._signatures = Signatures(threshold)
        self._listed = False
        self._rebuild_at = scanned
        self.entries = 0
        self.pairs_scored = 0
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._tokens)

    def match(self, text: str) -> Match | None:
        """The first kept text whose F1 with `text` is above the threshold, or None."""
        return self._match(self._tokenise(text)[:_MOST_TOKENS]) if self._tokens else None

    def add(self, text: str) -> int:
        """Keep a text whatever it is like; returns its index."""
        return self._add(self._tokenise(text)[:_MOST_TOKENS])

    def admit(self, text: str) -> Match | None:
        """Keep the text and return None, or return what it is too like."""
        tokens = self._tokenise(text)[:_MOST_TOKENS]
        found = self._match(tokens)
        if found is None:
            self._add(tokens)
        return found

    def _match(self, words: list[str]) -> Match | None:
        m = len(words)
        if not m:
            return None
        known = self._number.get
        distinct = numbered(words)
        own = [token for word in distinct if (token := known(word, -1)) >= 0]
        if not self._listed:
            found = self._signatures.near(distinct)
        else:
            # What no kept text holds can be first in the order: nothing shares it.
            found = sorted(self._candidates(m, sorted(own, key=self._rank.__getitem__)))
        if not found:
            return None
        tokens = [known(word, -1) for word in words]
        bag = frozenset(own)
        masks: dict[Hashable, int] | None = None
        for index in found:
            other = self._tokens[index]
            n = len(other)
            if len(bag.intersection(self._bags[index])) < self._least_of(m + n):
                continue
            masks = masks or _masks(tokens)
            self.pairs_scored += 1
            f1 = rouge_f1(_lcs(m, masks, other), m, n)
            if f1 > self.threshold:
                return Match(index, f1)
        return None

    def _candidates(self, m: int, ordered: list[int]) -> set[int]:
        """Kept texts that can share enough tokens with a text of `m` tokens, of which `ordered` are known."""
        fewest = self._fewest(m)
        longest = math.floor(m * (2 - self.threshold) / self.threshold + SLACK * m)
        self._least_of(m + longest)
        least = self._least
        found: set[int] = set()
        lists, ends = self._lists, self._ends
        split: list[tuple[int, int]] = [(0, 0)]
        left = len(ordered)
        for token in ordered:
            deeper = []
            for above, depth in split:
                most = depth + left
                if most < fewest:
                    continue
                key = above << 24 | token + 1
                entries = lists.get(key, 0)
                if entries is None:
                    deeper.append((key, depth + 1))
                    if fewest > depth + 1 or key not in ends:
                        continue
                    entries = ends[key]
                if type(entries) is int:
                    if not entries:
                        continue
                    entries = (entries,)  # type: ignore[assignment]
                for entry in entries:  # type: ignore[union-attr]
                    n = entry >> 20 & _MOST_TOKENS
                    if n <= longest and (needed := least[m + n]) <= most and needed <= entry & _MOST_TOKENS:
                        found.add(entry >> 40)
            split += deeper
            left -= 1
            if left + _DEEPEST < fewest:
                break
        return found

    def _least_of(self, total: int) -> int:
        """Fewest shared tokens that can give an F1 above the threshold to texts of `total` tokens together."""
        least = self._least
        while len(least) <= total:
            least.append(fewest_shared(len(least), 0, self.threshold))
        return least[total]

    def _fewest(self, m: int) -> int:
        """The same for a text of `m` tokens and any other."""
        shortest = max(1, math.ceil(m * self.threshold / (2 - self.threshold) - SLACK * m))
        return min(shortest, self._least_of(m + shortest))

    def _add(self, words: list[str]) -> int:
        index = len(self._tokens)
        number, rank = self._number, self._rank
        distinct = numbered(words)
        for word in distinct:
            if word not in number:
                number[word] = len(rank)
                rank.append(_NEVER_SEEN + len(rank))
        self._tokens.append(tuple(number[word] for word in words))
        self._bags.append(tuple(sorted((number[word] for word in distinct), key=rank.__getitem__)))
        self._signatures.add(distinct)
        if self._listed:
            self._enter(index)
        if index + 1 >= self._rebuild_at:
            self._rebuild()
        return index

    def _enter(self, index: int) -> None:
        """List a kept text under each first shared token that it can have."""
        bag = self._bags[index]
        self._enter_below(index, 0, 0, 0, self._fewest(len(bag)) if bag else 1)
        if self.entries > _MOST_ENTRIES * len(self._tokens):
            # Words that come together in very many texts split lists that stay long, at 50 KiB a text.
            self._listed, self._lists, self._ends, self.entries = False, {}, {}, 0

    def _enter_below(self, index: int, above: int, depth: int, first: int, fewest: int) -> None:
        """List a kept text under `above` and each of its tokens from place `first` on."""
        bag = self._bags[index]
        m = len(bag)
        lists = self._lists
        for place in range(first, min(m, m + depth - fewest + 1)):
            key = above << 24 | bag[place] + 1
            entry = index << 40 | m << 20 | depth + m - place
            entries = lists.get(key, 0)
            if entries is None:
                self._enter_split(index, key, depth + 1, place, fewest)
                continue
            self.entries += 1
            if not entries:
                lists[key] = entry
            elif type(entries) is int:
                lists[key] = array("q", (entries, entry))
            else:
                entries.append(entry)  # type: ignore[union-attr]
                if len(entries) > self._limit and depth + 1 < _DEEPEST:  # type: ignore[arg-type]
                    self._split(key, depth + 1)

    def _enter_split(self, index: int, key: int, depth: int, place: int, fewest: int) -> None:
        if fewest <= depth:
            bag = self._bags[index]
            entry = index << 40 | len(bag) << 20 | depth + len(bag) - place - 1
            self._ends.setdefault(key, array("q")).append(entry)
            self.entries += 1
        self._enter_below(index, key, depth, place + 1, fewest)

    def _split(self, key: int, depth: int) -> None:
        """Replace a list by lists that are one shared token deeper."""
        entries = self._lists[key]
        self._lists[key] = None
        self.entries -= len(entries)  # type: ignore[arg-type]
        for entry in entries:  # type: ignore[union-attr]
            m = entry >> 20 & _MOST_TOKENS
            place = depth - 1 + m - (entry & _MOST_TOKENS)
            self._enter_split(entry >> 40, key, depth, place, self._fewest(m))

    def _rebuild(self) -> None:
        size = len(self._tokens)
        self._listed, self.entries = True, 0
        self._rebuild_at = 3 * size
        self._limit = 32 + round(size**0.25)
        counts = Counter(token for bag in self._bags for token in bag)
        for place, token in enumerate(sorted(counts, key=lambda token: (counts[token], token))):
            self._rank[token] = place
        self._lists, self._ends = {}, {}
        for index, bag in enumerate(self._bags):
            self._bags[index] = tuple(sorted(bag, key=self._rank.__getitem__))
            if self._listed:
                self._enter(index)


def numbered(words: list[str]) -> list[str]:
    """A multiset as distinct strings: the second `the` is `the 1`."""
    if len(set(words)) == len(words):
        return words
    seen: dict[str, int] = {}
    distinct = []
    for word in words:
        count = seen.get(word, 0)
        seen[word] = count + 1
        distinct.append(f"{word} {count}" if count else word)
    return distinct
