"""What a run does only where asked: self-training, compression."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from potstill.asking.budget import as_paid
from potstill.code_version import code_version
from potstill.events import Event
from potstill.options import as_json
from potstill.rows import read_rows, write_rows
from potstill.run_dir import Stage
from potstill.stages.parts import ref_content, relevant, write_json
from potstill.stages.rationales import wants_rationales

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.stages.job import Job
    from potstill.train.gold_rows import Led
    from potstill.train.options import DistilOptions
    from potstill.train.self_training import MixedIn, Unlabelled


def optional_stages(job: Job) -> list[str]:
    """Those of the stages in this module, and in `potstill.stages.rules` and `rationales`, that a run has."""
    wanted = {
        "quality": job.settings.quality.on and job.settings.writes,
        "weak": job.spec.unlabelled is not None and job.spec.kind == "classification",
        "rationales": wants_rationales(job.spec, job.settings),
        "compress": bool(job.settings.compress.recipe),
    }
    return [name for name, on in wanted.items() if on]


def compress_stage(job: Job, trained: Stage, soft: Stage, merged: Stage) -> Stage | None:
    """The student made smaller by the recipe, none where no recipe fits the limits; None where none is asked for.

    Steps are measured on the validation rows, so that no choice among students sees the test.
    """
    from potstill.compression import stage_material
    from potstill.models import model_identity
    from potstill.report.compression_page import chosen_entry, write_compression_report

    options = job.settings.compress
    if not options.recipe:
        job.folder.set_aside("compress")
        return None

    def make(out: Path) -> dict[str, Any]:
        from potstill.train.compress.recipe import parse_recipe
        from potstill.train.compress.run import compress_student
        from potstill.train.compress.zoo import compress_all

        material = stage_material(job.spec, trained.path, soft.path, merged.path)
        source, place = trained.path / "student", out / "student"
        if options.recipe == "all":
            result = compress_all(source, out / "zoo", material, options, listener=job.listener)
            if result.report["recommended"] is not None:
                result.path.rename(place)
        else:
            steps = parse_recipe(options.recipe)
            result = compress_student(source, steps, place, material, options, listener=job.listener)
        report = {**result.report, "source": "train/student"}
        write_json(out / "report.json", report)
        write_compression_report(out, report)
        chosen = chosen_entry(report)
        if chosen is None:
            return {"summary": report["why_none"]}
        size = f"{chosen['size_mib']:.1f} MiB, {chosen['size_ratio']:.0%} of the student"
        return {"summary": f"{chosen['step'] if options.recipe == 'all' else report['recipe']}: {size}"}

    parts = {
        "spec": relevant(job.spec, "examples", "test", "unlabelled", "rules", "exclude", "licences"),
        "options": as_json(replace(options, keep_steps=False)),
        "teacher": model_identity(options.teacher) if options.teacher else None,
        "inputs": [trained.output, soft.output, merged.output],
        **code_version(compress_stage).key_parts(),
    }
    return job.make_stage("compress", parts, make)


def led_by_user(job: Job, distil: DistilOptions, rows: Dataset, validation: Dataset, merged: Stage) -> Led:
    """What is trained on where the user labelled some rows; see `potstill.train.gold_rows`.

    Args:
        job: The run.
        distil: How the student is trained.
        rows: Training rows.
        validation: Held-out rows; they stay out where more than the last weights is chosen by them, or where the
            student is measured on them.
        merged: The stage that split the rows.
    """
    from potstill.train.gold_rows import favour_gold

    by_student = job.spec.unlabelled is not None and job.settings.self_training.method == "student"
    measured = job.spec.test is None and not (merged.path / "heldout.parquet").exists()
    choose = by_student or measured or distil.search.trials > 0 or distil.generations > 1
    drop = "generated" not in distil.sampling
    before = read_rows(merged.path / "train.parquet")
    return favour_gold(rows, validation, len(job.spec.labels), merged=before, choose=choose, drop=drop)


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

    Where there are none, and the labels are whether two inputs say the same, the inputs are paired anew
    (`potstill.datagen.likeness`).

    Args:
        job: The run.
        distil: How the student is trained.
        rows: Training rows.
        validation: Held-out rows.
        weak: The stage that read the texts, if any.
        merged: The stage that split the rows.
        soft: The stage that made the soft targets.
        out: Folder of the training; the rows are there where they are others: `train.parquet` where texts joined, else
            `learnt.parquet`.

    Returns:
        Training rows, held-out rows, `distil` with how often origins are drawn, and what the report says.
    """
    from potstill.train.options import SearchOptions
    from potstill.train.recipe import train_classifier

    told: dict[str, Any] = {}
    led = led_by_user(job, distil, rows, validation, merged)
    if weak is not None:
        options = replace(
            distil, sampling={**led.sampling, **distil.sampling}, generations=1, student_layers=None,
            student_layer_ids=None, student_ffn=None, search=SearchOptions(),
        )  # fmt: skip

        def teach(some: Dataset, folder: Path) -> object:
            return train_classifier(job.spec, some, led.validation, folder, options, listener=job.listener)

        mixed, told = mixture_rows(job, weak, merged, led, rows, validation, teach, out / "first-student")
        shutil.rmtree(out / "first-student", ignore_errors=True)
    else:
        mixed, told = paired_anew(job, soft, led, rows, validation)
    if mixed is not None:  # written rows weigh less already
        write_rows(mixed.rows, out / "train.parquet")
        distil = replace(distil, sampling={**led.sampling, "generated": 1.0, **mixed.sampling, **distil.sampling})
        return mixed.rows, mixed.validation, distil, {**led.report, **told}
    if led.train is not rows:
        write_rows(led.train, out / "learnt.parquet")
    distil = replace(distil, sampling={**led.sampling, **distil.sampling})
    return led.train, led.validation, distil, {**led.report, **told}


