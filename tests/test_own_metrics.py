"""Metrics that Python gives: what they are called with, where their figures stand, and what their faults cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import potstill
from potstill.compare import compare_runs
from potstill.errors import OptionError
from potstill.events import Event
from potstill.measure import evaluate_on
from potstill.rows import REFERENCES, Row, rows_to_dataset
from potstill.task import DataRef
from potstill.train.own_metrics import check_metrics, own_figures

TASK = "Classify a short message about a delivery as praise or complaint."
SMALL: dict[str, Any] = {
    "n": 40,
    "teacher": "fake",
    "sources": "generated",
    "distil": {"epochs": 1, "min_steps": 2},
    "evaluate": {"rows": 20, "latency_rows": 2},
}


def starts_alike(gold: str, output: str) -> float:
    return float(gold[:1] == output[:1])


def broken(gold: str, output: str) -> float:
    raise KeyError(output)


def table(rows: list[list[str]]) -> Any:
    made = rows_to_dataset([Row(f"text {i}", right[0], "user") for i, right in enumerate(rows)], ())
    return made.add_column(REFERENCES, rows)


def test_the_mean_of_a_function_with_its_interval() -> None:
    gold = rows_to_dataset([Row(f"text {i}", answer, "user") for i, answer in enumerate(["ab", "cd", "ef", "gh"])], ())
    figures, ends, left_out = own_figures({"starts_alike": starts_alike}, gold, ["ax", "cx", "xx", "gx"])
    assert figures == {"starts_alike": 0.75}
    low, high = ends["starts_alike"]
    assert 0 <= low < 0.75 < high <= 1
    assert left_out == {}


def test_of_several_right_answers_the_best_counts_and_a_third_argument_is_the_input() -> None:
    gold = table([["xy", "ab"], ["cd"]])

    def of_input(gold: str, output: str, text: str) -> bool:
        return gold == output and text == "text 0"

    figures, _, _ = own_figures({"one": starts_alike, "two": of_input}, gold, ["ab", "cd"])
    assert figures == {"one": 1.0, "two": 0.5}


def test_labels_are_given_by_their_names() -> None:
    gold = rows_to_dataset([Row("text", "praise", "user"), Row("other", "complaint", "user")], ("praise", "complaint"))
    figures, _, _ = own_figures({"same": lambda gold, output: gold == output}, gold, ["praise", "praise"])
    assert figures == {"same": 0.5}


def test_a_function_that_fails_is_left_out_with_the_reason() -> None:
    gold = rows_to_dataset([Row("text", "ab", "user"), Row("other", "cd", "user")], ())
    metrics = {"broken": broken, "word": lambda gold, output: "high", "nan": lambda gold, output: float("nan"),
               "starts_alike": starts_alike}  # fmt: skip
    figures, _, left_out = own_figures(metrics, gold, ["ab", "cd"])
    assert figures == {"starts_alike": 1.0}
    assert left_out["broken"] == "it failed on test row 1 of 2 (KeyError: 'ab')"
    assert "it gave 'high', not a finite number" in left_out["word"]
    assert "it gave nan, not a finite number" in left_out["nan"]


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ([starts_alike], "a mapping of names to functions is needed"),
        ({"bleu": starts_alike}, "there is a figure of that name already"),
        ({"size_mib": starts_alike}, "there is a figure of that name already"),
        ({"my metric": starts_alike}, "a name is up to 40 letters"),
        ({"mine": 0.5}, "a function from a right answer and an output to a number is needed"),
        ({"mine": len}, "it must take the right answer and the output"),
        ({"mine": lambda a, b, c, d: 1}, "it must take the right answer and the output"),
    ],
)
def test_what_is_no_metric_is_refused_before_the_run(metrics: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as raised:
        potstill.run(TASK, out=tmp_path, metrics=metrics, **SMALL)
    assert says in str(raised.value)
    assert not (tmp_path / "task").exists()


def test_functions_of_any_such_form_are_taken() -> None:
    check_metrics({"a": starts_alike, "b": lambda gold, output, text: 1, "c": lambda *given: 1, "d": max, "e+1": min})
    check_metrics({"a": lambda gold, output, scale=2: 1})


@pytest.mark.real
def test_a_run_records_them_under_their_names(tmp_path: Path) -> None:
    out = tmp_path / "run"
    told = list[Event]()
    metrics = {"starts_alike": starts_alike, "broken": broken}
    result = potstill.run(TASK, out=out, metrics=metrics, listener=told.append, **SMALL)
    for system in result.scores["systems"]:
        assert 0 <= system["starts_alike"] <= 1
        assert len(system["ci"]["starts_alike"]) == 2
        assert "broken" not in system
    student, majority = (
        next(s for s in result.scores["systems"] if s["name"] == name) for name in ("student", "majority")
    )
    assert student["starts_alike"] == pytest.approx(student["accuracy"]), "praise and complaint begin otherwise"
    assert majority["starts_alike"] == pytest.approx(majority["accuracy"])
    assert list(result.scores["own_metrics"]) == ["starts_alike"]
    assert "KeyError" in result.scores["metrics_left_out"]["broken"]
    assert any(event.kind == "note" and "the metric broken is left out: it failed" in event.message for event in told)
    page = result.report.read_text("utf-8")
    assert "starts_alike" in page
    assert "KeyError" in page
    assert any(line[1] == "starts_alike" for line in compare_runs([out, out]).scores)

    kinds: dict[str, str] = {}

    def note(event: Event) -> None:
        if event.kind in ("reused", "done"):
            kinds[event.stage] = event.kind

    potstill.run(TASK, out=out, metrics={"starts_alike": starts_alike}, listener=note, **SMALL)
    kinds.clear()
    potstill.run(TASK, out=out, metrics={"starts_alike": starts_alike}, listener=note, **SMALL)
    assert set(kinds.values()) == {"reused"}
    again = {"starts_alike": lambda gold, output: float(gold == output)}
    potstill.run(TASK, out=out, metrics=again, listener=note, **SMALL)
    assert kinds.pop("evaluate") == "done"
    assert set(kinds.values()) == {"reused"}

    kinds.clear()
    for _ in range(2):  # the stage lacks something that another call may bring
        potstill.run(TASK, out=out, metrics={"broken": broken}, listener=note, **SMALL)
        assert kinds.pop("evaluate") == "done"

    data = tmp_path / "more.jsonl"
    rows = [{"text": f"It came {word}.", "label": label} for word, label in (("late", "complaint"), ("soon", "praise"))]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = evaluate_on(out, DataRef(str(data)), metrics=metrics)
    assert 0 <= found.scores["systems"][0]["starts_alike"] <= 1
    assert "broken" in found.scores["metrics_left_out"]
