"""Forms that tell by themselves that an answer is one of a list, whatever verb the prompt uses.

A prompt on one line enters; labels leave, or none. `noted` reads what leaves no doubt: `Literal["a", "b"]`,
`A) refund B) exchange`, `1 if it is spam, 0 if not`. `named` reads a list behind a word for a class (`its type: bug or
feature`), `told` one behind a word for the answer (`Output POSITIVE or NEGATIVE.`), `asked` one that ends a question
(`Formal or informal?`). The last two need more than a list, since "Output JSON or YAML" asks for a text: `contrasts`
tells names that shut each other out (`positive`, `negative`) from things that one could write.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice, pairwise

from potstill.task import Label
from potstill.task.lists import OPEN, SET, list_end, listed, plausible

ASPECT = (
    r"(?:sentiment|polarity|topic|intent(?:ion)?|emotion|category|class|label|genre|type|kind|language|tone|mood|"
    r"stance|urgency|priority|severity|department|subject|sarcasm|spam|toxicity|style|gender|domain|section)"
)
# Words behind which a list can only be the classes; a tone or a language may be one to write in.
_CLASS_WORD = (
    r"(?:sentiment|polarity|topic|intent(?:ion)?|emotion|category|class(?:ification)?|label|genre|type|kind|stance|"
    r"urgency|priority|severity|department|verdict|outcome|action|status|team|queue|level|option|answer|rating)"
)
_SAYS = r"(?:answer|reply|respond|output|return|say|print|write|give|use|state|put|choose|pick|select|predict)"
# What is answered stands between: "answer the question about the passage with yes or no".
_OBJECT = r"(?:(?:the|this|that|each|every|an?)\s+(?:[\w'/-]+\s+){0,6}[\w'/-]+(?:\s*:|\s+(?:only\s+)?with)\s+)?"
_MANNER = r"(?:(?:it|them|only|just|exactly|simply|either|with|as|one of|the word|the label)\s+)*"
ALTERNATIVES = re.compile(r"\bor\b|/|\||\bvs\b", re.IGNORECASE)
# Two labels one of which is the other's contrary.
PAIRS = tuple(
    frozenset(pair.split("/"))
    for pair in re.split(
        " ",
        "yes/no true/false positive/negative pos/neg good/bad low/high spam/ham fact/opinion pass/fail accept/reject "
        "keep/reject approve/reject approve/deny allow/block correct/wrong right/wrong for/against favor/against "
        "favour/against agree/disagree real/fake human/machine human/bot support/refute supported/refuted "
        "question/statement entailment/contradiction objective/subjective urgent/normal rise/fall win/lose "
        "increase/decrease support/oppose accept/refuse improve/worsen confirm/deny confirm/refute",
    )
)
_RESIDUAL = re.compile(
    "others?|none|neither|neutral|unknown|mixed|unclear|unsure|undecided|tie|maybe|not sure|none of (?:the above|these)"
    "|(?:some|any)thing else|n/a|can't tell"
)
_NEGATIONS = ("not ", "not_", "not-", "non-", "non ", "no ", "non", "un", "in", "im", "ir", "il", "dis")
# Upper case by itself, and nothing to sort by.
_FORMATS = re.compile(
    r"JSONL?|YAML|XML|HTML|CSV|TSV|SQL|CSS|JS|TS|TOML|INI|PDF|RTF|MD|ASCII|UTF|ISO|UTC|USD|EUR|GBP|API|URL|DDL|DML|RGB|HEX|"
    r"RDF|SVG"
)
_MARKER = re.compile(r"(?<![\w(])\(?([A-Za-z]|\d{1,2})[).]\s+(?=\S)")
_OFFERS = re.compile(
    r"\?\W*$|\b(?:choose|pick|select)\s+(?:\w+\s+){0,2}?(?:one|option|answer|categor(?:y|ies)|label|class|from|between|"
    r"among)\b|\b(?:options|choices|labels|categories|classes|intents|one of)\b",
    re.IGNORECASE,
)
_BY_LETTER = re.compile(
    r"\b(?:answer|reply|respond|output|return|give|say|print|write)\s+(?:with\s+|only\s+|just\s+)*(?:the\s+|its\s+|one\s+)?"
    r"(?:\w+\s+)?(?:letter|number)\b",
    re.IGNORECASE,
)
_NAME_TO_CODE = re.compile(
    r"(?:^|[,;]|\bor\b|\band\b)\s*([A-Za-z][\w -]{0,40}?)\s*=\s*(\d{1,2})(?=\s*(?:$|[,;]|or\b|and\b))", re.IGNORECASE
)
# First words of steps to follow, which are none of several answers.
_STEP = re.compile(
    r"(?:read|decide|answer|look|check|output|return|think|identify|determine|find|extract|write|use|do|if|classify|explain|"
    r"consider|make|add|give|start|end|then|first|never|always|include)\b\s+\S",
    re.IGNORECASE,
)
_IF = re.compile(r"[\"'`]?(?<![\w-])([\w-]{1,40})[\"'`]?,?\s+(if|when|for)\s+", re.IGNORECASE)

# A sentence at the end on how to answer.
_ON_FORM = re.compile(rf"{_SAYS}\b[^?]*\b(?:word|only|just|label|answer)\b", re.IGNORECASE)
_QUESTIONS = (
    re.compile(r"\b(?:which|what|how)\b[^:]{2,150}:\s*", re.IGNORECASE),
    re.compile(
        r"^(?:who|which|what|where)\b[^,:]{2,150},\s+(?!(?:and|or|but|if|when)\b)(?=[^?]*\bor\b)", re.IGNORECASE
    ),
    re.compile(
        r"\b(?:is|are|was|were)\s+(?:it|(?:this|that|these|the)(?:\s+\w+(?=\s+[^\s,]+[, ]))?|they|he|she)\s+"
        r"(?:about\s+|more\s+)*",
        re.IGNORECASE,
    ),
    re.compile(r"^(?:does|do)\b[^?]{1,80}?\babout\s+|^(?:decide|answer|judge)\s*:\s*(?!is\b|are\b)", re.IGNORECASE),
    re.compile(
        r"^(?!(?:is|are|was|were|do|does|did|can|could|will|would|should|which|what|who|how|why|where|when)\b)",
        re.IGNORECASE,
    ),
)


def offered(text: str, flat: str, *, writes: bool) -> list[Label]:
    """Labels in a form that leaves no doubt; none where the prompt has no such form."""
    if found := _typed(flat):
        return found
    return [] if writes else _lettered(text) or conditions(flat)


def contrasts(names: Sequence[str], part: str) -> bool:
    """Whether names shut each other out, as answers do: opposites, a rest, capitals, numbers or quotes."""
    low = {name.casefold() for name in names}
    if any(map(_RESIDUAL.fullmatch, low)) or any(pair <= low for pair in PAIRS):
        return True
    if any(prefix + name in low for name in low if len(name) > 2 for prefix in _NEGATIONS):
        return True
    if all(re.fullmatch(r"[A-Z]{0,2}\d{1,2}", name) for name in names):
        return True
    if all(re.fullmatch(r"[A-Z][A-Z0-9_ -]+", name) for name in names):
        return not any(map(_FORMATS.fullmatch, names))
    return len(re.findall(r"(?<!\w)[\"'`][^\"'`]{1,60}[\"'`]", part)) == len(names)


def _list_at(flat: str, start: int) -> tuple[list[Label], str]:
    """The alternatives that stand here, and the text that they were read from; "a, b and c" are none."""
    end = list_end(flat, start)
    part = flat[start:end]
    if leads_to_list(flat, end) or OPEN.search(flat, max(0, start - 8), end):
        return [], part
    if not ALTERNATIVES.search(part) and re.search(r"\band\b", part):
        return [], part
    return listed(part), part


def conditional(flat: str, place: int) -> bool:
    """Whether a condition stands before this place in its sentence: `If there is none, return N/A or UNKNOWN.`"""
    sentence = re.split(r"[.?!]\s", flat[max(0, place - 300) : place])[-1]
    return bool(re.search(r"\b(?:if|when|unless)\b", sentence, re.IGNORECASE))


def leads_to_list(flat: str, end: int) -> bool:
    """Whether what ends here goes on with a list behind a colon, and so is none itself."""
    return flat[end : end + 1] == ":" and len(listed(flat[end + 1 : list_end(flat, end + 1)])) >= 2


def _bare(labels: Sequence[Label], words: int = 4) -> bool:
    """Whether these are names of a few words without articles."""
    return len(labels) >= 2 and all(
        len(label.name.split()) <= words and not re.match(r"(?:in|with|by|for|about|to|of|its|their)\s", label.name)
        for label in labels
    )


def told(flat: str, *, sorts: bool = False, quoted: bool = False) -> list[Label]:
    """Alternatives behind a word for the answer: `Output POSITIVE, NEGATIVE or NEUTRAL.`

    Args:
        flat: The prompt on one line.
        sorts: Whether the prompt sorts, so that `with` and `as` stand before labels too.
        quoted: Only names between quotation marks.
    """
    more = "|with|as" if sorts else ""
    verbs = rf"(?:{_SAYS}|labell?ed|tagged|marked|classified|flagged{more})"
    for found in islice(re.finditer(rf"\b{verbs}\b\s*:?\s+{_OBJECT}{_MANNER}", flat, re.IGNORECASE), 40):
        if conditional(flat, found.start()):
            continue
        labels, part = _list_at(flat, found.end())
        article = re.match(r"(?:an?|the|its|their)\s", part, re.IGNORECASE)
        if article or not _bare(labels) or not contrasts([label.name for label in labels], part):
            continue
        if not quoted or part[:1] in "\"'`":
            return labels
    return []


def named(flat: str, verb: str, *, writes: bool, sorts: bool) -> list[Label]:
    """Alternatives behind a word for a class: `give its risk level: low, medium or high`."""
    head = (
        r"\b(?:(\w+)\s+)?(?:its|the|their|an?|one|each|best|right|correct|next)\s+(?:[\w-]+\s+){0,2}?"
        rf"{_CLASS_WORD}(?:\s+(?:of|for|to|in)\s+[^.:;,()]{{1,60}}?)?(?:\s+only)?,?\s*(?::|\(|[–—]\s|\bfrom\b:?)\s*"
        rf"|\b(\w+)\s+(?:an?|its|the)\s+(?:\w+\s+)?classification\s+as\s+"
    )
    if not writes:
        head += rf"|\b(\w+)\s+(?:its|the)\s+(?:\w+\s+)?{_CLASS_WORD}\s+(?:of\s+[^.:;,()]{{1,60}}?\s+)?as\s+(?!an?\s)"
        head += r"|\b(?:choose|pick|select)\s+(?:(?:its|the|an?)\s+)?[^.:;,()]{1,60}?\s+from:?\s+(?!the\s|an?\s)"
    for found in islice(re.finditer(head, flat, re.IGNORECASE), 20):
        before = next(filter(None, found.groups()), "").lower()
        answers = re.search(
            r"\b(?:answer|reply|respond)\s$", flat[max(0, found.start() - 10) : found.start()], re.IGNORECASE
        )
        if before in ("in", "with", "using", "on", "about", "by", "for") and not (sorts or answers):
            continue
        if writes and before not in (verb, "into"):
            continue
        labels, _ = _list_at(flat, found.end())
        if _bare(labels):
            return labels
    return []


def bracketed(flat: str) -> list[Label]:
    """Alternatives in brackets, of a prompt that sorts: `Tag each commit (bug / feature / chore)`."""
    within = rf"(?:{_CLASS_WORD}|{ASPECT})(?:\s+(?:of|for|in)\s+(?:[\w'-]+\s+){{0,5}}[\w'-]+)?"
    for found in islice(re.finditer(r"([\w-]+)\s*\(([^()]{3,2000})\)", flat), 20):
        known = re.search(rf"\b{within}$", flat[max(0, found.start() - 90) : found.end(1)], re.IGNORECASE)
        coded = _NAME_TO_CODE.findall(found[2])
        if len({value for _, value in coded}) == len(coded) > 1:
            return [Label(value, name) for name, value in coded]
        if not re.search(r"[/|]", found[2]) and not known:
            continue
        labels, _ = _list_at(found[2], 0)
        if _bare(labels):
            return labels
    return []


def asked(flat: str, *, strictly: bool = False) -> list[Label]:
    """Alternatives that end a prompt as a question: `Formal or informal?`, `How urgent is it? P1, P2 or P3`.

    Args:
        flat: The prompt on one line.
        strictly: Take only names that shut each other out.
    """
    sentences = re.split(r"(?<=[.?!])\s+", flat.strip()[-3000:])
    while len(sentences) > 1 and _ON_FORM.match(sentences[-1]):
        sentences.pop()
    last, before = sentences[-1], sentences[-2] if len(sentences) > 1 else ""
    found = None
    if last.endswith("?"):
        found = next((found for form in _QUESTIONS if (found := form.search(last))), None)
    elif before.endswith("?"):
        found = re.match("", last)
    else:
        found = re.search(r"\b(?:how|who|which|what|where)\s+(?!many|much|to)\w+\s[^:]{2,100}:\s*", last, re.IGNORECASE)
    if found is None:
        return []
    last = last.rstrip("?.!")
    labels, part = _list_at(last, found.end())
    whole = found.end() + len(part) == len(last)
    if not whole or not _bare(labels, 5 if found.end() else 3):
        return []
    return _lowered(labels) if not strictly or contrasts([label.name for label in labels], part) else []


def _lowered(labels: list[Label]) -> list[Label]:
    """Names of which the first has a capital as a sentence begins with one: `Formal or informal?`"""
    first, *others = labels
    if first.name[1:].islower() and all(label.name.islower() for label in others):
        return [Label(first.name.lower(), first.description), *others]
    return labels


def _typed(flat: str) -> list[Label]:
    """`Literal["a", "b"]`, `one of {a, b}`, `label in [a, b]`, and the one value of `{"label": "a|b"}`."""
    opens = rf"(?:\b(?:Literal|Enum)\s*|\bone of\s+|\b(?:{SET}|{ASPECT}|outputs?)\s+(?:(?:is|are)\s+)?(?:in|from|∈)\s+)"
    found = re.search(opens + r"[\[{]([^\[\]{}]{3,5000})[\]}]", flat)
    if found and len(labels := listed(found[1])) >= 2:
        return labels
    values = re.findall(r"\{\s*[\"'][\w ]+[\"']\s*:\s*([^{}:]{3,2000})\}", flat)
    if len(values) == 1 and "|" in values[0]:
        inner = values[0].strip()
        labels = listed(inner if re.search(r"[\"']\s*\|", inner) else inner.strip("\"' "))
        return labels if _bare(labels) else []
    return []


def _lettered(text: str) -> list[Label]:
    """Options that stand behind letters or numbers in a row: `A) refund B) exchange C) other`."""
    marks = list(islice(_MARKER.finditer(text), 200))
    for place, first in enumerate(marks):
        if first[1] not in ("A", "a", "1"):
            continue
        row = [first]
        for mark in marks[place + 1 :]:
            following = str(int(row[-1][1]) + 1) if row[-1][1].isdigit() else chr(ord(row[-1][1]) + 1)
            if mark[1] == following:
                row.append(mark)
        lead = re.split(r"(?<=[.!?])\s+(?=\S)", text[: first.start()].strip())[-1]
        if len(row) < 2 or not _OFFERS.search(lead):
            continue
        names = [text[one.end() : two.start()] for one, two in pairwise(row)]
        ends = r"[.?!](?:\s|$)|\n" if all("\n" in name for name in names) else r"[.?!](?:\s|$)|\n\s*\n"
        names.append(re.split(ends, text[row[-1].end() :], maxsplit=1)[0])
        names = [re.sub(r"(?:[\s,;.]|\s(?:or|and))+$", "", " ".join(name.split())) for name in names]
        return options(names, [mark[1] for mark in row], text)
    return []


def options(names: Sequence[str], marks: Sequence[str], flat: str) -> list[Label]:
    """Labels of options that stand behind letters or numbers: these where the prompt asks for them, else the names."""
    if not plausible(list(names)) or any(_STEP.match(name) for name in names):
        return []
    if _BY_LETTER.search(flat):
        return [Label(mark, name) for mark, name in zip(marks, names, strict=True)]
    return [Label(name) for name in names]


def conditions(flat: str) -> list[Label]:
    """Answers each of which stands before its condition: `1 if they are duplicates, 0 if they are not`."""
    begins = re.search(rf"\b(?:{_SAYS}|as|label|assign|classify|mark|tag)\b", flat, re.IGNORECASE)
    if begins is None:
        return []
    found = [
        item
        for item in islice(_IF.finditer(flat, begins.start()), 50)
        if item[1].isdigit()
        or (
            item[2].lower() != "for"
            and (item[0][:1] in "\"'`" or re.fullmatch(r"[A-Z][A-Z_]+|(?i:yes|no|true|false)", item[1]))
        )
    ]
    if len(found) < 2:
        return []
    tail = flat[found[-1].end() :]
    parts = [flat[one.end() : two.start()] for one, two in pairwise(found)]
    last = list_end(tail, 0)
    parts.append(tail[:last])
    leads = ["" if item[2].lower() == "for" else "if " for item in found]
    labels = [Label(item[1], lead + _meaning(part)) for item, lead, part in zip(found, leads, parts, strict=True)]
    rest = re.search(
        r"\b(?:or|otherwise|else)[,:]?\s+[\"'`]([\w-]{1,40})[\"'`]|[\"'`]([\w-]{1,40})[\"'`]\s+otherwise\b",
        tail[: last + 60],
    )
    if rest and (name := rest[1] or rest[2]) not in {label.name for label in labels}:
        labels.append(Label(name, "otherwise"))
    return labels if plausible([label.name for label in labels]) else []


def _meaning(part: str) -> str:
    """A condition without what leads on to the next answer."""
    text = re.split(r"[.;]\s|,\s+(?:or|otherwise|else)\s+[\"'`]", part)[0].strip()
    return re.sub(rf"(?:[\s,;.]+|\b(?:and|or|but|{_SAYS}|with|it|as))+$", "", text, flags=re.IGNORECASE)[:200]
