"""Every question to the teacher goes through here: cache first, then the engine, and the ledger before the caller.

What enters is a source of requests (`take`, pulled whenever there is room, so that refills and retries join the
stream without a barrier); what leaves is one `Answer` for each. A request whose key the ledger knows is answered
from it. A fresh reply is handed on only after it is on disk, and the wait for the disk is hidden: the engine goes
on while a group commit is under way. Equal requests that are in flight together share one reply. Failures are
recorded and handed on, and never stored as results.

A reply is passed through its stored form before it is handed on, so a fresh answer and the same answer from the
ledger are equal to the bit, and a rerun gives the same rows.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from functools import cached_property

from potstill.asking.budget import Budget, Meter, Payer, Price, price_of
from potstill.asking.counts import Asked
from potstill.asking.ledger import Ledger, request_key
from potstill.asking.stream import Answer, AskStream
from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Take, Teacher
from potstill.asking.teacher_json import request_to_json
from potstill.errors import TeacherUnavailable
from potstill.events import Listener, silent


class Asker:
    """A teacher with its ledger and its budget.

    Attributes:
        teacher: The backend.
        ledger: Where replies are kept.
        counts: What was asked since it was made; its `seconds` are the wall-clock time inside the teacher's stream.
        meter: What was spent, when there is a budget; the teachers of one run share it.
        purpose: Of the latest stream.
        unanswered: Requests since it was made that another day may bring a reply to (`Failure.passing`).
    """

    def __init__(
        self,
        teacher: Teacher,
        ledger: Ledger,
        *,
        budget: Budget | None = None,
        meter: Meter | None = None,
        listener: Listener = silent,
    ):
        self.teacher = teacher
        self.ledger = ledger
        self.listener = listener
        self.counts = Asked()
        self.meter = meter
        self.purpose = ""
        self.unanswered = 0
        if meter is None and budget is not None:
            self.meter = Meter(budget, ledger.spent())
        if self.meter is not None:
            price = self.price if self.meter.budget.usd is not None else None
            self.meter.join(teacher.name, price, self.thinking_tokens)

    @property
    def abilities(self) -> Abilities:
        """What the teacher can do."""
        return self.teacher.abilities

    @property
    def thinking_tokens(self) -> int:
        """Tokens that a reply may take beyond its request's bound."""
        return int(getattr(self.teacher, "thinking_tokens", 0))

    @property
    def identity(self) -> dict[str, str]:
        """What replies come from, for the keys of stages: the teacher, and what it may think for where it does.

        Ledger keys leave the second out: a whole reply is the answer whatever it might have thought.
        """
        thinking = self.thinking_tokens
        return {**self.teacher.identity, **({"thinking_tokens": str(thinking)} if thinking else {})}

    @cached_property
    def price(self) -> Price | None:
        """What this teacher's tokens cost; None where it is not known."""
        return price_of(self.teacher.identity, getattr(self.teacher, "options", None))

    @property
    def usd(self) -> float | None:
        """Money spent: over the whole run where there is a budget, in this call otherwise; None if not known."""
        if self.meter is not None and self.meter.budget.usd is not None:
            return self.meter.usd
        return None if self.price is None else self.price.cost(self.counts.prompt_tokens, self.counts.completion_tokens)

    def key(self, request: AnyRequest) -> str:
        """Ledger key of a request to this teacher."""
        return request_key(self.teacher.identity, request_to_json(request))

    def ask(self, requests: Sequence[AnyRequest], purpose: str) -> list[Answer]:
        """Answer all requests, in the order given.

        Raises:
            BudgetReached: The cap was met; what was answered is in the ledger.
            TeacherError: As `stream`.
        """
        source = iter(requests)
        answers: list[Answer | None] = [None] * len(requests)

        def take(room: int) -> list[AnyRequest]:
            return [request for _, request in zip(range(room), source)]

        for ticket, answer in self._run(take, purpose, total=len(requests)):
            answers[ticket] = answer
        return [answer for answer in answers if answer is not None]

    def stream(self, take: Take, purpose: str) -> Iterator[Answer]:
        """Answer everything that `take` gives: cached answers at once, fresh ones as they finish.

        Args:
            take: Called with the free room; returns at most that many requests. Nothing means nothing now: it is
                called again after the next answer, and the stream ends when all is answered and it still gives
                nothing.
            purpose: Stage or step, for the ledger's accounts.

        Yields:
            One answer for each request; a fresh one only after it is on disk.

        Raises:
            BudgetReached: The cap was met; requests in flight were awaited and stored first.
            TeacherRefused: The endpoint refused, or a request needs what this teacher cannot do.
            TeacherUnavailable: The endpoint could not be reached.
            DataError: The ledger cannot be written.
        """
        for _, answer in self._run(take, purpose):
            yield answer

    def stream_ordered(self, take: Take, purpose: str, window: int | None = None) -> Iterator[Answer]:
        """As `stream`, with the answers in the order of the requests.

        The source runs exactly `window` requests ahead of the answers: `take` is called right after each answer
        with the room that it freed, whatever the engine does meanwhile. So request number `i` is always made
        when the caller has seen answers `0 … i - window`, and a source that decides by what it has seen is
        reproducible however replies overtake each other.

        Args:
            take: As in `stream`.
            purpose: As in `stream`.
            window: How far the source runs ahead; None for four times the teacher's concurrency.
        """
        window = window or 4 * self.teacher.concurrency
        ready: deque[AnyRequest] = deque()
        reordered: dict[int, Answer] = {}
        taken = given = 0

        def refill() -> None:
            nonlocal taken
            room = window - (taken - given)
            if room > 0:
                more = take(room)
                taken += len(more)
                ready.extend(more)

        def pull(room: int) -> list[AnyRequest]:
            return [ready.popleft() for _ in range(min(room, len(ready)))]

        refill()
        for ticket, answer in self._run(pull, purpose):
            reordered[ticket] = answer
            while given in reordered:
                due = reordered.pop(given)
                given += 1
                yield due
                refill()

    def _run(self, take: Take, purpose: str, total: int | None = None) -> Iterator[tuple[int, Answer]]:
        """Answers with the number of their request, in the order in which requests were taken."""
        self.purpose = purpose
        run = AskStream(self, take, purpose, total)
        try:
            while run.fill():
                yield from run.answers()
                if not run.has_fresh:
                    continue
                with contextlib.closing(self._teacher_stream(run)) as replies:
                    for request, reply in replies:
                        run.receive(request, reply)
                        yield from run.answers()
                run.settle()
                yield from run.answers()
            yield from run.answers()
        except GeneratorExit:
            run.settle()
            raise
        except Exception as error:
            # What was answered before the teacher failed is the caller's; only then the error.
            run.settle()
            yield from run.answers()
            # Requests that the budget lets nobody ask again fail in a row, as those of a broken server do.
            if not (run.budget_met and self.meter is not None and isinstance(error, TeacherUnavailable)):
                raise
        finally:
            run.report(last=True)
        if run.budget_met and self.meter is not None:
            raise self.meter.reached()

    def _teacher_stream(self, run: AskStream) -> Generator[tuple[AnyRequest, Reply | Failure], None, None]:
        started = time.monotonic()
        if isinstance(self.teacher, Payer):
            self.teacher.purse = run
        replies = self.teacher.stream(run.more)
        try:
            yield from replies
        finally:
            self.counts.seconds += time.monotonic() - started
            close = getattr(replies, "close", None)
            if close is not None:
                close()
