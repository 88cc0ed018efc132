"""The asker: cache, durability, order, shared answers."""

from __future__ import annotations

import dataclasses
import random
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.stream import Answer
from potstill.asking.teacher import (
    Abilities,
    AnyRequest,
    Failure,
    Message,
    Reply,
    Request,
    ScoreRequest,
    Take,
    TokenTop,
)
from potstill.asking.teacher_json import reply_from_json, reply_to_json, request_to_json
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.errors import TeacherRefused, TeacherUnavailable
from potstill.events import Event


def request(text: object, **fields: Any) -> Request:
    return Request((Message("user", str(text)),), **fields)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


class Scripted:
    """A teacher whose replies a function gives, in batches, shuffled."""

    name = "scripted"
    identity: Mapping[str, str] = {"backend": "scripted"}
    abilities = Abilities(prefill=True, scores=True, top_logprobs=5)

    def __init__(self, reply: Any = None, concurrency: int = 8, copies: bool = False):
        self.concurrency = concurrency
        self.seen: list[AnyRequest] = []
        self.reply = reply or (lambda item: Reply(text=f"re: {item.messages[0].content}", completion_tokens=3))
        self.copies = copies
        self.random = random.Random(0)

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        flying: list[AnyRequest] = []
        while True:
            taken = take(self.concurrency - len(flying)) if len(flying) < self.concurrency else []
            self.seen.extend(taken)
            flying.extend(taken)
            if not flying:
                return
            item = flying.pop(self.random.randrange(len(flying)))
            yield dataclasses.replace(item) if self.copies else item, self.reply(item)

    def close(self) -> None:
        pass


def test_answers_come_in_the_order_given_and_are_cached(ledger: Ledger) -> None:
    teacher = Scripted()
    requests = [request(i) for i in range(500)]
    first = Asker(teacher, ledger).ask(requests, "p")
    assert [a.request.messages[0].content for a in first] == [str(i) for i in range(500)]
    assert [a.reply.text for a in first if isinstance(a.reply, Reply)] == [f"re: {i}" for i in range(500)]
    asker = Asker(teacher, ledger)
    second = asker.ask([request(i) for i in range(500)], "p")
    assert len(teacher.seen) == 500
    assert [a.reply for a in second] == [a.reply for a in first]
    assert all(a.cached for a in second)
    assert (asker.counts.cached, asker.counts.fresh) == (500, 0)


def test_a_teacher_that_hands_back_copies(ledger: Ledger) -> None:
    answers = Asker(Scripted(copies=True), ledger).ask([request(i) for i in range(50)], "p")
    assert [a.reply.text for a in answers if isinstance(a.reply, Reply)] == [f"re: {i}" for i in range(50)]


def test_each_answer_is_on_disk_before_it_is_handed_on(tmp_path: Path, ledger: Ledger) -> None:
    source = iter([request(i) for i in range(300)])
    with Ledger(tmp_path / "ledger.sqlite", read_only=True) as other:
        for answer in Asker(Scripted(), ledger).stream(lambda n: [r for _, r in zip(range(n), source)], "p"):
            assert other.get(answer.key) is not None


def test_every_field_but_max_tokens_and_tag_is_in_the_key(ledger: Ledger) -> None:
    asker = Asker(Scripted(), ledger)
    base = request("x")
    changed = [
        dataclasses.replace(base, messages=(Message("system", "x"),)),
        dataclasses.replace(base, messages=(Message("user", "y"),)),
        dataclasses.replace(base, prefill="p"),
        dataclasses.replace(base, temperature=0.5),
        dataclasses.replace(base, top_p=0.5),
        dataclasses.replace(base, stop=("s",)),
        dataclasses.replace(base, seed=1),
        dataclasses.replace(base, sample=1),
        dataclasses.replace(base, schema={"type": "object"}),
        dataclasses.replace(base, choices=("a",)),
        dataclasses.replace(base, top_logprobs=1),
        ScoreRequest(base.messages, ("a",)),
        ScoreRequest(base.messages, ("b",)),
        ScoreRequest(base.messages, ("a",), top_logprobs=1),
    ]
    keys = [asker.key(item) for item in [base, *changed]]
    assert len(set(keys)) == len(keys)
    assert len(changed) >= len(dataclasses.fields(Request)) - 2
    assert asker.key(dataclasses.replace(base, max_tokens=1, tag="t")) == keys[0]
    # Numbers that are equal make equal keys.
    assert asker.key(dataclasses.replace(base, temperature=1)) == keys[0]
    other = Scripted()
    other.identity = {"backend": "scripted", "endpoint": "elsewhere"}
    assert Asker(other, ledger).key(base) != keys[0]


