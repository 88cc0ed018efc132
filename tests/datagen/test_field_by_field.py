"""Inputs of several fields that a small teacher writes one after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from scripted import ScriptedTeacher, run

from potstill.asking.teacher import Abilities, Failure, Reply, Request
from potstill.datagen.options import GenerationOptions
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.datagen.writing import parts_of
from potstill.errors import TeacherError
from potstill.prompts import load
from potstill.rows import split_fields
from potstill.task import Example, Label, TaskSpec

ASKS = TaskSpec(
    "asks", "Answer the question using the passage.", "generation", inputs=("question", "passage"), metric="rouge_l"
)
SMALL = Abilities(prefill=True)
WORDS = [
    word
    for line in (
        "ships whales Lima sailed north spring harvest copper Oslo bridge river Cairo desert train Quito market",
        "violin Hanoi library Accra winter glass Dakar fishing Perth shepherd Turin factory Minsk snow Seoul tower",
    )
    for word in line.split()
]


def about(number: int, count: int) -> str:
    return " ".join(Random(number).sample(WORDS, count))


def answers(request: Request, number: int) -> Reply:
    """A passage, then a question about it, then an answer; told apart by how the reply is opened."""
    if "Here is a passage" in request.prefill:
        return Reply(f"The {about(number, 12)} came.")
    if "Here is a question" in request.prefill:
        return Reply(f" of {about(number, 6)}? It was whales. Well done")
    return Reply("whales")


def test_each_field_has_a_request_that_shows_the_ones_before(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(answers, SMALL)
    found = run(tmp_path, ASKS, teacher, rows=6)
    assert found.report["kept"] == 6
    for row in found.rows:
        question, passage = split_fields(row["input"], ASKS.inputs) or ("", "")
        # What stands behind the question is not kept; the word that it was opened with is.
        assert question.endswith("?")
        assert question[0].isupper()
        assert passage.startswith("The ")
        assert len(row["source"]["requests"]) == 3
    written = [request for request in teacher.asked if "Here is a question" in request.prefill]
    assert all(request.messages[-1].content.startswith("passage: The ") for request in written)
    # What is asked with the same words is asked by the same seed, whatever came between.
    assert len({request.seed for request in written}) == len(written)


def test_a_context_of_questions_is_written_as_a_passage(tmp_path: Path) -> None:
    task = replace(ASKS, instruction="Answer the question from the context.", inputs=("question", "context"))
    teacher = ScriptedTeacher(answers, SMALL)
    assert run(tmp_path, task, teacher, rows=3).report["kept"] == 3
    first = [request for request in teacher.asked if "Here is a passage of 200 words" in request.prefill]
    assert first
    written = [request for request in teacher.asked if "Here is a question about this context" in request.prefill]
    assert all(request.messages[-1].content.startswith("context: The ") for request in written)


def test_what_is_no_question_is_dropped_and_the_rest_goes_on(tmp_path: Path) -> None:
    def statements(request: Request, number: int) -> Reply | Failure:
        if "Here is a question" in request.prefill and number % 3 == 0:
            return Reply(f" a statement number {number}.")
        if "Here is a question" in request.prefill and number % 5 == 0:
            return Failure("broken")
        return answers(request, number)

    found = run(tmp_path, ASKS, ScriptedTeacher(statements, SMALL), rows=8)
    assert found.report["kept"] == 8
    assert found.report["dropped"]["missing_field"] > 0


def test_a_question_that_repeats_its_passage_is_none(tmp_path: Path) -> None:
    def echoes(request: Request, number: int) -> Reply:
        if "Here is a question" not in request.prefill:
            return answers(request, number)
        passage = request.messages[-1].content.partition("\n")[0].removeprefix("passage: ")
        return Reply(f" {passage}?")

    with pytest.raises(TeacherError, match=r"\(6 prompt_echo\)"):
        run(tmp_path, ASKS, ScriptedTeacher(echoes, SMALL), rows=2, requests_per_row=3.0)


def test_a_field_ends_where_another_begins(tmp_path: Path) -> None:
    def more(request: Request, number: int) -> Reply:
        reply = answers(request, number)
        return replace(reply, text=f"{reply.text}\nQuestion: And then?") if "a passage" in request.prefill else reply

    for row in run(tmp_path, ASKS, ScriptedTeacher(more, SMALL), rows=3).rows:
        assert "And then" not in row["input"]


def test_questions_end_as_their_language_has_it(tmp_path: Path) -> None:
    def japanese(request: Request, number: int) -> Reply:
        if "Here is a question" in request.prefill:
            return Reply(f"{about(number, 6)}はどこですか？それは")
        return answers(request, number)

    found = run(tmp_path, replace(ASKS, languages=("ja",)), ScriptedTeacher(japanese, SMALL), rows=1)
    assert "か？\n" in found.rows[0]["input"]


def test_a_requests_bound_holds_where_no_input_is_finished(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(lambda request, number: Reply("no"), SMALL)
    with pytest.raises(TeacherError, match="0 usable rows"):
        run(tmp_path, ASKS, teacher, rows=4, requests_per_row=3.0)
    assert len(teacher.asked) <= 2 * 12


def test_examples_show_the_field_that_is_asked_for(tmp_path: Path) -> None:
    example = Example("question: Who sat there?\npassage: A cat sat on a mat in May.", "a cat")
    teacher = ScriptedTeacher(answers, SMALL)
    run(tmp_path, replace(ASKS, examples=(example,)), teacher, rows=2)
    first = teacher.asked[0].messages[-1].content
    assert "A cat sat on a mat" in first
    assert "Who sat there" not in first


def test_who_is_asked_by_fields() -> None:
    options = GenerationOptions(rows=1)
    assert parts_of(ASKS, options, SMALL) == 2
    assert parts_of(ASKS, options, Abilities(json_schema=True)) == 1
    assert parts_of(ASKS, replace(options, texts_per_request=3), SMALL) == 1
    assert parts_of(replace(ASKS, inputs=("text",)), options, SMALL) == 1
    assert parts_of(replace(ASKS, kind="classification"), options, SMALL) == 1


def test_what_stands_behind_the_last_field_is_none_of_it(tmp_path: Path) -> None:
    """Of a class, fields are asked for at once, and a small teacher goes on to speak of what it wrote."""
    task = TaskSpec(
        "pairs", "Say whether two sentences agree.", "classification", (Label("yes"), Label("no")), inputs=("a", "b")
    )

    def remarks(request: Request, number: int) -> Reply:
        return Reply(f" {about(number, 7)}.\nb: {about(-number, 7)}.\nThe sentence {about(number, 3)} contradicts.")

    for row in run(tmp_path, task, ScriptedTeacher(remarks, SMALL), rows=4).rows:
        assert "contradicts" not in row["input"]
        assert split_fields(row["input"], ("a", "b"))


def test_the_prompt_of_a_field() -> None:
    said = load("write_field").render(
        given=[("passage", "Ana left."), ("title", "Leaving")], noun="a question about this passage", language="Spanish"
    )
    assert said.split("\n") == [
        "passage: Ana left.",
        "",
        "title: Leaving",
        "",
        "Write a question about this passage in Spanish.",
    ]


def test_a_dry_run_has_rows(tmp_path: Path) -> None:
    found = run(tmp_path, ASKS, FakeTeacher(), rows=6)
    assert found.report["kept"] == 6
    assert all(split_fields(row["input"], ASKS.inputs) for row in found.rows)
