"""Limits a minute that a user knows beforehand: the flow by a clock of the test's own, then against a real server."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Message, Reply, Request
from potstill.datagen.teachers import open_teacher
from potstill.datagen.teachers.rate_limits import MinuteFlow, RateLimits, told_pause_s
from potstill.errors import OptionError

FAST: dict[str, Any] = {"backoff_s": 0.01, "longest_pause_s": 0.1, "timeout_s": 1.0, "startup_s": 0.5, "patience_s": 5}


class Clock:
    """Time that passes only where something sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def ask(text: str, **fields: Any) -> Request:
    return Request((Message("user", text),), **fields)


def most_in_a_minute(times: list[float], sizes: list[float]) -> float:
    """The most that any 60 seconds hold."""
    return max(
        sum(size for at, size in zip(times, sizes, strict=True) if start <= at < start + 60 - 1e-6) for start in times
    )


def test_requests_are_spread_over_the_minute() -> None:
    clock, times = Clock(), list[float]()
    limits = RateLimits(requests_per_minute=30, clock=clock, sleep=clock.sleep)

    async def all_of_them() -> None:
        for _ in range(90):
            async with limits.turn(100):
                times.append(clock.now)

    asyncio.run(all_of_them())
    gaps = [later - one for one, later in itertools.pairwise(times)]
    assert min(gaps) == pytest.approx(2.0, abs=0.01)
    assert max(gaps) == pytest.approx(2.0, abs=0.01)
    assert most_in_a_minute(times, [1.0] * len(times)) == 30


def test_tokens_are_set_aside_and_corrected_by_what_came() -> None:
    clock = Clock()
    times, used = list[float](), list[float]()
    limits = RateLimits(tokens_per_minute=6000, clock=clock, sleep=clock.sleep)

    async def all_of_them() -> None:
        for _ in range(200):
            async with limits.turn(600) as turn:
                times.append(clock.now)
                used.append(200.0)
                await clock.sleep(0.5)
                turn.took(200)

    asyncio.run(all_of_them())
    assert most_in_a_minute(times, used) <= 6000
    # 200 replies of 200 tokens are 40,000: 6 minutes and 40 seconds at 6,000 a minute, not 20 by what was set aside.
    assert 6.0 < (times[-1] - times[0]) / 60 < 7.5
    first = sum(at < times[0] + 15 for at in times)
    assert first <= 9, "a quarter of a minute holds about a quarter of its tokens"


def test_what_is_under_way_counts_by_all_that_it_may_take() -> None:
    flow = MinuteFlow(1000)
    parts = []
    for now in (0.0, 24.0):
        assert flow.wait_s(400, now) == 0
        parts.append(flow.take(400, now))
    assert flow.wait_s(400, 48.0) == pytest.approx(12.0), "1,200 would be under way in one minute"
    flow.correct(parts[0], 100)
    assert flow.wait_s(400, 48.0) == 0
    flow.correct(parts[1], 900)  # a server may count more than was thought
    assert flow.wait_s(400, 48.0) == pytest.approx(36.0)


def test_one_request_that_alone_exceeds_the_limit_goes_alone(caplog: pytest.LogCaptureFixture) -> None:
    clock, times = Clock(), list[float]()
    limits = RateLimits(tokens_per_minute=1000, clock=clock, sleep=clock.sleep)

    async def all_of_them() -> None:
        for tokens in (100, 2500, 100, 2500):
            async with limits.turn(tokens) as turn:
                times.append(clock.now)
                turn.took(tokens)

    with caplog.at_level(logging.WARNING):
        asyncio.run(all_of_them())
    gaps = [later - one for one, later in itertools.pairwise(times)]
    assert gaps[0] == pytest.approx(60.0, abs=0.01), "alone: nothing else in the minute before it"
    assert gaps[1] == pytest.approx(150.0, abs=0.01), "and the minutes that it takes are waited for"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "up to 2,500 tokens" in said[0]
    assert "tokens_per_minute (1,000)" in said[0]
    assert "raise" in said[0]


def test_a_refused_attempt_gives_its_tokens_back_and_tells_nothing_of_replies() -> None:
    flow = MinuteFlow(600)
    part = flow.take(300, 0.0)
    flow.correct(part, 0)
    assert flow.wait_s(300, 0.0) == 0
    flow.take(300, 0.0)
    assert flow.wait_s(300, 0.0) == pytest.approx(30.0), "the next is still thought to take all of it"


def test_a_pause_of_the_server_is_waited_for_too() -> None:
    clock, times = Clock(), list[float]()
    limits = RateLimits(requests_per_minute=60, clock=clock, sleep=clock.sleep)
    until = clock.now + 20

    async def two() -> None:
        for _ in range(2):
            async with limits.turn(1, held_s=lambda: until - clock.now):
                times.append(clock.now)

    asyncio.run(two())
    assert times == pytest.approx([until, until + 1], abs=0.01)


