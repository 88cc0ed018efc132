"""A run's compression as its report shows it: the table of steps or recipes, the Pareto front, and the chosen one.

What enters: `compress/report.json` as the stage wrote it. What leaves: what the templates show; every figure is the
cell that `potstill compress` prints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from potstill.compress_report import chosen_step, figure, measured_on, step_rows
from potstill.run_facts import RunFacts


def compression(facts: RunFacts, clean: Callable[[str], str] = str) -> dict[str, Any] | None:
    """The section of the compression; None where the run has none.

    Args:
        facts: The run.
        clean: Applied to texts that may name places of this machine.
    """
    report = facts.reports.get("compress", {})
    if not report.get("steps"):
        return None
    # A recipe may name the folder of a teacher, so its text is cleaned wherever it is shown.
    steps = [{**entry, "step": clean(str(entry["step"]))} for entry in report["steps"]]
    report = {**report, "steps": steps}
    if best := report.get("recommended"):
        report["recommended"] = {**best, "step": clean(str(best["step"]))}
    columns, rows = step_rows(report)
    chosen, why = chosen_step(report)
    return {
        "zoo": report["recipe"] == "all",
        "recipe": clean(str(report["recipe"])),
        "measured": measured_on(report),
        "scored": bool(report.get("test_rows")),
        "figure": figure(report),
        "columns": columns,
        "rows": [{"cells": row, "chosen": i == chosen} for i, row in enumerate(rows)],
        "chosen": None if chosen is None else rows[chosen][0],
        "why": clean(why),
        "failed": [(clean(str(item["step"])), clean(str(item["why"]))) for item in report.get("failed", ())],
        "notes": [clean(str(note)) for note in report.get("notes", ())],
    }
