"""The whole job on real tasks: no labels in, a student out, beside its teacher and the supervised ceiling.

Each task is given to potstill as a user would give it: a task file with the prompt and the label names. The
catalogue is the data pack's own (771 dataset cards, and the packed tasks, whose rows are there); the task's own
dataset and its known copies are excluded, and merge drops every row that meets a test text.

    python benchmarks/tasks.py                      all six tasks, about two hours on 2 cores
    python benchmarks/tasks.py --tasks trec,sms_spam --rows 300 --test-rows 300
    python benchmarks/tasks.py --print              the table of the last results

Systems: teacher raw, teacher calibrated (batch calibration on the test texts themselves), student on retrieved
rows only, on generated rows only, on both, and the same student on the real training split (the ceiling). `seconds`
is the whole run of an arm, empty where an earlier call had done a part of it.
Writes benchmarks/results/tasks.json; README quotes its table.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pack import DATA, ROOT, pack_task, write_task
from results_file import print_table, read_results, write_results

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.settings import Settings
    from potstill.task import TaskSpec

CLASSIFICATION = ("trec", "ag_news", "banking77", "sms_spam")
GENERATION = ("scitldr", "mconala")
CEILING_ROWS = {"classification": 4000, "generation": 800}
FRESH = {"generated": "student (generated)", "retrieved": "student (retrieved)", "both": "student (both)"}
SYSTEMS = (
    "teacher (raw)", "teacher (calibrated)", *(FRESH[arm] for arm in ("retrieved", "generated", "both")),
    "student (real labels)",
)  # fmt: skip


def main() -> None:
    """Run the arms that have no result yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(CLASSIFICATION + GENERATION))
    parser.add_argument("--rows", type=int, default=600, help="rows to generate for a task")
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--per-label", type=int, default=12, help="rows to generate for a label at least")
    parser.add_argument("--ceiling-rows", type=int, help="real rows at most; 4,000, and 800 for generation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-tasks")
    parser.add_argument("--print", action="store_true", dest="show")
    parser.add_argument("--set", action="append", default=[], help="stage.option=value, for experiments")
    args = parser.parse_args()
    records: list[dict[str, Any]] = read_results("tasks") if args.show else []
    if not args.show:
        for task in args.tasks.split(","):
            rows = max(args.rows, args.per_label * len(pack_task(task).labels))
            records += bench(task, rows, args.test_rows, args.ceiling_rows, args.seed, args.out, args.set)
            keep = [r for r in read_results("tasks") if r["task"] not in {x["task"] for x in records}]
            write_results("tasks", keep + records)
    print_table(records)
    print()
    print_table(by_task(records))


