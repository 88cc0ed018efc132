"""The mixture of real texts: what EM recovers, what stays fixed, and where it starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.datagen.mixture import (
    DRAWS_OF_FEW,
    FEW_ROWS,
    agreement,
    even_opinion,
    first_opinion,
    fit_mixture,
    settled_opinion,
    trust,
)
from potstill.task.regression import softmax_regression


def clusters(per_label: int, labels: int = 3, width: int = 12, apart: float = 4.0, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    gold = np.repeat(np.arange(labels), per_label)
    return rng.normal(size=(len(gold), width)) + apart * np.eye(labels, width)[gold], gold


def noisy(gold: Any, labels: int, right: float, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    told = np.where(rng.random(len(gold)) < right, gold, rng.integers(labels, size=len(gold)))
    return np.full((len(gold), labels), 0.2 / labels) + 0.8 * np.eye(labels)[told]


def test_em_recovers_labels_from_a_start_that_is_often_wrong() -> None:
    texts, gold = clusters(100)
    start = noisy(gold, 3, 0.4)
    assert (start.argmax(axis=1) == gold).mean() < 0.65
    mixture = fit_mixture(texts, start)
    probs = mixture.probs(texts)
    assert (probs.argmax(axis=1) == gold).mean() > 0.95
    np.testing.assert_allclose(probs.sum(axis=1), 1)
    others, wanted = clusters(50, seed=9)
    assert (mixture.probs(others).argmax(axis=1) == wanted).mean() > 0.95


def test_labels_of_the_user_stay_and_name_the_clusters() -> None:
    texts, gold = clusters(60, labels=2)
    wrong = np.eye(2)[1 - gold] * 0.2 + 0.4  # the start has the two names the wrong way round
    assert (fit_mixture(texts, wrong).probs(texts).argmax(axis=1) == gold).mean() < 0.1
    known = [int(label) if i % 4 == 0 else None for i, label in enumerate(gold)]
    found = fit_mixture(texts, wrong, known=known).probs(texts)
    assert (found.argmax(axis=1) == gold).mean() > 0.9


def test_a_known_prior_is_kept_and_an_unknown_one_is_estimated_half_way() -> None:
    texts, gold = clusters(100, labels=2, apart=6.0)
    few = np.concatenate([np.flatnonzero(gold == 0), np.flatnonzero(gold == 1)[:10]])
    start = noisy(gold[few], 2, 0.8)
    estimated = fit_mixture(texts[few], start).shares
    assert estimated[0] == pytest.approx((100 / 110 + 0.5) / 2, abs=0.02)
    np.testing.assert_allclose(fit_mixture(texts[few], start, prior=[0.9, 0.1]).shares, [0.9, 0.1])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(2, 4), st.integers(0, 1000))
def test_few_texts_and_lost_labels_give_numbers(count: int, labels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(count, 6))
    start = np.eye(labels)[rng.integers(max(1, labels - 1), size=count)]  # the last label has no text
    probs = fit_mixture(texts, start).probs(texts)
    assert np.isfinite(probs).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1)


def test_no_texts_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs texts"):
        fit_mixture(np.zeros((0, 4)), np.zeros((0, 2)))


def test_written_rows_are_moved_to_the_texts() -> None:
    # Rows stand elsewhere: without the move every text is on one side of what they teach.
    rows, labels = clusters(40, labels=2, seed=3)
    texts, gold = clusters(100, labels=2, seed=4)
    far = rows + 6.0 * (np.eye(2, 12)[0] - np.eye(2, 12)[1])
    names = np.zeros((2, 12))
    moved = first_opinion(texts, far, labels.tolist(), [False] * 80, [1.0] * 80, names)
    assert (moved.argmax(axis=1) == gold).mean() > 0.9
    gold_rows = first_opinion(texts, far, labels.tolist(), [True] * 80, [1.0] * 80, names)
    assert (gold_rows.argmax(axis=1) == gold).mean() < 0.7


def test_names_alone_are_a_start() -> None:
    texts, gold = clusters(50, labels=3)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    found = first_opinion(texts, np.zeros((0, 12)), [], [], [], np.eye(3, 12))
    assert (found.argmax(axis=1) == gold).mean() > 0.9


def test_the_regression_is_sklearns() -> None:
    from sklearn.linear_model import LogisticRegression

    features, gold = clusters(30, apart=1.0)
    weights = np.random.default_rng(0).uniform(0.2, 2, len(gold))
    weight, bias = softmax_regression(features, np.eye(3)[gold], weights, ridge=0.01)
    other = LogisticRegression(C=1 / (0.01 * weights.sum()), tol=1e-8, max_iter=1000).fit(features, gold, weights)
    np.testing.assert_allclose(weight, other.coef_, atol=1e-3)
    np.testing.assert_allclose(bias - bias.mean(), other.intercept_ - other.intercept_.mean(), atol=1e-3)


def test_trust_is_high_where_clusters_are_labels_and_low_where_they_are_not() -> None:
    texts, gold = clusters(60)
    order = np.random.default_rng(2).permutation(len(gold))
    texts, gold = texts[order], gold[order]
    start = noisy(gold, 3, 0.6)
    assert trust(texts, start, gold[:40].tolist()) > 0.9
    other = np.random.default_rng(3).integers(3, size=len(gold))  # labels that have nothing to do with the clusters
    assert trust(texts, noisy(other, 3, 0.6), other[:40].tolist()) < 0.1


def test_mixtures_of_clusters_agree_and_those_of_a_cloud_do_not() -> None:
    rows, labels = clusters(40, labels=3, seed=5)
    names, weights = np.zeros((3, 12)), [1.0] * 120
    order = np.random.default_rng(1).permutation(120)
    rows, told = rows[order], labels[order].tolist()
    assert agreement(clusters(100, labels=3, seed=6)[0], rows, told, weights, names) > 0.95
    rng = np.random.default_rng(7)
    cloud, noise = rng.normal(size=(300, 12)), rng.integers(3, size=120).tolist()
    assert agreement(cloud, rng.normal(size=(120, 12)), noise, weights, names) < 0.7


def test_halves_of_many_rows_agree_in_what_their_writer_gets_wrong_and_those_of_few_do_not() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(2), 300)
    rows = rng.normal(size=(600, 12)) + 0.7 * np.outer(2 * labels - 1, np.eye(12)[0])
    texts, told, weights, names = rng.normal(size=(300, 12)), labels.tolist(), [1.0] * 600, np.zeros((2, 12))
    assert agreement(texts, rows, told, weights, names) > 0.8
    assert agreement(texts, rows, told, weights, names, rows_each=FEW_ROWS, draws=DRAWS_OF_FEW) < 0.65
    # Where real texts lie together, few rows are enough to tell which is which.
    apart, _ = clusters(100, labels=2, seed=6)
    ours, gold = clusters(300, labels=2, seed=5)
    assert agreement(apart, ours, gold.tolist(), weights, names, rows_each=FEW_ROWS, draws=DRAWS_OF_FEW) > 0.95


def test_what_halves_say_is_the_same_in_whatever_order_labels_follow_each_other() -> None:
    """Rows are written for one label after the other: every other row of them has every other label alone."""
    rows, labels = clusters(40, labels=4, seed=5, apart=3.0)
    others, gold = clusters(60, labels=4, seed=6, apart=3.0)
    names, weights = np.zeros((4, 12)), [1.0] * 160
    in_turn = np.arange(160).reshape(4, 40).T.ravel()
    blind, start = noisy(labels, 4, 0.1, seed=2), noisy(gold, 4, 0.1)
    found, trusted = [], []
    for order in (np.arange(160), in_turn):
        own, told = rows[order], labels[order].tolist()
        found.append(agreement(others, own, told, weights, names))
        trusted.append(trust(np.concatenate([own, others]), np.concatenate([blind[order], start]), told))
    assert found[1] == pytest.approx(found[0])
    assert found[1] > 0.95
    assert trusted[1] == pytest.approx(trusted[0])


def test_an_even_opinion_gives_every_label_its_share_of_the_texts() -> None:
    _, gold = clusters(100)
    leaning = np.log(noisy(gold, 3, 0.9)) + np.array([2.0, 0.0, -1.0])
    leaning = np.exp(leaning) / np.exp(leaning).sum(axis=1, keepdims=True)
    even = even_opinion(leaning)
    np.testing.assert_allclose(even.sum(axis=1), 1)
    np.testing.assert_allclose(even.mean(axis=0), 1 / 3, atol=0.01)
    assert (even.argmax(axis=1) == gold).mean() > (leaning.argmax(axis=1) == gold).mean() + 0.2
    assert np.isfinite(even_opinion(np.eye(3)[gold])).all(), "an opinion without doubt"
    doubtful = np.full((6, 3), 1 / 3)
    np.testing.assert_allclose(even_opinion(doubtful, [0.7, 0.2, 0.1]), [[0.7, 0.2, 0.1]] * 6)


def test_labels_stay_as_common_as_the_texts_have_them_where_these_tell() -> None:
    """Equal shares cut the cluster of a common label in pieces; the texts are likelier whole."""
    texts, gold = clusters(100)
    rare = np.concatenate([np.flatnonzero(gold == 0), np.flatnonzero(gold == 1)[:6], np.flatnonzero(gold == 2)[:6]])
    logits = 4 * np.eye(3)[gold[rare]] + np.random.default_rng(4).normal(scale=1.5, size=(len(rare), 3))
    opinion = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    even, settled = even_opinion(opinion), settled_opinion(texts[rare], opinion)
    np.testing.assert_allclose(settled, opinion)
    assert (settled.argmax(axis=1) == gold[rare]).mean() > (even.argmax(axis=1) == gold[rare]).mean()

    leaning = np.log(noisy(gold, 3, 0.9)) + np.array([2.0, 0.0, -1.0])
    leaning = np.exp(leaning) / np.exp(leaning).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(settled_opinion(texts, leaning), even_opinion(leaning))
    known = [0.5, 0.3, 0.2]
    np.testing.assert_allclose(settled_opinion(texts, leaning, known), even_opinion(leaning, known))
    assert settled_opinion(texts[:0], leaning[:0], known).shape == (0, 3)


def test_the_log_likelihood_is_that_of_the_densities() -> None:
    from scipy.stats import multivariate_normal

    texts, gold = clusters(30)
    mixture = fit_mixture(texts, noisy(gold, 3, 0.9), rounds=2)
    covariance = np.linalg.inv(mixture.precision)
    densities = [
        share * multivariate_normal(mean, covariance).pdf(texts)
        for share, mean in zip(mixture.shares, mixture.means, strict=True)
    ]
    constant = 0.5 * texts.shape[1] * np.log(2 * np.pi)
    assert mixture.log_likelihood(texts) == pytest.approx(np.log(sum(densities)).mean() + constant)
