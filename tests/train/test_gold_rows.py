"""Rows of the user lead where there are any."""

from __future__ import annotations

from typing import Any

import pytest

from potstill.rows import Row, rows_to_dataset
from potstill.train.gold_rows import ENOUGH_HELD_OUT, favour_agreed, favour_gold, written_share

LABELS = ("billing", "praise")


def table(user: int, written: int, start: int = 0, *, found: int = 1, rare: int | None = None) -> Any:
    """Rows of both labels by turns; of the user's, only the first `rare` are billing."""
    names = [LABELS[i % 2] if rare is None or i % 2 or i < 2 * rare else "praise" for i in range(user)]
    rows = [Row(f"user {start + i}", name, "user", label=name) for i, name in enumerate(names)]
    rows += [
        Row(f"written {start + i}", LABELS[i % 2], "generated", label=LABELS[i % 2], weight=0.5) for i in range(written)
    ]
    rows += [Row("found", "praise", "retrieved", label="praise", weight=0.7)] * found
    return rows_to_dataset([Row(**{**vars(row), "teacher_probs": (0.9, 0.1)}) for row in rows], LABELS)


def weight_of(rows: Any, label: str) -> float:
    return sum(row["weight"] for row in rows if row["output"] == label)


def test_without_rows_of_the_user_nothing_changes() -> None:
    train, validation = table(0, 6), table(0, 2, 100)
    led = favour_gold(train, validation, 2)
    assert (led.train, led.validation, led.sampling, led.report) == (train, validation, {}, {})


def test_a_few_rows_of_the_user_have_their_label_alone_and_outweigh_written_ones() -> None:
    train, validation = table(4, 6), table(10, 5, 100)
    led = favour_gold(train, validation, 2, drop=False)
    assert led.train.features == train.features
    assert led.train["input"][:] == train["input"][:]
    by_origin = {row["origin"]: row for row in led.train}
    assert by_origin["user"]["teacher_probs"] is None
    assert by_origin["user"]["weight"] == 1.0
    assert by_origin["generated"]["teacher_probs"] is not None
    assert by_origin["generated"]["weight"] == 0.5
    assert by_origin["retrieved"]["weight"] == pytest.approx(0.7)
    assert set(led.validation["origin"]) == {"user"}
    assert led.validation.num_rows == 10
    assert led.sampling == {"generated": 0.75}, "a quarter of eight a label: three quarters as often"
    assert favour_gold(table(4, 0), validation, 2, drop=False).sampling == {}


def test_few_held_out_rows_of_the_user_do_not_choose_alone() -> None:
    validation = table(4, 5, 100)
    assert favour_gold(table(4, 6), validation, 2).validation is validation


def test_enough_rows_of_the_user_teach_alone_with_those_held_out() -> None:
    train, validation = table(40, 60, found=0), table(8, 6, 100, found=0)
    led = favour_gold(train, validation, 2)
    assert set(led.train["origin"]) == {"user"}
    assert led.train.num_rows == 48
    assert set(led.train["teacher_probs"]) == {None}
    assert led.validation.num_rows == 0
    assert led.validation.features == validation.features
    assert led.sampling == {}
    assert led.report == {"user_rows": {"rows": 48, "held_out": 0, "written_left_out": 60, "filled_up": []}}
    assert weight_of(led.train, "billing") == pytest.approx(weight_of(led.train, "praise"))
    assert sum(led.train["weight"]) / 48 == pytest.approx(1.0)


def test_a_label_with_few_rows_of_the_user_is_filled_up_and_keeps_its_weight() -> None:
    train = table(60, 20, found=0, rare=3)
    led = favour_gold(train, table(0, 4, 100, found=0), 2)
    written = [row for row in led.train if row["origin"] == "generated"]
    assert {row["output"] for row in written} == {"billing"}
    assert len(written) == 10
    assert {row["teacher_probs"] is None for row in written} == {False}
    assert led.report["user_rows"]["filled_up"] == ["billing"]
    before = weight_of(train, "billing") / weight_of(train, "praise")
    assert weight_of(led.train, "billing") / weight_of(led.train, "praise") == pytest.approx(before)


def test_doubt_of_written_rows_does_not_weigh_on_the_users_rows_of_their_label() -> None:
    merged = table(40, 60, found=0)
    doubted = [{**row, "weight": row["weight"] * (0.1 if row["output"] == "billing" else 1.0)}
               if row["origin"] == "generated" else row for row in merged]  # fmt: skip
    train = type(merged).from_list(doubted, features=merged.features)
    led = favour_gold(train, table(8, 6, 100, found=0), 2, merged=merged)
    assert weight_of(led.train, "billing") == pytest.approx(weight_of(led.train, "praise"))


