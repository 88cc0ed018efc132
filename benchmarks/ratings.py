"""Points of a scale without labels: what does a student of the prompt alone make of a rating, and what do texts add?

    python benchmarks/ratings.py --tasks film,tweets --arms prompt,texts,labels

Two tasks of five points, made of film snippets and tweets that twenty people rated (VADER: Hutto and Gilbert, ICWSM
2014; the archive is that of `found_datasets.py`), the mean ratings cut at -2, -0.6, 0.6 and 2. The task file holds the
prompt and nothing else. Arms: `prompt`; `texts`, with 2,000 others without their points; `labels`, a student of these
texts with their points and nothing written. Tests are 600 texts.

Writes benchmarks/results/ratings.json: task, arm, rows, test_rows, macro_f1, qwk, mae and, of the calibrated teacher,
teacher_macro_f1 and teacher_qwk; minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from found_datasets import fetched, rated_texts
from pack import ROOT
from results_file import print_table, read_results, write_results

NAME = "ratings"
TASKS = {
    "film": ("movieReviewSnippets_GroundTruth.txt", "a sentence from a film review"),
    "tweets": ("tweets_GroundTruth.txt", "a tweet"),
}
ARMS = ("prompt", "texts", "labels")
_CUTS = (-2.0, -0.6, 0.6, 2.0)
_TESTS, _TEXTS = 600, 2000


def main() -> None:
    """Measure what has no record yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--rows", type=int, default=150, help="rows to write")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "ratings")
    args = parser.parse_args()
    for task in args.tasks.split(","):
        for arm in args.arms.split(","):
            if not any((r["task"], r["arm"]) == (task, arm) for r in read_results(NAME)):
                record = measure(task, arm, args.rows, args.out / task)
                write_results(NAME, [*read_results(NAME), record])
                print(record, flush=True)
    print_table(read_results(NAME))


def measure(task: str, arm: str, rows: int, folder: Path) -> dict[str, Any]:
    """The record of one run."""
    import potstill

    began = time.monotonic()
    file = task_file(task, arm, folder)
    given: dict[str, Any] = {"sources": "labelled"} if arm == "labels" else {"n": rows}
    scores = potstill.run(str(file), out=folder / arm, **given).scores
    systems = {system["name"]: system for system in scores["systems"]}
    teacher = systems["teacher (calibrated)"]
    return {
        "task": task,
        "arm": arm,
        "rows": None if arm == "labels" else rows,
        "test_rows": scores["test_set"]["rows"],
        **{name: round(systems["student"][name], 4) for name in ("macro_f1", "qwk", "mae")},
        "teacher_macro_f1": round(teacher["macro_f1"], 4),
        "teacher_qwk": round(teacher["qwk"], 4),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }


def task_file(task: str, arm: str, folder: Path) -> Path:
    """The task as a user would write it, beside its data."""
    folder.mkdir(parents=True, exist_ok=True)
    source, what = TASKS[task]
    with TemporaryDirectory() as scratch:
        rated = list(rated_texts(fetched("vader", Path(scratch)), source))
    random.Random(0).shuffle(rated)
    tests, texts = rated[:_TESTS], rated[_TESTS + 100 : _TESTS + 100 + _TEXTS]
    lines = [f"test: {_written(folder / 'test.jsonl', tests).name}"]
    if arm == "texts":
        lines.append(f"unlabelled: {_written(folder / 'texts.jsonl', texts, points=False).name}")
    if arm == "labels":
        lines.append(f"labelled: {_written(folder / 'labels.jsonl', texts).name}")
    head = "\n".join(("---", *lines, "---"))
    path = folder / f"{arm}.md"
    path.write_text(f"{head}\nRate how positive {what} is, from 1 (very negative) to 5 (very positive).\n")
    return path


def _written(path: Path, rated: Sequence[tuple[str, float]], *, points: bool = True) -> Path:
    rows = [{"text": text, **({"points": str(1 + bisect(_CUTS, mean))} if points else {})} for text, mean in rated]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
