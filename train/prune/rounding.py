"""From scores of single units to a model that can be saved: cut to the same numbers in every layer, or zero-masked.

What enters: how much each unit is wanted (a chance or a score), and the share of the blocks' weights that should go.
What leaves: the model, changed in place, and facts that say whether it was cut or masked.
"""

from __future__ import annotations

from typing import Any

import torch

from potstill.errors import OptionError
from potstill.train.layers import keep_layers
from potstill.train.prune.anatomy import Anatomy, anatomy
from potstill.train.prune.cut import can_cut_heads, cut_heads, cut_hidden, cut_neurons
from potstill.train.prune.heads import head_masks
from potstill.train.prune.hidden import best_heads, possible_width
from potstill.train.prune.masks import Masks
from potstill.train.prune.outcome import PruneResult, checked, parameter_count, zero_share

_OFF = 0.5


def block_weights(parts: Anatomy) -> int:
    """Weights of the blocks' matrices."""
    return sum(linear.weight.numel() for _, linear in parts.matrices())


def round_units(
    parts: Anatomy, wanted: dict[str, torch.Tensor], share: float, how: dict[str, Any]
) -> PruneResult:  # fmt: skip
    """Cut to the same numbers in every layer.

    Layers go whose attention and feed-forward are both off. The mean number of groups and the number of channels are
    rounded to what the configuration allows; then the number of neurons is what meets the target.

    Args:
        parts: The model.
        wanted: `attention` and `feedforward` (layers, 1), `groups` (layers, groups), `neurons` (layers, neurons), and
            perhaps `hidden` (1, width): chances in [0, 1] that a unit stays.
        share: Share of the blocks' weights to remove.
        how: Options, for the facts.

    Raises:
        OptionError: No number of neurons meets the target.
    """
    model, before, weights = parts.model, parameter_count(parts.model), block_weights(parts)
    groups, neurons = wanted["attention"] * wanted["groups"], wanted["feedforward"] * wanted["neurons"]
    learnt = {
        "learnt_groups": _counts(groups), "learnt_neurons": _counts(neurons),
        "learnt_hidden": None if "hidden" not in wanted else int((wanted["hidden"] > _OFF).sum()),
    }  # fmt: skip
    layers = _layers_left(wanted)
    if len(layers) < len(parts.blocks):
        keep_layers(model, len(layers), layers)
        parts = anatomy(model)
        groups, neurons = groups[layers], neurons[layers]
    parts = _narrower(parts, wanted.get("hidden"), groups)
    if can_cut_heads(parts):
        count = _possible_groups(parts, float((groups > _OFF).float().sum(1).mean()))
        each = parts.heads // parts.groups
        kept = [[group * each + i for group in row for i in range(each)] for row in best_heads(groups, count)]
        if count < parts.groups:
            parts = cut_heads(parts, kept)
    now, goal = block_weights(parts), (1 - share) * weights
    a_neuron = (len(parts.blocks[0].into) + 1) * parts.blocks[0].query.in_features * len(parts.blocks)
    count = min(parts.neurons, parts.neurons - round((now - goal) / a_neuron))
    if count < 1:
        raise OptionError(
            f"prune {how.get('method', 'to a share')}",
            [f"{share:g} of the weights cannot go: attention alone has more than what would stay; ask for less"],
        )
    planned = now - (parts.neurons - count) * a_neuron
    if count < parts.neurons:
        parts = cut_neurons(parts, [row.topk(count).indices.sort().values.tolist() for row in neurons])
    config = model.config.get_text_config()
    facts = {
        **how, **learnt, "structure": "cut", "note": "rounded to the same numbers in every layer", "asked_share": share,
        "layers": len(parts.blocks), "key_value_groups": parts.groups, "neurons": parts.neurons,
        "hidden": int(config.hidden_size), "sparsity": 1 - block_weights(parts) / weights,
        "block_weights": block_weights(parts),
        "parameters": parameter_count(model), "parameters_before": before, "zeros": zero_share(parts),
    }  # fmt: skip
    return checked(PruneResult(facts, None, {"block_weights": float(planned)}))


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
    masks.apply(parts.model)
    count = parameter_count(parts.model)
    facts = {
        **how, "structure": "masked", "note": "zero-masked, as layers differ: no tensor is smaller", "parameters": count,
        "parameters_before": count, "zeros": zero_share(parts), "asked_share": share, "learnt_groups": heads[:, ::each].sum(1).int().tolist(),
        "learnt_neurons": neurons.sum(1).int().tolist(),
    }  # fmt: skip
    return checked(PruneResult(facts, masks, {"zeros": float(sizes[gone].sum() / sizes.sum())}))


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


def _narrower(parts: Anatomy, hidden: torch.Tensor | None, groups: torch.Tensor) -> Anatomy:
    """Cut the hidden width to the channels that are on, in an encoder with the heads that fit."""
    if hidden is None:
        return parts
    keep = possible_width(parts, int((hidden > _OFF).sum()))
    if keep == hidden.numel():
        return parts
    picked = hidden.flatten().topk(keep).indices.sort().values.tolist()
    return cut_hidden(parts, picked, None if parts.decoder else best_heads(groups, keep // parts.head_size))


def _layers_left(wanted: dict[str, torch.Tensor]) -> list[int]:
    """Layers of which attention or feed-forward is on; one at least."""
    best = torch.maximum(wanted["attention"], wanted["feedforward"]).flatten()
    return (best > min(_OFF, float(best.max()) - 1e-9)).nonzero().flatten().tolist()


def _possible_groups(parts: Anatomy, wanted: float) -> int:
    """The number of groups nearest to `wanted` whose heads divide the hidden width."""
    width, each = int(parts.model.config.get_text_config().hidden_size), parts.heads // parts.groups
    ways = [count for count in range(1, parts.groups + 1) if width % (count * each) == 0]
    return min(ways, key=lambda count: abs(count - wanted))


def _counts(chances: torch.Tensor) -> list[int]:
    return (chances > _OFF).sum(1).tolist()
