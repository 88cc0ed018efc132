"""Switches in a running model: factors on heads and neurons, without any change of its weights.

A head's output enters the output projection, and a neuron's the down projection; there it is multiplied. A factor of 0
is what a cut would give, and the gradient at a factor of 1 is the importance of the unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from potstill.train.prune.anatomy import Anatomy


@contextmanager
def gated(parts: Anatomy, heads: Any = None, neurons: Any = None) -> Iterator[None]:
    """Multiply the units of every layer inside the block.

    Args:
        parts: The model.
        heads: (layers, units) or (layers, batch, units) float, units being query heads or key-value groups; or a list
            of such tensors, one a layer. None leaves the heads alone.
        neurons: The same for feed-forward neurons.
    """
    hooks = []
    for index, block in enumerate(parts.blocks):
        for linear, gates in ((block.out, heads), (block.down, neurons)):
            if gates is not None:
                hooks.append(linear.register_forward_pre_hook(_Gate(gates[index])))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Gate:
    def __init__(self, gates: torch.Tensor):
        self._gates = gates

    def __call__(self, linear: nn.Linear, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:  # type: ignore[override]
        states, gates = inputs[0], self._gates.to(inputs[0].dtype)
        gates = gates.repeat_interleave(linear.in_features // gates.shape[-1], dim=-1)
        if gates.dim() == 2:
            gates = gates[:, None]
        return (states * gates,)
