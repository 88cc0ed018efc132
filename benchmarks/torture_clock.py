"""The suite `clock` of `torture.py`: the wall clock jumps by hours to years, forwards and back, at every look at it."""

from __future__ import annotations

import random
import shutil
import signal
import sys
from typing import Any

from torture_runs import Runs, known, unequal


def clock(runs: Runs, count: int, seed: int) -> list[dict[str, Any]]:
    """Whole runs under a jumping clock, each killed once on its way and continued."""
    from potstill.verify import verify_run

    draw = random.Random(f"{seed} clock")
    repeated = 0
    wrong: list[str] = []
    for number in range(count):
        folder = runs.place / f"clock-{number}"
        job = {"clock": draw.randint(0, 2**31), "export": False}
        first = runs.run(folder, kill_at=draw.randint(1, runs.steps), **job)
        stored, before = known(folder), len(runs.asked_in(folder))
        second = runs.run(folder, **{**job, "clock": draw.randint(0, 2**31)})
        repeated += sum(line in stored for line in runs.asked_in(folder)[before:])
        if first["status"] not in (0, -signal.SIGKILL) or second["status"] != 0:
            wrong.append(f"{first!s:.300} {second!s:.300}")
            continue
        wrong += [fault.what for fault in verify_run(folder).faults] + unequal(runs, folder)
        shutil.rmtree(folder)
    for line in wrong:
        print(line, file=sys.stderr)
    return [
        {
            "suite": "clock", "what": "the clock jumps by up to thirty years at every look; killed once, continued",
            "count": count, "bad": repeated + len(wrong), "answered_requests_repeated": repeated,
            "which": wrong[:3] or None,
        }
    ]  # fmt: skip
