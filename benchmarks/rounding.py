"""How many weights a second each grid rounds, beside the search and the sort that its definition would need.

    python benchmarks/rounding.py [--threads 1,2] [--repeats 9]

`round` is what a recipe pays: the scales are fitted to the matrix and every weight gets its code; `read` turns codes
into values again. `plain` rounds by the textbook: every middle between two values searched for each weight, and for
GOBO a sort of all weights for its bins. Figures are medians in millions of weights a second, in this process, on a
matrix as wide as SmolLM2-135M's. One thread is timed by the processor's clock, which other programs do not move; two
by the wall's, so leave the machine to it. `clip=mse` tries 20 ranges for each scale.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from results_file import merge_results, print_table, read_results

if TYPE_CHECKING:
    from torch import Tensor

    from potstill.train.quantize.schemes import Scheme

SHAPE = (8_192, 576)


def main() -> None:
    """Measure every grid and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    import torch

    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * 0.05
    for threads in map(int, args.threads.split(",")):
        torch.set_num_threads(threads)
        records = [measure(scheme, weight, threads, args.repeats) for scheme in schemes()]
        merge_results("rounding", records, ("grid", "threads"))
    print_table(read_results("rounding"))


def schemes() -> list[Scheme]:
    """The grids that only round, and the one that searches."""
    from potstill.train.quantize.schemes import Scheme

    return [
        Scheme("absmax", 8, scope="tensor"),
        Scheme("absmax", 8),
        Scheme("absmax", 8, scope="column"),
        Scheme("absmax", 8, symmetric=False),
        Scheme("absmax", 4, scope="group"),
        Scheme("absmax", 3, scope="group"),
        Scheme("nf4", 4),
        Scheme("gobo", 4),
        Scheme("gobo", 3),
        Scheme("binary", 1),
        Scheme("absmax", 4, scope="group", group=32, clip="mse"),
    ]


def measure(scheme: Scheme, weight: Tensor, threads: int, repeats: int) -> dict[str, Any]:
    """Speeds of one grid."""
    rounded = scheme.quantize(weight)
    speeds = {
        "round": median_speed(lambda: scheme.quantize(weight), weight.numel(), repeats, threads),
        "read": median_speed(rounded.values, weight.numel(), repeats, threads),
        "plain": None
        if scheme.clip == "mse"
        else median_speed(lambda: plainly(scheme, weight), weight.numel(), 3, threads),
    }
    title = scheme.title + (",clip=mse" if scheme.clip == "mse" else "")
    return {
        "grid": title,
        "threads": threads,
        **{f"{name}_m_per_s": value and round(value) for name, value in speeds.items()},
    }


def plainly(scheme: Scheme, weight: Tensor) -> Tensor:
    """Codes by the textbook."""
    import torch

    if scheme.family == "gobo":
        weight.reshape(-1).sort()
    lattice = scheme.fit(weight)
    scale = lattice.scale.repeat_interleave(lattice.group, 1) if lattice.group else lattice.scale
    scaled = weight / scale
    if lattice.codebook is not None:
        return torch.bucketize(scaled, (lattice.codebook[1:] + lattice.codebook[:-1]) / 2).to(torch.uint8)
    assert lattice.zero is not None
    zero = lattice.zero.repeat_interleave(lattice.group, 1) if lattice.group else lattice.zero
    return (scaled.round() + zero).clamp(lattice.low, 2**lattice.bits - 1).to(torch.uint8)


def median_speed(work: Callable[[], object], weights: int, repeats: int, threads: int) -> float:
    """Millions of weights a second."""
    clock = time.process_time if threads == 1 else time.perf_counter
    work()
    seconds = []
    for _ in range(repeats):
        started = clock()
        work()
        seconds.append(clock() - started)
    return weights / statistics.median(seconds) / 1e6


if __name__ == "__main__":
    main()
