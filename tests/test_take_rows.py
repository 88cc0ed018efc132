"""Rows taken out of a table: the same as one by one, and soon."""

from __future__ import annotations

import time
from typing import Any

import pytest
from datasets import concatenate_datasets

from potstill.datagen.merge import split_rows
from potstill.rows import Row, Source, rows_to_dataset, sample_rows, table_digest, take_rows
from potstill.task import Label, TaskSpec

SPEC = TaskSpec("t", "Sort it.", "classification", (Label("a"), Label("b")))


def table(count: int, origin: Any = "retrieved") -> Any:
    names = ("a", "b")
    rows = [
        Row(f"text {i} of some words", names[i % 2], origin, Source(dataset="x", row=i), label=names[i % 2])
        for i in range(count)
    ]
    return rows_to_dataset(rows, names)


@pytest.mark.parametrize("places", [[], [3], [7, 2, 5], [2, 3, 4], list(range(10)), [1, 1, 9]])
@pytest.mark.parametrize("before", ["whole", "picked", "shuffled"])
def test_the_rows_are_those_that_were_asked_for(places: list[int], before: str) -> None:
    rows = table(40)
    rows = {"whole": rows, "picked": rows.select([*range(5, 25, 2)]), "shuffled": rows.shuffle(seed=1)}[before]
    taken = take_rows(rows, places)
    slow = rows.select(places).flatten_indices()
    assert taken[:] == slow[:]
    assert taken.features == slow.features
    assert taken._indices is None


def test_tables_of_the_same_rows_have_one_digest() -> None:
    rows = table(1200)
    again = concatenate_datasets([rows.select(range(700)), rows.select(range(700, 1200))])
    turned = rows.select(range(1199, -1, -1))
    assert table_digest(rows) == table_digest(again) == table_digest(turned.select(range(1199, -1, -1)))
    assert len({table_digest(some) for some in (rows, turned, table(1199), rows.remove_columns("weight"))}) == 4


def test_a_sample_is_drawn_by_its_seed_and_is_the_whole_where_there_is_no_more() -> None:
    rows = table(30)
    assert sample_rows(rows, 0, 1) is sample_rows(rows, 30, 1) is rows
    first, again, other = (sample_rows(rows, 8, seed)["id"][:] for seed in (1, 1, 2))
    assert len(first) == 8
    assert first == again != other
    assert first == rows.shuffle(seed=1)["id"][:8], "as every run before drew"


@pytest.mark.parametrize("origin", ["retrieved", "user"])
def test_many_rows_are_split_soon(origin: str) -> None:
    rows = table(20_000, origin)
    started = time.process_time()
    parts = split_rows(SPEC, rows)
    assert parts.train.num_rows + parts.validation.num_rows + (parts.heldout.num_rows if parts.heldout else 0) == 20_000
    assert time.process_time() - started < 5, "half a second on an idle machine; row by row it takes ten"
