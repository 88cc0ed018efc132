"""Inputs of linear layers in 8 bits, one scale a token: naive, or with outlier features apart (LLM.int8).

    naive       x̂ = s · round(x / s),  s = max|x| / 127 of each token
    LLM.int8    features j with any |x_j| > α in the batch stay as they are; the others as above

The product with int8 weights is then exactly what an int8 engine computes (its integer sum times both scales), because
each factor is an integer times a scale. In LLM.int8 the outlier features meet the de-quantised weights, as in
bitsandbytes, against which this is tested.

Source: Dettmers et al., LLM.int8(), arXiv:2208.07339 §3; α = 6. C4 perplexity of OPT-13B: 12.45, naive vector-wise
16.48, LLM.int8 12.45. SmolLM2-135M, 20,480 tokens: 12.41; naive 12.74, LLM.int8 12.58.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from potstill.train.quantize.schemes import layer_list


def round_inputs(inputs: Tensor, threshold: float | None = None) -> Tensor:
    """Inputs (..., features) on 255 values a token; features above the threshold anywhere stay as they are.

    Args:
        inputs: Activations.
        threshold: α; None takes no feature apart.

    Returns:
        The rounded inputs; their gradient is that of the inputs.

    Examples:
        >>> round_inputs(torch.tensor([[0.1, 12.7]])).tolist() == round_inputs(torch.tensor([[0.12, 12.7]])).tolist()
        True
        >>> round_inputs(torch.tensor([[0.1, 12.7]]), threshold=6.0)[0, 1].item() == torch.tensor(12.7).item()
        True
    """
    apart = None
    small = inputs
    if threshold is not None:
        apart = (inputs.abs() > threshold).reshape(-1, inputs.shape[-1]).any(0)
        small = inputs.masked_fill(apart, 0)
    scale = small.detach().abs().amax(-1, keepdim=True) / 127
    with torch.no_grad():
        rounded = (small / torch.where(scale == 0, 1.0, scale)).round_().mul_(scale)
        if apart is not None:
            rounded = torch.where(apart, inputs, rounded)
    if not (torch.is_grad_enabled() and inputs.requires_grad):
        return rounded
    # Straight through, as the weights: rounding has no slope, and what comes before it would learn nothing.
    return inputs + (rounded - inputs).detach()


def install(model: Any, threshold: float | None) -> list[Any]:
    """Round the inputs of every linear layer in the blocks from now on; the hooks can be removed."""

    def before(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (round_inputs(arguments[0], threshold), *arguments[1:])

    return [
        module.register_forward_pre_hook(before)
        for module in layer_list(model).modules()
        if isinstance(module, nn.Linear)
    ]
