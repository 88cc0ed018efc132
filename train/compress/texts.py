"""Texts and rows as batches for calibration, healing and perplexity.

Classifiers take rows as they are, batched by length. Decoders take windows of running text; a student that answers
rows takes its chats, prompt and answer, with the answer alone as what is learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from potstill.errors import DataError
from potstill.task import TaskSpec
from potstill.train.calibration_data import Calibration
from potstill.train.compress.state import Compressed
from potstill.train.encode import answer_ids, encode_prompt

_IGNORE = -100


def calibration(
    state: Compressed, texts: Sequence[str], answers: Sequence[str] | None = None, *, tokens: int, length: int = 512,
    a_batch: int = 2048,
) -> Calibration:  # fmt: skip
    """Batches of a student's own kind.

    Args:
        state: The student.
        texts: Inputs, or running text.
        answers: The label's name or the answer of each text; None where there are none.
        tokens: Tokens at most.
        length: Tokens of a window (decoders).
        a_batch: Tokens of a batch at most, padding counted.

    Raises:
        DataError: An answer that is none of the classifier's labels.
    """
    if state.kind == "classification":
        return _rows(state, texts, answers, tokens, a_batch)
    if answers is not None and state.card is not None:
        return _chats(state, texts, answers, tokens, a_batch)
    windows = token_windows(state.tokenizer, texts, length, tokens)
    size = max(1, a_batch // length)
    whole = [row for row in windows if len(row) == length] or windows[:1]
    batches = []
    for start in range(0, len(whole), size):
        ids = torch.tensor(whole[start : start + size])
        batches.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()})
    return Calibration(tuple(batches if whole else ()), "causal")


def token_windows(tokenizer: Any, texts: Sequence[str], length: int, limit: int) -> list[list[int]]:
    """Running text in windows of `length` tokens, the last one shorter; `limit` tokens at most."""
    ids: list[int] = []
    for text in texts:
        ids += tokenizer(text + "\n\n", add_special_tokens=False, verbose=False)["input_ids"]
        if len(ids) >= limit:
            break
    ids = ids[:limit]
    return [ids[start : start + length] for start in range(0, len(ids), length)]


def _rows(
    state: Compressed, texts: Sequence[str], answers: Sequence[str] | None, tokens: int, a_batch: int
) -> Calibration:
    card = state.card
    limit = card.max_length if card is not None else 256
    encoded = state.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"] if texts else []
    labels = _label_ids(state, answers)
    chosen, seen = [], 0
    for i, row in enumerate(encoded):
        if seen >= tokens:
            break
        chosen.append(i)
        seen += len(row)
    chosen.sort(key=lambda i: len(encoded[i]))
    batches, start = [], 0
    while start < len(chosen):
        stop = start + 1
        while stop < len(chosen) and stop - start < 32 and (stop + 1 - start) * len(encoded[chosen[stop]]) <= a_batch:
            stop += 1
        part = chosen[start:stop]
        batch = _padded(state.tokenizer, [encoded[i] for i in part])
        if labels is not None:
            batch["labels"] = torch.tensor([labels[i] for i in part])
        batches.append(batch)
        start = stop
    return Calibration(tuple(batches), "classification")


def _label_ids(state: Compressed, answers: Sequence[str] | None) -> list[int] | None:
    if answers is None or state.card is None:
        return None
    places = {name: i for i, name in enumerate(state.card.labels)}
    if foreign := sorted({name for name in answers if name not in places})[:5]:
        raise DataError(
            f"the rows hold labels that the student does not know: {', '.join(foreign)}; it knows "
            f"{', '.join(state.card.labels)}"
        )
    return [places[name] for name in answers]


def _chats(state: Compressed, texts: Sequence[str], answers: Sequence[str], tokens: int, a_batch: int) -> Calibration:
    card = state.card
    assert card is not None
    spec = TaskSpec(name=card.name, instruction=card.instruction, kind=card.kind)
    room = max(8, card.max_length - card.max_new_tokens)
    rows: list[tuple[list[int], int]] = []
    seen = 0
    for text, answer in zip(texts, answers, strict=True):
        if seen >= tokens:
            break
        prompt = encode_prompt(state.tokenizer, spec, text, room)
        end = state.tokenizer.eos_token_id
        said = [*answer_ids(state.tokenizer, answer), *([] if end is None else [end])]
        rows.append(((prompt + said)[: card.max_length], len(prompt)))
        seen += len(rows[-1][0])
    rows.sort(key=lambda row: len(row[0]))
    batches, start = [], 0
    while start < len(rows):
        size = max(1, a_batch // len(rows[min(len(rows) - 1, start + 7)][0]))
        part = rows[start : start + min(size, 8)]
        batch = _padded(state.tokenizer, [ids for ids, _ in part])
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, _IGNORE)
        for row, (_, prompt_length) in zip(labels, part, strict=True):
            row[:prompt_length] = _IGNORE
        batches.append({**batch, "labels": labels})
        start += len(part)
    return Calibration(tuple(batches), "causal")


def _padded(tokenizer: Any, rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    width = max(len(row) for row in rows)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids = torch.full((len(rows), width), int(pad or 0))
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}
