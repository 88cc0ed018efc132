"""Whole runs for the suites `crash`, `disk` and `caches` of `torture.py`, and what they are judged by.

The runs are made by a process of its own (see `torture_child.py`); an undisturbed one is there to compare with.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STAGES = ("task", "retrieval", "datagen", "merge", "soft", "train", "evaluate")
REPO = "me/torture"
SETTINGS: dict[str, Any] = {
    "teacher": "fake",
    "n": 36,
    "distil": {"epochs": 1, "min_steps": 6, "batch_size": 8, "checkpoint_steps": 2},
    "evaluate": {"rows": 12, "latency_rows": 2},
    "retrieval": {"rows_per_dataset": 12, "datasets": 2, "min_score": -1.0},
}
TASK = """---
name: torture
labels: {refund: wants money back, delivery: asks where an order is, account: cannot log in}
languages: [en]
test: {path: test.jsonl, inputs: [text], output: label}
---
Sort messages to a shop by what the customer wants.
"""
_TEST = (
    ("Please send my money back for the broken lamp.", "refund"),
    ("Where is the parcel that I ordered last week?", "delivery"),
    ("The page says that my password is wrong.", "account"),
)


@dataclass
class Runs:
    """A server with its folder.

    Attributes:
        place: Where runs, task and models are.
        seconds: Of the undisturbed run.
        steps: File-system steps of the undisturbed run.
    """

    place: Path
    process: subprocess.Popen[str]
    seconds: float = 0.0
    steps: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def calm(self) -> Path:
        """The undisturbed run."""
        return self.place / "calm"

    def run(self, folder: Path, **job: Any) -> dict[str, Any]:
        """One child; its status, seconds, and what it told (nothing when it was killed)."""
        told = folder.with_name(folder.name + ".told")
        told.unlink(missing_ok=True)
        tiny = str(self.place / "tiny")
        settings = {**SETTINGS, "encoder": tiny, "distil": {**SETTINGS["distil"], "student": tiny}}
        for name, value in job.pop("change", {}).items():
            settings[name] = {**settings[name], **value} if isinstance(settings.get(name), dict) else value
        whole = {
            "folder": str(folder), "task": str(self.place / "task.md"), "settings": settings, "told": str(told),
            "asked": str(folder.with_name(folder.name + ".asked")), "log": str(self.place / "log.txt"), **job,
        }  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(whole) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return {**answer, **(json.loads(told.read_text()) if told.exists() else {})}

    def asked_in(self, folder: Path) -> list[str]:
        """Requests that the teacher answered in a folder, in order."""
        path = folder.with_name(folder.name + ".asked")
        return path.read_text().split("\n")[:-1] if path.exists() else []


@contextmanager
def running(place: Path, environment: Mapping[str, str] | None = None) -> Iterator[Runs]:
    """The server, with an undisturbed run made."""
    (place / "task.md").write_text(TASK)
    (place / "test.jsonl").write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in _TEST * 4))
    variables = {
        **os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "POTSTILL_CACHE": str(place / "cache"),
        "HF_HUB_OFFLINE": "1", **(environment or {}),
    }  # fmt: skip
    command = [sys.executable, str(HERE / "torture_child.py"), str(place / "tiny")]
    with (place / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=variables, cwd=place
        )
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise SystemExit(f"the runs do not start: {(place / 'log.txt').read_text()[-2000:]}")
            yield Runs(place, process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


def make_calm(runs: Runs, push: bool) -> None:
    """The undisturbed run, to compare with."""
    done = runs.run(runs.calm, push=REPO if push else None, delay_s=0.002)
    if done["status"] != 0:
        raise SystemExit(f"the undisturbed run fails: {done}")
    runs.seconds, runs.steps, runs.asked = done["seconds"], done["steps"], runs.asked_in(runs.calm)


def known(folder: Path) -> set[str]:
    """Requests whose reply is in the ledger: key and bound."""
    import sqlite3

    path = folder / "ledger.sqlite"
    if not path.exists():
        return set()
    connection = sqlite3.connect(path)
    try:
        return {f"{key} {bound}" for key, bound in connection.execute("SELECT key, max_tokens FROM replies")}
    except sqlite3.OperationalError:  # killed before the tables were made
        return set()
    finally:
        connection.close()


def unequal(runs: Runs, folder: Path) -> list[str]:
    """Files that must be byte for byte those of the undisturbed run, and are not."""
    names = [
        path.relative_to(runs.calm)
        for stage in ("task", "retrieval", "datagen", "merge", "soft")
        for path in sorted((runs.calm / stage).rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "report.json")
    ]
    names.append(Path("train/student/model.safetensors"))
    return [
        str(name)
        for name in names
        if not (folder / name).exists() or (folder / name).read_bytes() != (runs.calm / name).read_bytes()
    ]
