"""The suite `ledger` of `torture.py`: look-ups in a large ledger."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any


def ledger_size(rows: int, place: Path) -> list[dict[str, Any]]:
    """Look-ups in a ledger of that many replies, known and unknown keys, in random order."""
    import hashlib
    import sqlite3

    from potstill.asking.ledger import Ledger, _blob

    def key(number: int) -> str:
        return hashlib.sha256(str(number).encode()).hexdigest()

    path = place / "large.sqlite"
    with Ledger(path):
        pass
    blob = _blob({"messages": [["user", "Write a text for the label."]]}), _blob({"text": "some words " * 20})
    connection = sqlite3.connect(path)
    started = time.monotonic()
    connection.executemany(
        "INSERT INTO replies (key, purpose, teacher, request, reply, finish, max_tokens, prompt_tokens, "
        "completion_tokens, attempts, seconds, at) VALUES (?, 'generate', 'fake', ?, ?, 'stop', 64, 9, 40, 1, 0.1, 0)",
        ((key(i), *blob) for i in range(rows)),
    )
    connection.commit()
    connection.close()
    filled = time.monotonic() - started
    draw = random.Random(0)
    taken: list[float] = []
    wrong = 0
    with Ledger(path, read_only=True) as ledger:
        for _ in range(4000):
            number = draw.randrange(2 * rows)
            began = time.thread_time()
            found = ledger.find(key(number), 64)
            taken.append(time.thread_time() - began)
            wrong += (found is not None) != (number < rows)
    taken.sort()
    median, p99 = (1000 * taken[len(taken) * share // 100] for share in (50, 99))
    return [
        {"suite": "ledger", "what": f"look-ups among {rows:,} replies", "count": len(taken),
         "bad": wrong + (median > 1), "cpu_ms_p50": round(median, 4), "cpu_ms_p99": round(p99, 4),
         "file_mib": round(path.stat().st_size / 2**20, 1), "seconds_to_fill": round(filled, 1)}
    ]  # fmt: skip
