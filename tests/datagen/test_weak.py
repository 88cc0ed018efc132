"""Rules vote, copies are merged, and EM learns whom to believe."""

from __future__ import annotations

import time

import numpy as np
import pytest

from potstill.datagen.weak import (
    ABSTAIN,
    WeakOptions,
    dawid_skene,
    label_texts,
    majority_vote,
    merge_copies,
    rule_function,
    votes_of,
)
from potstill.errors import DataError, TaskError
from potstill.task import Label, Rule, TaskSpec

SPEC = TaskSpec(
    "sms",
    "Decide whether a text message is spam.",
    "classification",
    (Label("ham"), Label("spam")),
    rules=(
        Rule("spam", "keyword", ("free", "prize")),
        Rule("spam", "regex", (r"\b\d{5}\b",)),
        Rule("ham", "contains", ("home", "mum")),
    ),
)


def simulate(seed: int, copies: int = 0, n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Twelve functions of unlike accuracy with abstains, four labels; the worst one may be copied."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 4, n)
    accuracies = np.linspace(0.35, 0.9, 12)
    votes = np.full((n, 12), ABSTAIN)
    for j, accuracy in enumerate(accuracies):
        right = rng.random(n) < accuracy
        wrong = (gold + rng.integers(1, 4, n)) % 4
        votes[:, j] = np.where(rng.random(n) < 0.6, np.where(right, gold, wrong), ABSTAIN)
    return np.concatenate([votes, *[votes[:, :1]] * copies], axis=1), gold


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_em_beats_the_majority(seed: int) -> None:
    votes, gold = simulate(seed)
    majority = (majority_vote(votes, 4).probs.argmax(1) == gold).mean()
    model = dawid_skene(votes, 4)
    learnt = (model.probs.argmax(1) == gold).mean()
    assert learnt > majority + 0.005
    assert np.abs(model.accuracies - np.linspace(0.35, 0.9, 12)).max() < 0.08
    assert np.allclose(model.probs.sum(1), 1)


def test_copies_hurt_until_they_are_merged() -> None:
    votes, gold = simulate(0, copies=6)
    merged, groups = merge_copies(votes)
    assert groups[0] == [0, 12, 13, 14, 15, 16, 17]
    assert merged.shape[1] == 12
    with_copies = (dawid_skene(votes, 4).probs.argmax(1) == gold).mean()
    without = (dawid_skene(merged, 4).probs.argmax(1) == gold).mean()
    clean = (dawid_skene(simulate(0)[0], 4).probs.argmax(1) == gold).mean()
    assert without == clean
    assert without > with_copies + 0.05


def test_em_equals_crowd_kit() -> None:
    crowdkit = pytest.importorskip("crowdkit.aggregation", reason="crowd-kit is not installed")
    pandas = pytest.importorskip("pandas")
    votes, _ = simulate(3, n=500)
    rows = [(i, j, int(v)) for i, row in enumerate(votes) for j, v in enumerate(row) if v != ABSTAIN]
    frame = pandas.DataFrame(rows, columns=["task", "worker", "label"])
    theirs = crowdkit.DawidSkene(n_iter=100).fit_predict(frame)
    ours = dawid_skene(votes, 4, smoothing=1e-6).probs.argmax(1)
    voted = np.flatnonzero((votes != ABSTAIN).any(1))
    assert (theirs.loc[voted].to_numpy() == ours[voted]).mean() > 0.99


def test_rules_vote() -> None:
    functions = [rule_function(rule) for rule in SPEC.rules]
    votes = votes_of(functions, ["FREE prize, call 12345", "freedom", "on my way Home", "x"], SPEC.label_names)
    assert votes.tolist() == [[1, 1, -1], [-1, -1, -1], [-1, -1, 0], [-1, -1, -1]]


def test_texts_are_labelled_with_provenance() -> None:
    texts = (
        [f"free entry {i}, text 8000{i % 10}" for i in range(20)] + [f"coming home at {i}" for i in range(20)] + ["?"]
    )
    result = label_texts(SPEC, texts, dataset="inbox")
    assert result.report["labels"] == {"spam": 20, "ham": 20}
    assert result.report["dropped"] == {"no_vote": 1}
    row = result.rows[0]
    assert (row["origin"], row["source"]["dataset"], row["output"]) == ("pseudo", "inbox", "spam")
    assert row["weight"] == pytest.approx(max(row["teacher_probs"]))
    unsure = label_texts(SPEC, ["free at home"] * 3, WeakOptions(model="majority"))
    assert unsure.report["dropped"] == {"unsure": 3}


def test_a_backtracking_regex_is_bounded() -> None:
    function = rule_function(Rule("spam", "regex", (r"(a|aa)+$", r"(\w+\s?)*!$")))
    start = time.perf_counter()
    function("a" * 5000 + "b " * 3000)
    assert time.perf_counter() - start < 3


def test_mistakes_are_named() -> None:
    with pytest.raises(TaskError, match=r"the rule for 'spam' has an unreadable regular expression '\('"):
        rule_function(Rule("spam", "regex", ("(",)))
    with pytest.raises(DataError, match="gives 'eggs', which is none of ham, spam"):
        label_texts(SPEC, ["x"], functions=[lambda text: "eggs"])
    with pytest.raises(DataError, match="no labelling rules"):
        label_texts(TaskSpec("t", "i", "classification", SPEC.labels), ["x"])
