"""A worker's side of a run whose requests are leased: lease, answer, hand in, until the run needs it no more.

What enters is a way to a run; what leaves are replies. The engine's thread goes on while replies are handed in and
requests are leased, and holds a few requests more than it takes at a time, so that it waits for nothing on the way.
`potstill work` is `work_for` in a process of its own; a run's own process is a worker by `answer_for`, without sockets.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from potstill.asking.teacher import Teacher
from potstill.code_version import code_version, versions
from potstill.datagen.teachers.leases import Given
from potstill.datagen.teachers.worker import Broken, Outcome, Worker
from potstill.datagen.teachers.worker_wire import (
    MAX_BODY,
    Away,
    Line,
    OtherToken,
    find_run,
    is_url,
    outcome_to_wire,
    request_from_wire,
)
from potstill.errors import DataError, PotstillError, TeacherUnavailable, UserError

LIBRARIES = ("torch", "transformers", "tokenizers", "vllm")
# How long one with nothing to do is kept waiting, one with room to spare looks away, and a full one does.
_IDLE_S, _ROOMY_S, _FULL_S = 2.0, 0.25, 2.0
# What an exchange costs both ends is not worth a reply or two.
_PACE_S = 0.02
_AGAIN_S = 1.0


class Exchange(Protocol):
    """`leases.Leases.exchange` for one worker, here or over the wire."""

    def __call__(
        self, stint: str, done: Sequence[Outcome], held: Collection[int], room: int, wait_s: float
    ) -> Given: ...


def most_held(teacher: Teacher) -> int:
    """Requests that a worker holds at a time: what its engine takes, and a few that wait for their turn there."""
    return teacher.concurrency + max(1, teacher.concurrency // 8)


def answer_for(exchange: Exchange, worker: Worker, *, pace_s: float = 0.0) -> Broken | None:
    """Answer what is leased until the run is over.

    Args:
        exchange: The way to the run.
        worker: The engine.
        pace_s: Least time between two exchanges.

    Returns:
        Why the engine can answer no more; None where the run needs it no more.
    """
    most = most_held(worker.teacher)
    stint, epoch = "", 0
    held: set[int] = set()
    done: list[Outcome] = []
    while True:
        began = time.monotonic()
        given = exchange(stint, done, held, most - len(held), _IDLE_S)
        if given.over:
            return None
        done = []
        if given.stint != stint:
            stint, epoch = given.stint, epoch + 1
            held.clear()
            worker.drop(epoch)
        if given.requests:
            held.update(number for number, _ in given.requests)
            worker.give(epoch, given.requests)
        if held:
            time.sleep(max(0.0, began + pace_s - time.monotonic()))
            found = worker.collect(epoch, _ROOMY_S if len(held) < most else _FULL_S)
            if isinstance(found, Broken):
                return found
            done = found
            held.difference_update(number for number, _ in done)


def what_answers(teacher: Teacher) -> dict[str, Any]:
    """What decides a teacher's replies: weights and format, the code that runs, and libraries."""
    return {"identity": dict(teacher.identity), "code": _code(), "versions": versions(*LIBRARIES)}


def _code() -> str:
    from potstill.datagen.teachers import open_teacher

    return code_version(open_teacher, work_for).digest


