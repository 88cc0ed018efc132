"""How long a busy Hub is waited for while a dataset is read.

The Hub's client asks again five times, each time after as long as the Hub says, and the `datasets` library around it
twenty times more: where a file is refused for good, a read would hold a run for half an hour. Here every answer is
looked at as it comes, and the read is given up once one address was busy for too long, or says that it will be.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from potstill.errors import UnreachableError

MOST_S = 30.0
BUSY = (408, 429, 500, 502, 503, 504)


@contextmanager
def patience(name: str, most_s: float = MOST_S) -> Iterator[None]:
    """Give up reading a dataset where one address of the Hub stays busy for `most_s` seconds.

    Raises:
        UnreachableError: It did, or asks to wait for longer.
    """
    from huggingface_hub.utils import get_session

    since: dict[str, float] = {}

    def look(answer: Any) -> None:
        place, now = answer.url.path, time.monotonic()
        if answer.status_code not in BUSY:
            since.pop(place, None)
            return
        busy_s, wait_s = now - since.setdefault(place, now), _asked_wait_s(answer.headers)
        if busy_s + wait_s > most_s:
            long = f"asks to wait {wait_s:.0f} s" if wait_s else f"has been busy for {busy_s:.0f} s"
            raise UnreachableError(f"{name} cannot be read now: the Hub answers {answer.status_code} and {long}")

    hooks = get_session().event_hooks["response"]
    hooks.append(look)
    try:
        yield
    finally:
        hooks.remove(look)


def _asked_wait_s(headers: Any) -> float:
    """Seconds that an answer asks to wait for, as the client reads it; 0 where it names none."""
    from huggingface_hub.utils import parse_ratelimit_headers

    if (limit := parse_ratelimit_headers(headers)) is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    stated = str(headers.get("Retry-After", "")).strip()
    return float(stated) if stated.isdigit() else 0.0
