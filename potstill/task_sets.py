"""Whether a prompt asks for several labels of one input, each of a set of its own: sentiment *and* topic.

One student gives one label, so such a prompt is refused by its reader rather than read for the first set alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from potstill.task_choices import ASPECT
from potstill.task_lists import list_end, listed
from potstill.task_markdown import bullet, split_label

_OF_ASPECT = re.compile(
    r"\b(sentiment|polarity|topic|intent|emotion|category|genre|tone|mood|stance|urgency|priority|severity|department|"
    r"language|type)(?:\s+(?:of|for)\s+[^.,:;()]{1,60}?)?\s*(?:\bas\b|\binto\b|:|=|\()\s*(?:either\s+|one of\s+)?",
    re.IGNORECASE,
)
# `"sentiment": "positive|negative"`, as the answer is drawn in JSON.
_IN_JSON = re.compile(
    r"[\"'](\w[\w ]{0,40})[\"']\s*:\s*([\"']?[^\"'{}:,|]{1,60}[\"']?(?:\s*\|\s*[\"']?[^\"'{}:,|]{1,60}[\"']?)+)"
)
_TWICE = re.compile(
    r"\b(as|whether it is|whether the \w+ is)\s+(\S[^.;:,]{0,60}? or [^.;:,]{1,60}?),?\s+and\s+(?:also\s+)?"
    r"(?:as|whether it is(?: about)?)\s+([^.;:]{1,80})",
    re.IGNORECASE,
)
_LINE = re.compile(rf"\W{{0,6}}{ASPECT}s?\W{{0,3}}:", re.IGNORECASE)
_ENDS = re.compile(rf"\b({ASPECT})s?\W{{0,3}}:\W{{0,3}}$", re.IGNORECASE)
# What leads on to the next set.
_LEADS_ON = re.compile(
    r"[\s,;]+(?:(?:and|or|by|its|their|the|a|also|then|label|classify|detect)\b[\s,;]*)*$", re.IGNORECASE
)


def several_sets(text: str) -> list[tuple[str, list[str]]]:
    """The sets of labels, each with what it is called; none where the prompt has one set or no set.

    Examples:
        >>> several_sets("Label the sentiment as good or bad, and the topic as art or war.")
        [('sentiment', ['good', 'bad']), ('topic', ['art', 'war'])]
    """
    flat = " ".join(" ".join(_sentences(text)).split())
    found = [(item[1], item[2].replace('"', "")) for item in islice(_IN_JSON.finditer(flat), 20)]
    found += re.findall(r"\b(\w{1,40})`?\s*:\s*Literal\[([^\[\]]{3,2000})\]", flat)[:20]
    heads = list(islice(_OF_ASPECT.finditer(flat), 40))
    for place, head in enumerate(heads):
        end = min([list_end(flat, head.end()), *(after.start() for after in heads[place + 1 : place + 2])])
        found.append((head[1].lower(), _LEADS_ON.sub("", flat[head.end() : end])))
    found += _bulleted(text)
    if twice := _TWICE.search(flat):
        found += [("one", twice[2]), ("the other", twice[3])]
    sets: list[tuple[str, list[str]]] = []
    for name, part in found:
        names = part.split("\n") if "\n" in part else [label.name for label in listed(part)]
        low = {item.casefold() for item in names}
        new = all(name != other and not low & {item.casefold() for item in taken} for other, taken in sets)
        if len(names) >= 2 and new and all(len(item.split()) <= 3 for item in names):
            sets.append((name, names))
    return sets if len(sets) > 1 else []


def _sentences(text: str) -> Iterator[str]:
    """Lines, those ended that are a sentence by themselves: `Urgency: low / high`, and what stands above one."""
    lines = text.split("\n")
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        alone = _LINE.match(line) or _LINE.match(below)
        yield f"{line}." if alone and re.search(r"\w\W?\s*$", line) and not line.rstrip().endswith((".", ":")) else line


def _bulleted(text: str) -> list[tuple[str, str]]:
    """Bullet lists below lines that end with the name of what is asked, their items on lines."""
    found: list[tuple[str, list[str]]] = []
    for line in text.split("\n"):
        item = bullet(line.rstrip())
        if head := _ENDS.search(line.strip()):
            found.append((head[1].lower(), []))
        elif item is not None and found:
            found[-1][1].append(split_label(item)[0])
        elif line.strip():
            found.append(("", []))
    return [(name, "\n".join(items)) for name, items in found if name and len(items) > 1]
