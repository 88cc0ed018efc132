"""The suite `load` of `torture.py`: `potstill serve` under clients that never pause, few and then too many.

A MiniLM student is served by the real command on the loopback. Each client is a thread with a connection of its own
that sends one text, waits for the answer and sends the next. `few` clients are to be answered, all of them; of `many`,
those beyond the server's room are to be told to come back (503 with Retry-After), while its memory stays what it was.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from torture_runs import TASK

_TEXTS = [f"Where is parcel number {i} that I ordered {i % 9 + 1} weeks ago?" for i in range(500)]
_GROWTH_MIB = 64


@dataclass
class _Heard:
    """What clients heard: milliseconds of answers, refusals, and anything else."""

    answered: list[float] = field(default_factory=list)
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


def load(seconds: float, place: Path, few: int = 8, many: int = 200) -> list[dict[str, Any]]:
    """Both loads, `seconds` each."""
    server, port = _serve(_student(place))
    try:
        process = psutil.Process(server.pid)
        _clients(port, few, min(2.0, seconds))
        records = []
        for count, what in (
            (few, "clients, all answered"),
            (many, "clients, refused in place of growth"),
        ):
            before = process.memory_info().rss
            cpu = sum(process.cpu_times()[:2])
            heard = _clients(port, count, seconds)
            grown = (process.memory_info().rss - before) / 2**20
            wrong = list(heard.wrong)
            if grown > _GROWTH_MIB:
                wrong.append(f"memory grew by {grown:.0f} MiB")
            if count == few and heard.refused:
                wrong.append(f"{heard.refused} refused")
            if count == many and not (heard.refused and heard.answered):
                wrong.append(f"{len(heard.answered)} answered, {heard.refused} refused")
            times = sorted(heard.answered)
            records.append(
                {
                    "suite": "load", "what": f"serve, {count} {what}", "count": len(times) + heard.refused,
                    "bad": len(wrong), "answered": len(times), "refused": heard.refused,
                    "p50_ms": round(times[len(times) // 2], 1) if times else None,
                    "p99_ms": round(times[len(times) * 99 // 100], 1) if times else None,
                    "answers_per_s": round(len(times) / seconds, 1),
                    "cpu_s": round(sum(process.cpu_times()[:2]) - cpu, 1),
                    "rss_mib": round(process.memory_info().rss / 2**20), "grown_mib": round(grown, 1),
                    "which": wrong[:3] or None,
                }
            )  # fmt: skip
        return records
    finally:
        server.terminate()
        server.wait(30)


def _student(place: Path) -> Path:
    import potstill

    task, run = place / "served.md", place / "served"
    task.write_text(TASK.replace("test: {path: test.jsonl, inputs: [text], output: label}\n", ""))
    potstill.run(
        str(task), out=run, teacher="fake", n=36, listener=lambda event: None, sources="generated",
        distil={"epochs": 1, "min_steps": 4},
    )  # fmt: skip
    return run


def _serve(run: Path) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "potstill.cli.app", "serve", str(run), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    found = re.search(r":(\d+)/", line)
    if found is None:
        server.kill()
        raise SystemExit(f"potstill serve does not start: {line!r}")
    return server, int(found[1])


def _clients(port: int, count: int, seconds: float) -> _Heard:
    heard, lock = _Heard(), threading.Lock()
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=_client, args=(port, i, until, heard, lock)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return heard


def _client(port: int, number: int, until: float, heard: _Heard, lock: threading.Lock) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    turn = number
    while time.monotonic() < until:
        turn += 7
        body = json.dumps({"inputs": [_TEXTS[turn % len(_TEXTS)]]})
        started = time.monotonic()
        try:
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            told = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            with lock:
                heard.wrong.append(f"{type(error).__name__}: {error}")
            connection.close()
            continue
        with lock:
            if response.status == 200 and len(told["predictions"]) == 1:
                heard.answered.append(1000 * (time.monotonic() - started))
            elif response.status == 503 and response.getheader("Retry-After"):
                heard.refused += 1
            else:
                heard.wrong.append(f"{response.status}: {told!s:.200}")
        if response.status == 503:
            time.sleep(0.1)
    connection.close()
