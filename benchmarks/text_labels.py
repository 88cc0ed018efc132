"""What labels texts best that nobody labelled: names and rows, a mixture or the teacher; do halves of rows foresee it?

    python benchmarks/text_labels.py --tasks trec,customer_reviews --seed 0

The teacher writes rows from the prompt alone, as in `zero_label.py`, whose run folders are used where `--out` has them.
Then up to `--texts` training texts get labels in each of the ways between which a run chooses
(`potstill.stages.text_labels`), and the macro-F1 of these against the real labels is measured:

    opinion     nearness to the names of the labels and what the rows say, balanced
    mixture     a Gaussian mixture in the sentence encoder's space that starts there
    teacher     the teacher's, corrected and joined with the encoder, on the first `--read` of a random order

`halves` and `halves_of_few` are how far mixtures that start from one half of the rows each agree about the texts above
chance, squared: of all rows, and of fifteen a label. Where the latter is below `self_training.read_below`, the teacher
reads; `takes` is what a run does.

Writes benchmarks/results/text_labels.json: task, seed, labels, rows, texts, read, halves, halves_of_few, opinion,
mixture, teacher, takes, minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from pack import CLASSIFICATION, ROOT, PackTask, pack_task, rows_of, write_rows
from results_file import print_table, read_results, write_results
from zero_label_arms import folder_of, task_file

NAME = "text_labels"


def main() -> None:
    """Measure every task that has no record yet, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(CLASSIFICATION))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=400, help="rows to write; at least twelve a label are")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--read", type=int, default=300, help="texts that the teacher reads")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "zero-label")
    args = parser.parse_args()
    records = read_results(NAME)
    for name in args.tasks.split(","):
        if any((r["task"], r["seed"]) == (name, args.seed) for r in records):
            continue
        records = [*records, measure(pack_task(name), args)]
        write_results(NAME, records)
        print(records[-1], flush=True)
    print_table(records)


def measure(task: PackTask, args: argparse.Namespace) -> dict[str, Any]:
    """The record of one task."""
    from potstill.asking.ledger import Ledger
    from potstill.datagen.mixture import above_chance
    from potstill.pipeline import open_asker, run
    from potstill.retrieval.load import read_data
    from potstill.settings import resolve
    from potstill.stages.text_labels import mixture_labels, teacher_labels
    from potstill.task import DataRef
    from potstill.task.file import read_task_file

    began = time.monotonic()
    job = {"out": str(args.out.resolve()), "task": task.name, "seed": args.seed}
    file = task_file(task, "soft", rows_of(task.name, "test", 1000), job)
    given: dict[str, Any] = {"n": max(args.rows, 12 * len(task.labels)), "seed": args.seed, "sources": "generated"}
    # The student itself is of no use here.
    short = {"distil": {"max_steps": 1}, "evaluate": {"rows": 1, "teacher": False, "latency_rows": 0}}
    result = run(str(file), out=folder_of(job), **given, **short)
    read = read_task_file(str(file))
    settings, labels = resolve(read.settings, given), len(task.labels)
    rows = _soft_rows(result.path)
    real = rows_of(task.name, "train", args.texts)
    path = write_rows(real, args.out / task.name / "data" / "texts-and-labels.parquet", (*task.inputs, "output"))
    table = read_data(DataRef(str(path), inputs=task.inputs, output="output"), read.spec)
    texts, gold = table["input"][:], table["output"][:]
    order = Random(args.seed).sample(range(len(texts)), min(args.read, len(texts)))
    with (
        Ledger(folder_of(job) / "ledger.sqlite") as ledger,
        open_asker(settings, ledger, lambda event: None) as asker,
    ):
        own: Any = SimpleNamespace(spec=read.spec, settings=settings, asker=asker, listener=lambda event: None)
        mixed = mixture_labels(own, texts, rows)
        told = teacher_labels(own, [texts[place] for place in order], rows)
    few, options = above_chance(mixed.of_few(), labels), settings.self_training
    otherwise = "mixture" if mixed.believed >= options.agreement else "opinion"
    lost = otherwise == "opinion" and above_chance(mixed.believed, labels) < options.trust
    return {
        "task": task.name,
        "seed": args.seed,
        "labels": labels,
        "rows": len(rows),
        "texts": len(texts),
        "read": len(order),
        "halves": round(above_chance(mixed.believed, labels), 3),
        "halves_of_few": round(few, 3),
        "opinion": _macro_f1(task.labels, gold, mixed.opinion),
        "mixture": _macro_f1(task.labels, gold, mixed.probs),
        "teacher": _macro_f1(task.labels, [gold[place] for place in order], told),
        "takes": "teacher" if lost or few < options.read_below else otherwise,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }


def _soft_rows(run_folder: Path) -> Any:
    """The training rows with what the teacher says of them."""
    from datasets import Dataset

    return Dataset.from_parquet(str(run_folder / "soft" / "train.parquet"), keep_in_memory=True)


def _macro_f1(names: Sequence[str], gold: Sequence[str], probs: Any) -> float:
    import numpy as np

    from potstill.train import metrics

    index = {name: place for place, name in enumerate(names)}
    right = np.array([index[label] for label in gold])
    return round(float(metrics.macro_f1(metrics.confusion(right, probs.argmax(axis=1), len(names)))), 3)


if __name__ == "__main__":
    main()
