"""A run that goes on with what is paid for when its budget is met."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import potstill
from potstill.asking.budget import Budget, Meter, as_paid, in_time, pays_more
from potstill.errors import BudgetReached, OptionError
from potstill.events import Event, silent
from potstill.pipeline import open_job
from potstill.rows import read_rows
from potstill.run_dir import Stage
from potstill.run_state import and_train, read_state
from potstill.stages.rules import weak_stage
from potstill.stages.written import quality_stage

TASK = "Classify support tickets as billing, bug or other."
TEXTS = "---\nkind: generation\nlanguages: [en]\n---\nSummarise the ticket in one sentence.\n"
SETTINGS: dict[str, Any] = {"teacher": "fake", "n": 60, "sources": "generated"}
SMALL = {"distil": {"epochs": 1, "min_steps": 2}, "evaluate": {"rows": 5, "latency_rows": 1}}


def opened(folder: Path, budget: str | None, task: str = TASK, at_budget: str = "train", **more: Any) -> Any:
    notes = more.pop("notes", [])
    own = {"budget": budget, "at_budget": at_budget, **SETTINGS, **more}
    return open_job(task, folder, lambda event: notes.append(event), own)


def test_a_met_budget_names_the_way_to_go_on_with_what_is_paid_for(tmp_path: Path) -> None:
    with pytest.raises(BudgetReached, match="or with --at-budget train to train on what is paid for"):
        with opened(tmp_path / "run", "1k-tokens", at_budget="stop") as job:
            job.datagen(job.retrieval())
    with pytest.raises(OptionError, match="at_budget: 'go' is none of stop, train"):
        potstill.run(TASK, out=tmp_path / "other", at_budget="go")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("potstill run task.md --budget 2usd --out runs/a", "{given} --at-budget train"),
        ("A=1 potstill run -n 9 -- 'a -- b'", "A=1 potstill run -n 9 --at-budget train -- 'a -- b'"),
        ("potstill run 'a -- b'", "{given} --at-budget train"),
        ("potstill.run('task.md', budget='2usd')", "potstill.run('task.md', budget='2usd', at_budget='train')"),
        ("potstill.run('task.md', at_budget='stop')", "potstill.run('task.md', at_budget='train')"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_command_that_trains_on_what_is_paid_for(given: str, told: str) -> None:
    assert and_train(given) == told.format(given=given)


def test_the_state_of_a_run_that_met_its_budget_shows_a_command_that_ends_it(tmp_path: Path) -> None:
    sources = {**SETTINGS, "sources": "both"}
    with pytest.raises(BudgetReached) as met:
        potstill.run(TASK, out=tmp_path / "run", budget="2k-tokens", **sources)
    assert met.value.or_train
    assert read_state(tmp_path / "run").next.endswith("at_budget='train')")


def test_the_command_line_prints_the_whole_command_when_a_budget_is_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from potstill.cli import app as command_line

    def met(*_: Any, **__: Any) -> None:
        raise BudgetReached("the budget is met", or_train=True)

    monkeypatch.setattr("potstill.pipeline.run", met)
    monkeypatch.setattr("sys.argv", ["potstill", "run", "task.md", "--budget", "1usd"])
    with pytest.raises(SystemExit, match="3"):
        command_line.main()
    said = capsys.readouterr().err
    assert "to train on what is paid for: potstill run task.md --budget 1usd --at-budget train\n" in said


def test_a_cut_generation_keeps_its_rows_and_a_larger_budget_goes_on(tmp_path: Path) -> None:
    def made(budget: str | None) -> Stage:
        with opened(tmp_path / "run", budget) as job:
            return job.datagen(job.retrieval())

    few = made("1k-tokens")
    assert 0 < few.facts["rows"] < 60
    assert "60 were wanted, and the budget of 1,000 tokens is met" in few.facts["summary"]
    before = read_rows(few.path / "rows.parquet")["id"][:]
    assert made("1k-tokens").reused, "the same budget buys nothing more"
    more = made("2k-tokens")
    assert few.facts["rows"] < more.facts["rows"] < 60
    assert read_rows(more.path / "rows.parquet")["id"][: len(before)] == before
    whole = made(None)
    assert whole.facts["rows"] == 60
    assert "budget_met" not in whole.facts
    assert made("1k-tokens").reused, "a stage that is whole stays whole"


def test_a_budget_without_one_row_stops_the_run(tmp_path: Path) -> None:
    with opened(tmp_path / "run", "60-tokens") as job, pytest.raises(BudgetReached, match="run again with a larger"):
        job.datagen(job.retrieval())


def test_the_users_own_rows_are_trained_on_where_nothing_could_be_written(tmp_path: Path) -> None:
    rows = [{"text": f"ticket {i} of some words", "label": ("billing", "bug")[i % 2]} for i in range(20)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "t.md").write_text(
        "---\nlabels: [billing, bug]\nlanguages: [en]\nlabelled: own.jsonl\n---\nClassify support tickets.\n"
    )
    with opened(tmp_path / "run", "60-tokens", str(tmp_path / "t.md")) as job:
        stage = job.datagen(job.retrieval())
        assert stage.facts["summary"].startswith("no rows written: the budget of 60 tokens is met")
        assert read_rows(job.merge(job.retrieval(), stage).path / "train.parquet").num_rows > 0


def test_checks_that_cannot_be_paid_are_left_out(tmp_path: Path) -> None:
    with opened(tmp_path / "run", None) as job:
        written = job.datagen(job.retrieval())
        spent = job.ledger.totals()
    cap = f"{spent.prompt_tokens + spent.completion_tokens + 60}-tokens"

    def checked(budget: str | None) -> Stage:
        with opened(tmp_path / "run", budget, quality={"judge": True}) as job:
            stage = quality_stage(job, job.datagen(job.retrieval()))
            assert stage is not None
            return stage

    left = checked(cap)
    assert left.facts["summary"].startswith("not checked: the budget of")
    assert left.facts["rows"] == written.facts["rows"]
    assert checked(cap).reused
    assert "budget_met" not in checked(None).facts


ASKS = """\
---
labels: [refund, praise]
unlabelled: texts.txt
rules:
  - {label: refund, prompt: "Is money wanted?"}
{word}---
Sort messages.
"""


@pytest.mark.parametrize("word", ["  - {label: praise, keyword: thanks}\n", ""])
def test_questions_of_rules_that_cannot_be_paid_are_left_out(word: str, tmp_path: Path) -> None:
    """The run stopped there, with rows to train on."""
    task = tmp_path / "t.md"
    task.write_text(ASKS.replace("{word}", word))
    (tmp_path / "texts.txt").write_text(
        "\n".join(f"order {i} {'came, thanks' if i % 2 else 'is late'}" for i in range(40))
    )

    def labelled(cap: str | None) -> Stage:
        with opened(tmp_path / "run", cap, str(task)) as job:
            stage = weak_stage(job)
            assert stage is not None
            return stage

    left = labelled("200-tokens")
    assert left.facts["summary"].startswith("the questions of rules are left out: the budget of 200 tokens is met")
    rows = read_rows(left.path / "rows.parquet")
    assert set(rows["output"]) == ({"praise"} if word else set())
    assert labelled("200-tokens").reused
    whole = labelled(None)
    assert "budget_met" not in whole.facts
    assert json.loads((whole.path / "report.json").read_text())["functions"][0]["asked"] == 40
    with open_job(str(task), tmp_path / "stops", silent, {"teacher": "fake", "budget": "200-tokens"}) as job:
        with pytest.raises(BudgetReached, match="at-budget train"):
            weak_stage(job)


def test_rules_that_ask_bring_no_rows_where_the_budget_is_met_before_the_first(tmp_path: Path) -> None:
    task = tmp_path / "t.md"
    task.write_text(ASKS.replace("{word}", ""))
    (tmp_path / "texts.txt").write_text("order 1 is late\norder 2 came")
    with opened(tmp_path / "run", "20-tokens", str(task)) as job, pytest.raises(BudgetReached):
        job.datagen(job.retrieval())


@pytest.mark.parametrize("prompt", [TASK, TEXTS])
def test_soft_targets_that_cannot_be_paid_are_left_out(prompt: str, tmp_path: Path) -> None:
    if prompt is TEXTS:
        (tmp_path / "t.md").write_text(TEXTS)
        prompt = str(tmp_path / "t.md")

    def made(budget: str | None, **more: Any) -> Stage:
        with opened(tmp_path / "run", budget, prompt, **more) as job:
            written = job.datagen(job.retrieval())
            return job.soft(job.merge(job.retrieval(), written), written)

    more: dict[str, Any] = {}
    if prompt.endswith("t.md"):
        more = {"distil": {"method": "both"}, "soft": {"candidates": 1}, "teacher_options": {"top_logprobs": 2}}
    with opened(tmp_path / "run", None, prompt, **more) as job:
        job.datagen(job.retrieval())
        spent = job.ledger.totals()
    left = made(f"{spent.prompt_tokens + spent.completion_tokens + 30}-tokens", **more)
    assert left.facts["summary"].startswith("soft targets: ")
    assert "the budget of" in left.facts["summary"]
    train = read_rows(left.path / "train.parquet")
    assert train.num_rows > 0
    targets = left.path / "token_targets.parquet"
    assert targets.exists() == bool(more)
    # Those of the rows of other splits would be published, and name what the student is measured on.
    assert not more or set() < set(read_rows(targets)["id"]) <= set(train["id"])
    assert "budget_met" not in made(None, **more).facts


def test_a_block_that_asks_ends_at_a_met_cap_and_no_other_error_is_hidden() -> None:
    stops, goes = Meter(Budget(tokens=1)), Meter(Budget(tokens=1, then="train"))
    with as_paid(goes) as met:
        raise goes.reached()
    assert met["budget_met"]["cap"] == "1 tokens"
    with pytest.raises(BudgetReached, match="at-budget train"), as_paid(stops):
        raise stops.reached()
    with pytest.raises(ValueError, match="x"), as_paid(goes):
        raise ValueError("x")
    assert pays_more(met, None)
    assert pays_more(met, Meter(Budget(tokens=2)))
    assert not pays_more(met, goes)
    assert not pays_more({}, None)


def test_stages_begin_after_the_time_is_over_where_the_run_goes_on(tmp_path: Path) -> None:
    late = Budget(seconds=1e-9)
    with pytest.raises(BudgetReached):
        in_time(lambda out: "made", Meter(late))(tmp_path)
    assert in_time(lambda out: "made", Meter(Budget(seconds=1e-9, then="train")))(tmp_path) == "made"


@pytest.mark.real
def test_a_run_trains_on_what_is_paid_for_and_its_report_says_so(tmp_path: Path) -> None:
    seen: list[Event] = []
    own = {"budget": "2k-tokens", "at_budget": "train", **SETTINGS, **SMALL}
    done = potstill.run(TASK, out=tmp_path / "run", listener=seen.append, **own)
    assert done.scores["systems"]
    assert done.scores["teacher_left_out"]
    few = done.dataset.num_rows
    for name in ("report.md", "report.html"):
        said = (done.path / name).read_text().lower()
        assert "cut short by the budget" in said, name
        assert "60 were wanted" in said, name
    again = potstill.run(TASK, out=tmp_path / "run", **own)
    reused = {stage.name: stage.reused for stage in again.stages}
    assert reused["datagen"]
    assert reused["soft"]
    assert reused["train"]
    more = potstill.run(TASK, out=tmp_path / "run", **{**own, "budget": "1m-tokens"})
    assert more.dataset.num_rows > few
    assert "cut short" not in (done.path / "report.md").read_text()
