"""Names that a sentence enumerates: `billing (invoices, refunds), bug or other` → three labels, one with a remark."""

from __future__ import annotations

import re

from potstill.task import Label
from potstill.task.markdown import clean

MAX_LABELS = 1000
SET = (
    r"(?:categor(?:y|ies)|classes|class|labels?|intents?|topics?|emotions?|sentiments?|tags?|buckets?|groups?|types?|"
    r"kinds?|departments?|genres?|tones?|values?|options?|names?|words?|strings?|answers?|queues?|teams?|levels?)"
)
# What makes a list an open one.
OPEN = re.compile(r"\b(?:such as|e\.\s?g\.|eg|for example|for instance|like|etc)(?!\w)[\s:,.]*", re.IGNORECASE)
_LIST_END = re.compile(
    r"[.?!](?=\s|$)|[)\]}]|:(?=\s)|\n\s*\n|(?<=[\w\"'`)])(?:,\s*|\s+)(?:e\.\s?g\.|i\.\s?e\.)", re.IGNORECASE
)
# Verbs that say how to choose or to answer.
_DOES = (
    r"(?:return|output|print|say|write|answer|reply|respond|give|explain|justify|ignore|be|do|use|keep|make|add|treat|count|"
    r"consider|take|choose|pick|prefer|provide|include|exclude|translate|summari[sz]e|list|mention|note|leave|stick|follow|"
    r"remember|assume|skip|avoid|state|show|send|put|mark|label|base|judge|look|think|never|always|only|just|nothing)"
)
# What goes on after the last name of a list.
_AFTERTHOUGHT = re.compile(
    r"(?<!\basks)(?!\s+(?:on\s+(?:fire|hold|time|sale|demand|track|duty|order|site|call|leave|strike|loan|trial|target|topic)|"
    r"in\s+(?:hand|stock|progress|transit|review|use|person|part|place|full|doubt|love|dispute)|for\s+sale|to\s+do)\W*$)[,;]?\s+(?:[–—-]\s.*|(?:based|according|depending|given|by|from|using|for|when|where|if|so|in|then|with|because|only|"
    r"that|which|who|respectively|instead|to|on|about|without|as|per|whose|unless|and\s+(?:explain|give|say|write|ignore|justify|"
    rf"translate)|and\s+{_DOES}\s+(?:only|just|nothing|the|an?|it|them|your|no|in|(?:valid\s+)?json)\b)\s.*)",
    re.IGNORECASE,
)
# A verb that is no name without what stands behind it: "approved, denied or sent for review".
_GOES_ON = re.compile(
    r"(?:put|sent|handed|passed|forwarded|referred|returned|moved|transferred|held|kept|left|given|placed|set|taken|"
    r"turned|brought|added|subject|open|due)",
    re.IGNORECASE,
)
# A clause behind a comma that says more of the names before it, and is none of them: "low or high, where low …".
_CLAUSE = re.compile(
    r"(?:where|when|if|so|but|because|which|depending|based|according|with)\s+(?!(?:or|and)\s)\S+\s+\S.*|"
    r"(?:say|return|output|print|write|answer|re(?:spond|ply)(?: with)?)\s+[\"'`].*|"
    r"without\s.*|(?:and\s+)?(?:no|not an?|nothing|never|do not|don't)\s+(?:\w+\s+)?(?:explanations?|comments?|reasons?"
    r"|quotes?|notes?|punctuation|extras?|else|additional|further|other|need|preamble|markdown|prose|text|words?)\b.*",
    re.IGNORECASE | re.DOTALL,
)
# What may follow a list that an "or" has closed: how to choose or to answer.
_HOW = re.compile(
    rf"(?:and|but|then)\s+(?:{_DOES}|do\s+not|don't)\s+\S.*|(?:ignore|never|always|only|just|do\s+not|don't)\s+\S.*"
    rf"|{_DOES}\s+(?:only|just|nothing|the|an?|it|them|your|no|in|with|one|exactly)\b.*|and\s+(?:explain|justify|nothing)(?:\s.*)?"
    r"|(?:then|regardless|irrespective|independent\w*|whichever|whatever|whoever|whenever|no\s+matter|even|given|assuming|"
    r"unless|while|until|like|as|in|on|by|from|for|to|at|of|per|under|within|not\s+(?:as|by|in|for|on|from))\s+\S.*"
    r"|(?:please|thanks|respectively|(?:in\s+)?(?:lower|upper)[ -]?case|(?:one|a\s+single)\s+word)"
    r"|(?:ignor|disregard|choos|pick|select|consider|us|keep|tak|treat|count|focus|focuss|giv|pay|leav|preferr|assum|judg|"
    r"rely|avoid|exclud|includ|bear|mak|err|answer|return|respond|output)ing\s+\S.*"
    r"|\w{2,20}ing\s+(?:the|an?|only|both|all|any|each|every|its?|them|your|no|into|in|on|to|for|from|by)\s.*",
    re.IGNORECASE | re.DOTALL,
)
_RESIDUAL = re.compile(
    r"or\s+(?:none|neither|both|mixed|neutral|unclear|unknown|unsure|undecided|n/a)\b.*", re.IGNORECASE
)
# What classes that are numbers stand for: `0 = bad`, `1 for good`, `1 if it is spam`.
# Letters stand before a sign.
_CODE = re.compile(
    r"([A-Za-z](?=\s*[:=])|\d{1,3})\s*(?:[:=]|\b(?:for|means|is|if|when)\b)\s*(\S.*)", re.IGNORECASE | re.DOTALL
)
_CODE_AHEAD = re.compile(r"(?:[A-Za-z]|\d{1,3}):\s")
_QUOTED = re.compile(r"\"([^\"]{1,100})\"|`([^`]{1,100})`|(?<!\w)'((?:[^']|(?<=\w)'(?=\w)){1,100})'(?!\w)")
_REMARK = re.compile(r"\s*\(([^()]{1,300})\)")
# Stand for remarks while the names around them are told apart: private characters that no prompt holds.
_FIRST_MARK, _MOST_REMARKS = 0xE000, 500


