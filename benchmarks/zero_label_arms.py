"""The arms of `zero_label.py` (which tells what each is), and what their answers are scored by.

In: a job as `zero_label.jobs` makes it, all JSON types. Out: the arm's record. Each part of the product is taken as a
user takes it, through a task file in the job's folder, with that arm's own data and options.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pack import PackTask, data_ref, pack_task, rows_of, write_rows, write_task

if TYPE_CHECKING:
    from potstill.pipeline import RunResult
    from potstill.task import DataRef

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
    "self_training_chosen": ({}, ("unlabelled", "chosen")),
}
TEACHERS = ("teacher_raw", "teacher_calibrated")
SUPERVISED = ("labels_100", "labels_chosen", "ceiling")
ORDER = (*TEACHERS, *ARMS, *SUPERVISED)
CLASSES_ONLY = (
    "teacher_calibrated", "rules", "everything", "self_training_100", "everything_100",
    "self_training_chosen", "labels_chosen",
)  # fmt: skip
LABELLED = 100
# What a record says of its size, beside its figures.
SIZES_TOLD = ("test_rows", "ceiling_rows", "texts")
FIGURES = ("accuracy", "macro_f1", "rouge_l", "chrf", "exact_match", "token_f1")


def measure(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run one arm in this process.

    Returns:
        Its record, for the teacher that of each of its arms, since one set of answers serves both; one with a note in
        place of scores where the product says that it cannot be done.
    """
    from potstill.errors import OptionError, PotstillError

    task, arm = pack_task(job["task"]), job["arm"]
    labels = LABELLED if arm.endswith(("_100", "_chosen")) else 0
    record: dict[str, Any] = {"task": task.name, "arm": arm, "labels": labels, "seed": job["seed"]}
    record |= dict.fromkeys(FIGURES) | {"metric": task.metric, **{name: job[name] for name in SIZES_TOLD}}
    test = rows_of(task.name, "test", job["test_rows"])
    file = task_file(task, arm, test, job)
    began = time.monotonic()
    try:
        if arm in TEACHERS:
            measured = _teachers(task, file, test, job)
        elif arm in SUPERVISED:
            measured = {arm: _supervised(task, file, test, job)}
        else:
            measured = {arm: _product(task, file, test, job)}
    except OptionError:  # a mistake of this call, which is no result
        raise
    except PotstillError as error:  # an arm without rows is a result, not an end
        minutes = round((time.monotonic() - began) / 60, 2)
        measured = {arm: {"note": " ".join(str(error).split())[:400], "minutes": minutes}}
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
    if "chosen" in wanted:
        more["labelled"] = str(chosen_rows(task, job))
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


def chosen_rows(task: PackTask, job: Mapping[str, Any]) -> Path:
    """What `potstill label` leaves after 100 answers about the unlabelled texts, each answered with its real label."""
    from potstill.labelling import Labelling
    from potstill.retrieval.load import read_data
    from potstill.task import DataRef
    from potstill.task.file import read_task_file

    data, name = Path(job["out"]) / task.name / "data", f"chosen-{job['seed']}"
    prompt = str(write_task(task.name, data, file=name))
    path = write_rows(rows_of(task.name, "train", job["texts"]), data / "texts-answered.parquet", _columns_of(task))
    rows = read_data(DataRef(str(path), inputs=task.inputs, output="output"), read_task_file(prompt).spec)
    real = dict(zip((text.strip() for text in rows["input"][:]), rows["output"][:], strict=True))
    work = Labelling(prompt, list(real), out=data / f"{name}.jsonl", seed=job["seed"])
    while texts := work.next_batch(min(work.batch, LABELLED - len(work.answers))):
        for text in texts:
            work.answer(text, real[text])
    return work.out


def _product(task: PackTask, file: Path, test: Sequence[Mapping[str, Any]], job: Mapping[str, Any]) -> dict[str, Any]:
    """The product from the task file to a student."""
    import pyarrow.parquet as pq

    from potstill.cli.settings import merge_settings
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
    from potstill.cli.settings import merge_settings
    from potstill.task import DataRef

    began = time.monotonic()
    few = job["arm"] != "ceiling"
    if job["arm"] == "labels_chosen":
        ref = DataRef(str(chosen_rows(task, job)))
    else:
        ref = real_data(task, LABELLED if few else job["ceiling_rows"], job["seed"], file.parent)
    # 100 rows need not hold every label.
    given = {"seed": job["seed"], "distil": {"empty_classes": "allow"} if few else {}}
    answers, count = answers_of_taught(file, ref, job["arm"], merge_settings(given, job["set"]))
    minutes = round((time.monotonic() - began) / 60, 2)
    found = {**scores(task, test, answers), "tokens": 0, "minutes": minutes, "user_rows": count}
    return found if few else {**found, "labels": count}


