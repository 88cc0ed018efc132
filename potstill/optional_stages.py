"""What a run does only where asked: checks of written rows, labelling by rules, self-training, compression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from potstill.events import Event
from potstill.learnt_rows import unlabelled_texts
from potstill.options import as_json
from potstill.rows import read_rows, rows_to_dataset, write_rows
from potstill.run_dir import Stage, code_digest
from potstill.stage_parts import prompt_digest, ref_content, relevant, write_json, write_stage

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.stages import Job
    from potstill.task import TaskSpec


def optional_stages(job: Job) -> list[str]:
    """Those of the stages in this module that a run has."""
    wanted = {
        "quality": job.settings.quality.on and job.settings.sources != "retrieved",
        "weak": job.spec.unlabelled is not None,
        "compress": bool(job.settings.compress.recipe),
    }
    return [name for name, on in wanted.items() if on]


def quality_stage(job: Job, generated: Stage) -> Stage | None:
    """The written rows, checked by a teacher; None where no check is asked for."""
    from potstill import datagen, prompts
    from potstill.datagen.quality import check_rows

    options = job.settings.quality
    if not options.on or job.settings.sources == "retrieved":
        job.folder.set_aside("quality")
        return None
    checker = job.checker or job.asker

    def make(out: Path) -> dict[str, Any]:
        rows = read_rows(generated.path / "rows.parquet")
        result = check_rows(job.spec, rows, checker, options, job.settings.soft, listener=job.listener)
        write_stage(out, result.rows, result.dropped, result.report)
        return {"summary": result.report["summary"], "rows": result.rows.num_rows, "dropped": len(result.dropped)}

    parts = {
        "spec": relevant(job.spec, "test", "labelled", "unlabelled", "rules", "exclude", "licences"),
        "options": as_json(options),
        "soft": as_json(job.settings.soft),
        "rows": generated.output,
        "teacher": dict(checker.teacher.identity),
        "code": code_digest(datagen, prompts),
        "prompts": prompt_digest(),
    }
    return job.make_stage("quality", parts, make)


def texts_for_prior(spec: TaskSpec, seed: int) -> list[str]:
    """The user's unlabelled texts in a random order, where the label prior is to be estimated on some of them."""
    if not spec.estimate_prior or spec.unlabelled is None:
        return []
    from potstill.retrieval.load import read_texts

    texts = [text for text in read_texts(spec.unlabelled, spec) if text and text.strip()]
    return Random(seed).sample(texts, len(texts))


def weak_stage(job: Job) -> Stage | None:
    """The user's unlabelled texts, labelled by rules; None where the task has no such texts."""
    from potstill import datagen
    from potstill.datagen.votes import function_digest
    from potstill.datagen.weak import label_texts, usable_texts

    ref = job.spec.unlabelled
    if ref is None:
        job.folder.set_aside("weak")
        return None

    def make(out: Path) -> dict[str, Any]:
        from potstill.retrieval.load import read_texts

        kept, dropped = usable_texts(read_texts(ref, job.spec), ref.path)
        places, texts = [place for place, _ in kept], [text for _, text in kept]
        write_json(out / "texts.json", {"texts": texts, "places": places})
        if job.spec.kind != "classification" or not (job.spec.rules or job.functions):
            write_stage(out, rows_to_dataset([], job.spec.label_names), dropped, {"texts": len(texts), "rules": 0})
            return {"summary": f"{len(texts)} texts, no rules", "rows": 0, "dropped": len(dropped)}
        result = label_texts(
            job.spec, texts, job.settings.weak, functions=job.functions, places=places, dataset=ref.path
        )
        write_stage(out, result.rows, (*dropped, *result.dropped), result.report)
        for note in result.notes:
            job.listener(Event("weak", "note", note))
        by = f"{len(job.spec.rules)} rules" + (f" and {len(job.functions)} functions" if job.functions else "")
        return {
            "summary": f"{result.rows.num_rows} of {len(texts)} texts labelled by {by}",
            "rows": result.rows.num_rows,
            "dropped": len(dropped) + len(result.dropped),
        }

    parts = {
        "spec": relevant(job.spec, "examples", "test", "labelled", "exclude", "licences"),
        "options": as_json(job.settings.weak),
        "functions": [function_digest(function) for function in job.functions],
        "texts": ref_content(ref),
        "code": code_digest(datagen),
    }
    return job.make_stage("weak", parts, make)


def check_compression(job: Job) -> None:
    """Refuse a recipe that this run's student cannot take, before any stage runs.

    Raises:
        OptionError: Every fault of the recipe or its formats.
    """
    options = job.settings.compress
    if not options.recipe:
        return
    from potstill.train.compress.files import check_formats
    from potstill.train.compress.recipe import check_recipe, parse_recipe

    check_formats(options.formats)
    if options.recipe != "all":
        kind = "classification" if job.spec.kind == "classification" else "causal"
        check_recipe(parse_recipe(options.recipe), kind=kind, tokens=options.calibration_tokens)


def compress_stage(job: Job, trained: Stage, soft: Stage, merged: Stage) -> Stage | None:
    """The student made smaller by the recipe; None where there is none.

    Steps are measured on the validation rows, so that no choice among students sees the test.
    """

    from potstill import train
    from potstill.compress_report import write_compression_report
    from potstill.compression import material_of

    options = job.settings.compress
    if not options.recipe:
        job.folder.set_aside("compress")
        return None

    def make(out: Path) -> dict[str, Any]:
        from potstill.train.compress.recipe import parse_recipe
        from potstill.train.compress.run import compress_student
        from potstill.train.compress.zoo import compress_all

        validation = read_rows(merged.path / "validation.parquet")
        material = material_of(
            job.spec, read_rows(soft.path / "train.parquet"), validation if validation.num_rows else None
        )
        source, place = trained.path / "student", out / "student"
        if options.recipe == "all":
            result = compress_all(source, out / "zoo", material, options, listener=job.listener)
            result.path.rename(place)
        else:
            steps = parse_recipe(options.recipe)
            result = compress_student(source, steps, place, material, options, listener=job.listener)
        report = {**result.report, "source": "train/student"}
        write_json(out / "report.json", report)
        write_compression_report(out, report)
        last = report.get("recommended") or report["steps"][-1]
        size = f"{last['size_mib']:.1f} MiB, {last['size_ratio']:.0%} of the student"
        return {"summary": f"{last['step'] if options.recipe == 'all' else report['recipe']}: {size}"}

    parts = {
        "spec": relevant(job.spec, "examples", "test", "unlabelled", "rules", "exclude", "licences"),
        "options": as_json(replace(options, keep_steps=False)),
        "inputs": [trained.output, soft.output, merged.output],
        "code": code_digest(train),
    }
    return job.make_stage("compress", parts, make)


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
    texts = unlabelled_texts(job, weak, merged, rows, validation)
    if options.method != "student" or not texts:
        return {}
    result = self_train(job.spec, rows, validation, texts, student, train, options, listener=job.listener)
    if result.rows.num_rows:
        write_rows(concatenate_datasets([rows, result.rows]), student.parent / "train.parquet")
    told = {"texts": len(texts), "rows": result.rows.num_rows, "stopped": result.stopped, "rounds": result.rounds}
    return {"self_training": told}
