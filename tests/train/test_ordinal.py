"""Scores of ordered labels beside scikit-learn's, and what they say of answers that are no label."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from potstill.compare import paired_interval
from potstill.task import Label, TaskSpec
from potstill.train.evaluate import score_predictions
from potstill.train.metrics import confusion
from potstill.train.ordinal import mean_distance, ordinal_of_draws, quadratic_kappa

_PAIRS = st.integers(2, 6).flatmap(
    lambda labels: st.tuples(
        st.just(labels),
        st.lists(st.tuples(st.integers(0, labels - 1), st.integers(0, labels - 1)), min_size=1, max_size=40),
    )
)


@given(_PAIRS)
def test_kappa_and_distance_are_scikit_learns(case: tuple[int, list[tuple[int, int]]]) -> None:
    labels, pairs = case
    gold, said = np.array(pairs).T
    counts = confusion(gold, said, labels)
    order = list(range(labels))
    assert float(mean_distance(counts, order)) == pytest.approx(mean_absolute_error(gold, said))
    if len({*gold, *said}) > 1:
        expected = cohen_kappa_score(gold, said, weights="quadratic", labels=order)
        assert float(quadratic_kappa(counts, order)) == pytest.approx(expected, abs=1e-9)


@given(_PAIRS, st.integers(0, 2**16))
def test_draws_are_scored_as_their_rows_would_be(case: tuple[int, list[tuple[int, int]]], seed: int) -> None:
    labels, pairs = case
    gold, said = np.array(pairs).T
    draws = np.random.default_rng(seed).integers(0, len(gold), (3, len(gold)))
    order = list(range(labels))
    for name, score in (("qwk", quadratic_kappa), ("mae", mean_distance)):
        found = ordinal_of_draws(name, gold, said, order)(draws)
        one_by_one = [float(score(confusion(gold[draw], said[draw], labels), order)) for draw in draws]
        assert found == pytest.approx(one_by_one)


def test_an_answer_that_is_no_label_is_as_far_off_as_can_be() -> None:
    gold, said = np.array([0, 2, 3]), np.array([-1, -1, 3])
    counts = confusion(gold, said, 4)
    assert float(mean_distance(counts, [0, 1, 2, 3])) == pytest.approx((3 + 2 + 0) / 3)
    right = confusion(gold, np.array([0, 2, 3]), 4)
    assert float(quadratic_kappa(counts, range(4))) < float(quadratic_kappa(right, range(4))) == 1.0


def test_where_all_is_one_label_kappa_is_zero_unless_they_agree() -> None:
    same = np.zeros(4, dtype=np.int64)
    assert float(quadratic_kappa(confusion(same, same, 3), range(3))) == 1.0
    assert float(quadratic_kappa(confusion(same, same + 1, 3), range(3))) == 0.0


def test_the_order_is_that_of_the_scale_and_not_of_the_names() -> None:
    names = ("high", "low", "medium")
    spec = TaskSpec("t", "Rate it.", "classification", tuple(map(Label, names)), metric="qwk", ordered=(2, 0, 1))
    gold = Dataset.from_list([{"input": str(i), "output": name, "label": None} for i, name in enumerate(names * 4)])
    near = ["medium" if name == "high" else name for name in names * 4]
    far = ["low" if name == "high" else name for name in names * 4]
    near_scores, far_scores = (score_predictions(spec, gold, answers) for answers in (near, far))
    assert near_scores.accuracy == far_scores.accuracy
    assert near_scores.value == near_scores.qwk
    assert near_scores.qwk > far_scores.qwk  # type: ignore[operator]
    assert (near_scores.mae, far_scores.mae) == pytest.approx((1 / 3, 2 / 3))
    low, high = near_scores.ci["qwk"]
    assert low <= near_scores.qwk <= high  # type: ignore[operator]
    assert {"qwk", "mae"} <= set(near_scores.to_json())
    gap = paired_interval(list(gold["output"]), far, near, "qwk", names, order=spec.ordered)
    assert gap[0] == pytest.approx(near_scores.qwk - far_scores.qwk)  # type: ignore[operator]


def test_labels_without_an_order_have_no_such_figures() -> None:
    spec = TaskSpec("t", "Sort it.", "classification", (Label("a"), Label("b")))
    gold = Dataset.from_list(
        [{"input": "x", "output": "a", "label": None}, {"input": "y", "output": "b", "label": None}]
    )
    assert not {"qwk", "mae"} & set(score_predictions(spec, gold, ["a", "b"]).to_json())
