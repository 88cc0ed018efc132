"""Tables that several commands print."""

from __future__ import annotations

from typing import Any

FEW_ROWS = 50


def print_scores(scores: dict[str, Any]) -> None:
    """The score table of a run, for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    metric, test = scores.get("metric", ""), scores["test_set"]
    figures = ["accuracy", "macro_f1", "qwk", "mae", "ece", "exact_match", "token_f1", "rouge_l", "chrf"]
    if metric in ("chrf", "chrf++", "bleu"):  # 80 columns do not hold all of them; the report does
        figures = ["rouge_l", "chrf", "chrf++", "bleu"]
    figures += scores.get("own_metrics", [])
    columns = [figure for figure in figures if figure in scores["systems"][0]]
    title = f"{test['rows']} {test['kind']} test rows" + ("" if test["kind"] == "real" else " (no real test data)")
    heads = [head for column in columns for head in ((column, "95 %") if column == metric else (column,))]
    table = Table(
        "system", *heads, "MiB", "ms p50", title=title, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False
    )
    for system in scores["systems"]:
        latency = (system.get("latency_ms") or {}).get("p50")
        cells = []
        for column in columns:
            cells.append("" if system.get(column) is None else f"{system[column]:.3f}")
            if column == metric:
                cells.append("–".join(f"{end:.2f}" for end in (system.get("ci") or {}).get(column) or ()))
        size = system.get("size_mib")
        table.add_row(system["name"], *cells, f"{size:.0f}" if size else "", f"{latency:.1f}" if latency else "")
    console = Console()
    console.print(table)
    if 0 < test["rows"] < FEW_ROWS:
        console.print(
            f"note     {test['rows']} test rows are too few to tell systems apart: see the 95 % intervals, "
            "and measure on more real rows",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip


def print_plan(plan: Any) -> None:
    """What a run will take, for a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "stage", "requests", "prompt tokens", "new tokens", "minutes", "known from", title=f"teacher {plan.teacher}"
    )
    for column in table.columns[1:5]:
        column.justify = "right"
    for step in plan.steps:
        counts = [f"{value:,}" for value in (step.requests, step.prompt_tokens, step.completion_tokens)]
        table.add_row(step.stage, *counts, step.minutes, step.basis if step.basis != "none" else "")
    prompt, completion = plan.tokens
    table.add_section()
    table.add_row("all", f"{plan.requests:,}", f"{prompt:,}", f"{completion:,}", plan.minutes, "")
    console = Console()
    for name, rows in plan.datasets:
        console.print(f"dataset  {name}, {rows:,} rows", markup=False)
    console.print(table)
    console.print(f"rows     about {plan.rows:,} after the merge")
    console.print(f"cost     {'not known' if plan.usd is None else f'{plan.usd:.2f} USD'}")
    if plan.budget is not None:
        console.print(f"budget   {plan.budget[0]} {'suffices' if plan.budget[1] else 'does not suffice'}")
    for note in plan.notes:
        console.print(f"note     {note}", markup=False)
