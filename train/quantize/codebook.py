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

from potstill.errors import TrainingError
from potstill.train.quantize.lattice import Lattice

NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip
SIGNS = torch.tensor([-1.0, 1.0])
SCALES_A_BLOCK = 256
_GOBO_ROUNDS = 20
_STEPS = 1 << 16
_CACHED = 1 << 17


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

    The weights inside the threshold are counted in 65,536 even steps of its reach; a bin is then a stretch of steps,
    its mean a difference of running sums. A step is 0.0001 deviations wide, a bin of 4 bits a thousand times that.

    Args:
        weight: (out, in) float.
        bits: 2 to 4 in the paper; up to 8 here.
        threshold: Log density of the fitted normal distribution below which a weight is an outlier.

    Raises:
        TrainingError: Weights that are not finite.
    """
    flat = weight.detach().reshape(-1).float()
    mean, deviation = _moments(flat)
    if not math.isfinite(deviation):
        shape = " x ".join(map(str, weight.shape))
        raise TrainingError(f"a matrix of {shape} holds weights that are not finite, so it has no bins; train it again")
    if deviation == 0:
        return Lattice(bits, torch.ones(1, 1), codebook=torch.full((2**bits,), mean))
    # log p(w) = −(w − μ)² / 2σ² − log σ − ½ log 2π, so a threshold on it is a distance from the mean.
    room = -threshold - math.log(deviation) - 0.5 * math.log(2 * math.pi)
    reach = deviation * math.sqrt(2 * room) if room > 0 else 0.0
    far = _beyond(flat, mean, reach) if room > 0 else None
    if far is None or len(far) > 0.1 * len(flat):
        reach = 3 * deviation  # a wide matrix has densities below the threshold everywhere
        far = _beyond(flat, mean, reach)
    counts = _counted(flat, far, mean, reach)
    steps = (torch.arange(_STEPS, dtype=torch.float64) + 0.5) * (2 * reach / _STEPS) - reach
    codebook = (_bin_means(steps, counts, 2**bits) + mean).float().sort().values
    return Lattice(bits, torch.ones(1, 1), codebook=codebook, outliers=far)


def _parts(flat: Tensor) -> list[Tensor]:
    """A vector in parts that stay in a core's cache through all passes over them."""
    return [flat[start : start + _CACHED] for start in range(0, len(flat), _CACHED)]


def _moments(flat: Tensor) -> tuple[float, float]:
    """Mean and standard deviation, in one pass: (n,) float32."""
    # Sums of distances from a weight in the middle: they lose no digits, and of equal weights they are 0.
    middle = float(flat[:: max(1, len(flat) // 1000)].median())
    total = squares = 0.0
    for part in _parts(flat):
        apart = part - middle
        total += float(apart.sum())
        squares += float(apart.dot(apart))
    spread = squares - total * total / len(flat)
    if spread < 0:  # by rounding; what is not a number stays so
        spread = 0.0
    return middle + total / len(flat), math.sqrt(spread / max(1, len(flat) - 1))


def _beyond(flat: Tensor, mean: float, reach: float) -> Tensor:
    """Places of the weights that lie further from the mean: (n,) float32 -> (outliers,) int64, ascending."""
    limit = np.float32(reach)  # numpy compares and finds places several times as fast as torch
    found = [
        np.flatnonzero(np.greater((part - mean).abs_().numpy(), limit)) + i * _CACHED
        for i, part in enumerate(_parts(flat))
    ]
    return torch.from_numpy(np.concatenate(found))


def _counted(flat: Tensor, far: Tensor, mean: float, reach: float) -> Tensor:
    """How many weights lie in each of `_STEPS` even steps around the mean, outliers left out: (steps,) int64."""
    places = torch.empty(len(flat), dtype=torch.int32)
    for part, place in zip(_parts(flat), _parts(places), strict=True):
        # Copied to integers, a number loses its fraction.
        place.copy_((part - (mean - reach)).mul_(_STEPS / (2 * reach)).clamp_(0, _STEPS - 1))
    counts = torch.bincount(places, minlength=_STEPS)
    return counts - torch.bincount(places[far], minlength=_STEPS)


def _bin_means(steps: Tensor, counts: Tensor, bins: int) -> Tensor:
    """Bins of equal population, refined (assign, average) until the mean absolute error stops falling: their means.

    A bin is a stretch of the ranks of all values; the first bins may part values that are equal.

    Args:
        steps: (n,) float64, ascending values.
        counts: (n,) int64, how often each occurs.
        bins: How many.

    Returns:
        (bins,) float64.
    """
    number = torch.cat([torch.zeros(1, dtype=torch.float64), counts.double().cumsum(0)])  # of values below each step
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), (counts * steps).cumsum(0)])

    def sum_below(ranks: Tensor) -> Tensor:
        """Sum of the lowest values, as many as each rank says."""
        last = torch.searchsorted(number, ranks)
        return sums[last] - (number[last] - ranks) * steps[(last - 1).clamp(min=0)]

    edges = torch.linspace(0, float(number[-1]), bins + 1, dtype=torch.float64).round()
    book, best, error = None, torch.empty(0), math.inf
    for _ in range(_GOBO_ROUNDS):
        held, below = edges.diff(), sum_below(edges)
        means = below.diff() / held.clamp(min=1)
        # An empty bin keeps its old place.
        book = means if book is None else torch.where(held > 0, means, book)
        # Mean |w − mean of its bin|: below the mean count minus, above it plus.
        middle = torch.maximum(torch.minimum(number[torch.searchsorted(steps, book)], edges[1:]), edges[:-1])
        half = sum_below(middle)
        under = (middle - edges[:-1]) * book - (half - below[:-1])
        over = (below[1:] - half) - (edges[1:] - middle) * book
        now = float((under + over).sum())
        if now >= error:
            break
        best, error = book, now
        inner = number[torch.searchsorted(steps, (book[1:] + book[:-1]) / 2)]
        edges = torch.cat([edges[:1], inner, edges[-1:]])
    return best


def fit_binary(weight: Tensor) -> Lattice:
    """±α for each row of a matrix (out, in).

    Examples:
        >>> fit_binary(torch.tensor([[0.5, -1.0, 0.25, -0.25]])).scale.item()
        0.5
    """
    alpha = weight.float().abs().mean(1, keepdim=True).half().float()
    return Lattice(1, alpha, codebook=SIGNS)
