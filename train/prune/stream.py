"""Layer by layer through a model: the activations of one layer are all that exists beside it.

What enters: a model and calibration batches. What happens: the inputs of the first layer are caught, and what else each
layer is given (masks and rotations differ where some layers attend to a window, as in Gemma); then for each layer the
caller looks at it (and may change its weights), and its outputs, made with the changed weights, become the
next layer's inputs. So a later layer sees what the pruned layers before it really give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from potstill.train.calibration_data import Calibration
from potstill.train.prune.anatomy import Anatomy, Block


class _Caught(Exception):
    """Raised in the last layer, once every layer's arguments are known."""


@dataclass
class _Call:
    """One batch on its way: hidden state (batch, length, width), and the other arguments of each layer."""

    hidden: torch.Tensor
    others: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)


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
            visit(index, block, lambda index=index: _run(parts, index, calls))  # type: ignore[misc]
            for call in calls:
                call.hidden = _output(parts, index, call)


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

    def catch(index: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        keywords = dict(keywords)
        hidden = arguments[0] if arguments else keywords.pop("hidden_states")
        if index == 0:
            calls.append(_Call(hidden))
        calls[-1].others.append((arguments[1:], keywords))
        if index == len(parts.blocks) - 1:
            raise _Caught

    hooks = [
        block.module.register_forward_pre_hook(
            lambda _, arguments, keywords, index=index: catch(index, arguments, keywords), with_kwargs=True
        )
        for index, block in enumerate(parts.blocks)
    ]
    try:
        for batch in calibration.batches:
            extra = {"use_cache": False} if parts.decoder else {}
            with suppress(_Caught):
                parts.model.base_model(**inputs_of(batch, parts.model), **extra)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _run(parts: Anatomy, index: int, calls: list[_Call]) -> None:
    for call in calls:
        _output(parts, index, call)


def _output(parts: Anatomy, index: int, call: _Call) -> torch.Tensor:
    rest, keywords = call.others[index]
    made = parts.blocks[index].module(call.hidden, *rest, **keywords)
    found: torch.Tensor = made[0] if isinstance(made, tuple) else made
    return found
