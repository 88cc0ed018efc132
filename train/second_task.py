"""The second task of a generation student: to write the reasoning that leads to an output, beside the output itself.

What enters: rows with the column `rationale`, and the same rows encoded for their outputs. What leaves: the encoded
rows with a second sequence each, which the trainer learns in the same batch:

    L = mean over the outputs' tokens + λ · mean over the reasoning's tokens

with both means over the whole accumulated step of all processes. A row's two sequences never part: drawn one by one, a
batch of like lengths would hold either outputs or reasoning, and each step's mean would weigh one of the two anew.

The tasks are told apart by what is asked: the output in the very words in which it is asked for in use, the reasoning
with `ASKED` before them. So the finished student answers as if it had learnt the outputs alone.

Source: Hsieh et al., arXiv:2305.02301 §3.2 (there with the prefixes [label] and [rationale]).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from potstill.rows import RATIONALE
from potstill.task import TaskSpec
from potstill.train.options import DistilOptions
from potstill.train.token_rows import IGNORED, NO_SPAN, TokenRows, encode_table

if TYPE_CHECKING:
    from datasets import Dataset

ASKED = "Do not answer yet. Give the reasoning that leads to the answer of this task:"
_NONE = "distil.rationale_weight is above 0 and no row has any reasoning; the outputs alone are learnt"


def reasoning_task(spec: TaskSpec) -> TaskSpec:
    """The task of writing what leads to the output of a task."""
    return replace(spec, instruction=f"{ASKED}\n\n{spec.instruction}")


def with_second_task(
    spec: TaskSpec, rows: Dataset, data: TokenRows, model: Any, tokenizer: Any, options: DistilOptions
) -> tuple[TokenRows, list[str]]:
    """Encoded rows with the columns `second_ids` and `second_labels`, empty where a row has no reasoning.

    Args:
        spec: The task.
        rows: The rows that `data` was encoded from.
        data: Their outputs, encoded.
        model: The student, for its vocabulary and end token.
        tokenizer: The student's tokenizer.
        options: Resolved options.

    Returns:
        The rows, their counts with `second`, the rows that have reasoning, and `second_tokens`; the same ones where no
        weight asks for it or there is none. And what is to be told, a sentence each.
    """
    if options.rationale_weight == 0:
        return data, []
    said = rows[RATIONALE][:] if RATIONALE in rows.column_names else [None] * len(rows)
    places = [place for place in data.places if (said[place] or "").strip()]
    if not places:
        return data, [_NONE]
    from datasets import Dataset

    told = {"id": rows["id"], "input": rows["input"], "output": said, "weight": rows["weight"]}
    table = Dataset.from_dict({name: [column[place] for place in places] for name, column in told.items()})
    second = encode_table(reasoning_task(spec), table, None, model, tokenizer, options)
    if not second.places:
        return data, [
            f"none of the reasoning of {len(places)} rows fits distil.max_length; the outputs alone are learnt"
        ]
    encoded = {places[place]: row for row, place in enumerate(second.places)}
    given = [encoded.get(place) for place in data.places]
    columns = {}
    for name in ("input_ids", "labels"):
        column = second.table[name][:]
        columns[name] = [[] if row is None else column[row] for row in given]
    whole = data.table.add_column("second_ids", columns["input_ids"])  # type: ignore[call-arg]
    whole = whole.add_column("second_labels", columns["labels"])
    counts = {**data.counts, "second": len(second.places), "second_tokens": second.counts["target_tokens"]}
    left = second.counts["too_long"]
    notes = [f"the reasoning of {left} rows does not fit distil.max_length and is left out"] if left else []
    return replace(data, table=whole, counts=counts), notes


def sequence_lengths(data: TokenRows) -> list[int]:
    """Tokens of each row's longer sequence."""
    lengths = [len(ids) for ids in data.table["input_ids"]]
    if "second_ids" not in data.table.column_names:
        return lengths
    return [max(length, len(ids)) for length, ids in zip(lengths, data.table["second_ids"], strict=True)]


def longest_row(data: TokenRows) -> int:
    """Tokens that the longest row takes in a batch, where each sequence is padded to the longest."""
    return max(sequence_lengths(data)) * (2 if "second_ids" in data.table.column_names else 1)


def second_sequences(examples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The reasoning of a batch's rows as rows of its own, without any stored targets."""
    found = []
    for row in examples:
        ids = np.asarray(row.get("second_ids", ()), dtype=np.int64)
        if not len(ids):
            continue
        labels = np.asarray(row["second_labels"], dtype=np.int64)
        tokens = int((labels != IGNORED).sum())
        nothing = dict.fromkeys(("top_ids", "top_logprobs", "tail"), ())
        spans = {name: [value] * tokens for name, value in NO_SPAN.items() if name in row}
        found.append(
            {"input_ids": ids, "labels": labels, "weight": row["weight"], "has_soft": [False] * tokens,
             **nothing, **spans}
        )  # fmt: skip
    return found