@pytest.mark.parametrize(
    ("headers", "tokens", "seconds"),
    [
        ({}, 100, 0.0),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "20s"}, 100, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20s"}, 100, 20.0),
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1m0s",
            },
            100,
            1.0,
        ),
        (
            {
                "x-ratelimit-limit-tokens": "6000",
                "x-ratelimit-remaining-tokens": "100",
                "x-ratelimit-reset-tokens": "59s",
            },
            300,
            2.0,
        ),
        ({"x-ratelimit-remaining-tokens": "100", "x-ratelimit-reset-tokens": "850ms"}, 300, 0.85),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6h3m"}, 300, 60.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2026-01-01T00:00:00Z"}, 1, 0.0),
        ({"x-ratelimit-remaining-requests": "no", "x-ratelimit-reset-requests": "1s"}, 1, 0.0),
    ],
)
def test_what_a_server_tells_of_its_limits(headers: dict[str, str], tokens: int, seconds: float) -> None:
    assert told_pause_s(headers, tokens) == pytest.approx(seconds)


def test_a_run_keeps_to_the_requests_a_minute_and_takes_none_long_before(server_module: Any) -> None:
    with server_module.running_server(None) as server:
        teacher = open_teacher(f"openai:{server.url}#m", requests_per_minute=600, concurrency=32, **FAST)
        source = iter([ask(f"text {i}") for i in range(16)])
        taken, ahead, replies = 0, [], 0

        def take(room: int) -> list[Request]:
            nonlocal taken
            given = [request for _, request in zip(range(room), source)]
            taken += len(given)
            ahead.append(taken - server.asked)
            return given

        started = time.monotonic()
        for _, reply in teacher.stream(take):
            assert isinstance(reply, Reply)
            replies += 1
        seconds = time.monotonic() - started
        teacher.close()
    assert replies == 16
    assert server.asked == 16
    assert 1.4 < seconds < 20, "16 requests a tenth of a second apart"
    assert max(ahead) <= 6, "what waits for its minute is not taken: nobody could take it back"


def test_two_urls_share_the_limit(server_module: Any, drain: Any) -> None:
    with server_module.running_server(None) as one, server_module.running_server(None) as two:
        teacher = open_teacher(f"openai:{one.url},{two.url}#m", requests_per_minute=600, **FAST)
        started = time.monotonic()
        drain(teacher, [ask(f"text {i}") for i in range(12)])
        assert time.monotonic() - started > 1.0
        teacher.close()
    assert one.asked + two.asked == 12


def test_the_usage_that_comes_back_counts(server_module: Any, drain: Any) -> None:
    with server_module.running_server(None) as server:
        # Up to about 560 tokens a request are set aside, 9 are used: at 60,000 a minute 64 requests would take half a
        # minute by the first and half a second by the second.
        teacher = open_teacher(f"openai:{server.url}#m", tokens_per_minute=60_000, **FAST)
        started = time.monotonic()
        drain(teacher, [ask(f"text {i}", max_tokens=512) for i in range(64)])
        seconds = time.monotonic() - started
        teacher.close()
    assert seconds < 20


def test_a_server_that_says_nothing_is_left_is_not_asked_until_there_is(server_module: Any, drain: Any) -> None:
    told = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}
    times = list[float]()
    lock = threading.Lock()

    def fault(number: int, text: str) -> Any:
        with lock:
            times.append(time.monotonic())
        if number:
            return None
        message = {"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]}
        return 200, message, told

    with server_module.running_server(fault) as server:
        teacher = open_teacher(f"openai:{server.url}#m", concurrency=1, **FAST)
        drain(teacher, [ask("one"), ask("two")])
        teacher.close()
    assert times[1] - times[0] >= 0.95
    assert server.faults.get("429", 0) == 0


def test_waiting_for_the_minute_is_no_silence_of_the_server(server_module: Any, drain: Any) -> None:
    """A request that comes long after the last reply, because of the limit, finds the server's patience unspent."""
    with server_module.running_server(lambda number, text: "503" if number == 1 else None) as server:
        teacher = open_teacher(
            f"openai:{server.url}#m", requests_per_minute=40, concurrency=1, **{**FAST, "patience_s": 1.0}
        )
        replies = drain(teacher, [ask("one"), ask("two")])
        teacher.close()
    assert all(isinstance(reply, Reply) for _, reply in replies)


def test_limits_change_no_key_and_ask_for_nothing_again(server_module: Any, tmp_path: Path) -> None:
    with server_module.running_server(None) as server, Ledger(tmp_path / "ledger.sqlite") as ledger:
        identities = []
        for options in ({}, {"requests_per_minute": 600.0}, {"tokens_per_minute": 100_000}):
            teacher = open_teacher(f"openai:{server.url}#m", **FAST, **options)
            asker = Asker(teacher, ledger)
            identities.append(asker.identity)
            asker.ask([ask(f"text {i}") for i in range(3)], "datagen")
            teacher.close()
    assert server.asked == 3
    assert identities[0] == identities[1] == identities[2]


@pytest.mark.parametrize("options", [{"requests_per_minute": -1}, {"tokens_per_minute": -5}])
def test_a_limit_below_zero_is_refused(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(OptionError, match=f"{name} must not be below 0"):
        open_teacher("openai:http://127.0.0.1:1/v1#m", **options)
