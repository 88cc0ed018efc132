"""No labels in, how much of the supervised quality out? Every part of the product on sixteen real tasks.

    python benchmarks/zero_label.py                     all tasks, arms and three seeds; goes on where it stopped
    python benchmarks/zero_label.py --quick             three tasks, few rows: that it works, in 15 minutes
    python benchmarks/zero_label.py --tasks trec,subj --arms soft,labelled_100,ceiling --seeds 0
    python benchmarks/zero_label.py --print             the tables of the last results

Each task is given as a user would give it: a task file with the prompt and the label names, nothing else. The task's
own dataset and its copies are excluded from retrieval, and so are the small datasets that potstill ships, whose authors
knew these tasks; merge drops every row that meets a test text. Arms:

    teacher_raw, teacher_calibrated   the teacher itself; batch calibration on the test texts, without their labels
    retrieved, generated, both        a student on these rows with their hard labels
    soft                              `both` with soft targets: the product as it comes
    verified                          `soft`, and the teacher checks the written rows
    self_training                     `soft`, and texts without labels (the real training texts), which a mixture labels
    rules                             `soft`, and these texts labelled by keywords: words of one label's name alone
    everything                        `soft` with verification, self-training and rules
    labels_100                        a student on 100 real labelled rows and nothing else
    labelled_100, self_training_100, everything_100
                                      `soft`, `self_training`, `everything` with these 100 rows as `labelled:`
    ceiling                           a student on all real rows (at most --ceiling-rows)

Generation tasks have no soft label scores, rules or self-training: they leave out the arms with these; their `verified` lets a judge look. gsm8k is judged by the final number, tasks of many sub-tasks by the
mean over them, tasks with several right answers by the best.

Each arm runs in a process of its own, all arms of a task in one run folder, so that a stage that several arms share is
paid once. `tokens` and `minutes` are what an arm takes when it stands alone: the sum over its stages, as they were when
they were made. `peak_rss_mib` is of the process, so of the stages that it made itself. A record is written when it is
there; a rerun makes what is missing. Experiments (`--quick`, `--set`, another teacher) write beside the run folders.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from pack import CLASSIFICATION, GENERATION, ROOT, PackTask, data_ref, pack_task, rows_of, write_rows, write_task
from results_file import FOLDER, print_table, read_results, write_results

if TYPE_CHECKING:
    from potstill.pipeline import RunResult

NAME = "zero_label"
HARD = {"distil": {"soft_weight": 0.0}}
# What the caller of an arm says, and what stands in its task file beside prompt and labels.
ARMS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "both": (HARD, ()),
    "soft": ({}, ()),
    "generated": ({"sources": "generated", **HARD}, ()),
    "retrieved": ({"sources": "retrieved", **HARD}, ()),
    "verified": ({"quality": {"verify": True}}, ()),
    "self_training": ({}, ("unlabelled",)),
    "rules": ({"self_training": {"rounds": 0}}, ("unlabelled", "rules")),
    "everything": ({"quality": {"verify": True}}, ("unlabelled", "rules")),
    "labelled_100": ({}, ("labelled",)),
    "self_training_100": ({}, ("unlabelled", "labelled")),
    "everything_100": ({"quality": {"verify": True}}, ("unlabelled", "rules", "labelled")),
}
TEACHERS = ("teacher_raw", "teacher_calibrated")
ORDER = (*TEACHERS, *ARMS, "labels_100", "ceiling")
CLASSES_ONLY = ("teacher_calibrated", "self_training", "rules", "everything", "self_training_100", "everything_100")
LABELLED = 100
# What a user gets who changes nothing: by the labels that were given, without and with texts that have none.
PRODUCT = ((0, "soft"), (0, "self_training"), (LABELLED, "labelled_100"), (LABELLED, "self_training_100"))
FIGURES = ("accuracy", "macro_f1", "rouge_l", "chrf", "exact_match")
QUICK = {"tasks": "subj,trec,scitldr", "seeds": "0", "rows": 40, "test_rows": 60, "ceiling_rows": 300, "texts": 200}


def main(argv: Sequence[str] | None = None) -> None:
    """Run what has no record yet, and print the tables."""
    args = _arguments(argv)
    if args.job:
        print(json.dumps(measure(json.loads(args.job))))
        return
    folder = args.out if args.quick or args.set or args.teacher != "transformers" else FOLDER
    records = read_results(NAME, folder)
    failed: list[tuple[str, str, int]] = []
    lock = Lock()

    def make(jobs_of_task: Sequence[Mapping[str, Any]]) -> None:
        """Arms of one task share a run folder, so they follow one another; tasks may go side by side."""
        nonlocal records
        for job in jobs_of_task:
            place = _place(job)
            if _known(job, records):
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
    parser.add_argument("--arms", default=",".join(ORDER))
    parser.add_argument("--seeds", default=None, help="by default 0,1,2")
    parser.add_argument("--rows", type=int, default=None, help="rows to generate for a task; 400")
    parser.add_argument("--per-label", type=int, default=12, help="rows to generate for a label at least")
    parser.add_argument("--test-rows", type=int, default=None, help="the first so many; 1,000")
    parser.add_argument("--ceiling-rows", type=int, default=None, help="real rows at most; 2,000, generation 400")
    parser.add_argument("--texts", type=int, default=None, help="unlabelled texts at most; 2,000")
    parser.add_argument("--teacher", default="transformers")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="three tasks, one seed, few rows, one epoch")
    parser.add_argument("--workers", type=int, default=1, help="tasks side by side; minutes then tell little")
    parser.add_argument("--print", action="store_true", dest="show")
    parser.add_argument("--set", action="append", default=[], help="stage.option=value, for experiments")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    full = {"tasks": ",".join((*CLASSIFICATION, *GENERATION)), "seeds": "0,1,2", "rows": 400, "test_rows": 1000}
    for name, value in (QUICK if args.quick else {**full, "texts": 2000}).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.quick:
        args.per_label = min(args.per_label, 4)
        args.set = ["distil.epochs=1", "distil.min_steps=20", *args.set]
    args.out = args.out or ROOT / "runs" / ("zero-label-quick" if args.quick else "zero-label")
    unknown = sorted(set(args.arms.split(",")) - set(ORDER))
    if unknown:
        raise SystemExit(f"--arms: no such arm: {', '.join(unknown)}; known are {', '.join(ORDER)}")
    return args


def jobs(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What is to be measured, in the order in which stages are shared best: a task's arms one after another."""
    chosen = set(args.arms.split(","))
    found = []
    for name in args.tasks.split(","):
        task = pack_task(name)
        for seed in map(int, args.seeds.split(",")):
            for arm in ORDER:
                # The teacher's greedy answers and label scores do not depend on a seed.
                again = arm in TEACHERS and seed != int(args.seeds.split(",")[0])
                if arm not in chosen or again or (arm in CLASSES_ONLY and not task.labels):
                    continue
                found.append(
                    {
                        "task": name,
                        "arm": arm,
                        "seed": seed,
                        "rows": max(args.rows, args.per_label * len(task.labels)),
                        "test_rows": args.test_rows,
                        "ceiling_rows": args.ceiling_rows or (2000 if task.labels else 400),
                        "texts": args.texts,
                        "teacher": args.teacher,
                        "out": str(args.out.resolve()),
                        "set": args.set,
                    }
                )
    return found


