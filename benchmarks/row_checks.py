"""Does checking written rows help the student? Weights and drops by the teacher's own second look, measured on gold.

    python benchmarks/row_checks.py [--tasks ag_news,trec,sms_spam] [--rows 300]

The embedded teacher writes 300 rows for each task from its prompt and label names alone (the same requests as in
`generation_quality.py`, whose ledger is read where it is there). Then it checks them: `verify` by calibrated label
scores, `judge` by a Yes or No with the Yes centred. The student is a logistic head on frozen MiniLM features, which is
fitted in seconds and so can be fitted on twenty samples of 80 % of the rows: mean accuracy and its standard deviation
on 1,000 real test texts. `kept` is the share of the weight that is left; `caught` is how much of it was taken from rows
which a head trained on the real training split calls wrong, beside what a random drop would catch (1 is random).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from results_file import print_table, read_results, write_results
from tasks import DATA, ROOT, write_task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from potstill.task import TaskSpec

ARMS: dict[str, dict[str, Any]] = {
    "unchecked": {},
    "verify, weigh": {"verify": True},
    "verify, drop": {"verify": True, "action": "drop"},
    "judge, weigh": {"judge": True},
    "judge, drop": {"judge": True, "action": "drop"},
    "verify and judge, weigh": {"verify": True, "judge": True},
}
SAMPLES = 20


def main() -> None:
    """Measure the tasks asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="ag_news,trec,sms_spam")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--teacher", default="transformers")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-generation-quality")
    args = parser.parse_args()
    for task in args.tasks.split(","):
        records = measure(task, args.rows, args.test_rows, args.teacher, args.out)
        write_results("row_checks", [r for r in read_results("row_checks") if r["task"] != task] + records)
    print_table(read_results("row_checks"))


def measure(task: str, rows: int, test_rows: int, teacher_name: str, out: Path) -> list[dict[str, Any]]:
    """Every arm on one task."""
    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.datagen.generate import generate_rows
    from potstill.datagen.options import GenerationOptions
    from potstill.datagen.quality import QualityOptions, check_rows
    from potstill.datagen.teachers import open_teacher
    from potstill.retrieval.load import read_data
    from potstill.task import DataRef
    from potstill.task.file import read_task_file

    spec = read_task_file(str(write_task(task, out))).spec
    assert spec.test is not None
    test = read_data(spec.test, spec)
    test = test.shuffle(seed=0).select(range(min(test_rows, test.num_rows))).flatten_indices()
    real = read_data(
        DataRef(str(DATA / "tasks" / task / "train.parquet"), None, None, spec.test.inputs, spec.test.output), spec
    )
    real = real.shuffle(seed=0).select(range(min(4000, real.num_rows))).flatten_indices()
    teacher = open_teacher(teacher_name)
    tables = {}
    try:
        with Ledger(out / f"{task}.sqlite") as ledger:
            asker = Asker(teacher, ledger)
            written = generate_rows(spec, asker, GenerationOptions(rows=rows)).rows
            for arm, options in ARMS.items():
                tables[arm] = check_rows(spec, written, asker, QualityOptions(**options)).rows if options else written
    finally:
        teacher.close()
    features = {name: embed(table["input"][:]) for name, table in (("test", test), ("real", real), ("all", written))}
    gold = np.array(test["label"][:])
    judge = head(features["real"], np.array(real["label"][:]), None, spec)
    wrong = judge.predict(features["all"]) != np.array(written["label"][:])
    place = {row_id: i for i, row_id in enumerate(written["id"][:])}
    records = []
    for arm, table in tables.items():
        weights = np.zeros(written.num_rows)
        weights[[place[row_id] for row_id in table["id"][:]]] = table["weight"][:]
        found = []
        for sample in range(SAMPLES):
            chosen = np.random.default_rng(sample).random(written.num_rows) < 0.8
            use = chosen & (weights > 0)
            model = head(features["all"][use], np.array(written["label"][:])[use], weights[use], spec)
            found.append(float((model.predict(features["test"]) == gold).mean()))
        taken = 1 - weights / max(weights.max(), 1e-9)
        caught = (taken[wrong].sum() / taken.sum()) / wrong.mean() if taken.sum() and wrong.any() else None
        records.append(
            {
                "task": task,
                "check": arm,
                "accuracy": round(float(np.mean(found)), 4),
                "sd": round(float(np.std(found)), 4),
                "kept": round(float(weights.mean()), 3),
                "caught": None if caught is None else round(float(caught), 2),
                "rows_called_wrong": round(float(wrong.mean()), 3),
            }
        )
        print(records[-1], flush=True)
    return records


def embed(texts: list[str]) -> NDArray[np.float64]:
    """MiniLM features."""
    from potstill.models import sentence_encoder

    encoder = sentence_encoder("sentence-transformers/all-MiniLM-L6-v2")
    return np.asarray(encoder.encode(texts, batch_size=64), dtype=np.float64)


def head(features: NDArray[np.float64], labels: NDArray[np.int64], weights: Any, spec: TaskSpec) -> Any:
    """A logistic head."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10, max_iter=2000).fit(features, labels, sample_weight=weights)


if __name__ == "__main__":
    main()
