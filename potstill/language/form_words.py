"""The form that a prompt in another language than English asks its outputs to have: "in einem Satz", "au format JSON".

`potstill.datagen.asked_form` reads English prompts; this is the same for what other languages say most
(`potstill.language.speech`): how many sentences, words or points, JSON, a number alone, a question, a part of the
input, and the words for "no answer". Only phrases that can hardly speak of the input are read. What is not recognised
is not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache

from potstill.language.guess import may_speak, prompt_language
from potstill.language.speech import DIVIDED, SPOKEN, UNDIVIDED
from potstill.language.speech.base import Speech

_MOST_CHARS = 4000
_MOST_SAID = 4
# "In about 50 words": half as many again are let pass.
LEEWAY = 1.5
_QUOTED = re.compile(r"[\"'“„‘«‹「『]\s?(?P<said>[^\"'“”„‘’«»‹›「」『』\n]{1,30}?)\s?[\"'”“’»›」』]")
_SENTENCE_END = re.compile(r"(?<=[.!?;。！？；])\s*(?=\S)")
_JOINTS = "-|–|bis|oder|à|ou|a|o|e|tot|of|до|или"
_HAN_DIGITS = dict(zip("一单單二两兩三四五六七八九", (1, 1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9), strict=True))
_HAN_UNITS = {"十": 10, "百": 100}
_HAN_COUNT = r"(?:[0-9０-９]{1,3}|[一单單二两兩三四五六七八九十百]{1,5})"
_HAN_RANGE = rf"(?:{_HAN_COUNT}(?:[-–~～至到或、]|から))?(?P<n>{_HAN_COUNT})"
_TRANSLATES = re.compile(
    r"(?:^|[.;:!?]\s+|\b(?:und|et|y|e|en|и)\s+)\W*(?:bitte |por favor,? |per favore,? )?"
    rf"(?:{'|'.join(speech.translates for speech in DIVIDED.values())})\w*"
    rf"|{'|'.join(speech.translates for speech in UNDIVIDED.values())}",
    re.IGNORECASE,
)
# One value that is no number, and nothing else.
_VALUE = re.compile("|".join(speech.value for speech in SPOKEN.values()), re.IGNORECASE)


@dataclass(frozen=True)
class SaidForm:
    """What a prompt says of the form of its outputs; 0, False and () where it says nothing.

    Attributes:
        sentences: So many at most.
        words: So many at most; letters in scripts without spaces.
        points: Items of a list, so many at least and at most.
        number: A number and nothing else.
        json: A JSON value and nothing else.
        question: Something is asked.
        within: A part of the input, to the letter.
        parts: With `within`: perhaps several of them.
        otherwise: Words for outputs without an answer.
    """

    sentences: int = 0
    words: int = 0
    points: tuple[int, int] = (0, 0)
    number: bool = False
    json: bool = False
    question: bool = False
    within: bool = False
    parts: bool = False
    otherwise: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is asked; words for "no answer" alone ask nothing."""
        return any(getattr(self, one.name) != one.default for one in fields(self) if one.name != "otherwise")


def said_form(prompt: str) -> SaidForm:
    """What a prompt in one of the languages of `potstill.language.speech` says of the form of its outputs.

    Args:
        prompt: The instruction, of which 4,000 characters are read. Of an English one nothing is said here.

    Examples:
        >>> said_form("Fasse den Artikel in einem Satz mit höchstens 25 Wörtern zusammen.")  # doctest: +ELLIPSIS
        SaidForm(sentences=1, words=25, points=(0, 0), number=False, json=False, ...)
        >>> said_form("Extrais les dates du contrat au format JSON.").json, said_form("用一句话总结文章。").sentences
        (True, 1)
        >>> bool(said_form("Find the error in two sentences.")), bool(said_form("Finde den Fehler in zwei Sätzen."))
        (False, False)
    """
    text = _even(prompt)
    language = prompt_language(text)
    if language in UNDIVIDED:
        return _said_undivided(text, language)
    if language is not None:
        return _said(text, language) if language in DIVIDED else SaidForm()
    # Of a prompt whose few words do not tell its language, the first that it says something in.
    return next((said for one in DIVIDED if may_speak(text, one) and (said := _said(text, one))), SaidForm())


