"""What a classifier learns from: who leads among its rows, and which of the user's texts without labels join them.

In: the rows with their targets and the stages that made them. Out: rows to train on, how often origins are drawn, and
what the report says. The texts are labelled by a mixture (`potstill.datagen.mixture`), which is taken where there is
evidence for it: labels of people, or else the teacher's answers to some of the texts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from potstill.events import Event
from potstill.rows import read_rows, write_rows
from potstill.run_dir import Stage
from potstill.stage_parts import write_json

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

    from potstill.settings import Settings
    from potstill.stages import Job
    from potstill.task import TaskSpec
    from potstill.train.gold_rows import Led
    from potstill.train.options import DistilOptions
    from potstill.train.self_training import MixedIn, SelfTrainingOptions, Unlabelled

# Texts that the teacher labels to judge a mixture of them.
TEXTS_JUDGED = 300
# Below this kappa the teacher's answers say nothing.
_NO_AGREEMENT = 0.01


def led_by_user(job: Job, distil: DistilOptions, rows: Dataset, validation: Dataset) -> Led:
    """What is trained on where the user labelled some rows; see `potstill.train.gold_rows`.

    Args:
        job: The run.
        distil: How the student is trained.
        rows: Training rows.
        validation: Held-out rows; they stay out where more than the last weights is chosen by them.
    """
    from potstill.train.gold_rows import favour_gold

    by_student = job.spec.unlabelled is not None and job.settings.self_training.method == "student"
    choose = by_student or distil.search.trials > 0 or distil.generations > 1
    drop = "generated" not in distil.sampling
    return favour_gold(rows, validation, len(job.spec.labels), choose=choose, drop=drop)


def rows_to_learn(
    job: Job,
    distil: DistilOptions,
    rows: Dataset,
    validation: Dataset,
    weak: Stage | None,
    merged: Stage,
    soft: Stage,
    out: Path,
) -> tuple[Dataset, Dataset, DistilOptions, dict[str, Any]]:
    """What a classifier learns from: the user's rows lead, and texts without labels join where a mixture knows them.

    Args:
        job: The run.
        distil: How the student is trained.
        rows: Training rows.
        validation: Held-out rows.
        weak: The stage that read the texts, if any.
        merged: The stage that split the rows.
        soft: The stage that asked the teacher.
        out: Folder of the training; `train.parquet` there holds the rows where texts joined.

    Returns:
        Training rows, held-out rows, `distil` with how often origins are drawn, and what the report says.
    """
    from potstill.train.options import SearchOptions
    from potstill.train.recipe import train_classifier

    told: dict[str, Any] = {}
    led = led_by_user(job, distil, rows, validation)
    if weak is not None:
        options = replace(
            distil, sampling={**led.sampling, **distil.sampling}, generations=1, student_layers=None,
            student_layer_ids=None, student_ffn=None, search=SearchOptions(),
        )  # fmt: skip

        def teach(some: Dataset, folder: Path) -> object:
            return train_classifier(job.spec, some, led.validation, folder, options, listener=job.listener)

        mixed, told = mixture_rows(job, weak, merged, soft, led, rows, validation, teach, out / "first-student")
        shutil.rmtree(out / "first-student", ignore_errors=True)
        if mixed is not None:  # written rows weigh less already
            write_rows(mixed.rows, out / "train.parquet")
            distil = replace(distil, sampling={**led.sampling, "generated": 1.0, **mixed.sampling, **distil.sampling})
            return mixed.rows, mixed.validation, distil, {**led.report, **told}
    distil = replace(distil, sampling={**led.sampling, **distil.sampling})
    return led.train, led.validation, distil, {**led.report, **told}


def mixture_rows(
    job: Job,
    weak: Stage,
    merged: Stage,
    soft: Stage,
    led: Led,
    rows: Dataset,
    validation: Dataset,
    teach: Callable[[Dataset, Path], object],
    folder: Path,
) -> tuple[MixedIn | None, dict[str, Any]]:
    """The unlabelled texts, labelled by a mixture, beside the training rows.

    The mixture lies in the sentence encoder's space; where people labelled some rows (the user's, retrieved ones), in
    that of a student which learnt from them first, since such rows teach an encoder what the labels are about. Where
    nobody did, the teacher's answers to some of the texts are the evidence: a mixture with which they agree less than
    with a student that never saw the texts is left out. The teacher taught that student, so what it says for the
    mixture weighs.

    Args:
        job: The run.
        weak: The stage that read the texts.
        merged: The stage that split the rows.
        soft: The stage that asked the teacher.
        led: What is trained on without the texts.
        rows: All training rows; the number of texts goes by theirs.
        validation: All held-out rows.
        teach: Trains a student on rows into a folder.
        folder: Where that first student may lie.

    Returns:
        What to train on, None where the texts are left out; and what the report says of them.
    """
    from potstill.train.self_training import mix_in

    options = job.settings.self_training
    texts = unlabelled_texts(job, weak, merged, rows, validation)
    if options.method != "mixture" or not texts:
        return None, {}
    told: dict[str, Any] = {"texts": len(texts), "rows": 0, "space": "encoder", "trust": None, "rounds": []}
    inputs = [text.text for text in texts]
    found = None
    by_people = labelled_by_people(rows, len(job.spec.labels), options)
    if by_people:
        teach(led.train, folder)
        found = taught_labels(job, inputs, led.train, folder)
        told["space"] = "encoder" if found is None else "student"
    probs, believed = found or mixture_labels(job, inputs, rows)
    told["trust"] = round(believed, 4)
    if believed < (options.trust if by_people else options.agreement):
        return None, {"self_training": {**told, "stopped": "not believed"}}
    if answers := {} if by_people else teachers_labels(soft):
        teach(led.train, folder)
        told["teacher"] = spoken_for(job, inputs, probs, folder, answers)
        if told["teacher"]["mixture"] < max(told["teacher"]["student"], _NO_AGREEMENT):
            return None, {"self_training": {**told, "stopped": "the teacher agrees more with the student without them"}}
    mixed = mix_in(
        job.spec, led.train, led.validation, texts, probs, options, beside=rows.num_rows, seed=job.settings.seed
    )
    if mixed is None:
        return None, {"self_training": {**told, "stopped": "too few sure texts"}}
    count = mixed.chosen.num_rows
    job.listener(Event("train", "note", f"self-training on {count} of {len(texts)} texts"))
    return mixed, {"self_training": {**told, "rows": count, "stopped": "labelled once"}}


def labelled_by_people(rows: Dataset, labels: int, options: SelfTrainingOptions) -> bool:
    """Whether so many rows are the user's or retrieved that a student of them knows what the labels are about."""
    from potstill.train.gold_rows import LEAST_HELD_OUT

    origins = rows["origin"][:]
    enough = max(LEAST_HELD_OUT, options.fewest * labels)
    return bool(origins.count("user") >= LEAST_HELD_OUT or origins.count("retrieved") >= enough)


