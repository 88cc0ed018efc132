"""One stream of questions under way: what was taken, what is at the teacher, what waits for the disk.

What enters is a source of requests and the `Asker` whose teacher, ledger and meter it uses; what leaves is one `Answer`
for each request, from the ledger or from the teacher, the latter once it is on disk. Equal requests in flight share a
reply.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from potstill.asking.budget import Verdict
from potstill.asking.ledger import Entry, request_key
from potstill.asking.teacher import AnyRequest, Failure, Reply, Request, Take
from potstill.asking.teacher_json import reply_from_json, reply_to_json, request_to_json
from potstill.errors import TeacherRefused
from potstill.events import Event

if TYPE_CHECKING:
    from potstill.asking.asker import Asker

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


class AskStream:
    """The state of one stream of an `Asker`; a teacher that asks again by itself has it as its purse."""

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
            asker.unanswered += len(item.waiting) if reply.passing else 0
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
