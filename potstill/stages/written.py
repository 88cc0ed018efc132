"""Rows that the teacher wrote: none where the budget allows none, and what their checks by a teacher leave of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.asking.budget import as_paid
from potstill.code_version import code_version
from potstill.options import as_json
from potstill.rows import read_rows, rows_to_dataset
from potstill.run_dir import Stage
from potstill.stages.parts import prompt_digest, relevant, write_stage

if TYPE_CHECKING:
    from potstill.stages.job import Job


def nothing_written(job: Job, out: Path, met: Mapping[str, Any], retrieved: int) -> dict[str, Any]:
    """The stage of written rows where the budget let none be written, and others are there to train on.

    Args:
        job: The run, which goes on at its budget.
        out: The stage's folder.
        met: What `as_paid` gave.
        retrieved: Rows that retrieval found.

    Raises:
        BudgetReached: There are no others.
    """
    ruled = job.functions or any(rule.kind != "prompt" for rule in job.spec.rules)
    if not (retrieved or job.spec.labelled or ruled) and job.asker.meter is not None:
        raise job.asker.meter.reached()
    summary = f"no rows written: {met['budget_met']['told']}"
    write_stage(out, rows_to_dataset([], job.spec.label_names), (), {"summary": summary, **met})
    return {"summary": summary, "rows": 0, **met}


def quality_stage(job: Job, generated: Stage) -> Stage | None:
    """The written rows, checked by a teacher; None where no check is asked for."""
    from potstill.datagen.quality import check_rows

    options = job.settings.quality
    if not options.on or not job.settings.writes:
        job.folder.set_aside("quality")
        return None
    checker = job.checker or job.outputs

    def make(out: Path) -> dict[str, Any]:
        rows = read_rows(generated.path / "rows.parquet")
        with as_paid(checker.meter) as met:
            result = check_rows(job.spec, rows, checker, options, job.settings.soft, listener=job.listener)
        if met:
            summary = f"not checked: {met['budget_met']['told']}"
            write_stage(out, rows, (), {"summary": summary, **met})
            return {"summary": summary, "rows": rows.num_rows, **met}
        write_stage(out, result.rows, result.dropped, result.report)
        return {"summary": result.report["summary"], "rows": result.rows.num_rows, "dropped": len(result.dropped)}

    parts = {
        "spec": relevant(job.spec, "test", "labelled", "unlabelled", "rules", "exclude", "licences"),
        # Where the teacher's options change replies, its identity is another.
        "options": as_json(replace(options, teacher_options={})),
        "soft": as_json(job.settings.soft),
        "rows": generated.output,
        "teacher": checker.identity,
        **code_version(quality_stage).key_parts(),
        "prompts": prompt_digest(),
    }
    return job.make_stage("quality", parts, make, checker)
