"""Switches that learn whether to be on: hard-concrete variables, and how large a model they expect.

    s = σ((log u − log(1 − u) + log α) / β),  z = min(1, max(0, s (ζ − γ) + γ)),  P(z ≠ 0) = σ(log α − β log(−γ / ζ))

u is uniform noise, β = 2/3, (γ, ζ) = (−0.1, 1.1): z is 0 or 1 with positive probability and differentiable between.

Source: Louizos et al., Learning sparse neural networks through L0 regularization, arXiv:1712.01312 §2.2.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from potstill.train.prune.anatomy import Anatomy

_BETA, _GAMMA, _ZETA = 2 / 3, -0.1, 1.1
_START = 2.5


class Switches(nn.Module):
    """log α of every unit of a model: attention and feed-forward of a layer, key-value groups, neurons, channels."""

    def __init__(self, parts: Anatomy, *, hidden: bool):
        super().__init__()
        layers, width = len(parts.blocks), parts.blocks[0].query.in_features
        shapes: dict[str, tuple[int, ...]] = {
            "attention": (layers, 1), "feedforward": (layers, 1), "groups": (layers, parts.groups),
            "neurons": (layers, parts.neurons),
        }  # fmt: skip
        if hidden:
            shapes["hidden"] = (1, width)
        self.log_alpha = nn.ParameterDict({name: nn.Parameter(torch.full(s, _START)) for name, s in shapes.items()})
        self._group = 2 * parts.group_width + 2 * parts.head_size
        self._neuron = len(parts.blocks[0].into) + 1
        self._whole = layers * (parts.groups * self._group + parts.neurons * self._neuron)

    def sample(self, draw: torch.Generator) -> dict[str, torch.Tensor]:
        """One z of every unit, by name."""
        return {name: self._z(value, draw) for name, value in self.log_alpha.items()}

    def open(self) -> dict[str, torch.Tensor]:
        """P(z ≠ 0) of every unit, by name."""
        shift = _BETA * math.log(-_GAMMA / _ZETA)
        return {name: torch.sigmoid(value - shift) for name, value in self.log_alpha.items()}

    def sparsity(self) -> torch.Tensor:
        """Expected share of the blocks' weights that is off: scalar, differentiable."""
        chance = self.open()
        heads = (chance["attention"] * chance["groups"]).sum() * self._group
        neurons = (chance["feedforward"] * chance["neurons"]).sum() * self._neuron
        width = chance["hidden"].mean() if "hidden" in chance else 1.0
        found: torch.Tensor = 1 - (heads + neurons) * width / self._whole
        return found

    @staticmethod
    def _z(log_alpha: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        noise = torch.rand(log_alpha.shape, generator=draw).clamp(1e-6, 1 - 1e-6).to(log_alpha.device)
        soft = torch.sigmoid((noise.logit() + log_alpha) / _BETA)
        return (soft * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)
