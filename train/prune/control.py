"""The control of every other method: weights that go by lot. A method that does no better has found nothing.

    keep a random share 1 − p of each matrix        no look at weights or texts

Source: random pruning as the control of Frankle et al., arXiv:1912.05671, and of most papers on pruning since.
"""

from __future__ import annotations

from typing import Any

import torch

from potstill.events import Event, Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.layers import within
from potstill.train.prune.anatomy import anatomy
from potstill.train.prune.masks import Masks
from potstill.train.prune.outcome import PruneResult, checked_share
from potstill.train.prune.sparse import checked_keep, keep_largest, sparse_result


def prune_random(
    model: Any, amount: float | int, calibration: Calibration | None = None, listener: Listener = silent, *,
    keep: str | None = None, seed: int = 0,
) -> PruneResult:  # fmt: skip
    """Zero weights of every matrix by lot, in place.

    Args:
        model: A model that `anatomy` knows.
        amount: Share of each matrix to remove, in (0, 1).
        calibration: Not looked at.
        listener: Told when it is done.
        keep: Pieces of names joined by `+`, such as `layers.0+down_proj`: these matrices lose nothing.
        seed: Decides which; what is kept changes nothing for the others.

    Raises:
        OptionError: An impossible amount, or a name that is none.
        UserError: An unknown build of model.
    """
    share = checked_share("random", amount)
    parts = anatomy(model)
    whole = checked_keep("random", parts, keep)
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for name, linear in parts.matrices():
        lots = torch.rand(1, linear.weight.numel(), generator=draw)
        if not within(name, whole):
            found[name] = keep_largest(lots, share).view_as(linear.weight).to(linear.weight.device)
    result = sparse_result(parts, Masks(found), share, how={"seed": seed, "keep": keep})
    listener(Event("compress", "progress", f"random: {result.facts['zeros']:.1%} of the weights are zero"))
    return result
