"""Which request is where while several workers answer one stream: waiting, leased to a worker, or answered.

What enters are the run's requests, and what workers say in each exchange: what they have finished, what they still hold
and how much room they have. What leaves are leases for the workers and outcomes for the run. An outcome counts once,
whoever gave it. A lease lasts as long as its worker is heard; each exchange tells what the worker holds, so that one
that was lost on the way goes back at the next. What a dead worker had is the first to be given to others.

Everything here may be called from any thread. Nothing is sent and nothing is written: `workers` does that.
"""

from __future__ import annotations

import itertools
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from potstill.asking.teacher import AnyRequest, Failure, Reply
from potstill.datagen.teachers.worker import Broken, Outcome

# A request that was under way in so many dying workers is taken for the cause.
MOST_DEATHS = 5


@dataclass(frozen=True)
class About:
    """A worker.

    Attributes:
        name: Tells it apart from all others, for programs.
        host: The machine that it runs on.
        process: Its process id there.
        room: Requests that its engine takes at a time.
        other: In what it differs from the run without answering otherwise for certain; empty where in nothing.
        here: Whether it is the run's own process, which is not waited for.
    """

    name: str
    host: str
    process: int
    room: int
    other: str = ""
    here: bool = False

    def __str__(self) -> str:
        return "this process" if self.here else f"{self.host} (process {self.process})"


@dataclass(frozen=True)
class Given:
    """What a worker hears in an exchange.

    Attributes:
        stint: What the requests belong to; another one means that all earlier ones are wanted no more.
        requests: New leases, each with its number.
        over: The run needs its workers no more.
        known: Whether the worker is one of the run's; where it is not, nothing that it said was taken.
    """

    stint: str
    requests: Sequence[tuple[int, AnyRequest]] = ()
    over: bool = False
    known: bool = True


@dataclass(frozen=True)
class Left:
    """A worker that is one no more, and what its end means."""

    about: About
    broken: Broken
    lost: int


@dataclass
class _Member:
    about: About
    heard: float
    flying: set[int] = field(default_factory=set)
    answered: int = 0
    knows_end: bool = False


