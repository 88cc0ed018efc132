"""What a task prompt says between the lines: kind, labels, name, languages, metric.

A prompt enters; `Reading` leaves. Rules come first, because they are the same every time, cost nothing and can be
tested; the teacher is asked, with structured output, only for what they did not find, and its answer is
checked like a user's.

Where labels stand in a prompt is told in `labels`, and the forms that tell by themselves that an answer is one of
a list in `choices`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from potstill.language.guess import prompt_language
from potstill.language.names import NAMES_IN_TEXT, label_languages
from potstill.language.text_kinds import is_text_kind
from potstill.task import Kind, Label
from potstill.task.choices import ASPECT
from potstill.task.labels import OBJECT_THEN, labels_of, two_ways, yes_no_of
from potstill.task.lists import MAX_LABELS, plausible
from potstill.task.marks import unmarked
from potstill.task.numbers import HOW, asks_for_number, asks_for_points, whole_scale
from potstill.task.other_languages import asks_for_labels, listed_labels, opens_sorting, points_elsewhere, yes_or_no
from potstill.task.sets import several_labels, several_sets

if TYPE_CHECKING:
    from potstill.asking.asker import Asker
    from potstill.task.front_matter import Faults

MAX_LABEL_CHARS = 100
_HOW_TO_LABEL = (
    'name them in the text ("… as billing, bug or other"), or list them in a task file under "## Labels" '
    'as "- name: description"; if answers are free text, say "kind: generation"'
)


@dataclass(frozen=True)
class Reading:
    """What was read from a prompt.

    Attributes:
        kind: The kind, or None where nothing in the prompt tells.
        labels: The classes; empty where none were found.
        how: `rules` (and what they go by, where that may surprise), `teacher`, or the user's data that tells.
        open_list: Names that the prompt gives as examples of labels, without listing all.
        sets: Where the prompt asks for a label of each of several sets, these by their names.
        number: Whether the answer is a number of too many values to be labels.
        why_not: Why the teacher's answer was not used.
    """

    kind: Kind | None = None
    labels: tuple[Label, ...] = ()
    how: str = "rules"
    open_list: tuple[str, ...] = ()
    sets: tuple[tuple[str, tuple[str, ...]], ...] = ()
    number: bool = False
    why_not: str = ""


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", text))


_WRITES = _words(
    "write rewrite summarise summarize shorten translate extract generate convert create compose suggest list give "
    "explain describe paraphrase correct fix answer complete continue produce draft turn transform reply respond "
    "edit expand simplify solve compute calculate brainstorm design propose make provide rephrase normalise "
    "normalize reformat format transcribe outline plan parse anonymise anonymize improve find choose come"
)
_SORTS = _words(
    "classify categorise categorize label detect sort moderate triage route flag recognise recognize predict grade "
    "rate assign tag judge group bucket filter"
)
_ANSWERS = _words("answer reply respond choose find give make come")
_FORMS = {
    form: word
    for word in _WRITES | _SORTS
    for stem in [word.removesuffix("e"), word[:-1] + "i" if word.endswith("y") else word]
    for form in (word, word + "s", stem + "es", stem + "ed", word.removesuffix("e") + "ing")
}
_NOUN_BEFORE = _words("the a an this that these each of its your their given with my one no any his her our in as")
_VERB_BEFORE = _words("be is are that which who for by") | {""}
_LISTED = r"(?=[^.;:]{0,200}[^.;:\s](?:,|/|\s+or\b))(?![^.;:]{0,300}\sand\b)"
_SORTS_LOOSELY = re.compile(
    r"\b(?:decide|determine|tell|say|judge|check|predict|identify|find out|state|assess|indicate|verify)"
    rf"\s+(?:me\s+)?(?:if|whether|which|(?:the|its|their|a)\s+(?:[\w']+\s+){{0,2}}{ASPECT})\b"
    rf"|\b(?:determine|identify|predict|assess)\s+{ASPECT}\s+(?:of|for|in|towards?)\b"
    r"|\b(?:return|output|answer|report)\s+whether\b"
    r"|\b(?:to\s+know|evaluate)\s+(?:if|whether)\b"
    r"|\bmark\s+(?:each|every|an?|the)\s[^.:;]{1,60}?\bas\b"
    rf"|\bname\s+the\s+(?:\w+\s+){{0,2}}{ASPECT}\b"
    rf"|\bsay\s+what\s+(?:kind|type|sort)\b"
    rf"|\b(?:what|which)\s+(?:is\s+the\s+)?{ASPECT}\b"
    r"|\b(?:sentiment|text|topic|intent|emotion|stance|language|binary)\s+(?:analysis|classification|detection)\b|\bclassifier\b"
    # One thing that is asked of an input, and what it may be: "the cause of an outage: disk or network".
    r"|\b(?:determine|estimate|identify|assess)\s+(?:(?:the|its|their|an?)\s+)?(?:[\w-]+\s+){0,3}[\w-]*[^\Ws]\s+(?:of|for|in|behind|"
    rf"expressed|towards?)\s[^.:;?]{{1,60}}:\s{_LISTED}"
    r"|(?:^|[.!?]\s+)(?!(?:named\s+)?entity\b)(?:[\w-]+\s+){1,4}(?:classification|detection|identification|recognition|analysis)\b"
    rf"[^.:;?]{{0,60}}:\s{_LISTED}"
    r"|^(?:is|are|does|do|did|has|have|was|were|can|could|should|will)\s+(?:this|the|these|an?|it|each|that)\b",
    re.IGNORECASE,
)
_FOLLOWS = re.compile(
    r"\b(?:follow|obey|carry\s+out)(?:s|ing)?\s+(?:the\s+|any\s+|an?\s+|all\s+|(?:user|person|human|reader)(?:'?s|s')?\s+"
    r"|(?:one|people)'s\s+|written\s+|given\s+)*"
    r"(?:instructions?|definition\s+of\s+the\s+task)\b"
    r"|\binstruction[- ](?:following|tuning|tuned)\b|\bself-instruct\b"
    r"|\b(?:diverse|varied|different|many\s+kinds\s+of|all\s+kinds\s+of)\s+(?:tasks|instructions)\b"
    r"|\bgeneral[- ]purpose\s+assistant\b",
    re.IGNORECASE,
)
_EXPLAINS = re.compile(r"\b(?:explain|mention|justify|describe|why|give (?:a |the |your )?reasons?)\b", re.IGNORECASE)
# What is done to the text behind the sorting: "detect the language and translate it".
_THEN_WRITES = re.compile(
    r"\b(?:and|then)\s+(?:then\s+)?(?:translate|rewrite|summari[sz]e|convert|correct|fix)\b",
    re.IGNORECASE,
)
# What is sorted into an order, and no labels: "sort the words alphabetically".
_IN_ORDER = re.compile(
    r"(?:^|[.!?]\s+)sort\s[^.:;?]{1,60}?\s(?:alphabetically|numerically|chronologically|lexicographically|"
    r"in\s+(?:an?\s+)?(?:\w+\s+)?order|from\s+(?:the\s+)?\w+est\s+to)\b",
    re.IGNORECASE,
)
# Of several fields one may be a label: "JSON with the fields product, sentiment (positive or negative) and price".
_SEVERAL_FIELDS = re.compile(
    r"\bjson\b(?:\s+(?:objects?|format|record))?[^.:;?]{0,30}?\b(?:fields|keys|properties|entries|columns)\b"
    r"(?=[^.?!]{0,120}(?:,|\band\b))",
    re.IGNORECASE,
)


def read_by_rules(prompt: str, *, single: bool = False) -> Reading:
    """Kind and labels from the words of a prompt.

    Args:
        prompt: The instruction, at most some ten thousand characters.
        single: Whether an input is known to get one label, whatever the prompt says.
    """
    text = _even(prompt)
    flat = _on_one_line(text)
    if not single and several_labels(flat):
        return Reading(kind="generation", how="rules: several labels an input are asked for")
    foreign = opens_sorting(flat)  # in whose words those of English verbs are none: "am Tag"
    verb = "" if foreign else first_verb(flat)
    scored = (not verb or verb in _ANSWERS) and asks_for_points(flat)
    sorts = verb in _SORTS or bool(_SORTS_LOOSELY.search(flat) or re.search(OBJECT_THEN, flat, re.IGNORECASE) or scored)
    writes = verb in _WRITES and not (verb in ("choose", "find", "answer", "give", "make") and sorts)
    if _IN_ORDER.search(flat) or _SEVERAL_FIELDS.search(flat):
        return Reading(kind="generation")
    if _FOLLOWS.search(flat) and not sorts:
        return Reading(kind="instructions")
    # Of what an answer is, these say nothing: "answer yes or no", "answer in a sentence".
    says = verb in _ANSWERS
    if (two := two_ways(flat)) and (says or not writes):
        return Reading(kind="classification", labels=tuple(two))
    named_set = (says or not verb) and re.search(r"\b(?:labels|categories|classes|intents)\s*(?::|are\b)", flat, re.I)
    sorted_ = bool(named_set) or (sorts and not writes)
    if sorted_ and (sets := several_sets(text)):
        return Reading(kind="classification", sets=tuple((name, tuple(names)) for name, names in sets))
    if sorted_:
        text = unmarked(text)
        flat = _on_one_line(text)
    labels, opened = labels_of(text, flat, verb, sorts=sorted_, writes=writes and not says)
    if labels and not sorted_ and (sets := several_sets(text)):
        return Reading(kind="classification", sets=tuple((name, tuple(names)) for name, names in sets))
    if labels:
        return Reading(kind="classification", labels=tuple(whole_scale(labels, flat)))
    if opened and (sorts or not writes):
        return Reading(kind="classification", open_list=tuple(opened))
    if sorts and _THEN_WRITES.search(flat):
        return Reading(kind="generation")
    if sorts and not writes and not (verb not in _SORTS and _EXPLAINS.search(flat)):
        answers = yes_no_of(flat)
        return Reading(kind="classification", labels=tuple(answers), number=not answers and asks_for_number(flat))
    if not verb and (names := listed_labels(flat)):
        return Reading(kind="classification", labels=tuple(Label(name) for name in names))
    if not verb and (names := points_elsewhere(flat) or yes_or_no(flat)):
        return Reading(kind="classification", labels=tuple(Label(name) for name in names))
    if foreign or (not verb and prompt_language(flat) not in ("en", None) and asks_for_labels(flat)):
        return Reading(kind="classification")  # whose labels the user is asked for
    return Reading(kind="generation" if writes else None)


def _even(text: str) -> str:
    for curly, straight in (("’", "'"), ("“", '"'), ("”", '"'), ("‘", "'"), ("\t", " "), ("\u00a0", " ")):
        text = text.replace(curly, straight)
    return re.sub(r" {2,}", " ", text)


def _on_one_line(text: str) -> str:
    """The text without line ends; a paragraph, and a line above one such as `Review: …`, end a sentence there."""
    return " ".join(re.sub(r"(?<=[\w)\]}\"'`])[ ]*\n(?=\s*\n|\W{0,4}\w+(?: \w+)?:(?:\s|$))", ".\n", text).split())


def first_verb(flat: str) -> str:
    """The first word of the prompt that is one of the verbs known here, in its base form; or ''."""
    before = ""
    low = flat[:2000].lower()
    for found in re.finditer("[a-z]+", low):
        word = found[0]
        # A verb that ends a sentence writes nothing, but for "read it and answer."; "a waiting list." is a noun.
        ends = before not in ("", "and", "then", "to") and low[found.end() : found.end() + 1] in (".", "?", "!")
        base = (word in _WRITES and not ends) or word in _SORTS
        # "the label of", "a rating": nouns do not open a task, and an inflected form only does after such words.
        # "They are paraphrases": behind a form of "be" what ends in -s is a noun.
        plural = word.endswith("s") and before in ("be", "is", "are")
        if (base and before not in _NOUN_BEFORE) or (word in _FORMS and before in _VERB_BEFORE and not plural):
            return _FORMS[word]
        before = word
    return ""


def why_unlabelled(reading: Reading, shown: Sequence[str] = ()) -> str:
    """What is wrong with a classification whose labels were not read, and the mend.

    Args:
        reading: What was read.
        shown: Outputs of the user's examples: labels, but perhaps not all.
    """
    if reading.sets:
        sets = "; ".join(f"{name}: {', '.join(names)}" for name, names in reading.sets)
        return (
            f"the text asks for {len(reading.sets)} labels of each input ({sets}), and a student gives one: make a "
            'task of each set, its labels listed in a task file under "## Labels"; or say "kind: generation" there, '
            "for a text that holds all"
        )
    if reading.number:
        return HOW + _all_shown(shown)
    mend = _HOW_TO_LABEL + _all_shown(shown)
    if reading.open_list:
        named = ", ".join(reading.open_list)
        return f"the text names only some of the labels ({named}), and the rest cannot be guessed: {mend}"
    why = f" ({reading.why_not})" if reading.why_not else ""
    return f"this looks like a classification, but its labels were not found{why}: {mend}"


def _all_shown(names: Sequence[str]) -> str:
    """The line that a task file takes where its examples show every label; "" where they show less than two."""
    distinct = list({name.strip().casefold(): name.strip() for name in reversed(names) if name.strip()}.values())[::-1]
    if len(distinct) < 2 or any(len(name) > MAX_LABEL_CHARS or "\n" in name for name in distinct):
        return ""
    plain = re.compile(r"(?!(?:null|true|false|yes|no)$)[a-z]\w*(?: \w+)*", re.ASCII | re.IGNORECASE)
    said = [name if plain.fullmatch(name) else json.dumps(name, ensure_ascii=False) for name in distinct]
    return f"; if the examples show all of them, add the line labels: [{', '.join(said)}]"


def check_labels(
    labels: Sequence[tuple[int, Label]], reading: Reading, line: int, shown: Sequence[str], faults: Faults
) -> None:
    """Note what keeps labels from being the classes of a task.

    Args:
        labels: The labels, each with its line.
        reading: What was read where none are written.
        line: Where labels would stand.
        shown: Outputs of the user's examples.
        faults: Takes the faults.
    """
    line = labels[0][0] if labels else line
    if not labels:
        faults.add(line, why_unlabelled(reading, shown))
    elif len(labels) < 2:
        faults.add(line, f"one label ({labels[0][1].name!r}) is not enough; a classification needs 2 or more")
    elif len(labels) > MAX_LABELS:
        faults.add(line, f"{len(labels)} labels; at most {MAX_LABELS} are read")
    seen: dict[str, tuple[int, str]] = {}
    for at, label in labels[: MAX_LABELS + 1]:
        name = label.name
        if not name.strip():
            faults.add(at, "labels: an empty name")
        elif len(name) > MAX_LABEL_CHARS or "\n" in name:
            faults.add(at, f"labels: {name[:60]!r}… is too long for a name; put the explanation into the description")
        elif name.casefold() in seen:
            first, other = seen[name.casefold()]
            faults.add(
                at, f"label {name!r} is listed twice (first {other!r}" + (f" on line {first})" if first else ")")
            )
        else:
            seen[name.casefold()] = (at, name)


_NOUNS = (
    r"(?:texts?|tweets?|sentences?|reviews?|messages?|questions?|news|articles?|comments?|documents?|e-?mails?|posts?|"
    r"descriptions?|quer(?:y|ies)|prompts?|tickets?|words?|language|headlines?|reports?|speech|instructions?|"
    r"paragraphs?|poems?|phrases?|utterances?|conversations?|dialogues?|requests?|customers?|users?|data|abstracts?)"
)


# Words that end a noun phrase, or make it one of something else.
_NO_PART = (
    "of|in|on|for|from|to|into|about|with|by|at|as|and|or|but|if|that|which|who|is|are|was|were|has|have|the|an?|so|then|"
    "history|literature|speakers?|learners?|teachers?|culture"
)
# What else is put into another form, corrected or read and is in a language.
_IN_A_LANGUAGE = re.compile(
    r"(?:texts?|copy|grammar|spelling|punctuation|wording|writing|prose|essays?|homework|dictations?|sentences?|rulings?|"
    r"judge?ments?|decisions?|verdicts?|statutes?|subtitles|captions?|notes|minutes|correspondence|addresses|dates?)",
    re.IGNORECASE,
)
# Behind these stands what comes out.
_COMES_OUT = re.compile(
    r"\b(?:into|in|to|as|(?:write|generate|compose|create|produce|output|draft|invent|give|make|suggest|recommend|propose)"
    r"(?: me)?)(?: an?| the| some| short| new| good)*\s*$",
    re.IGNORECASE,
)


def _worked_on(phrase: str) -> bool:
    """Whether a word of a phrase names what is in a language: `legal text`, `court rulings`."""
    words = phrase.split()
    return any(is_text_kind(word) or _IN_A_LANGUAGE.fullmatch(word) for word in words)


def infer_languages(instruction: str, labels: Sequence[str] = ()) -> tuple[str, ...]:
    """ISO 639-1 codes of the languages that the inputs are said to be in, or the prompt is; empty where none tells.

    Args:
        instruction: The task.
        labels: Names of its labels, which may be what languages the inputs are in.
    """
    if told := label_languages(instruction, labels):
        return tuple(told.values())
    flat = " ".join(instruction.split())
    name = "|".join(sorted((re.escape(n.title()) for n in NAMES_IN_TEXT), key=len, reverse=True))
    pair = re.search(rf"\b({name})(?:\s+\w+)?\s*(?:-to-|\s+(?:in)?to\s+|→|->)\s*({name})\b", flat)
    if pair:
        return (NAMES_IN_TEXT[pair[1].lower()],)
    chain = rf"(?:{name})(?:\s*(?:,|/|\bor\b|\band\b|,\s*(?:or|and)\b)\s*(?:{name}))*"
    found: list[str] = []
    for match in re.finditer(rf"\b(?:from|in)\s+({chain})\b|\b({chain})[- ](?:language\s+)?{_NOUNS}\b", flat):
        before = flat[max(0, match.start() - 60) : match.start()].lower()
        if match[1] and re.search(r"\b(?:translat\w+|answer|reply|respond|write|output|summar\w+)\b[^.]*$", before):
            continue
        for one in re.findall(rf"\b(?:{name})\b", match[1] or match[2]):
            code = NAMES_IN_TEXT[one.lower()]
            if code not in found:
                found.append(code)
    for match in re.finditer(rf"\b({chain})((?: (?!(?:{_NO_PART})\b)[a-z][\w-]*){{1,4}})", flat) if not found else ():
        if _worked_on(match[2]) and not _COMES_OUT.search(flat[max(0, match.start() - 60) : match.start()]):
            found += [code for one in re.findall(rf"\b(?:{name})\b", match[1])
                      if (code := NAMES_IN_TEXT[one.lower()]) not in found]  # fmt: skip
    own = prompt_language(flat)
    return tuple(found) or ((own,) if own else ())


_SMALL = _words(
    "a an the of to in on for and or as is are be given this that these those its it with by from into at you your i "
    "we our their whether if one following please should must each any s t"
)


def slug(text: str, *, words: int = 6) -> str:
    """A short name, safe as a file name: ASCII lower-case letters, digits and `-`."""
    plain = unicodedata.normalize("NFKD", text[:2000]).encode("ascii", "ignore").decode().lower().replace("'", "")
    parts = [word for word in re.findall(r"[a-z0-9]+", plain) if word not in _SMALL]
    name = "-".join(parts[:words])[:60].strip("-")
    return name or f"task-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"type": "string", "enum": ["classification", "generation"]},
        "labels": {
            "type": "array",
            "maxItems": 60,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 60},
                    "description": {"type": "string", "maxLength": 120},
                },
                "required": ["name", "description"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["kind", "labels"],
    "additionalProperties": False,
}


def ask_teacher(prompt: str, asker: Asker, known: Reading) -> Reading:
    """Ask the teacher for what the rules left open, and check its answer.

    Args:
        prompt: The instruction.
        asker: Whom to ask; a teacher without structured output is not asked.
        known: What the rules found; it stays where it is sure.

    Returns:
        `known`, completed; its `why_not` says why an answer was refused.
    """
    from dataclasses import replace

    from potstill.asking.teacher import Failure, Message, Request
    from potstill.prompts import load

    if not asker.abilities.json_schema:
        return replace(known, why_not="this teacher has no structured output")
    text = load("infer_task").render(prompt=prompt, classification=known.kind == "classification")
    request = Request(messages=(Message("user", text),), max_tokens=2048, temperature=0.0, schema=_SCHEMA)
    reply = asker.ask([request], "infer_task")[0].reply
    if isinstance(reply, Failure):
        return replace(known, why_not=f"the teacher gave no answer ({reply.reason})")
    if reply.finish != "stop":
        cut = {"length": "was cut short", "refused": "was refused"}.get(reply.finish, reply.finish)
        return replace(known, why_not=f"the teacher's answer {cut}")
    try:
        answer = json.loads(reply.text)
        kind = known.kind or answer["kind"]
        labels = tuple(
            Label(" ".join(str(item["name"]).split()), " ".join(str(item.get("description", "")).split()))
            for item in answer["labels"]
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return replace(known, why_not="the teacher's answer was not the JSON that was asked for")
    if kind == "generation":
        return replace(known, kind="generation", how="teacher")
    names = [label.name for label in labels]
    if kind != "classification" or not plausible(names) or len(names) > 200:
        return replace(known, why_not=f"the teacher's labels cannot be used: {', '.join(names)[:200] or 'none'}")
    return replace(known, kind="classification", labels=labels, how="teacher")
