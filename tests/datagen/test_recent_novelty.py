"""The bounded novelty filter against the exact one, and its bound."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.datagen.novelty import NoveltyFilter
from potstill.datagen.recent_novelty import RecentNovelty

WORD = st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "7", "é", "x"])
TEXTS = st.lists(st.lists(WORD, max_size=9).map(" ".join), max_size=40)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.sampled_from([0.3, 0.7, 0.8, 1.0]))
def test_decisions_are_the_exact_filters_while_nothing_is_forgotten(texts: list[str], threshold: float) -> None:
    exact, recent = NoveltyFilter(threshold, scanned=1), RecentNovelty(64, threshold)
    for text in texts:
        assert recent.match(text) == exact.match(text)
        assert recent.add(text) == exact.add(text)


def test_long_texts_near_the_threshold() -> None:
    draw = random.Random(1)
    exact, recent = NoveltyFilter(0.7, scanned=1), RecentNovelty(500, 0.7)
    vocabulary = [f"word{i}" for i in range(60)]
    texts: list[str] = []
    matched = 0
    for _ in range(400):
        words = [draw.choice(vocabulary) for _ in range(draw.randint(5, 120))]
        if texts and draw.random() < 0.5:
            words = draw.choice(texts).split()
            for _ in range(len(words) // 4):
                words[draw.randrange(len(words))] = draw.choice(vocabulary)
        texts.append(" ".join(words))
        found = recent.match(texts[-1])
        assert found == exact.match(texts[-1])
        matched += found is not None
        recent.add(texts[-1])
        exact.add(texts[-1])
    assert 50 < matched < 350


def test_only_the_latest_are_compared_with() -> None:
    recent = RecentNovelty(3)
    texts = [f"number {'x' * i} of {'y' * i} and {'z' * i}" for i in range(1, 8)]
    for number, text in enumerate(texts):
        assert recent.match(text) is None
        assert recent.add(text) == number
    assert [recent.match(text) is not None for text in texts] == [False] * 4 + [True] * 3
    found = recent.match(texts[-1])
    assert found is not None
    assert found.index == 6
    assert len(recent) == 7


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(1, 9))
def test_of_a_long_run_the_latest_are_compared_with_as_exactly(texts: list[str], size: int) -> None:
    recent = RecentNovelty(size)
    for number, text in enumerate(texts):
        first = max(0, number - size)
        found = NoveltyFilter(0.7, texts=texts[first:number]).match(text)
        expected = None if found is None else (first + found.index, found.f1)
        match = recent.match(text)
        assert (None if match is None else (match.index, match.f1)) == expected
        recent.add(text)


@pytest.mark.parametrize(("size", "threshold"), [(0, 0.7), (1, 0.0), (1, 1.5)])
def test_impossible_values(size: int, threshold: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        RecentNovelty(size, threshold)
