"""From scores of single units to a model that can be saved: cut to the same numbers in every layer, or zero-masked.

What enters: how much each unit is wanted (a chance or a score), and the share of the blocks' weights that should go.
What leaves: the model, changed in place, and facts that say whether it was cut or masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from potstill.errors import OptionError
from potstill.train.layers import keep_layers
from potstill.train.prune.anatomy import Anatomy, anatomy
from potstill.train.prune.cut import can_cut_heads, cut_heads, cut_hidden, cut_neurons, neuron_multiple
from potstill.train.prune.heads import head_masks
from potstill.train.prune.hidden import best_heads, possible_width
from potstill.train.prune.masks import Masks
from potstill.train.prune.outcome import PruneResult, checked, parameter_count, size_facts

_OFF = 0.5


def block_weights(parts: Anatomy) -> int:
    """Weights of the blocks' matrices."""
    return sum(linear.weight.numel() for _, linear in parts.matrices())


@dataclass(frozen=True)
class Plan:
    """Sizes of a uniform model: the layers that stay, and groups, neurons and channels of each.

    Attributes:
        weights: Weights that its blocks will have.
    """

    layers: list[int]
    groups: int
    neurons: int
    width: int
    weights: int


def plan_units(parts: Anatomy, wanted: dict[str, torch.Tensor], share: float, method: str) -> Plan:
    """The uniform sizes that are nearest to what is wanted and meet a share.

    Layers go whose attention and feed-forward are both off. The mean number of groups and the number of channels are
    rounded to what the configuration allows; the number of neurons is what meets the target, in whole blocks of
    engines. Where hardly any neurons would be left, groups go first, then the layers that are wanted least; where all
    neurons are too few, they return.

    Args:
        parts: The model.
        wanted: `attention` and `feedforward` (layers, 1), `groups` (layers, groups), `neurons` (layers, neurons), and
            perhaps `hidden` (1, width): chances in [0, 1] that a unit stays.
        share: Share of the blocks' weights to remove.
        method: Its name, for the message.

    Raises:
        OptionError: Even one layer with one neuron has more weights than would stay.
    """
    best = torch.maximum(wanted["attention"], wanted["feedforward"]).flatten()
    ranked = best.argsort(descending=True, stable=True).tolist()
    count = max(1, int((best > _OFF).sum()))
    width = parts.blocks[0].query.in_features
    if "hidden" in wanted:
        width = possible_width(parts, int((wanted["hidden"] > _OFF).sum()))
    ways = _possible_groups(parts, width)
    mean = float((wanted["attention"] * wanted["groups"] > _OFF)[ranked[:count]].float().sum(1).mean())
    groups = min(ways, key=lambda way: abs(way - mean))
    a_group, a_neuron = 2 * (parts.group_width + parts.head_size), len(parts.blocks[0].into) + 1
    goal = (1 - share) * block_weights(parts)
    while True:
        neurons = round((goal / (count * width) - groups * a_group) / a_neuron)
        smaller = [way for way in ways if way < groups]
        if neurons >= max(1, parts.neurons // 16):
            break
        if smaller:
            groups = max(smaller)
        elif count > 1:
            count -= 1
        elif neurons >= 1:
            break
        else:
            raise OptionError(
                f"prune {method}",
                [f"{share:g} of the weights cannot go: one layer of attention has more than would stay; ask for less"],
            )
    # More may be off than was asked for: then groups come back, and layers, until the neurons can fill the rest.
    while neurons > parts.neurons and (groups < max(ways) or count < len(ranked)):
        groups, count = (min(w for w in ways if w > groups), count) if groups < max(ways) else (groups, count + 1)
        neurons = round((goal / (count * width) - groups * a_group) / a_neuron)
    multiple = neuron_multiple(parts.neurons)
    neurons = max(multiple, min(multiple * round(neurons / multiple), parts.neurons))
    weights = count * width * (groups * a_group + neurons * a_neuron)
    return Plan(sorted(ranked[:count]), groups, neurons, width, weights)


def round_units(
    parts: Anatomy, wanted: dict[str, torch.Tensor], share: float, how: dict[str, Any]
) -> PruneResult:  # fmt: skip
    """Cut to the same numbers in every layer, the best of each.

    Args:
        parts: The model.
        wanted: As for `plan_units`.
        share: Share of the blocks' weights to remove.
        how: Options, for the facts; `method` among them.

    Raises:
        OptionError: The share cannot be met.
    """
    model, before, weights = parts.model, parameter_count(parts.model), block_weights(parts)
    plan = plan_units(parts, wanted, share, str(how["method"]))
    groups, neurons = wanted["attention"] * wanted["groups"], wanted["feedforward"] * wanted["neurons"]
    learnt = {
        "learnt_groups": _counts(groups), "learnt_neurons": _counts(neurons),
        "learnt_hidden": None if "hidden" not in wanted else int((wanted["hidden"] > _OFF).sum()),
    }  # fmt: skip
    if len(plan.layers) < len(parts.blocks):
        keep_layers(model, len(plan.layers), plan.layers)
        parts = anatomy(model)
        groups, neurons = groups[plan.layers], neurons[plan.layers]
    if plan.width < parts.blocks[0].query.in_features:
        channels = wanted["hidden"].flatten().topk(plan.width).indices.sort().values.tolist()
        parts = cut_hidden(parts, channels, None if parts.decoder else best_heads(groups, plan.groups))
    if plan.groups < parts.groups:
        each = parts.heads // parts.groups
        kept = [[group * each + i for group in row for i in range(each)] for row in best_heads(groups, plan.groups)]
        parts = cut_heads(parts, kept)
    if plan.neurons < parts.neurons:
        parts = cut_neurons(parts, best_heads(neurons, plan.neurons))
    facts = {
        **how, **learnt, "structure": "cut", "note": "rounded to the same numbers in every layer", "asked_share": share,
        "layers": len(parts.blocks), "key_value_groups": parts.groups, "neurons": parts.neurons,
        "hidden": parts.blocks[0].query.in_features, "sparsity": 1 - block_weights(parts) / weights,
        "block_weights": block_weights(parts), **size_facts(parts, before),
    }  # fmt: skip
    return checked(PruneResult(facts, None, {"block_weights": float(plan.weights)}))


def mask_units(parts: Anatomy, wanted: dict[str, torch.Tensor], share: float, how: dict[str, Any]) -> PruneResult:
    """Zero the units that are wanted least, wherever they are, until the share of the blocks' weights is zero.

    Args:
        parts: The model.
        wanted: As for `round_units`; channels of the hidden state are not masked.
        share: Share of the blocks' weights to zero.
        how: Options, for the facts.
    """
    each = parts.heads // parts.groups
    scores = torch.cat(
        [(wanted["attention"] * wanted["groups"]).flatten(), (wanted["feedforward"] * wanted["neurons"]).flatten()]
    )
    width = parts.blocks[0].query.in_features
    sizes = torch.cat(
        [
            torch.full((wanted["groups"].numel(),), float(2 * width * (parts.group_width + parts.head_size))),
            torch.full((wanted["neurons"].numel(),), float(width * (len(parts.blocks[0].into) + 1))),
        ]
    )
    order = scores.argsort()
    gone = order[sizes[order].cumsum(0) <= share * float(sizes.sum()) + float(sizes.min()) / 2]
    left = torch.ones(len(scores))
    left[gone] = 0
    heads = left[: wanted["groups"].numel()].view_as(wanted["groups"]).repeat_interleave(each, 1)
    neurons = left[wanted["groups"].numel() :].view_as(wanted["neurons"])
    masks = Masks({**head_masks(parts, heads).kept, **neuron_masks(parts, neurons).kept})
    # What was 0 before is 0 afterwards too.
    masks = masks.within(Masks.of_zeros(parts.model, list(masks.kept)))
    masks.apply(parts.model)
    facts = {
        **how, "structure": "masked", "note": "zero-masked, as layers differ: no tensor is smaller",
        **size_facts(parts, parameter_count(parts.model)), "asked_share": share,
        "learnt_groups": heads[:, ::each].sum(1).int().tolist(),
        "learnt_neurons": neurons.sum(1).int().tolist(),
    }  # fmt: skip
    return checked(PruneResult(facts, masks, {"zeros": masks.sparsity()}))


def neuron_masks(parts: Anatomy, alive: torch.Tensor) -> Masks:
    """Masks that turn neurons off: their rows into the layer and their columns of the down projection.

    Args:
        parts: The model.
        alive: (layers, neurons) of 0 and 1.
    """
    names = {id(linear): name for name, linear in parts.matrices()}
    found = {}
    for block, row in zip(parts.blocks, alive.bool(), strict=True):
        here = row.to(block.down.weight.device)
        found[names[id(block.down)]] = here[None].expand_as(block.down.weight).clone()
        for linear in block.into:
            found[names[id(linear)]] = here[:, None].expand_as(linear.weight).clone()
    return Masks(found)


def _possible_groups(parts: Anatomy, width: int) -> list[int]:
    """The numbers of groups that the configuration can say at a hidden width."""
    each = parts.heads // parts.groups
    if can_cut_heads(parts):
        return [count for count in range(1, parts.groups + 1) if width % (count * each) == 0]
    return [parts.groups if parts.decoder else width // parts.head_size]


def _counts(chances: torch.Tensor) -> list[int]:
    return (chances > _OFF).sum(1).tolist()
