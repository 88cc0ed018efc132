"""Why a student without labels stays under its ceiling: the texts that were written, or the labels they bear?

    python benchmarks/zero_label_causes.py --tasks trec,go_emotions,sick --seed 0 --test-rows 600

After `zero_label.py --arms soft,ceiling` with the same `--out`: the written rows and the ceiling's student are taken
from there. As many real training texts are drawn as rows were written, and the same student learns, with hard labels
and the options of a run, from

    written, asked      the written texts, the label that was asked for: what a user without labels has
    written, true       the written texts, labelled by the ceiling's student: what better labels would bring
    real, teacher       real texts, labelled by the calibrated teacher: what better texts would bring
    real, true          real texts with their own labels: what both would bring

The ceiling's student stands for the truth about written texts, which nobody has read; it is wrong where it is wrong on
real ones, and more often where they are unlike these. `on_label` is the share of the written rows on which it says the
label that was asked for, `teacher_right` the accuracy of the calibrated teacher on the real texts.

Writes benchmarks/results/zero_label_causes.json: task, seed, texts, labels, rows, test_rows, accuracy, macro_f1,
ratio_to_ceiling, on_label, teacher_right.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pack import ROOT, PackTask, pack_task, rows_of, write_rows
from results_file import print_table, read_results, write_results
from tasks import train_on
from zero_label_arms import folder_of, real_rows, scores

NAME = "zero_label_causes"
HELD = ("text", "output")


def main() -> None:
    """Measure every task that has no record yet, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="trec,go_emotions,hate_speech_offensive,sick,subj,ag_news")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=400, help="as `zero_label.py` was told")
    parser.add_argument("--per-label", type=int, default=12, help="as `zero_label.py` was told")
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "zero-label")
    args = parser.parse_args()
    records = read_results(NAME)
    for name in args.tasks.split(","):
        if any((r["task"], r["seed"]) == (name, args.seed) for r in records):
            continue
        records = [*records, *measure(pack_task(name), args)]
        write_results(NAME, records)
    print_table(records)


def measure(task: PackTask, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The four students of one task, and the ceiling's."""
    from potstill.retrieval.load import read_data
    from potstill.settings import resolve
    from potstill.task import DataRef
    from potstill.task.file import read_task_file
    from potstill.train.student import load_student

    folder = args.out / task.name
    file = folder / f"soft-{args.seed}.md"
    found = sorted((folder / "supervised").glob(f"ceiling-{args.seed}-*"))
    if not file.exists() or not found:
        raise SystemExit(
            f"{folder} holds no run: zero_label.py --tasks {task.name} --arms soft,ceiling --out {args.out}"
        )
    read = read_task_file(str(file))
    settings = resolve(read.settings, {"seed": args.seed, "distil": {"empty_classes": "allow"}})
    test = rows_of(task.name, "test", args.test_rows)
    tested = read_data(read.spec.test, read.spec)["input"][: args.test_rows] if read.spec.test else []
    top = load_student(found[-1])

    texts, asked = _written(task, file, args)
    judged = [answer.output for answer in top.predict(texts)]
    drawn = folder / "data" / f"causes-{args.seed}.parquet"
    write_rows(real_rows(task, len(texts), args.seed), drawn, (*task.inputs, "output"))
    table = read_data(DataRef(str(drawn), inputs=task.inputs, output="output"), read.spec)
    real, gold = table["input"][:], table["output"][:]
    told = _teacher(read.spec, real, folder_of({"out": args.out, "task": task.name}), settings)

    shared = {
        "on_label": _agreement(judged, asked),
        "teacher_right": _agreement(told, gold),
        "rows": len(texts),
        "test_rows": len(test),
    }
    ceiling = scores(task, test, [answer.output for answer in top.predict(tested)])
    records = [_record(task, args.seed, "all real", "true", ceiling, ceiling, {**shared, "rows": None})]
    for kind, labels, inputs, outputs in (
        ("written", "asked", texts, asked),
        ("written", "true", texts, judged),
        ("real", "teacher", real, told),
        ("real", "true", real, gold),
    ):
        place = folder / "causes" / f"{kind}-{labels}-{args.seed}"
        rows = _rows(place.with_suffix(".parquet"), inputs, outputs, read.spec)
        student = load_student(train_on(read.spec, rows, place, settings))
        own = scores(task, test, [answer.output for answer in student.predict(tested)])
        records.append(_record(task, args.seed, kind, labels, own, ceiling, shared))
        print(records[-1], flush=True)
    return records


def _written(task: PackTask, file: Path, args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Texts and labels of the run's written rows: its stages are there, so nothing is made again."""
    from potstill.pipeline import run

    result = run(
        str(file),
        out=folder_of({"out": args.out, "task": task.name}),
        n=max(args.rows, args.per_label * len(task.labels)),
        seed=args.seed,
        evaluate={"rows": 0, "teacher": False, "latency_rows": 0},
    )
    rows = result.dataset
    kept = [place for place, origin in enumerate(rows["origin"][:]) if origin == "generated"]
    inputs, outputs = rows["input"][:], rows["output"][:]
    return [inputs[place] for place in kept], [outputs[place] for place in kept]


def _teacher(spec: Any, texts: Sequence[str], folder: Path, settings: Any) -> list[str]:
    """The calibrated teacher's labels of texts."""
    from potstill.asking.ledger import Ledger
    from potstill.pipeline import open_asker
    from potstill.stages.evaluation import teacher_answers

    with Ledger(folder / "ledger.sqlite") as ledger, open_asker(settings, ledger, lambda event: None) as asker:
        answers = {name: outputs for name, outputs, _ in teacher_answers(spec, list(texts), asker, settings.soft)}
    return list(answers["teacher (calibrated)"])


def _rows(path: Path, texts: Sequence[str], labels: Sequence[str], spec: Any) -> Any:
    """Rows as a user's own file of one text column and the answer."""
    from potstill.retrieval.load import read_data
    from potstill.task import DataRef

    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows([dict(zip(HELD, pair, strict=True)) for pair in zip(texts, labels, strict=True)], path, HELD)
    return read_data(DataRef(str(path), inputs=HELD[:1], output="output"), spec)


def _agreement(some: Sequence[str], others: Sequence[str]) -> float:
    return round(sum(a == b for a, b in zip(some, others, strict=True)) / max(len(some), 1), 4)


def _record(
    task: PackTask, seed: int, texts: str, labels: str, own: dict[str, float], top: dict[str, float], shared: Any
) -> dict[str, Any]:
    ratio = round(own["macro_f1"] / top["macro_f1"], 4)
    return {
        "task": task.name,
        "seed": seed,
        "texts": texts,
        "labels": labels,
        **own,
        "ratio_to_ceiling": ratio,
        **shared,
    }


if __name__ == "__main__":
    main()
