"""The novelty filter decides as `rouge_score` over the whole pool does."""

from __future__ import annotations

import gzip
import json
import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from potstill.datagen.novelty import (
    NoveltyFilter,
    any_script_tokens,
    lcs_length,
    rouge_l_f1,
    rouge_tokens,
)

SCORER = RougeScorer(["rougeL"], use_stemmer=False)
WORD = st.sampled_from(["a", "the", "cat", "cats", "sat", "on", "mat", "of", "7", "it's", "Über", "x_y", "co-op", "."])
SCANNED = pytest.mark.parametrize("scanned", [64, 50_000], ids=["lists", "signatures"])
SENTENCE = st.lists(WORD, min_size=0, max_size=14).map(" ".join)


def reference(a: str, b: str) -> float:
    return float(SCORER.score(a, b)["rougeL"].fmeasure)


def quadratic_lcs(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        previous = 0
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], previous + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


@settings(max_examples=1500, deadline=None)
@given(SENTENCE, SENTENCE)
def test_f1_equals_rouge_score_to_the_last_bit(a: str, b: str) -> None:
    assert rouge_l_f1(a, b, rouge_tokens) == reference(a, b)


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_f1_equals_rouge_score_on_any_text(a: str, b: str) -> None:
    assert rouge_l_f1(a, b, rouge_tokens) == reference(a, b)


@given(st.lists(st.sampled_from("abc"), max_size=90), st.lists(st.sampled_from("abcd"), max_size=90))
def test_bit_parallel_lcs_equals_the_table(a: list[str], b: list[str]) -> None:
    assert lcs_length(a, b) == quadratic_lcs(a, b)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(SENTENCE, min_size=2, max_size=40),
    st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]),
    st.sampled_from([1, 8, 50_000]),
)
def test_decisions_equal_a_scan_of_the_pool(texts: list[str], threshold: float, scanned: int) -> None:
    novelty = NoveltyFilter(threshold, rouge_tokens, scanned=scanned)
    pool: list[str] = []
    for text in texts:
        scores = [reference(kept, text) for kept in pool]
        expected = next((i for i, score in enumerate(scores) if score > threshold), None)
        found = novelty.match(text)
        assert (None if found is None else found.index) == expected
        if found is None:
            novelty.add(text)
            pool.append(text)
        else:
            assert found.f1 == scores[found.index]


@SCANNED
def test_decisions_hold_across_rebuilds_of_the_index(scanned: int) -> None:
    """Enough rows for two rebuilds, with many pairs right at the threshold."""
    rng = random.Random(4)
    words = [f"w{i}" for i in range(60)]
    novelty, pool, refused = NoveltyFilter(0.7, rouge_tokens, scanned=scanned), [], 0
    for _ in range(1500):
        text = rng.sample(words, k=rng.randint(4, 12))
        if pool and rng.random() < 0.5:
            text = [w if rng.random() > 0.25 else rng.choice(words) for w in rng.choice(pool)]
        expected = any(
            2 * quadratic_lcs(kept, text) / (len(kept) + len(text)) > 0.7 + 1e-9
            for kept in pool
            if min(len(kept), len(text)) * 2 > 0.69 * (len(kept) + len(text))
        )
        close = reference(" ".join(text), " ".join(text)) and novelty.match(" ".join(text))
        if not expected and close:  # the boundary itself is decided by the floats of rouge_score
            assert reference(" ".join(pool[close.index]), " ".join(text)) > 0.7
            refused += 1
            continue
        assert bool(close) == expected
        if close:
            refused += 1
        else:
            novelty.add(" ".join(text))
            pool.append(text)
    assert len(novelty) > 512
    assert refused > 100


@SCANNED
@pytest.mark.parametrize("threshold", [0.2, 0.35, 0.7, 1.0])
def test_short_texts_of_common_words_are_found(threshold: float, scanned: int) -> None:
    """A shared word or two is all there is to find them by, and every word is common."""
    rng = random.Random(5)
    novelty, pool = NoveltyFilter(threshold, rouge_tokens, scanned=scanned), []
    for _ in range(500):
        text = " ".join(rng.choices("abcdefgh", k=rng.randint(1, 6)))
        expected = next((i for i, kept in enumerate(pool) if reference(kept, text) > threshold), None)
        found = novelty.match(text)
        assert (None if found is None else found.index) == expected
        novelty.add(text)
        pool.append(text)


