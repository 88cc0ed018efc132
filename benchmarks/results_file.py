"""Results of the benchmarks: one JSON file each under benchmarks/results, and the table that docs quote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "results"


def write_results(name: str, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write `results/NAME.json`, a list of flat records."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(list(records), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_results(name: str) -> list[dict[str, Any]]:
    """The records of `results/NAME.json`; none where it does not exist."""
    path = FOLDER / f"{name}.json"
    records: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    return records


def merge_results(name: str, records: Sequence[Mapping[str, Any]], key: Sequence[str]) -> Path:
    """Put records into `results/NAME.json`: each replaces the one with the same values under `key`, the rest stay."""

    def place(record: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(record.get(part) for part in key)

    fresh = {place(record): record for record in records}
    kept = [fresh.pop(place(record), record) for record in read_results(name)]
    return write_results(name, [*kept, *fresh.values()])


def print_table(records: Sequence[Mapping[str, Any]]) -> None:
    """Print records as a Markdown table; a column for each key that any record has."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for record in records:
        print("| " + " | ".join(_cell(record.get(column)) for column in columns) + " |")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
