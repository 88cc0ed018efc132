"""Tables of documents: they are those that the results make, and say of records what they hold."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("zero_label_tables", "zero_label", "zero_label_arms", "pack", "results_file")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("zero_label_tables")
    for name in MODULES:
        sys.modules.pop(name, None)


def record(task: str, arm: str, seed: int, macro_f1: float | None, share: float | None = None) -> dict[str, Any]:
    return {"task": task, "arm": arm, "seed": seed, "macro_f1": macro_f1, "ratio_to_ceiling": share}


RECORDS = [
    record("trec", "soft", 1, 0.6, 0.75),
    record("trec", "soft", 0, 0.4, 0.5),
    record("trec", "ceiling", 0, 0.8, 1.0),
    record("trec", "ceiling", 1, 0.8, 1.0),
    record("trec", "teacher_raw", 0, 0.1, 0.125),
    record("trec", "labels_100", 0, 0.5, 0.625),
    record("trec", "labels_chosen", 0, 0.7, 0.875),
    record("trec", "verified", 0, None),
    record("trec", "verified", 1, 0.9, 1.125),
    record("sick", "soft", 0, 0.2, 0.98),
    record("gsm8k", "soft", 0, None, 0.1),
]


def cells(table: str, first: str) -> list[str]:
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_cells_are_means_over_the_seeds_and_empty_where_nothing_was_run(tables: Any) -> None:
    found = cells(tables.means(RECORDS), "trec")
    assert found == ["trec", "2", "0.100", "–", "0.500", "–", "–", "–", "–", "0.500", "0.700", "0.800"]
    assert cells(tables.means(RECORDS), "sick")[:5] == ["sick", "0", "–", "–", "0.200"]
    assert cells(tables.spread(RECORDS), "trec")[1:3] == ["0.400–0.600", "–"]
    assert "sick" not in tables.spread(RECORDS)
    assert cells(tables.hundred(RECORDS), "trec") == ["trec", "0.500", "0.500", "0.700", "0.700"]


def test_a_task_counts_once_in_the_mean_share_whatever_its_seeds(tables: Any) -> None:
    (found,) = [cells(tables.shares(RECORDS), "student")]
    assert found == ["student", "2", "80.2 %", "1", "trec 62.5 %"]


def test_parts_are_those_of_the_first_seed(tables: Any) -> None:
    assert cells(tables.parts(RECORDS), "trec")[4:6] == ["0.400", "–"], "no score on that seed, though on another"


def test_a_page_keeps_all_but_its_tables(tables: Any) -> None:
    page = "before\n\n<!-- zero_label hundred -->\nold\n<!-- end -->\n\nafter <!-- end -->\n"
    made = tables.filled(page, RECORDS)
    assert made.startswith("before\n\n<!-- zero_label hundred -->\n\n| task |")
    assert made.endswith("|\n\n<!-- end -->\n\nafter <!-- end -->\n")
    assert tables.filled(made, RECORDS) == made
    with pytest.raises(KeyError):
        tables.filled(page.replace("hundred", "thousand"), RECORDS)


def test_the_documents_hold_the_tables_of_the_results(tables: Any) -> None:
    records = json.loads((ROOT / "benchmarks" / "results" / "zero_label.json").read_text("utf-8"))["records"]
    for page in tables.PAGES:
        text = (ROOT / page).read_text("utf-8")
        assert "<!-- zero_label " in text
        assert tables.filled(text, records) == text, f"{page}: run python benchmarks/zero_label_tables.py --write"
