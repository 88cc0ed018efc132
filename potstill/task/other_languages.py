"""Labels that a prompt names in another language than English, as far as a colon and a word for "or" tell.

The rules of `inference` know English verbs. Of a prompt in one of seven other languages four forms are read, which
cannot be mistaken: "…: A, B oder C", where nothing is asked to be written, "klassifiziere …: A, B, C", "klassifiziere …
als A, B oder C", and a question alone, "Ist … A, B oder C?". Of Chinese and Japanese, what a verb of sorting leads to.
A question that leaves yes or no, "Ist die Nachricht Spam?", has these as labels, in its language. What is put otherwise
is left open, for the teacher or the user to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from potstill.language.guess import SORTING_VERBS, prompt_language
from potstill.language.scale_words import RATES
from potstill.language.speech import DIVIDED, SPOKEN, UNDIVIDED
from potstill.language.speech.base import Speech

# What is sorted into an order, not by kind.
_ORDERS = re.compile(
    r"\b(?:alphab[eé]t|alfab[eé]t|aufsteigend|absteigend|der Größe nach|"
    r"(?:ordre|orden|ordine|ordem) (?:alpha|alfa|d?[eé]?cr|cre|asc|desc)|"
    r"croissant|ascendente|descendente|crescente|oplopend|aflopend|алфавит)",
    re.IGNORECASE,
)
_UNDIVIDED_LISTS = (
    r"[:：]\s*([^:：。.!?！？\n]{2,300})",
    r"(?:分[类類]?[成为為]|归类为|歸類為)([^:：。.!?！？\n]{2,300})",
    r"是([^:：。.!?！？\n是]{1,60}还是[^:：。.!?！？\n]{1,60})",
    r"を([^:：。.!?！？\nを]{2,300}?)(?:の(?:いずれか|どれか|どちらか))?に(?:分類|分け)",
)
# Between the ends of a scale, whose remarks in brackets are none of it.
_RANGE = re.compile(
    r"(?<![\d.,])(\d{1,2})\s*(?:bis|à|al?|ao?|tot|до|-|–|到|至|から|~|～)\s*(\d{1,2})(?![\d%.,]*\d)", re.IGNORECASE
)
_REMARK = re.compile(r"\s*[(（][^()（）]{1,60}[)）]")
_MOST_STEPS = 10
# Verbs that say how yes or no is to be given, and ask for no text.
_REPLIES = re.compile(r"\b(?:antwort|répond|respond|rispond|antwoord|beantwoord|ответ)\w*", re.IGNORECASE)
# "Is it positive, or is it negative?"
_EITHER_OR = re.compile(
    r"は([^、。？?は]{1,20}?)(?:です|ます)?か[、，]?\s*(?:それとも|または)([^、。？?]{1,20}?)(?:です|ます)?か[。？?]?$"
)
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
    if language in UNDIVIDED:
        two = _EITHER_OR.search(prompt.strip())
        return list(two.groups()) if two else _undivided(prompt, language) if opens_sorting(prompt) else []
    # Of a prompt whose language its few words do not tell, a longer list is asked for.
    known = [DIVIDED[language]] if language in DIVIDED else list(DIVIDED.values())
    either, writes = ("|".join(getattr(speech, name) for speech in known) for name in ("either", "writes_text"))
    if names := _asked(prompt, known):
        return names
    joined = rf",?\s+(?:{either})\s+|,\s*"
    listing = rf"((?:{_NAME}?,\s*)*{_NAME}?)({joined})({_NAME})"
    for found in re.finditer(rf":\s*{listing}\s*(?:[.?!]|$)", prompt, re.IGNORECASE):
        sorts = asks_for_labels(re.split(r"[.?!]\s", prompt[: found.start()])[-1])
        if re.search(rf"\b(?:{writes})", prompt, re.IGNORECASE) and not sorts:
            continue
        told = bool(re.search(r"\w", found[2]))  # by an "or", not a comma alone
        least = 2 if (told and (language in DIVIDED or sorts)) or opens_sorting(prompt) else 3
        if (told or sorts) and len(fine := _names(found[1], found[3])) >= least:
            return fine
    return _sorted_into(prompt, DIVIDED[language]) if language in DIVIDED and opens_sorting(prompt) else []


def _sorted_into(prompt: str, speech: Speech) -> list[str]:
    """The names of "als A, B oder C" and "in A und B" at the end of a sentence."""
    # The surest first: "classe les avis en français comme positifs ou négatifs".
    for lead in speech.sorted_into.split("|"):
        for joint in (speech.either, speech.both):
            listing = rf"((?:{_NAME}?,\s*)*{_NAME}?),?\s+(?:{joint})\s+({_NAME}?)"
            for found in re.finditer(rf"\s{lead}\s+{listing}\s*(?:[.,;!]|$)", prompt, re.IGNORECASE):
                if names := _names(found[1], found[2]):
                    return names
    return []


def _undivided(prompt: str, language: str) -> list[str]:
    """The names of a list in Chinese or Japanese."""
    joint = (
        r"或者|或|还是|還是|和|及|与"
        if language == "zh"
        else r"または|もしくは|あるいは|か(?![、，,な]|$)|と(?=[^、,，]+$)"
    )
    for form in _UNDIVIDED_LISTS:
        for found in re.finditer(form, prompt):
            parts = re.split(rf"\s*(?:[、，,/]\s*(?:{joint})?|{joint})\s*", found[1].strip())
            names = [re.sub(r"^[「『“\"]|[」』”\"]$|[两兩三四五]?[个種种类類]*$", "", part.strip()) for part in parts]
            fine = len(names) > 1 and all(0 < len(name) <= 20 for name in names) and len(set(names)) == len(names)
            if fine:
                return names
    return []


def _asked(prompt: str, known: Sequence[Speech]) -> list[str]:
    """The answers that a prompt leaves which is one question and nothing else."""
    for speech in known:
        if not speech.choice:
            continue
        answers = rf"((?:{_NAME}?,\s*)*{_NAME}?),?\s+(?:{speech.either})\s+({_NAME}?)\s*\?$"
        found = re.search(speech.choice + answers, prompt.strip(), re.IGNORECASE)
        if found and not re.search(r"[.?!:]\s", prompt[: found.start()]) and (names := _names(found[1], found[2])):
            return names
    return []


def yes_or_no(prompt: str) -> list[str]:
    """The language's words for yes and no, where a prompt asks whether something is so and for nothing else.

    Args:
        prompt: The task on one line, in another language than English.

    Examples:
        >>> yes_or_no("Ist diese Nachricht Spam?"), yes_or_no("Indica si la reseña es irónica.")
        (['ja', 'nein'], ['sí', 'no'])
        >>> yes_or_no("Entscheide, ob der Text stimmt, und schreibe eine Begründung.")
        []
    """
    language = prompt_language(prompt)
    speech = SPOKEN.get(language or "")
    if speech is None or language is None:
        return []
    writes = speech.writes_text if language in UNDIVIDED else rf"\b(?:{speech.writes_text})"
    if re.search(writes, _REPLIES.sub("", prompt), re.IGNORECASE):
        return []
    if re.search(speech.whether, prompt, re.IGNORECASE):
        return list(speech.yes_no)
    alone = re.search(r"[?？]\s*$|[吗嗎か]。?\s*$", prompt) and not re.search(
        r"[.?!:。？！：]\s*\S", prompt.strip()[:-1]
    )
    asks = alone and re.search(speech.opens_yes_no, prompt.strip(), re.IGNORECASE)
    return list(speech.yes_no) if asks and not re.search(speech.interrogatives, prompt, re.IGNORECASE) else []


def points_elsewhere(prompt: str) -> list[str]:
    """The points of the scale that a prompt in another language than English asks for; empty where it asks for none.

    Examples:
        >>> points_elsewhere("Bewerte die Rezension von 1 bis 5 Sternen.")
        ['1', '2', '3', '4', '5']
        >>> points_elsewhere("Fasse die Seiten 1 bis 5 zusammen.")
        []
    """
    language = prompt_language(prompt)
    found = _RANGE.search(_REMARK.sub("", prompt)) if language not in ("en", None) and RATES.search(prompt) else None
    low, high = (int(found[1]), int(found[2])) if found else (0, 0)
    return [str(point) for point in range(low, high + 1)] if 1 < high - low <= _MOST_STEPS else []


def _names(first: str, last: str) -> list[str]:
    """Each name of a list once, without quotation marks; empty where they do not look like names."""
    names = [" ".join(item.strip(" \"'«»„“”‚‘’").split()) for item in [*re.split(r",\s*", first), last]]
    fine = all(item and len(item.split()) <= 5 for item in names)
    return names if fine and len({item.casefold() for item in names}) == len(names) else []


def asks_for_labels(prompt: str) -> bool:
    """Whether a verb of one of these languages asks that texts are sorted."""
    sorts = re.search(rf"\b(?:{'|'.join(speech.sorts for speech in DIVIDED.values())})", prompt, re.IGNORECASE)
    return sorts is not None and not _ORDERS.search(prompt)


def opens_sorting(prompt: str) -> bool:
    """Whether a sentence of another language than English asks by its first verb that texts are sorted.

    Examples:
        >>> opens_sorting("Klassifiziere Kundenanfragen."), opens_sorting("Classification of cells.")
        (True, False)
    """
    language = prompt_language(prompt)
    if _ORDERS.search(prompt):
        return False
    if language in UNDIVIDED:
        speech = UNDIVIDED[language]
        return bool(re.search(speech.sorts, prompt)) and not re.search(speech.writes_text, prompt)
    if language == "ru":
        return bool(re.search(rf"(?:^|[.!?]\s+)(?:пожалуйста,?\s+)?(?:{DIVIDED['ru'].sorts})", prompt, re.IGNORECASE))
    verbs = SORTING_VERBS.get(language or "")
    opening = r"(?:^|[.!?]\s+)\W*(?:[^\W\d_]+[ ,]+){0,2}?"
    return verbs is not None and bool(re.search(rf"{opening}(?:{verbs})\b", prompt, re.IGNORECASE))
