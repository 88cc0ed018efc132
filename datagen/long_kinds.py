"""Which kinds of text are long, and how long: a small teacher that is not told writes an article of two sentences.

And which inputs may be a single word: those that are no texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from potstill.language.text_kinds import own_noun, text_kind

# Words from which on an input is long, and what one has whose kind alone is known.
_LONG, _LONG_WORDS = 50, 200
_LONG_KIND = re.compile(
    r"^(?:(?!(?:about|of|on|in|from|for|to|with|by)\b)\S+ )*(?:abstract|article|biography|blog|chapter|contract|debate|"
    r"document|essay|letter|lyrics|narrative|obituary|page|paper|paragraph|passage|patent|report|speech|story|testimony|"
    r"transcript|transcription|wiki)\b"
    r"(?! (?:titles?|headlines?|sentences?|questions?|lines?|names?|numbers?|topics?)\b)"
    r"|^(?:notes?|minutes) of\b",
    re.IGNORECASE,
)
_ENDS = r"(?=$| (?:about|of|on|in|from|for|to|with|by|at|between|among|that|which|where|who|held|sent|written|had)\b)"
_WORK = r"(?:movie|film|book|novel|theat(?:re|er)|album|concert|(?:video )?game)"
# Texts of which some are a word, and words that say nothing of what an input is.
_SHORT_KINDS = frozenset(("query", "username", "topic", "title"))
_NO_KIND = frozenset(("text", "input", "item", "data", "content", "piece", "string", "list", "table", "turn"))
# Kinds of which a part is short (a chat, not a chat message), and reviews of what takes more words than a lamp.
_LONG_ALONE = re.compile(
    rf"^(?!(?:very )?(?:short|brief|one-line)\b)(?:(?!(?:about|of|on|in|from|for|to|with|by)\b)\S+ )*"
    rf"(?:dialog(?:ue)?|conversation|chat(?: log| history| session)?|interview|discussion|thread|lecture|sermon|"
    rf"editorial|memoir|screenplay|manuscript|{_WORK} review|long (?:\S+ )?review){_ENDS}"
    rf"|^reviews? of (?:an? |the )?{_WORK}{_ENDS}",
    re.IGNORECASE,
)


def input_words(given: Sequence[str], noun: str) -> int:
    """Words that one of a task's inputs, which it calls `noun`, has where it is long; 0 where nothing says so.

    The user's own inputs tell, else what the task calls them: an abstract, an article or the minutes of a meeting
    has two hundred words, where a small teacher that is not told so writes twenty-five.
    """
    lengths = sorted(len(text.split()) for text in given)
    if lengths:
        middle = lengths[len(lengths) // 2]
        return 10 * round(middle / 10) if middle >= _LONG else 0
    return _LONG_WORDS if is_long_kind(noun) else 0


def is_long_kind(noun: str) -> bool:
    """Whether a noun names a kind of text that is long: an article, the minutes of a meeting."""
    return _LONG_KIND.search(noun) is not None or _LONG_ALONE.search(noun) is not None


def may_be_a_word(noun: str) -> bool:
    """Whether an input of this name may be a single word or number: a thing that is no text, or a search query.

    Examples:
        >>> may_be_a_word("English word"), may_be_a_word("date"), may_be_a_word("text")
        (True, True, False)
    """
    own = own_noun(noun).lower()
    kind = text_kind(own)
    return kind in _SHORT_KINDS if kind else own not in _NO_KIND
