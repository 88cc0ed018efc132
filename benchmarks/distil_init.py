"""A classifier of half the layers, started from the whole one: what it keeps, and how fast it answers.

    python benchmarks/distil_init.py                    eight tasks
    python benchmarks/distil_init.py --tasks trec,subj
    python benchmarks/distil_init.py --print            the table of the last results
    python benchmarks/distil_init.py --choose --tasks trec --copies 0
                                                        on other rows of the training split, to choose options by;
                                                        nothing is written

all-MiniLM-L6-v2 is trained on rows of a task's real training split (labels and all: this measures the start of the
student, not its data), with a tenth held out. Then the first three of its six layers are trained on the same rows by
`distil.student_layers=3`: they start from the trained model's layers and learn its probabilities, the labels, the
direction of its hidden states, on the rows and `--copies` altered ones of each. With `--narrow`, also three layers with
`--ffn` of their feed-forward neurons; with `--cut`, also three layers of the base model, their head fitted as the whole
student's is and no whole student to learn from. Both students also have the layer that averages before the head
(`potstill.train.head_start`), which is not counted. Macro-F1 is on the real test split; latency is the CPU time
of one text at a time, all models on the same texts in turns; set OMP_NUM_THREADS=1.

Writes benchmarks/results/distil_init.json (task, layers, start, macro_f1, latency_ms, kept).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from label_rows import ROOT, TASKS, real_rows, task_spec
from results_file import merge_results, print_table, read_results

from potstill.train.options import DistilOptions

KEY = ("task", "layers", "start")
ARMS = ((6, "base"), (3, "deep"), (3, "deep, narrow"), (3, "cut"))


def main() -> None:
    """Make the missing tasks' records and print the table with its means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--rows", type=int, default=320, help="rows of the training split")
    parser.add_argument("--test-rows", type=int, default=400)
    parser.add_argument("--max-length", type=int, default=64, help="tokens of a text")
    parser.add_argument("--hidden-weight", type=float, default=1.0)
    parser.add_argument("--copies", type=int, default=DistilOptions().altered_copies, help="distil.altered_copies")
    parser.add_argument("--choose", action="store_true", help="measure on rows of the training split, write nothing")
    parser.add_argument("--narrow", action="store_true", help="also three layers with fewer neurons")
    parser.add_argument("--ffn", type=float, default=0.5, help="distil.student_ffn of --narrow")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the training")
    parser.add_argument("--cut", action="store_true", help="also three layers of the base model")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-init")
    parser.add_argument("--print", action="store_true", dest="show")
    args = parser.parse_args()
    if args.choose:
        args.out = args.out.with_name(f"bench-init-choose-{args.copies}-{args.hidden_weight:g}-{args.ffn:g}")
        found = [record for task in args.tasks.split(",") for record in bench(task, args)]
        print_table([*found, *means(found)])
        return
    if not args.show:
        for task in args.tasks.split(","):
            done = {tuple(record[name] for name in KEY) for record in read_results("distil_init")}
            if any((task, *arm) not in done for arm in wanted(args)):
                records = bench(task, args)
                merge_results("distil_init", records, KEY)
                print(json.dumps(records), flush=True)
    records = read_results("distil_init")
    print_table([*records, *means(records)])


def wanted(args: argparse.Namespace) -> list[tuple[int, str]]:
    """The arms to measure."""
    left_out = {ARMS[2]: not args.narrow, ARMS[3]: not args.cut}
    return [arm for arm in ARMS if not left_out.get(arm)]


def means(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean of each arm over the tasks."""
    found = []
    for layers, start in ARMS:
        own = [record for record in records if (record["layers"], record["start"]) == (layers, start)]
        if own:
            mean = {name: sum(r[name] for r in own) / len(own) for name in ("macro_f1", "latency_ms", "kept", "speed")}
            found.append({"task": f"mean of {len(own)}", "layers": layers, "start": start, **mean})
    return found


def bench(task: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The students of one task; trained ones are reused."""
    from potstill.datagen.merge import MergeOptions, split_rows
    from potstill.train.classify import distil_classifier
    from potstill.train.evaluate import evaluate_student
    from potstill.train.student import load_student

    spec, _ = task_spec(task, args.out)
    given = real_rows(task, spec, "train", args.rows)
    test = real_rows(task, spec, "test", args.test_rows)
    if args.choose:
        both = real_rows(task, spec, "train", args.rows + args.test_rows)
        given, test = both.select(range(args.rows)), both.select(range(args.rows, both.num_rows))
    splits = split_rows(spec, given, MergeOptions(heldout=0.0))
    place = args.out / task
    # Rows of people have no soft targets; the deep student's own take their place in the second arm.
    plain = DistilOptions(
        soft_weight=0.0, hard_weight=1.0, max_length=args.max_length, empty_classes="allow", precision=args.precision
    )
    triple = replace(
        plain, student_layers=3, soft_weight=0.5, hard_weight=0.5, hidden_weight=args.hidden_weight,
        altered_copies=args.copies,
    )  # fmt: skip
    chosen = {
        ARMS[0]: ("deep", replace(plain, calibrate=False)),
        ARMS[1]: ("shallow", triple),
        ARMS[2]: (f"narrow-{args.ffn:g}", replace(triple, student_ffn=args.ffn)),
        ARMS[3]: ("cut", replace(plain, student_layers=3)),
    }
    students = {}
    for arm in wanted(args):
        name, options = chosen[arm]
        deep = place / "deep" if arm[1].startswith("deep") else None
        result = distil_classifier(spec, splits.train, splits.validation, place / name, options, deep=deep)
        students[arm] = load_student(result.path)
    latency = latencies(students, list(test["input"]))
    scores = {
        arm: float(evaluate_student(student, spec, test, latency_rows=0).scores.macro_f1 or 0)
        for arm, student in students.items()
    }
    return [
        {
            "task": task, "layers": arm[0], "start": arm[1], "macro_f1": round(scores[arm], 4),
            "latency_ms": round(latency[arm], 3), "kept": round(scores[arm] / scores[ARMS[0]], 4),
            "speed": round(latency[ARMS[0]] / latency[arm], 3),
            "neurons": int(students[arm].model.config.intermediate_size), "train_rows": splits.train.num_rows,
            "test_rows": test.num_rows, "precision": args.precision,
        }
        for arm in students
    ]  # fmt: skip


def latencies(students: dict[Any, Any], texts: list[str], rows: int = 24, rounds: int = 3) -> dict[Any, float]:
    """Milliseconds for one text (the least of the rounds' medians), the students in turns.

    CPU time of the process: on one thread of a quiet machine that is the wall clock, and a busy one changes it little.
    """
    found: dict[Any, list[float]] = {name: [] for name in students}
    for _ in range(rounds):
        for name, student in students.items():
            spent = []
            for text in [texts[0], *texts[:rows]]:  # the first one warms up
                started = time.process_time()
                student.predict([text])
                spent.append(1000 * (time.process_time() - started))
            found[name].append(statistics.median(spent[1:]))
    return {name: min(values) for name, values in found.items()}


if __name__ == "__main__":
    main()
