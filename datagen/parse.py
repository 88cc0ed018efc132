"""Teacher replies to plain texts: what is left when wrapping, chatter and control characters are taken off.

What enters is whatever a teacher sent: HTML, 10 MB, NUL bytes, template tokens, half a JSON. What leaves is text or
None; nothing here raises and every pattern runs in linear time on a bounded prefix of the reply.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from potstill.asking.teacher import Reply

MAX_REPLY_CHARS = 40_000
MAX_JSON_DEPTH = 16
Remarks = Literal["labels", "answers", ""]

_TEMPLATE_TOKEN = re.compile(r"<\|[a-z_]{1,24}\|>|\[/?INST\]", re.IGNORECASE)
# Where a sequence begins and ends, for some models; between other words it is HTML, or part of a pattern.
_SEQUENCE_TOKEN = re.compile(r"</?s>", re.IGNORECASE)
_SEQUENCE_TOKENS = ("<s>", "</s>")
_JOINER = re.compile(r"(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")
# What a teacher calls the text that it announces: "a short review", "three messages".
TEXTS = (
    r"(?:an?|the|your|one|some|another|two|three|four|five|\d{1,2})\b[^\n:.!?]{0,60}\b(?:text|review|message|example|"
    r"sample|sentence|article|post|comment|e-?mail|tweet|headline|quer(?:y|ie)|paragraph|response|answer|output|input|"
    r"version|stor(?:y|ie)|summary|dialogue|snippet|note|letter)(?:s|es)?\b"
)
_ANNOUNCED = r"(?:here(?:'s| is| are)|below (?:is|are)|this is|the following (?:is|are)|i(?:'ve| have) written)\b"
# An announcement is one by the word before it, by what it announces, or by the quote or new line behind it. "Here is
# the thing: I never got my refund" is none.
_CHATTER = re.compile(
    rf"^(?:(?:sure|certainly|of course|absolutely|okay|ok|great|yes)\b[,.!:]{{0,2}}\s{{0,3}}{_ANNOUNCED}"
    r"[^\n:]{0,120}:\s*"
    rf"|{_ANNOUNCED} {TEXTS}[^\n:]{{0,80}}:\s*"
    rf"|{_ANNOUNCED}[^\n:]{{0,120}}:(?:\s*\n\s*|\s*(?=[\"“«「])))",
    re.IGNORECASE,
)
_LEAD_IN = re.compile(
    r"(?:(?:sure|certainly|of course|absolutely|okay|ok|great|yes)\b[,.!:]{0,2}\s{0,3})?"
    rf"{_ANNOUNCED}[^\n:]{{0,120}}:(?:[ \t]*\n\s*|\s*(?=[\"“«「]))",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"^(?:\*\*|__|#{1,4} )?(?:text|input|output|answer|example|sentence|article|message|question|review|post|comment|"
    r"response|headline|tweet|email|content|document|query|request)(?: ?#?\d{1,3})?(?:\*\*|__)? ?:(?:\*\*|__)?[ \t]*",
    re.IGNORECASE,
)
_META_LINE = re.compile(
    r"^[\s*_>#(\[-]{0,6}(?:label|category|class|classification|answer|sentiment|intent|topic|explanation|note|"
    r"reason(?:ing)?|type)[\s*_]{0,4}[:=].{0,300}$",
    re.IGNORECASE,
)
# The same of an input that is given its answer afterwards: its own notes, topics and types are a part of it.
_ANSWER_LINE = re.compile(
    r"^[\s*_>#(\[-]{0,6}(?:label|classification|answer|explanation|reasoning)[\s*_]{0,4}[:=].{0,300}$", re.IGNORECASE
)
# "Options: A, B": a text of several such lines is a record, and its first name belongs to it.
_RECORD_LINE = re.compile(r"[A-Za-z][\w-]{0,30}(?: [\w-]{1,30})?:[ \t]+\S")
# "3. Oktober" opens no list: German writes "the 3rd" so.
_ORDINAL = re.compile(
    r"[ \t]*\d{1,3}\. (?:Januar|Jänner|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember|"
    r"Bundesliga|Liga|Jahrhundert|Weltkrieg|Bundestag|Auflage|Klasse|Stock|Spieltag|Platz|Advent|Quartal|Semester)\b"
)
_NUMBER = re.compile(r"^[ \t]*(?:\(?\d{1,3}[.):]|[-*•])[ \t]+", re.MULTILINE)
_QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "«": "»", "「": "」", "`": "`"}
_BEHIND_FIELDS = re.compile(
    r"[\s*_#-]*(?:answer|output|label|category|response|explanation|reasoning|relation|note)s?[\s*_]*:", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’»)\]]{0,2}(?=\s|$)")


def plain(text: str) -> str:
    """Text without control characters, template tokens and lone surrogates, cut to a bounded length.

    Joiners between letters or pictures stay: Persian words and emoji of several parts are spelt with them.
    """
    text = text[:MAX_REPLY_CHARS].encode("utf-8", "ignore").decode("utf-8")
    text = _without_tokens(text.replace("\r\n", "\n").replace("\r", "\n"))
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    joiners = {found.start() for found in _JOINER.finditer(text)}
    return "".join(
        c
        for at, c in enumerate(text)
        if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cn") or at in joiners
    )


def lacks_end(reply: Reply) -> bool:
    """Whether a reply was cut where it came from, or is longer than what is read of it."""
    return reply.finish == "length" or len(reply.text) > MAX_REPLY_CHARS


def _without_tokens(text: str) -> str:
    """A text without a chat template's tokens; `<s>` and `</s>` alone are such at its ends, a pair of them is HTML."""
    if _TEMPLATE_TOKEN.search(text):
        return _SEQUENCE_TOKEN.sub(" ", _TEMPLATE_TOKEN.sub(" ", text))
    if all(token in text for token in _SEQUENCE_TOKENS):
        return text
    while (bare := text.strip()).startswith(_SEQUENCE_TOKENS):
        text = bare.split(">", 1)[1]
    while (bare := text.rstrip()).endswith(_SEQUENCE_TOKENS):
        text = bare.rpartition("<")[0]
    return text


