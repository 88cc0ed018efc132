"""How much a server is asked in a minute, where its user knows the limits beforehand, or the server tells them.

What enters is the size of each attempt before it is sent and what it took once that is known; what leaves is the
moment at which it may go. Each limit holds in two ways. Within any 60 seconds no more is sent than it allows: what is
under way counts by all that it may take, what was answered by what it took. And attempts go one after another at the
limit's pace, each as long after the last as its share of the minute, so that no minute begins with all that it may
hold; how much of what is set aside replies take in the end is learnt from those that came.

`pace` stands beside it: it learns from refusals (429) how many requests a server takes at a time.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

_LOG = logging.getLogger(__name__)
MINUTE_S = 60.0
# Attempts that may wait for their moment: what is taken cannot be given back when the run has its rows.
_AHEAD = 4
# The longest sleep before it is looked again: replies that took less than was set aside bring the moment nearer.
_LOOK_S, _LEAST_S = 0.25, 0.001
# The weight of earlier replies in the share of what is set aside that a reply takes.
_MEMORY = 0.95
# A server that says it has nothing left for longer than this is asked all the same: its 429 says what is meant.
_LONGEST_TOLD_S = 60.0
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


@dataclass(slots=True)
class Part:
    """What one attempt takes of a limit: when it went, what counts of it now, and what the line moved on for it."""

    at: float
    amount: float
    reserved: float
    paced: float


class MinuteFlow:
    """One limit: so much within any 60 seconds, at a steady pace. Times are seconds of any one clock."""

    def __init__(self, per_minute: float):
        self.per_minute = per_minute
        self._parts: deque[Part] = deque()
        self._next = float("-inf")
        self._reserved = self._used = 1.0

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until an attempt of this size may go; what alone exceeds the limit goes when nothing else counts."""
        parts = self._parts
        while parts and parts[0].at <= now - MINUTE_S:
            parts.popleft()
        counted, until = sum(part.amount for part in parts), now
        for part in parts:
            if counted <= 0 or counted + amount <= self.per_minute:
                break
            counted, until = counted - part.amount, part.at + MINUTE_S
        return max(0.0, until - now, self._next - now)

    def take(self, amount: float, now: float) -> Part:
        """Count an attempt that goes now."""
        part = Part(now, amount, amount, amount * self._used / self._reserved)
        self._parts.append(part)
        self._next = max(self._next, now) + part.paced * MINUTE_S / self.per_minute
        return part

    def correct(self, part: Part, used: float) -> None:
        """Count what an attempt took in place of what was set aside for it; 0 for one that the server refused."""
        if used > 0:
            self._reserved = _MEMORY * self._reserved + part.reserved
            self._used = _MEMORY * self._used + used
        self._next += (used - part.paced) * MINUTE_S / self.per_minute
        part.amount = part.paced = used


@dataclass
class Turn:
    """One attempt that may go."""

    flow: MinuteFlow | None
    part: Part | None

    def took(self, tokens: int) -> None:
        """Its prompt and completion tokens, once they are known; 0 where the server refused it."""
        if self.flow is not None and self.part is not None:
            self.flow.correct(self.part, tokens)


