"""No labels in, how much of the supervised quality out? Every part of the product on sixteen real tasks.

    python benchmarks/zero_label.py                     all tasks and arms; goes on where it stopped
    python benchmarks/zero_label.py --quick             three tasks, few rows: that it works, in 15 minutes
    python benchmarks/zero_label.py --tasks trec,subj --arms soft,labelled_100,ceiling --seeds 0
    python benchmarks/zero_label.py --print             the tables of the last results

Each task is given as a user would give it: a task file with the prompt and the label names, nothing else. The task's
own dataset and its copies are excluded from retrieval, and so are the small datasets that potstill ships, whose authors
knew these tasks; merge drops every row that meets a test text. The arms,
which `zero_label_arms.py` measures:

    teacher_raw, teacher_calibrated   the teacher itself; batch calibration on the test texts, without their labels
    retrieved, generated, both        a student on these rows with their hard labels
    soft                              `both` with soft targets: the product as it comes
    verified                          `soft`, and the teacher checks the written rows
    self_training                     `soft`, and texts without labels (the real training texts), which a mixture labels
                                      or, in generation tasks, the teacher answers in place of written inputs
    rules                             `soft`, and these texts labelled by keywords: words of one label's name alone
    everything                        `soft` with verification, self-training and rules
    labels_100                        a student on 100 real labelled rows and nothing else
    labelled_100, self_training_100, everything_100
                                      `soft`, `self_training`, `everything` with these 100 rows as `labelled:`
    labels_chosen, self_training_chosen
                                      `labels_100`, `self_training_100` with 100 rows that `potstill label` chose out of
                                      the texts without labels, in batches, instead of a fair draw
    ceiling                           a student on all real rows (at most --ceiling-rows)

What a user may have (no label, texts, a hundred labels) and its ceiling are measured with three seeds, the parts of the
product one by one, and generation tasks, with the first; `--seeds` and `--arms` say otherwise.

Generation tasks have no label scores or rules: they leave out the arms with these; their `verified` lets a judge look.
A row costs them many times as much, so their defaults are smaller. gsm8k, and another task whose card says so, is
judged by the final number, tasks of many sub-tasks by the mean over them, tasks with several right answers by the best.

Each arm runs in a process of its own, all arms of a task in one run folder, so that a stage that several arms share is
paid once. `tokens` and `minutes` are what an arm takes when it stands alone: the sum over its stages, as they were when
they were made. `peak_rss_mib` is of the process, so of the stages that it made itself. A record is written when it is
there; a rerun makes what is missing. Experiments (`--quick`, `--set`, another teacher) write beside the run folders.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any

from pack import CLASSIFICATION, FOUND, GENERATION, ROOT, pack_task
from results_file import FOLDER, print_table, read_results, write_results
from zero_label_arms import CLASSES_ONLY, FIGURES, LABELLED, ORDER, SIZES_TOLD, TEACHERS, folder_of, measure

NAME = "zero_label"
# What a user gets who changes nothing, by the labels that were given.
PRODUCT = (
    (0, "soft"),
    (0, "self_training"),
    (LABELLED, "labelled_100"),
    (LABELLED, "self_training_100"),
    (LABELLED, "self_training_chosen"),
)
# Arms that show what each part brings; the others are the product as it comes and what it is measured by.
PARTS = ("both", "generated", "retrieved", "verified", "rules", "everything", "everything_100")
SEEDS = (0, 1, 2)
# Rows to write, rows to be tested on, and real rows of the ceiling.
SIZES = {"classification": (400, 1000, 2000), "generation": (200, 150, 200)}
QUICK = {"tasks": "subj,trec,scitldr", "seeds": "0", "rows": 40, "test_rows": 60, "ceiling_rows": 300, "texts": 200}


def main(argv: Sequence[str] | None = None) -> None:
    """Run what has no record yet, and print the tables."""
    args = _arguments(argv)
    if args.job:
        print(json.dumps(measure(json.loads(args.job))))
        return
    folder = args.out if args.quick or args.set or args.teacher != "transformers" else FOLDER
    if not (args.show or FOUND.exists()):
        told = "retrieval goes without the datasets of others that the tables had; found_datasets.py makes them"
        print(f"no {FOUND}: {told}", file=sys.stderr, flush=True)
    records = read_results(NAME, folder)
    failed: list[tuple[str, str, int]] = []
    lock = Lock()

    def make(jobs_of_task: Sequence[Mapping[str, Any]]) -> None:
        """Arms of one task share a run folder, so they follow one another; tasks may go side by side."""
        nonlocal records
        for job in jobs_of_task:
            place = _place(job)
            if _known(job, records):
                _tell_other_sizes(job, records)
                continue
            began = time.monotonic()
            log = folder_of(job).with_name("log.txt")
            with log.open("a") as errors:
                child = subprocess.run(
                    [sys.executable, str(Path(__file__).resolve()), "--job", json.dumps(job)],
                    stdout=subprocess.PIPE,
                    stderr=errors if args.workers > 1 else None,
                    text=True,
                )
            with lock:
                if child.returncode:
                    failed.append(place)
                    print(f"{place}: ended with {child.returncode}; see {log}", file=sys.stderr, flush=True)
                    continue
                fresh = [r for r in json.loads(child.stdout.splitlines()[-1]) if not _known(r, records)]
                records = with_ratios([*records, *fresh])
                write_results(NAME, records, folder)
                write_results(f"{NAME}_summary", summary(records), folder)
                shown = {key: value for key, value in records[-1].items() if value is not None}
                print(f"{json.dumps(shown)} in {time.monotonic() - began:.0f} s", flush=True)

    by_task = [list(own) for _, own in groupby([] if args.show else jobs(args), key=lambda job: job["task"])]
    with ThreadPoolExecutor(max_workers=args.workers) as pool:
        list(pool.map(make, by_task))
    print_table([{key: r.get(key) for key in _columns(records)} for r in records])
    print()
    print_table(by_arm(records))
    print()
    print_table(summary(records))
    if failed:
        raise SystemExit(f"{len(failed)} arms failed; run again to try them again: {failed}")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="%(prog)s [options]"
    )
    parser.add_argument("--tasks", default=None, help="by default all sixteen")
    parser.add_argument("--arms", default=None, help="by default all; the parts of the product with the first seed")
    parser.add_argument("--seeds", default=None, help="by default 0,1,2, generation tasks 0")
    parser.add_argument("--rows", type=int, default=None, help="rows to generate for a task; 400, generation 200")
    parser.add_argument("--per-label", type=int, default=12, help="rows to generate for a label at least")
    parser.add_argument("--test-rows", type=int, default=None, help="the first so many; 1,000, generation 150")
    parser.add_argument("--ceiling-rows", type=int, default=None, help="real rows at most; 2,000, generation 200")
    parser.add_argument("--texts", type=int, default=None, help="unlabelled texts at most; 2,000")
    parser.add_argument("--teacher", default="transformers")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="three tasks, one seed, few rows, one epoch")
    parser.add_argument("--workers", type=int, default=1, help="tasks side by side; minutes then tell little")
    parser.add_argument("--print", action="store_true", dest="show")
    parser.add_argument("--set", action="append", default=[], help="stage.option=value, for experiments")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    full = {"tasks": ",".join((*CLASSIFICATION, *GENERATION)), "texts": 2000}
    for name, value in (QUICK if args.quick else full).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.quick:
        args.per_label = min(args.per_label, 4)
        args.set = ["distil.epochs=1", "distil.min_steps=20", *args.set]
    args.out = args.out or ROOT / "runs" / ("zero-label-quick" if args.quick else "zero-label")
    unknown = sorted(set(args.arms.split(",") if args.arms else ()) - set(ORDER))
    if unknown:
        raise SystemExit(f"--arms: no such arm: {', '.join(unknown)}; known are {', '.join(ORDER)}")
    return args


def jobs(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What is to be measured, in the order in which stages are shared best: a task's arms one after another."""
    found = []
    arms = [arm for arm in ORDER if not args.arms or arm in args.arms.split(",")]
    for name in args.tasks.split(","):
        task = pack_task(name)
        rows, test_rows, ceiling_rows = SIZES["classification" if task.labels else "generation"]
        rows = rows if args.rows is None else args.rows
        seeds = tuple(map(int, args.seeds.split(","))) if args.seeds else SEEDS if task.labels else SEEDS[:1]
        for seed in seeds:
            for arm in arms:
                # The teacher's greedy answers and label scores do not depend on a seed.
                once = arm in TEACHERS or (arm in PARTS and not args.arms)
                if (once and seed != seeds[0]) or (arm in CLASSES_ONLY and not task.labels):
                    continue
                found.append(
                    {
                        "task": name,
                        "arm": arm,
                        "seed": seed,
                        "rows": max(rows, args.per_label * len(task.labels)),
                        "test_rows": test_rows if args.test_rows is None else args.test_rows,
                        "ceiling_rows": ceiling_rows if args.ceiling_rows is None else args.ceiling_rows,
                        "texts": args.texts,
                        "teacher": args.teacher,
                        "out": str(args.out.resolve()),
                        "set": args.set,
                    }
                )
    return found


