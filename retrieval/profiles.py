"""What the columns of a table are like, from a sample of their values or from declared features alone.

In: a `datasets.Dataset`, or the features that a card declares. Out: one `Profile` a column, which the choice of
columns works on. Values say more than names: a column of numbers that count votes is no label whatever it is
called. Where no rows are at hand, the declared types stand in, and what they do not say is left open (`words` is 0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from potstill.retrieval.cards import class_names

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLE_ROWS = 400
_MOST_CLASSES = 200
_WORDS_OF_A_CLASS = 6
# Numbers under these names count, measure or point; they are no answer to classify.
_COUNTING = re.compile(
    r"(?i)(^|[_.-])(count|counts|num|number|n|votes?|len|length|size|start|end|offset|position|pos|year|date|time|"
    r"timestamp|age|upvotes|downvotes|likes|confidence|agreement|annotators?|line|page|version|split|fold)([_.-]|$)"
)
# Of a turn of a chat: who speaks, and what is said.
_SPEAKER = ("role", "from", "speaker", "author", "sender")
_SAID = ("content", "value", "text", "utterance", "message")
_POINTING = re.compile(r"(.*[_.-])?(id|ids|idx|uid|guid|uuid|url|urls|link|hash|index|file|filename|path|key|doi)")


@dataclass(frozen=True)
class Profile:
    """What a column is like.

    Attributes:
        name: The column.
        is_class: It has class names, or few values that repeat.
        is_text: Its values are texts (or lists of tokens, or holders of a text).
        is_tags: Each value is a list of classes.
        is_number: Its values are numbers, and no truth values.
        words: Mean words a value; 0 where only types are known.
        distinct: Distinct values in the sample; 0 where only types are known.
        filled: Share of values that are not empty.
        values: The distinct values, for class-like columns.
        held: The distinct values of any column of short values, however seldom they repeat: those of a few rows.
        sample: A few values as text, for a prompt.
    """

    name: str
    is_class: bool
    is_text: bool
    is_tags: bool = False
    is_number: bool = False
    words: float = 0.0
    distinct: int = 0
    filled: float = 1.0
    values: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    sample: tuple[str, ...] = ()


def profile(table: Dataset) -> list[Profile]:
    """Profile every column on 400 rows from all over the table: many files are sorted by label."""
    count = min(SAMPLE_ROWS, table.num_rows)
    sample = table.select([i * table.num_rows // count for i in range(count)])
    return [_profile_values(name, feature, sample[name][:]) for name, feature in sample.features.items()]


def _profile_values(name: str, feature: Any, values: Sequence[Any]) -> Profile:
    from datasets import ClassLabel

    inner = getattr(feature, "feature", None)
    names: Sequence[str] = getattr(feature if isinstance(feature, ClassLabel) else inner, "names", None) or ()
    is_tags = isinstance(inner, ClassLabel)
    texts = [plain_value(value, names) for value in values]
    filled = [text for text in texts if text]
    distinct = set(filled)
    words = sum(len(text.split()) for text in filled) / max(1, len(filled))
    share = len(filled) / max(1, len(texts))
    repeated = (
        len(filled) >= 8
        and 2 <= len(distinct) <= max(2, min(_MOST_CLASSES, len(filled) // 3))
        and words <= _WORDS_OF_A_CLASS
    )
    numbers = all(isinstance(value, int | float) for value in values if value is not None)
    fractions = numbers and any(isinstance(value, float) and value % 1 for value in values)
    scalar = any(isinstance(value, str | int | bool | float) for value in values) and not fractions
    lengths = [len(value) for value in values if isinstance(value, list)]
    if isinstance(feature, ClassLabel):
        is_class = True
    elif is_tags:  # several labels a text; a list as long as the text tags its words
        is_class = sum(lengths) <= 3 * max(1, len(lengths))
    else:
        is_class = repeated and scalar and not (numbers and _COUNTING.search(name)) and not points(name)
    strings = any(isinstance(v, str) or (isinstance(v, list) and v and isinstance(v[0], str)) for v in values)
    holders = any(isinstance(v, Mapping | list) and _first_text(v) for v in values)
    plain = isinstance(feature, ClassLabel) or is_tags
    is_text = (strings or holders) and not plain and not _id_like(name, filled)
    shown: tuple[str, ...] = ()
    if is_class:
        shown = tuple(map(str, names)) if names else tuple(sorted(distinct)[:300])
    few = tuple(dict.fromkeys(" ".join(text[:160].split()) for text in filled))[:3]
    held = tuple(sorted(distinct)) if words <= _WORDS_OF_A_CLASS else ()
    known = [value for value in values if value is not None]
    counts = not plain and bool(known) and numbers and not any(isinstance(value, bool) for value in known)
    return Profile(name, is_class, is_text, is_tags, counts, words, len(distinct), share, shown, held, few)


def profile_features(features: Mapping[str, Any]) -> list[Profile]:
    """Profile columns by their declared types, in the form of `Config.features`; no values are known."""
    found = []
    for name, kind in features.items():
        inner = kind.get("sequence", kind.get("list")) if isinstance(kind, Mapping) else None
        names = class_names(kind)
        tags = class_names(inner)
        is_text = not names and not tags and _declares_text(kind) and not points(name)
        number = isinstance(kind, str) and bool(re.match(r"u?int|float|bool|double", kind))
        counts = number and not str(kind).startswith("bool")
        is_class = bool(names) or (number and not _COUNTING.search(name) and not points(name))
        found.append(
            Profile(name, is_class, is_text, bool(tags), counts, values=tuple(names or (tags if tags else ())))
        )
    return found


def _declares_text(kind: Any) -> bool:
    if isinstance(kind, str):
        return "string" in kind.lower()
    if isinstance(kind, Mapping):
        return any(_declares_text(value) for value in kind.values())
    return isinstance(kind, list) and any(_declares_text(value) for value in kind)


def points(name: str) -> bool:
    """Whether a column's name says that its values point to something: ids, links, files."""
    return bool(_POINTING.fullmatch(name.lower()))


