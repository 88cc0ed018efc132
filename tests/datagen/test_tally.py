"""Figures of a run's texts: of a sample, but for the near-duplicates, which are counted over all."""

from __future__ import annotations

import random

import pytest

from potstill.datagen.tally import TextSample, diversity


def texts(count: int, copies: int) -> list[str]:
    draw = random.Random(0)
    words = [f"w{i}" for i in range(3000)]
    made = [" ".join(draw.sample(words, k=8)) for _ in range(count)]
    return made + [text + " again" for text in made[:copies]]


def test_near_duplicates_are_counted_over_all_texts_and_not_over_the_sample() -> None:
    sample = TextSample(size=20)
    for text in texts(400, 40):
        sample.add(text)
    found = sample.diversity()
    assert found["near_duplicate_rate"] == pytest.approx(40 / 440, abs=1e-4)
    assert (found["diversity_sample"], found["diversity_texts"]) == (20, 440)


def test_a_sample_of_all_has_the_figures_of_all() -> None:
    sample = TextSample(size=500)
    for text in texts(100, 10):
        sample.add(text)
    found = sample.diversity(3)
    expected = diversity(texts(100, 10), 3)
    assert expected["near_duplicate_rate"] > 0
    assert {name: found[name] for name in expected} == expected


def test_texts_without_spaces_are_as_varied_as_they_are() -> None:
    """As one word each, sentences that share all but one letter would be wholly distinct."""
    alike = [f"我今天在{place}学习中文。" for place in "家店校车船"]
    apart = ["苹果很甜", "火车晚点", "昨夜下雪", "他会游泳", "灯亮着呢"]
    one, other = diversity(alike), diversity(apart)
    assert one["distinct_1"] < 0.4 < 0.9 < other["distinct_1"]
    assert one["self_bleu"] > 0.3 > 0.1 > other["self_bleu"]
    assert (one["mean_words"], other["mean_words"]) == (9.0, 4.0)
    thai = diversity(["ฉันรักแมว", "ฉันรักหมา"])
    assert thai["distinct_1"] < 0.9
    plain = ["a café here", "the naïve one"]
    assert diversity(plain)["mean_words"] == 3.0


def test_no_texts() -> None:
    assert set(diversity([]).values()) == {0.0}
    assert TextSample().diversity()["near_duplicate_rate"] == 0.0
