"""How scores of different searches are added, and what is added to them for how widely a dataset is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from potstill.retrieval.cards import Card

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def fuse(dense: NDArray[np.float64], lexical: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Weighted sum of two scores, each scaled by its own spread over the candidates.

    Args:
        dense: (n,) cosine similarities.
        lexical: (n,) BM25 scores, 0 where no word is shared.
        share: Weight of `dense`, 0 to 1.

    Returns:
        (n,) float64.
    """
    import numpy as np

    def scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
        spread = float(np.std(values))
        return (values - float(np.mean(values))) / spread if spread > 1e-9 else np.zeros(len(values))

    fused: NDArray[np.float64] = share * scaled(dense) + (1 - share) * scaled(lexical)
    return fused


def standing(cards: Sequence[Card]) -> NDArray[np.float64]:
    """How widely each dataset is known: the logarithm (base 2) of its names, and a little for its downloads.

    A dataset that many works use has gathered names (its versions, tracks and benchmarks), and whoever asks for a
    dataset mostly wants one that others use. Downloads weigh a tenth of a name's worth a factor of two: on task
    prompts a greater weight moved the right dataset down.

    Returns:
        (n,) float64, 1 for a dataset of one name and no known downloads.
    """
    import numpy as np

    names = np.array([1 + len({*card.known_as} - {card.id, card.title}) for card in cards], dtype=np.float64)
    downloads = np.array([card.downloads for card in cards], dtype=np.float64)
    return np.log2(1 + names) + 0.06 * np.log2(1 + downloads)
