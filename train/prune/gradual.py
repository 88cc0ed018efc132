"""Pruning while the student learns: the share of zeros rises along a cubic, fast while many weights are of no use.

    s_t = s · (1 − (1 − t/n)³)        after step t of n; the smallest weights of the moment go, and never come back

What enters: a model, texts, a number of steps. What leaves: the model, healed under masks that grew, and the masks. It
is one training, with one schedule of rates and one set of moments, in which the masks grow twenty times; what is left
learns in between from a copy of the model as it was given.

Source: Zhu and Gupta, To prune, or not to prune, arXiv:1710.01878 §3 (from an initial sparsity of 0, every 100 to 1,000
of some 100,000 steps, and on to the end of the training; in a recipe, `heal` goes on).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

from potstill.events import Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.prune.anatomy import Anatomy
from potstill.train.prune.masks import Masks
from potstill.train.prune.schedules import cubic

PRUNINGS = 20
MasksOf = Callable[[float], Masks]


def prune_gradually(
    parts: Anatomy, share: float, masks_of: MasksOf, calibration: Calibration, *, steps: int,
    learning_rate: float | None = None, seed: int = 0, listener: Listener = silent,
) -> Masks:  # fmt: skip
    """Train a model in place while its weights go.

    Args:
        parts: The model, in float32.
        share: Share of the weights that is gone at the end.
        masks_of: The masks of a share, from the weights as they are then.
        calibration: Texts to learn from.
        steps: Optimiser steps.
        learning_rate: Peak rate; None takes that of healing.
        seed: Order of the texts.
        listener: Told after each step.

    Returns:
        The masks of that share. Weights that were 0 before are 0 still, and may lie among these or beside them.

    Raises:
        OptionError: Impossible options, or no text.
        TrainingError: The loss is not finite.
    """
    from potstill.train.heal import HealOptions, heal

    teacher = copy.deepcopy(parts.model)
    # What is 0 already, of a step before or of a head that is masked, stays so.
    alive = Masks.of_zeros(parts.model, [name for name, _ in parts.matrices()])
    masks = Masks({name: mask.clone() for name, mask in alive.kept.items()})
    found: list[Masks] = []

    def at(step: int) -> Masks:
        """The masks after a step."""
        found.append(masks_of(cubic(share, step, steps)))
        return found[-1].within(alive)

    options = HealOptions(steps=steps, learning_rate=learning_rate, seed=seed)
    with _growing(masks, at, steps):
        heal(parts.model, teacher, calibration, options, masks=masks, listener=listener)
    return found[-1]


@contextmanager
def _growing(masks: Masks, at: Callable[[int], Masks], steps: int) -> Iterator[None]:
    """Set masks anew, in place, after every so many optimiser steps inside the block.

    Args:
        masks: Whoever holds them meanwhile sees the change, as they lie on the device of their weights.
        at: The masks after a step.
        steps: The last step.
    """
    taken, every = 0, max(1, steps // PRUNINGS)

    def grow(*_: Any) -> None:
        nonlocal taken
        taken += 1
        if taken % every == 0 or taken == steps:
            for name, mask in at(taken).kept.items():
                # What is 0 is the smallest there is, so a weight that went is among those that go again.
                masks.kept[name].copy_(mask)

    hook = register_optimizer_step_post_hook(grow)
    try:
        yield
    finally:
        hook.remove()
