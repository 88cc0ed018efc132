"""Merging: duplicates, contradictions, test text, balance and splits."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.datagen.decontaminate import TestTexts, normal_hash
from potstill.datagen.merge import MergeOptions, merge_rows, split_rows
from potstill.decisions import FILE as DECISIONS
from potstill.report.facts import find_leaks
from potstill.rows import Origin, Row, Source, dataset_to_rows, rows_to_dataset
from potstill.task import Label, TaskSpec

SPEC = TaskSpec("t", "Say the kind.", "classification", (Label("a"), Label("b"), Label("c")))
WRITE = TaskSpec("w", "Summarise.", "generation")
_COUNT = iter(range(10**9))


def row(text: str, label: str = "a", origin: Origin = "retrieved", licence: str = "mit", weight: float = 1.0) -> Row:
    source = Source(dataset="d", row=next(_COUNT))
    return Row(text, label, origin, source, label=label, licence=licence, weight=weight)


def table(*rows: Row) -> Any:
    return rows_to_dataset(rows, SPEC.label_names)


def reasons(result: Any) -> dict[str, int]:
    return dict(Counter(item.reason for item in result.dropped))


LONG = "the quick brown fox jumped over the lazy dog while the farmer slept under an old oak tree near the river"


def test_copies_across_sources_keep_the_better_source() -> None:
    written = table(row("The match ended in a draw.", origin="generated", licence="unknown"))
    found = table(row("the MATCH ended in a draw", licence="cc-by-4.0"))
    own = table(row("The match — ended in a draw!", origin="user", licence="mit"))
    for order in ([written, found, own], [own, found, written], [found, written, own]):
        result = merge_rows(SPEC, order)
        (kept,) = dataset_to_rows(result.kept)
        assert (kept.origin, kept.licence, kept.input) == ("user", "mit", "The match — ended in a draw!")
        assert reasons(result) == {"duplicate": 2}
        assert {item.origin for item in result.dropped} == {"generated", "retrieved"}


def test_near_duplicates() -> None:
    result = merge_rows(
        SPEC, [table(row(LONG), row(LONG.replace("lazy", "sleepy")), row("Nothing alike at all here."))]
    )
    assert reasons(result) == {"near_duplicate": 1}
    assert (
        merge_rows(SPEC, [table(row(LONG), row(LONG + " today"))], MergeOptions(near_duplicates=1)).kept.num_rows == 2
    )


@pytest.mark.parametrize("origin", ["retrieved", "generated", "pseudo"])
def test_no_output_holds_near_duplicates_above_the_promised_threshold(origin: Origin) -> None:
    """Five words of 21 exchanged: F1 0.76, which is above 0.7 and below 0.8."""
    near = " ".join([*LONG.split()[:-5], "with", "his", "hat", "on", "top"])
    result = merge_rows(SPEC, [table(row(LONG, "a", origin), row(near, "a", origin))])
    assert reasons(result) == {"near_duplicate": 1}
    assert result.report["near_duplicate_rate"] == 0.0
    both = merge_rows(SPEC, [table(row(LONG, "a", origin), row(near, "a", origin))], MergeOptions(near_duplicates=0.8))
    assert both.kept.num_rows == 2
    assert both.report["near_duplicate_rate"] == 0.5


def test_minimal_pairs_of_people_stay_and_written_ones_go() -> None:
    pair = [row(LONG, "a"), row(LONG.replace("jumped", "never jumped"), "b")]
    assert merge_rows(SPEC, [table(*pair)]).kept.num_rows == 2
    written = [row(LONG, "a"), row(LONG.replace("jumped", "never jumped"), "b", "generated")]
    assert reasons(merge_rows(SPEC, [table(*written)])) == {"near_duplicate": 1}


@pytest.mark.parametrize(
    ("conflicts", "rows", "kept"),
    [
        ("provenance", [("a", "user"), ("b", "retrieved")], ["a"]),
        ("provenance", [("a", "retrieved"), ("b", "retrieved")], []),
        ("provenance", [("a", "generated"), ("b", "retrieved")], ["b"]),
        ("majority", [("a", "retrieved"), ("b", "retrieved"), ("b", "generated")], ["b"]),
        ("majority", [("a", "retrieved"), ("b", "retrieved")], []),
        ("drop", [("a", "user"), ("b", "generated")], []),
    ],
)
def test_conflicting_labels(conflicts: Any, rows: list[tuple[str, Origin]], kept: list[str]) -> None:
    made = table(*(row("Same text here", label, origin) for label, origin in rows))
    result = merge_rows(SPEC, [made], MergeOptions(conflicts=conflicts))
    assert result.kept["output"][:] == kept
    assert "conflicting_label" in reasons(result)


def test_generation_keeps_one_output_an_input() -> None:
    rows = [Row("in", out, "retrieved", Source(row=i)) for i, out in enumerate(["first", "second", "first"])]
    result = merge_rows(WRITE, [rows_to_dataset(rows, ())])
    assert result.kept["output"][:] == ["first"]
    assert reasons(result) == {"same_input_other_output": 1, "duplicate": 1}


@pytest.mark.parametrize(
    ("train", "test", "reason"),
    [
        ("Shares  of the AIRLINE rose!", "shares of the airline rose", "in_test"),
        ("Café crème", "cafe creme", "in_test"),
        (f"{LONG} and then something else happened to everybody who lived there before", f"Long ago {LONG}", None),
        (LONG.replace("farmer", "shepherd"), LONG, "near_test"),
        (f"title: New\ntext: {LONG}", f"title: Old\ntext: {LONG}", "in_test"),
        (LONG, f"title: Old\ntext: {LONG}", "in_test"),
        ("Shares of the airline rose", "The keeper saved a penalty", "kept"),
        ("Who wrote Emma?", "Who wrote Persuasion?", "kept"),
    ],
)
def test_test_text_is_taken_out(train: str, test: str, reason: str | None) -> None:
    result = merge_rows(SPEC, [table(row(train, origin="generated"))], test=table(row(test, origin="user")))
    if reason == "kept":
        assert result.kept.num_rows == 1
    else:
        assert reasons(result) == {reason or "ngram_in_test": 1}
        assert result.report["leaked"] == 1
    assert result.report["checked_against_test"] is True


def test_thirteen_words_in_a_row_are_found_anywhere() -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(5000)]
    tests = [" ".join(rng.sample(words, 60)) for _ in range(50)]
    index = TestTexts(tests, near=None)
    for _ in range(100):
        chosen = rng.choice(tests).split()
        start = rng.randrange(len(chosen) - 13)
        train = [*rng.sample(words, 40), *chosen[start : start + 13], *rng.sample(words, 40)]
        found = index.found_in(" ".join(train))
        assert found is not None
        assert found[0] == "ngram_in_test"
        train[45] = "broken"
        assert index.found_in(" ".join(train)) is None


ZH = "机器学习是人工智能的一个分支，它使用统计技术使计算机系统能够从数据中学习。"
JA = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
TH = "ประเทศไทยมีประชากรประมาณเจ็ดสิบล้านคนและมีกรุงเทพมหานครเป็นเมืองหลวงซึ่งเป็นศูนย์กลาง"


@pytest.mark.parametrize(
    ("test", "around"),
    [(ZH, "请阅读这段文字，然后总结它："), (JA, "次の文章を要約してください。"), (TH, "จงอ่านข้อความต่อไปนี้ ")],
)
def test_a_test_passage_in_a_script_without_spaces_is_found_inside_a_longer_text(test: str, around: str) -> None:
    index = TestTexts([test], near=None)
    found = index.found_in(around + test + around)
    assert found is not None
    assert found[0] == "ngram_in_test"
    assert find_leaks([test], [around + test + around]).ngram == 1
    # A shared beginning of a few words is no leak.
    assert index.found_in(test[:12] + around) is None
    assert find_leaks([test], [test[:12] + around]).ngram == 0


def test_a_planted_test_row_never_reaches_training() -> None:
    """Exact, case-changed, re-spaced and slightly edited copies among many rows."""
    rng = random.Random(1)
    words = [f"word{i}" for i in range(800)]
    tests = [" ".join(rng.sample(words, 14)) for _ in range(40)]
    planted = []
    for text in tests:
        parts = text.split()
        parts[3] = "edited"
        planted += [text, text.upper(), text.replace(" ", "   "), " ".join(parts)]
    rows = [row(text, "abc"[i % 3]) for i, text in enumerate(planted)]
    rows += [row(" ".join(rng.sample(words, 14)), "abc"[i % 3]) for i in range(300)]
    rng.shuffle(rows)
    result = merge_rows(SPEC, [table(*rows)], test=table(*(row(text, origin="user") for text in tests)))
    assert not set(result.kept["input"]) & set(planted)
    assert result.kept.num_rows >= 295


def test_balance_by_weights() -> None:
    rng = random.Random(2)
    rows = [
        row(" ".join(rng.sample([f"w{i}" for i in range(300)], 9)), label) for label in "a" * 60 + "b" * 30 + "c" * 10
    ]
    kept = list(dataset_to_rows(merge_rows(SPEC, [table(*rows)]).kept))
    sums = {name: sum(r.weight for r in kept if r.output == name) for name in "abc"}
    assert all(abs(total - 100 / 3) < 0.01 for total in sums.values())
    assert {r.weight for r in dataset_to_rows(merge_rows(SPEC, [table(*rows)], MergeOptions(balance="none")).kept)} == {
        1
    }


def test_cap_drops_written_rows_first() -> None:
    rng = random.Random(3)
    words = [f"w{i}" for i in range(300)]
    rows = [row(" ".join(rng.sample(words, 9)), "a", "generated" if i % 2 else "retrieved") for i in range(40)]
    rows += [row(" ".join(rng.sample(words, 9)), label) for label in "bc" for _ in range(10)]
    result = merge_rows(SPEC, [table(*rows)], MergeOptions(max_ratio=2))
    assert result.report["labels"] == {"a": 20, "b": 10, "c": 10}
    assert reasons(result) == {"over_label_cap": 20}
    assert {item.origin for item in result.dropped} == {"generated"}


def test_merging_is_deterministic_and_loses_nothing_unsaid() -> None:
    rng = random.Random(4)
    words = ["red", "blue", "cat", "dog", "runs", "sits", "the", "a"]
    rows = [
        row(" ".join(rng.choices(words, k=rng.randint(1, 6))), rng.choice("abc"), rng.choice(["user", "generated"]))
        for _ in range(300)
    ]
    first, second = (merge_rows(SPEC, [table(*rows)], MergeOptions(max_ratio=1.5)) for _ in range(2))
    assert first.kept.to_list() == second.kept.to_list()
    assert first.dropped == second.dropped
    assert first.kept.num_rows + len(first.dropped) == 300
    hashes = [normal_hash(text) for text in first.kept["input"]]
    assert len(set(hashes)) == len(hashes)


def test_no_parts_and_no_rows() -> None:
    result = merge_rows(SPEC, [])
    assert result.kept.num_rows == 0
    assert result.report["missing_labels"] == ["a", "b", "c"]
    splits = split_rows(SPEC, result.kept)
    assert splits.train.num_rows == splits.validation.num_rows == 0


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 40), min_size=1),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([0.0, 0.2]),
    st.integers(0, 5),
)
def test_splits_are_disjoint_whole_and_stratified(
    counts: dict[str, int], validation: float, heldout: float, seed: int
) -> None:
    rows = [row(f"{name} text {i}", name) for name, count in counts.items() for i in range(count)]
    random.Random(seed).shuffle(rows)
    whole = table(*rows)
    options = MergeOptions(validation=validation, heldout=heldout, seed=seed)
    splits = split_rows(SPEC, whole, options)
    parts = [splits.train, splits.validation, *([splits.heldout] if splits.heldout is not None else [])]
    ids = [id for part in parts for id in part["id"]]
    assert sorted(ids) == sorted(whole["id"])
    assert (splits.heldout is None) == (heldout == 0)
    trained = Counter(splits.train["output"])
    checked = Counter(splits.validation["output"])
    for name, count in counts.items():
        assert not count or trained[name] >= 1
        spread = 2 * (validation * (1 - validation) * count) ** 0.5
        assert abs(checked[name] - validation * count) <= spread + 1
        assert checked[name] <= max(1, round(2 * validation * count))
        assert checked[name] or not validation or count < 6, "a label is validated on where it has rows to spare"
    again = split_rows(SPEC, whole, options)
    assert again.train["id"][:] == splits.train["id"][:]


@pytest.mark.parametrize("counts", [(3, 3, 3), (2, 1, 1), (3,), (2, 2, 2)])
def test_of_few_rows_one_is_held_out_to_measure_on(counts: tuple[int, ...]) -> None:
    """A run of a dozen rows ended at its last step, since there was nothing to measure the student on."""
    for seed in range(20):
        rows = [row(f"{name} text {i}", name) for name, count in zip("abc", counts) for i in range(count)]
        splits = split_rows(SPEC, table(*rows), MergeOptions(seed=seed))
        assert splits.heldout is not None
        assert splits.heldout.num_rows >= 1
        assert set(splits.train["output"]) == set("abc"[: len(counts)])
    alone = split_rows(SPEC, table(*(row(f"{name} text", name) for name in "abc")), MergeOptions())
    assert alone.train.num_rows == 3


def _sides(rows: list[Any], seed: int) -> dict[str, str]:
    splits = split_rows(SPEC, table(*rows), MergeOptions(seed=seed))
    assert splits.heldout is not None
    parts = {"train": splits.train, "validation": splits.validation, "heldout": splits.heldout}
    return {text: name for name, part in parts.items() for text in part["input"]}


@pytest.mark.parametrize("seed", range(5))
def test_a_row_stays_in_its_part_when_others_come_go_or_are_corrected(seed: int) -> None:
    names = "abc"
    rows = [row(f"text {i} of {name}", name) for name in names for i in range(100)]
    before = _sides(rows, seed)
    shares = Counter(before.values())
    assert abs(shares["validation"] - 30) < 16
    assert abs(shares["heldout"] - 45) < 20
    mended = [Row(f"mended {i}", "a", "user", Source(dataset=DECISIONS, split="correct"), label="a") for i in range(20)]
    for others in (mended + rows[20:], rows[::-1], rows + [row(f"more {i}", "b") for i in range(30)], rows[::2]):
        after = _sides(others, seed)
        known = before.keys() & after.keys()
        assert len(known) >= 150
        assert {text: after[text] for text in known} == {text: before[text] for text in known}
    assert _sides(rows, seed + 1) != before


def test_the_part_of_a_row_is_that_of_its_words() -> None:
    """Not of its source, its label's name, or how it is spelled."""
    one = _sides([row(f"Text {i}!", "a") for i in range(60)], 3)
    two = _sides([row(f"text {i}", "b") for i in range(60)], 3)
    assert [one[f"Text {i}!"] for i in range(60)] == [two[f"text {i}"] for i in range(60)]


