"""The values that a quantised weight may take, and the codes that stand for them.

Every method of this folder comes to one of two families, so one type decodes them all:

    affine      value = (code − zero) · scale                absmax, zero-point
    codebook    value = codebook[code] · scale               NF4, GOBO, binary

`scale` has one entry for the whole matrix, a row, a column, or a group of neighbours in a row. What enters a fit is a
matrix (out, in) of float32; what leaves is a `Lattice`, which rounds any weights of that shape to the nearest value.
Rounding is apart from fitting because GPTQ, quantisation-aware training and layer-wise distillation round other
weights onto a lattice than those that it was fitted to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

_CACHED = 1 << 17
_COUNTED = 15


@dataclass(frozen=True)
class Lattice:
    """Values of one weight matrix.

    Attributes:
        bits: Bits of a code.
        scale: (R, C) float32 with R in {1, out} and C in {1, in, groups of a row}.
        zero: (R, C) float32, the code of 0 in the affine family; None for a codebook.
        codebook: (levels,) float32, ascending; None for the affine family.
        outliers: (n,) int64, flat places of weights that stay as they are.
        low: Smallest code that the affine family uses (1 for symmetric ones, whose range is odd).
        group: Neighbours of a row that share a scale; 0 where none do. The last group of a row may be shorter.
        scale_parts: Codes of the scales where these are quantised too (double quantisation), as they are stored.
    """

    bits: int
    scale: Tensor
    zero: Tensor | None = None
    codebook: Tensor | None = None
    outliers: Tensor | None = None
    low: int = 0
    group: int = 0
    scale_parts: Mapping[str, Tensor] | None = None

    def encode(self, weight: Tensor) -> Tensor:
        """Nearest code of each weight: (out, in) float -> (out, in) uint8."""
        rows, width = weight.shape
        codes = torch.empty(rows, width, dtype=torch.uint8)
        middles = None if self.codebook is None else (self.codebook[1:] + self.codebook[:-1]) / 2
        # A sign has no scale, and GOBO's is 1.
        sign = middles is not None and len(middles) == 1 and float(middles[0]) == 0
        unscaled = sign or (self.scale.numel() == 1 and float(self.scale) == 1)
        for part in stretches(rows, width):
            if middles is not None and unscaled:
                codes[part] = count_below(weight[part].float(), middles)
                continue
            scale = self._rows(self.scale, part, width)
            # A zero matrix has scale 0; its codes mean 0 whatever they are divided by.
            scaled = self._cut(weight[part].float(), scale) / torch.where(scale == 0, 1.0, scale)
            if middles is not None:
                found = count_below(scaled, middles)
            else:
                assert self.zero is not None
                found = scaled.round_().add_(self._rows(self.zero, part, width)).clamp_(self.low, 2**self.bits - 1)
                found = found.to(torch.int32)  # to bytes through integers is three times as fast as at once
            codes[part] = found.reshape(-1, width)
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Values of codes: (out, in) uint8 -> (out, in) float32. Outliers are not put in."""
        rows, width = codes.shape
        values = torch.empty(rows, width)
        for part in stretches(rows, width):
            scale = self._rows(self.scale, part, width)
            cut = self._cut(codes[part], scale)
            if self.codebook is not None:
                found = self.codebook.index_select(0, cut.reshape(-1).int()).view(cut.shape)
            else:
                assert self.zero is not None
                found = cut - self._rows(self.zero, part, width)
            values[part] = found.mul_(scale).reshape(-1, width)
        return values

    def snap(self, weight: Tensor) -> Tensor:
        """Each weight at the nearest value of the lattice, outliers left as they are: (out, in) -> float32."""
        values = self.decode(self.encode(weight))
        if self.outliers is not None:
            values.view(-1)[self.outliers] = weight.reshape(-1)[self.outliers].float()
        return values

    def columns(self, start: int, stop: int, width: int) -> Lattice:
        """The lattice of some columns of a matrix of `width` columns, without outliers."""
        cut: dict[str, Any] = {
            name: value if value.shape[1] == 1 else self._spread(value, width)[:, start:stop]
            for name, value in (("scale", self.scale), ("zero", self.zero))
            if value is not None
        }
        return replace(self, **cut, group=0, outliers=None, scale_parts=None)

    def _rows(self, value: Tensor, part: slice, width: int) -> Tensor:
        """Scales or zeros of some rows, in a shape that meets the one that `_cut` gives the weights."""
        chosen = value if value.shape[0] == 1 else value[part]
        if not self.group:
            return chosen
        if width % self.group == 0:
            return chosen.unsqueeze(-1)
        return chosen.repeat_interleave(self.group, 1)[:, :width]

    def _cut(self, weight: Tensor, scale: Tensor) -> Tensor:
        return weight.view(weight.shape[0], -1, self.group) if scale.dim() == 3 else weight

    def _spread(self, value: Tensor, width: int) -> Tensor:
        """Scales or zeros of groups, once for each column of `width`."""
        if not self.group:
            return value
        return value.repeat_interleave(self.group, 1)[:, :width]


def stretches(rows: int, width: int) -> list[slice]:
    """Rows in stretches that stay in a core's cache through all passes over them."""
    step = max(1, _CACHED // max(1, width))
    return [slice(start, min(rows, start + step)) for start in range(0, rows, step)]


def count_below(values: Tensor, edges: Tensor) -> Tensor:
    """How many of some ascending edges lie below each value, as `torch.bucketize` says: uint8 of the values' shape.

    A comparison with every edge is a vector instruction on 8 values and its sum one on 32, where a search takes one
    value at a time: with 15 edges that is ten times as fast.
    """
    if not 1 <= len(edges) <= _COUNTED or values.device.type != "cpu":
        return torch.bucketize(values, edges.to(values.device), out_int32=True).to(torch.uint8)
    given = values.detach().numpy()
    count = np.greater(given, np.float32(edges[0])).view(np.uint8)
    above = np.empty_like(given, dtype=np.bool_)
    for edge in edges[1:].numpy():
        np.greater(given, edge, out=above)
        np.add(count, above.view(np.uint8), out=count)
    return torch.from_numpy(count)


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight matrix as codes.

    Attributes:
        method: How it was made, as the recipe says it.
        lattice: What decodes the codes.
        codes: (out, in) uint8, one code a byte (packed only in files).
        kept: (n,) float32, values of the lattice's outliers.
    """

    method: str
    lattice: Lattice
    codes: Tensor
    kept: Tensor | None = None

    def values(self) -> Tensor:
        """The weights that the codes stand for: (out, in) float32."""
        values = self.lattice.decode(self.codes)
        if self.lattice.outliers is not None and self.kept is not None:
            values.view(-1)[self.lattice.outliers] = self.kept
        return values


def onto(lattice: Lattice, weight: Tensor, method: str) -> QuantizedWeight:
    """A weight matrix rounded onto a lattice."""
    kept = None if lattice.outliers is None else weight.reshape(-1)[lattice.outliers].float()
    return QuantizedWeight(method, lattice, lattice.encode(weight), kept)
