"""Asking one thing until it is answered: what each fault means for the next attempt, and when it is enough.

What enters is a way to ask once; what leaves is its answer, or the fault that ended it. A fault of the request's own
counts against `attempts`. A server that is away or busy is waited for up to `patience_s`: no request is at fault then,
and to give it up would leave its rows out of a run that the server's next minute could answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from potstill.asking.budget import Verdict
from potstill.asking.teacher import AnyRequest, Message, Request, ScoreRequest
from potstill.datagen.teachers.openai_endpoints import Endpoints, OpenAIOptions
from potstill.datagen.teachers.openai_wire import Fault
from potstill.errors import TeacherUnavailable

# A request that only ever meets throttles ends too.
_MOST_THROTTLES = 200
# How often a request that waits for its place in the budget looks whether there is one.
_LOOK_S = 0.05

Ask = Callable[[], Awaitable[Any]]


async def until_answered(
    ask: Ask,
    faults: list[Fault],
    endpoints: Endpoints,
    options: OpenAIOptions,
    began: float,
    harmless: Ask | None = None,
    again: Callable[[int, int], Verdict] | None = None,
) -> Any:
    """Ask until it is answered, within the bounds.

    Args:
        ask: One attempt; raises a `Fault`.
        faults: Filled with the faults of attempts that may be followed by another.
        endpoints: Where it is asked, for when they last answered.
        options: The bounds.
        began: When the stream of requests began (monotonic seconds).
        harmless: Asks what nobody could fail over, to tell a server that is down from one that falls over this
            request; None where that is not to be told.
        again: Whether another attempt may be paid for, after one that took so many prompt and completion tokens and
            gave nothing; None where nobody counts.

    Raises:
        Fault: The last fault, when the bounds are met or asking again cannot help.
        TeacherUnavailable: The endpoints stayed away.
    """
    own = throttles = 0
    while True:
        sent = time.monotonic()
        try:
            return await ask()
        except Fault as fault:
            if fault.kind in ("unfit", "fatal"):
                raise
            faults.append(fault)
            if fault.kind == "spent":
                raise
            # Behind a gateway that answers others meanwhile stands a server that is there and fails at this request.
            if fault.kind in ("again", "amiss") or (fault.kind == "down" and (endpoints.last_success or 0.0) > sent):
                own += 1
                if own >= options.attempts:
                    raise
            else:
                throttles += 1
                if throttles >= _MOST_THROTTLES:
                    raise
                if (gone := _away_too_long(fault, endpoints, options, began)) is not None:
                    if fault.kind == "down" and harmless is not None and await _is_answered(harmless):
                        raise
                    raise gone from None
            # Full jitter: requests that failed together do not come back together.
            pause = min(options.longest_pause_s, options.backoff_s * 2 ** min(own + throttles - 1, 20))
            pause *= 0.5 + random.random() / 2
            if fault.retry_after_s is not None and fault.kind != "throttle":
                pause = max(pause, min(fault.retry_after_s, options.patience_s))
            if fault.kind == "throttle" and fault.retry_after_s is not None:
                pause = 0.0  # the gate holds everyone back
            await asyncio.sleep(pause)
            while again is not None and any(fault.paid) and (verdict := again(*fault.paid)) != "send":
                if verdict == "stop":
                    raise
                await asyncio.sleep(_LOOK_S)


async def _is_answered(ask: Ask) -> bool:
    try:
        await ask()
    except Fault as fault:
        return fault.kind == "spent"
    return True


def _away_too_long(
    fault: Fault, endpoints: Endpoints, options: OpenAIOptions, began: float
) -> TeacherUnavailable | None:
    now = time.monotonic()
    if endpoints.last_success is None and fault.kind == "away":
        if endpoints.all_failing and now - began >= options.startup_s:
            return TeacherUnavailable(
                f"{endpoints.shown} could not be reached for {options.startup_s:g} s ({fault}); "
                "check the URL and that the server runs"
            )
    elif now - max(endpoints.last_success or 0.0, endpoints.waiting_since or 0.0, began) >= options.patience_s:
        return TeacherUnavailable(
            f"{endpoints.shown} gave no answer for {options.patience_s:g} s ({fault}); finished "
            "replies are in the ledger: run again when the server is back, or raise teacher_options.patience_s"
        )
    return None


def harmless_like(request: AnyRequest) -> AnyRequest:
    """A request of the same form and options that nobody could object to: neither to its text nor to log-probs."""
    if isinstance(request, ScoreRequest) and request.token_ids is not None:
        prompt, scored = request.token_ids
        return replace(request, token_ids=(prompt[:1], scored[:1]))
    start = "Hello" if request.prefill else ""
    plain = replace(request, token_texts=0) if isinstance(request, Request) else request
    if isinstance(plain, Request) and plain.turn == "user":
        return replace(plain, messages=(Message("system", "Be polite."),), prefill="Hello")
    return replace(plain, messages=(Message("user", "Say hello."),), prefill=start)
