"""Labels that a prompt names in another language than English, as far as a colon and a word for "or" tell.

The rules of `inference` know English verbs. Of a prompt in one of seven other languages four forms are read, which
cannot be mistaken: "…: A, B oder C", where nothing is asked to be written, "klassifiziere …: A, B, C", "klassifiziere …
als A, B oder C", and a question alone, "Ist … A, B oder C?". Of Chinese and Japanese, what a verb of sorting leads to.
A question that leaves yes or no, "Ist die Nachricht Spam?", has these as labels, in its language. What is put otherwise
is left open, for the teacher or the user to say.
"""

from __future__ import annotations

import re

from potstill.language.guess import SORTING_VERBS, prompt_language
from potstill.language.scale_words import RATES
from potstill.language.speech import SPOKEN

# How verbs begin that ask for a label.
_SORTS = {
    "de": "klassifizier|kategorisier|ordne|sortier",
    "fr": "classe|classif|catégoris|trie[zr]?\\b|étiquet",
    "es": "clasific|clasifiqu|categori[zc]|etiquet",
    "it": "classific|categorizz|smist|etichett",
    "pt": "classific|classifiqu|categoriz|etiquet",
    "nl": "classific|categoriseer|sorteer",
    "ru": "классифиц|категориз|определи(?:те)?\\b|распредели|отнеси",
}
# The same where words are not divided.
_SORTS_UNDIVIDED = {"zh": r"分类|分類|归类|歸類|分[成为為]|判断|判斷|判定", "ja": r"分類|判定|判断|に分け"}
# The word for "or", and how verbs begin that ask for a text.
_WORDS = {
    "de": ("oder", "schreib|verfass|formulier|fass|kürz|übersetz|erzeug|erstell|nenn|beschreib|erklär|antwort|erfind"),
    "fr": ("ou", "écri|rédig|résum|tradui|génér|propos|décri|expliqu|répond|compos|reformul|invent"),
    "es": ("o|u", "escrib|redact|resum|traduc|gener|propon|describ|expli|respond|compon|reformul|invent"),
    "it": ("o|oppure", "scriv|redig|riassum|traduc|gener|propon|descriv|spieg|rispond|compon|riformul|invent"),
    "pt": ("ou", "escrev|redij|resum|traduz|ger[ae]|propon|descrev|expli|respond|compon|reformul|invent"),
    "ru": ("или", "напи[шс]|переведи|сократи|перескаж|составь|придума|ответ|сгенерир|опиши|объясни"),
    "nl": ("of", "schrijf|formuleer|vat|vertaal|genereer|maak|beschrijf|leg|antwoord|beantwoord|bedenk"),
}
# What is sorted into an order, not by kind.
_ORDERS = re.compile(
    r"\b(?:alphab[eé]t|alfab[eé]t|aufsteigend|absteigend|der Größe nach|"
    r"(?:ordre|orden|ordine|ordem) (?:alpha|alfa|d?[eé]?cr|cre|asc|desc)|"
    r"croissant|ascendente|descendente|crescente|oplopend|aflopend|алфавит)",
    re.IGNORECASE,
)
_WRITES_UNDIVIDED = r"写|寫|翻译|翻譯|翻訳|总结|總結|要約|書|生成|作成|改写|解释|説明"
# What stands before the answers of a question: the verb, and where it opens the question, an article and a noun.
_ASKS = {
    "de": r"^(?:ist|sind)\s+(?:er|sie|es|das|dies|\S+\s+\S+)\s+",
    "fr": r"\b(?:est|sont)(?:-(?:il|elle|ils|elles))?\s+",
    "es": r"(?:^¿?\s*(?:es|son)\s+\S+\s+\S+|\b(?:es|son))\s+",
    "it": r"\b(?:è|sono)\s+",
    "pt": r"\b(?:é|são)\s+",
    "nl": r"^(?:is|zijn)\s+\S+\s+\S+\s+",
}
# What stands before names that an "and" or an "or" joins: "als", "in"; and the word for "and".
_INTO = {
    "de": ("als|in|nach", "und"),
    "fr": ("comme|en|entre|parmi", "et"),
    "es": ("como|en|entre", "y|e"),
    "it": ("come|in|tra|fra", "e"),
    "pt": ("como|em|entre", "e"),
    "nl": ("als|in", "en"),
    "ru": ("как|на", "и"),
}
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
    if language in _SORTS_UNDIVIDED:
        two = _EITHER_OR.search(prompt.strip())
        return list(two.groups()) if two else _undivided(prompt, language) if opens_sorting(prompt) else []
    # Of a prompt whose language its few words do not tell, a longer list is asked for.
    known = [_WORDS[language]] if language in _WORDS else list(_WORDS.values())
    either, writes = ("|".join(part) for part in zip(*known, strict=True))
    if names := _asked(prompt, [language] if language in _ASKS else list(_ASKS)):
        return names
    joined = rf",?\s+(?:{either})\s+|,\s*"
    listing = rf"((?:{_NAME}?,\s*)*{_NAME}?)({joined})({_NAME})"
    for found in re.finditer(rf":\s*{listing}\s*(?:[.?!]|$)", prompt, re.IGNORECASE):
        sorts = asks_for_labels(re.split(r"[.?!]\s", prompt[: found.start()])[-1])
        if re.search(rf"\b(?:{writes})", prompt, re.IGNORECASE) and not sorts:
            continue
        told = bool(re.search(r"\w", found[2]))  # by an "or", not a comma alone
        least = 2 if (told and (language in _WORDS or sorts)) or opens_sorting(prompt) else 3
        if (told or sorts) and len(fine := _names(found[1], found[3])) >= least:
            return fine
    return _sorted_into(prompt, language) if language in _INTO and opens_sorting(prompt) else []


def _sorted_into(prompt: str, language: str) -> list[str]:
    """The names of "als A, B oder C" and "in A und B" at the end of a sentence."""
    leads, both = _INTO[language]
    for lead in leads.split("|"):  # the surest first: "classe les avis en français comme positifs ou négatifs"
        for joint in (_WORDS[language][0], both):
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


def _asked(prompt: str, languages: list[str]) -> list[str]:
    """The answers that a prompt leaves which is one question and nothing else."""
    for language in languages:
        either = _WORDS[language][0]
        answers = rf"((?:{_NAME}?,\s*)*{_NAME}?),?\s+(?:{either})\s+({_NAME}?)\s*\?$"
        found = re.search(_ASKS[language] + answers, prompt.strip(), re.IGNORECASE)
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
    writes = _WRITES_UNDIVIDED if language in _SORTS_UNDIVIDED else rf"\b(?:{_WORDS[language][1]})"
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
    sorts = re.search(rf"\b(?:{'|'.join(_SORTS.values())})", prompt, re.IGNORECASE)
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
    if language in _SORTS_UNDIVIDED:
        return bool(re.search(_SORTS_UNDIVIDED[language], prompt)) and not re.search(_WRITES_UNDIVIDED, prompt)
    if language == "ru":
        return bool(re.search(rf"(?:^|[.!?]\s+)(?:пожалуйста,?\s+)?(?:{_SORTS['ru']})", prompt, re.IGNORECASE))
    verbs = SORTING_VERBS.get(language or "")
    opening = r"(?:^|[.!?]\s+)\W*(?:[^\W\d_]+[ ,]+){0,2}?"
    return verbs is not None and bool(re.search(rf"{opening}(?:{verbs})\b", prompt, re.IGNORECASE))
