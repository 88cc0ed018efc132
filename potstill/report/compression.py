"""A run's compression as its report shows it: the table of steps or recipes, the Pareto front, and the chosen one.

What enters: `compress/report.json` as the stage wrote it. What leaves: what the templates show; every figure is the
cell that `potstill compress` prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from potstill.report.compression_page import chosen_step, figure, measured_on, step_rows
from potstill.report.facts import RunFacts
from potstill.report.plots import lines


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
        "curves": _curves(steps, "token" if report.get("kind") == "causal" else "row"),
        "columns": columns,
        "rows": [{"cells": row, "chosen": i == chosen} for i, row in enumerate(rows)],
        "chosen": None if chosen is None else rows[chosen][0],
        "why": clean(why),
        "failed": [(clean(str(item["step"])), clean(str(item["why"]))) for item in report.get("failed", ())],
        "notes": [clean(str(note)) for note in report.get("notes", ())],
    }


def _curves(steps: Sequence[Mapping[str, Any]], unit: str) -> Markup:
    """The loss of every step that trained: healing, and training on rounded weights."""
    series = {}
    for i, entry in enumerate(steps):
        facts = entry.get("facts") or {}
        losses = [value for value in facts.get("losses", ()) if isinstance(value, int | float)]
        # Of a long training, every so many losses were kept.
        every = max(1, int(facts.get("steps") or 0) // 50)
        if len(losses) > 1:
            series[f"{i}: {entry['step']}"] = [(float(every * j), float(loss)) for j, loss in enumerate(losses)]
    return lines(series, title="Loss of the steps that train", x_title="step", y_title=f"nats a {unit}")
