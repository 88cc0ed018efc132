"""Lottery ticket: train, drop the smallest weights, wind the rest back to where they were early in training, repeat.

    θ_k  ──train──▶  θ_T  ──drop the smallest 20 % of what is left──▶  m  ──rewind──▶  m ⊙ θ_k  ──train──▶ …

The mask that is found this way, with the early weights under it, is the ticket. The control is the same mask over new
random weights: where the ticket is no better than that, the mask alone is what was learnt.

In a recipe, `rewind=0.05` names the place of θ_k in the student's training, which `train.early` makes anew; without it
the ticket is wound back to the finished student, and learns again what it has just unlearnt. The training of each round
is `steps` steps of healing (the student's own answers to its rows, and their labels), where the papers repeat the whole
training: give more steps where the rewound weights are far from done.

Sources: Frankle and Carbin, arXiv:1803.03635 §2 (tickets of 10-20 % of the size match the dense network); Frankle et
al., arXiv:1912.05671 (rewind to step k, 0-7 % of the training); Chen et al., arXiv:2007.12223 (BERT: 40-90 % sparsity).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import torch

from potstill.errors import OptionError, TrainingError
from potstill.events import Event, Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.head_start import averages
from potstill.train.prune.anatomy import Anatomy, anatomy
from potstill.train.prune.magnitude import Scope, magnitude_masks
from potstill.train.prune.masks import Masks
from potstill.train.prune.outcome import PruneResult, checked_calibration, checked_share
from potstill.train.prune.sparse import sparse_result

Train = Callable[[Any, Masks], None]
Weights = Mapping[str, torch.Tensor]
_A_ROUND = 0.2


def prune_lottery(
    model: Any, amount: float | int, calibration: Calibration, listener: Listener = silent, *,
    train: Train | None = None, early: Weights | Callable[[float], Weights] | None = None, rewind: float | None = None,
    rounds: int | None = None, start: Literal["rewound", "random"] = "rewound", scope: Scope = "global",
    steps: int = 30, learning_rate: float | None = None, seed: int = 0,
) -> PruneResult:  # fmt: skip
    """Find a ticket of some sparsity and train it, in place.

    Args:
        model: A trained model that `anatomy` knows.
        amount: Share of the weights of the blocks that goes, in (0, 1).
        calibration: Texts for the default training.
        listener: Told after each round.
        train: Trains a model in place under masks, which it must keep (`masks.hold`); called once a round. None heals
            from a copy of the model as given for `steps` steps.
        early: State dict from early in the model's training, to wind back to, or a function that gives the one of a
            share of it. None takes the weights as given, and trains once before the first pruning.
        rewind: Share of the training that `early`, a function, is asked for, in [0, 1).
        rounds: Prunings; None takes as many as drop a fifth of what is left each.
        start: Where the last training starts: from the early weights, or, as a control, from new random ones.
        scope: Whether the smallest weights are looked for in all matrices together, or in each.
        steps: Steps of the default training.
        learning_rate: Its peak rate; None takes that of healing.
        seed: Seed of the random weights and of the default training.

    Raises:
        OptionError: An impossible amount, rounds or start, or early weights of another model.
        UserError: An unknown build of model.
        TrainingError: `train` did not keep the masks.
    """
    share = checked_share("lottery", amount)
    faults = []
    if rounds is not None and rounds < 1:
        faults.append(f"rounds {rounds} is too few; give at least 1")
    if start not in ("rewound", "random"):
        faults.append(f"start {start!r} is unknown; known: rewound, random")
    if (rewind is None) == callable(early):
        faults.append("rewind, a share of the training, and early weights as a function of it go together")
    if rewind is not None and not 0 <= rewind < 1:
        faults.append(f"rewind {rewind!r} is no share of a training to go back to; choose one from 0 to below 1")
    if faults:
        raise OptionError("prune lottery", faults)
    begun = early(rewind) if callable(early) and rewind is not None else cast(Weights | None, early)
    if begun is not None and (gone := sorted(set(model.state_dict()) - set(begun))):
        raise OptionError(
            "prune lottery",
            [f"the early weights lack {gone[0]!r} and {len(gone) - 1} more; give a state dict of this model"],
        )
    parts = anatomy(model)
    if train is None:
        checked_calibration("lottery", calibration, 64)
        train = _healing(model, calibration, steps, learning_rate, seed)
    count = rounds or math.ceil(math.log(1 - share) / math.log(1 - _A_ROUND))
    origin = {name: value.detach().clone() for name, value in (begun or model.state_dict()).items()}
    # What is 0 already, of a step before or of a head that is masked, stays so.
    masks = alive = Masks.of_zeros(model, [name for name, _ in parts.matrices()])
    if begun is None:
        train(model, alive)
    for step in range(1, count + 1):
        masks = magnitude_masks(parts, 1 - (1 - share) ** (step / count), scope)
        model.load_state_dict(origin)
        if start == "random" and step == count:
            randomise(parts, seed)
        held = masks.within(alive)
        held.apply(model)
        train(model, held)
        message = f"lottery: round {step}/{count}, {masks.sparsity():.1%} of the weights are gone"
        listener(Event("compress", "progress", message, step, count))
    to = "given" if begun is None else "early"
    how: dict[str, Any] = {"rounds": count, "start": start, "scope": scope, "rewound_to": to}
    how |= {} if rewind is None else {"rewind": rewind}
    _still_zero(parts, masks)
    return sparse_result(parts, masks, share, how=how)


@torch.no_grad()
def randomise(parts: Anatomy, seed: int = 0) -> None:
    """Draw the matrices of all blocks anew, as a fresh model of this configuration has them; the rest stays.

    So does a classifier's last layer that averages (`train.head_start`): it was made and not learnt, and without it the
    control would fail for want of the mean that its head reads.
    """
    draw = torch.Generator().manual_seed(seed)
    spread = float(getattr(parts.model.config.get_text_config(), "initializer_range", 0.02))
    for block in parts.blocks[:-1] if averages(parts.model) else parts.blocks:
        for linear in block.linears:
            linear.weight.copy_(torch.randn(linear.weight.shape, generator=draw) * spread)
            if linear.bias is not None:
                linear.bias.zero_()


def _healing(model: Any, calibration: Calibration, steps: int, learning_rate: float | None, seed: int) -> Train:
    from potstill.train.heal import HealOptions, heal

    teacher = copy.deepcopy(model)

    def train(student: Any, masks: Masks) -> None:
        options = HealOptions(steps=steps, learning_rate=learning_rate, seed=seed)
        heal(student, teacher, calibration, options, masks=masks)

    return train


def _still_zero(parts: Anatomy, masks: Masks) -> None:
    for name, linear in parts.matrices():
        if bool(linear.weight[~masks.kept[name]].any()):
            raise TrainingError(f"the training moved pruned weights of {name}; hold the masks in it (`masks.hold`)")
