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
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property

from potstill.asked import Asked
from potstill.budget import Budget, Meter, Payer, Price, Verdict, price_of
from potstill.errors import TeacherRefused, TeacherUnavailable
from potstill.events import Event, Listener, silent
from potstill.ledger import Entry, Ledger, request_key
from potstill.teacher import Abilities, AnyRequest, Failure, Reply, Request, Take, Teacher
from potstill.teacher_json import reply_from_json, reply_to_json, request_to_json

# Answers that wait for the disk or for the caller; beyond it the engine is made to wait.
_BUFFER = 1024


@dataclass(frozen=True)
class Answer:
    """One request with what came of it.

    Attributes:
        request: The caller's own object.
        reply: The reply, or the failure after bounded retries.
        key: Ledger key of the request.
        cached: True when no token was paid for it now (the ledger had it, or an equal request was in flight).
    """

    request: AnyRequest
    reply: Reply | Failure
    key: str
    cached: bool


@dataclass
class _InFlight:
    """A request at the teacher, and everyone who waits for its reply."""

    key: str
    request: AnyRequest
    waiting: list[tuple[int, AnyRequest]]
    started: float = field(default_factory=time.monotonic)


class Asker:
    """A teacher with its ledger and its budget.

    Attributes:
        teacher: The backend.
        ledger: Where replies are kept.
        counts: What was asked since it was made; its `seconds` are the wall-clock time inside the teacher's stream.
        meter: What was spent, when there is a budget; the teachers of one run share it.
        purpose: Of the latest stream.
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
        run = _Run(self, take, purpose, total)
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

    def _teacher_stream(self, run: _Run) -> Generator[tuple[AnyRequest, Reply | Failure], None, None]:
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


class _Run:
    """The state of one `_run`: what was taken, what is at the teacher, what waits for the disk."""

    def __init__(self, asker: Asker, take: Take, purpose: str, total: int | None):
        self._asker = asker
        self._take = take
        self._purpose = purpose
        self._total = total
        self._identity = asker.teacher.identity
        self._thinking = asker.thinking_tokens
        self._tickets = 0
        self._given = 0
        self._fresh: deque[_InFlight] = deque()
        self._held: deque[tuple[int, AnyRequest]] = deque()
        self._flying: dict[tuple[str, int], _InFlight] = {}
        self._by_id: dict[int, _InFlight] = {}
        self._ready: deque[tuple[int, Answer]] = deque()
        self._storing: deque[tuple[Future[None], list[tuple[int, Answer]]]] = deque()
        self._reported = 0.0
        self._began = (asker.counts.completion_tokens, time.monotonic())
        self._noted = asker.counts.cached
        self.budget_met = False

    def fill(self) -> bool:
        """Take until there is something fresh for the teacher or the caller's source is dry."""
        return bool(self._pull(self._asker.teacher.concurrency) or self._ready)

    @property
    def has_fresh(self) -> bool:
        """Whether something waits for the teacher."""
        return bool(self._fresh)

    def more(self, room: int) -> list[AnyRequest]:
        """What the teacher calls when it has room."""
        self._pull(room)
        sent = [self._fresh.popleft() for _ in range(min(room, len(self._fresh)))]
        now = time.monotonic()
        for item in sent:
            item.started = now
        return [item.request for item in sent]

    def _pull(self, room: int) -> int:
        """Sort what the source gives into cached, shared and fresh until `room` fresh ones are there.

        An answer that is ready comes first: it may be the caller's last, and what is sent beyond it is paid for
        nothing.
        """
        while len(self._fresh) < room and not self.budget_met and not self._ready and len(self._storing) < _BUFFER:
            if not self._held:
                for request in self._take(1):
                    self._held.append((self._tickets, request))
                    self._tickets += 1
                if not self._held:
                    break
            if not self._place(*self._held[0]):
                break
            self._held.popleft()
        return len(self._fresh)

    def _place(self, ticket: int, request: AnyRequest) -> bool:
        """Answer, share or queue one request; False when the budget lets none be sent now."""
        asker = self._asker
        plain = request_to_json(request)
        key = request_key(self._identity, plain)
        bound = request.max_tokens if isinstance(request, Request) else 0
        sharing = self._flying.get((key, bound))
        if sharing is not None:
            sharing.waiting.append((ticket, request))
            return True
        found = asker.ledger.find(key, bound, self._thinking)
        if found is not None:
            asker.counts.cached += 1
            self._ready.append((ticket, _answer_of(found, request)))
            return True
        lacking = asker.teacher.abilities.lacking(request)
        if lacking:
            raise TeacherRefused(
                f"the teacher {asker.teacher.name} cannot {lacking}; check `abilities` first, or use a backend that "
                "can: transformers or vllm"
            )
        if asker.meter is not None:
            verdict = asker.meter.admit(request, asker.teacher.name)
            if verdict == "stop" or (verdict == "wait" and not self._flying):
                self.budget_met = True
            if verdict != "send":
                return False
        item = _InFlight(key, request, [(ticket, request)])
        self._flying[key, bound] = item
        self._by_id[id(request)] = item
        self._fresh.append(item)
        return True

    def again(self, request: AnyRequest, prompt_tokens: int, completion_tokens: int) -> Verdict:
        """Whether the budget lets a request be sent again that was billed for so much (see `Purse`)."""
        if self._asker.meter is None:
            return "send"
        verdict = self._asker.meter.again(request, self._asker.teacher.name, prompt_tokens, completion_tokens)
        self.budget_met |= verdict == "stop"
        return verdict

    def receive(self, request: AnyRequest, reply: Reply | Failure) -> None:
        """Send one reply to the ledger; its answers become ready when it is on disk."""
        asker, counts = self._asker, self._asker.counts
        bound = request.max_tokens if isinstance(request, Request) else 0
        item = self._by_id.pop(id(request), None)
        if item is None:
            item = self._flying[asker.key(request), bound]
            self._by_id.pop(id(item.request), None)
        del self._flying[item.key, bound]
        counts.retried += (reply.attempts or 1) - 1
        if isinstance(reply, Failure):
            counts.failed += len(item.waiting)
            counts.prompt_tokens += reply.prompt_tokens
            counts.completion_tokens += reply.completion_tokens
            if asker.meter is not None:
                asker.meter.settle(request, asker.teacher.name, reply.prompt_tokens, reply.completion_tokens)
            done = asker.ledger.record_failure(
                item.key, purpose=self._purpose, teacher=asker.teacher.name, reason=reply.reason,
                attempts=reply.attempts, prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens,
            )  # fmt: skip
            answers = [(ticket, Answer(own, reply, item.key, cached=False)) for ticket, own in item.waiting]
        else:
            plain = reply_to_json(reply)
            counts.fresh += 1
            counts.cached += len(item.waiting) - 1
            counts.truncated += reply.finish == "length"
            counts.refused += reply.finish == "refused"
            counts.prompt_tokens += reply.prompt_tokens
            counts.completion_tokens += reply.completion_tokens
            if asker.meter is not None:
                asker.meter.settle(request, asker.teacher.name, reply.prompt_tokens, reply.completion_tokens)
            done = asker.ledger.record(
                item.key,
                purpose=self._purpose,
                teacher=asker.teacher.name,
                request=request_to_json(request),
                reply=plain,
                finish=reply.finish,
                max_tokens=bound + (self._thinking if reply.finish == "length" else 0),
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                attempts=reply.attempts,
                seconds=round(time.monotonic() - item.started, 4),
            )
            canonical = reply_from_json(plain)
            answers = [
                (ticket, Answer(own, canonical, item.key, cached=number > 0))
                for number, (ticket, own) in enumerate(item.waiting)
            ]
        self._storing.append((done, answers))

    def answers(self) -> Iterator[tuple[int, Answer]]:
        """Everything that may be handed on now."""
        while True:
            while self._storing and (self._storing[0][0].done() or len(self._storing) >= _BUFFER):
                done, answers = self._storing.popleft()
                done.result()
                self._ready.extend(answers)
            if not self._ready:
                return
            self._given += 1
            yield self._ready.popleft()
            self.report()

    def settle(self) -> None:
        """Wait until all that was received is on disk."""
        while self._storing:
            done, answers = self._storing.popleft()
            done.result()
            self._ready.extend(answers)

    def report(self, *, last: bool = False) -> None:
        """Tell the listener, at most once a second."""
        now = time.monotonic()
        if not self._given or (now - self._reported < 1.0 and not last):
            return
        self._reported = now
        counts, (tokens_before, began) = self._asker.counts, self._began
        if counts.cached > self._noted:
            self._asker.ledger.count_cached(self._purpose, counts.cached - self._noted)
            self._noted = counts.cached
        rate = (counts.completion_tokens - tokens_before) / max(now - began, 1e-9)
        data = {**counts.to_json(), "tokens_per_s": round(rate, 1)}
        usd = self._asker.usd
        if usd is not None:
            data["usd"] = round(usd, 6)
        self._asker.listener(
            Event(
                self._purpose,
                "progress",
                f"{counts.fresh} replies, {counts.cached} from the ledger, {rate:.0f} tokens/s",
                done=self._given,
                total=self._total,
                data=data,
            )
        )


def _answer_of(found: Entry, request: AnyRequest) -> Answer:
    return Answer(request, reply_from_json(found.reply), found.key, cached=True)
