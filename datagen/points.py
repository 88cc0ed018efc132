"""The points of a bulleted or numbered list: counted at the outermost level, each with the lines that belong to it."""

from __future__ import annotations

import re

_POINT = re.compile(r"(?P<indent>[ \t]*)(?:(?P<bullet>[-*•–+◦‣▪·])|\d{1,2}[.)])[ \t]+\S")
_NESTED = 2
_ENDS = re.compile(r"[.!?:;][\"'”’»)*_]*\s*\Z")
_WRAPPED = 60


def _width(space: str) -> int:
    return len(space.expandtabs(4))


def _starts(lines: list[str]) -> list[int]:
    """The numbers of the lines that begin an outermost point."""
    found = [(number, hit) for number, line in enumerate(lines) if (hit := _POINT.match(line))]
    if not found:
        return []
    least = min(_width(hit["indent"]) for _, hit in found)
    outer = [(number, hit) for number, hit in found if _width(hit["indent"]) < least + _NESTED]
    # Where dashes stand under numbers without an indent, or numbers under dashes, the first is the outer kind.
    bulleted = outer[0][1]["bullet"] is not None
    return [number for number, hit in outer if (hit["bullet"] is not None) == bulleted]


def count_points(text: str) -> int:
    """How many points the list in a text has, without those within a point.

    Examples:
        >>> count_points("- Cause\\n  - a worn seal\\n- Effect"), count_points("1. a\\n2. b"), count_points("a and b")
        (2, 2, 0)
    """
    return len(_starts(text.split("\n")))


def first_points(text: str, most: int) -> str:
    """The first points of the list in a text as they stand there, without what is said before and behind them.

    A line belongs to the point above it where it is indented, and else where no blank line parts them and another point
    follows or the point's sentence goes on in it.

    Examples:
        >>> first_points("The points:\\n\\n- a\\n  b\\n- c\\n- d\\n\\nI hope this helps.", 2)
        '- a\\n  b\\n- c'
    """
    lines = text.split("\n")
    starts = _starts(lines)
    if not starts:
        return text
    if len(starts) > most:
        end = starts[most]
        return "\n".join(_without_heading(lines[starts[0] : end])).rstrip()
    end = starts[-1] + 1
    while end < len(lines) and _goes_on(lines, starts[-1], end):
        end += 1
    return "\n".join(lines[starts[0] : end]).rstrip()


def _goes_on(lines: list[str], start: int, at: int) -> bool:
    """Whether a line behind the last point is a part of it."""
    line, before = lines[at], lines[at - 1]
    if not line.strip():
        rest = next((later for later in lines[at + 1 :] if later.strip()), "")
        return bool(rest) and _indent(rest) >= _indent(lines[start]) + _NESTED
    if _indent(line) > _indent(lines[start]):
        return True
    if _POINT.match(line):
        return bool(before.strip())
    wraps = len(before) >= _WRAPPED and not _ENDS.search(before)
    return bool(before.strip()) and (line.strip()[0].islower() or wraps)


def _indent(line: str) -> int:
    return _width(line[: len(line) - len(line.lstrip())])


def _without_heading(lines: list[str]) -> list[str]:
    """Points without a heading of the next one that stands behind a blank line."""
    while len(lines) > 1 and (not lines[-1].strip() or (not lines[-2].strip() and _indent(lines[-1]) == 0)):
        lines = lines[:-1]
    return lines
