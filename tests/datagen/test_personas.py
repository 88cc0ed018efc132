"""Personas: how they are proposed or read, what is usable of them, and where they are told."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from scripted import NEWS, SUMMARY, ScriptedTeacher, run

from potstill import prompts
from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, Message, Reply, Request
from potstill.datagen.attributes import proposal_requests
from potstill.datagen.generate import GenerationOptions
from potstill.datagen.personas import MOST_READ, SAMPLES, draw_persona, read_personas, usable_personas
from potstill.datagen.recipes import refuse_recipes
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.errors import DataError, OptionError, TaskError
from potstill.settings import read_with_settings
from potstill.task import TaskSpec

DESK = TaskSpec("desk", "Help at the desk of a hotel.", "instructions", metric="rouge_l")
PEOPLE = [f"a {who} who counts {what}" for who in ("porter", "cook", "guest") for what in ("keys", "eggs", "sheep")]

FOR_INPUTS = """\
Task: Summarise a paragraph.

List 20 different kinds of people who would write paragraphs that this task is done on.
Say of each in five to fifteen words what they do and what is on their mind, beginning with "a" or "an". Write a \
numbered list."""


def test_the_question_for_them() -> None:
    asked = {"instruction": "Summarise a paragraph.", "instructions": False, "noun": "paragraphs", "count": 20}
    assert prompts.load("propose_personas").render(**asked) == FOR_INPUTS
    text = prompts.load("propose_personas").render(**asked | {"instruction": "Help at a desk.", "instructions": True})
    assert text.startswith("An assistant is there for this purpose: Help at a desk.\n\nList 20 different kinds")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("A Political Analyst of El Salvador.", ("a Political Analyst of El Salvador",)),
        ("Night porter", ("a night porter",)),
        ("an elderly guest", ("an elderly guest",)),
        ("Porter", ("a porter",)),
        ("I'm sorry, but I can't help with that.", ()),
        ("A fan of sports and clubs", ()),
        ("A {name} of the house", ()),
        ("Guest: somebody who stays", ()),
        ("", ()),
    ],
)
def test_what_can_stand_in_a_sentence_is_used(said: str, kept: tuple[str, ...]) -> None:
    assert usable_personas([said, said], ("Sports",)) == kept


def test_files_of_personas_are_read(tmp_path: Path) -> None:
    path = tmp_path / "personas.jsonl"
    path.write_text(
        '{"persona": "A night porter."}\n"an old guest"\n\nA cook, who is late\n{"other": 1}\nA night porter\n'
    )
    assert read_personas(path) == ("a night porter", "an old guest", "a cook, who is late")
    long = tmp_path / "long.txt"
    long.write_text("A cook. " + "She likes long walks by the sea. " * 40)
    assert len(read_personas(long)[0]) <= 300
    (tmp_path / "empty.txt").write_text("\n \n")
    for name, said in [("empty.txt", "holds none; write one persona a line"), ("none.txt", "cannot be read")]:
        with pytest.raises(DataError, match=said):
            read_personas(tmp_path / name)
    with Ledger(tmp_path / "l.sqlite") as ledger, pytest.raises(OptionError, match=r"generation.personas: .*cannot be"):
        refuse_recipes(DESK, Asker(FakeTeacher(), ledger), GenerationOptions(personas=str(tmp_path / "none.txt")))


@pytest.mark.parametrize(
    "line", ['{"persona": "A night porter', '["a night porter", "a cook"]', '{"persona": ["a cook"]}', "[]"]
)
def test_what_is_no_line_of_a_file_is_nobody(line: str, tmp_path: Path) -> None:
    """A broken line was told to the teacher as a person."""
    path = tmp_path / "personas.jsonl"
    path.write_text(f'{line}\n{{"persona": "An old guest\u2028who rows"}}\n')
    assert read_personas(path) == ("an old guest who rows",)
    path.write_text(f"{line}\n")
    with pytest.raises(DataError, match="holds none; write one persona a line"):
        read_personas(path)


def test_of_a_huge_file_the_first_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "personas.txt"
    with path.open("w") as file:
        for number in range(MOST_READ + 10):
            file.write(f"a guest of room {number}\n")
        file.write("a" * (64 << 20))
    tracemalloc.start()
    try:
        found = read_personas(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == MOST_READ
    assert peak < 40 << 20, "what is not used was read"


def test_a_task_files_personas_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "task"
    folder.mkdir()
    (folder / "people.txt").write_text("a night porter\n")
    (folder / "task.md").write_text("---\ngeneration: {personas: people.txt, rows: 20}\n---\nIs this spam or ham?\n")
    monkeypatch.chdir(tmp_path)
    _, settings = read_with_settings(str(folder / "task.md"), {})
    assert settings.generation.personas == str(folder / "people.txt")
    assert settings.generation.rows == 20
    _, ours = read_with_settings(str(folder / "task.md"), {"generation": {"personas": "teacher"}})
    assert ours.generation.personas == "teacher"
    (folder / "task.md").write_text("---\ngeneration:\n  personas: peple.txt\n---\nIs this spam or ham?\n")
    with pytest.raises(TaskError, match=r"line 3: generation.personas: no file or folder 'peple.txt'; did you mean"):
        read_with_settings(str(folder / "task.md"), {})
    for word in ("none", "teacher"):
        (folder / "task.md").write_text(f"---\ngeneration:\n  personas: {word}\n---\nIs this spam or ham?\n")
        assert read_with_settings(str(folder / "task.md"), {})[1].generation.personas == word


def test_a_word_for_personas_is_no_path() -> None:
    assert [GenerationOptions(personas=word).personas_file for word in ("none", "teacher", "a.txt")] == [
        "",
        "",
        "a.txt",
    ]


def test_a_draw_is_its_own() -> None:
    assert draw_persona((), 0, 0) == ""
    drawn = [draw_persona(PEOPLE, 0, index) for index in range(100)]
    assert set(drawn) == set(PEOPLE)
    assert drawn == [draw_persona(PEOPLE, 0, index) for index in range(100)]
    assert drawn != [draw_persona(PEOPLE, 0, index, "Sports") for index in range(100)]


def proposing(request: Request, number: int) -> Reply:
    said = request.messages[-1].content
    if "kinds of people" in said:
        return Reply("\n".join(f"{place}. {who}" for place, who in enumerate(PEOPLE, 1)))
    if "answer is" in said or "Write only the input" in said or request.turn == "user" or "Come up with" in said:
        text = FakeTeacher().answer(Request((Message("user", said + str(request.seed)),), turn="user"))
        assert isinstance(text, Reply)
        return Reply("\n".join(f"{9 + i}. Say {i} {text.text}" for i in range(2)) if "Come up" in said else text.text)
    return Reply("No" if request.choices else "Input: none\nOutput: The larch grows where nothing else does.")


CASES: list[tuple[TaskSpec, dict[str, Any], str]] = [
    (NEWS, {"attributes": "none"}, "Now write it, as a "),
    (SUMMARY, {"attributes": "none"}, "Now write it, as a "),
    (DESK, {"method": "magpie"}, "The user is a "),
    (DESK, {}, "The new ones are what a "),
]


@pytest.mark.parametrize(("spec", "options", "told"), CASES)
def test_they_are_proposed_once_and_told_in_each_request(
    spec: TaskSpec, options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    teacher = ScriptedTeacher(proposing, Abilities(user_turn=True, choices=True))
    result = run(tmp_path, spec, teacher, rows=8, personas="teacher", **options)
    asked = [request for request in teacher.asked if "kinds of people" in request.messages[-1].content]
    assert len(asked) == SAMPLES
    assert result.report["personas"] == PEOPLE
    texts = [request.messages[0].content for request in teacher.asked if told in request.messages[0].content]
    assert len({text[text.index(told) :].split(" would")[0] for text in texts}) > 2
    plain = ScriptedTeacher(proposing, Abilities(user_turn=True, choices=True))
    (tmp_path / "plain").mkdir()
    without = run(tmp_path / "plain", spec, plain, rows=8, **options)
    assert "personas" not in without.report
    seeds = [request.seed for request in teacher.asked if told in request.messages[0].content]
    assert set(seeds) & {request.seed for request in plain.asked}, "a persona changed other draws"


def test_a_plan_counts_the_proposals() -> None:
    able = Abilities()
    base = proposal_requests(SUMMARY, GenerationOptions(attributes="none"), able)
    assert proposal_requests(SUMMARY, GenerationOptions(attributes="none", personas="teacher"), able) == base + SAMPLES
