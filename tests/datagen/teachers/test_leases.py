"""Leases alone, by a clock that the test moves: each request is answered once, whatever workers do."""

from __future__ import annotations

import threading
from random import Random

import pytest

from potstill.asking.teacher import AnyRequest, Failure, Message, Reply, Request
from potstill.datagen.teachers.leases import MOST_DEATHS, About, Leases, Left
from potstill.datagen.teachers.worker import Broken, Outcome


class Clock:
    """Seconds that a test counts."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def asked(*texts: str) -> list[AnyRequest]:
    return [Request((Message("user", text),)) for text in texts]


def about(name: str, room: int = 4) -> About:
    return About(name, "host", 1, room)


def said(number: int, text: str = "yes") -> Outcome:
    return number, Reply(text)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases(clock: Clock) -> Leases:
    found = Leases(30.0, clock)
    found.put(asked("a", "b", "c"))
    found.join(about("one"))
    found.join(about("two"))
    return found


def numbers(given: object) -> list[int]:
    return [number for number, _ in given.requests]  # type: ignore[attr-defined]


def test_what_a_silent_worker_had_is_given_to_another_and_its_late_answer_is_dropped(
    leases: Leases, clock: Clock
) -> None:
    given = leases.exchange("one", "", [], [], 2)
    assert numbers(given) == [0, 1]
    for _ in range(31):
        clock.now += 1
        assert leases.outcomes(0) == []
        leases.exchange("two", given.stint, [], [], 0)
    left = [item for item in leases.news() if isinstance(item, Left)]
    assert [(item.about.name, item.lost) for item in left] == [("one", 2)]
    assert "nothing was heard of it for 30 s" in left[0].broken.message
    assert numbers(leases.exchange("two", given.stint, [], [], 4)) == [0, 1, 2], "what was lost comes first"
    assert [reply.text for _, reply in answers(leases, "two", [said(0), said(1), said(2)])] == ["yes"] * 3
    assert not leases.exchange("one", given.stint, [said(0, "late")], [1], 0).known, "it must join again"
    leases.join(about("one"))
    assert answers(leases, "one", [said(0, "late"), said(1, "late")]) == []
    assert leases.pending == 0


def answers(leases: Leases, name: str, done: list[Outcome]) -> list[tuple[AnyRequest, Reply]]:
    leases.exchange(name, leases.stint, done, [], 0)
    return leases.outcomes(0)  # type: ignore[return-value]


def test_one_that_was_taken_for_dead_and_lives_goes_on_with_what_nobody_else_has(leases: Leases, clock: Clock) -> None:
    given = leases.exchange("one", "", [], [], 3)
    assert len(leases.exchange("one", given.stint, [], numbers(given), 1).requests) == 1
    for _ in range(31):
        clock.now += 1
        leases.exchange("two", given.stint, [], [], 0)
    assert numbers(leases.exchange("two", given.stint, [], [], 1)) == [0]
    leases.join(about("one"))
    again = leases.exchange("one", given.stint, [], [0, 1, 2], 4)
    assert numbers(again) == []
    assert [worker["in_flight"] for worker in leases.told()] == [1, 2]
    assert answers(leases, "one", [said(0)])[0][1].text == "yes", "who answers first does not matter"


def test_what_is_left_is_shared_among_those_with_room(leases: Leases) -> None:
    leases.put(asked("d", "e", "f"))
    first = leases.exchange("one", "", [], [], 4)
    assert numbers(first) == [0, 1, 2]
    assert numbers(leases.exchange("two", "", [], [], 4)) == [3, 4, 5]
    leases.put(asked(*"ghijkl"))
    assert len(numbers(leases.exchange("one", first.stint, [], [0, 1, 2], 1))) == 1
    given = leases.exchange("two", first.stint, [said(3), said(4), said(5)], [], 4)
    assert len(given.requests) == 4, "nobody else has room"


def test_a_lease_that_was_lost_on_the_way_goes_back(leases: Leases) -> None:
    given = leases.exchange("one", "", [], [], 2)
    assert numbers(leases.exchange("one", given.stint, [], [], 2)) == [0, 1], "its first answer never came"
    assert numbers(leases.exchange("two", given.stint, [], [], 4)) == [2]


def test_this_process_standing_still_is_no_workers_death(leases: Leases, clock: Clock) -> None:
    given = leases.exchange("one", "", [], [], 3)
    clock.now += 1000
    leases.outcomes(0)
    assert leases.exchange("one", given.stint, [], [0, 1, 2], 0).known
    assert [item for item in leases.news() if isinstance(item, Left)] == []


def test_a_request_that_ends_every_worker_fails_and_the_others_do_not(leases: Leases) -> None:
    for turn in range(MOST_DEATHS):
        assert leases.outcomes(0) == []
        leases.join(about(f"w{turn}"))
        assert 0 in numbers(leases.exchange(f"w{turn}", leases.stint, [], [], 1))
        leases.leave(f"w{turn}", Broken("RuntimeError", "out of memory"))
    ((request, failure),) = leases.outcomes(0)
    assert request.messages[0].content == "a"
    assert isinstance(failure, Failure)
    assert failure.passing
    assert "5 workers died while they answered it, the last: out of memory" in failure.reason
    assert numbers(leases.exchange("one", leases.stint, [], [], 4)) == [1], "the other is left to the other"


def test_a_worker_that_was_ended_is_no_reproach_to_its_requests(leases: Leases) -> None:
    for _ in range(3 * MOST_DEATHS):
        leases.join(about("preempted", room=1000))
        assert numbers(leases.exchange("preempted", leases.stint, [], [], 3)) == [0, 1, 2]
        leases.leave("preempted", Broken("", "it was ended"))
    assert leases.outcomes(0) == []
    assert leases.pending == 3


def test_what_is_dropped_is_neither_leased_nor_answered(leases: Leases) -> None:
    given = leases.exchange("one", "", [], [], 2)
    leases.drop()
    assert leases.stint != given.stint
    leases.put(asked("d"))
    told = leases.exchange("one", given.stint, [said(0)], [1], 4)
    assert told.stint == leases.stint
    assert [request.messages[0].content for _, request in told.requests] == ["d"]
    assert leases.outcomes(0) == []
    leases.exchange("one", leases.stint, [said(told.requests[0][0])], [], 0)
    assert len(leases.outcomes(0)) == 1


def test_numbers_of_another_start_of_the_run_mean_nothing(leases: Leases) -> None:
    other = Leases(30.0)
    leases.exchange("one", other.stint, [said(0)], [1, 2], 0)
    assert leases.outcomes(0) == []


def test_the_end_is_told_to_those_who_wait() -> None:
    leases = Leases(30.0)
    leases.join(about("one"))
    heard: list[bool] = []
    thread = threading.Thread(target=lambda: heard.append(leases.exchange("one", "", [], [], 4, wait_s=20).over))
    thread.start()
    leases.end(wait_s=10)
    thread.join(timeout=10)
    assert heard == [True]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_each_request_is_answered_once(seed: int) -> None:
    """Workers come, die, fall silent, lose answers on the way and say things twice, in any order."""
    random, clock = Random(seed), Clock()
    leases = Leases(10.0, clock)
    requests = asked(*(str(i) for i in range(60)))
    leases.put(requests)
    held: dict[str, set[int]] = {}
    stint = leases.stint
    found: list[AnyRequest] = []
    failed = 0
    last: list[tuple[str, list[Outcome]]] = []
    for turn in range(5000):
        clock.now += random.random()
        for request, reply in leases.outcomes(0):
            found.append(request)
            failed += isinstance(reply, Failure)
        if not leases.pending:
            break
        if len(held) < 3:
            held[f"w{turn}"] = set()
            leases.join(about(f"w{turn}"))
        name = random.choice(sorted(held))
        act = random.random()
        if act < 0.03:
            del held[name]  # killed: nobody hears of it again
            continue
        if act < 0.05:
            leases.leave(name, Broken("", "gone"))
            del held[name]
            continue
        done = [said(number) for number in sorted(held[name]) if random.random() < 0.3]
        kept = held[name] - {number for number, _ in done}
        given = leases.exchange(name, stint, done, kept, random.randrange(5))
        if not given.known:
            leases.join(about(name))
            continue
        if last and random.random() < 0.1:  # an older exchange comes once more, late
            before, said_then = random.choice(last)
            leases.exchange(before, stint, said_then, [], 0)
        last = [*last[-3:], (name, done)]
        if random.random() < 0.1:
            held[name] = set(held[name])  # the answer was lost: the worker still has what it had
            continue
        held[name] = kept | {number for number, _ in given.requests}
    assert sorted(map(id, found)) == sorted(map(id, requests))
    assert failed < 5
