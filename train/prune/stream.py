"""Layer by layer through a model: the activations of one layer are all that exists beside it.

What enters: a model and calibration batches. What happens: the inputs of the first layer are caught, then for each
layer the caller looks at it (and may change its weights), and its outputs, made with the changed weights, become the
next layer's inputs. So a later layer sees what the pruned layers before it really give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from potstill.train.calibration_data import Calibration
from potstill.train.prune.anatomy import Anatomy, Block


class _Caught(Exception):
    """Raised in the first layer, once its inputs are known."""


@dataclass
class _Call:
    """One batch on its way: hidden state (batch, length, width), the layer's other arguments, which tokens count."""

    hidden: torch.Tensor
    rest: tuple[Any, ...]
    keywords: dict[str, Any]
    real: torch.Tensor


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout inside the block; every module's mode is put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def inputs_of(batch: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """A batch's tokens on the model's device, without its labels."""
    return {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}


@torch.no_grad()
def stream(parts: Anatomy, calibration: Calibration, visit: Callable[[int, Block, Callable[[], None]], None]) -> None:
    """Visit every layer in order.

    Args:
        parts: The model.
        calibration: Batches to run.
        visit: Called with the layer's index, its parts, and a function that runs all batches through it (for hooks);
            what it changes in the layer is seen by the layers after it.
    """
    with evaluating(parts.model):
        calls = _first_inputs(parts, calibration)
        for index, block in enumerate(parts.blocks):
            visit(index, block, lambda block=block: _run(block, calls))  # type: ignore[misc]
            for call in calls:
                call.hidden = _output(block, call)


def column_norms(block: Block, calls: Callable[[], None], real: list[torch.Tensor]) -> dict[nn.Linear, torch.Tensor]:
    """‖X_j‖₂ of every input column j of a layer's matrices, over all real tokens: (in_features,) float32 each."""
    sums = {linear: torch.zeros(linear.in_features, device=linear.weight.device) for linear in block.linears}
    at = {linear: 0 for linear in sums}

    def add(linear: nn.Linear, inputs: tuple[torch.Tensor, ...]) -> None:
        states = inputs[0].float() * real[at[linear]].to(inputs[0].device)[..., None]
        sums[linear] += states.flatten(0, -2).square().sum(0)
        at[linear] += 1

    hooks = [linear.register_forward_pre_hook(add) for linear in sums]  # type: ignore[arg-type]
    try:
        calls()
    finally:
        for hook in hooks:
            hook.remove()
    return {linear: total.sqrt() for linear, total in sums.items()}


def _first_inputs(parts: Anatomy, calibration: Calibration) -> list[_Call]:
    calls: list[_Call] = []

    def catch(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        keywords = dict(keywords)
        hidden = arguments[0] if arguments else keywords.pop("hidden_states")
        calls.append(_Call(hidden, arguments[1:], keywords, torch.empty(0)))
        raise _Caught

    hook = parts.blocks[0].module.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        for batch in calibration.batches:
            extra = {"use_cache": False} if parts.decoder else {}
            try:
                parts.model.base_model(**inputs_of(batch, parts.model), **extra)
            except _Caught:
                calls[-1].real = batch["attention_mask"]
    finally:
        hook.remove()
    return calls


def _run(block: Block, calls: list[_Call]) -> None:
    for call in calls:
        _output(block, call)


def _output(block: Block, call: _Call) -> torch.Tensor:
    made = block.module(call.hidden, *call.rest, **call.keywords)
    found: torch.Tensor = made[0] if isinstance(made, tuple) else made
    return found
