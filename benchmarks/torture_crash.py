"""The suite `crash` of `torture.py`: SIGKILL at random moments and file-system steps of whole runs."""

from __future__ import annotations

import random
import shutil
import signal
import sys
from typing import Any

from torture_runs import REPO, Runs, known, unequal


def crash(runs: Runs, kills: int, seed: int, push: bool) -> list[dict[str, Any]]:
    """SIGKILL at random moments, and at random file-system steps, of whole runs with export and push."""
    from potstill.verify import verify_run

    records = []
    for what in ("at a moment", "at a file-system step"):
        draw = random.Random(f"{seed} {what}")
        want = kills // 2 if what != "at a moment" else kills - kills // 2
        done = number = repeated = again = faults = bad = 0
        differ: list[str] = []
        while done < want:
            folder = runs.place / f"crash-{what.split()[-1]}-{number}"
            number += 1
            killed = 0
            while True:
                stored, before = known(folder), len(runs.asked_in(folder))
                job: dict[str, Any] = {"push": REPO if push else None, "delay_s": 0.002}
                if killed < 5 and done < want:
                    if what == "at a moment":
                        job["kill_after"] = draw.uniform(0.0, runs.seconds)
                    else:
                        job["kill_at"] = draw.randint(1, runs.steps)
                result = runs.run(folder, **job)
                repeated += sum(line in stored for line in runs.asked_in(folder)[before:])
                if result["status"] == -signal.SIGKILL:
                    killed, done = killed + 1, done + 1
                    continue
                if result["status"] != 0:
                    bad += 1
                    print(f"run {folder.name} ended with {result}", file=sys.stderr)
                    break
                break
            lines = runs.asked_in(folder)
            again += len(lines) - len(set(lines))
            if folder.exists():
                found = verify_run(folder)
                faults += len(found.faults)
                differ += unequal(runs, folder)
                if not differ:
                    shutil.rmtree(folder)
        records.append(
            {
                "suite": "crash", "what": f"SIGKILL {what}, whole runs with export{' and push' if push else ''}",
                "count": done, "bad": bad + repeated + faults + len(differ), "runs": number,
                "answered_requests_repeated": repeated, "in_flight_asked_again": again - repeated,
                "unequal_files": len(differ), "faults_of_verify": faults, "runs_that_failed": bad,
                "which": sorted(set(differ))[:5] or None,
            }
        )  # fmt: skip
    return records
