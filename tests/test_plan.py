"""A plan beside the run that it predicts."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import potstill
from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.cli.app import app
from potstill.datagen.generate import generate_rows
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.datagen.teachers.openai_endpoints import OpenAIOptions
from potstill.errors import OptionError, RunLocked
from potstill.plan.estimate import plan_run
from potstill.plan.speed import assumed_time, seen_size, uncounted_thinking, within_limits
from potstill.plan.steps import Size, Step, minutes_text
from potstill.preview import preview_rows
from potstill.run_dir import RunDir
from potstill.settings import resolve
from potstill.task.file import read_task_file

ROOT = Path(__file__).resolve().parent.parent
TASK = str(ROOT / "examples" / "support" / "task.md")
SMALL: dict[str, Any] = {
    "n": 60,
    "teacher": "fake",
    "sources": "generated",
    "distil": {"epochs": 1, "min_steps": 4},
    "evaluate": {"rows": 30, "latency_rows": 2},
}
GENERATION = "Summarise a paragraph in one sentence. The output is a summary."


def ledger_replies(run: Path) -> int:
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        return ledger.totals("datagen").replies


def generate_alone(ledger: Ledger) -> None:
    options = resolve({}, SMALL).generation
    generate_rows(read_task_file(TASK).spec, Asker(FakeTeacher(), ledger), options)


@pytest.mark.real
def test_a_plan_comes_true(tmp_path: Path) -> None:
    out = tmp_path / "run"
    planned = plan_run(TASK, out=out, budget="1usd,500k-tokens", **SMALL)
    with Ledger(out / "ledger.sqlite", read_only=True) as ledger:
        probed = ledger.totals().replies
    assert 32 <= probed <= 60
    potstill.run(TASK, out=out, **SMALL)
    with Ledger(out / "ledger.sqlite", read_only=True) as ledger:
        real = ledger.totals()
    with Ledger(tmp_path / "alone.sqlite") as alone:
        # What the probe asked is not asked again: the run alone would have made as many requests.
        generate_alone(alone)
        assert ledger_replies(out) == alone.totals("datagen").replies
    assert planned.requests == pytest.approx(real.replies, rel=0.15)
    prompt, completion = planned.tokens
    assert prompt == pytest.approx(real.prompt_tokens, rel=0.2)
    assert completion == pytest.approx(real.completion_tokens, rel=0.2)
    assert planned.usd == 0
    assert planned.budget == ("1 USD, 500,000 tokens", True)
    assert planned.seconds is not None
    again = plan_run(TASK, out=out, probe=0, **SMALL)
    assert {step.basis for step in again.steps} == {"earlier"}
    assert again.requests == pytest.approx(real.replies, rel=0.1)
    with RunDir(out).lock(), pytest.raises(RunLocked):
        plan_run(TASK, out=out, **SMALL)


def test_nothing_is_asked_and_nothing_written_for_an_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "unused-in-a-plan")
    out = tmp_path / "run"
    planned = plan_run(
        GENERATION, out=out, teacher="openai:https://api.openai.com/v1#gpt-4o-mini", n=500, sources="generated",
        budget="1k-tokens",
    )  # fmt: skip
    assert not out.exists()
    assert planned.usd is not None
    assert 0.01 < planned.usd < 5
    assert planned.requests > 1000  # topics, inputs, outputs
    assert planned.budget == ("1,000 tokens", False)
    assert {step.basis for step in planned.steps if step.requests} == {"assumed"}
    # Time, too: the teacher's is assumed and says so, the student's is that of its steps on this machine.
    assert planned.seconds is not None
    assert {step.speed for step in planned.steps if step.requests} == {"assumed"}
    assert planned.minutes.startswith("about ")
    assert any("assumed: 0.8 s to the first token and 60 tokens/s" in note for note in planned.notes)
    train = next(step for step in planned.steps if step.stage == "train")
    assert (train.seconds or 0) > 0
    assert (train.basis, train.speed) == ("probe", "most"), "early stopping may end it sooner"
    assert train.minutes.startswith("up to ")


def test_without_a_probe_no_training_step_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.train import speed

    def refuse(*_: Any) -> float:
        raise AssertionError("a step was timed")

    monkeypatch.setattr(speed, "seconds_a_step", refuse)
    planned = plan_run(TASK, out=tmp_path / "run", probe=0, **SMALL)
    train = next(step for step in planned.steps if step.stage == "train")
    assert train.minutes == planned.minutes == "?"
    assert any("with --probe 0 no step of the student is timed" in note for note in planned.notes)


def test_a_batch_counts_when_its_kernels_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two steps take a minute each by this clock, the two after them a second."""
    from itertools import chain, repeat

    from potstill.train import speed
    from potstill.train.options import DistilOptions, resolve_options

    ticks = chain([0.0, 60.0, 60.0, 120.0, 120.0, 121.0, 121.0, 122.0], repeat(1e9))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(ticks))
    options = resolve_options(DistilOptions(batch_size=2), "classification")
    assert speed.seconds_a_step(["a text", "another one", "a third"], options) == 1.0