def test_only_truncated_replies_are_asked_again_with_more_tokens(ledger: Ledger) -> None:
    def reply(item: Request) -> Reply:
        long = int(item.messages[0].content) % 4 == 0
        used = 50 if long else 5
        cut = used >= item.max_tokens
        return Reply(text="x", finish="length" if cut else "stop", completion_tokens=min(used, item.max_tokens))

    teacher = Scripted(reply)
    Asker(teacher, ledger).ask([request(i, max_tokens=20) for i in range(100)], "p")
    asker = Asker(teacher, ledger)
    asker.ask([request(i, max_tokens=200) for i in range(100)], "p")
    assert asker.counts.fresh == 25
    again = Asker(teacher, ledger)
    again.ask([request(i, max_tokens=20) for i in range(100)], "p")
    again.ask([request(i, max_tokens=200) for i in range(100)], "p")
    assert again.counts.fresh == 0


def test_equal_requests_in_flight_share_one_reply(ledger: Ledger) -> None:
    teacher = Scripted(concurrency=50)
    answers = Asker(teacher, ledger).ask([request(i % 10) for i in range(100)], "p")
    assert len(teacher.seen) == 10
    assert sum(not a.cached for a in answers) == 10
    assert [a.reply.text for a in answers if isinstance(a.reply, Reply)] == [f"re: {i % 10}" for i in range(100)]


def test_failures_are_handed_on_and_asked_again_next_time(ledger: Ledger) -> None:
    fail = True
    teacher = Scripted(
        lambda item: Failure("broken", 3) if fail and item.messages[0].content == "3" else Reply(text="fine")
    )
    asker = Asker(teacher, ledger)
    answers = asker.ask([request(i) for i in range(10)], "p")
    assert isinstance(answers[3].reply, Failure)
    assert asker.counts.failed == 1
    assert asker.counts.retried == 2
    fail = False
    answers = Asker(teacher, ledger).ask([request(i) for i in range(10)], "p")
    assert isinstance(answers[3].reply, Reply)
    assert len(teacher.seen) == 11


def test_a_source_that_waits_for_answers(ledger: Ledger) -> None:
    """Refill until a quota is met: nothing to give now is not the end."""
    made = good = answered = refused = 0

    def take(room: int) -> Sequence[AnyRequest]:
        nonlocal made, refused
        # What is in flight may suffice; without it, how much is asked for would depend on the speed of the disk.
        wanted = max(0, min(room, 40 - good - (made - answered), 5))
        refused += wanted == 0 and good < 40
        new = [request(made + i) for i in range(wanted)]
        made += wanted
        return new

    for answer in Asker(Scripted(), ledger).stream(take, "p"):
        answered += 1
        good += int(answer.request.messages[0].content) % 3 == 0
    assert good >= 40
    assert made < 200
    assert refused > 0  # it did wait


@pytest.mark.parametrize("cached", [False, True])
def test_ordered_answers_do_not_depend_on_timing(tmp_path: Path, cached: bool) -> None:
    """A source that decides each request by the answers it has seen makes the same ones, however replies overtake."""

    def run(seed: int, concurrency: int, ledger: Ledger) -> list[str]:
        teacher = Scripted(lambda item: Reply(text=str(hash(item.messages[0].content) % 7)), concurrency=concurrency)
        teacher.random = random.Random(seed)
        seen: list[int] = []
        texts: list[str] = []

        def take(room: int) -> Sequence[AnyRequest]:
            new = [f"{len(texts) + i} after {sum(seen)}" for i in range(min(room, 200 - len(texts)))]
            texts.extend(new)
            return [request(text) for text in new]

        for answer in Asker(teacher, ledger).stream_ordered(take, "p", window=16):
            assert answer.request.messages[0].content == texts[len(seen)]
            assert isinstance(answer.reply, Reply)
            seen.append(int(answer.reply.text))
        assert len(seen) == 200
        return texts

    runs = []
    for seed, concurrency in ((0, 1), (1, 4), (2, 16), (3, 64)):
        with Ledger(tmp_path / ("one.sqlite" if cached else f"{seed}.sqlite")) as ledger:
            runs.append(run(seed, concurrency, ledger))
    assert runs[0] == runs[1] == runs[2] == runs[3]


def test_the_window_bounds_how_far_the_source_runs_ahead(ledger: Ledger) -> None:
    taken = given_ = most = 0

    def take(room: int) -> Sequence[AnyRequest]:
        nonlocal taken, most
        new = [request(taken + i) for i in range(min(room, 300 - taken))]
        taken += len(new)
        most = max(most, taken - given_)
        return new

    for _ in Asker(Scripted(), ledger).stream_ordered(take, "p", window=10):
        given_ += 1
    assert given_ == 300
    assert most == 10


def test_memory_stays_flat_when_everything_is_cached(ledger: Ledger) -> None:
    asker = Asker(Scripted(), ledger)
    asker.ask([request(0)], "p")
    taken = given_ = most = 0

    def take(room: int) -> Sequence[AnyRequest]:
        nonlocal taken, most
        room = min(room, 20_000 - taken)
        taken += room
        most = max(most, taken - given_)
        return [request(0) for _ in range(room)]

    for _ in asker.stream(take, "p"):
        given_ += 1
    assert given_ == 20_000
    assert most < 2_500


