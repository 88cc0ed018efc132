"""Codes with their meanings in a sentence: `0 - negative, 1 - positive`, `FAV means in favour`, `spam (1) or not (0)`.

A prompt on one line enters; labels leave, the codes as their names. Two pairs that follow one another are enough; the
codes of a row are of one kind, all numbers or all capitals.
"""

from __future__ import annotations

import re
from itertools import islice

from potstill.task import Label
from potstill.task.lists import plausible

_CODE = r"(?:\d{1,3}|[A-Z][A-Z0-9_]{1,11})"
_IS = r"\s*(?:=|:(?=\s)|[–—-](?=\s)|\b(?:means?|is|are|stands for|denotes|for)\b)\s*"
_MEANING = r"[A-Za-z][^,;:=()\n]{0,60}?"
_MARK = r"[\"'`]?"
_ENDS = rf"(?=\s*(?:[,;)\n]|\.(?:\s|$)|$|(?:and|or|but)\s+{_MARK}{_CODE}{_MARK}{_IS}))"
_CODE_FIRST = re.compile(rf"(?<![\w.-]){_MARK}({_CODE}){_MARK}{_IS}{_MARK}({_MEANING}){_MARK}{_ENDS}")
_CODE_LAST = re.compile(rf"([A-Za-z][\w' /-]{{0,60}}?)\s*(?:=\s*(\d{{1,3}})(?!\w|\.\d)|\({_MARK}(\d{{1,3}}){_MARK}\))")
# Between two pairs of one row.
_BETWEEN = re.compile(r"[\s,;]*(?:\b(?:and|or|but)\b)?[\s,;]*")
# Before the first name of a row.
_LEAD = re.compile(
    r".*(?:\b(?:as|into|either|is|are|be|being|between|whether|by|for|to|of)\b|[:,])\s+(?:(?:an?|the|it is)\s+)?"
)
_MOST = 300


def coded_labels(flat: str) -> list[Label]:
    """The labels of a row of codes and meanings; none where there is none.

    Examples:
        >>> [(label.name, label.description) for label in coded_labels("Predict 0 - negative, 1 - positive.")]
        [('0', 'negative'), ('1', 'positive')]
    """
    first = [(item.start(), item.end(), item[1], item[2]) for item in islice(_CODE_FIRST.finditer(flat), _MOST)]
    last = [
        (item.start(), item.end(), item[2] or item[3], item[1]) for item in islice(_CODE_LAST.finditer(flat), _MOST)
    ]
    return _row(flat, first) or _row(flat, last, named_first=True)


def _row(flat: str, pairs: list[tuple[int, int, str, str]], *, named_first: bool = False) -> list[Label]:
    """Labels of the longest run of pairs that follow one another."""
    runs: list[list[tuple[int, int, str, str]]] = []
    for pair in pairs:
        gap = flat[runs[-1][-1][1] : pair[0]] if runs else "."
        if runs and _BETWEEN.fullmatch(gap) and pair[2].isdigit() == runs[-1][-1][2].isdigit():
            runs[-1].append(pair)
        else:
            runs.append([pair])
    run = max(runs, key=len, default=[])
    labels = [Label(code, meaning.strip()) for _, _, code, meaning in run]
    if named_first and labels:
        longest = max(len(label.description.split()) for label in labels[1:] or labels)
        bare = re.sub(r"^(?:or|and)\s+", "", _LEAD.sub("", labels[0].description))
        labels[0] = Label(labels[0].name, " ".join(bare.split()[-max(1, longest) :]))
        labels[1:] = [Label(item.name, re.sub(r"^(?:or|and)\s+", "", item.description)) for item in labels[1:]]
    return labels if len(labels) > 1 and plausible([label.name for label in labels]) else []
