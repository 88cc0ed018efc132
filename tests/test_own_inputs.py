"""A whole run on inputs of the user's own: stages and their keys, plan, preview, doctor, report and card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import paragraphs

import potstill
from potstill.asking.ledger import Ledger
from potstill.doctor import examine
from potstill.events import Event
from potstill.hub.cards import dataset_card, unit_info
from potstill.pipeline import open_job
from potstill.plan.estimate import plan_run
from potstill.preview import preview_rows
from potstill.report.facts import read_run
from potstill.rows import read_rows
from potstill.run_dir import RunDir
from potstill.run_state import stages_with
from potstill.settings import resolve
from potstill.stages.optional import optional_stages
from potstill.stages.start import check_start
from potstill.task.file import read_task_file

TASK = "---\nname: sums\nkind: generation\nunlabelled: mine.txt\n{more}---\nSummarise a paragraph in one sentence.\n"
GIVEN: dict[str, Any] = {"teacher": "fake", "sources": "generated", "rows": 30}


def task(folder: Path, count: int = 20, more: str = "") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.txt").write_text("\n".join([*paragraphs(count), paragraphs(1)[0]]))
    (folder / "task.md").write_text(TASK.format(more=more))
    return str(folder / "task.md")


def made(path: str, out: Path, **given: Any) -> tuple[dict[str, bool], int, list[str]]:
    """Which stages up to the merge are reused, how many requests were made, and what was told."""
    told: list[Event] = []
    with open_job(path, out, told.append, {**GIVEN, **given}) as job:
        retrieved = job.retrieval()
        written = job.datagen(retrieved)
        stages = (retrieved, written, job.merge(retrieved, written))
        assert optional_stages(job) == []
        notes = [event.message for event in told if event.kind == "note" and event.stage == "datagen"]
        return {stage.name: stage.reused for stage in stages}, job.asker.counts.fresh, notes


def test_a_changed_file_makes_the_rows_anew_and_asks_for_what_is_new(tmp_path: Path) -> None:
    path, out = task(tmp_path), tmp_path / "run"
    _, first, told = made(path, out)
    name = tmp_path / "mine.txt"
    assert told == [
        f"the teacher answers 20 of 21 inputs in {name} (left out: 1 duplicate) and writes 10 more; -n 20 writes none"
    ]
    assert first >= 40
    assert made(path, out) == ({"retrieval": True, "datagen": True, "merge": True}, 0, [])
    (tmp_path / "mine.txt").write_text("\n".join(paragraphs(23)))
    reused, asked, _ = made(path, out)
    assert reused == {"retrieval": True, "datagen": False, "merge": False}
    assert asked == 3, "seven of the ten written rows are known, and the three new inputs are not"
    assert len(read_rows(out / "datagen" / "rows.parquet")) == 30


def test_test_rows_that_come_later_leave_out_what_they_quote(tmp_path: Path) -> None:
    path, out = task(tmp_path), tmp_path / "run"
    made(path, out)
    (tmp_path / "real.jsonl").write_text(json.dumps({"text": paragraphs(4)[2], "summary": "It rained."}) + "\n")
    task(tmp_path, more="test: {path: real.jsonl, inputs: [text], output: summary}\n")
    reused, _, _ = made(path, out)
    assert reused == {"retrieval": True, "datagen": False, "merge": False}
    dropped = [json.loads(line) for line in (out / "datagen" / "dropped.jsonl").read_text().splitlines()]
    assert [item["input"] for item in dropped if item["reason"] == "in_test"] == [paragraphs(4)[2]]


def test_own_inputs_that_no_source_uses_are_told(tmp_path: Path) -> None:
    told: list[Event] = []
    spec = read_task_file(task(tmp_path)).spec
    check_start(spec, resolve({}, {"sources": "retrieved"}), told.append)
    check_start(spec, resolve({}, {"generation": {"own_inputs": 0}}), told.append)
    name = tmp_path / "mine.txt"
    assert [event.message for event in told] == [
        f"the inputs in {name} are not used: with sources = retrieved the teacher answers none; "
        "take sources = both or generated",
        f"the inputs in {name} are not used: generation.own_inputs is 0; leave it out, or say how many",
    ]


@pytest.mark.parametrize("rows", [20, 40])
def test_a_plan_and_a_preview_are_of_the_runs_own_requests(tmp_path: Path, rows: int) -> None:
    path, out = task(tmp_path), tmp_path / "run"
    before = plan_run(path, out=out, probe=0, teacher="fake", sources="generated", rows=rows)
    assumed = next(step for step in before.steps if step.stage == "datagen")
    shown = preview_rows(path, out=out, rows=6, teacher="fake", sources="generated", n=rows)
    assert [row.input for row in shown.rows] == paragraphs(6)
    _, asked, _ = made(path, out, rows=rows)
    with Ledger(out / "ledger.sqlite", read_only=True) as ledger:
        real = ledger.totals("datagen")
    assert asked < real.replies, "the preview's replies are the run's"
    assert assumed.requests == pytest.approx(real.replies, rel=0.35)
    if rows == 20:
        assert assumed.requests == 20
        assert real.prompt_tokens < assumed.prompt_tokens < 1.6 * real.prompt_tokens, "the fake teacher counts words"
    after = plan_run(path, out=out, probe=0, teacher="fake", sources="generated", rows=rows)
    step = next(step for step in after.steps if step.stage == "datagen")
    assert step.basis == ("earlier" if rows == 40 else "assumed"), "twenty replies are too few to go by"
    assert step.requests == pytest.approx(real.replies, rel=0.25)
    assert any("the teacher answers 20 of 21 inputs" in note for note in after.notes)


def test_the_doctor_says_what_becomes_of_them(tmp_path: Path) -> None:
    found = {check.name: check for check in examine(task(tmp_path), teacher="fake", out=str(tmp_path / "run"), n=20)}
    assert found["own inputs"].status == "ok"
    assert found["own inputs"].found.endswith("(left out: 1 duplicate) and writes no others")


def test_an_instructions_run_answers_the_users_instructions(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(
        "\n".join(json.dumps({"instruction": f"Explain {text}", "input": ""}) for text in paragraphs(6))
    )
    (tmp_path / "task.md").write_text(
        "---\nname: f\nkind: instructions\nunlabelled: mine.jsonl\n---\nFollow instructions about the weather.\n"
    )
    planned = plan_run(str(tmp_path / "task.md"), probe=0, out=tmp_path / "none", teacher="fake", n=6)
    assert [step.requests for step in planned.steps if step.stage == "datagen"] == [6]
    made(str(tmp_path / "task.md"), tmp_path / "run", rows=8)
    rows = read_rows(tmp_path / "run" / "datagen" / "rows.parquet")
    own = [row for row in rows if row["origin"] == "pseudo"]
    assert [row["input"] for row in own] == [f"Explain {text}" for text in paragraphs(6)]
    assert len(rows) == 8
    assert (tmp_path / "run" / "datagen" / "alpaca.json").exists()


@pytest.mark.real
def test_a_student_learns_from_own_inputs_and_the_run_tells_of_them(
    tmp_path: Path, tiny_causal: Callable[[Path], Path]
) -> None:
    out = tmp_path / "run"
    settings = {
        "teacher": "fake", "sources": "generated", "n": 24, "evaluate": {"rows": 4, "latency_rows": 1},
        "distil": {"student": str(tiny_causal(tmp_path / "tiny")), "epochs": 1, "min_steps": 2, "max_length": 512},
    }  # fmt: skip
    result = potstill.run(task(tmp_path), out=out, **settings)
    assert [stage.name for stage in result.stages] == stages_with([])
    assert RunDir(out).verify() == []
    facts = read_run(out)
    assert {(line.origin, line.name) for line in facts.sources} == {("pseudo", "local:mine.txt"), ("generated", "fake")}
    card = dataset_card(facts, unit_info(facts, None, token_targets=False))
    assert "rows are real inputs that fake answered" in card
    text = result.report.read_text()
    assert "Your own inputs answered" in text
    assert "20 of 20" in text
    assert all(stage.reused for stage in potstill.run(task(tmp_path), out=out, **settings).stages)
