"""Which fields a task's input has, by what its prompt says is given.

"Answer the question from the passage" reads a passage and a question. Rows of one text each would lack one of the two,
and datasets that hold both could not be used. The fields are told to the user, who may name others, or a single one.

What is not plainly said is not read: a prompt of any other form has inputs of one text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from potstill.language.guess import prompt_language
from potstill.language.text_kinds import text_kind
from potstill.rows import shared_fields
from potstill.task import DataRef, Example, Inferred
from potstill.task.given_elsewhere import given_elsewhere

_MOST_CHARS = 2000
# Given beside texts, though no kind of text by themselves.
_ALSO_GIVEN = frozenset(
    word
    for line in (
        "premise hypothesis context evidence query answer response translation reference keyword topic tone word",
        "product subject body lead teaser resume table schema recipe code snippet rubric persona rating hint style",
        "audience",
    )
    for word in line.split()
)
# They are told apart without the words before them: a Wikipedia passage is the passage.
_ENOUGH = frozenset(
    word
    for line in (
        "passage context paragraph document excerpt article text story question premise hypothesis claim evidence",
        "answer sentence statement abstract dialogue dialog conversation transcript",
    )
    for word in line.split()
)
_PASSAGES = (
    "passage|context|paragraph|excerpt|article|document|text|story|abstract|report|transcript|dialogue|dialog|"
    "conversation"
)
_PAPERS = "policy|manual|contract|handbook|guide|page|faq|e-?mail|letter|notes"
_ADJECTIVES = (
    "given following provided accompanying corresponding related attached short long single new simple plain open "
    "factual relevant original certain particular english user's customer's employee's reader's"
)
_A = rf"(?:(?:the|an?|this|that|its|their|each|every|one|some|any|{_ADJECTIVES.replace(' ', '|')})\s+)"
_MODIFIER = r"(?:(?!(?:and|or|of|to|in|with|from|by|is|are|that|which|for)\b)[\w'-]+\s+){0,2}?"
_NOUN = r"[A-Za-z][\w-]*"
_TAIL = r"(?:\s+(?:of|from|about|on|for|to|by|with)(?:\s+(?!and\b)[\w'-]+){1,5}?)?"
_PHRASE = rf"({_A}*{_MODIFIER}{_NOUN}){_TAIL}"
_SAID_PHRASE = rf"({_A}+{_MODIFIER}{_NOUN}){_TAIL}"
_END = r"(?=\s*(?:[,.;:()!?]|$|\s(?:about|on|of|from|for|to|that|which|by|in|with|are|is|and|then|as|if|so)\b))"
_GIVEN = (
    re.compile(
        r"\b(?:given|you(?:'ll| will)? (?:get|receive|see|be given)|you are (?:given|shown)"
        r"|the input (?:is|has|consists of))\s+"
        rf"{_PHRASE}(?:,\s+{_SAID_PHRASE})?,?\s+and\s+{_PHRASE}{_END}",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:between|compare|from|by|read)\s+{_SAID_PHRASE}(?:,\s+{_SAID_PHRASE})?,?\s+and\s+{_SAID_PHRASE}{_END}",
        re.IGNORECASE,
    ),
)
_QUESTION = r"(?:(?!(?:with|in|as|by|to)\b)[\w'-]+\s+){0,4}?(?:questions?|query|queries)"
_FROM = (
    r"(?:only |solely |strictly |just )?(?:using|from|(?:based|building) (?:only |solely |strictly )?(?:on|upon)|"
    r"according to|given|with the help of|by reading|out of)"
)
_ITS_TEXT = (
    r"\s+(?:only |just |the (?:information|facts?|contents?) (?:in|of|from|given in) )?"
    rf"{_A}+(?:[\w'-]+\s+){{0,2}}?"
)
_ANSWERED = (
    re.compile(rf"\banswer(?:s|ing)?\s+{_QUESTION}\s+{_FROM}{_ITS_TEXT}({_PASSAGES}|{_PAPERS})\b", re.IGNORECASE),
    re.compile(rf"\banswer(?:s|ing)?\s+{_QUESTION}\s+(?:about|on){_ITS_TEXT}({_PASSAGES})\b", re.IGNORECASE),
    re.compile(
        rf"\bread\s+{_A}(?:[\w'-]+\s+){{0,2}}?({_PASSAGES}|{_PAPERS})\b[^.;:]{{0,30}}?\banswer\s+{_QUESTION}\b",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:from|using|in|with|based on|given)\s+{_A}(?:[\w'-]+\s+){{0,2}}?({_PASSAGES}|{_PAPERS}),?\s+answer\s+"
        rf"{_QUESTION}\b",
        re.IGNORECASE,
    ),
)
_ANSWERS = re.compile(rf"\banswer(?:s|ing)?\s+{_QUESTION}\b", re.IGNORECASE)
_YES_OR_NO = re.compile(r"\b(?:yes|true)\s*(?:/|,|or)\s*(?:no|false)\b", re.IGNORECASE)
_OF_TWO_ANSWERS = re.compile(
    r"\b(?:yes\s*[/-]\s*no|yes[ -]or[ -]no|true\s*[/-]\s*false|boolean)\s+(?=questions?\b)", re.IGNORECASE
)
# Never what is written: these are always read.
_ALWAYS_READ = re.compile(
    r"(?<!into )(?<!as )(?<!write )\b(?:the|given|provided|this|each)\s+(?:given |following |provided )?"
    r"(passage|context|paragraph|excerpt)\b",
    re.IGNORECASE,
)
_SORTED_BY = re.compile(
    r"\b(?:by|from|given|using|based on|has|have|reads?|its?)\s+(?:its|the|an?|their|each)\s+(?:[\w'-]+\s+)?"
    r"(title|headline|subject)(?: line)?\s+and\s+(?:its\s+|the\s+|an?\s+|their\s+)?(?:[\w'-]+\s+)?"
    r"(body|text|abstract|description|content|message|lead|teaser|question|summary)\b",
    re.IGNORECASE,
)
_TIES = (
    r"(?:answers?|supports?|refutes?|entails?|contradicts?|matche?s?|fits?|implies|imply|summari[sz]es?|paraphrases?|"
    r"follows? from|agrees? with|"
    r"(?:is|are) (?:\w+ )?(?:supported|entailed|implied|answered|contradicted|refuted|backed) by|"
    r"is (?:\w+ )?(?:relevant|faithful|true|an? (?:\w+ )?(?:answer|reply|response|summary|translation|paraphrase|title"
    r"|headline)) (?:to|of|for|given))"
)
_TIED = re.compile(
    rf"\b(?:whether|if|does|do|is)\s+({_A}+{_MODIFIER}{_NOUN})\s+(?:\w+ly )?{_TIES}\s+({_A}+{_MODIFIER}{_NOUN})\b",
    re.IGNORECASE,
)
_PLURALS = (
    "sentences|questions|texts|messages|statements|headlines|tweets|words|phrases|documents|passages|paragraphs|comments|"
    "reviews|titles|claims|definitions|descriptions|e-?mails|names|articles|abstracts|addresses"
)
_TWO = re.compile(
    r"\b(?:between|whether|if|do|does|are|given|compare|combine|merge|join|say|decide|is it that|which of|how)\s+"
    rf"(?:similar |close |alike )?(?:the |these |those )?(?:two|a pair of|pairs of)\s+(?:[\w-]+\s+)?({_PLURALS})\b"
    r"|\b(?:classify|label|given|for|compare|rate|judge)\s+(?:an? |each |the |every )?"
    rf"({_PLURALS.replace('s|', '|')[:-1]})\s+pairs?\b"
    r"|\b(?:first|second)\s+(\w+)\b(?:(?!\b(?:write|predict|generate|continue|complete|give|guess)\b).){1,120}?"
    r"\b(?:second\s+\3\b|the\s+(?:first|second)(?:\s+\3)?(?=\s*(?:[.,;:?!]|$|or\b|is\b|and\b)))",
    re.IGNORECASE,
)
_PIECE = re.compile(r"\b(?:piece|bit|set|line) of (?=(?:evidence|text|code|context|dialogue)\b)", re.IGNORECASE)
_WRITTEN = re.compile(
    r"\b(?:write|return|give|generate|produce|compose|create|suggest|into|in|with|as)\s+(?:exactly |only |about )?\Z",
    re.IGNORECASE,
)


def given_fields(instruction: str, kind: str) -> tuple[str, ...]:
    """Names of the fields that an instruction says are given; empty where it speaks of one text.

    Args:
        instruction: The task's.
        kind: The task's.

    Examples:
        >>> given_fields("Answer the question using the passage.", "generation")
        ('passage', 'question')
        >>> given_fields("Given a job description and a resume, say whether they fit.", "classification")
        ('job_description', 'resume')
        >>> given_fields("Do the two questions ask the same?", "classification")
        ('question1', 'question2')
        >>> given_fields("Summarise the article in two sentences.", "generation")
        ()
    """
    if kind == "instructions":
        return ()
    text = _PIECE.sub("", " ".join(instruction[:_MOST_CHARS].split()))
    text = _OF_TWO_ANSWERS.sub("", text)
    if prompt_language(text) not in ("en", None):
        return given_elsewhere(text, kind)
    words = set(re.findall(r"[a-z]+", text.lower()))
    if {"premise", "hypothesis"} <= words:
        return ("premise", "hypothesis")
    for said in (found for form in _GIVEN for found in form.finditer(text)):
        if names := _names([phrase for phrase in said.groups() if phrase]):
            return names
    answered = next((found for form in _ANSWERED if (found := form.search(text))), None)
    if answered is None and (kind == "generation" or _YES_OR_NO.search(text)) and _ANSWERS.search(text):
        answered = _ALWAYS_READ.search(text)
    if answered is not None:
        return (_plain(answered[1]), "question")
    by = _SORTED_BY.search(text)
    if by is not None and not _WRITTEN.search(text[: by.start(1)]):
        return by[1].lower(), by[2].lower()
    tied = _TIED.search(text) if kind == "classification" else None
    return (_names(tied.groups()) if tied else ()) or _pair(text, kind)


class OwnRows(Protocol):
    """Reads what a task file leaves unsaid and the user's own rows tell (`potstill.user_data`)."""

    def labels(self, instruction: str, refs: Sequence[DataRef]) -> tuple[str, ...]:
        """The labels that rows bear; empty where they leave a doubt. Raises DataError where they cannot be read."""

    def hold(self, fields: Sequence[str], refs: Sequence[DataRef]) -> bool:
        """Whether each of the tables has a column for each field."""


