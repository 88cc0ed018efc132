"""The student beside its teacher and the majority class, on the same rows.

For classification the teacher answers untrained, told what the user said of the labels, by label scores: raw (the
likeliest label string) and calibrated on the very texts it is measured on (batch calibration needs texts and a prior,
not labels; see `soft.calibrate_texts`), which is the strongest form that costs nothing. A teacher that gives no label
scores, as most APIs, writes a label for each text: raw answers, with nothing to calibrate. For generation it writes its
own greedy answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import DataError, TeacherError
from potstill.events import Event, Listener, silent
from potstill.rows import REFERENCES, label_names, sample_rows
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.asker import Asker
    from potstill.datagen.soft import Calibration, SoftOptions
    from potstill.settings import EvaluateOptions


WRITTEN = "the labels that it writes, greedy and without calibration, since it gives no label scores"


def evaluate_run(
    spec: TaskSpec,
    student_path: Path,
    test: Dataset,
    out: Path,
    *,
    test_set: Mapping[str, Any],
    asker: Asker | None,
    soft: SoftOptions,
    options: EvaluateOptions,
    train_rows: Dataset,
    seed: int,
    calibration: Calibration | None = None,
    compressed: Path | None = None,
    metrics: Mapping[str, Callable[..., Any]] | None = None,
    listener: Listener = silent,
) -> dict[str, Any]:
    """Measure every system and write `scores.json` and `predictions.parquet` into `out`.

    Args:
        spec: The task.
        student_path: Folder of the student.
        test: Rows in the one schema, with gold outputs.
        out: Folder to write into.
        test_set: `kind` (`real` or `held-out`) and `source`, for the report.
        asker: The teacher, or None to leave it out.
        soft: How label scores are taken.
        options: How many rows, and whether the teacher is measured.
        train_rows: What the student learnt from; the majority answer is taken from it where no label prior is known.
        seed: Of the sample when there are more rows than `options.rows`.
        calibration: What the soft-target stage fitted on the training texts, where it did.
        compressed: Folder of the compressed student; left out where it is None or nothing is there.
        metrics: The user's own, by name (`train.own_metrics`).
        listener: Progress.

    Returns:
        Facts for the manifest: a summary line, each system's main score, and why the teacher, or a metric of the
        user's own, was not taken, where it was not.

    Raises:
        DataError: There are no test rows.
    """
    from potstill.datagen.label_question import with_examples
    from potstill.train.evaluate import evaluate_student, majority_system, score_predictions
    from potstill.train.student import load_student

    if test.num_rows == 0:
        raise DataError(_nothing_to_measure(test_set, train_rows.num_rows, student_path))
    test = sample_rows(test, options.rows, seed)
    student = load_student(student_path)
    listener(Event("evaluate", "progress", f"student on {test.num_rows} rows", 0, 3))
    scored = evaluate_student(student, spec, test, latency_rows=options.latency_rows)
    systems: list[dict[str, Any]] = [{"name": "student", **scored.scores.to_json()}]
    predictions: dict[str, list[Any]] = {
        "input": list(test["input"]),
        "gold": list(test["output"]),
        "student": list(scored.outputs),
    }
    if REFERENCES in test.column_names:
        predictions[REFERENCES] = list(test[REFERENCES])
    if scored.probs is not None:
        predictions["student_confidence"] = [float(max(row)) for row in scored.probs]
    if compressed is not None and compressed.exists():
        small = evaluate_student(load_student(compressed), spec, test, latency_rows=options.latency_rows)
        systems.append({"name": "student (compressed)", **small.scores.to_json()})
        predictions["compressed"] = list(small.outputs)
    listener(Event("evaluate", "progress", "teacher", 1, 3))
    left_out: dict[str, str] = {}
    told: list[tuple[str, list[str], list[list[float]] | None]] = []
    if asker is not None and options.teacher:
        try:
            asked = with_examples(spec, train_rows) if spec.kind == "classification" else spec
            told = teacher_answers(
                asked, predictions["input"], asker, soft, calibration, answer_tokens=student.card.max_new_tokens
            )
            for name, outputs, probs in told:
                system = {"name": name, **score_predictions(spec, test, outputs, probs).to_json()}
                if spec.kind == "classification" and probs is None:
                    system["answer_from"] = WRITTEN
                systems.append(system)
                column = _column(name)
                predictions[column] = outputs
                if probs is not None:
                    predictions[f"{column}_confidence"] = [max(row) for row in probs]
        except TeacherError as error:
            # Scores of a finished student must not be lost because the teacher is away.
            left_out["teacher_left_out"] = str(error)
            listener(Event("evaluate", "note", f"the teacher was not measured: {error}"))
    if spec.kind == "classification":
        systems.append(majority_system(spec, test, train_rows, estimated_prior(spec, calibration)))
    answers = {"student": predictions["student"], "student (compressed)": predictions.get("compressed")}
    answers |= {name: predictions[_column(name)] for name, *_ in told}
    own = add_own_figures(systems, answers, test, metrics or {}, listener)
    scores = {
        "test_set": {**test_set, "rows": test.num_rows},
        "metric": spec.metric,
        "labels": label_names(test),
        "systems": systems,
        **left_out,
        **own,
    }
    (out / "scores.json").write_text(json.dumps(scores, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _write_predictions(predictions, out / "predictions.parquet")
    main = {system["name"]: system.get(spec.metric) for system in systems}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in main.items() if value is not None)
    summary = f"{spec.metric} on {test.num_rows} {test_set['kind']} rows: {shown}"
    lacking = {**left_out, **{key: own[key] for key in ("metrics_left_out",) if key in own}}
    return {"summary": summary + ("; teacher not measured" if left_out else ""), "scores": main, **lacking}


def _column(teacher: str) -> str:
    """Where the answers of a form of the teacher stand among the predictions."""
    return teacher.replace("teacher (", "teacher_").rstrip(")")


def add_own_figures(
    systems: Sequence[dict[str, Any]],
    answers: Mapping[str, Sequence[str] | None],
    test: Dataset,
    metrics: Mapping[str, Callable[..., Any]],
    listener: Listener = silent,
) -> dict[str, Any]:
    """Put the figures of the user's own metrics into the systems' entries of `scores.json`.

    Args:
        systems: The entries; one that answers everything alike has its `answer` in it.
        answers: Each other system's answers, by its name.
        test: The rows that they answer.
        metrics: Functions by name.
        listener: Told of a metric that is left out.

    Returns:
        What `scores.json` says of them: `own_metrics`, the names of those that were taken, and `metrics_left_out`,
        why others were not. Nothing where there are none.
    """
    if not metrics:
        return {}
    from potstill.train.own_metrics import own_figures

    left_out: dict[str, str] = {}
    for system in systems:
        said = answers.get(system["name"])
        outputs = [system["answer"]] * test.num_rows if said is None else said
        figures, ends, failed = own_figures(metrics, test, outputs)
        system |= figures
        system["ci"] = {**system["ci"], **{name: list(pair) for name, pair in ends.items()}}
        left_out |= {name: f"{why}, of {system['name']}" for name, why in failed.items() if name not in left_out}
    for name, why in left_out.items():
        listener(Event("evaluate", "note", f"the metric {name} is left out: {why}; mend it and run again"))
        for system in systems:  # no figure of some systems alone
            system.pop(name, None)
            system["ci"].pop(name, None)
    kept = [name for name in metrics if name not in left_out]
    return {"own_metrics": kept, **({"metrics_left_out": left_out} if left_out else {})}


def _nothing_to_measure(test_set: Mapping[str, Any], trained: int, student_path: Path) -> str:
    """Why there are no test rows, what is there all the same, and the mend."""
    kept = f"the student is whole, in {student_path}"
    if test_set["kind"] == "real":
        return f"the test data has no rows; check `test:` in the task file; {kept}"
    return (
        f"none of the {trained} merged rows could be held out to measure on; {kept}; ask for more rows (-n), leave "
        "merge.heldout above 0, or give real rows with `test:` in the task file, and run again: what is done is kept"
    )


def teacher_answers(
    spec: TaskSpec,
    inputs: list[str],
    asker: Asker,
    soft: SoftOptions,
    calibration: Calibration | None = None,
    *,
    answer_tokens: int = 0,
) -> list[tuple[str, list[str], list[list[float]] | None]]:
    """The teacher's zero-shot answers: (name, outputs, probabilities or None), raw and, from label scores, calibrated.

    Args:
        spec: The task.
        inputs: Texts.
        asker: The teacher.
        soft: How label scores are taken.
        calibration: What the soft-target stage fitted on the training texts, where it did.
        answer_tokens: Most tokens that the student may write: the teacher has no fewer.

    Raises:
        TeacherError: The teacher refused or stayed away.
    """
    if spec.kind != "classification":
        from potstill.datagen.zero_shot import MOST_TOKENS, zero_shot_outputs

        most = max(MOST_TOKENS, answer_tokens)
        return [("teacher (raw)", zero_shot_outputs(spec, inputs, asker, max_tokens=most), None)]
    from potstill.datagen.label_scores import can_score, label_scores, settle_form
    from potstill.datagen.soft import calibrate_texts, fit_calibration

    names = spec.label_names
    if calibration is not None:  # its offsets are those of one form
        soft = replace(soft, form=calibration.form)
    scores = None
    if can_score(asker, soft):
        soft, _ = settle_form(spec, inputs, asker, soft)
        scores = label_scores(spec, inputs, asker, soft)
    if scores is None or not (scores == scores).all(axis=1).any():  # a server may leave its log-probs out
        from potstill.datagen.zero_shot import zero_shot_labels

        return [("teacher (raw)", zero_shot_labels(spec, inputs, asker, soft), None)]
    fitted = {
        "teacher (raw)": fit_calibration(scores, rule="raw", prior=spec.prior),
        "teacher (calibrated)": calibrate_texts(spec, scores, asker, soft, calibration),
    }
    answers = []
    for name, correction in fitted.items():
        probs = correction.apply(scores)
        answers.append((name, [names[i] for i in probs.argmax(axis=1)], probs.tolist()))
    return answers


def frozen_calibration(soft: Path) -> Calibration | None:
    """What the soft-target stage in the folder `soft` fitted on the training texts, where it did."""
    from potstill.datagen.calibration import Calibration

    path = soft / "calibration.json"
    return Calibration.from_json(json.loads(path.read_text("utf-8"))) if path.exists() else None


def estimated_prior(spec: TaskSpec, calibration: Calibration | None) -> tuple[float, ...] | None:
    """Shares of the labels as the soft-target stage estimated them on unlabelled texts, where the task asked for it."""
    known = calibration is not None and spec.estimate_prior and calibration.rule != "raw"
    return calibration.prior if calibration is not None and known else None


def _write_predictions(columns: Mapping[str, list[Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(dict(columns)), path, compression="zstd")