def list_end(flat: str, start: int) -> int:
    """Where an enumeration that begins at `start` ends; brackets that open within it do not end it."""
    place = start
    coded = _CODE_AHEAD.match(flat, start) is not None
    while found := _LIST_END.search(flat, place):
        opened = _REMARK.search(flat, place)
        if opened is not None and opened.start() < found.start():
            place = opened.end()
        elif (
            coded and found[0] == ":" and re.search(r"(?:\W|^)(?:[A-Za-z]|\d{1,3})$", flat[start : found.start()][-5:])
        ):
            place = found.end()  # A: a question; B: a complaint
        else:
            return found.start()
    return len(flat)


def listed(part: str) -> list[Label]:
    """The labels of an enumeration, a remark in brackets behind a name as its description; none where it is no list."""
    remarks: list[str] = []

    def lift(found: re.Match[str]) -> str:
        remarks.append(" ".join(found[1].split()))
        return chr(_FIRST_MARK + len(remarks) - 1)

    names = split_list(_REMARK.sub(lift, part, count=_MOST_REMARKS))
    if coded := _coded(names):
        return coded
    said = {label.name: label.description for label in _coded(re.split(r"\s*[,;]\s*", remarks[-1]))} if remarks else {}
    marks = re.compile(f"[{chr(_FIRST_MARK)}-{chr(_FIRST_MARK + _MOST_REMARKS)}]")
    bare = [marks.sub("", name).strip() for name in names]
    if said and said.keys() <= set(bare):  # 0, 1 or 2 (0 = low, 1 = medium, 2 = high)
        return [Label(name, said.get(name, "")) for name in bare]
    return [
        Label(own, "; ".join(remarks[ord(mark) - _FIRST_MARK] for mark in marks.findall(name)))
        for own, name in zip(bare, names, strict=True)
    ]


def _coded(names: list[str]) -> list[Label]:
    """Labels of names such as `0 for bad`; none where one of them is no number with its meaning."""
    pairs = [_CODE.fullmatch(name) or re.fullmatch(r"(\d{1,3})\s+(otherwise)", name, re.IGNORECASE) for name in names]
    found = [Label(pair[1], pair[2].strip()) for pair in pairs if pair is not None]
    return found if len(found) == len({label.name for label in found}) == len(names) else []


