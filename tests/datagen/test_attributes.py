"""What varies the texts: the teacher's proposals, what becomes of unusable ones, and how they are drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from scripted import NEWS, SUMMARY, ScriptedTeacher, run

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, Failure, Reply, Request
from potstill.datagen.attributes import MANNERS, Attributes, draw_manners, proposal_requests, propose_attributes
from potstill.datagen.generate import GenerationOptions
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.task import TaskSpec

TOPICS = ["local elections", "rowing clubs", "central banks", "deep sea probes"]
VALUES = {
    "style": ["a letter to the editor", "a live ticker", "an interview"],
    "length": ["one sentence", "two to three sentences", "about 60 words"],
    "difficulty": ["plain", "needs background knowledge", "mixes two subjects"],
    "register": ["sober", "ironic", "technical"],
}


def dimension(request: Request) -> str:
    text = request.messages[-1].content
    return next(
        (name for name in VALUES if f"each in another {name}:" in text),
        "topic" if "different, specific subjects" in text else "",
    )


def proposing(values: dict[str, list[str]], as_json: bool) -> Callable[[Request, int], Reply | Failure]:
    fake = FakeTeacher()

    def reply(request: Request, number: int) -> Reply | Failure:
        name = dimension(request)
        if not name:
            return fake.answer(request)
        items = TOPICS if name == "topic" else values[name]
        if as_json:
            return Reply(text=json.dumps({"topics" if name == "topic" else "values": items}))
        return Reply(text="\n".join(f"{i}. {item}" for i, item in enumerate(items, 1)))

    return reply


def proposed(tmp_path: Path, reply: Callable[[Request, int], Reply | Failure], as_json: bool = True) -> Attributes:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = Asker(ScriptedTeacher(reply, Abilities(json_schema=as_json)), ledger)
        return propose_attributes(NEWS, asker, GenerationOptions(), {})


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "plain"])
def test_the_teacher_proposes_all_five_dimensions(tmp_path: Path, as_json: bool) -> None:
    found = proposed(tmp_path, proposing(VALUES, as_json), as_json)
    assert found.manners == VALUES
    assert set(found.proposed) == set(VALUES)
    assert found.topics == {name: TOPICS for name in NEWS.label_names}


@pytest.mark.parametrize(
    ("name", "items"),
    [
        ("style", ["a letter", "a letter", "A letter."]),
        ("style", ["about Sports", "a sports report", "a business memo", "Business: suits", "a letter", "a note"]),
        ("style", ["{{ 7 * 7 }}", "<b>bold</b>", "a | b", "As an AI language model I cannot do that.", "x " * 40]),
        ("length", ["football", "in Paris", "quickly"]),
        ("length", ["500 words", "two sentences", "9999999999 words"]),
        ("register", []),
    ],
)
def test_an_unusable_proposal_leaves_the_built_in_values(tmp_path: Path, name: str, items: list[str]) -> None:
    found = proposed(tmp_path, proposing(VALUES | {name: items}, True))
    assert found.manners[name] == MANNERS[name]
    assert set(found.proposed) == set(VALUES) - {name}


def test_a_failed_request_leaves_the_built_in_values(tmp_path: Path) -> None:
    found = proposed(tmp_path, lambda request, number: Failure("503", 4))
    assert found == Attributes({}, MANNERS, ())


def test_proposals_are_bounded_and_without_their_explanation(tmp_path: Path) -> None:
    items = [f"Variant {'x' * (i % 9)}{i}: it explains (a lot)" for i in range(40)]
    found = proposed(tmp_path, proposing(VALUES | {"style": items}, True))
    assert len(found.manners["style"]) == 12
    assert found.manners["style"][0] == "variant 0"


@pytest.mark.parametrize("spec", [NEWS, SUMMARY], ids=["classification", "generation"])
def test_requests_draw_from_the_proposals_and_the_report_names_them(tmp_path: Path, spec: TaskSpec) -> None:
    teacher = ScriptedTeacher(proposing(VALUES, True), Abilities(json_schema=True))
    result = run(tmp_path, spec, teacher, rows=40)
    assert result.report["attributes"] == {
        name: {"values": VALUES[name], "from": "teacher"} for name in ("style", "length", "difficulty", "register")
    }
    written = [r.messages[-1].content for r in teacher.asked if r.schema and "texts" in r.schema["properties"]]
    for name, values in VALUES.items():
        for value in values:
            assert any(f"{name}: {value}" in text for text in written), (name, value)
    assert sum(dimension(r) in VALUES for r in teacher.asked) == 4


def test_as_many_requests_as_were_planned(tmp_path: Path) -> None:
    able = Abilities(json_schema=True)
    for spec in (NEWS, SUMMARY):
        teacher = ScriptedTeacher(proposing(VALUES, True), able)
        folder = tmp_path / spec.name
        folder.mkdir()
        run(folder, spec, teacher, rows=8)
        asked = sum(bool(dimension(request)) for request in teacher.asked)
        assert asked == proposal_requests(spec, GenerationOptions(rows=8), able)


def test_draws_are_a_function_of_the_random_state_and_hold_each_dimension_once() -> None:
    drawn = [draw_manners(Random(i), MANNERS, 4) for i in range(50)]
    assert drawn == [draw_manners(Random(i), MANNERS, 4) for i in range(50)]
    assert all(sorted(name for name, _ in own) == sorted(MANNERS) for own in drawn)
    assert len({tuple(own) for own in drawn}) > 45
    assert draw_manners(Random(0), {}, 4) == []


def test_nothing_is_proposed_where_nothing_is_to_vary(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(proposing(VALUES, True), Abilities(json_schema=True))
    assert run(tmp_path, NEWS, teacher, rows=8, attributes="none").report["attributes"] == {}
    assert not any(map(dimension, teacher.asked))
    (tmp_path / "builtin").mkdir()
    report = run(tmp_path / "builtin", NEWS, teacher, rows=8, attributes="builtin").report["attributes"]
    assert {item["from"] for item in report.values()} == {"builtin"}
    assert not any(map(dimension, teacher.asked))