def ask_about_texts(job: Job, rows: Dataset, out: Path) -> None:
    """Keep the teacher's labels of some of the user's texts, where they are to judge a mixture of these texts.

    Args:
        job: The run; its teacher can score.
        rows: Training rows.
        out: Folder that gets `texts.json`.
    """
    from potstill.datagen.soft import told_labels
    from potstill.retrieval.load import read_texts

    options = job.settings.self_training
    if not judges_texts(job.spec, job.settings) or labelled_by_people(rows, len(job.spec.labels), options):
        return
    assert job.spec.unlabelled is not None
    texts = sorted({text for text in read_texts(job.spec.unlabelled, job.spec) if text and text.strip()})
    asked = Random(job.settings.seed).sample(texts, min(TEXTS_JUDGED, len(texts)))
    if asked:
        told = told_labels(job.spec, asked, job.asker, job.settings.soft)
        write_json(out / "texts.json", dict(zip(asked, told, strict=True)))


def judges_texts(spec: TaskSpec, settings: Settings) -> bool:
    """Whether the teacher may have to judge a mixture: the user gave texts for a classifier, and no labels."""
    mixed = settings.self_training.method == "mixture" and settings.self_training.rounds > 0
    return mixed and spec.kind == "classification" and spec.unlabelled is not None and spec.labelled is None


def teachers_labels(soft: Stage) -> dict[str, str]:
    """What the teacher answered about the user's texts; empty where it was not asked, or cannot score."""
    path = soft.path / "texts.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def spoken_for(
    job: Job, texts: list[str], probs: NDArray[np.float64], student: Path, answers: Mapping[str, str]
) -> dict[str, Any]:
    """How far the teacher agrees with a mixture and with a student that never saw the texts.

    Args:
        job: The run.
        texts: The texts.
        probs: (len(texts), n_labels) float64, the mixture's.
        student: Folder of the student.
        answers: The teacher's label of some texts.

    Returns:
        `texts`, how many were compared, and Cohen's kappa with the `mixture` and with the `student`, in [-1, 1].
    """
    from potstill.datagen.mixture import kappa
    from potstill.train.student import load_student

    index = {label: place for place, label in enumerate(job.spec.label_names)}
    places = [i for i, text in enumerate(texts) if text in answers]
    teacher = [index[answers[texts[i]]] for i in places]
    predicted = load_student(student).predict([texts[i] for i in places])
    return {
        "texts": len(places),
        "mixture": round(kappa(teacher, probs[places].argmax(axis=1).tolist(), len(index)), 4),
        "student": round(kappa(teacher, [index[one.output] for one in predicted], len(index)), 4),
    }


