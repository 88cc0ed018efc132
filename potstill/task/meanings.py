"""What a prompt says its labels mean, where the labels are listed apart from it.

The names of the labels and the prompt enter; a meaning for each name leaves, or none at all: half a table of codes is
one that was misread. `0 = World, 1 = Sports`, `World (0) or Sports (1)`, `1 for good, 0 for bad` and lines such as
`- pos: the writer likes the film` are read. Since the names are known, nothing has to be guessed but where a meaning
ends: at the next name, or with its line, its sentence or its bracket. Names that are words say something by themselves:
where the prompt lists all of them, only some may have a remark (`earn (company earnings), trade or ship (shipping)`).

A question of yes and no has better words than "otherwise": what it asks (`potstill.language.label_words`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from potstill.language.label_words import is_answered, what_is_asked
from potstill.task import Inferred, Label, readable

_SIGN = r"\s*(?:=>?|:|-+>|→|⇒|–|—|\||\s--?(?=\s))\s*"
_CODE_WORDS = r"\s+(?:is|are|for)\s+"
_WORDS = r"\s+(?:(?:which\s+)?means?|stands?\s+for|denotes|indicates|represents)\s+"
_IF = r"\s+(?:if|when)\s+"
_NUMBERED = r"[.)]\s+"
_QUOTES = r"[\"'`*]{0,3}"
# Where a meaning ends that the next name does not end.
_END = re.compile(r"\n|[.!?](?=\s|$)|[;|)\]}]")
# What leads on to the next name, or from the meaning before to the answer that is given for it.
_TAIL = re.compile(
    r"(?:[\s,;:|/\"'`*({\[-]|\b(?:and|or|but|with|as|use|the|an?|label|class|code|category|topic|number|output|answer|"
    r"return|reply|respond|give|say|write|print|choose|it|is)\b)+$",
    re.IGNORECASE,
)
_HEAD = re.compile(
    r"^(?:[\s,;:|/\"'`*({\[]|\b(?:and|or|as|use|the|an?|either|output|answer|return|reply|respond|give|say|write|print|with)\b)+",
    re.IGNORECASE,
)
_THEN = re.compile(
    r",?\s+(?:and|but)\s+(?:answer|reply|respond|give|return|output|say|write|print|explain|nothing|no)\b.*|,\s+nothing\b.*",
    re.IGNORECASE | re.DOTALL,
)
_SUBJECT = re.compile(
    r"^(?:(?:it|this|that|they|he|she|(?:the|this|an?|each) [\w-]+)(?:'s|\s+(?:is|are|was|were))|it|they)\s+",
    re.IGNORECASE,
)
# Between two names of a list.
_NEXT = re.compile(r"\s*[,;|/]\s*(?:(?:or|and)\s+)?(?:an?\s+)?|\s+(?:or|and)\s+(?:an?\s+)?")
# Say nothing of a label.
_EMPTY = re.compile(
    r"(?:otherwise|(?:\w+ )?(?:(?:is|are|does|do) )?not|if not|else|yes|no|true|false|none of|see\b.*|etc\.?|\W*|"
    r"\d+(?:\s+\w+)?|(?:or|and|to)\b.*)",
    re.IGNORECASE,
)
# First words of steps to follow.
_STEP = re.compile(
    r"(?:read|decide|answer|look|check|output|return|think|identify|determine|find|extract|write|use|do|if|classify|explain|"
    r"consider|make|add|give|start|then|first|never|always|include|choose|label|rate|assign|compare|pick)\b",
    re.IGNORECASE,
)
_MOST_CHARS, _MOST_AHEAD, _MOST_NAMES = 200, 5, 200


def with_meanings(
    labels: list[tuple[int, Label]], instruction: str, inferred: list[Inferred]
) -> list[tuple[int, Label]]:
    """Listed labels with the descriptions that the prompt has for them; as they are where the user described one.

    Args:
        labels: The labels, each with its line.
        instruction: The prompt.
        inferred: Takes what was found.
    """
    if not labels or any(label.description for _, label in labels):
        return labels
    names = [label.name for _, label in labels]
    if not (found := meanings(names, instruction) or remarks(names, instruction)):
        return labels
    inferred.append(Inferred("descriptions", "; ".join(f"{name}: {said}" for name, said in found.items()), "rules"))
    return [(line, replace(label, description=found.get(label.name, ""))) for line, label in labels]


def remarks(names: Sequence[str], instruction: str) -> dict[str, str]:
    """What stands in brackets behind some of the names, where the prompt lists all of them one after the other.

    Examples:
        >>> remarks(["crude", "grain", "earn"], "Sort news: earn (company earnings), crude (oil) or grain.")
        {'crude': 'oil', 'earn': 'company earnings'}
        >>> remarks(["crude", "grain", "earn"], "Sort news about companies (earn) and goods.")
        {}
    """
    text = " ".join(instruction[:10_000].split())
    distinct = 2 <= len(set(names)) == len(names) <= _MOST_NAMES
    if not distinct or not all(re.search(r"[^\W\d_]{2}", name) for name in names):
        return {}
    spelt = "|".join(map(_spelling, sorted(names, key=len, reverse=True)))
    item = re.compile(rf"(?<![\w.-]){_QUOTES}({spelt}){_QUOTES}(?:\s*\(([^()]{{1,{_MOST_CHARS}}})\))?(?![\w-])")
    run: list[re.Match[str]] = []
    for found in item.finditer(text):
        goes_on = run and _NEXT.fullmatch(text, run[-1].end(), found.start())
        run = [*run, found] if goes_on else [found]
        said = {_name_of(names, one[1]): " ".join((one[2] or "").split()) for one in run[-len(names) :]}
        if len(said) == len(names) and any(said.values()):
            return {name: said[name] for name in names if said[name] and not _EMPTY.fullmatch(said[name])}
    return {}


def meanings(names: Sequence[str], instruction: str) -> dict[str, str]:
    """What each of the names means; empty where the prompt does not say it of all of them.

    Examples:
        >>> meanings(["0", "1"], "Sentiment of a review. Output 1 for positive, 0 for negative.")
        {'0': 'negative', '1': 'positive'}
        >>> meanings(["spam", "ham"], "Is it spam or ham?")
        {}
    """
    text = re.sub(r"[^\S\n]+", " ", instruction[:10_000].replace("’", "'"))
    text = re.sub(r"(?: ?\n)+ ?", "\n", text)
    if not 2 <= len(set(names)) == len(names) <= _MOST_NAMES or (
        is_answered(names) and what_is_asked(text) is not None
    ):
        return {}
    codes = all(re.fullmatch(r"[+-]?\d{1,3}|[A-Z]{1,5}|[A-Za-z]+[_ -]?\d{1,3}", name) for name in names)
    short = codes and max(map(len, names)) < 4
    spelt = sorted(names, key=len, reverse=True)
    any_name = rf"(?<![\w.-])(?:{'|'.join(map(_spelling, spelt))})(?!\w|\.\d)"
    readers: list[Callable[[], dict[str, str]]] = [
        lambda: _behind(names, text, any_name, _SIGN),
        lambda: _bracketed(names, text, any_name),
        lambda: _behind(names, text, any_name, _WORDS),
        lambda: _behind(names, text, any_name, f"(?:{_WORDS}|{_CODE_WORDS})") if codes else {},
        lambda: _behind(names, text, any_name, _IF),
        lambda: _ahead(names, text, rf"\s*\(\s*{_QUOTES}({any_name}){_QUOTES}\s*\)"),
        lambda: _ahead(names, text, rf"(?:{_SIGN}|\s+(?:is|are|as)\s+){_QUOTES}({any_name}){_QUOTES}") if codes else {},
        lambda: _steps_aside(_behind(names, text, any_name, _NUMBERED)) if short else {},
        lambda: _one_after_another(names, text, any_name) if short else {},
    ]
    return next((found for read in readers if (found := _sound(names, read()))), {})


def _spelling(name: str) -> str:
    """A pattern of a name: a longer one in any case, and with blanks for underscores."""
    written = re.escape(name).replace("_", "[_ -]")
    return f"(?i:{written})" if len(name) > 2 else written


def _name_of(names: Sequence[str], written: str) -> str:
    return next((name for name in names if re.fullmatch(_spelling(name), written)), "")


def _row(names: Sequence[str], found: list[re.Match[str]]) -> list[tuple[str, re.Match[str]]]:
    """The first finds one after the other that hold each name once."""
    known = {written: _name_of(names, written) for written in {item[1] for item in found}}
    told = [known[item[1]] for item in found]
    for at in range(len(told) - len(names) + 1):
        if len(set(told[at : at + len(names)])) == len(names):
            return list(zip(told[at : at + len(names)], found[at : at + len(names)], strict=True))
    return []


def _behind(names: Sequence[str], text: str, any_name: str, joint: str) -> dict[str, str]:
    """Meanings behind their names: `0 = World`."""
    row = _row(names, list(re.finditer(rf"{_QUOTES}({any_name}){_QUOTES}{joint}", text)))
    said: dict[str, str] = {}
    for place, (name, item) in enumerate(row):
        last = place + 1 == len(row)
        rest = text[item.end() : len(text) if last else row[place + 1][1].start()][: 2 * _MOST_CHARS]
        rest = rest[: end.start()] if (end := _END.search(rest, 1 if rest[:1] in "([{" else 0)) else rest
        if last:
            rest = _THEN.sub("", rest)
            rest = rest if any("," in before for before in said.values()) else rest.split(",")[0]
        rest = _TAIL.sub("", rest) if not last else rest
        said[name] = _SUBJECT.sub("", rest.strip(" \"'`*")) if joint == _IF else rest
    return said


def _steps_aside(said: dict[str, str]) -> dict[str, str]:
    """Options behind numbers or letters (`1. World`); none where they are steps to follow."""
    return {} if any(_STEP.match(part) for part in said.values()) else said


def _one_after_another(names: Sequence[str], text: str, any_name: str) -> dict[str, str]:
    """Meanings of a word or two between commas: `0 inform, 1 question`."""
    said = r"((?!(?:of|or|and|for|if|is|are|in|to|stars?|points?)\b)[A-Za-z][\w/ -]{1,40}?)"
    row = _row(names, list(re.finditer(rf"(?:^|[\s(:;,])({any_name})\s+{said}(?=[,;.)\n]|$)", text)))
    return {name: item[2] for name, item in row} if all(len(item[2].split()) < 4 for _, item in row) else {}


def _bracketed(names: Sequence[str], text: str, any_name: str) -> dict[str, str]:
    """Meanings in brackets behind their names: `ABBR (abbreviation)`."""
    row = _row(names, list(re.finditer(rf"{_QUOTES}({any_name}){_QUOTES}\s*\(([^()]{{1,{_MOST_CHARS}}})\)", text)))
    return {name: item[2] for name, item in row}


def _ahead(names: Sequence[str], text: str, joint: str) -> dict[str, str]:
    """Meanings before their names: `World (0)`, `Sports = 1`."""
    row = _row(names, list(re.finditer(joint, text)))
    said: dict[str, str] = {}
    for place, (name, item) in enumerate(row):
        start = row[place - 1][1].end() if place else 0
        ends = [end.end() for end in re.finditer(r"[\n.!?:;(](?=\s|\w)", text[start : item.start()])]
        part = text[start + (ends[-1] if ends else 0) : item.start()]
        if not place:  # behind the task itself: "classify news as World (0)"
            part = re.split(r"\b(?:as|into|with|of|is|are|for|output|return|answer)\s", part)[-1]
        said[name] = _HEAD.sub("", part)
    longest = max((len(part.split()) for part in list(said.values())[1:]), default=0)
    first = len(next(iter(said.values()), "").split())
    return said if first <= max(longest, 1) + 1 and longest <= _MOST_AHEAD else {}


def _sound(names: Sequence[str], said: dict[str, str]) -> dict[str, str]:
    """Meanings in the names' order, if there is one for each and all differ."""
    bare = {name: " ".join(part.split()).strip(" \"'`*,;|") for name, part in said.items()}
    folded = [part.casefold() for part in bare.values()]
    known = {form.casefold() for name in names for form in (name, readable(name))}
    if len(set(folded)) < len(names) or known & set(folded) or any(len(part) > _MOST_CHARS for part in folded):
        return {}
    if any(_EMPTY.fullmatch(part) for part in folded):
        return {}
    return {name: bare[name] for name in names}
