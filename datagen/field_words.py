"""Fields of an input as words: in which order they are written, and what each is called beside the others."""

from __future__ import annotations

from collections.abc import Sequence

from potstill.datagen.wording import is_long_kind, readable

_QUESTIONS = ("question", "query")
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


def writing_order(names: Sequence[str]) -> list[str]:
    """The fields in the order in which they are written: what is about another text comes behind it.

    Examples:
        >>> writing_order(["question", "passage"]), writing_order(["title", "body"])
        (['passage', 'question'], ['title', 'body'])
        >>> writing_order(["headline", "article"])
        ['article', 'headline']
    """
    long = {name for name in names if is_long_kind(spoken(name))}
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
