"""The labels that a prompt names: where they stand, what they are called, which of them are only examples.

The instruction enters, as it was written and on one line; labels leave, or the few names that an open list gives.
The places, surest first: what the output is said to be ("The output is one of: …", "Answer yes or no"), a named set
("labels: …", "name the intent: …"), what the input is sorted into ("as A, B or C", "into A and B", "whether it is A
or B"), and a bullet list after a line that ends with a colon or a table whose first column is headed by a word for a
set. A list that starts with "such as" or "e.g." is open: it is never taken for the whole set, and nobody may guess the
rest.
"""

from __future__ import annotations

import re
from itertools import islice, pairwise, takewhile

from potstill.task import Label
from potstill.task.choices import (
    ALTERNATIVES,
    ASPECT,
    PAIRS,
    asked,
    bracketed,
    conditional,
    contrasts,
    leads_to_list,
    named,
    offered,
    options,
    told,
)
from potstill.task.codes import coded_labels
from potstill.task.lists import MAX_LABELS, OPEN, SET, list_end, listed, plausible, split_list
from potstill.task.markdown import bullet, is_rule, split_label, table_row
from potstill.task.numbers import SCALE, points_of

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
    r"\b(?:the|your|our)\s+(?:\w+\s+){0,2}?(?:labels|categories|classes|intents)\s+are\s*:?\s+",
    rf"\b(?:{_NUMBER} )(?:\w+ )?{SET}\s*(?::|\(|[–—-]\s)\s*",
    rf"\b{SET}\s*\(\s*",
    rf"(?:^|[.!?]\s+){ASPECT}\s*:\s*",
)
_WHETHER = (
    r"\b(?:whether|if|which)\b[^.:;?]{1,100}?(?:\b(?:be|is|are|was|were|sounds|expresses|belongs? to|has)|'s)"
    r"(?: either)?\s*:?\s+(?:about\s+)?"
)
# "Tag the tweet ironic or sincere", "label the claim SUPPORTS, REFUTES or NOT ENOUGH INFO", to the sentence's end.
_NAME = (
    r"(?!(?:on|in|for|by|with|about|of|to|from|at|if|when|that|and|or|is|are)\b)"
    r"(?:[A-Z][A-Z_]+(?: [A-Z_]+){0,3}|[a-z][a-z-]+)"
)
OBJECT_THEN = (
    r"\b(?:label|tag|mark|rate|grade|flag|call|judge)\s+(?:each|every|the|this|that|an?)\s+(?!(?:\w+\s+)?(?:and|or)\b)"
    rf"[\w-]+\s+(?=(?-i:{_NAME}(?:,\s*{_NAME})*,?\s+or\s+{_NAME}(?:[.?!](?:\s|$)|$)))"
)
# What somebody wants is one of several things; a text may mention all of them.
_WANTS = (
    r"\b(?:whether|if)\b[^.:;?,]{1,80}?\b(?:wants?|prefers?|needs?|requires?|expects?|favou?rs|chooses|likes|"
    r"is looking for|looks for|complains about|talks about|speaks about|deals with|refers to)(?: either)?\s+"
    r"(?=[^.:;?]{2,200},[^.:;?]{1,80}\bor\b)"
)
_IS_IT = (
    r"^(?:is|are)\s+(?:this|the|these|that|an?|each)\s+(?:following\s+|given\s+)?(?:[\w-]+'s\s+)?[\w-]+\s+"
    r"(?:about\s+)?"
)
# "Is the tone of the customer email formal or informal": how long the noun is, the other names tell.
_IS_ITS = (
    r"^(?:is|are)\s+(?:the|this|its|their)\s+(?:[\w-]+\s+)?[\w-]+\s+(?:of|in|behind|expressed in|towards?)\s+"
    r"(?:the|this|that|these|an?|each|every)\s+(?=\w)"
)
# Leads to each of the names behind "is it", and stands once: "is it written by a man or a woman".
_LEADS_ALL = re.compile(
    r"(?:about|(?:\w+ed|written|sent|made|said|spoken)\s+(?:by|to|for|about|in)|by|from|in(?=\s+[A-Z]))\s+(?:(?:an?|the)\s+)?(?=\S)"
)
_LEADS_SET = re.compile(
    r"(?:[\w'-]+\s+){0,3}?(?:categories|classes|labels|intents|topics|tags|groups|types|kinds|departments|genres|queues|teams|"
    r"sections|desks|folders|channels|divisions|domains|areas|boards)\s+(?=\S)",
    re.IGNORECASE,
)
_SORT_CUES = (
    rf"\binto (?:one of )?(?:the |these )?(?:following )?(?:(?:{_NUMBER} )?{SET}|{_NUMBER} ?(?=:))?\s*:?\s*",
    r"\b(?:as|being)(?: belonging to)?(?: either| one of)?\s*:?\s+",
    rf"\bamong(?:st)?\s+(?:the\s+)?(?:following\s+)?(?:{SET}\b)?\s*:?\s*",
    _WHETHER,
    OBJECT_THEN,
    _WANTS,
    _IS_ITS,
    _IS_IT,
    r"\b(?:either)\s+",
    r"\((?=\d{1,2}\s*,\s*\d)",
    r"\b(?:rating|score|grade|mark) of\s*:?\s+(?=\d{1,2}\s*,)",
    rf"\b(?:by|for|in terms of) {ASPECT}\s*[:(–—-]\s*",
    r"\b(?:classify|categori[sz]e|label|sort|route|triage|flag|rate|tag|grade|detect|moderate|recogni[sz]e|predict|judge|"
    r"determine|decide|identify|name|assign|filter|bucket|mark|estimate|"
    r"analysis|classification|detection|moderation|identification|recognition)\b[^.:;]{0,80}:\s*",
    r"^(?:classify|categori[sz]e|label|sort|tag)\s[^.:;,]{0,80}?\s[–—-]\s+",
    r"\b(?:say|tell|state|check|assess|indicate|verify|find out)\s+(?:me\s+)?(?:whether|if|how|what|which)\b"
    r"[^.:;]{0,80}:\s*(?=[^.;:]{1,200}\bor\b)",
    r"(?=\b\d{1,2}\s*(?:=|means)\s*[a-z])",
    rf"\b(?:route|forward|direct|assign|allocate)\s+(?!(?:an?|the|one)\s+(?:\w+\s+)?(?:{ASPECT}|{SET}|scores?|ratings?|"
    r"numbers?|points?)\b)[^.:;]{1,60}?\bto\s+(?:either\s+)?(?=[^.?!]{1,300}\bor\b)",
    r"[.?!]\s+(?:answer|reply|respond|say|output|return|print|write)\s+(?!(?:whether|if|which|what|how|why)\b)"
    r"(?=[^.?!]{1,200}\bor\b)",
)
# Before something that a clause says beside the question: "…, where the tone (angry or calm) does not matter".
_BESIDE = re.compile(
    r"\b(?:where|whatever|regardless of|although|though|even if|ignor\w+)\s+(?:the\s+|its\s+)?$", re.IGNORECASE
)
# What stands behind "whether it is A or …" where that goes on with a clause of its own.
_CLAUSE = re.compile(r"(?:contains?|mentions?|express(?:es)?|asks?|needs?|violates?|includes?|contradicts|entails)\b")
_MODAL = re.compile(r"\b(?:will|would|should|must|can|could|may|might)\s+", re.IGNORECASE)
_ARTICLE = r"(?:the|an?)\s+"
_QUESTION = re.compile(r"(?:is|are|was|were|does|do|did)\s+(?:it|this|that|the|these)\b", re.IGNORECASE)
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
    r"\b(?:(?:is|was)\s+(?:this|it|that)|as|is|are|it's|was|be|a|an)\s+([\w-]+)(?:\s+(?:to|for|about|with|in)\s[^.,;:]{1,60}?)?,?\s+or\s+(?:is\s+)?(not)"
    r"(?:\s+(?:an?\s+)?(\1)\b|(?=\s*(?:[.,;?]|$)))",
    re.IGNORECASE,
)
_YES_NO = re.compile(
    r"\b(?:yes\s*[/-]\s*no|yes or no|true\s*[/-]\s*false|true or false)\b(?:\s+(?:questions?|answers?))?", re.IGNORECASE
)
# Between two names of one line.
_SEVERAL = re.compile(r"[,;|]\s*\S")
_LETTERED = re.compile(r"\s*\(?([A-Za-z]|\d{1,3})[.)]\s+(.*\S)\s*")
_ONE_OF = re.compile(
    r"\b(?:output|answer|reply|respond|return|write|give|say|choose|pick|select)\s+(?:with\s+|only\s+|exactly\s+|just\s+)*one\b"
    r"(?! (?:sentence|paragraph|line|word))",
    re.IGNORECASE,
)


