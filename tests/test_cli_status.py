"""`status`: every stage with its state, whoever made or broke it, and the command that goes on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import potstill
from potstill.asking.ledger import Ledger
from potstill.cli.app import app
from potstill.datagen.teachers import open_teacher
from potstill.datagen.teachers.labour import what_answers
from potstill.datagen.teachers.worker_wire import Line
from potstill.datagen.teachers.workers import WorkersTeacher
from potstill.errors import TeacherUnavailable, UserError
from potstill.run_dir import RunDir
from potstill.run_state import read_state, stages_with, told_state

PLAIN = ["task", "retrieval", "datagen", "merge", "soft", "train", "evaluate"]
COMMAND = "potstill run 'my task.md' -n 30"


def _call(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["status", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def _states(run: Path) -> dict[str, str]:
    return {stage.name: stage.state for stage in read_state(run).stages}


def _made(run: Path, *names: str) -> None:
    """Stages as a run publishes them."""

    def make(out: Path) -> dict[str, Any]:
        (out / "task.json").write_text("{}")
        return {"summary": f"{out.name.partition('-')[0]} is here"}

    for name in names:
        RunDir(run).stage(name, {"given": "my task.md"}, make)


def test_the_optional_stages_are_those_of_the_run() -> None:
    assert stages_with([]) == PLAIN
    assert stages_with(["weak", "quality", "compress"]) == [
        "task", "retrieval", "datagen", "quality", "weak", "merge", "soft", "train", "compress", "evaluate",
    ]  # fmt: skip


def test_a_stage_that_failed_says_why_and_what_goes_on(tmp_path: Path) -> None:
    _made(tmp_path, "task", "retrieval")
    with pytest.raises(TeacherUnavailable), told_state(tmp_path, "datagen", stages_with(["quality"]), COMMAND):
        raise TeacherUnavailable("the teacher stayed away; try again\nmore")
    shown = _call(str(tmp_path)).splitlines()
    assert [line.split()[:2] for line in shown[:8]] == [
        ["task", "done"], ["retrieval", "done"], ["datagen", "failed"], ["quality", "waiting"], ["merge", "waiting"],
        ["soft", "waiting"], ["train", "waiting"], ["evaluate", "waiting"],
    ]  # fmt: skip
    assert "retrieval is here" in shown[1]
    assert shown[2].endswith("the teacher stayed away; try again")
    assert shown[-1] == f"next       {COMMAND}"


def test_a_stage_under_way_names_its_process(tmp_path: Path) -> None:
    _made(tmp_path, "task")
    with RunDir(tmp_path).lock(), told_state(tmp_path, "retrieval", PLAIN, COMMAND):
        shown = _call(str(tmp_path))
        told = json.loads(_call(str(tmp_path), "--json"))
    assert f"process {os.getpid()}" in shown.splitlines()[1]
    assert f"process    {os.getpid()} is at work here" in shown
    assert told["process"] == os.getpid()
    assert told["stages"]["retrieval"]["state"] == "running"
    assert told["stages"]["task"] == told["stages"]["task"] | {"state": "done", "summary": "task is here"}
    assert told["next"] == f"potstill status {tmp_path}"
    with RunDir(tmp_path).lock():
        assert read_state(tmp_path).process == os.getpid(), "to look does not take the lock"


def test_the_workers_of_a_run_are_shown(tmp_path: Path) -> None:
    teacher = WorkersTeacher("fake", folder=tmp_path, notice=lambda text: None)
    line = Line(teacher.address)
    with RunDir(tmp_path).lock(), told_state(tmp_path, "datagen", PLAIN, COMMAND):
        assert "worker " not in _call(str(tmp_path))
        answers = what_answers(open_teacher("fake"))
        line.ask("/join", {"worker": {"name": "w", "host": "node1", "process": 7, "room": 3, "answers": answers}})
        shown = _call(str(tmp_path))
        told = json.loads(_call(str(tmp_path), "--json"))
    teacher.close()
    assert "worker     node1 (process 7): 0 answered, 0 in flight, heard " in shown
    assert [(one["host"], one["process"], one["here"]) for one in told["workers"]] == [("node1", 7, False)]
    assert teacher.address.token not in shown


def test_before_its_first_stage_ends_a_run_is_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run at"):
        read_state(tmp_path)
    with RunDir(tmp_path).lock(), told_state(tmp_path, "task", PLAIN, ""):
        assert _states(tmp_path)["task"] == "running"


def test_a_process_that_was_killed_and_one_that_was_stopped(tmp_path: Path) -> None:
    code = "import os, pathlib, sys; from potstill.run_state import told_state; from potstill.run_dir import RunDir\n"
    code += f"folder = pathlib.Path({str(tmp_path)!r})\n"
    code += f"with RunDir(folder).lock(), told_state(folder, 'train', {PLAIN}, ''): os.kill(os.getpid(), 9)"
    _made(tmp_path, "task", "retrieval", "datagen", "merge", "soft", "evaluate")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    found = {stage.name: stage for stage in read_state(tmp_path).stages}
    assert (found["train"].state, "without a word" in found["train"].told) == ("stopped", True)
    assert (found["evaluate"].state, found["evaluate"].told) == ("waiting", "one of an earlier run is here")
    assert read_state(tmp_path).next == f"potstill run 'my task.md' --out {shlex.quote(str(tmp_path))}"
    with pytest.raises(KeyboardInterrupt), told_state(tmp_path, "train", PLAIN, COMMAND):
        raise KeyboardInterrupt
    assert {stage.name: stage.told for stage in read_state(tmp_path).stages}["train"] == "stopped by Ctrl-C"


def test_a_whole_run_and_one_with_a_damaged_note(tmp_path: Path) -> None:
    _made(tmp_path, *PLAIN)
    with told_state(tmp_path, "evaluate", PLAIN, COMMAND):
        pass
    assert set(_states(tmp_path).values()) == {"done"}
    assert read_state(tmp_path).next == f'potstill predict {tmp_path} "TEXT"'
    for text in ("{half", "[]", '{"stage": "train"}', '{"stage": "?", "stages": [], "at": 1}'):
        (tmp_path / ".state.json").write_text(text)
        assert set(_states(tmp_path).values()) == {"done"}, text


def test_a_finished_run_that_lost_a_stage_goes_on_as_it_was_made(tmp_path: Path) -> None:
    _made(tmp_path, *PLAIN[:-1])
    plain = f"potstill run 'my task.md' --out {shlex.quote(str(tmp_path))}"
    for record, next_ in (
        (json.dumps({"command": COMMAND}), COMMAND), (json.dumps({"command": ""}), plain), ("[]", plain), ("{", plain),
    ):  # fmt: skip
        (tmp_path / "run.json").write_text(record)
        assert read_state(tmp_path).next == next_, record


@pytest.mark.real
def test_a_run_leaves_word_of_what_broke_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.datagen import generate

    def refuse(*arguments: Any, **options: Any) -> None:
        raise TeacherUnavailable("nobody answers at that address; start the server")

    monkeypatch.setattr(generate, "generate_rows", refuse)
    with pytest.raises(TeacherUnavailable):
        potstill.run("Classify support tickets as billing, bug or other.", out=tmp_path, teacher="fake",
                     sources="generated", quality={"votes": 3})  # fmt: skip
    found = read_state(tmp_path)
    states = {stage.name: stage.state for stage in found.stages}
    assert states["retrieval"] == "done"
    assert (states["datagen"], states["quality"], states["merge"]) == ("failed", "waiting", "waiting")
    assert next(s.told for s in found.stages if s.name == "datagen").startswith("nobody answers")
    assert found.next.startswith("potstill.run('Classify support tickets")
    assert found.process is None


def _stopped_and_ended(tmp_path: Path, stages: tuple[str, ...], *more: str) -> None:
    """One command, stopped by Ctrl-C in each of the stages in turn, and then left to end."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "potstill.cli", "run", "Classify support tickets as billing, bug or other.",
               "--teacher", "fake", "--sources", "generated", "-o", str(run), "--json", "--set", "distil.epochs=1",
               "--set", "evaluate.latency_rows=2", *more]  # fmt: skip

    def call(stop_in: str = "") -> tuple[int, str, list[dict[str, Any]]]:
        # A shell lets what it starts in the background ignore Ctrl-C, and children inherit that.
        child = subprocess.Popen(
            command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert child.stdout is not None
        events: list[dict[str, Any]] = []
        for line in child.stdout:
            events.append(json.loads(line).get("event", {}))
            # Training tells its progress; measuring a few rows may not, so it is stopped at its start.
            wanted = "progress" if stop_in == "train" else "start"
            if stop_in and (events[-1].get("stage"), events[-1].get("kind")) == (stop_in, wanted):
                child.send_signal(signal.SIGINT)
                stop_in = ""
        _, errors = child.communicate(timeout=120)
        return child.returncode, errors, events

    for stage in stages:
        code, errors, events = call(stage)
        assert code == 130, errors
        assert "Traceback" not in errors
        last = errors.strip().splitlines()[-1]
        assert "stopped; finished work is kept. To go on from here: potstill run 'Classify support tickets" in last
        ended = [event for event in events if event.get("kind") == "failed"]
        assert [(event["stage"], event["message"]) for event in ended] == [(stage, "stopped")]
        assert _states(run)[stage] == "stopped"
        with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
            replies = ledger.totals("datagen").replies
    code, errors, events = call()
    assert code == 0, errors
    kinds = {event["stage"]: event["kind"] for event in events if event.get("kind") in ("done", "reused")}
    assert kinds["datagen"] == "reused"
    assert kinds["train"] == ("done" if stages[-1] == "train" else "reused")
    assert kinds["evaluate"] == "done"
    assert set(_states(run).values()) == {"done"}
    assert RunDir(run).verify() == []
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.totals("datagen").replies == replies, "nothing was asked again"


@pytest.mark.real
@pytest.mark.timeout(600)
def test_ctrl_c_loses_nothing(sample_run: Any, tmp_path: Path) -> None:
    """In the training of a student of a few thousand weights, so that it takes seconds."""
    from transformers import AutoModel, AutoTokenizer

    sample_run.write_student(tmp_path / "sample" / "student")
    for kind in (AutoModel, AutoTokenizer):
        kind.from_pretrained(tmp_path / "sample" / "student").save_pretrained(tmp_path / "tiny")
    tiny = f"distil.student={tmp_path / 'tiny'}"
    _stopped_and_ended(tmp_path, ("train",), "-n", "24", "--set", tiny, "--set", "distil.min_steps=300", "--set",
                       "distil.max_length=64")  # fmt: skip


@pytest.mark.slow
@pytest.mark.real
def test_ctrl_c_in_training_and_in_measuring_loses_nothing(tmp_path: Path) -> None:
    _stopped_and_ended(tmp_path, ("train", "evaluate"), "-n", "40", "--set", "distil.min_steps=20")


def test_a_run_begun_in_python_goes_on_by_the_same_call(tmp_path: Path) -> None:
    from potstill.events import Event

    def stop(event: Event) -> None:
        if event.stage == "retrieval":
            raise KeyboardInterrupt

    task, out = tmp_path / "tickets.md", tmp_path / "run"
    (tmp_path / "texts.txt").write_text("I was charged twice.\nIt crashes.\n")
    task.write_text("---\nunlabelled: texts.txt\n---\nClassify support tickets as billing, bug or other.\n")
    settings: dict[str, Any] = {"n": 30, "sources": "generated", "distil": {"epochs": 2}}
    teacher = "openai:http://me:secret@127.0.0.1:9/v1#m"
    with pytest.raises(KeyboardInterrupt):
        potstill.run(task, out=out, listener=stop, teacher=teacher, labelling_functions=[str.lower], **settings)
    found = read_state(out)
    assert _states(out)["task"] == "done", "a path is taken as a Path too"
    masked = teacher.replace("me:secret", "***")
    rest = "n=30, sources='generated', distil={'epochs': 2}, labelling_functions=..."
    assert found.next == f"potstill.run({str(task)!r}, out={str(out)!r}, teacher={masked!r}, {rest})"
