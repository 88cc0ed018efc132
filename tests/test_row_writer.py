"""Rows and drops written while they come."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from potstill.errors import DataError
from potstill.row_writer import DropWriter, RowWriter
from potstill.rows import Dropped, Row, Source, read_dropped, read_rows, rows_to_dataset


def some_rows(count: int) -> list[Row]:
    return [
        Row(
            f"text {i}",
            "ab"[i % 2],
            "generated",
            Source(teacher="t", requests=(f"k{i}", "j")),
            label="ab"[i % 2],
            teacher_probs=(0.25, 0.75) if i % 3 else None,
            weight=1 + i,
        )
        for i in range(count)
    ]


def test_the_file_holds_what_a_table_of_the_same_rows_holds(tmp_path: Path) -> None:
    rows = some_rows(23)
    with RowWriter(tmp_path / "deep" / "rows.parquet", ("a", "b"), group=5) as writer:
        for row in rows:
            writer.add(row)
        assert writer.count == 23
    read = read_rows(tmp_path / "deep" / "rows.parquet")
    table = rows_to_dataset(rows, ("a", "b"))
    assert read.features == table.features
    assert read.to_list() == table.to_list()
    assert pq.ParquetFile(tmp_path / "deep" / "rows.parquet").metadata.num_row_groups == 5


def test_no_rows_are_a_table_too(tmp_path: Path) -> None:
    RowWriter(tmp_path / "rows.parquet", ()).close()
    assert read_rows(tmp_path / "rows.parquet").num_rows == 0


def test_a_file_that_was_not_closed_is_not_read(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "rows.parquet", ("a", "b"), group=2)
    for row in some_rows(7):
        writer.add(row)
    with pytest.raises(DataError, match="delete it and run again"):
        read_rows(tmp_path / "rows.parquet")
    writer.close()
    assert read_rows(tmp_path / "rows.parquet").num_rows == 7


def test_a_label_that_is_none(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "rows.parquet", ("x",)) as writer, pytest.raises(DataError, match="not one of"):
        writer.add(some_rows(1)[0])


def test_drops_keep_every_field(tmp_path: Path) -> None:
    drops = [
        Dropped("near_duplicate", "ROUGE-L 0.9 \u2028", "a\nb", "c", "generated", Source(requests=("k",)), "datagen"),
        Dropped("no_reply", "half an emoji \ud83d"),
    ]
    with DropWriter(tmp_path / "dropped.jsonl") as writer:
        for item in drops:
            writer.add(item)
        assert writer.count == 2
    first, second = read_dropped(tmp_path / "dropped.jsonl")
    assert first == drops[0]
    assert second.detail == "half an emoji ?"
