"""Words for lexical search, and their index: lower case, accents off, function words out, light stems.

The stemmer only takes plural and verb endings off (Harman 1991 found that such a light stemmer serves short texts
as well as Porter's). Scripts without blanks (Chinese, Japanese, Thai, Lao, Burmese, Khmer) are cut into pairs of
characters.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

_STOP = """
a about above after again all also am an and any are as at be because been before being below between both but
by can could did do does doing down during each either etc few for from further get give given had has have having
he her here hers him his how i if in into is it its itself just may me might more most must my need no nor not of
off on once one only or other our out over own per please same shall she should so some such than that the their
them then there these they this those through to too under until up us use used using very via want was we were
what when where whether which while who whom whose why will with within without would you your
"""
STOP_WORDS = frozenset(_STOP.split())
# Blocks of scripts that write vowels as signs upon their letters (Devanagari, Tamil, Bengali, Thaana and their kin): to
# Unicode these are marks, as accents are, but a word without them is another one.
_SIGNED = ((0x0780, 0x07C0), (0x0900, 0x1AB0), (0x1B00, 0x1C80), (0xA800, 0xAC00), (0x11000, 0x12000))
_SIGNS = frozenset(
    chr(code) for first, end in _SIGNED for code in range(first, end) if unicodedata.category(chr(code))[0] == "M"
)
_WORD = re.compile(rf"(?:[^\W_]|[{''.join(sorted(_SIGNS))}])+")
# Joiners within a word of these scripts, which only say how it is drawn.
_JOINERS = re.compile(r"(?<=[\u0900-\u0dff])[\u200c\u200d]")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")


def search_words(text: str) -> list[str]:
    """The stems of a text, in order, with repetitions.

    Examples:
        >>> search_words("Classifying the questions of TREC")
        ['classify', 'question', 'trec']
    """
    folded = _JOINERS.sub("", unicodedata.normalize("NFKD", text)).lower()
    folded = "".join(char for char in folded if not unicodedata.combining(char) or char in _SIGNS)
    words: list[str] = []
    for word in _WORD.findall(folded):
        if _UNSPACED.search(word):
            words.extend(word[i : i + 2] for i in range(max(1, len(word) - 1)))
        elif word not in STOP_WORDS and len(word) > 1:
            words.append(stem(word))
    return words


def word_index(corpus: Sequence[Sequence[str]]) -> Any:
    """BM25 over the words of each text, as `bm25s.BM25`; there must be one word at least.

    bm25s is kept from importing JAX. Where that is installed, bm25s runs an operation of it on import, for a top-k
    that is not used here, and JAX then takes three quarters of the GPU's memory, which teacher and student need.
    """
    jax = sys.modules.get("jax")
    sys.modules["jax"] = None  # type: ignore[assignment]  # Python's mark of a module that cannot be imported
    try:
        import bm25s
    finally:
        del sys.modules["jax"]
        if jax is not None:
            sys.modules["jax"] = jax
    index = bm25s.BM25(k1=0.9, b=0.4, backend="numpy")
    index.index(list(corpus), show_progress=False)
    return index


def stem(word: str) -> str:
    """A word without its plural or verb ending; numbers and short words stay."""
    if len(word) < 4 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            word = word[: -len(ending)]
            if word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 4 else word
