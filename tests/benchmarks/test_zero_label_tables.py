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
MODULES = ("zero_label_tables", "zero_label_worth", "zero_label", "zero_label_arms", "pack", "results_file")


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
    record("trec", "soft", 1, 0.6, 0.75) | {"minutes": 3.6, "tokens": 30_600},
    record("trec", "soft", 0, 0.4, 0.5) | {"minutes": 22.9, "tokens": 1_000},
    record("trec", "soft", 2, 0.5, 0.625) | {"minutes": 3.1, "tokens": 12_000},
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
    assert cells(tables.brief(RECORDS), "trec") == ["trec", "0.500", "–", "–", "–", "0.800", "4", "31k"]
    assert cells(tables.brief(RECORDS), "sick")[-2:] == ["–", "–"]
    assert cells(tables.spread(RECORDS), "trec")[1:3] == ["0.400–0.600", "–"]
    assert "sick" not in tables.spread(RECORDS)
    assert cells(tables.hundred(RECORDS), "trec") == ["trec", "0.500", "0.500", "0.700", "0.700"]


def test_sizes_are_those_of_the_records_of_compression(tables: Any) -> None:
    known = [
        {"model": "MiniLM-L6", "task": "trec", "recipe": "original", "size_mib": 93.42},
        {"model": "MiniLM-L6", "task": "trec", "recipe": "int8", "size_mib": 24.0},
        {"model": "SmolLM2", "task": "x", "recipe": "original", "size_mib": 256.0},
        {"model": "MiniLM-L6", "task": "banking77", "recipe": "original", "size_mib": 93.56},
    ]
    assert tables.student_mib(known) == "93.4 to 93.6 MiB"
    assert tables.student_mib(known[:2]) == "93.4 MiB"
    assert tables.student_mib(known[2:3]) == ""


def test_a_task_counts_once_in_the_mean_share_whatever_its_seeds(tables: Any) -> None:
    (found,) = [cells(tables.shares(RECORDS), "student")]
    assert found == ["student", "2", "80.2 %", "1", "trec 62.5 %"]


def test_parts_are_those_of_the_first_seed(tables: Any) -> None:
    assert cells(tables.parts(RECORDS), "trec")[4:6] == ["0.400", "–"], "no score on that seed, though on another"


def test_labels_are_read_off_a_curve_by_the_logarithm_of_their_number(tables: Any) -> None:
    of = tables.zero_label_worth.labels_for
    curve = [(100, 0.5), (400, 0.7), (1600, 0.7)]
    assert [of(curve, wanted) for wanted in (0.4, 0.5, 0.6, 0.7, 0.8)] == ["< 100", "100", "200", "400", "> 1,600"]
    bent = [(100, 0.5), (200, 0.4), (400, 0.6), (2000, 0.55)]
    assert of(bent, 0.5) == "100", "where it is first reached"
    assert of(bent, 0.55) == "340"


def test_what_is_given_is_worth_the_labels_that_bring_as_much(tables: Any) -> None:
    curve = [
        {"task": "trec", "seed": seed, "labels": labels, "macro_f1": macro_f1}
        for seed, labels, macro_f1 in ((0, 400, 0.7), (0, 100, 0.5), (0, 1600, 0.8), (1, 100, 0.1))
    ]
    product = [record("trec", "self_training", 0, 0.45), record("trec", "self_training", 1, 0.6)]
    product += [record("trec", "self_training_chosen", 0, 0.6), record("trec", "soft", 0, None)]
    (found,) = tables.zero_label_worth.table(curve, product, 0)
    assert found == {
        "task": "trec", "on 100 labels": 0.5, "on 400 labels": 0.7, "on 1,600 labels": 0.8,
        "nothing: worth": "–", "texts: worth": "< 100", "texts and 100 chosen: worth": "200",
        "90 % needs": "530", "95 % needs": "920",
    }  # fmt: skip


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