def with_ratios(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every record with its share of the ceiling: of the same seed, else of the mean over seeds."""
    found = []
    for record in records:
        metric = record.get("metric") or pack_task(record["task"]).metric  # whose task may not be at hand
        tops = [r for r in records if r["task"] == record["task"] and r["arm"] == "ceiling" and r.get(metric)]
        tops = [r for r in tops if r["seed"] == record["seed"]] or tops
        top = sum(r[metric] for r in tops) / len(tops) if tops else None
        own = record.get(metric)
        ratio = round(own / top, 4) if top and own is not None else None
        found.append({**record, "metric": metric, "ratio_to_ceiling": ratio})
    return found


def summary(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The product as it comes, by the labels it was given: mean over classification tasks of the share of the ceiling.

    A task counts by the mean over its seeds; an arm that trained no student counts 0.
    """
    found = []
    for labels, arm in PRODUCT:
        ratios = _ratios([r for r in records if r["metric"] == "macro_f1"], arm)
        mean = round(sum(ratios.values()) / len(ratios), 4) if ratios else None
        worst = min(ratios, key=lambda task: ratios[task]) if ratios else None
        lowest = round(ratios[worst], 4) if worst else None
        found.append(
            {"labels": labels, "mean_ratio_to_ceiling": mean, "tasks": len(ratios), "arm": arm}
            | {"lowest_ratio": lowest, "lowest_task": worst}
        )
    return found


def by_arm(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean share of the ceiling, minutes and tokens of each arm, for classification and for generation tasks."""
    found = []
    for kind in ("classification", "generation"):
        own = [r for r in records if (r["metric"] == "macro_f1") == (kind == "classification")]
        for arm in ORDER:
            ratios, of_arm = _ratios(own, arm), [r for r in own if r["arm"] == arm]
            if not ratios:
                continue
            line: dict[str, Any] = {"kind": kind, "arm": arm, "tasks": len(ratios)}
            line["mean_ratio_to_ceiling"] = round(sum(ratios.values()) / len(ratios), 4)
            for name in ("minutes", "tokens", "peak_rss_mib"):
                values = [r[name] for r in of_arm if r.get(name) is not None]
                line[name] = round(sum(values) / len(values), 1) if values else None
            found.append(line)
    return found


def _ratios(records: Sequence[Mapping[str, Any]], arm: str) -> dict[str, float]:
    """Share of the ceiling of each task that has one, mean over seeds."""
    found: dict[str, list[float]] = defaultdict(list)
    tops = {r["task"] for r in records if r["arm"] == "ceiling" and r["ratio_to_ceiling"] is not None}
    for record in records:
        if record["arm"] == arm and record["task"] in tops:
            found[record["task"]].append(record["ratio_to_ceiling"] or 0.0)
    return {task: sum(values) / len(values) for task, values in found.items()}


def _known(record: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> bool:
    return any(_place(record) == _place(other) for other in records)


def _tell_other_sizes(job: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
    """Say where what is known was measured on other numbers of rows than are asked for."""
    known = next(record for record in records if _place(record) == _place(job))
    other = {name: known[name] for name in SIZES_TOLD if name in known and known[name] != job[name]}
    if other:
        print(
            f"{_place(job)} is known with {other}; give another --out to measure it anew", file=sys.stderr, flush=True
        )


def _place(record: Mapping[str, Any]) -> tuple[str, str, int]:
    return record["task"], record["arm"], record["seed"]


def _columns(records: Sequence[Mapping[str, Any]]) -> list[str]:
    last = ("ratio_to_ceiling", "tokens", "minutes", "peak_rss_mib", "note")
    used = [name for name in FIGURES if any(r.get(name) is not None for r in records)]
    return ["task", "arm", "labels", "seed", *used, *last]


if __name__ == "__main__":
    main()