def test_impossible_options_are_listed() -> None:
    with pytest.raises(ValueError, match=r"near_duplicates must be in \(0, 1\] \(got 0\); validation \+ heldout"):
        MergeOptions(near_duplicates=0, validation=0.6, heldout=0.5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Good \U0001f600", "Good \U0001f621"), ("What is 3 + 4?", "What is 3 - 4?"), ("in C", "in C++"),
        ("in C++", "in C#"), ("Is x > 5?", "Is x < 5?"), ("it costs $5", "it costs \u20ac5"),
        # Boy and girl, bread and comb, good and fierce: vowel signs and voicing marks are letters.
        ("\u0932\u0921\u093c\u0915\u093e \u0939\u0948", "\u0932\u0921\u093c\u0915\u0940 \u0939\u0948"),
        ("\u30d1\u30f3\u304c\u597d\u304d", "\u30cf\u30f3\u304b\u597d\u304d"), ("\u0e14\u0e35", "\u0e14\u0e38"),
    ],
)  # fmt: skip
def test_texts_that_mean_something_else_are_no_copies(one: str, other: str) -> None:
    result = merge_rows(SPEC, [table(row(one, "a", "user"), row(other, "b", "user"))])
    assert result.kept["input"][:] == [one, other]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Caf\u00e9 \u2014 fine!", "cafe fine"), ("Great phone - loved it", "Great phone, loved it"),
        ("**Bold** text", "bold text"), ("I \u2764\ufe0f it", "I \u2764 it"), ("#tag here", "tag here"),
        ("it\u2019s", "it's"), ("\u0643\u0650\u062a\u064e\u0627\u0628", "\u0643\u062a\u0627\u0628"),
        ("\u0401\u043b\u043a\u0430", "\u0435\u043b\u043a\u0430"), ("de\u00adliv\u200bery", "delivery"),
        ("\ufeffa parcel\u2060", "a parcel"),
    ],
)  # fmt: skip
def test_case_accents_and_punctuation_make_no_other_text(one: str, other: str) -> None:
    assert normal_hash(one) == normal_hash(other)


