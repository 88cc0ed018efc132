"""Layer by layer: GPTQ, and quantisation-aware distillation. Beside the model, one layer's activations exist.

**GPTQ** sums x xᵀ over the tokens that each matrix of the layer sees, rounds it, and hands the outputs of the rounded
layer on.

**Layer-by-layer distillation** (Yao et al., ZeroQuant, arXiv:2206.01861 §4.3): with the layers before it rounded
already, a layer learns to give what its full-precision twin gives in the unrounded model,

    min ‖ L_k(h_{k−1}) − L̂_k(ĥ_{k−1}) ‖² / ‖ L_k(h_{k−1}) ‖²

over all tokens, by AdamW on its latent weights, rounded by a straight-through estimator. Padding counts in neither. No
labels, no whole model in the graph. ĥ is what the rounded layers before it give, so a layer also takes back part of
their error. It may start from GPTQ's weights (`start: gptq`), which it improves on, or from plain rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from potstill.events import Event, Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.prune.anatomy import Block, anatomy
from potstill.train.prune.stream import stream
from potstill.train.quantize.gptq import gptq_weight
from potstill.train.quantize.lattice import Lattice, QuantizedWeight, onto
from potstill.train.quantize.packing import narrowed
from potstill.train.quantize.schemes import Scheme, put_rounded, scheme_for, targets, weight_of


@dataclass(frozen=True)
class LayerwiseResult:
    """Codes of a whole model, and how far each layer's output was from its twin's.

    Attributes:
        quantized: Codes by parameter name.
        errors: Relative squared error of each layer's output at its start and at its end (distillation only).
    """

    quantized: dict[str, QuantizedWeight]
    errors: tuple[tuple[float, float], ...] = ()


def gptq_model(
    model: Any, data: Calibration, scheme: Scheme, *, embeddings: str = "int8", damp: float = 0.01,
    by_activation: bool = True, kept: dict[str, Tensor] | None = None, listener: Listener = silent,
) -> LayerwiseResult:  # fmt: skip
    """Round the layers of a model by GPTQ, in place, and its embeddings and head plainly.

    Args:
        model: The model, in float32.
        data: Texts whose inputs the error is measured on.
        scheme: Of the layers' matrices.
        embeddings: As for `schemes.scheme_for`.
        damp: Share of the mean diagonal of H that is added to it.
        by_activation: Whether columns with large inputs go first.
        kept: Masks of pruned weights by parameter name.
        listener: Progress.
    """
    found = _round_around(model, scheme, embeddings)
    parts, kept = anatomy(model), kept or {}
    names = {linear: name for name, linear in parts.matrices()}
    rounding = _rounded_matrices(model, scheme)
    real = [batch["attention_mask"] for batch in data.batches]

    @torch.no_grad()
    def visit(index: int, block: Block, run: Callable[[], None]) -> None:
        """Round the matrices of one layer in the order in which data flows through it."""
        for group in _in_order(block, rounding):
            sums = _hessians(group, run, real)
            for linear in group:
                weight, name = linear.weight, names[linear]
                rounded = gptq_weight(
                    weight, sums[linear], scheme.fit(weight), f"gptq {scheme.title}", damp=damp,
                    by_activation=by_activation, kept=kept.get(name),
                )  # fmt: skip
                weight.copy_(rounded.values())
                found[name] = rounded
        listener(Event("compress", "progress", f"gptq: layer {index + 1}", index + 1, len(parts.blocks)))

    stream(parts, data, visit)
    return LayerwiseResult(found)


def distil_layers(
    model: Any, data: Calibration, scheme: Scheme, *, embeddings: str = "int8", steps: int = 40,
    learning_rate: float = 1e-4, start: str = "gptq", kept: dict[str, Tensor] | None = None,
    listener: Listener = silent,
) -> LayerwiseResult:  # fmt: skip
    """Round the layers of a model one after the other, each taught by its full-precision twin; in place.

    Args:
        model: The model, in float32.
        data: Texts.
        scheme: Of the layers' matrices.
        embeddings: As for `schemes.scheme_for`.
        steps: Optimiser steps a layer, each on one batch.
        learning_rate: Peak rate of AdamW; it falls to 0.
        start: `gptq` or `round`.
        kept: Masks of pruned weights by parameter name.
        listener: Progress.
    """
    parts, kept = anatomy(model), kept or {}
    names = {linear: name for name, linear in parts.matrices()}
    rounding = _rounded_matrices(model, scheme)
    real = [batch["attention_mask"] for batch in data.batches]
    twins: list[Tensor] = []
    errors: list[tuple[float, float]] = []
    found: dict[str, QuantizedWeight] = {}

    def visit(index: int, block: Block, run: Callable[[], None]) -> None:
        """Round and teach one layer."""
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        hook = block.module.register_forward_pre_hook(
            lambda _, arguments, keywords: calls.append((arguments, keywords)), with_kwargs=True
        )
        run()
        hook.remove()
        if index == 0:
            twins.extend(_hidden(arguments, keywords) for arguments, keywords in calls)
        for i, (call, states) in enumerate(zip(calls, twins, strict=True)):
            twins[i] = _forward(block.module, call, states)
        lattices = {}
        for group in _in_order(block, rounding):
            sums = _hessians(group, run, real) if start == "gptq" else {}
            for linear in group:
                lattices[linear] = scheme.fit(linear.weight)
                if start == "gptq":
                    rounded = gptq_weight(
                        linear.weight, sums[linear], lattices[linear], scheme.title, kept=kept.get(names[linear])
                    )
                    # A latent weight close to its value keeps what rounding it means for its neighbours.
                    linear.weight.copy_(0.9 * rounded.values() + 0.1 * linear.weight)
        if not lattices:
            return  # a layer that is kept
        trained = {linear: _Latent(linear, lattices[linear], kept.get(names[linear])) for linear in lattices}
        lessons = [_Lesson(*call, wanted, mask.bool()) for call, wanted, mask in zip(calls, twins, real, strict=True)]
        errors.append(_teach(block.module, lessons, list(trained.values()), steps, learning_rate))
        for linear, latent in trained.items():
            rounded = narrowed(onto(latent.lattice, latent.masked(), f"lkd {scheme.title}"))
            linear.weight.copy_(rounded.values())
            found[names[linear]] = rounded
        text = f"lkd: layer {index + 1}, error {errors[-1][0]:.4f} -> {errors[-1][1]:.4f}"
        listener(Event("compress", "progress", text, index + 1, len(parts.blocks)))

    stream(parts, data, visit)
    found |= _round_around(model, scheme, embeddings)
    return LayerwiseResult(found, tuple(errors))


class _Latent:
    """A matrix that trains on its rounded values, scales included where they are learnt with it."""

    def __init__(self, linear: nn.Linear, lattice: Lattice, kept: Tensor | None):
        self.linear, self.lattice, self.kept = linear, lattice, kept
        self.weight = linear.weight.detach().clone().requires_grad_(True)

    def masked(self) -> Tensor:
        """The latent weights, pruned ones at 0."""
        weight = self.weight.detach()
        return weight if self.kept is None else weight * self.kept

    def rounded(self) -> Tensor:
        """The rounded weights, with the gradient of the latent ones."""
        snapped = self.lattice.snap(self.masked())
        return self.weight + (snapped - self.weight).detach()


@dataclass(frozen=True)
class _Lesson:
    """One batch: a layer's arguments, what its twin gives, and which places hold tokens."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    wanted: Tensor
    real: Tensor

    def wrong(self, layer: nn.Module, weights: dict[str, Tensor]) -> Tensor:
        """Squared distance from the twin over all tokens."""
        given = torch.func.functional_call(layer, weights, self.arguments, self.keywords)
        output: Tensor = given[0] if isinstance(given, tuple) else given
        return (output - self.wanted)[self.real].square().sum()

    def whole(self) -> Tensor:
        """The same of a layer that gives 0."""
        return self.wanted[self.real].square().sum()


