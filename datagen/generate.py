"""Rows written by the teacher for a task.

In: a `TaskSpec`, an `Asker`, and the retrieved rows for their style. Out: rows in the one schema, everything that was
dropped with its reason, a report, and for generation tasks the teacher's top-k log-probs of the outputs. The method
follows the task's kind: label-first for classification (`label_first`), input-first for generation (`input_first`),
Self-Instruct for open instructions (`self_instruct`).

The rows are a function of the task, the options, the retrieved rows and the teacher's replies: not of the order in
which replies arrive, nor of how often the run was killed (see `drive`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from potstill.datagen.attributes import describe_labels, propose_topics, resolve_attributes, use_schema
from potstill.datagen.drive import drive
from potstill.datagen.input_first import InputFirst
from potstill.datagen.label_first import LabelFirst
from potstill.datagen.options import GenerationOptions
from potstill.datagen.result import PURPOSE, GenerationResult
from potstill.datagen.screen import Screen
from potstill.datagen.tally import Tally, diversity
from potstill.datagen.writing import Material, examples_by_label, styles_by_label
from potstill.errors import TeacherError
from potstill.events import Event, Listener, silent
from potstill.rows import Dropped, Row, rows_to_dataset
from potstill.task import TaskSpec
from potstill.teacher import Reply

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asker import Asker

__all__ = ["GenerationOptions", "GenerationResult", "generate_rows"]

_EVENT_EVERY_S = 0.2


@dataclass
class _Gathered:
    """Rows as they come, with progress told at most five times a second."""

    listener: Listener
    wanted: int
    tally: Tally
    rows: list[Row] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    _told: float = 0.0

    def keep(self, row: Row, reply: Reply | None = None) -> None:
        self.rows.append(row)
        if reply is not None:
            self.replies.append(reply)
        self._tell()

    def drop(self, dropped: Dropped) -> None:
        self.dropped.append(dropped)
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told < _EVENT_EVERY_S:
            return
        self._told = now
        tally = self.tally
        self.listener(
            Event(
                "datagen",
                "progress",
                f"{len(self.rows)} of {self.wanted} rows kept, {len(self.dropped)} dropped, {tally.requests} requests",
                done=len(self.rows),
                total=self.wanted,
                data={"dropped": dict(tally.dropped), "completion_tokens": tally.completion_tokens},
            )
        )


def generate_rows(
    spec: TaskSpec,
    asker: Asker,
    options: GenerationOptions,
    *,
    retrieved: Dataset | None = None,
    listener: Listener = silent,
) -> GenerationResult:
    """Let the teacher write rows for a task.

    Args:
        spec: The task.
        asker: The teacher, with its ledger and budget.
        options: How many rows, and how to ask.
        retrieved: Rows found by retrieval; a few are shown for their style, none is copied.
        listener: Called with progress, at most five times a second.

    Returns:
        Rows, drops and report. Fewer rows than asked for are no error: the report says which label fell short.

    Raises:
        TeacherError: No usable row came of all requests (the message counts the reasons), or the teacher refused or
            stayed away.
        BudgetReached: The cap was met; a later run goes on from the ledger.
    """
    if spec.kind == "instructions":
        from potstill.datagen.self_instruct import generate_instructions

        return generate_instructions(spec, asker, options, listener=listener)
    tally = Tally()
    gathered = _Gathered(listener, options.rows, tally)
    listener(Event("datagen", "progress", "preparing the requests", 0, options.rows))
    material = _material(spec, asker, options, retrieved)
    shown = [text for texts in material.examples.values() for text in texts]
    styles = [text for texts in material.styles.values() for text in texts]
    screen = Screen(spec, options, shown, styles)
    teacher = asker.teacher.name
    fill: dict[str, Any] = {}
    if spec.kind == "classification":
        plan = LabelFirst(material, screen, teacher, tally, gathered.keep, gathered.drop)
        drive(plan, asker, window=options.window, purpose=PURPOSE)
        fill = {name: {"quota": s.quota, "kept": s.kept, "requests": s.answered} for name, s in plan.labels.items()}
    else:
        inputs = InputFirst(material, screen, teacher, tally, gathered.keep, gathered.drop)
        drive(inputs, asker, window=options.window, purpose=PURPOSE)
    _insist(gathered, teacher)
    rows = rows_to_dataset(gathered.rows, spec.label_names)
    report = {
        "method": "label-first" if spec.kind == "classification" else "input-first",
        "teacher": teacher,
        **tally.to_json(),
        "labels": fill,
        "label_fill": _label_fill(fill),
        "topics": {label: list(topics) for label, topics in material.topics.items()},
        "descriptions": dict(material.descriptions),
        **diversity([row.input for row in gathered.rows], options.seed),
        "short": {name: item["quota"] - item["kept"] for name, item in fill.items() if item["kept"] < item["quota"]},
    }
    return GenerationResult(rows, tuple(gathered.dropped), report, _targets(gathered, options, asker))


def _material(spec: TaskSpec, asker: Asker, options: GenerationOptions, retrieved: Dataset | None) -> Material:
    descriptions = describe_labels(spec, asker, options)
    able = asker.abilities
    opened = able.prefill and not use_schema(able.json_schema, able.prefill, options)
    proposing = resolve_attributes(options, opened) == "teacher"
    topics = propose_topics(spec, asker, options, descriptions) if proposing else {}
    return Material(
        spec=spec,
        options=options,
        abilities=asker.abilities,
        descriptions=descriptions,
        topics=topics,
        examples=examples_by_label(spec),
        styles=styles_by_label(spec, retrieved, options.seed) if options.style_shown else {},
    )


def _insist(gathered: _Gathered, teacher: str) -> None:
    """Raise when nothing at all is usable: training on nothing would fail later and say less."""
    if gathered.rows:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in gathered.tally.dropped.most_common(5))
    detail = next((item.detail for item in gathered.dropped if item.reason == "no_reply"), "")
    raise TeacherError(
        f"{teacher} returned 0 usable rows of {gathered.tally.requests} requests ({reasons or 'no replies'})"
        f"{f'; the first failure: {detail}' if detail else ''}; try another --teacher, or more requests with "
        "--set generation.requests_per_row=10"
    )


def _label_fill(fill: dict[str, Any]) -> float | None:
    quota = sum(item["quota"] for item in fill.values())
    return round(sum(item["kept"] for item in fill.values()) / quota, 4) if quota else None


def _targets(gathered: _Gathered, options: GenerationOptions, asker: Asker) -> Dataset | None:
    if not gathered.replies or not min(options.answer_top_k, asker.abilities.top_logprobs):
        return None
    from potstill.datagen.token_targets import from_replies

    return from_replies(gathered.rows, gathered.replies, min(options.answer_top_k, asker.abilities.top_logprobs))