def clean_text(text: str, remarks: Remarks = "labels") -> str:
    """One written text without quotes, `Text:` names, a list's mark before it alone, markdown fences and chatter.

    Args:
        text: What was written.
        remarks: What else is taken off. `labels`: lines at the ends that name a label, a topic or an answer or give a
            note, and what stands behind a fence (texts written for a label). `answers`: such lines only where they give
            an answer or explain it (inputs). "": nothing (strings of a JSON value).

    Examples:
        >>> clean_text('Sure! Here is a review: "A fine lamp."')
        'A fine lamp.'
        >>> clean_text("It broke.\\nType: lamp"), clean_text("It broke.\\nType: lamp", "answers")
        ('It broke.', 'It broke.\\nType: lamp')
    """
    text = plain(text).strip()
    text = _unfence(text, remarks != "labels")
    of_teacher = {"labels": _META_LINE, "answers": _ANSWER_LINE}.get(remarks)
    for _ in range(3):
        before = text
        text = _CHATTER.sub("", text, count=1).strip()
        if remarks == "labels" or not _is_record(text, of_teacher):
            text = _NAMED.sub("", text, count=1).strip()
        if _NUMBER.match(text) and not _ORDINAL.match(text) and len(list(islice(_NUMBER.finditer(text), 2))) == 1:
            text = _NUMBER.sub("", text, count=1).strip()
        text = unquoted(text)
        if text == before:
            break
    lines = text.split("\n")
    # A small teacher likes to name the label above or below the text that it wrote for it.
    while len(lines) > 1 and (not lines[-1].strip() or (of_teacher and of_teacher.match(lines[-1][:400]))):
        lines.pop()
    while len(lines) > 1 and (not lines[0].strip() or (of_teacher and of_teacher.match(lines[0][:400]))):
        lines.pop(0)
    return unquoted(re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)).strip())


