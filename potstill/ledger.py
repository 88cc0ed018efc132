"""Every teacher request and reply, in one SQLite file in WAL mode: what was paid for is never paid for again.

The key of a request is the sha256 of its full canonical form: the teacher's identity (backend, endpoint, model,
weights), the messages, every sampling field, the schema, the seed, the sample index. `max_tokens` is left out
of the key and checked at look-up instead: a reply that ended by itself within the new bound is still the answer,
and only a truncated one is asked again.

A reply is stored raw, before anything parses it, so a change of parser or filter costs no tokens. Failures go to
a table of their own: they are counted and shown, and are never taken for results.

One writer thread commits in groups (everything that arrived while the last commit was being fsynced goes into
the next), with `synchronous=FULL`: a reply that `record` has confirmed survives kill -9 and power loss.
"""

from __future__ import annotations

import hashlib
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from potstill.errors import DataError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,
    teacher TEXT NOT NULL,
    request BLOB NOT NULL,
    reply BLOB NOT NULL,
    finish TEXT NOT NULL,
    max_tokens INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    seconds REAL NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, purpose TEXT NOT NULL, teacher TEXT NOT NULL,
    reason TEXT NOT NULL, attempts INTEGER NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_VERSION = 1


def request_key(identity: Mapping[str, str], request: Mapping[str, Any]) -> str:
    """sha256 (hex) of a canonical request. `request` must not hold `max_tokens`."""
    text = json.dumps([dict(identity), dict(request)], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One stored reply, with its request."""

    key: str
    purpose: str
    teacher: str
    request: Mapping[str, Any]
    reply: Mapping[str, Any]
    finish: str
    max_tokens: int
    prompt_tokens: int
    completion_tokens: int
    attempts: int
    seconds: float
    at: float


@dataclass(frozen=True)
class Totals:
    """Sums over the ledger, of one purpose or of all."""

    replies: int
    truncated: int
    refused: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    attempts: int


class Ledger:
    """The ledger of one run. Safe to use from several threads; one process writes at a time (the run's lock)."""

    def __init__(self, path: Path | str, *, read_only: bool = False):
        self.path = Path(path)
        self._local = threading.local()
        self._queue: queue.SimpleQueue[tuple[str, tuple[Any, ...], Future[None]] | None] = queue.SimpleQueue()
        self._pack = zstandard.ZstdCompressor(level=3)
        self._writer: threading.Thread | None = None
        self._read_only = read_only
        try:
            connection = self._connect()
            if not read_only:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.executescript(_SCHEMA)
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version not in (0, _VERSION):
                    raise DataError(f"{self.path} is a ledger of version {version}, this potstill reads {_VERSION}")
                connection.execute(f"PRAGMA user_version={_VERSION}")
                connection.commit()
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self.path} is not a readable ledger ({error}); move it away and run again") from None
        if not read_only:
            self._writer = threading.Thread(target=self._write_loop, name="ledger", daemon=True)
            self._writer.start()

    def _connect(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            if self._read_only:
                connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=30)
            else:
                connection = sqlite3.connect(self.path, timeout=30)
                connection.execute("PRAGMA synchronous=FULL")
            self._local.connection = connection
        return connection

    def find(self, key: str, max_tokens: int) -> Entry | None:
        """The stored reply for a key, unless it was truncated by a bound smaller than `max_tokens`.

        A complete reply that is longer than `max_tokens` does not answer the request either.
        """
        row = self._connect().execute(f"SELECT {_COLUMNS} FROM replies WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        finish, stored_max, completion = row[5], row[6], row[8]
        if finish == "length" and stored_max != max_tokens:
            return None
        if finish != "length" and completion > max_tokens:
            return None
        return _entry(row)

    def get(self, key: str) -> Entry | None:
        """The stored reply for a key, whatever its length."""
        row = self._connect().execute(f"SELECT {_COLUMNS} FROM replies WHERE key = ?", (key,)).fetchone()
        return None if row is None else _entry(row)

    def record(
        self,
        key: str,
        *,
        purpose: str,
        teacher: str,
        request: Mapping[str, Any],
        reply: Mapping[str, Any],
        finish: str,
        max_tokens: int,
        prompt_tokens: int,
        completion_tokens: int,
        attempts: int = 1,
        seconds: float = 0.0,
    ) -> Future[None]:
        """Store a reply. The future is done when the reply is on disk; wait for it before using the reply."""
        row = (
            key, purpose, teacher, self._blob(request), self._blob(reply), finish, max_tokens,
            prompt_tokens, completion_tokens, attempts, seconds, time.time(),
        )  # fmt: skip
        marks = ",".join("?" * len(row))
        return self._put(f"INSERT OR REPLACE INTO replies ({_COLUMNS}) VALUES ({marks})", row)

    def record_failure(self, key: str, *, purpose: str, teacher: str, reason: str, attempts: int) -> Future[None]:
        """Note a request that got no reply."""
        return self._put(
            "INSERT INTO failures (key, purpose, teacher, reason, attempts, at) VALUES (?,?,?,?,?,?)",
            (key, purpose, teacher, reason, attempts, time.time()),
        )

    def entries(self, purpose: str | None = None) -> Iterator[Entry]:
        """All stored replies, or those of one purpose, oldest first."""
        where, values = ("WHERE purpose = ?", (purpose,)) if purpose else ("", ())
        for row in self._connect().execute(f"SELECT {_COLUMNS} FROM replies {where} ORDER BY at", values):
            yield _entry(row)

    def totals(self, purpose: str | None = None) -> Totals:
        """Sums for reports and budgets."""
        where, values = ("WHERE purpose = ?", (purpose,)) if purpose else ("", ())
        connection = self._connect()
        sums = connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(finish='length'),0), COALESCE(SUM(finish='refused'),0), "
            "COALESCE(SUM(prompt_tokens),0), COALESCE(SUM(completion_tokens),0), COALESCE(SUM(attempts),0) "
            f"FROM replies {where}",
            values,
        ).fetchone()
        failed = connection.execute(f"SELECT COUNT(*) FROM failures {where}", values).fetchone()[0]
        return Totals(sums[0], sums[1], sums[2], failed, sums[3], sums[4], sums[5])

    def close(self) -> None:
        """Write what is queued and close."""
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join()
            self._writer = None
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _blob(self, value: Mapping[str, Any]) -> bytes:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return self._pack.compress(text.encode("utf-8", "surrogatepass"))

    def _put(self, statement: str, values: tuple[Any, ...]) -> Future[None]:
        if self._writer is None:
            raise DataError(f"{self.path} is closed or open for reading only")
        done: Future[None] = Future()
        self._queue.put((statement, values, done))
        return done

    def _write_loop(self) -> None:
        connection = self._connect()
        open_ = True
        while open_:
            item = self._queue.get()
            group = []
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
            try:
                for statement, values, _ in group:
                    connection.execute(statement, values)
                connection.commit()
            except sqlite3.Error as error:
                connection.rollback()
                problem = DataError(
                    f"the ledger {self.path} cannot be written ({error}); free disk space and run again"
                )
                for _, _, done in group:
                    done.set_exception(problem)
            else:
                for _, _, done in group:
                    done.set_result(None)
        connection.close()
        self._local.connection = None


_COLUMNS = (
    "key, purpose, teacher, request, reply, finish, max_tokens, prompt_tokens, completion_tokens, attempts, seconds, at"
)


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(row[0], row[1], row[2], _unblob(row[3]), _unblob(row[4]), *row[5:])


def _unblob(blob: bytes) -> dict[str, Any]:
    text = zstandard.ZstdDecompressor().decompress(blob, max_output_size=1 << 30)
    value: dict[str, Any] = json.loads(text.decode("utf-8", "surrogatepass"))
    return value