def labels_of(text: str, flat: str, verb: str, *, sorts: bool, writes: bool) -> tuple[list[Label], list[str]]:
    """The labels of a prompt, or else names that it gives as examples of labels.

    Args:
        text: The prompt as it was written.
        flat: The same on one line.
        verb: Its first verb that is known.
        sorts: Whether it asks that inputs are sorted.
        writes: Whether it asks for a text: only what leaves no doubt counts then.
    """
    if found := _lines(text, sorts, writes) or (_tabled(text) if sorts else []):
        return found, []
    if found := offered(text, flat, writes=writes):
        return found, []
    if sorts and (found := coded_labels(flat)):
        return found, []
    # "Is it that of something to eat or drink? Answer yes or no.": what is asked for last are no labels then.
    found = told(flat, sorts=True) if sorts else []
    if {label.name.casefold() for label in found} in _TWO_ANSWERS:
        return found, []
    if sorts and (pair := _X_OR_NOT.search(flat)):
        return told(flat, quoted=True) or [Label(pair[1]), Label(f"{pair[2]} {pair[3] or pair[1]}")], []
    found, opened = _cued(flat, sorts, writes)
    if found or opened:
        return found, opened
    if found := named(flat, verb, writes=writes, sorts=sorts) or (bracketed(flat) if sorts else []):
        return found, []
    if not writes and (found := told(flat, sorts=sorts) or asked(flat, strictly=bool(verb) and not sorts)):
        return found, []
    if sorts and (points := points_of(flat)):
        return [Label(point) for point in points], []
    if (
        sorts
        and (pair := _YES_NO.search(flat))
        and len(split_list(flat[pair.start() : list_end(flat, pair.end())])) < 3
    ):
        return [Label("yes"), Label("no")] if pair[0].lower().startswith("yes") else [Label("true"), Label("false")], []
    if sorts and (contrast := re.search(r"\b([\w-]+) (?:vs\.?|versus) ([\w-]+)\b", flat)):
        return [Label(contrast[1]), Label(contrast[2])], []
    if sorts and (found := _bare_lines(text, sorts=True)):
        return found, []
    if sorts and (mention := OPEN.search(flat)):
        return [], split_list(flat[mention.end() : list_end(flat, mention.end())])
    return [], []


