"""Foreign labels → the task's labels, or none.

Equal names (ignoring case, spaces and punctuation) map at once. Others are compared by meaning: the embedding of
the foreign name, and of the texts that carry it, against the task's labels with their descriptions. A match needs a
floor and a margin over the second best, because a wrong label hurts more than a missing row.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from potstill.task import TaskSpec

FLOOR = 0.30
MARGIN = 0.06


class Encoder(Protocol):
    """What embeds texts: unit-length rows, (n, dimension) float32."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """One row a text."""
        ...


@dataclass(frozen=True)
class LabelMap:
    """Where each foreign label goes.

    Attributes:
        target: Foreign name → the task's label, or None.
        score: Foreign name → similarity of its best match (1.0 for equal names).
        exact: Share of mapped labels that matched by name.
    """

    target: Mapping[str, str | None]
    score: Mapping[str, float]
    exact: float

    @property
    def covered(self) -> tuple[str, ...]:
        """The task's labels that some foreign label maps to, sorted."""
        return tuple(sorted({name for name in self.target.values() if name is not None}))


def plain_label(name: str) -> str:
    """`CardArrival`, `card_arrival` and `Card arrival!` → `card arrival`."""
    text = unicodedata.normalize("NFKC", str(name))
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return re.sub(r"[\W_]+", " ", text).strip().lower()


def map_labels(
    foreign: Mapping[str, Sequence[str]],
    spec: TaskSpec,
    encoder: Encoder,
    *,
    floor: float = FLOOR,
    margin: float = MARGIN,
) -> LabelMap:
    """Map foreign labels onto the task's.

    Args:
        foreign: Foreign label → some texts that carry it (up to 20 are used).
        spec: The task with its labels.
        encoder: Sentence encoder.
        floor: Least similarity of a match by meaning.
        margin: Least distance to the second best label.
    """
    known = {plain_label(name): name for name in spec.label_names}
    target: dict[str, str | None] = {name: known.get(plain_label(name)) for name in foreign}
    score = {name: 1.0 for name, label in target.items() if label is not None}
    exact = len(score)
    # When most of the task's names are there, what is left over is another class, not a synonym.
    rest = [name for name in foreign if target[name] is None and not plain_label(name).isdigit()]
    if rest and exact < max(2, len(spec.labels) // 2):
        described = [f"{plain_label(label.name)}: {label.description}".rstrip(": ") for label in spec.labels]
        labels = encoder.encode(described)
        bare = encoder.encode([plain_label(label.name) for label in spec.labels])
        names = encoder.encode([plain_label(name) for name in rest])
        by_name = np.maximum(names @ labels.T, names @ bare.T)
        by_text = np.stack([_text_similarity(foreign[name], labels, encoder) for name in rest])
        # Texts of one dataset share its domain; only how they differ from label to label says something.
        by_text = by_text - by_text.mean(axis=0, keepdims=True)
        both = by_name + by_text
        for row, name in enumerate(rest):
            order = np.argsort(-both[row])
            best = int(order[0])
            second = both[row, order[1]] if len(order) > 1 else -1.0
            score[name] = float(by_name[row, best])
            if by_name[row, best] >= floor and both[row, best] - second >= margin and by_text[row, best] > 0:
                target[name] = spec.labels[best].name
    for name in foreign:
        score.setdefault(name, 0.0)
    mapped = sum(label is not None for label in target.values())
    return LabelMap(target, score, exact / mapped if mapped else 0.0)


def _text_similarity(texts: Sequence[str], labels: NDArray[np.float32], encoder: Encoder) -> NDArray[np.float32]:
    sample = [text[:500] for text in texts[:20] if text.strip()]
    if not sample:
        return np.zeros(len(labels), dtype=np.float32)
    mean = encoder.encode(sample).mean(axis=0)
    similarity: NDArray[np.float32] = labels @ mean
    return similarity