@SCANNED
def test_scores_few_pairs(scanned: int) -> None:
    """The point of the bounds: a scan would score every pair."""
    rng = random.Random(0)
    words = [f"w{i}" for i in range(2000)]
    novelty = NoveltyFilter(0.7, scanned=scanned)
    for _ in range(2000):
        novelty.admit(" ".join(rng.choices(words, k=12)))
    assert novelty.pairs_scored < 0.001 * 2000 * 1999 / 2


def test_lists_are_given_up_where_words_always_come_together() -> None:
    """Three of sixteen phrases a text: any few shared tokens lead to many texts, and lists would hold each often."""
    rng = random.Random(3)
    phrases = [" ".join(f"p{i}w{j}" for j in range(5)) for i in range(16)]
    novelty, pool = NoveltyFilter(0.7, scanned=64), NoveltyFilter(0.7)
    for number in range(1500):
        text = " ".join([*rng.sample(phrases, 3), f"a{number % 40}", f"b{number % 37}"])
        assert novelty.match(text) == pool.match(text)
        novelty.add(text)
        pool.add(text)
    assert novelty.entries <= 32 * len(novelty)


def test_other_scripts_are_seen() -> None:
    assert rouge_tokens("今日は良い天気です") == []
    novelty = NoveltyFilter(0.7, any_script_tokens, ["今日は良い天気ですね"])
    assert novelty.match("今日は良い天気です") is not None
    assert novelty.match("明日の試合はどこで見られますか") is None


READABLE = st.text(st.characters(codec="ascii") | st.sampled_from("’“”—…€\u00a0\n"), max_size=60)


@settings(max_examples=400, deadline=None)
@given(READABLE, READABLE)
def test_the_default_tokens_are_rouge_scores_where_all_letters_are_ascii(a: str, b: str) -> None:
    assert any_script_tokens(a) == rouge_tokens(a)
    assert rouge_l_f1(a, b) == reference(a, b)


@settings(max_examples=400, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=60))
def test_elsewhere_they_are_rouge_scores_and_one_for_each_letter_that_it_drops(text: str) -> None:
    tokens = any_script_tokens(text)
    assert [token for token in tokens if token.isascii()] == rouge_tokens(text)
    other = [letter for letter in text.lower() if letter.isalnum() and not letter.isascii()]
    letters = [token for token in tokens if not token.isascii()]
    assert [token[0] for token in letters] == other
    assert all(unicodedata.category(mark)[0] == "M" for token in letters for mark in token[1:])


def test_words_that_differ_in_an_accent_are_told_apart() -> None:
    """In Vietnamese ma, má, mả and mạ are four words; rouge_score reads the last three as m."""
    assert reference("Cô má mả", "Cô mạ mạ") == 1.0
    assert rouge_l_f1("Cô má mả", "Cô mạ mạ") < 1.0


def test_signatures_grow_and_forget_nothing() -> None:
    novelty = NoveltyFilter(0.7)
    texts = [f"{number} apples of {number + 1} trees in {number + 2} gardens" for number in range(0, 3000, 5)]
    assert all(novelty.admit(text) is None for text in texts)
    assert [match.index for text in texts if (match := novelty.match(text))] == list(range(len(texts)))


def test_threshold_is_checked() -> None:
    with pytest.raises(ValueError, match=r"threshold must be in \(0, 1\] \(got 0\)"):
        NoveltyFilter(0)


@pytest.mark.parametrize("text", ["", "...", "\x00", "a " * 50_000])
def test_odd_texts_pass_through(text: str) -> None:
    novelty = NoveltyFilter(0.7)
    assert novelty.admit(text) is None
    assert (novelty.match(text) is None) == (not rouge_tokens(text))


def test_alpaca_decisions_equal_rouge_score(data_pack: Path) -> None:
    """On real instructions with perturbed copies: each decision is checked against rouge_score over the pool."""
    with gzip.open(data_pack / "selfinstruct" / "alpaca_5k.jsonl.gz", "rt") as file:
        texts = [json.loads(line)["instruction"] for line, _ in zip(file, range(120), strict=False)]
    rng = random.Random(1)
    for text in texts[:120:2]:
        kept = [word for word in text.split() if rng.random() < 0.85]
        texts.append(" ".join(kept))
    novelty, pool, refused = NoveltyFilter(0.7, rouge_tokens), [], 0
    for text in texts:
        expected = next((i for i, kept in enumerate(pool) if reference(kept, text) > 0.7), None)
        found = novelty.admit(text)
        assert (None if found is None else found.index) == expected
        if found is None:
            pool.append(text)
        refused += found is not None
    assert refused > 30
    assert len(pool) > 100
