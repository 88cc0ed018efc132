"""Labels for inputs of several fields that are to be compared: by how the fields' embeddings differ.

A sentence encoder that reads two fields as one text tells what they are about; whether the one follows from the other,
or says the same, is told by how their own embeddings differ. On sick (inference over two sentences, 384 wide
embeddings, 100 labels, 800 other rows of its training split, mean of four draws) a softmax regression reaches a
macro-F1 of .475 on both sentences as one text, .444 on |u - v|'s parts u and v side by side, .763 on |u - v| and .785
on |u - v| with u·v; a fine-tuned student reaches .65.

Where fields are not compared (a title and a text), the difference tells less than the whole. So a person's labels
decide: in five parts, each foreseen from the others, by the difference and by the whole. The difference labels texts
where it agrees with the answers, and is right more often than the whole, or makes them likelier, by more than chance
would have it. It did so on seventeen draws of 40 to 100 rows of sick, on a hundred rated pairs of sentences, and on
pairs of real messages and commands that share an intent or do not (banking77, snips); on none of twelve draws of boolq
(a question and a passage), and on none of ag_news with a news item's first words and the rest as fields.

Source: |u - v| beside the parts, InferSent, arXiv:1705.02364 §3, and Sentence-BERT, arXiv:1908.10084 §3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from potstill.datagen.calibration import log_softmax
from potstill.rows import split_fields
from potstill.task.regression import balanced_offsets, kappa, softmax_regression

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from potstill.models import TextEncoder

# Answers must be foreseen this far above chance (Cohen's kappa), and by the difference better than by the whole by this
# many deviations of the mean over rows.
LEAST_KAPPA, LEAST_DEVIATIONS = 0.25, 2.0
_RIDGE = 0.1
_PARTS, _DRAWS = 5, 5
# So that one row of which an opinion was sure and wrong does not outweigh all others.
_FLOOR = 0.02


@dataclass(frozen=True)
class Weighed:
    """Difference of fields and fields as one text, by labelled rows of which each fifth is foreseen from the others.

    Attributes:
        leads: Whether the difference is to be asked.
        kappa: How far it agrees with the labels above chance, Cohen's kappa.
        whole: How far both fields as one text do.
    """

    leads: bool
    kappa: float
    whole: float


@dataclass(frozen=True)
class Compared:
    """What a difference of fields says.

    Attributes:
        probs: (n_texts, n_labels) float64, rows sum to 1, or to 0 where a text lacks a field.
        weighed: Why it is believed.
    """

    probs: NDArray[np.float64]
    weighed: Weighed


def differences(fields: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """|u - v| and u·v of every two fields.

    Args:
        fields: Two or more arrays of (n, width), embeddings of one field each.

    Returns:
        (n, pairs · (width + 1)) float64.
    """
    import numpy as np

    parts = []
    for first, second in combinations(fields, 2):
        parts += [np.abs(first - second), (first * second).sum(axis=1, keepdims=True)]
    return np.asarray(np.concatenate(parts, axis=1), dtype=np.float64)


def embed_differences(rows: Sequence[tuple[str, ...]], encoder: TextEncoder) -> NDArray[np.float64]:
    """`differences` of the fields of each row; a text that several rows have is embedded once."""
    import numpy as np

    own = list(dict.fromkeys(field for row in rows for field in row))
    place = {text: i for i, text in enumerate(own)}
    vectors = np.asarray(encoder.encode(own), dtype=np.float64)
    return differences([vectors[[place[text] for text in column]] for column in zip(*rows, strict=True)])


def weigh(
    differ: NDArray[np.float64], whole: NDArray[np.float64], labels: NDArray[np.int64], n_labels: int, seed: int = 0
) -> Weighed:
    """Whether labels are foreseen from each other by the difference of fields, and better than by the whole.

    Args:
        differ: (n, …) differences of labelled rows.
        whole: (n, width) embeddings of the same rows as one text each.
        labels: (n,) their label indices.
        n_labels: How many labels the task has.
        seed: Decides how rows fall into parts.
    """
    if len(labels) < 2 * _PARTS or len(set(labels.tolist())) < 2:
        return Weighed(False, 0.0, 0.0)
    seen, whole_seen = (_foreseen(points, labels, n_labels, seed) for points in (differ, whole))
    first, second = (kappa(labels, probs.argmax(axis=1), n_labels) for probs in (seen, whole_seen))
    leads = first >= max(LEAST_KAPPA, second) and _ahead(seen, whole_seen, labels) > LEAST_DEVIATIONS
    return Weighed(leads, first, second)


def opinion(
    points: NDArray[np.float64], labels: NDArray[np.int64], others: NDArray[np.float64], n_labels: int
) -> NDArray[np.float64]:
    """Probabilities of the labels of rows, by those of others: (len(others), n_labels); 0 of a label that none has.

    Args:
        points: (n, width) of rows with a label.
        labels: (n,) their label indices.
        others: (m, width) of rows without.
        n_labels: How many labels the task has.
    """
    import numpy as np

    met, counts = np.unique(labels, return_counts=True)
    centre, spread = points.mean(axis=0), max(float(points.std()), 1e-12)
    targets = (labels[:, None] == met[None]).astype(np.float64)
    # Rare labels weigh more, by the root of how rare they are: macro-F1 of .791 for .783 on sick, the worst draw .771
    # for .739 (twelve draws of 80 rows).
    weights, biases = softmax_regression(
        (points - centre) / spread, targets, targets @ counts.astype(np.float64) ** -0.5, ridge=_RIDGE
    )
    probs = np.zeros((len(others), n_labels))
    probs[:, met] = np.exp(log_softmax((others - centre) / spread @ weights.T + biases))
    return probs


def as_common_as(probs: NDArray[np.float64], prior: Sequence[float]) -> NDArray[np.float64]:
    """Probabilities moved, each label by one factor, until their mean over the texts is the prior.

    Args:
        probs: (n, n_labels), n at least 1; a label that is 0 everywhere stays so, and its share goes to the others.
        prior: Share of each label, above 0.
    """
    import numpy as np

    met = probs.any(axis=0)
    scores = np.log(probs[:, met] + 1e-300)
    shares = np.asarray(prior, dtype=np.float64)[met]
    moved = np.zeros_like(probs)
    moved[:, met] = np.exp(log_softmax(scores - balanced_offsets(scores, shares=shares / shares.sum())))
    return moved


def compare_fields(
    names: Sequence[str],
    texts: Sequence[str],
    rows: Sequence[str],
    labels: Sequence[int],
    n_labels: int,
    encoder: TextEncoder,
    *,
    prior: Sequence[float] | None = None,
    seed: int = 0,
) -> Compared | None:
    """Label texts by how their fields differ, where labelled rows say that this is what the labels are about.

    Args:
        names: Names of the input's fields.
        texts: Inputs without labels, as `potstill.rows.join_fields` writes them.
        rows: Inputs with a person's label.
        labels: Label index of each row.
        n_labels: How many labels the task has.
        encoder: Sentence encoder.
        prior: Share of each label among the texts, above 0, where it is known.
        seed: Decides how rows fall into parts.

    Returns:
        None where an input has one field, where too few rows have all fields, or where the difference does not foresee
        the labels of rows better than the whole.
    """
    import numpy as np

    split = {place: fields for place, row in enumerate(rows) if (fields := split_fields(row, names)) is not None}
    if len(names) < 2 or not split:
        return None
    told = np.asarray([labels[place] for place in split], dtype=int)
    known = embed_differences(list(split.values()), encoder)
    whole = np.asarray(encoder.encode([rows[place] for place in split]), dtype=np.float64)
    weighed = weigh(known, whole, told, n_labels, seed)
    if not weighed.leads:
        return None
    probs = np.zeros((len(texts), n_labels))
    parts = {place: fields for place, text in enumerate(texts) if (fields := split_fields(text, names)) is not None}
    if parts:
        found = opinion(known, told, embed_differences(list(parts.values()), encoder), n_labels)
        probs[list(parts)] = found if prior is None else as_common_as(found, prior)
    return Compared(probs, weighed)


def _foreseen(points: NDArray[np.float64], labels: NDArray[np.int64], n_labels: int, seed: int) -> NDArray[np.float64]:
    """Probabilities of each row's labels, foreseen from the other parts: (n, n_labels).

    The mean over several draws of the parts, since one draw says little of a hundred rows.
    """
    import numpy as np

    probs = np.zeros((len(points), n_labels))
    draw = np.random.default_rng(seed)
    for _ in range(_DRAWS):
        order = draw.permutation(len(points))
        for part in range(_PARTS):
            held, others = order[part::_PARTS], np.delete(order, np.s_[part::_PARTS])
            probs[held] += opinion(points[others], labels[others], points[held], n_labels) / _DRAWS
    return probs


def _ahead(seen: NDArray[np.float64], whole: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """By how many deviations the one is better than the other: right more often, or the labels likelier by it."""
    import numpy as np

    rows = np.arange(len(labels))
    right = (seen.argmax(axis=1) == labels).astype(float) - (whole.argmax(axis=1) == labels)
    likelier = np.log(seen[rows, labels] + _FLOOR) - np.log(whole[rows, labels] + _FLOOR)
    # One row that would be otherwise is the least that a deviation can be.
    least = len(rows) ** -0.5
    return max(float(gain.mean() / max(float(gain.std()), least) * len(rows) ** 0.5) for gain in (right, likelier))
