"""The stage that measures: a teacher who could not be measured is tried again, and only then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import potstill
from potstill.asking.ledger import Ledger
from potstill.datagen.soft_options import SoftOptions
from potstill.errors import DataError
from potstill.events import Event
from potstill.rows import REFERENCES, Row, rows_to_dataset
from potstill.settings import EvaluateOptions
from potstill.stages.evaluation import evaluate_run
from potstill.task import Label, TaskSpec

Call = Callable[..., tuple[dict[str, Any], str, list[str]]]


@pytest.fixture
def call(sample_run: Any, tmp_path: Path) -> Call:
    """One small run folder; each call runs it with other settings: its scores, what became of `evaluate`, notes."""
    from transformers import AutoModel, AutoTokenizer

    sample_run.write_student(tmp_path / "sample" / "student")
    for kind in (AutoModel, AutoTokenizer):
        kind.from_pretrained(tmp_path / "sample" / "student").save_pretrained(tmp_path / "tiny")

    def make(**settings: Any) -> tuple[dict[str, Any], str, list[str]]:
        seen: list[Event] = []
        result = potstill.run(
            "Classify support tickets as billing, bug or other.", out=tmp_path / "run", listener=seen.append,
            teacher="fake", n=24, sources="generated",
            distil={"student": str(tmp_path / "tiny"), "epochs": 1, "min_steps": 2, "max_length": 64},
            **{"evaluate": {"latency_rows": 1}, **settings},
        )  # fmt: skip
        (ended,) = [event.kind for event in seen if event.stage == "evaluate" and event.kind in ("done", "reused")]
        return result.scores, ended, [event.message for event in seen if event.kind == "note"]

    return make


@pytest.mark.real
def test_a_budget_that_ends_while_the_teacher_is_measured_is_made_up_for(call: Call, tmp_path: Path) -> None:
    call(evaluate={"latency_rows": 1, "teacher": False})
    with Ledger(tmp_path / "run" / "ledger.sqlite", read_only=True) as ledger:
        spent = ledger.totals().prompt_tokens + ledger.totals().completion_tokens
    scores, ended, notes = call(budget=f"{spent + 1}-tokens")
    assert ended == "done"
    assert "the budget of" in scores["teacher_left_out"]
    assert any("the teacher was not measured: the budget of" in note for note in notes)
    manifest = json.loads((tmp_path / "run" / "evaluate" / "manifest.json").read_text())
    assert manifest["facts"]["summary"].endswith("; teacher not measured")
    scores, ended, _ = call(budget="10m-tokens")
    assert ended == "done", "with more to spend, the teacher is measured"
    assert "teacher_left_out" not in scores
    assert "teacher (raw)" in {system["name"] for system in scores["systems"]}
    assert call(budget="10m-tokens")[1] == "reused"
    assert call()[1] == "reused"


@pytest.mark.real
def test_a_stage_without_its_teacher_on_purpose_is_whole(call: Call) -> None:
    options = {"latency_rows": 1, "teacher": False}
    assert call(evaluate=options)[1] == "done"
    assert call(evaluate=options)[1] == "reused"


def test_the_teacher_may_write_as_much_as_the_student(tmp_path: Path) -> None:
    """Answers cut at a length that the student's are not cut at would make the teacher look worse than it is."""
    from potstill.asking.asker import Asker
    from potstill.datagen.soft_options import SoftOptions
    from potstill.datagen.teachers.fake import FakeTeacher
    from potstill.stages.evaluation import teacher_answers
    from potstill.task import TaskSpec

    asked: list[int] = []

    class Counting(FakeTeacher):
        def stream(self, take: Any) -> Any:
            def counted(count: int) -> Any:
                requests = take(count)
                asked.extend(request.max_tokens for request in requests)
                return requests

            return super().stream(counted)

    spec = TaskSpec("letters", "Write a letter.", "generation")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for tokens in (0, 40, 700):
            teacher_answers(spec, [f"Say {tokens}."], Asker(Counting(), ledger), SoftOptions(), answer_tokens=tokens)
    assert asked == [256, 256, 700]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("real", "the test data has no rows; check `test:` in the task file; the student is whole, in "),
        (
            "held-out",
            "none of the 3 merged rows could be held out to measure on; the student is whole, in .*-n",
        ),
    ],
)
def test_a_run_without_rows_to_measure_on_says_where_its_student_is(kind: str, said: str, tmp_path: Path) -> None:
    spec = TaskSpec("t", "Sort it.", "classification", labels=(Label("a"), Label("b")))
    rows = [Row(f"text {i}", "a", "generated", label="a") for i in range(3)]
    with pytest.raises(DataError, match=said):
        evaluate_run(
            spec, tmp_path, rows_to_dataset([], "ab"), tmp_path, test_set={"kind": kind, "source": ""}, asker=None,
            soft=SoftOptions(), options=EvaluateOptions(), train_rows=rows_to_dataset(rows, "ab"), seed=0,
        )  # fmt: skip


def test_differences_count_every_right_answer_of_a_row_as_the_scores_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    from potstill.report.rows import differences
    from potstill.train.evaluate import Evaluation, score_predictions

    right = [[f"the long form of {i}", f"short {i}"] for i in range(40)]
    rows = rows_to_dataset([Row(f"ask {i}", row[0], "user") for i, row in enumerate(right)], [])
    test, spec = rows.add_column(REFERENCES, right), TaskSpec("t", "Answer.", "generation", metric="exact_match")
    student, small = [row[1] for row in right], [row[0] if i % 2 else "wrong" for i, row in enumerate(right)]
    said = iter([student, small])

    def evaluate_student(*_: Any, **__: Any) -> Evaluation:
        outputs = next(said)
        return Evaluation(score_predictions(spec, test, outputs), tuple(outputs), None)

    monkeypatch.setattr("potstill.train.student.load_student", lambda path: SimpleNamespace(card=None))
    monkeypatch.setattr("potstill.train.evaluate.evaluate_student", evaluate_student)
    facts = evaluate_run(
        spec, tmp_path / "student", test, tmp_path, test_set={"kind": "real"}, asker=None, soft=SoftOptions(),
        options=EvaluateOptions(), train_rows=rows, seed=0, compressed=tmp_path,
    )  # fmt: skip
    assert facts["scores"] == {"student": 1.0, "student (compressed)": 0.5}
    told = json.loads((tmp_path / "scores.json").read_text())
    columns = pq.read_table(tmp_path / "predictions.parquet").to_pydict()
    run = SimpleNamespace(scores=told, spec=spec, systems=told["systems"], predictions=columns)
    (line,) = differences(run)  # type: ignore[arg-type]
    assert (line["name"], line["value"], line["sure"]) == ("student (compressed)", 0.5, True)
