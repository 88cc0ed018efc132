"""How fast weights go: all at once, or along a cubic while the student learns. No library is loaded here.

    s_t = s · (1 − (1 − t/n)³)        after step t of n

Source: Zhu and Gupta, To prune, or not to prune, arXiv:1710.01878 §3.
"""

from __future__ import annotations

from typing import Literal

Schedule = Literal["once", "cubic"]


def cubic(share: float, step: int, steps: int) -> float:
    """Share of zeros after a step, from 0 to `share`.

    Examples:
        >>> [round(cubic(0.8, step, 4), 2) for step in range(5)]
        [0.0, 0.46, 0.7, 0.79, 0.8]
    """
    return share * (1 - (1 - step / steps) ** 3)


def schedule_faults(
    schedule: str, pattern: str | None = None, steps: int | None = None, learning_rate: float | None = None
) -> list[str]:
    """What does not go together with a schedule."""
    if schedule != "once":
        return [] if pattern is None else [f"pattern {pattern} cannot come bit by bit; leave out schedule={schedule}"]
    return [
        f"{name}={value:g} is of the learning while weights go; add schedule=cubic, or leave it out"
        for name, value in (("steps", steps), ("learning_rate", learning_rate))
        if value is not None
    ]
