"""Which columns an instruction speaks of as what is given, and which as what is to be written.

"Write a docstring for a Python function" asks for the docstring of a dataset whose usual use is the other way round:
there the code is the answer. Columns chosen by their names alone would teach the reverse of the task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WRITES = _listed(
    "write generate produce create compose draft suggest propose give make extract find list name return output print "
    "provide state tell into as"
)
_READS = _listed(
    "summarise summarize explain describe simplify translate rewrite paraphrase rephrase expand shorten answer solve "
    "correct fix read complete improve check condense convert turn given for of from about on to"
)
# What may follow a text that is spoken of: "what the snippet does".
_DOES = _listed("does do says asks means shows states tells")
_STOPS = _listed("and or then that which who whose if when so by in with at s is are was were what")


def said_roles(
    instruction: str, names: Sequence[str], words_of: Callable[[str], frozenset[str]]
) -> tuple[frozenset[str], frozenset[str]]:
    """The columns that are asked for, and those that are given; a column spoken of as both is in neither.

    Args:
        instruction: The task's.
        names: Column names.
        words_of: The words of a name or of an instruction's word, in one form.
    """
    asked: set[str] = set()
    given: set[str] = set()
    heads = {name: words_of((re.findall(r"[A-Za-z][a-z]*", name) or [""])[-1]) for name in names}
    for sentence in re.split(r"[.!?;:,\n]+", instruction[:2000].lower()):
        words = re.findall(r"[a-z]+", sentence)
        for place, word in enumerate(words):
            form = words_of(word)
            role = _role(words, place) if form else ""
            whole = [name for name in names if words_of(name) == form]
            mentioned = whole or [name for name in names if heads[name] == form]
            if role:
                (asked if role == "asked" else given).update(mentioned)
    return frozenset(asked - given), frozenset(given - asked)


def _role(words: Sequence[str], place: int) -> str:
    """`asked`, `given` or nothing, by the nearest word before a noun that governs it."""
    follows = words[place + 1] if place + 1 < len(words) else ""
    if follows and not any(follows in known for known in (_STOPS, _DOES, _READS, _WRITES)):
        return ""  # half of a compound: a product description is no product
    for before in reversed(words[max(0, place - 6) : place]):
        if before == "what" and follows in _DOES:
            return "given"
        if before in _STOPS:
            return ""
        if before in _WRITES or before in _READS:
            return "asked" if before in _WRITES else "given"
    return ""