def test_a_teacher_that_dies_keeps_what_was_answered(ledger: Ledger) -> None:
    def reply(item: Request) -> Reply:
        if item.messages[0].content == "77":
            raise TeacherUnavailable("gone")
        return Reply(text="x")

    got: list[Answer] = []
    source = iter([request(i) for i in range(200)])
    stream = Asker(Scripted(reply), ledger).stream(lambda n: [r for _, r in zip(range(n), source)], "p")
    with pytest.raises(TeacherUnavailable, match="gone"):
        deque(map(got.append, stream))
    assert len(got) >= 70
    assert ledger.totals().replies == len(got)


def test_leaving_early_stores_what_was_answered(ledger: Ledger) -> None:
    source = iter([request(i) for i in range(200)])
    stream = Asker(Scripted(), ledger).stream(lambda n: [r for _, r in zip(range(n), source)], "p")
    for _ in range(5):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert ledger.totals().replies >= 5


def test_what_a_teacher_cannot_do_is_refused_before_it_is_asked(ledger: Ledger) -> None:
    teacher = Scripted()
    for item, says in [
        (request("x", schema={"type": "object"}), "JSON schema"),
        (request("x", choices=("a",)), "fixed strings"),
        (request("x", top_logprobs=6), "at most 5"),
    ]:
        with pytest.raises(TeacherRefused, match=says):
            Asker(teacher, ledger).ask([item], "p")
    assert not teacher.seen


def test_events(ledger: Ledger) -> None:
    events: list[Event] = []
    Asker(FakeTeacher(), ledger, listener=events.append).ask([request(i) for i in range(30)], "writing")
    assert events[-1].stage == "writing"
    assert (events[-1].done, events[-1].total) == (30, 30)
    assert events[-1].data["fresh"] == 30


FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(st.characters(blacklist_categories=()), max_size=30),
    tops=st.lists(
        st.tuples(
            st.integers(0, 2**31 - 1), FINITE, st.lists(st.tuples(st.integers(0, 2**31 - 1), FINITE), max_size=4)
        ),
        max_size=5,
    ),
    scores=st.lists(st.floats(-1e4, 0), max_size=4),
)
def test_replies_survive_storage(text: str, tops: list[Any], scores: list[float]) -> None:
    reply = Reply(
        text=text,
        finish="length",
        prompt_tokens=3,
        completion_tokens=4,
        top=tuple(TokenTop(i, lp, tuple(a for a, _ in k), tuple(b for _, b in k)) for i, lp, k in tops),
        scores=tuple(round(score, 6) for score in scores),
        score_tokens=tuple(range(len(scores))),
        raw={"id": text},
        attempts=3,
    )
    assert reply_from_json(reply_to_json(reply)) == reply


def test_a_fresh_answer_equals_the_same_answer_from_the_ledger(ledger: Ledger) -> None:
    item = ScoreRequest((Message("user", "x"),), ("a", "b"))
    teacher = Scripted(lambda _: Reply(scores=(-1.23456789012, -0.1), score_tokens=(1, 1)))
    fresh = Asker(teacher, ledger).ask([item], "p")[0].reply
    assert fresh == Asker(teacher, ledger).ask([item], "p")[0].reply
    assert request_to_json(item)["continuations"] == ["a", "b"]


_RUN = """
import sys
from potstill.asking.asker import Asker
from potstill.datagen.teachers.fake import FakeOptions, FakeTeacher
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Message, Request
teacher = FakeTeacher(FakeOptions(delay_s=0.0005, shuffle=True))
source = iter([Request((Message("user", f"text {i}"),)) for i in range(1500)])
with Ledger(sys.argv[1]) as ledger:
    asker = Asker(teacher, ledger)
    for answer in asker.stream(lambda n: [r for _, r in zip(range(n), source)], "p"):
        print(answer.key, int(answer.cached), flush=True)
"""


def test_kill_9_repeats_nothing_that_was_handed_on(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    handed: set[str] = set()
    chance = random.Random(1)
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", _RUN, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        stop_at = len(handed) + chance.randrange(50, 250)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if len(lines) >= stop_at:
                process.send_signal(signal.SIGKILL)
                break
        lines += [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        process.wait()
        process.stdout.close()
        for line in lines:
            key, cached = line.split()
            if key in handed:
                assert cached == "1", "a request that had been answered was asked again"
            handed.add(key)
    with Ledger(path) as ledger:
        answers = Asker(FakeTeacher(), ledger).ask([Request((Message("user", f"text {i}"),)) for i in range(1500)], "p")
    fresh = {answer.key for answer in answers if not answer.cached}
    assert len(answers) == 1500
    assert not fresh & handed
