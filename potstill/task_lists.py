"""Names that a sentence enumerates: `billing (invoices, refunds), bug or other` → three labels, one with a remark."""

from __future__ import annotations

import re

from potstill.task import Label
from potstill.task_markdown import clean

MAX_LABELS = 1000
SET = (
    r"(?:categor(?:y|ies)|classes|class|labels?|intents?|topics?|emotions?|sentiments?|tags?|buckets?|groups?|types?|"
    r"kinds?|departments?|genres?|tones?|values?|options?|names?|words?|strings?|answers?|queues?|teams?|levels?)"
)
_LIST_END = re.compile(r"[.?!](?=\s|$)|[)\]]|:(?=\s)|\n\s*\n")
# What goes on after the last name of a list.
_AFTERTHOUGHT = re.compile(
    r"[,;]?\s+(?:[–—-]\s.*|(?:based|according|depending|given|by|from|using|for|when|where|if|so|in|then|with|because|only|"
    r"that|which|who|respectively|instead|to|on|about|without|as|per|whose|unless|and\s+(?:explain|give|say|write))\s.*)",
    re.IGNORECASE,
)
_REMARK = re.compile(r"\s*\(([^()]{1,300})\)")
# Stand for remarks while the names around them are told apart: private characters that no prompt holds.
_FIRST_MARK, _MOST_REMARKS = 0xE000, 500


def list_end(flat: str, start: int) -> int:
    """Where an enumeration that begins at `start` ends; brackets that open within it do not end it."""
    place = start
    while found := _LIST_END.search(flat, place):
        opened = _REMARK.search(flat, place)
        if opened is None or opened.start() >= found.start():
            return found.start()
        place = opened.end()
    return len(flat)


def listed(part: str) -> list[Label]:
    """The labels of an enumeration, a remark in brackets behind a name as its description; none where it is no list."""
    remarks: list[str] = []

    def lift(found: re.Match[str]) -> str:
        remarks.append(" ".join(found[1].split()))
        return chr(_FIRST_MARK + len(remarks) - 1)

    names = split_list(_REMARK.sub(lift, part, count=_MOST_REMARKS))
    marks = re.compile(f"[{chr(_FIRST_MARK)}-{chr(_FIRST_MARK + _MOST_REMARKS)}]")
    return [
        Label(marks.sub("", name).strip(), "; ".join(remarks[ord(mark) - _FIRST_MARK] for mark in marks.findall(name)))
        for name in names
    ]


def split_list(part: str) -> list[str]:
    """Names in an enumeration such as `billing, bug or other`; empty when it does not look like one."""
    part = part.strip().rstrip(".")
    if len(part) > 20_000:
        return []
    quoted = re.findall(r"\"([^\"]{1,100})\"|`([^`]{1,100})`|(?<![a-z])'([^']{1,100})'(?![a-z])", part, re.IGNORECASE)
    if len(quoted) >= 2:
        names = ["".join(groups) for groups in quoted]
        return _unique(names) if plausible(names) else []
    part = re.sub(r"\b(?:etc\.?|and so on)\s*$", "", part).strip(" ,")
    if part.count(";") == 1 and re.search(r",|\bor\b|\band\b", part.partition(";")[0]):
        part = part.partition(";")[0]
    pieces = re.split(r"\s*[;|]\s*" if ";" in part or "|" in part else r"\s*,\s*", part)
    last = re.sub(r"^(?:or|and)\s+", "", pieces[-1])
    tail = re.split(r"\s+or\s+|\s+vs\.?\s+|\s+versus\s+", last)
    if len(tail) == 1 and last == pieces[-1]:
        tail = re.split(r"\s+and\s+|\s+/\s+", last) if len(pieces) > 1 or " and " in last or " / " in last else [last]
    if len(tail) > 1 or last != pieces[-1]:
        tail[-1] = _AFTERTHOUGHT.sub("", tail[-1])
    pieces = [*pieces[:-1], *tail]
    if len(pieces) == 1 and re.fullmatch(r"[\w-]+(?:/[\w-]+)+", part):
        pieces = part.split("/")
    if len(pieces) == 1:
        return []
    names = [_bare(piece) for piece in pieces]
    trailing = re.fullmatch(rf"(.+?)\s+{SET}", names[-1], re.IGNORECASE)
    if trailing and not any(re.fullmatch(rf".+\s+{SET}", name, re.IGNORECASE) for name in names[:-1]):
        names[-1] = trailing[1]
    if len(names) == 2 and names[1].lower() == "not":
        names[1] = f"not {names[0]}"
    return _unique(names) if plausible(names) else []


def _bare(piece: str) -> str:
    piece = clean(re.sub(r"^(?:or|and|either|an?|the)\s+(?=\S)", "", piece.strip(" .:*"), flags=re.IGNORECASE))
    return re.sub(r"^(?:an?|the)\s+(?=\S)", "", piece).strip()


def plausible(names: list[str]) -> bool:
    """Whether these could all be label names: few, short, different."""
    return (
        2 <= len(names) <= MAX_LABELS
        and all(0 < len(name) <= 60 and len(name.split()) <= 6 for name in names)
        and len({name.casefold() for name in names}) == len(names)
    )


def _unique(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))
