"""The user's files are looked at before anything is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import potstill
from potstill.asking.ledger import Ledger
from potstill.doctor import examine
from potstill.errors import DataError, TaskError
from potstill.events import Event
from potstill.plan.estimate import plan_run
from potstill.retrieval import load
from potstill.retrieval.load import read_data
from potstill.settings import resolve
from potstill.stages.start import check_start
from potstill.task import DataRef, Label, TaskSpec
from potstill.task.file import read_task, read_task_file
from potstill.user_data import OWN_ROWS, check_data, unsaid_fields

LABELS = (Label("good", ""), Label("bad", ""))
FAULTS = [
    ("rows.xlsx", b"PK\x03\x04", r"labelled: .*rows\.xlsx is of no known format"),
    ("rows.csv", b"text,label\nfine,good\nawful,poor\n", "labelled: .*labels that the task does not have: 'poor'"),
    ("rows.jsonl", b'{"text": "fine"}\n', "labelled: .*no column holds classes"),
]


def spec(**data: DataRef) -> TaskSpec:
    return TaskSpec("mood", "Is a review good or bad?", "classification", LABELS, **data)


def task_file(folder: Path, **data: Path) -> Path:
    lines = [f"{name}: {path}" for name, path in data.items()]
    file = folder / "task.md"
    file.write_text("\n".join(["---", "labels: [good, bad]", *lines, "---", "Is a review good or bad?", ""]))
    return file


@pytest.mark.parametrize(("name", "content", "fault"), FAULTS, ids=[name for name, _, _ in FAULTS])
def test_a_run_that_cannot_read_the_users_rows_asks_for_nothing(
    tmp_path: Path, name: str, content: bytes, fault: str
) -> None:
    rows, out = tmp_path / name, tmp_path / "run"
    rows.write_bytes(content)
    file = task_file(tmp_path, labelled=rows)
    with pytest.raises(DataError, match=fault):
        potstill.run(str(file), out=out, teacher="fake", n=20)
    assert Ledger(out / "ledger.sqlite", read_only=True).totals().replies == 0
    assert not (out / "retrieval").exists()
    assert not (out / "datagen").exists()
    with pytest.raises(DataError, match=fault):
        plan_run(str(file), out=tmp_path / "plan", teacher="fake", n=20)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    texts, test = tmp_path / "texts.jsonl", tmp_path / "test.csv"
    texts.write_text('{"number": 1}\n')
    test.write_text("text,label\nfine,fair\n")
    with pytest.raises(DataError) as caught:
        check_data(spec(test=DataRef(str(test)), unlabelled=DataRef(str(texts)), labelled=DataRef("./gone.csv")))
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["labelled", "test", "unlabelled"]
    assert "no data at ./gone.csv" in lines[0]
    assert "'fair'" in lines[1]
    assert "no text column among number" in lines[2]


def test_data_that_can_be_read_is_let_through(tmp_path: Path) -> None:
    rows, texts = tmp_path / "rows.csv", tmp_path / "texts.txt"
    rows.write_text("text,label\nfine,Good\nawful,bad\n")
    texts.write_text("so so\n")
    check_data(spec(test=DataRef(str(rows)), labelled=DataRef(str(rows)), unlabelled=DataRef(str(texts))))
    check_data(spec())


def test_a_dataset_of_the_hub_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refuse(name: str, *rest: Any, training: bool) -> Any:
        asked.append(name)
        raise DataError(f"{name} is not reachable; try again later")

    monkeypatch.setattr(load, "open_hub", refuse)
    wanted = spec(test=DataRef("someone/reviews"))
    with pytest.raises(DataError, match="test: someone/reviews is not reachable"):
        check_data(wanted)
    check_data(wanted, hub=False)  # a finished run goes on without a network
    assert asked == ["someone/reviews"]


def pairs(folder: Path) -> Path:
    rows = [("It rains", "It is wet", "yes"), ("It rains", "It is dry", "no")] * 12
    file = folder / "pairs.csv"
    file.write_text("premise,hypothesis,label\n" + "".join(f"{a},{b} {i},{c}\n" for i, (a, b, c) in enumerate(rows)))
    return file


def test_fields_that_the_task_leaves_unsaid_are_told_before_rows_are_written(tmp_path: Path) -> None:
    test, file = pairs(tmp_path), tmp_path / "task.md"
    file.write_text(f"---\nlabels: [yes, no]\ntest: {test}\n---\nIs the conclusion sound?\n")
    said: list[Event] = []
    check_start(read_task(str(file)), resolve({}, {"n": 20}), said.append)
    (told,) = [event.message for event in said]
    assert "have the fields premise, hypothesis, and the task names none" in told
    assert told.endswith("inputs: [premise, hypothesis]")
    check_start(read_task(str(file)), resolve({}, {"sources": "retrieved"}), said.append)
    assert len(said) == 1, "nothing is written"
    assert told in plan_run(str(file), out=tmp_path / "plan", teacher="fake", n=20).notes
    (warned,) = [check for check in examine(str(file), teacher="fake") if check.name == "fields"]
    assert (warned.status, warned.mend) == ("warn", "name them in the task file: inputs: [premise, hypothesis]")


def test_one_column_named_fields_and_unreadable_files_leave_nothing_unsaid(tmp_path: Path) -> None:
    file = pairs(tmp_path)
    one = DataRef(str(file), inputs=("hypothesis",), output="label")
    labels = (Label("yes"), Label("no"))
    asked = TaskSpec("t", "Does the premise entail the hypothesis?", "classification", labels, test=one)
    assert unsaid_fields(asked) == ""
    assert "premise, hypothesis" in unsaid_fields(replace(asked, test=DataRef(str(file))))
    assert unsaid_fields(replace(asked, test=DataRef(str(file)), inputs=("premise", "hypothesis"))) == ""
    assert unsaid_fields(replace(asked, test=DataRef("./gone.csv"))) == ""
    (tmp_path / "odd.csv").write_text("number\n1\n")
    assert unsaid_fields(replace(asked, test=DataRef(str(tmp_path / "odd.csv")))) == ""


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        ("hypothesis,premise,gold_label", ("premise", "hypothesis")),
        ("sentence2,sentence1,label", ("premise", "hypothesis")),
        ("text,label", ()),
        ("premise,text,label", ()),
    ],
)
def test_fields_of_the_prompt_stay_where_the_users_tables_have_them(
    head: str, fields: tuple[str, ...], tmp_path: Path
) -> None:
    first, second, last = (*head.split(","), "")[:3]
    (tmp_path / "nli.csv").write_text(f"{head}\na cat sleeps,an animal sleeps,entailment\n" if last else
                                      f"{head}\na cat sleeps,entailment\n")  # fmt: skip
    file = tmp_path / "task.md"
    prompt = "Does the premise entail the hypothesis? Answer entailment, neutral or contradiction."
    file.write_text(f"---\ntest: nli.csv\n---\n{prompt}\n")
    spec = read_task_file(file, own_rows=OWN_ROWS).spec
    assert spec.inputs == fields
    assert read_task(file).inputs == (), "nobody looked"
    assert spec.test is not None
    if fields:
        wanted = {first: "a cat sleeps", second: "an animal sleeps"}
        order = sorted(wanted, key=lambda name: name in ("hypothesis", "sentence2"))
        text = "\n".join(f"{field}: {wanted[name]}" for field, name in zip(fields, order, strict=True))
        assert read_data(spec.test, spec)["input"][:] == [text]


def test_examples_with_other_fields_than_the_tasks_are_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "task.md"
    head = "labels: [neutral, entailment]\ninputs: [premise, hypothesis]"
    examples = (
        "- {input: {premis: a cat, hypothesis: b}, output: neutral}\n"
        "- {input: just a text, output: neutral}\n"
        "- {input: {premise: a cat, hypothesis: b}, output: neutral}"
    )
    file.write_text(f"---\n{head}\nexamples:\n{examples}\n---\nJudge pairs.\n")
    with pytest.raises(TaskError) as told:
        read_task(file)
    (fault,) = told.value.faults
    assert fault.startswith("example 1 has the fields premis, hypothesis; the task's inputs are premise, hypothesis; ")
    assert fault.endswith("did you mean 'premise'?")


def test_columns_that_are_named_are_the_tasks_fields(tmp_path: Path) -> None:
    test = pairs(tmp_path)
    data = f"test: {{path: {test}, inputs: [premise, hypothesis], output: label}}"
    given = read_task(f"---\nlabels: [yes, no]\n{data}\n---\nDoes the premise entail the hypothesis?\n")
    assert given.inputs == ("premise", "hypothesis")
    (told,) = [item for item in given.inferred if item.field == "inputs"]
    assert (told.value, told.how) == ("premise, hypothesis", "the columns of test")
    own = read_task(f"---\nlabels: [yes, no]\ninputs: [a, b]\n{data}\n---\nDoes the premise entail the hypothesis?\n")
    assert own.inputs == ("a", "b")
    assert read_data(own.test, own)["input"][0].startswith("a: It rains\nb: ")  # type: ignore[arg-type]