def without_form(text: str, language: str) -> str:
    """A prompt of a known language without the phrases that say how long its outputs are to be, or of what.

    Examples:
        >>> without_form("Fasse den Artikel in zwei Sätzen zusammen.", "de")
        'Fasse den Artikel # zusammen.'
    """
    sizes = ("sentences", "most", "under", "about", "points", "one_word", "within")
    for form in (form for name, form in _patterns(language).items() if name in sizes):
        text = form.sub("#", text)
    return text


def asks_for_translation(prompt: str) -> bool:
    """Whether a prompt in another language than English, or one of its sentences, begins with a verb of translating.

    Examples:
        >>> asks_for_translation("Übersetze den Satz ins Englische."), asks_for_translation("把句子翻译成英文。")
        (True, True)
    """
    return not _in_english(prompt) and _TRANSLATES.search(prompt[:_MOST_CHARS]) is not None


def asks_for_value(prompt: str) -> bool:
    """Whether a prompt in another language than English asks for one value: a number, a date, JSON, one word.

    Examples:
        >>> asks_for_value("Gib nur das Datum zurück."), asks_for_value("Fasse den Brief zusammen.")
        (True, False)
    """
    said = said_form(prompt)
    other = not _in_english(prompt) and _VALUE.search(prompt[:_MOST_CHARS]) is not None
    return said.json or said.number or said.words == 1 or other


def _in_english(prompt: str) -> bool:
    language = prompt_language(prompt)
    return language == "en" or (language is None and not any(may_speak(prompt, one) for one in DIVIDED))


def _even(prompt: str) -> str:
    return " ".join(prompt[:_MOST_CHARS].replace("’", "'").split())


def _said(text: str, language: str) -> SaidForm:
    speech, forms = DIVIDED[language], _patterns(language)

    def counts(name: str) -> list[int]:
        return [_count(found, language) for found in _of_output(forms[name], text, speech)]

    words = counts("most") + [count - 1 for count in counts("under")]
    words += [round(LEEWAY * count) for count in counts("about") if count > 1]
    words += [1 for _ in _of_output(forms["one_word"], text, speech)]
    points = next(_of_output(forms["points"], text, speech), None)
    items = _count(points, language) if points else 0
    return SaidForm(
        # Of several bounds ("in one sentence", "up to three for long texts") the widest holds for all outputs.
        sentences=max(counts("sentences"), default=0),
        words=max(words, default=0),
        points=(1 if points and (points["most"] or points["behind"]) else items, items),
        otherwise=_no_answer(text, rf"\b(?:{speech.when})\b", rf"\b(?:{speech.gives})\b"),
        **_told(forms, text),
    )


def _said_undivided(text: str, language: str) -> SaidForm:
    speech, forms = UNDIVIDED[language], _patterns(language)

    def counts(name: str) -> list[int]:
        worked_on = re.compile(rf"(?:{speech.works_on})[^。；;，,]*\Z")
        hits = forms[name].finditer(text)
        return [_han_count(found) for found in hits if not worked_on.search(text[: found.start()])]

    words = counts("most") + [round(LEEWAY * count) for count in counts("about")]
    items = max(counts("points"), default=0)
    return SaidForm(
        sentences=max(counts("sentences"), default=0),
        words=max(words, default=0),
        points=(items, items),
        otherwise=_no_answer(text, speech.when, ""),
        **_told(forms, text),
    )


def _told(forms: dict[str, re.Pattern[str]], text: str) -> dict[str, bool]:
    """What needs no count."""
    told = {name: forms[name].search(text) is not None for name in ("number", "json", "question", "within")}
    return {**told, "parts": told["within"] and forms["several"].search(text) is not None}


