"""Fields that are compared: the difference labels texts where the answers are about it, and nothing otherwise."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from random import Random
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.datagen.pairs import as_common_as, compare_fields, differences
from potstill.models import sentence_encoder
from potstill.rows import join_fields, shared_fields, split_fields
from potstill.task.regression import kappa

FIELDS = ("first", "second")
SAID = (
    ("My parcel has not arrived.", "I am still waiting for my package."),
    ("The app crashes on start.", "It closes as soon as I open it."),
    ("I was charged twice.", "Two payments were taken for one order."),
    ("How do I change my address?", "I moved and want to update where I live."),
    ("I cannot log in.", "My password is not accepted."),
    ("The soup was cold.", "They served me a lukewarm broth."),
    ("Where is the nearest station?", "Which way do I go to the train?"),
    ("The film was too long.", "That movie went on for ages."),
    ("My card was stolen.", "Somebody took my bank card."),
    ("Can I return these shoes?", "I want to send the boots back."),
)


class Hashed:
    """An encoder of unit vectors that are drawn by the text."""

    def encode(self, texts: list[str]) -> np.ndarray:
        found = np.stack([np.random.default_rng(crc32(text.encode())).normal(size=16) for text in texts])
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def pairs(seed: int, count: int) -> tuple[list[str], list[int]]:
    """Inputs of two sentences, and whether both say the same."""
    same = [pair for pair in SAID] + [(b, a) for a, b in SAID]
    other = [(a[i], b[j]) for a, b in product(SAID, repeat=2) if a is not b for i, j in product((0, 1), repeat=2)]
    draw = Random(seed)
    rows = [(pair, 1) for pair in same] + [(pair, 0) for pair in draw.sample(other, count - len(same))]
    draw.shuffle(rows)
    return [join_fields(dict(zip(FIELDS, pair, strict=True))) for pair, _ in rows], [label for _, label in rows]


def test_what_is_said_of_two_sentences_is_learnt_from_their_difference() -> None:
    rows, labels = pairs(0, 50)
    texts, gold = pairs(1, 60)
    found = compare_fields(FIELDS, texts, rows, labels, 3, sentence_encoder())
    assert found is not None
    assert found.weighed.kappa > 0.8 > found.weighed.whole + 0.1
    assert np.allclose(found.probs.sum(axis=1), 1)
    assert (found.probs[:, 2] == 0).all(), "nobody gave the third label"
    assert (found.probs.argmax(axis=1) == gold).mean() > 0.9
    again = compare_fields(FIELDS, texts, rows, labels, 3, sentence_encoder())
    assert again is not None
    assert np.array_equal(found.probs, again.probs)


def test_a_known_prior_is_what_the_labels_of_the_texts_add_up_to() -> None:
    rows, labels = pairs(0, 50)
    texts, _ = pairs(1, 60)
    plain, moved = (
        compare_fields(FIELDS, texts, rows, labels, 3, sentence_encoder(), prior=prior)
        for prior in (None, (0.6, 0.2, 0.2))
    )
    assert plain is not None
    assert moved is not None
    assert moved.probs.mean(axis=0) == pytest.approx([0.75, 0.25, 0], abs=1e-4), "the third label's share is shared"
    odds = np.log(moved.probs[:, :2]) - np.log(plain.probs[:, :2])
    assert np.allclose(odds[:, 0] - odds[:, 1], (odds[:, 0] - odds[:, 1]).mean()), "one factor a label"


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 5))
def test_probabilities_stay_such_whatever_the_prior(seed: int, count: int, labels: int) -> None:
    draw = np.random.default_rng(seed)
    probs = draw.dirichlet(np.full(labels, 0.3), size=count)
    moved = as_common_as(probs, draw.dirichlet(np.ones(labels)) + 1e-6)
    assert np.allclose(moved.sum(axis=1), 1)
    assert (moved >= 0).all()


def test_where_labels_are_what_the_fields_are_about_the_difference_is_not_asked() -> None:
    games = [(f"{a} win again", f"The {b} match ended in a draw.") for a, b in product(("Rovers", "Reds"), repeat=2)]
    firms = [(f"{a} cuts jobs", f"Shares of {b} fell sharply.") for a, b in product(("Acme", "Globex"), repeat=2)]
    rows = [join_fields(dict(zip(FIELDS, pair, strict=True))) for pair in (games + firms) * 3]
    labels = ([0] * 4 + [1] * 4) * 3
    assert compare_fields(FIELDS, rows, rows, labels, 2, sentence_encoder()) is None


def test_labels_by_chance_are_not_foreseen() -> None:
    rows = [f"first: {i}\nsecond: {i * 7 % 100}" for i in range(100)]
    for seed in range(10):
        labels = np.random.default_rng(seed).integers(0, 2, 100).tolist()
        assert compare_fields(FIELDS, rows, rows, labels, 2, Hashed()) is None


@pytest.mark.parametrize(
    ("names", "rows", "labels"),
    [
        ((), ["a"] * 20, [0, 1] * 10),
        (("text",), ["a"] * 20, [0, 1] * 10),
        (FIELDS, ["no fields"] * 20, [0, 1] * 10),
        (FIELDS, ["first: a\nsecond: b"] * 9, [0, 1, 0] * 3),
        (FIELDS, ["first: a\nsecond: b"] * 20, [1] * 20),
    ],
)
def test_nothing_is_compared_without_fields_rows_or_two_labels(
    names: tuple[str, ...], rows: list[str], labels: list[int]
) -> None:
    assert compare_fields(names, rows, rows, labels, 2, Hashed()) is None


@pytest.mark.slow
def test_on_real_rows_it_is_asked_where_fields_are_compared_and_nowhere_else(data_pack: Path) -> None:
    """sick compares two sentences; boolq's question and passage and the parts of a news item are not compared."""
    import pyarrow.parquet as pq

    def drawn(task: str, seed: int) -> list[dict[str, str]]:
        return Random(seed).sample(pq.read_table(data_pack / "tasks" / task / "train.parquet").to_pylist(), 100)

    def asked(rows: list[tuple[str, str, str]], seed: int) -> bool:
        labels = sorted({label for *_, label in rows})
        inputs = [join_fields(dict(zip(FIELDS, row, strict=False))) for row in rows]
        told = [labels.index(label) for *_, label in rows]
        return compare_fields(FIELDS, [], inputs, told, len(labels), sentence_encoder(), seed=seed) is not None

    for seed in (0, 1, 2):
        rows = drawn("sick", seed)
        assert asked([(row["premise"], row["hypothesis"], row["label_text"]) for row in rows], seed)
        rows = drawn("boolq", seed)
        assert not asked([(row["question"], row["passage"][:600], row["label_text"]) for row in rows], seed)
        rows = drawn("ag_news", seed)
        assert not asked([(row["title"], row["text"], row["label_text"]) for row in rows], seed)


