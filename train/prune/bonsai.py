"""Bonsai: which modules matter is found out by running parts of the model, forward only.

    for random halves K of the doubtful modules:   y = −loss(model with K and the sure ones), and with K's complement
    y ≈ b + Σ_j β_j · [j kept]                     ridge regression, its strength by 5-fold validation (Kendall's τ)
    the doubtful modules with the lowest β go

A prior (norm of the activations times norm of the weights that read them) says which modules are doubtful: the lowest
2p of the share p that is to go in a round. So every sub-model has the size of the result, and each module is seen kept
and dropped equally often. Modules are key-value groups and bundles of neurons that are neighbours by prior.

No gradient and no second model: inference on texts, one row of activations at a time, so it runs where training does
not. By default every layer gives the same number of its modules and the model is cut; with `uniform=False` modules go
wherever they matter least and are zero-masked.

Source: Dery et al., Everybody prune now: structured pruning of LLMs with only forward passes, arXiv:2402.05406 §3
(LLaMA-2-7B at 50 %, then tuned: perplexity 10.9 where LLM-Pruner has 16.4; 1.58 times faster). There each head is its
own module; here a key-value group is, so that models with grouped-query attention can be cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from potstill.errors import OptionError
from potstill.events import Event, Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.prune.anatomy import Anatomy, anatomy
from potstill.train.prune.cut import can_cut_heads, cut_heads, cut_neurons
from potstill.train.prune.gates import gated
from potstill.train.prune.heads import head_masks
from potstill.train.prune.loss import mean_loss, with_answers
from potstill.train.prune.masks import Masks
from potstill.train.prune.outcome import (
    PruneResult,
    checked,
    checked_calibration,
    checked_share,
    parameter_count,
    size_facts,
)
from potstill.train.prune.regression import ridge_by_rank
from potstill.train.prune.rounding import block_weights, neuron_masks
from potstill.train.prune.stream import column_norms, evaluating, stream


def prune_bonsai(
    model: Any, amount: float | int, calibration: Calibration, listener: Listener = silent, *,
    sub_models: int = 80, rounds: int = 1, bundles: int = 16, uniform: bool = True, seed: int = 0,
) -> PruneResult:  # fmt: skip
    """Remove the modules without which the model does best, in place.

    Args:
        model: A model that `anatomy` knows.
        amount: Share of the neurons and of the key-value groups to remove, in (0, 1); of few groups, the nearest
            number that can be had.
        calibration: Texts; each sub-model reads all of them.
        listener: Told after each pair of sub-models.
        sub_models: Sub-models a round, complements included.
        rounds: Rounds; what goes is shared among them, and prior and scores are taken anew in each.
        bundles: Neurons of a layer are judged in as many bundles.
        uniform: Take the same number from every layer and cut; else zero-mask.
        seed: Seed of the sub-models.

    Raises:
        OptionError: An impossible amount or number, or too little text.
        UserError: An unknown build of model.
        TrainingError: The model afterwards is not what was asked for.
    """
    share = checked_share("bonsai", amount)
    faults = []
    if sub_models < 20:
        faults.append(f"sub_models {sub_models} are too few for a regression; give at least 20")
    if rounds < 1:
        faults.append(f"rounds {rounds} is too few; give at least 1")
    parts = anatomy(model)
    if not 2 <= bundles <= parts.neurons:
        faults.append(f"bundles {bundles} is not possible for {parts.neurons} neurons; choose 2 to {parts.neurons}")
    if faults:
        raise OptionError("prune bonsai", faults)
    checked_calibration("bonsai", calibration, 64)
    calibration = with_answers(model, calibration)
    before, weights = parameter_count(model), block_weights(parts)
    state = _State.whole(parts, cut_heads=can_cut_heads(parts) or not uniform)
    wanted = _wanted(parts, share, bundles, state.heads_go)
    taus: list[float] = []
    for step in range(1, rounds + 1):
        goal = {name: round(count * step / rounds) for name, count in wanted.items()}
        tau = _one_round(parts, state, calibration, goal, sub_models, bundles, uniform, seed + step, listener)
        taus.append(round(tau, 4))
    facts: dict[str, Any] = {
        "sub_models": sub_models, "rounds": rounds, "kendall_tau": taus, "asked_share": share,
        "neurons_before": parts.neurons * len(parts.blocks), "groups_before": parts.groups * len(parts.blocks),
    }  # fmt: skip
    layers = len(parts.blocks)
    asked = {
        "neurons": float(layers * (parts.neurons - wanted["neurons"])),
        "groups": float(layers * (parts.groups - wanted["groups"])),
    }
    masks = None
    if uniform:
        parts = _cut(parts, state)
        facts |= {"structure": "cut", "note": "the same numbers in every layer", "neurons": parts.neurons * layers}
        facts |= {"groups": parts.groups * layers}
    else:
        each = parts.heads // parts.groups
        heads = head_masks(parts, state.groups.repeat_interleave(each, 1))
        masks = Masks({**heads.kept, **neuron_masks(parts, state.neurons).kept})
        masks.apply(model)
        facts |= {"structure": "masked", "note": "zero-masked, as layers differ: no tensor is smaller"}
        facts |= {"neurons": int(_alive(parts, 1)), "groups": int(_alive(parts, parts.group_width))}
    facts |= {"sparsity": 1 - block_weights(parts) / weights, **size_facts(parts, before)}
    return checked(PruneResult(facts, masks, asked))


@dataclass
class _State:
    """What is left: (layers, groups) and (layers, neurons) of 0 and 1, and whether heads may go at all."""

    groups: torch.Tensor
    neurons: torch.Tensor
    heads_go: bool

    @classmethod
    def whole(cls, parts: Anatomy, *, cut_heads: bool) -> _State:
        layers = len(parts.blocks)
        return cls(torch.ones(layers, parts.groups), torch.ones(layers, parts.neurons), cut_heads)


@dataclass(frozen=True)
class _Module:
    """A group, or a bundle of neurons, of one layer."""

    kind: str
    layer: int
    units: torch.Tensor
    prior: float


def _wanted(parts: Anatomy, share: float, bundles: int, heads_go: bool) -> dict[str, int]:
    """How many groups and neurons go from every layer (on average)."""
    size = parts.neurons // bundles
    neurons = max(1, round(share * parts.neurons / size)) * size
    width, each = int(parts.model.config.get_text_config().hidden_size), parts.heads // parts.groups
    ways = [count for count in range(1, parts.groups + 1) if width % (count * each) == 0]
    left = min(ways, key=lambda count: (abs(count - (1 - share) * parts.groups), -count)) if heads_go else parts.groups
    return {"groups": parts.groups - left, "neurons": min(neurons, parts.neurons - size)}


def _one_round(
    parts: Anatomy, state: _State, calibration: Calibration, goal: dict[str, int], sub_models: int, bundles: int,
    uniform: bool, seed: int, listener: Listener,
) -> float:  # fmt: skip
    """Take modules away until `goal` is gone from every layer (on average); gives the regression's Kendall τ."""
    draw = torch.Generator().manual_seed(seed)
    strata = _doubtful(parts, state, calibration, goal, bundles, uniform)
    modules = [module for doubtful, _ in strata for module in doubtful]
    if not modules:
        return 1.0
    rows, scores = [], []
    with evaluating(parts.model):
        for pair in range(sub_models // 2):
            kept = torch.cat([_half(doubtful, gone, draw) for doubtful, gone in strata])
            for mask in (kept, _complement(kept, strata)):
                rows.append(mask)
                scores.append(-_loss_with(parts, state, modules, mask, calibration))
            message = f"bonsai: {2 * pair + 2}/{sub_models} sub-models"
            listener(Event("compress", "progress", message, 2 * pair + 2, sub_models))
    beta, tau = ridge_by_rank(torch.stack(rows), torch.tensor(scores), seed)
    start = 0
    for doubtful, gone in strata:
        order = beta[start : start + len(doubtful)].argsort(stable=True)
        for index in order[:gone].tolist():
            _drop(state, doubtful[index])
        start += len(doubtful)
    return tau


def _doubtful(
    parts: Anatomy, state: _State, calibration: Calibration, goal: dict[str, int], bundles: int, uniform: bool
) -> list[tuple[list[_Module], int]]:
    """Strata of modules that may go, each with the number that shall: twice as many as that, the lowest by prior."""
    priors = _priors(parts, state, calibration)
    size = parts.neurons // bundles
    strata: dict[tuple[str, int], list[_Module]] = {}
    for layer in range(len(parts.blocks)):
        for kind in ("groups", "neurons"):
            prior, alive = priors[kind][layer], getattr(state, kind)[layer]
            order = prior.masked_fill(alive == 0, torch.inf).argsort()[: int(alive.sum())]
            made = [
                _Module(kind, layer, units, float(prior[units].square().sum().sqrt()))
                for units in torch.split(order, 1 if kind == "groups" else size)  # type: ignore[no-untyped-call]
            ]
            strata.setdefault((kind, layer if uniform else -1), []).extend(made)
    found = []
    for (kind, _), modules in strata.items():
        unit = 1 if kind == "groups" else size
        layers = 1 if uniform else len(parts.blocks)
        width = parts.groups if kind == "groups" else parts.neurons
        gone_before = layers * width - sum(len(module.units) for module in modules)
        gone = (layers * goal[kind] - gone_before) // unit
        if gone > 0:
            modules.sort(key=lambda module: module.prior)
            found.append((modules[: max(gone + 1, min(2 * gone, len(modules)))], gone))
    return found


def _priors(parts: Anatomy, state: _State, calibration: Calibration) -> dict[str, list[torch.Tensor]]:
    """‖x_j‖ · ‖W[:, j]‖ of what enters the output and down projections, by group and by neuron."""
    real = [batch["attention_mask"] for batch in calibration.batches]
    found: dict[str, list[torch.Tensor]] = {"groups": [], "neurons": []}

    def measure(_: int, block: Any, run: Any) -> None:
        norms = column_norms(block, run, real)
        heads = norms[block.out] * block.out.weight.float().norm(dim=0)
        found["groups"].append(heads.view(parts.groups, -1).norm(dim=1).cpu())
        found["neurons"].append((norms[block.down] * block.down.weight.float().norm(dim=0)).cpu())

    each = parts.group_width
    with gated(parts, state.groups.repeat_interleave(each, 1), state.neurons):
        stream(parts, calibration, measure)
    return found


def _half(doubtful: list[_Module], gone: int, draw: torch.Generator) -> torch.Tensor:
    """Which of a stratum's modules are kept: all but `gone` random ones."""
    kept = torch.ones(len(doubtful))
    kept[torch.randperm(len(doubtful), generator=draw)[:gone]] = 0
    return kept


def _complement(kept: torch.Tensor, strata: list[tuple[list[_Module], int]]) -> torch.Tensor:
    """The other half; where a stratum has fewer than twice what goes, as many of the kept ones as there are."""
    parts, start = [], 0
    for doubtful, _ in strata:
        parts.append(1 - kept[start : start + len(doubtful)])
        start += len(doubtful)
    return torch.cat(parts)


def _loss_with(
    parts: Anatomy, state: _State, modules: list[_Module], mask: torch.Tensor, calibration: Calibration
) -> float:
    gates = {"groups": state.groups.clone(), "neurons": state.neurons.clone()}
    for index in (mask == 0).nonzero().flatten().tolist():
        gates[modules[index].kind][modules[index].layer, modules[index].units] = 0
    with gated(parts, gates["groups"].to(parts.model.device), gates["neurons"].to(parts.model.device)):
        return mean_loss(parts.model, calibration)


def _drop(state: _State, module: _Module) -> None:
    getattr(state, module.kind)[module.layer, module.units] = 0


def _cut(parts: Anatomy, state: _State) -> Anatomy:
    each = parts.heads // parts.groups
    if bool((state.groups == 0).any()):
        kept = [[g * each + i for g in row.nonzero().flatten().tolist() for i in range(each)] for row in state.groups]
        parts = cut_heads(parts, kept)
    return cut_neurons(parts, [row.nonzero().flatten().tolist() for row in state.neurons])


def _alive(parts: Anatomy, width: int) -> int:
    """Neurons (width 1) or groups whose columns of the projection out of them are not all zero."""
    linears = [block.down if width == 1 else block.out for block in parts.blocks]
    return sum(int(linear.weight.view(linear.out_features, -1, width).any(0).any(-1).sum()) for linear in linears)
