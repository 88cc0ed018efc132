"""Another teacher that writes the outputs: who is asked what, what rows say of it, and what stays as it was."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from scripted import NEWS, SUMMARY, ScriptedTeacher, paragraphs
from test_evolve import CHAT, DESK, Guests
from test_generate import snapshot
from test_own_inputs import FOLLOW, own

from potstill.asking.asker import Asker
from potstill.asking.budget import Budget, Then
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import AnyRequest, Failure, Reply, Request
from potstill.datagen.answering import answer_messages
from potstill.datagen.generate import GenerationOptions, GenerationResult, generate_rows
from potstill.datagen.own_inputs import Own
from potstill.datagen.teachers.fake import FakeOptions, FakeTeacher
from potstill.errors import BudgetReached
from potstill.sqlite_reader import reader_of
from potstill.task import TaskSpec


class Stronger(FakeTeacher):
    """A fake teacher of another name, whose outputs can be told."""

    @property
    def name(self) -> str:
        return "stronger"

    @property
    def identity(self) -> Mapping[str, str]:
        return {**super().identity, "model": "stronger"}


def run(
    tmp_path: Path, spec: TaskSpec, writer: Any, answerer: Any, given: Own | None = None, budget: str = "",
    then: Then = "stop", **options: Any,
) -> GenerationResult:  # fmt: skip
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = Asker(writer, ledger, budget=replace(Budget.parse(budget), then=then) if budget else None)
        other = None if answerer is None else Asker(answerer, ledger, meter=asker.meter)
        return generate_rows(spec, asker, GenerationOptions(**options), own=given, answerer=other)


def filed(tmp_path: Path) -> Counter[tuple[str, str]]:
    """Replies of the ledger by purpose and teacher."""
    connection = reader_of(tmp_path / "ledger.sqlite")
    try:
        return Counter(connection.execute("SELECT purpose, teacher FROM replies").fetchall())
    finally:
        connection.close()


def test_inputs_are_the_ones_and_outputs_the_others(tmp_path: Path) -> None:
    answers: list[Request] = []

    def reply(request: Request, number: int) -> Reply:
        answers.append(request)
        return Reply(f"Said by the other, {number}.", "stop")

    result = run(tmp_path, SUMMARY, FakeTeacher(), ScriptedTeacher(reply), rows=20, window=16)
    assert result.kept == 20
    assert all(row["output"].startswith("Said by the other") for row in result.rows)
    assert [request.messages for request in answers[:3]] == [
        answer_messages(SUMMARY, row["input"]) for row in result.rows.select(range(3))
    ]
    assert {purpose: teacher for purpose, teacher in filed(tmp_path)} == {"datagen": "fake", "answers": "scripted"}
    row = result.rows[0]
    assert row["source"]["teacher"] == "scripted"
    assert len(row["source"]["requests"]) == 2, "the request that wrote the input, and the other's"
    assert (result.report["teacher"], result.report["answered_by"]) == ("fake", "scripted")


@pytest.mark.parametrize("spec", [SUMMARY, FOLLOW], ids=["generation", "instructions"])
@pytest.mark.parametrize("owned", [0, 10])
def test_rows_do_not_depend_on_the_order_of_replies_and_a_rerun_asks_nobody(
    tmp_path: Path, spec: TaskSpec, owned: int
) -> None:
    made = []
    for number, options in enumerate([FakeOptions(), FakeOptions(shuffle=True, concurrency=40)]):
        (folder := tmp_path / str(number)).mkdir()
        both = FakeTeacher(options), Stronger(replace(options, concurrency=3))
        given = own(paragraphs(owned)) if owned else None
        made.append(snapshot(run(folder, spec, *both, given, rows=30, window=16)))
        asked = both[0].asked, both[1].asked
        assert min(asked) > 0
        assert snapshot(run(folder, spec, *both, given, rows=30, window=16)) == made[0]
        assert (both[0].asked, both[1].asked) == asked
    assert made[0] == made[1]


def test_what_the_ledger_has_of_both_is_not_paid_twice(tmp_path: Path) -> None:
    """A run that its cap ends goes on with the same rows as one that was never stopped."""
    (whole := tmp_path / "whole").mkdir()
    (parts := tmp_path / "parts").mkdir()
    straight = snapshot(run(whole, SUMMARY, FakeTeacher(), Stronger(), rows=20, window=16))
    with pytest.raises(BudgetReached):
        run(parts, SUMMARY, FakeTeacher(), Stronger(), budget="3k-tokens", rows=20, window=16)
    before = filed(parts)
    assert before["answers", "stronger"] > 0
    assert snapshot(run(parts, SUMMARY, FakeTeacher(), Stronger(), rows=20, window=16)) == straight
    assert filed(parts) == filed(whole)


@pytest.mark.parametrize("spec", [SUMMARY, FOLLOW], ids=["generation", "instructions"])
def test_one_cap_holds_for_both_and_a_run_trains_on_what_it_bought(tmp_path: Path, spec: TaskSpec) -> None:
    def made(budget: str) -> tuple[GenerationResult, int]:
        both = FakeTeacher(), Stronger()
        result = run(tmp_path, spec, *both, budget=budget, then="train", rows=40, window=16)
        return result, sum(teacher.asked for teacher in both)

    cap = 6_000 if spec is SUMMARY else 12_000
    cut, asked = made(f"{cap}-tokens")
    assert asked > 0
    assert 0 < cut.kept < 40
    assert cut.report["budget_met"]["cap"] == f"{cap:,} tokens"
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        spent = {name: sum(tokens) for name, tokens in ledger.spent().items()}
    assert set(spent) == {"fake", "stronger"}
    assert 0.8 * cap < sum(spent.values()) <= cap
    answered = filed(tmp_path)["answers", "stronger"]
    assert answered - cut.kept - cut.report["dropped"].get("off_form", 0) <= 4, "outputs that were paid for are rows"
    whole, _ = made(f"{10 * cap}-tokens")
    assert "budget_met" not in whole.report
    assert whole.rows["input"][: cut.kept] == cut.rows["input"][:]


def test_what_was_written_in_the_users_turn_or_evolved_is_answered_by_the_other(tmp_path: Path) -> None:
    """The first teacher is given a user's turn and evolves; of each text the output is the other's."""
    answers: list[Request] = []

    def answer(request: Request, number: int) -> Reply:
        answers.append(request)
        return Reply("We are sorry, the larch is gone." if number % 5 == 4 else "The larch grows here.", "stop")

    def refuse(request: Request, number: int) -> Reply | Failure:
        assert request.turn == "user" or "Write only the text" in request.messages[-1].content, (
            "an output was asked of it"
        )
        return guests(request, number)

    guests = Guests()
    writer, other = ScriptedTeacher(refuse, CHAT), ScriptedTeacher(answer)
    other.name, other.identity = "other", {"backend": "other"}  # type: ignore[misc]
    result = run(tmp_path, DESK, writer, other, rows=40, window=16, method="magpie", evolve=2, novelty=1.0)
    told = result.report["evolved"]
    assert result.kept == 40
    assert (result.report["method"], result.report["answered_by"]) == ("magpie", "other")
    assert 0 < told["kept"] == sum(text.startswith("Later on") for text in result.rows["input"])
    assert told["eliminated"]["answer"] == result.report["dropped"]["evolved_unanswered"] > 0
    assert {source["teacher"] for source in result.rows["source"]} == {"other"}
    assert all(request.turn == "assistant" for request in answers)
    assert len(answers) == len(other.asked) == filed(tmp_path)["answers", "other"]


class EvolvingFake(FakeTeacher):
    """Of an instruction that is to be evolved it makes another."""

    def answer(self, request: AnyRequest) -> Reply | Failure:
        reply = super().answer(request)
        if isinstance(request, Request) and "Below is" in request.messages[-1].content:
            made_up = [f"{a}{b}" for a in ("vi", "gra", "ple", "dro", "nue") for b in ("rn", "ld", "sk", "mp", "th")]
            return Reply(f"Compare {' '.join(Random(request.seed).sample(made_up, 7))}.", "stop")
        return reply


def test_an_instruction_of_self_instruct_is_evolved_once_the_other_has_answered(tmp_path: Path) -> None:
    def answer(request: Request, number: int) -> Reply | Failure:
        if request.messages[-1].content.startswith("Compare") and number % 2:
            return Failure("no answer", passing=True)
        return Reply(f"Said by the other, {number}.", "stop")

    result = run(tmp_path, FOLLOW, EvolvingFake(), ScriptedTeacher(answer), rows=40, window=8, evolve=1)
    told = result.report["evolved"]
    assert result.kept == 40
    assert told["kept"] > 0
    assert all(row["output"].startswith("Said by the other") for row in result.rows)
    used = {text.partition("\n\n")[0] for text in result.rows["input"]}
    assert result.report["tasks"]["used"] == len(used), "an instruction brought a row where an output of it was kept"
    assert told["eliminated"]["answer"] > 0
    again = EvolvingFake()
    run(tmp_path, FOLLOW, again, ScriptedTeacher(answer), rows=40, window=8, evolve=1)
    assert again.asked == 0, "what failed is asked again of the other alone"


def test_written_instances_are_answered_anew(tmp_path: Path) -> None:
    """Self-Instruct's inputs stay those that the first teacher wrote; each output is the other's, in every file."""
    plain = run(tmp_path, FOLLOW, FakeTeacher(), None, rows=12, window=16)
    (folder := tmp_path / "other").mkdir()
    numbered = ScriptedTeacher(lambda request, number: Reply(f"Said by the other, {number}.", "stop"))
    with Ledger(folder / "ledger.sqlite") as ledger:
        result = generate_rows(
            FOLLOW, Asker(FakeTeacher(), ledger), GenerationOptions(rows=12, window=16),
            answerer=Asker(numbered, ledger), out=folder,
        )  # fmt: skip
    assert result.kept == 12
    assert set(result.rows["input"][:]) & set(plain.rows["input"][:])
    assert all(row["output"].startswith("Said by the other") for row in result.rows)
    assert [request.messages for request in numbered.asked[:2]] == [
        answer_messages(FOLLOW, row["input"]) for row in result.rows.select(range(2))
    ]
    alpaca = json.loads((folder / "alpaca.json").read_text())
    assert [item["output"] for item in alpaca] == result.rows["output"][:]
    assert [f"{item['instruction']}\n\n{item['input']}".strip() for item in alpaca] == result.rows["input"][:]


def test_an_answer_that_fails_costs_its_row_alone(tmp_path: Path) -> None:
    def reply(request: Request, number: int) -> Reply | Failure:
        return Failure("no answer", passing=True) if number == 2 else Reply(f"In short, {number}.", "stop")

    for spec in (SUMMARY, FOLLOW):
        (folder := tmp_path / spec.name).mkdir()
        result = run(folder, spec, FakeTeacher(), ScriptedTeacher(reply), rows=10, window=8)
        assert result.kept == 10
        assert result.report["dropped"]["no_reply"] == 1
        assert result.report["unanswered"] == 1
        assert next(item for item in result.dropped if item.reason == "no_reply").input


def test_labels_have_no_output_to_be_written(tmp_path: Path) -> None:
    def refuse(request: Request, number: int) -> Reply:
        raise AssertionError("the other teacher was asked")

    result = run(tmp_path, NEWS, FakeTeacher(), ScriptedTeacher(refuse), rows=8)
    assert result.kept == 8
    assert "answered_by" not in result.report
