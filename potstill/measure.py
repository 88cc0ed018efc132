"""A finished student measured on data that its run did not know.

What enters: a run and a data file (or a Hub dataset). What leaves: `Measured`, and under the run
`measured/<name>/scores.json` and `predictions.parquet` in the form of the evaluation stage. Test texts that the student
was trained on are counted, and the score without them is given too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.errors import DataError
from potstill.events import Event, Listener, silent
from potstill.options import build_options
from potstill.rows import REFERENCES, sample_rows, take_rows
from potstill.run_dir import digest, write_atomic
from potstill.task import DataRef


@dataclass(frozen=True)
class Measured:
    """A student's scores on new data.

    Attributes:
        path: Folder with scores and predictions.
        scores: As `evaluate/scores.json`: the test set and each system's figures.
        known: Rows whose text the student was trained on, as merging tells it: the same words, whatever their case,
            accents and punctuation.
        without_known: The student's figures on the other rows; None where all or none are known.
    """

    path: Path
    scores: dict[str, Any]
    known: int
    without_known: dict[str, Any] | None


def evaluate_on(
    run: Path | str,
    ref: DataRef,
    *,
    rows: int = 0,
    latency_rows: int = 20,
    seed: int = 0,
    metrics: Mapping[str, Callable[..., Any]] | None = None,
    listener: Listener = silent,
) -> Measured:
    """Measure a run's student on other labelled data.

    Args:
        run: A run folder whose training is done.
        ref: The data, and which columns; columns that are not named are found as for `test:` of a task file.
        rows: Most rows to use, sampled with `seed`; 0 uses all.
        latency_rows: Single inputs that are timed.
        seed: Of the sample.
        metrics: The user's own, by name, as for `potstill.run`.
        listener: Progress.

    Raises:
        OptionError: A number of rows below 0, or what is no metric.
        UserError: There is no run.
        DataError: The data cannot be read, has no rows or other labels than the task, or there is no student.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from potstill.datagen.decontaminate import shared_texts
    from potstill.pipeline import load
    from potstill.retrieval.load import read_data
    from potstill.settings import EvaluateOptions
    from potstill.stages.evaluation import add_own_figures, estimated_prior, frozen_calibration
    from potstill.train.evaluate import evaluate_student, majority_system, score_predictions
    from potstill.train.own_metrics import check_metrics

    check_metrics(metrics or {})

    options = build_options(EvaluateOptions, {"rows": rows, "latency_rows": latency_rows}, "evaluate")
    found = load(run)
    spec = found.spec
    commits: dict[str, str] = {}
    test = read_data(
        ref, spec, tell=lambda said: listener(Event("evaluate", "note", said)), commits=commits, measured=True
    )
    if test.num_rows == 0:
        raise DataError(f"{ref.path} has no rows; check the file and the columns (--input, --output)")
    test = sample_rows(test, options.rows, seed)
    listener(Event("evaluate", "progress", f"student on {test.num_rows} rows", 0, test.num_rows))
    student = found.student
    scored = evaluate_student(student, spec, test, latency_rows=latency_rows, listener=listener)
    systems = [{"name": "student", **scored.scores.to_json()}]
    if spec.kind == "classification":
        estimated = estimated_prior(spec, frozen_calibration(found.path / "soft"))
        systems.append(majority_system(spec, test, found.dataset, estimated))
    own = add_own_figures(systems, {"student": scored.outputs}, test, metrics or {}, listener)
    known, shared = shared_texts(list(test["input"]), found.dataset["input"])
    without = None
    if 0 < len(known) < test.num_rows:
        places = [i for i in range(test.num_rows) if i not in known]
        probs = None if scored.probs is None else scored.probs[places]
        fresh = take_rows(test, places)
        without = score_predictions(spec, fresh, [scored.outputs[i] for i in places], probs).to_json()
    scores = {
        "test_set": {
            "kind": "real", "source": ref.path, "commit": commits.get(ref.path), "rows": test.num_rows,
            "known": len(known), "share_13_words": len(shared),
        },
        "metric": spec.metric, "labels": list(spec.label_names), "systems": systems, "student_without_known": without,
        **own,
    }  # fmt: skip
    stem = re.sub(r"[^a-z0-9]+", "-", Path(ref.path).stem.lower()).strip("-") or "data"
    out = found.path / "measured" / f"{stem}-{digest([list(test['id']), seed])[:8]}"
    write_atomic(out / "scores.json", json.dumps(scores, indent=1, ensure_ascii=False) + "\n")
    columns: dict[str, list[Any]] = {
        "input": list(test["input"]), "gold": list(test["output"]), "student": list(scored.outputs),
    }  # fmt: skip
    if REFERENCES in test.column_names:
        columns[REFERENCES] = list(test[REFERENCES])
    if scored.probs is not None:
        columns["student_confidence"] = [float(max(row)) for row in scored.probs]
    pq.write_table(pa.table(columns), out / "predictions.parquet", compression="zstd")
    return Measured(out, scores, len(known), without)