@cache
def _patterns(language: str) -> dict[str, re.Pattern[str]]:
    own = ("json", "number", "question", "within", "several")
    if language in UNDIVIDED:
        undivided = UNDIVIDED[language]
        counted = {name: getattr(undivided, name) for name in ("sentences", "most", "about", "points")}
        ranges = {"{RANGE_2}": _HAN_RANGE.replace("<n>", "<n2>"), "{RANGE}": _HAN_RANGE}
        for sign, form in ranges.items():
            counted = {name: said.replace(sign, form) for name, said in counted.items()}
        forms = counted | {name: getattr(undivided, name) for name in own}
    else:
        speech = DIVIDED[language]
        forms = _counted(speech, language) | {name: getattr(speech, name) for name in ("one_word", *own)}
    return {name: re.compile(form, re.IGNORECASE) for name, form in forms.items()}


def _counted(speech: Speech, language: str) -> dict[str, str]:
    """Patterns with a number: in the group n, or in another that begins so."""
    one = rf"(?:\d{{1,3}}|{'|'.join(sorted(_numbers(language), key=len, reverse=True))})"

    def sized(noun: str, group: str) -> str:
        # "una sola frase": of two numerals side by side the first counts
        number = rf"(?:{one} ?(?:{_JOINTS}) ?)?(?P<{group}>{one}(?: {one})?)"
        return rf"{number} (?:{speech.adjectives},? ){{0,3}}{noun}\b"

    def at_most(noun: str) -> str:
        return rf"\b{speech.most} {sized(noun, 'n')}|\b{sized(noun, 'n2')},? {speech.most_behind}\b"

    into = rf"\b(?:{speech.into})"
    points = rf"(?:[\w-]+ ){{0,2}}?{speech.points}"
    return {
        "sentences": rf"{at_most(speech.sentences)}|{into} (?:\w+ )?{sized(speech.sentences, 'n3')}",
        "most": at_most(speech.words),
        "under": rf"\b{speech.under} {sized(speech.words, 'n')}",
        "about": rf"\b{speech.about} {sized(speech.words, 'n')}"
        rf"|{into} (?!{speech.most}|{speech.under})(?:\w+ )?{sized(speech.words, 'n2')}(?!,? {speech.most_behind})",
        "points": rf"{into} (?P<most>{speech.most} )?{sized(points, 'n')}"
        rf"(?P<behind>,? {speech.most_behind}\b)?",
    }


@cache
def _numbers(language: str) -> dict[str, int]:
    known: dict[str, int] = {}
    for place, words in enumerate(DIVIDED[language].numbers.split(), 1):
        said, _, value = words.partition("=")
        known |= dict.fromkeys(said.split("/"), int(value) if value else place)
    return known


def _of_output(form: re.Pattern[str], text: str, speech: Speech) -> Iterator[re.Match[str]]:
    """What speaks of the output: not in a clause whose verb works on what stands in the input."""
    for found in form.finditer(text):
        before = re.split(r"[.!?;,:]\s", text[: found.start()])[-1]
        leads = re.match(rf"(?:{speech.into}) ", found[0], re.IGNORECASE)
        if not (leads and re.search(rf"\b(?:{speech.works_on})\b", before, re.IGNORECASE)):
            yield found


def _numeral(found: re.Match[str]) -> str:
    return next(said for name, said in found.groupdict().items() if said and re.fullmatch(r"n\d?", name))


def _count(found: re.Match[str], language: str) -> int:
    said = _numeral(found).lower().split()[0]
    return int(said) if said[0].isdigit() else _numbers(language)[said]


def _han_count(found: re.Match[str]) -> int:
    said = _numeral(found)
    if said[0] not in _HAN_DIGITS and said[0] not in _HAN_UNITS:
        return int(said)
    whole = digit = 0
    for sign in said:
        if sign in _HAN_UNITS:
            whole, digit = whole + (digit or 1) * _HAN_UNITS[sign], 0
        else:
            digit = _HAN_DIGITS[sign]  # "one or two" are written side by side: the last
    return whole + digit


def _no_answer(text: str, when: str, gives: str) -> tuple[str, ...]:
    """Words in quotes that a sentence with an "if" gives as an output; at most four."""
    found: dict[str, None] = {}
    for sentence in _SENTENCE_END.split(text):
        if re.search(when, sentence, re.IGNORECASE) and re.search(gives, sentence, re.IGNORECASE):
            found |= dict.fromkeys(hit["said"].strip() for hit in _QUOTED.finditer(sentence))
    return tuple(word for word in found if word)[:_MOST_SAID]
