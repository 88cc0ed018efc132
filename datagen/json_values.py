"""JSON in what a teacher wrote: whether a text is a value, and the value that a text holds."""

from __future__ import annotations

import json
import re
from itertools import islice

# Right behind a value, or on a line or behind a comma of its own.
_NEXT_VALUE = (re.compile(r"\s*(?=[{\[])"), re.compile(r"[\n,]\s*(?=[{\[])"))


def is_json(output: str) -> bool:
    """Whether a text is one JSON value, without NaN and infinities."""
    try:
        json.loads(output, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def json_within(output: str) -> str:
    """The object or list that begins first in an output and is whole; the output where none is, or another follows."""
    start = re.search(r"[{\[]", output)
    if start is None or is_json(output):
        return output
    end = _value_end(output, start.start())
    if not end:
        return output
    next_ones = [_NEXT_VALUE[0].match(output, end), *islice(_NEXT_VALUE[1].finditer(output, end), 20)]
    if any(found and _value_end(output, found.end()) for found in next_ones):
        return output
    return output[start.start() : end]


def _value_end(text: str, start: int) -> int:
    """The index behind the JSON value that begins somewhere in a text; 0 where none does."""
    try:
        return json.JSONDecoder(parse_constant=_no_constant).raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return 0


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
