"""How common a prompt says its labels are: "about one in ten messages is spam", "billing (40 %), bug (10 %) or other".

The prompt and the labels enter; a share for each label leaves, or none: labels that nothing is said of have equal parts
of what is left. A share that holds under a condition ("if half of the words are rude"), as a bound ("over 80 %") or
beside others that together are more than everything (grades) says nothing of how common a label is. Labels that are
only answers are meant by what the prompt asks (`potstill.language.label_words`): "3 % of the comments are toxic" is a
yes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from potstill.language.label_words import is_answered, what_is_asked
from potstill.task import Label

_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBERS = {word: number for number, word in enumerate(_WORDS, 1)} | {
    "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "hundred": 100, "thousand": 1000,
}  # fmt: skip
_PARTS = {
    "half": 1 / 2, "third": 1 / 3, "quarter": 1 / 4, "fifth": 1 / 5, "tenth": 1 / 10,
    "two thirds": 2 / 3, "three quarters": 3 / 4,
}  # fmt: skip
_PERCENT = r"(?<![\d.,])(?P<percent>\d{1,2}(?:[.,]\d+)?)\s*(?:%|per\s?cent\b)"
_NUMBER = rf"(?:\d{{1,3}}(?:,?\d{{3}})?|{'|'.join(_NUMBERS)})"
_ONE_IN = rf"\b(?P<some>{_NUMBER})\s+(?:in|out\s+of)\s+(?:every\s+|an?\s+)?(?P<all>{_NUMBER})\b"
_PART = rf"\b(?:an?\s+)?(?P<part>{'|'.join(sorted(map(re.escape, _PARTS), key=len, reverse=True))})\s+of\b"
_SHARE = rf"(?:{_PERCENT}|{_ONE_IN}|{_PART})"
_ABOUT = (
    r"(?:about|around|roughly|approximately|approx\.?|circa|ca\.?|some|only|just|nearly|almost|typically|usually|~)"
)
_BE = r"(?:is|are|will\s+be|should\s+be|were)"
# Behind a share: what is counted, at most six words without a verb of their own.
_COUNTED = r"(?:\s+(?!(?:is|are|was|were|if|that|which|who|when)\b)[\w'-]+){0,6}?"
_QUOTES = r"[\"'`*]{0,3}"
# What stands in a sentence beside a share that is a rule and not how common something is.
_RULE = re.compile(
    r"\b(?:if|when|whenever|unless|where|whose|at\s+least|at\s+most|more\s+than|less\s+than|fewer\s+than|over|under|above|"
    r"below|up\s+to|between|from|confident|confidence|certain|sure|probability|discount)\b|[<>≤≥]",
    re.IGNORECASE,
)
# A remark that is nothing but a share, and one that goes on behind it.
_REMARK = re.compile(
    rf"{_ABOUT}?\s*{_PERCENT}(?:\s+of\s+(?:them|all|the|these|those|our)(?:\s+[\w-]+){{0,3}}|\s+of\s+\w+)?\s*(?P<rest>[,;:.–—-]\s*\S.*)?",
    re.IGNORECASE | re.DOTALL,
)
_FIGURE = re.compile(_PERCENT, re.IGNORECASE)
_MOST_TEXT, _MOST_FOUND = 10_000, 50


def shares_of(instruction: str, labels: Sequence[Label]) -> dict[str, float]:
    """The share of each label by what the prompt and the remarks behind its names say; empty where they say none.

    Examples:
        >>> shares_of("Spam or ham? About one in ten messages is spam.", [Label("spam"), Label("ham")])
        {'spam': 0.1, 'ham': 0.9}
        >>> shares_of("Sort tickets.", [Label("bug", "10 %"), Label("bill", "40 %"), Label("other")])
        {'bug': 0.1, 'bill': 0.4, 'other': 0.5}
        >>> shares_of("It is rude if half of the words are rude, else fine.", [Label("rude"), Label("fine")])
        {}
    """
    text = instruction[:_MOST_TEXT]
    found = _in_sentences(text, labels) | _in_remarks(labels)
    # A figure that is nobody's share may be one that was not understood, or make the others thresholds.
    told = "\n".join([text, *(label.description for label in labels)])
    if {_value(figure) for figure in _FIGURE.finditer(told)} - set(found.values()):
        return {}
    rest = [label.name for label in labels if label.name not in found]
    left = 1.0 - sum(found.values())
    if not found or min(found.values()) <= 0 or (left < 0.001 if rest else abs(left) > 0.02):
        return {}
    given = {name: left / len(rest) for name in rest} | found
    total = sum(given.values())
    return {label.name: round(given[label.name] / total, 6) for label in labels}


def without_shares(labels: Sequence[Label]) -> tuple[Label, ...]:
    """The labels, each without the share that its remark is or begins with: it says nothing of what belongs there."""
    kept = []
    for label in labels:
        told = _REMARK.fullmatch(label.description.strip())
        rest = (told["rest"] or "").lstrip(" ,;:.–—-") if told else label.description
        kept.append(replace(label, description=rest))
    return tuple(kept)


def _in_remarks(labels: Sequence[Label]) -> dict[str, float]:
    told = {label.name: _REMARK.fullmatch(label.description.strip()) for label in labels}
    return {name: _value(found) for name, found in told.items() if found}


def _in_sentences(text: str, labels: Sequence[Label]) -> dict[str, float]:
    """Shares that sentences say of labels; nothing where they say two of one."""
    names = _said(text, labels)
    if not names:
        return {}
    spelt = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    name = rf"(?:labell?ed\s+|an?\s+)?{_QUOTES}(?P<name>{spelt}){_QUOTES}(?![\w-])"
    be = rf"{_BE}\s+(?:(?:{_ABOUT}|actually|in\s+fact)\s+)?"
    makes_up = rf"(?:makes?\s+up|accounts?\s+for|{_BE})\s+(?:{_ABOUT}\s+)?"
    forms = [
        re.compile(rf"{_SHARE}{_COUNTED}\s+{be}{name}(?!\s+(?:or|and)\b)", re.IGNORECASE),
        re.compile(rf"\b{name}{_COUNTED}\s+{makes_up}{_SHARE}(?!\s+\w+ly\b)", re.IGNORECASE),
        re.compile(rf"\b{name}\s*[(\[]\s*{_ABOUT}?\s*{_PERCENT}[^()\[\]]{{0,40}}[)\]]", re.IGNORECASE),
    ]  # fmt: skip
    shares: dict[str, set[float]] = {}
    for sentence in re.split(r"(?<=[.!?;])\s+|\n", text):
        if _RULE.search(sentence):
            continue
        # A clause tells of one label: "most are neither, and only 5 % are hate".
        for clause in re.split(r",\s+(?=and\b|while\b|but\b)|\s+and\s+(?=(?:\w+\s+)?(?:\d|one\b|an?\b))", sentence):
            for form in forms:
                for found in islice(form.finditer(clause), _MOST_FOUND):
                    shares.setdefault(names[found["name"].casefold()], set()).add(_value(found))
    return {label: min(values) for label, values in shares.items() if len(values) == 1}


def _said(text: str, labels: Sequence[Label]) -> dict[str, str]:
    """Label by the words that stand for it in a sentence, folded."""
    names = [label.name for label in labels]
    said = {name.casefold(): name for name in names if re.search(r"[^\W\d_]{2}", name)}
    if is_answered(names) and (asked := what_is_asked(text)) is not None:
        said |= {words.casefold(): name for words, name in zip(asked, _ordered(names), strict=True)}
    return said


def _ordered(names: Sequence[str]) -> list[str]:
    """The two answers, the one that affirms first."""
    return sorted(names, key=lambda name: name.casefold() in ("no", "false", "0", "n"))


def _value(found: re.Match[str]) -> float:
    said: Mapping[str, str | None] = found.groupdict()
    if percent := said["percent"]:
        return float(percent.replace(",", ".")) / 100
    if part := said.get("part"):
        return _PARTS[" ".join(part.lower().split())]
    return min(_number(said.get("some")) / max(_number(said.get("all")), 1), 1.0)


def _number(said: str | None) -> int:
    word = (said or "0").lower()
    return _NUMBERS.get(word) or int(word.replace(",", "") or 0)