def unlike(run: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[str, str]:
    """In what a worker differs from the run: why it may not answer, and of what it warns; empty where it is alike."""
    faults = [
        f"{name} is {own['identity'].get(name, 'not there')} here and {run['identity'].get(name, 'not there')} there"
        for name in sorted({*run["identity"], *own["identity"]})
        if run["identity"].get(name) != own["identity"].get(name)
    ]
    if run["code"] != own["code"]:
        faults.append("the code of potstill is another one")
    others = [
        f"{name} {own['versions'].get(name)} in place of {version}"
        for name, version in run["versions"].items()
        if own["versions"].get(name) != version
    ]
    return "; ".join(faults), ", ".join(others)


class _Job:
    """The run as a worker knows it: found, lost and found again."""

    def __init__(self, place: str, environment: Mapping[str, str], patience_s: float, tell: Callable[[str], None]):
        self.place, self.environment = place, environment
        self.patience_s, self.tell = patience_s, tell
        self.in_folder = not is_url(place)
        self.line: Line | None = None
        self.met = False

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """One call; waits for a run that is away. None where the run has ended.

        Raises:
            TeacherUnavailable: It stayed away.
            UserError: It refuses, or cannot be found.
        """
        since: float | None = None
        why = "no run has begun there"
        if self.in_folder and (Path(self.place) / "task" / "task.json").exists():
            why = "a run is there, but it is not under way with --executor workers"
        while True:
            if (line := self._found()) is not None:
                try:
                    found = line.ask(path, body)
                except Away as error:
                    why = str(error)
                except OtherToken as error:
                    if not self.in_folder:
                        raise
                    why = str(error)  # the folder tells the new one soon
                else:
                    if since is not None and self.met:
                        self.tell(f"the run is at {line.place}")
                    self.met = True
                    return found
            elif self.met:  # its folder says no more where it is: it has ended
                return None
            if since is None:
                since = time.monotonic()
                where = line.place if line is not None else self.place
                self.tell(f"no run at {where} ({why}); it is waited for, {self.patience_s:g} s at most")
            if time.monotonic() - since > self.patience_s:
                raise TeacherUnavailable(
                    f"no run was at {self.place} for {self.patience_s:g} s ({why}); start one there with "
                    "--executor workers, or give --patience"
                )
            self._lose()
            time.sleep(min(_AGAIN_S, self.patience_s / 4))

    def _found(self) -> Line | None:
        if self.line is None and (address := find_run(self.place, self.environment)) is not None:
            self.line = Line(address)
        return self.line

    def _lose(self) -> None:
        if self.line is not None:
            self.line.close()
            self.line = None


def work_for(
    place: str,
    *,
    patience_s: float = 300.0,
    idle_s: float = 0.0,
    tell: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
    teacher_options: Mapping[str, Any] | None = None,
) -> int:
    """Answer a run's requests until it needs no more.

    Args:
        place: The run folder, or the run's address, whose token is in the environment.
        patience_s: How long a run is waited for that has not begun, or is away.
        idle_s: End after so many seconds without a request; 0 stays until the run ends.
        tell: Told what happens.
        environment: Of the process; None takes its own.
        teacher_options: Options of the teacher that are this machine's own, over the run's.

    Returns:
        How many requests it answered.

    Raises:
        UserError: The run cannot be found, or this machine cannot answer as it does: other weights, or other code.
        TeacherUnavailable: The run stayed away, or the engine broke.
    """
    job = _Job(place, os.environ if environment is None else environment, patience_s, tell)
    if (wanted := job.ask("/teacher", {})) is None:
        return 0
    try:
        ref, options, code = str(wanted["teacher"]), dict(wanted["options"]), str(wanted["code"])
    except (KeyError, TypeError, ValueError):
        code = ""
    if code != _code():  # it might not even know the options
        raise UserError(
            f"what answers at {place} runs other code of potstill than this machine; install the same version here"
        )
    worker = Worker(ref, {**options, **(teacher_options or {})})
    try:
        return _Worked(job, worker, idle_s).until_the_end()
    finally:
        worker.close(wait_s=5.0)


class _Worked:
    """A worker in its run."""

    def __init__(self, job: _Job, worker: Worker, idle_s: float):
        self.job, self.worker, self.idle_s = job, worker, idle_s
        self.name = secrets.token_hex(8)
        self.host = socket.gethostname()
        self.answered = 0
        self.busy = time.monotonic()

    def until_the_end(self) -> int:
        """Requests answered."""
        if self._join() is None:
            return 0
        broken: Broken | None
        try:
            broken = answer_for(self._exchange, self.worker, pace_s=_PACE_S)
        except PotstillError as error:
            broken = Broken(type(error).__name__, str(error))
            self._leave(broken)
            raise
        except BaseException as error:
            self._leave(Broken("", f"it was ended ({type(error).__name__})"))
            raise
        if broken is not None:
            self._leave(broken)
            raise TeacherUnavailable(f"the engine broke: {broken.message}")
        return self.answered

    def _join(self) -> dict[str, Any] | None:
        about = {
            "name": self.name, "host": self.host, "process": os.getpid(), "room": most_held(self.worker.teacher),
            "answers": what_answers(self.worker.teacher),
        }  # fmt: skip
        return self.job.ask("/join", {"worker": about})

    def _leave(self, broken: Broken) -> None:
        """Say good-bye where somebody is there to hear it."""
        if self.job.line is None:
            return
        with contextlib.suppress(Away, UserError):
            self.job.line.ask("/leave", {"worker": self.name, "error": broken.error, "message": broken.message})

    def _exchange(self, stint: str, done: Sequence[Outcome], held: Collection[int], room: int, wait_s: float) -> Given:
        lines = [outcome_to_wire(item) for item in done]
        self.answered += len(lines)
        *early, last = _in_bodies(lines)
        for part in early:  # too much for one body: the rest of what is done is still held, as far as the run knows
            also = {line[0] for line in lines} - {line[0] for line in part}
            if (given := self._said(stint, part, {*held, *also}, 0, 0.0)).over:
                return given
        given = self._said(stint, last, held, room, wait_s)
        now = time.monotonic()
        if held or done or given.requests:
            self.busy = now
        elif self.idle_s and now - self.busy > self.idle_s:
            self._leave(Broken("", f"it had nothing to do for {self.idle_s:g} s"))
            return Given(stint, over=True)
        return given

    def _said(self, stint: str, lines: list[Any], held: Collection[int], room: int, wait_s: float) -> Given:
        said = {"worker": self.name, "stint": stint, "done": lines, "held": list(held), "room": room, "wait_s": wait_s}
        while True:
            if (heard := self.job.ask("/exchange", said)) is None:
                return Given(stint, over=True)
            try:
                given = Given(
                    str(heard["stint"]),
                    [(int(number), request_from_wire(plain)) for number, plain in heard["requests"]],
                    over=bool(heard["over"]),
                    known=bool(heard["known"]),
                )
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"the run's answer cannot be read ({type(error).__name__}: {error})") from None
            # A run that was started anew, or that had not heard of this worker for long, is joined again.
            if given.known or given.over or self._join() is None:
                return given


def _in_bodies(lines: list[Any]) -> list[list[Any]]:
    """Outcomes in parts that each fit in half of a body."""
    import json

    parts: list[list[Any]] = [[]]
    size = 0
    for line in lines:
        length = len(json.dumps(line))
        if parts[-1] and size + length > MAX_BODY // 2:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += length
    return parts
