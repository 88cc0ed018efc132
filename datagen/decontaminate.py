"""Test text must not be trained on: exact, by shared 13-grams, and by near-duplicates.

Three checks of a training text against every test text, from certain to likely:

1. The same words after case, accents, spaces and punctuation are set aside.
2. A run of 13 words in common (Brown et al., arXiv:2005.14165 appendix C), or of as many letters as these take in a
   script without spaces.
3. A near-duplicate: ROUGE-L F1 above a threshold, exact by the novelty filter's bounds.

An input with several fields is compared whole and, for the first check, by its longest field, for the same passage may
stand under other names.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import regex

from potstill.datagen.novelty import NoveltyFilter
from potstill.language.unspaced import letter_runs

NGRAM = 13
_WORD = regex.compile(r"[\w\p{M}]+")
# Accents of Latin, Greek and Cyrillic letters, and the vowel points of Hebrew and Arabic, which may be left out. Marks
# of other scripts are letters of their own: vowels in Devanagari and Thai, voicing in kana. Selectors choose between
# two pictures of one sign, and characters of format (soft hyphens, zero-width spaces and joiners) show nothing.
_ACCENTS = regex.compile(
    r"(?<=[\u0000-\u077f\u1e00-\u1fff])\p{M}+|[\ufe00-\ufe0f\u034f\u115f\u1160\u3164\uffa0]|\p{Cf}"
)
# What changes a meaning though it is no word: signs of currency and sums, emoji, the ends of C++ and C#.
_SYMBOL = regex.compile(r"[\w\p{M}]+|[[\p{Sc}\p{Sm}\p{So}]--[|~]]|(?<=\w)#|[-*/](?=\s?\d)", regex.VERSION1)
_FIELD = re.compile(r"^[\w -]{1,40}: ", re.MULTILINE)
_LEAST_FIELD_WORDS = 6


def normal_words(text: str) -> list[str]:
    """Words without case, accents and punctuation."""
    return [str(word) for word in _WORD.findall(_flat(text))]


def normal_hash(text: str) -> bytes:
    """16 bytes that two texts share when they differ in case, accents, spaces and punctuation only.

    Symbols count: `3 + 4` is not `3 - 4`, and a text that ends in another emoji is another text. A text of nothing but
    punctuation is hashed as it is.
    """
    parts = _SYMBOL.findall(_flat(text))
    return _hash(" ".join(parts) if parts else text.strip())


def words_hash(text: str) -> bytes:
    """As `normal_hash`, by the words alone: what may have been trained on is found whatever its symbols."""
    words = normal_words(text)
    return _hash(" ".join(words)) if words else normal_hash(text)


def _flat(text: str) -> str:
    flat = unicodedata.normalize("NFKD", text).casefold()
    return flat if flat.isascii() else str(_ACCENTS.sub("", flat))


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _longest_field(text: str) -> str | None:
    """The longest field of a `name: value` input with several fields, where it is long enough to tell."""
    if len(_FIELD.findall(text)) < 2:
        return None
    longest = max(_FIELD.split(text), key=len)
    return longest if len(_WORD.findall(longest)) >= _LEAST_FIELD_WORDS else None


class TestTexts:
    """The test inputs, indexed for `found_in`.

    Args:
        texts: Test inputs.
        near: F1 above which a text counts as a near-duplicate; None leaves that check out.
    """

    __test__ = False  # pytest would take the name for a test class

    def __init__(self, texts: Iterable[str], near: float | None = 0.8):
        self._hashes: set[bytes] = set()
        self._grams: set[int] = set()
        self._near = NoveltyFilter(near) if near is not None else None
        for text in texts:
            self._hashes.update(_same(text))
            self._grams.update(map(_gram, _runs(text)))
            if self._near is not None:
                self._near.add(text)

    def found_in(self, text: str) -> tuple[str, str] | None:
        """How a training text meets a test text: (reason, detail), or None."""
        whole, *field = _same(text)
        if whole in self._hashes:
            return "in_test", "the same words as a test input"
        if field and field[0] in self._hashes:
            return "in_test", "one field holds the same words as a test input"
        for run in _runs(text):
            if _gram(run) in self._grams:
                return "ngram_in_test", run
        if self._near is not None:
            match = self._near.match(text)
            if match is not None:
                return "near_test", f"ROUGE-L {match.f1:.2f} with test input {match.index}"
        return None


def shared_texts(tested: Sequence[str], trained: Iterable[str]) -> tuple[set[int], set[int]]:
    """Which test texts are among training texts, by the first two of the checks above.

    Args:
        tested: Test inputs.
        trained: Training inputs; read once.

    Returns:
        Places of test texts of the same words as a training text, or one field of it; and places of those that share a
        run of 13 words with one.
    """
    wholes: dict[bytes, list[int]] = {}
    grams: dict[int, list[int]] = {}
    for place, text in enumerate(tested):
        for mark in _same(text):
            wholes.setdefault(mark, []).append(place)
        for run in _runs(text):
            grams.setdefault(_gram(run), []).append(place)
    same: set[int] = set()
    shared: set[int] = set()
    for text in trained:
        for mark in _same(text):
            same.update(wholes.get(mark, ()))
        for run in _runs(text):
            shared.update(grams.get(_gram(run), ()))
    return same, shared


def _same(text: str) -> list[bytes]:
    """What a text shares with one of the same words: its hash, and that of its longest field where it has several."""
    field = _longest_field(text)
    return [words_hash(text), *([words_hash(field)] if field is not None else [])]


def _runs(text: str) -> Iterator[str]:
    words = normal_words(text)
    for start in range(len(words) - NGRAM + 1):
        yield " ".join(words[start : start + NGRAM])
    yield from letter_runs(_flat(text), NGRAM)


def _gram(run: str) -> int:
    # Hashes of 8 bytes: a set of a million test 13-grams stays under 100 MB.
    return int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest(), "big")
