"""The one row schema: what goes in comes out, from memory and from disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from potstill.errors import DataError
from potstill.rows import (
    ORIGINS,
    Dropped,
    Row,
    Source,
    dataset_to_rows,
    join_fields,
    label_names,
    read_dropped,
    read_rows,
    row_features,
    rows_to_dataset,
    write_dropped,
    write_rows,
)

LABELS = ("billing", "bug", "Sci/Tech", "other")
TEXT = st.text(max_size=40)
NAMES = st.none() | st.text(st.characters(codec="utf-8"), max_size=10)
SOURCES = st.builds(
    Source,
    dataset=NAMES,
    config=NAMES,
    split=NAMES,
    row=st.none() | st.integers(0, 2**40),
    teacher=NAMES,
    requests=st.lists(st.text("0123456789abcdef", min_size=4, max_size=4), max_size=3).map(tuple),
)
SHARE = st.floats(0, 1, width=32)
ROWS = st.builds(
    Row,
    input=TEXT,
    output=TEXT,
    origin=st.sampled_from(ORIGINS),
    source=SOURCES,
    label=st.none() | st.sampled_from(LABELS),
    teacher_probs=st.none() | st.tuples(SHARE, SHARE, SHARE, SHARE),
    licence=st.sampled_from(["unknown", "apache-2.0"]),
    weight=SHARE,
)
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(rows=st.lists(ROWS, max_size=6))
def test_rows_survive_the_table_and_the_file(rows: list[Row], tmp_path: Path) -> None:
    table = rows_to_dataset(rows, LABELS)
    assert list(dataset_to_rows(table)) == rows
    assert list(table["id"]) == [row.id for row in rows]
    write_rows(table, tmp_path / "rows.parquet")
    back = read_rows(tmp_path / "rows.parquet")
    assert list(dataset_to_rows(back)) == rows
    assert back.features == row_features(LABELS)
    assert label_names(back) == list(LABELS)


@SLOW
@given(rows=st.lists(ROWS.map(lambda row: dataclasses.replace(row, label=None, teacher_probs=None)), max_size=4))
def test_generation_rows_have_no_labels(rows: list[Row], tmp_path: Path) -> None:
    table = rows_to_dataset(rows, ())
    write_rows(table, tmp_path / "rows.parquet")
    back = read_rows(tmp_path / "rows.parquet")
    assert list(dataset_to_rows(back)) == rows
    assert label_names(back) == []


def test_an_id_tells_contents_and_sources_apart() -> None:
    row = Row("a", "b", "user", Source(dataset="d", row=1))
    assert len(row.id) == 32
    others = [
        Row("a", "c", "user", row.source),
        Row("ab", "", "user", row.source),
        Row("a", "b", "user", Source(dataset="d", row=2)),
        Row("a", "b", "user", Source(teacher="d", row=1)),
    ]
    assert len({row.id, *(other.id for other in others)}) == 5
    # What is learned about a row later does not change what it is.
    assert dataclasses.replace(row, weight=0.5, licence="mit", label="x").id == row.id


def test_half_an_emoji_becomes_a_question_mark() -> None:
    row = Row("sad \ud83d face", "ok \U0001f600", "generated")
    assert (row.input, row.output) == ("sad ? face", "ok \U0001f600")
    assert next(dataset_to_rows(rows_to_dataset([row], ()))) == row


def test_a_foreign_label_and_a_wrong_number_of_probabilities_are_refused() -> None:
    with pytest.raises(DataError, match=r"label 'spam', which is not one of \['billing', 'bug'\]"):
        rows_to_dataset([Row("a", "spam", "user", label="spam")], ("billing", "bug"))
    with pytest.raises(DataError, match=r"has 3 teacher probabilities for 2 labels; .*run the soft-target stage again"):
        rows_to_dataset([Row("a", "bug", "user", label="bug", teacher_probs=(0.1, 0.2, 0.7))], ("billing", "bug"))


def test_files_that_are_not_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no rows at .*; run the stage that makes them"):
        read_rows(tmp_path / "absent.parquet")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_rows(broken)
    whole = tmp_path / "whole.parquet"
    write_rows(rows_to_dataset([Row("a" * 5000, "b", "user")], ()), whole)
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataError, match="delete it and run again"):
        read_rows(whole)


DROPPED = st.builds(
    Dropped,
    reason=st.sampled_from(["near_duplicate", "label_leak"]),
    detail=st.text(st.characters(codec="utf-8"), max_size=20),
    input=st.text(st.characters(codec="utf-8"), max_size=20),
    source=SOURCES,
    stage=st.just("merge"),
)


@SLOW
@given(dropped=st.lists(DROPPED, max_size=5))
def test_dropped_rows_keep_their_reason(dropped: list[Dropped], tmp_path: Path) -> None:
    assert write_dropped(dropped, tmp_path / "dropped.jsonl") == len(dropped)
    assert list(read_dropped(tmp_path / "dropped.jsonl")) == dropped


def test_dropped_rows_with_broken_text_are_written_too(tmp_path: Path) -> None:
    assert list(read_dropped(tmp_path / "absent.jsonl")) == []
    write_dropped([Dropped("unparsable", "half \ud83d")], tmp_path / "dropped.jsonl")
    assert next(read_dropped(tmp_path / "dropped.jsonl")).detail == "half ?"


def test_fields_are_joined() -> None:
    assert join_fields({"text": "hello "}) == "hello"
    assert join_fields({"title": "A", "text": "B"}) == "title: A\ntext: B"
