"""Held-out rows share nothing with training rows."""

from __future__ import annotations

from random import Random

from datasets import Dataset

from potstill.datagen.decontaminate import TestTexts
from potstill.datagen.heldout import separate_splits
from potstill.datagen.merge import MergeOptions, Splits
from potstill.rows import Row, rows_to_dataset


def words(seed: int, count: int = 20) -> str:
    return " ".join(f"w{Random(seed).randrange(10**9) + i * seed}" for i in range(count))


def table(*texts: str) -> Dataset:
    return rows_to_dataset([Row(text, "x", "generated") for text in texts], ())


def test_rows_that_meet_training_rows_move_there_and_take_their_kin_along() -> None:
    passage = words(1)
    chain = words(2)
    train = table(words(10), f"{passage} why?", words(11))
    heldout = table(words(20), f"{passage} when?", f"{passage} {chain}", f"{chain} who?", words(10).upper())
    validation = table(words(30), f"{chain} where?")
    splits, report = separate_splits(Splits(train, validation, heldout), MergeOptions())
    assert splits.heldout is not None
    assert splits.heldout["input"][:] == [words(20)]
    assert splits.validation["input"][:] == [words(30)]
    assert report == {"validation_moved": 1, "heldout_moved": 4, "splits_shared": []}
    assert splits.train.num_rows == 8
    known = TestTexts(splits.train["input"][:], 0.8)
    checked = [*splits.heldout["input"], *splits.validation["input"]]
    assert [known.found_in(text) for text in checked] == [None, None]


def test_a_chain_that_crosses_the_parts_again_and_again_moves_whole() -> None:
    a, b, c, d = (words(seed) for seed in (1, 2, 3, 4))
    train = table(f"{a} one")
    heldout = table(f"{a} {b}", f"{c} {d}", words(20))
    validation = table(f"{b} {c}", f"{d} two", words(30))
    splits, report = separate_splits(Splits(train, validation, heldout), MergeOptions())
    assert report == {"validation_moved": 2, "heldout_moved": 2, "splits_shared": []}
    assert splits.heldout is not None
    assert (splits.heldout["input"][:], splits.validation["input"][:]) == ([words(20)], [words(30)])


def test_nothing_moves_where_nothing_meets() -> None:
    parts = Splits(table(words(1)), table(words(2)), None)
    splits, report = separate_splits(parts, MergeOptions())
    assert splits == parts
    assert report == {"validation_moved": 0, "heldout_moved": 0, "splits_shared": []}


def test_a_part_of_which_nothing_would_be_left_stays_and_is_named() -> None:
    parts = Splits(table(words(1)), table(words(1).upper()), table(words(2)))
    splits, report = separate_splits(parts, MergeOptions())
    assert splits.validation.num_rows == 1
    assert report == {"validation_moved": 0, "heldout_moved": 0, "splits_shared": ["validation"]}
