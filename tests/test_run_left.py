"""The time left of a whole run: from an earlier run, from a plan, and from the pace of what is under way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from potstill.cli.app import app
from potstill.events import Event
from potstill.pages.live_view import RunView, drawn
from potstill.progress import listener_for
from potstill.run_left import Expected, RunClock, expected_seconds, keep_plan

STAGES = ("task", "retrieval", "datagen", "merge", "soft", "train", "evaluate")
EARLIER = {"task": 0.1, "retrieval": 10.0, "datagen": 100.0, "merge": 1.0, "soft": 20.0, "train": 50.0, "evaluate": 9.0}
PLAN = {"steps": [{"stage": "attributes", "seconds": 5.0}, {"stage": "datagen", "seconds": 60.0},
                  {"stage": "soft", "seconds": 30.0}, {"stage": "train", "seconds": 40.0}]}  # fmt: skip


def _earlier(run: Path, rows: int = 100) -> None:
    for name, seconds in EARLIER.items():
        (run / name).mkdir(parents=True)
        (run / name / "manifest.json").write_text(
            json.dumps({"seconds": seconds, "key_parts": {"options": {"rows": rows}}})
        )


class _Told:
    """A clock over a list of events, at times that the test sets."""

    def __init__(self, expected: dict[str, Expected]):
        self.events: list[Event] = []
        self.clock = RunClock(self.events.append)
        self.clock.start(expected)

    def __call__(self, stage: str, kind: Any, at: float, done: int = 0, total: int | None = None, **data: Any) -> Any:
        self.clock(Event(stage, kind, done=done, total=total, data=data, time_s=at))
        return self.events[-1].data.get("run_left_s")


def test_an_earlier_run_tells_the_time_scaled_by_the_rows(tmp_path: Path) -> None:
    _earlier(tmp_path)
    same = expected_seconds(tmp_path, STAGES, 100)
    assert {name: found.seconds for name, found in same.items()} == EARLIER
    assert {found.basis for found in same.values()} == {"earlier"}
    more = expected_seconds(tmp_path, STAGES, 300)
    assert (more["datagen"].seconds, more["train"].seconds) == (300, 150)
    assert (more["retrieval"].seconds, more["evaluate"].seconds) == (10, 9)


def test_a_stage_that_asked_nothing_tells_no_pace(tmp_path: Path) -> None:
    _earlier(tmp_path)
    off = tmp_path / "datagen" / "manifest.json"  # as `--sources retrieved` leaves it
    off.write_text(json.dumps({**json.loads(off.read_text()), "seconds": 0.1}))
    found = expected_seconds(tmp_path, STAGES, 100)
    assert found["datagen"].basis == "assumed"
    assert found["datagen"].seconds > 10
    assert {found[name].basis for name in STAGES if name != "datagen"} == {"earlier"}


def test_a_plan_tells_the_time_of_a_first_run_of_as_many_rows(tmp_path: Path) -> None:
    keep_plan(tmp_path, PLAN, 200)
    found = expected_seconds(tmp_path, STAGES, 200)
    assert (found["datagen"].seconds, found["soft"].seconds, found["train"].seconds) == (65, 30, 40)
    assert (found["datagen"].basis, found["merge"].basis) == ("plan", "assumed")
    assert expected_seconds(tmp_path, STAGES, 201)["datagen"].basis == "assumed"
    keep_plan(tmp_path / "none", PLAN, 200)
    assert not (tmp_path / "none").exists(), "a plan makes no folder"
    (tmp_path / ".plan.json").write_text("{half")
    assert expected_seconds(tmp_path, STAGES, 200)["datagen"].basis == "assumed"


def test_the_time_left_falls_with_the_stages_and_follows_the_pace() -> None:
    told = _Told({name: Expected(seconds, "earlier") for name, seconds in EARLIER.items()})
    whole = sum(EARLIER.values())
    assert told("task", "start", 0.0) == pytest.approx(whole, abs=0.1)
    assert told("task", "done", 0.1) == pytest.approx(whole - 0.1, abs=0.1)
    told("retrieval", "start", 0.1)
    assert told("retrieval", "progress", 4.1) == pytest.approx(whole - 4.1, abs=0.2)
    assert told("retrieval", "done", 5.0) == pytest.approx(180, abs=0.1)
    told("datagen", "start", 5.0)
    told("datagen", "progress", 6.0, 0, 100)
    # Ten rows in 20 seconds: 201 s in all where 100 were expected, and so the scoring takes twice its time too.
    left = told("datagen", "progress", 26.0, 10, 100)
    assert left == pytest.approx(180 + 1 + 50 + 2.01 * (20 + 9), rel=0.02)
    told("datagen", "done", 206.0)
    assert told("merge", "reused", 206.0) == pytest.approx(50 + 2.01 * 29, rel=0.02)
    told("soft", "start", 206.0)
    told("soft", "done", 246.0)
    told("train", "start", 246.0)
    late = told("train", "progress", 400.0)
    assert late == pytest.approx(2.5 + 2.0 * 9, abs=1), "a stage beyond its time is near its end"
    told("train", "done", 401.0)
    told("evaluate", "start", 401.0)
    assert told("evaluate", "done", 402.0) == 0


def test_nothing_is_said_of_a_teacher_that_nobody_has_seen() -> None:
    found = expected_seconds(Path("there is none"), STAGES, 200)
    assert {item.basis for item in found.values()} == {"assumed"}
    told = _Told(found)
    assert told("task", "start", 0.0) is None
    assert told("retrieval", "done", 9.0) is None
    told("datagen", "start", 9.0)
    assert told("datagen", "progress", 9.5, 3, None, tokens_per_s=9.0) is None, "replies tell no rows"
    told("datagen", "progress", 10.0, 0, 200)
    assert told("datagen", "progress", 20.0, 100, 200) is not None
    silent = RunClock([].append)
    silent(Event("train", "start"))  # before `start`, and of commands that are no run: handed on as it is


def test_lines_json_and_the_live_view_say_it(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    events = [
        Event("datagen", "start", time_s=100.0, data={"run_left_s": 90.0}),
        Event("datagen", "progress", "rows", 5, 10, {"run_left_s": 75.0}, 115.0),
        Event("datagen", "done", "10 rows", data={"run_left_s": 60.0}, time_s=130.0),
    ]
    view = RunView()
    with listener_for(as_json=False) as listen:
        for event in events:
            listen(event)
            view.take(event)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(", about 1:15 left of the run")
    assert lines[1].endswith("10 rows (30 s), about 1:00 left of the run")
    assert view.run_line(140.0) == "40 s so far, about 50 s left"
    console = Console(width=100)
    with console.capture() as shown:
        console.print(drawn(view, 140.0))
    assert "run: 40 s so far, about 50 s left" in shown.get()
    with listener_for(as_json=True) as listen:
        listen(events[1])
    assert json.loads(capsys.readouterr().out)["event"]["data"]["run_left_s"] == 75.0


def test_a_narrow_terminal_cuts_the_messages_and_no_figure() -> None:
    from rich.console import Console

    view = RunView()
    view.take(Event("retrieval", "start", time_s=0.0))
    view.take(Event("retrieval", "done", "12,345 rows from 6 datasets " * 4, data={"rows": 12345}, time_s=7265.0))
    view.take(Event("datagen", "start", time_s=7265.0))
    view.take(Event("datagen", "progress", "rows " * 30, 0, 90_000, {"dropped": {"short": 0}}, 7266.0))
    view.take(Event("datagen", "progress", "rows " * 30, 20, 90_000, {"dropped": {"short": 1234}}, 7276.0))
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as shown:
        console.print(drawn(view, 7276.0))
    lines = shown.get().splitlines()
    assert all(word in lines[0] for word in ("stage", "progress", "kept", "dropped", "time", "left"))
    assert all(figure in lines[1] for figure in ("retrieval", "12,345", "2:01:05"))
    assert all(figure in lines[2] for figure in ("datagen", "1,234", "11 s", "12:29:50"))
    assert max(map(len, lines)) <= 80


@pytest.mark.real
def test_a_plan_and_the_run_after_it(sample_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import potstill

    monkeypatch.chdir(tmp_path)
    prompt = "Classify support tickets as billing, bug or other."
    small = ["--set", "distil.epochs=1", "--set", "distil.min_steps=2", "--set", "evaluate.latency_rows=1"]
    done = CliRunner().invoke(
        app, ["plan", prompt, "--teacher", "fake", "-n", "24", "--sources", "generated", "-o", "run", *small]
    )
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "run" / ".plan.json").read_text())["rows_asked"] == 24
    seen: list[Event] = []
    potstill.run(
        prompt, out="run", teacher="fake", n=24, sources="generated", listener=seen.append,
        distil={"epochs": 1, "min_steps": 2}, evaluate={"latency_rows": 1},
    )  # fmt: skip
    said = [event.data["run_left_s"] for event in seen if "run_left_s" in event.data]
    first = next(event for event in seen if event.kind != "note")
    assert first.kind == "start"
    assert first.data["run_left_s"] > 0, "from the first event on, since there is a plan"
    assert said[-1] == 0