class Leases:
    """See the module's text.

    Attributes:
        lease_s: A worker that is not heard for so long is taken for dead.
    """

    def __init__(self, lease_s: float, clock: Callable[[], float] = time.monotonic):
        self.lease_s = lease_s
        self._clock = clock
        self._changed = threading.Condition()
        # Numbers of one start of the run mean nothing to the next.
        self._start = secrets.token_hex(8)
        self._stint = 0
        self._next = 0
        self._open: dict[int, AnyRequest] = {}
        self._waiting: dict[int, None] = {}
        self._deaths: dict[int, int] = {}
        self._done: deque[tuple[AnyRequest, Reply | Failure]] = deque()
        self._members: dict[str, _Member] = {}
        self._news: deque[About | Left] = deque()
        self._alone_since: float | None = clock()
        self._looked = clock()
        self._over = False

    @property
    def stint(self) -> str:
        """What requests belong to until the next `drop`."""
        return f"{self._start}.{self._stint}"

    @property
    def pending(self) -> int:
        """Requests whose outcome nobody was told yet."""
        with self._changed:
            return len(self._open) + len(self._done)

    @property
    def room(self) -> int:
        """Requests that all workers take at a time."""
        with self._changed:
            return sum(member.about.room for member in self._members.values())

    @property
    def alone_s(self) -> float:
        """Seconds since the last worker was there; 0 while one is."""
        with self._changed:
            return 0.0 if self._alone_since is None else self._clock() - self._alone_since

    def put(self, requests: Collection[AnyRequest]) -> None:
        """Requests to be answered."""
        with self._changed:
            for request in requests:
                self._open[self._next] = request
                self._waiting[self._next] = None
                self._next += 1
            if requests:
                self._changed.notify_all()

    def join(self, about: About) -> None:
        """A worker comes, or comes again."""
        with self._changed:
            if (member := self._members.get(about.name)) is None:
                self._news.append(about)
                self._members[about.name] = member = _Member(about, 0.0)
            member.heard = self._clock()
            self._alone_since = None
            self._changed.notify_all()

    def leave(self, name: str, broken: Broken) -> None:
        """A worker goes, without an error's name where it was only ended; what it had is given to others."""
        with self._changed:
            if name in self._members:
                self._bury(name, broken, died=bool(broken.error))

    def exchange(
        self, name: str, stint: str, done: Sequence[Outcome], held: Collection[int], room: int, wait_s: float = 0.0
    ) -> Given:
        """Take what a worker has finished and give it new requests.

        Args:
            name: The worker's.
            stint: What its numbers belong to.
            done: What it has finished since its last exchange that came through.
            held: Numbers of what it has still to answer.
            room: Most new requests.
            wait_s: How long a worker that holds nothing waits for the first one.
        """
        with self._changed:
            if (member := self._members.get(name)) is None:
                return Given(self.stint, known=False, over=self._over)
            member.heard = self._clock()
            self._expire()
            if stint == self.stint:
                self._take(member, done)
                self._reconcile(member, set(held) & self._open.keys())
            else:
                self._reconcile(member, set())
            if not held and room > 0 and not self._waiting and not self._over:
                before = self.stint
                self._changed.wait_for(lambda: self._waiting or self._over or self.stint != before, wait_s)
                if self._members.get(name) is not member:
                    return Given(self.stint, known=False, over=self._over)
            leased = list(itertools.islice(self._waiting, max(0, min(room, self._share(member)))))
            for number in leased:
                del self._waiting[number]
            member.flying.update(leased)
            member.knows_end = self._over
            return Given(self.stint, [(number, self._open[number]) for number in leased], over=self._over)

    def outcomes(self, wait_s: float) -> list[tuple[AnyRequest, Reply | Failure]]:
        """What has been answered since the last call; waits for the first."""
        with self._changed:
            self._expire()
            if not self._done:
                self._changed.wait_for(lambda: self._done or self._news, wait_s)
                self._expire()
            found = list(self._done)
            self._done.clear()
            return found

    def news(self) -> Iterator[About | Left]:
        """Workers that came or went since the last call."""
        while True:
            with self._changed:
                if not self._news:
                    return
                item = self._news.popleft()
            yield item

    def drop(self) -> None:
        """Forget every request; workers hear it in their next exchange."""
        with self._changed:
            if self._open:
                self._stint += 1
            for kept in (self._open, self._waiting, self._deaths, self._done):
                kept.clear()
            for member in self._members.values():
                member.flying.clear()
            self._changed.notify_all()

    def end(self, wait_s: float) -> None:
        """Tell the workers that the run needs them no more; those that are heard within `wait_s` know it then."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
            deadline = self._clock() + wait_s
            while any(not member.knows_end for member in self._members.values()) and self._clock() < deadline:
                self._changed.wait(0.05)

    def told(self) -> list[dict[str, Any]]:
        """The workers as JSON types: host, process, requests in flight, answered, seconds since each was heard."""
        with self._changed:
            now = self._clock()
            return [
                {
                    "host": member.about.host, "process": member.about.process, "here": member.about.here,
                    "in_flight": len(member.flying), "answered": member.answered,
                    "heard_s": 0.0 if member.about.here else round(now - member.heard, 1),
                }
                for member in self._members.values()
            ]  # fmt: skip

    def _share(self, member: _Member) -> int:
        """What a worker may have of all that waits, by its room among all who have some: the last are for everyone."""
        own = max(1, member.about.room - len(member.flying))
        free = sum(max(0, other.about.room - len(other.flying)) for other in self._members.values())
        return math.ceil(len(self._waiting) * own / max(own, free))

    def _take(self, member: _Member, done: Sequence[Outcome]) -> None:
        """Outcomes of requests that nobody answered before; whose lease it was does not matter."""
        for number, outcome in done:
            request = self._open.pop(number, None)
            if request is None:
                continue
            self._waiting.pop(number, None)
            self._deaths.pop(number, None)
            for other in self._members.values():
                other.flying.discard(number)
            member.answered += 1
            self._done.append((request, outcome))
        if done:
            self._changed.notify_all()

    def _reconcile(self, member: _Member, held: set[int]) -> None:
        """Leases that the worker knows nothing of go back; what it holds of those that went back is its again."""
        lost = member.flying - held
        member.flying -= lost
        self._waiting = dict.fromkeys(sorted(lost)) | self._waiting
        for number in held & self._waiting.keys():  # it was taken for dead and lives
            del self._waiting[number]
            self._deaths[number] = max(0, self._deaths.get(number, 0) - 1)
            member.flying.add(number)
        if lost:
            self._changed.notify_all()

    def _expire(self) -> None:
        now, half = self._clock(), self.lease_s / 2
        if now - self._looked > half:  # it was this process that stood still, and the others have half a lease more
            for member in self._members.values():
                member.heard = max(member.heard, now - half)
        self._looked = now
        for name, member in list(self._members.items()):
            if not member.about.here and now - member.heard > self.lease_s:
                self._bury(name, Broken("", f"nothing was heard of it for {self.lease_s:g} s"), died=True)

    def _bury(self, name: str, broken: Broken, *, died: bool) -> None:
        member = self._members.pop(name)
        back = []
        for number in sorted(member.flying):
            self._deaths[number] = self._deaths.get(number, 0) + died
            if self._deaths[number] < MOST_DEATHS:
                back.append(number)
                continue
            reason = f"{MOST_DEATHS} workers died while they answered it, the last: {broken.message}"
            self._waiting.pop(number, None)
            self._done.append((self._open.pop(number), Failure(reason, attempts=MOST_DEATHS, passing=True)))
        self._waiting = dict.fromkeys(back) | self._waiting
        self._news.append(Left(member.about, broken, len(member.flying)))
        if not self._members:
            self._alone_since = self._clock()
        self._changed.notify_all()
