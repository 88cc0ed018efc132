"""Whether a step did what was asked, measured on the model itself.

A known library's pruner raises no error and prunes nothing; another's merge of 4-bit weights returns garbage. So after
each step the zeros, bits and parameters are counted again, by code that knows nothing of the method, and a difference
ends the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from potstill.errors import TrainingError
from potstill.train.compress.recipe import Step
from potstill.train.compress.state import Compressed, load_state
from potstill.train.quantize.packing import stored_bits
from potstill.train.quantize.schemes import Scheme, scheme_for, targets, weight_of

_SLACK = 0.01
# Of the largest logit: files are in bfloat16 where the student came so.
_NUMBER_FORMAT = 0.05


def verify_step(
    state: Compressed, step: Step, before: dict[str, Any], after: dict[str, Any], scheme: Scheme | None
) -> None:
    """Compare a finished step with what it was asked for.

    Args:
        state: The student after the step.
        step: The step.
        before: Counts before it (`measure.count_weights`).
        after: Counts after it.
        scheme: How weights should be rounded by now; None where they should not be.

    Raises:
        TrainingError: Every difference.
    """
    faults = []
    if step.kind == "sparsity" and isinstance(step.amount, float):
        asked = step.amount * _not_kept(state, step)
        # Zeros that were there before, of masked heads say, may lie among those that were asked for or beside them.
        if not asked - _SLACK <= after["zeros"] <= before["zeros"] + asked + _SLACK:
            faults.append(f"{after['zeros']:.2%} of the layers' weights are 0, asked for {asked:.2%}")
    if step.kind == "sparsity" and step.amount is None and after["zeros"] <= before["zeros"]:
        faults.append("no weight became 0")
    if step.kind == "structure" and after["parameters"] >= before["parameters"] and after["zeros"] <= before["zeros"]:
        faults.append(f"it still has {after['parameters']:,} parameters and no new zeros")
    if step.kind == "structure" and isinstance(step.amount, int) and step.method == "layers":
        removed = before["layers"] - after["layers"]
        if removed != step.amount:
            faults.append(f"{removed} layers were cut, asked for {step.amount}")
    faults += _masks(state)
    if scheme is not None:
        faults += _codes(state, scheme, str(step.options.get("embeddings", "")))
    if step.method in ("bf16", "fp16") and state.dtype != {"bf16": torch.bfloat16, "fp16": torch.float16}[step.method]:
        faults.append(f"weights rest in {state.dtype}")
    if bad := [name for name, value in state.model.named_parameters() if not bool(torch.isfinite(value).all())]:
        faults.append(f"{len(bad)} tensors hold values that are not finite, {bad[0]} first")
    if faults:
        raise TrainingError(
            f"the step {step} did not do what was asked: {'; '.join(faults)}; the steps before it are kept"
        )


@torch.no_grad()
def verify_reload(state: Compressed, step: Step, folder: Path) -> None:
    """Compare a student whose structure was cut with what its files are once they are loaded.

    A configuration has to say what was cut, or the student that is measured is not the one that is delivered: Gemma's
    embeddings are multiplied by the root of the width that its configuration names.

    Args:
        state: The student after the step.
        step: The step.
        folder: Where it was saved.

    Raises:
        TrainingError: Both answer differently.
    """
    inputs = {"input_ids": torch.arange(min(16, int(state.model.config.get_text_config().vocab_size)))[None]}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    told, read = (model.eval()(**inputs).logits for model in (state.model, load_state(folder).model))
    apart = float((told - read).abs().max())
    if not apart <= _NUMBER_FORMAT * float(told.abs().max()):
        raise TrainingError(
            f"the step {step} gives another student once its files are loaded (logits are {apart:.3g} apart): the "
            f"configuration of {type(state.model).__name__} cannot say what was cut; leave the step out"
        )


def _not_kept(state: Compressed, step: Step) -> float:
    """Share of the layers' weights that a step may prune."""
    parts = str(step.options["keep"]).split("+") if step.options.get("keep") else []
    blocks = [target for target in targets(state.model) if target.part == "blocks"]
    sizes = [(weight_of(target).numel(), target.within(parts)) for target in blocks]
    return sum(size for size, kept in sizes if not kept) / sum(size for size, _ in sizes)


def _masks(state: Compressed) -> list[str]:
    """Pruned weights that came back."""
    faults = []
    for name, mask in state.kept.items():
        weight = state.model.get_parameter(name)
        if weight.shape != mask.shape:
            faults.append(f"{name} has the shape {tuple(weight.shape)} and its mask {tuple(mask.shape)}")
        elif back := int((weight.detach()[~mask] != 0).sum()):
            faults.append(f"{back:,} pruned weights of {name} came back")
    return faults


def _codes(state: Compressed, scheme: Scheme, embeddings: str) -> list[str]:
    """Rounded weights that are missing, take more bits than asked for, or are not in the model."""
    weights = list(targets(state.model))
    faults = [
        f"keep={part} names no weight that is left" for part in scheme.keep
        if not any(target.within([part]) for target in weights)
    ]  # fmt: skip
    for target in weights:
        found = state.quantized.get(target.name)
        if found is None:
            if target.part == "blocks" and not target.within(scheme.keep):
                faults.append(f"{target.name} is not rounded")
            continue
        wanted = scheme_for(target, scheme, embeddings or "int8") if target.part != "embeddings" else None
        levels = int(found.codes.max()) + 1
        if wanted is not None and (found.lattice.bits != wanted.bits or levels > 2**wanted.bits):
            faults.append(f"{target.name} has codes of {found.lattice.bits} bits, asked for {wanted.bits}")
        if wanted is not None and found.codes.numel() >= 2**16 and stored_bits(found) > wanted.most_bits:
            faults.append(f"{target.name} takes {stored_bits(found):.2f} bits a weight, asked for {wanted.bits}")
        if not torch.equal(found.values(), state.model.get_parameter(target.name).detach().float()):
            faults.append(f"{target.name} in the model differs from its codes")
    return faults
