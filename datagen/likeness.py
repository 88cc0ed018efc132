"""Do two inputs say the same? How near they lie to each other in the sentence encoder's space.

For tasks of two inputs and two labels of which one says that they agree (paraphrase, duplicate, equivalent, entailment)
and the other denies it. Nearness to a label's name says nothing of a pair, and small teachers write pairs that are
hardly more alike under the one label than under the other; but how alike two texts are is what sentence encoders are
trained for (Sentence-BERT, arXiv:1908.10084). On real pairs, without a label, split where half of them are more alike
(MiniLM, 800 pairs each, macro-F1): messages and commands that share an intent or do not .86 and .88; entailment on sick
.71, where 28 % are entailed.

Small teachers are therefore overruled where neither opinion foresees the labels of the written pairs; a teacher whose
pairs are what they are called is weighed as everywhere (`evidence.join_opinions`). Few pairs of an overruled teacher
are alike, and a student does not learn from them to compare: their texts are paired anew, each with another one and
with an altered copy of itself (`recombined`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from potstill.datagen.calibration import fit_calibration
from potstill.language.label_words import label_words
from potstill.rows import join_fields, split_fields

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from potstill.models import TextEncoder
    from potstill.task import TaskSpec

# Cosines of pairs differ by tenths where those of names differ by hundredths.
TEMPERATURE = 0.1
# Shares of the words that altered copies keep.
_KEPT = (0.5, 0.65, 0.8, 0.9)
_SAME = re.compile(
    r"\b(?:paraphras\w+|re(?:phras|word|stat)\w+|duplicat\w+|equivalen\w+|same|identical|similar(?:ity)?|alike|match\w*|"
    r"synonym\w*|entail\w*|redundant)\b",
    re.IGNORECASE,
)
_DENIES = re.compile(
    r"\b(?:not|no|non|never|un(?:related|like|equal|matched)|dis\w+|differ\w*|distinct\w*|mismatch\w*|"
    r"(?<!each )other|inequivalent|nothing|neither)\b|n't\b",
    re.IGNORECASE,
)
# What two texts may have in common while they say different things.
_OTHERWISE_SAME = re.compile(
    r"\bsame (?:\w+ )?(?:authors?|writers?|speakers?|person|people|sentiment|polarity|emotion|mood|tone|style|tense|"
    r"language|gender|length|sense|word|number|year|country)\b|\bused\b",
    re.IGNORECASE,
)


def label_of_same(spec: TaskSpec) -> int | None:
    """The number of the label which says that a task's two inputs say the same; None where there is no such label.

    Examples:
        >>> from potstill.task import Label, TaskSpec
        >>> labels = (Label("duplicate"), Label("not_duplicate"))
        >>> label_of_same(TaskSpec("t", "Compare.", "classification", labels=labels, inputs=("one", "two")))
        0
    """
    if len(spec.inputs) != 2 or len(spec.labels) != 2:
        return None
    said = label_words(spec)
    told = [f"{said[label.name]} {label.description}".replace("_", " ") for label in spec.labels]
    if any(_OTHERWISE_SAME.search(words) for words in (*told, spec.instruction)):
        return None
    same = [i for i, words in enumerate(told) if _SAME.search(words) and not _DENIES.search(words)]
    denied = [i for i, words in enumerate(told) if _DENIES.search(words)]
    return same[0] if len(same) == len(denied) == 1 else None


def likeness_logits(
    spec: TaskSpec, texts: Sequence[str], encoder: TextEncoder, fit_on: int | None = None
) -> NDArray[np.float64] | None:
    """Calibrated log-probabilities of the two labels by how alike the two inputs of each text are.

    Args:
        spec: The task.
        texts: Inputs of two fields, as rows hold them.
        encoder: The sentence encoder.
        fit_on: How many of the texts, from the first, the offset is fitted on; None takes all.

    Returns:
        (n, 2) float64, nats; the offset makes both labels equally common. None where the task asks for something else,
        or a text does not hold both fields.
    """
    import numpy as np

    same = label_of_same(spec)
    pairs = [split_fields(text, spec.inputs) for text in texts] if same is not None else []
    if same is None or not pairs or any(pair is None or not all(pair) for pair in pairs):
        return None

    def unit(place: int) -> NDArray[np.float64]:
        found = np.asarray(encoder.encode([pair[place] for pair in pairs if pair is not None]), dtype=np.float64)
        return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12))

    scores = np.zeros((len(pairs), 2))
    scores[:, same] = (unit(0) * unit(1)).sum(axis=1) / TEMPERATURE
    calibration = fit_calibration(scores[:fit_on], rule="balanced")
    return np.asarray(np.log(np.maximum(calibration.apply(scores), 1e-12)))


def recombined(texts: Sequence[str], fields: tuple[str, str], seed: int = 0) -> list[str]:
    """Pairs made of the texts of others: each with one drawn from all, and with a copy of itself that lacks some words.

    Args:
        texts: Inputs of two fields, as rows hold them; those without both are passed over.
        fields: The names of the fields.
        seed: Of the draws.

    Returns:
        Inputs of two fields, at most four a text, each once and none of the given ones.
    """
    rng = Random(seed)
    pairs = [pair for text in texts if (pair := split_fields(text, fields)) is not None and all(pair)]
    every = list(dict.fromkeys(part for pair in pairs for part in pair))
    found: dict[str, None] = {}
    for text in every if len(every) > 1 else ():
        for other in (rng.choice(every), _altered(text, rng)):
            if other != text:
                found[join_fields(dict(zip(fields, (text, other), strict=True)))] = None
    known = set(texts)
    return [text for text in found if text not in known]


def _altered(text: str, rng: Random) -> str:
    """A text without some of its words, or characters where it has hardly a blank; half of them begin elsewhere."""
    words = text.split()
    joint = " "
    if len(words) < 3:
        words, joint = list(text), ""
    share = rng.choice(_KEPT)
    kept = [word for word in words if rng.random() < share] or words[:1]
    if len(kept) > 3 and rng.random() < 0.5:
        start = rng.randrange(1, len(kept))
        kept = kept[start:] + kept[:start]
    return joint.join(kept).strip()
