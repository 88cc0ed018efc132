"""Does retrieval pay? Students of generated rows only, of retrieved rows only, and of both, on eight real tasks.

    python benchmarks/retrieval_pays.py                 eight tasks, three seeds; hours on 2 cores, and resumable
    python benchmarks/retrieval_pays.py --quick         two tasks, one seed, few rows: that it works
    python benchmarks/retrieval_pays.py --print         the table of the last results, and means

Each task is given as a user would give it: prompt and label names. The catalogue is the datasets of
`found_datasets.py` and the data pack's tasks, whose rows are there, and the pack's 771 cards, whose rows are on the Hub
and may be out of reach; the task's own dataset and its copies are excluded, and merge drops every row that meets a test
text. `both` and `generated` ask for the same number of written rows. Where no dataset has rows for a task, `retrieved`
trains no student: macro_f1 is null and the note says so; `both` is then what it would be for a user, the generated rows
alone. go_emotions: rows with one Ekman label, as in the pack's own reference.

Writes benchmarks/results/retrieval_pays.json after each run: task, arm, seed, macro_f1, and rows by origin. `--quick`
writes nothing there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import found_datasets
from pack import ROOT, pack_task, write_task
from results_file import print_table, read_results, write_results
from tasks import _say

TASKS = ("ag_news", "customer_reviews", "go_emotions", "hate_speech_offensive", "sms_spam", "snips", "subj", "trec")
ARMS = ("generated", "retrieved", "both")


def main() -> None:
    """Run what has no result yet, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--rows", type=int, default=400, help="rows to generate for a task")
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "retrieval-pays")
    parser.add_argument("--quick", action="store_true", help="two tasks, one seed, few rows; results are only printed")
    parser.add_argument("--print", action="store_true", dest="show")
    parser.add_argument("--set", action="append", default=[], help="stage.option=value, for experiments")
    args = parser.parse_args()
    if args.quick:
        args.tasks, args.seeds, args.rows, args.test_rows = "trec,sms_spam", "0", 40, 200
        args.out = args.out.with_name("retrieval-pays-quick")
        args.set = [*args.set, "distil.epochs=1"]
    # An experiment with other options is no result of the product's defaults.
    kept = not args.quick and not args.set
    records = read_results("retrieval_pays") if kept or args.show else []
    if not args.show:
        found_datasets.make()
    for task in [] if args.show else args.tasks.split(","):
        for seed in map(int, args.seeds.split(",")):
            for arm in args.arms.split(","):
                if any((r["task"], r["arm"], r["seed"]) == (task, arm, seed) for r in records):
                    continue
                records.append(bench(task, arm, seed, args.rows, args.test_rows, args.out, args.set))
                print(json.dumps(records[-1]), flush=True)
                if kept:
                    write_results("retrieval_pays", records)
    print_table(records)
    print()
    print_table(means(records))


def bench(task: str, arm: str, seed: int, rows: int, test_rows: int, out: Path, pairs: list[str]) -> dict[str, Any]:
    """One student: its score and what it was trained on."""
    from potstill.cli.settings import merge_settings
    from potstill.errors import DataError
    from potstill.pipeline import run

    file = write_task(task, out)
    labels = len(pack_task(task).labels)
    given = {"n": max(rows, 12 * labels), "seed": seed, "sources": arm}
    options = merge_settings({**given, "evaluate": {"rows": test_rows, "teacher": False, "latency_rows": 1}}, pairs)
    record: dict[str, Any] = {"task": task, "arm": arm, "seed": seed, "macro_f1": None}
    started = time.monotonic()
    try:
        result = run(str(file), out=out / task, listener=_say(task, f"{arm}-{seed}"), **options)
    except DataError as error:  # an arm without rows is a result, not an end
        return {**record, "note": str(error).splitlines()[0][:160]}
    (student,) = (system for system in result.scores["systems"] if system["name"] == "student")
    origins = Counter(result.dataset["origin"][:])
    return {
        **record,
        "macro_f1": round(student["macro_f1"], 4),
        "accuracy": round(student["accuracy"], 4),
        "generated_rows": origins["generated"],
        "retrieved_rows": origins["retrieved"],
        "seconds": round(time.monotonic() - started),
    }


def means(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean macro-F1 by arm: over all tasks that the arm has a student for, and over those that all arms have."""
    by_task = {
        (arm, task): [
            r["macro_f1"] for r in records if (r["arm"], r["task"]) == (arm, task) and r["macro_f1"] is not None
        ]
        for arm in ARMS
        for task in {r["task"] for r in records}
    }
    shared = [task for task in {t for _, t in by_task} if all(by_task[arm, task] for arm in ARMS)]
    rows = []
    for arm in ARMS:
        own = {task: sum(found) / len(found) for (a, task), found in by_task.items() if a == arm and found}
        every = sum(own.values()) / len(own) if own else None
        same = sum(own[task] for task in shared) / len(shared) if shared else None
        rows.append({"arm": arm, "tasks": len(own), "macro_f1": every, "shared": len(shared), "macro_f1_shared": same})
    return rows


if __name__ == "__main__":
    main()
