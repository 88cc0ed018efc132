"""A narrower student: some of the feed-forward neurons of every layer, the same number in each.

The hidden width, the attention and the embeddings stay, so the student still starts from the teacher's weights, its
hidden states can be compared with the teacher's, and the folder reloads with a smaller `intermediate_size`. A
neuron's importance is the product of the norms of the weights that lead into and out of it: what it can add to the
hidden state at most, and free of any data. Each layer keeps its own best.

Source: Muralidharan et al., Minitron, arXiv:2407.14679 §3 (width pruning of the MLP before distillation; there by
activations).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from potstill.errors import TrainingError


def keep_neurons(model: Any, share: float) -> Any:
    """Cut the feed-forward layers of a model in place, the configuration included, and return it.

    Args:
        model: A decoder with gated feed-forward layers (`gate_proj`, `up_proj`, `down_proj`), or an encoder like BERT.
        share: Share of the neurons to keep, in (0, 1]; rounded up to a multiple of 8.

    Raises:
        TrainingError: The model has no such layers.
    """
    config = model.config.get_text_config()
    blocks = list(_blocks(model))
    if not blocks:
        raise TrainingError(
            f"{type(model).__name__} has no feed-forward layers like Llama's or BERT's, so distil.student_ffn cannot "
            "be used; leave it out"
        )
    option = neurons_option(config)
    if not isinstance(getattr(config, option, None), int):
        raise TrainingError(
            f"{type(model).__name__} has feed-forward layers of a width each, so distil.student_ffn cannot be used; "
            "leave it out"
        )
    keep = neurons_kept(getattr(config, option), share)
    for into, (owner, name) in blocks:
        down = getattr(owner, name)
        picked = _important([getattr(module, part) for module, part in into], down, keep)
        for module, part in into:
            setattr(module, part, rows_of(getattr(module, part), picked))
            if hasattr(module, "intermediate_size"):
                module.intermediate_size = keep
        setattr(owner, name, columns_of(down, picked))
    setattr(config, option, keep)
    return model


def neurons_option(config: Any) -> str:
    """What a configuration calls the number of feed-forward neurons; `hidden_dim` for DistilBERT."""
    return next((name for name in ("intermediate_size", "hidden_dim") if hasattr(config, name)), "intermediate_size")


def neurons_kept(total: int, share: float) -> int:
    """How many of a layer's neurons a share is: rounded up to a multiple of 8.

    Examples:
        >>> neurons_kept(1536, 0.5), neurons_kept(20, 0.3)
        (768, 8)
    """
    return min(total, 8 * math.ceil(share * total / 8))


_Place = tuple[Any, str]
"""A module, and the name under which it holds a projection."""


def _blocks(model: Any) -> Iterator[tuple[list[_Place], _Place]]:
    """Of each layer the projections into its neurons, and the one back: gated (Llama) or plain (BERT, DistilBERT)."""
    for module in model.modules():
        if all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj")):
            yield [(module, "gate_proj"), (module, "up_proj")], (module, "down_proj")
            continue
        if all(isinstance(getattr(module, name, None), nn.Linear) for name in ("lin1", "lin2")):
            yield [(module, "lin1")], (module, "lin2")
            continue
        into, out = (getattr(module, name, None) for name in ("intermediate", "output"))
        if all(isinstance(getattr(part, "dense", None), nn.Linear) for part in (into, out)):
            yield [(into, "dense")], (out, "dense")


def _important(into: list[nn.Linear], down: nn.Linear, keep: int) -> torch.Tensor:
    """Indices of the `keep` most important neurons, in their order."""
    with torch.no_grad():
        score: torch.Tensor = down.weight.float().norm(dim=0)
        for part in into:
            score = score * part.weight.float().norm(dim=1)
    picked: torch.Tensor = score.topk(keep).indices.sort().values
    return picked


def rows_of(layer: nn.Linear, picked: torch.Tensor) -> nn.Linear:
    """A layer with some of its outputs: `picked` holds their indices."""
    bias = None if layer.bias is None else layer.bias.detach()[picked]
    return _linear(layer.weight.detach()[picked], bias)


def columns_of(layer: nn.Linear, picked: torch.Tensor) -> nn.Linear:
    """A layer with some of its inputs: `picked` holds their indices."""
    return _linear(layer.weight.detach()[:, picked], None if layer.bias is None else layer.bias.detach())


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None and made.bias is not None:
            made.bias.copy_(bias)
    return made
