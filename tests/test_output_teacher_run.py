"""Whole runs with another teacher of the outputs, and with the reasoning behind them: stages, report, card, plan."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import potstill
from potstill.asking.teacher import Message
from potstill.batch import write_batch
from potstill.doctor import examine
from potstill.errors import OptionError
from potstill.hub.cards import dataset_card, model_card, unit_info
from potstill.hub.export import build_unit
from potstill.plan.estimate import plan_run
from potstill.report.facts import read_run
from potstill.report.page import render_report
from potstill.rows import RATIONALE, read_rows
from potstill.run_state import read_state
from potstill.settings import resolve
from potstill.verify import verify_run

TASK = "---\nname: polite\nkind: generation\ninputs: [sentence]\n---\nSay the sentence more politely.\n"


def given(folder: Path, tiny_causal: Callable[[Path], Path], **more: Any) -> dict[str, Any]:
    student = folder / "tiny"
    if not student.exists():
        tiny_causal(student)
    distil = {"student": str(student), "epochs": 1, "min_steps": 2, "max_length": 768, **more.pop("distil", {})}
    return {
        "teacher": "fake", "sources": "generated", "n": 16, "distil": distil,
        "evaluate": {"rows": 4, "latency_rows": 1}, **more,
    }  # fmt: skip


def replies(run: Path) -> dict[tuple[str, str], int]:
    """Replies of the ledger by purpose and teacher."""
    with closing(sqlite3.connect(run / "ledger.sqlite")) as connection:
        found = connection.execute("SELECT purpose, teacher, COUNT(*) FROM replies GROUP BY purpose, teacher")
        return {(purpose, teacher): count for purpose, teacher, count in found}


def says(body: dict[str, Any]) -> str:
    """What the stronger teacher replies: reasoning where it is asked for that, else an output."""
    text = body["messages"][-1]["content"]
    if "Explain step by step" in text:
        return "The sentence gives an order, and a question that begins with a wish sounds kinder."
    return f"Would you please see to this, {len(text)}?"


@pytest.fixture(scope="module")
def server(teacher_server: Any) -> Iterator[Any]:
    with teacher_server.running_server(reply=says) as running:
        yield running


@pytest.fixture(scope="module")
def settings(
    tmp_path_factory: pytest.TempPathFactory, tiny_causal: Callable[[Path], Path], server: Any
) -> Mapping[str, Any]:
    other = {
        "output_teacher": f"openai:{server.url}#strong",
        "output_teacher_options": {"usd_read": 1.0, "usd_written": 10.0},
    }
    folder = tmp_path_factory.mktemp("student")
    return given(folder, tiny_causal, generation=other, distil={"rationale_weight": 1.0})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, settings: Mapping[str, Any]) -> Path:
    out = tmp_path_factory.mktemp("both") / "run"
    potstill.run(TASK, out=out, **settings)
    return out


def test_each_teacher_is_accounted_by_itself(run: Path, server: Any, settings: Mapping[str, Any]) -> None:
    strong = f"openai:{server.url}#strong"
    asked = replies(run)
    assert {key for key in asked if key[1] == "fake"} == {("datagen", "fake")}
    assert {key[0] for key in asked if key[1] == strong} == {"answers", "rationales", "zero-shot"}
    record = json.loads((run / "run.json").read_text())
    assert record["answers_by_name"] == strong
    with closing(sqlite3.connect(run / "ledger.sqlite")) as connection:
        ((read, written),) = connection.execute(
            "SELECT SUM(prompt_tokens), SUM(completion_tokens) FROM replies WHERE teacher = ?", (strong,)
        ).fetchall()
    assert record["usd"] == pytest.approx((read + 10 * written) / 1e6, abs=1e-6), "the fake one costs nothing"


def test_the_reasoning_is_a_stage_whose_rows_are_learnt_published_and_told(run: Path, tmp_path: Path) -> None:
    assert [stage.name for stage in read_state(run).stages].index("rationales") == 5
    rows = read_rows(run / "rationales" / "train.parquet")
    report = json.loads((run / "rationales" / "report.json").read_text())
    assert report["written"] == sum(said is not None for said in rows[RATIONALE]) > 0
    assert json.loads((run / "train" / "report.json").read_text())["rows"]["second"] == report["written"]
    loaded = potstill.load(run)
    assert loaded.dataset[RATIONALE][:] == rows[RATIONALE][:]
    assert {str(part.features) for part in loaded.splits.values()} == {str(loaded.dataset.features)}
    facts = read_run(run)
    unit = build_unit(run, tmp_path / "unit")
    published = {name: read_rows(unit.dataset / "data" / f"{name}.parquet") for name in facts.splits}
    assert {str(part.features) for part in published.values()} == {str(rows.features)}
    info = unit_info(facts, None, token_targets=False)
    card = dataset_card(facts, info)
    assert "| `rationale` | string |" in card
    assert "rows were written by fake (inputs; openai:local#strong answered them)" in card
    assert "learnt that reasoning as a second task (weight 1)" in model_card(facts, info)
    told = render_report(facts)[1]
    assert "Outputs with reasoning that the student learnt as well" in told
    assert "Outputs written by" in told
    assert verify_run(run).faults == ()


def test_the_same_run_again_asks_nobody(run: Path, settings: Mapping[str, Any], server: Any) -> None:
    before, sent = replies(run), len(server.bodies)
    again = potstill.run(TASK, out=run, **settings)
    assert all(stage.reused for stage in again.stages)
    without = {**settings, "distil": {**settings["distil"], "rationale_weight": 0.0}}
    plain = potstill.run(TASK, out=run, **without)
    assert not (run / "rationales").exists()
    assert RATIONALE not in plain.dataset.column_names
    weighed = {**settings, "distil": {**settings["distil"], "rationale_weight": 0.5}}
    potstill.run(TASK, out=run, **weighed)
    assert (run / "rationales" / "train.parquet").exists()
    potstill.run(TASK, out=run, **settings)
    assert (replies(run), len(server.bodies)) == (before, sent)


def test_a_plan_counts_both_before_and_after(run: Path, settings: Mapping[str, Any], tmp_path: Path) -> None:
    planned = plan_run(TASK, out=tmp_path / "new", probe=0, **settings)
    steps = {step.stage: step for step in planned.steps}
    assert list(steps)[:2] == ["datagen", "answers"]
    assert (steps["answers"].requests, steps["rationales"].requests) == (18, round(0.97 * 16 * 0.8 * 0.9 + 0.5))
    paid = [steps[name] for name in ("answers", "rationales", "evaluate")]
    usd = sum(step.prompt_tokens + 10 * step.completion_tokens for step in paid) / 1e6
    assert planned.usd == pytest.approx(usd, abs=1e-4)
    assert any("the time of the teacher that answers is assumed" in note for note in planned.notes)
    after = plan_run(TASK, out=run, **settings)
    steps = {step.stage: step for step in after.steps}
    assert steps["datagen"].requests + steps["answers"].requests <= 2 * 16 + 60
    assert not (tmp_path / "new").exists()


def test_the_doctor_looks_at_both_and_a_batch_is_for_one(settings: Mapping[str, Any], tmp_path: Path) -> None:
    found = {check.name: check for check in examine(TASK, out=tmp_path, **settings)}
    assert found["outputs: teacher"].status == "ok"
    sorts = {check.name: check for check in examine("Classify tickets as billing or bug.", out=tmp_path, **settings)}
    assert "outputs: teacher" not in sorts
    assert sorts["student"].status == "fail"
    assert "rationale_weight is for generation students; leave it out" in sorts["student"].found
    with pytest.raises(OptionError, match=r"generation\.output_teacher names another for the outputs; leave it out"):
        write_batch(TASK, tmp_path / "batch.jsonl", out=tmp_path / "b", **{**settings, "teacher": "openai:#m"})


def test_found_rows_and_the_users_are_explained_by_the_runs_own_teacher(
    tmp_path: Path, tiny_causal: Callable[[Path], Path]
) -> None:
    rows = "".join(json.dumps({"sentence": f"Give me {i} pens.", "output": f"Pens, {i}."}) + "\n" for i in range(12))
    (tmp_path / "mine.jsonl").write_text(rows)
    (tmp_path / "task.md").write_text(TASK.replace("inputs:", "labelled: mine.jsonl\ninputs:"))

    def explains(messages: list[Message]) -> str:
        return "The polite form names the pens and says how many of them are wanted here."

    settings = given(tmp_path, tiny_causal, sources="labelled", distil={"rationale_weight": 0.5})
    made = potstill.run(tmp_path / "task.md", out=tmp_path / "run", **{**settings, "teacher": explains})
    assert set(made.dataset["origin"]) == {"user"}
    assert None not in made.dataset[RATIONALE]
    assert read_run(tmp_path / "run").explained["written"] == made.dataset.num_rows


def test_the_options_of_the_teacher_that_answers() -> None:
    file = {
        "executor": "ray", "concurrency": 9, "teacher": "vllm:m",
        "generation": {"output_teacher": "openai:#m", "output_teacher_options": {"key_variable": "OTHER_KEY"}},
    }  # fmt: skip
    settings = resolve(file, {"generation": {"output_teacher_options": {"thinking_tokens": 512}}})
    answering = settings.answering
    assert answering is not None
    assert (answering.teacher, answering.executor, answering.concurrency) == ("openai:#m", "local", 9)
    assert answering.teacher_options == {"key_variable": "OTHER_KEY", "thinking_tokens": 512}
    assert settings.answers_by == "openai:#m"
    other = resolve(file, {"generation": {"output_teacher": "vllm:larger"}}).answering
    assert other is not None
    assert (other.executor, other.teacher_options) == ("ray", {}), "the file's are for another backend"
    plain = resolve({"teacher": "vllm:m"}, {})
    assert (plain.answering, plain.answers_by) == (None, "vllm:m")
    with pytest.raises(OptionError) as caught:
        resolve(file, {"generation": {"output_teacher_options": {"key_varable": "X"}}})
    assert "generation.output_teacher_options.key_varable: no such option; did you mean" in str(caught.value)
    with pytest.raises(OptionError, match=r"generation\.output_teacher names none"):
        resolve({}, {"generation": {"output_teacher_options": {"attempts": 2}}})
    with pytest.raises(OptionError, match=r"generation\.output_teacher: no backend 'opnai'"):
        resolve({}, {"generation": {"output_teacher": "opnai:x"}})
