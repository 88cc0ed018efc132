"""Words for prompts, taken from the task's own: what its inputs are called, and labels that read as words."""

from __future__ import annotations

import re

from potstill.task import Label, TaskSpec
from potstill.task import readable as readable

_NOUN = re.compile(
    r"\b(?:an?|each|every|the given)\s+([a-z][\w' -]{1,90}?)"
    r"(?=\s*(?:[,.:;(?!\n]|$)|\s+(?:by|into|as|according|based|in one|in a|so|and (?:say|decide|name|tell)|is|are|was|"
    r"states?|express(?:es)?|shows?|asks?|conveys?|belongs?|means|contains?|should|using|whether|or)\b)",
    re.IGNORECASE,
)
_NOT_INPUTS = re.compile(
    r"^(?:(?:single|short|one)\s)?(?:word|number|sentence|text label|label|category|class|answer|output|input)$"
)
_OUTPUT_FIRST_VERB = re.compile(r"^\W*(?:write|generate|produce|create|compose|draft|invent)\b", re.IGNORECASE)


def input_noun(spec: TaskSpec) -> str:
    """What the task's instruction calls its inputs (`news article`, `question`), or `text`.

    The first noun phrase with an indefinite article or `each`: "Classify a news article, given …" gives
    `news article`.
    """
    text = spec.instruction[:1000]
    if _OUTPUT_FIRST_VERB.match(text):
        return "text"
    for found in _NOUN.finditer(text):
        noun = found.group(1).strip().lower()
        if len(noun) > 2 and len(noun.split()) <= 9 and not (_NOT_INPUTS.match(noun) and found.start() > 40):
            return noun
    return "text"


def with_article(noun: str) -> str:
    """`a question`, `an email`."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def is_cryptic(label: Label) -> bool:
    """Whether a label has no description and its name does not read as words."""
    return not label.description and readable(label.name) != label.name