def unlabelled_texts(job: Job, weak: Stage, merged: Stage, rows: Dataset, validation: Dataset) -> list[Unlabelled]:
    """The texts to learn from: none that is a row or meets a test text; none where there is no way to judge them."""
    from potstill.datagen.decontaminate import TestTexts, normal_hash
    from potstill.train.self_training import Unlabelled

    ref = job.spec.unlabelled
    if ref is None or not job.settings.self_training.rounds or not validation.num_rows:
        return []
    held = merged.path / "heldout.parquet"
    tables = [rows, validation, *([read_rows(held)] if held.exists() else [])]
    known = {normal_hash(text) for table in tables for text in table["input"]}
    test = job.test_rows()
    tests = TestTexts(test["input"] if test is not None else (), job.settings.merge.test_near if test else None)
    found = json.loads((weak.path / "texts.json").read_text(encoding="utf-8"))
    return [
        Unlabelled(text, ref.path, place)
        for text, place in zip(found["texts"], found["places"], strict=True)
        if normal_hash(text) not in known and tests.found_in(text) is None
    ]


def taught_labels(job: Job, texts: list[str], rows: Dataset, student: Path) -> tuple[NDArray[np.float64], float] | None:
    """Probabilities of the labels of texts that nobody labelled, by a mixture in a trained student's space.

    Args:
        job: The run: its task and stated label prior.
        texts: The texts, at least one.
        rows: The training rows; those of the user stay what they are.
        student: Folder of a student that learnt from the rows; its answers are where the mixture starts.

    Returns:
        (len(texts), n_labels) float64; and how far mixture and student agree above chance, squared, in [0, 1]. None for
        a student whose head reads no vector of the whole text.
    """

    from potstill.datagen.mixture import above_chance, fit_mixture
    from potstill.train.self_training import read_texts
    from potstill.train.student import load_student

    spec = job.spec
    inputs, labels = rows["input"][:], rows["label"][:]
    told = [i for i, origin in enumerate(rows["origin"][:]) if origin == "user" and labels[i] is not None]
    model = load_student(student)
    found = read_texts(model, [*(inputs[i] for i in told), *texts])
    if found is None:
        return None
    space, start = found[0], model.in_order(spec, found[1])
    mixture = fit_mixture(space, start, known=[int(labels[i]) for i in told], prior=_stated_prior(job))
    probs = mixture.probs(space[len(told) :])
    same = float((probs.argmax(axis=1) == start[len(told) :].argmax(axis=1)).mean())
    return probs, above_chance(same, len(spec.labels))


def _stated_prior(job: Job) -> list[float] | None:
    """Shares of the labels where the task states them, none of them 0."""
    spec = job.spec
    return [max(float(spec.label_prior.get(name, 0)), 1e-6) for name in spec.label_names] if spec.label_prior else None


def mixture_labels(job: Job, texts: list[str], rows: Dataset) -> tuple[NDArray[np.float64], float]:
    """Probabilities of the labels of texts that nobody labelled; see `potstill.datagen.mixture`.

    Args:
        job: The run: its task, encoder and stated label prior.
        texts: The texts.
        rows: The training rows; those of the user stay what they are.

    Returns:
        (len(texts), n_labels) float64; and how far they are to be believed: by the user's rows where there are enough
        (`mixture.trust`), by halves of all rows otherwise (`mixture.agreement`).
    """
    import numpy as np

    from potstill.datagen.mixture import agreement, first_opinion, fit_mixture, trust
    from potstill.models import sentence_encoder
    from potstill.task import readable
    from potstill.train.gold_rows import LEAST_HELD_OUT

    spec = job.spec
    if not texts:
        return np.zeros((0, len(spec.labels))), 0.0
    encoder = sentence_encoder(job.settings.encoder)

    def encode(some: list[str]) -> NDArray[np.float64]:
        found = np.asarray(encoder.encode(some), dtype=np.float64)
        unit: NDArray[np.float64] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return unit

    usable = [i for i, label in enumerate(rows["label"]) if label is not None]
    table = rows.select(usable)
    labels, gold = table["label"][:], [origin == "user" for origin in table["origin"]]
    known = encode(table["input"][:]) if usable else np.zeros((0, 1))
    own = [f"{readable(label.name)}: {label.description}".rstrip(": ") for label in spec.labels]
    real = encode(texts)
    told = [i for i, is_gold in enumerate(gold) if is_gold]
    space = np.concatenate([known[told], real]) if told else real
    weights, own_labels, names = table["weight"][:], [labels[i] for i in told], encode(own)
    prior = _stated_prior(job)
    start = first_opinion(space, known, labels, gold, weights, names)
    if len(told) >= LEAST_HELD_OUT:
        others = [i for i, is_gold in enumerate(gold) if not is_gold]
        made, made_labels = [weights[i] for i in others], [labels[i] for i in others]
        blind = first_opinion(space, known[others], made_labels, [False] * len(others), made, names)
        believed = trust(space, blind, own_labels, prior)
    else:
        believed = agreement(real, known, labels, weights, names, prior)
    mixture = fit_mixture(space, start, known=own_labels, prior=prior)
    return mixture.probs(real), believed
