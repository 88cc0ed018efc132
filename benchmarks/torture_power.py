"""The suite `power` of `torture.py`: the power fails at a file-system step, and what was not fsynced may be gone.

The model is that of a journaling file system that keeps names in order and promises nothing of data: after the failure
the folder's names (creations, renames, removals) are those of some moment between the last fsync of a folder and the
failure; a file whose content was fsynced holds at least that, and what was written to it since is there, cut short or
gone, by a draw. SQLite's files are left as they are, because SQLite writes and syncs them where Python sees nothing.

`Recorder` runs in the process that is killed and notes the names before each step; a hard link keeps every file that
was ever seen, so that a name which comes back has its content. `lose` makes the folder of after the failure from that.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from torture_runs import Runs, known, unequal

_STATES = "states.jsonl"


class Recorder:
    """Notes what a disk was told.

    Args:
        folder: The run folder.
        shadow: A folder beside it, on the same file system.
    """

    def __init__(self, folder: Path, shadow: Path):
        self.folder, self.shadow = folder, shadow
        shadow.mkdir(exist_ok=True)
        self._states = (shadow / _STATES).open("a", encoding="utf-8")
        self._last: dict[str, int] | None = None
        self.note()
        # What is there at the start has been on the disk since the power came back.
        for path, inode in (self._last or {}).items():
            if inode >= 0:
                shutil.copyfile(folder / path, shadow / f"synced-{inode}")
        self._write("safe")

    def note(self) -> None:
        """The names as they are now."""
        state = names(self.folder)
        if state != self._last:
            for path, inode in state.items():
                if inode >= 0:
                    _keep(self.folder / path, self.shadow / f"live-{inode}")
            self._write(state)
            self._last = state

    def synced(self, descriptor: int) -> None:
        """A descriptor was fsynced: the names before it are safe, or the file's content is."""
        facts = os.fstat(descriptor)
        self.note()
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            self._write("safe")
        else:
            shutil.copyfile(f"/proc/self/fd/{descriptor}", self.shadow / f"synced-{facts.st_ino}")

    def _write(self, line: Any) -> None:
        self._states.write(json.dumps(line) + "\n")
        self._states.flush()


def names(folder: Path) -> dict[str, int]:
    """Each path below a folder with its inode; -1 for folders. SQLite's files are left out."""
    found: dict[str, int] = {}
    for root, folders, files in os.walk(folder):
        here = os.path.relpath(root, folder)
        for name in folders:
            found[os.path.normpath(os.path.join(here, name))] = -1
        for name in files:
            if name.startswith("ledger.sqlite"):
                continue
            try:
                found[os.path.normpath(os.path.join(here, name))] = os.stat(os.path.join(root, name)).st_ino
            except FileNotFoundError:
                continue  # renamed by another thread while this one walks
    return found


def _keep(path: Path, link: Path) -> None:
    if not link.exists():
        with contextlib.suppress(FileNotFoundError):
            os.link(path, link)


def lose(folder: Path, shadow: Path, draw: random.Random) -> dict[str, int]:
    """Make a run folder what it is after the power came back; counts of what was lost."""
    if not folder.exists():  # the power failed before the first step made it
        return {"names": 0, "files_cut": 0}
    lines = [json.loads(line) for line in (shadow / _STATES).read_text("utf-8").splitlines()]
    states = [(number, line) for number, line in enumerate(lines) if isinstance(line, dict)]
    end = names(folder)
    for path, inode in end.items():
        if inode >= 0:
            _keep(folder / path, shadow / f"live-{inode}")
    safe = max((number for number, line in enumerate(lines) if line == "safe"), default=-1)
    first = max((i for i, (number, _) in enumerate(states) if number < safe), default=0)
    possible = [state for _, state in states[first:]] + [end]
    state = draw.choice(possible)
    image = folder.with_name(folder.name + ".image")
    image.mkdir()
    lost = {"names": int(state != end), "files_cut": 0}
    for path, inode in sorted(state.items()):
        if inode < 0:
            (image / path).mkdir(parents=True, exist_ok=True)
            continue
        (image / path).parent.mkdir(parents=True, exist_ok=True)
        live, synced = shadow / f"live-{inode}", shadow / f"synced-{inode}"
        if not live.exists():
            continue
        content = live.read_bytes()
        least = synced.read_bytes() if synced.exists() else b""
        if content != least:
            fate = draw.choice(("kept", "as synced", "cut"))
            if fate != "kept":
                lost["files_cut"] += 1
                start = len(least) if content.startswith(least) else 0
                content = least if fate == "as synced" else content[: draw.randint(start, len(content))]
        (image / path).write_bytes(content)
    for file in folder.glob("ledger.sqlite*"):
        shutil.copy(file, image / file.name)
    shutil.rmtree(folder)
    image.rename(folder)
    return lost


def power(runs: Runs, failures: int, seed: int) -> list[dict[str, Any]]:
    """Power failures at random file-system steps of whole runs, up to three a run; then the run is finished."""
    from potstill.verify import verify_run

    draw = random.Random(f"{seed} power")
    done = number = repeated = faults = bad = moved = cut = 0
    differ: list[str] = []
    while done < failures:
        folder = runs.place / f"power-{number}"
        number += 1
        for attempt in range(4):
            stored, before = known(folder), len(runs.asked_in(folder))
            shadow = runs.place / f"shadow-{number}-{attempt}"
            failing = attempt < 3 and done < failures
            # One step more than there are: the power fails when the run has just ended.
            job = {"kill_at": draw.randint(1, runs.steps + 1), "shadow": str(shadow)} if failing else {}
            result = runs.run(folder, export=False, **job)
            repeated += sum(line in stored for line in runs.asked_in(folder)[before:])
            if result["status"] not in (0, -signal.SIGKILL):
                bad += 1
                print(f"run {folder.name} ended with {result}", file=sys.stderr)
                break
            if not failing:
                break
            lost = lose(folder, shadow, draw)
            done, moved, cut = done + 1, moved + lost["names"], cut + lost["files_cut"]
            shutil.rmtree(shadow)
        found = verify_run(folder)
        faults += len(found.faults)
        differ += unequal(runs, folder)
        if not found.faults and not differ:
            shutil.rmtree(folder)
    return [
        {
            "suite": "power", "what": "power failure at a file-system step: names in order, unsynced data lost or cut",
            "count": done, "bad": bad + repeated + faults + len(differ), "runs": number,
            "failures_that_lost_names": moved, "files_cut": cut, "answered_requests_repeated": repeated,
            "unequal_files": len(differ), "faults_of_verify": faults, "runs_that_failed": bad,
            "which": sorted(set(differ))[:5] or None,
        }
    ]  # fmt: skip
