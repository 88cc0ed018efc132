"""The vectors by which texts are near to labels: those of the labels' words, moved where words alone mislead.

What only denies another label lies, to an encoder, where that label lies (`potstill.language.label_words.denials`). And
the points of a scale lie on no line: "neutral" is nearer to some text than "negative" and "positive" for reasons that
have nothing to do with what is measured. So the vectors of ordered labels are drawn towards the line that fits them
best, on which a text's place is one number (a stereotype model: Anderson, Journal of the Royal Statistical Society B
46(1), 1984).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.language.label_words import denials
from potstill.task import TaskSpec

# Of the vector of a label that only denies another: half leaves topics found and still tells glad from not glad.
_DENIAL_SHARE = 0.5
# How far ordered labels are drawn to their line, and by how much their differences grow, which are small on it.
_LINE_SHARE = 0.75
_LINE_SPREAD = 2.0


def near_vectors(spec: TaskSpec, vectors: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Vectors by which texts are near to labels.

    Args:
        spec: The task.
        vectors: (n_labels, width) of the labels' words, of unit length.
        other: (width,) that of `OTHER`, of unit length.

    Returns:
        An array of the same shape. Rows of `denials` are half as long and half way to that of "other"; rows of ordered
        labels are drawn to a line (`on_a_line`); all others are as they were.
    """
    denied = denials(spec)
    found = vectors.copy()
    for row, name in enumerate(spec.label_names):
        if name in denied:
            found[row] = _DENIAL_SHARE * (vectors[row] + other) / 2
    return on_a_line(found, spec.ordered) if spec.ordered else found


def on_a_line(vectors: NDArray[Any], order: Sequence[int]) -> NDArray[Any]:
    """Vectors drawn three quarters of the way to the line of their least squares, their differences doubled.

    Args:
        vectors: (n_labels, width).
        order: The place of each on its scale.

    Examples:
        >>> on_a_line(np.array([[0.0, 1.0], [0.0, 0.0], [2.0, 1.0]]), [0, 1, 2]).round(2).tolist()
        [[-1.17, 0.83], [0.33, 0.33], [2.83, 0.83]]
    """
    places = np.asarray(order, dtype=np.float64)
    places = places - places.mean()
    middle = vectors.mean(axis=0)
    slope = places @ (vectors - middle) / max(float(places @ places), 1e-12)
    drawn = (1 - _LINE_SHARE) * (vectors - middle) + _LINE_SHARE * places[:, None] * slope
    return np.asarray(middle + _LINE_SPREAD * drawn, dtype=vectors.dtype)
