"""Write docs/picture.svg, the drawing of README: what goes in, what comes out, and what it reached, from the records.

python scripts/readme_picture.py          write it
python scripts/readme_picture.py --check  exit with 1 where it is not what the records say

The bars are `zero_label_summary.json`, the student's size the uncompressed MiniLM of `compression.json`. The file
fetches nothing, holds no script, and reads on a light and on a dark page.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "picture.svg"
WIDTH = 880
ARMS = {
    "soft": "nothing but the prompt",
    "self_training": "and texts without labels",
    "labelled_100": "100 labels",
    "self_training_100": "100 labels and texts",
    "self_training_chosen": "100 chosen labels and texts",
}
STYLE = (
    "text{font:14px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}.head{font-weight:600;font-size:15px}"
    ".small{font-size:12.5px;fill:#57606a}.box{fill:#f6f8fa;stroke:#d0d7de}.line{stroke:#8c959f;fill:none;stroke-width:1.5}"
    ".tip{fill:#8c959f}.bar{fill:#2b5ea8}.rest{fill:#eaeef2}"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.box{fill:#151b23;stroke:#3d444d}"
    ".line{stroke:#9198a1}.tip{fill:#9198a1}.bar{fill:#86aef0}.rest{fill:#262c36}}"
)


def records(name: str) -> list[dict[str, Any]]:
    """What a benchmark wrote."""
    found: list[dict[str, Any]] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))[
        "records"
    ]
    return found


def render() -> str:
    """The drawing."""
    shares = {r["arm"]: float(r["mean_ratio_to_ceiling"]) for r in records("zero_label_summary")}
    tasks = {int(r["tasks"]) for r in records("zero_label_summary") if r["arm"] in ARMS}
    sizes = [r["size_mib"] for r in records("compression") if (r["model"], r["recipe"]) == ("MiniLM-L6", "original")]
    steps = [
        ("a prompt", ("“Classify support", "tickets as billing,", "bug or other.”")),
        ("rows", ("found in datasets,", "written by a teacher,", "each with its source")),
        ("a student", ("distilled from both:", "MiniLM, or any model", f"({min(sizes):.0f} MiB here)")),
        ("a report", ("beside its teacher,", "with intervals, leaks", "and cost; to the Hub")),
    ]
    parts = [_step(number, *step) for number, step in enumerate(steps)]
    top = 170
    about = (
        "Macro-F1 of the student as a share of what up to 2,000 real labels give, "
        f"mean of {max(tasks)} tasks, by what you bring"
    )
    parts.append(f'<text class="small" x="20" y="{top}">{escape(about)}</text>')
    parts += [_bar(top + 14 + 24 * place, ARMS[arm], shares[arm]) for place, arm in enumerate(ARMS)]
    height = top + 14 + 24 * len(ARMS) + 10
    told = "; ".join(f"{name} {shares[arm]:.0%}" for arm, name in ARMS.items())
    title = "From a prompt over rows to a student and its report"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="title about"><title id="title">{title}</title>'
        f'<desc id="about">{escape(f"{about}: {told}.")}</desc><style>{STYLE}</style>' + "".join(parts) + "</svg>\n"
    )


def _step(number: int, head: str, lines: tuple[str, ...]) -> str:
    """One box of the row, with an arrow to the next."""
    wide, gap = 180, 40
    left = 20 + number * (wide + gap)
    made = [f'<rect class="box" x="{left}" y="14" width="{wide}" height="112" rx="10"/>']
    made.append(f'<text class="head" x="{left + 16}" y="44">{escape(head)}</text>')
    made += [f'<text x="{left + 16}" y="{70 + 20 * row}">{escape(line)}</text>' for row, line in enumerate(lines)]
    if number < 3:
        end = left + wide + gap - 6
        made.append(f'<path class="line" d="M{left + wide + 6} 70H{end - 6}"/>')
        made.append(f'<path class="tip" d="M{end} 70l-9 -5v10z"/>')
    return "".join(made)


def _bar(top: int, name: str, share: float) -> str:
    left, wide = 230, 570
    return (
        f'<text x="20" y="{top + 13}">{escape(name)}</text>'
        f'<rect class="rest" x="{left}" y="{top}" width="{wide}" height="16" rx="3"/>'
        f'<rect class="bar" x="{left}" y="{top}" width="{wide * share:.1f}" height="16" rx="3"/>'
        f'<text x="{left + wide + 12}" y="{top + 13}">{share:.0%}</text>'
    )


def main() -> int:
    """Write or check."""
    made = render()
    if "--check" in sys.argv[1:]:
        return int(not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != made)
    PICTURE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
