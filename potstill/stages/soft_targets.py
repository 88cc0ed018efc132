"""What the student learns from beside the answers: the teacher's probabilities of labels, or of an output's tokens."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from potstill.asking.budget import as_paid
from potstill.rows import read_rows, write_rows
from potstill.stages.parts import write_json

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.run_dir import Stage
    from potstill.stages.job import Job
    from potstill.task import TaskSpec


def make_soft_targets(
    job: Job, merged: Stage, generated: Stage, out: Path, *, wanted: bool, itself: bool
) -> dict[str, Any]:
    """Fill the folder of the stage, and say what it remembers.

    Where the budget ends on the way and the run goes on, the rows have the targets that were stored while they were
    written, and hard labels else.

    Args:
        job: The run.
        merged: The stage that split the rows.
        generated: The stage that wrote rows, with the token targets of their outputs.
        out: The folder.
        wanted: Whether soft targets are learnt from.
        itself: Whether the student starts from the teacher's own model.

    Raises:
        TeacherError: The teacher refused or stayed away, or the budget is met and the run stops at it.
    """
    train = read_rows(merged.path / "train.parquet")
    stored = generated.path / "token_targets.parquet"
    have = read_rows(stored) if stored.exists() else None
    with as_paid(job.asker.meter) as met:
        if job.spec.kind == "classification":
            train, report = _label_targets(job, train, out, wanted)
            targets = None
        else:
            train, targets, report = _output_targets(job, train, have, wanted, itself)
    if met:
        targets = _targets_of(train, have) if have is not None and wanted and not itself else None
        kept = "those of the written rows alone" if targets is not None else "none"
        report = {"summary": f"soft targets: {kept}, since {met['budget_met']['told']}", **met}
    if targets is not None:
        write_rows(targets, out / "token_targets.parquet")
    write_rows(train, out / "train.parquet")
    write_rows(read_rows(merged.path / "validation.parquet"), out / "validation.parquet")
    write_json(out / "report.json", report)
    summary = str(report.get("summary", "soft targets stored" if report else "hard labels only"))
    return {"summary": summary, **met}


def _targets_of(train: Dataset, have: Dataset) -> Dataset | None:
    """Stored targets of the rows that are learnt from, if any; held-out rows and those that were left out have some."""
    learnt = set(train["id"])
    places = [place for place, row_id in enumerate(have["id"]) if row_id in learnt]
    return have.select(places) if places else None


def _label_targets(job: Job, train: Dataset, out: Path, wanted: bool) -> tuple[Dataset, dict[str, Any]]:
    """Rows with the teacher's calibrated label probabilities where it gives some, and a report."""
    from potstill.datagen.label_scores import can_score
    from potstill.datagen.soft import add_teacher_probs
    from potstill.models import sentence_encoder

    if not (wanted and can_score(job.asker, job.settings.soft)):
        return train, {}
    result = add_teacher_probs(
        job.spec,
        train,
        job.asker,
        job.settings.soft,
        encoder=sentence_encoder(job.settings.encoder),
        unlabelled=texts_for_prior(job.spec, job.settings.seed),
        listener=job.listener,
    )
    if result.calibration is not None:
        write_json(out / "calibration.json", result.calibration.to_json())
    return result.table, result.report


def _output_targets(
    job: Job, train: Dataset, have: Dataset | None, wanted: bool, itself: bool
) -> tuple[Dataset, Dataset | None, dict[str, Any]]:
    """Rows, the top-k log-probs of their outputs' tokens (None where there are none), and a report."""
    from potstill.datagen.sequence_targets import output_targets

    distil = job.settings.distil
    return output_targets(
        job.spec, train, job.outputs, job.settings.soft, method=distil.method, share=distil.sequence_share, soft=wanted,
        itself=itself, have=have, listener=job.listener,
    )  # fmt: skip


def texts_for_prior(spec: TaskSpec, seed: int) -> list[str]:
    """The user's unlabelled texts in a random order, where the label prior is to be estimated on some of them."""
    if not spec.estimate_prior or spec.unlabelled is None:
        return []
    from potstill.retrieval.load import read_texts

    texts = [text for text in read_texts(spec.unlabelled, spec) if text and text.strip()]
    return Random(seed).sample(texts, len(texts))
