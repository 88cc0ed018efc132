"""How many requests an endpoint gets at a time: additive increase, multiplicative decrease.

What enters are successes and throttles; what leaves is permission to send. Until the first throttle each success
allows one more request; after it, each full round of successes does, and every throttle halves what is allowed,
once for all requests that were under way when it came (Chiu & Jain 1989, as TCP does it).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Pace:
    """The gate before one endpoint. Lives in one event loop.

    Attributes:
        limit: Requests allowed at a time.
        active: Requests under way.
        throttled: Throttles so far.
    """

    def __init__(self, start: int, most: int):
        self.limit = float(min(start, most))
        self.most = most
        self.active = 0
        self.throttled = 0
        self._open_at = 0.0
        self._last_cut = 0.0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """Wait for a turn; gives the time at which it began."""
        async with self._changed:
            while True:
                wait = self.pause_s()
                if wait <= 0 and self.active < int(self.limit):
                    break
                if wait > 0:
                    self._changed.release()
                    try:
                        await asyncio.sleep(wait)
                    finally:
                        await self._changed.acquire()
                else:
                    await self._changed.wait()
            self.active += 1
        try:
            yield time.monotonic()
        finally:
            self.active -= 1
            async with self._changed:
                self._changed.notify(2)

    def pause_s(self) -> float:
        """Seconds for which nothing may be sent; 0 or less where it may."""
        return self._open_at - time.monotonic()

    def hold(self, pause_s: float) -> None:
        """Send nothing for so many seconds."""
        self._open_at = max(self._open_at, time.monotonic() + pause_s)

    def succeeded(self) -> None:
        """A request was answered."""
        self.limit = min(self.most, self.limit + (1.0 / self.limit if self.throttled else 1.0))

    def throttle(self, began: float, pause_s: float) -> None:
        """The endpoint asked for less.

        Args:
            began: When the throttled request was sent; a cut since then has already answered it.
            pause_s: How long nothing may be sent.
        """
        self.throttled += 1
        now = time.monotonic()
        self.hold(pause_s)
        if began >= self._last_cut:
            self.limit = max(1.0, self.limit / 2)
            self._last_cut = now
