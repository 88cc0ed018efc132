"""Labels that a prompt lists in another language than English, as far as a colon and a word for "or" tell.

The rules of `task_inference` know English verbs. Of a prompt in one of six other languages three forms are read, which
cannot be mistaken: "…: A, B oder C", where nothing is asked to be written, "klassifiziere …: A, B, C", and a question
alone, "Ist … A, B oder C?". What is put otherwise is left open, for the teacher or the user to say.
"""

from __future__ import annotations

import re

from potstill.language_guess import prompt_language

# How verbs begin that ask for a label.
_SORTS = {
    "de": "klassifizier|kategorisier|ordne|sortier",
    "fr": "classe|classif|catégoris|trie[zr]?\\b|étiquet",
    "es": "clasific|clasifiqu|categori[zc]|etiquet",
    "it": "classific|categorizz|smist|etichett",
    "pt": "classific|classifiqu|categoriz|etiquet",
    "nl": "classific|categoriseer|sorteer",
}
# The word for "or", and how verbs begin that ask for a text.
_WORDS = {
    "de": ("oder", "schreib|verfass|formulier|fass|kürz|übersetz|erzeug|erstell|nenn|beschreib|erklär|antwort|erfind"),
    "fr": ("ou", "écri|rédig|résum|tradui|génér|propos|décri|expliqu|répond|compos|reformul|invent"),
    "es": ("o|u", "escrib|redact|resum|traduc|gener|propon|describ|expli|respond|compon|reformul|invent"),
    "it": ("o|oppure", "scriv|redig|riassum|traduc|gener|propon|descriv|spieg|rispond|compon|riformul|invent"),
    "pt": ("ou", "escrev|redij|resum|traduz|ger[ae]|propon|descrev|expli|respond|compon|reformul|invent"),
    "nl": ("of", "schrijf|formuleer|vat|vertaal|genereer|maak|beschrijf|leg|antwoord|beantwoord|bedenk"),
}
# What stands before the answers of a question: the verb, and where it opens the question, an article and a noun.
_ASKS = {
    "de": r"^(?:ist|sind)\s+\S+\s+\S+\s+",
    "fr": r"\b(?:est|sont)(?:-(?:il|elle|ils|elles))?\s+",
    "es": r"(?:^¿?\s*(?:es|son)\s+\S+\s+\S+|\b(?:es|son))\s+",
    "it": r"\b(?:è|sono)\s+",
    "pt": r"\b(?:é|são)\s+",
    "nl": r"^(?:is|zijn)\s+\S+\s+\S+\s+",
}
_NAME = r"[^\s,.:;?!][^,.:;?!]{0,59}"


def listed_labels(prompt: str) -> list[str]:
    """Names after a colon or in a question, the last two joined by the language's "or"; empty where none are listed.

    Args:
        prompt: The task on one line, in any language.

    Examples:
        >>> listed_labels("Ordne Leserbriefe ein: Lob, Kritik oder Frage.")
        ['Lob', 'Kritik', 'Frage']
    """
    language = prompt_language(prompt)
    if language == "en":
        return []
    # Of a prompt whose language its few words do not tell, a longer list is asked for.
    known = [_WORDS[language]] if language in _WORDS else list(_WORDS.values())
    either, writes = ("|".join(part) for part in zip(*known, strict=True))
    if names := _asked(prompt, [language] if language in _WORDS else list(_WORDS)):
        return names
    joined = rf",?\s+(?:{either})\s+|,\s*"
    listing = rf"((?:{_NAME}?,\s*)*{_NAME}?)({joined})({_NAME})"
    for found in re.finditer(rf":\s*{listing}\s*(?:[.?!]|$)", prompt, re.IGNORECASE):
        sorts = asks_for_labels(re.split(r"[.?!]\s", prompt[: found.start()])[-1])
        if re.search(rf"\b(?:{writes})", prompt, re.IGNORECASE) and not sorts:
            continue
        told = bool(re.search(r"\w", found[2]))  # by an "or", not a comma alone
        least = 2 if told and (language in _WORDS or sorts) else 3
        if (told or sorts) and len(fine := _names(found[1], found[3])) >= least:
            return fine
    return []


def _asked(prompt: str, languages: list[str]) -> list[str]:
    """The answers that a prompt leaves which is one question and nothing else."""
    for language in languages:
        either = _WORDS[language][0]
        answers = rf"((?:{_NAME}?,\s*)*{_NAME}?),?\s+(?:{either})\s+({_NAME}?)\s*\?$"
        found = re.search(_ASKS[language] + answers, prompt.strip(), re.IGNORECASE)
        if found and not re.search(r"[.?!:]\s", prompt[: found.start()]) and (names := _names(found[1], found[2])):
            return names
    return []


def _names(first: str, last: str) -> list[str]:
    """Each name of a list once, without quotation marks; empty where they do not look like names."""
    names = [" ".join(item.strip(" \"'«»„“”‚‘’").split()) for item in [*re.split(r",\s*", first), last]]
    fine = all(item and len(item.split()) <= 5 for item in names)
    return names if fine and len({item.casefold() for item in names}) == len(names) else []


def asks_for_labels(prompt: str) -> bool:
    """Whether a verb of one of these languages asks that texts are sorted."""
    return bool(re.search(rf"\b(?:{'|'.join(_SORTS.values())})", prompt, re.IGNORECASE))
