"""The report of a compression as text and as a drawing: what each step gave, and which student to take.

What enters: `report.json` of a compression or of the whole zoo. What leaves: `report.md` and `report.svg` beside it,
and the table that a terminal shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from potstill.report.plots import scatter
from potstill.run_dir import write_atomic

# A drawing that stands alone has no page to take its colours from.
_STYLE = (
    "<style>text{font:13px sans-serif;fill:#444}.end{text-anchor:end}.middle{text-anchor:middle}"
    ".grid,.axis{stroke:#ccc;fill:none}.line{fill:none;stroke:#2b6cb0;stroke-width:1.5}"
    ".mark.c1{fill:#2b6cb0}.mark.c2{fill:#999}</style>"
)


_WIDE = {
    *("parameters", "bits", "tokens/s (1)", "tokens/s (16)", "s", "of it", "kept", "of ms", "GPU tokens/s (16)"),
    *("ms p95", "first ms p95", "of first ms"),
}


def step_rows(report: Mapping[str, Any], *, narrow: bool = False) -> tuple[list[str], list[list[str]]]:
    """Column names and cells of the table of steps; columns that nothing was measured for are left out.

    Args:
        report: As in report.json.
        narrow: Leave out what a terminal of 80 signs has no room for.
    """
    columns: dict[str, Any] = {
        "step": lambda e: str(e["step"]),
        "MiB": lambda e: _number(e.get("size_mib"), "{:.1f}"),
        "of it": lambda e: _number(e.get("size_ratio"), "{:.0%}"),
        "parameters": lambda e: _number(e.get("parameters"), "{:,}"),
        "zeros": lambda e: _number(e.get("zeros") or None, "{:.0%}"),
        "bits": lambda e: _number(e.get("bits_per_parameter"), "{:.2f}"),
        str(report.get("metric") or "score"): lambda e: _number(e.get("score"), "{:.4f}"),
        "kept": lambda e: _number(e.get("score_ratio"), "{:.1%}"),
        "agrees": lambda e: _number(e.get("agreement", e.get("token_agreement")), "{:.1%}"),
        "perplexity": lambda e: _number(e.get("perplexity"), "{:.4g}"),
        "ms": lambda e: _number((e.get("latency_ms") or {}).get("p50"), "{:.1f}"),
        "ms p95": lambda e: _number((e.get("latency_ms") or {}).get("p95"), "{:.1f}"),
        "of ms": lambda e: _number(e.get("latency_ratio"), "{:.0%}"),
        "first ms": lambda e: _number((e.get("first_token_ms") or {}).get("p50"), "{:.1f}"),
        "first ms p95": lambda e: _number((e.get("first_token_ms") or {}).get("p95"), "{:.1f}"),
        "of first ms": lambda e: _number(e.get("first_token_ratio"), "{:.0%}"),
        "tokens/s (1)": lambda e: _number((e.get("tokens_per_s") or {}).get("1"), "{:,.0f}"),
        "tokens/s (16)": lambda e: _number((e.get("tokens_per_s") or {}).get("16"), "{:,.0f}"),
        "GPU ms": lambda e: _number(((e.get("gpu") or {}).get("latency_ms") or {}).get("p50"), "{:.1f}"),
        "GPU tokens/s (16)": lambda e: _number(((e.get("gpu") or {}).get("tokens_per_s") or {}).get("16"), "{:,.0f}"),
        "peak MiB": lambda e: _number(e.get("peak_rss_mib"), "{:.0f}"),
        "s": lambda e: _number(e.get("seconds") or None, "{:.0f}"),
    }
    cells = {name: [make(entry) for entry in report["steps"]] for name, make in columns.items()}
    shown = [name for name, column in cells.items() if any(column) and not (narrow and name in _WIDE)]
    return shown, [[cells[name][i] for name in shown] for i in range(len(report["steps"]))]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of points (size, quality) that no other beats in both: smaller is better, then higher; by size."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    shown, rows = step_rows(report)
    lines = [f"# {report['recipe']}", "", f"Made from `{report['source']}`. {measured_on(report)}", ""]
    lines += ["| " + " | ".join(shown) + " |", "|" + "---|" * len(shown)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") or "–" for cell in row) + " |" for row in rows]
    lines += ["", *(f"- {note}" for note in report.get("notes", ()))]
    if chosen := report.get("recommended"):
        lines += ["", f"Recommended: **{chosen['step']}**, {chosen['why']}."]
    elif "recommended" in report:
        lines += ["", f"Recommended: none; {report['why_none']}."]
    return "\n".join(lines).rstrip() + "\n"


def quality(entry: Mapping[str, Any]) -> float | None:
    """What a plot has upwards: the score, or for a bare decoder the original's perplexity over this one's."""
    if entry.get("score") is not None:
        return float(entry["score"])
    ratio = entry.get("perplexity_ratio")
    return None if not ratio else 1 / float(ratio)


def chosen_step(report: Mapping[str, Any]) -> tuple[int | None, str]:
    """The line of the steps that is the student to use, and why; None where no recipe fits the limits."""
    steps = report["steps"]
    if best := report.get("recommended"):
        found = next((i for i, entry in enumerate(steps) if entry["step"] == best["step"]), None)
        return found, str(best.get("why", ""))
    if "recommended" in report:
        return None, str(report.get("why_none", ""))
    # One recipe alone: what was written first is what loads.
    files = next((i for i, entry in enumerate(steps) if entry.get("kind") == "files"), len(steps) - 1)
    return files, "what the recipe wrote"


def chosen_entry(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What was measured of the student to use; None where no recipe fits the limits."""
    place, _ = chosen_step(report)
    found: Mapping[str, Any] | None = None if place is None else report["steps"][place]
    return found


