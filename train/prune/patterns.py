"""Patterns of zeros: of every m weights of a row n stay. No library is loaded here."""

from __future__ import annotations

import re


def n_of_m(pattern: str) -> tuple[int, int]:
    """How many weights stay, and of how many.

    Raises:
        ValueError: It is not written as `2:4`, or keeps none or all.

    Examples:
        >>> n_of_m("2:4")
        (2, 4)
    """
    found = re.fullmatch(r"(\d+):(\d+)", pattern)
    if found is None or not 0 < int(found[1]) < int(found[2]):
        raise ValueError(f"pattern {pattern!r} is not n:m with 0 < n < m; write 2:4 to keep 2 of every 4")
    return int(found[1]), int(found[2])


def pattern_faults(pattern: str, share: float, scope: str = "layer") -> list[str]:
    """What does not go together with a pattern: another share, or a scope beyond the row.

    Raises:
        ValueError: As `n_of_m`.
    """
    n, m = n_of_m(pattern)
    faults = []
    if abs(1 - n / m - share) > 1e-6:
        faults.append(f"pattern {pattern} removes {1 - n / m:g} and {share:g} was asked; give the same")
    if scope != "layer":
        faults.append(f"pattern {pattern} holds in every row; leave out scope={scope}")
    return faults
