"""Rounding to values that are not evenly spaced: NF4, GOBO, one bit.

**NF4** (Dettmers et al., QLoRA, arXiv:2305.14314 §3): 16 values at equal shares of a normal distribution, 0 among
them; each block of 64 neighbours is scaled by its largest weight. Double quantisation stores the scales in 8 bits,
blocks of 256 around their mean: 4.13 bits a weight instead of 4.5. The table is bitsandbytes'.
Reference: SmolLM2-135M, perplexity 12.41 → 15.92 (block 64, scales in full).

**GOBO** (Zadeh et al., arXiv:2005.03842 §4): a normal distribution is fitted to the matrix; weights whose log density
lies below −4 are outliers and stay in full precision, about 0.1 % in BERT; the rest falls into 2^b bins of equal
population, whose means are then refined (assign, average) until the mean absolute error stops falling.
Reference: BERT-base MNLI 84.45 → 84.45 with 4 bits, 83.76 with 3. SmolLM2-135M: perplexity 15.84 and 51.5.

**Binary** (Rastegari et al., XNOR-Net, arXiv:1603.05279 §3.1): α · sign(W) with α = mean |W| of the row, which errs
least in squares. Of no use without training: SmolLM2-135M goes from 12.41 to 2,000,000.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from potstill.train.quantize.lattice import Lattice

NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip
SIGNS = torch.tensor([-1.0, 1.0])
SCALES_A_BLOCK = 256
_GOBO_ROUNDS = 20


def fit_nf4(weight: Tensor, *, group: int = 64, double: bool = True) -> Lattice:
    """NF4 values for a matrix.

    Args:
        weight: (out, in) float.
        group: Neighbours of a row that share a scale.
        double: Whether the scales are quantised too.
    """
    missing = -weight.shape[1] % group
    padded = torch.nn.functional.pad(weight.float(), (0, missing)) if missing else weight.float()
    low, high = torch.aminmax(padded.view(weight.shape[0], -1, group), dim=2)
    scale = torch.maximum(-low, high)
    if not double:
        return Lattice(4, scale.half().float(), codebook=NF4, group=group)
    parts = _scale_codes(scale)
    return Lattice(4, scales_of(parts, scale.shape), codebook=NF4, group=group, scale_parts=parts)


def _scale_codes(scale: Tensor) -> dict[str, Tensor]:
    """Scales in 8 bits: their mean, and for each block of 256 one step around it."""
    mean = scale.mean()
    flat = scale.reshape(-1) - mean
    missing = -flat.numel() % SCALES_A_BLOCK
    blocks = torch.nn.functional.pad(flat, (0, missing)).view(-1, SCALES_A_BLOCK)
    step = blocks.abs().amax(1) / 127
    codes = (blocks / torch.where(step == 0, 1.0, step).unsqueeze(1)).round_().clamp_(-127, 127)
    return {"codes": codes.view(-1)[: flat.numel()].to(torch.int8), "step": step, "mean": mean.view(1)}


def scales_of(parts: dict[str, Tensor], shape: torch.Size | tuple[int, int]) -> Tensor:
    """Scales from their codes: float32 of a shape; never below 0."""
    steps = parts["step"].repeat_interleave(SCALES_A_BLOCK)[: parts["codes"].numel()]
    return (parts["codes"].float() * steps + parts["mean"]).clamp_(min=0).view(shape)


def fit_gobo(weight: Tensor, bits: int, *, threshold: float = -4.0) -> Lattice:
    """Outliers and bin means for a matrix.

    The weights are sorted once; a bin is then a stretch of them, its mean a difference of running sums.

    Args:
        weight: (out, in) float.
        bits: 2 to 4 in the paper; up to 8 here.
        threshold: Log density of the fitted normal distribution below which a weight is an outlier.
    """
    flat = weight.reshape(-1).float()
    deviation, mean = (float(value) for value in torch.std_mean(flat.double()))
    if deviation == 0:
        return Lattice(bits, torch.ones(1, 1), codebook=torch.full((2**bits,), mean))
    # log p(w) = −(w − μ)² / 2σ² − log σ − ½ log 2π, so a threshold on it is a distance from the mean.
    room = -threshold - math.log(deviation) - 0.5 * math.log(2 * math.pi)
    reach = deviation * math.sqrt(2 * room) if room > 0 else 0.0
    far = (flat - mean).abs() > reach
    if room <= 0 or float(far.float().mean()) > 0.1:
        far = (flat - mean).abs() > 3 * deviation  # a wide matrix has densities below the threshold everywhere
    ranked = torch.from_numpy(np.sort(flat[~far].numpy()))  # several times as fast as torch's
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), ranked.double().cumsum(0)])
    edges = torch.linspace(0, len(ranked), 2**bits + 1).round().long()
    book, best, error = None, torch.zeros(0), math.inf
    for _ in range(_GOBO_ROUNDS):
        counts = edges.diff()
        means = (sums[edges[1:]] - sums[edges[:-1]]) / counts.clamp(min=1)
        # An empty bin keeps its old place.
        book = means if book is None else torch.where(counts > 0, means, book)
        now = _mean_error(sums, edges, book, ranked)
        if now >= error:
            break
        best, error = book, now
        middles = ((book[1:] + book[:-1]) / 2).float()
        inner = torch.searchsorted(ranked, middles)
        edges = torch.cat([edges[:1], inner, edges[-1:]])
    codebook = best.float().sort().values
    return Lattice(bits, torch.ones(1, 1), codebook=codebook, outliers=far.nonzero().view(-1))


def _mean_error(sums: Tensor, edges: Tensor, book: Tensor, ranked: Tensor) -> float:
    """Mean |w − mean of its bin| from running sums: below the mean count minus, above it plus."""
    middle = torch.maximum(torch.minimum(torch.searchsorted(ranked, book.float()), edges[1:]), edges[:-1])
    below = (middle - edges[:-1]) * book - (sums[middle] - sums[edges[:-1]])
    above = (sums[edges[1:]] - sums[middle]) - (edges[1:] - middle) * book
    return float((below + above).sum()) / max(1, len(ranked))


def fit_binary(weight: Tensor) -> Lattice:
    """±α for each row of a matrix (out, in)."""
    alpha = weight.float().abs().mean(1, keepdim=True).half().float()
    return Lattice(1, alpha, codebook=SIGNS)
