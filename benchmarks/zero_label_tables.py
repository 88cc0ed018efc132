"""The tables of README and docs/zero-label.md, made of `results/zero_label.json`.

    python benchmarks/zero_label_tables.py            prints them
    python benchmarks/zero_label_tables.py --write    puts each between its two marks in README.md and docs/

A mark is a line `<!-- zero_label NAME -->`, the end of a table `<!-- end -->`. Cells are macro-F1, of several seeds the
mean; a task's share of the ceiling is taken seed by seed. A test holds documents and results together.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import zero_label_worth
from pack import ROOT
from results_file import read_results
from zero_label import NAME

Records = Sequence[Mapping[str, Any]]
PAGES = ("README.md", "docs/zero-label.md")
TASKS = (
    "trec", "ag_news", "banking77", "sms_spam", "snips", "subj", "customer_reviews", "go_emotions",
    "hate_speech_offensive", "sick", "boolq",
)  # fmt: skip
TEACHER = {"teacher_raw": "teacher", "teacher_calibrated": "teacher, calibrated"}
PRODUCT = {
    "soft": "student",
    "self_training": "with texts",
    "labelled_100": "with 100 labels",
    "self_training_100": "with both",
    "self_training_chosen": "with both, labels chosen",
}
SUPERVISED = {
    "labels_100": "on 100 labels alone",
    "labels_chosen": "on 100 chosen",
    "ceiling": "on up to 2,000 labels",
}
PARTS = {
    "retrieved": "retrieved rows, hard targets",
    "generated": "written rows, hard targets",
    "both": "both, hard targets",
    "soft": "soft targets",
    "verified": "and verified",
    "self_training": "and texts",
    "rules": "and rules",
    "everything": "all of it",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, or write them into the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="%(prog)s [options]"
    )
    parser.add_argument("--write", action="store_true", help="into README.md and docs/zero-label.md")
    args = parser.parse_args(argv)
    records = read_results(NAME)
    if not args.write:
        for name, table in TABLES.items():
            print(f"{name}\n\n{table(records)}\n")
        return
    for page in PAGES:
        path = ROOT / page
        path.write_text(filled(path.read_text("utf-8"), records), encoding="utf-8")


def filled(text: str, records: Records) -> str:
    """A page with its tables made anew."""

    def table(found: re.Match[str]) -> str:
        return f"{found[1]}\n\n{TABLES[found[2]](records)}\n\n{found[3]}"

    return re.sub(r"(<!-- zero_label (\w+) -->)\n.*?(<!-- end -->)", table, text, flags=re.DOTALL)


def means(records: Records) -> str:
    """Every arm of the product beside teacher and ceiling: mean over the seeds that were run."""
    columns = {**TEACHER, **PRODUCT, **SUPERVISED}
    lines = []
    for task in TASKS:
        cells = [_shown(_mean(_values(records, task, arm))) for arm in columns]
        lines.append([task, str(len(_values(records, task, "ceiling"))), *cells])
    return _table(["task", "seeds", *columns.values()], lines)


def brief(records: Records) -> str:
    """What a first reader needs, for the README: what the user brings, beside full training, and what a run takes.

    Minutes and tokens are those of the run that nothing is brought to: the median of the seeds, since other programs
    ran beside them, and the most of the seeds, since what one had in its ledger it did not ask for again.
    """
    columns = {
        "soft": "nothing",
        "self_training": "texts",
        "labelled_100": "100 labels",
        "self_training_chosen": "texts and 100 chosen labels",
        "ceiling": "up to 2,000 labels",
    }
    lines = []
    for task in TASKS:
        own = [record for record in records if (record["task"], record["arm"]) == (task, "soft")]
        minutes, tokens = ([r[name] for r in own if r.get(name)] for name in ("minutes", "tokens"))
        taken = [f"{median(minutes):.0f}" if minutes else "–", f"{max(tokens) / 1000:.0f}k" if tokens else "–"]
        lines.append([task, *(_shown(_mean(_values(records, task, arm))) for arm in columns), *taken])
    table = _table(["you bring", *columns.values(), "minutes, with nothing", "teacher tokens"], lines)
    size = student_mib(read_results("compression"))
    return f"{table}\n\nEach student takes {size} before it is compressed." if size else table


def student_mib(records: Records) -> str:
    """The size of the uncompressed MiniLM students that `compression.py` measured; "" where it did none."""
    sizes = [r["size_mib"] for r in records if (r["model"], r["recipe"]) == ("MiniLM-L6", "original")]
    ends = list(dict.fromkeys(f"{size:.1f}" for size in (min(sizes), max(sizes)))) if sizes else []
    return f"{' to '.join(ends)} MiB" if ends else ""


def spread(records: Records) -> str:
    """Lowest and highest of each cell of `means` that stands for several seeds."""
    columns = {**PRODUCT, **SUPERVISED}
    lines = []
    for task in TASKS:
        values = [_values(records, task, arm) for arm in columns]
        if len(values[-1]) > 1:
            lines.append([task, *(f"{min(v):.3f}–{max(v):.3f}" if len(v) > 1 else "–" for v in values)])
    return _table(["task", *columns.values()], lines)


def shares(records: Records) -> str:
    """Mean share of the ceiling of each arm, over tasks; how many reach 95 %, and the lowest."""
    lines = []
    for arm, heading in {**TEACHER, **PRODUCT, **SUPERVISED}.items():
        if arm == "ceiling":
            continue
        found = {task: share for task in TASKS if (share := _share(records, task, arm)) is not None}
        if not found:
            continue
        low = min(found, key=lambda task: found[task])
        mean = sum(found.values()) / len(found)
        at_aim = sum(share >= 0.95 for share in found.values())
        lines.append([heading, str(len(found)), _percent(mean), str(at_aim), f"{low} {_percent(found[low])}"])
    return _table(["", "tasks", "mean share of the last column", "tasks at 95 % or more", "lowest"], lines)


def hundred(records: Records) -> str:
    """A hundred labels alone, drawn evenly and chosen: every seed, and the mean."""
    lines = []
    for task in TASKS:
        even, chosen = (_values(records, task, arm) for arm in ("labels_100", "labels_chosen"))
        if even and chosen:
            lines.append([task, _listed(even), _shown(_mean(even)), _listed(chosen), _shown(_mean(chosen))])
    return _table(["task", "drawn evenly", "mean", "chosen", "mean"], lines)


def parts(records: Records) -> str:
    """What each part brings on the first seed: hard and soft targets, and what may be added."""
    lines = []
    for task in TASKS:
        cells = [_shown(_mean(_values(records, task, arm, seed=0))) for arm in PARTS]
        lines.append([task, *cells])
    return _table(["task", *PARTS.values()], lines)


def worth(records: Records) -> str:
    """What texts and a hundred labels are worth in labels, and how many the aims would need; of another benchmark."""
    rows = zero_label_worth.table(read_results(zero_label_worth.NAME), records, 0)
    lines = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row.values()] for row in rows]
    return _table(list(rows[0]), lines)


TABLES: dict[str, Callable[[Records], str]] = {
    "means": means, "brief": brief, "spread": spread, "shares": shares, "hundred": hundred, "parts": parts,
    "worth": worth,
}  # fmt: skip


def _values(records: Records, task: str, arm: str, seed: int | None = None) -> list[float]:
    own = [r for r in records if (r["task"], r["arm"]) == (task, arm) and seed in (None, r["seed"])]
    return [r["macro_f1"] for r in sorted(own, key=lambda r: r["seed"]) if r.get("macro_f1") is not None]


def _share(records: Records, task: str, arm: str) -> float | None:
    own = [r.get("ratio_to_ceiling") for r in records if (r["task"], r["arm"]) == (task, arm)]
    return _mean([share for share in own if share is not None])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    return "\n".join([*head, *(f"| {' | '.join(line)} |" for line in lines)])


if __name__ == "__main__":
    main()
