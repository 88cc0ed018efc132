"""The labels that a user's own rows bear, for a task that names none: its columns of labels tell the whole set.

In: references to data. Out: names, as the data writes them. Only what leaves no doubt is taken: names of a class
feature, or values that repeat. Bare class numbers from 0 are none, since neither teacher nor encoder knows what 0
means.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from potstill.retrieval.label_names import plain_label
from potstill.retrieval.load import output_column, read_sample
from potstill.retrieval.row_texts import as_text, class_names_of
from potstill.task.inference import MAX_LABEL_CHARS

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.task import DataRef, TaskSpec

LOOKED_AT = 20_000
_FEW = 20  # values that need not repeat where the column is called a label


def shown_labels(refs: Iterable[DataRef], spec: TaskSpec, most: int) -> tuple[str, ...]:
    """The labels that data shows, each once, in the order of their class numbers or else of the alphabet.

    Args:
        refs: The user's labelled data; a label that any of them shows is one of the task's.
        spec: The task as far as it is known, for the choice of columns.
        most: More names than this are no set of labels.

    Returns:
        The names; empty where a column of labels is not found, or does not look like one.

    Raises:
        DataError: The data cannot be read.
    """
    found: dict[str, str] = {}
    for ref in refs:
        table = read_sample(ref.path, split=ref.split, config=ref.config, limit=LOOKED_AT, training=ref.training).table
        column = output_column(table, ref, spec)
        names = _of_column(table, column, most) if column is not None else ()
        if not names:
            return ()
        for name in names:
            found.setdefault(plain_label(name), name)
    names = tuple(found.values())
    numbered = all(re.fullmatch(r"-?\d+", name) for name in names)
    if not 2 <= len(names) <= most or (numbered and "0" in names):
        return ()
    return tuple(sorted(names, key=int)) if numbered else names


def _of_column(table: Dataset, column: str, most: int) -> tuple[str, ...]:
    """Names in a column; none where they are too many, too long, or as many as the rows."""
    from datasets import ClassLabel

    feature = table.features[column]
    if isinstance(feature, ClassLabel):
        return tuple(class_names_of(feature))
    if isinstance(table[:1][column][0], list):
        return ()
    values = [as_text(value).strip() for value in table[column]]
    counts = Counter(value for value in values if value)
    shared = sum(counts.values())
    if len(counts) > max(_FEW, min(most, shared // 2)) or any(
        len(value) > MAX_LABEL_CHARS or "\n" in value for value in counts
    ):
        return ()
    # Of several spellings the commonest, so that a slip of the hand does not name the label.
    spelt: dict[str, str] = {}
    for value, _ in counts.most_common():
        spelt.setdefault(plain_label(value), value)
    return tuple(sorted(spelt.values(), key=str.casefold))
