"""Training on rounded weights: forward with the rounded weight, backward as if it had not been rounded.

    ŵ = w + (Q(w) − w).detach()                            ∂L/∂w = ∂L/∂ŵ

The latent weights w start from the student's own and move until others round better. For one bit that is the method of
BNN and XNOR-Net, with α = mean |w| of the row in Q; the gradient of a latent weight far beyond its row's α is stopped,
as BNN stops it at |w| > 1, so that signs can still turn.

Sources: Bengio et al., arXiv:1308.3432; Courbariaux et al., BNN, arXiv:1602.02830 §1.3; Rastegari et al.,
arXiv:1603.05279.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from potstill.train.quantize.lattice import Lattice
from potstill.train.quantize.schemes import Scheme, scheme_for, targets

_REFIT_GOBO = 25
_FAR = 4.0


class Rounded(nn.Module):
    """A weight that is rounded whenever it is used."""

    def __init__(self, scheme: Scheme):
        super().__init__()
        self.scheme = scheme
        self.lattice: Lattice | None = None
        self.uses = 0

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in) latent -> (out, in) rounded, with the gradient of the latent."""
        with torch.no_grad():
            # Bins of GOBO need a sort; the other lattices are a maximum or a mean.
            if self.lattice is None or self.scheme.family != "gobo" or self.uses % _REFIT_GOBO == 0:
                self.lattice = self.scheme.fit(weight.detach())
            self.uses += 1
            snapped = self.lattice.snap(weight.detach())
        if self.scheme.family == "binary":
            reach = _FAR * self.lattice.scale
            weight = weight.clamp(-reach, reach)
        return weight + (snapped - weight).detach()


class StraightThrough:
    """A context for `heal`: inside it, every rounded matrix of a model trains on its rounded values.

    Embeddings rest meanwhile, those of positions too: they keep the values that they were rounded to.
    """

    def __init__(self, scheme: Scheme):
        self.scheme = scheme

    @contextmanager
    def __call__(self, model: Any) -> Iterator[Any]:
        """Parametrise the linear layers of a model; at the end they hold their latent weights again."""
        parametrised, rested = [], []
        for target in list(targets(model)):
            if target.part == "embeddings":
                weight = model.get_parameter(target.name)
                rested += [weight] if weight.requires_grad else []
                weight.requires_grad_(False)
            elif (chosen := scheme_for(target, self.scheme, "keep")) is not None:
                parametrize.register_parametrization(target.module, "weight", Rounded(chosen))
                parametrised.append(target.module)
        try:
            yield model
        finally:
            for module in parametrised:
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
            for weight in rested:
                weight.requires_grad_(True)
