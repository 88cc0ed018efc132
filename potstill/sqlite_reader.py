"""SQLite files opened to be read, and for nothing else."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def reader_of(path: Path, timeout_s: float = 30, *, any_thread: bool = False) -> sqlite3.Connection:
    """A connection that reads a database and cannot change it, nor make one where there is none.

    The path becomes a URI by its own escape: `#` and `?` in a folder's name would end it, and SQLite would then make a
    file of the shorter name.

    Args:
        path: Its file.
        timeout_s: How long to wait for another process that writes.
        any_thread: Whether another thread than this one may close it.

    Raises:
        sqlite3.Error: There is none, or it cannot be opened.
    """
    uri = f"{path.resolve().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=timeout_s, check_same_thread=not any_thread)
