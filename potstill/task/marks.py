"""Lists whose names stand in marks of their own, brought to the plain form that the other rules read.

`[bug], [feature] or [question]`, `<sales> / <support>`, `{World, Sports}` and `{"label": "spam"} or {"label": "ham"}`
enter; `"bug", "feature" or "question"` and `World, Sports` leave. Only for prompts that sort: elsewhere such marks hold
what is to be filled in.
"""

from __future__ import annotations

import re
from itertools import islice

_BETWEEN = r"(?:\s*(?:,|/|\||;)\s*(?:(?:or|and)\s+)?|\s+(?:or|and)\s+|\s+)"
_MARKED = (r"\[[^\[\]\n,|]{1,40}\]", r"<[^<>\n,|/]{1,40}>", r"\{[^{}\n,|:]{1,40}\}")
_ROWS = [re.compile(rf"{one}(?:{_BETWEEN}{one})+") for one in _MARKED]
# Not behind `in` and `from`: `label in [a, b]` is read as it stands (`potstill.task.choices`).
_ENCLOSED = re.compile(r"(?<![\w\])])(?<!\bin )(?<!\bfrom )(?<!∈ )[{\[]([^{}\[\]:\n]{3,2000}?)[}\]]")
_OBJECT = re.compile(r"\{\s*[\"']([\w ]{1,40})[\"']\s*:\s*[\"']([^\"'{}|]{1,60})[\"']\s*\}")


def unmarked(text: str) -> str:
    """The text with such lists in plain words.

    Examples:
        >>> unmarked("Tag it as [bug], [feature] or [question].")
        'Tag it as "bug", "feature" or "question".'
        >>> unmarked("Sort news into {World, Sports, Sci/Tech}.")
        'Sort news into World, Sports, Sci/Tech.'
        >>> unmarked('Reply with {"label": "spam"} or {"label": "ham"}.')
        'Reply with "spam" or "ham".'
    """
    text = _objects(text)
    for row in _ROWS:
        text = row.sub(_quoted, text)
    return _ENCLOSED.sub(lambda found: found[1] if re.search(r"[,|/]|\bor\b", found[1]) else found[0], text)


def _quoted(row: re.Match[str]) -> str:
    names = [name.strip(" \"'`") for name in re.findall(r"[\[<{]([^\[\]<>{}]{1,40})[\]>}]", row[0])]
    return ", ".join(f'"{name}"' for name in names[:-1]) + f' or "{names[-1]}"'


def _objects(text: str) -> str:
    """`{"label": "a"}` beside others of the same key, by their values."""
    found = list(islice(_OBJECT.finditer(text), 100))
    if len(found) < 2 or len({item[1] for item in found}) > 1 or len({item[2] for item in found}) < 2:
        return text
    return _OBJECT.sub(r'"\2"', text)