def _cued(flat: str, sorts: bool, writes: bool) -> tuple[list[Label], list[str]]:
    """The list behind the surest of the words that lead to one, or else the names of an open list."""
    opened: list[str] = []
    for place, cue in enumerate((*_OUTPUT_CUES, *(_SET_CUES + _SORT_CUES if sorts else ()))):
        for found in islice(re.finditer(cue, flat, re.IGNORECASE), 20):
            end = list_end(flat, found.end())
            part = flat[found.end() : end]
            if mention := OPEN.search(flat, max(0, found.start() - 8), end):
                opened = opened or split_list(flat[mention.end() : end])
                continue
            if SCALE.search(flat) and re.match(r"\d{1,2}\s*(?:to|-|–)\s*\d", part):
                continue
            if found[0].rstrip().endswith("(") and _BESIDE.search(flat[: found.start()]):
                continue
            labels = listed(part)
            # "Vegan, vegetarian, or contains meat" are three labels; "rude or contains threats" is one question.
            clauses = cue == _WHETHER and any(
                _CLAUSE.match(label.name) for label in labels[: 2 if labels[2:] else None]
            )
            clauses = clauses or bool(labels and _QUESTION.match(labels[0].name))
            if len(labels) < 2 or clauses or (place < len(_OUTPUT_CUES) and _no_answers(flat, found, part, writes)):
                continue
            if cue == _IS_ITS and not (labels := _without_noun(labels)):
                continue
            return _without_lead(labels, _LEADS_ALL if cue in (_WHETHER, _IS_IT) else _LEADS_SET), []
    return [], opened


