"""Folders that are put in place whole: who reads one finds all of the old one or all of the new one.

A new folder is written beside the place, put on disk, and only then renamed into it; the old one is renamed aside
before and deleted after. A process that is killed between the two renames leaves the old folder whole as
`.NAME.before`, and the next replacement puts it back first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path


class PassingFolder:
    """A temporary folder that is there for as long as somebody holds this object, or until `cleanup`.

    As `tempfile.TemporaryDirectory`, which warns where its holder ends without a word: this one is meant to.

    Attributes:
        name: Its path.
    """

    def __init__(self) -> None:
        self.name = tempfile.mkdtemp(prefix="potstill-")
        self._end = weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)

    def cleanup(self) -> None:
        """Remove the folder now."""
        self._end()


@contextlib.contextmanager
def written_whole(final: Path) -> Iterator[Path]:
    """An empty folder to write into, which becomes `final` at the end; where an error comes first, `final` stays."""
    final.parent.mkdir(parents=True, exist_ok=True)
    ready = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        ready.chmod(0o755)
        yield ready
        replace_folder(ready, final)
    finally:
        shutil.rmtree(ready, ignore_errors=True)


def replace_folder(ready: Path, final: Path) -> None:
    """Put a folder that is complete into the place of another, or where nothing is yet.

    Args:
        ready: The new folder, on the same file system.
        final: Its place.

    Raises:
        OSError: The disk is full, or a folder cannot be renamed; `final` is what it was then.
    """
    fsync_tree(ready)
    aside = final.with_name(f".{final.name}.before")
    if os.path.lexists(aside):
        if os.path.lexists(final):
            _delete(aside)
        else:
            os.replace(aside, final)
    old = os.path.lexists(final)
    if old:
        os.replace(final, aside)
    try:
        os.replace(ready, final)
    except OSError:
        if old:
            os.replace(aside, final)
        raise
    fsync_folder(final.parent)
    if old:
        _delete(aside)


def _delete(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def fsync_folder(folder: Path) -> None:
    """Put the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Put all that is in a folder on disk."""
    for root, _, files in os.walk(folder):
        for name in files:
            with open(os.path.join(root, name), "rb") as file:
                os.fsync(file.fileno())
        fsync_folder(Path(root))
