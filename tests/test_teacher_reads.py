"""Texts without labels, read by a teacher that only writes: one request a text, and none for what it cannot name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import potstill
from potstill.asking.asker import Asker
from potstill.asking.budget import Budget, Meter, pays_more
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities
from potstill.datagen.soft_options import SoftOptions
from potstill.datagen.teachers import open_teacher
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.errors import BudgetReached, TeacherError
from potstill.plan.estimate import plan_run
from potstill.rows import Row, Source, rows_to_dataset
from potstill.stages.text_labels import TextLabels, read_by_teacher, teacher_labels
from potstill.task import Label, TaskSpec
from potstill.train.self_training import SelfTrainingOptions, Unlabelled

FAST: dict[str, Any] = {"backoff_s": 0.01, "longest_pause_s": 0.1, "timeout_s": 20.0, "attempts": 3}
SPEC = TaskSpec(
    "tickets", "Sort support tickets.", "classification", (Label("billing", "money"), Label("bug", "defects"))
)
TEXTS = ["The invoice is wrong", "It crashes at start", "My refund is late", "A crash again", "???"]


def job_of(asker: Asker, notes: list[str], **soft: Any) -> Any:
    settings = SimpleNamespace(soft=SoftOptions(encoder=False, **soft), encoder="")
    return SimpleNamespace(
        spec=SPEC, asker=asker, settings=settings, listener=lambda event: notes.append(event.message)
    )


def given() -> Any:
    rows = [
        Row("Please send the bill again", "billing", "user", Source(), label="billing"),
        Row("The button does nothing", "bug", "generated", Source(teacher="m"), label="bug"),
    ]
    return rows_to_dataset(rows, SPEC.label_names)


def says(body: dict[str, Any]) -> str:
    text = body["messages"][-1]["content"].split("\n\n")[-2].casefold()
    named = "bug" if "crash" in text else "billing" if "invoice" in text or "refund" in text else "hm"
    return json.dumps({"answer": named}) if "response_format" in body else f"This is {named}."


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    with Ledger(tmp_path / "ledger.sqlite") as found:
        yield found


@pytest.mark.parametrize("log_probs", ["ignored", "refused"])
def test_a_server_that_only_writes_labels_texts_one_request_each(
    log_probs: str, teacher_server: Any, ledger: Ledger
) -> None:
    def fault(number: int, text: str) -> Any:
        if log_probs == "refused" and "logprobs" in server.bodies[number]:
            return 400, {"error": {"message": "`logprobs` is not supported with this model"}}
        if "My refund" in text:
            return "refusal"
        return 500 if number == 3 else None

    notes: list[str] = []
    with teacher_server.running_server(fault, reply=says) as server:
        teacher = open_teacher(f"openai:{server.url}#m", flavour="openai", **FAST)
        asker = Asker(teacher, ledger)
        probs = teacher_labels(job_of(asker, notes), TEXTS, given())
        asked, bodies = server.asked, list(server.bodies)
        again = teacher_labels(job_of(asker, notes), TEXTS[:2], given())
        assert server.asked == asked, "a run that goes on asks for none again"
        teacher.close()
    assert probs.tolist() == [[1, 0], [0, 1], [0, 0], [0, 1], [0, 0]]
    assert again.tolist() == [[1, 0], [0, 1]]
    assert "2 of 5 texts are left out, for which the teacher named no label" in notes
    written = [body for body in bodies if "response_format" in body]
    said = written[0]["messages"][-1]["content"]
    assert "- billing: money\n- bug: defects" in said
    assert "Please send the bill again\nAnswer: billing" in said
    assert "The button does nothing" not in said, "a written row is no example"
    schema = written[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["answer"]["enum"] == ["billing", "bug"]


def test_votes_make_probabilities_of_what_a_teacher_writes(ledger: Ledger) -> None:
    class Wavers(FakeTeacher):
        abilities = property(lambda self: Abilities())  # type: ignore[assignment]

        def answer(self, request: Any) -> Any:
            reply = super().answer(request)
            named = "bug" if "crash" in request.messages[-1].content.split("\n\n")[-2] else "billing"
            return type(reply)("bug" if request.sample == 2 else named)

    asker = Asker(Wavers(), ledger)
    probs = teacher_labels(job_of(asker, [], votes=3), TEXTS[:4], given())
    assert probs.argmax(axis=1).tolist() == [0, 1, 0, 1]
    assert np.allclose(probs.sum(axis=1), 1)
    assert (probs.max(axis=1) < 1).all()


def test_what_ends_it_costs_no_answer_that_came(teacher_server: Any, ledger: Ledger) -> None:
    def fault(number: int, text: str) -> Any:
        return "quota" if number == 3 else None

    with teacher_server.running_server(fault, reply=says) as server:
        teacher = open_teacher(f"openai:{server.url}#m", flavour="openai", concurrency=1, **FAST)
        with pytest.raises(BudgetReached):
            teacher_labels(job_of(Asker(teacher, ledger, budget=Budget.parse("300-tokens")), []), TEXTS[:4], given())
        assert server.asked == 1, "for log-probs; a label may take more than is left"
        with pytest.raises(TeacherError):
            teacher_labels(job_of(Asker(teacher, ledger), []), TEXTS[:4], given())
        assert server.asked == 4
        probs = teacher_labels(job_of(Asker(teacher, ledger), []), TEXTS[:4], given())
        assert server.asked == 6, "one for log-probs, one that was refused, one a text"
        teacher.close()
    assert probs.argmax(axis=1).tolist() == [0, 1, 0, 1]


def test_a_run_learns_from_them_and_a_plan_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from random import Random

    from potstill.datagen.teachers.fake import _prose

    monkeypatch.setattr(FakeTeacher, "abilities", property(lambda self: Abilities(choices=True)))
    said = {label: [_prose(label, Random(f"{label} {i}")) for i in range(30)] for label in ("sport", "business")}
    (tmp_path / "texts.txt").write_text("\n".join(text for texts in said.values() for text in texts))
    task = tmp_path / "news.md"
    task.write_text("---\nlabels: [sport, business]\nunlabelled: texts.txt\n---\nSay what a headline is about.\n")
    settings: dict[str, Any] = {
        "n": 30, "sources": "generated", "teacher": "fake", "self_training": {"method": "teacher", "most": 2.0},
    }  # fmt: skip
    planned = plan_run(str(task), out=tmp_path / "plan", probe=0, **settings)
    potstill.run(
        str(task), out=tmp_path / "run", distil={"epochs": 1, "min_steps": 2},
        evaluate={"rows": 4, "latency_rows": 2, "teacher": False}, **settings,
    )  # fmt: skip
    told = json.loads((tmp_path / "run" / "train" / "report.json").read_text())["self_training"]
    assert (told["space"], told["stopped"]) == ("teacher", "labelled once")
    with Ledger(tmp_path / "run" / "ledger.sqlite", read_only=True) as ledger:
        asked = ledger.totals("zero-shot").replies
    assert told["rows"] > 30
    assert asked == told["texts"]
    (step,) = [step for step in planned.steps if step.stage == "soft"]
    assert step.requests == pytest.approx(asked, rel=0.15)
    assert step.completion_tokens > 0


def test_a_plan_of_a_hosted_teacher_says_what_its_reading_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "unused-in-a-plan")
    (tmp_path / "texts.txt").write_text("\n".join(f"text {i}" for i in range(40)))
    task = tmp_path / "news.md"
    task.write_text("---\nlabels: [sport, business]\nunlabelled: texts.txt\n---\nSay what a headline is about.\n")

    def planned(model: str, **more: Any) -> tuple[int, str]:
        teacher = f"openai:https://api.openai.com/v1#{model}"
        plan = plan_run(str(task), out=tmp_path / "plan", probe=0, n=30, sources="generated", teacher=teacher, **more)
        return sum(step.requests for step in plan.steps if step.stage == "soft"), " ".join(plan.notes)

    asked, notes = planned("gpt-5-mini")
    assert asked == 0, "it gives no log-probs"
    assert "for 40 requests: --set self_training.method=teacher" in notes
    asked, notes = planned("gpt-5-mini", self_training={"method": "teacher"})
    assert asked == 40
    assert "reads well" not in notes
    rows = planned("gpt-4o-mini")[0]
    assert planned("gpt-5-mini", soft={"votes": 5})[0] == 5 * rows
    assert planned("gpt-5-mini", soft={"votes": 5}, self_training={"method": "teacher"})[0] == 5 * (rows + 40)


def test_texts_of_which_the_rows_say_nothing_are_read_as_far_as_the_budget_reaches(
    teacher_server: Any, tmp_path: Path
) -> None:
    texts = [Unlabelled(text, "mine", i) for i, text in enumerate(TEXTS)]
    unknown = TextLabels(np.full((5, 2), 0.5), 0.1, 0.3, "opinion")
    notes: list[str] = []
    met: dict[str, Any] = {}

    def read(name: str, found: TextLabels, read: int, budget: Budget | None = None) -> Any:
        with teacher_server.running_server(reply=says) as server, Ledger(tmp_path / name) as ledger:
            teacher = open_teacher(f"openai:{server.url}#m", flavour="openai", **FAST)
            job = job_of(Asker(teacher, ledger, budget=budget or Budget()), notes)
            job.settings.self_training, job.settings.seed = SelfTrainingOptions(read=read), 3
            labels = read_by_teacher(job, found, texts, given(), met)
            teacher.close()
        return labels

    assert read("a", unknown, 5, Budget(tokens=1)) is None
    assert notes[0] == "the rows say nothing of the texts; the teacher reads 5 of them"
    assert notes[-1].startswith("the texts are left out: ")
    assert pays_more(met, Meter(Budget(tokens=2))), "a larger budget reads them"
    assert read("b", unknown, 0) is None
    assert read("c", replace(unknown, trust=0.4, of_few=0.4), 5) is None, "what is believed stands"
    assert read("f", replace(unknown, trust=0.5, of_few=0.35), 5, Budget(tokens=1)) is None
    assert "the rows say little of the texts; the teacher reads 5 of them" in notes
    assert notes[-1].startswith("the texts are labelled by names and rows: ")
    assert read("g", replace(unknown, trust=0.5, of_few=0.35), 5)[0].space == "teacher"
    assert read("d", replace(unknown, space="student"), 5) is None, "the user's rows say what the labels are"
    strange = replace(unknown, space="student", of_few=0.0)
    assert read("k", strange, 5)[0].space == "teacher", "retrieved rows of another kind do not"
    assert read("l", strange, 5, Budget(tokens=1)) is None
    assert notes[-1].startswith("the texts are left out: ")
    assert read("m", replace(strange, trust=0.5, of_few=1.0), 5) is None
    mixed = replace(unknown, space="encoder", trust=0.95, least=0.0, of_few=0.35)
    assert read("h", mixed, 5, Budget(tokens=1)) is None
    assert notes[-1].startswith("the texts are labelled by a mixture: ")
    assert read("i", mixed, 5)[0].space == "teacher"
    assert read("j", replace(mixed, of_few=0.5), 5) is None
    told, some = read("e", unknown, 4)
    assert (told.space, told.trust, len(some), len({text.row for text in some})) == ("teacher", 1.0, 4, 4)
    right = {0: 0, 1: 1, 2: 0, 3: 1}
    for probs, text in zip(told.probs, some, strict=True):
        assert text.row == 4 or probs.argmax() == right[text.row]
