"""A stream of requests whose result does not depend on the order of the replies.

A plan makes each request from what it has accepted so far and accepts the answers. The driver lets it make request
i + window as soon as answer i is accepted, and hands the answers over in the order in which the requests were made.
So request i is a function of the plan's state after answer i - window, whatever finished first; a rerun that finds
every reply in the ledger makes the same requests and keeps the same rows, byte for byte. There is no barrier: up
to `window` requests are there for the teacher to take at any time.

Where another teacher answers (`generation.output_teacher`; with a stronger one for the outputs alone, students of
arXiv:2212.10560 were rated ten points higher), requests that are marked `ANSWER` go to it. The two work in turns, each
on what is ready for it: on one machine they would only take the processor from each other. The order of the answers,
and with it the rows, is the same.
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


# The tag of a request for an output, as a plan makes it.
ANSWER = "answer"
# What the ledger files requests under that another teacher answers.
ANSWERS = "answers"


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


def drive(plan: Plan, asker: Asker, *, window: int, purpose: str, answerer: Asker | None = None) -> int:
    """Run a plan until it is finished or makes no more requests.

    Args:
        plan: Makes requests and accepts answers.
        asker: The way to the teacher.
        window: Requests made ahead of the last accepted answer.
        purpose: What the ledger files the requests under.
        answerer: The way to another teacher that writes the outputs; None where one teacher writes all.

    Returns:
        How many answers were accepted.

    Raises:
        BudgetReached: The cap was met; the ledger holds what was answered.
        TeacherError: The teacher refused or stayed away.
    """
    # Requests that wait for each teacher.
    ready: dict[Asker, deque[AnyRequest]] = {own: deque() for own in (asker, answerer) if own is not None}
    waiting: dict[int, Answer] = {}
    made = accepted = 0
    lock = threading.Lock()

    def refill() -> None:
        nonlocal made
        while not plan.finished and made - accepted < window:
            request = plan.next_request()
            if request is None:
                return
            own = answerer if answerer is not None and request.tag == ANSWER else asker
            ready[own].append(replace(request, tag=made))
            made += 1

    def arrive(own: Asker) -> int:
        """Hand over what one teacher answers, until nothing waits for it; how many answers that were."""
        nonlocal accepted

        def take(count: int) -> list[AnyRequest]:
            with lock:
                return [ready[own].popleft() for _ in range(min(count, len(ready[own])))]

        arrived = 0
        for answer in own.stream(take, purpose if own is asker else ANSWERS):
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
                    for queue in ready.values():
                        queue.clear()
        return arrived

    refill()
    while accepted < made and not plan.finished:
        if not sum(arrive(own) for own in ready if ready[own]):
            raise TeacherUnavailable(
                f"{asker.teacher.name} ended with {made - accepted} requests unanswered; run the same command again"
            )
    return accepted


def _index(tag: Any) -> int:
    return int(tag)
