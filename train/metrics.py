"""Scores, from gold answers and predictions to numbers in [0, 1].

What enters: lists of texts, label indices and probabilities. What leaves: one value for each row where the metric
allows it (so that the bootstrap can resample rows), or sums over the rows.

Classification: accuracy, macro-F1 over the labels that occur in gold or prediction (scikit-learn's rule), expected
calibration error in 15 equal bins (Guo et al., arXiv:1706.04599 §2). Generation: exact match after SQuAD's
normalisation, which leaves numbers and JSON whole here, and F1 of the words that it leaves; ROUGE-L F1 on lower-case
alphanumeric tokens of any script (Lin 2004; on ASCII the same figures as the `rouge_score` package without stemming,
which knows no other letters); corpus chrF (Popović 2015; sacrebleu's figures). Intervals: Wilson's for shares of rows,
else percentile bootstrap over rows, seeded.
"""

from __future__ import annotations

import json
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ECE_BINS = 15
# Of ASCII letters what the `rouge_score` package takes; of other scripts whole words, and single letters of those that
# put no spaces between words.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_TOKEN = regex.compile(
    rf"[[\p{{L}}\p{{N}}]&&[{_UNSPACED}]]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+", regex.VERSION1
)
_SINGLE = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|[^{_UNSPACED}]+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation) - frozenset("+<>=")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# A sign, a point, a fraction or a time; none of F-16, which may be written as one word. Between numbers, the sign of a
# product or a power, which is Markdown's around one.
_OF_NUMBER = re.compile(r"(?<![^\W\d_])[-./,:](?=\d)|(?<=\d)(?:\*{1,2}| \* )(?=\d)|(?<=\d)\^(?=[({]?-?\d)")
# Where NFKC would make 102 of 10².
_RAISED = re.compile(r"(?<=\d)(?=[⁰¹²³⁴-⁹])")


def accuracy(gold: Ints, predicted: Ints) -> float:
    """Share of rows where both agree. A prediction of −1 is no label and never right.

    Examples:
        >>> accuracy(np.array([0, 1, 1]), np.array([0, 1, 0]))
        0.6666666666666666
    """
    return float(np.mean(gold == predicted)) if len(gold) else 0.0


def confusion(gold: Ints, predicted: Ints, n_labels: int) -> Ints:
    """(n_labels, n_labels + 1) counts: row = gold, column = predicted, the last column = no known label."""
    column = np.where(predicted < 0, n_labels, predicted)
    flat = np.bincount(gold * (n_labels + 1) + column, minlength=n_labels * (n_labels + 1))
    return flat.reshape(n_labels, n_labels + 1).astype(np.int64)


def macro_f1(counts: Ints) -> Floats:
    """Macro-F1 of one confusion, or of many at once.

    Args:
        counts: (..., n_labels, n_labels + 1) as `confusion` gives them.

    Returns:
        (...) float64: mean F1 over the labels that occur in gold or in the predictions, and over "no known label"
        where it was predicted (its F1 is 0).

    Examples:
        >>> float(macro_f1(confusion(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]), 2)))
        0.7333333333333334
    """
    n_labels = counts.shape[-2]
    nobody = np.zeros((*counts.shape[:-2], 1), dtype=counts.dtype)  # no gold row lacks a label
    hits = np.diagonal(counts[..., :n_labels], axis1=-2, axis2=-1)
    in_gold = np.concatenate([counts.sum(-1), nobody], -1)
    return _f1_of_counts(np.concatenate([hits, nobody], -1), in_gold, counts.sum(-2))


def _f1_of_counts(hits: Ints, in_gold: Ints, predicted: Ints) -> Floats:
    """Mean F1 over the labels that occur: each (..., n_labels + 1), the last one "no known label"."""
    support = in_gold + predicted
    f1 = np.divide(2 * hits, support, out=np.zeros(support.shape, dtype=np.float64), where=support > 0)
    present = (support > 0).sum(-1)
    return np.asarray(f1.sum(-1) / np.maximum(present, 1), dtype=np.float64)


