"""A declared mapping: rows of a foreign table → input and output of the task, by templates and named operations.

In: a mapping that rules or a teacher made. Out: texts. A mapping is data, and can do no more than what stands here:
columns are put into templates as they are, a small set of operations changes them first, a table of values names
labels. There is no expression language, so what a teacher writes is never run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_PLACE = re.compile(r"\{([^{}\n]{1,200})\}")
MAX_TEMPLATE = 2000
MAX_OPERATIONS = 20


def _sentences(text: str, count: int) -> str:
    parts = re.split(r"(?<=[.!?。])\s+", text.strip())
    return " ".join(parts[:count])


def _number(argument: str, default: int) -> int:
    return max(1, min(int(argument), 10_000)) if re.fullmatch(r"\d{1,5}", argument.strip()) else default


OPERATIONS: dict[str, Callable[[str, str], str]] = {
    "strip": lambda text, argument: text.strip(),
    "lower": lambda text, argument: text.lower(),
    "first_sentences": lambda text, argument: _sentences(text, _number(argument, 1)),
    "first_words": lambda text, argument: " ".join(text.split()[: _number(argument, 50)]),
    "first_line": lambda text, argument: text.strip().split("\n", 1)[0],
    "last_line": lambda text, argument: text.strip().rsplit("\n", 1)[-1],
    "before": lambda text, argument: text.split(argument, 1)[0] if argument else text,
    "after": lambda text, argument: text.split(argument, 1)[-1] if argument else text,
    "remove": lambda text, argument: text.replace(argument, "") if argument else text,
}


@dataclass(frozen=True)
class Operation:
    """One change of a column: `name` is a key of `OPERATIONS`."""

    column: str
    name: str
    argument: str = ""


@dataclass(frozen=True)
class ColumnMapping:
    """How a foreign row becomes an input and an output.

    Attributes:
        input: Template of the input; `{column}` stands for a column's text.
        output: Template of the output.
        operations: Changes of columns, in order, before the templates are filled.
        values: Output text → the task's label; empty leaves outputs as they are.
    """

    input: str
    output: str
    operations: tuple[Operation, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the templates name, in order, each once."""
        return tuple(dict.fromkeys([*_PLACE.findall(self.input), *_PLACE.findall(self.output)]))

    def apply(self, row: Mapping[str, str]) -> tuple[str, str]:
        """Input and output of one row of texts; both are empty where a column of the template is empty."""
        values = dict(row)
        for change in self.operations:
            values[change.column] = OPERATIONS[change.name](values.get(change.column, ""), change.argument)
        if any(not values.get(column, "").strip() for column in self.columns):
            return "", ""
        output = _fill(self.output, values).strip()
        return _fill(self.input, values).strip(), self.values.get(output, "" if self.values else output)

    def to_json(self) -> dict[str, Any]:
        """JSON types, for the report."""
        changes = [[change.column, change.name, change.argument] for change in self.operations]
        return {"input": self.input, "output": self.output, "operations": changes, "values": dict(self.values)}


def _fill(template: str, values: Mapping[str, str]) -> str:
    # One pass: braces inside a value are text.
    return _PLACE.sub(lambda match: values.get(match[1], ""), template)


def compile_mapping(
    plan: Mapping[str, Any], columns: Sequence[str], labels: Sequence[str]
) -> tuple[ColumnMapping | None, str]:
    """A mapping from what a teacher answered, or the reason why it is none.

    Args:
        plan: `input`, `output`, `operations` (objects with column, operation, argument), `values`.
        columns: Columns of the table.
        labels: The task's labels; empty for generation.
    """
    source, target = plan.get("input"), plan.get("output")
    if not isinstance(source, str) or not isinstance(target, str) or max(len(source), len(target)) > MAX_TEMPLATE:
        return None, "the plan has no templates"
    named = _PLACE.findall(source)
    if not named:
        return None, "its input template names no column"
    if not _PLACE.findall(target):
        return None, "its output template names no column"
    unknown = [name for name in [*named, *_PLACE.findall(target)] if name not in columns]
    if unknown:
        return None, f"its templates name {unknown[0]!r}, which is no column"
    changes = []
    given = plan.get("operations")
    for item in (given if isinstance(given, list) else [])[:MAX_OPERATIONS]:
        if not isinstance(item, Mapping):
            return None, "an operation is no object"
        column, name = str(item.get("column", "")), str(item.get("operation", ""))
        if column not in columns or name not in OPERATIONS:
            return None, f"operation {name!r} on {column!r} is not known"
        changes.append(Operation(column, name, str(item.get("argument", ""))[:200]))
    pairs = plan.get("values")
    values = {}
    for item in pairs if isinstance(pairs, list) else []:
        if isinstance(item, Mapping) and str(item.get("label")) in labels:
            values[str(item.get("value"))] = str(item["label"])
    if labels and not values:
        values = {name: name for name in labels}
    return ColumnMapping(source, target, tuple(changes), values if labels else {}), ""
