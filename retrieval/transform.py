"""Datasets that do not fit as they are: plan once, then map or rewrite (DataTune, arXiv:2404.14361).

In: the columns and rows of a dataset, the task, the teacher. Out: texts with outputs, and what was given up. The
teacher looks at a few rows and writes one plan. Where templates are enough, the plan is compiled to a declared mapping
(`potstill.retrieval.mapping`), tried on the rows, and run without the teacher. Otherwise the teacher rewrites row by
row. Every request is in the ledger, so a second run costs nothing. When more than a third of the rows fail, the
dataset is dropped whole, as in the paper: its plan does not work.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from potstill.asking.teacher import AnyRequest, Failure, Message, Request
from potstill.retrieval.mapping import OPERATIONS, ColumnMapping, compile_mapping
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from potstill.asking.asker import Asker

PURPOSE_PLAN = "plan_dataset"
PURPOSE_ROW = "transform_row"
MOST_FAILURES = 1 / 3
_SHOWN_ROWS = 5
_SHOWN_CHARACTERS = 400
# So few failures say nothing of a plan.
_LEAST_ROWS = 9
_PLAN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "usable": {"type": "boolean"},
        "mechanical": {"type": "boolean"},
        "input": {"type": "string", "maxLength": 1000},
        "output": {"type": "string", "maxLength": 1000},
        "operations": {
            "type": "array",
            "maxItems": 8,
            "items": {
                "type": "object",
                "properties": {
                    "column": {"type": "string", "maxLength": 100},
                    "operation": {"type": "string", "enum": sorted(OPERATIONS)},
                    "argument": {"type": "string", "maxLength": 100},
                },
                "required": ["column", "operation", "argument"],
                "additionalProperties": False,
            },
        },
        "values": {
            "type": "array",
            "maxItems": 100,
            "items": {
                "type": "object",
                "properties": {
                    "value": {"type": "string", "maxLength": 100},
                    "label": {"type": "string", "maxLength": 100},
                },
                "required": ["value", "label"],
                "additionalProperties": False,
            },
        },
        "steps": {"type": "string", "maxLength": 1500},
    },
    "required": ["usable", "mechanical", "input", "output", "operations", "values", "steps"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Plan:
    """What is to be done with the rows of one dataset.

    Attributes:
        mapping: The declared mapping, where templates are enough.
        steps: What the teacher does with a row, where they are not.
    """

    mapping: ColumnMapping | None
    steps: str = ""


@dataclass(frozen=True)
class Transformed:
    """One row after the transformation.

    Attributes:
        place: Number of the row among those given.
        input: New input.
        output: New output; a label's name for classification.
        request: Ledger key of the teacher's reply, or None for a mapping.
    """

    place: int
    input: str
    output: str
    request: str | None = None


@dataclass(frozen=True)
class TransformResult:
    """What came of a dataset.

    Attributes:
        rows: The new rows; empty when the dataset was dropped.
        failed: Reasons with counts.
        tried: Rows that were tried.
        dropped: Why the whole dataset was dropped, or an empty text.
    """

    rows: tuple[Transformed, ...]
    failed: Mapping[str, int] = field(default_factory=dict)
    tried: int = 0
    dropped: str = ""


def plan_dataset(spec: TaskSpec, rows: Sequence[Mapping[str, str]], asker: Asker) -> tuple[Plan | None, str]:
    """Ask for a plan once.

    Args:
        spec: The task.
        rows: Rows as texts; the first few are shown.
        asker: The teacher; one without structured output is not asked.

    Returns:
        The plan, or None with the reason.
    """
    from potstill.prompts import load

    if not asker.abilities.json_schema:
        return None, "this teacher has no structured output"
    columns = [name for name in rows[0]] if rows else []
    if not columns:
        return None, "it has no rows"
    text = load("plan_dataset").render(
        instruction=spec.instruction,
        kind=spec.kind,
        labels=list(spec.label_names),
        fields=list(spec.inputs) if len(spec.inputs) > 1 else [],
        columns=columns[:40],
        rows=[_shown(row) for row in rows[:_SHOWN_ROWS]],
        operations=sorted(OPERATIONS),
    )
    request = Request(messages=(Message("user", text),), max_tokens=1500, temperature=0.0, schema=_PLAN)
    reply = asker.ask([request], PURPOSE_PLAN)[0].reply
    if isinstance(reply, Failure) or reply.finish != "stop":
        return None, "the teacher gave no plan"
    try:
        answer = json.loads(reply.text)
    except (ValueError, RecursionError):
        return None, "the teacher's plan is not JSON"
    if not isinstance(answer, Mapping) or answer.get("usable") is not True:
        return None, "the teacher finds its rows of no use for the task"
    steps = str(answer.get("steps") or "").strip()
    if answer.get("mechanical") is True:
        mapping, why = compile_mapping(answer, columns, spec.label_names)
        if mapping is not None:
            return Plan(mapping, steps), ""
        if not steps:
            return None, f"the teacher's plan cannot be used: {why}"
    return (Plan(None, steps), "") if steps else (None, "the teacher's plan is empty")


def map_rows(spec: TaskSpec, mapping: ColumnMapping, rows: Sequence[Mapping[str, str]]) -> TransformResult:
    """Run a declared mapping over rows; no teacher is asked."""
    found, failed = [], Counter[str]()
    for place, row in enumerate(rows):
        source, target = mapping.apply(row)
        reason = _fault(spec, source, target)
        if reason:
            failed[reason] += 1
        else:
            found.append(Transformed(place, source, target))
    return _judged(found, failed, len(rows))


def rewrite_rows(
    spec: TaskSpec, plan: Plan, rows: Sequence[Mapping[str, str]], asker: Asker, *, most: int
) -> TransformResult:
    """Let the teacher rewrite rows by a plan, until enough are made or too many failed.

    Args:
        spec: The task.
        plan: The plan with its steps.
        rows: Rows as texts.
        asker: The teacher.
        most: Rows wanted.

    Raises:
        BudgetReached: The cap was met; what was answered is in the ledger.
    """
    from potstill.prompts import load

    prompt = load("transform_row")
    schema = {
        "type": "object",
        "properties": {
            "usable": {"type": "boolean"},
            "input": {"type": "string", "maxLength": 4000},
            "output": {"enum": ["", *spec.label_names]} if spec.labels else {"type": "string", "maxLength": 4000},
        },
        "required": ["usable", "input", "output"],
        "additionalProperties": False,
    }
    found: list[Transformed] = []
    failed: Counter[str] = Counter()
    state = {"next": 0}

    def take(room: int) -> list[AnyRequest]:
        requests: list[AnyRequest] = []
        while len(requests) < room and state["next"] < len(rows) and len(found) < most and not _hopeless(found, failed):
            place = state["next"]
            state["next"] += 1
            text = prompt.render(
                instruction=spec.instruction,
                labels=list(spec.label_names),
                fields=list(spec.inputs) if len(spec.inputs) > 1 else [],
                steps=plan.steps,
                row=_shown(rows[place], 2000),
                examples=[{"input": e.input[:500], "output": e.output[:500]} for e in spec.examples[:3]],
            )
            requests.append(
                Request(messages=(Message("user", text),), max_tokens=1024, temperature=0.0, schema=schema, tag=place)
            )
        return requests

    for answer in asker.stream_ordered(take, PURPOSE_ROW):
        place = int(answer.request.tag)
        source, target, reason = _read(spec, answer.reply)
        if reason:
            failed[reason] += 1
        elif len(found) < most:
            found.append(Transformed(place, source, target, answer.key))
    return _judged(found, failed, len(found) + sum(failed.values()))


def _read(spec: TaskSpec, reply: Any) -> tuple[str, str, str]:
    """Input, output, and the reason why they cannot be used."""
    if isinstance(reply, Failure):
        return "", "", "no_reply"
    if reply.finish != "stop":
        return "", "", {"length": "truncated", "refused": "refused"}.get(reply.finish, "no_reply")
    try:
        answer = json.loads(reply.text)
        usable, source, target = answer["usable"], str(answer["input"]).strip(), str(answer["output"]).strip()
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", "", "not_json"
    if usable is not True:
        return "", "", "given_up"
    return source, target, _fault(spec, source, target)


def _fault(spec: TaskSpec, source: str, target: str) -> str:
    if not source:
        return "empty_input"
    if not target:
        return "empty_output"
    if spec.labels and target not in spec.label_names:
        return "no_label"
    if len(spec.inputs) > 1 and any(f"{name}:" not in source for name in spec.inputs):
        return "missing_field"
    return ""


def _hopeless(found: Sequence[Transformed], failed: Counter[str]) -> bool:
    """Whether more than a third failed, of rows enough to tell."""
    lost = sum(failed.values())
    return lost + len(found) >= _LEAST_ROWS and lost > MOST_FAILURES * (lost + len(found))


def _judged(found: list[Transformed], failed: Counter[str], tried: int) -> TransformResult:
    lost = sum(failed.values())
    if tried and lost > MOST_FAILURES * tried:
        reasons = ", ".join(f"{count} {reason}" for reason, count in failed.most_common(3))
        return TransformResult((), failed, tried, f"{lost} of {tried} rows failed ({reasons}), more than a third")
    return TransformResult(tuple(found), failed, tried)


def _shown(row: Mapping[str, str], most: int = _SHOWN_CHARACTERS) -> dict[str, str]:
    """A row for a prompt: one line a value, cut."""
    return {name[:100]: " ".join(value.split())[:most] for name, value in list(row.items())[:40]}