def measure(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run one arm in this process.

    Returns:
        Its record, for the teacher that of each of its arms, since one set of answers serves both; one with a note in
        place of scores where the product says that it cannot be done.
    """
    from potstill.errors import PotstillError

    task, arm = pack_task(job["task"]), job["arm"]
    labels = LABELLED if arm.endswith("_100") else 0
    record: dict[str, Any] = {"task": task.name, "arm": arm, "labels": labels, "seed": job["seed"]}
    record |= dict.fromkeys(FIGURES)
    test = rows_of(task.name, "test", job["test_rows"])
    file = task_file(task, arm, test, job)
    began = time.monotonic()
    try:
        if arm in TEACHERS:
            measured = _teachers(task, file, test, job)
        elif arm in ("labels_100", "ceiling"):
            measured = {arm: _supervised(task, file, test, job)}
        else:
            measured = {arm: _product(task, file, test, job)}
    except PotstillError as error:  # an arm without rows is a result, not an end
        minutes = round((time.monotonic() - began) / 60, 2)
        measured = {arm: {"note": str(error).splitlines()[0][:200], "minutes": minutes}}
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return [{**record, "arm": name, **found, "peak_rss_mib": peak} for name, found in measured.items()]


def task_file(task: PackTask, arm: str, test: Sequence[Mapping[str, Any]], job: Mapping[str, Any]) -> Path:
    """The arm's task file, with the user's data that the arm has."""
    out, seed = Path(job["out"]) / task.name, job["seed"]
    more: dict[str, Any] = {}
    wanted = ARMS.get(arm, ({}, ()))[1]
    if "unlabelled" in wanted:
        texts = rows_of(task.name, "train", job["texts"])
        path = write_rows(texts, out / "data" / "texts.parquet", task.inputs)
        more["unlabelled"] = data_ref(task.name, path, labelled=False)
    if "rules" in wanted and (rules := keyword_rules(task.labels)):
        more["rules"] = rules
    if "labelled" in wanted:
        path = write_rows(real_rows(task, LABELLED, seed), out / "data" / f"labelled-{seed}.parquet", _columns_of(task))
        more["labelled"] = data_ref(task.name, path)
    tested = write_rows(test, out / "data" / "test.parquet", _columns_of(task))
    return write_task(task.name, out, test=tested, file=f"{arm}-{seed}", **more)


def keyword_rules(labels: Sequence[str]) -> list[dict[str, Any]]:
    """Rules that anyone could write without reading a text: the words that stand in one label's name alone."""
    from potstill.datagen.wording import readable

    words = {label: dict.fromkeys(re.findall(r"\w{3,}", readable(label).lower())) for label in labels}
    in_names = Counter(word for found in words.values() for word in found)
    own = {label: [word for word in found if in_names[word] == 1 and word != "not"] for label, found in words.items()}
    return [{"label": label, "keyword": found} for label, found in own.items() if found]


def real_rows(task: PackTask, count: int, seed: int) -> list[dict[str, Any]]:
    """Some real training rows, drawn by the seed."""
    from random import Random

    rows = rows_of(task.name, "train")
    return Random(f"{task.name}-{seed}").sample(rows, min(count, len(rows)))


def _product(task: PackTask, file: Path, test: Sequence[Mapping[str, Any]], job: Mapping[str, Any]) -> dict[str, Any]:
    """The product from the task file to a student."""
    import pyarrow.parquet as pq

    from potstill.cli_settings import merge_settings
    from potstill.pipeline import run

    given = json.loads(json.dumps(ARMS[job["arm"]][0]))
    if not task.labels and "quality" in given:
        given["quality"] = {"judge": True}
    given |= {"n": job["rows"], "seed": job["seed"], "teacher": job["teacher"]}
    given["evaluate"] = {"rows": 0, "teacher": False, "latency_rows": 0}
    costs = Costs(folder_of(job))
    result = run(str(file), out=folder_of(job), listener=costs, **merge_settings(given, job["set"]))
    answers = pq.read_table(result.path / "evaluate" / "predictions.parquet")["student"].to_pylist()
    origins = Counter(result.dataset["origin"][:])
    rows = {f"{origin}_rows": origins[origin] for origin in ("generated", "retrieved", "pseudo", "user")}
    return {**scores(task, test, answers), **costs.of(result), **rows}


def _supervised(
    task: PackTask, file: Path, test: Sequence[Mapping[str, Any]], job: Mapping[str, Any]
) -> dict[str, Any]:
    """The same student on real rows alone."""
    from tasks import train_on

    from potstill.cli_settings import merge_settings
    from potstill.options import as_json
    from potstill.retrieval.load import read_data
    from potstill.run_dir import digest
    from potstill.settings import resolve
    from potstill.task import DataRef
    from potstill.task_file import read_task_file
    from potstill.train.student import load_student

    began = time.monotonic()
    read = read_task_file(str(file))
    few = job["arm"] == "labels_100"
    # 100 rows need not hold every label.
    given = {"seed": job["seed"], "distil": {"empty_classes": "allow"} if few else {}}
    settings = resolve(read.settings, merge_settings(given, job["set"]))
    real = real_rows(task, LABELLED if few else job["ceiling_rows"], job["seed"])
    name = f"{job['arm']}-{job['seed']}-{len(real)}-{digest(as_json(settings.distil))[:8]}"
    path = write_rows(real, file.parent / "data" / f"{name}.parquet", _columns_of(task))
    ref = DataRef(str(path), inputs=task.inputs, output="output")
    student = train_on(read.spec, read_data(ref, read.spec), file.parent / "supervised" / name, settings)
    inputs = read_data(read.spec.test, read.spec)["input"][:] if read.spec.test else []
    answers = [prediction.output for prediction in load_student(student).predict(inputs)]
    minutes = round((time.monotonic() - began) / 60, 2)
    found = {**scores(task, test, answers), "tokens": 0, "minutes": minutes, "user_rows": len(real)}
    return found if few else {**found, "labels": len(real)}


def _teachers(
    task: PackTask, file: Path, test: Sequence[Mapping[str, Any]], job: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The teacher's own answers, by arm."""
    from potstill.evaluation import teacher_answers
    from potstill.ledger import Ledger
    from potstill.pipeline import open_asker
    from potstill.retrieval.load import read_data
    from potstill.settings import resolve
    from potstill.task_file import read_task_file

    began = time.monotonic()
    read = read_task_file(str(file))
    settings = resolve(read.settings, {"teacher": job["teacher"]})
    with Ledger(folder_of(job) / "ledger.sqlite") as ledger, open_asker(settings, ledger, lambda event: None) as asker:
        assert read.spec.test is not None
        inputs = read_data(read.spec.test, read.spec)["input"][:]
        answers = teacher_answers(read.spec, inputs, asker, settings.soft)
        tokens = asker.counts.prompt_tokens + asker.counts.completion_tokens
    cost = {"tokens": tokens, "minutes": round((time.monotonic() - began) / 60, 2)}
    arms = {"teacher (raw)": "teacher_raw", "teacher (calibrated)": "teacher_calibrated"}
    return {arms[name]: {**scores(task, test, outputs), **cost} for name, outputs, _ in answers}


class Costs:
    """A listener that notes what each stage bought, and remembers it for later arms that reuse the stage.

    A stage of the same content that another arm made over again from the ledger keeps the higher, first price.
    """

    def __init__(self, folder: Path):
        self._file, self._ledger = folder / "costs.json", folder / "ledger.sqlite"
        self._before: dict[str, int] = {}
        self._bought: dict[str, int] = {}

    def __call__(self, event: Any) -> None:
        if event.kind == "start":
            self._before[event.stage] = self._total()
        elif event.kind == "done" and event.stage in self._before:
            self._bought[event.stage] = self._total() - self._before[event.stage]
        if event.kind in ("done", "failed"):
            print(f"[{event.stage}] {event.message}", file=sys.stderr, flush=True)

    def _total(self) -> int:
        from potstill.ledger import Ledger

        if not self._ledger.exists():
            return 0
        with Ledger(self._ledger, read_only=True) as ledger:
            totals = ledger.totals()
        return totals.prompt_tokens + totals.completion_tokens

    def of(self, result: RunResult) -> dict[str, Any]:
        """Tokens and minutes of a run's stages."""
        known: dict[str, list[float]] = json.loads(self._file.read_text()) if self._file.exists() else {}
        tokens, seconds = 0.0, 0.0
        for stage in result.stages:
            place = f"{stage.name}:{stage.output}"
            old = known.get(place, [0, 0.0])
            known[place] = [max(old[0], self._bought.get(stage.name, 0)), max(old[1], stage.seconds)]
            tokens, seconds = tokens + known[place][0], seconds + known[place][1]
        self._file.write_text(json.dumps(known, indent=1) + "\n")
        return {"tokens": round(tokens), "minutes": round(seconds / 60, 2)}


def scores(task: PackTask, test: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> dict[str, float]:
    """The figures of a system's answers, in [0, 1]: see the module for tasks with sub-tasks or several references."""
    import numpy as np

    from potstill.train import metrics

    if len(test) != len(answers):
        raise SystemExit(f"{task.name}: {len(answers)} answers for {len(test)} test rows")
    if task.labels:
        index = {label: place for place, label in enumerate(task.labels)}
        gold = np.array([index[row["output"]] for row in test])
        told = np.array([index.get(answer, -1) for answer in answers])
        f1 = metrics.macro_f1(metrics.confusion(gold, told, len(index)))
        return {"accuracy": round(metrics.accuracy(gold, told), 4), "macro_f1": round(float(f1), 4)}
    exact: dict[str, list[float]] = defaultdict(list)
    overlap: dict[str, list[float]] = defaultdict(list)
    for row, answer in zip(test, answers, strict=True):
        right = [str(reference) for reference in row["references"]]
        said = final_number(answer) if task.name == "gsm8k" else answer
        wanted = [final_number(one) for one in right] if task.name == "gsm8k" else right
        exact[row["group"]].append(float(metrics.exact_matches(wanted, [said] * len(wanted)).max()))
        full = [row["output"]] if task.name == "gsm8k" else right
        overlap[row["group"]].append(max(metrics.rouge_l(one, answer) for one in full))
    chrf = metrics.chrf(metrics.chrf_statistics([row["output"] for row in test], answers).sum(axis=0))
    return {"exact_match": _mean_of_means(exact), "rouge_l": _mean_of_means(overlap), "chrf": round(float(chrf), 4)}


def final_number(text: str) -> str:
    """The number after `####`, or the last one of a text, as plain digits; empty where there is none."""
    tail = text.rpartition("####")[2]
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", tail) or re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    value = found[0 if "####" in text else -1].replace(",", "") if found else ""
    return re.sub(r"\.0+$", "", value).rstrip(",")


def _mean_of_means(groups: Mapping[str, Sequence[float]]) -> float:
    means = [sum(values) / len(values) for values in groups.values()]
    return round(sum(means) / len(means), 4)


def with_ratios(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every record with its share of the ceiling: of the same seed, else of the mean over seeds."""
    found = []
    for record in records:
        metric = pack_task(record["task"]).metric
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


def _place(record: Mapping[str, Any]) -> tuple[str, str, int]:
    return record["task"], record["arm"], record["seed"]


def _columns(records: Sequence[Mapping[str, Any]]) -> list[str]:
    last = ("ratio_to_ceiling", "tokens", "minutes", "peak_rss_mib", "note")
    used = [name for name in FIGURES if any(r.get(name) is not None for r in records)]
    return ["task", "arm", "labels", "seed", *used, *last]


def _columns_of(task: PackTask) -> tuple[str, ...]:
    return (*task.inputs, "output")


def folder_of(job: Mapping[str, Any]) -> Path:
    """One run folder a task: what several arms or seeds share is there once."""
    folder = Path(job["out"]) / job["task"] / "run"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main()
