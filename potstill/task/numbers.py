"""Whether a prompt asks for a number: a point of a short scale, which is a label, or one of too many to be labels.

`Give a star rating from one to five`, `Estimate the difficulty (1-5)` have points. A price, an age or a score from 0.0
to 1.0 has none: such a prompt is refused, with bands or points as the way out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from potstill.task import Label

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_POINT = rf"(\d{{1,3}}|{'|'.join(_WORDS)})"
_RANGE = rf"{_POINT}\s*(?:to|-|–|and)\s*{_POINT}(?![.,]?\d)"
_SAID = r"\b(?:scale|rating|score|stars?|rate|grade)\b"
_ASKED = (
    r"(?:give|answer|reply|respond|output|return|assign|predict|estimate|print|say|provide|report|rate|score|"
    r"grade|mark)"
)
_VALUE = r"(?:rating|score|stars?|scale|grade|mark|number|integer|digit|value)"
_RATED = r"(?:estimate|rate|judge|assess|score|grade|evaluate|predict|determine)"
_TALE = r"(?!\s*(?:words?|sentences?|paragraphs?|lines?|keywords?|items?|characters?|examples?|bullets?|questions?)\b)"
SCALE = re.compile(rf"{_SAID}[^.\n]{{0,60}}?\b{_RANGE}\b", re.IGNORECASE)
_STARS = re.compile(rf"\b{_RANGE}[ -](?:stars?|points?)\b", re.IGNORECASE)
_POINTS = re.compile(
    rf"\b{_ASKED}\b[^.\n]{{0,60}}?\b{_VALUE}\b[^.\n]{{0,30}}?\b{_RANGE}\b{_TALE}"
    rf"|^(?:please\s+)?{_RATED}\b[^.:;\n]{{0,100}}?(?:\b(?:from|between)\s+{_RANGE}\b{_TALE}|\({_RANGE}(?:\s+stars?|\s+points?)?\))",
    re.IGNORECASE,
)
_MOST = 10
# A bracket between the ends of a scale: "from 1 (easy) to 5 (hard)".
_REMARK = re.compile(rf"\s*\((?!{_RANGE}(?: stars?| points?)?\))[^()]{{1,100}}\)", re.IGNORECASE)
_NUMBER = re.compile(
    r"\b(?:prices?|costs?|age|amount|probability|likelihood|temperature|salary|income|revenue|duration|weight|height|distance|"
    r"percentage|per\s?cent|number\s+of(?!\s+(?:stars|points))|how\s+(?:many(?!\s+(?:stars|points))|much|old|long|likely))\b|\b\d+\.\d+\s*(?:to|and|-|–)\s*\d",
    re.IGNORECASE,
)
HOW = (
    "the text asks for a number, and numbers are no kind of answer here: give bands (low, medium, high) or points of "
    'a short scale ("from 1 to 5") as labels, in the text or in a task file under "## Labels"; or say '
    '"kind: generation", for a number that is written as text'
)


def points_of(flat: str) -> list[str]:
    """The points of the scale that a prompt names, at most eleven; none where it names no scale.

    Examples:
        >>> points_of("Give a rating from one to three.")
        ['1', '2', '3']
        >>> points_of("Rate the essay from 0 to 100.")
        []
    """
    plain = _REMARK.sub("", flat)
    for form in (SCALE, _STARS, _POINTS):
        for found in islice(form.finditer(plain), 20):
            low, high = (_value(end) for end in [end for end in found.groups() if end][:2])
            if 1 <= high - low <= _MOST:
                return [str(point) for point in range(low, high + 1)]
    return []


def whole_scale(labels: Sequence[Label], flat: str) -> list[Label]:
    """Labels as they are, or with the points between where they are the ends of the scale that a prompt names.

    Examples:
        >>> [label.name for label in whole_scale([Label("1", "poor"), Label("3", "good")], "Rate it from 1 to 3.")]
        ['1', '2', '3']
    """
    said = {label.name: label for label in labels}
    points = points_of(flat) if len(said) > 1 and all(name.isdecimal() for name in said) else []
    if not points or not {points[0], points[-1]} <= said.keys() < set(points):
        return list(labels)
    return [said.get(point, Label(point)) for point in points]


def asks_for_points(flat: str) -> bool:
    """Whether a prompt asks that a point of a short scale is the answer.

    Examples:
        >>> asks_for_points("Output a number between 1 and 5 saying how formal the email is.")
        True
        >>> asks_for_points("Answer in 1 to 5 words.")
        False
    """
    return _POINTS.search(_REMARK.sub("", flat)) is not None and bool(points_of(flat))


def asks_for_number(flat: str) -> bool:
    """Whether the answer is a number of more values than labels can be; asked of prompts without labels.

    Examples:
        >>> asks_for_number("Predict the price of a house."), asks_for_number("Predict how many stars it gets.")
        (True, False)
    """
    wide = any(
        _value(end[1]) - _value(end[0]) > _MOST
        for found in islice(re.finditer(rf"\b{_RANGE}\b", flat, re.IGNORECASE), 20)
        if (end := found.groups())
    )
    return wide or _NUMBER.search(flat) is not None


def _value(text: str) -> int:
    return int(text) if text.isdigit() else _WORDS.index(text.lower())
