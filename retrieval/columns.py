"""Which columns of a table are the input and the output of a task: names propose, values decide.

A column is profiled on a sample (type, words a value, distinct values), ranked by what its name usually means, and
taken only when its values fit the role: an output of a classification task has few distinct values, most of which
repeat; an input is text. Prompt2Model asks an LLM for this from one row; rules on values get the plain cases right
at no cost and say why when they cannot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

_SAMPLE = 400
_CLASS_NAMES = (
    "label_text", "label", "labels", "class", "category", "intent", "sentiment", "topic", "emotion", "kind", "type",
    "target", "gold", "answer", "stance", "coarse_label", "label_coarse", "stars", "rating", "score", "output",
)  # fmt: skip
_TEXT_NAMES = (
    "text", "sentence", "content", "message", "review", "review_body", "utterance", "query", "question", "tweet",
    "comment", "body", "document", "article", "input", "abstract", "paragraph", "headline", "sms", "description",
    "passage", "context", "sentence1", "premise", "title",
)  # fmt: skip
_ANSWER_NAMES = (
    "summary", "target", "output", "answer", "answers", "response", "completion", "highlights", "solution", "tldr",
    "snippet", "code", "translation", "simplified", "paraphrase", "reply", "iso_date", "result", "label", "label_text",
)  # fmt: skip
_PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("question", "passage"),
    ("question", "context"), ("question", "sentence"), ("query", "passage"), ("text1", "text2"),
)  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """What a sample of a column's values looks like.

    Attributes:
        name: The column.
        is_class: It has class names, or few values that repeat.
        is_text: Its values are texts (or lists of tokens).
        words: Mean words a value.
        distinct: Distinct values in the sample.
        filled: Share of values that are not empty.
        values: The distinct values, for class-like columns.
    """

    name: str
    is_class: bool
    is_text: bool
    words: float
    distinct: int
    filled: float
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class ColumnChoice:
    """The chosen columns, or the reason why none fits (`output` is None then)."""

    inputs: tuple[str, ...]
    output: str | None
    how: str


def choose_columns(
    table: Dataset, spec: TaskSpec, *, eval_index: Sequence[Mapping[str, Any]] | None = None
) -> ColumnChoice:
    """Choose input and output columns.

    Args:
        table: The data; a sample of its rows is looked at.
        spec: The task: its kind, labels and input fields.
        eval_index: The card's own `train_eval_index`, which wins when its columns exist.
    """
    profiles = profile(table)
    by_name = {item.name.lower(): item for item in profiles}
    declared = _declared(eval_index, by_name)
    if declared is not None:
        return declared
    if spec.kind == "classification":
        outputs = [item for item in profiles if item.is_class and item.filled > 0.5]
        output = max(outputs, key=lambda item: _class_rank(item, spec), default=None)
        if output is None:
            return ColumnChoice((), None, f"no column holds classes (columns: {', '.join(table.column_names)})")
    else:
        texts = [p for p in profiles if p.is_text and p.filled > 0.5 and _position(p.name, _ANSWER_NAMES) < 99]
        output = min(texts, key=lambda item: _position(item.name, _ANSWER_NAMES), default=None)
        if output is None:
            return ColumnChoice((), None, f"no column looks like an output (columns: {', '.join(table.column_names)})")
    left = [item for item in profiles if item.is_text and item.name != output.name and item.filled > 0.5]
    left = [item for item in left if not (item.is_class and item.words < 3)]
    inputs = _inputs(left, spec)
    if not inputs:
        return ColumnChoice((), None, f"no text column for the input (columns: {', '.join(table.column_names)})")
    return ColumnChoice(inputs, output.name, "rules on names and values")


def profile(table: Dataset) -> list[Profile]:
    """Profile every column on the first 400 rows."""
    from datasets import ClassLabel

    sample = table.select(range(min(_SAMPLE, table.num_rows)))
    found = []
    for name, feature in sample.features.items():
        values = sample[name][:]
        inner = getattr(feature, "feature", None)
        class_names = getattr(feature if isinstance(feature, ClassLabel) else inner, "names", None)
        texts = [_plain(value) for value in values]
        filled = [text for text in texts if text]
        distinct = set(filled)
        words = sum(len(text.split()) for text in filled) / max(1, len(filled))
        strings = any(isinstance(v, str) or (isinstance(v, list) and v and isinstance(v[0], str)) for v in values)
        repeated = len(filled) >= 8 and len(distinct) <= max(2, min(200, len(filled) // 3)) and words <= 6
        scalar = isinstance(feature, ClassLabel) or any(isinstance(v, (str, int, bool)) for v in values)
        is_class = isinstance(feature, ClassLabel) or (repeated and scalar and len(distinct) >= 2)
        shown = tuple(class_names) if class_names else tuple(sorted(distinct)[:300]) if is_class else ()
        is_text = strings and not isinstance(feature, ClassLabel) and not _id_like(name, filled)
        found.append(Profile(name, is_class, is_text, words, len(distinct), len(filled) / max(1, len(texts)), shown))
    return found


def _declared(eval_index: Sequence[Mapping[str, Any]] | None, by_name: Mapping[str, Profile]) -> ColumnChoice | None:
    for entry in eval_index or ():
        mapping = entry.get("col_mapping") if isinstance(entry, Mapping) else None
        if not isinstance(mapping, Mapping):
            continue
        inputs = tuple(
            c for c, role in mapping.items() if str(role).lower().startswith(("text", "question", "context"))
        )
        outputs = [c for c, role in mapping.items() if str(role).lower() in ("target", "label", "answers", "summary")]
        if inputs and outputs and all(str(c).lower() in by_name for c in (*inputs, outputs[0])):
            return ColumnChoice(tuple(map(str, inputs)), str(outputs[0]), "the card's train_eval_index")
    return None


def _inputs(texts: list[Profile], spec: TaskSpec) -> tuple[str, ...]:
    names = {item.name.lower(): item.name for item in texts}
    if len(spec.inputs) > 1 and all(field.lower() in names for field in spec.inputs):
        return tuple(names[field.lower()] for field in spec.inputs)
    for pair in _PAIRS:
        if all(part in names for part in pair):
            return tuple(names[part] for part in pair)
    best = min(texts, key=lambda item: (_position(item.name, _TEXT_NAMES), -item.words), default=None)
    return () if best is None else (best.name,)


def _class_rank(item: Profile, spec: TaskSpec) -> tuple[float, float, float]:
    from potstill.retrieval.labels import plain_label

    wanted = {plain_label(name) for name in spec.label_names}
    shared = len(wanted & {plain_label(value) for value in item.values}) / max(1, len(wanted))
    named = any(not value.lstrip("-").isdigit() for value in item.values)
    return shared, -_position(item.name, _CLASS_NAMES), float(named)


def _position(name: str, known: Sequence[str]) -> int:
    plain = name.lower()
    if plain in known:
        return known.index(plain)
    parts = set(re.split(r"[^a-z0-9]+", plain))
    return next((50 + index for index, word in enumerate(known) if word in parts), 99)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return " ".join(str(part) for part in value[:64])
    return str(value).strip()


def _id_like(name: str, texts: Sequence[str]) -> bool:
    """Ids, hashes, links and dates: one token, nearly all distinct."""
    if re.fullmatch(r"(.*[_-])?(id|idx|uid|guid|url|hash|index)", name.lower()):
        return True
    single = sum(" " not in text for text in texts[:100])
    mean_length = sum(map(len, texts[:100])) / max(1, len(texts[:100]))
    return bool(texts) and single == len(texts[:100]) and mean_length > 12 and len(set(texts)) > 0.9 * len(texts)