def _is_record(text: str, of_teacher: re.Pattern[str] | None) -> bool:
    """Whether a line behind the first of a text is a name and a value, and no remark of the teacher's."""
    behind = text.split("\n")[1:]
    return any(_RECORD_LINE.match(line) and not (of_teacher and of_teacher.match(line[:400])) for line in behind)


def without_lead_in(text: str) -> str:
    """A reply without the line that announces it, and without the quotes that it then stands in.

    Examples:
        >>> without_lead_in('Here is a title for the change:\\n\\n"Mend the login"')
        'Mend the login'
        >>> without_lead_in("Here is the thing: I never got my refund.")
        'Here is the thing: I never got my refund.'
    """
    found = _LEAD_IN.match(text)
    return text if found is None or found.end() == len(text) else unquoted(text[found.end() :].strip())


def _unfence(text: str, whole: bool = False) -> str:
    """What stands in the fence that a text begins with; with `whole`, only where nothing stands behind it."""
    if not text.startswith("```"):
        return text
    body = text.split("\n", 1)[1] if "\n" in text else text.strip("`")
    content, _, behind = body.partition("```")
    return text if whole and behind.strip() else content.strip()


def unquoted(text: str) -> str:
    """A text without the quotation marks around it, or without the only one that begins or ends it."""
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        return text[1:-1].strip()
    if text[:1] in ('"', "“") and text.count('"') + text.count("“") + text.count("”") == 1:
        return text[1:].strip()
    if text[-1:] in ('"', "”") and text.count('"') + text.count("“") + text.count("”") == 1:
        return text[:-1].strip()
    return text


def within_quotes(text: str) -> str:
    """A text that a quotation mark was opened for, where the text goes on behind the mark that closes it.

    What is said of a whole sentence in quotes is no part of it. Otherwise the text began with words in quotes, and the
    mark that was given belongs to it.

    Examples:
        >>> within_quotes('I love it." This review is positive.')
        'I love it.'
        >>> within_quotes('Back to the Future" fails again')
        '"Back to the Future" fails again'
        >>> within_quotes('sun," "moon," "star'), within_quotes('She said "no" and left.')
        ('"sun," "moon," "star"', 'She said "no" and left.')
    """
    first = text.find('"')
    behind = text[first + 1 : first + 2]
    ahead, rest = text[max(0, first - 1) : max(0, first)], text[first + 1 :].strip()
    # Not the one that opens other words, nor inches.
    closes = first > 0 and not (ahead.isspace() or ahead.isdigit() or ahead in "([{=" or behind.isalnum())
    if not closes or not rest:
        return text
    if ahead in ".!?" and text.count('"') == 1 and not rest[0].islower():
        return text[:first]
    # The last mark may have ended the reply.
    return f'"{text}' if text.count('"') % 2 else f'"{text}"'


def last_full_sentence(text: str) -> str:
    """The text up to its last sentence end, or an empty string when no sentence ends.

    Examples:
        >>> last_full_sentence("It was founded in 2016. It sells la")
        'It was founded in 2016.'
    """
    text, end = plain(text), 0
    for match in _SENTENCE_END.finditer(text):
        end = match.end()
    return text[:end].strip()


def split_list(text: str, limit: int, remarks: Remarks = "labels") -> list[str]:
    """The items of a numbered or bulleted list, or of lines; at most `limit`. `remarks` is that of `clean_text`.

    Examples:
        >>> split_list("1. A lamp.\\n2. A chair.\\n3. A ta", 2)
        ['A lamp.', 'A chair.']
    """
    text = plain(text).strip()
    starts = [match.start() for match in _NUMBER.finditer(text)]
    if starts:
        parts = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
        lead = text[: starts[0]].strip()
        parts = ([lead] if lead else []) + parts
    else:
        parts = text.split("\n")
    items = [clean_text(part, remarks) for part in parts]
    return [item for item in items if item][:limit]


