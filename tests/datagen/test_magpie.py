"""Magpie: what the teacher is given in place of a question, what becomes of its turns, and who cannot write them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted import NEWS, SUMMARY, ScriptedTeacher, run

from potstill import prompts
from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, Message, Reply, Request
from potstill.datagen.answering import answer_messages
from potstill.datagen.attributes import proposal_requests
from potstill.datagen.generate import GenerationOptions
from potstill.datagen.magpie import QueryScreen, speaks_as_assistant
from potstill.datagen.options import UNREAD, unread
from potstill.datagen.recipes import refuse_recipes
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.errors import OptionError
from potstill.pipeline import run as run_pipeline
from potstill.plan.estimate import plan_run
from potstill.preview import preview_rows
from potstill.task import Example, TaskSpec

DESK = TaskSpec("desk", "Help at the desk of a hotel.", "instructions", metric="rouge_l")
ABLE = Abilities(prefill=True, choices=True, top_logprobs=32, scores=True, user_turn=True)
CONTEXT: dict[str, Any] = {
    "instruction": "Help at a desk.", "instructions": True, "input": "", "topic": "", "persona": "", "language": "",
}  # fmt: skip

INSTRUCTIONS = """\
You are an AI assistant that people come to for this purpose: Help at a desk.
In each message the user asks for one thing that fits this purpose, about keys, in German.
The user is a porter who works at night."""

INPUTS = """\
You are an AI assistant that does this task: Summarise a paragraph.
Each message of the user is a paragraph to do it on, and nothing else."""


def test_the_system_message_says_what_the_chat_is_about() -> None:
    template = prompts.load("magpie_system")
    told = CONTEXT | {"topic": "keys", "language": "German", "persona": "a porter who works at night"}
    assert template.render(**told) == INSTRUCTIONS
    asked = CONTEXT | {"instruction": "Summarise a paragraph.", "instructions": False, "input": "a paragraph"}
    assert template.render(**asked) == INPUTS


def guests(request: Request, number: int) -> Reply:
    """A guest's words in each turn, and an answer to each."""
    if request.turn == "user":
        return Reply(prose(number))
    return Reply(f"Dear guest, this is what we say of it: {request.messages[-1].content[:40]}")


def prose(number: int) -> str:
    """A text unlike those of other numbers."""
    reply = FakeTeacher().answer(Request((Message("user", str(number)),), turn="user"))
    assert isinstance(reply, Reply)
    return reply.text


