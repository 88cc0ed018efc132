"""Row-level retrieval: of the rows of several datasets, those nearest to what the task looks like (ReBase,
arXiv:2411.13547).

In: candidate rows, and anchors: texts that stand for the task's inputs. Out: the rows nearest to them, label by label.
Anchors are the task's own examples; where it has none, inputs that the teacher writes, or else the task's words. The
anchors take turns, each taking the row nearest to it, so that no single one fills the selection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from potstill.rows import Row
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from potstill.asking.asker import Asker
    from potstill.models import TextEncoder

_WRITTEN = 8


def anchors_of(spec: TaskSpec, asker: Asker | None = None) -> tuple[list[str], str]:
    """Texts that stand for the task's inputs, and where they are from: `examples`, `teacher` or `task`."""
    if spec.examples:
        return [example.input for example in spec.examples], "examples"
    written = _written(spec, asker) if asker is not None else []
    if written:
        return written, "teacher"
    told = [f"{label.name}: {label.description}".rstrip(": ") for label in spec.labels]
    return told or [spec.instruction], "task"


def _written(spec: TaskSpec, asker: Asker) -> list[str]:
    """Inputs that the teacher writes, each asked for with another seed; what is empty or cut is left out."""
    from potstill.asking.teacher import Failure, Message, Request
    from potstill.prompts import load

    names = spec.label_names or ("",)
    requests = [
        Request(
            messages=(
                Message(
                    "user",
                    load("anchor_input").render(
                        instruction=spec.instruction, label=names[number % len(names)], fields=list(spec.inputs)
                    ),
                ),
            ),
            max_tokens=160,
            temperature=0.8,
            seed=number,
            sample=number,
        )
        for number in range(max(_WRITTEN, min(len(names), 40)))
    ]
    replies = [answer.reply for answer in asker.ask(requests, "anchor_input")]
    return [r.text.strip() for r in replies if not isinstance(r, Failure) and r.finish == "stop" and r.text.strip()]


def nearest_rows(rows: Sequence[Row], anchors: Sequence[str], most: int, encoder: TextEncoder) -> list[int]:
    """Places of the rows nearest to the anchors, at most `most`, the same number of each output where it is a label.

    Args:
        rows: Candidates.
        anchors: Texts of the task.
        most: Rows wanted.
        encoder: Sentence encoder.

    Returns:
        Places in `rows`, sorted.
    """
    import numpy as np

    if not rows or not anchors or most <= 0:
        return []
    scores = encoder.encode([row.input[:1000] for row in rows]) @ encoder.encode(list(anchors)).T  # (rows, anchors)
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.label or "", []).append(place)
    queues = []
    for places in groups.values():
        part = np.asarray(scores)[places]
        turns = np.argsort(-part, axis=0, kind="stable").T  # (anchors, rows of the group), nearest first
        order = dict.fromkeys(
            int(turns[anchor, depth]) for depth in range(len(places)) for anchor in range(len(anchors))
        )
        queues.append([places[i] for i in order])
    chosen: list[int] = []
    depth = 0
    while len(chosen) < most and any(depth < len(queue) for queue in queues):
        chosen += [queue[depth] for queue in queues if depth < len(queue)]
        depth += 1
    return sorted(chosen[:most])
