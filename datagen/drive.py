"""A stream of requests whose result does not depend on the order of the replies.

A plan makes each request from what it has accepted so far and accepts the answers. The driver lets it make request
i + window as soon as answer i is accepted, and hands the answers over in the order in which the requests were made.
So request i is a function of the plan's state after answer i - window, whatever finished first; a rerun that finds
every reply in the ledger makes the same requests and keeps the same rows, byte for byte. There is no barrier: up
to `window` requests are there for the teacher to take at any time.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from potstill.errors import TeacherUnavailable

if TYPE_CHECKING:
    from potstill.asking.asker import Asker
    from potstill.asking.stream import Answer
    from potstill.asking.teacher import AnyRequest


class Plan(Protocol):
    """Makes requests and accepts their answers."""

    @property
    def finished(self) -> bool:
        """Whether nothing more is wanted; later answers are not accepted."""
        ...

    def next_request(self) -> AnyRequest | None:
        """The next request, or None while what is in flight may suffice."""
        ...

    def accept(self, answer: Answer) -> None:
        """Take the answer to the oldest request that has none yet."""
        ...


def drive(plan: Plan, asker: Asker, *, window: int, purpose: str) -> int:
    """Run a plan until it is finished or makes no more requests.

    Args:
        plan: Makes requests and accepts answers.
        asker: The way to the teacher.
        window: Requests made ahead of the last accepted answer.
        purpose: What the ledger files the requests under.

    Returns:
        How many answers were accepted.

    Raises:
        BudgetReached: The cap was met; the ledger holds what was answered.
        TeacherError: The teacher refused or stayed away.
    """
    ready: deque[AnyRequest] = deque()
    waiting: dict[int, Answer] = {}
    made = accepted = 0
    lock = threading.Lock()

    def refill() -> None:
        nonlocal made
        while not plan.finished and made - accepted < window:
            request = plan.next_request()
            if request is None:
                return
            ready.append(replace(request, tag=made))
            made += 1

    def take(count: int) -> list[AnyRequest]:
        with lock:
            return [ready.popleft() for _ in range(min(count, len(ready)))]

    refill()
    while accepted < made and not plan.finished:
        arrived = 0
        for answer in asker.stream(take, purpose):
            arrived += 1
            if plan.finished:
                continue  # what was in flight when the plan ended: stored by then, and not needed
            waiting[_index(answer.request.tag)] = answer
            with lock:
                while accepted in waiting and not plan.finished:
                    plan.accept(waiting.pop(accepted))
                    accepted += 1
                    refill()
                if plan.finished:
                    ready.clear()
        if not arrived:
            raise TeacherUnavailable(
                f"{asker.teacher.name} ended with {made - accepted} requests unanswered; run the same command again"
            )
    return accepted


def _index(tag: Any) -> int:
    return int(tag)