def _teach(
    layer: nn.Module, lessons: list[_Lesson], latents: list[_Latent], steps: int, rate: float
) -> tuple[float, float]:  # fmt: skip
    """Train a layer's latent weights; relative error at the start and at the end, over all batches."""
    names = {id(module): name for name, module in layer.named_modules()}
    keys = [f"{names[id(latent.linear)]}.weight" for latent in latents]
    before = _error(layer, lessons, dict(zip(keys, (latent.rounded().detach() for latent in latents), strict=True)))
    best = (before, [latent.weight.detach().clone() for latent in latents])
    optimiser = torch.optim.AdamW([latent.weight for latent in latents], lr=rate, weight_decay=0.0, betas=(0.9, 0.95))
    with torch.enable_grad():
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / max(1, steps // 10)) * (1 - step / steps)
            lesson = lessons[step % len(lessons)]
            weights = {key: latent.rounded() for key, latent in zip(keys, latents, strict=True)}
            loss = lesson.wrong(layer, weights) / lesson.whole()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    after = _error(layer, lessons, dict(zip(keys, (latent.rounded().detach() for latent in latents), strict=True)))
    if after >= best[0]:
        for latent, weight in zip(latents, best[1], strict=True):
            latent.weight.data.copy_(weight)
    return before, min(before, after)


@torch.no_grad()
def _error(layer: nn.Module, lessons: list[_Lesson], weights: dict[str, Tensor]) -> float:
    wrong = sum(float(lesson.wrong(layer, weights)) for lesson in lessons)
    return wrong / max(sum(float(lesson.whole()) for lesson in lessons), 1e-12)


def _hidden(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
    found: Tensor = arguments[0] if arguments else keywords["hidden_states"]
    return found


def _forward(layer: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]], states: Tensor) -> Tensor:
    """The layer on other hidden states than those of a call."""
    arguments, keywords = call
    if arguments:
        given = layer(states, *arguments[1:], **keywords)
    else:
        given = layer(**{**keywords, "hidden_states": states})
    found: Tensor = given[0] if isinstance(given, tuple) else given
    return found


