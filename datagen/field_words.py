"""Fields of an input as words: in which order they are written, and what each is called beside the others."""

from __future__ import annotations

import re
from collections.abc import Sequence

from potstill.datagen.long_kinds import is_long_kind
from potstill.task import readable

_QUESTIONS = ("question", "query")
# What a question is asked of, where such a field stands beside it.
_ASKED_OF = frozenset(
    ("context", "ctx", "background", "text", "content", "body", "source", "evidence", "facts", "knowledge", "extract")
    + ("excerpt", "material", "reference", "information")
)
_ONE_OF_TWO = re.compile(
    r"^(?:first|second|left|right) |[ _-]?\d+$| (?:[ab]|one|two|left|right|first|second)$|(?<=[a-z])[AB]$"
)
# Written after the text that they are about, wherever they stand in the input.
_ABOUT_ANOTHER = (*_QUESTIONS, "answer", "response", "reply", "summary")


def spoken(name: str) -> str:
    """A field's name as words, without the number of one of a pair.

    Examples:
        >>> spoken("job_description"), spoken("sentence2")
        ('job description', 'sentence')
    """
    return readable(name).rstrip("0123456789 ") or name


def is_question(name: str) -> bool:
    """Whether what stands in a field is a question."""
    return _last_word(name) in _QUESTIONS


def called(name: str, names: Sequence[str]) -> str:
    """What a field is by itself: its name as words, and a passage where a question is asked of it.

    Examples:
        >>> called("context", ["context", "question"]), called("context", ["context", "reply"])
        ('passage', 'context')
    """
    asked = any(map(is_question, names)) and _last_word(name) in _ASKED_OF
    return "passage" if asked and not is_long_kind(spoken(name)) else spoken(name)


def is_long_field(name: str, names: Sequence[str]) -> bool:
    """Whether a field holds a long text, told by its name and by those beside it."""
    return is_long_kind(called(name, names))


def first_noun(names: Sequence[str]) -> str:
    """What the field is called that is written first."""
    return called(writing_order(names)[0], names)


def pair_of(names: Sequence[str]) -> str:
    """The one kind of thing that two fields hold, in words; "" where they are not two, or of two kinds.

    Examples:
        >>> pair_of(["sentence1", "sentence2"]), pair_of(["text_a", "text_b"]), pair_of(["premise", "hypothesis"])
        ('sentence', 'text', '')
    """
    if len(names) != 2:
        return ""
    one, other = (_ONE_OF_TWO.sub("", readable(name).strip()).strip().lower() for name in names)
    if sorted(name.lower() for name in names) in (["a", "b"], ["left", "right"], ["first", "second"]):
        return "text"
    if one != other:
        return ""
    return "text" if len(one) < 2 or one in ("input", "string", "item") else one


def writing_order(names: Sequence[str]) -> list[str]:
    """The fields in the order in which they are written: what is about another text comes behind it.

    Examples:
        >>> writing_order(["question", "passage"]), writing_order(["title", "body"])
        (['passage', 'question'], ['title', 'body'])
        >>> writing_order(["headline", "article"])
        ['article', 'headline']
    """
    long = {name for name in names if is_long_field(name, names)}
    return sorted(names, key=lambda name: (bool(long) and name not in long, _last_word(name) in _ABOUT_ANOTHER))


def field_noun(name: str, known: Sequence[str]) -> str:
    """What a field is called where others are written.

    Examples:
        >>> field_noun("question", ["passage"]), field_noun("body", ["title"])
        ('question about this passage', 'body for this title')
        >>> field_noun("sentence2", ["sentence1"])
        'second sentence for this sentence'
    """
    first = known[0]
    second = "second " if spoken(name) == spoken(first) else ""
    about = "about" if is_question(name) and not second else "for"
    return f"{second}{spoken(name)} {about} this {spoken(first)}"


def _last_word(name: str) -> str:
    return spoken(name).split()[-1].lower()