def _without_lead(labels: list[Label], leads: re.Pattern[str]) -> list[Label]:
    """Labels of which the first has lost what leads to all of them: `about biology`, `our four sections Politics`."""
    first, *others = labels
    lead = leads.match(first.name)
    if lead is None or any(leads.match(label.name) for label in others):
        return labels
    bare = Label(first.name[lead.end() :], first.description)
    return [bare, *others] if plausible([bare.name, *(label.name for label in others)]) else labels


def _without_noun(labels: list[Label]) -> list[Label]:
    """Labels the first of which begins with the noun before the list: `customer email formal`, `informal`."""
    first, *others = labels
    words = first.name.split()
    own = max(len(re.sub(r"^(?:an?|the)\s+", "", label.name).split()) for label in others)
    if len(words) <= own:
        return []
    own += len(words) > own + 1 and words[-own - 1] == "in"  # in favour, or against
    bare = re.sub(r"^(?:an?|the)\s+", "", " ".join(words[-own:]))
    return [Label(bare, first.description), *others] if plausible([bare, *(label.name for label in others)]) else []


def _no_answers(flat: str, found: re.Match[str], part: str, writes: bool) -> bool:
    """Whether a list behind a word for the output holds what the output is made of, or comes in, and no answers."""
    if leads_to_list(flat, found.end() + len(part)) or conditional(flat, found.start()):
        return True
    if found[0].lower().startswith("one of"):
        before = flat[max(0, found.start() - 10) : found.start()]
        return writes and bool(re.search(r"\b(?:in|with|using|about|on|for|to|into)\s*$", before, re.IGNORECASE))
    if re.match(r"label|.*\b(?:between|from)\b", found[0], re.IGNORECASE):
        return False
    if " and " in part and not ALTERNATIVES.search(part):
        return True
    article = re.match(r"(?:an?|the|its|their)\s", part, re.IGNORECASE)
    return bool(article) and not contrasts([label.name for label in listed(part)], part)


def _lines(text: str, sorts: bool, writes: bool) -> list[Label]:
    """Labels from lines with bullets, numbers or letters below a line with a colon or a word for a set."""
    labels: list[Label] = []
    marks: list[str] = []
    lead = ""
    for line in [*text.split("\n"), ""]:
        lettered = _LETTERED.fullmatch(line.rstrip())
        item = lettered[2] if lettered else bullet(line.rstrip())
        if item is not None:
            name, description = split_label(item)
            labels.append(Label(name.rstrip(".;,"), description))
            marks.append(lettered[1] if lettered else "")
            continue
        names = [label.name for label in labels]
        if len(labels) >= 2 and plausible(names) and (_leads(lead, writes) or (sorts and lead.rstrip().endswith(":"))):
            return (
                options(names, marks, text) if all(marks) and not any(label.description for label in labels) else labels
            )
        labels, marks = [], []
        lead = line if re.search(r"\w", line) else lead
    return _bare_lines(text, writes=writes)


def _bare_lines(text: str, *, sorts: bool = False, writes: bool = False) -> list[Label]:
    """Labels from short lines without bullets below a line that ends with a colon.

    With `sorts` the line need not say that labels follow; the names must shut each other out then.
    """
    lines = [line.strip() for line in text.split("\n")]
    for place, lead in enumerate(lines):
        if not lead.endswith(":") or not (sorts or _leads(lead, writes)):
            continue
        below = lines[place + 1 :]
        below = below[1:] if below and not below[0] else below
        if found := _wrapped(below):
            return found
        block = takewhile(_may_be_name, below)
        labels = [Label(name.rstrip(".;,"), said) for name, said in map(split_label, islice(block, MAX_LABELS + 1))]
        names = [label.name for label in labels]
        short = all(len(name.split()) <= 4 for name in names)
        if plausible(names) and short and (not sorts or contrasts(names, "")):
            return labels
    return []


def _wrapped(lines: list[str]) -> list[Label]:
    """Labels of a list that goes on over several lines, each of which holds some; none where each line is a name."""
    block: list[str] = []
    rest = ""
    for line in lines[:MAX_LABELS]:
        goes_on = not block or block[-1][-1] in ",;|" or (_holds_several(line) and line[-1] not in ".?!")
        if not line or not goes_on or re.search(r"[{}<>]|:$|:\s|\s[–—-]{1,2}\s", line):
            rest = line
            break
        block.append(line)
    several = [_holds_several(line) for line in block]
    marked = any(line[-1] in ",;|" for line in block[:-1])
    if len(block) < 2 or not any(several) or not (marked or (all(several) and (not rest or rest[-1] in ".?!"))):
        return []
    joined = " ".join(line if line[-1] in ",;|" else f"{line}," for line in block).rstrip(" ,")
    return listed(joined[: list_end(joined, 0)])


