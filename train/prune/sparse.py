"""What the sparsity methods share: the best of each row, n of every m, and the measured result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from potstill.errors import OptionError, TrainingError
from potstill.train.layers import within
from potstill.train.prune.anatomy import Anatomy
from potstill.train.prune.masks import Masks
from potstill.train.prune.outcome import PruneResult, checked, parameter_count, size_facts
from potstill.train.prune.patterns import n_of_m, pattern_faults


def keep_largest(scores: torch.Tensor, share: float) -> torch.Tensor:
    """True for all but the `share` lowest scores of each row.

    Args:
        scores: (rows, n) float.
        share: Share of a row that goes; the count is rounded to the nearest. Ties go by position.

    Returns:
        (rows, n) bool.
    """
    rows, width = scores.shape
    gone = round(share * width)
    kept = torch.ones(rows, width, dtype=torch.bool, device=scores.device)
    if gone == 0:
        return kept
    # One order statistic is faster than a sort; ties at the threshold are settled by position afterwards.
    threshold = scores.kthvalue(gone, dim=1, keepdim=True).values
    kept = scores > threshold
    missing = (width - gone) - kept.sum(1, keepdim=True)
    if bool((missing > 0).any()):
        tied = scores == threshold
        kept |= tied & (tied.cumsum(1) <= missing)
    return kept


def keep_n_of_m(scores: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """True for the n best of every m neighbours of a row. A row's end that is shorter than m is kept.

    Args:
        scores: (rows, width) float.
        n: How many stay.
        m: Of how many.
    """
    rows, width = scores.shape
    whole = width - width % m
    kept = torch.ones(rows, width, dtype=torch.bool, device=scores.device)
    fours = scores[:, :whole].reshape(rows, whole // m, m)
    best = torch.zeros_like(fours, dtype=torch.bool).scatter_(2, fours.topk(n, dim=2).indices, True)
    kept[:, :whole] = best.reshape(rows, whole)
    return kept


def checked_pattern(
    method: str, parts: Anatomy, pattern: str | None, share: float, scope: str = "layer", keep: Sequence[str] = ()
) -> tuple[int, int] | None:
    """(n, m) of a pattern such as "2:4", which has to fit what is not kept.

    Raises:
        OptionError: It is not written so, or does not fit the share, the rows or the scope.
    """
    if pattern is None:
        return None
    try:
        (n, m), faults = n_of_m(pattern), pattern_faults(pattern, share, scope)
    except ValueError as error:
        raise OptionError(f"prune {method}", [str(error)]) from None
    if widths := sorted({linear.in_features for _, linear in parts.matrices(keep) if linear.in_features % m}):
        faults.append(f"pattern {pattern} does not fit rows of {widths[0]} weights; give an m that divides it")
    if faults:
        raise OptionError(f"prune {method}", faults)
    return n, m


def keep_faults(parts: Anatomy, keep: Sequence[str]) -> list[str]:
    """What is wrong with pieces of names whose matrices are to keep every weight."""
    names = [name for name, _ in parts.matrices()]
    build = type(parts.model).__name__
    faults = [
        f"keep={piece} names no matrix in the layers of {build}, whose first is {names[0]}"
        for piece in keep
        if not any(within(name, [piece]) for name in names)
    ]
    if not faults and all(within(name, keep) for name in names):
        faults.append(f"keep={'+'.join(keep)} leaves nothing to prune; name fewer layers or matrices of {build}")
    return faults


def checked_keep(method: str, parts: Anatomy, keep: str | None) -> tuple[str, ...]:
    """The pieces of names in `layers.0+down_proj`; none of None.

    Raises:
        OptionError: One names no matrix of the layers, or together they name all.
    """
    pieces = tuple(keep.split("+")) if keep else ()
    if faults := keep_faults(parts, pieces):
        raise OptionError(f"prune {method}", faults)
    return pieces


def sparse_result(parts: Anatomy, masks: Masks, share: float, *, how: dict[str, Any]) -> PruneResult:
    """Apply masks and measure.

    Args:
        parts: The model.
        masks: Masks of its matrices, but for those that are kept whole.
        share: What was asked for, of each that has a mask or of all of them.
        how: Options, for the facts.

    Raises:
        TrainingError: The measured zeros are not what was asked for.
    """
    # A row loses whole weights, so of a narrow one the share is met to half a weight.
    near = 0.5 / min(mask.shape[1] for mask in masks.kept.values()) + 0.005 * share
    if abs(masks.sparsity() - share) > near:
        removed = f"the masks remove {masks.sparsity():g}, asked for {share:g}"
        raise TrainingError(f"pruning did not do what was asked: {removed}; rows are too narrow for that share")
    if emptied := [name for name, mask in masks.kept.items() if not mask.any()]:
        raise TrainingError(
            f"a share of {share:g} takes every weight of {emptied[0]} and {len(emptied) - 1} more; remove less, or let "
            "each matrix lose its own share (scope=layer)"
        )
    weights = dict(parts.model.named_parameters())
    # What was 0 before, a masked head say, is 0 afterwards too.
    kept = {name: mask & (weights[name] != 0).to(mask.device) for name, mask in masks.kept.items()}
    masks = Masks(kept)
    masks.apply(parts.model)
    sizes = {name: linear.weight.numel() for name, linear in parts.matrices()}
    left = sum(int((kept[name] if name in kept else weights[name]).count_nonzero()) for name in sizes)
    total = sum(sizes.values())
    facts = {
        **how,
        **size_facts(parts, parameter_count(parts.model)),
        "matrices": len(masks.kept),
        "structure": "kept",
        "note": "single zeros make no engine faster and no tensor smaller; they pack on disk",
    }
    return checked(PruneResult(facts, masks, {"zeros": 1 - left / total}))