def test_the_checks_are_priced_at_the_price_of_their_own_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "unused-in-a-plan")
    quality = {"judge": True, "teacher": "openai:https://api.openai.com/v1#gpt-4o"}
    planned = plan_run(TASK, out=tmp_path / "run", quality=quality, budget="1000usd", **SMALL)
    step = next(step for step in planned.steps if step.stage == "quality")
    assert planned.usd == pytest.approx((step.prompt_tokens * 2.5 + step.completion_tokens * 10) / 1e6, abs=1e-4)
    assert planned.usd > 0
    small = plan_run(TASK, out=tmp_path / "run", quality=quality, budget=f"{planned.usd / 2:.6f}usd", **SMALL)
    assert small.budget is not None
    assert not small.budget[1]


def test_the_teacher_that_checks_is_planned_as_it_is_told_to_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a generation task a vote is a whole answer; at eight tokens each, the plan had a tenth of the bill."""
    monkeypatch.setenv("OPENAI_API_KEY", "unused-in-a-plan")
    options = {"usd_read": 1.0, "usd_written": 10.0, "thinking_tokens": 1000}
    quality = {"votes": 3, "judge": True, "teacher": "openai:http://127.0.0.1:1/v1#m", "teacher_options": options}
    given = {**SMALL, "n": 100, "probe": 0, "quality": quality, "concurrency": 4}
    planned = plan_run(GENERATION, out=tmp_path / "run", **given)
    step = next(step for step in planned.steps if step.stage == "quality")
    assert step.requests == 400
    assert step.completion_tokens == 100 * (3 * 128 + 8)
    assert planned.usd == pytest.approx((step.prompt_tokens + step.completion_tokens * 10) / 1e6, abs=1e-4)
    assert step.speed == "assumed"
    assert (step.seconds or 0) > 0
    notes = " ".join(planned.notes)
    assert "the time of the teacher that checks is assumed: 0.8 s to the first token" in notes
    assert "up to 1,000 tokens a request (quality.teacher_options.thinking_tokens)" in notes
    assert "at the very most 400,000 tokens and 4.00 USD more" in notes


def test_a_plan_waits_for_no_worker(tmp_path: Path) -> None:
    workers = {"here": False, "count": 4, "patience_s": 0}
    planned = plan_run(TASK, out=tmp_path / "run", probe=0, executor="workers", workers=workers, **SMALL)
    assert any("4 workers as fast as it take about 1/4 of the teacher's time" in note for note in planned.notes)


INSTRUCTIONS = "---\nkind: instructions\n---\nAnswer questions of gardeners.\n"


def test_a_plan_that_asks_nothing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planned = plan_run(INSTRUCTIONS, teacher="fake", sources="generated", n=50)
    assert planned.requests > 50
    assert not list(tmp_path.iterdir()), "no folder runs/ either"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    plan_run(INSTRUCTIONS, out="mine", teacher="fake", sources="generated", n=50)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    plan_run(GENERATION, out="mine", teacher="fake", sources="generated", n=40)
    assert ledger_replies(tmp_path / "mine") >= 32, "what was asked is kept"


@pytest.mark.parametrize(("missing", "probes"), [((), 0), (("train",), 32), (("datagen",), 32), (("teacher",), 32)])
def test_a_speed_that_a_run_has_told_is_not_probed(
    missing: tuple[str, ...], probes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages' manifests stand for the run; `_Planner` says how many requests it may make."""
    from potstill.plan import estimate as plan

    for stage in {"datagen", "soft", "train"} - set(missing):
        (tmp_path / stage).mkdir()
        teacher = {"backend": "other"} if "teacher" in missing else dict(FakeTeacher().identity)
        manifest = {"key_parts": {"teacher": teacher}, "seconds": 1.0}
        (tmp_path / stage / "manifest.json").write_text(json.dumps(manifest))
    Ledger(tmp_path / "ledger.sqlite").close()
    seen = []
    monkeypatch.setattr(plan._Planner, "plan", lambda self: seen.append(self.probe))
    plan_run(GENERATION, out=tmp_path, teacher="fake")
    plan_run(GENERATION, out=tmp_path, teacher="fake", probe=5)
    assert seen == [probes, 5]


