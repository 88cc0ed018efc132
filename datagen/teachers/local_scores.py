"""Log-probs of many continuations after one prompt, in one pass over prompt and continuations together.

The continuations of a prompt are merged into a prefix tree. Its inner nodes are appended to the prompt; each node
sees the prompt and its own ancestors (a tree-shaped attention mask) at the position it would have if its branch
stood alone. A token's log-prob is read where its parent stands, so leaves are never fed: labels of one token cost
nothing beyond the prompt, and 77 labels little more than their shared beginnings. Prompts are left-padded, so
that the columns whose logits are needed stand together at the end. What all prompts of a pass begin with (the system's
and the task's words) is read once.

What enters: tokens of prompts and continuations. What leaves: the exact summed log-probs (nats, temperature 1)
that one pass for each continuation would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from potstill.asking.teacher import TokenTop
from potstill.datagen.teachers.prefix_tree import Tree, build_tree
from potstill.decoding.model import attention_masks, cache_argument
from potstill.decoding.prefixes import Beginning, shared_length

# Logits of this many positions are held at a time (float32: 200 KiB each for a vocabulary of 50,000).
_LOGIT_ROWS = 512
# A shorter beginning is not worth a pass of its own.
_LEAST_SHARED = 8


@dataclass(frozen=True)
class ScoreItem:
    """One prompt with its continuations, as tokens.

    Attributes:
        prompt: At least one token.
        continuations: Each at least one token.
        top: How many log-probs a position to return (with one continuation), 0 for none.
    """

    prompt: Sequence[int]
    continuations: Sequence[Sequence[int]]
    top: int = 0


@torch.inference_mode()
def score_batch(model: Any, items: Sequence[ScoreItem], pad: int) -> list[tuple[list[float], list[TokenTop]]]:
    """Summed log-prob of each continuation of each item, and the token log-probs where they were asked for."""
    trees = [build_tree(item.continuations) for item in items]
    device = model.device
    shared = _shared_beginning(model, items)
    known = shared.length if shared else 0
    prompt_length = max(len(item.prompt) for item in items) - known
    tree_length = max(len(tree.tokens) for tree in trees)
    length = prompt_length + tree_length
    ids = torch.full((len(items), length), pad, dtype=torch.int64)
    positions = torch.zeros((len(items), length), dtype=torch.int64)
    allowed = torch.zeros((len(items), 1, length, length), dtype=torch.bool)
    diagonal = torch.arange(length)
    # A padding position looks at itself: a row of the mask with nothing allowed would give NaN.
    allowed[:, 0, diagonal, diagonal] = True
    lower = torch.ones((prompt_length, prompt_length), dtype=torch.bool).tril()
    shapes: dict[tuple[int, ...], tuple[torch.Tensor, list[int]]] = {}
    for row, (item, tree) in enumerate(zip(items, trees, strict=True)):
        count = len(item.prompt) - known
        start = prompt_length - count
        ids[row, start:prompt_length] = torch.as_tensor(item.prompt[known:])
        positions[row, start:prompt_length] = torch.arange(count) + known
        allowed[row, 0, start:prompt_length, start:prompt_length] = lower[:count, :count]
        nodes = len(tree.tokens)
        if nodes:
            if tree.parents not in shapes:
                shapes[tree.parents] = _ancestry(tree.parents)
            seen, depths = shapes[tree.parents]
            end = prompt_length + nodes
            ids[row, prompt_length:end] = torch.as_tensor(tree.tokens)
            positions[row, prompt_length:end] = torch.as_tensor(depths) + count + known
            allowed[row, 0, prompt_length:end, start:prompt_length] = True
            allowed[row, 0, prompt_length:end, prompt_length:end] = seen
    ids, positions, allowed = ids.to(device), positions.to(device), allowed.to(device)
    places = torch.cat([torch.arange(known, device=device).expand(len(items), -1), positions], dim=1)
    distance = (positions.unsqueeze(2) - places.unsqueeze(1)).unsqueeze(1)
    output = model(
        input_ids=ids,
        attention_mask=attention_masks(model, torch.nn.functional.pad(allowed, (known, 0), value=True), distance),
        position_ids=positions,
        use_cache=shared is not None,
        logits_to_keep=tree_length + 1,
        **cache_argument(model, shared),
    )
    return [_read(output.logits[row], item, tree) for row, (item, tree) in enumerate(zip(items, trees, strict=True))]


def _shared_beginning(model: Any, items: Sequence[ScoreItem]) -> Beginning | None:
    """Keys and values of the tokens that all prompts begin with, where it pays to read them apart."""
    # What the first and the last in order share, all between them share.
    prompts = [tuple(item.prompt) for item in items]
    first = min(prompts)
    length = min(shared_length(first, max(prompts)), min(map(len, prompts)) - 1)
    if len(items) < 2 or length < _LEAST_SHARED:
        return None
    beginning = Beginning(length)
    ids = torch.tensor([first[:length]], device=model.device)
    span = torch.arange(length, device=model.device)
    distance = (span.unsqueeze(1) - span).view(1, 1, length, length)
    model(
        input_ids=ids,
        attention_mask=attention_masks(model, distance >= 0, distance),
        position_ids=span.unsqueeze(0),
        use_cache=True,
        logits_to_keep=1,
        **cache_argument(model, beginning),
    )
    return beginning


def _ancestry(parents: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
    """(nodes, nodes) bool, True where a node sees another, and each node's depth below the prompt."""
    seen = torch.eye(len(parents), dtype=torch.bool)
    depths: list[int] = []
    for node, parent in enumerate(parents):
        if parent >= 0:
            seen[node] |= seen[parent]
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    return seen, depths


def _read(logits: torch.Tensor, item: ScoreItem, tree: Tree) -> tuple[list[float], list[TokenTop]]:
    """Pick the log-probs out of (1 + nodes, vocab) logits; row 0 is the prompt's last position."""
    rows = [node + 1 for path in tree.paths for node, _ in path]
    wanted = [token for path in tree.paths for _, token in path]
    logits = logits[: len(tree.tokens) + 1].float()
    norms = torch.logsumexp(logits, dim=-1)
    row_index = torch.tensor(rows, device=logits.device)
    values = (logits[row_index, torch.tensor(wanted, device=logits.device)] - norms[row_index]).tolist()
    scores: list[float] = []
    place = 0
    for path in tree.paths:
        scores.append(sum(values[place : place + len(path)]))
        place += len(path)
    tops: list[TokenTop] = []
    if item.top:
        best, ids = logits.topk(min(item.top, logits.shape[-1]), dim=-1)
        best = best - norms.unsqueeze(1)
        tops = [
            TokenTop(token, value, tuple(i), tuple(v))
            for token, value, i, v in zip(wanted, values, ids.tolist(), best.tolist(), strict=True)
        ]
    return scores, tops


def score_batches(items: Sequence[ScoreItem], token_budget: int) -> list[list[int]]:
    """Group items of like length so that a batch pads little and holds bounded logits; indices into `items`."""
    sizes = [len(item.prompt) + len(build_tree(item.continuations).tokens) for item in items]
    nodes = [1 + len(build_tree(item.continuations).tokens) for item in items]
    batches: list[list[int]] = []
    for index in sorted(range(len(items)), key=lambda i: (sizes[i], i)):
        batch = batches[-1] if batches else None
        longest = sizes[index]
        if (
            batch is not None
            and (len(batch) + 1) * longest <= token_budget
            and (len(batch) + 1) * max(nodes[index], *(nodes[i] for i in batch)) <= _LOGIT_ROWS
        ):
            batch.append(index)
        else:
            batches.append([index])
    return batches
