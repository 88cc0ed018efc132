"""Rules vote, copies are merged, and EM learns whom to believe."""

from __future__ import annotations

import json
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from potstill.datagen.votes import ABSTAIN, function_digest, rule_function, votes_of
from potstill.datagen.weak import (
    WeakOptions,
    dawid_skene,
    label_texts,
    majority_vote,
    merge_copies,
    usable_texts,
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


def crowd_kit(votes: np.ndarray, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities by crowd-kit's Dawid-Skene, and the rows that have votes."""
    crowdkit = pytest.importorskip("crowdkit.aggregation", reason="crowd-kit is not installed")
    pandas = pytest.importorskip("pandas")
    rows = [(i, j, int(v)) for i, row in enumerate(votes) for j, v in enumerate(row) if v != ABSTAIN]
    frame = pandas.DataFrame(rows, columns=["task", "worker", "label"])
    theirs = crowdkit.DawidSkene(n_iter=200, tol=1e-9).fit_predict_proba(frame)
    voted = np.flatnonzero((votes != ABSTAIN).any(1))
    return theirs.loc[voted].reindex(columns=range(labels), fill_value=0.0).to_numpy(), voted


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_em_equals_crowd_kit(seed: int) -> None:
    """Functions of several labels that meet: the same model, so the same probabilities."""
    votes, _ = simulate(seed, n=500)
    theirs, voted = crowd_kit(votes, 4)
    ours = dawid_skene(votes, 4, smoothing=1e-6, rounds=200, tolerance=1e-9).probs[voted]
    assert (theirs.argmax(1) == ours.argmax(1)).mean() > 0.99
    assert np.abs(theirs - ours).mean() < 0.01


def test_a_function_below_chance_is_read_the_other_way_round_as_by_crowd_kit() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 1000)
    votes = np.stack([np.where(rng.random(1000) < share, gold, 1 - gold) for share in (0.8, 0.75, 0.8, 0.1)], axis=1)
    theirs, voted = crowd_kit(votes, 2)
    model = dawid_skene(votes, 2, smoothing=1e-6, rounds=200, tolerance=1e-9)
    assert len(voted) == 1000
    assert (theirs.argmax(1) == model.probs.argmax(1)).mean() > 0.99
    assert model.accuracies[3] < 0.15
    without = (dawid_skene(votes[:, :3], 2).probs.argmax(1) == gold).mean()
    assert (model.probs.argmax(1) == gold).mean() > without + 0.02


def test_a_rule_that_is_always_wrong_does_not_carry_the_others_along() -> None:
    """Rules of one label each: crowd-kit's free fit beside ours, on rules that meet little."""
    rng = np.random.default_rng(1)
    gold = rng.integers(0, 4, 2000)
    votes = np.full((2000, 9), ABSTAIN)
    for j in range(8):  # two good rules a label
        fires = (rng.random(2000) < 0.25) & ((gold == j % 4) | (rng.random(2000) < 0.03))
        votes[fires, j] = j % 4
    votes[(gold != 0) & (rng.random(2000) < 0.2), 8] = 0
    theirs, voted = crowd_kit(votes, 4)
    ours = dawid_skene(votes, 4)
    right = (ours.probs.argmax(1) == gold)[voted].mean()
    assert right > (theirs.argmax(1) == gold[voted]).mean() + 0.02
    assert right > (majority_vote(votes, 4).probs.argmax(1) == gold)[voted].mean() - 0.01
    alone = (votes[:, :8] == ABSTAIN).all(1) & (votes[:, 8] != ABSTAIN)
    assert alone.sum() > 50
    assert ours.accuracies[8] < ours.accuracies[:8].min()


@pytest.mark.parametrize("functions", [1, 3])
def test_functions_that_meet_nobody_are_believed_at_the_prior(functions: int) -> None:
    """Alone, whatever a function votes for, there is nothing to learn: 0.9, not certainty; crowd-kit is certain."""
    rng = np.random.default_rng(0)
    said = rng.integers(0, 3, 600)
    votes = np.full((600, functions), ABSTAIN)
    votes[np.arange(600), np.arange(600) % functions] = said
    theirs, _ = crowd_kit(votes, 3)
    assert theirs.max(1).min() > 0.99
    model = dawid_skene(votes, 3)
    assert (model.probs.argmax(1) == said).all()
    assert model.probs.max(1) == pytest.approx(0.9, abs=0.01)
    one = dawid_skene(np.where(votes[:, :1] == 0, 0, ABSTAIN), 3)
    assert one.probs[votes[:, 0] == 0].max(1) == pytest.approx(0.9, abs=0.01)


def test_when_nobody_votes_every_text_is_dropped_and_said() -> None:
    votes = np.full((7, 3), ABSTAIN)
    model = dawid_skene(votes, 2)
    assert np.allclose(model.probs, 0.5)
    assert np.isnan(model.accuracies).all()
    result = label_texts(SPEC, ["nothing", "here"])
    assert (result.rows.num_rows, result.report["dropped"]) == (0, {"no_vote": 2})
    assert result.notes == ["the rules label none of 2 texts; see weak/dropped.jsonl"]
    assert label_texts(SPEC, []).rows.num_rows == 0


def test_work_goes_with_the_votes() -> None:
    """100,000 texts, 60 rules, 77 labels: a table of all three would take 3.7 GB."""
    import resource

    rng = np.random.default_rng(0)
    votes = np.full((100_000, 60), ABSTAIN)
    for j in range(60):
        votes[rng.random(100_000) < 0.02, j] = j
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    dawid_skene(votes, 77, rounds=5)
    assert time.perf_counter() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # KiB


def test_rules_vote() -> None:
    functions = [rule_function(rule) for rule in SPEC.rules]
    votes = votes_of(functions, ["FREE prize, call 12345", "freedom", "on my way Home", "x"], SPEC.label_names)
    assert votes.votes.tolist() == [[1, 1, -1], [-1, -1, -1], [-1, -1, 0], [-1, -1, -1]]


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
    with pytest.raises(DataError, match="a rule is for 'eggs', which is none of ham, spam"):
        label_texts(replace(SPEC, rules=(Rule("eggs", "contains", ("x",)),)), ["x"])
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
    votes = votes_of([rule_function(rule) for rule in rules], table["text"], names).votes
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


def test_a_function_that_fails_on_some_texts_abstains_there_and_is_counted() -> None:
    def fragile(text: str) -> str | None:
        if "7" in text:
            raise KeyError("a line\nand \ud800 more")
        return "spam"

    def typo(text: str) -> str | None:
        return "Spam" if "3" in text else None

    def mixed(text: str) -> str | None:
        return ["spam"] if "1" in text else 5 if "2" in text else "ham" if "9" in text else None  # type: ignore[return-value]

    texts = [f"message {i}" for i in range(10)]
    result = label_texts(replace(SPEC, rules=()), texts, functions=[fragile, typo, mixed])
    told = {item["name"]: item for item in result.report["functions"]}
    assert (told["fragile"]["faults"], told["fragile"]["first_fault"]) == (1, "KeyError: 'a line\\nand \\ud800 more'")
    assert (told["typo"]["faults"], told["typo"]["first_fault"]) == (1, "gives 'Spam', which is none of ham, spam")
    assert (told["mixed"]["faults"], told["mixed"]["first_fault"]) == (
        2, "gives ['spam'], which is none of ham, spam"
    )  # fmt: skip
    assert result.report["labelled"] >= 8
    assert result.notes[0].startswith("fragile failed on 1 texts and abstains there: KeyError")


def test_a_function_that_fails_on_every_text_is_named() -> None:
    def broken(text: str) -> str | None:
        return text.nope  # type: ignore[attr-defined, no-any-return]

    with pytest.raises(
        DataError, match=r"the labelling function broken failed on all of 3 texts \(AttributeError: 'str' object has"
    ):
        label_texts(SPEC, ["a", "b", "c"], functions=[broken])

    def stop(text: str) -> str | None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_texts(SPEC, ["a"], functions=[stop])


def test_a_function_that_hangs_is_stopped_and_switched_off() -> None:
    import re

    def hangs(text: str) -> str | None:
        while "slow" in text:
            try:
                time.sleep(0.001)
            except Exception:
                return "ham"
        return "spam"

    def backtracks(text: str) -> str | None:
        return "spam" if re.search(r"(x|xx)+$", text) else None

    texts = [*(f"free {i}" for i in range(20)), *(f"slow {i} {'x' * 60}!" for i in range(20))]
    start = time.perf_counter()
    result = label_texts(SPEC, texts, WeakOptions(timeout_s=0.05), functions=[hangs, backtracks])
    assert time.perf_counter() - start < 10
    for name in ("hangs", "backtracks"):
        told = next(item for item in result.report["functions"] if item["name"] == name)
        assert (told["timeouts"], told["off"], told["first_fault"]) == (8, True, "no answer within 0.05 s")
    assert result.report["labels"]["spam"] >= 20
    with pytest.raises(DataError, match=r"hangs failed on all of 20 texts \(no answer within 0.05 s\)"):
        label_texts(SPEC, texts[20:], WeakOptions(timeout_s=0.05), functions=[hangs])


def test_an_alarm_of_somebody_else_is_left_as_it_was() -> None:
    seen = []
    handler = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    before = signal.setitimer(signal.ITIMER_REAL, 0.15)
    try:
        label_texts(SPEC, ["a"], functions=[lambda text: "ham"])
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.15
        time.sleep(0.3)
        assert seen == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *before)
    with ThreadPoolExecutor(1) as pool:  # no alarm outside the main thread
        assert pool.submit(label_texts, SPEC, ["a"], functions=[lambda text: "ham"]).result().rows.num_rows == 1


