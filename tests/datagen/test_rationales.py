"""The reasoning behind outputs: what is asked, what of the replies is used, and what becomes of the rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted import SUMMARY, ScriptedTeacher

from potstill.asking.asker import Asker
from potstill.asking.budget import Budget
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Failure, Reply, Request
from potstill.datagen.rationale_options import RationaleOptions
from potstill.datagen.rationales import PURPOSE, RationaleResult, rationale_request, read_rationale, write_rationales
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.errors import BudgetReached
from potstill.events import Event
from potstill.rows import RATIONALE, Row, read_rows, rows_to_dataset, with_rationales, with_same_columns, write_rows

GOOD = "The paragraph tells of rain on many days, so the summary names the rain."


def table(count: int = 4) -> Any:
    origins = ("generated", "retrieved", "user", "pseudo")
    return rows_to_dataset([Row(f"It rained {i} times.", f"Rain, {i}.", origins[i % 4]) for i in range(count)], [])


def explain(tmp_path: Path, teacher: Any, rows: Any, listener: Any = None, **options: Any) -> RationaleResult:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        told = {} if listener is None else {"listener": listener}
        return write_rationales(SUMMARY, rows, Asker(teacher, ledger), RationaleOptions(**options), **told)


def test_rows_of_every_origin_are_explained_with_their_output_in_view(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(lambda request, number: Reply(f"{GOOD} Number {number}.", "stop"))
    rows = table()
    result = explain(tmp_path, teacher, rows)
    assert result.table[RATIONALE][:] == [f"{GOOD} Number {i}." for i in range(4)]
    assert result.table.remove_columns(RATIONALE)[:] == rows[:], "nothing else of a row is another"
    assert all(f"Rain, {i}." in teacher.asked[i].messages[-1].content for i in range(4))
    assert result.report == {
        "summary": "reasoning for 4 of 4 rows, by scripted", "teacher": "scripted", "rows": 4, "written": 4,
        "refused": {}, "mean_words": 16.0,
    }  # fmt: skip


def test_what_cannot_be_used_leaves_its_row_as_it_is(tmp_path: Path) -> None:
    replies: list[Reply | Failure] = [
        Reply("As an AI language model, I cannot explain that.", "stop"),
        Failure("no answer", passing=True),
        Reply("Rain, 2.", "stop"),
        Reply(f"{GOOD} And then it goes on and", "length"),
    ]
    result = explain(tmp_path, ScriptedTeacher(lambda request, number: replies[number]), table())
    assert result.table[RATIONALE][:] == [None, None, None, GOOD]
    assert result.report["refused"] == {"no_reply": 1, "refusal": 1, "says_nothing": 1}


@pytest.mark.parametrize(
    ("said", "finish", "fault"),
    [
        (GOOD, "stop", ""),
        ("It is so.", "stop", "says_nothing"),
        ("The right answer is rain. The final answer is: rain. So the correct output is rain.", "stop", "says_nothing"),
        ("", "stop", "says_nothing"),
        ("The rain fell and it went on and on without", "length", "truncated"),
        ("wet hills and dry roads and " * 30, "stop", "repetition"),
        ("It rained on the hills, and it rained in town.", "stop", "copy"),
        (GOOD, "refused", "refusal"),
    ],
)
def test_the_faults_of_reasoning(said: str, finish: Any, fault: str) -> None:
    given = "It rained on the hills, and it rained in town"
    assert read_rationale(given, "Rain.", Reply(said, finish), RationaleOptions())[1] == fault


def test_a_teacher_that_explains_nothing_is_told_and_the_rows_stay(tmp_path: Path) -> None:
    told: list[Event] = []
    result = explain(tmp_path, ScriptedTeacher(lambda *_: Reply("No.", "stop")), table(), told.append)
    assert RATIONALE not in result.table.column_names
    assert "gave no usable reasoning for 4 rows (4 says_nothing)" in next(e.message for e in told if e.kind == "note")


def test_a_rerun_asks_for_nothing_and_more_tokens_ask_for_what_was_cut_alone(tmp_path: Path) -> None:
    def reply(request: Request, number: int) -> Reply:
        cut = request.max_tokens < 200 and "1 times" in request.messages[-1].content
        return Reply("It goes on and" if cut else GOOD, "length" if cut else "stop")

    teacher = ScriptedTeacher(reply)
    first = explain(tmp_path, teacher, table())
    assert first.report["refused"] == {"truncated": 1}
    assert explain(tmp_path, teacher, table()).table[:] == first.table[:]
    assert len(teacher.asked) == 4
    assert explain(tmp_path, teacher, table(), max_tokens=300).report["written"] == 4
    assert len(teacher.asked) == 5
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.totals(PURPOSE).replies == 5


def test_a_cap_ends_it_and_a_later_call_goes_on_from_the_ledger(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(
        lambda request, number: Reply(f"{GOOD} Number {number}.", prompt_tokens=60, completion_tokens=20)
    )
    teacher.concurrency = 2
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = Asker(teacher, ledger, budget=Budget.parse("700-tokens"))
        with pytest.raises(BudgetReached):
            write_rationales(SUMMARY, table(20), asker, RationaleOptions(max_tokens=40))
    before = len(teacher.asked)
    assert 0 < before < 20
    assert explain(tmp_path, teacher, table(20), max_tokens=40).report["written"] == 20
    assert len(teacher.asked) == 20, "nothing is asked for twice"


def test_a_run_that_goes_on_at_its_budget_learns_the_reasoning_that_was_paid_for(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(
        lambda request, number: Reply(f"{GOOD} Number {number}.", prompt_tokens=60, completion_tokens=20)
    )
    teacher.concurrency = 2
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = Asker(teacher, ledger, budget=replace(Budget.parse("700-tokens"), then="train"))
        result = write_rationales(SUMMARY, table(20), asker, RationaleOptions(max_tokens=40))
    paid = len(teacher.asked)
    assert 0 < paid < 20
    assert result.report["written"] == paid
    assert result.report["refused"] == {"not_asked": 20 - paid}
    assert result.report["budget_met"]["cap"] == "700 tokens"
    assert "the budget of 700 tokens is met" in result.report["summary"]
    assert [text is not None for text in result.table[RATIONALE]] == [True] * paid + [False] * (20 - paid)


def test_the_request_is_a_function_of_the_row(tmp_path: Path) -> None:
    request = rationale_request(SUMMARY, "in", "out", RationaleOptions())
    assert (request.temperature, request.seed) == (0.0, 0)
    warm = RationaleOptions(temperature=0.7)
    assert rationale_request(SUMMARY, "in", "out", warm) == rationale_request(SUMMARY, "in", "out", warm)
    assert rationale_request(SUMMARY, "in", "other", warm).seed != rationale_request(SUMMARY, "in", "out", warm).seed
    german = replace(SUMMARY, languages=("de",))
    assert "in German" in rationale_request(german, "in", "out", RationaleOptions()).messages[0].content
    assert explain(tmp_path, FakeTeacher(), table()).report["written"] > 0


def test_the_column_travels_through_files_and_beside_splits_without_it(tmp_path: Path) -> None:
    explained = with_rationales(table(), ["a", None, "half \ud83d", "b"])
    write_rows(explained, tmp_path / "rows.parquet")
    again = read_rows(tmp_path / "rows.parquet")
    assert again[RATIONALE][:] == ["a", None, "half ?", "b"]
    alike = with_same_columns({"train": again, "validation": table(2), "test": table(0)})
    assert alike["validation"][RATIONALE][:] == [None, None]
    assert {str(part.features) for part in alike.values()} == {str(again.features)}
    plain = {"train": table()}
    assert with_same_columns(plain) == plain


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_tokens must be at least 1 .* min_words .* temperature must be"):
        RationaleOptions(max_tokens=0, min_words=0, temperature=-1)
