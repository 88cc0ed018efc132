"""Every method by its name: weights, heads, neurons and layers that a student can do without.

    SPARSITY    zeros in tensors of the old size: magnitude, wanda, lottery, random
    STRUCTURE   tensors that are smaller: heads, neurons, layers, hidden, cofi, bonsai

A method changes the model that it is given and says what it did, measured on the model afterwards.
"""

from __future__ import annotations

from typing import cast

from torch import nn

from potstill.train.prune.bonsai import prune_bonsai
from potstill.train.prune.cofi import prune_cofi
from potstill.train.prune.control import prune_random
from potstill.train.prune.depth import prune_layers
from potstill.train.prune.heads import prune_heads
from potstill.train.prune.hidden import prune_hidden
from potstill.train.prune.lottery import prune_lottery
from potstill.train.prune.magnitude import prune_magnitude
from potstill.train.prune.masks import Masks
from potstill.train.prune.neurons import prune_neurons
from potstill.train.prune.outcome import PruneMethod, PruneResult
from potstill.train.prune.wanda import prune_wanda

SPARSITY = cast(
    dict[str, PruneMethod],
    {"magnitude": prune_magnitude, "wanda": prune_wanda, "lottery": prune_lottery, "random": prune_random},
)
STRUCTURE = cast(
    dict[str, PruneMethod],
    {
        "heads": prune_heads,
        "layers": prune_layers,
        "neurons": prune_neurons,
        "hidden": prune_hidden,
        "cofi": prune_cofi,
        "bonsai": prune_bonsai,
    },
)
Model = nn.Module

__all__ = ["SPARSITY", "STRUCTURE", "Masks", "Model", "PruneMethod", "PruneResult"]