def read_fields(text: str, names: Sequence[str], remarks: Remarks = "labels") -> dict[str, str] | None:
    """The named fields of a text in `name: value` lines.

    A reply that opens with the first field and lacks the names of the others is read as lines: one a field, the rest
    in the last. What comes after all fields is none of them: the answer, or the next of several texts. None when a
    field stays empty. `remarks` is that of `clean_text`.

    Examples:
        >>> read_fields("title: Rain\\ntext: It rained all day.", ["title", "text"])
        {'title': 'Rain', 'text': 'It rained all day.'}
    """
    text = _unfence(plain(text).strip())
    values: dict[str, list[str]] = {}
    current: str | None = None
    loose: list[str] = []
    wanted = {name.lower(): name for name in names}
    for line in text.split("\n"):
        head, colon, rest = line.partition(":")
        name = wanted.get(head.strip(" \t*_#-\"'0123456789.)").lower()) if colon and len(head) < 60 else None
        if len(values) == len(names) and (name is not None or _BEHIND_FIELDS.match(line)):
            break
        if name is not None and name not in values:
            current = name
            values[name] = [rest.strip(" *_")]
        elif current is not None:
            values[current].append(line)
        elif line.strip():
            loose.append(line.strip())
    if not values and len(loose) >= len(names):
        values = {name: [loose[i]] for i, name in enumerate(names[:-1])}
        values[names[-1]] = loose[len(names) - 1 :]
    elif len(values) < len(names) and set(values) == set(names[: len(values)]) and values:
        # The last field that was named swallowed the rest: give each missing field one of its lines.
        last = names[len(values) - 1]
        lines = [line for line in values[last] if line.strip()]
        missing = list(names[len(values) :])
        if len(lines) > len(missing):
            values[last] = lines[:1]
            for i, name in enumerate(missing[:-1]):
                values[name] = [lines[i + 1]]
            values[missing[-1]] = lines[len(missing) :]
    said = {name: clean_text("\n".join(values.get(name, [])), remarks) for name in names}
    cleaned = {name: value.replace("\n\n", "\n") for name, value in said.items()}
    return cleaned if all(cleaned.values()) else None


def read_json(text: str) -> Any:
    """The JSON value in a reply (mended where it is cut short), or None. Bounded in length and depth.

    Examples:
        >>> read_json('Here: {"texts": ["a", "b')
        {'texts': ['a', 'b']}
    """
    text = text[:MAX_REPLY_CHARS].encode("utf-8", "ignore").decode("utf-8").strip()
    text = _unfence(text)
    start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
    if start < 0 or _depth(text) > MAX_JSON_DEPTH:
        return None
    try:
        return json.JSONDecoder().raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        pass
    try:
        from json_repair import repair_json

        return repair_json(text[start:], return_objects=True) or None
    except Exception:  # a third-party parser on hostile text: whatever it raises, the reply is unreadable
        return None


def ends_in_string(text: str) -> bool:
    """Whether a JSON text breaks off within a string.

    Examples:
        >>> ends_in_string('{"texts": ["a", "b'), ends_in_string('{"texts": ["a", "b"')
        (True, False)
    """
    text = text[:MAX_REPLY_CHARS]
    start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=len(text))
    try:
        json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return re.sub(r"\\.", "", text[start:], flags=re.DOTALL).count('"') % 2 == 1
    return False


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def strings_in(value: Any, key: str) -> list[str]:
    """The strings under `key` of a JSON object (one or a list), or the strings of a list."""
    if isinstance(value, dict):
        value = value.get(key)
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [item if isinstance(item, str) else str(item.get(key, "")) if isinstance(item, dict) else ""
                for item in value]  # fmt: skip
    return []