@pytest.mark.real
def test_a_run_goes_on_with_a_fragile_function(tmp_path: Path) -> None:
    import potstill

    (tmp_path / "task.md").write_text(
        "---\nlabels: [ham, spam]\nunlabelled: inbox.txt\nrules:\n  - {label: spam, keyword: [free, prize]}\n---\n"
        "Decide whether a text message is spam.\n"
    )
    (tmp_path / "inbox.txt").write_bytes(
        b"".join(f"free prize number {i} today\nhome at {i} for dinner\n".encode() for i in range(40)) + b"caf\xe9\n"
    )

    def fragile(text: str) -> str | None:
        return "ham" if int(text.split()[2]) >= 0 else None  # the third word of an advert is no number

    notes = []
    done = potstill.run(
        str(tmp_path / "task.md"), out=tmp_path / "run", teacher="fake", n=40, sources="generated",
        labelling_functions=[fragile], distil={"epochs": 1, "min_steps": 4}, self_training={"rounds": 0},
        evaluate={"rows": 10, "latency_rows": 2}, listener=lambda event: notes.append(event.message),
    )  # fmt: skip
    report = json.loads((done.path / "weak" / "report.json").read_text())
    assert report["labels"] == {"spam": 40, "ham": 40}
    assert report["functions"][1]["faults"] == 40
    assert any(note.startswith("fragile failed on 40 texts and abstains there: ValueError") for note in notes)
    assert "fragile" in (done.path / "report.md").read_text()
    assert {item.reason for item in done.dropped if item.stage == "weak"} >= {"broken_encoding"}