def test_enough_held_out_rows_of_the_user_choose() -> None:
    held_out = table(ENOUGH_HELD_OUT, 10, 1000, found=0)
    led = favour_gold(table(400, 60, found=0), held_out, 2)
    assert led.train.num_rows == 400
    assert led.validation.num_rows == ENOUGH_HELD_OUT
    assert set(led.validation["origin"]) == {"user"}


def test_held_out_rows_stay_out_where_more_is_chosen_by_them_or_found_rows_are_learnt_from() -> None:
    validation = table(12, 6, 100, found=0)
    asked = favour_gold(table(40, 60, found=0), validation, 2, choose=True)
    assert (asked.train.num_rows, asked.validation.num_rows) == (40, 12)
    found = favour_gold(table(40, 60, found=3), validation, 2)
    assert sorted(set(found.train["origin"])) == ["retrieved", "user"]
    assert found.validation.num_rows == 12


def test_written_rows_stay_where_the_user_says_how_often_they_are_drawn() -> None:
    led = favour_gold(table(40, 60, found=0), table(12, 6, 100), 2, drop=False)
    assert led.train.num_rows == 100
    assert led.sampling == {"generated": 0.05}


@pytest.mark.parametrize(
    ("gold", "labels", "share"), [(0, 3, 1.0), (12, 3, 0.5), (24, 3, 0.05), (500, 3, 0.05), (77, 77, 0.875)]
)
def test_the_share_falls_to_its_least_at_eight_rows_a_label(gold: int, labels: int, share: float) -> None:
    assert written_share(gold, labels) == pytest.approx(share)


def judged(origin: str, count: int, agreeing: float, labels: tuple[str, ...] = LABELS) -> list[Row]:
    """Rows of both labels by turns; the teacher answers with the label of the first share of them."""
    rows = []
    for i in range(count):
        place = i % len(labels)
        told = place if i < agreeing * count else 1 - place
        probs = tuple(0.9 if k == told else 0.1 for k in range(2))
        rows.append(Row(f"{origin} {i}", labels[place], origin, label=labels[place], teacher_probs=probs))  # type: ignore[arg-type]
    return rows


@pytest.mark.parametrize(
    ("written", "found", "sampling"),
    [
        (0.65, 0.85, {"generated": 0.1837}),  # film reviews for product reviews: (0.3 / 0.7) squared
        (0.75, 0.60, {"retrieved": 0.16}),  # e-mails for text messages: (0.2 / 0.5) squared
        (0.8, 0.8, {}),
        (0.9, 0.4, {"retrieved": 0.05}),  # below chance
        (0.5, 0.5, {}),  # a teacher that knows nothing judges nothing
    ],
)
def test_the_origin_leads_with_which_the_teacher_agrees(
    written: float, found: float, sampling: dict[str, float]
) -> None:
    train = rows_to_dataset([*judged("generated", 100, written), *judged("retrieved", 200, found)], LABELS)
    validation = rows_to_dataset([*judged("generated", 20, 1), *judged("retrieved", 30, 1)], LABELS)
    led = favour_gold(train, validation, 2)
    assert led.sampling == sampling
    assert led.train is train, "no row is left out"
    kept = set(led.validation["origin"])
    assert kept == {"generated", "retrieved"} - set(sampling)
    if sampling:
        assert led.report["origins"]["generated"]["agreement"] == written


def test_an_origin_does_not_lead_without_answers_or_without_rows_of_each_label() -> None:
    validation = rows_to_dataset(judged("generated", 4, 1), LABELS)
    few = rows_to_dataset([*judged("generated", 100, 0.6), *judged("retrieved", 49, 0.9)], LABELS)
    assert favour_agreed(few, validation, 2).sampling == {}
    one = rows_to_dataset([*judged("generated", 100, 0.6), *judged("retrieved", 80, 0.9)[::2]] * 2, LABELS)
    assert favour_agreed(one, validation, 2).sampling == {}
    fine = rows_to_dataset([*judged("generated", 100, 0.6), *judged("retrieved", 80, 0.9)], LABELS)
    led = favour_agreed(fine, validation, 2)
    assert led.sampling, "the same with both labels"
    assert led.validation is validation, "too few held-out rows are of the origin that leads"
