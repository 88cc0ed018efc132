"""Which labels stand in an order, by the prompt, the names or the task file."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.errors import TaskError
from potstill.task import TaskSpec
from potstill.task.file import read_task
from potstill.task.scales import label_order


@pytest.mark.parametrize(
    ("prompt", "places"),
    [
        ("Rate the review from 1 to 5 stars.", (0, 1, 2, 3, 4)),
        ("Classify the urgency of a ticket as low, medium or high.", (0, 1, 2)),
        ("Classify the urgency of a ticket as high, medium or low.", (2, 1, 0)),
        ("Classify reviews as positive, neutral or negative.", (2, 1, 0)),
        ("Classify the level of a text: A1, A2, B1, B2, C1 or C2.", (0, 1, 2, 3, 4, 5)),
        ("Classify tickets as billing, bug or other.", ()),
        ("Classify reviews as positive or negative.", ()),
        ("Predict the topic class of a text: 1, 2 or 3.", ()),
        ("Classify the mood as low, high or angry.", ()),
    ],
)
def test_the_order_that_a_prompt_tells(prompt: str, places: tuple[int, ...]) -> None:
    spec = read_task(prompt)
    assert spec.ordered == places
    assert ("ordered" in [item.field for item in spec.inferred]) == bool(places)
    assert TaskSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["3 stars", "1 star", "2 stars"], [2, 0, 1]),
        (["1/5", "2/5", "3/5"], [0, 1, 2]),
        (["grade 1", "grade 2", "level 3"], None),
        (["1", "2", "4"], None),
        (["very_low", "low", "VeryHigh"], [0, 1, 2]),
        (["low", "minor", "high"], None),  # two names of one step
        (["strongly disagree", "disagree", "neutral", "agree", "strongly agree"], [0, 1, 2, 3, 4]),
    ],
)
def test_the_order_that_names_tell(names: list[str], places: list[int] | None) -> None:
    assert label_order(names) == places


def _file(folder: Path, head: str, text: str = "Sort tickets.") -> TaskSpec:
    path = folder / "task.md"
    path.write_text(f"---\n{head}\n---\n{text}\n", encoding="utf-8")
    return read_task(path)


def test_a_task_file_says_what_no_rule_knows(tmp_path: Path) -> None:
    head = "labels: [calm, tense, furious]\n"
    assert _file(tmp_path, head).ordered == ()
    assert _file(tmp_path, head + "ordered: true").ordered == (0, 1, 2)
    assert _file(tmp_path, head + "ordered: yes\nmetric: qwk").metric == "qwk"
    assert _file(tmp_path, "labels: [low, medium, high]\nordered: false").ordered == ()


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        ("labels: [calm, tense, furious]\nmetric: qwk", "ordered: true"),
        ("labels: [low, medium, high]\nordered: false\nmetric: qwk", "ordered: true"),
        ("labels: [low, medium, high]\nordered: perhaps", "ordered: 'perhaps' is not known"),
        ("kind: generation\nordered: true", "only for kind: classification"),
    ],
)
def test_what_cannot_be_ordered_is_told(tmp_path: Path, head: str, fault: str) -> None:
    with pytest.raises(TaskError, match=fault):
        _file(tmp_path, head)