def fields_of(
    data: Mapping[str, DataRef | None],
    examples: Sequence[Example],
    instruction: str,
    kind: str,
    inferred: list[Inferred],
    own_rows: OwnRows | None = None,
) -> tuple[str, ...]:
    """Fields of the input where the task file names none: the columns named for its data, else what the prompt gives.

    The prompt's are taken where no data and no example of the user's says otherwise.

    Args:
        data: The user's data, by what it is for.
        examples: The user's examples.
        instruction: The task's.
        kind: The task's.
        inferred: Takes what was found, and how.
        own_rows: Looks into the data; None takes any data to say otherwise.
    """
    if kind == "instructions":
        return ()
    for key, ref in data.items():
        if ref is not None and len(ref.inputs) > 1:
            inferred.append(Inferred("inputs", ", ".join(ref.inputs), f"the columns of {key}"))
            return ref.inputs
    names = given_fields(instruction, kind)
    refs = [ref for ref in data.values() if ref is not None]
    if names and refs and not (own_rows is not None and own_rows.hold(names, refs)):
        return ()
    if names and examples:
        shared = shared_fields([example.input for example in examples])
        names = shared if tuple(name.lower() for name in shared) == names else ()
    if names:
        inferred.append(Inferred("inputs", ", ".join(names), "rules"))
    return names


