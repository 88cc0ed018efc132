"""What each way of distilling a classifier gives: hard labels, soft targets, both, and what may come on top.

    python benchmarks/distil_quality_labels.py                          four tasks, one seed
    python benchmarks/distil_quality_labels.py --tasks trec --seeds 0,1,2
    python benchmarks/distil_quality_labels.py --print                  the table of the last results

The teacher (SmolLM2-135M-Instruct) writes the rows of a task once, from the task's prompt and label names; every
method trains all-MiniLM-L6-v2 on the same rows. `+ self-training` adds as many texts of the real training split,
without their labels. Everything is measured on the same rows of the real test split, which no method sees; nothing was
chosen on them. `ece` is of the student as it is saved, `ece_plain` before its temperature was put right on held-out
written rows.

Finished records of benchmarks/results/distil_quality.json are kept and not made again; the other records of that file
are those of generation students.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from label_rows import ROOT, written_rows
from results_file import merge_results, print_table, read_results

KEY = ("task", "method", "seed")
METHODS = {
    "hard": {"hard_weight": 1.0, "soft_weight": 0.0},
    "soft": {"hard_weight": 0.0, "soft_weight": 1.0},
    "both": {},
    "+ born-again": {"generations": 3},
    "+ self-training": {},
}


def main() -> None:
    """Make the missing records and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="trec,ag_news,sms_spam,subj")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--rows", type=int, default=400, help="rows that the teacher writes for a task")
    parser.add_argument("--test-rows", type=int, default=300)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-distil")
    parser.add_argument("--print", action="store_true", dest="show")
    args = parser.parse_args()
    if not args.show:
        for seed in map(int, args.seeds.split(",")):
            for task in args.tasks.split(","):
                bench(task, seed, args.methods.split(","), args.rows, args.test_rows, args.out)
    print_table([record for record in read_results("distil_quality") if "accuracy" in record])


def bench(task: str, seed: int, methods: list[str], rows: int, test_rows: int, out: Path) -> None:
    """The missing records of one task and seed, each written as soon as it is there."""
    done = {tuple(record[name] for name in KEY) for record in read_results("distil_quality")}
    wanted = [method for method in methods if (task, method, seed) not in done]
    teachers = (task, "teacher (calibrated)", seed) in done
    if not wanted and teachers:
        return
    started = time.monotonic()
    data = written_rows(task, rows, test_rows, seed, out)
    written = (time.monotonic() - started) / 60
    if not teachers:
        for name, probs in data["teacher"].items():
            _record(task, name, seed, data, probs, minutes=round(written, 2))
    for method in wanted:
        started = time.monotonic()
        folder = out / task / f"{method.replace('+ ', '')}-{seed}"
        report = train(method, data, seed, folder)
        probs = _answers(data, folder / "student")
        (folder / "probs.json").write_text(json.dumps(probs.tolist()))
        held_out = report.get("held_out") or {}
        _record(
            task, method, seed, data, probs, minutes=round((time.monotonic() - started) / 60, 2),
            temperature=held_out.get("temperature"), rounds=len(report.get("rounds", [])) or None,
        )  # fmt: skip


def train(method: str, data: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Train one student into `folder/student`; the report of its training."""
    from potstill.train.options import DistilOptions
    from potstill.train.recipe import train_classifier

    options = replace(DistilOptions(seed=seed, max_length=128), **METHODS[method])
    student = folder / "student"
    result = train_classifier(data["spec"], data["train"], data["validation"], student, options)
    report = dict(result.report)
    if method == "+ self-training":
        report |= _self_train(data, student, options)
    return report


def _self_train(data: dict[str, Any], student: Path, options: Any) -> dict[str, Any]:
    from potstill.train.recipe import train_classifier
    from potstill.train.self_training import SelfTrainingOptions, Unlabelled, self_train

    spec, rows, validation = data["spec"], data["train"], data["validation"]
    known = {text for name in ("train", "validation", "test") for text in data[name]["input"]}
    texts = [
        Unlabelled(text, "train split", i) for i, text in enumerate(data["unlabelled"]["input"]) if text not in known
    ]
    reports: dict[Path, dict[str, Any]] = {}

    def train_again(more: Any, folder: Path) -> None:
        reports[folder] = dict(train_classifier(spec, more, validation, folder, options).report)

    result = self_train(spec, rows, validation, texts, student, train_again, SelfTrainingOptions())
    adopted = [i for i, item in enumerate(result.rounds) if item["adopted"]]
    return {**(list(reports.values())[adopted[-1] - 1] if adopted[-1] else {}), "rounds": result.rounds}


def _answers(data: dict[str, Any], student: Path) -> Any:
    import numpy as np

    from potstill.train.student import load_student

    model = load_student(student)
    answers = model.predict(list(data["test"]["input"]))
    return model.in_order(data["spec"], np.array([answer.probs for answer in answers], dtype=np.float64))


def _record(task: str, method: str, seed: int, data: dict[str, Any], probs: Any, **more: Any) -> None:
    import numpy as np

    from potstill.train.evaluate import score_predictions

    spec, test = data["spec"], data["test"]
    outputs = [spec.label_names[i] for i in probs.argmax(1)]
    scores = score_predictions(spec, test, outputs, probs)
    record: dict[str, Any] = {
        "task": task, "method": method, "seed": seed, "score": round(float(scores.macro_f1 or 0), 4),
        "accuracy": round(float(scores.accuracy or 0), 4), "ece": round(float(scores.ece or 0), 4),
    }  # fmt: skip
    if more.get("temperature"):
        plain = np.power(np.maximum(probs, 1e-30), more["temperature"])
        plain /= plain.sum(1, keepdims=True)
        record["ece_plain"] = round(float(score_predictions(spec, test, outputs, plain).ece or 0), 4)
    record |= {"train_rows": 0 if method.startswith("teacher") else data["train"].num_rows, "test_rows": len(test)}
    record |= {name: value for name, value in more.items() if value is not None}
    merge_results("distil_quality", [record], KEY)
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
