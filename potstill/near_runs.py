"""Runs and students that lie about here, for whoever mistyped the name of one."""

from __future__ import annotations

import contextlib
from difflib import get_close_matches
from pathlib import Path

# What tells a run's folder, and a student's.
_MARKS = ("task/task.json", "potstill.json")
_LIKE = 0.75


def near_run(given: str) -> str | None:
    """The path of the run or student that a mistyped name most likely means, or None.

    Looked at are the folders beside what was named, those of the working directory, and those in `runs/`.

    Args:
        given: A path, or a run's name alone.
    """
    here = Path(given)
    found: dict[str, str] = {}  # by its path and by its name alone
    for place in dict.fromkeys((here.parent, Path("."), Path("runs"))):
        with contextlib.suppress(OSError):  # not there, or not ours to read
            for folder in sorted(place.iterdir()):
                if folder != here and any((folder / mark).is_file() for mark in _MARKS):
                    found.setdefault(str(folder), str(folder))
                    found.setdefault(folder.name, str(folder))
    close = get_close_matches(str(here), list(found), n=1, cutoff=_LIKE)
    return found[close[0]] if close else None
