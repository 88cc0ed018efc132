"""The languages, other than English, whose prompts are read by rules: one module each, named by its ISO 639-1 code."""

from __future__ import annotations

import re
from functools import cache

from potstill.language.speech import de, es, fr, it, ja, nl, pt, ru, zh
from potstill.language.speech.base import Speech, UndividedSpeech

DIVIDED: dict[str, Speech] = {
    "de": de.SPEECH, "fr": fr.SPEECH, "es": es.SPEECH, "it": it.SPEECH, "pt": pt.SPEECH, "nl": nl.SPEECH,
    "ru": ru.SPEECH,
}  # fmt: skip
UNDIVIDED: dict[str, UndividedSpeech] = {"zh": zh.SPEECH, "ja": ja.SPEECH}
SPOKEN: dict[str, Speech | UndividedSpeech] = {**DIVIDED, **UNDIVIDED}


@cache
def kind_words(language: str) -> dict[str, str]:
    """A regular expression for each kind of text, by its English word; empty for a language that is not known here.

    Examples:
        >>> re.search(kind_words("de")["review"], "alle Kundenbewertungen")[0]
        'Kundenbewertungen'
    """
    speech = SPOKEN.get(language)
    if speech is None:
        return {}
    if isinstance(speech, UndividedSpeech):
        return {kind: f"(?:{words.replace('/', '|')})" for kind, words in speech.kinds.items()}
    return {kind: rf"(?i:(?<![\w-])(?:{_forms(words)})(?![\w-]))" for kind, words in speech.kinds.items()}


def _forms(words: str) -> str:
    return "|".join(
        (r"[\w-]*" if word.startswith("*") else "")
        + re.escape(word.strip("*"))
        + (r"\w*" if word.endswith("*") else "")
        for word in words.split("/")
    )
