"""Metrics against scikit-learn, rouge_score and sacrebleu; latency by a clock of the test."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from potstill.rows import Row, rows_to_dataset
from potstill.task import TaskSpec
from potstill.train import evaluate, metrics

words = st.lists(
    st.sampled_from(["a", "the", "cat", "sat", "on", "mat", "3.5", "Dogs,", "ran!", "été", "x-y"]), max_size=14
).map(" ".join)


@given(st.integers(2, 6), st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 5)), min_size=1, max_size=60))
@settings(max_examples=80, deadline=None)
def test_macro_f1_is_scikit_learns(n_labels, pairs):
    from sklearn.metrics import f1_score

    gold = np.array([g % n_labels for g, _ in pairs])
    answer = np.array([-1 if p < 0 else p % n_labels for _, p in pairs])
    found = float(metrics.macro_f1(metrics.confusion(gold, answer, n_labels)))
    assert found == pytest.approx(f1_score(gold, answer, average="macro", zero_division=0))


@pytest.mark.parametrize(
    ("gold", "output", "score"),
    [
        ("\u043c\u0438\u0440 \u0438 \u043c\u0438\u0440", "\u041c\u0438\u0440, \u0438 \u043c\u0438\u0440!", 1.0),
        ("\u6cd5\u56fd\u7684\u9996\u90fd", "\u6cd5\u56fd\u7684\u9996\u90fd\u3002", 1.0),
        ("\u6cd5\u56fd\u7684", "\u6cd5\u56fd", 0.8),
        ("\u00e9t\u00e9", "ete", 0.0),
        ("l'\u00e9t\u00e9 passe", "l'\u00e9t\u00e9", 0.8),
        ("\u0932\u0921\u093c\u0915\u093e", "\u0932\u0921\u093c\u0915\u0940", 0.0),
    ],
)  # fmt: skip
def test_rouge_l_reads_every_script(gold, output, score):
    assert metrics.rouge_l(gold, output) == pytest.approx(score)


@pytest.mark.parametrize(
    ("gold", "output", "score"),
    [
        ("the Denver Broncos", "Broncos of Denver.", 0.8),
        ("Broncos", "Broncos Broncos", 2 / 3),
        ("3.5", "35", 0.0),
        ("\u6cd5\u56fd\u7684", "\u6cd5\u56fd", 0.8),
        ("the", "a", 0.0),
        ("?", "?", 1.0),
        ("?", "yes", 0.0),
        ("A", "(a)", 1.0),
        ("[1, 2]", "[1,2]", 1.0),
        ("[1250,300]", "[1250, 400]", 0.5),
        ('{"a":"\u00e9t\u00e9"}', '{ "a": "\u00e9t\u00e9" }', 1.0),
        ('{"season": "\u00e9t\u00e9"}', "It is \u00e9t\u00e9.", 0.4),
        ("[]", "{}", 0.0),
    ],
)
def test_token_f1_counts_words_in_any_order(gold, output, score):
    assert metrics.token_f1(gold, output) == pytest.approx(score)


@given(words, words)
@settings(max_examples=100, deadline=None)
def test_token_f1_is_squads(gold, output):
    """The rule of the official script, on texts that its normalisation leaves something of."""
    a, b = metrics.normalise_answer(gold).split(), metrics.normalise_answer(output).split()
    common = sum(min(a.count(word), b.count(word)) for word in set(a))
    if a and b:
        assert metrics.token_f1(gold, output) == pytest.approx(2 * common / (len(a) + len(b)))


@given(words, words)
@settings(max_examples=200, deadline=None)
def test_rouge_l_is_the_packages(gold, output):
    from rouge_score.rouge_scorer import RougeScorer

    expected = RougeScorer(["rougeL"]).score(gold, output)["rougeL"].fmeasure
    assert metrics.rouge_l(gold, output) == pytest.approx(expected)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_chrf_is_sacrebleus(pairs):
    from sacrebleu.metrics import CHRF

    gold, outputs = [g for g, _ in pairs], [o for _, o in pairs]
    found = metrics.chrf(metrics.chrf_statistics(gold, outputs).sum(0))
    assert 100 * float(found) == pytest.approx(CHRF().corpus_score(outputs, [gold]).score, abs=1e-6)


@given(st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_chrf_of_several_references_is_sacrebleus(rows):
    from sacrebleu.metrics import CHRF

    outputs, gold = [output for output, _ in rows], [reference for _, right in rows for reference in right]
    starts = np.cumsum([0, *(len(right) for _, right in rows)])[:-1]
    table = metrics.chrf_statistics(gold, [output for output, right in rows for _ in right])
    columns = [[right[i] if i < len(right) else None for _, right in rows] for i in range(3)]
    expected = CHRF().corpus_score(outputs, columns).score
    found = metrics.chrf(metrics.nearest_statistics(table, starts).sum(0))
    assert 100 * float(found) == pytest.approx(expected, abs=1e-6)


def test_the_nearest_of_several_right_answers_counts():
    spec = TaskSpec(name="t", instruction="Answer.", kind="generation")
    gold = rows_to_dataset(
        [Row("q1", "the Nile", "user"), Row("q2", "four", "user"), Row("q3", "a red car", "user")], ()
    )
    right = [["the Nile river", "Nile"], ["four"], ["a red car", "red automobile"]]
    outputs = ["Nile", "5", "red automobile"]
    scores = evaluate.score_predictions(spec, gold.add_column("references", right), outputs)
    assert scores.rows == 3
    assert scores.exact_match == scores.token_f1 == scores.rouge_l == pytest.approx(2 / 3)
    assert evaluate.score_predictions(spec, gold, outputs).exact_match == pytest.approx(1 / 3)


def test_calibration_error_of_known_cases():
    gold = np.array([0] * 10)
    sure_and_wrong = np.tile([0.1, 0.9], (10, 1))
    assert metrics.expected_calibration_error(gold, sure_and_wrong) == pytest.approx(0.9)
    half = np.concatenate([np.tile([0.8, 0.2], (8, 1)), np.tile([0.8, 0.2], (2, 1))])
    assert metrics.expected_calibration_error(np.array([0] * 8 + [1] * 2), half) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("gold", "output", "same"),
    [
        ("The answer!", "answer", True),
        ("x b", "b x", False),
        ("!", "?", False),
        ("!", " !", True),
        ("ﬁne", "fine", True),
        # What makes another number of it is no punctuation.
        ("-5", "5", False),
        ("\u22125", "-5", True),
        ("3.5", "35", False),
        ("1,234", "1234.", True),
        ("1/2", "12", False),
        ("12:30", "1230", False),
        ("2021-05-03", "20210503", False),
        ("F-16", "f16", True),
        ("$5", "5", True),
        ("x <= 1", "x >= 1", False),
        ("C++", "c", False),
        ("see p. 5, line 3", "see p 5 line 3", True),
        ('{"a": 1, "b": "The Bun"}', '{"b":"bun","a":1}', True),
        ('{"a": 1}', '{"a": 1', False),
        ('{"a": 1}', '{"a": -1}', False),
        ('["x", "y"]', '["y", "x"]', False),
        ("{not json}", "not json", True),
        # The letter of an answer is no article.
        ("A", "A.", True),
        ("A", "(A)", True),
        ("A", "a", True),
        ("A", "B", False),
        ("A", "The", False),
        ("A", "", False),
        ('{"answer": "A"}', '{"answer": "a)"}', True),
        ('{"answer": "A"}', '{"answer": "the"}', False),
        # Products and powers are no marks of Markdown.
        ("2*3", "23", False),
        ("2 * 3", "2 3", False),
        ("2**3", "23", False),
        ("2^3", "23", False),
        ("10^-3", "10-3", False),
        ("10\u00b2", "102", False),
        ("10\u00b2", "10^2", True),
        ("10^{2}", "10^2", True),
        ("5 m\u00b2", "5 m2", True),
        ("12", "**12**", True),
        ("12 of 13", "*12* of *13*", True),
    ],
)
def test_exact_match_normalises(gold, output, same):
    assert bool(metrics.exact_matches([gold], [output])[0]) is same


@pytest.mark.parametrize(
    ("gold", "output", "same"),
    [
        ("2 + 3 = 5, and 5 x 2 = 10.\n#### 10", "First 5.\nThen 10.\n#### 10", True),
        ("So 1,250.\n#### 1,250", "#### 1250", True),
        ("So 10.\n#### 10", "It is 10.\n#### 12", False),
        ("So 10.\n#### 10", "10", True),
        ("So 10.\n#### 10", "It is 10.", False),
        ("So 10.\n#### 10", "####", False),
        ("So 10.\n#### 10", "", False),
        ("x #### no", "y #### No.", True),
        # A heading is no answer.
        ("#### First\nOne.\n#### Second\nTwo.", "#### Second\nTwo.", False),
    ],
)
def test_exact_match_looks_behind_the_sign_of_a_worked_answer(gold, output, same):
    assert bool(metrics.exact_matches([gold], [output])[0]) is same


def test_bootstrap_is_seeded_and_holds_the_score():
    random = np.random.default_rng(0)
    gold, answer = random.integers(0, 3, 400), random.integers(0, 3, 400)
    right = gold == answer
    draws = metrics.mean_of_draws(right.astype(float))
    low, high = metrics.bootstrap_interval(draws, 400)
    assert (low, high) == metrics.bootstrap_interval(draws, 400)
    assert low < right.mean() < high
    # The normal approximation is the oracle for the width.
    width = 2 * 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert high - low == pytest.approx(width, rel=0.15)
    f1 = metrics.bootstrap_interval(metrics.macro_f1_of_draws(gold, answer, 3), 400)
    assert f1[0] < float(metrics.macro_f1(metrics.confusion(gold, answer, 3))) < f1[1]


def test_macro_f1_of_draws_equals_one_by_one():
    random = np.random.default_rng(1)
    gold, answer = random.integers(0, 4, 50), random.integers(-1, 4, 50)
    draws = random.integers(0, 50, (7, 50))
    found = metrics.macro_f1_of_draws(gold, answer, 4)(draws)
    expected = [float(metrics.macro_f1(metrics.confusion(gold[d], answer[d], 4))) for d in draws]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    ("texts", "seconds", "asked", "counted"), [(60, 0.001, 62, 60), (60, 6.0, 3, 3), (1, 0.001, 2, 1), (2, 0.001, 4, 2)]
)
def test_latency_of_a_slow_student_is_taken_on_few_inputs(
    monkeypatch: pytest.MonkeyPatch, texts: int, seconds: float, asked: int, counted: int
) -> None:
    class Clocked:
        now, asked = 0.0, 0

        def predict(self, texts: list[str]) -> None:
            self.now += seconds
            self.asked += 1

    student = Clocked()
    monkeypatch.setattr(evaluate.time, "perf_counter", lambda: student.now)
    found = evaluate.measure_latency(student, [f"text {i}" for i in range(texts)])
    assert student.asked == asked
    assert found == {"p50": 1000 * seconds, "p95": 1000 * seconds, "threads": 1, "inputs": counted}


def test_intervals_of_many_labels_take_little_memory():
    random = np.random.default_rng(0)
    gold, predicted, draws = (random.integers(0, 300, size) for size in (400, 400, (400, 400)))
    predicted[:9] = -1
    draws %= 400
    tracemalloc.start()
    try:
        found = metrics.macro_f1_of_draws(gold, predicted, 300)(draws)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50 * 2**20
    for draw, value in zip(draws[:5], found[:5], strict=True):
        whole = metrics.macro_f1(metrics.confusion(gold[draw], predicted[draw], 300))
        assert value == pytest.approx(float(whole))


@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_the_interval_of_a_share_is_wilsons(n, share):
    right = round(share * n)
    low, high = metrics.share_interval(right / n, n)
    wanted = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert low == pytest.approx(wanted.low, abs=1e-9)
    assert high == pytest.approx(wanted.high, abs=1e-9)
    assert low <= right / n <= high


def test_rows_that_are_all_right_are_no_proof_of_a_perfect_score():
    gold = np.arange(20) % 2
    draws = metrics.macro_f1_of_draws(gold, gold, 2)
    assert metrics.bootstrap_interval(draws, 20) == (1.0, 1.0)
    low, high = metrics.score_interval(draws, 1.0, 20)
    assert 0.8 < low < 0.9
    assert high == 1.0
    some_wrong = np.where(np.arange(20) < 6, 1 - gold, gold)
    draws = metrics.macro_f1_of_draws(gold, some_wrong, 2)
    assert metrics.score_interval(draws, 0.7, 20) == metrics.bootstrap_interval(draws, 20)
