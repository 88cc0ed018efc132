"""Log-probs of continuations after prompts, for a model that cannot be shown several branches at once (see `waves`).

Prompts are read side by side. Then as many copies of a prompt's state as it has continuations read theirs, a token a
pass; what one has behind another's beginning is read with it. A single one is read with its prompt in one pass.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from potstill.asking.teacher import TokenTop
from potstill.datagen.teachers.local_scores import ScoreItem
from potstill.decoding.model import OutputHead
from potstill.decoding.sampling import token_tops
from potstill.decoding.waves import left_padded, new_cache, read_on

# Copies of states that are read side by side.
_COPIES = 64

Scored = tuple[list[float], list[TokenTop]]


@torch.inference_mode()
def score_in_waves(model: Any, head: OutputHead, items: Sequence[ScoreItem], pad: int, *, pads: bool) -> list[Scored]:
    """Summed log-prob of each continuation of each item, and the token log-probs where they were asked for.

    Args:
        model: The model.
        head: Its output projection.
        items: Prompts with their continuations.
        pad: A token to pad with.
        pads: Whether prompts of different lengths can be read in one pass.
    """
    found: dict[int, Scored] = {}
    waves: dict[int, list[int]] = {}
    for place, item in enumerate(items):
        if len(item.continuations) == 1:
            found[place] = _whole(model, head, item)
        else:
            waves.setdefault(0 if pads else len(item.prompt), []).append(place)
    for places in waves.values():
        with head.using(keep=1, precise=True):
            scores = _wave(model, [items[place] for place in places], pad)
        found.update((place, (score, [])) for place, score in zip(places, scores, strict=True))
    return [found[place] for place in range(len(items))]


def _whole(model: Any, head: OutputHead, item: ScoreItem) -> Scored:
    """Of one continuation."""
    (wanted,) = item.continuations
    ids = torch.tensor([[*item.prompt, *wanted[:-1]]], device=model.device)
    with head.using(keep=len(wanted), precise=True):
        logits = model(input_ids=ids, use_cache=False).logits[0, -len(wanted) :].float()
    chosen = torch.tensor(list(wanted), device=model.device)
    score = float(logits.log_softmax(-1).gather(1, chosen.unsqueeze(1)).sum())
    return [score], token_tops(logits, chosen, [item.top] * len(wanted)) if item.top else []


def _wave(model: Any, items: Sequence[ScoreItem], pad: int) -> list[list[float]]:
    """Of items whose prompts are read in one pass."""
    cache = new_cache(model)
    ids, mask = left_padded([item.prompt for item in items], pad, model.device)
    first = read_on(model, cache, ids, mask, first=True)[:, -1].float().log_softmax(-1).cpu()
    scores = [
        [float(first[row, continuation[0]]) for continuation in item.continuations] for row, item in enumerate(items)
    ]
    beginnings = [_longest_beginnings(item.continuations) for item in items]
    paths = [(row, path) for row, found in enumerate(beginnings) for path in dict.fromkeys(found) if path]
    for start in range(0, len(paths), _COPIES):
        chunk = paths[start : start + _COPIES]
        copies = copy.deepcopy(cache) if start + _COPIES < len(paths) else cache
        rows = torch.tensor([row for row, _ in chunk], device=model.device)
        copies.reorder_cache(rows)
        seen = mask[rows]
        for depth in range(max(len(path) for _, path in chunk)):
            seen = torch.cat([seen, seen.new_ones(len(chunk), 1)], dim=1)
            # A path that is at its end reads on what does not matter.
            tokens = [[path[min(depth, len(path) - 1)]] for _, path in chunk]
            logprobs = read_on(model, copies, tokens, seen, first=False)[:, -1].float().log_softmax(-1).cpu()
            for copied, (row, path) in enumerate(chunk):
                for place, continuation in enumerate(items[row].continuations):
                    if beginnings[row][place] == path and depth + 1 < len(continuation):
                        scores[row][place] += float(logprobs[copied, continuation[depth + 1]])
    return scores


def _longest_beginnings(continuations: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """For each continuation the longest beginning, its own or another's, that starts with all but its last token."""
    own = [tuple(continuation[:-1]) for continuation in continuations]
    longest = sorted(own, key=len, reverse=True)
    return [next(other for other in longest if other[: len(path)] == path) if path else () for path in own]
