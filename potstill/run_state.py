"""How far a run has come: each stage done, running, failed, stopped or waiting, and the command that goes on.

`.state.json` in the run folder is there while a stage is under way and after one broke off: the stage, what became of
it, the stages that this run has, and the command. Finished stages are known by their manifests. Nothing of a run
depends on the file: a stage is neither reused nor made again for what it says.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from potstill.errors import BudgetReached
from potstill.near_runs import no_run
from potstill.run_dir import MANIFEST, OPTIONAL_STAGES, STAGES, RunDir, read_manifest, write_atomic

State = Literal["done", "running", "failed", "stopped", "waiting"]
_FILE = ".state.json"


@dataclass(frozen=True)
class StageState:
    """One stage of a run.

    Attributes:
        name: Its name.
        state: What became of it.
        seconds: What making it took, or how long it has been running; None where that is not known.
        told: Its summary, or why it failed or stopped; empty where there is nothing to say.
        facts: What a finished stage wanted remembered.
    """

    name: str
    state: State
    seconds: float | None = None
    told: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunState:
    """A run as it stands.

    Attributes:
        stages: All of its stages, in order.
        process: The process that works on it; None when none does.
        next: The command that goes on, for a shell; of a run that was begun in Python the call.
    """

    stages: tuple[StageState, ...]
    process: int | None
    next: str


def stages_with(optional: Sequence[str]) -> list[str]:
    """The stages of a run that has those of the optional ones, in order."""
    return [name for name in STAGES if name not in OPTIONAL_STAGES or name in optional]


class LeftOpen(Exception):
    """A stage that waits for what is done outside of the run; no failure.

    Attributes:
        command: What is to be done next.
    """

    def __init__(self, why: str, command: str):
        super().__init__(why)
        self.command = command


@contextlib.contextmanager
def told_state(folder: Path, stage: str, stages: Sequence[str], command: str) -> Iterator[None]:
    """Tell in the folder that a stage is under way, and how it ended unless it ended well."""
    facts = {"stage": stage, "stages": list(stages), "command": command, "at": time.time()}

    def tell(state: State, why: str = "") -> None:
        with contextlib.suppress(OSError):  # a full disk is the stage's to report
            write_atomic(folder / _FILE, json.dumps({**facts, "state": state, "why": why}, ensure_ascii=False) + "\n")

    tell("running")
    try:
        yield
    except KeyboardInterrupt:
        tell("stopped", "stopped by Ctrl-C")
        raise
    except LeftOpen as error:
        facts["command"] = error.command
        tell("stopped", str(error))
        raise
    except BaseException as error:
        if isinstance(error, BudgetReached) and error.or_train:  # the same command would meet the same budget
            facts["command"] = and_train(command)
        tell("failed", str(error).strip().split("\n")[0] or type(error).__name__)
        raise
    with contextlib.suppress(OSError):
        (folder / _FILE).unlink(missing_ok=True)


def and_train(command: str) -> str:
    """The command, or the call, that made a run, with what has it train on what is paid for."""
    if command.startswith("potstill.run("):
        asked = "at_budget='train'"
        found = re.sub(r"\bat_budget='stop'", asked, command)
        return found if asked in found else f"{command[:-1]}, {asked})"
    words = shlex.split(command)
    if "--" not in words:
        return f"{command} --at-budget train" if command else ""
    after = words[words.index("--") :]  # what comes behind it is no flag
    return f"{command.removesuffix(shlex.join(after))}--at-budget train {shlex.join(after)}"


def read_state(run: Path) -> RunState:
    """How far the run in a folder has come. Writes nothing.

    Raises:
        UserError: There is no run.
        ManifestError: A stage's manifest cannot be read.
    """
    told = _told(run)
    if not told and not (run / "task" / "task.json").exists():
        raise no_run(run)
    process = _holder(run)
    names = stages_with(told.get("stages") or [name for name in OPTIONAL_STAGES if (run / name / MANIFEST).exists()])
    at = names.index(told["stage"]) if told else len(names)
    stages = [_stage(RunDir(run), name, place, at, told, process) for place, name in enumerate(names)]
    return RunState(tuple(stages), process, _next(run, stages, told, process))


def _stage(folder: RunDir, name: str, place: int, at: int, told: Mapping[str, Any], process: int | None) -> StageState:
    if place == at:
        began, state, why = told["at"], told.get("state"), str(told.get("why", ""))
        if state == "failed":
            return StageState(name, "failed", None, why)
        if state == "running" and process is not None:
            return StageState(name, "running", max(0.0, time.time() - began), f"process {process}")
        return StageState(name, "stopped", None, why or "its process ended without a word; what it had is kept")
    found = folder.finished(name)
    if found is None:
        return StageState(name, "waiting")
    if place > at:
        return StageState(name, "waiting", None, "one of an earlier run is here")
    return StageState(name, "done", found.seconds, str(found.facts.get("summary", "")), found.facts)


def _told(run: Path) -> dict[str, Any]:
    try:
        found = dict(json.loads((run / _FILE).read_text(encoding="utf-8")))
        stages, at = [str(name) for name in found["stages"]], float(found["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {**found, "stages": stages, "at": at} if found.get("stage") in stages_with(stages) else {}


def _holder(run: Path) -> int | None:
    """The process that holds the run's lock. Asked for as a reader, who keeps nobody out longer than it looks."""
    with contextlib.suppress(FileNotFoundError), (run / ".lock").open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read().strip()
            return int(text) if text.isdigit() else 0
    return None


def _next(run: Path, stages: Sequence[StageState], told: Mapping[str, Any], process: int | None) -> str:
    place = shlex.quote(str(run))
    if process is not None:
        return f"potstill status {place}"
    if all(stage.state == "done" for stage in stages):
        return f'potstill predict {place} "TEXT"'
    if told.get("command"):
        return str(told["command"])
    # A finished run of which a stage was removed since: what it was made with is in its record.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if command := json.loads((run / "run.json").read_text(encoding="utf-8")).get("command"):
            return str(command)
    given = "TASK"
    if (run / "task" / MANIFEST).exists():
        given = str(read_manifest(run / "task").get("key_parts", {}).get("given", given))
    return shlex.join(["potstill", "run", given, "--out", str(run)])
