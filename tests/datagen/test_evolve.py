"""Evol-Instruct: the operations, the eliminator, the rounds, and what is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted import NEWS, SUMMARY, ScriptedTeacher, run

from potstill import prompts
from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, Failure, Message, Reply, Request
from potstill.datagen.evolve import (
    OPERATIONS,
    Chain,
    evolve_request,
    operation_for,
    read_evolved,
    refuse_answer,
    refuse_evolved,
)
from potstill.datagen.generate import GenerationOptions
from potstill.datagen.recipes import refuse_recipes
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.errors import OptionError
from potstill.plan.estimate import plan_run
from potstill.task import TaskSpec

DESK = TaskSpec("desk", "Help at the desk of a hotel.", "instructions", metric="rouge_l")
CHAT = Abilities(user_turn=True)

CONSTRAIN = """\
Below is an instruction. Rewrite it so that a good answer takes more than before: add one more condition that the \
answer has to meet.
Add at most twenty words.
People must be able to understand it by itself. Do not answer it.
Write only the text, in German.

Name a tree."""

WIDEN_INPUT = """\
This task is done on a text: Summarise a paragraph.

Below is a paragraph. Write another paragraph of the same field, about something rarer, as long and as hard as it.
People must be able to understand it by itself. Do not do the task.
Write only the text."""


def rendered(operation: str, **others: Any) -> str:
    context: dict[str, Any] = {
        "operation": operation, "instructions": True, "noun": "instruction", "article": "an", "instruction": "",
        "language": "", "text": "",
    }  # fmt: skip
    return prompts.load("evolve").render(**context | others)


def test_the_prompt_says_the_operation() -> None:
    assert rendered("constrain", language="German", text="Name a tree.") == CONSTRAIN
    inputs = {"instructions": False, "noun": "paragraph", "article": "a", "instruction": "Summarise a paragraph."}
    assert rendered("widen", **inputs) == WIDEN_INPUT
    for others in ({}, inputs):
        assert len({rendered(operation, **others) for operation in OPERATIONS}) == len(OPERATIONS)


def test_the_operation_is_a_function_of_text_and_round() -> None:
    chains = [Chain(f"Name tree {number}.", round_) for number in range(60) for round_ in range(2)]
    drawn = [operation_for(0, chain) for chain in chains]
    assert drawn == [operation_for(0, replace(chain, keys=("k",))) for chain in chains]
    assert set(drawn) == set(OPERATIONS)
    requests = {evolve_request(DESK, GenerationOptions(), CHAT, chain).seed for chain in chains}
    assert len(requests) == len(chains)


def test_a_small_teachers_reply_is_opened_and_ends_with_its_quote() -> None:
    request = evolve_request(DESK, GenerationOptions(), Abilities(prefill=True), Chain("Name a tree.", 0))
    assert request.prefill == 'Here is the new instruction:\n\n"'
    assert read_evolved(DESK, request, Reply('Name two trees of the Alps."\n\nI hope')).text == (
        "Name two trees of the Alps."
    )
    plain = evolve_request(DESK, GenerationOptions(), CHAT, Chain("Name a tree.", 0))
    assert plain.prefill == ""
    assert read_evolved(DESK, plain, Reply("Here is the new instruction: Name two trees.")).text == "Name two trees."
    assert read_evolved(DESK, plain, Reply("Name two trees of", finish="length")).fault == "truncated"
    assert read_evolved(SUMMARY, plain, Reply("It rained. Then it", finish="length")).text == "It rained."
    endless = Reply(" ".join(f"word{number}" for number in range(9000)))
    assert read_evolved(DESK, plain, endless).fault == "truncated"
    assert read_evolved(DESK, plain, Reply(" ")).fault == "empty"
    assert read_evolved(DESK, plain, Reply("No", finish="refused")).fault == "refusal"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name a  tree.", "not_evolved"),
        ("Name a tree now.", "not_evolved"),
        ("#Rewritten Prompt#: Name two trees that grow in the Alps.", "evolve_prompt_words"),
        ("Add a condition to the given instruction and name two trees.", "evolve_prompt_words"),
        ("Name two trees of the Alps and say at which height each of them grows.", None),
    ],
)
def test_what_is_the_same_or_speaks_of_the_prompt_is_eliminated(text: str, reason: str | None) -> None:
    fault = refuse_evolved("Name a tree.", text, 0.7)
    assert (fault and fault.reason) == reason


@pytest.mark.parametrize(
    ("parent", "text", "same"),
    [
        ("Сравните iPhone с другими телефонами.", "Опишите, как чинят экран iPhone в мастерской за час.", False),
        ("Назовите дерево, которое растёт в Альпах.", "Назовите дерево, что растёт в Альпах.", True),
        ("请说出一种树的名字。", "请说出一种树的名字吧。", True),
        ("请说出一种树的名字。", "比较两种生长在高山上的松树，并说明它们的高度。", False),
    ],
)
def test_what_is_the_same_is_seen_in_any_script(parent: str, text: str, same: bool) -> None:
    fault = refuse_evolved(parent, text, 0.7)
    assert (fault and fault.reason) == ("not_evolved" if same else None)


@pytest.mark.parametrize(
    "text",
    [
        "Rewrite the letter to the guests so that it says when the lift works again.",
        "Translate the given text into French for a guest who is a lawyer.",
        "Sort the given input by day, and then by the name of the guest.",
    ],
)
def test_what_people_ask_for_is_no_word_of_the_prompt(text: str) -> None:
    assert refuse_evolved("Mend this.", text, 0.7) is None


def test_words_that_the_text_already_had_are_its_own() -> None:
    assert refuse_evolved("Improve the given text.", "Improve the given text for readers who hate jargon.", 0.7) is None


@pytest.mark.parametrize(
    ("output", "refused"),
    [
        ("I'm sorry, but there is no such tree.", True),
        ("Sorry. " + "The larch grows where nothing else does. " * 20, False),
        ("It is.", True),
        ("?!", True),
        ("No", False),
        ("42", False),
        ("落叶松", False),
    ],
)
def test_an_answer_that_is_sorry_or_empty_eliminates(output: str, refused: bool) -> None:
    assert (refuse_answer("Name a tree.", output) is not None) == refused


def prose(number: int) -> str:
    reply = FakeTeacher().answer(Request((Message("user", str(number)),), turn="user"))
    assert isinstance(reply, Reply)
    return reply.text


class Guests:
    """Writes texts; what an evolving request gets is decided by a function of its number."""

    def __init__(self, evolved: Any = None, answer: str = "Dear guest, the larch grows here."):
        self.evolved, self.answer = evolved or (lambda number: f"Later on: {prose(1000 + number)}"), answer
        self.made = 0

    def __call__(self, request: Request, number: int) -> Reply | Failure:
        said = request.messages[-1].content
        if "Below is" in said and "Write only the text" in said:
            self.made += 1
            found: Reply | Failure | str = self.evolved(self.made)
            return Reply(found) if isinstance(found, str) else found
        if request.turn == "user" or "Write only the input" in said:
            return Reply(prose(number))
        return Reply(self.answer)


@pytest.mark.parametrize("spec", [DESK, SUMMARY])
def test_kept_texts_are_evolved_in_rounds_and_both_stay(spec: TaskSpec, tmp_path: Path) -> None:
    options: dict[str, Any] = {"method": "magpie"} if spec is DESK else {"attributes": "none"}
    teacher = ScriptedTeacher(Guests(), CHAT)
    result = run(tmp_path, spec, teacher, rows=60, evolve=2, novelty=1.0, window=16, **options)
    told = result.report["evolved"]
    evolved = [text for text in result.rows["input"] if text.startswith("Later on")]
    assert result.rows.num_rows == 60
    assert told["rounds"] == 2
    assert told["kept"] == len(evolved)
    assert 24 <= len(evolved) <= 44, "half of the rows to two in three come of others"
    assert set(told["operations"]) <= set(OPERATIONS)
    keys = {text: len(source["requests"]) for text, source in zip(result.rows["input"], result.rows["source"])}
    assert max(keys[text] for text in evolved) > 4, "no row went through two rounds"
    again = ScriptedTeacher(Guests(), CHAT)
    same = run(tmp_path, spec, again, rows=60, evolve=2, novelty=1.0, window=16, **options)
    assert again.asked == []
    assert same.rows["input"][:] == result.rows["input"][:]


@pytest.mark.parametrize("spec", [DESK, SUMMARY])
def test_a_run_shorter_than_its_window_is_evolved_too(spec: TaskSpec, tmp_path: Path) -> None:
    """All inputs were asked for before the first row was there, and nothing was evolved."""
    options: dict[str, Any] = {"method": "magpie"} if spec is DESK else {"attributes": "none"}
    result = run(tmp_path, spec, ScriptedTeacher(Guests(), CHAT), rows=20, evolve=2, novelty=1.0, window=128, **options)
    assert result.rows.num_rows == 20
    assert result.report["evolved"]["kept"] >= 8
    assert result.report["requests"] <= 70


def test_what_is_eliminated_makes_no_row_and_its_text_goes_on(tmp_path: Path) -> None:
    def evolved(number: int) -> Reply | Failure | str:
        return (
            Failure("gone")
            if number % 3 == 0
            else "The given instruction is here."
            if number % 3 == 1
            else prose(-number)
        )

    result = run(tmp_path, DESK, ScriptedTeacher(Guests(evolved), CHAT), rows=24, evolve=2, method="magpie", window=8)
    told = result.report["evolved"]
    assert told["eliminated"]["no_reply"] > 0
    assert told["eliminated"]["evolve_prompt_words"] > 0
    assert told["kept"] > 0
    assert result.report["dropped"]["evolve_prompt_words"] == told["eliminated"]["evolve_prompt_words"]
    inputs = [json.loads(line)["input"] for line in (result.folder / "dropped.jsonl").read_text().splitlines()]
    assert "The given instruction is here." in inputs


def test_a_sorry_answer_eliminates_only_what_was_evolved(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(Guests(answer="We are sorry, the larch is gone from here."), CHAT)
    result = run(tmp_path, DESK, teacher, rows=10, evolve=1, method="magpie", window=8)
    assert result.report["evolved"]["kept"] == 0
    assert result.report["dropped"]["evolved_unanswered"] > 0
    assert result.rows.num_rows == 10


def test_what_cannot_be_evolved_is_refused_early(tmp_path: Path) -> None:
    two = replace(SUMMARY, inputs=("title", "text"))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = Asker(FakeTeacher(), ledger)
        for spec, said in [(NEWS, "label may be another"), (two, "this task's have title, text")]:
            with pytest.raises(OptionError, match=said):
                refuse_recipes(spec, asker, GenerationOptions(evolve=1))
    with pytest.raises(ValueError, match="evolve must be a number of rounds from 0 to 8"):
        GenerationOptions(evolve=9)


def test_a_long_text_of_any_script_may_be_as_long_again() -> None:
    text = "请把客人的行李送到九号房间，然后告诉他们早餐几点开始。" * 20
    asked = evolve_request(SUMMARY, GenerationOptions(evolve=1), Abilities(prefill=True), Chain(text, 0))
    assert asked.max_tokens > len(text), "it was cut, whatever came of it"


@pytest.mark.parametrize(
    ("languages", "said"),
    [
        (("en",), "Write only the text.\n"),
        (("de",), "the text, in German.\n"),
        (("de", "fr"), "in its own language.\n"),
    ],
)
def test_the_language_stays(languages: tuple[str, ...], said: str) -> None:
    spec = replace(SUMMARY, languages=languages)
    asked = evolve_request(spec, GenerationOptions(evolve=1), CHAT, Chain("Der Zug ist weg.", 0))
    assert said in asked.messages[-1].content


@pytest.mark.parametrize("kind", ["instructions", "generation"])
def test_a_plan_counts_the_requests_that_evolve(kind: str, tmp_path: Path) -> None:
    task = tmp_path / "task.md"
    task.write_text(f"---\nkind: {kind}\n---\nSummarise a paragraph in one sentence.\n")

    def requests(evolve: int) -> float:
        given: dict[str, Any] = {"teacher": "fake", "sources": "generated"}
        plan = plan_run(str(task), out=tmp_path / "run", probe=0, generation={"rows": 2000, "evolve": evolve}, **given)
        return sum(step.requests for step in plan.steps if step.stage == "datagen")

    assert requests(0) < requests(2)