def paired_anew(
    job: Job, soft: Stage, led: Led, rows: Dataset, validation: Dataset
) -> tuple[MixedIn | None, dict[str, Any]]:
    """Inputs of two fields paired anew and labelled by likeness, where the teacher's own pairs were no use.

    Arguments and result are as of `mixture_rows`; `soft` tells whether the teacher was overruled.
    """
    import numpy as np

    from potstill.datagen.likeness import label_of_same, likeness_logits, recombined
    from potstill.models import sentence_encoder
    from potstill.train.gold_rows import LEAST_HELD_OUT
    from potstill.train.self_training import Unlabelled, mix_in

    report = soft.path / "report.json"
    overruled = report.exists() and json.loads(report.read_text("utf-8")).get("joined", {}).get("overruled")
    asked = rows["origin"][:].count("user") >= LEAST_HELD_OUT
    if not overruled or asked or not job.settings.self_training.rounds or label_of_same(job.spec) is None:
        return None, {}
    one, two = job.spec.inputs
    texts = recombined(rows["input"][:], (one, two), job.settings.seed)
    logits = likeness_logits(job.spec, texts, sentence_encoder(job.settings.encoder))
    if logits is None:
        return None, {}
    options = replace(job.settings.self_training, method="mixture", confidence=0.0)
    mixed = mix_in(
        job.spec, led.train, led.validation, [Unlabelled(text, "recombined", i) for i, text in enumerate(texts)],
        np.exp(logits), options, by="likeness", beside=rows.num_rows, seed=job.settings.seed,
    )  # fmt: skip
    if mixed is None:
        return None, {}
    count = mixed.chosen.num_rows
    job.listener(Event("train", "note", f"{count} pairs made of the written ones, labelled by likeness"))
    return mixed, {"paired_anew": {"pairs": len(texts), "rows": count}}


def depends_on_texts(job: Job, weak: Stage | None, merged: Stage) -> Any:
    """What a training depends on where texts that nobody labelled, or inputs paired anew, join its rows; else None."""
    from potstill.datagen.likeness import label_of_same
    from potstill.models import model_identity

    settings = job.settings
    own = [as_json(settings.self_training), settings.seed, model_identity(settings.encoder)]
    if weak is not None:
        return [*own, weak.output, merged.output, ref_content(job.spec.test), settings.merge.test_near]
    return own if label_of_same(job.spec) is not None else None


