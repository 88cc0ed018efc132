"""What a person decided about rows: accepted, rejected, corrected. Kept in the run, and heeded by its next merge.

    RUN/decisions.jsonl     one line a decision, appended; the last one about a row counts

A row is known by its input and output, so a decision holds for the same row from any source, and after a stage was
made again. At the merge, a rejected row is dropped (`rejected`); a corrected one is dropped (`corrected`) and its
correction comes in as a `user` row, which wins over all others; a row that a stage had refused and a person accepts
comes in as a `user` row too. Accepting a row that is in the set anyway only says that it was looked at.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from potstill.errors import DataError, OptionError
from potstill.rows import UNKNOWN_LICENCE, Dropped, Row, Source, dataset_to_rows, rows_to_dataset, take_rows

if TYPE_CHECKING:
    from datasets import Dataset

FILE = "decisions.jsonl"
Action = Literal["accept", "reject", "correct", "undo"]
ACTIONS: tuple[Action, ...] = get_args(Action)
MAX_TEXT = 100_000


@dataclass(frozen=True)
class Decision:
    """One decision about one row.

    Attributes:
        action: accept, reject, correct, or undo an earlier one.
        input: The row's input as it was.
        output: The row's output as it was.
        new_input: Its input from now on (`correct`).
        new_output: Its output from now on (`correct`).
        was_dropped: Whether a stage had refused the row.
        licence: The row's licence, which its correction keeps.
        at: Unix time in seconds.
    """

    action: Action
    input: str
    output: str
    new_input: str = ""
    new_output: str = ""
    was_dropped: bool = False
    licence: str = UNKNOWN_LICENCE
    at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return dict(vars(self))


def decide(run: Path, decision: Decision, labels: Sequence[str]) -> Decision:
    """Add a decision to a run.

    Args:
        run: The run folder.
        decision: What was decided.
        labels: The task's labels; a corrected output must be one of them, unless there are none.

    Returns:
        The decision as stored.

    Raises:
        OptionError: It cannot be heeded: no such action, an empty text, a label that the task does not have.
    """
    faults = []
    if decision.action not in ACTIONS:
        faults.append(f"action {decision.action!r} is none of {', '.join(ACTIONS)}")
    if decision.action == "correct":
        faults += [f"{name} is empty" for name in ("new_input", "new_output") if not getattr(decision, name).strip()]
        if labels and decision.new_output and decision.new_output not in labels:
            faults.append(f"{decision.new_output!r} is no label of the task; it has {', '.join(labels)}")
    if max(len(text) for text in (decision.input, decision.new_input, decision.new_output)) > MAX_TEXT:
        faults.append(f"a text has more than {MAX_TEXT:,} characters")
    if faults:
        raise OptionError("decision", faults)
    stored = Decision(**{**vars(decision), "at": round(time.time(), 3)})
    line = json.dumps(stored.to_json(), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    # One write of one line in append mode: two viewers do not tear each other's lines.
    descriptor = os.open(run / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return stored


def read_decisions(run: Path) -> dict[tuple[str, str], Decision]:
    """The decisions in force, by the row's input and output as they were.

    Raises:
        DataError: The file holds something else.
    """
    path = run / FILE
    found: dict[tuple[str, str], Decision] = {}
    if not path.exists():
        return found
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            decision = Decision(**json.loads(line))
            key = decision.input, decision.output
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}, line {number}, is no decision ({error}); take the line out") from None
        found.pop(key, None)
        if decision.action != "undo":
            found[key] = decision
    return found


def decisions_key(decisions: Mapping[tuple[str, str], Decision]) -> list[list[Any]]:
    """What of the decisions can change the merged rows, for its key; acceptance of kept rows cannot."""
    heeded = [d for d in decisions.values() if d.action != "accept" or d.was_dropped]
    return sorted([d.action, d.input, d.output, d.new_input, d.new_output, d.licence] for d in heeded)


def count_decisions(decisions: Mapping[tuple[str, str], Decision]) -> dict[str, Any]:
    """What the merge's report says of them; nothing where there are none."""
    counts = {action: sum(d.action == action for d in decisions.values()) for action in ("accept", "reject", "correct")}
    return {"decided_by_a_person": counts} if any(counts.values()) else {}


def apply_decisions(
    parts: Sequence[Dataset], decisions: Mapping[tuple[str, str], Decision], labels: Sequence[str]
) -> tuple[list[Dataset], list[Dropped]]:
    """Tables without the rows that were rejected or corrected, led by a table of the user's own.

    Args:
        parts: Tables in the one schema.
        decisions: Those in force.
        labels: The task's label names. A correction to a label that the task no longer has is left out.
    """
    gone = {key: d for key, d in decisions.items() if d.action in ("reject", "correct")}
    dropped: list[Dropped] = []
    kept: list[Dataset] = []
    for part in parts:
        places = []
        for place, key in enumerate(zip(part["input"], part["output"], strict=True)):
            if key not in gone:
                places.append(place)
        if len(places) == part.num_rows:
            kept.append(part)
            continue
        for row in dataset_to_rows(part.select(sorted(set(range(part.num_rows)) - set(places)))):
            decision = gone[row.input, row.output]
            reason, detail = (
                ("rejected", "by a person") if decision.action == "reject" else ("corrected", decision.new_output)
            )
            dropped.append(Dropped(reason, detail, row.input, row.output, row.origin, row.source, "merge"))
        kept.append(take_rows(part, places))
    own = []
    order = {key: place for place, key in enumerate(decisions)}
    for place, decision in enumerate(decisions.values()):
        corrected = decision.action == "correct"
        if not corrected and not (decision.action == "accept" and decision.was_dropped):
            continue
        text = decision.new_input if corrected else decision.input
        output = decision.new_output if corrected else decision.output
        if labels and output not in labels:
            continue
        if (text, output) in gone and order[text, output] > place:
            continue  # judged again later, as the correction that it had become
        source = Source(dataset=FILE, split="correct" if corrected else "accept")
        own.append(Row(text, output, "user", source, label=output if labels else None, licence=decision.licence))
    return ([rows_to_dataset(own, labels)] if own else []) + kept, dropped
