"""Scores of labels that stand in an order, where it matters how far an answer lies from the right one.

What enters: confusions as `potstill.train.metrics.confusion` gives them, and the place of each label on its scale
(`TaskSpec.ordered`). What leaves: the mean absolute error in steps of the scale, and Cohen's kappa with quadratic
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from potstill.train.metrics import Floats, Ints


def mean_distance(counts: Ints, order: Sequence[int]) -> Floats:
    """Mean absolute error in steps of a scale: how far answers lie from the right label.

    Args:
        counts: (..., n_labels, n_labels + 1) as `confusion` gives them.
        order: The place of each label on the scale. An answer that is no label lies as far off as one can.

    Returns:
        (...) float64: 0 where all are right; NaN of no rows.

    Examples:
        >>> from potstill.train.metrics import confusion
        >>> float(mean_distance(confusion(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0]), 3), [0, 1, 2]))
        0.75
    """
    return _mean(counts, _steps(order))


def quadratic_kappa(counts: Ints, order: Sequence[int]) -> Floats:
    """Cohen's kappa with quadratic weights: agreement beyond chance, where far answers count more than near ones.

    Args:
        counts: (..., n_labels, n_labels + 1) as `confusion` gives them.
        order: The place of each label on the scale.

    Returns:
        (...) float64 in [-1, 1]: 1 where all are right, 0 where it is as by chance, and where gold and answers are one
        label each (as scikit-learn has it, 0 unless they agree).

    Source: Cohen, Psychological Bulletin 70(4), 1968; weights as in `cohen_kappa_score(weights="quadratic")`.

    Examples:
        >>> from potstill.train.metrics import confusion
        >>> float(quadratic_kappa(confusion(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1]), 3), [0, 1, 2])).__round__(3)
        0.8
    """
    weights = _steps(order) ** 2
    rows = np.maximum(counts.sum((-2, -1)), 1)
    by_chance = np.einsum("...i,...j,ij->...", counts.sum(-1), counts.sum(-2), weights) / rows**2
    found = _mean(counts, weights)
    chance_none = by_chance == 0
    ratio = np.divide(found, by_chance, out=np.zeros_like(found), where=~chance_none)
    return np.asarray(np.where(chance_none, (found == 0).astype(np.float64), 1 - ratio))


def _steps(order: Sequence[int]) -> Floats:
    """(n_labels, n_labels + 1) distances; the last column is that of an answer that is no label."""
    places = np.asarray(order, dtype=np.float64)
    steps = np.abs(places[:, None] - places[None])
    return np.concatenate([steps, steps.max(1, keepdims=True)], 1)


def _mean(counts: Ints, weights: Floats) -> Floats:
    rows = counts.sum((-2, -1))
    return np.asarray((counts * weights).sum((-2, -1)) / np.where(rows, rows, np.nan), dtype=np.float64)


#: The figures by the names that they have in `scores.json`.
ORDINAL: dict[str, Callable[[Ints, Sequence[int]], Floats]] = {"qwk": quadratic_kappa, "mae": mean_distance}


def ordinal_of_draws(name: str, gold: Ints, predicted: Ints, order: Sequence[int]) -> Callable[[Ints], Floats]:
    """A scorer for `bootstrap_interval`: one of `ORDINAL` of each draw.

    Args:
        name: Which.
        gold: (n,) label indices.
        predicted: (n,) label indices; -1 is no label.
        order: The place of each label on the scale.
    """
    counted = _confusions_of_draws(gold, predicted, len(order))
    return lambda draws: ORDINAL[name](counted(draws), order)


def _confusions_of_draws(gold: Ints, predicted: Ints, n_labels: int) -> Callable[[Ints], Ints]:
    """(draws, n_labels, n_labels + 1) confusions of draws of rows; for few labels."""
    cells = gold * (n_labels + 1) + np.where(predicted < 0, n_labels, predicted)
    size = n_labels * (n_labels + 1)

    def counted(draws: Ints) -> Ints:
        offset = np.arange(len(draws))[:, None] * size
        flat = np.bincount((cells[draws] + offset).ravel(), minlength=len(draws) * size)
        return flat.reshape(len(draws), n_labels, n_labels + 1).astype(np.int64)

    return counted