def test_the_command_prints_both_forms(tmp_path: Path) -> None:
    arguments = ["plan", GENERATION, "--teacher", "fake", "-n", "40", "--sources", "generated", "-o", str(tmp_path)]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "datagen" in shown.output
    assert "probe" in shown.output
    told = CliRunner().invoke(app, [*arguments, "--json"])
    plan = json.loads(told.stdout.splitlines()[-1])
    assert plan["kind"] == "plan"
    assert plan["requests"] == sum(step["requests"] for step in plan["steps"])
    assert plan["steps"][0]["stage"] in ("attributes", "datagen")
    with pytest.raises(OptionError, match="votse: no such option"):
        plan_run(GENERATION, out=tmp_path, teacher="fake", quality={"votse": 3})


API = "openai:https://api.openai.com/v1#gpt-4o-mini"


def replies(folder: Path, count: int, teacher: str, *, seconds: float, at_a_time: int = 1) -> None:
    """A call that ended early: replies of one length, some of them waited for together."""
    with Ledger(folder / "ledger.sqlite") as ledger:
        for i in range(count):
            ledger.record(
                f"{teacher}{i}", purpose="datagen", teacher=teacher, request={}, reply={}, finish="stop", max_tokens=96,
                prompt_tokens=200, completion_tokens=40, seconds=seconds,
            ).result()  # fmt: skip
    connection = sqlite3.connect(folder / "ledger.sqlite")
    connection.execute(
        "UPDATE replies SET at = 1e9 + ? * ((id - 1) / ? + 1) WHERE teacher = ?", (seconds, at_a_time, teacher)
    )
    connection.commit()
    connection.close()


def test_an_earlier_call_tells_an_apis_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "unused-in-a-plan")
    replies(tmp_path, 64, API, seconds=4.0, at_a_time=16)
    replies(tmp_path, 64, "openai:another", seconds=1000.0)
    assert seen_size(tmp_path / "ledger.sqlite", "datagen", API) == (Size(200, 40, 0.25, "earlier"), 64)
    (tmp_path / "datagen").mkdir()
    (tmp_path / "datagen" / "report.json").write_text(json.dumps({"requests": 64, "kept": 40}))
    planned = plan_run(TASK, out=tmp_path, **{**SMALL, "teacher": API})
    step = next(step for step in planned.steps if step.stage == "datagen")
    assert (step.basis, step.speed) == ("earlier", "")
    assert step.seconds == pytest.approx(0.25 * step.requests, abs=0.1)
    assert step.prompt_tokens == 200 * step.requests


def test_seldom_replies_and_those_of_a_batch_tell_no_time(tmp_path: Path) -> None:
    replies(tmp_path, 31, API, seconds=1.0)
    assert seen_size(tmp_path / "ledger.sqlite", "datagen", API) is None
    replies(tmp_path, 40, "batch", seconds=0.0)
    assert seen_size(tmp_path / "ledger.sqlite", "datagen", "batch") == (Size(200, 40, None, "earlier"), 40)
    assert seen_size(tmp_path / "ledger.sqlite", "datagen", None) is not None
    assert seen_size(tmp_path / "ledger.sqlite", "datagen", API, least=31) is not None


def test_assumed_time_goes_with_requests_and_tokens() -> None:
    step = Step("datagen", 100, 1000, 6000, None, "assumed")
    assert assumed_time(step, 10).seconds == pytest.approx(18.0)
    assert assumed_time(step, 1000).seconds == pytest.approx(1.8), "no less than one reply takes"
    assert assumed_time(replace(step, seconds=3.0), 10).seconds == 3.0
    assert assumed_time(replace(step, requests=0), 10).seconds is None
    assert (minutes_text(90, "assumed"), minutes_text(90), minutes_text(None, "most")) == ("about 1.5", "1.5", "?")


