"""Rows of the user lead where there are any."""

from __future__ import annotations

from typing import Any

import pytest

from potstill.rows import Row, rows_to_dataset
from potstill.train.gold_rows import favour_gold, written_share

LABELS = ("billing", "praise")


def table(user: int, written: int, start: int = 0) -> Any:
    rows = [Row(f"user {start + i}", LABELS[i % 2], "user", label=LABELS[i % 2]) for i in range(user)]
    rows += [
        Row(f"written {start + i}", LABELS[i % 2], "generated", label=LABELS[i % 2], weight=0.5) for i in range(written)
    ]
    rows += [Row("found", "praise", "retrieved", label="praise", weight=0.7)]
    return rows_to_dataset([Row(**{**vars(row), "teacher_probs": (0.9, 0.1)}) for row in rows], LABELS)


def test_without_rows_of_the_user_nothing_changes() -> None:
    train, validation = table(0, 6), table(0, 2, 100)
    assert favour_gold(train, validation, 2) == (train, validation, {})


def test_rows_of_the_user_have_their_label_alone_and_outweigh_written_ones() -> None:
    train, validation = table(8, 6), table(12, 5, 100)
    led, held_out, told = favour_gold(train, validation, 2)
    assert led.features == train.features
    assert led["input"][:] == train["input"][:]
    by_origin = {row["origin"]: row for row in led}
    assert by_origin["user"]["teacher_probs"] is None
    assert by_origin["user"]["weight"] == 1.0
    assert by_origin["generated"]["teacher_probs"] is not None
    assert by_origin["generated"]["weight"] == 0.5
    assert by_origin["retrieved"]["weight"] == pytest.approx(0.7)
    assert set(held_out["origin"]) == {"user"}
    assert held_out.num_rows == 12
    assert told == {"generated": 0.5}, "half of eight a label: half as often"
    assert favour_gold(table(8, 0), validation, 2)[2] == {}


def test_few_held_out_rows_of_the_user_do_not_choose_alone() -> None:
    validation = table(4, 5, 100)
    assert favour_gold(table(8, 6), validation, 2)[1] is validation


@pytest.mark.parametrize(
    ("gold", "labels", "share"), [(0, 3, 1.0), (12, 3, 0.5), (24, 3, 0.05), (500, 3, 0.05), (77, 77, 0.875)]
)
def test_the_share_falls_to_its_least_at_eight_rows_a_label(gold: int, labels: int, share: float) -> None:
    assert written_share(gold, labels) == pytest.approx(share)