def test_instructions_are_written_in_the_users_turn_and_answered_as_the_student_is_asked(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(guests, ABLE)
    result = run(tmp_path, DESK, teacher, rows=12, method="magpie")
    assert result.report["method"] == "magpie"
    assert result.rows.num_rows == 12
    turns = [request for request in teacher.asked if request.turn == "user"]
    answers = [request for request in teacher.asked if request.turn != "user"]
    assert all(request.prefill == "" and request.schema is None for request in turns)
    assert all([message.role for message in request.messages] == ["system"] for request in turns)
    assert "Help at the desk of a hotel." in turns[0].messages[0].content
    assert len({request.seed for request in turns}) == len(turns)
    assert {request.messages for request in answers} >= {answer_messages(DESK, text) for text in result.rows["input"]}
    assert set(result.rows["origin"]) == {"generated"}


def test_a_killed_run_asks_for_nothing_again_and_keeps_the_same_rows(tmp_path: Path) -> None:
    first = run(tmp_path, DESK, ScriptedTeacher(guests, ABLE), rows=8, method="magpie")
    again = ScriptedTeacher(guests, ABLE)
    second = run(tmp_path, DESK, again, rows=8, method="magpie")
    assert again.asked == []
    assert second.rows["input"][:] == first.rows["input"][:]


def test_turns_that_are_no_instruction_are_dropped_with_their_reason(tmp_path: Path) -> None:
    said = {
        0: Reply("Hello! How can I help you today?"),
        1: Reply("Yes"),
        2: Reply("Draw a house by the sea for the guests of room four."),
        3: Reply("Write a long letter to the guests of room nine and then", finish="length"),
        4: Reply(""),
        5: Reply("Who knows", finish="refused"),
        6: Reply("Help at the desk of a hotel."),
        7: Reply("Tell the guests that the lift is out of order."),
    }

    def reply(request: Request, number: int) -> Reply:
        return said.get(number) or guests(request, number)

    spec = replace(DESK, examples=(Example("Tell guests that the lift is out of order.", "It is."),))
    result = run(tmp_path, spec, ScriptedTeacher(reply, ABLE), rows=8, method="magpie")
    assert result.report["dropped"].items() >= {
        "assistant_talk": 1, "instruction_length": 1, "instruction_not_text": 1, "truncated": 1, "empty": 1,
        "refusal": 1, "prompt_echo": 1, "example_echo": 1,
    }.items()  # fmt: skip


def test_inputs_of_a_task_are_written_in_the_users_turn(tmp_path: Path) -> None:
    texts = map(prose, range(400))

    def reply(request: Request, number: int) -> Reply:
        return Reply(next(texts) if request.turn == "user" else "It rained on that day and they told of it.")

    teacher = ScriptedTeacher(reply, ABLE)
    result = run(tmp_path, SUMMARY, teacher, rows=6, method="magpie")
    assert result.rows.num_rows == 6
    [system] = {request.messages[0].content for request in teacher.asked if request.turn == "user"}
    assert system.endswith("Each message of the user is a paragraph to do it on, and nothing else.")


def test_of_what_varies_inputs_a_turn_is_told_the_topic_alone(tmp_path: Path) -> None:
    """Styles, lengths and registers were proposed and paid for, and told to nobody."""
    texts = map(prose, range(400))

    def reply(request: Request, number: int) -> Reply:
        if "specific subjects" in request.messages[-1].content and request.turn != "user":
            return Reply("1. dry rivers\n2. wide rivers\n3. old rivers\n4. cold rivers")
        return Reply(next(texts) if request.turn == "user" else "It rained on that day and they told of it.")

    teacher = ScriptedTeacher(reply, ABLE)
    options: dict[str, Any] = {"method": "magpie", "attributes": "teacher"}
    result = run(tmp_path, SUMMARY, teacher, rows=3, **options)
    proposals = [request for request in teacher.asked if request.temperature == 0.8]
    assert len(proposals) == proposal_requests(SUMMARY, GenerationOptions(**options), ABLE) == 6
    assert result.report["topics"]
    assert result.report["attributes"] == {}
    assert "rivers" in next(request for request in teacher.asked if request.turn == "user").messages[0].content
    builtin = run(tmp_path / "b", SUMMARY, ScriptedTeacher(reply, ABLE), rows=1, method="magpie", attributes="builtin")
    assert builtin.report["attributes"] == {}


def test_the_fields_of_an_input_are_named_and_read(tmp_path: Path) -> None:
    spec = TaskSpec(
        "qa", "Answer the question using the passage.", "generation", inputs=("passage", "question"), metric="rouge_l"
    )
    texts = map(prose, range(400))

    def reply(request: Request, number: int) -> Reply:
        if request.turn != "user":
            return Reply("On one of the days.")
        if number == 0:
            return Reply(" A passage alone.")
        text = next(texts)
        return Reply(f" {text}\nquestion: What did {' '.join(text.split()[3:8])} do?")

    teacher = ScriptedTeacher(reply, ABLE)
    result = run(tmp_path, spec, teacher, rows=4, method="magpie")
    first = teacher.asked[0]
    assert first.prefill == "passage:"
    assert "a passage, a question, each on a line of its own after its name (passage:, question:)" in (
        first.messages[0].content
    )
    assert result.report["dropped"]["missing_field"] == 1
    assert all(text.startswith("passage: ") and "\nquestion: What" in text for text in result.rows["input"])


def test_who_cannot_write_a_users_turn_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    options = GenerationOptions(method="magpie")

    class Base(ScriptedTeacher):
        def user_turn_fault(self) -> str:
            return "the model m has no chat template"

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        chat, base = ScriptedTeacher(guests), Base(guests, ABLE)
        for teacher, spec, said in [
            (chat, DESK, r"raw prompts, which scripted does not take.*transformers:MODEL.*generation.method=auto"),
            (base, DESK, r"opens a user's turn, and the model m has no chat template"),
            (ScriptedTeacher(guests, ABLE), NEWS, r"texts are written for a label each; take generation.method=auto"),
        ]:
            with pytest.raises(OptionError, match=said):
                refuse_recipes(spec, Asker(teacher, ledger), options)
        refuse_recipes(NEWS, Asker(chat, ledger), GenerationOptions())


def test_options_that_a_turn_does_not_go_by_are_known() -> None:
    assert unread("generation", "auto") == UNREAD["generation"]
    assert "answer_top_k" in unread("instructions", "auto")
    assert "answer_top_k" not in unread("instructions", "magpie")
    assert {"texts_per_request", "avoid_shown"} <= set(unread("generation", "magpie"))


@pytest.mark.parametrize(
    ("text", "talks"),
    [
        ("As an AI language model, I cannot do that.", True),
        ("I'm here to help you with anything.", True),
        ("I'm an AI researcher and need a title for my talk.", True),
        ("How can I get a stain out of wool?", False),
        ("Explain how an AI model learns.", False),
    ],
)
def test_the_model_speaking_for_itself_is_no_user(text: str, talks: bool) -> None:
    assert (speaks_as_assistant(text) is not None) == talks


def test_what_was_kept_is_compared_with() -> None:
    screen = QueryScreen(DESK, GenerationOptions(), [])
    screen.know(["Tell the guests of room nine that their taxi has come."])
    fault = screen.refuse("Tell the guests of room six that their taxi has come.", "")
    assert fault is not None
    assert fault.reason == "near_duplicate"


def task_file(folder: Path, kind: str = "instructions") -> str:
    path = folder / "task.md"
    path.write_text(f"---\nkind: {kind}\n---\nHelp at the desk of a hotel.\n")
    return str(path)


def test_a_run_a_plan_and_a_preview_go_by_the_method(tmp_path: Path) -> None:
    task = task_file(tmp_path)
    given: dict[str, Any] = {"teacher": "fake", "sources": "generated", "generation": {"method": "magpie", "rows": 6}}
    plan = plan_run(task, out=tmp_path / "run", probe=4, **given)
    assert any(step.stage == "datagen" and step.basis == "probe" for step in plan.steps)
    assert not any("Self-Instruct" in note for note in plan.notes)
    assumed = plan_run(task, out=tmp_path / "other", probe=0, **given)
    assert any(step.stage == "datagen" and step.requests >= 6 for step in assumed.steps)
    shown = preview_rows(task, rows=3, out=tmp_path / "run", **given)
    assert len(shown.rows) == 3


def test_a_run_for_classes_is_refused_early(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"generation.method=magpie lets the teacher say what a user would"):
        run_pipeline(
            "Is this message spam or ham?", out=tmp_path / "run", teacher="fake", generation={"method": "magpie"}
        )
    assert not (tmp_path / "run" / "retrieval").exists()


def test_the_fake_teacher_speaks_for_a_user() -> None:
    reply = FakeTeacher().answer(Request((Message("system", "Lamps."),), turn="user"))
    assert isinstance(reply, Reply)
    assert len(reply.text.split()) > 3
