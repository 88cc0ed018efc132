"""How a causal model makes logits of its last hidden states, so that losses can make them a chunk at a time.

    z = c · tanh(s · (W h + b) / c)

Most models have W alone. Phi has b, Granite divides by `logits_scaling`, Cohere and Falcon-H1 multiply, Gemma 2 and
nanochat bend (`final_logit_softcapping`). A loss without these trains another model than the one that answers, and
says nothing of it. So what a model gives is compared once with the formula, and a model that does otherwise is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from potstill.errors import TrainingError

_FACTORS = ("logit_scale", "output_multiplier", "lm_head_multiplier")
# Of the largest logit: bfloat16 keeps 8 bits.
_NEAR = 0.02


@dataclass(frozen=True)
class Form:
    """What a model does to W h + b.

    Attributes:
        scale: s, what it is multiplied by.
        cap: c, what no logit reaches; None where they are not bent.
    """

    scale: float = 1.0
    cap: float | None = None

    def bend(self, products: Tensor) -> Tensor:
        """W h + b to logits; the products themselves where nothing is done to them."""
        logits = products if self.scale == 1.0 else products * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def unbend(self, gradient: Tensor, slope: Tensor | None) -> Tensor:
        """Gradient with respect to logits to that with respect to W h + b, in place."""
        if slope is not None:
            gradient.mul_(slope)
        return gradient if self.scale == 1.0 else gradient.mul_(self.scale)

    def slope(self, logits: Tensor) -> Tensor | None:
        """Slope of the bend at some logits; None where it is 1."""
        return None if self.cap is None else 1 - (logits / self.cap).square()


PLAIN = Form()


@dataclass(frozen=True)
class OutputHead:
    """The last projection of a causal model.

    Attributes:
        weight: (vocab, d) float.
        bias: (vocab,) float, or None.
        form: What is done to the product.
    """

    weight: Tensor
    bias: Tensor | None = None
    form: Form = PLAIN

    def logits(self, states: Tensor) -> Tensor:
        """(n, d) last hidden states to (n, vocab) float32 logits, differentiable."""
        return products(states, self.weight, self.bias, self.form)

    def __len__(self) -> int:
        return int(self.weight.shape[0])


def products(states: Tensor, weight: Tensor, bias: Tensor | None, form: Form) -> Tensor:
    """Logits of (n, d) states under a weight in their number format: (n, vocab) float32."""
    plain = (states.to(weight.dtype) @ weight.T).float()
    return form.bend(plain if bias is None else plain + bias.float())


def head_of(model: Any) -> OutputHead:
    """The head of a causal model."""
    layer = model.get_output_embeddings()
    config = model.config.get_text_config()
    scale = next((float(value) for name in _FACTORS if (value := getattr(config, name, None)) is not None), 1.0)
    scaling = getattr(config, "logits_scaling", None)
    if scaling is not None:
        scale = float(scaling) if config.model_type == "hyperclovax" else 1 / float(scaling)
    cap = getattr(config, "final_logit_softcapping", None)
    return OutputHead(layer.weight, getattr(layer, "bias", None), Form(scale, None if cap is None else float(cap)))


@torch.no_grad()
def check_head(model: Any, name: str) -> None:
    """Refuse a model whose logits are not those of `head_of`.

    Raises:
        TrainingError: They are not.
    """
    head, training = head_of(model), model.training
    model.eval()
    try:
        ids = torch.arange(min(8, len(head)), device=head.weight.device)[None]
        told = model(input_ids=ids, use_cache=False).logits[0].float()
        made = head.logits(model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0])
    finally:
        model.train(training)
    apart = float((told - made).abs().max()) if told.shape == made.shape else float("inf")
    # Weights that are not finite are told of by the first loss.
    if told.isfinite().all() and not apart <= _NEAR * float(told.abs().max()):
        raise TrainingError(
            f"{name} ({type(model).__name__}) makes its logits of its hidden states in a way that is not known here "
            f"(off by {apart:.3g}), so that its losses would be another model's; choose another model"
        )
