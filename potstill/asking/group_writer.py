"""One thread that writes to an SQLite file, all that waits in one commit.

What enters: statements, from any thread. What leaves: a future for each, done once the statement is on disk. A commit
waits for the disk; what arrives meanwhile goes into the next one, so many statements take few commits. Nobody waits for
ever: a bad statement fails alone, and what ends the thread fails all that is queued and all that comes later.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from potstill.errors import DataError, LedgerError, PotstillError

_Item = tuple[str, tuple[Any, ...], Future[None]]


class GroupWriter:
    """The writing thread of a ledger.

    Args:
        path: The file, for messages.
        connect: Opens it; called in the thread.
    """

    def __init__(self, path: Path, connect: Callable[[], sqlite3.Connection]):
        self.path = path
        self._connect = connect
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._broken: LedgerError | None = None
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def put(self, statement: str, values: tuple[Any, ...]) -> Future[None]:
        """Queue a statement; the future holds a LedgerError or DataError where it could not be written."""
        done: Future[None] = Future()
        self._queue.put((statement, values, done))
        if self._broken is not None:  # the thread may have ended before this came
            self._refuse(self._broken)
        return done

    def close(self) -> None:
        """Write what is queued and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        group: list[_Item] = []
        try:
            self._write(self._connect(), group)
        except Exception as error:
            self._broken = LedgerError(
                f"the ledger {self.path} is written no more ({error}); see that its folder is there and that no limit "
                "on open files is reached, and run again: what was written is kept"
            )
            for *_, done in group:
                if not done.done():
                    done.set_exception(self._broken)
            self._refuse(self._broken)

    def _refuse(self, problem: LedgerError) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                if item is not None:
                    item[2].set_exception(problem)

    def _write(self, connection: sqlite3.Connection, group: list[_Item]) -> None:
        """Commit what comes until the end mark; `group` is what is being committed."""
        open_ = True
        while open_:
            group.clear()
            item = self._queue.get()
            while item is not None:
                group.append(item)
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            else:
                open_ = False
            if not group:
                continue
            problem = self.commit(connection, [item[:2] for item in group])
            if problem is None:
                for *_, done in group:
                    done.set_result(None)
                continue
            # A single bad item must not take the others with it, nor end this thread.
            for statement, values, done in group:
                problem = self.commit(connection, [(statement, values)])
                if problem is None:
                    done.set_result(None)
                else:
                    done.set_exception(problem)

    def commit(
        self, connection: sqlite3.Connection, group: Sequence[tuple[str, tuple[Any, ...]]]
    ) -> PotstillError | None:
        """Write statements together; the reason where that failed, and then none of them is written."""
        try:
            for statement, values in group:
                connection.execute(statement, values)
            connection.commit()
        except sqlite3.OperationalError as error:
            connection.rollback()
            return LedgerError(
                f"the ledger {self.path} cannot be written ({error}); free disk space, see that no other process "
                "writes it, and run again"
            )
        except Exception as error:
            connection.rollback()
            return DataError(f"the ledger {self.path} refused an entry ({type(error).__name__}: {error})")
        return None
