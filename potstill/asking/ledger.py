"""Every teacher request and reply, in one SQLite file in WAL mode: what was paid for is never paid for again.

The key of a request is the sha256 of its full canonical form: the teacher's identity (backend, endpoint, model,
weights), the messages, every sampling field, the schema, the seed, the sample index. `max_tokens` is left out
of the key and checked at look-up instead: a reply that ended by itself within the new bound is still the answer, and
only a cut one is asked again (for more thinking, too). Replies under several bounds stand side by side.

A reply is stored raw, before anything parses it, so a change of parser or filter costs no tokens. Failures go to
a table of their own: they are counted and shown, and are never taken for results.

One writer thread commits in groups (everything that arrived while the last commit was being fsynced goes into
the next), with `synchronous=FULL`: a reply that `record` has confirmed survives kill -9 and power loss. Rows are
appended in order of arrival and only a narrow index is ordered by key, so that writes stay sequential when the
file holds millions of replies.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from potstill.asking.counts import ADD_CACHED, CACHED_TABLE, Asked, asked_of, has_column
from potstill.asking.group_writer import GroupWriter
from potstill.errors import DataError, LedgerError
from potstill.sqlite_reader import reader_of

_SCHEMA = f"""
{CACHED_TABLE}
CREATE TABLE IF NOT EXISTS replies (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
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
    at REAL NOT NULL,
    sum INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS replies_key ON replies (key, max_tokens);
CREATE TABLE IF NOT EXISTS failures (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, purpose TEXT NOT NULL, teacher TEXT NOT NULL,
    reason TEXT NOT NULL, attempts INTEGER NOT NULL, at REAL NOT NULL,
    prompt_tokens INTEGER NOT NULL DEFAULT 0, completion_tokens INTEGER NOT NULL DEFAULT 0
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
        self._connections: list[sqlite3.Connection] = []
        self._writer: GroupWriter | None = None
        self._read_only = read_only
        try:
            if not read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = self._connect()
            if not read_only:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.executescript(_SCHEMA)
                # A ledger of an earlier version.
                if not has_column(connection, "replies", "sum"):
                    connection.execute("ALTER TABLE replies ADD COLUMN sum INTEGER")
                if not has_column(connection, "failures", "prompt_tokens"):
                    for name in ("prompt_tokens", "completion_tokens"):
                        connection.execute(f"ALTER TABLE failures ADD COLUMN {name} INTEGER NOT NULL DEFAULT 0")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != _VERSION and (read_only or version != 0):
                raise DataError(f"{self.path} is a ledger of version {version}, this potstill reads {_VERSION}")
            if not read_only:
                connection.execute(f"PRAGMA user_version={_VERSION}")
                connection.commit()
        except sqlite3.OperationalError as error:
            self._close_connections()
            raise DataError(
                f"the ledger {self.path} cannot be opened ({error}); check that the folder exists, may be written "
                "and is in use by no other process"
            ) from None
        except sqlite3.DatabaseError as error:
            self._close_connections()
            raise DataError(f"{self.path} is not a readable ledger ({error}); move it away and run again") from None
        if not read_only:
            self._writer = GroupWriter(self.path, self._connect)

    def _connect(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            # One connection a thread; the flag only lets `close` end those of threads that are gone.
            if self._read_only:
                connection = reader_of(self.path, any_thread=True)
            else:
                connection = sqlite3.connect(self.path, timeout=30, check_same_thread=False)
                connection.execute("PRAGMA synchronous=FULL")
            self._local.connection = connection
            self._connections.append(connection)
        return connection

    def _close_connections(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._local = threading.local()

    def find(self, key: str, max_tokens: int, thinking_tokens: int = 0) -> Entry | None:
        """The stored reply for a key, unless it was cut by another bound than `max_tokens` and `thinking_tokens` give.

        A complete reply that is longer than `max_tokens` does not answer the request either, nor does a damaged one;
        but one that came under this bound or a lower one does, whatever its server counts: some add what the model
        thought, and some know no bound.
        """
        row = (
            self._connect()
            .execute(
                f"SELECT {_COLUMNS} FROM replies WHERE key = ? AND "
                "((finish = 'length' AND max_tokens = ?) OR "
                "(finish != 'length' AND MIN(completion_tokens, max_tokens) <= ?)) "
                "ORDER BY finish = 'length', id LIMIT 1",
                (key, max_tokens + thinking_tokens, max_tokens),
            )
            .fetchone()
        )
        try:
            return None if row is None else _entry(row)
        except DataError:  # asked again, and replaced by what comes
            return None

    def get(self, key: str) -> Entry | None:
        """The stored reply for a key, whatever its length: a complete one before a truncated, the longest of those.

        Raises:
            DataError: The stored reply is damaged.
        """
        row = (
            self._connect()
            .execute(
                f"SELECT {_COLUMNS} FROM replies WHERE key = ? "
                "ORDER BY finish = 'length', completion_tokens DESC, id LIMIT 1",
                (key,),
            )
            .fetchone()
        )
        return None if row is None else _entry(row)

    def first(self, key: str) -> Entry | None:
        """The reply that came first for a key, cut or whole.

        Raises:
            DataError: The stored reply is damaged.
        """
        row = (
            self._connect()
            .execute(f"SELECT {_COLUMNS} FROM replies WHERE key = ? ORDER BY id LIMIT 1", (key,))
            .fetchone()
        )
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
        """Store a reply; `max_tokens` of a cut one is all that cut it, what it might think for included.

        The future is done when the reply is on disk; wait for it before using the reply.
        """
        row = (
            key, purpose, teacher, _blob(request), _blob(reply), finish, max_tokens,
            prompt_tokens, completion_tokens, attempts, seconds, time.time(),
        )  # fmt: skip
        marks = ",".join("?" * (len(row) + 1))
        return self._put(f"INSERT OR REPLACE INTO replies ({_COLUMNS}, sum) VALUES ({marks})", (*row, _row_sum(row)))

    def record_failure(
        self,
        key: str,
        *,
        purpose: str,
        teacher: str,
        reason: str,
        attempts: int,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
    ) -> Future[None]:
        """Note a request that got no reply, and what it cost all the same."""
        reason = reason.encode("utf-8", "replace").decode()
        return self._put(
            "INSERT INTO failures (key, purpose, teacher, reason, attempts, at, prompt_tokens, completion_tokens) "
            "VALUES (?,?,?,?,?,?,?,?)",
            (key, purpose, teacher, reason, attempts, time.time(), prompt_tokens, completion_tokens),
        )

    def entries(self, purpose: str | None = None) -> Iterator[Entry]:
        """All stored replies, or those of one purpose, oldest first."""
        where, values = ("WHERE purpose = ?", (purpose,)) if purpose else ("", ())
        for row in self._connect().execute(f"SELECT {_COLUMNS} FROM replies {where} ORDER BY id", values):
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

    def spent(self) -> dict[str, tuple[int, int]]:
        """Prompt and completion tokens of all replies and failures, by the teacher's name."""
        columns = "teacher, prompt_tokens, completion_tokens"
        found = self._connect().execute(
            "SELECT teacher, SUM(prompt_tokens), SUM(completion_tokens) FROM "
            f"(SELECT {columns} FROM replies UNION ALL SELECT {columns} FROM failures) GROUP BY teacher"
        )
        return {name: (prompt, completion) for name, prompt, completion in found}

    def count_cached(self, purpose: str, answers: int) -> None:
        """Note answers that cost nothing; what is noted is on disk when the ledger is closed."""
        self._put(ADD_CACHED, (purpose, answers))

    def asked(self) -> dict[str, Asked]:
        """What was asked in all calls of the run, by purpose."""
        if not self._read_only:
            self._put("SELECT 1", ()).result()  # what is queued comes first
        return asked_of(self._connect())

    def close(self) -> None:
        """Write what is queued and close."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._close_connections()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _put(self, statement: str, values: tuple[Any, ...]) -> Future[None]:
        if self._writer is None:
            raise LedgerError(f"{self.path} is closed or open for reading only")
        return self._writer.put(statement, values)


_MOST_BYTES = 1 << 28
_COLUMNS = (
    "key, purpose, teacher, request, reply, finish, max_tokens, prompt_tokens, completion_tokens, attempts, seconds, at"
)


def _row_sum(row: tuple[Any, ...]) -> int:
    """CRC-32 over every column, so that a flipped bit shows where SQLite's own check sees none."""
    return zlib.crc32(repr(row).encode("utf-8", "surrogatepass"))


def ledger_faults(path: Path) -> tuple[list[str], int]:
    """Check a ledger: SQLite's own check, then every row's checksum, and that its request and reply can be read.

    Returns:
        The faults (at most ten rows are named), and how many rows were read.
    """
    faults: list[str] = []
    count = bad = 0
    connection = reader_of(path)
    try:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            return [f"{path.name}: SQLite finds {'; '.join(found)}"], 0
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != _VERSION:
            return [f"{path.name}: of version {version}, this potstill reads {_VERSION}"], 0
        sums = "sum" if has_column(connection, "replies", "sum") else "NULL"
        for number, stored, *row in connection.execute(f"SELECT id, {sums}, {_COLUMNS} FROM replies"):
            count += 1
            problem = _row_problem(tuple(row), stored)
            if problem:
                bad += 1
                if bad <= 10:
                    faults.append(f"{path.name}: reply {number} {problem}")
        if bad > 10:
            faults.append(f"{path.name}: {bad - 10} more replies like these")
    except (sqlite3.Error, UnicodeDecodeError) as error:
        faults.append(f"{path.name}: cannot be read ({error})")
    finally:
        connection.close()
    return faults, count


def _row_problem(row: tuple[Any, ...], stored: int | None) -> str:
    if stored is not None and stored != _row_sum(row):
        return "differs from its checksum"
    try:
        entry = _entry(row)
        if not isinstance(entry.request, dict) or not isinstance(entry.reply, dict) or len(entry.key) == 0:
            return "holds no request and reply"
        if min(int(value) for value in row[6:10]) < 0:
            return "has a negative count"
    except DataError:
        return "cannot be read"
    except (ValueError, TypeError) as error:
        return f"holds no numbers where they should be ({type(error).__name__})"
    return ""


def _entry(row: tuple[Any, ...]) -> Entry:
    try:
        return Entry(row[0], row[1], row[2], _unblob(row[3]), _unblob(row[4]), *row[5:])
    except (zstandard.ZstdError, ValueError, TypeError) as error:
        raise DataError(
            f"the ledger's entry {row[0]!s:.12} cannot be read ({type(error).__name__}: {error}); "
            "`potstill verify RUN` lists what is damaged"
        ) from error


def _blob(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return zstandard.compress(text.encode("utf-8", "surrogatepass"), 3)


def _unblob(blob: bytes) -> dict[str, Any]:
    # A frame's head says how much memory to take before anything is read; a flipped bit makes that exabytes.
    size = zstandard.frame_content_size(blob)
    if not 0 <= size <= _MOST_BYTES:
        raise ValueError(f"a stored text of {size} bytes; at most {_MOST_BYTES} are read")
    text = zstandard.ZstdDecompressor().decompress(blob)
    value: dict[str, Any] = json.loads(text.decode("utf-8", "surrogatepass"))
    return value
