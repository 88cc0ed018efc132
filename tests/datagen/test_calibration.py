"""Calibration: what must move, moves; what must not, does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.datagen.calibration import RULES, Calibration, estimate_prior, fit_calibration, weighed_by
from potstill.datagen.soft import SoftOptions, calibrate_texts
from potstill.errors import OptionError
from potstill.task import Label, TaskSpec


def biased_scores(rng: np.random.Generator, n: int = 600, bias: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that know the label but lean by `bias` nats to the first one."""
    gold = rng.integers(0, 3, n)
    scores = rng.normal(0, 1, (n, 3)) - 20
    scores[np.arange(n), gold] += 3
    scores[:, 0] += bias
    return scores, gold


@pytest.mark.parametrize("rule", ["batch", "balanced"])
def test_calibration_takes_a_bias_out_and_stays_frozen(rule: Any) -> None:
    rng = np.random.default_rng(0)
    train, gold = biased_scores(rng)
    test, test_gold = biased_scores(rng)
    raw = (train.argmax(1) == gold).mean()
    fitted = fit_calibration(train, rule=rule)
    assert (fitted.apply(train).argmax(1) == gold).mean() > raw + 0.2
    assert (fitted.apply(test).argmax(1) == test_gold).mean() > raw + 0.2
    one = fitted.apply(test[:1])
    assert np.allclose(one, fitted.apply(test)[:1])  # nothing is re-fitted on the texts it is applied to


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(RULES), st.integers(2, 6), st.integers(1, 30), st.integers(0, 10_000))
def test_probabilities_sum_to_one_and_survive_json(rule: Any, labels: int, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(-30, 15, (rows, labels))
    order = rng.permutation(labels).tolist() if seed % 2 else ()
    fitted = fit_calibration(scores, rule=rule, reference=scores[:2], prior=rng.random(labels), order=order)
    assert fitted.order == (tuple(order) if rule != "raw" else ())
    probs = fitted.apply(scores)
    assert np.allclose(probs.sum(1), 1)
    assert (probs >= 0).all()
    again = Calibration.from_json(fitted.to_json())
    assert again == fitted
    shifted = fitted.apply(scores + rng.normal(0, 50, (rows, 1)))  # one constant a text changes nothing
    assert np.allclose(probs, shifted, atol=1e-6)


def graded_scores(rng: np.random.Generator, n: int, sure: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of five points whose teacher likes two of them, and is `sure` nats a step of how good a text is."""
    gold = rng.integers(0, 5, n)
    place = gold + rng.normal(0, 0.5, n)
    steps = (np.arange(5) - 2) * (place[:, None] - 2) * sure
    return steps + rng.normal(0, noise, (n, 5)) + np.array([-4.0, 3.0, -3.0, 4.0, -4.0]), gold


def test_points_of_a_scale_tell_more_together() -> None:
    rng = np.random.default_rng(0)
    train, _ = graded_scores(rng, 400, sure=0.7, noise=1.0)
    test, gold = graded_scores(rng, 800, sure=0.7, noise=1.0)
    alone = fit_calibration(train).apply(test).argmax(1)
    together = fit_calibration(train, order=range(5)).apply(test).argmax(1)
    assert (together == gold).mean() > (alone == gold).mean() + 0.05
    assert np.abs(together - gold).mean() < np.abs(alone - gold).mean() - 0.1


def test_a_teacher_that_is_sure_of_each_point_stays_so() -> None:
    rng = np.random.default_rng(1)
    gold = rng.choice(5, 600, p=[0.05, 0.1, 0.2, 0.4, 0.25])
    place = gold + rng.normal(0, 0.2, 600)
    scores = -2 * (np.arange(5) - place[:, None]) ** 2 + rng.normal(0, 0.5, (600, 5))
    alone = (fit_calibration(scores).apply(scores).argmax(1) == gold).mean()
    together = (fit_calibration(scores, order=range(5)).apply(scores).argmax(1) == gold).mean()
    assert alone > 0.8
    assert together > alone - 0.02


def test_the_order_is_that_of_the_places() -> None:
    scores, _ = graded_scores(np.random.default_rng(2), 300, sure=0.7, noise=1.0)
    order = [3, 0, 4, 1, 2]
    plain = fit_calibration(scores, order=range(5)).apply(scores)
    shuffled = fit_calibration(scores[:, order], order=order).apply(scores[:, order])
    assert np.allclose(shuffled, plain[:, order])


def test_balanced_meets_the_shares() -> None:
    scores, _ = biased_scores(np.random.default_rng(1))
    assert np.allclose(fit_calibration(scores, rule="balanced").apply(scores).mean(0), 1 / 3, atol=1e-4)


def test_balanced_meets_a_stated_prior_on_texts_that_have_it() -> None:
    prior = [0.7, 0.2, 0.1]
    scores, _ = biased_scores(np.random.default_rng(1))
    fitted = fit_calibration(scores, rule="balanced", prior=prior)
    assert np.allclose(fitted.apply(scores).mean(0), prior, atol=1e-4)
    # Where the texts are weighed to equal shares, the prior is only applied.
    told = fit_calibration(scores, rule="balanced", prior=prior, weights=[1.0] * len(scores))
    assert np.allclose(told.offsets, fit_calibration(scores, rule="balanced").offsets, atol=1e-6)


def drawn(shares: list[float], strength: float, seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities under equal shares, calibrated as such, of texts drawn with `shares`; and their labels."""
    rng = np.random.default_rng(seed)
    gold = rng.choice(len(shares), n, p=shares)
    centres = strength * np.eye(len(shares))
    logits = (rng.normal(0, 1, (n, len(shares))) + centres[gold]) @ centres.T  # the log-likelihood of unit Gaussians
    probs = np.exp(logits - logits.max(1, keepdims=True))
    return probs / probs.sum(1, keepdims=True), gold


def macro_f1(gold: np.ndarray, told: np.ndarray, labels: int) -> float:
    from potstill.train import metrics

    return float(metrics.macro_f1(metrics.confusion(gold, told, labels)))


@pytest.mark.parametrize("strength", [1.0, 1.5, 2.5])
@pytest.mark.parametrize("shares", [[0.87, 0.13], [0.8, 0.15, 0.05], [0.6, 0.2, 0.1, 0.1]])
def test_an_estimated_prior_helps_where_the_labels_are_uneven(shares: list[float], strength: float) -> None:
    gains, likelier = [], []
    for seed in range(8):
        probs, gold = drawn(shares, strength, seed)
        found = estimate_prior(probs)
        assert sum(found) == pytest.approx(1)
        # Nearer to the truth than uniform is, and never beyond it by much.
        assert np.abs(np.subtract(found, shares)).sum() < 0.6 * np.abs(np.subtract(shares, 1 / len(shares))).sum()
        better = weighed_by(probs, found)
        gains.append((better.argmax(1) == gold).mean() - (probs.argmax(1) == gold).mean())
        rows = np.arange(len(gold))
        likelier.append(np.log(better[rows, gold]).mean() - np.log(probs[rows, gold]).mean())
    assert np.mean(gains) > 0.01
    assert np.mean(likelier) > 0.02


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("labels", [2, 4])
def test_an_estimated_prior_does_no_harm_where_they_are_even(labels: int, strength: float) -> None:
    changes, f1 = [], []
    for seed in range(8):
        probs, gold = drawn([1 / labels] * labels, strength, seed)
        found = estimate_prior(probs)
        assert max(found) < 1.35 / labels
        better = weighed_by(probs, found)
        changes.append((better.argmax(1) == gold).mean() - (probs.argmax(1) == gold).mean())
        f1.append(macro_f1(gold, better.argmax(1), labels) - macro_f1(gold, probs.argmax(1), labels))
    assert np.mean(changes) > -0.01
    assert np.mean(f1) > -0.015


def test_probabilities_that_say_nothing_leave_the_prior_uniform() -> None:
    flat = np.full((50, 3), 1 / 3) + np.random.default_rng(0).normal(0, 0.01, (50, 3))
    assert np.allclose(estimate_prior(flat), 1 / 3, atol=0.1)
    assert estimate_prior(np.full((4, 2), np.nan)) == (0.5, 0.5)


@pytest.mark.parametrize("texts", [1, 2, 3])
def test_a_text_or_three_say_nothing_of_how_common_labels_are(texts: int) -> None:
    assert estimate_prior(np.array([[0.97, 0.03]] * texts)) == (0.5, 0.5)
    assert max(estimate_prior(np.array([[0.97, 0.03]] * 12))) > 0.9


def test_a_prior_weighs_probabilities() -> None:
    assert np.allclose(weighed_by(np.array([[0.5, 0.5]]), [0.9, 0.1]), [[0.9, 0.1]])


def test_batch_calibration_of_uneven_texts_needs_their_prior() -> None:
    """What hurt on short-message spam: 87 of 100 texts are ham, and batch calibration supposes 50."""
    probs, gold = drawn([0.87, 0.13], 1.5, 0)
    scores = np.log(probs) + [0.0, 1.0]  # the teacher leans to spam
    known, _ = drawn([0.5, 0.5], 1.5, 1)
    frozen = fit_calibration(np.log(known) + [0.0, 1.0], rule="balanced")
    accuracy = {}
    labels = (Label("red"), Label("green"))
    for name, spec in {
        "uniform": TaskSpec("t", "x", "classification", labels),
        "told": TaskSpec("t", "x", "classification", labels, label_prior={"red": 0.87, "green": 0.13}),
        "estimated": TaskSpec("t", "x", "classification", labels, estimate_prior=True),
    }.items():
        fitted = calibrate_texts(spec, scores, None, SoftOptions(), frozen)  # type: ignore[arg-type]
        accuracy[name] = (fitted.apply(scores).argmax(1) == gold).mean()
    best = (weighed_by(probs, [0.87, 0.13]).argmax(1) == gold).mean()
    assert accuracy["uniform"] < best - 0.1
    assert accuracy["told"] > best - 0.03
    assert accuracy["estimated"] > best - 0.03


def test_batch_is_its_formula() -> None:
    scores, _ = biased_scores(np.random.default_rng(2), n=50)
    p = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
    expected = p / p.mean(0)
    expected /= expected.sum(1, keepdims=True)
    assert np.allclose(fit_calibration(scores, rule="batch").apply(scores), expected)
    prior = np.array([0.7, 0.2, 0.1])
    with_prior = p / p.mean(0) * prior
    with_prior /= with_prior.sum(1, keepdims=True)
    assert np.allclose(fit_calibration(scores, rule="batch", prior=prior).apply(scores), with_prior)


@pytest.mark.parametrize("rule", ["batch", "balanced"])
def test_weights_keep_an_uneven_batch_uneven(rule: Any) -> None:
    """Texts that are mostly one label must not have that label calibrated away."""
    rng = np.random.default_rng(3)
    gold = rng.choice(3, 900, p=[0.8, 0.1, 0.1])
    scores = rng.normal(0, 1, (900, 3))
    scores[np.arange(900), gold] += 2
    told = fit_calibration(scores, rule=rule, weights=1 / np.bincount(gold)[gold])
    blind = fit_calibration(scores, rule=rule)
    assert abs(np.ptp(told.offsets)) < 0.3 * abs(np.ptp(blind.offsets))


def test_rows_without_scores_get_the_prior() -> None:
    fitted = fit_calibration(np.zeros((4, 2)), prior=[0.75, 0.25])
    assert np.allclose(fitted.apply(np.array([[np.nan, 1.0]])), [[0.75, 0.25]])


def test_mistakes_are_named() -> None:
    with pytest.raises(OptionError, match="'bach' is no calibration rule; did you mean 'batch'"):
        fit_calibration(np.zeros((2, 2)), rule="bach")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="contextual needs the scores of reference texts"):
        fit_calibration(np.zeros((2, 2)), rule="contextual")
    with pytest.raises(ValueError, match="the calibration has 2 labels"):
        fit_calibration(np.zeros((2, 2))).apply(np.zeros((2, 3)))


def test_offsets_from_elsewhere_leave_ordered_labels_as_common_as_they_are() -> None:
    rng = np.random.default_rng(3)
    place = rng.choice(5, 400, p=[0.6, 0.2, 0.1, 0.05, 0.05]) + rng.normal(0, 0.2, 400)
    scores = -2 * (np.arange(5) - place[:, None]) ** 2
    reference = np.zeros((2, 5))
    shares = fit_calibration(scores, rule="contextual", reference=reference, order=range(5)).apply(scores).mean(0)
    assert shares[0] > 0.5
    assert fit_calibration(scores, order=range(5)).apply(scores).mean(0)[0] < 0.6