def real_data(task: PackTask, count: int, seed: int, folder: Path) -> DataRef:
    """Some real training rows, drawn by the seed, as a file with answers."""
    from potstill.task import DataRef

    real = real_rows(task, count, seed)
    path = write_rows(real, folder / "data" / f"real-{seed}-{len(real)}.parquet", _columns_of(task))
    return DataRef(str(path), inputs=task.inputs, output="output")


def answers_of_taught(file: Path, ref: DataRef, name: str, given: Mapping[str, Any]) -> tuple[list[str], int]:
    """What the run's student says of the test rows once it has learnt real rows and nothing else.

    Args:
        file: A task file with test data; the student comes to lie beside it.
        ref: The rows, with answers.
        name: Of the student's folder, before its seed, number of rows and digest.
        given: Settings of a caller.

    Returns:
        Its answers in the order of the test rows, and on how many rows it learnt.
    """
    from tasks import train_on

    from potstill.options import as_json
    from potstill.retrieval.load import read_data
    from potstill.run_dir import digest
    from potstill.settings import resolve
    from potstill.task.file import read_task_file
    from potstill.train.student import load_student

    read = read_task_file(str(file))
    settings = resolve(read.settings, given)
    rows = read_data(ref, read.spec)
    content = digest([as_json(settings.distil), rows["input"][:], rows["output"][:]])[:8]
    folder = file.parent / "supervised" / f"{name}-{settings.seed}-{len(rows)}-{content}"
    student = train_on(read.spec, rows, folder, settings)
    inputs = read_data(read.spec.test, read.spec)["input"][:] if read.spec.test else []
    return [prediction.output for prediction in load_student(student).predict(inputs)], len(rows)


def _teachers(
    task: PackTask, file: Path, test: Sequence[Mapping[str, Any]], job: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The teacher's own answers, by arm."""
    from potstill.asking.ledger import Ledger
    from potstill.pipeline import open_asker
    from potstill.retrieval.load import read_data
    from potstill.settings import resolve
    from potstill.stages.evaluation import teacher_answers
    from potstill.task.file import read_task_file

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
        from potstill.asking.ledger import Ledger

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
    words: dict[str, list[float]] = defaultdict(list)
    for row, answer in zip(test, answers, strict=True):
        right = [str(reference) for reference in row["references"]]
        said = final_number(answer) if task.number else answer
        wanted = [final_number(one) for one in right] if task.number else right
        exact[row["group"]].append(float(metrics.exact_matches(wanted, [said] * len(wanted)).max()))
        full = [row["output"]] if task.number else right
        overlap[row["group"]].append(max(metrics.rouge_l(one, answer) for one in full))
        words[row["group"]].append(max(metrics.token_f1(one, answer) for one in full))
    chrf = metrics.chrf(metrics.chrf_statistics([row["output"] for row in test], answers).sum(axis=0))
    figures = {"exact_match": exact, "rouge_l": overlap, "token_f1": words}
    return {**{name: _mean_of_means(found) for name, found in figures.items()}, "chrf": round(float(chrf), 4)}


def final_number(text: str) -> str:
    """The number after `####`, or the last one of a text, as plain digits; empty where there is none."""
    tail = text.rpartition("####")[2]
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", tail) or re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    value = found[0 if "####" in text else -1].replace(",", "") if found else ""
    return re.sub(r"\.0+$", "", value).rstrip(",")


def _mean_of_means(groups: Mapping[str, Sequence[float]]) -> float:
    means = [sum(values) / len(values) for values in groups.values()]
    return round(sum(means) / len(means), 4)


def _columns_of(task: PackTask) -> tuple[str, ...]:
    return (*task.inputs, "output")


def folder_of(job: Mapping[str, Any]) -> Path:
    """One run folder a task: what several arms or seeds share is there once."""
    folder = Path(job["out"]) / job["task"] / "run"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