def test_limits_a_minute_bound_the_time_from_below() -> None:
    step = Step("datagen", 120, 12_000, 6000, 10.0, "earlier")
    assert within_limits(step, OpenAIOptions()) == step
    assert within_limits(step, OpenAIOptions(requests_per_minute=60)).seconds == pytest.approx(120.0)
    assert within_limits(step, OpenAIOptions(tokens_per_minute=6000)).seconds == pytest.approx(180.0)
    assert within_limits(step, OpenAIOptions(requests_per_minute=6000)) == step
    assert (
        within_limits(replace(step, requests=0, prompt_tokens=0), OpenAIOptions(requests_per_minute=1)).seconds == 10.0
    )


def test_a_plan_takes_the_limits_of_its_teacher_into_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "unused-in-a-plan")
    asked = {**SMALL, "teacher": API, "probe": 0}
    free = plan_run(TASK, out=tmp_path, **asked)
    bound = plan_run(TASK, out=tmp_path, **asked, teacher_options={"requests_per_minute": 3})
    assert bound.requests == free.requests
    for before, step in zip(free.steps, bound.steps, strict=True):
        if step.requests:
            assert step.seconds == pytest.approx(max(before.seconds or 0.0, 20.0 * step.requests))
            assert step.speed == "assumed"
    assert any("3 requests a minute" in note and "requests_per_minute" in note for note in bound.notes)
    assert not any("a minute" in note for note in free.notes)


def test_the_thinking_of_a_teacher_is_said_not_to_be_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model that thinks, most of the bill is for that; the plan gave a fraction of it and no word."""
    monkeypatch.setenv("OPENAI_API_KEY", "unused-in-a-plan")

    planned = plan_run(
        TASK, out=tmp_path / "run", **{**SMALL, "teacher": "openai:https://api.openai.com/v1#gpt-5-mini"}
    )
    (note,) = [note for note in planned.notes if "thinks before it answers" in note]
    assert "not counted here: up to 4,096 tokens a request (teacher_options.thinking_tokens), at the very most" in note
    assert "USD more; --probe 32 measures it" in note
    asked = [Step("datagen", 100, 10, 10, basis="assumed")]
    assert "at the very most 10,000 tokens more" in uncounted_thinking(asked, 100, None)[0]
    assert uncounted_thinking(asked, 0, None) == []
    # Replies of an earlier call hold what was thought.
    assert uncounted_thinking([replace(asked[0], basis="earlier")], 4096, None) == []


def test_soft_targets_of_a_chat_server_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One short answer for each text that is trained on, and none where they are not wanted or cannot be had."""
    monkeypatch.setenv("OPENAI_API_KEY", "unused-in-a-plan")

    def steps(model: str, **more: Any) -> dict[str, Step]:
        teacher = f"openai:https://api.openai.com/v1#{model}"
        planned = plan_run(TASK, out=tmp_path / "run", **{**SMALL, "teacher": teacher, **more})
        return {step.stage: step for step in planned.steps}

    soft = steps("gpt-4o-mini")["soft"]
    assert 30 <= soft.requests <= 60
    assert 8 * soft.requests < soft.completion_tokens < 20 * soft.requests
    assert soft.prompt_tokens > 20 * soft.requests
    assert "soft" not in steps("gpt-4o-mini", distil={**SMALL["distil"], "soft_weight": 0.0})
    assert "soft" not in steps("gpt-5-mini")


