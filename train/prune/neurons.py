"""Width: feed-forward neurons by what they add, the same number in every layer.

    I_j = ‖h_j‖₂ · ‖W_down[:, j]‖₂        h_j: the neuron's output over all calibration tokens

the most that neuron j adds to the hidden states of the text. `by="weights"` replaces ‖h_j‖ by the norms of the weights
that lead into the neuron, which needs no data (`potstill.train.width`).

Source: Muralidharan et al., Minitron, arXiv:2407.14679 §3.1 (importance of neurons by activations, on a few hundred
samples, then distillation).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch

from potstill.events import Event, Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.prune.anatomy import Anatomy, Block
from potstill.train.prune.cut import cut_neurons, neuron_multiple
from potstill.train.prune.outcome import PruneResult, checked, checked_cut, size_facts
from potstill.train.prune.stream import column_norms, stream

By = Literal["activations", "weights"]
_MULTIPLE = 8


def neurons_left(total: int, amount: float | int) -> int:
    """How many of a layer's neurons stay where so many, or such a share, are removed.

    Examples:
        >>> neurons_left(1536, 0.3), neurons_left(1536, 100)
        (1088, 1436)
    """
    if isinstance(amount, int):
        return total - amount
    keep, multiple = total - round(amount * total), max(_MULTIPLE, neuron_multiple(total))
    return min(total - 1, multiple * round(keep / multiple)) if keep > multiple else keep


def prune_neurons(
    model: Any, amount: float | int, calibration: Calibration, listener: Listener = silent, *, by: By = "activations"
) -> PruneResult:
    """Cut the least important neurons of every layer in place.

    Args:
        model: A model that `anatomy` knows.
        amount: Neurons to remove from each layer (int), or their share (float); what stays of a share is rounded to
            whole blocks of engines (`cut.neuron_multiple`), in narrow layers to a multiple of 8.
        calibration: Texts; looked at for `activations` alone.
        listener: Told when it is done.
        by: What a neuron's importance is taken from.

    Raises:
        OptionError: An impossible amount, an unknown choice, or too little text.
        UserError: An unknown build of model.
    """
    parts, _, before = checked_cut(
        "neurons", model, amount, calibration, total=lambda parts: parts.neurons, by=by, known=get_args(By)
    )
    total, layers = parts.neurons, len(parts.blocks)
    keep = neurons_left(total, amount)
    scores = neuron_importance(parts, calibration) if by == "activations" else _by_weights(parts)
    kept = [row.topk(keep).indices.sort().values.tolist() for row in scores]
    parts = cut_neurons(parts, kept)
    facts = {
        "structure": "cut", "by": by, "neurons": parts.neurons * layers, "neurons_before": total * layers,
        **size_facts(parts, before),
    }  # fmt: skip
    listener(Event("compress", "progress", f"neurons: {keep} of {total} a layer left"))
    return checked(PruneResult(facts, None, {"neurons": float(keep * layers)}))


def neuron_importance(parts: Anatomy, calibration: Calibration) -> torch.Tensor:
    """‖h_j‖ · ‖W_down[:, j]‖ of every neuron: (layers, neurons) float32."""
    real = [batch["attention_mask"] for batch in calibration.batches]
    rows: list[torch.Tensor] = []

    def measure(_: int, block: Block, run: Callable[[], None]) -> None:
        norms = column_norms(block, run, real)[block.down]
        rows.append((norms * block.down.weight.float().norm(dim=0)).cpu())

    stream(parts, calibration, measure)
    return torch.stack(rows)


@torch.no_grad()
def _by_weights(parts: Anatomy) -> torch.Tensor:
    rows = []
    for block in parts.blocks:
        score = block.down.weight.float().norm(dim=0)
        for linear in block.into:
            score = score * linear.weight.float().norm(dim=1)
        rows.append(score.cpu())
    return torch.stack(rows)
