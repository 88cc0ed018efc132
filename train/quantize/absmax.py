"""Rounding to evenly spaced values: 8, 4 or 3 bits, symmetric or with a zero point.

    symmetric     s = max|W| / (2^(b−1) − 1),         q = round(W / s)
    zero point    s = (max W − min W) / (2^b − 1),    q = round(W / s) + z,   z = round(−min W / s)

The maximum is that of the matrix (`tensor`), of each output (`row`, which most engines call channel), of each input
(`column`), or of `group` neighbours in a row. The range of a zero point holds 0, so a pruned weight stays 0.

`clip: mse` shrinks each range to where the squared error is least, among 20 shares of the maximum; at 3 and 4 bits a
few large weights otherwise spend the codes of all the others.

Reference figures: SmolLM2-135M, perplexity 12.41 in fp32; int8 a row 12.42, int8 a tensor 13.13.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from potstill.train.quantize.lattice import Lattice, stretches

Scope = Literal["tensor", "row", "column", "group"]
SHARES = [1.0 - 0.03 * i for i in range(20)]


def fit_absmax(
    weight: Tensor, bits: int, *, scope: Scope = "row", group: int = 64, symmetric: bool = True, clip: str = "absmax"
) -> Lattice:
    """The evenly spaced values for a matrix.

    Args:
        weight: (out, in) float.
        bits: 2 to 8.
        scope: What shares a scale.
        group: Neighbours of a row that share one, for `group`; the last group of a row may be shorter.
        symmetric: Whether 0 lies in the middle.
        clip: `absmax` reaches the largest weight, `mse` the least squared error.

    Examples:
        >>> fit_absmax(torch.tensor([[0.5, -1.27]]), 8).encode(torch.tensor([[0.5, -1.27]])).tolist()  # 0 is 128
        [[178, 1]]
    """
    low, high = _range(weight.float(), scope, group)
    if clip == "mse":
        share = _best_share(weight.float(), low, high, bits, symmetric, group if scope == "group" else 0)
        low, high = low * share, high * share
    return _lattice(low, high, bits, symmetric, group if scope == "group" else 0)


def _lattice(low: Tensor, high: Tensor, bits: int, symmetric: bool, group: int) -> Lattice:
    if symmetric:
        middle = 2 ** (bits - 1)
        scale = _stored(torch.maximum(-low, high) / (middle - 1), bits)
        return Lattice(bits, scale, torch.full_like(scale, middle), low=1, group=group)
    scale = _stored((high - low) / (2**bits - 1), bits)
    zero = (-low / torch.where(scale == 0, 1.0, scale)).round_().clamp_(0, 2**bits - 1)
    return Lattice(bits, scale, zero, group=group)


def _stored(scale: Tensor, bits: int) -> Tensor:
    # Files hold scales in half precision where that moves no code; below its range they stay in single.
    half = scale.half()
    least = 1e-4 if bits > 4 else 4e-6
    fits = bool(((half > least) | (scale == 0)).all()) and bool(torch.isfinite(half).all())
    return half.float() if fits else scale


def _range(weight: Tensor, scope: Scope, group: int) -> tuple[Tensor, Tensor]:
    """(R, C) smallest and largest weight of each scope, 0 among them."""
    if scope == "tensor":
        low, high = (value.view(1, 1) for value in torch.aminmax(weight))
    elif scope == "row":
        low, high = torch.aminmax(weight, dim=1, keepdim=True)
    elif scope == "column":
        low, high = torch.aminmax(weight, dim=0, keepdim=True)
    else:
        low, high = torch.aminmax(_in_groups(weight, group), dim=2)
    return low.clamp(max=0), high.clamp(min=0)


def _in_groups(weight: Tensor, group: int) -> Tensor:
    """(out, in) as (out, groups, group); the last group of a row is filled up with zeros, which change no range."""
    missing = -weight.shape[1] % group
    padded = torch.nn.functional.pad(weight, (0, missing)) if missing else weight
    return padded.view(weight.shape[0], -1, group)


def _best_share(weight: Tensor, low: Tensor, high: Tensor, bits: int, symmetric: bool, group: int) -> Tensor:
    """Share of each range at which rounding errs least, of `SHARES`: (R, C)."""
    tried = [_lattice(low * share, high * share, bits, symmetric, group) for share in SHARES]
    totals = torch.zeros(len(SHARES), *low.shape)
    # All shares over one stretch of rows, then the next: the stretch is read from memory once.
    for part in stretches(*weight.shape):
        here = _in_groups(weight[part], group) if group else weight[part]
        rows = part if low.shape[0] > 1 else slice(None)
        found = torch.empty_like(here)
        for lattice, total in zip(tried, totals, strict=True):
            error = _error(here, lattice, rows, found).square_()
            if group:
                total[rows] = error.sum(2)
            elif low.shape[1] > 1:
                total += error.sum(0, keepdim=True)
            else:
                total[rows] += error.sum(1, keepdim=True) if low.shape[0] > 1 else error.sum()
    best, found = totals[0], torch.full_like(low, SHARES[0])
    for share, total in zip(SHARES[1:], totals[1:], strict=True):  # several times as fast as argmin
        found = torch.where(total < best, share, found)
        best = torch.minimum(total, best)
    return found


def _error(weight: Tensor, lattice: Lattice, rows: slice, out: Tensor) -> Tensor:
    """What rounding some rows onto a lattice changes them by: (rows, in) or (rows, groups, group), into `out`."""
    assert lattice.zero is not None
    scale, zero = lattice.scale[rows], lattice.zero[rows]
    if weight.dim() == 3:
        scale, zero = scale.unsqueeze(-1), zero.unsqueeze(-1)
    found = torch.div(weight, torch.where(scale == 0, 1.0, scale), out=out).round_()
    least, most = lattice.low, 2**lattice.bits - 1
    if lattice.low:  # symmetric: one zero for all
        middle = 2 ** (lattice.bits - 1)
        found.clamp_(least - middle, most - middle)
    else:
        found.add_(zero).clamp_(least, most).sub_(zero)
    return found.mul_(scale).sub_(weight)
