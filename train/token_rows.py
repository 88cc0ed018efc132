"""Rows and stored token targets → token sequences with flat top-k targets, for the causal student.

The answer's tokens are the stored `token_ids` where the targets fit the row (they decode to its output and the
student knows every id), so that each stored distribution stands at the position it was taken at. Other rows are
tokenised by the student itself and train on hard targets alone; how many is reported.

Targets stay flat, (tokens, k) a row with no padding over the prompt: a batch concatenates them in the order in
which its target positions are read.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from potstill.errors import TrainingError
from potstill.task import TaskSpec
from potstill.train.encode import answer_ids, encode_prompt, end_of_turn
from potstill.train.options import DistilOptions

if TYPE_CHECKING:
    from datasets import Dataset

IGNORED = -100
_EMPTY_TAIL = -20.0
_LEAST_INPUT = 16
_FITTING_PROMPTS = 0.95
_USUAL_ANSWERS = 0.9
# Rounding of k log-probs in half precision stays far below this.
_MASS_ERROR = 0.05


@dataclass(frozen=True)
class TokenRows:
    """Encoded rows.

    Attributes:
        table: Columns input_ids, labels (−100 on the prompt), weight, has_soft (a bool a target token), top_ids
            and top_logprobs (flat, k a target token with stored targets), tail. Targets of another tokenizer that
            lie along spans also have counts, text and first (see `token_spans`), one a target token.
        k: Stored tokens a position, 1 where there are no stored targets at all.
        counts: rows, with_targets, misaligned, too_long, target_tokens, soft_tokens.
        places: Place of each encoded row in the given table; rows that cannot be trained on are missing.
        examples: Texts of the first misaligned rows, for the report.
        answer_tokens: Most tokens that the student may write: a quarter more than the longest answer, where that leaves
            half of the length for the prompt; less where few answers are that long and inputs would be cut for them.
        cut_answers: Answers that are longer than that.
        cut_inputs: Inputs that were learnt whole, and that the student reads cut, to have room for its answer.
    """

    table: Dataset
    k: int
    counts: dict[str, int]
    places: tuple[int, ...] = ()
    examples: tuple[str, ...] = ()
    answer_tokens: int = 0
    cut_answers: int = 0
    cut_inputs: int = 0

    def notes(self) -> list[str]:
        """What is not learnt from as it stands, and what is cut when the student answers, a sentence each."""
        found = []
        if n := self.counts["too_long"]:
            text = f"{n} rows have an output that does not fit distil.max_length beside the prompt"
            found.append(f"{text}; they are left out")
        if n := self.counts["misaligned"]:
            found.append(f"{n} rows have token targets that do not fit; they train on hard targets alone")
        if n := self.cut_answers:
            found.append(
                f"{n} {'outputs are' if n > 1 else 'output is'} longer than the {self.answer_tokens} tokens that the "
                "student may write, beside which nearly all inputs are read whole; raise distil.max_length"
            )
        if n := self.cut_inputs:
            found.append(
                f"{n} {'inputs that were' if n > 1 else 'input that was'} learnt whole {'are' if n > 1 else 'is'} cut "
                f"when the student answers, for up to {self.answer_tokens} tokens of output; raise distil.max_length"
            )
        return found


@dataclass
class _Columns:
    input_ids: list[list[int]] = field(default_factory=list)
    labels: list[list[int]] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    has_soft: list[list[bool]] = field(default_factory=list)
    top_ids: list[NDArray[np.int32]] = field(default_factory=list)
    top_logprobs: list[NDArray[np.float32]] = field(default_factory=list)
    tail: list[NDArray[np.float32]] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    text: list[NDArray[np.float32]] = field(default_factory=list)
    first: list[NDArray[np.int64]] = field(default_factory=list)


# What a position has where no span starts.
NO_SPAN = {"counts": 0, "text": -np.inf, "first": -1}


def encode_rows(
    spec: TaskSpec,
    rows: Dataset,
    targets: Dataset | None,
    model: Any,
    tokenizer: Any,
    options: DistilOptions,
) -> TokenRows:
    """Encode a table for training.

    Args:
        spec: The task.
        rows: Rows in the one schema; `output` is the answer.
        targets: Stored token targets keyed by row id, or None.
        model: The student, for its vocabulary and end token.
        tokenizer: The student's tokenizer.
        options: Resolved options.

    Raises:
        TrainingError: Targets that are damaged (NaN, positive log-probs, ragged), made for another temperature,
            of another tokenizer altogether, or no row that fits `max_length`.
    """
    data = encode_table(spec, rows, targets, model, tokenizer, options)
    counts = data.counts
    if not data.places:
        raise TrainingError(
            f"none of {len(rows)} rows can be trained on ({_left_out(counts, options)}); raise max_length"
        )
    if counts["misaligned"] and not counts["with_targets"]:
        raise TrainingError(
            f"the stored token targets fit none of the {counts['misaligned']} rows that have some (first: "
            f"{data.examples[0]}): they were made with another tokenizer than the student's; choose a student of the "
            "teacher's family with distil.student, name the teacher's tokenizer with distil.teacher_tokenizer, or set "
            "distil.soft_weight 0"
        )
    if options.hard_weight == 0 and counts["soft_tokens"] == 0:
        raise TrainingError(
            "hard_weight is 0 and no row has stored token targets, so there is nothing to learn from; run the "
            "soft-target stage with a teacher that gives log-probs, or set hard_weight above 0"
        )
    return data


def encode_held_out(
    spec: TaskSpec, rows: Dataset | None, targets: Dataset | None, model: Any, tokenizer: Any, options: DistilOptions
) -> tuple[TokenRows | None, list[str]]:
    """Encode held-out rows as `encode_rows` does, without refusing any: they only choose among evaluations.

    Args:
        spec: The task.
        rows: Held-out rows; None or empty where there are none.
        targets: Stored token targets keyed by row id, or None.
        model: The student.
        tokenizer: The student's tokenizer.
        options: Resolved options.

    Returns:
        The rows that can be measured on, None where there are none; and what is to be told, a sentence each.

    Raises:
        TrainingError: Damaged targets, or targets made for another temperature.
    """
    if rows is None or not len(rows):
        return None, []
    data = encode_table(spec, rows, targets, model, tokenizer, options)
    if not data.places:
        why = f"none of the {len(rows)} held-out rows can be measured on ({_left_out(data.counts, options)})"
        return None, [f"{why}: the last weights are kept; raise distil.max_length"]
    notes = []
    if n := data.counts["too_long"]:
        notes.append(f"{n} held-out rows have an output that does not fit distil.max_length; they are left out")
    if n := data.counts["misaligned"]:
        notes.append(f"{n} held-out rows have token targets that do not fit; they are measured by their text alone")
    return data, notes


def _left_out(counts: Mapping[str, int], options: DistilOptions) -> str:
    return (
        f"{counts['empty']} have no output, {counts['too_long']} have an output that does not fit max_length "
        f"{options.max_length}"
    )


def encode_table(
    spec: TaskSpec, rows: Dataset, targets: Dataset | None, model: Any, tokenizer: Any, options: DistilOptions
) -> TokenRows:
    """The rows that can be encoded, of which there may be none; arguments and errors are those of `encode_rows`."""
    from datasets import Dataset

    stored = _index(targets, options) if targets is not None and options.soft_weight > 0 else {}
    spans = targets is not None and "counts" in targets.column_names
    k = max((len(top) for row in stored.values() for top in row["top_ids"][:1]), default=1)
    vocabulary, end = int(model.config.vocab_size), end_of_turn(model, tokenizer)
    limit = int(options.max_length or 1024)
    # What every prompt holds, and some tokens of the input: an answer that leaves less goes, unless all fits beside it.
    least = len(encode_prompt(tokenizer, spec, "", limit)) + _LEAST_INPUT
    columns, counts = _Columns(), {"rows": len(rows), "with_targets": 0, "misaligned": 0, "too_long": 0, "empty": 0}
    examples: list[str] = []
    # Tokens of each prompt and of its answer, and whether the prompt was learnt whole.
    lengths: list[tuple[int, int, bool]] = []
    places: list[int] = []
    given = zip(rows["id"], rows["input"], rows["output"], rows["weight"], strict=True)
    for place, (row_id, text, output, weight) in enumerate(given):
        if not (output or "").strip():
            counts["empty"] += 1
            continue
        answer = [*answer_ids(tokenizer, output), end]
        item = stored.get(row_id)
        if item is not None and not _fits(item, output, tokenizer, vocabulary):
            counts["misaligned"] += 1
            examples.append(f"{row_id}: {output[:60]!r}")
            item = None
        if item is not None:
            ids = [int(token) for token in item["token_ids"]]
            answer = ids if ids[-1] == end else [*ids, end]
        room = limit - len(answer)
        prompt = encode_prompt(tokenizer, spec, text, sys.maxsize)
        whole = len(prompt) <= room
        if room < least and not whole:
            counts["too_long"] += 1
            continue
        prompt = prompt if whole else encode_prompt(tokenizer, spec, text, room)
        lengths.append((len(prompt), len(answer), whole))
        places.append(place)
        columns.input_ids.append(prompt + answer)
        columns.labels.append([IGNORED] * len(prompt) + answer)
        columns.weight.append(1.0 if weight is None else float(weight))
        _add_targets(columns, item, len(answer), k)
        if spans:
            _add_spans(columns, item, len(answer))
        counts["with_targets"] += item is not None
    counts["target_tokens"] = sum(len(row) for row in columns.has_soft)
    counts["soft_tokens"] = sum(sum(row) for row in columns.has_soft)
    if not lengths:
        return TokenRows(Dataset.from_dict({}), k, counts)
    prompts, answers = (np.array([row[i] for row in lengths]) for i in (0, 1))
    most = _answer_tokens(prompts, answers, limit, limit - least)
    filled = {name: values for name, values in vars(columns).items() if values}
    return TokenRows(
        Dataset.from_dict(filled), k, counts, tuple(places), tuple(examples[:5]), most,
        cut_answers=int((answers > most).sum()),
        cut_inputs=sum(whole and prompt > limit - most for prompt, _, whole in lengths),
    )  # fmt: skip


def _answer_tokens(prompts: NDArray[np.int64], answers: NDArray[np.int64], limit: int, beside: int) -> int:
    """Most tokens that the student may write, of the `limit` of prompt and answer; `beside` are left by the least.

    The instruction and a token of the input fit beside them, or the student could be asked nothing.
    """
    longest = int(answers.max())
    most = max(longest, min(math.ceil(1.25 * longest), limit // 2, beside))
    # The prompt gets what the answer leaves, so one long answer would cut every input: it gives way to inputs that
    # nearly all fit. An answer of up to twice the usual length does not.
    left = limit - int(np.quantile(prompts, _FITTING_PROMPTS, method="higher"))
    usual = 2 * int(np.quantile(answers, _USUAL_ANSWERS, method="lower"))
    # Short answers get 16, for one that is somewhat longer, where these do not cut inputs that would fit.
    floor = min(16, max(left, beside))
    return min(max(floor, min(most, max(left, usual))), beside + _LEAST_INPUT - 1)


def collate_targets(examples: Sequence[Mapping[str, Any]], k: int) -> dict[str, Any]:
    """Flat targets of a batch, one entry a target token.

    Returns:
        has_soft (n,) bool; top_ids (n, k) int64 and top_logprobs (n, k) float32, where a position without stored
        targets holds its own label with log-prob 0; tail (n,) float32; weights (n,) float32. Along spans also counts
        and first (n,) int64 and text (n,) float32.
    """
    import torch

    has_soft = np.concatenate([np.asarray(row["has_soft"], dtype=bool) for row in examples])
    labels = np.concatenate([_answer(row) for row in examples])
    top_ids = np.repeat(labels[:, None], k, axis=1)
    top_logprobs = np.full((len(labels), k), -np.inf, dtype=np.float32)
    top_logprobs[:, 0] = 0.0
    tail = np.full(len(labels), _EMPTY_TAIL, dtype=np.float32)
    if has_soft.any():
        top_ids[has_soft] = np.concatenate([np.asarray(row["top_ids"], dtype=np.int64) for row in examples]).reshape(
            -1, k
        )
        flat = np.concatenate([np.asarray(row["top_logprobs"], dtype=np.float32) for row in examples])
        top_logprobs[has_soft] = flat.reshape(-1, k)
        tail[has_soft] = np.concatenate([np.asarray(row["tail"], dtype=np.float32) for row in examples])
    weights = np.concatenate([np.full(len(row["has_soft"]), row["weight"], dtype=np.float32) for row in examples])
    spans = {}
    if "counts" in examples[0]:
        kinds = {"counts": np.int64, "text": np.float32, "first": np.int64}
        spans = {
            name: torch.from_numpy(np.concatenate([np.asarray(row[name], dtype=kind) for row in examples]))
            for name, kind in kinds.items()
        }
    return {
        **spans,
        "has_soft": torch.from_numpy(has_soft),
        "top_ids": torch.from_numpy(top_ids),
        "top_logprobs": torch.from_numpy(top_logprobs),
        "tail": torch.from_numpy(tail),
        "weights": torch.from_numpy(weights),
    }


def _answer(row: Mapping[str, Any]) -> NDArray[np.int64]:
    labels = np.asarray(row["labels"], dtype=np.int64)
    answer: NDArray[np.int64] = labels[labels != IGNORED]
    return answer


def _index(targets: Dataset, options: DistilOptions) -> dict[str, dict[str, Any]]:
    """Targets by row id, checked for damage as a whole before any row is encoded."""
    made_at = set(targets["temperature"]) if "temperature" in targets.column_names else {1.0}
    if made_at != {options.temperature}:
        raise TrainingError(
            f"the stored token targets hold the tail at temperature {', '.join(f'{t:g}' for t in sorted(made_at))} and "
            f"distil.temperature is {options.temperature:g}; set it to that, or take the targets again"
        )
    stored: dict[str, dict[str, Any]] = {}
    for item in targets:
        lengths = {len(item[name]) for name in ("token_ids", "top_ids", "top_logprobs", "tail")}
        if len(lengths) != 1:
            raise TrainingError(
                f"token targets of row {item['id']} have columns of lengths {sorted(lengths)}; take them again"
            )
        if not len(item["token_ids"]):
            continue
        widths = {len(top) for name in ("top_ids", "top_logprobs") for top in item[name]}
        logprobs = np.concatenate([np.asarray(top, dtype=np.float32) for top in item["top_logprobs"]])
        tail = np.asarray(item["tail"], dtype=np.float32)
        if not widths or 0 in widths:
            raise TrainingError(f"token targets of row {item['id']} have positions without any token; take them again")
        _check_numbers(str(item["id"]), item["top_logprobs"], logprobs, tail, at_one=options.temperature == 1)
        stored[str(item["id"])] = item
    widest = max((len(top) for item in stored.values() for top in item["top_ids"]), default=1)
    for item in stored.values():
        item["top_ids"] = [list(top) + [top[0]] * (widest - len(top)) for top in item["top_ids"]]
        item["top_logprobs"] = [list(top) + [-np.inf] * (widest - len(top)) for top in item["top_logprobs"]]
    return stored


def _check_numbers(
    row_id: str, top: Sequence[Sequence[float]], logprobs: NDArray[np.float32], tail: NDArray[np.float32], *,
    at_one: bool,
) -> None:  # fmt: skip
    """Refuse stored log-probs that are no distribution; −inf is allowed for all but the first token of a position."""
    highest = 1e-2 if at_one else np.inf
    if np.isnan(logprobs).any() or np.isnan(tail).any() or logprobs.max() > 1e-2 or tail.max() > highest:
        raise TrainingError(f"token targets of row {row_id} hold NaN or log-probs above 0; take the soft targets again")
    if any(position[0] == -np.inf for position in top):
        raise TrainingError(
            f"token targets of row {row_id} hold a position whose first log-prob is -inf; take the soft targets again"
        )
    if at_one:
        ends = np.cumsum([len(position) for position in top])[:-1]
        mass = np.array([np.exp(part).sum() for part in np.split(logprobs, ends)]) + np.exp(tail)
        worst = int(np.abs(mass - 1).argmax())
        if abs(mass[worst] - 1) > _MASS_ERROR:
            raise TrainingError(
                f"token targets of row {row_id} add up to {mass[worst]:.3f} at position {worst}, not to 1: they are "
                "damaged or were not taken at temperature 1; take the soft targets again"
            )


def _fits(item: Mapping[str, Any], output: str, tokenizer: Any, vocabulary: int) -> bool:
    if max(item["token_ids"]) >= vocabulary or max(max(top) for top in item["top_ids"]) >= vocabulary:
        return False
    return bool(tokenizer.decode(item["token_ids"], skip_special_tokens=True).strip() == output.strip())


def _add_spans(columns: _Columns, item: Mapping[str, Any] | None, tokens: int) -> None:
    for name, nothing in NO_SPAN.items():
        told = [] if item is None else list(item[name])
        getattr(columns, name).append(np.asarray([*told, *[nothing] * (tokens - len(told))]))


def _add_targets(columns: _Columns, item: Mapping[str, Any] | None, tokens: int, k: int) -> None:
    if item is None:
        columns.has_soft.append([False] * tokens)
        columns.top_ids.append(np.zeros(0, dtype=np.int32))
        columns.top_logprobs.append(np.zeros(0, dtype=np.float32))
        columns.tail.append(np.zeros(0, dtype=np.float32))
        return
    stored = len(item["token_ids"])
    # Targets that were carried over from another tokenizer have gaps.
    known = np.asarray(item.get("known") or [True] * stored, dtype=bool)
    columns.has_soft.append([*known.tolist(), *[False] * (tokens - stored)])
    columns.top_ids.append(np.asarray(item["top_ids"], dtype=np.int32)[known].ravel())
    columns.top_logprobs.append(np.asarray(item["top_logprobs"], dtype=np.float32)[known].ravel())
    # A tail of no mass at all would make the reverse divergences infinite.
    columns.tail.append(np.maximum(np.asarray(item["tail"], dtype=np.float32)[known], _EMPTY_TAIL))
    assert columns.top_ids[-1].size == int(known.sum()) * k
