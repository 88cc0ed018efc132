"""Novelty against the latest kept texts alone, so that memory does not grow with the rows.

Up to `size` texts are compared with, as exactly as `NoveltyFilter` does, at 64 bytes a text and the text itself: the
signatures leave few pairs (see `signatures`), and these are scored in full. A run of up to `size` rows is compared with
everything that it kept; in a longer one a copy of an older text can pass.
"""

from __future__ import annotations

from collections import Counter

from potstill.datagen.novelty import Match, Tokenise, any_script_tokens, lcs_length, numbered, rouge_f1
from potstill.datagen.signatures import Signatures, fewest_shared


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
        self._signatures = Signatures(threshold, size)
        # Tokens joined by spaces: one string a text is a third of a list of strings.
        self._texts: list[str] = []
        # A text is looked up, and then kept.
        self._latest: tuple[str, list[str], list[str]] = ("", [], [])

    def __len__(self) -> int:
        return len(self._signatures)

    def match(self, text: str) -> Match | None:
        """The oldest remembered text whose F1 with `text` is above the threshold, or None."""
        tokens, distinct = self._read(text)
        near = self._signatures.near(distinct)
        if not near:
            return None
        bag = Counter(tokens)
        for index in near:
            other = self._texts[index % self._size].split(" ")
            if (bag & Counter(other)).total() < fewest_shared(len(tokens), len(other), self.threshold):
                continue
            f1 = rouge_f1(lcs_length(tokens, other), len(tokens), len(other))
            if f1 > self.threshold:
                return Match(index, f1)
        return None

    def add(self, text: str) -> int:
        """Keep a text whatever it is like; returns its index in the order of keeping."""
        tokens, distinct = self._read(text)
        slot = len(self._signatures) % self._size
        if slot == len(self._texts):
            self._texts.append(" ".join(tokens))
        else:
            self._texts[slot] = " ".join(tokens)
        self._signatures.add(distinct)
        return len(self._signatures) - 1

    def admit(self, text: str) -> Match | None:
        """Keep the text and return None, or return what it is too like."""
        found = self.match(text)
        if found is None:
            self.add(text)
        return found

    def _read(self, text: str) -> tuple[list[str], list[str]]:
        if self._latest[0] != text:
            tokens = self._tokenise(text)
            self._latest = (text, tokens, numbered(tokens))
        return self._latest[1:]
