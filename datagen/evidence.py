"""A second opinion on labels: how near a text lies to each label's name in the space of the sentence encoder.

A small teacher judges worse than the nearest label name, a large one better (`benchmarks/label_evidence.py`). So both
opinions are weighted by how well each foresees the labels that texts were written for or came with, which are known
and are noisy for both alike: p(y|x) ∝ p_teacher(y|x)^a · p_encoder(y|x)^b, with a and b at which the known labels are
likeliest (a product of experts, Hinton, Neural Computation 14(8), 2002; zero-shot labels by names and embeddings:
Chang et al., AAAI 2008, and Yin et al., arXiv:1909.00161).

A written text that both opinions place elsewhere probably missed its label: its row weighs less (`trust_weights`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from potstill.datagen.calibration import fit_calibration, log_softmax
from potstill.language.label_vectors import near_vectors
from potstill.language.label_words import OTHER, described_words, label_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from potstill.models import TextEncoder
    from potstill.task import TaskSpec

# Cosines of short texts differ by hundredths; at this temperature a difference of 0.05 is a factor of e.
TEMPERATURE = 0.05
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
LEAST_WEIGHT = 0.1
# Nats above chance from which known labels are foreseen, and what two powers chosen on n labels gain by luck, times n
# (half the 95 % quantile of chi-squared with two degrees of freedom).
_FORESEEN, _BY_LUCK = 0.05, 3.0


@dataclass(frozen=True)
class Mixture:
    """The joined opinion.

    Attributes:
        probs: (n, n_labels) float64, rows sum to 1.
        teacher: Power of the teacher's opinion.
        encoder: Power of the encoder's.
        likelihood: Mean log-likelihood of the known labels, nats, of the teacher alone, of the encoder alone, of both.
        overruled: Whether the known labels were not asked, since neither foresaw them.
    """

    probs: NDArray[np.float64]
    teacher: float
    encoder: float
    likelihood: tuple[float, float, float]
    overruled: bool = False

    def to_json(self) -> dict[str, Any]:
        """JSON types, for the report."""
        names = ("teacher", "encoder", "both")
        found = {name: round(value, 4) for name, value in zip(names, self.likelihood, strict=True)}
        told = {"teacher_power": self.teacher, "encoder_power": self.encoder, "label_log_likelihood": found}
        return {**told, **({"overruled": True} if self.overruled else {})}


def encoder_logits(
    spec: TaskSpec, texts: Sequence[str], encoder: TextEncoder, fit_on: int | None = None
) -> NDArray[np.float64]:
    """`name_logits` of texts that are not embedded yet."""
    return name_logits(spec, encoder.encode(list(texts)), encoder, fit_on)


def name_logits(
    spec: TaskSpec, texts: NDArray[Any], encoder: TextEncoder, fit_on: int | None = None
) -> NDArray[np.float64]:
    """Calibrated log-probabilities of the labels by nearness to their names and descriptions.

    Args:
        spec: A classification task.
        texts: (n, width) embeddings of unit length.
        encoder: The sentence encoder that they are of.
        fit_on: How many of the texts, from the first, the offsets are fitted on; None takes all.

    Returns:
        (n, n_labels) float64, nats; offsets make the labels equally common, as in batch calibration.
    """
    import numpy as np

    names = list(label_words(spec).values())
    labels = encoder.encode([*names, OTHER]) + encoder.encode([*described_words(spec), OTHER])
    labels = labels / np.maximum(np.linalg.norm(labels, axis=1, keepdims=True), 1e-12)
    labels = near_vectors(spec, labels[:-1], labels[-1])
    scores = np.asarray(texts @ labels.T, dtype=np.float64) / TEMPERATURE
    calibration = fit_calibration(scores[:fit_on], rule="balanced", order=spec.ordered)
    logits: NDArray[np.float64] = np.log(np.maximum(calibration.apply(scores), 1e-12))
    return logits


def join_opinions(
    teacher: NDArray[np.float64], encoder: NDArray[np.float64], hard: Sequence[int | None], *, overrules: bool = False
) -> Mixture:
    """Weigh both opinions by the known labels, each label counting alike.

    Both suppose equally common labels, and so does what they give together: powers of an opinion would be powers of a
    prior in it as well, so a prior comes in afterwards (`calibration.weighed_by`).

    Args:
        teacher: (n, n_labels) calibrated log-probabilities.
        encoder: (n, n_labels) calibrated log-probabilities.
        hard: Known label of each text, or None.
        overrules: Whether the encoder's opinion counts alone where neither foresees the known labels: they are wrong
            then, and cannot weigh it (`likeness`).
    """
    import numpy as np

    known = np.asarray([i for i, value in enumerate(hard) if value is not None], dtype=int)
    gold = np.asarray([value for value in hard if value is not None], dtype=int)
    shares = 1.0 / np.bincount(gold, minlength=teacher.shape[1])[gold] if len(gold) else np.ones(0)

    def likelihood(a: float, b: float) -> float:
        if not len(known):
            return 0.0
        found = log_softmax(a * teacher[known] + b * encoder[known])[np.arange(len(known)), gold]
        return float(found @ shares / shares.sum())

    # Without known labels neither opinion can be tried, and both count once.
    a, b = max(product(_POWERS, _POWERS), key=lambda pair: likelihood(*pair)) if len(known) else (1.0, 1.0)
    least = _FORESEEN + _BY_LUCK / max(len(known), 1) - float(np.log(teacher.shape[1]))
    overruled = overrules and likelihood(a, b) < least
    if overruled:
        a, b = 0.0, 1.0
    alone = tuple(
        max(likelihood(*pair) for pair in pairs) for pairs in ([(p, 0.0) for p in _POWERS], [(0.0, p) for p in _POWERS])
    )
    probs = np.exp(log_softmax(a * teacher + b * encoder))
    return Mixture(probs, a, b, (alone[0], alone[1], likelihood(a, b)), overruled)


def trust_weights(
    probs: NDArray[np.float64], hard: Sequence[int | None], written: Sequence[bool]
) -> NDArray[np.float64]:
    """Weight of each row: 1, or less for a written text whose label is unlikely beside the likeliest.

    Args:
        probs: (n, n_labels) joined opinion.
        hard: Label of each row, or None.
        written: Whether the teacher wrote the row for its label; labels that came with data are left alone.

    Returns:
        (n,) float64 in [`LEAST_WEIGHT`, 1].
    """
    import numpy as np

    weights = np.ones(len(hard))
    for row, (label, by_teacher) in enumerate(zip(hard, written, strict=True)):
        if by_teacher and label is not None:
            ratio = probs[row, label] / max(float(probs[row].max()), 1e-12)
            weights[row] = max(LEAST_WEIGHT, ratio)
    return weights