def expected_calibration_error(gold: Ints, probs: Floats, bins: int = ECE_BINS) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by their rows.

    Args:
        gold: (n,) label indices.
        probs: (n, n_labels), rows sum to 1.
        bins: Number of bins over (0, 1].

    Returns:
        ECE in [0, 1].

    Source: arXiv:1706.04599 §2.
    """
    if not len(gold):
        return 0.0
    confidence = probs.max(1)
    right = (probs.argmax(1) == gold).astype(np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(index, confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(gold))


def normalise_answer(text: str) -> str:
    """Case, punctuation, English articles and spacing removed, NFKC applied (SQuAD's rule).

    What makes a number another one stays, and so do signs of sums, products and comparisons, which that rule drops.

    Examples:
        >>> normalise_answer("About 1,250.50 euros, not -3!")
        'about 1250.50 euros not -3'
    """
    return " ".join(_ARTICLES.sub(" ", _without_marks(text)).split())


def _without_marks(text: str) -> str:
    text = unicodedata.normalize("NFKC", _RAISED.sub("^", text)).lower().replace("\u2212", "-")
    text = _THOUSANDS.sub("", text)
    kept = {at for found in _OF_NUMBER.finditer(text) for at in range(*found.span())}
    return "".join(c for at, c in enumerate(text) if c not in _PUNCTUATION or at in kept)


# The line behind a worked answer that says the result.
_WORKED = re.compile(r"####([^\n#]*\S)\s*\Z")


def exact_matches(gold: Sequence[str], outputs: Sequence[str]) -> Floats:
    """(n,) 1.0 where the normalised texts agree.

    Texts that normalise to nothing are compared with their articles ("A" may be an answer's letter), and those of
    marks alone as they are.

    Where the gold text is a JSON object or list the other has to be one too, with the same keys and normalised values;
    spaces and the order of keys are free. Where it ends with an answer behind `####` (GSM8K), what leads to it is free.

    Examples:
        >>> exact_matches(["The Nile", '{"a": 1, "b": 2}', '{"a": 1}'], ["nile.", '{"b":2,"a":1}', '{"a": 1']).tolist()
        [1.0, 1.0, 0.0]
    """
    return np.array([float(_same(a, b)) for a, b in zip(gold, outputs, strict=True)], dtype=np.float64)


def _same(gold: str, output: str) -> bool:
    if (wanted := _json_form(gold)) is not None:
        return wanted == _json_form(output)
    if (worked := _WORKED.search(gold)) is not None:
        gold, output = worked[1], output.rpartition("####")[2]
    return _compared(gold) == _compared(output)


def _compared(text: str) -> str:
    return normalise_answer(text) or " ".join(_without_marks(text).split()) or text.strip()


def _json_form(text: str) -> str | None:
    """A JSON object or list in one form, its texts normalised; None for anything else."""
    if text.strip()[:1] not in ("{", "["):
        return None
    try:
        return json.dumps(_normal_values(json.loads(text)), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None


def _normal_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _normal_values(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_normal_values(part) for part in value]
    return _compared(value) if isinstance(value, str) else value


def token_f1(gold: str, output: str) -> float:
    """F1 of the words of one pair in any order, after the normalisation of exact match.

    Words of scripts without spaces are single letters, as for ROUGE-L. Two texts without any word are compared as exact
    match does, and a text with words has nothing in common with one without. Spaces between values of JSON are free.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250, §6.1.

    Examples:
        >>> round(token_f1("the river Nile", "Nile"), 3)
        0.667
    """
    a, b = (Counter(_words(text)) for text in (gold, output))
    if not a or not b:
        return float(_same(gold, output)) if not a and not b else 0.0
    common = (a & b).total()
    return 2 * common / (a.total() + b.total())


def _words(text: str) -> list[str]:
    # JSON in one form: `1,2` without a space would be one word.
    text = normalise_answer(_json_form(text) or text)
    return [word for part in text.split() for word in _SINGLE.findall(part)]


def token_f1_scores(gold: Sequence[str], outputs: Sequence[str]) -> Floats:
    """(n,) F1 of words."""
    return np.array([token_f1(a, b) for a, b in zip(gold, outputs, strict=True)], dtype=np.float64)


def rouge_l(gold: str, output: str) -> float:
    """ROUGE-L F1 of one pair, tokens lower-cased and alphanumeric, no stemming. 0 where either has no token.

    Examples:
        >>> round(rouge_l("a cat sat on the mat", "a cat on a mat"), 3)
        0.727
    """
    a, b = _TOKEN.findall(gold.lower()), _TOKEN.findall(output.lower())
    if not a or not b:
        return 0.0
    common = lcs_length(a, b)
    if not common:
        return 0.0
    precision, recall = common / len(b), common / len(a)
    return 2 * precision * recall / (precision + recall)


def lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, bit-parallel: one big-integer step for each token of `b`.

    Source: Hyyrö 2004, Bit-parallel LCS-length computation revisited, §3.
    """
    places: dict[str, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for token in b:
        matched = row & places.get(token, 0)
        row = (row + matched | row - matched) & full
    return len(a) - row.bit_count()


def rouge_l_scores(gold: Sequence[str], outputs: Sequence[str]) -> Floats:
    """(n,) ROUGE-L F1."""
    return np.array([rouge_l(a, b) for a, b in zip(gold, outputs, strict=True)], dtype=np.float64)


def chrf_statistics(gold: Sequence[str], outputs: Sequence[str], *, order: int = 6) -> Floats:
    """(n, 3 * order) counts a row: for each n-gram order the hypothesis's, the reference's and the matching ones.

    Characters without white space. As in sacrebleu, a hypothesis's n-grams count only where the reference has some.
    """
    table = np.zeros((len(gold), 3 * order), dtype=np.float64)
    for row, output, reference in zip(table, outputs, gold, strict=True):
        a, b = "".join(output.split()), "".join(reference.split())
        for n in range(1, order + 1):
            ours = Counter(a[i : i + n] for i in range(len(a) - n + 1))
            theirs = Counter(b[i : i + n] for i in range(len(b) - n + 1))
            row[3 * n - 3] = ours.total() if theirs else 0
            row[3 * n - 2] = theirs.total()
            row[3 * n - 1] = (ours & theirs).total()
    return table


def nearest_statistics(statistics: Floats, starts: Ints) -> Floats:
    """(n, k) of the reference with the highest chrF for each answer, the first of equal ones, as sacrebleu chooses.

    Args:
        statistics: (m, k) of answers with each of their references, one after the other; three counts an order.
        starts: (n,) where each answer's begin.
    """
    scores = chrf(statistics, order=statistics.shape[1] // 3)
    ends = [*starts[1:], len(scores)]
    chosen = [start + int(scores[start:end].argmax()) for start, end in zip(starts, ends, strict=True)]
    return statistics[chosen]


def chrf(sums: Floats, *, order: int = 6, beta: float = 2.0) -> Floats:
    """Corpus chrF in [0, 1] from summed statistics, (..., 3 * order) -> (...), as sacrebleu computes it.

    Source: Popović 2015, chrF; sacrebleu's rule that an order absent from either side does not count.
    """
    hypothesis, reference, match = (sums[..., i::3][..., :order] for i in range(3))
    counted = (hypothesis > 0) & (reference > 0)
    zeros = np.zeros(match.shape)
    precision = np.divide(match, hypothesis, out=zeros.copy(), where=counted)
    recall = np.divide(match, reference, out=zeros.copy(), where=counted)
    orders = np.maximum(counted.sum(-1), 1)
    precision, recall = precision.sum(-1) / orders, recall.sum(-1) / orders
    below = beta**2 * precision + recall
    score = np.divide((1 + beta**2) * precision * recall, below, out=np.zeros_like(below), where=below > 0)
    return np.asarray(score, dtype=np.float64)


def bootstrap_interval(
    score: Callable[[Ints], Floats], n_rows: int, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a score over resampled rows.

    Args:
        score: Takes (b, n_rows) row indices and gives (b,) scores; called with blocks of resamples.
        n_rows: Rows to draw from.
        resamples: Number of draws.
        level: Mass inside the interval.
        seed: Seed of the draws.

    Returns:
        Lower and upper end.
    """
    if n_rows == 0:
        return 0.0, 0.0
    random = np.random.default_rng(seed)
    block = max(1, min(resamples, 4_000_000 // n_rows))
    scores = []
    for start in range(0, resamples, block):
        scores.append(score(random.integers(0, n_rows, (min(block, resamples - start), n_rows))))
    low, high = np.quantile(np.concatenate(scores), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share_interval(share: float, n_rows: int, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share of rows. A bootstrap of twenty rows that are all right would call twenty enough to be sure.

    Args:
        share: In [0, 1].
        n_rows: Rows that it is the share of.
        level: Mass inside the interval.

    Returns:
        Lower and upper end, between 0 and 1.

    Source:
        Wilson, JASA 22 (1927): 209-212; Brown, Cai and DasGupta, Statistical Science 16 (2001) §3.1.1, for few rows.

    Examples:
        >>> low, high = share_interval(1.0, 20)
        >>> round(low, 2), high
        (0.84, 1.0)
    """
    if n_rows == 0:
        return 0.0, 0.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * n_rows)) / (1 + z * z / n_rows)
    half = z / (1 + z * z / n_rows) * math.sqrt(share * (1 - share) / n_rows + z * z / (4 * n_rows**2))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def score_interval(
    score: Callable[[Ints], Floats], value: float, n_rows: int, *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a score in [0, 1]: by `bootstrap_interval`, or by `share_interval` where all draws score alike.

    Args:
        score: As for `bootstrap_interval`.
        value: The score on all rows.
        n_rows: Rows to draw from.
        resamples: Number of draws.
        seed: Seed of the draws.
    """
    low, high = bootstrap_interval(score, n_rows, resamples=resamples, seed=seed)
    return (low, high) if low < high else share_interval(min(1.0, max(0.0, value)), n_rows)


def macro_f1_of_draws(gold: Ints, predicted: Ints, n_labels: int) -> Callable[[Ints], Floats]:
    """A scorer for `bootstrap_interval`: macro-F1 of each draw."""
    column = np.where(predicted < 0, n_labels, predicted)
    right = gold == column

    def score(draws: Ints) -> Floats:
        # F1 asks for three counts a label; whole confusions of hundreds of labels would take gigabytes.
        offset = np.arange(len(draws))[:, None] * (n_labels + 1)

        def counted(labels: Ints, which: NDArray[np.bool_] | None = None) -> Ints:
            cells = labels[draws] + offset
            chosen = cells.ravel() if which is None else cells[which[draws]]
            return np.bincount(chosen, minlength=len(draws) * (n_labels + 1)).reshape(len(draws), n_labels + 1)

        return _f1_of_counts(counted(gold, right), counted(gold), counted(column))

    return score


def mean_of_draws(values: Floats) -> Callable[[Ints], Floats]:
    """A scorer for `bootstrap_interval`: the mean of per-row values."""
    return lambda draws: np.asarray(values[draws].mean(1), dtype=np.float64)