def mixture_rows(
    job: Job,
    weak: Stage,
    merged: Stage,
    led: Led,
    rows: Dataset,
    validation: Dataset,
    teach: Callable[[Dataset, Path], object],
    folder: Path,
) -> tuple[MixedIn | None, dict[str, Any]]:
    """The unlabelled texts, labelled without the student (`potstill.stages.text_labels`), beside the training rows.

    Args:
        job: The run.
        weak: The stage that read the texts.
        merged: The stage that split the rows.
        led: What is trained on without the texts.
        rows: All training rows; the number of texts goes by theirs.
        validation: All held-out rows.
        teach: Trains a student on rows into a folder.
        folder: Where a first student may lie.

    Returns:
        What to train on, None where the texts are left out; and what the report says of them.
    """
    from potstill.stages.text_labels import labels_of_texts, read_by_teacher
    from potstill.train.self_training import mix_in

    options = job.settings.self_training
    texts = _unlabelled(job, weak, merged, rows, validation)
    if options.method == "student" or not texts:
        return None, {}
    if options.method == "teacher":  # which is asked for no more than are learnt from
        room = int((options.resolved().most or 0) * rows.num_rows)
        texts = Random(job.settings.seed).sample(texts, min(room, len(texts)))
    with as_paid(job.asker.meter) as met:
        found = labels_of_texts(job, [text.text for text in texts], rows, led.train, teach, folder)
    if met:
        job.listener(Event("train", "note", f"{len(texts)} texts stay without labels: {met['budget_met']['told']}"))
        return None, {"self_training": {"texts": len(texts), "rows": 0, "rounds": [], "stopped": "budget met"}, **met}
    if (read := read_by_teacher(job, found, texts, rows, met)) is not None:
        (found, texts), options = read, replace(options, method="teacher")
    said: dict[str, Any] = {"texts": len(texts), "rows": 0, "space": found.space, "trust": round(found.trust, 4)}
    told = {**said, "rounds": []}
    if found.of_few < 1:
        told["of_few"] = round(found.of_few, 4)
    if nameless := int((found.probs.sum(axis=1) == 0).sum()):
        told["without_label"] = nameless
    if found.trust < found.least:
        return None, {"self_training": {**told, "stopped": "not believed"}, **met}
    by = "mixture" if found.space in ("student", "encoder") else found.space
    if found.space in ("opinion", "likeness"):  # in doubt, which the student is to learn
        options = replace(options, confidence=options.confidence or 0.0)
    mixed = mix_in(
        job.spec, led.train, led.validation, texts, found.probs, options,
        by=by, beside=rows.num_rows, seed=job.settings.seed,
    )  # fmt: skip
    if mixed is None:
        return None, {"self_training": {**told, "stopped": "too few sure texts"}}
    count = mixed.chosen.num_rows
    job.listener(Event("train", "note", f"self-training on {count} of {len(texts)} texts"))
    return mixed, {"self_training": {**told, "rows": count, "stopped": "labelled once"}}


def self_train_on(
    job: Job,
    weak: Stage,
    merged: Stage,
    rows: Dataset,
    validation: Dataset,
    student: Path,
    train: Callable[[Dataset, Path], object],
) -> dict[str, Any]:
    """Let a trained student label the unlabelled texts that are in no split and in no test, and learn from them.

    Args:
        job: The run.
        weak: The stage that read the texts.
        merged: The stage that split the rows.
        rows: Training rows.
        validation: Held-out rows, which decide whether a round is kept.
        student: The trained student's folder; the better one's afterwards. Beside it, `train.parquet` gets all rows
            that it was trained on.
        train: Trains a student on rows into a folder.

    Returns:
        What the report says.
    """
    from datasets import concatenate_datasets

    from potstill.train.self_training import self_train

    options = job.settings.self_training
    texts = _unlabelled(job, weak, merged, rows, validation)
    if options.method != "student" or not texts:
        return {}
    result = self_train(job.spec, rows, validation, texts, student, train, options, listener=job.listener)
    if result.rows.num_rows:
        write_rows(concatenate_datasets([rows, result.rows]), student.parent / "train.parquet")
    told = {"texts": len(texts), "rows": result.rows.num_rows, "stopped": result.stopped, "rounds": result.rounds}
    return {"self_training": told}


def _unlabelled(job: Job, weak: Stage, merged: Stage, rows: Dataset, validation: Dataset) -> list[Unlabelled]:
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
    # What is measured or chosen by may not be learnt from in another form either (`potstill.datagen.heldout`).
    checked = [text for table in (*tables[1:], *([test] if test is not None else [])) for text in table["input"]]
    tests = TestTexts(checked, job.settings.merge.test_near)
    found = json.loads((weak.path / "texts.json").read_text(encoding="utf-8"))
    return [
        Unlabelled(text, ref.path, place)
        for text, place in zip(found["texts"], found["places"], strict=True)
        if normal_hash(text) not in known and tests.found_in(text) is None
    ]
