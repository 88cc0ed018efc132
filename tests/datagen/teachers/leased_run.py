"""A run's process for tests that kill it: it generates rows in the folder, and leases its requests to workers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Teacher
from potstill.datagen.generate import GenerationOptions, generate_rows
from potstill.datagen.teachers.workers import WorkersOptions, WorkersTeacher
from potstill.task import Label, TaskSpec

NEWS = TaskSpec("news", "Classify a news article.", "classification", tuple(Label(n) for n in ("World", "Sports")))


def generate(teacher: Teacher, folder: Path, rows: int, **more: Any) -> Any:
    """Rows and drops into `out`; the ledger's totals."""
    with Ledger(folder / "ledger.sqlite") as ledger:
        options = GenerationOptions(rows=rows, window=64)
        generate_rows(NEWS, Asker(teacher, ledger), options, out=folder / "out", **more)
        totals = ledger.totals()
        assert len({entry.key for entry in ledger.entries()}) == totals.replies
    return totals


def main(folder: str, rows: str, ref: str, options: str, teacher_options: str) -> None:
    """As `python leased_run.py FOLDER ROWS TEACHER OPTIONS TEACHER_OPTIONS`, the last two as JSON."""
    place = Path(folder)
    teacher = WorkersTeacher(
        ref, WorkersOptions(**json.loads(options)), folder=place, notice=print, **json.loads(teacher_options)
    )
    try:
        generate(teacher, place, int(rows))
    finally:
        teacher.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
