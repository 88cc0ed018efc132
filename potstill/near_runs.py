"""Runs and students that lie about here, for whoever mistyped the name of one."""

from __future__ import annotations

import contextlib
from difflib import get_close_matches
from pathlib import Path

from potstill.errors import UserError

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


def no_run(folder: Path, lacks: str = "task/task.json") -> UserError:
    """What to raise where a folder that was given as a run is none: why, and the run that was meant or what to do.

    Args:
        folder: As it was given.
        lacks: What the folder would hold if it were a run.
    """
    return UserError(f"no run at {folder}: {_why(folder, lacks, 'make one with: potstill run TASK')}")


def no_student(folder: Path) -> UserError:
    """The same where a student was looked for, in a run or in a folder of its own."""
    if (folder / "task" / "task.json").is_file():
        why = f"the run has not trained it yet; see: potstill status {folder}"
    else:
        why = _why(folder, "config.json", "give a finished run, a folder of potstill load, or a model's folder")
    return UserError(f"no student at {folder}: {why}")


def _why(folder: Path, lacks: str, mend: str) -> str:
    if folder.is_dir():
        return f"it holds no {lacks}; {mend}"
    if folder.exists():
        return f"it is a file; {mend}"
    near = near_run(str(folder))
    return f"there is no such folder; did you mean {near!r}?" if near else f"there is no such folder; {mend}"