def _names(phrases: Sequence[str]) -> tuple[str, ...]:
    """Field names of noun phrases; empty where one of them is no text, or two are the same."""
    names = []
    for phrase in phrases:
        words = [word.lower() for word in re.sub(rf"^{_A}+", "", phrase, flags=re.IGNORECASE).split()]
        head = _plain(words[-1]) if words else ""
        if head not in _ALSO_GIVEN and text_kind(head) != head:
            return ()
        before = [] if head in _ENOUGH else [w for w in words[:-1] if not w.endswith("'s") and w not in _ADJECTIVES]
        names.append("_".join([*before, head]))
    return tuple(names) if len(set(names)) == len(names) > 1 else ()


def _pair(text: str, kind: str) -> tuple[str, ...]:
    found = _TWO.search(text)
    if found is None or (kind != "classification" and _WRITTEN.search(text[: found.start(found.lastindex or 1)])):
        return ()
    said = (found[1] or found[2] or found[3] or "").lower()
    name = text_kind(said) or re.sub(r"(?<=ss)es$|s$", "", said)
    if found[3] and name not in _ALSO_GIVEN and text_kind(name) is None:
        return ()
    return f"{_plain(name)}1", f"{_plain(name)}2"


def _plain(word: str) -> str:
    return word.lower().replace("-", "")