def test_a_text_that_lacks_a_field_has_no_opinion() -> None:
    rows, labels = pairs(0, 50)
    found = compare_fields(FIELDS, ["first: alone", rows[0]], rows, labels, 2, sentence_encoder())
    assert found is not None
    assert found.probs[0].tolist() == [0, 0]
    assert found.probs[1].argmax() == labels[0]


def test_every_two_fields_differ_by_their_own_columns() -> None:
    one, two, three = np.eye(4)[:1], np.eye(4)[1:2], np.eye(4)[:1]
    found = differences([one, two, three])
    assert found.shape == (1, 3 * 5)
    assert found[0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]


NAMES = st.lists(st.from_regex(r"[a-z]{1,6}", fullmatch=True), min_size=1, max_size=4, unique=True)
WORDS = st.text(alphabet="ab :\n", max_size=12)


@given(NAMES, st.data())
def test_fields_come_back_as_they_were_joined(names: list[str], data: st.DataObject) -> None:
    values = [data.draw(WORDS).strip() for _ in names]
    text = join_fields(dict(zip(names, values, strict=True)))
    found = split_fields(text, names)
    if not any(f"\n{name}: " in f"\n{value}" for name in names for value in values):
        assert found == tuple(values)


def test_fields_are_found_in_the_rows_where_nobody_named_them() -> None:
    rows, _ = pairs(0, 50)
    assert shared_fields(rows) == FIELDS
    assert shared_fields(["a: b", "a: c"]) == (), "one field is the text itself"
    assert shared_fields(["first: note: x\nsecond: y", "first: z\nsecond: note: w"]) == FIELDS
    assert shared_fields(["Dear Sir: hello\nyours: me", "Hello\nyours: you"]) == ()
    assert shared_fields([]) == ()


@given(st.lists(st.text(alphabet="ab: \n", max_size=20), min_size=1, max_size=4))
def test_whatever_fields_are_found_split_every_row(rows: list[str]) -> None:
    names = shared_fields(rows)
    assert len(names) != 1
    assert not names or all(len(split_fields(row, names) or ()) == len(names) for row in rows)


@given(st.text(max_size=30), NAMES)
def test_a_text_that_nobody_joined_is_split_without_a_fault(text: str, names: list[str]) -> None:
    found = split_fields(text, names)
    assert found is None or len(found) == len(names)


def test_kappa_is_one_at_best_and_nothing_by_chance() -> None:
    half = np.array([0, 1] * 10)
    assert kappa(half, half, 2) == 1
    assert kappa(half, np.array([0, 0, 1, 1] * 5), 2) == 0
    assert kappa(half, 1 - half, 2) == -1
    assert kappa(np.zeros(5, int), np.zeros(5, int), 3) == 0