def test_chinese_prompts_are_planned_as_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a token a character was four times too few."""
    monkeypatch.setenv("OPENAI_API_KEY", "unused-in-a-plan")
    label = "服务中断或者完全无法访问" * 40
    sizes = []
    for text in (label, "down" * 120):  # as many characters
        task = f"---\nlabels: {{a: {text}, b: {text}}}\n---\nClassify messages.\n"
        planned = plan_run(task, out=tmp_path / "run", **{**SMALL, "teacher": API})
        sizes.append(next(step for step in planned.steps if step.stage == "datagen").prompt_tokens)
    assert sizes[0] > 2 * sizes[1]


def test_the_command_says_what_is_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "unused-in-a-plan")
    arguments = ["plan", TASK, "--teacher", API, "-n", "400", "--sources", "generated", "-o", str(tmp_path / "run")]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "about " in next(line for line in shown.output.splitlines() if " all " in line)
    told = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout.splitlines()[-1])
    assert told["seconds"] > 0
    assert {step["speed"] for step in told["steps"] if step["requests"]} == {"assumed"}
    assert told["usd"] > 0


def test_what_a_training_on_policy_asks_is_counted(tmp_path: Path, teacher_server: Any) -> None:
    given = {
        "n": 200, "sources": "generated", "distil": {"on_policy": 0.5, "on_policy_tokens": 40, "epochs": 2},
    }  # fmt: skip
    with teacher_server.running_server(owner="vllm") as server:
        teacher = f"openai:{server.url}#m"
        planned = plan_run(GENERATION, out=tmp_path / "run", teacher=teacher, probe=0, **given)
        loaded = {**given, "distil": {**given["distil"], "teacher": "HuggingFaceTB/SmolLM2-135M-Instruct"}}
        other = plan_run(GENERATION, out=tmp_path / "run", teacher=teacher, probe=0, **loaded)
        assert server.asked == 0
    steps = {step.stage: step for step in planned.steps}
    asked = steps["on policy"]
    # Half of two epochs are written by the student; the other half, and the held-out outputs, are each read once.
    trained = round(0.97 * 200 * 0.8)
    assert asked.requests == pytest.approx(2 * trained, rel=0.15)
    assert asked.completion_tokens == asked.requests
    assert asked.prompt_tokens > 40 * trained
    assert (asked.basis, asked.speed) == ("assumed", "assumed")
    assert "soft" not in steps
    assert "on policy" not in {step.stage for step in other.steps}
    for plan in (planned, other):
        assert any("the student writes its own answers" in note for note in plan.notes)


def test_requests_of_self_instruct_are_sized_as_they_will_be(tmp_path: Path) -> None:
    """Worked seeds stand in most prompts and most replies are short: a plan said half as much read and twice as much
    written, and forgot what an earlier run in the folder took."""
    task = "---\nkind: instructions\n---\nHelp at the desk of a hotel.\n"
    given: dict[str, Any] = {"teacher": "transformers", "sources": "generated", "probe": 0}

    def step(**options: Any) -> Step:
        planned = plan_run(task, out=tmp_path / "run", generation={"rows": 100, **options}, **given)
        return next(step for step in planned.steps if step.stage == "datagen")

    assumed = step()
    assert 150 < assumed.prompt_tokens / assumed.requests < 350
    assert 20 < assumed.completion_tokens / assumed.requests < 90
    evolved = step(evolve=2)
    assert 0 < evolved.requests - assumed.requests < 100
    preview_rows(task, rows=10, out=tmp_path / "run", sources="generated", teacher="fake")
    (tmp_path / "run" / "datagen").mkdir()
    (tmp_path / "run" / "datagen" / "report.json").write_text('{"requests": 700, "kept": 100}')
    given["teacher"] = "fake"
    known = step()
    assert (known.requests, known.basis) == (700, "earlier")


@pytest.mark.parametrize(
    ("method", "soft", "more", "each"),
    [("word", {}, {}, 0), ("sequence", {"pick": "nearest"}, {}, 4), ("sequence", {"candidates": 1}, {}, 1),
     ("both", {"candidates": 1}, {"rationale_weight": 1.0}, 1)],
)  # fmt: skip
def test_what_the_teacher_writes_for_the_rows_inputs_is_counted(
    tmp_path: Path, method: str, soft: dict[str, Any], more: dict[str, Any], each: int
) -> None:
    given: dict[str, Any] = {"n": 200, "sources": "generated", "teacher": "fake", "soft": soft}
    distil = {"method": method, "soft_weight": 0.0, **more}
    planned = plan_run(GENERATION, out=tmp_path / "run", probe=0, **given, distil=distil)
    steps = {step.stage: step for step in planned.steps}
    if not each:
        assert "outputs" not in steps
        return
    train = 0.97 * 200 * 0.75  # a quarter of the rows is not trained on
    assert steps["outputs"].requests == pytest.approx(each * train, rel=0.02)
    assert steps["outputs"].completion_tokens == pytest.approx(128 * steps["outputs"].requests)
    if more:  # the rows' own outputs are explained as well as the teacher's
        assert steps["rationales"].requests == 2 * steps["outputs"].requests


def test_processes_share_what_a_training_on_policy_asks(tmp_path: Path, teacher_server: Any) -> None:
    def asked(processes: int) -> int:
        distil = {"on_policy": 1.0, "epochs": 2, "processes": processes}
        planned = plan_run(GENERATION, out=tmp_path / "run", teacher=teacher, probe=0, n=200, distil=distil,
                           sources="generated")  # fmt: skip
        return {step.stage: step.requests for step in planned.steps}["on policy"]

    with teacher_server.running_server(owner="vllm") as server:
        teacher = f"openai:{server.url}#m"
        assert asked(4) == pytest.approx(asked(1), rel=0.1)
