"""No row that is measured on may resemble one that is trained on: held-out and validation rows are checked as real test
rows are.

Where there is no real test set, rows are held out by chance, and a passage or an instruction may then stand on both
sides. Rows of a checking split that meet a training row (same words, 13 words in a row, near-duplicate) are moved to
training rather than lost; what meets a moved row follows, until nothing moves. A part of which nothing would be left
stays as it is, and the report says that it is shared.
"""

from __future__ import annotations

from typing import Any

from potstill.datagen.decontaminate import TestTexts
from potstill.datagen.merge import MergeOptions, Splits
from potstill.rows import take_rows


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

    parts = {name: part for name, part in (("validation", splits.validation), ("heldout", splits.heldout)) if part}
    left = {name: list(range(part.num_rows)) for name, part in parts.items()}
    texts = {name: part["input"][:] for name, part in parts.items()}
    against = splits.train["input"][:]
    shared = []
    while against:
        known = TestTexts(against, options.test_near)
        against = []
        for name, places in left.items():
            met = {place for place in places if known.found_in(texts[name][place]) is not None}
            if len(met) == len(places):  # nothing would be left to measure on
                shared += [name] if met and name not in shared else []
                continue
            left[name] = [place for place in places if place not in met]
            against += [texts[name][place] for place in sorted(met)]
    moved = {name: sorted(set(range(part.num_rows)) - set(left[name])) for name, part in parts.items()}
    kept = {name: take_rows(part, left[name]) if moved[name] else part for name, part in parts.items()}
    to_train = [take_rows(part, moved[name]) for name, part in parts.items() if moved[name]]
    report: dict[str, Any] = {f"{name}_moved": len(moved.get(name, ())) for name in ("validation", "heldout")}
    report["splits_shared"] = shared
    train = concatenate_datasets([splits.train, *to_train]) if to_train else splits.train
    return Splits(train, kept.get("validation", splits.validation), kept.get("heldout", splits.heldout)), report
