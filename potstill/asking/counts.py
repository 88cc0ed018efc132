"""What was asked of the teachers in all calls of a run: answered from the ledger, afresh, retried, cut off, refused.

What enters is a ledger's connection. What leaves are sums by purpose over the whole life of the run folder: a call that
was killed counts with what it had stored, and a call that went on from there adds to it. Fresh replies and failures are
the ledger's own rows. Answers that cost nothing leave no row, so each call adds their number to a table of its own,
once a second: of a call that was killed, those of its last second may be missing.

The counts live in the ledger and nowhere else. They are no part of a stage's output, since a run that was killed and
went on gives the same rows as one that was not, but not the same counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

CACHED_TABLE = "CREATE TABLE IF NOT EXISTS cached (purpose TEXT PRIMARY KEY, answers INTEGER NOT NULL);"
ADD_CACHED = (
    "INSERT INTO cached (purpose, answers) VALUES (?,?) "
    "ON CONFLICT (purpose) DO UPDATE SET answers = answers + excluded.answers"
)


@dataclass
class Asked:
    """Sums over all calls of a run, of one purpose or of all; or what one asker counts as it goes.

    Attributes:
        cached: Answered by the ledger, or by an equal request in flight: paid for once.
        fresh: Replies of a teacher.
        retried: Attempts beyond the first, of replies and of failures.
        truncated: Replies cut at `max_tokens`.
        refused: Replies that the teacher's own filter stopped.
        failed: Requests that got no reply after bounded retries; one that is asked again may fail again.
        prompt_tokens: Of the replies, and of attempts that were paid for and gave nothing usable.
        completion_tokens: The same.
        seconds: From request to reply, summed over the replies; many are waited for at once.
    """

    cached: int = 0
    fresh: int = 0
    retried: int = 0
    truncated: int = 0
    refused: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        counts = (f"{getattr(self, name):,} {name}" for name in ("cached", "fresh", "retried", "truncated", "refused"))
        return ", ".join((*counts, f"{self.failed:,} failed"))


def asked_of(connection: sqlite3.Connection) -> dict[str, Asked]:
    """What a ledger counts, by purpose, in the order of their names.

    Raises:
        sqlite3.Error: The file is no ledger.
    """
    found: dict[str, dict[str, Any]] = {}
    for purpose, fresh, retried, truncated, refused, prompt, completion, seconds in connection.execute(
        "SELECT purpose, COUNT(*), SUM(MAX(attempts - 1, 0)), SUM(finish='length'), SUM(finish='refused'), "
        "SUM(prompt_tokens), SUM(completion_tokens), SUM(seconds) FROM replies GROUP BY purpose"
    ):
        found[purpose] = {
            "fresh": fresh, "retried": retried, "truncated": truncated, "refused": refused, "prompt_tokens": prompt,
            "completion_tokens": completion, "seconds": seconds,
        }  # fmt: skip
    # A ledger of an earlier version, open for reading, does not know what failures cost.
    tokens = has_column(connection, "failures", "prompt_tokens")
    sums = "SUM(prompt_tokens), SUM(completion_tokens)" if tokens else "0, 0"
    for purpose, failed, *rest in connection.execute(
        f"SELECT purpose, COUNT(*), SUM(MAX(attempts - 1, 0)), {sums} FROM failures GROUP BY purpose"
    ):
        counts = found.setdefault(purpose, {})
        counts["failed"] = failed
        for name, more in zip(("retried", "prompt_tokens", "completion_tokens"), rest, strict=True):
            counts[name] = counts.get(name, 0) + more
    # A ledger of an earlier version, open for reading, has no such table.
    if connection.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name='cached'").fetchone():
        for purpose, answers in connection.execute("SELECT purpose, answers FROM cached"):
            found.setdefault(purpose, {})["cached"] = answers
    return {purpose: Asked(**found[purpose]) for purpose in sorted(found)}


def has_column(connection: sqlite3.Connection, table: str, column: str) -> bool:
    """Whether a table of a ledger has a column; those of earlier versions lack some until they are opened to write."""
    return any(found[1] == column for found in connection.execute(f"PRAGMA table_info({table})"))


def in_all(parts: Iterable[Asked]) -> Asked:
    """The sum of several.

    Examples:
        >>> in_all([Asked(cached=2, fresh=5), Asked(fresh=1, refused=1)]).fresh
        6
    """
    every = list(parts)
    return Asked(**{item.name: sum(getattr(part, item.name) for part in every) for item in fields(Asked)})
