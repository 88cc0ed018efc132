"""Magnitude pruning: the weights that are nearest to zero go. No data.

    keep W_ij  where  |W_ij| > the p-quantile of |W|

`scope="layer"` takes the quantile of each matrix ("class-uniform"), `scope="global"` of all matrices of the blocks
together ("class-blind"), but for a layer that averages. With `pattern="2:4"`, the two smallest of every four weights
along a row go.

Source: See et al., Compression of neural machine translation models via pruning, arXiv:1606.09274 §3: 40 % of the
weights of a 200 M translation model go without loss, 80 % with retraining. Measured for SmolLM2-135M on CPython's
language reference (20,480 tokens, dense 12.41): 30 % 19.6, 50 % 401, 50 % global 539, 2:4 2,183.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from potstill.errors import OptionError
from potstill.events import Event, Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.head_start import averages
from potstill.train.prune.anatomy import Anatomy, anatomy
from potstill.train.prune.masks import Masks
from potstill.train.prune.outcome import PruneResult, checked_share
from potstill.train.prune.sparse import checked_pattern, keep_largest, keep_n_of_m, sparse_result

Scope = Literal["layer", "global"]


def prune_magnitude(
    model: Any, amount: float | int, calibration: Calibration | None = None, listener: Listener = silent, *,
    scope: Scope = "layer", pattern: str | None = None,
) -> PruneResult:  # fmt: skip
    """Zero the smallest weights of every block in place.

    Args:
        model: A model that `anatomy` knows.
        amount: Share of the weights to remove, in (0, 1).
        calibration: Not looked at.
        listener: Told when it is done.
        scope: Whether shares hold in each matrix, or in all together.
        pattern: "n:m", keep n of every m weights of a row; `amount` must be 1 - n/m.

    Raises:
        OptionError: An impossible amount or pattern.
        UserError: An unknown build of model.
    """
    share = checked_share("magnitude", amount)
    if scope not in ("layer", "global"):
        raise OptionError("prune magnitude", [f"scope {scope!r} is unknown; known: layer, global"])
    parts = anatomy(model)
    kept_of = checked_pattern("magnitude", parts, pattern, share, scope == "global")
    masks = magnitude_masks(parts, share, scope, kept_of)
    result = sparse_result(parts, masks, share, how={"scope": scope, "pattern": pattern})
    listener(Event("compress", "progress", f"magnitude: {result.facts['zeros']:.1%} of the weights are zero"))
    return result


@torch.no_grad()
def magnitude_masks(
    parts: Anatomy, share: float, scope: Scope = "layer", pattern: tuple[int, int] | None = None
) -> Masks:
    """The masks, without applying them.

    A classifier's last layer that averages (`train.head_start`) is ranked matrix by matrix in either scope: what does
    nothing there is small by design, and together with the others whole matrices of it would go.
    """
    found, together = {}, []
    apart = {id(linear) for linear in parts.blocks[-1].linears} if averages(parts.model) else set()
    for name, linear in parts.matrices():
        if scope == "global" and id(linear) not in apart:
            together.append((name, linear))
            continue
        size = linear.weight.abs().float()
        if pattern is not None:
            found[name] = keep_n_of_m(size, *pattern)
        else:
            found[name] = keep_largest(size.flatten()[None], share).view_as(size)
    if together:
        sizes = torch.cat([linear.weight.abs().float().flatten() for _, linear in together])
        kept = torch.split(keep_largest(sizes[None], share)[0], [linear.weight.numel() for _, linear in together])
        found |= {name: own.view_as(linear.weight).clone() for (name, linear), own in zip(together, kept, strict=True)}
    return Masks({name: found[name] for name, _ in parts.matrices()})
