"""BLEU and chrF++ of a corpus, from texts and their references to numbers in [0, 1]: sacrebleu's figures.

What enters: answers, each with one right answer or several. What leaves: counts a row, whose sums over any rows give
the score of those, so that the bootstrap can resample rows. BLEU is Papineni et al. 2002 (4-grams, the reference whose
length is nearest, exponential smoothing) as sacrebleu fixes its words (Post, arXiv:1804.08771 §3), chrF++ Popović 2017
(characters up to 6-grams, words up to 2-grams). Of several references BLEU counts what any of them holds, chrF++ takes
the nearest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import regex

from potstill.train.metrics import Floats, Ints, chrf, chrf_statistics, nearest_statistics

_ORDERS = 4
CHRF_PP_ORDERS = 8
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_HAN = regex.compile(r"\p{Han}")
_OTHER_UNSPACED = regex.compile(r"[\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")


def bleu_tokens(references: Sequence[str]) -> str:
    """Which of sacrebleu's tokenizers tells words apart: `13a`, its default, unless most texts have no spaces.

    Args:
        references: Right answers; what a system says has no say in it.

    Returns:
        `zh` where most are Chinese, `char` where most are in another script without spaces, `13a` elsewhere.
    """
    others = sum(_OTHER_UNSPACED.search(text) is not None for text in references)
    chinese = sum(_HAN.search(text) is not None and _OTHER_UNSPACED.search(text) is None for text in references)
    if 2 * (chinese + others) <= len(references):
        return "13a"
    return "char" if others else "zh"


def bleu_statistics(references: Sequence[Sequence[str]], outputs: Sequence[str]) -> Floats:
    """(n, 10) counts a row: length, length of the nearest reference, matching n-grams of 1 to 4, all n-grams of 1 to 4.

    Args:
        references: The right answers of each row, one at least.
        outputs: (n,) answers.
    """
    split = _tokenizer(bleu_tokens([text for right in references for text in right]))
    table = np.zeros((len(outputs), 2 + 2 * _ORDERS), dtype=np.float64)
    for row, output, right in zip(table, outputs, references, strict=True):
        said, allowed, lengths = split(output), [Counter[tuple[str, ...]]() for _ in range(_ORDERS)], []
        for text in right:
            tokens = split(text)
            lengths.append(len(tokens))
            allowed = [most | _ngrams(tokens, n) for n, most in enumerate(allowed, start=1)]
        row[0], row[1] = len(said), min(lengths, key=lambda length: (abs(length - len(said)), length))
        for n, most in enumerate(allowed, start=1):
            ours = _ngrams(said, n)
            row[1 + n], row[1 + _ORDERS + n] = (ours & most).total(), ours.total()
    return table


def bleu(sums: Floats) -> Floats:
    """Corpus BLEU in [0, 1] from summed statistics, (..., 10) -> (...), as sacrebleu computes it.

    An order of which nothing matches counts half of one n-gram, the next such order a quarter; where no answer is as
    long as an order, or nothing matches at all, it is 0.
    """
    said, wanted = sums[..., 0], sums[..., 1]
    match, total = sums[..., 2 : 2 + _ORDERS], sums[..., 2 + _ORDERS :]
    possible = (total > 0).all(-1) & (match > 0).any(-1)
    counted, total = match.astype(np.float64), np.maximum(total, 1.0)
    smooth = np.ones(said.shape)
    for n in range(_ORDERS):
        nothing = counted[..., n] == 0
        smooth = np.where(nothing, 2 * smooth, smooth)
        counted[..., n] = np.where(nothing, 1 / smooth, counted[..., n])
    short = np.exp(np.minimum(0.0, 1 - wanted / np.maximum(said, 1.0)))
    score = short * np.exp(np.log(counted / total).mean(-1))
    return np.asarray(np.where(possible, score, 0.0), dtype=np.float64)


def chrf_pp_statistics(references: Sequence[Sequence[str]], outputs: Sequence[str]) -> Floats:
    """(n, 24) counts a row of the nearest reference, as `metrics.chrf_statistics` has them, and behind those of
    characters those of words and of pairs of words; `metrics.chrf(…, order=8)` makes the score of their sums."""
    starts = np.cumsum([0, *map(len, references)])[:-1]
    texts = [text for right in references for text in right]
    said = [output for output, right in zip(outputs, references, strict=True) for _ in right]
    table = np.zeros((len(texts), 6), dtype=np.float64)
    for row, output, reference in zip(table, said, texts, strict=True):
        a, b = _words(output), _words(reference)
        for n in (1, 2):
            ours, theirs = _ngrams(a, n), _ngrams(b, n)
            row[3 * n - 3] = ours.total() if theirs else 0
            row[3 * n - 2] = theirs.total()
            row[3 * n - 1] = (ours & theirs).total()
    return nearest_statistics(np.hstack([chrf_statistics(texts, said), table]), starts)


def chrf_pp(sums: Floats) -> Floats:
    """Corpus chrF++ in [0, 1] from summed statistics, (..., 24) -> (...)."""
    return chrf(sums, order=CHRF_PP_ORDERS)


def of_draws(statistics: Floats, score: Callable[[Floats], Floats]) -> Callable[[Ints], Floats]:
    """A scorer for `metrics.bootstrap_interval`: the corpus score of each draw of rows.

    Args:
        statistics: (n, k) counts a row.
        score: Makes a score of their sums.
    """

    def scored(draws: Ints) -> Floats:
        rows = statistics.shape[0]
        offset = np.arange(len(draws))[:, None] * rows
        counts = np.bincount((draws + offset).ravel(), minlength=len(draws) * rows).reshape(len(draws), rows)
        return score(counts @ statistics)

    return scored


def _tokenizer(name: str) -> Callable[[str], list[str]]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    from sacrebleu.tokenizers.tokenizer_char import TokenizerChar
    from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

    split: Any = {"zh": TokenizerZh, "char": TokenizerChar, "13a": Tokenizer13a}[name]()
    return lambda text: str(split(text.rstrip())).split()


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _words(text: str) -> list[str]:
    """Words with a mark of punctuation at one end split off, as chrF++ has it."""
    found: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in _PUNCTUATION:
            found += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in _PUNCTUATION:
            found += [word[0], word[1:]]
        else:
            found.append(word)
    return found
