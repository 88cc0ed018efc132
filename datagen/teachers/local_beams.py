"""Beam search for the transformers teacher: the answer that is likeliest by its mean log-prob a token, of those found.

What enters is one row a request; what leaves is its tokens. The search is transformers' own. Rows of one width and one
bound are searched together; they do not join the continuous batch, whose rows end one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from potstill.decoding.batch import Row


def search_batches(rows: Sequence[Row], most: int, tokens: int, *, pads: bool = True) -> list[list[int]]:
    """Indices of rows that are searched together.

    Args:
        rows: One a request.
        most: Most sequences at a time, beams counted.
        tokens: Most prompt tokens at a time, beams counted.
        pads: Whether prompts of other lengths can be padded.
    """
    batches: list[list[int]] = []
    order = sorted(range(len(rows)), key=lambda i: (rows[i].request.beams, rows[i].room, len(rows[i].prompt), i))
    for i in order:
        row, batch = rows[i], batches[-1] if batches else None
        beams = row.request.beams
        if (
            batch is not None
            and (rows[batch[0]].request.beams, rows[batch[0]].room) == (beams, row.room)
            and (pads or len(rows[batch[0]].prompt) == len(row.prompt))
            and (len(batch) + 1) * beams <= most
            and (len(batch) + 1) * beams * len(row.prompt) <= tokens
        ):
            batch.append(i)
        else:
            batches.append([i])
    return batches


@torch.inference_mode()
def search_beams(model: Any, rows: Sequence[Row], ends: frozenset[int]) -> list[list[int]]:
    """The best answer of each row, its ending token included where it ended.

    Args:
        model: The model.
        rows: Of one width and one bound.
        ends: Tokens that end an answer.
    """
    from transformers import GenerationConfig

    pad = min(ends, default=0)
    longest = max(len(row.prompt) for row in rows)
    left = [longest - len(row.prompt) for row in rows]
    ids = torch.tensor([[pad] * n + list(row.prompt) for n, row in zip(left, rows, strict=True)], device=model.device)
    mask = torch.tensor([[0] * n + [1] * len(row.prompt) for n, row in zip(left, rows, strict=True)], device=ids.device)
    plain = GenerationConfig(
        num_beams=rows[0].request.beams, do_sample=False, length_penalty=1.0, early_stopping=False,
        max_new_tokens=rows[0].room, eos_token_id=sorted(ends) or None, pad_token_id=pad,
    )  # fmt: skip
    found: list[list[int]] = []
    for answer in model.generate(input_ids=ids, attention_mask=mask, generation_config=plain)[:, longest:].tolist():
        end = next((at + 1 for at, token in enumerate(answer) if token in ends), len(answer))
        found.append(answer[:end])
    return found
