"""Runs of letters in scripts without spaces between words, where other texts are compared by runs of words.

A sentence of Chinese, Japanese or Thai is one "word" to a rule that looks for spaces, so that a passage inside a longer
text would never be found. Letters stand for words there: two of Han and kana, four of Thai, Lao, Khmer and Burmese,
about what a word takes.
"""

from __future__ import annotations

from collections.abc import Iterator

import regex

_SCRIPTS = ((r"\p{Han}\p{Hiragana}\p{Katakana}", 2), (r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}", 4))
_ANY = [(regex.compile(rf"[{scripts}]"), letters) for scripts, letters in _SCRIPTS]
_TOKEN = [
    regex.compile(
        rf"[[\p{{L}}\p{{N}}]&&[{scripts}]]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{scripts}]]+", regex.VERSION1
    )
    for scripts, _ in _SCRIPTS
]  # fmt: skip
_LETTER = regex.compile(rf"[[\p{{L}}]&&[{''.join(scripts for scripts, _ in _SCRIPTS)}]]\p{{M}}*", regex.VERSION1)


def letters_apart(text: str) -> str:
    """The text with a space around each letter of these scripts, for counts that go by words.

    Examples:
        >>> letters_apart("abc def"), " ".join(letters_apart("学习abc").split())
        ('abc def', '学 习 abc')
    """
    return text if text.isascii() else _LETTER.sub(r" \g<0> ", text)


def letters_a_word(text: str) -> int:
    """How many letters stand for a word; 1 for a text whose words have spaces between them.

    Examples:
        >>> letters_a_word("abc def"), letters_a_word("我们在学习"), letters_a_word("ขอบคุณ")
        (1, 2, 4)
    """
    return 1 if text.isascii() else max((letters for script, letters in _ANY if script.search(text)), default=1)


def letter_runs(text: str, words: int) -> Iterator[str]:
    """Each run of as many letters as `words` words take; none of a text whose words have spaces between them.

    Examples:
        >>> list(letter_runs("abc def", 2)), list(letter_runs("我们在学习。", 2))
        ([], ['我 们 在 学', '们 在 学 习'])
    """
    for (script, letters), token in zip(_ANY, _TOKEN, strict=True):
        if script.search(text) is None:
            continue
        tokens = token.findall(text)
        size = words * letters
        for start in range(len(tokens) - size + 1):
            yield " ".join(tokens[start : start + size])
