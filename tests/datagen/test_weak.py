"""Rules vote, copies are merged, and EM learns whom to believe."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from potstill.datagen.weak import (
    ABSTAIN,
    WeakOptions,
    dawid_skene,
    function_digest,
    label_texts,
    majority_vote,
    merge_copies,
    rule_function,
    usable_texts,
    votes_of,
)
from potstill.errors import DataError, TaskError
from potstill.retrieval.load import read_texts
from potstill.task import DataRef, Label, Rule, TaskSpec

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


@pytest.mark.parametrize("texts_a_label", [5, 20, 200])
def test_rules_that_never_meet_keep_their_labels(texts_a_label: int) -> None:
    """Agreement tells nothing about such rules: a free fit gave every text to one label."""
    labels, rules = 4, 6
    owner = [0, 0, 1, 1, 2, 3]
    votes = np.full((labels * texts_a_label, rules), ABSTAIN)
    gold = np.repeat(np.arange(labels), texts_a_label)
    rng = np.random.default_rng(0)
    for row, label in enumerate(gold):
        own = rng.choice([j for j in range(rules) if owner[j] == label])
        votes[row, own] = label
    model = dawid_skene(votes, labels)
    assert (model.probs.argmax(1) == gold).all()
    assert (model.probs.max(1) > 0.7).all()


def test_rules_on_real_questions_stay_near_the_majority(data_pack: Path) -> None:
    """With 100 texts of TREC, and with all of them, the label model loses at most two points to counting votes."""
    table = pq.read_table(data_pack / "tasks" / "trec" / "train.parquet").to_pydict()
    names = sorted(set(table["label_text"]))
    rules = (
        Rule("number", "regex", (r"\bhow (many|much|long|far|old)\b", r"^when\b", r"\bwhat (year|date)\b")),
        Rule("location", "regex", (r"^where\b",)),
        Rule("location", "keyword", ("country", "city", "state", "capital")),
        Rule("human", "regex", (r"^who\b",)),
        Rule("description", "regex", (r"^why\b", r"^how (do|does|did|can)\b")),
        Rule("abbreviation", "contains", ("stand for", "abbreviation")),
        Rule("entity", "keyword", ("color", "animal", "film", "book", "food", "disease")),
    )
    gold = np.array([names.index(name) for name in table["label_text"]])
    votes = votes_of([rule_function(rule) for rule in rules], table["text"], names)
    for count in (100, len(gold)):
        voted = (votes[:count] != ABSTAIN).any(1)
        right = [
            (model(votes[:count], len(names)).probs.argmax(1) == gold[:count])[voted].mean()
            for model in (dawid_skene, majority_vote)
        ]
        assert right[0] > right[1] - 0.02
        assert right[0] > 0.85


def test_a_rule_that_always_backtracks_is_switched_off_and_counted() -> None:
    spec = replace(SPEC, rules=(Rule("spam", "regex", (r"(x|xx)+$",)), *SPEC.rules))
    texts = [f"{'x' * 60} free {i}" for i in range(60)]
    start = time.perf_counter()
    result = label_texts(spec, texts)
    assert time.perf_counter() - start < 10
    slow = result.report["functions"][0]
    assert slow["off"] is True
    assert slow["timeouts"] == 8
    assert result.report["labels"] == {"spam": 60}  # by the other rules


def test_unlabelled_texts_of_broken_encoding_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "inbox.txt"
    path.write_bytes("\ufeffgrüß dich\n".encode() + b"caf\xe9 at nine\nhome soon\nHome  soon\nnul \x00 byte\n")
    texts = read_texts(DataRef(str(path)), SPEC)
    kept, dropped = usable_texts(texts, "inbox")
    assert [text for _, text in kept] == ["grüß dich", "home soon"]
    assert [place for place, _ in kept] == [0, 2]
    assert sorted(item.reason for item in dropped) == ["broken_encoding", "broken_encoding", "duplicate"]
    path.write_bytes("zwei\nZeilen\n".encode("utf-16"))
    assert read_texts(DataRef(str(path)), SPEC) == ["zwei", "Zeilen"]
    path.write_bytes(bytes(range(128, 256)) * 4)
    with pytest.raises(DataError, match=r"inbox holds no usable text \(1 texts, 1 of broken encoding\); save it as"):
        usable_texts(read_texts(DataRef(str(path)), SPEC), "inbox")


def test_python_functions_vote_beside_rules() -> None:
    def shouting(text: str) -> str | None:
        return "spam" if text.isupper() else None

    result = label_texts(SPEC, ["WIN WIN WIN", "home at nine"], functions=[shouting])
    assert result.report["labels"] == {"spam": 1, "ham": 1}
    assert result.report["functions"][-1]["name"] == "shouting"
    assert function_digest(shouting) == function_digest(shouting)
    assert function_digest(shouting) != function_digest(rule_function)