class RateLimits:
    """The gate before a server with limits a minute, over all its URLs. Lives in one event loop.

    Attributes:
        under_way: Attempts that have gone and have no outcome yet.
        passed: Called when an attempt goes, for who waits to take more; None for nobody.
    """

    def __init__(
        self,
        requests_per_minute: float = 0,
        tokens_per_minute: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        """Args:
        requests_per_minute: Attempts within any 60 seconds; 0 for no limit.
        tokens_per_minute: Prompt and completion tokens of those; 0 for no limit.
        clock: Seconds that only grow.
        sleep: Waits so many seconds by that clock.
        """
        self._requests = MinuteFlow(requests_per_minute) if requests_per_minute else None
        self._tokens = MinuteFlow(tokens_per_minute) if tokens_per_minute else None
        self._clock, self._sleep = clock, sleep
        self._line = asyncio.Lock()
        self._noted = False
        self.under_way = 0
        self.passed: Callable[[], None] | None = None

    def room(self, taken: int) -> int:
        """How many more requests may be taken, where so many are taken and not answered."""
        return max(0, self.under_way + _AHEAD - taken)

    @asynccontextmanager
    async def turn(self, tokens: int, held_s: Callable[[], float] = lambda: 0.0) -> AsyncIterator[Turn]:
        """Wait for the moment at which an attempt may go, in the order in which they came.

        Args:
            tokens: The most prompt and completion tokens that it can take; 0 where it takes none.
            held_s: Seconds for which nothing may go to the server for another reason.
        """
        async with self._line:
            self._note(tokens)
            while (wait := max(self._wait_s(tokens), held_s())) > 0:
                await self._sleep(min(max(wait, _LEAST_S), _LOOK_S))
            now = self._clock()
            if self._requests is not None:
                self._requests.take(1, now)
            part = self._tokens.take(tokens, now) if self._tokens is not None and tokens else None
        self.under_way += 1
        if self.passed is not None:
            self.passed()
        try:
            yield Turn(self._tokens, part)
        finally:
            self.under_way -= 1

    def _wait_s(self, tokens: int) -> float:
        now = self._clock()
        requests = self._requests.wait_s(1, now) if self._requests is not None else 0.0
        return max(requests, self._tokens.wait_s(tokens, now) if self._tokens is not None and tokens else 0.0)

    def _note(self, tokens: int) -> None:
        if self._tokens is None or tokens <= self._tokens.per_minute or self._noted:
            return
        self._noted = True
        _LOG.warning(
            "a request may take up to %s tokens, more than teacher_options.tokens_per_minute (%s): such requests are "
            "sent alone, each a minute or more after the last; raise tokens_per_minute where the account has more, or "
            "lower what a reply may take (generation.max_tokens, teacher_options.thinking_tokens)",
            f"{tokens:,}", f"{self._tokens.per_minute:,.0f}",
        )  # fmt: skip


def told_pause_s(headers: Mapping[str, str], tokens: int) -> float:
    """Seconds until a server that tells its limits has room for another attempt; 0 where it has, or tells nothing.

    Read are `x-ratelimit-remaining-…`, `-reset-…` and `-limit-…` of `requests` and `tokens`, as OpenAI, Groq and others
    send them: a limit fills up evenly until its reset.

    Args:
        headers: Of a reply.
        tokens: What an attempt may take.

    Examples:
        >>> told_pause_s({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2.5s"}, 100)
        60.0
        >>> told_pause_s({"x-ratelimit-remaining-requests": "8", "x-ratelimit-reset-requests": "1m2.5s"}, 100)
        0.0
    """
    return max(_told_s(headers, "requests", 1), _told_s(headers, "tokens", tokens))


def _told_s(headers: Mapping[str, str], kind: str, need: int) -> float:
    remaining, limit = (_number(headers.get(f"x-ratelimit-{word}-{kind}")) for word in ("remaining", "limit"))
    reset = _duration_s(headers.get(f"x-ratelimit-reset-{kind}"))
    if remaining is None or reset is None or remaining >= need:
        return 0.0
    pause = reset
    if limit is not None and limit > remaining:
        pause = min(reset, (need - remaining) * reset / (limit - remaining))
    return min(pause, _LONGEST_TOLD_S)


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"\d{1,12}", text.strip()) else None


def _duration_s(text: str | None) -> float | None:
    """Seconds of `6m0s`, `17ms`, `1.5s` or `2`; None for what is no duration."""
    word = (text or "").strip()
    if re.fullmatch(r"\d{1,6}(?:\.\d+)?", word):
        return float(word)
    match = _DURATION.fullmatch(word)
    if not word or match is None:
        return None
    return sum(float(part) * unit for part, unit in zip(match.groups("0"), (86400, 3600, 60, 1, 0.001), strict=True))
