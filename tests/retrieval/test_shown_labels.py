"""Labels that a user's own rows bear, where the prompt names none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potstill.doctor import examine
from potstill.errors import DataError, TaskError
from potstill.events import silent
from potstill.labelling import Labelling
from potstill.pipeline import open_job
from potstill.plan.estimate import plan_run
from potstill.retrieval.load import read_data
from potstill.retrieval.shown_labels import shown_labels
from potstill.task import DataRef, TaskSpec
from potstill.task.file import read_task, read_task_file
from potstill.user_data import OWN_ROWS

SPEC = TaskSpec("tickets", "Classify support tickets.", "classification")
ROWS = [("Charged twice", "billing"), ("It crashes", "bug"), ("My invoice", "billing"), ("Hello", "other")]


def csv(path: Path, rows: list[tuple[str, Any]], head: str = "text,label") -> DataRef:
    path.write_text("\n".join([head, *(f"{text},{label}" for text, label in rows)]) + "\n")
    return DataRef(str(path))


def parquet(path: Path, columns: dict[str, Any], names: list[str] | None = None, several: bool = False) -> DataRef:
    from datasets import ClassLabel, Dataset, Features, Sequence, Value

    features = None
    if names:
        inner = ClassLabel(names=names)
        features = Features({"text": Value("string"), "label": Sequence(inner) if several else inner})
    Dataset.from_dict(columns, features=features).to_parquet(str(path))
    return DataRef(str(path))


def tickets(folder: Path, front: str, prompt: str = "Classify support tickets.") -> Path:
    file = folder / "tickets.md"
    file.write_text(f"---\n{front}\n---\n{prompt}\n")
    return file


def test_a_column_of_labels_tells_them_each_once_by_its_commonest_spelling(tmp_path: Path) -> None:
    rows = [*ROWS, ("Refund", "Billing"), ("Nothing said", ""), ("Crash again", "bug")]
    assert shown_labels([csv(tmp_path / "a.csv", rows)], SPEC, 500) == ("billing", "bug", "other")


def test_names_of_a_class_feature_count_even_where_no_row_bears_them(tmp_path: Path) -> None:
    ref = parquet(tmp_path / "a.parquet", {"text": ["a", "b"], "label": [2, 0]}, ["spam", "ham", "phish"])
    assert shown_labels([ref], SPEC, 500) == ("spam", "ham", "phish")


def test_several_files_show_labels_together(tmp_path: Path) -> None:
    refs = [csv(tmp_path / "a.csv", ROWS[:3]), csv(tmp_path / "b.csv", ROWS)]
    assert shown_labels(refs, SPEC, 500) == ("billing", "bug", "other")


def test_numbers_of_a_scale_are_labels_in_their_order(tmp_path: Path) -> None:
    ref = csv(tmp_path / "a.csv", [(f"text number {i}", 10 - i % 10) for i in range(40)], "text,stars")
    assert shown_labels([ref], SPEC, 500) == tuple(str(i) for i in range(1, 11))


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: csv(folder / "a.csv", [(f"text number {i}", i % 3) for i in range(30)]),
        lambda folder: csv(folder / "a.csv", [(f"text number {i}", f"answer number {i}") for i in range(30)]),
        lambda folder: csv(folder / "a.csv", [(f"text number {i}", f"{'long ' * 30}{i % 2}") for i in range(30)]),
        lambda folder: csv(folder / "a.csv", [(f"text number {i}", "same") for i in range(30)]),
        lambda folder: parquet(folder / "a.parquet", {"text": ["a", "b"], "label": [[0, 1], [1]]}, ["x", "y"], True),
    ],
    ids=["class numbers", "as many as rows", "sentences", "one", "several a row"],
)
def test_what_leaves_a_doubt_is_no_set_of_labels(tmp_path: Path, make: Callable[[Path], DataRef]) -> None:
    assert shown_labels([make(tmp_path)], SPEC, 500) == ()


def test_more_names_than_a_task_may_have_are_none(tmp_path: Path) -> None:
    ref = csv(tmp_path / "a.csv", [(f"text number {i}", f"kind {i % 30}") for i in range(90)])
    assert shown_labels([ref], SPEC, 29) == ()
    assert len(shown_labels([ref], SPEC, 30)) == 30


def test_a_task_without_label_names_takes_those_of_its_rows(tmp_path: Path) -> None:
    csv(tmp_path / "mine.csv", ROWS[:3])
    csv(tmp_path / "real.csv", ROWS)
    file = tickets(tmp_path, "labelled: mine.csv\ntest: real.csv")
    spec = read_task_file(file, own_rows=OWN_ROWS).spec
    assert spec.label_names == ("billing", "bug", "other")
    assert [found.how for found in spec.inferred if found.field == "labels"] == ["the labels of labelled and test"]


def test_every_command_that_reads_a_task_reads_its_rows_labels(tmp_path: Path) -> None:
    csv(tmp_path / "mine.csv", ROWS)
    file = tickets(tmp_path, "labelled: mine.csv\nteacher: fake\nsources: generated")
    checks = {check.name: check for check in examine(str(file))}
    assert checks["task"].found == "classification, labels billing, bug, other"
    assert plan_run(str(file), out=tmp_path / "run", probe=0).rows > 0
    work = Labelling(str(file), ["A new text"], out=tmp_path / "answers.jsonl")
    assert work.spec.label_names == ("billing", "bug", "other")
    with open_job(str(file), tmp_path / "run", silent, {}) as job:
        assert job.spec.label_names == ("billing", "bug", "other")


def test_names_in_the_prompt_win_and_an_open_list_is_filled(tmp_path: Path) -> None:
    csv(tmp_path / "mine.csv", ROWS)
    named = tickets(tmp_path, "labelled: mine.csv", "Classify support tickets as billing, bug, other or praise.")
    assert read_task_file(named, own_rows=OWN_ROWS).spec.label_names == ("billing", "bug", "other", "praise")
    opened = tickets(tmp_path, "labelled: mine.csv", "Classify support tickets by topic, such as billing or bug.")
    assert read_task_file(opened, draft=True).spec.label_names == ()
    assert read_task_file(opened, own_rows=OWN_ROWS).spec.label_names == ("billing", "bug", "other")


def test_rows_that_cannot_be_read_are_told_with_the_missing_labels(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps("no rows"))
    file = tickets(tmp_path, "labelled: broken.json")
    with pytest.raises(TaskError, match=r"labels were not found \(.*broken\.json"):
        read_task_file(file, own_rows=OWN_ROWS)
    with pytest.raises(DataError, match="must hold a list"):
        OWN_ROWS.labels("Classify support tickets.", [DataRef(str(broken))])


def test_a_file_of_one_row_is_read(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps({"text": "it crashed", "label": "bug"}) + "\n")
    task = read_task("Classify tickets as bug or billing.")
    assert read_data(DataRef(str(tmp_path / "one.json")), task)["output"][:] == ["bug"]
    (tmp_path / "nested.json").write_text(json.dumps({"data": [{"text": "it crashed", "label": "bug"}]}))
    with pytest.raises(DataError, match="must hold a list"):
        OWN_ROWS.labels("Classify support tickets.", [DataRef(str(tmp_path / "nested.json"))])


def test_texts_that_are_to_be_written_have_no_labels_though_they_repeat(tmp_path: Path) -> None:
    csv(tmp_path / "mine.csv", [(f"text number {i}", "short" if i % 2 else "long") for i in range(30)], "text,output")
    spec = read_task_file(tickets(tmp_path, "labelled: mine.csv", "Summarise the text."), own_rows=OWN_ROWS).spec
    assert (spec.kind, spec.labels) == ("generation", ())
