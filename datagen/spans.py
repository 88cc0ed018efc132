"""Outputs that have to stand in their input to the letter, as a whole or in parts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from potstill.datagen.filters import words

_QUOTED = re.compile(r"[\"“«„]([^\"“”«»„\n]+)[\"”»“]")
_LISTED = re.compile(r"^[ \t]*(?:[-*•–]|\d{1,2}[.)])[ \t]+")
_BETWEEN = re.compile(r"[,;|，、]\s*(?:and\s+)?|\s+(?:and|&)\s+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_SWAPPED = str.maketrans(",.", ".,")
_STRIPPED = "\"'“”«»„ ."


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).strip(_STRIPPED)


def stands_in(output: str, input: str, parts: bool = False) -> bool:
    """Whether an output is a part of an input: whole words of it, where both are written with spaces.

    Args:
        output: What was written.
        input: What it was written for.
        parts: Whether it may be several: a list's points, what commas part, or the texts and numbers of a JSON value.

    Examples:
        >>> stands_in("Apple, Sony", "Apple sued Sony."), stands_in("Apple, Sony", "Apple sued Sony.", parts=True)
        (False, True)
    """
    if _whole(output, input):
        return True
    if not parts:
        return False
    try:
        value = json.loads(output)
        # A number, true or null alone is a text like any other.
        if isinstance(value, str | list | dict):
            return all(_part(part, input) for part in _parts(value))
    except (ValueError, RecursionError):
        pass
    lines = [_LISTED.sub("", line).strip() for line in output.split("\n") if line.strip()]
    return bool(lines) and all(_whole(line, input) or _each(line, input) for line in lines)


def _whole(output: str, input: str) -> bool:
    own = words(output)
    if own and output.isascii():
        return f" {' '.join(own)} " in _spelt(input)[0]
    return _plain(output) in _spelt(input)[1]


@lru_cache(maxsize=8)
def _spelt(input: str) -> tuple[str, str]:
    """An input's words, and its text in lower case: each point of a long list is looked for in them."""
    return f" {' '.join(words(input))} ", _plain(input)


def _each(line: str, input: str) -> bool:
    items = [item for item in _BETWEEN.split(line) if item.strip(_STRIPPED)]
    return len(items) > 1 and all(_whole(item, input) for item in items)


def _parts(value: Any) -> Iterator[str | int | float]:
    """The strings and numbers of a JSON value, without the keys."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _parts(item)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value


def _part(part: str | int | float, input: str) -> bool:
    if isinstance(part, str):
        return _whole(part, input)
    # Which JSON spells without a comma and zeros at the end.
    return float(str(part).lstrip("-")) in _numbers(input)


@lru_cache(maxsize=8)
def _numbers(input: str) -> frozenset[float]:
    """The numbers of a text, with the comma for thousands and the point for parts, and the other way round."""
    read = (_NUMBER.findall(_THOUSANDS.sub("", text)) for text in (input, input.translate(_SWAPPED)))
    return frozenset(float(number) for found in read for number in found)


def part_within(output: str, input: str, parts: bool = False) -> str:
    """The longest part of an output in quotation marks or behind a colon that stands in the input; else the output."""
    if stands_in(output, input, parts):
        return output
    found = [hit[1] for hit in _QUOTED.finditer(output)]
    found += [output[hit.end() :] for hit in re.finditer(r":\s+", output)]
    found = [part.strip().strip('"“”') for part in found if _plain(part) and stands_in(part, input, parts)]
    return max(found, key=len, default=output)
