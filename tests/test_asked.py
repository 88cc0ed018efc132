"""Counts of all calls of a run: what they sum, that they outlive a kill, and that no stage's output holds them."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import potstill
from potstill.asking.asker import Asker
from potstill.asking.budget import Budget
from potstill.asking.counts import Asked, in_all
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Failure, Message, Reply, Request
from potstill.cli.app import app
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.errors import BudgetReached
from potstill.report.facts import read_run
from potstill.run_dir import RunDir

COUNTS = ("cached", "fresh", "retried", "truncated", "refused", "failed", "prompt_tokens", "completion_tokens")


class Moody(FakeTeacher):
    """Every fifth reply is refused, every seventh cut, every eleventh came at the third attempt, every 13th never."""

    def answer(self, request: Any) -> Reply | Failure:
        number = int(request.messages[0].content)
        if number % 13 == 0:
            return Failure("gone", attempts=4)
        finish = "refused" if number % 5 == 0 else "length" if number % 7 == 0 else "stop"
        attempts = 3 if number % 11 == 0 else 1
        return Reply("text", finish=finish, prompt_tokens=7, completion_tokens=3, attempts=attempts)  # type: ignore[arg-type]


def requests(start: int, end: int) -> list[Request]:
    return [Request((Message("user", str(i)),), max_tokens=20) for i in range(start, end)]


def test_the_sum_of_all_calls_is_what_each_call_counted(tmp_path: Path) -> None:
    calls = []
    for start, end, purpose in ((1, 100, "a"), (50, 150, "a"), (1, 40, "b"), (1, 100, "a")):
        with Ledger(tmp_path / "l.sqlite") as ledger:
            asker = Asker(Moody(), ledger)
            asker.ask(requests(start, end), purpose)
            asker.ask([*requests(500, 501), *requests(500, 501)], purpose)  # equal ones in flight
            calls.append(asker.counts.to_json())
    with Ledger(tmp_path / "l.sqlite") as ledger:
        asked = ledger.asked()
    assert list(asked) == ["a", "b"]
    total = in_all(asked.values()).to_json()
    for name in COUNTS:
        assert total[name] == sum(call[name] for call in calls), name
    assert all(total[name] for name in COUNTS)
    assert asked["b"].fresh == 0, "the ledger knew them"
    assert str(Asked(cached=1200, fresh=3)) == "1,200 cached, 3 fresh, 0 retried, 0 truncated, 0 refused, 0 failed"


def test_a_call_that_stopped_at_its_budget_counts_too(tmp_path: Path) -> None:
    for cap in (2_000, 4_000, 10**9):
        with Ledger(tmp_path / "l.sqlite") as ledger:
            asker = Asker(FakeTeacher(), ledger, budget=Budget(tokens=cap))
            try:
                asker.ask(requests(0, 300), "p")
            except BudgetReached:
                assert cap < 10**9
            before = ledger.asked()["p"]
    assert before.fresh == 300
    assert 300 > before.cached > 20


def test_a_killed_call_keeps_its_counts(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, 'tests')\n"
        "from test_asked import *; from potstill.datagen.teachers.fake import FakeOptions\n"
        f"ledger = Ledger({str(tmp_path / 'l.sqlite')!r})\n"
        "asker = Asker(FakeTeacher(FakeOptions(delay_s=0.002, concurrency=8)), ledger)\n"
        "asker.ask(requests(0, 40), 'p')\n"
        "asker.ask(requests(0, 40), 'p')\n"
        "ledger.asked()\n"
        "for number, answer in enumerate(asker.stream(iter_take(requests(40, 4000)), 'p')):\n"
        "    if number == 100: os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False)
    assert done.returncode == -signal.SIGKILL
    with Ledger(tmp_path / "l.sqlite") as ledger:
        found = ledger.asked()["p"]
        assert found.cached == 40
        assert 141 <= found.fresh < 4000
        Asker(FakeTeacher(), ledger).ask(requests(0, 60), "p")
        assert ledger.asked()["p"].cached == 100


def iter_take(made: list[Request]) -> Any:
    """A source for `Asker.stream`."""
    source = iter(made)
    return lambda room: [request for _, request in zip(range(room), source, strict=False)]


def test_a_ledger_of_an_earlier_version_has_no_cached_answers(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        Asker(FakeTeacher(), ledger).ask(requests(0, 5), "p")
    connection = sqlite3.connect(tmp_path / "l.sqlite")
    connection.execute("DROP TABLE cached")
    connection.commit()
    connection.close()
    with Ledger(tmp_path / "l.sqlite", read_only=True) as ledger:
        assert (ledger.asked()["p"].fresh, ledger.asked()["p"].cached) == (5, 0)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        Asker(FakeTeacher(), ledger).ask(requests(0, 5), "p")
        assert ledger.asked()["p"].cached == 5


@pytest.mark.real
def test_the_report_sums_all_calls_and_the_stages_know_of_none(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "n": 30, "teacher": "fake", "sources": "generated", "distil": {"epochs": 1, "min_steps": 4},
        "evaluate": {"rows": 10, "latency_rows": 2},
    }  # fmt: skip
    task = "Classify support tickets as billing, bug or other."
    calm, broken = tmp_path / "calm", tmp_path / "broken"
    potstill.run(task, out=calm, **settings)
    for cap in ("1500-tokens", "3k-tokens"):
        with pytest.raises(BudgetReached):
            potstill.run(task, out=broken, budget=cap, **settings)
    potstill.run(task, out=broken, budget="1m-tokens", **settings)
    whole, parts = (in_all(read_run(run).asked.values()) for run in (calm, broken))
    assert parts.cached > whole.cached
    facts = json.loads((broken / "run.json").read_text())
    assert facts["counts"] == parts.to_json()
    assert facts["counts_this_time"]["fresh"] < parts.fresh
    for name in ("datagen/rows.parquet", "datagen/dropped.jsonl", "merge/train.parquet", "soft/train.parquet"):
        assert (calm / name).read_bytes() == (broken / name).read_bytes(), name
    markdown = (broken / "report.md").read_text()
    line = next(line for line in markdown.splitlines() if line.startswith("| all |"))
    assert [cell.strip() for cell in line.split("|")[2:4]] == [f"{parts.fresh:,}", f"{parts.cached:,}"]
    assert f'<th scope="row">all</th><td class="num">{parts.fresh:,}</td>' in (broken / "report.html").read_text()
    told = CliRunner().invoke(app, ["status", str(broken)])
    assert f"asked      {parts}, " in told.output
    machine = json.loads(CliRunner().invoke(app, ["status", str(broken), "--json"]).stdout)
    assert machine["asked_in_all"] == parts.to_json()
    assert set(machine["asked"]) >= {"datagen", "soft"}
    assert RunDir(broken).verify() == []
    before = (broken / "report.html").read_bytes()
    assert CliRunner().invoke(app, ["report", str(broken)]).exit_code == 0
    assert (broken / "report.html").read_bytes() == before