def _in_order(block: Block, rounding: set[nn.Module]) -> list[list[nn.Linear]]:
    """Those matrices of a layer that are rounded, in the order of the data, such as see the same input together."""
    groups = [[block.query, block.key, block.value], [block.out], list(block.into), [block.down]]
    left = [[linear for linear in group if linear in rounding] for group in groups]
    return [group for group in left if group]


def _rounded_matrices(model: Any, scheme: Scheme) -> set[nn.Module]:
    """Every matrix of the layers that the scheme does not keep."""
    return {target.module for target in targets(model) if target.part == "blocks" and not target.within(scheme.keep)}


def _hessians(linears: list[nn.Linear], run: Callable[[], None], real: list[Tensor]) -> dict[nn.Linear, Tensor]:
    """x xᵀ summed over all tokens: the matrices of a group share it."""
    first = linears[0]
    total = torch.zeros(first.in_features, first.in_features)
    masks = iter(real)

    def add(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        states = arguments[0][next(masks).bool()].float()
        total.addmm_(states.T, states)

    hook = first.register_forward_pre_hook(add)
    try:
        run()
    finally:
        hook.remove()
    return {linear: total for linear in linears}


def _round_around(model: Any, scheme: Scheme, embeddings: str) -> dict[str, QuantizedWeight]:
    """Embeddings and heads, rounded plainly."""
    found = {}
    for target in targets(model):
        chosen = scheme_for(target, scheme, embeddings)
        if target.part != "blocks" and chosen is not None:
            found[target.name] = put_rounded(target, chosen.quantize(weight_of(target)))
    return found