def split_list(part: str) -> list[str]:
    """Names in an enumeration such as `billing, bug or other`; empty when it does not look like one."""
    part = part.strip().rstrip(".")
    if len(part) > 20_000:
        return []
    quoted = _QUOTED.findall(part)
    if len(quoted) >= 2:
        names = ["".join(groups).rstrip(",.;") for groups in quoted]  # commas stand within quotes in American print
        return _unique(names) if plausible(names) else []
    part = re.sub(r"\b(?:etc\.?|and so on)\s*$|(?<=\w)\s+(?:only|please|thanks)\s*$", "", part).strip(" ,")
    if part.count(";") == 1 and re.search(r",|\bor\b|\band\b", part.partition(";")[0]):
        part = part.partition(";")[0]
    pieces = re.split(r"\s*[;|]\s*" if ";" in part or "|" in part else r"\s*,\s*", part)
    pieces = pieces[: next((i for i, piece in enumerate(pieces) if i and _CLAUSE.fullmatch(piece)), len(pieces))]
    if "," in part and not re.search("[;|]", part):
        pieces = _without_clause(pieces)
    if len(pieces) > 1 and all(re.search(r"\w\s+or\s+\w", piece) for piece in pieces):
        return _unique(names) if plausible(names := [_bare(piece) for piece in pieces]) else []
    last = re.sub(r"^(?:or|and)\s+", "", pieces[-1])
    tail = re.split(r"\s+or\s+|\s+vs\.?\s+|\s+versus\s+", last)
    if len(re.findall(r"[;|]", part)) > 1:  # which part names that hold an "or" or an "and"
        tail = [last]
    elif len(tail) == 1 and last == pieces[-1] and not _holds_and(pieces):
        tail = re.split(r"\s+and\s+|\s+/\s+", last) if len(pieces) > 1 or " and " in last or " / " in last else [last]
    if len(tail) > 1 or last != pieces[-1] or "|" in part:
        tail[-1] = _without_afterthought(tail[-1])
    pieces = [*pieces[:-1], *tail]
    if len(pieces) == 1 and re.fullmatch(r"[\w-]+(?:/[\w-]+)+", part):
        pieces = part.split("/")
    if len(pieces) == 1:
        return []
    names = [_bare(piece) for piece in pieces]
    trailing = re.fullmatch(rf"(.+?)\s+{SET}", names[-1], re.IGNORECASE)
    denied = trailing and re.search(r"\b(?:no|without|any)$", trailing[1], re.IGNORECASE)
    if trailing and not denied and not any(re.fullmatch(rf".+\s+{SET}", name, re.IGNORECASE) for name in names[:-1]):
        names[-1] = trailing[1]
    if len(names) == 2 and names[1].lower() == "not":
        names[1] = f"{names[1]} {names[0]}"
    return _unique(names) if plausible(names) else []


def _without_afterthought(name: str) -> str:
    """The last name of a list without what goes on behind it.

    Examples:
        >>> _without_afterthought("denied based on the file"), _without_afterthought("sent for review")
        ('denied', 'sent for review')
    """
    bare = _AFTERTHOUGHT.sub("", name)
    if _GOES_ON.fullmatch(bare) is None:
        return bare
    begin = len(bare) + len(name[len(bare) :].lstrip().split(" ")[0]) + 1
    found = _AFTERTHOUGHT.search(name, begin)
    return name[: found.start()] if found else name


def _without_clause(pieces: list[str]) -> list[str]:
    """The pieces of a list up to the one that its "or" closes, where what follows says how to choose or to answer.

    "Returns or refunds" may be one name of several: only what reads as a clause ends a list.
    """
    for place, piece in enumerate(pieces[:-1]):
        joined = re.search(r"\S\s+(?:or|vs\.?|versus)\s+\S", piece)
        if not joined and not (place and piece.lower().startswith("or ")):
            continue
        following = pieces[place + 1]
        longest = max(len(name.split()) for name in re.split(r"\s+or\s+", ", or ".join(pieces[: place + 1])))
        alone = place + 2 == len(pieces)
        sentence = len(following.split()) >= max(3, longest + 2) and not re.search(r"\sor\s|^(?:or|and)\s", following)
        if _HOW.fullmatch(following) or (alone and sentence):
            return pieces[: place + 1]
        if alone and joined and _RESIDUAL.fullmatch(following):  # past, present or future, or none
            return [*pieces[:place], *re.split(r"\s+or\s+", piece), following]
    return pieces


def _holds_and(pieces: list[str]) -> bool:
    """Whether the last "and" of a list stands within a name, as in most of the others: `Health and Safety`."""
    held = sum(" and " in piece for piece in pieces[:-1])
    rest = re.search(
        r"\sand\s+(?:others?|none|neither|misc\w*|unknown|(?:any|every|some)thing else)$", pieces[-1], re.IGNORECASE
    )
    return 2 * held > len(pieces) - 1 and not rest


def _bare(piece: str) -> str:
    piece = clean(re.sub(r"^(?:or|and|either|an?|the)\s+(?=[^\s=:])", "", piece.strip(" .:*"), flags=re.IGNORECASE))
    return re.sub(r"^(?:an?|the)\s+(?=[^\s=:])", "", piece).strip()


def plausible(names: list[str]) -> bool:
    """Whether these could all be label names: few, short, different, and none cut off within brackets."""
    return (
        2 <= len(names) <= MAX_LABELS
        and all(name.count("[") == name.count("]") and name.count("{") == name.count("}") for name in names)
        and all(0 < len(name) <= 60 and len(name.split()) <= 6 for name in names)
        and len({name.casefold() for name in names}) == len(names)
    )


def _unique(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))