def plain_value(value: Any, names: Sequence[str] = ()) -> str:
    """A value as one text; class integers become their names, lists are joined, of a mapping the first text counts.

    A chat is a line a turn, with who speaks before it where there are several turns. Bytes (images, sound) are no text.
    """
    if value is None or isinstance(value, bytes | bytearray):
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and names:
        return str(names[value]) if 0 <= value < len(names) else ""
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], Mapping):
            return chat_text(value) or _first_text(value)
        return (", " if names else " ").join(plain_value(part, names) for part in value[:64])
    if isinstance(value, Mapping):
        return _first_text(value)
    return str(value).strip()


def chat_text(turns: Sequence[Any]) -> str:
    """The turns of a chat, one a line; "" for a list that is none.

    Examples:
        >>> chat_text([{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello!"}])
        'user: Hi.\\nassistant: Hello!'
        >>> chat_text([{"role": "assistant", "content": "Hello!"}]), chat_text([{"text": "Hi."}])
        ('Hello!', '')
    """
    lines = []
    for turn in turns:
        keys = {str(key).lower(): key for key in turn} if isinstance(turn, Mapping) else {}
        speaker = next((str(turn[keys[name]] or "") for name in _SPEAKER if name in keys), None)
        said = next((turn[keys[name]] for name in _SAID if name in keys), None)
        if speaker is None or said is None:
            return ""
        # What is said may be parts of several media, each with its type before its text.
        parts = said if isinstance(said, list | tuple) else [said]
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
        if text := " ".join(text.strip() for text in texts if isinstance(text, str) and text.strip()):
            lines.append((speaker.strip(), text))
    if len(lines) == 1:
        return lines[0][1]
    return "\n".join(f"{speaker}: {text}" if speaker else text for speaker, text in lines)


def _first_text(value: Any) -> str:
    """The first text in a nested value, or nothing."""
    if isinstance(value, str):
        return value.strip()
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((text for part in parts if (text := _first_text(part))), "")


def _id_like(name: str, texts: Sequence[str]) -> bool:
    """Ids, hashes, links and dates: one token of ASCII, since Chinese has no spaces either; nearly all distinct."""
    if points(name):
        return True
    first = texts[:100]
    single = sum(" " not in text and text.isascii() for text in first)
    mean_length = sum(map(len, first)) / max(1, len(first))
    return bool(first) and single == len(first) and mean_length > 12 and len(set(texts)) > 0.9 * len(texts)