def test_a_test_text_is_found_whatever_its_symbols() -> None:
    assert TestTexts(["Good day \U0001f600"], None).found_in("good day") is not None


@pytest.mark.parametrize("unseen", ["\u00ad", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u034f"])
def test_a_test_text_is_found_whatever_it_holds_that_nobody_sees(unseen: str) -> None:
    text = "The delivery of my parcel was promised for Tuesday and has not arrived yet"
    hidden = " ".join(word[:3] + unseen + word[3:] if len(word) > 5 else word for word in text.split())
    assert TestTexts([hidden], None).found_in(text) is not None
    assert TestTexts([text], None).found_in(hidden) is not None
    assert find_leaks([hidden], [text]).exact == 1


def test_near_duplicates_of_open_answers_are_found_in_time_that_grows_with_the_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each row is compared once, whatever the number of answers."""
    from potstill.datagen import merge

    asked: list[str] = []
    match = merge.NoveltyFilter.match

    def counted(self: Any, text: str) -> Any:
        asked.append(text)
        return match(self, text)

    monkeypatch.setattr(merge.NoveltyFilter, "match", counted)
    people = [Row(f"{word} question of number {i} here", f"a{i}", "user")
              for i, word in enumerate(("red", "green", "blue", "pink"))]  # fmt: skip
    written = [
        Row(f"{letter * 3} text {letter * 5} of {letter * 7}", f"b{letter}", "generated") for letter in "abcdefgh"
    ]
    again = Row("aaa text aaaaa of aaaaaaaa now", "else", "generated")
    near_person = Row("red question of number 0 there", "else", "generated")
    rows = rows_to_dataset([*people, *written, again, near_person], ())
    result = merge_rows(WRITE, [rows])
    assert [item.reason for item in result.dropped] == ["near_duplicate"] * 2
    assert result.report["kept"] == 12
    assert len(asked) == len(written) + 2


def test_retrieved_answers_off_the_form_that_the_task_asks_for_go_unless_nearly_all_are() -> None:
    spec = TaskSpec("w", "Summarise the text in one sentence.", "generation")
    short = row("first text here", "It rained.")
    long = row("another text there", "It rained. Then it stopped.")
    own = row("the user's own text", "It rained. It snowed.", origin="user")
    rows = [replace(item, label=None) for item in (own, short, long)]
    result = merge_rows(spec, [rows_to_dataset(rows, [])])
    assert [item.input for item in dataset_to_rows(result.kept)] == [own.input, short.input]
    assert reasons(result) == {"off_form": 1}
    texts = ("rain in May", "a lost dog", "how bees fly", "old clocks", "winter bread")
    many = [replace(long, input=f"This tells of {text}.", source=Source(dataset="d", row=n)) for n, text in
            enumerate(texts)]  # fmt: skip
    rows += [replace(item, label=None) for item in many]
    assert merge_rows(spec, [rows_to_dataset(rows, [])]).kept.num_rows == 8
