"""One step of a recipe on a student: prune, round, or heal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch

from potstill.errors import OptionError
from potstill.events import Listener
from potstill.train.calibration_data import Calibration
from potstill.train.compress.own import OwnStep, run_own
from potstill.train.compress.recipe import Step, grid_step, with_defaults
from potstill.train.compress.state import Compressed
from potstill.train.quantize.schemes import Scheme, put_rounded, quantize_model, scheme_for, targets, weight_of

if TYPE_CHECKING:
    from potstill.train.heal import HealResult

_DEFAULT_HEAL_STEPS = 100


@dataclass(frozen=True)
class Helpers:
    """What steps look at.

    Attributes:
        calibration: Texts that methods look at.
        healing: Texts that healing learns from.
        teacher: Called once, at the first healing: the model that it listens to.
        early: Gives the student's weights after a share of its training.
    """

    calibration: Calibration
    healing: Calibration
    teacher: Any
    early: Callable[[float], Mapping[str, torch.Tensor]]


def scheme_of(step: Step) -> Scheme | None:
    """How a rounding step rounds the matrices of the layers; None for a cast or another kind of step."""
    if step.kind != "quantize" or step.method in ("bf16", "fp16"):
        return None
    if "grid" in step.options:
        return scheme_of(grid_step(str(step.options["grid"]), step.options.get("group"), keep=step.options.get("keep")))
    options = with_defaults(step).options
    if keep := options.get("keep"):
        scheme = scheme_of(replace(step, options={**step.options, "keep": None}))
        return None if scheme is None else replace(scheme, keep=tuple(str(keep).split("+")))
    if step.method == "nf4":
        return Scheme("nf4", 4, group=options["group"], double=options["double"])
    if step.method == "gobo":
        return Scheme("gobo", options["bits"], threshold=options["threshold"])
    if step.method == "binary":
        return Scheme("binary", 1)
    if step.method == "llm.int8":
        return Scheme("absmax", 8)
    return Scheme(
        "absmax", int(step.method.removeprefix("int")), scope=options["scope"], group=options["group"],
        symmetric=not options["zero_point"], clip=options["clip"],
    )  # fmt: skip


def run_step(
    state: Compressed, step: Step, scheme: Scheme | None, helpers: Helpers, listener: Listener
) -> dict[str, Any]:
    """Do one step in place.

    Args:
        state: The student.
        step: What to do.
        scheme: How weights are rounded from this step on; None while they are not.
        helpers: Texts and teacher.
        listener: Progress.

    Returns:
        What the method says of itself, JSON types.
    """
    if isinstance(step, OwnStep):
        return run_own(state, step, helpers.calibration)
    if step.kind in ("structure", "sparsity"):
        return _prune(state, step, helpers, listener)
    if step.kind == "heal":
        return _heal(state, step, scheme, helpers, listener)
    options = with_defaults(step).options
    if scheme is None:
        state.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[step.method]
        _cast(state)
        return {"bits": 16}
    embeddings = str(options["embeddings"])
    facts: dict[str, Any] = {"scheme": scheme.title, "embeddings": embeddings}
    if step.method == "gptq":
        from potstill.train.quantize.layerwise import gptq_model

        result = gptq_model(
            state.model, helpers.calibration, scheme, embeddings=embeddings, damp=options["damp"],
            by_activation=options["order"] == "activation", kept=state.kept, listener=listener,
        )  # fmt: skip
        state.quantized = result.quantized
    elif step.method == "lkd":
        from potstill.train.quantize.layerwise import distil_layers

        result = distil_layers(
            state.model, helpers.healing, scheme, embeddings=embeddings, steps=options["steps"],
            learning_rate=options["learning_rate"], start=options["start"], kept=state.kept, listener=listener,
        )  # fmt: skip
        state.quantized = result.quantized
        facts["layer_errors"] = [[round(value, 6) for value in pair] for pair in result.errors]
    else:
        state.quantized = quantize_model(state.model, scheme, embeddings)
    _install_activations(state, step)
    return facts


def _prune(state: Compressed, step: Step, helpers: Helpers, listener: Listener) -> dict[str, Any]:
    from potstill.train.prune import methods as prune
    from potstill.train.prune.anatomy import anatomy
    from potstill.train.prune.masks import Masks

    method = (prune.SPARSITY if step.kind == "sparsity" else prune.STRUCTURE)[step.method]
    options = {name: value for name, value in with_defaults(step).options.items() if value is not None}
    if "rewind" in options:
        options["early"] = helpers.early
    assert step.amount is not None
    texts = helpers.healing if step.about.learns else helpers.calibration
    result = method(state.model, step.amount, texts, listener, **options)
    if result.masks is not None:
        # What a step before masked stays masked, and is checked to have stayed 0.
        state.kept |= {name: mask & state.kept.get(name, mask) for name, mask in result.masks.kept.items()}
    elif state.kept:
        # Layers were cut or numbered anew: what was masked is known by its zeros.
        names = [name for name, _ in anatomy(state.model).matrices()]
        state.kept = {name: mask for name, mask in Masks.of_zeros(state.model, names).kept.items() if not mask.all()}
    return dict(result.facts)


def _heal(state: Compressed, step: Step, scheme: Scheme | None, helpers: Helpers, listener: Listener) -> dict[str, Any]:
    from potstill.train.heal import HealOptions, heal
    from potstill.train.heal_4bit import heal_4bit
    from potstill.train.prune.masks import Masks
    from potstill.train.quantize.straight_through import StraightThrough

    options = dict(with_defaults(step).options)
    steps, epochs = options.pop("steps"), options.pop("epochs")
    batches = len(helpers.healing.batches)
    if steps is None:
        steps = math.ceil(epochs * batches) if epochs is not None else _DEFAULT_HEAL_STEPS
    shared = {field.name: options.pop(field.name) for field in fields(HealOptions) if field.name in options}
    chosen = HealOptions(steps=steps, **shared)
    if step.method == "qlora":
        result = heal_4bit(state.model, helpers.teacher(), helpers.healing, chosen, listener=listener, **options)
        return _learnt(result) | {"rank": options["rank"]}
    if options["train_embeddings"] and scheme is not None:
        raise OptionError("recipe", [f"{step}: embeddings are rounded already and rest; heal before rounding"])
    quantizer = None if scheme is None else StraightThrough(scheme)
    result = heal(
        state.model, helpers.teacher(), helpers.healing, chosen,
        masks=Masks(state.kept) if state.kept else None, quantizer=quantizer, listener=listener, **options,
    )  # fmt: skip
    if scheme is not None:
        _round_again(state, scheme)
    return _learnt(result) | {"with_rounded_weights": scheme is not None}


def _learnt(result: HealResult) -> dict[str, Any]:
    """What the report says of a healing."""
    tenth = max(1, len(result.losses) // 10)
    return {
        "steps": result.steps, "tokens": result.tokens, "learning_rate": result.learning_rate,
        "loss_first": round(sum(result.losses[:tenth]) / tenth, 5),
        "loss_last": round(sum(result.losses[-tenth:]) / tenth, 5),
        "losses": [round(value, 5) for value in result.losses[:: max(1, len(result.losses) // 50)]],
    }  # fmt: skip


@torch.no_grad()
def _round_again(state: Compressed, scheme: Scheme) -> None:
    """Latent weights onto their values after training; embeddings keep their codes, which training let rest."""
    for target in targets(state.model):
        chosen = scheme_for(target, scheme, "keep")
        if chosen is not None and target.part != "embeddings":
            state.quantized[target.name] = put_rounded(target, chosen.quantize(weight_of(target)))


def activations_of(step: Step) -> dict[str, Any] | None:
    """How a rounding step rounds the inputs of linear layers; None where it leaves them."""
    options = with_defaults(step).options
    if step.method == "llm.int8":
        return {"rounding": "int8 a token", "threshold": options["threshold"]}
    return {"rounding": "int8 a token", "threshold": None} if options.get("activations") == "int8" else None


def _install_activations(state: Compressed, step: Step) -> None:
    from potstill.train.quantize.activations import install

    state.activations = activations_of(step)
    if state.activations is not None:
        install(state.model, state.activations["threshold"])


@torch.no_grad()
def _cast(state: Compressed) -> None:
    """Weights on the values of their number format; the model goes on in float32."""
    for value in state.model.parameters():
        value.copy_(value.to(state.dtype).float())
