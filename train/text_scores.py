"""Figures of written answers, from texts and their right answers to scorers of draws of rows.

What enters: answers, each with one right answer or several, of which the nearest counts, figure by figure. What leaves:
a function from drawn rows to the figure's value, by which `evaluate` scores a system and makes its intervals, and
`compare` those of two systems' difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from potstill.train import corpus_scores, metrics
from potstill.train.metrics import Floats, Ints

TEXT_FIGURES = ("exact_match", "token_f1", "rouge_l", "chrf", "chrf++", "bleu")


def text_scorer(figure: str, right: Sequence[Sequence[str]], outputs: Sequence[str]) -> Callable[[Ints], Floats]:
    """The scorer of one figure, for `metrics.bootstrap_interval`.

    Args:
        figure: One of `TEXT_FIGURES`.
        right: The right answers of each row, one at least.
        outputs: (n,) answers.

    Returns:
        A function from (draws, n) row indices to (draws,) values in [0, 1].
    """
    if figure == "bleu":
        return corpus_scores.of_draws(corpus_scores.bleu_statistics(right, outputs), corpus_scores.bleu)
    if figure == "chrf++":
        return corpus_scores.of_draws(corpus_scores.chrf_pp_statistics(right, outputs), corpus_scores.chrf_pp)
    starts = np.cumsum([0, *map(len, right)])[:-1]
    texts = [text for row in right for text in row]
    said = [output for output, row in zip(outputs, right, strict=True) for _ in row]
    if figure == "chrf":
        counts = metrics.nearest_statistics(metrics.chrf_statistics(texts, said), starts)
        return corpus_scores.of_draws(counts, metrics.chrf)
    per_text = {
        "exact_match": metrics.exact_matches, "token_f1": metrics.token_f1_scores, "rouge_l": metrics.rouge_l_scores,
    }[figure]  # fmt: skip
    return metrics.mean_of_draws(np.maximum.reduceat(per_text(texts, said), starts))
