"""Cells of a table → the texts that a row holds: inputs of one or several columns, answers, references."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from potstill.retrieval.profiles import chat_text, plain_value
from potstill.rows import join_fields, join_instruction
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

# Columns whose lists are words of one text, or things that are all wanted.
_PARTS = re.compile(r"(?:token|word|tag|label|entit(?:y|ie)|keyword|keyphrase|item|span)s?$")
_WHOLE = 2**53  # up to which a float tells whole numbers apart


def text_items(
    table: Dataset,
    inputs: Sequence[str],
    output: str | None,
    fields: Sequence[str] = (),
    *,
    references: bool = False,
    join: Callable[[Mapping[str, str]], str] = join_fields,
) -> Iterator[tuple[str, str]]:
    """Each row as (input text, output text); class integers become their names, lists of them are joined by `, `.

    Args:
        table: The data.
        inputs: Its columns that make the input.
        output: Its column of the answer, or None.
        fields: What the task calls its input's fields. Columns of as many are called so in the texts, in that order
            unless they have these names: a student reads all rows in one form, whatever each table calls its columns.
        references: Whether a list of texts in the column of the answer holds references (`holds_references`).
        join: Makes the input of its columns' texts.
    """
    called = dict(zip(inputs, fields, strict=True)) if len(fields) == len(inputs) > 1 else {}
    if called and set(called) == set(fields):
        inputs, called = list(fields), {}
    wanted = [*inputs, *([output] if output else [])]
    names = {name: class_names_of(table.features[name]) for name in wanted}
    for item in table.select_columns(wanted):
        text = join({called.get(name, name): as_input(item[name], names[name]) for name in inputs})
        answer = (as_reference if references else as_text)(item[output], names[output]) if output else ""
        yield text, answer


def joined_instruction(values: Mapping[str, str]) -> str:
    """The input of a row that brings its own instruction, in the first column, with what the others hold, if anything.

    Examples:
        >>> joined_instruction({"instruction": "Name a tree.", "input": ""})
        'Name a tree.'
    """
    instruction, *others = values.values()
    return join_instruction(instruction, "\n\n".join(text.strip() for text in others if text.strip()))


def class_names_of(feature: Any) -> Sequence[str]:
    """Names of a class column, or of a list of classes; none for other columns."""
    from datasets import ClassLabel

    inner = getattr(feature, "feature", None)
    held = feature if isinstance(feature, ClassLabel) else inner if isinstance(inner, ClassLabel) else None
    return held.names if held is not None else ()


def as_text(value: Any, names: Sequence[str] = ()) -> str:
    """A value as the text that a row holds; of several references the first counts, tokens make a sentence.

    A whole number is written as one: tables with an empty cell hold 12 as 12.0.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE:
        return str(int(value))
    if not names and isinstance(value, list | tuple) and value and all(isinstance(part, str) for part in value):
        return " ".join(value) if max(len(part.split()) for part in value) == 1 else str(value[0])
    return plain_value(value, names)


def as_input(value: Any, names: Sequence[str] = ()) -> str:
    """A value as the text that is read: of a list of texts, or of structs that hold one, each in a line of its own.

    Examples:
        >>> as_input(["It rains here.", "Again?"]), as_input(["It", "rains"])
        ('It rains here.\\nAgain?', 'It rains')
    """
    if names or not isinstance(value, list | tuple) or len(value) < 2:
        return as_text(value, names)
    if isinstance(value[0], Mapping):
        return chat_text(value) or "\n".join(filter(None, map(plain_value, value)))
    several = all(isinstance(part, str) for part in value) and any(len(part.split()) > 1 for part in value)
    return "\n".join(part.strip() for part in value if part.strip()) if several else as_text(value, names)


def holds_references(spec: TaskSpec, column: str) -> bool:
    """Whether a list of texts in a task's column of answers holds several right answers, of which one is enough.

    Elsewhere it holds the words of one answer: by the column's name, or where each word is tagged.
    """
    from potstill.retrieval.columns import TAGGING

    parts = _PARTS.search(column.lower()) is not None
    return spec.kind != "classification" and not parts and not TAGGING.search(spec.instruction)


def as_reference(value: Any, names: Sequence[str] = ()) -> str:
    """A value as `as_text` gives it, but of a list of texts always the first that says something.

    Examples:
        >>> as_reference(["Denver", "Denver"]), as_reference("New York")
        ('Denver', 'New York')
    """
    return all_references(value, names)[0]


def all_references(value: Any, names: Sequence[str] = ()) -> tuple[str, ...]:
    """The texts of a list that say something, each once, the first first; any other value as `as_text` gives it.

    Examples:
        >>> all_references(["The Nile", " ", "Nile", "Nile"]), all_references([]), all_references("New York")
        (('The Nile', 'Nile'), ('',), ('New York',))
    """
    if not names and isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return tuple(dict.fromkeys(part for part in value if part.strip())) or ("",)
    return (as_text(value, names),)
