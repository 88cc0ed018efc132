"""Paths in a task file's settings and options start at its folder, wherever the command is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.errors import TaskError
from potstill.settings import read_with_settings

TASK = """---
name: tickets
student: small
encoder: ./sentences
teacher: transformers:../big
generation: {{personas: who.txt, output_teacher: "vllm:answers"}}
quality: {{judge: true, teacher: "transformers:./judge"}}
retrieval: {{catalogue: [cards.jsonl, sets], students: [models.jsonl]}}
distil: {{teacher: ./listens, teacher_tokenizer: small}}
compress: {{recipe: "heal:steps=1", teacher: {compressor}}}
---
Classify support tickets as billing, bug or other.
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task file's folder that is not the working directory."""
    here = tmp_path / "tasks"
    for name in ("small", "answers", "sets"):
        (here / name).mkdir(parents=True)
    for name in ("who.txt", "cards.jsonl", "models.jsonl"):
        (here / name).write_text("{}\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return here


def test_paths_of_settings_and_options_start_at_the_task_files_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "task.md").write_text(TASK.format(compressor="some-user/some-model"))
    found = read_with_settings(folder / "task.md", {})[1]
    assert found.distil.student == str(folder / "small")
    assert found.encoder == str(folder / "sentences")
    assert found.teacher == f"transformers:{tmp_path / 'big'}"
    assert found.generation.personas == str(folder / "who.txt")
    assert found.generation.output_teacher == f"vllm:{folder / 'answers'}"
    assert found.quality.teacher == f"transformers:{folder / 'judge'}"
    assert found.retrieval.catalogue == (str(folder / "cards.jsonl"), str(folder / "sets"))
    assert found.retrieval.students == (str(folder / "models.jsonl"),)
    assert found.distil.teacher == str(folder / "listens")
    assert found.distil.teacher_tokenizer == str(folder / "small")
    assert found.compress.teacher == "some-user/some-model", "no such folder: a name of the Hub"


def test_what_a_command_says_starts_where_it_is_given(folder: Path) -> None:
    (folder / "task.md").write_text(TASK.format(compressor="x/y"))
    given = {"student": "small", "retrieval": {"catalogue": ["cards.jsonl"]}, "teacher": "transformers:./big"}
    found = read_with_settings(folder / "task.md", given)[1]
    assert (found.distil.student, found.retrieval.catalogue) == ("small", ("cards.jsonl",))
    assert found.teacher == "transformers:./big"


def test_a_catalogue_that_is_not_there_is_told_with_its_line(folder: Path) -> None:
    (folder / "task.md").write_text(TASK.format(compressor="x/y").replace("cards.jsonl, sets", "card.jsonl, sets"))
    with pytest.raises(TaskError, match=r"line 8: retrieval.catalogue: no file or folder 'card.jsonl'; did you mean"):
        read_with_settings(folder / "task.md", {})


def test_a_catalogue_that_is_no_list_is_told_as_before(folder: Path) -> None:
    (folder / "task.md").write_text(TASK.format(compressor="x/y").replace("[cards.jsonl, sets]", "cards.jsonl"))
    with pytest.raises(TaskError, match=r"retrieval\.catalogue: a list is needed"):
        read_with_settings(folder / "task.md", {})
