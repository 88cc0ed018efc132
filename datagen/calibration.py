"""Label scores to probabilities: a frozen correction for what a teacher likes to answer whatever it reads.

Scores are summed log-probs of whole label strings, never divided by their length. Every rule subtracts one offset a
label and renormalises:

    raw         none
    contextual  log p(y | content-free text)              Zhao et al., arXiv:2102.09690 §4
    dcpmi       log p(y | the question without a text)    Holtzman et al., arXiv:2104.08315 §3
    batch       log mean_x p(y | x)                       Zhou et al., arXiv:2309.17249 §4
    balanced    the offsets with which mean_x of the corrected p(y | x) is the same for each label

Scores of ordered labels (`TaskSpec.ordered`) are put on their scale behind the offsets: a text is where the labels'
expected place is, and a label is the less likely the farther it lies from there, by a normal density of half the mean
variance of the places. Then a rule that goes by the texts is applied once more. To a small model each point of a scale
is a label like any other; together the points tell far more than the likeliest of them (docs/log.md, "Points of a
scale").

Both of the last rules suppose that the labels are as common among the fitted texts as the prior says, which is uniform
unless told; where the texts' labels are known, weights make them equally common instead. What is fitted on training
texts is applied to test texts as it is.

A prior that nobody knows can be estimated (`estimate_prior`) where the offsets come from elsewhere than the texts: from
texts whose labels are known, or from content-free ones. Mean probabilities of the same texts hold the teacher's leaning
and the prior in one, and cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from potstill.datagen.soft_options import FormChoice
from potstill.errors import OptionError
from potstill.options import nearest
from potstill.task.regression import balanced_offsets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Rule = Literal["raw", "contextual", "dcpmi", "batch", "balanced"]
RULES: tuple[Rule, ...] = get_args(Rule)
_ROUNDS = 200
# Pseudo-texts for the uniform prior, as a share of the texts: where the probabilities say little, it stays.
SHRINKAGE = 0.1
# Of a teacher that is sure of every place.
_LEAST_VARIANCE = 0.05
_FEW = 8


@dataclass(frozen=True)
class Calibration:
    """A fitted correction.

    Attributes:
        rule: How it was fitted.
        offsets: Subtracted from each label's score, in nats.
        prior: Expected share of each label where it is applied; sums to 1.
        fitted_on: How many texts it was fitted on.
        form: How the scores were asked for (`SoftOptions.form`): offsets are good for no other form.
        order: The place of each label on its scale; empty where they stand in none, and for `raw`.
        variance: Mean variance of a text's place.
        along: Subtracted from each label's score on the scale, in nats.
    """

    rule: Rule
    offsets: tuple[float, ...]
    prior: tuple[float, ...]
    fitted_on: int = 0
    form: FormChoice = "auto"
    order: tuple[int, ...] = ()
    variance: float = 0.0
    along: tuple[float, ...] = ()

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of the labels.

        Args:
            scores: (n, n_labels) summed log-probs in nats; a row with NaN (no reply) gets the prior.

        Returns:
            (n, n_labels) float64, rows sum to 1.

        Raises:
            ValueError: Another number of labels than the calibration has.
        """
        import numpy as np

        scores = np.asarray(scores, dtype=np.float64)
        if scores.ndim != 2 or scores.shape[1] != len(self.offsets):
            raise ValueError(f"scores have shape {scores.shape}, the calibration has {len(self.offsets)} labels")
        prior = np.asarray(self.prior)
        logits = scores - np.asarray(self.offsets)
        if self.order:
            logits = _on_the_scale(logits, self.order, self.variance) - np.asarray(self.along)
        if self.rule != "raw":
            logits = logits + np.log(np.maximum(prior * len(prior), 1e-12))
        probs = np.exp(log_softmax(logits))
        probs[~np.isfinite(scores).all(axis=1)] = prior
        return cast("NDArray[np.float64]", probs)

    def to_json(self) -> dict[str, Any]:
        """JSON types only; `from_json` is the inverse."""
        return {
            "rule": self.rule,
            "offsets": list(self.offsets),
            "prior": list(self.prior),
            "fitted_on": self.fitted_on,
            "form": self.form,
            "order": list(self.order),
            "variance": self.variance,
            "along": list(self.along),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Calibration:
        """Rebuild what `to_json` wrote."""
        return Calibration(
            rule=value["rule"],
            offsets=tuple(float(item) for item in value["offsets"]),
            prior=tuple(float(item) for item in value["prior"]),
            fitted_on=int(value.get("fitted_on", 0)),
            form=value.get("form", "auto"),
            order=tuple(value.get("order", ())),
            variance=float(value.get("variance", 0.0)),
            along=tuple(float(item) for item in value.get("along", ())),
        )


def log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores minus their log-sum-exp, a row at a time: (n, n_labels) → the same."""
    import numpy as np

    top = scores - np.max(scores, axis=1, keepdims=True)
    return cast("NDArray[np.float64]", top - np.log(np.exp(top).sum(axis=1, keepdims=True)))


def fit_calibration(
    scores: NDArray[np.float64],
    *,
    rule: Rule = "batch",
    prior: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
    reference: NDArray[np.float64] | None = None,
    order: Sequence[int] = (),
) -> Calibration:
    """Fit a correction on the scores of some texts; no label is looked at.

    Args:
        scores: (n, n_labels) summed log-probs in nats; rows with NaN are left out.
        rule: See the module's text.
        prior: Expected share of each label where the correction will be applied; uniform by default.
        weights: Weight of each text in means, such as one over the number of texts with its label; equal by default.
        reference: (m, n_labels) scores of content-free texts (`contextual`) or of the question alone (`dcpmi`).
        order: The place of each label on its scale, where the labels are ordered.

    Returns:
        The correction.

    Raises:
        OptionError: An unknown rule.
        ValueError: A rule that needs `reference` got none, or a prior of another length.
    """
    import numpy as np

    if rule not in RULES:
        raise OptionError("soft", [f"rule: {rule!r} is no calibration rule{nearest(rule, RULES)}"])
    scores = np.asarray(scores, dtype=np.float64)
    count = scores.shape[1]
    wanted = _shares(prior, count)
    finite = np.isfinite(scores).all(axis=1)
    good = scores[finite]
    mass = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64)
    mass = mass[finite] / max(float(mass[finite].sum()), 1e-300)
    offsets = np.zeros(count)
    uniform = np.full(count, 1.0 / count)
    if rule in ("contextual", "dcpmi"):
        if reference is None or not np.isfinite(reference).all(axis=1).any():
            raise ValueError(f"the rule {rule} needs the scores of reference texts")
        usable = np.asarray(reference)[np.isfinite(reference).all(axis=1)]
        offsets = np.log(np.exp(log_softmax(usable)).mean(axis=0) + 1e-300)
    elif rule != "raw" and len(good):
        offsets = _offsets(good, rule, mass, wanted if weights is None else uniform)
    offsets = offsets - offsets.mean()
    calibration = Calibration(rule, tuple(offsets.tolist()), tuple(wanted.tolist()), len(good))
    if rule == "raw" or not len(order) or not len(good):
        return calibration
    spread = _place(good - offsets, order)[1]
    variance = max(float(mass @ spread), _LEAST_VARIANCE)
    placed = _on_the_scale(good - offsets, order, variance)
    # Offsets that come from elsewhere than the texts leave them as common as they are.
    own = rule in ("batch", "balanced")
    along = _offsets(placed, rule, mass, wanted if weights is None else uniform) if own else np.zeros(count)
    return replace(calibration, order=tuple(order), variance=variance, along=tuple((along - along.mean()).tolist()))


def _offsets(
    scores: NDArray[np.float64], rule: Rule, mass: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Those of `batch`, or of `balanced` for a mean of `shares`."""
    import numpy as np

    if rule == "batch":
        return np.asarray(np.log(mass @ np.exp(log_softmax(scores)) + 1e-300))
    # The prior comes in again where the correction is applied.
    return np.asarray(balanced_offsets(scores, mass, shares) + np.log(shares))


def _place(logits: NDArray[np.float64], order: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of each text's place on a scale: two of (n,)."""
    import numpy as np

    places = np.asarray(order, dtype=np.float64)
    probs = np.exp(log_softmax(logits))
    mean = probs @ places
    return mean, np.asarray(probs @ places**2 - mean**2)


def _on_the_scale(logits: NDArray[np.float64], order: Sequence[int], variance: float) -> NDArray[np.float64]:
    """(n, n_labels) log-densities of the labels' places around each text's."""
    import numpy as np

    mean, _ = _place(logits, order)
    return np.asarray(-((np.asarray(order, dtype=np.float64)[None] - mean[:, None]) ** 2) / variance)


def estimate_prior(probs: NDArray[np.float64], shrinkage: float = SHRINKAGE) -> tuple[float, ...]:
    """Shares of the labels among texts that nobody labelled, by expectation maximisation.

    Each round weighs the texts' probabilities by the shares of the last one and takes their mean, together with
    `shrinkage` times as many texts of equal shares: the mode under a Dirichlet prior. Shares whose gain in likelihood
    over uniform ones is below twice Schwarz's penalty (of `_FEW` texts at least, as that of one is 0) are left uniform:
    few texts, or probabilities that say little, look uneven by chance.

    Args:
        probs: (n, n_labels) probabilities as they are where the labels are equally common.
        shrinkage: Weight of the uniform prior beside the texts' own, in texts a text.

    Returns:
        One share a label; they sum to 1. Uniform without any text.

    Sources: Saerens, Latinne, Decaestecker, Neural Computation 14(1), 2002, §2.2; Schwarz, Annals of Statistics 6(2),
    1978.
    """
    import numpy as np

    probs = np.asarray(probs, dtype=np.float64)
    good = probs[np.isfinite(probs).all(axis=1)]
    count = probs.shape[1]
    uniform = np.full(count, 1.0 / count)
    shares = uniform
    if not len(good):
        return tuple(uniform.tolist())
    for _ in range(_ROUNDS):
        weighed = good * shares
        mean = (weighed / weighed.sum(axis=1, keepdims=True)).mean(axis=0)
        new = (mean + shrinkage / count) / (1 + shrinkage)
        done = np.abs(new - shares).max() < 1e-7
        shares = new
        if done:
            break
    gain = float(np.log(good @ shares * count).sum())
    return tuple((shares if gain > (count - 1) * np.log(max(len(good), _FEW)) else uniform).tolist())


def weighed_by(probs: NDArray[np.float64], prior: Sequence[float] | None) -> NDArray[np.float64]:
    """Probabilities under equally common labels → under a prior; None leaves them."""
    if prior is None:
        return probs
    weighed = probs * _shares(prior, probs.shape[1])
    return cast("NDArray[np.float64]", weighed / weighed.sum(axis=1, keepdims=True))


def _shares(values: Sequence[float] | None, count: int) -> NDArray[np.float64]:
    import numpy as np

    if values is None or not len(values):
        return np.full(count, 1.0 / count)
    shares = np.maximum(np.asarray(values, dtype=np.float64), 1e-6)
    if shares.shape != (count,):
        raise ValueError(f"{shares.shape[0]} shares for {count} labels")
    return cast("NDArray[np.float64]", shares / shares.sum())