def figure(report: Mapping[str, Any]) -> Markup:
    """Size against quality for a page, the Pareto front as a line; empty where nothing was measured."""
    entries = [entry for entry in report["steps"] if entry.get("size_mib") and quality(entry) is not None]
    points = [(float(entry["size_mib"]), float(quality(entry) or 0.0)) for entry in entries]
    if len(points) < 2:
        return Markup("")
    y_title = str(report.get("metric") or "perplexity of the original over this one's")
    return scatter(
        [(x, y, str(entry["step"])) for (x, y), entry in zip(points, entries, strict=True)],
        front=pareto_front(points), title="Size and quality", x_title="MiB on disk", y_title=y_title,
    )  # fmt: skip


def drawing(report: Mapping[str, Any]) -> str:
    """The figure as an SVG file that stands alone; empty where nothing was measured."""
    text = str(figure(report))
    if not text:
        return ""
    svg = text[text.index("<svg ") : text.index("</svg>") + len("</svg>")]
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        "><title>", f">{_STYLE}<title>", 1
    )


def write_compression_report(folder: Path, report: Mapping[str, Any]) -> list[Path]:
    """Write report.md and, where there is something to draw, report.svg beside report.json."""
    places = [folder / "report.md"]
    write_atomic(places[0], markdown(report))
    if svg := drawing(report):
        places.append(folder / "report.svg")
        write_atomic(places[1], svg)
    return places


def measured_on(report: Mapping[str, Any]) -> str:
    """What the figures were measured on, as a sentence."""
    parts = []
    if report.get("test_rows"):
        parts.append(f"{report['metric']} on {report['test_rows']:,} test rows")
    if report.get("text_tokens"):
        parts.append(f"perplexity on {report['text_tokens']:,} tokens")
    threads = report.get("options", {}).get("threads", 1)
    gpu = next((entry["gpu"]["name"] for entry in report["steps"] if (entry.get("gpu") or {}).get("name")), None)
    parts.append(
        f"speed and memory in fresh processes on {threads} thread{'s' if threads != 1 else ''}, each in turn with the "
        "original's" + (f", and on one {gpu}" if gpu else "")
    )
    return "; ".join(parts) + "."


def _number(value: Any, form: str) -> str:
    return "" if value is None else form.format(value)
