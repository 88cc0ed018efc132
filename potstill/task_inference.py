"""What a task prompt says between the lines: kind, labels, name, languages, metric.

A prompt enters; `Reading` leaves. Rules come first, because they are the same every time, cost nothing and can be
tested; the teacher is asked, with structured output, only for what they did not find, and its answer is
checked like a user's.

The rules know four places where labels stand, surest first: what the output is said to be ("The output is one
of: …", "Answer yes or no"), a named set ("labels: …", "name the intent: …"), what the input is sorted into ("as A,
B or C", "into A and B", "whether it is A or B"), and a bullet list after a line that ends with a colon or a table
whose first column is headed by a word for a set. A list that starts with "such as" or "e.g." is open: it is never taken
for the whole set, and nobody may guess the rest.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from itertools import islice, pairwise, takewhile
from typing import TYPE_CHECKING, Any, Literal

from potstill.language_guess import prompt_language
from potstill.languages import NAMES_IN_TEXT
from potstill.task import Kind, Label, Metric
from potstill.task_lists import SET, list_end, listed, plausible, split_list
from potstill.task_markdown import bullet, is_rule, split_label, table_row
from potstill.task_other_languages import asks_for_labels, listed_labels

if TYPE_CHECKING:
    from potstill.asker import Asker

MAX_LABEL_CHARS = 100


@dataclass(frozen=True)
class Reading:
    """What was read from a prompt.

    Attributes:
        kind: The kind, or None where nothing in the prompt tells.
        labels: The classes; empty where none were found.
        how: `rules` or `teacher`.
        open_list: Names that the prompt gives as examples of labels, without listing all.
        several: Whether the prompt asks for several labels an input.
        why_not: Why the teacher's answer was not used.
    """

    kind: Kind | None = None
    labels: tuple[Label, ...] = ()
    how: Literal["rules", "teacher"] = "rules"
    open_list: tuple[str, ...] = ()
    several: bool = False
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
_FORMS = {
    form: word
    for word in _WRITES | _SORTS
    for stem in [word.removesuffix("e"), word[:-1] + "i" if word.endswith("y") else word]
    for form in (word, word + "s", stem + "es", stem + "ed", word.removesuffix("e") + "ing")
}
_NOUN_BEFORE = _words("the a an this that these each of its your their given with my one no any his her our in")
_VERB_BEFORE = _words("be is are that which who for by") | {""}
_ASPECT = (
    r"(?:sentiment|polarity|topic|intent(?:ion)?|emotion|category|class|label|genre|type|kind|language|tone|mood|"
    r"stance|urgency|priority|severity|department|subject|sarcasm|spam|toxicity|style|gender|domain|section)"
)
_SORTS_LOOSELY = re.compile(
    r"\b(?:decide|determine|tell|say|judge|check|predict|identify|find out|state|assess|indicate|verify)"
    rf"\s+(?:me\s+)?(?:if|whether|which|(?:the|its|their|a)\s+(?:\w+\s+){{0,2}}{_ASPECT})\b"
    rf"|\bname\s+the\s+(?:\w+\s+){{0,2}}{_ASPECT}\b"
    rf"|\bsay\s+what\s+(?:kind|type|sort)\b"
    rf"|\b(?:what|which)\s+(?:is\s+the\s+)?{_ASPECT}\b"
    r"|\b(?:sentiment|text|topic|intent|binary)\s+(?:analysis|classification)\b|\bclassifier\b"
    r"|^(?:is|are|does|do|did|has|have|was|were|can|could|should|will)\s+(?:this|the|these|an?|it|each|that)\b",
    re.IGNORECASE,
)
_FOLLOWS = re.compile(
    r"\bfollow(?:s|ing)?\s+(?:the\s+|any\s+|an?\s+|all\s+|user\s+|users'\s+|written\s+|given\s+)*"
    r"(?:instructions?|definition\s+of\s+the\s+task)\b"
    r"|\binstruction[- ](?:following|tuning|tuned)\b|\bself-instruct\b"
    r"|\b(?:diverse|varied|different|many\s+kinds\s+of|all\s+kinds\s+of)\s+(?:tasks|instructions)\b"
    r"|\bgeneral[- ]purpose\s+assistant\b",
    re.IGNORECASE,
)
_SEVERAL = re.compile(
    r"\b(?:one|any|zero)\s+or\s+more\b|\bone or several\b|\ball (?:the )?(?:\w+ )?(?:that apply|applicable)\b|"
    r"\bmulti-?label\b|\b(?:each|every|all)\s+(?:the\s+)?(?:tokens?|words?)\b",
    re.IGNORECASE,
)
_OPEN = re.compile(r"\b(?:such as|e\.\s?g\.|eg|for example|for instance|like|etc)(?!\w)[\s:,.]*", re.IGNORECASE)
_NUMBER = r"(?:\d{1,4}|two|three|four|five|six|seven|eight|nine|ten|a few|several)"
_OUTPUT_CUES = (
    rf"\bone of\b(?: the| these)?(?: following)?(?: {_NUMBER})?(?: (?:\w+ )?{SET}\b)?(?: below)?\s*:?\s+",
    rf"\b(?:output|answer|reply|response|result|label)s? (?:is|are|must be|should be|will be)"
    rf"(?: exactly| just| only)?(?: (?:one|a single) {SET})?\s*(?:either)?\s*:?\s+",
    r"\b(?:answer|reply|respond|output|return|say|print)(?:(?: with| only| just| exactly| either)+"
    r"(?: (?:one|a single) (?:word|label))?(?: either)?\s*:?|\s*:)\s+",
    r"\b(?:choose|pick|select|decide|distinguish)\s+(?:between|from(?: among)?)\s*:?\s+",
)
_SET_CUES = (
    rf"\b(?:possible |allowed |valid |following |candidate )*{SET}(?: are| is| to use| to choose from)?\s*(?::|=)\s*",
    rf"\b(?:possible |allowed |valid |candidate ){SET} are\s*:?\s+",
    rf"\b(?:{_NUMBER} )(?:\w+ )?{SET}\s*(?::|\(|[–—-]\s)\s*",
    rf"\b{SET}\s*\(\s*",
)
_WHETHER = (
    r"\b(?:whether|if|which)\b[^.:;?]{1,100}?(?:\b(?:to be|is|are|was|were|sounds|expresses|belongs? to|has)|'s)"
    r"(?: either)?\s*:?\s+(?:about\s+)?"
)
_SORT_CUES = (
    rf"\binto (?:one of )?(?:the |these )?(?:following )?(?:(?:{_NUMBER} )?{SET}|{_NUMBER} ?(?=:))?\s*:?\s*",
    r"\b(?:as|being)(?: either| one of)?\s*:?\s+",
    _WHETHER,
    r"^(?:is|are)\s+(?:this|the|these|that|an?|each)\s+[\w-]+\s+",
    r"\b(?:either)\s+",
    r"\((?=\d{1,2}\s*,\s*\d)",
    r"\b(?:rating|score|grade|mark) of\s*:?\s+(?=\d{1,2}\s*,)",
    rf"\b(?:by|for|in terms of) {_ASPECT}\s*[:(–—-]\s*",
    r"\b(?:classify|categori[sz]e|label|sort|route|triage|flag|rate|tag|grade|detect|moderate|recogni[sz]e|predict|judge|"
    r"determine|decide|identify|name|assign)\b[^.:;]{0,80}:\s*",
    r"(?=\b\d{1,2}\s*(?:=|means)\s*[a-z])",
    r"[.?!]\s+(?:answer|reply|respond|say|output|return|print|write)\s+(?!(?:whether|if|which|what|how|why)\b)"
    r"(?=[^.?!]{1,200}\bor\b)",
)
# What stands behind "whether it is A or …" where that goes on with a clause of its own.
_CLAUSE = re.compile(r"(?:contains?|mentions?|express(?:es)?|asks?|needs?|violates?|includes?|contradicts|entails)\b")
# Three ways to answer: such a question is none of yes and no.
_THIRD_ANSWER = re.compile(r"\b(?:neutral|neither|contradict\w*|undetermined|unrelated)\b", re.IGNORECASE)
_TWO_WAYS = re.compile(
    r"\b(?:return|output|answer|print|say|reply|respond|write|as|label)\s+(?:with\s+|it\s+)?[\"'`]?(\w+)[\"'`]?\s+"
    r"(?:if|when)\s+([^.;]{1,150}?),?\s+(?:and\s+|or\s+|but\s+)?"
    r"(?:(?:else|otherwise)\s+[\"'`]?(\w+)|[\"'`]?(\w+)[\"'`]?\s+(?:otherwise|if\s+not|else)\b)",
    re.IGNORECASE,
)
_TWO_ANSWERS = ({"true", "false"}, {"yes", "no"}, {"0", "1"})
_X_OR_NOT = re.compile(
    r"\b(?:as|is|are|it's|was|be|a|an)\s+([\w-]+)(?:\s+(?:to|for|about|with|in)\s[^.,;:]{1,60}?)?,?\s+or\s+(?:is\s+)?not"
    r"(?:\s+(?:an?\s+)?\1\b|(?=\s*(?:[.,;?]|$)))",
    re.IGNORECASE,
)
_EXPLAINS = re.compile(r"\b(?:explain|mention|justify|describe|why|give (?:a |the |your )?reasons?)\b", re.IGNORECASE)
# What is done to the text behind the sorting: "detect the language and translate it".
_THEN_WRITES = re.compile(
    r"\b(?:and|then)\s+(?:then\s+)?(?:translate|rewrite|summari[sz]e|convert|correct|fix)\b",
    re.IGNORECASE,
)
_YES_NO = re.compile(
    r"\b(?:yes\s*[/-]\s*no|yes or no|true\s*[/-]\s*false|true or false)\b(?:\s+(?:questions?|answers?))?", re.IGNORECASE
)
_SCALE = re.compile(
    r"\b(?:scale|rating|score|stars?|rate|grade)\b[^.\n]{0,60}?\b(\d{1,2})\s*(?:to|-|–|and)\s*(\d{1,2})\b",
    re.IGNORECASE,
)


def read_by_rules(prompt: str) -> Reading:
    """Kind and labels from the words of a prompt.

    Args:
        prompt: The instruction, at most some ten thousand characters.
    """
    text = _even(prompt)
    flat = " ".join(text.split())
    if _SEVERAL.search(flat):
        return Reading(kind="generation", several=True)
    verb = _first_verb(flat)
    scored = re.match(r"(?:score|grade|mark)\b", flat, re.IGNORECASE) and _SCALE.search(flat)
    sorts = verb in _SORTS or bool(_SORTS_LOOSELY.search(flat)) or bool(scored)
    writes = verb in _WRITES and not (verb in ("choose", "find", "answer", "give", "make") and sorts)
    if _FOLLOWS.search(flat) and not sorts:
        return Reading(kind="instructions")
    if (two := _two_ways(flat)) and not writes:
        return Reading(kind="classification", labels=tuple(two))
    named_set = not verb and re.search(r"\b(?:labels|categories|classes|intents)\s*:", flat, re.IGNORECASE)
    labels, opened = _labels_of(text, flat, bool(sorts or named_set) and not writes)
    if labels:
        return Reading(kind="classification", labels=tuple(labels))
    if opened and (sorts or not writes):
        return Reading(kind="classification", open_list=tuple(opened))
    if sorts and _THEN_WRITES.search(flat):
        return Reading(kind="generation")
    if sorts and not writes and not (verb not in _SORTS and _EXPLAINS.search(flat)):
        return Reading(kind="classification", labels=tuple(_yes_no_of(flat)))
    if not verb and (names := listed_labels(flat)):
        return Reading(kind="classification", labels=tuple(Label(name) for name in names))
    if not verb and prompt_language(flat) not in ("en", None) and asks_for_labels(flat):
        return Reading(kind="classification")  # whose labels the user is asked for
    return Reading(kind="generation" if writes else None)


def _even(text: str) -> str:
    for curly, straight in (("’", "'"), ("“", '"'), ("”", '"'), ("‘", "'"), ("\t", " "), ("\u00a0", " ")):
        text = text.replace(curly, straight)
    return re.sub(r" {2,}", " ", text)


def _first_verb(flat: str) -> str:
    """The first word of the prompt that is one of the verbs known here, in its base form; or ''."""
    before = ""
    for word in re.findall(r"[a-z]+", flat[:2000].lower()):
        base = word in _WRITES or word in _SORTS
        # "the label of", "a rating": nouns do not open a task, and an inflected form only does after such words.
        if (base and before not in _NOUN_BEFORE) or (word in _FORMS and before in _VERB_BEFORE):
            return _FORMS[word]
        before = word
    return ""


def _labels_of(text: str, flat: str, sorts: bool) -> tuple[list[Label], list[str]]:
    opened: list[str] = []
    if bulleted := _bulleted(text, sorts) or (_tabled(text) if sorts else []):
        return bulleted, []
    if sorts and (pair := _X_OR_NOT.search(flat)):
        return [Label(pair[1]), Label(f"not {pair[1]}")], []
    for cue in (*_OUTPUT_CUES, *(_SET_CUES + _SORT_CUES if sorts else ())):
        for found in islice(re.finditer(cue, flat, re.IGNORECASE), 20):
            end = list_end(flat, found.end())
            part = flat[found.end() : end]
            if mention := _OPEN.search(flat, max(0, found.start() - 8), end):
                opened = opened or split_list(flat[mention.end() : end])
                continue
            if _SCALE.search(flat) and re.match(r"\d{1,2}\s*(?:to|-|–)\s*\d", part):
                continue
            labels = listed(part)
            clauses = cue == _WHETHER and any(_CLAUSE.match(label.name) for label in labels)
            if len(labels) >= 2 and not clauses:
                return labels, []
    if sorts and (scale := _SCALE.search(re.sub(r"\s*\((?!\d{1,2} ?(?:to|-|–) ?\d{1,2}\))[^()]{1,100}\)", "", flat))):
        low, high = int(scale[1]), int(scale[2])
        if 1 <= high - low <= 10:
            return [Label(str(value)) for value in range(low, high + 1)], []
    if sorts and (pair := _YES_NO.search(flat)):
        return [Label("yes"), Label("no")] if pair[0].lower().startswith("yes") else [Label("true"), Label("false")], []
    if sorts and (contrast := re.search(r"\b([\w-]+) (?:vs\.?|versus) ([\w-]+)\b", flat)):
        return [Label(contrast[1]), Label(contrast[2])], []
    if sorts and not opened and (mention := _OPEN.search(flat)):
        opened = split_list(flat[mention.end() : list_end(flat, mention.end())])
    return [], opened


def _bulleted(text: str, sorts: bool) -> list[Label]:
    """Labels from a bullet list that follows a line with a colon or a word for a set."""
    labels: list[Label] = []
    lead = ""
    for line in [*text.split("\n"), ""]:
        item = bullet(line.rstrip())
        if item is not None:
            name, description = split_label(item)
            labels.append(Label(name.rstrip(".;,"), description))
            continue
        if len(labels) >= 2 and plausible([label.name for label in labels]):
            named = re.search(rf"\b{SET}\b|\bone of\b", lead, re.IGNORECASE)
            if named or (sorts and lead.rstrip().endswith(":")):
                return labels
        labels = []
        lead = line if line.strip() else lead
    return []


def _tabled(text: str) -> list[Label]:
    """Labels from the first column of a table whose head calls it a word for a set; the second is what they mean."""
    rows = [table_row(line.rstrip()) for line in text.split("\n")]
    for place, (head, rule) in enumerate(pairwise(rows)):
        if not head or not rule or not is_rule(rule) or not re.fullmatch(rf"{SET}|{_ASPECT}", head[0], re.IGNORECASE):
            continue
        body = list(takewhile(lambda cells: cells is not None, rows[place + 2 :]))
        labels = [Label(cells[0], cells[1] if len(cells) > 1 else "") for cells in body if cells]
        if plausible([label.name for label in labels]):
            return labels
    return []


def _yes_no_of(flat: str) -> list[Label]:
    """`yes` and `no` for a prompt that asks whether something is so, without naming two answers."""
    asks = re.search(
        r"\b(?:whether|if)\s+(?:or not\s+)?(?:\w+\s+){1,12}?(?:is|are|was|were|has|have|contains?|mentions?|expresses|"
        r"needs?|asks?|requires?|violates?|includes?|entails?|refers?|describes?|states?|can|should|does|do|will|would|"
        r"matches|supports?|answers?|makes?|means?)\b",
        flat,
        re.IGNORECASE,
    )
    question = re.match(
        r"(?:is|are|does|do|did|has|have|was|were|can|could|should|will)\s+(?:this|the|these|an?|it|each|that)\b[^.]*\?",
        flat,
        re.IGNORECASE,
    )
    if _THIRD_ANSWER.search(flat):
        return []
    return [Label("yes"), Label("no")] if asks or question else []


def _two_ways(flat: str) -> list[Label]:
    """`true` and `false`, `yes` and `no` or `1` and `0` of "return true if it rains, false otherwise"."""
    for found in islice(_TWO_WAYS.finditer(flat), 20):
        names = found[1], found[3] or found[4]
        if {name.lower() for name in names} in _TWO_ANSWERS:
            return [Label(names[0], f"if {found[2]}"), Label(names[1], "otherwise")]
    return []


def infer_metric(kind: Kind, instruction: str, outputs: list[str]) -> Metric:
    """The metric that fits: macro-F1 for classes; for texts, by what the answers look like."""
    if kind == "classification":
        return "macro_f1"
    if kind == "instructions":
        return "rouge_l"
    words = instruction.lower()
    if re.search(r"\b(?:translat\w+|python|sql|javascript|java|code|regex|shell|bash|snippet)\b", words):
        return "chrf"
    if re.search(r"\b(?:iso|exact(?:ly)?|number|integer|digits?|one word|json|date|amount|price)\b", words):
        return "exact_match"
    if outputs and all(len(output.split()) <= 3 for output in outputs):
        return "exact_match"
    return "rouge_l"


_NOUNS = (
    r"(?:texts?|tweets?|sentences?|reviews?|messages?|questions?|news|articles?|comments?|documents?|e-?mails?|posts?|"
    r"descriptions?|quer(?:y|ies)|prompts?|tickets?|words?|language|headlines?|reports?|speech|instructions?|"
    r"paragraphs?|poems?|phrases?|utterances?|conversations?|dialogues?|requests?|customers?|users?|data|abstracts?)"
)


def infer_languages(instruction: str) -> tuple[str, ...]:
    """ISO 639-1 codes of the languages that the inputs are said to be in, or the prompt is; empty where none tells."""
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

    from potstill.prompts import load
    from potstill.teacher import Failure, Message, Request

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
