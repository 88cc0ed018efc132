"""How many labels are texts and a hundred chosen labels worth, and how many would bring what the aim asks for?

    python benchmarks/zero_label_worth.py --test-rows 600

The student of `zero_label.py` learns more and more real labelled rows of the training split, drawn by the seed, and
nothing else; all in one run. On the curve of their macro-F1 over the logarithm of their number it is read off

    worth       where the curve first reaches what the product reaches with what it was given (`zero_label.json`)
    needed      where it first reaches a share of its last point

An arm below the first point is worth fewer labels than that, one above the last more.

Writes benchmarks/results/zero_label_worth.json: task, seed, labels, rows, test_rows, accuracy, macro_f1, minutes.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pack import ROOT, pack_task, rows_of
from results_file import print_table, read_results, write_results
from zero_label import NAME as PRODUCT
from zero_label_arms import answers_of_taught, real_data, scores, task_file

NAME = "zero_label_worth"
COUNTS = (100, 200, 400, 800, 2000)
ARMS = {"soft": "nothing", "self_training": "texts", "self_training_chosen": "texts and 100 chosen"}
SHARES = (0.9, 0.95)
Curve = Sequence[tuple[int, float]]


def main() -> None:
    """Measure what has no record yet, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="trec,banking77,hate_speech_offensive,go_emotions,sick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), help="how many real rows, each in its turn")
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "zero-label-worth")
    args = parser.parse_args()
    records = read_results(NAME)
    for name in args.tasks.split(","):
        tested = len(rows_of(name, "test", args.test_rows))  # fewer than asked for where the split is small
        for count in map(int, args.counts.split(",")):
            key = (name, args.seed, count, tested)
            if key not in [(r["task"], r["seed"], r["labels"], r["test_rows"]) for r in records]:
                records = [*records, measure(name, count, args)]
                write_results(NAME, records)
                print(records[-1], flush=True)
    print_table(table(records, read_results(PRODUCT), args.seed))


def measure(name: str, count: int, args: argparse.Namespace) -> dict[str, Any]:
    """The student of so many real rows."""
    task = pack_task(name)
    test = rows_of(name, "test", args.test_rows)
    file = task_file(task, f"real-{count}", test, {"out": args.out, "seed": args.seed})
    began = time.monotonic()
    # A few rows need not hold every label.
    given = {"seed": args.seed, "distil": {"empty_classes": "allow"}}
    answers, learnt = answers_of_taught(file, real_data(task, count, args.seed, file.parent), "real", given)
    minutes = round((time.monotonic() - began) / 60, 2)
    place = {"task": name, "seed": args.seed, "labels": count, "rows": learnt, "test_rows": len(test)}
    return {**place, **scores(task, test, answers), "minutes": minutes}


def table(
    records: Sequence[Mapping[str, Any]], product: Sequence[Mapping[str, Any]], seed: int
) -> list[dict[str, Any]]:
    """One row a task: the curve, what each arm of the product is worth in labels, and how many its aims need."""
    counts = sorted({r["labels"] for r in records})
    found = []
    for task in dict.fromkeys(r["task"] for r in records):
        curve = sorted((r["labels"], r["macro_f1"]) for r in records if (r["task"], r["seed"]) == (task, seed))
        if not curve:
            continue
        row: dict[str, Any] = {"task": task, **{f"on {count:,} labels": dict(curve).get(count) for count in counts}}
        for arm, given in ARMS.items():
            own = [r["macro_f1"] for r in product if (r["task"], r["arm"], r["seed"]) == (task, arm, seed)]
            row[f"{given}: worth"] = labels_for(curve, own[0]) if own and own[0] is not None else "–"
        row |= {f"{100 * share:.0f} % needs": labels_for(curve, share * curve[-1][1]) for share in SHARES}
        found.append(row)
    return found


def labels_for(curve: Curve, wanted: float) -> str:
    """How many labels first bring a macro-F1, between two points by the logarithm of their number.

    Examples:
        >>> labels_for([(100, 0.5), (400, 0.7), (1600, 0.7)], 0.6)
        '200'
        >>> labels_for([(100, 0.5), (400, 0.7)], 0.4), labels_for([(100, 0.5), (400, 0.7)], 0.8)
        ('< 100', '> 400')
    """
    first, last = curve[0], curve[-1]
    if first[1] >= wanted:
        return f"{first[0]:,}" if first[1] == wanted else f"< {first[0]:,}"
    for (few, low), (many, high) in pairwise(curve):
        if high >= wanted:
            share = (wanted - low) / (high - low)
            return f"{round(math.exp(math.log(few) + share * math.log(many / few)), -1):,.0f}"
    return f"> {last[0]:,}"


if __name__ == "__main__":
    main()
