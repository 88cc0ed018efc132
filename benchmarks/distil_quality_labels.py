"""The classification half of `distil_quality`: hard labels, soft targets, both, and what may come on top.

The teacher (SmolLM2-135M-Instruct) writes the rows of a task once, from the task's prompt and label names; every
method trains all-MiniLM-L6-v2 on the same rows. `+ self-training` adds as many texts of the real training split,
without their labels. Everything is measured on the same rows of the real test split, which no method sees; nothing was
chosen on them. `ece` is of the student as it is saved, `ece_plain` before its temperature was put right on held-out
written rows. `teacher_kl` is the mean divergence of the student's probabilities from those of the teacher calibrated
on its own rows, on the test rows.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from label_rows import written_rows
from results_file import merge_results, read_results

KEY = ("task", "method", "seed")
METHODS = {
    "hard": {"hard_weight": 1.0, "soft_weight": 0.0},
    "soft": {"hard_weight": 0.0, "soft_weight": 1.0},
    "both": {},
    "+ born-again": {"generations": 3},
    "+ self-training": {},
}


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
        "task": task, "method": method, "seed": seed,
        "teacher_kl": _divergence(data["teacher"]["teacher (calibrated on its own rows)"], probs),
        "score": round(float(scores.macro_f1 or 0), 4), "accuracy": round(float(scores.accuracy or 0), 4),
        "ece": round(float(scores.ece or 0), 4),
    }  # fmt: skip
    if more.get("temperature"):
        plain = np.power(np.maximum(probs, 1e-30), more["temperature"])
        plain /= plain.sum(1, keepdims=True)
        record["ece_plain"] = round(float(score_predictions(spec, test, outputs, plain).ece or 0), 4)
    record |= {"train_rows": 0 if method.startswith("teacher") else data["train"].num_rows, "test_rows": len(test)}
    record |= {name: value for name, value in more.items() if value is not None}
    merge_results("distil_quality", [record], KEY)
    print(json.dumps(record), flush=True)


def _divergence(teacher: Any, student: Any) -> float:
    """Mean KL(teacher‖student) of the rows, nats."""
    import numpy as np

    p, q = np.maximum(np.asarray(teacher), 1e-12), np.maximum(np.asarray(student), 1e-12)
    return round(float((p * np.log(p / q)).sum(1).mean()), 4)
