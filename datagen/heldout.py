"""No row that is measured on may resemble one that is trained on: held-out and validation rows are checked as real test
rows are.

Where there is no real test set, rows are held out by chance, and a passage or an instruction may then stand on both
sides. Rows of a checking split that meet a training row (same words, 13 words in a row, near-duplicate) are moved to
training rather than lost; what meets a moved row follows, until nothing moves. A part of which nothing would be left
stays as it is, and the report says that it is shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from potstill.datagen.decontaminate import TestTexts
from potstill.datagen.merge import MergeOptions, Splits

if TYPE_CHECKING:
    from datasets import Dataset


def separate_splits(splits: Splits, options: MergeOptions) -> tuple[Splits, dict[str, Any]]:
    """Move rows of the validation and held-out parts that meet a training row to training.

    Args:
        splits: Disjoint parts of the merged rows.
        options: `test_near` is the F1 above which two inputs are near-duplicates.

    Returns:
        The parts, and how many rows left each: `validation_moved`, `heldout_moved`. `splits_shared` names parts that
        stayed although all of their rows meet training.
    """
    from datasets import concatenate_datasets

    held, to_train = _apart(splits.heldout, splits.train, options.test_near)
    checked, more = _apart(splits.validation, splits.train, options.test_near)
    if to_train is not None and checked is not None:
        # What just came to training counts for the validation rows too, and the other way round.
        checked, late = _apart(checked, to_train, options.test_near)
        more = late if more is None else more if late is None else concatenate_datasets([more, late])
    if more is not None and held is not None:
        held, late = _apart(held, more, options.test_near)
        to_train = late if to_train is None else to_train if late is None else concatenate_datasets([to_train, late])
    moved = [part for part in (more, to_train) if part is not None and part.num_rows]
    train = concatenate_datasets([splits.train, *moved]) if moved else splits.train
    report = {
        "validation_moved": 0 if more is None else more.num_rows,
        "heldout_moved": 0 if to_train is None else to_train.num_rows,
    }
    known = TestTexts(train["input"][:], options.test_near)
    parts = {"validation": checked, "heldout": held}
    report["splits_shared"] = [
        name
        for name, part in parts.items()
        if part is not None and part.num_rows and any(known.found_in(text) for text in part["input"][:])
    ]
    return Splits(train, splits.validation if checked is None else checked, held), report


def _apart(part: Dataset | None, train: Dataset, near: float) -> tuple[Dataset | None, Dataset | None]:
    """The rows of a part that meet no training row, and the others."""
    if part is None or not part.num_rows:
        return part, None
    texts = part["input"][:]
    left = list(range(part.num_rows))
    moved: list[int] = []
    against = train["input"][:]
    while against and left:
        known = TestTexts(against, near)
        new = [place for place in left if known.found_in(texts[place]) is not None]
        left = [place for place in left if place not in set(new)]
        moved += new
        against = [texts[place] for place in new]
    if not moved or not left:
        return part, None
    return part.select(left).flatten_indices(), part.select(sorted(moved)).flatten_indices()
