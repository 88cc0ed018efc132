"""Labels that a prompt lists in another language than English, as far as a colon and a word for "or" tell.

The rules of `task_inference` know English verbs. Of a prompt in one of six other languages one form is read, the one
that cannot be mistaken: "…: A, B oder C", where nothing is asked to be written. What is put otherwise is left open,
for the teacher or the user to say.
"""

from __future__ import annotations

import re

from potstill.language_guess import prompt_language

# The word for "or", and how verbs begin that ask for a text.
_WORDS = {
    "de": ("oder", "schreib|verfass|formulier|fass|kürz|übersetz|erzeug|erstell|nenn|beschreib|erklär|antwort|erfind"),
    "fr": ("ou", "écri|rédig|résum|tradui|génér|propos|décri|expliqu|répond|compos|reformul|invent"),
    "es": ("o|u", "escrib|redact|resum|traduc|gener|propon|describ|expli|respond|compon|reformul|invent"),
    "it": ("o|oppure", "scriv|redig|riassum|traduc|gener|propon|descriv|spieg|rispond|compon|riformul|invent"),
    "pt": ("ou", "escrev|redij|resum|traduz|ger[ae]|propon|descrev|expli|respond|compon|reformul|invent"),
    "nl": ("of", "schrijf|formuleer|vat|vertaal|genereer|maak|beschrijf|leg|antwoord|beantwoord|bedenk"),
}


def listed_labels(prompt: str) -> list[str]:
    """Names after a colon, the last two joined by the language's "or"; empty where the prompt holds no such list.

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
    if re.search(rf"\b(?:{writes})", prompt, re.IGNORECASE):
        return []
    name = r"[^\s,.:;?!][^,.:;?!]{0,59}"
    found = re.search(
        rf":\s*((?:{name}?,\s*)*{name}?),?\s+(?:{either})\s+({name})\s*(?:[.?!]|$)", prompt, re.IGNORECASE
    )
    names = [*re.split(r",\s*", found[1]), found[2]] if found else []
    names = [" ".join(item.strip(" \"'«»„“”‚‘’").split()) for item in names]
    fine = all(item and len(item.split()) <= 5 for item in names)
    return (
        names
        if fine and len({item.casefold() for item in names}) == len(names) >= (2 if language in _WORDS else 3)
        else []
    )
