"""Whether a prompt asks for several labels of one input: of sets of their own (sentiment *and* topic), or of one set.

One student gives one label, so a prompt of the first kind is refused by its reader rather than read for the first set
alone. One of the second kind ("assign all tags that apply") is answered by a text that holds the labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from potstill.task.choices import ASPECT
from potstill.task.lists import list_end, listed
from potstill.task.markdown import bullet, split_label

_OF_ASPECT = re.compile(
    r"\b(sentiment|polarity|topic|intent|emotion|category|genre|tone|mood|stance|urgency|priority|severity|department|"
    r"language|type)(?:\s+(?:of|for)\s+[^.,:;()]{1,60}?)?\s*(?:\bas\b|\binto\b|:|=|\()\s*(?:either\s+|one of\s+)?",
    re.IGNORECASE,
)
# `"sentiment": "positive|negative"`, as the answer is drawn in JSON.
_IN_JSON = re.compile(
    r"[\"'](\w[\w ]{0,40})[\"']\s*:\s*([\"']?[^\"'{}:,|]{1,60}[\"']?(?:\s*\|\s*[\"']?[^\"'{}:,|]{1,60}[\"']?)+)"
)
_IT = r"(?:it|(?:the|this|an?)\s+\w+)"
_TWICE = re.compile(
    rf"\b(as|whether\s+{_IT}\s+is|is\s+{_IT})\s+(\S[^.;:,]{{0,60}}? or [^.;:,]{{1,60}}?),?\s+and\s+(?:also\s+)?"
    rf"(?:as|(?:whether\s+{_IT}\s+is|is\s+{_IT})(?: about)?)\s+([^.;:?]{{1,80}})",
    re.IGNORECASE,
)
_LINE = re.compile(rf"\W{{0,6}}{ASPECT}s?\W{{0,3}}:", re.IGNORECASE)
_ENDS = re.compile(rf"\b({ASPECT})s?\W{{0,3}}:\W{{0,3}}$", re.IGNORECASE)
# What leads on to the next set.
_LEADS_ON = re.compile(
    r"[\s,;]+(?:(?:and|or|by|its|their|the|a|also|then|label|classify|detect)\b[\s,;]*)*$", re.IGNORECASE
)

# Words for a set whose members an input may have several of.
_LABELS = (
    r"(?:labels?|topics?|genres?|categor(?:y|ies)|tags?|class(?:es)?|intents?|emotions?|themes?|aspects?|codes?|moods?|"
    r"subjects?|keywords?|sentiments?|departments?)"
)
_NUMBER = r"(?:two|three|four|five|six|\d{1,2})"
_COUNTED = (
    rf"(?:(?:one|any|zero|{_NUMBER})\s+or\s+more|one\s+or\s+several|up\s+to\s+{_NUMBER}|"
    rf"at\s+most\s+(?!one\b|1\b){_NUMBER})"
)
_MANY = r"(?:more\s+than\s+one|multiple|several)"
_GIVES = (
    r"\b(?:(?:assign|give|add|pick|choose|select|name|list|return|output|tag|apply|attach|label|into)\b[^.:;?!]{0,60}?|"
    r"(?:can|may|might|could)\s+(?:have|get|carry|belong\s+to|fall\s+into|be\s+(?:in|given))\s+)\b"
)
_FITS = r"(?:applicable|suitable|fitting|matching|relevant|appropriate|correct)"
_ALL = r"\ball\s+(?:(?:of\s+)?the\s+)?"
_WORDS = r"\s+(?:each|every|all)\s+(?:of\s+)?(?:the\s+)?(?:tokens?|words?)\b"
_BETWEEN = r"\s+(?:of\s+)?(?:(?:the|these|its|following|possible|allowed|suitable|relevant|given|different)\s+){0,3}"
_SEVERAL_LABELS = re.compile(
    rf"\b{_COUNTED}{_BETWEEN}{_LABELS}\b|\b{_COUNTED}\s+of\s*(?::|(?:these|the\s+following)\b)"
    rf"|{_GIVES}{_MANY}{_BETWEEN}{_LABELS}\b"
    rf"|\b(?:{_COUNTED}|{_MANY})\s+(?:{_LABELS}\s+)?(?:(?:is|are|may\s+be|can\s+be)\s+)?(?:allowed|possible|permitted)\b"
    rf"|\b{_LABELS}\s*\((?:{_COUNTED}|{_MANY})\)"
    rf"|{_ALL}{_FITS}\s+{_LABELS}\b|{_ALL}(?:{_LABELS}\s+)?that\s+apply\b"
    r"|\b(?:choose|select|pick|return|output|list|give|assign|mark|tick|check|name)\s+all\s+applicable(?!\s+\w)"
    r"|\b(?:labels|topics|genres|categories|tags|classes|emotions|themes)\s+(?:that|which)\s+(?:apply|fit|match)\b"
    rf"|\bmulti-?label\b|\b(?:label|tag|classify|annotate|categori[sz]e|mark|for){_WORDS}"
    rf"|\b(?:labels?|tags?|class(?:es)?|parts?[ -]of[ -]speech)\s+(?:of|for|to){_WORDS}",
    re.IGNORECASE,
)
# Before such words where they are said of the inputs, or of what is not to be done.
_NOT_ASKED = re.compile(
    r"\b(?:that|which|who)\s+(?:may\s+|can\s+)?\w+\s+(?:about\s+)?$|\b(?:of|about|containing|mentioning)\s+$"
    r"|\b(?:if|when|where|whether|though|although|not|never|no|is|are|don't|doesn't|can't|cannot)\s+"
    r"(?:[\w']+\s+){0,6}$",
    re.IGNORECASE,
)


def several_labels(flat: str) -> bool:
    """Whether a prompt asks for any number of labels of one set, or for one of each of an input's words.

    Args:
        flat: The prompt on one line.

    Examples:
        >>> several_labels("Assign up to three topics: war, art, sport.")
        True
        >>> several_labels("Classify documents of one or more paragraphs as legal or medical.")
        False
    """
    return any(
        not _NOT_ASKED.search(flat[max(0, found.start() - 80) : found.start()])
        for found in islice(_SEVERAL_LABELS.finditer(flat), 20)
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
