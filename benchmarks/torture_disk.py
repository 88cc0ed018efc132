"""The suite `disk` of `torture.py`: a full disk, a read-only one and files that stop growing, in each stage."""

from __future__ import annotations

import errno
import shutil
import sys
from typing import Any

from torture_runs import STAGES, Runs, unequal


def disk(runs: Runs, stages: tuple[str, ...] = STAGES) -> list[dict[str, Any]]:
    """A full disk and a read-only one under each stage, and files that may not grow beyond a bound."""
    from potstill.verify import verify_run

    records = []
    cases: list[tuple[str, dict[str, Any]]] = []
    for stage in stages:
        cases.append((f"disk full in {stage}", {"stage": stage, "errno": errno.ENOSPC}))
        cases.append((f"read-only disk in {stage}", {"stage": stage, "errno": errno.EROFS}))
    cases += [
        (f"files stop growing at {size} bytes", {"fsize": size})
        for size in ((12_000, 120_000) if stages != STAGES else (3000, 12_000, 40_000, 120_000))
    ]
    for kind in ("disk full", "read-only disk", "files stop growing"):
        bad: list[str] = []
        count = stopped = 0
        for what, job in cases:
            if not what.startswith(kind):
                continue
            count += 1
            folder = runs.place / what.replace(" ", "-")
            broken = runs.run(folder, export=False, **job)
            clean = broken["status"] in (2, 4, 5) and "error" in broken
            stopped += clean
            if not clean:
                bad.append(f"{what}: {broken.get('traceback', broken)!s:.600}")
            if folder.exists() and (folder / "task").exists() and any(
                "stale" not in fault.what and "damaged" not in fault.what for fault in verify_run(folder).faults
            ):  # fmt: skip
                bad.append(f"{what}: a half-written stage was published")
            after = runs.run(folder, export=False)
            if after["status"] != 0:
                bad.append(f"{what}: the next run fails: {after!s:.300}")
            elif differ := unequal(runs, folder):
                bad.append(f"{what}: unequal {differ[:3]}")
            shutil.rmtree(folder, ignore_errors=True)
        for line in bad:
            print(line, file=sys.stderr)
        records.append(
            {
                "suite": "disk", "what": kind, "count": count, "bad": len(bad), "ended_with_one_error": stopped,
                "which": bad[:3] or None,
            }
        )  # fmt: skip
    return records