def by_task(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """README's table: a row a task, a column a system, the task's metric; None where an arm trained nothing."""
    rows = []
    for task in dict.fromkeys(record["task"] for record in records):
        metric = pack_task(task).metric
        own = {record["system"]: record.get(metric) for record in records if record["task"] == task}
        rows.append({"task": task, "metric": metric, **{name: own.get(name) for name in SYSTEMS}})
    return rows


def bench(
    task: str, rows: int, test_rows: int, ceiling_rows: int | None, seed: int, out: Path, pairs: list[str]
) -> list[dict[str, Any]]:
    """All arms of one task; finished arms are reused by the run folder."""
    from potstill.cli.settings import merge_settings
    from potstill.pipeline import run

    file = write_task(task, out)
    records: list[dict[str, Any]] = []
    for arm, name in FRESH.items():
        if arm == "both" and any(r["system"] == FRESH["retrieved"] and not r["train_rows"] for r in records):
            same = next((r for r in records if r["system"] == FRESH["generated"]), None)
            if same is not None:
                records.append({**same, "system": name, "note": "the generated rows: retrieval brought none"})
            continue
        started, reused = time.monotonic(), set[str]()
        options = merge_settings({"n": rows, "seed": seed, "sources": arm, "evaluate": {"rows": test_rows}}, pairs)
        try:
            result = run(str(file), out=out / task, listener=_say(task, arm, reused), **options)
        except Exception as error:  # an arm without rows is a result, not an end
            print(f"{task} {arm}: {type(error).__name__}: {error}", flush=True)
            records.append({"task": task, "system": name, "train_rows": 0, "note": str(error).split(";")[0]})
            continue
        seconds = None if {"datagen", "train"} & reused else time.monotonic() - started
        for system in result.scores["systems"]:
            if system["name"] == "student":
                records.append(_record(task, name, system, result.dataset.num_rows, seconds, result.spec.metric))
            elif arm == "generated":
                records.append(_record(task, system["name"], system, 0, None, result.spec.metric))
    records.append(ceiling(task, file, test_rows, ceiling_rows, seed, out, pairs))
    return records


def ceiling(
    task: str, file: Path, test_rows: int, rows: int | None, seed: int, out: Path, pairs: list[str]
) -> dict[str, Any]:
    """The same student trained on the real training split."""
    from potstill.cli.settings import merge_settings
    from potstill.retrieval.load import read_data
    from potstill.settings import resolve
    from potstill.task import DataRef
    from potstill.task.file import read_task_file
    from potstill.train.evaluate import evaluate_student
    from potstill.train.student import load_student

    read = read_task_file(str(file))
    spec, settings = read.spec, resolve(read.settings, merge_settings({"seed": seed}, pairs))
    assert spec.test is not None
    folder = out / task / f"ceiling-{seed}-{rows or CEILING_ROWS[spec.kind]}"
    trained = (folder / "config.json").exists()
    started = time.monotonic()
    real = read_data(
        DataRef(str(DATA / "tasks" / task / "train.parquet"), None, None, spec.test.inputs, spec.test.output), spec
    )
    count = min(real.num_rows, rows or CEILING_ROWS[spec.kind])
    train_on(spec, real.shuffle(seed=seed).select(range(count)).flatten_indices(), folder, settings)
    test = read_data(spec.test, spec)
    if test.num_rows > test_rows:
        test = test.shuffle(seed=seed).select(range(test_rows)).flatten_indices()
    scored = evaluate_student(load_student(folder), spec, test, latency_rows=5)
    seconds = None if trained else time.monotonic() - started
    return _record(task, "student (real labels)", scored.scores.to_json(), count, seconds, spec.metric)


def train_on(spec: TaskSpec, rows: Dataset, folder: Path, settings: Settings) -> Path:
    """A student on real rows alone; one that is in the folder already is left as it is.

    Which rows choose, and whether any do, goes by their number as in a run whose `labelled:` they are.
    """
    from potstill.datagen.heldout import separate_splits
    from potstill.datagen.merge import MergeOptions, split_rows

    if (folder / "config.json").exists():
        return folder
    options = MergeOptions(heldout=0.0)
    splits, _ = separate_splits(split_rows(spec, rows, options), options)
    distil = replace(settings.distil, soft_weight=0.0, hard_weight=settings.distil.hard_weight or 1.0)
    if spec.kind == "classification":
        from potstill.train.gold_rows import favour_gold
        from potstill.train.recipe import train_classifier

        led = favour_gold(splits.train, splits.validation, len(spec.labels))
        train_classifier(spec, led.train, led.validation, folder, distil)
    else:
        from potstill.train.recipe import train_generator

        train_generator(spec, splits.train, splits.validation, None, folder, distil)
    return folder


def _record(
    task: str, system: str, scores: dict[str, Any], train_rows: int, seconds: float | None, metric: str
) -> dict[str, Any]:
    kept = {
        k: round(v, 4) for k in ("accuracy", "macro_f1", "ece", "rouge_l", "chrf") if (v := scores.get(k)) is not None
    }
    ci = (scores.get("ci") or {}).get(metric) or [None, None]
    return {
        "task": task,
        "system": system,
        "train_rows": train_rows,
        **kept,
        "ci_low": ci[0],
        "ci_high": ci[1],
        "seconds": None if seconds is None else round(seconds),
    }


def _say(task: str, arm: str, reused: set[str] | None = None) -> Any:
    """A listener that prints what ends, and puts the stages that an earlier call had finished into `reused`."""
    from potstill.progress import _plain

    listen = _plain()

    def say(event: Any) -> None:
        if event.kind == "reused" and reused is not None:
            reused.add(event.stage)
        if event.kind in ("done", "failed", "note"):
            print(f"[{task}/{arm}]", end=" ", flush=True)
        listen(event)

    return say


if __name__ == "__main__":
    main()
