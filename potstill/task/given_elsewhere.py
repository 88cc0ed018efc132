"""Which fields a task's input has, where its prompt is in another language than English.

The same as `given`, for the three cases that are told alike everywhere: a question and a text that answers it, a
premise and a hypothesis, and two texts of one kind that are compared. The fields are named in English, as datasets
name them.
"""

from __future__ import annotations

import re

from potstill.language.guess import prompt_language
from potstill.language.speech import DIVIDED, UNDIVIDED, kind_words

# A text that is read for an answer.
_READ = (
    "passage",
    "context",
    "paragraph",
    "document",
    "article",
    "story",
    "report",
    "dialogue",
    "text",
    "contract",
    "email",
)
_PREMISE = re.compile(r"\bpr[eéä]m(?:iss?[ea]|essa)(?:[ns]|se)?\b|посылк|前提", re.IGNORECASE)
_HYPOTHESIS = re.compile(r"\bh[yi]p[oó]th?[eéè]s[ei][ns]?\b|\bipotesi\b|гипотез|假设|假設|仮説", re.IGNORECASE)
_TEXTS_COMPARED = (
    *("question", "sentence", "text", "statement", "message", "headline", "paragraph", "comment", "description"),
    *("claim", "article", "review", "document"),
)


def given_elsewhere(text: str, kind: str) -> tuple[str, ...]:
    """Names of the fields that a prompt in another language than English says are given; empty where one text is.

    Args:
        text: The instruction, on one line.
        kind: The task's.

    Examples:
        >>> given_elsewhere("Beantworte die Frage anhand des Textes.", "generation")
        ('text', 'question')
        >>> given_elsewhere("Indica si las dos preguntas piden lo mismo: sí o no.", "classification")
        ('question1', 'question2')
    """
    language = prompt_language(text)
    if _PREMISE.search(text) and _HYPOTHESIS.search(text):
        return ("premise", "hypothesis")
    if language in UNDIVIDED:
        return _answered_undivided(text, language) or (
            _two_undivided(text, language) if kind == "classification" else ()
        )
    if language not in DIVIDED:
        return ()
    return _answered(text, language) or (_two(text, language) if kind == "classification" else ())


def _answered(text: str, language: str) -> tuple[str, ...]:
    speech, kinds = DIVIDED[language], kind_words(language)
    for sentence in re.split(r"(?<=[.!?;])\s", text):
        asked = re.search(rf"(?i:\b{speech.answers}\b)[^.;:!?]{{0,40}}?{kinds['question']}", sentence)
        if asked is None:
            continue
        behind, before = sentence[asked.end() :], sentence[: asked.start()]
        for place, led in ((behind, rf"(?i:\b(?:{speech.answers_from})\b)"), (before, "")):
            for name in _READ:
                if name in kinds and re.search(rf"{led}[^.;:!?]{{0,40}}?{kinds[name]}", place):
                    return (name, "question")
    return ()


def _answered_undivided(text: str, language: str) -> tuple[str, ...]:
    speech, kinds = UNDIVIDED[language], kind_words(language)
    if not all(re.search(form, text) for form in (speech.answers, speech.answers_from, kinds["question"])):
        return ()
    return next(((name, "question") for name in _READ if name in kinds and re.search(kinds[name], text)), ())


def _two_undivided(text: str, language: str) -> tuple[str, ...]:
    kinds = kind_words(language)
    for name in _TEXTS_COMPARED:
        if name in kinds and re.search(rf"(?:[两兩二2２](?:个|個|条|條|篇|段)?|[二2２]つの){kinds[name]}", text):
            return f"{name}1", f"{name}2"
    return ()


def _two(text: str, language: str) -> tuple[str, ...]:
    speech, kinds = DIVIDED[language], kind_words(language)
    order = rf"(?i:\b(?:{speech.first}|{speech.second})\b)"
    counted = rf"(?i:\b(?:{speech.compares})\b(?:[ ,]+[\w'-]+){{0,3}}?[ ']+{speech.two}) (?:[\w-]+ ){{0,2}}?"
    for name in _TEXTS_COMPARED:
        if name not in kinds:
            continue
        ordered = rf"{order} {kinds[name]}[^.!?]{{1,120}}{order}"
        turned = rf"{order}[^.!?]{{1,120}}{order} {kinds[name]}"
        if any(re.search(form, text) for form in (counted + kinds[name], ordered, turned)):
            return f"{name}1", f"{name}2"
    return ()
