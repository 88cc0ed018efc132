"""Counts of a generation run, and how varied its texts are: what the report shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Any

from potstill.asking.teacher import Failure
from potstill.datagen.filters import words
from potstill.datagen.novelty import SCANNED
from potstill.datagen.recent_novelty import RecentNovelty
from potstill.language.unspaced import letters_apart


@dataclass
class Tally:
    """What happened to the requests and texts of a run, counted in the order of the requests."""

    requests: int = 0
    failed: int = 0
    unanswered: int = 0  # of the failed, those that the server may answer another day
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    texts: int = 0
    kept: int = 0
    cut_to_form: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_by_label: dict[str, Counter[str]] = field(default_factory=dict)

    def fail(self, failure: Failure) -> None:
        """Count a request that got no reply."""
        self.failed += 1
        self.unanswered += failure.passing

    def drop(self, reason: str, label: str = "") -> None:
        """Count a dropped text."""
        self.dropped[reason] += 1
        if label:
            self.dropped_by_label.setdefault(label, Counter())[reason] += 1

    def to_json(self) -> dict[str, Any]:
        """JSON types, for the report. What was cached is left out: a rerun gives the same report."""
        tokens = self.prompt_tokens + self.completion_tokens
        return {
            "requests": self.requests,
            "failed": self.failed,
            **({"unanswered": self.unanswered} if self.unanswered else {}),
            "texts": self.texts,
            "kept": self.kept,
            **({"cut_to_form": self.cut_to_form} if self.cut_to_form else {}),
            "dropped": dict(sorted(self.dropped.items())),
            "dropped_by_label": {label: dict(sorted(c.items())) for label, c in sorted(self.dropped_by_label.items())},
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "yield": round(self.kept / self.texts, 4) if self.texts else 0.0,
            "yield_per_1k_tokens": round(1000 * self.kept / tokens, 4) if tokens else 0.0,
        }


class TextSample:
    """A uniform sample of texts that come one by one, of fixed size (Vitter 1985, algorithm R), and how many of all of
    them are near-duplicates.

    Attributes:
        texts: The sample.
        seen: Texts seen.
        near: Texts seen whose ROUGE-L F1 with one of the 50,000 before them is above 0.7.
    """

    def __init__(self, size: int = 5000, seed: int = 0):
        self._size = size
        self._random = Random(f"sample {seed}")
        self._latest = RecentNovelty(SCANNED, 0.7)
        self.texts: list[str] = []
        self.seen = 0
        self.near = 0

    def add(self, text: str) -> None:
        """Show it one text."""
        self.seen += 1
        self.near += self._latest.match(text) is not None
        self._latest.add(text)
        if len(self.texts) < self._size:
            self.texts.append(text)
            return
        place = self._random.randrange(self.seen)
        if place < self._size:
            self.texts[place] = text

    def diversity(self, seed: int = 0) -> dict[str, Any]:
        """As `diversity` of the sample, with the near-duplicates of all texts seen.

        Returns:
            The figures; `diversity_sample`, how many texts they but for `near_duplicate_rate` are of; and
            `diversity_texts`, how many were seen.
        """
        return {
            **_variety(self.texts, seed),
            "near_duplicate_rate": round(self.near / max(1, self.seen), 4),
            "diversity_sample": len(self.texts),
            "diversity_texts": self.seen,
        }


def diversity(texts: Sequence[str], seed: int = 0) -> dict[str, float]:
    """How varied texts are.

    Args:
        texts: The kept texts, or a sample of them where they are many. Each letter of a script without spaces between
            words is a word.
        seed: Of the sample for self-BLEU.

    Returns:
        `distinct_1`, `distinct_2`: distinct words and word pairs by all of them (Li et al., arXiv:1510.03055).
        `near_duplicate_rate`: share whose ROUGE-L F1 with an earlier one is above 0.7.
        `self_bleu`: mean BLEU-4 of up to 60 texts against up to 200 others, 0 to 1 (Zhu et al., arXiv:1802.01886).
        `mean_words`: mean length.
    """
    return {**_variety(texts, seed), "near_duplicate_rate": near_duplicate_rate(texts)}


def near_duplicate_rate(texts: Sequence[str]) -> float:
    """Share of texts whose ROUGE-L F1 with an earlier one is above 0.7 (arXiv:2212.10560 §2.2), to four digits."""
    novelty = RecentNovelty(max(1, len(texts)), 0.7)
    near = 0
    for text in texts:
        near += novelty.match(text) is not None
        novelty.add(text)
    return round(near / max(1, len(texts)), 4)


def distinct_shares(texts: Sequence[str]) -> tuple[float, float]:
    """Distinct words and word pairs by all of them (arXiv:1510.03055 §5), to four digits; see `diversity`."""
    found = _counted([letters_apart(text) for text in texts])
    one, two = (round(len(count) / max(1, count.total()), 4) for count in found)
    return one, two


def _counted(texts: Sequence[str]) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """How often each word and each pair of words stands in texts."""
    tokens = [words(text) for text in texts]
    return Counter(word for own in tokens for word in own), Counter(pair for own in tokens for pair in pairwise(own))


def _variety(texts: Sequence[str], seed: int) -> dict[str, float]:
    distinct_1, distinct_2 = distinct_shares(texts)
    texts = [letters_apart(text) for text in texts]
    one, _ = _counted(texts)
    return {
        "distinct_1": distinct_1,
        "distinct_2": distinct_2,
        "self_bleu": round(_self_bleu(texts, seed), 4),
        "mean_words": round(one.total() / max(1, len(texts)), 2),
    }


def _self_bleu(texts: Sequence[str], seed: int) -> float:
    from sacrebleu import BLEU

    if len(texts) < 2:
        return 0.0
    random = Random(seed)
    chosen = random.sample(range(len(texts)), k=min(60, len(texts)))
    bleu = BLEU(effective_order=True)
    total = 0.0
    for index in chosen:
        others = random.sample(range(len(texts)), k=min(201, len(texts)))
        references = [texts[other][:1000] for other in others if other != index][:200]
        total += bleu.sentence_score(texts[index][:1000], references).score / 100
    return total / len(chosen)
