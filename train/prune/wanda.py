"""Wanda: a weight counts as much as the activations that it meets. No gradient, no change of the weights that stay.

    S_ij = |W_ij| · ‖X_j‖₂        compared within each output row i; the share p with the lowest score goes

Layers are pruned from the input on, and each sees activations that the pruned layers before it gave. Only one layer's
activations exist at a time beside the model. With `pattern="2:4"`, two of every four neighbours of a row stay.

Source: Sun et al., A simple and effective pruning approach for large language models, arXiv:2306.11695 §3 (LLaMA-7B at
50 %: dense 5.68, magnitude 17.29, SparseGPT 7.22, Wanda 7.26; LLaMA-2-7B at 2:4: magnitude 54.59, Wanda 11.02).
Measured for SmolLM2-135M on CPython's language reference (dense 12.41): 50 % 23.6 where magnitude gives 401; 2:4 76.8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from potstill.events import Event, Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.prune.anatomy import Block, anatomy
from potstill.train.prune.masks import Masks
from potstill.train.prune.outcome import PruneResult, checked_calibration, checked_share
from potstill.train.prune.sparse import checked_keep, checked_pattern, keep_largest, keep_n_of_m, sparse_result
from potstill.train.prune.stream import column_norms, stream

LEAST_TOKENS = 128


def prune_wanda(
    model: Any, amount: float | int, calibration: Calibration, listener: Listener = silent, *,
    pattern: str | None = None, keep: str | None = None,
) -> PruneResult:  # fmt: skip
    """Zero the weights of lowest score in every output row, block by block, in place.

    Args:
        model: A model that `anatomy` knows.
        amount: Share of every row to remove, in (0, 1).
        calibration: Texts like those of the task; 16 windows of 512 tokens do for a model of 135 M.
        listener: Told after each layer.
        pattern: "n:m", keep n of every m weights of a row; `amount` must be 1 - n/m.
        keep: Pieces of names joined by `+`, such as `layers.0+down_proj`: these matrices lose nothing.

    Raises:
        OptionError: An impossible amount or pattern, a name that is none, or fewer than 128 tokens.
        UserError: An unknown build of model.
    """
    share = checked_share("wanda", amount)
    checked_calibration("wanda", calibration, LEAST_TOKENS)
    parts = anatomy(model)
    whole = checked_keep("wanda", parts, keep)
    kept_of = checked_pattern("wanda", parts, pattern, share, keep=whole)
    names = {id(linear): name for name, linear in parts.matrices(whole)}
    real = [batch["attention_mask"] for batch in calibration.batches]
    kept: dict[str, torch.Tensor] = {}

    def prune(index: int, block: Block, run: Callable[[], None]) -> None:
        for linear, norms in column_norms(block, run, real).items():
            if id(linear) not in names:
                continue
            scores = linear.weight.abs().float() * norms
            mask = keep_largest(scores, share) if kept_of is None else keep_n_of_m(scores, *kept_of)
            linear.weight.masked_fill_(~mask, 0)
            kept[names[id(linear)]] = mask
        listener(Event("compress", "progress", f"wanda: layer {index + 1}", index + 1, len(parts.blocks)))

    stream(parts, calibration, prune)
    how = {"pattern": pattern, "keep": keep, "calibration_tokens": calibration.tokens}
    return sparse_result(parts, Masks(kept), share, how=how)
