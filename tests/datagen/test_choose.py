"""Texts to label: each once, unlike each other, later where labels meet; rare labels come up oftener than by chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.datagen.choose import TextChooser
from potstill.errors import OptionError
from potstill.models import sentence_encoder
from potstill.retrieval.load import read_data
from potstill.task import DataRef, Label, TaskSpec

SPEC = TaskSpec("t", "Say the kind.", "classification", tuple(Label(n) for n in ("red", "green", "blue")))


class Places:
    """An encoder of texts that are points, `0.1 0.9`; a word lies at a place of its own."""

    def encode(self, texts: list[str]) -> np.ndarray:
        found = np.zeros((len(texts), 4), dtype=np.float32)
        for row, text in enumerate(texts):
            numbers = text.split()
            if numbers[0][0] in "-0123456789":
                found[row, : len(numbers)] = [float(number) for number in numbers]
            else:
                found[row, 3] = 1
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def points(rows: np.ndarray) -> list[str]:
    return [" ".join(f"{value:.4f}" for value in row) for row in rows]


def blobs(sizes: list[int], spread: float = 0.05) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    gold = np.repeat(np.arange(len(sizes)), sizes)
    return points(np.eye(3)[gold] + rng.normal(0, spread, (len(gold), 3))), gold


def test_the_first_batch_takes_one_text_of_each_kind() -> None:
    texts, gold = blobs([300, 40, 6])
    chosen = TextChooser(SPEC, texts, Places()).choose({}, 3)
    assert sorted(gold[chosen].tolist()) == [0, 1, 2]


@settings(max_examples=25, deadline=None)
@given(
    known=st.dictionaries(st.integers(0, 59), st.integers(0, 2), max_size=60),
    passed=st.sets(st.integers(0, 59), max_size=10),
    count=st.integers(1, 40),
)
def test_no_text_twice_none_that_is_known_and_the_same_again(
    known: dict[int, int], passed: set[int], count: int
) -> None:
    chooser = TextChooser(SPEC, blobs([30, 20, 10], 0.4)[0], Places())
    chosen = chooser.choose(known, count, passed)
    free = set(range(60)) - set(known) - passed
    assert len(set(chosen)) == len(chosen) == min(count, len(free))
    assert set(chosen) <= free
    assert chooser.choose(known, count, passed) == chosen
    assert np.allclose(chooser.opinion(known).sum(1), 1)


def test_later_batches_lie_where_labels_meet() -> None:
    rng = np.random.default_rng(0)
    angles = np.concatenate([rng.normal(0, 0.1, 150), np.linspace(0, np.pi / 2, 60), rng.normal(np.pi / 2, 0.1, 150)])
    two = replace(SPEC, labels=SPEC.labels[:2])
    chooser = TextChooser(two, points(np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)), Places())
    known = {place: int(angles[place] > np.pi / 4) for place in range(0, 360, 12)}
    chosen = chooser.choose(known, 10)
    ranked = np.sort(chooser.opinion(known), axis=1)
    margins = ranked[:, -1] - ranked[:, -2]
    assert margins[chosen].mean() < 0.6 * margins.mean()
    assert margins[chosen[0]] == margins[chosen].min()


def test_where_answers_cannot_be_foreseen_the_next_batch_is_a_fair_draw() -> None:
    texts, gold = blobs([180, 18, 2])
    chooser = TextChooser(SPEC, texts, Places())
    right = {place: int(gold[place]) for place in [*range(20), *range(180, 186), 198]}
    assert chooser.foreseen(right) > 0.8
    wrong = dict(zip(right, np.random.default_rng(1).integers(0, 3, len(right)).tolist(), strict=True))
    assert chooser.foreseen(wrong) < 0.25
    drawn = [gold[place] for seed in range(8) for place in TextChooser(SPEC, texts, Places(), seed).choose(wrong, 25)]
    assert abs(drawn.count(0) / len(drawn) - 0.9) < 0.06
    assert chooser.foreseen({0: 1}) == 0.0


def test_a_label_that_nobody_gave_yet_is_still_thought_of() -> None:
    texts, _ = blobs([20, 20, 20])
    probs = TextChooser(SPEC, texts, Places()).opinion({0: 0, 20: 1})
    assert probs[:, 2].min() > 0


def test_copies_do_not_leave_a_batch_short() -> None:
    chosen = TextChooser(SPEC, ["1 0 0"] * 30 + ["0 1 0"] * 3, Places()).choose({0: 0}, 12)
    assert len(set(chosen)) == 12


def test_a_task_without_labels_and_no_texts_are_refused() -> None:
    with pytest.raises(OptionError, match="a task of kind generation has no labels"):
        TextChooser(TaskSpec("t", "Sum up.", "generation"), ["1 0"], Places())
    with pytest.raises(OptionError, match="there is no text to choose from"):
        TextChooser(SPEC, [], Places())


@pytest.mark.real
def test_rare_labels_of_real_texts_come_up_oftener_than_in_a_fair_draw(data_pack: Path) -> None:
    spec = TaskSpec("sms", "Say what a message is.", "classification", (Label("ham"), Label("spam")))
    rows = read_data(DataRef(str(data_pack / "tasks" / "sms_spam" / "train.parquet"), output="label_text"), spec)
    texts, gold = rows["input"][:600], rows["output"][:600]
    chooser = TextChooser(spec, texts, sentence_encoder())
    known: dict[int, int] = {}
    while len(known) < 60:
        known |= {place: int(gold[place] == "spam") for place in chooser.choose(known, 20)}
    assert sum(known.values()) / 60 > 2 * gold.count("spam") / 600


class Lines:
    """An encoder of fields that are points on a circle, `12.5` degrees; of anything else at one place."""

    def encode(self, texts: list[str]) -> np.ndarray:
        turned = np.array([np.deg2rad(float(text)) if text.replace(".", "").isdigit() else -1.0 for text in texts])
        return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


def test_where_fields_are_compared_the_texts_are_chosen_by_their_difference() -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 90, 400)
    # Far apart, near each other, and rarely in between.
    gold = rng.choice(3, 400, p=[0.6, 0.35, 0.05])
    second = first + np.array([80, 5, 40])[gold] + rng.normal(0, 4, 400)
    texts = [f"a: {one:.2f}\nb: {abs(two):.2f}" for one, two in zip(first, second, strict=True)]
    for spec in (SPEC, replace(SPEC, inputs=("a", "b"))):
        chooser = TextChooser(spec, texts, Lines())
        known = {int(place): int(gold[place]) for place in rng.choice(400, 40, replace=False)}
        assert chooser.foreseen(known) > 0.5, "by the difference, of which the whole text knows nothing"
        assert (chooser.opinion(known).argmax(axis=1) == gold).mean() > 0.9
        chosen = chooser.choose(known, 20)
        assert len(set(chosen) - set(known)) == 20
        assert (gold[chosen] == 2).mean() > 0.15, "labels meet at the rare one"
        assert chosen == TextChooser(spec, texts, Lines()).choose(known, 20)
    alone = TextChooser(SPEC, [*texts, "no fields"], Lines())
    assert alone.foreseen(known) < 0.25, "a text without fields: all are read whole"
