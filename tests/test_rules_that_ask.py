"""A task whose rules ask the teacher: paid once, planned, resumed, told before and after."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, Failure
from potstill.datagen.soft_options import SoftOptions
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.doctor import _rules
from potstill.errors import BudgetReached
from potstill.events import silent
from potstill.pipeline import open_job
from potstill.plan.rules import rules_requests, rules_step
from potstill.report.rules import rule_lines
from potstill.run_dir import Stage
from potstill.settings import Settings
from potstill.stages.rules import weak_stage
from potstill.stages.start import unable_to_answer
from potstill.task import TaskSpec
from potstill.task.file import read_task_file

TASK = """\
---
name: orders
labels: [refund, praise, other]
unlabelled: texts.txt
rules:
  - {label: praise, keyword: thanks}
  - {label: refund, keyword: zebra}
  - {label: refund, prompt: "Does the writer want money back?"}
  - prompt: [What is it about?, And what is said?]
    answers: {money: refund, joy: praise, neither: }
---
Sort messages.
"""


@pytest.fixture
def task(tmp_path: Path) -> str:
    (tmp_path / "task.md").write_text(TASK)
    (tmp_path / "texts.txt").write_text("\n".join([*(f"order {i} is late" for i in range(20)), "thanks", "thanks"]))
    return str(tmp_path / "task.md")


def spec_of(task: str) -> TaskSpec:
    return read_task_file(task, draft=True).spec


def labelled(task: str, out: Path, **settings: Any) -> tuple[Stage, int]:
    with open_job(task, out, silent, {"teacher": "fake", **settings}) as job:
        stage = weak_stage(job)
        assert stage is not None
        return stage, job.asker.counts.fresh


def test_the_stage_asks_each_question_once_and_again_of_another_teacher_alone(task: str, tmp_path: Path) -> None:
    stage, asked = labelled(task, tmp_path / "run")
    assert asked == 21 * 3, "one of the two equal texts, three wordings"
    report = json.loads((stage.path / "report.json").read_text())
    assert [item.get("asked") for item in report["functions"]] == [None, None, 21, 42]
    assert stage.facts["summary"].endswith("of 21 texts labelled by 4 rules")
    again, asked = labelled(task, tmp_path / "run")
    assert (again.reused, asked) == (True, 0)
    surer, asked = labelled(task, tmp_path / "run", weak={"sure": 0.6})
    assert (surer.reused, asked) == (False, 0), "the answers are in the ledger"
    other, asked = labelled(task, tmp_path / "run", teacher_options={"seed": 1})
    assert (other.reused, asked) == (False, 63)


def test_a_budget_stops_it_and_a_higher_one_goes_on(task: str, tmp_path: Path) -> None:
    with pytest.raises(BudgetReached):
        labelled(task, tmp_path / "run", budget="1k-tokens", concurrency=4)
    with Ledger(tmp_path / "run" / "ledger.sqlite", read_only=True) as ledger:
        paid = ledger.totals("weak").replies
    assert 0 < paid < 63
    stage, asked = labelled(task, tmp_path / "run", budget="100k-tokens", concurrency=4)
    assert asked == 63 - paid
    assert not stage.reused


class Away(FakeTeacher):
    """Gives no reply about two texts as long as it is away."""

    away = True

    def answer(self, request: Any) -> Any:
        if self.away and any(f"order {i} " in request.messages[-1].content for i in (3, 4)):
            return Failure("the server is away", passing=True)
        return super().answer(request)


def test_what_got_no_answer_is_asked_again(task: str, tmp_path: Path) -> None:
    teacher = Away()
    stage, _ = labelled(task, tmp_path / "run", teacher=teacher)
    assert stage.facts["unanswered"] == 6
    report = json.loads((stage.path / "report.json").read_text())
    assert [item.get("unanswered") for item in report["functions"]] == [None, None, 2, 2]
    teacher.away = False
    stage, asked = labelled(task, tmp_path / "run", teacher=teacher)
    assert (stage.reused, asked, stage.facts.get("unanswered")) == (False, 6, None)


def test_a_plan_counts_the_questions(task: str, tmp_path: Path) -> None:
    spec = spec_of(task)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = Asker(FakeTeacher(), ledger)
        [assumed] = rules_step(spec, asker, SoftOptions())
        assert asker.counts.fresh == 0
        [probed] = rules_step(spec, asker, SoftOptions(), probe=True)
        assert asker.counts.fresh == 15
    assert (assumed.stage, assumed.requests, assumed.completion_tokens, assumed.basis) == ("weak", 63, 0, "assumed")
    assert (probed.requests, probed.basis) == (63, "probe")
    assert assumed.prompt_tokens == pytest.approx(probed.prompt_tokens, rel=0.5)

    def teacher(**able: Any) -> Any:
        return SimpleNamespace(abilities=Abilities(**able))

    votes = SoftOptions(votes=5)
    assert rules_requests(spec, teacher(), votes)[0] == 5 * 63
    assert rules_requests(spec, teacher(scores=True), votes)[0] == 63
    [written] = rules_step(spec, teacher(), SoftOptions())
    assert written.completion_tokens > 0
    assert rules_step(TaskSpec("a", "b", "classification"), teacher(), votes) == []


def test_doctor_says_what_rules_match_and_what_they_ask(task: str) -> None:
    spec = spec_of(task)
    found = _rules(spec, Settings(teacher="fake"))
    assert found.status == "warn"
    assert found.found == (
        "rules of words match 5% of 21 texts, 0% of their votes are contradicted, 3 questions to the teacher, "
        "63 requests (see potstill plan)"
    )
    assert found.mend == "no text matches refund: keyword zebra: mend it, or take it out"
    small = _rules(spec, Settings())
    assert small.mend.startswith("rules ask the built-in teacher, which answers questions about a text hardly better")
    assert unable_to_answer(replace(spec, rules=spec.rules[:2]), Settings()) == ""


def test_the_report_has_a_line_for_each_rule(task: str, tmp_path: Path) -> None:
    stage, _ = labelled(task, tmp_path / "run")
    lines = rule_lines(json.loads((stage.path / "report.json").read_text()))
    assert lines[0][2] == "4 rules, which asked the teacher 63 questions"
    assert [line[0] for line in lines[1:]] == [
        "praise: keyword thanks", "refund: keyword zebra", "refund: prompt Does the writer want money back?",
        "refund or praise: prompt What is it about?, And what is said?",
    ]  # fmt: skip
    assert lines[1][1] == "1 of 21"
    assert "answers: Yes " in lines[3][2]
    assert rule_lines({}) == []
