"""Rows for the benchmarks of classification students: what the teacher writes for a task, and the task's own rows.

The task is given as a user would give it (prompt and label names, see `tasks.write_task`). The rows are written once
a task and seed, with the teacher's calibrated label probabilities, and rest in a folder that every method reads.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("POTSTILL_DATA", ROOT.parent / "shared" / "data"))
TASKS = ("trec", "ag_news", "sms_spam", "subj", "customer_reviews", "snips", "hate_speech_offensive", "sick")


def task_spec(task: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """The task as a user would state it, and the settings of its file."""
    import tasks

    from potstill.task.file import read_task_file

    tasks.CLASSIFICATION = tuple(dict.fromkeys([*tasks.CLASSIFICATION, *TASKS]))
    read = read_task_file(str(tasks.write_task(task, folder)))
    return read.spec, dict(read.settings)


def real_rows(task: str, spec: Any, split: str, count: int, seed: int = 0) -> Any:
    """`count` rows of the task's own data with their labels, drawn by `seed`; 0 takes all."""
    from potstill.retrieval.load import read_data
    from potstill.task import DataRef

    path = DATA / "tasks" / task / f"{split}.parquet"
    table = read_data(DataRef(str(path), None, None, spec.test.inputs, spec.test.output), spec)
    if count and table.num_rows > count:
        table = table.shuffle(seed=seed).select(range(count)).flatten_indices()
    return table


def written_rows(task: str, rows: int, test_rows: int, seed: int, out: Path) -> dict[str, Any]:
    """The written rows of a task, made once: train (with `teacher_probs`), validation, test, unlabelled, teacher.

    Returns:
        `spec`, the tables `train`, `validation`, `test` and `unlabelled`, and `teacher`: for each form of the teacher
        its (test rows, labels) probabilities of the test rows.
    """
    import numpy as np

    from potstill.rows import read_rows, write_rows

    spec, settings = task_spec(task, out)
    folder = out / task / f"rows-{rows}-seed-{seed}"
    names = ("train", "validation", "test", "unlabelled")
    if not (folder / "teacher.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        test = real_rows(task, spec, "test", test_rows, seed)
        # Texts that a user would have lying about: rows of the training split, without their labels.
        unlabelled = real_rows(task, spec, "train", rows, seed)
        train, validation, teacher = _write(spec, settings, rows, seed, out / task, test)
        for name, table in zip(names, (train, validation, test, unlabelled), strict=True):
            write_rows(table, folder / f"{name}.parquet")
        (folder / "teacher.json").write_text(json.dumps(teacher))
    found: dict[str, Any] = {name: read_rows(folder / f"{name}.parquet") for name in names}
    teacher = {name: np.asarray(probs) for name, probs in json.loads((folder / "teacher.json").read_text()).items()}
    return {"spec": spec, "teacher": teacher, **found}


def _write(spec: Any, settings: dict[str, Any], rows: int, seed: int, out: Path, test: Any) -> Any:
    """The stages of a run up to the soft targets, and the teacher's label probabilities of the test rows."""
    from potstill.asking.ledger import Ledger
    from potstill.datagen.calibration import Calibration
    from potstill.datagen.label_scores import label_scores
    from potstill.datagen.soft import fit_calibration
    from potstill.pipeline import open_asker
    from potstill.progress import _plain
    from potstill.rows import read_rows
    from potstill.run_dir import RunDir
    from potstill.settings import resolve
    from potstill.stages.job import Job

    resolved = resolve(settings, {"n": rows, "seed": seed, "sources": "generated"})
    folder, listener = RunDir(out / f"run-{seed}"), _plain()
    with folder.lock(), Ledger(folder.ledger_path) as ledger, open_asker(resolved, ledger, listener) as asker:
        job = Job(folder, spec, resolved, ledger, asker, listener)
        retrieved = job.retrieval()
        generated = job.datagen(retrieved)
        soft = job.soft(job.merge(retrieved, generated), generated)
        scores = label_scores(spec, list(test["input"]), asker, resolved.soft)
        frozen = Calibration.from_json(json.loads((soft.path / "calibration.json").read_text()))
        teacher = {
            "teacher (raw)": fit_calibration(scores, rule="raw").apply(scores).tolist(),
            "teacher (calibrated)": fit_calibration(scores, rule="batch").apply(scores).tolist(),
            "teacher (calibrated on its own rows)": frozen.apply(scores).tolist(),
        }
        return *(read_rows(soft.path / f"{name}.parquet") for name in ("train", "validation")), teacher
