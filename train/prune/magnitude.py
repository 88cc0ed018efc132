"""Magnitude pruning: the weights that are nearest to zero go. No data, unless the student learns meanwhile.

    keep W_ij  where  |W_ij| > the p-quantile of |W|

`scope="layer"` takes the quantile of each matrix ("class-uniform"), `scope="global"` of all matrices of the blocks
together ("class-blind"), and `scope="deviation"` of all together, each weight measured in its matrix's standard
deviations ("class-distribution": the threshold of a matrix is λσ, with one λ for all); a layer that averages is ranked
apart in the last two. With `pattern="2:4"`, the two smallest of every four weights along a row go. With
`schedule="cubic"` weights go a few at a time while the student learns (`gradual`).

Sources: See et al., Compression of neural machine translation models via pruning, arXiv:1606.09274 §3 (40 % of the
weights of a 200 M translation model go without loss, 80 % with retraining; class-blind is best there); Zhu and Gupta,
arXiv:1710.01878 §3 (cubic schedule). Measured for SmolLM2-135M on CPython's
language reference (20,480 tokens, dense 12.41): 30 % 19.6, 50 % 401, 50 % global 539, 2:4 2,183.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch

from potstill.errors import OptionError
from potstill.events import Event, Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.head_start import averages
from potstill.train.prune.anatomy import Anatomy, anatomy
from potstill.train.prune.masks import Masks
from potstill.train.prune.outcome import PruneResult, checked_calibration, checked_share
from potstill.train.prune.schedules import Schedule, schedule_faults
from potstill.train.prune.sparse import checked_keep, checked_pattern, keep_largest, keep_n_of_m, sparse_result

Scope = Literal["layer", "global", "deviation"]
_STEPS = 100


def prune_magnitude(
    model: Any, amount: float | int, calibration: Calibration | None = None, listener: Listener = silent, *,
    scope: Scope = "layer", pattern: str | None = None, schedule: Schedule = "once", steps: int | None = None,
    learning_rate: float | None = None, keep: str | None = None, seed: int = 0,
) -> PruneResult:  # fmt: skip
    """Zero the smallest weights of every block in place.

    Args:
        model: A model that `anatomy` knows.
        amount: Share of the weights to remove, in (0, 1).
        calibration: Texts to learn from while weights go (`cubic`); else not looked at.
        listener: Told when it is done, and after each step of learning.
        scope: Whether shares hold in each matrix, in all together, or in all together by their standard deviations.
        pattern: "n:m", keep n of every m weights of a row; `amount` must be 1 - n/m.
        schedule: All at once, or along a cubic over `steps` steps of healing.
        steps: Those steps (`cubic`); None takes 100.
        learning_rate: Their peak rate (`cubic`); None takes that of healing.
        keep: Pieces of names joined by `+`, such as `layers.0+down_proj`: these matrices lose nothing, and `amount` is
            a share of the others.
        seed: Order of the texts (`cubic`).

    Raises:
        OptionError: An impossible amount, pattern or schedule, a name that is none, or too little text to learn from.
        UserError: An unknown build of model.
        TrainingError: The loss of the learning is not finite.
    """
    share = checked_share("magnitude", amount)
    faults = [
        f"{name} {value!r} is unknown; known: {', '.join(get_args(known))}"
        for name, value, known in (("scope", scope, Scope), ("schedule", schedule, Schedule))
        if value not in get_args(known)
    ]
    faults += schedule_faults(schedule, pattern, steps, learning_rate)
    if faults:
        raise OptionError("prune magnitude", faults)
    parts = anatomy(model)
    whole = checked_keep("magnitude", parts, keep)
    kept_of = checked_pattern("magnitude", parts, pattern, share, scope, whole)
    how: dict[str, Any] = {"scope": scope, "pattern": pattern, "keep": keep}
    if schedule == "once":
        masks = magnitude_masks(parts, share, scope, kept_of, keep=whole)
    else:
        from potstill.train.prune.gradual import prune_gradually

        calibration = calibration or Calibration((), "causal")
        checked_calibration("magnitude", calibration, 64)
        steps = steps or _STEPS
        how |= {"schedule": schedule, "steps": steps}
        masks = prune_gradually(
            parts, share, lambda now: magnitude_masks(parts, now, scope, keep=whole), calibration, steps=steps,
            learning_rate=learning_rate, seed=seed, listener=listener,
        )  # fmt: skip
    result = sparse_result(parts, masks, share, how=how)
    listener(Event("compress", "progress", f"magnitude: {result.facts['zeros']:.1%} of the weights are zero"))
    return result


@torch.no_grad()
def magnitude_masks(
    parts: Anatomy, share: float, scope: Scope = "layer", pattern: tuple[int, int] | None = None, *,
    keep: Sequence[str] = (),
) -> Masks:  # fmt: skip
    """The masks of all matrices but those that are kept, without applying them.

    A classifier's last layer that averages (`train.head_start`) is ranked matrix by matrix in every scope: what does
    nothing there is small by design, and together with the others whole matrices of it would go.
    """
    found, together = {}, []
    apart = {id(linear) for linear in parts.blocks[-1].linears} if averages(parts.model) else set()
    for name, linear in parts.matrices(keep):
        if scope != "layer" and id(linear) not in apart:
            together.append((name, linear))
            continue
        size = linear.weight.abs().float()
        if pattern is not None:
            found[name] = keep_n_of_m(size, *pattern)
        else:
            found[name] = keep_largest(size.flatten()[None], share).view_as(size)
    if together:
        sizes = torch.cat([_size(linear.weight, scope).flatten() for _, linear in together])
        kept = torch.split(keep_largest(sizes[None], share)[0], [linear.weight.numel() for _, linear in together])
        found |= {name: own.view_as(linear.weight).clone() for (name, linear), own in zip(together, kept, strict=True)}
    return Masks({name: found[name] for name, _ in parts.matrices(keep)})


def _size(weight: torch.Tensor, scope: Scope) -> torch.Tensor:
    """How far weights are from 0, (out, in) float32: plainly, or in standard deviations of their matrix."""
    size = weight.abs().float()
    if scope != "deviation":
        return size
    # Of all weights, those that are 0 already too: small ones hardly count in it, so that rounds agree on it.
    return size / weight.float().std().clamp(min=1e-12)
