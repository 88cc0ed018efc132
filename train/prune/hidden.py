"""Hidden width: channels of the hidden state that go from every tensor of the model, embeddings included.

    I_j = Σ_layers ‖x_j‖₂ · ‖W[:, j]‖₂        x: normed states that enter attention and feed-forward, W: what reads them

what channel j brings into the layers. Half of a small encoder is its table of embeddings, which no other cut reaches.
An encoder's configuration ties head size to width, so as many heads go with the channels as keep the head size; which
ones is decided by their importance (`potstill.train.prune.heads`).

Source: Muralidharan et al., Minitron, arXiv:2407.14679 §3.1 (embedding channels by activations). The student has to be
healed: a cut of a quarter of the width undoes most of what a model says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from potstill.errors import OptionError
from potstill.events import Event, Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.prune.anatomy import Anatomy, Block, anatomy
from potstill.train.prune.cut import cut_hidden
from potstill.train.prune.heads import head_importance
from potstill.train.prune.loss import with_answers
from potstill.train.prune.outcome import (
    PruneResult,
    checked,
    checked_calibration,
    checked_count,
    parameter_count,
    size_facts,
)
from potstill.train.prune.stream import column_norms, stream


def prune_hidden(model: Any, amount: float | int, calibration: Calibration, listener: Listener = silent) -> PruneResult:
    """Cut the least important channels in place.

    Args:
        model: A model that `anatomy` knows.
        amount: Channels to remove (int), or their share (float), rounded to what the heads allow.
        calibration: Texts.
        listener: Told when it is done.

    Raises:
        OptionError: An impossible amount, or too little text.
        UserError: An unknown build of model.
    """
    parts = anatomy(model)
    width, before = int(model.config.get_text_config().hidden_size), parameter_count(model)
    keep = possible_width(parts, width - checked_count("hidden", "channels", amount, width))
    if keep == width:
        raise OptionError(
            "prune hidden", [f"{amount!r} of {width} channels is nearest to none that its heads allow; ask for more"]
        )
    checked_calibration("hidden", calibration, 64)
    picked = channel_importance(parts, calibration).topk(keep).indices.sort().values.tolist()
    heads = (
        None
        if parts.decoder
        else best_heads(head_importance(parts, with_answers(model, calibration)), keep // parts.head_size)
    )
    cut_hidden(parts, picked, heads)
    facts = {
        "structure": "cut", "hidden": int(model.config.get_text_config().hidden_size), "hidden_before": width,
        **size_facts(anatomy(model), before),
    }  # fmt: skip
    listener(Event("compress", "progress", f"hidden: {keep} of {width} channels left"))
    return checked(PruneResult(facts, None, {"hidden": float(keep)}))


def possible_width(parts: Anatomy, wanted: float) -> int:
    """The width nearest to `wanted` that the model's heads allow: a multiple of the head size (encoder) or of the
    number of heads (decoder; of 8 as well where the steps stay small).

    Raises:
        UserError: No width but its own is possible.
    """
    parts.check_hidden("cut heads, neurons or layers instead")
    width = int(parts.model.config.get_text_config().hidden_size)
    unit = math.lcm(parts.heads, 8) if parts.decoder else parts.head_size
    if parts.decoder and unit * 6 > width:
        unit = parts.heads
    return min(width, unit * max(1, round(wanted / unit)))


def best_heads(importance: torch.Tensor, keep: int) -> list[list[int]]:
    """The `keep` most important heads of every layer of (layers, heads), in their order."""
    return [row.topk(keep).indices.sort().values.tolist() for row in importance]


def channel_importance(parts: Anatomy, calibration: Calibration) -> torch.Tensor:
    """What every channel brings into the layers: (width,) float32. Each layer counts the same."""
    real = [batch["attention_mask"] for batch in calibration.batches]
    total = torch.zeros(int(parts.model.config.get_text_config().hidden_size))

    def measure(_: int, block: Block, run: Callable[[], None]) -> None:
        norms = column_norms(block, run, real)
        for linear in (block.query, block.key, block.value, *block.into):
            brought = norms[linear] * linear.weight.float().norm(dim=0)
            total.add_((brought / brought.norm().clamp(min=1e-20)).cpu())

    stream(parts, calibration, measure)
    return total