def _holds_several(line: str) -> bool:
    """Whether a line holds several names; "Home, Garden & Tools" and "billing (money, refunds)" are one."""
    plain = re.sub(r"\([^()]{1,300}\)", "", line)
    return bool(_SEVERAL.search(plain)) and not re.search(r"&|\band\b", plain)


def _may_be_name(line: str) -> bool:
    """Whether a line can be a label with or without its description."""
    name, said = split_label(line)
    return bool(line) and not re.search(r"[{}<>]|:$", line) and (bool(said) or not re.search(r"[.?!]$", name))


def _leads(lead: str, writes: bool) -> bool:
    """Whether a line says that labels stand below it."""
    if writes:
        named_set = re.search(r"\b(?:labels?|categor(?:y|ies)|class(?:es)?|intents?)\b", lead, re.IGNORECASE)
        for_each = re.search(r"\b(?:for|each|every|all|about)\b", lead, re.IGNORECASE)
        return bool(named_set and not for_each) or bool(_ONE_OF.search(lead))
    return bool(re.search(rf"\b{SET}\b|\bone of\b|\?$", lead, re.IGNORECASE) or _ONE_OF.search(lead))


def _tabled(text: str) -> list[Label]:
    """Labels from the first column of a table whose head calls it a word for a set; the second is what they mean."""
    rows = [table_row(line.rstrip()) for line in text.split("\n")]
    for place, (head, rule) in enumerate(pairwise(rows)):
        if not head or not rule or not is_rule(rule) or not re.fullmatch(rf"{SET}|{ASPECT}", head[0], re.IGNORECASE):
            continue
        body = list(takewhile(lambda cells: cells is not None, rows[place + 2 :]))
        labels = [Label(cells[0], cells[1] if len(cells) > 1 else "") for cells in body if cells]
        if plausible([label.name for label in labels]):
            return labels
    return []


def yes_no_of(flat: str) -> list[Label]:
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
    if (either := _either(flat)) is not None:
        return either
    return [Label("yes"), Label("no")] if asks or question else []


def _either(flat: str) -> list[Label] | None:
    """The alternatives that "whether" leads to in place of one question, none that can be read; None of a question."""
    for found in islice(re.finditer(r"\b(?:whether|if)\s+([^.;:?!()]{3,300})", flat, re.IGNORECASE), 20):
        clause = re.sub(r",?\s+or\s+not\b.*|^or\s+not\s+", "", found[1])
        pair = re.search(r"\b([A-Za-z]+)\s+or\s+([A-Za-z]+)\b", clause)
        if pair and frozenset(word.lower().removesuffix("s") for word in pair.groups()) in PAIRS:  # supports or refutes
            return [Label(pair[1]), Label(pair[2])]
        modal = _MODAL.search(clause)
        rest = clause[modal.end() :] if modal else ""
        if not modal or not re.search(r"\bor\b", rest):
            continue
        names = [label.name for label in listed(rest)]
        if all(len(name.split()) == 1 for name in names) and contrasts(names, ""):  # win, lose or draw
            return [Label(name) for name in names]
        things = re.search(
            rf"\b{_ARTICLE}[^,]{{1,60}}(?:,\s*{_ARTICLE}[^,]{{1,60}}){{0,30}},?\s+or\s+{_ARTICLE}.{{1,60}}$", rest
        )
        labels = listed(things[0]) if things else []
        if things and (len(labels) > 2 or (labels and not re.search(r"\ban?\s", things[0]))):
            return labels
        if things or modal[0].lower().startswith("will"):
            return []
    return None


def two_ways(flat: str) -> list[Label]:
    """`true` and `false`, `yes` and `no` or `1` and `0` of "return true if it rains, false otherwise"."""
    for found in islice(_TWO_WAYS.finditer(flat), 20):
        names = found[1], found[3] or found[4]
        if {name.lower() for name in names} in _TWO_ANSWERS:
            return [Label(names[0], f"if {found[2]}"), Label(names[1], "otherwise")]
    return []
