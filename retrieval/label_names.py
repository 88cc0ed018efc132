"""Names of labels as data writes them: `card_arrival` for `Card arrival`, but never `C++` for `C` or `-1` for `1`."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

# What is left of punctuation: the sign before a number, and the marks that end a name (C++, C#, A+).
_MARKS = re.compile(r"^-(?=\.?\d)|(?<=\w)[+#]+(?!\w)")


def plain_label(name: str) -> str:
    """`CardArrival`, `card_arrival` and `Card arrival!` → `card arrival`; a name without letters stays as it is.

    `5.0` is `5`: tables with an empty cell write whole numbers so.
    """
    text = _exact(name).replace("\ufe0f", "")  # which asks for an emoji's coloured form, or is left out
    text = re.sub(r"\.0+$", "", text) if re.fullmatch(r"-?\d+\.0+", text) else text
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    kept = {match.start(): match.group() for match in _MARKS.finditer(text)}
    spaced, place = [], 0
    for start, marks in kept.items():
        spaced += [re.sub(r"[\W_]+", " ", text[place:start]), marks]
        place = start + len(marks)
    plain = "".join([*spaced, re.sub(r"[\W_]+", " ", text[place:])]).strip().lower()
    return plain or text


class LabelNames:
    """Labels of a task by the names that data gives them.

    A name is looked up as it stands, then in any case, then without spaces and punctuation; where two labels are one
    in a wider sense (`A` and `A-`), only the narrower one tells them apart.
    """

    def __init__(self, names: Iterable[str]):
        own = list(names)
        self._steps = [(way, _unique(own, way)) for way in (_exact, _folded, plain_label)]

    def get(self, name: str) -> str | None:
        """The label of this name, or None."""
        return next((known[key] for way, known in self._steps if (key := way(name)) in known), None)


def _exact(name: str) -> str:
    return unicodedata.normalize("NFKC", str(name)).strip()


def _folded(name: str) -> str:
    return " ".join(_exact(name).casefold().split())


def _unique(names: Iterable[str], way: Callable[[str], str]) -> dict[str, str]:
    keys = {name: way(name) for name in names}
    counts = Counter(keys.values())
    return {key: name for name, key in keys.items() if counts[key] == 1}