WORDS = ["prize"]


def with_words(text: str) -> str | None:
    return "spam" if any(word in text for word in WORDS) else None


class Holding:
    """A labelling function with a word of its own."""

    def __init__(self, word: str, odd: Any = None):
        self.word, self.odd = word, odd

    def __call__(self, text: str) -> str | None:
        return "spam" if self.word in text else None


def any_word(text: str) -> str | None:
    return "spam" if any(word in text for word in WORDS) else None


def by_lambda(text: str) -> str | None:
    return "spam" if list(filter(lambda word: word in WORDS, text.split())) else None


def by_inner(text: str) -> str | None:
    def inner(word: str) -> bool:
        return [w for w in [word] if w in WORDS] != []

    return "spam" if inner(text) else None


@pytest.mark.parametrize("function", [any_word, by_lambda, by_inner])
def test_what_only_a_function_within_reads_is_in_the_digest(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = function_digest(function)
    assert function_digest(function) == before
    monkeypatch.setattr(sys.modules[__name__], "WORDS", ["viagra"])
    assert function_digest(function) != before


def test_a_functions_digest_holds_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(word: str) -> Any:
        return lambda text: "spam" if word in text else None

    def takes(text: str, word: str = "prize") -> str | None:
        return "spam" if word in text else None

    before = function_digest(with_words)
    monkeypatch.setattr(sys.modules[__name__], "WORDS", ["viagra"])
    assert function_digest(with_words) != before
    monkeypatch.setattr(sys.modules[__name__], "WORDS", ["prize"])
    assert function_digest(with_words) == before
    for one, same, other in (
        (closed("a"), closed("a"), closed("b")),
        (partial(takes, word="a"), partial(takes, word="a"), partial(takes, word="b")),
        (Holding("a"), Holding("a"), Holding("b")),
        (Holding("a").__call__, Holding("a").__call__, Holding("b").__call__),
        (Holding("a", {"x", "y"}), Holding("a", {"y", "x"}), Holding("a", {"y"})),
    ):
        assert function_digest(one) == function_digest(same) != function_digest(other)
    unknown = Holding("a", iter([]))
    assert function_digest(unknown) != function_digest(unknown), "what cannot be told apart is never taken again"
    loop = Holding("a")
    loop.odd = loop
    assert function_digest(loop) == function_digest(loop)
