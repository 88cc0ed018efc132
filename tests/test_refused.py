"""Refused rows are browsed as they were written, whatever is in them, and found by their ids."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from potstill.errors import DataError, UserError
from potstill.pages import refused
from potstill.pages.browse import Filter, RowBrowser
from potstill.rows import Dropped, Source, row_id, write_dropped

ODD = ("a\u2028b\u2029c\x85d", 'quote " and \\ and \x00', "lines\nand\r\nmore", "é 猫 🙂", "", "2024-01-02", "<b>|`x`")


@pytest.fixture
def rows() -> list[Dropped]:
    sources = (
        Source(), Source(dataset="acme/tickets", config="x", split="train", row=7),
        Source(teacher="fake", requests=("k1", "k2")),
    )  # fmt: skip
    return [
        Dropped("near_duplicate", f"like {i}", ODD[i % len(ODD)] + f" {i}", ODD[(i + 1) % len(ODD)], "generated",
                sources[i % 3], "" if i % 2 else "merge") for i in range(60)
    ] + [Dropped("too_long", "", "x" * 5000, "bug", "retrieved", sources[1], "merge")]  # fmt: skip


@pytest.fixture
def run(rows: list[Dropped], sample_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(refused, "_BLOCK", 1000)  # blocks end within lines, and one line is longer than a block
    monkeypatch.setattr(refused, "_GROUP", 7)
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "task.json").write_text(json.dumps(sample_run.spec_for().to_json()))
    write_dropped(rows[:40], tmp_path / "datagen" / "dropped.jsonl")
    write_dropped([], tmp_path / "quality" / "dropped.jsonl")
    write_dropped(rows[40:], tmp_path / "merge" / "dropped.jsonl")
    return tmp_path


def test_refused_rows_are_shown_as_they_were_written(run: Path, rows: list[Dropped]) -> None:
    with closing(RowBrowser(run)) as browser:
        found = browser.page(Filter(view="dropped"), 0, 1000).rows
    for number, (record, row) in enumerate(zip(found, rows, strict=True)):
        for name in ("input", "output", "origin", "reason", "detail"):
            assert record[name] == getattr(row, name)
        assert record["stage"] == (row.stage or ("datagen" if number < 40 else "merge"))
        kept = {key: list(value) if key == "requests" else value for key, value in vars(row.source).items() if value}
        assert record["source"] == kept
        assert record["id"] == row_id(row.input, row.output, row.source)


def test_a_refused_row_is_found_by_its_id_whether_a_page_has_shown_it_or_not(run: Path, rows: list[Dropped]) -> None:
    with closing(RowBrowser(run)) as browser:
        ids = [row_id(row.input, row.output, row.source) for row in rows]
        assert browser.find(ids[50])["detail"] == "like 50", "no page has shown it"
        assert browser.find(ids[3][:12])["detail"] == "like 3", "by a start of its id"
        with pytest.raises(UserError, match="no row has the id"):
            browser.find("zz")
        browser.page(Filter(view="dropped"), 0, 5)
        assert browser.find(ids[2])["detail"] == "like 2"
        # The stage is made again: the place that the page remembers holds another row now.
        write_dropped(rows[1:40], run / "datagen" / "dropped.jsonl")
        assert browser.find(ids[2])["detail"] == "like 2"
        with pytest.raises(UserError, match="no row has the id"):
            browser.find(ids[0])


@pytest.mark.parametrize(
    "line",
    [b'{"reason": 3}', b'{"reason": "x", "other": 1}', b"[1]", b'{"reason": "x"', b'{"reason": "x", "input": "\xff"}',
     b"[" * 50_000, b'{"reason": "x", "source": {"row": "seven"}}'],
)  # fmt: skip
def test_a_damaged_file_is_named(run: Path, line: bytes) -> None:
    file = run / "merge" / "dropped.jsonl"
    file.write_bytes(file.read_bytes() + line + b"\n")
    with closing(RowBrowser(run)) as browser, pytest.raises(DataError, match=r"merge/dropped\.jsonl is not what"):
        browser.page(Filter(view="dropped"))
