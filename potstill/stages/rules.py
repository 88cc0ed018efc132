"""The stage that reads the texts nobody labelled, and labels them by rules, functions and what the teacher answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.asking.budget import as_paid
from potstill.code_version import code_version
from potstill.events import Event
from potstill.options import as_json
from potstill.rows import rows_to_dataset
from potstill.run_dir import Stage
from potstill.stages.parts import prompt_digest, ref_content, relevant, write_json, write_stage

if TYPE_CHECKING:
    from potstill.datagen.weak import WeakResult
    from potstill.stages.job import Job


def weak_stage(job: Job) -> Stage | None:
    """The user's unlabelled texts, labelled by rules; None where the task has no such texts, or no labels.

    Those of a task whose answer is a text are inputs that the teacher answers (`potstill.stages.own_inputs`).
    """
    from potstill.datagen.asked_rules import ask_rules
    from potstill.datagen.votes import function_digest
    from potstill.datagen.weak import label_texts, usable_texts

    ref = job.spec.unlabelled
    if ref is None or job.spec.kind != "classification":
        job.folder.set_aside("weak")
        return None

    asks = job.spec.questions

    def make(out: Path) -> dict[str, Any]:
        from potstill.retrieval.load import read_texts

        commits: dict[str, str] = {}
        kept, dropped = usable_texts(read_texts(ref, job.spec, commits=commits), ref.path)
        if broken := sum(item.reason == "broken_encoding" for item in dropped):
            note = f"{broken:,} of {len(kept) + len(dropped):,} texts in {ref.path} are not UTF-8 and are left out"
            job.listener(Event("weak", "note", f"{note}; save it as UTF-8"))
        places, texts = [place for place, _ in kept], [text for _, text in kept]
        write_json(out / "texts.json", {"texts": texts, "places": places})
        spec, cut = job.spec, ""

        def labelled() -> WeakResult | None:
            if not (spec.rules or job.functions):
                return None
            return label_texts(
                spec, texts, job.settings.weak, functions=job.functions, places=places, dataset=ref.path,
                asker=job.asker, soft=job.settings.soft,
            )  # fmt: skip

        if asks:
            told = f"asking {job.asker.teacher.name} {asks} questions about each of {len(texts)} texts"
            job.listener(Event("weak", "progress", told, 0, len(texts)))
        with as_paid(job.asker.meter) as met:
            result = labelled()
        if met:  # the run goes on with what asks nothing
            cut = f"the questions of rules are left out: {met['budget_met']['told']}; "
            spec = replace(spec, rules=tuple(rule for rule in spec.rules if rule.kind != "prompt"))
            result = labelled()
        if result is None:
            report = {"texts": len(texts), "rules": 0, "commits": commits, **met}
            write_stage(out, rows_to_dataset([], spec.label_names), dropped, report)
            return {"summary": f"{cut}{len(texts)} texts, no rules", "rows": 0, "dropped": len(dropped), **met}
        write_stage(out, result.rows, (*dropped, *result.dropped), {**result.report, "commits": commits, **met})
        for note in result.notes:
            job.listener(Event("weak", "note", note))
        by = f"{len(spec.rules)} rules" + (f" and {len(job.functions)} functions" if job.functions else "")
        return {
            "summary": f"{cut}{result.rows.num_rows} of {len(texts)} texts labelled by {by}",
            "rows": result.rows.num_rows,
            "dropped": len(dropped) + len(result.dropped),
            **met,
        }

    parts = {
        "spec": relevant(job.spec, "examples", "test", "labelled", "exclude", "licences"),
        "options": as_json(job.settings.weak),
        "functions": [function_digest(function) for function in job.functions],
        "texts": ref_content(ref),
        **code_version(weak_stage, without=() if asks else (ask_rules,)).key_parts(),
    }
    if asks:
        parts |= {
            "teacher": job.asker.identity, "soft": as_json(job.settings.soft), "prompts": prompt_digest(),
        }  # fmt: skip
    return job.make_stage("weak", parts, make, job.asker if asks else None)
