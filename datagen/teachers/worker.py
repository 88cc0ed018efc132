"""One teacher in a worker: an actor of a Ray cluster (`ray_cluster`), or one that leases requests (`labour`).

What enters are numbered requests; what leaves are numbered replies in the order they finish. The teacher's stream runs
in a thread of its own and pulls what has been given, so the engine goes on while replies are taken away.
`Front` is what a teacher that is made of such workers says of itself.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Teacher, Tokenizes
from potstill.errors import PotstillError

# A worker with nothing finished answers so often, so that a driver that is gone frees it.
_POLL_S = 5.0


@dataclass(frozen=True)
class Broken:
    """The teacher of a worker ended with an error.

    Attributes:
        error: Name of the error's class in `potstill.errors`, or of any other.
        message: Its text.
    """

    error: str
    message: str


Outcome = tuple[int, Reply | Failure]


class Front:
    """What a teacher in many workers says of itself: what the teacher says that each of them opens.

    Rows do not depend on where they were written, and replies of one worker answer for all, and for a run without any.
    """

    def __init__(self, ref: str, teacher_options: Mapping[str, Any]):
        """Args:
            ref: What `open_teacher` takes.
            teacher_options: Its options.

        Raises:
            OptionError: It cannot be opened.
        """
        from potstill.datagen.teachers import open_teacher

        self._ref, self._teacher_options = ref, teacher_options
        # Never asked to answer anything, so that no model is loaded.
        self._example: Teacher = open_teacher(ref, **teacher_options)

    @property
    def name(self) -> str:
        """The teacher's."""
        return self._example.name

    @property
    def identity(self) -> Mapping[str, str]:
        """The teacher's."""
        return self._example.identity

    @property
    def abilities(self) -> Abilities:
        """The teacher's."""
        return self._example.abilities

    @property
    def thinking_tokens(self) -> int:
        """The teacher's."""
        return int(getattr(self._example, "thinking_tokens", 0))

    def tokens_of(self, text: str) -> list[int]:
        """The numbers of a text's tokens, where the teacher tells them (`Abilities.token_ids`)."""
        assert isinstance(self._example, Tokenizes)
        return self._example.tokens_of(text)

    def user_turn_fault(self) -> str:
        """Why the teacher cannot write a user's turn, with the mend; "" where it can."""
        fault: str = getattr(self._example, "user_turn_fault", lambda: "")()
        return fault


class Worker:
    """A teacher at work; the methods are called from several threads.

    Attributes:
        teacher: The teacher.
    """

    def __init__(self, ref: str, options: Mapping[str, Any]):
        """Args:
        ref: What `open_teacher` takes.
        options: Its options.
        """
        from potstill.datagen.teachers import open_teacher

        self.teacher = open_teacher(ref, **options)
        self._inbox: queue.SimpleQueue[tuple[int, int, AnyRequest] | None] = queue.SimpleQueue()
        # A late `collect` of a stream that was dropped must not take replies of the next one.
        self._outboxes: dict[int, queue.SimpleQueue[Outcome | None]] = {}
        self._broken: Broken | None = None
        self._lock = threading.Lock()
        self._epoch = 0
        self._thread = threading.Thread(target=self._work, name="teacher", daemon=True)
        self._thread.start()

    def about(self) -> int:
        """Process id: proves that the worker is up."""
        return os.getpid()

    def give(self, epoch: int, requests: Sequence[tuple[int, AnyRequest]]) -> None:
        """Requests to answer. A new epoch drops what was given before."""
        self.drop(epoch)
        for number, request in requests:
            self._inbox.put((epoch, number, request))

    def drop(self, epoch: int) -> None:
        """Forget what was given before `epoch`."""
        with self._lock:
            self._epoch = max(self._epoch, epoch)
            for old in [number for number in self._outboxes if number < self._epoch]:
                del self._outboxes[old]

    def collect(self, epoch: int, wait_s: float = _POLL_S) -> list[Outcome] | Broken:
        """What has finished since the last call; waits `wait_s` for the first."""
        found: list[Outcome] = []
        outbox = self._outbox(epoch)
        try:
            item = outbox.get(timeout=0 if self._broken else wait_s)
            while True:
                if item is not None:
                    found.append(item)
                item = outbox.get_nowait()
        except queue.Empty:
            # What was finished before the end is handed over first.
            return found or self._broken or []

    def close(self, wait_s: float = 30.0) -> None:
        """Drop what is under way and close the teacher; its thread is waited for so long."""
        self.drop(self._epoch + 1)
        self._inbox.put(None)
        self._thread.join(wait_s)
        self.teacher.close()

    def _outbox(self, epoch: int) -> queue.SimpleQueue[Outcome | None]:
        with self._lock:
            return self._outboxes.setdefault(epoch, queue.SimpleQueue())

    def _end(self, broken: Broken) -> None:
        self._broken = broken
        self._outbox(self._epoch).put(None)

    def _work(self) -> None:
        try:
            while (given := self._inbox.get()) is not None:
                self._answer(given)
        except PotstillError as error:
            self._end(Broken(type(error).__name__, str(error)))
        except Exception as error:
            self._end(Broken(type(error).__name__, f"{type(error).__name__}: {error}"))

    def _answer(self, first: tuple[int, int, AnyRequest]) -> None:
        """One stream of the teacher: until nothing is there, or until an epoch ends."""
        epoch = first[0]
        held = [first]
        numbers: dict[int, int] = {}

        def take(room: int) -> list[AnyRequest]:
            taken: list[AnyRequest] = []
            while len(taken) < room and epoch == self._epoch:
                try:
                    item = held.pop() if held else self._inbox.get_nowait()
                except queue.Empty:
                    break
                if item is None:  # the end, which is the working thread's to see
                    self._inbox.put(None)
                    break
                given, number, request = item
                if given == epoch:
                    taken.append(request)
                    numbers[id(request)] = number
                elif given > epoch:
                    later.append((given, number, request))
                    break
            return taken

        later: list[tuple[int, int, AnyRequest]] = []
        replies = self.teacher.stream(take)
        try:
            if epoch == self._epoch:
                for request, reply in replies:
                    self._outbox(epoch).put((numbers.pop(id(request)), reply))
                    if epoch != self._epoch:
                        break
        finally:
            close = getattr(replies, "close", None)
            if close is not None:
                close()
        for item in later:
            self._answer(item)
