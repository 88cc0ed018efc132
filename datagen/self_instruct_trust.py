"""Whether a teacher's "this is a classification task" is to be believed.

Self-Instruct writes the label first for classification and the input first otherwise (arXiv:2212.10560 §2.2). A small
teacher calls almost everything classification, and then writes one word for an answer to "Write a story". So it is
asked first about seed tasks whose kind is known. Its Yes counts where, by Bayes' rule, most tasks that it says Yes to
are classification; a teacher whose Yes tells too little is not asked, and all its tasks are open ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from potstill.datagen.self_instruct_files import SeedTask

# Of 52,445 instructions that GPT-3 wrote, 11,584 were classification (arXiv:2212.10560, table 1).
CLASSIFICATION_SHARE = 11_584 / 52_445
# So many seeds of each kind are asked about; with fewer than the least, the teacher is believed without.
_MOST, _LEAST = 16, 6
MOST_ASKED = 2 * _MOST


def seeds_to_ask(seeds: tuple[SeedTask, ...], shown: tuple[SeedTask, ...]) -> list[SeedTask]:
    """Seeds of both kinds, equally many, none of which the question shows; none where there are too few.

    Args:
        seeds: Tasks whose kind is known.
        shown: Those that stand in the question as examples.
    """
    told = {seed.instruction for seed in shown}
    kinds = [[s for s in seeds if s.is_classification == kind and s.instruction not in told] for kind in (True, False)]
    count = min(_MOST, *map(len, kinds))
    return [seed for kind in kinds for seed in kind[:count]] if count >= _LEAST else []


@dataclass
class Trust:
    """What the teacher said of tasks whose kind is known.

    Attributes:
        asked: Classification seeds, and open ones, that were answered.
        said_yes: Of each, how many it called classification.

    Examples:
        >>> good, poor = Trust([16, 16], [14, 1]), Trust([16, 16], [15, 12])
        >>> good.believed, poor.believed
        (True, False)
    """

    asked: list[int] = field(default_factory=lambda: [0, 0])
    said_yes: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, seed: SeedTask, yes: bool | None) -> None:
        """Count an answer; None, neither Yes nor No, is a No."""
        place = 0 if seed.is_classification else 1
        self.asked[place] += 1
        self.said_yes[place] += bool(yes)

    @property
    def believed(self) -> bool:
        """Whether a task that it says Yes to is more likely classification than not; True where nothing was asked."""
        if not all(self.asked):
            return True
        # Half an answer is added to each side, so that a few answers are never taken for certainty.
        right, wrong = ((yes + 0.5) / (all_ + 1) for yes, all_ in zip(self.said_yes, self.asked, strict=True))
        return CLASSIFICATION_SHARE * right > (1 - CLASSIFICATION_SHARE) * wrong

    def to_json(self) -> dict[str, Any]:
        """Counts, and what follows from them."""
        return {
            "classification_seeds": self.asked[0],
            "called_classification": self.said_yes[0],
            "open_seeds": self.asked[1],
            "open_called_classification": self.said_yes[1],
            "believed": self.believed,
        }
