"""Whole layers: those that change the hidden state least, every other one, or those nearest to the output.

    BI_i = 1 − E[ cos(h_i, h_{i+1}) ]        the block influence of layer i, over all calibration tokens

A layer whose output points where its input did can go. Removed layers shorten every step of the engine, so the latency
falls with the number of layers. A classifier's last layer that averages (`train.head_start`) is not counted and stays:
its head reads the mean that it makes.

In an encoder the first layers have the least influence and are the ones that the others were built on: take `top`.

Sources: Men et al., ShortGPT, arXiv:2403.03853 §3 (block influence; LLaMA-2-7B without 9 of 32 layers keeps 95 % of
MMLU); Sajjad et al., arXiv:2004.03844 §3 (alternate and top layers of BERT); Sanh et al., arXiv:1910.01108 §3.
Measured for SmolLM2-135M on CPython's language reference (dense 12.41): 5 of 30 by influence 24.2, 15 by influence
17,735, every other layer 1.3 million: half a decoder has to be healed for long.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from potstill.events import Event, Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.head_start import averages
from potstill.train.layers import keep_layers, spaced_layers
from potstill.train.prune.anatomy import Anatomy, anatomy
from potstill.train.prune.loss import small_batches
from potstill.train.prune.outcome import PruneResult, checked, checked_cut, size_facts
from potstill.train.prune.stream import evaluating, inputs_of

By = Literal["influence", "alternate", "top"]


def prune_layers(
    model: Any, amount: float | int, calibration: Calibration, listener: Listener = silent, *, by: By = "influence"
) -> PruneResult:
    """Cut whole layers in place.

    Args:
        model: A model that `anatomy` knows.
        amount: Layers to remove (int), or their share (float), rounded to the nearest number.
        calibration: Texts; looked at for `influence` alone.
        listener: Told when it is done.
        by: `influence`: the least block influence goes; `alternate`: evenly spaced layers stay, the first and the last
            among them; `top`: the layers nearest to the output go.

    Raises:
        OptionError: An impossible amount, an unknown choice, or too little text.
        UserError: An unknown build of model.
    """
    parts, count, before = checked_cut(
        "layers", model, amount, calibration, total=layers_that_can_go, by=by, known=get_args(By)
    )
    depth, own = len(parts.blocks), layers_that_can_go(parts)
    facts: dict[str, Any] = {"by": by, "layers_before": depth}
    if by == "influence":
        influence = block_influence(parts, calibration)
        kept = sorted(influence[:own].argsort(descending=True, stable=True)[: own - count].tolist())
        facts["influence"] = [round(float(value), 5) for value in influence]
    elif by == "alternate":
        kept = spaced_layers(own, own - count)
    else:
        kept = list(range(own - count))
    kept += range(own, depth)
    keep_layers(model, len(kept), kept)
    parts = anatomy(model)
    facts |= {"structure": "cut", "kept_layers": kept, "layers": len(parts.blocks), **size_facts(parts, before)}
    listener(Event("compress", "progress", f"layers: {len(kept)} of {depth} left"))
    return checked(PruneResult(facts, None, {"layers": float(depth - count)}))


def layers_that_can_go(parts: Anatomy) -> int:
    """Layers that a cut may choose among; one of them has to stay."""
    return len(parts.blocks) - int(averages(parts.model))


@torch.no_grad()
def block_influence(parts: Anatomy, calibration: Calibration) -> torch.Tensor:
    """1 − mean cosine of every layer's input and output: (layers,) float32, in [0, 2]."""
    sums, tokens = torch.zeros(len(parts.blocks)), 0
    real = torch.empty(0)

    def add(index: int, arguments: tuple[Any, ...], keywords: dict[str, Any], made: Any) -> None:
        before = arguments[0] if arguments else keywords["hidden_states"]
        after = made[0] if isinstance(made, tuple) else made
        sums[index] += float(((1 - F.cosine_similarity(before.float(), after.float(), dim=-1)) * real).sum())

    def hook(index: int) -> Any:
        return lambda _, arguments, keywords, made: add(index, arguments, keywords, made)

    hooks = [b.module.register_forward_hook(hook(i), with_kwargs=True) for i, b in enumerate(parts.blocks)]
    try:
        with evaluating(parts.model):
            for batch in small_batches(calibration, 2048):
                real = batch["attention_mask"].to(parts.model.device)
                tokens += int(real.sum())
                _body(parts)(**inputs_of(batch, parts.model))
    finally:
        for handle in hooks:
            handle.remove()
    return sums / max(tokens, 1)


def _body(parts: Anatomy) -> nn.Module:
    found: nn.Module = parts.model.base_model
    return found
