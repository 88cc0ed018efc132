"""Attention heads by importance: how much the loss would change if a head were turned down.

    I_h = E_x | ∂L(x) / ∂ξ_h |        ξ_h: a factor on the head's output, 1 now

l2-normalised within each layer, since gradients of different layers have different sizes. Heads go a few at a time and
the importance of the rest is measured again, because heads stand in for each other.

A decoder is cut (`uniform`): the same number of key-value groups in each layer and of query heads in each group, whole
groups where the number allows it. Few heads leave a coarse choice: SmolLM2-135M has nine, neither seven nor five divide
its hidden width, and so a fifth cuts three of them and a half cuts five; the result's note says so. Free choice over
layers, and every encoder of BERT's build (its configuration has no head size of its own), is zero-masked instead: the
model says less, but is not smaller.

Source: Michel et al., Are sixteen heads really better than one?, arXiv:1905.10650 §4 (20 % of the heads of WMT's
transformer and 40 % of BERT's go free; up to 17.5 % faster). Measured for SmolLM2-135M on CPython's language reference
(dense 12.41), masked: 20 % 19.8, 50 % 107 where the first 4 of 9 heads give 446.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from potstill.errors import OptionError
from potstill.events import Event, Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.prune.anatomy import Anatomy, anatomy
from potstill.train.prune.cut import can_cut_heads, cut_heads
from potstill.train.prune.gates import gated
from potstill.train.prune.loss import losses, small_batches, with_answers
from potstill.train.prune.masks import Masks
from potstill.train.prune.outcome import (
    PruneResult,
    checked,
    checked_calibration,
    checked_share,
    parameter_count,
    size_facts,
)  # fmt: skip
from potstill.train.prune.stream import evaluating


def prune_heads(
    model: Any, amount: float | int, calibration: Calibration, listener: Listener = silent, *,
    uniform: bool = True, step: float = 0.1, measured_tokens: int = 2048,
) -> PruneResult:  # fmt: skip
    """Remove the least important heads in place.

    Args:
        model: A model that `anatomy` knows.
        amount: Share of all heads to remove, in (0, 1). A uniform cut takes the nearest number that can be had.
        calibration: Texts, with labels for a classifier (without them, its own answers are taken).
        listener: Told after each round.
        uniform: Cut the same number in every layer, where the model can be cut; else zero-mask the least important.
        step: Share of the heads that goes between two measurements, where heads are masked; a uniform cut takes one
            group, or one head of each group, a round.
        measured_tokens: Tokens that each measurement looks at.

    Raises:
        OptionError: An impossible amount or step, or too little text.
        UserError: An unknown build of model.
    """
    share = checked_share("heads", amount)
    if not 0 < step <= 1:
        raise OptionError("prune heads", [f"step {step!r} is no share of the heads; choose one between 0 and 1"])
    checked_calibration("heads", calibration, 64)
    parts = anatomy(model)
    before, calibration = parameter_count(model), with_answers(model, calibration)
    cutting = uniform and can_cut_heads(parts)
    total = parts.heads * len(parts.blocks)
    alive = torch.ones(len(parts.blocks), parts.heads)
    if cutting:
        groups, each = nearest_count(parts.heads, parts.groups, share, int(model.config.get_text_config().hidden_size))
        wanted = groups * each * len(parts.blocks)
    else:
        wanted = total - max(1, round(share * total))
    if wanted == total:
        raise OptionError(
            "prune heads",
            [f"{share:g} of {parts.heads} heads in {parts.groups} key-value groups is nearest to none; ask for more"],
        )
    ways = _ways(parts, groups, each) if cutting else iter(())
    while int(alive.sum()) > wanted:
        importance = head_importance(parts, calibration, alive, measured_tokens)
        if cutting:
            alive = _uniform(alive, importance, next(ways), parts)
        else:
            alive = _without_least(alive, importance, max(wanted, int(alive.sum()) - max(1, round(step * total))))
        listener(Event("compress", "progress", f"heads: {int(alive.sum())} of {total} left"))
    kept = [row.nonzero().flatten().tolist() for row in alive]
    facts: dict[str, Any] = {"heads_before": total, "asked_share": share, "kept_heads": kept}
    masks = None
    if cutting:
        each_had = parts.heads
        parts = cut_heads(parts, kept)
        facts |= {"structure": "cut", "heads": parts.heads * len(parts.blocks), "key_value_groups": parts.groups}
        facts["note"] = f"{parts.heads} of the {each_had} heads of every layer stay"
        if abs(wanted - (1 - share) * total) >= len(parts.blocks) / 2:
            gone = 1 - wanted / total
            facts["note"] += (
                f": {gone:.0%} cut where {share:.0%} was asked, the nearest that the model can be loaded with"
            )
    else:
        masks = head_masks(parts, alive)
        masks.apply(model)
        why = "free choice over layers" if parts.decoder else "BERT's configuration has no head size of its own"
        facts |= {
            "structure": "masked",
            "heads": _heads_alive(parts),
            "note": f"zero-masked ({why}): no tensor is smaller",
        }
    facts |= size_facts(parts, before)
    return checked(PruneResult(facts, masks, {"heads": float(wanted)}))


def nearest_count(heads: int, groups: int, share: float, width: int) -> tuple[int, int]:
    """Groups, and query heads in each, whose product is nearest to the share that stays; fewer groups at a tie.

    The product divides the hidden width, which transformers wants of a configuration even where the head size is given.
    """
    ways = [(g, each) for g in range(1, groups + 1) for each in range(1, heads // groups + 1)]
    ways = [way for way in ways if width % (way[0] * way[1]) == 0]
    return min(ways, key=lambda way: (abs(way[0] * way[1] - (1 - share) * heads), way[0]))


def head_importance(
    parts: Anatomy, calibration: Calibration, alive: torch.Tensor | None = None, tokens: int = 2048
) -> torch.Tensor:
    """E|∂L/∂ξ| of every query head, l2-normalised within its layer.

    Args:
        parts: The model; its weights get no gradient.
        calibration: Texts.
        alive: (layers, heads) of 0 and 1: heads that are off already.
        tokens: Look at as many, from the first on.

    Returns:
        (layers, heads) float32.
    """
    alive = torch.ones(len(parts.blocks), parts.heads) if alive is None else alive
    device = parts.model.device
    total, seen, rows = torch.zeros(alive.shape, device=device), 0, 0
    trained = [parameter for parameter in parts.model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        with evaluating(parts.model), torch.enable_grad():
            for batch in small_batches(calibration):
                count = len(batch["input_ids"])
                gates = alive[:, None].repeat(1, count, 1).to(device).requires_grad_()
                with gated(parts, gates):
                    (slope,) = torch.autograd.grad(losses(parts.model, batch, calibration.kind).sum(), gates)
                total += slope.abs().sum(1)
                rows += count
                seen += int(batch["attention_mask"].sum())
                if seen >= tokens:
                    break
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    mean = (total / max(rows, 1)).cpu() * alive
    lengths: torch.Tensor = mean.norm(dim=1, keepdim=True)
    return mean / lengths.clamp(min=1e-20)


def head_masks(parts: Anatomy, alive: torch.Tensor) -> Masks:
    """Masks that turn heads off: their columns of the output projection, their rows of the query, and key and value
    where no head of the group is left.

    Args:
        parts: The model.
        alive: (layers, heads) of 0 and 1.
    """
    names = {id(linear): name for name, linear in parts.matrices()}
    found = {}
    for block, row in zip(parts.blocks, alive.bool(), strict=True):
        queries = row.repeat_interleave(parts.head_size).to(block.out.weight.device)
        pairs = row.view(parts.groups, -1).any(1).repeat_interleave(parts.head_size).to(block.out.weight.device)
        found[names[id(block.out)]] = queries[None].expand_as(block.out.weight).clone()
        for linear, rows in ((block.query, queries), (block.key, pairs), (block.value, pairs)):
            found[names[id(linear)]] = rows[:, None].expand_as(linear.weight).clone()
    return Masks(found)


def _heads_alive(parts: Anatomy) -> int:
    """Query heads whose columns of the output projection are not all zero."""
    return sum(int(b.out.weight.view(-1, parts.heads, parts.head_size).any(0).any(-1).sum()) for b in parts.blocks)


def _without_least(alive: torch.Tensor, importance: torch.Tensor, goal: int) -> torch.Tensor:
    """The `goal` most important heads of all layers together."""
    left = alive.clone().flatten()
    scores = importance.masked_fill(alive == 0, torch.inf).flatten()
    left[scores.argsort()[: int(alive.sum()) - goal]] = 0
    return left.view_as(alive)


def _ways(parts: Anatomy, groups: int, each: int) -> Iterator[tuple[int, int]]:
    """One group less a round, then one head of each group less a round."""
    for count in range(parts.groups - 1, groups - 1, -1):
        yield count, parts.heads // parts.groups
    for count in range(parts.heads // parts.groups - 1, each - 1, -1):
        yield groups, count


def _uniform(alive: torch.Tensor, importance: torch.Tensor, way: tuple[int, int], parts: Anatomy) -> torch.Tensor:
    return torch.stack([_best_of_layer(row, scores, way, parts) for row, scores in zip(alive, importance, strict=True)])


def _best_of_layer(row: torch.Tensor, scores: torch.Tensor, way: tuple[int, int], parts: Anatomy) -> torch.Tensor:
    groups, each = way
    scores = scores.masked_fill(row == 0, -1.0).view(parts.groups, -1)
    best = scores.topk(each, dim=1)
    chosen = best.values.sum(1).topk(groups).indices
    left = torch.zeros_like(scores)
    for group in chosen.tolist():
        left[group, best.indices[group]] = 1
    return left.flatten()
