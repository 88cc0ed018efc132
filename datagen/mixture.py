"""Labels for real texts without labels: a Gaussian mixture in the sentence encoder's space, one part a label.

Rows that a small teacher wrote lie beside real texts, not among them, and many miss their label; real texts of one
label lie together. So what rows and label names say is only the start: a softmax regression on the rows, moved to the
texts' centre, times the nearness to the label names. From there EM fits one Gaussian a label to the texts themselves
(one covariance for all, shrunk towards a sphere). Texts whose label the user gave keep it in every round.

On the training splits of eleven tasks (1,000 texts without labels, macro-F1 on 500 others) the start reached .534 and
the mixture .622, with 100 labels .675; a softmax regression on the 1,000 real labels reached .737.

Labels of the user do more where they teach an encoder first and the mixture lies in the space that it has then. With
100 labelled texts among 1,500 of eight training splits (macro-F1 on 700 others, one seed), a student on the labels
alone reaches .732 and one on all texts, labelled by the mixture in its space, .746. On eleven tasks, texts that the
mixture in the untaught space labelled gave .674, the labels alone .697.

Sources: mixtures fitted from unlabelled texts, Nigam et al., Machine Learning 39, 2000; started from label names,
X-Class, Wang et al., arXiv:2010.12794 §3.3; shrinkage, Ledoit and Wolf, J. Multivariate Analysis 88, 2004.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from potstill.datagen.calibration import fit_calibration, log_softmax, weighed_by
from potstill.task.regression import softmax_regression

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROUNDS = 20
# Half of the covariance and half of the labels' shares are what one would suppose without texts.
SHRINKAGE = 0.5
# A label that a person gave counts as much as five that were written for.
GOLD_WEIGHT = 5.0
NAME_SHARPNESS = 20.0
# Nats a text by which the texts must be likelier under labels of unlike shares than under equally common ones.
_EVIDENT = 0.05
_RIDGE = 3e-3
# Rows of a label in a half that shows how much few rows say, and draws of such halves; other halves vary less.
FEW_ROWS, DRAWS_OF_FEW, _DRAWS = 15, 10, 5
_TEXTS_ASKED = 2000


@dataclass(frozen=True)
class TextMixture:
    """A fitted mixture.

    Attributes:
        means: (n_labels, width) float64.
        precision: (width, width) float64, the inverse of the one covariance.
        shares: (n_labels,) share of each label, sums to 1.
        rounds: EM rounds that were run.
    """

    means: NDArray[np.float64]
    precision: NDArray[np.float64]
    shares: NDArray[np.float64]
    rounds: int

    def probs(self, texts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of each label: (n, width) embeddings → (n, n_labels), rows sum to 1."""
        import numpy as np

        found: NDArray[np.float64] = np.exp(log_softmax(self._logits(texts)))
        return found

    def log_likelihood(self, texts: NDArray[np.float64]) -> float:
        """Mean log-density of texts in nats, but for a constant of the width: (n, width) embeddings."""
        import numpy as np

        own = -0.5 * np.einsum("nd,de,ne->n", texts, self.precision, texts)
        _, volume = np.linalg.slogdet(self.precision)
        return float((np.logaddexp.reduce(self._logits(texts), axis=1) + own).mean() + 0.5 * volume)

    def _logits(self, texts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-density of texts under each part times its share, but for what all parts have alike."""
        import numpy as np

        turned = self.means @ self.precision
        found: NDArray[np.float64] = (
            texts @ turned.T - 0.5 * np.einsum("kd,kd->k", turned, self.means) + np.log(self.shares)
        )
        return found


def fit_mixture(
    texts: NDArray[np.float64],
    start: NDArray[np.float64],
    *,
    known: Sequence[int | None] = (),
    prior: Sequence[float] | None = None,
    rounds: int = ROUNDS,
) -> TextMixture:
    """Fit one Gaussian a label by EM.

    Args:
        texts: (n, width) embeddings.
        start: (n, n_labels) first probabilities.
        known: Labels that stay, of the first texts; None where a text has none.
        prior: Share of each label where it is known; else it is estimated, half way to equal shares.
        rounds: EM rounds at most; it ends earlier when no probability moves by more than 1e-4.

    Returns:
        The mixture.

    Raises:
        ValueError: No texts.
    """
    import numpy as np

    if not len(texts):
        raise ValueError("a mixture needs texts")
    texts = np.asarray(texts, dtype=np.float64)
    probs = np.array(start, dtype=np.float64)
    n_labels, width = probs.shape[1], texts.shape[1]
    fixed = np.array([i for i, label in enumerate(known) if label is not None], dtype=int)
    given = np.eye(n_labels)[[label for label in known if label is not None]] if len(fixed) else None
    weights = np.ones(len(texts))
    weights[fixed] = GOLD_WEIGHT
    shares = np.full(n_labels, 1 / n_labels) if prior is None else np.asarray(prior, dtype=np.float64)
    scatter = (texts * weights[:, None]).T @ texts
    centre = weights @ texts / weights.sum()
    mixture = None
    for done in range(1, rounds + 1):
        if given is not None:
            probs[fixed] = given
        mass = weights[:, None] * probs
        sizes = mass.sum(axis=0)
        # A label that has lost its texts stays at the centre, with nothing to draw them back by but its share.
        means = (mass.T @ texts + 1e-6 * centre) / (sizes + 1e-6)[:, None]
        spread = (scatter - (means.T * sizes) @ means) / weights.sum()
        sphere = max(float(np.trace(spread)) / width, 1e-9) * np.eye(width)
        if prior is None:
            shares = (1 - SHRINKAGE) * sizes / sizes.sum() + SHRINKAGE / n_labels
        precision = np.linalg.inv((1 - SHRINKAGE) * spread + SHRINKAGE * sphere)
        mixture = TextMixture(means, precision, np.maximum(shares, 1e-9), done)
        fresh = mixture.probs(texts)
        moved = float(np.abs(fresh - probs).max())
        probs = fresh
        if moved < 1e-4:
            break
    assert mixture is not None
    return mixture


def trust(
    texts: NDArray[np.float64], start: NDArray[np.float64], labels: Sequence[int], prior: Sequence[float] | None = None
) -> float:
    """How far a mixture is to be believed, by labels that the user gave: in [0, 1].

    Two mixtures know half of the labels each and are asked for the others; the trust is the square of how far they are
    above chance.

    Args:
        texts: (n, width) embeddings; the first are the user's rows.
        start: (n, n_labels) first probabilities, those of the user's rows as if nobody had labelled them.
        labels: Labels of the user's rows.
        prior: As in `fit_mixture`.
    """
    import numpy as np

    gold, right, second = np.asarray(labels, dtype=int), 0, _second_half(labels)
    for half in (second, ~second):
        known = [label if own else None for label, own in zip(labels, half, strict=True)]
        found = fit_mixture(texts, start, known=known, prior=prior).probs(texts[: len(gold)]).argmax(axis=1)
        right += int((found == gold)[~half].sum())
    return above_chance(right / max(1, len(gold)), start.shape[1])


def above_chance(share: float, labels: int) -> float:
    """How far a share of right answers is above that of guessing, squared: in [0, 1]."""
    return max(0.0, (share - 1 / labels) / (1 - 1 / labels)) ** 2


def agreement(
    texts: NDArray[np.float64],
    rows: NDArray[np.float64],
    labels: Sequence[int],
    weights: Sequence[float],
    names: NDArray[np.float64],
    prior: Sequence[float] | None = None,
    *,
    rows_each: int | None = None,
    draws: int = _DRAWS,
) -> float:
    """How far two mixtures agree on the texts that start from one half of the rows each: a share in [0, 1].

    The mean over some draws of the halves: how far those of one draw agree says little (docs/log.md, "Texts of which
    the rows say nothing").

    Where the labels are no clusters of the encoder's space, EM goes wherever it is pushed. On training splits the two
    agreed on .86 to .96 of the texts of tasks that the mixture served well (AG News, Snips, subj, sms_spam, …) and on
    .62 to .75 of those of boolq, sick and go_emotions.

    Args:
        texts: (n, width) embeddings.
        rows: (m, width) embeddings of written rows.
        labels: Label of each row.
        weights: Weight of each row.
        names: (n_labels, width) embeddings of the label names.
        prior: As in `fit_mixture`.
        rows_each: Most rows of a label in a half; None takes all. Of many rows, halves agree in what their writer
            always gets wrong as well, so that their agreement tells of the texts' clusters, and not of how well they
            are told: `FEW_ROWS` are few enough.
        draws: How often halves are drawn.
    """
    import numpy as np

    same, gold = [], np.asarray(labels, dtype=int)
    if len(texts) > _TEXTS_ASKED:
        texts = texts[np.random.default_rng(0).choice(len(texts), _TEXTS_ASKED, replace=False)]
    for draw in range(draws):
        told, second = [], _second_half(labels, draw)
        for half in (~second, second):
            own = np.flatnonzero(half).tolist()
            if rows_each is not None:
                order = np.random.default_rng(draw).permutation(own)
                own = [int(i) for label in np.unique(gold) for i in order[gold[order] == label][:rows_each]]
            start = first_opinion(
                texts, rows[own], [labels[i] for i in own], [False] * len(own), [weights[i] for i in own], names
            )
            told.append(fit_mixture(texts, start, prior=prior).probs(texts).argmax(axis=1))
        same.append(float((told[0] == told[1]).mean()))
    return float(np.mean(same))


def _second_half(labels: Sequence[int], draw: int = 0) -> NDArray[np.bool_]:
    """Which of labelled rows are the second half, of each label half of the rows: (n,) bool.

    Rows that were written for one label after the other would fall apart by label if simply every other one were taken.
    """
    import numpy as np

    gold, second = np.asarray(labels, dtype=int), np.zeros(len(labels), dtype=bool)
    order = np.random.default_rng(draw).permutation(len(gold))
    second[order[np.argsort(gold[order], kind="stable")][1::2]] = True
    return second


def even_opinion(opinion: NDArray[np.float64], prior: Sequence[float] | None = None) -> NDArray[np.float64]:
    """Probabilities moved so that each label has as much of the texts as any other, and then weighed by the prior.

    Args:
        opinion: (n, n_labels) probabilities.
        prior: Share of each label where it is known; else they are supposed to be equally common.

    Returns:
        (n, n_labels) float64, rows sum to 1.

    On training splits (600 texts, macro-F1 of a softmax regression on them, on 800 others) it reached .241 on
    go_emotions, where the mixture reached .205 and the written rows alone .177, and .411 on sick (.353, .393); where
    halves of the rows agree on the mixture it is .01 to .04 behind it.
    """
    import numpy as np

    logs = np.log(np.maximum(opinion, 1e-12))
    return weighed_by(fit_calibration(logs, rule="balanced").apply(logs), prior)


def settled_opinion(
    texts: NDArray[np.float64], opinion: NDArray[np.float64], prior: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """An opinion with labels as common as the texts have them: equally (`even_opinion`), or as the opinion says.

    Where one label has most of the texts, equal shares cut its cluster in pieces. So both opinions are tried as a
    mixture of one round, and the texts must be clearly likelier under that of unlike shares for it to stand.

    Args:
        texts: (n, width) embeddings.
        opinion: (n, n_labels) probabilities of their labels.
        prior: Share of each label where it is known, which settles it.

    Returns:
        (n, n_labels) float64, rows sum to 1.

    On training splits (600 texts, macro-F1 on them; equal shares and unlike ones): Reuters' eight topics .306 and .550,
    Snips with 86 % of one intent .229 and .553, TREC with 85 % of one label .202 and .283, where unlike shares are
    likelier by .13 to 3.5 nats a text; Snips as it is .789 and .772, TREC .396 and .372, where they are less likely, or
    likelier by less than .02.
    """
    even = even_opinion(opinion, prior)
    if prior is not None or not len(texts):
        return even
    told = [fit_mixture(texts, probs, rounds=1).log_likelihood(texts) for probs in (opinion, even)]
    return opinion if told[0] > told[1] + _EVIDENT else even


def first_opinion(
    texts: NDArray[np.float64],
    rows: NDArray[np.float64],
    labels: Sequence[int],
    gold: Sequence[bool],
    weights: Sequence[float],
    names: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Where the mixture starts: what the rows teach about the texts, times how near these are to the label names.

    Args:
        texts: (n, width) embeddings of length 1.
        rows: (m, width) embeddings of labelled rows, of length 1.
        labels: Label of each row.
        gold: Whether a row is a real text with a person's label; the others are moved to the centre of the texts.
        weights: Weight of each row.
        names: (n_labels, width) embeddings of the label names, of length 1 but for those that `near_vectors` moved.

    Returns:
        (n, n_labels) float64, rows sum to 1.
    """
    import numpy as np

    places, real = np.asarray(labels, dtype=int), np.asarray(gold, dtype=bool)
    # Labels count alike among the rows, whatever their numbers; texts alone are supposed to hold them in like numbers.
    balance = (1.0 / np.maximum(np.bincount(places, minlength=len(names)), 1)[places]).tolist() if len(places) else None
    scores = NAME_SHARPNESS * ((rows if len(places) else texts) @ names.T)
    offsets = fit_calibration(scores, rule="balanced", weights=balance)
    near = np.log(np.maximum(offsets.apply(NAME_SHARPNESS * (texts @ names.T)), 1e-12))
    if not len(rows):
        alone: NDArray[np.float64] = np.exp(near)
        return alone
    moved = np.array(rows, dtype=np.float64)
    if (~real).any():
        moved[~real] += texts.mean(axis=0) - moved[~real].mean(axis=0)
    own = np.asarray(weights, dtype=np.float64) * np.where(real, GOLD_WEIGHT, 1.0)
    weight, bias = softmax_regression(moved, np.eye(len(names))[places], own, ridge=_RIDGE)
    found: NDArray[np.float64] = np.exp(log_softmax(log_softmax(texts @ weight.T + bias) + near))
    return found
