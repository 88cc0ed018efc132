"""Whole runs whose teacher is a Python function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import potstill
from potstill.asking.teacher import Message, Reply, Request
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.doctor import examine
from potstill.errors import OptionError
from potstill.events import Event
from potstill.plan.estimate import plan_run
from potstill.preview import preview_rows

TASK = "Classify a short message about a delivery as praise or complaint."
SMALL: dict[str, Any] = {
    "n": 40,
    "sources": "generated",
    "distil": {"epochs": 1, "min_steps": 2},
    "evaluate": {"rows": 20, "latency_rows": 2},
    "teacher_options": {"version": "1"},
}
ASKED = list[str]()


def word_lists(messages: list[dict[str, str]]) -> str:
    """Stands for a call of some client: text that a student can learn from, by a teacher that only writes."""
    request = Request(tuple(Message(turn["role"], turn["content"]) for turn in messages))  # type: ignore[arg-type]
    ASKED.append(messages[-1]["content"])
    [(_, reply)] = FakeTeacher().stream(_once(request))
    assert isinstance(reply, Reply)
    return reply.text


def _once(request: Request) -> Any:
    left = [request]
    return lambda room: [left.pop()] if left else []


@pytest.mark.real
def test_a_run_of_a_function_is_whole_goes_on_and_asks_for_nothing_twice(tmp_path: Path) -> None:
    out = tmp_path / "run"
    ASKED.clear()
    result = potstill.run(TASK, out=out, teacher=word_lists, **SMALL)
    assert result.dataset.num_rows >= 20
    assert {source["teacher"] for source in result.dataset["source"]} == {"python:word_lists"}
    assert {system["name"] for system in result.scores["systems"]} >= {"student"}
    record = json.loads((out / "run.json").read_text())
    assert record["teacher"] == {"backend": "python", "model": "word_lists", "version": "1"}
    assert record["settings"]["teacher"] == "python:word_lists"
    assert "python:word_lists" in result.report.read_text("utf-8")
    assert "hard labels" in json.loads((out / "soft" / "manifest.json").read_text())["facts"]["summary"]

    asked = len(ASKED)
    stages: dict[str, str] = {}
    tell = lambda event: stages.update({event.stage: event.kind}) if event.kind in ("reused", "done") else None  # noqa: E731
    potstill.run(TASK, out=out, teacher=word_lists, listener=tell, **SMALL)
    assert set(stages.values()) == {"reused"}
    assert len(ASKED) == asked

    with pytest.raises(
        OptionError, match=r"begun with a teacher of one's own in Python, python:word_lists; give it again"
    ):
        potstill.run(TASK, out=out, **{**SMALL, "teacher_options": {}})
    plan = plan_run(TASK, out=out, teacher=word_lists, **SMALL)
    assert plan.teacher == "python:word_lists"
    assert len(ASKED) == asked, "a plan asks nobody who may be paid for"


def test_a_plan_and_a_preview_take_one_and_say_what_is_not_known(tmp_path: Path) -> None:
    ASKED.clear()
    plan = plan_run(TASK, out=tmp_path, teacher=word_lists, probe=0, **SMALL)
    assert plan.usd is None
    assert plan.seconds is None
    assert ASKED == []
    assert any("with probe=32 a plan asks it" in note for note in plan.notes)
    assert any("price is not known" in note for note in plan.notes)
    seen = list[Event]()
    shown = preview_rows(TASK, rows=3, out=tmp_path, teacher=word_lists, listener=seen.append, **SMALL)
    assert len(shown.rows) == 3
    assert ASKED
    with pytest.raises(OptionError, match="give it again"):
        preview_rows(TASK, rows=3, out=tmp_path, listener=seen.append, **{**SMALL, "teacher_options": {}})
    named = {**SMALL, "teacher": "fake", "teacher_options": {}}
    assert len(preview_rows(TASK, rows=3, out=tmp_path, listener=seen.append, **named).rows) == 3
    assert not (tmp_path / "own_teacher.json").exists()


def test_a_call_that_broke_off_says_that_the_teacher_must_be_given_again(tmp_path: Path) -> None:
    def empty(messages: list[dict[str, str]]) -> str:
        raise OSError("no network")

    options = {"backoff_s": 0.0, "attempts": 1}
    with pytest.raises(Exception, match=r"python:empty gave no reply to 8 requests in a row \(.*OSError: no network"):
        potstill.run(TASK, out=tmp_path, teacher=empty, **{**SMALL, "teacher_options": options})
    told = json.loads((tmp_path / ".state.json").read_text())
    assert "teacher=...)" in told["command"]
    assert "0x" not in told["command"]


def test_the_doctor_asks_it() -> None:
    checks = {check.name: check for check in examine(TASK, teacher=word_lists, **SMALL)}
    assert checks["teacher"].status == "ok"
    assert "python:word_lists wrote" in checks["teacher"].found
