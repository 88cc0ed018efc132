"""Where a compressed student may be written: a folder is put in place whole, so it must hold nothing of anybody else.

What enters: the folder that was asked for, and the student. What leaves: the reason why it may not be replaced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from potstill.errors import OptionError
from potstill.run_dir import MANIFEST, RunDir

FACTS = "compression.json"
_OF_A_ZOO = {"all", "best", "report.json", "report.md", "report.svg"}


def check_place(out: Path, source: Path | str, *, zoo: bool = False) -> None:
    """Refuse a folder whose content a compression would take away.

    Args:
        out: Where the student, or the zoo, is to be written.
        source: Folder of the student that is compressed, or a model's name.
        zoo: Whether a whole zoo is written there.

    Raises:
        OptionError: It is the student's own folder or one around it, holds files that no compression wrote, lies in
            a stage of a run, or is a file.
    """
    if fault := _fault(out, Path(source), zoo):
        raise OptionError("out", [f"{fault}; give another folder"])


def _fault(out: Path, source: Path, zoo: bool) -> str:
    place, student = out.resolve(), source.resolve()
    if place == student:
        return f"{out} is the student itself, which is never changed"
    if source.exists() and student.is_relative_to(place):
        return f"{out} holds the student that is compressed, which is never changed"
    if stage := next((folder for folder in (place, *place.parents) if (folder / MANIFEST).is_file()), None):
        return f"{out} lies in a stage of a run ({stage}), whose files are sealed"
    if place.exists() and not place.is_dir():
        return f"{out} is a file"
    names = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
    foreign = [name for name in names if name not in _OF_A_ZOO] if zoo else names if FACTS not in names else []
    if foreign:
        shown = ", ".join(foreign[:3]) + (", …" if foreign[3:] else "")
        return f"{out} holds files that no compression wrote ({shown})"
    return ""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """A folder of unfinished work, for this process alone; what held it is not left in a stage that is sealed.

    Raises:
        RunLocked: Another live process holds it.
    """
    with RunDir(folder).lock():
        try:
            yield
        finally:
            (folder / ".lock").unlink(missing_ok=True)
