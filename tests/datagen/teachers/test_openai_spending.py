"""What a server bills for, whatever it states, and models that think before they answer."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from potstill.asking.asker import Asker
from potstill.asking.budget import Budget
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Failure, Message, Reply, Request
from potstill.datagen.teachers import open_teacher
from potstill.errors import BudgetReached, TeacherUnavailable

FAST: dict[str, Any] = {"backoff_s": 0.01, "longest_pause_s": 0.1, "timeout_s": 5.0, "flavour": "openai"}


def ask(text: str, **fields: Any) -> Request:
    return Request((Message("user", text),), **fields)


def answer(message: dict[str, Any], finish: str = "stop", **rest: Any) -> tuple[int, dict[str, Any]]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return 200, {"id": "x", "choices": [choice], **rest}


@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}])
def test_a_cap_on_tokens_holds_where_the_server_counts_nothing(
    usage: dict[str, Any], server_module: Any, tmp_path: Path
) -> None:
    text = "a reply of some words " * 4
    with server_module.running_server(lambda number, _: answer({"content": text}, **usage)) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **FAST)
        with Ledger(tmp_path / "l.sqlite") as ledger:
            asker = Asker(teacher, ledger, budget=Budget(tokens=2000))
            with pytest.raises(BudgetReached):
                asker.ask([ask(f"request {i}", max_tokens=60) for i in range(200)], "test")
            spent = ledger.totals()
        teacher.close()
    assert 5 <= server.asked <= 40
    assert 1500 < spent.prompt_tokens + spent.completion_tokens <= 2000


def test_answers_that_cannot_be_used_are_paid_for(server_module: Any, tmp_path: Path) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 10}

    def fault(number: int, text: str) -> Any:
        return (
            answer({"content": "maybe"}, usage=usage)
            if text == "bad" or number == 0
            else answer({"content": '{"answer": "yes"}'}, usage=usage)
        )

    with server_module.running_server(fault) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **{**FAST, "attempts": 4, "concurrency": 1})
        with Ledger(tmp_path / "l.sqlite") as ledger:
            asker = Asker(teacher, ledger, budget=Budget(tokens=10_000))
            found = asker.ask([ask("good", choices=("yes", "no")), ask("bad", choices=("yes", "no"))], "test")
            assert asker.meter is not None
            assert asker.meter.tokens == 6 * 60 == server.asked * 60
            assert (asker.counts.prompt_tokens, asker.counts.completion_tokens) == (300, 60)
            assert ledger.spent() == {teacher.name: (300, 60)}
            assert ledger.asked()["test"].prompt_tokens == 300
        teacher.close()
    assert [type(item.reply) for item in found] == [Reply, Failure]


@pytest.mark.parametrize("finish", ["stop", "abort"])
def test_answers_that_cannot_be_used_count_where_the_server_counts_nothing(
    finish: str, server_module: Any, tmp_path: Path
) -> None:
    with server_module.running_server(lambda number, _: answer({"content": "maybe so " * 20}, finish)) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **{**FAST, "attempts": 3, "concurrency": 1})
        with Ledger(tmp_path / "l.sqlite") as ledger:
            asker = Asker(teacher, ledger, budget=Budget(tokens=10_000))
            (found,) = asker.ask([ask("Yes?", choices=("yes", "no"))], "test")
            assert asker.meter is not None
            assert asker.meter.tokens == asker.counts.prompt_tokens + asker.counts.completion_tokens
            assert asker.counts.completion_tokens > 3 * 20
            assert asker.counts.prompt_tokens > 3 * 10
        teacher.close()
    assert isinstance(found.reply, Failure)
    # What the model says will be no other tomorrow; what the server broke off may be.
    assert (found.reply.passing, asker.unanswered) == ((False, 0) if finish == "stop" else (True, 1))


@pytest.mark.parametrize(("attempts", "concurrency"), [(8, 64), (1000, 64), (1000, 16)])
def test_a_cap_holds_where_answers_are_billed_and_cannot_be_used(
    attempts: int, concurrency: int, server_module: Any, tmp_path: Path
) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 500}
    empty = answer({"content": None, "reasoning_content": "hm"}, usage=usage)
    with server_module.running_server(lambda number, text: empty) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **{**FAST, "attempts": attempts, "concurrency": concurrency})
        with Ledger(tmp_path / "l.sqlite") as ledger:
            asker = Asker(teacher, ledger, budget=Budget(tokens=20_000))
            with pytest.raises(BudgetReached if attempts > 8 else (BudgetReached, TeacherUnavailable)):
                asker.ask([ask(f"{i}", max_tokens=500) for i in range(200)], "test")
            assert asker.meter is not None
            spent = sum(map(sum, ledger.spent().values()))
        teacher.close()
    assert 15_000 < server.asked * 505 <= 20_000
    assert asker.meter.tokens == spent
    if concurrency < 32:  # so many failures in a row end the stream, and what is on its way then cannot be counted
        assert spent == server.asked * 505


def test_a_budget_lets_what_was_billed_for_nothing_be_asked_again_while_it_fits(
    server_module: Any, tmp_path: Path
) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 100}
    seen: dict[str, int] = {}

    def fault(number: int, text: str) -> Any:
        with server.lock:
            seen[text] = seen.get(text, 0) + 1
        return answer({"content": None} if seen[text] < 3 else {"content": "Ulm"}, usage=usage)

    with server_module.running_server(fault) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **FAST)
        with Ledger(tmp_path / "l.sqlite") as ledger:
            # Room for the attempts of all, but not for all of them at a time.
            asker = Asker(teacher, ledger, budget=Budget(tokens=12 * 3 * 105 + 400))
            found = asker.ask([ask(f"{i}", max_tokens=100) for i in range(12)], "test")
            assert asker.meter is not None
            assert asker.meter.tokens == 12 * 3 * 105 == sum(map(sum, ledger.spent().values()))
            assert (asker.meter._reserved_tokens, round(asker.meter._reserved_usd, 9)) == (0, 0)
        teacher.close()
    assert all(isinstance(item.reply, Reply) and item.reply.attempts == 3 for item in found)


def test_what_is_left_early_is_paid_for(server_module: Any, tmp_path: Path) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 10}
    asked: dict[str, int] = {}
    stuck = threading.Event()

    def fault(number: int, text: str) -> Any:
        with server.lock:
            asked[text] = asked.get(text, 0) + 1
            if [asked.get(f"bad {i}", 0) for i in range(3)] == [3, 3, 3]:
                stuck.set()
        if text.startswith("good"):
            assert stuck.wait(20)
            time.sleep(0.5 * (text == "good, later"))  # by then the other is on disk, and is handed on
            return answer({"content": "Ulm"}, usage=usage)
        return answer({"content": None}, usage=usage) if asked[text] < 3 else "slow-headers"

    with server_module.running_server(fault, stall_s=20.0) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **{**FAST, "timeout_s": 30.0})
        with Ledger(tmp_path / "l.sqlite") as ledger:
            asker = Asker(teacher, ledger, budget=Budget(tokens=100_000))
            source = iter([ask("good"), ask("good, later"), *(ask(f"bad {i}") for i in range(3))])
            stream = asker.stream(lambda room: [request for _, request in zip(range(room), source)], "test")
            first = next(stream)
            stream.close()  # type: ignore[attr-defined]
            assert isinstance(first.reply, Reply)
            assert asker.meter is not None
            assert ledger.spent() == {teacher.name: (8 * 50, 8 * 10)}
            assert (asker.meter.tokens, ledger.totals().failures) == (8 * 60, 3)
        teacher.close()


def test_a_ledger_of_an_earlier_version_learns_what_failures_cost(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with Ledger(path) as ledger:
        ledger.record_failure("k", purpose="p", teacher="t", reason="r", attempts=2).result()
    connection = sqlite3.connect(path)
    for name in ("prompt_tokens", "completion_tokens"):
        connection.execute(f"ALTER TABLE failures DROP COLUMN {name}")
    connection.commit()
    connection.close()
    with Ledger(path, read_only=True) as ledger:
        assert ledger.asked()["p"].failed == 1
    with Ledger(path) as ledger:
        ledger.record_failure(
            "k", purpose="p", teacher="t", reason="r", attempts=2, prompt_tokens=7, completion_tokens=3
        ).result()
        assert ledger.spent() == {"t": (7, 3)}


@pytest.mark.parametrize(
    "message",
    [
        {"content": "<think>\nA town? Ulm.\n</think>\n\nUlm"},
        {"content": "A town? Ulm.\n</think>\n\nUlm"},  # the template opened the tag
        {"content": "Ulm", "reasoning_content": "A town?"},
        {"content": [{"type": "thinking", "thinking": [{"text": "A town?"}]}, {"type": "text", "text": "Ulm"}]},
        {"content": [{"type": "text", "text": "U"}, {"type": "text", "text": "lm"}]},
    ],
)
def test_thinking_is_no_part_of_the_text(message: dict[str, Any], server_module: Any, drain: Any) -> None:
    with server_module.running_server(lambda number, text: answer(message)) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **FAST)
        [(_, reply)] = drain(teacher, [ask("Name a town.")])
        teacher.close()
    assert isinstance(reply, Reply)
    assert reply.text == "Ulm"


@pytest.mark.parametrize(
    ("message", "details"),
    [
        ({"content": "", "reasoning_content": "hmm"}, {}),
        ({"content": None, "reasoning": "hmm"}, {}),
        ({"content": "<think>hmm"}, {}),
        ({"content": ""}, {"completion_tokens_details": {"reasoning_tokens": 96}}),
    ],
)
def test_a_bound_that_goes_into_thinking_is_said_and_never_kept(
    message: dict[str, Any], details: dict[str, Any], server_module: Any, tmp_path: Path
) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 96, **details}

    def fault(number: int, text: str) -> Any:
        return answer(message, "length", usage=usage) if server.bodies[number]["max_tokens"] < 1000 else None

    requests = [ask(f"{i}", max_tokens=96) for i in range(100)]
    with server_module.running_server(fault) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **{**FAST, "concurrency": 1})
        with Ledger(tmp_path / "l.sqlite") as ledger:
            with pytest.raises(TeacherUnavailable, match=r"teacher_options\.thinking_tokens=8192"):
                Asker(teacher, ledger).ask(requests, "test")
            assert server.asked == 32, "asked once each: it would go the same way again"
            assert ledger.spent() == {teacher.name: (32 * 5, 32 * 96)}
        teacher.close()
        teacher = open_teacher(f"openai:{server.url}#m", **FAST, thinking_tokens=1000, effort="low")
        with Ledger(tmp_path / "l.sqlite") as ledger:
            answers = Asker(teacher, ledger).ask(requests, "test")
        teacher.close()
    assert all(isinstance(item.reply, Reply) for item in answers)
    assert (server.bodies[-1]["max_tokens"], server.bodies[-1]["reasoning_effort"]) == (1096, "low")


def test_a_reply_that_thinking_cut_is_asked_for_again_where_more_is_allowed(server_module: Any, tmp_path: Path) -> None:
    def fault(number: int, text: str) -> Any:
        bound = server.bodies[number]["max_tokens"]
        cut = text == "long" and bound < 1000
        usage = {"prompt_tokens": 20, "completion_tokens": bound if cut else 300}
        message = {"content": "The parcel that I" if cut else "The parcel came.", "reasoning_content": "hm"}
        return answer(message, "length" if cut else "stop", usage=usage)

    def ask_with(thinking: int) -> list[tuple[bool, Any]]:
        teacher = open_teacher(f"openai:{server.url}#m", **FAST, thinking_tokens=thinking)
        with Ledger(tmp_path / "l.sqlite") as ledger:
            found = Asker(teacher, ledger).ask([ask(text, max_tokens=100) for text in ("short", "long")], "test")
        teacher.close()
        return [(item.cached, getattr(item.reply, "finish", item.reply)) for item in found]

    with server_module.running_server(fault) as server:
        assert ask_with(512) == [(False, "stop"), (False, "length")]
        assert ask_with(512) == [(True, "stop"), (True, "length")]
        assert ask_with(8192) == [(True, "stop"), (False, "stop")]
        assert ask_with(0) == [(True, "stop"), (True, "stop")], "what it thought is no part of a whole reply's bound"


def test_a_budget_sets_aside_what_a_model_may_think(server_module: Any, tmp_path: Path) -> None:
    usage = {"prompt_tokens": 20, "completion_tokens": 500}
    with server_module.running_server(lambda number, _: answer({"content": "Ulm"}, usage=usage)) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **FAST, thinking_tokens=490, concurrency=50)
        with Ledger(tmp_path / "l.sqlite") as ledger:
            asker = Asker(teacher, ledger, budget=Budget(tokens=5000))
            with pytest.raises(BudgetReached):
                asker.ask([ask(f"{i}", max_tokens=10) for i in range(50)], "test")
            assert asker.meter is not None
            assert 4000 < asker.meter.tokens <= 5000
        teacher.close()


def test_openai_models_that_think_are_given_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-sentinel-5f0c1d2e3b4a")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    body = open_teacher("openai:#gpt-5-mini").chat_body(ask("x", max_tokens=96, stop=("a",)), "openai")
    assert body["max_completion_tokens"] == 96 + 4096
    assert not {"temperature", "top_p", "stop", "max_tokens"} & set(body)
    body = open_teacher("openai:#gpt-4o-mini").chat_body(ask("x", max_tokens=96), "openai")
    assert (body["max_completion_tokens"], body["temperature"]) == (96, 1.0)
