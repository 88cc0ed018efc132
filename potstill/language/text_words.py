"""What a task in another language than English calls its inputs: "Rezension", "avis", "評価".

The same as `text_kinds`, with the words of `potstill.language.speech`. Kinds are told in English, the language that
teachers are asked in.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from potstill.language.form_words import without_form
from potstill.language.guess import may_speak, prompt_language
from potstill.language.speech import DIVIDED, SPOKEN, kind_words

_MOST_CHARS = 2000


def named_elsewhere(instruction: str, labels: Collection[str] = ()) -> str | None:
    """The kind of text, in English, that a prompt in another language says its inputs are.

    Args:
        instruction: The task.
        labels: Names of the labels, which are no inputs.

    Returns:
        "" where it names none, and None where the prompt is in English or in a language that is not known here.

    Examples:
        >>> named_elsewhere("Klassifiziere Kundenbewertungen als positiv oder negativ.")
        'review'
        >>> named_elsewhere("Écris une question à laquelle le paragraphe répond.")
        'paragraph'
        >>> named_elsewhere("Classify the reviews.") is None
        True
    """
    text = " ".join(instruction[:_MOST_CHARS].replace("’", "'").split())
    answers = {label.casefold() for label in labels}
    language = prompt_language(text)
    if language is None:
        likely = (code for code in DIVIDED if may_speak(text, code))
        return next((kind for code in likely if (kind := _named(text, code, answers))), None)
    return _named(text, language, answers) if language in SPOKEN else None


def _named(text: str, language: str, answers: Collection[str]) -> str:
    text = without_form(text, language)
    found = []
    for place, (kind, words) in enumerate(kind_words(language).items()):
        for hit in re.finditer(words, text):
            if hit[0].casefold() not in answers and not _is_written(text[: hit.start()], language):
                found.append((hit.start(), -len(hit[0]), place, kind))
                break
    return min(found)[3] if found else ""


def _is_written(before: str, language: str) -> bool:
    """Whether what follows is an output: the object of a verb that writes, and not known already."""
    if language not in DIVIDED:
        return False
    speech = DIVIDED[language]
    writes = re.search(rf"\b(?:{speech.writes})\b((?:[ ,]+[\w'-]+){{0,4}}[ ']*)\Z", before, re.IGNORECASE)
    if writes is None or re.search(rf"\b(?:{speech.the}) ?\Z", writes[1], re.IGNORECASE):
        return False
    return re.search(rf"\b(?:{speech.to})\b", writes[1], re.IGNORECASE) is None
