"""The stage that has the teacher explain the outputs which a student will learn (`datagen.rationales`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.code_version import code_version
from potstill.options import as_json
from potstill.rows import read_rows, write_rows
from potstill.stages.parts import prompt_digest, relevant, write_json

if TYPE_CHECKING:
    from potstill.run_dir import Stage
    from potstill.settings import Settings
    from potstill.stages.job import Job
    from potstill.task import TaskSpec


def wants_rationales(spec: TaskSpec, settings: Settings) -> bool:
    """Whether a run's student learns the reasoning behind its outputs."""
    return settings.distil.rationale_weight > 0 and spec.kind != "classification"


def rationale_stage(job: Job, soft: Stage) -> Stage | None:
    """The training rows with the teacher's reasoning; None where none is asked for.

    Held-out rows get none: the weights that stay are chosen by the outputs alone.
    """
    from potstill.datagen.rationales import write_rationales

    if not wants_rationales(job.spec, job.settings):
        job.folder.set_aside("rationales")
        return None
    asker, options = job.outputs, job.settings.rationales

    def make(out: Path) -> dict[str, Any]:
        rows = read_rows(soft.path / "train.parquet")
        result = write_rationales(job.spec, rows, asker, options, listener=job.listener)
        write_rows(result.table, out / "train.parquet")
        write_json(out / "report.json", result.report)
        met = {key: result.report[key] for key in ("budget_met",) if key in result.report}
        return {"summary": result.report["summary"], "rows": result.table.num_rows, **met}

    parts = {
        "spec": relevant(job.spec, "examples", "test", "labelled", "unlabelled", "rules", "exclude", "licences"),
        "options": as_json(options),
        "rows": soft.output,
        "teacher": asker.identity,
        **code_version(rationale_stage).key_parts(),
        "prompts": prompt_digest(),
    }
    return job.make_stage("rationales", parts, make, asker)
