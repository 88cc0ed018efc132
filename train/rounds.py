"""Born-again students: trainings in rounds, each on the probabilities of the students before it.

A round sees the same rows; the last student's probabilities, or the mean of all students', take the place of the
teacher's beside the labels. Each round starts from the base model, as the first did. After a round whose held-out loss
is not below the best one so far, no further round is trained. The best round is the student; the others are deleted.

Source: Furlanello et al., Born-Again Neural Networks, arXiv:1805.04770 §3 (generations, ensemble).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.events import Event, Listener, silent
from potstill.rows import dataset_to_rows, rows_to_dataset
from potstill.task import TaskSpec
from potstill.train.options import DistilOptions
from potstill.train.processes import once
from potstill.train.result import DistilResult
from potstill.train.student import TRAINING
from potstill.whole_folders import replace_folder

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

Train = Callable[["Dataset", Path, DistilOptions], DistilResult]
"""Trains one student: rows, its folder, options."""

NextRows = Callable[[Sequence[Path]], tuple["Dataset", dict[str, Any]]]
"""From the students so far (oldest first) to the next round's rows, and figures for the report."""


def born_again(
    spec: TaskSpec, train: Dataset, out: Path, options: DistilOptions, train_one: Train, *, listener: Listener = silent
) -> DistilResult:
    """Train `options.generations` generations, each on the probabilities of those before it.

    Args:
        spec: The task.
        train: Rows in the one schema.
        out: Folder of the student.
        options: How each generation is trained; `ensemble` decides whose probabilities the next one sees.
        train_one: Trains one generation.
        listener: Progress.

    Returns:
        The best generation's result; `report["rounds"]` tells of all.

    Raises:
        TrainingError: As the trainer.
    """

    import numpy as np

    def next_rows(students: Sequence[Path]) -> tuple[Dataset, dict[str, Any]]:
        """The same rows with the earlier students' probabilities."""
        chosen = students if options.ensemble else students[-1:]
        probs = np.mean([student_probs(spec, path, list(train["input"])) for path in chosen], axis=0)
        rows = dataset_to_rows(train)
        taught = [replace(row, teacher_probs=tuple(p)) for row, p in zip(rows, probs.tolist(), strict=True)]
        return rows_to_dataset(taught, spec.label_names), {"taught_by": len(chosen)}

    # Without a soft part, a later generation would learn nothing from the one before.
    later = options if options.soft_weight > 0 else replace(options, soft_weight=options.hard_weight)
    return in_rounds(
        train, out, options, train_one, next_rows, rounds=options.generations, later=later, listener=listener
    )


def in_rounds(
    train: Dataset,
    out: Path,
    options: DistilOptions,
    train_one: Train,
    next_rows: NextRows,
    *,
    rounds: int,
    later: DistilOptions | None = None,
    listener: Listener = silent,
) -> DistilResult:
    """Train round after round, and keep the best one as the student at `out`.

    Args:
        train: The first round's rows.
        out: Folder of the student. The rounds rest beside it while they are trained.
        options: The first round's options.
        train_one: Trains one round.
        next_rows: Makes the rows of each later round.
        rounds: Trainings at most.
        later: The later rounds' options; the first's by default.
        listener: Progress.

    Returns:
        The best round's result, with `report["rounds"]`: number, held-out loss, figures, and whether it was kept.
        Without held-out rows every round is trained and the last is kept.
    """
    found: list[DistilResult] = []
    told: list[dict[str, Any]] = []
    best = 0
    table = train
    figures: dict[str, Any] = {}
    for number in range(1, rounds + 1):
        if number > 1:
            table, figures = next_rows([result.path for result in found])
        chosen = options if number == 1 else replace(later or options, seed=options.seed + number - 1)
        place = out.with_name(f"{out.name}.round-{number}")
        result = train_one(table, place, chosen)
        found.append(result)
        loss = (result.report.get("held_out") or {}).get("loss")
        told.append({"round": number, "rows": table.num_rows, "held_out_loss": loss, "kept": False, **figures})
        shown = "" if loss is None else f": held-out loss {loss:.4f}"
        listener(Event("train", "note", f"round {number} of {rounds}{shown}"))
        if loss is None or number == 1 or loss < told[best]["held_out_loss"]:
            best = number - 1
        else:
            break
    told[best]["kept"] = True
    winner = found[best]

    def settle() -> None:
        """The best round in its place, with what the user gave, and without the others."""
        # What the user gave are the first round's rows and options; later ones hold what students said.
        first = _read(found[0].path)
        given = {name: first[name] for name in ("rows", "options")}
        replace_folder(winner.path, out)
        for result in found:
            if result.path != winner.path:
                shutil.rmtree(result.path)
        text = json.dumps({**_read(out), **given, "rounds": told}, indent=1)
        (out / TRAINING).write_text(text + "\n", "utf-8")

    once(settle)
    return DistilResult(out, winner.history, {**winner.report, "rounds": told})


def student_probs(spec: TaskSpec, path: Path, texts: Sequence[str]) -> NDArray[np.float64]:
    """(len(texts), n_labels) probabilities of a saved student, in the order of the task's labels."""
    import numpy as np

    from potstill.train.student import load_student

    student = load_student(path)
    student.check_labels(spec)
    probs = np.array([p.probs for p in student.predict(texts)], dtype=np.float64).reshape(len(texts), -1)
    return student.in_order(spec, probs) if len(texts) else np.zeros((0, len(spec.labels)))


def _read(student: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((student / TRAINING).read_text("utf-8"))
    return value
