"""Teachers that Python gives: what they are asked, what their errors cost, and what tells one from another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from potstill.asking.asker import Asker
from potstill.asking.budget import Budget, Price, price_of
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, AnyRequest, Failure, Message, Reply, Request, Take, Teacher
from potstill.datagen.teachers import open_teacher
from potstill.datagen.teachers.own import FunctionOptions, FunctionTeacher, open_own
from potstill.errors import OptionError, TeacherRefused, TeacherUnavailable
from potstill.settings import resolve

FAST = FunctionOptions(backoff_s=0.0)


def ask(text: str, **fields: Any) -> Request:
    return Request((Message("system", "Be short."), Message("user", text)), **fields)


def echo(messages: list[dict[str, str]]) -> str:
    return f"{messages[0]['role']}: {messages[-1]['content']}"


def test_a_function_from_messages_to_text_is_a_teacher(drain: Any) -> None:
    teacher = FunctionTeacher(echo)
    assert isinstance(teacher, Teacher)
    assert teacher.name == "python:echo"
    assert teacher.abilities == Abilities()
    [(_, one), (_, two)] = drain(teacher, [ask("one"), ask("two # three", stop=("#",))])
    assert (one.text, one.finish) == ("system: one", "stop")
    assert two.text == "system: two ", "the reply ends where the request says"
    assert one.prompt_tokens > 0
    assert one.completion_tokens > 0


def test_a_function_of_two_arguments_gets_the_request_and_may_give_a_whole_reply(drain: Any) -> None:
    def counted(messages: list[dict[str, str]], request: Request) -> Reply:
        return Reply(f"{request.max_tokens}", finish="length", prompt_tokens=3, completion_tokens=2)

    [(_, reply)] = drain(FunctionTeacher(counted), [ask("one", max_tokens=17)])
    assert reply == Reply("17", "length", 3, 2)


def test_one_call_at_a_time_is_made_by_the_thread_of_the_run(drain: Any) -> None:
    threads = set()

    def note(messages: Any) -> str:
        threads.add(threading.current_thread())
        return "ok"

    drain(FunctionTeacher(note), [ask(f"text {i}") for i in range(5)])
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("is_async", [False, True])
def test_several_calls_at_a_time(is_async: bool, drain: Any) -> None:
    import asyncio

    lock, active, most = threading.Lock(), 0, 0

    def count(by: int) -> None:
        nonlocal active, most
        with lock:
            active += by
            most = max(most, active)

    def waits(messages: Any) -> str:
        count(1)
        time.sleep(0.05)
        count(-1)
        return "ok"

    async def awaits(messages: Any) -> str:
        count(1)
        await asyncio.sleep(0.05)
        count(-1)
        return "ok"

    teacher = FunctionTeacher(awaits if is_async else waits, FunctionOptions(concurrency=4, version="1"))
    replies = drain(teacher, [ask(f"text {i}") for i in range(16)])
    teacher.close()
    assert all(reply.text == "ok" for _, reply in replies)
    assert 2 <= most <= 4


def test_what_a_function_raises_costs_its_own_request_alone(drain: Any) -> None:
    calls = list[str]()

    def shaky(messages: list[dict[str, str]]) -> Any:
        text = messages[-1]["content"]
        calls.append(text)
        if text == "bad" or calls.count(text) < 2:
            raise ConnectionError(f"no way to {text}")
        return None if text == "empty" else "ok"

    requests = [ask("good"), ask("bad"), ask("empty"), ask("other")]
    outcomes = [outcome for _, outcome in drain(FunctionTeacher(shaky, FAST), requests)]
    assert outcomes[0].attempts == 2
    assert outcomes[3].text == "ok"
    assert outcomes[1] == Failure("no reply after 3 calls, the last: ConnectionError: no way to bad", 3, passing=True)
    assert outcomes[2].reason == "no reply after 3 calls, the last: it gave NoneType, not a text"


def test_a_function_that_only_raises_ends_the_run_with_what_it_said(drain: Any) -> None:
    def broken(messages: Any) -> str:
        return messages[7]["content"]

    with pytest.raises(TeacherUnavailable, match=r"python:broken gave no reply to 8 requests in a row \(.*IndexError"):
        drain(FunctionTeacher(broken, FAST), [ask(f"text {i}") for i in range(40)])


def test_a_function_may_end_the_run_on_purpose(drain: Any) -> None:
    def empty(messages: Any) -> str:
        raise TeacherRefused("the account is empty; add credit")

    with pytest.raises(TeacherRefused, match="the account is empty"):
        drain(FunctionTeacher(empty, FAST), [ask("one")])


def test_replies_that_nobody_waits_for_any_more_are_kept(tmp_path: Path) -> None:
    """A call under way when the run has its rows cannot be broken off, and was paid for."""

    def slow(messages: list[dict[str, str]]) -> str:
        time.sleep(0.0 if messages[-1]["content"] == "text 0" else 0.2)
        return "ok"

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = Asker(FunctionTeacher(slow, FunctionOptions(concurrency=3)), ledger)
        source = iter([ask(f"text {i}") for i in range(3)])
        stream = asker.stream(lambda room: [request for _, request in zip(range(room), source)], "datagen")
        next(iter(stream))
        stream.close()  # type: ignore[attr-defined]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.totals().replies == 3


def shout(messages: list[dict[str, str]], *, mark: str = "!") -> str:
    return messages[-1]["content"].upper() + mark


def test_a_function_is_known_by_its_name_and_what_it_reads() -> None:
    assert FunctionTeacher(shout).identity == FunctionTeacher(shout).identity
    assert dict(FunctionTeacher(shout).identity) | {"version": ""} == {
        "backend": "python", "model": "shout", "version": "",
    }  # fmt: skip
    named = [FunctionTeacher(partial(shout, mark=mark), FunctionOptions(name="shout")) for mark in "!?"]
    assert named[0].identity != named[1].identity
    assert FunctionTeacher(echo, FunctionOptions(name="shout")).identity != FunctionTeacher(shout).identity
    by_version = [FunctionTeacher(f, FunctionOptions(name="mine", version="2")) for f in (echo, shout)]
    assert by_version[0].identity == by_version[1].identity
    assert by_version[0].identity["version"] == "2"
    assert (
        FunctionTeacher(shout, FunctionOptions(concurrency=8, attempts=9)).identity == FunctionTeacher(shout).identity
    )


def test_one_whose_answers_cannot_be_told_needs_a_version() -> None:
    lock = threading.Lock()

    def locked(messages: Any) -> str:
        with lock:
            return "ok"

    with pytest.raises(OptionError, match=r"what locked answers cannot be told .* teacher_options=\{'version': '1'\}"):
        FunctionTeacher(locked)
    assert FunctionTeacher(locked, FunctionOptions(version="1")).identity["version"] == "1"


@pytest.mark.parametrize(
    ("given", "options", "says"),
    [
        (lambda messages: "ok", {}, "no name of its own; give it one with teacher_options={'name'"),
        (partial(echo), {}, "no name of its own"),
        (7, {}, "a function from messages to text, or an object with name, identity"),
        (FunctionTeacher, {}, "the class FunctionTeacher; give an object of it"),
        (echo, {"timeout_s": 3}, "timeout_s: no such option"),
        (echo, {"concurrency": 0}, "concurrency must be above 0"),
        (lambda: "ok", {"name": "x"}, "must take the messages, or the messages and the request"),
        (lambda one, two, three: "ok", {"name": "x"}, "must take the messages, or the messages and the request"),
    ],
)
def test_what_is_no_teacher_is_refused_with_its_mend(given: Any, options: Mapping[str, Any], says: str) -> None:
    with pytest.raises(OptionError) as raised:
        open_own(given, options)
    assert says in str(raised.value)
    with pytest.raises(OptionError) as raised:
        resolve({}, {"teacher": given, "teacher_options": options})
    assert says in str(raised.value)


class Echo:
    """The whole protocol, in few lines."""

    name = "echo"
    identity: Any = {"backend": "mine", "version": "1"}  # noqa: RUF012
    abilities = Abilities()
    concurrency: Any = 4
    closed = False

    def stream(self, take: Take) -> Any:
        while requests := take(self.concurrency):
            yield from ((request, self.answer(request)) for request in requests)

    def answer(self, request: AnyRequest) -> Reply | Failure:
        return Reply(request.messages[-1].content)

    def close(self) -> None:
        self.closed = True


def test_an_object_of_the_protocol_is_taken_as_it_is() -> None:
    own = Echo()
    assert open_own(own, {}) is own
    settings = resolve({"teacher": "fake", "teacher_options": {"seed": 3}}, {"teacher": own})
    assert (settings.teacher, settings.given, settings.teacher_options) == ("python:echo", own, {})
    assert settings.to_json()["teacher"] == "python:echo"
    assert "given" not in settings.to_json()


def changed(**what: Any) -> Callable[[], Echo]:
    def make() -> Echo:
        own = Echo()
        for name, value in what.items():
            setattr(own, name, value)
        return own

    return make


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (changed(identity={}), {}, "identity must be a mapping of texts that says what decides a reply"),
        (changed(identity={"version": 1}), {}, "identity must be a mapping of texts"),
        (changed(concurrency=0), {}, "concurrency must be a whole number of 1 or more (got 0)"),
        (changed(name=" "), {}, "name must be a text"),
        (changed(abilities=None), {}, "abilities must be potstill.asking.teacher.Abilities"),
        (Echo, {"attempts": 3}, "attempts: options are for a function or a named teacher; an object has its own"),
    ],
)
def test_an_object_that_lacks_something_says_what(make: Any, options: Mapping[str, Any], says: str) -> None:
    with pytest.raises(OptionError) as raised:
        open_own(make(), options)
    assert says in str(raised.value)


def test_what_an_object_lacks_is_named() -> None:
    class Half:
        name = "half"

        def stream(self, take: Take) -> Any:
            return iter(())

    with pytest.raises(OptionError, match="Half lacks identity, abilities, concurrency, close"):
        open_own(Half(), {})


def test_its_price_is_not_known_unless_it_is_said(tmp_path: Path) -> None:
    told = FunctionTeacher(echo, FunctionOptions(usd_read=1.0, usd_written=2.0))
    assert price_of(told.identity, told.options) == Price(1.0, 2.0)
    assert price_of(FunctionTeacher(echo).identity, FunctionOptions()) is None
    assert price_of(Echo.identity) is None
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with pytest.raises(OptionError, match="the price of the teacher python:echo is not known"):
            Asker(FunctionTeacher(echo), ledger, budget=Budget(usd=1.0))
        Asker(told, ledger, budget=Budget(usd=1.0))


def test_a_text_cannot_name_one() -> None:
    for opened in (lambda: open_teacher("python:echo"), lambda: resolve({}, {"teacher": "python:echo"})):
        with pytest.raises(OptionError, match=r"python:echo' is a teacher of one's own in Python.*potstill\.run"):
            opened()


def test_ray_does_not_take_one() -> None:
    with pytest.raises(OptionError, match="executor: ray opens engines of its own"):
        resolve({}, {"teacher": echo, "executor": "ray"})
