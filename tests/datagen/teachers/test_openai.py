"""The OpenAI-compatible teacher against a real server that misbehaves."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from typing import Any

import pytest

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Failure, Message, Reply, Request
from potstill.datagen.teachers import open_teacher
from potstill.datagen.teachers.openai_wire import Secrets, retry_after, split_url
from potstill.errors import OptionError, TeacherRefused, TeacherUnavailable

KEY = "sk-sentinel-5f0c1d2e3b4a"
FAST: dict[str, Any] = {
    "backoff_s": 0.01,
    "longest_pause_s": 0.1,
    "timeout_s": 1.0,
    "startup_s": 0.5,
    "patience_s": 5.0,
}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def ask(text: str, **fields: Any) -> Request:
    return Request((Message("user", text),), **fields)


def opened(server: Any, **options: Any) -> Any:
    return open_teacher(f"openai:{server.url}#m", **{**FAST, **options})


@pytest.mark.parametrize(
    "fault",
    [
        "429", "429-after", "500", "502", "503", "slow-headers", "slow-body", "reset", "reset-body", "html",
        "cut-json", "no-choices", "no-text", "array",
    ],
)  # fmt: skip
def test_each_passing_fault_is_asked_again(fault: str, server_module: Any, drain: Any) -> None:
    with server_module.running_server(lambda number, text: fault if number < 2 else None) as server:
        teacher = opened(server)
        started = time.monotonic()
        [(_, reply)] = drain(teacher, [ask("one")])
        seconds = time.monotonic() - started
        teacher.close()
    assert isinstance(reply, Reply)
    assert reply.text == "reply to one"
    assert reply.attempts == 3
    assert server.answered["one"] == 1
    if fault == "429-after":
        assert seconds >= 1.9, "Retry-After was not honoured"
    else:
        assert seconds < 4


@pytest.mark.parametrize("fault", ["500", "cut-json", "html", "no-choices"])
def test_a_lasting_fault_of_one_request_is_a_failure_and_the_rest_goes_on(
    fault: str, server_module: Any, drain: Any
) -> None:
    with server_module.running_server(lambda number, text: fault if text == "bad" else None) as server:
        teacher = opened(server, attempts=4)
        replies = drain(teacher, [ask("bad"), *(ask(f"good {i}") for i in range(30))])
        teacher.close()
    assert isinstance(replies[0][1], Failure)
    assert replies[0][1].attempts == 4
    assert sum(body["messages"][0]["content"] == "bad" for body in server.bodies) == 4
    assert all(isinstance(reply, Reply) for _, reply in replies[1:])


@pytest.mark.parametrize(
    ("fault", "mend"),
    [
        ("401", "OPENAI_API_KEY"), ("403", "OPENAI_API_KEY"), ("404", "model's name"), ("400", "context length"),
        ("422", "context length"), ("quota", "credit"), ("echo-key", "OPENAI_API_KEY"),
    ],
)  # fmt: skip
def test_a_refusal_stops_at_once_with_the_mend(
    fault: str, mend: str, server_module: Any, drain: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with server_module.running_server(lambda number, text: fault) as server:
        teacher = opened(server, concurrency=4)
        with pytest.raises(TeacherRefused, match=mend) as caught:
            drain(teacher, [ask(f"text {i}") for i in range(200)])
        assert server.asked <= 12, "it went on asking"
        assert KEY in server.headers[0]["authorization"], "the sentinel was not used at all"
        teacher.close()
    shown = [str(caught.value), repr(caught.value), repr(teacher), teacher.name, caplog.text]
    error: BaseException | None = caught.value
    while error is not None:
        shown.append(repr(error) + str(vars(error)))
        error = error.__cause__
    assert not any(KEY in text for text in shown)


def test_one_refused_request_among_good_ones_is_a_failure(server_module: Any, drain: Any) -> None:
    with server_module.running_server(lambda number, text: "400" if text == "bad" else None) as server:
        teacher = opened(server)
        # The bad one first: it must be doubted, not believed, until another succeeds.
        replies = drain(teacher, [ask("bad"), *(ask(f"good {i}") for i in range(20))])
        teacher.close()
    assert isinstance(replies[0][1], Failure)
    assert "HTTP 400" in replies[0][1].reason
    assert all(isinstance(reply, Reply) for _, reply in replies[1:])


def test_a_run_that_has_nothing_left_but_refused_requests_ends(server_module: Any, drain: Any) -> None:
    with server_module.running_server(lambda number, text: "400" if text.startswith("bad") else None) as server:
        for bad in (1, 5):
            teacher = opened(server)
            replies = drain(teacher, [ask(f"bad {i}") for i in range(bad)])
            teacher.close()
            assert [isinstance(reply, Failure) for _, reply in replies] == [True] * bad
        assert server.asked == 1 + 1 + 5 + 1, "one harmless request each tells whose fault it is"


def test_credit_that_ends_in_the_middle_ends_the_run(server_module: Any, drain: Any) -> None:
    said = {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}}
    with server_module.running_server(lambda number, text: (402, said) if number >= 20 else None) as server:
        teacher = opened(server, concurrency=4)
        with pytest.raises(TeacherRefused, match=r"HTTP 402: Insufficient Balance.*add some"):
            drain(teacher, [ask(f"text {i}") for i in range(200)])
        teacher.close()
    assert server.asked <= 24


def test_a_key_that_loses_its_rights_in_the_middle_ends_the_run(server_module: Any, drain: Any) -> None:
    with server_module.running_server(lambda number, text: "403" if number >= 20 else None) as server:
        teacher = opened(server, concurrency=4)
        with pytest.raises(TeacherRefused, match="OPENAI_API_KEY"):
            drain(teacher, [ask(f"text {i}") for i in range(200)])
        teacher.close()
    assert server.asked <= 45


def test_texts_that_a_proxy_flags_with_403_cost_their_own_rows_alone(server_module: Any, drain: Any) -> None:
    said = {"error": {"code": 403, "message": "Your input was flagged", "metadata": {"reasons": ["violence"]}}}
    with server_module.running_server(lambda number, text: (403, said) if text.startswith("bad") else None) as server:
        teacher = opened(server, concurrency=4)
        replies = drain(teacher, [ask(f"{'good' if i % 40 == 0 else 'bad'} {i}") for i in range(80)])
        teacher.close()
    assert sum(isinstance(reply, Reply) for _, reply in replies) == 2
    assert all("flagged" in reply.reason for _, reply in replies if isinstance(reply, Failure))


@pytest.mark.parametrize(
    "said",
    [
        "Rate limit reached for model `m` on tokens per minute (TPM): Limit 6000, Used 5900. Please try again in 20ms. "
        "Need more tokens? Upgrade today at https://console.groq.com/settings/billing",
        "Rate limit reached on requests per min. Limit: 3 / min. Please try again in 20s. Visit "
        "https://platform.openai.com/account/billing to add a payment method.",
        "You exceeded your current quota, please check your plan and billing details. Please retry in 0.5s.",
    ],
)
def test_a_rate_limit_that_speaks_of_billing_is_waited_for(said: str, server_module: Any, drain: Any) -> None:
    error = {"error": {"message": said, "type": "tokens", "code": "rate_limit_exceeded"}}
    with server_module.running_server(lambda number, text: (429, error) if number in (1, 2) else None) as server:
        teacher = opened(server, concurrency=1)
        replies = drain(teacher, [ask(f"{i}") for i in range(4)])
        teacher.close()
    assert all(isinstance(reply, Reply) for _, reply in replies)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"error": {"code": 429, "message": "Rate limited upstream"}, "user_id": "u"}, ""),
        ({"choices": [{"error": {"code": 502, "message": "Provider died"}, "finish_reason": "error"}]}, ""),
        ({"error": {"code": "model_not_loaded", "message": "Model is loading"}}, ""),
        ({"error": "the engine has died"}, ""),
        ({"error": {"code": 402, "message": "Insufficient credits"}}, "Insufficient credits"),
        ({"error": {"code": 401, "message": f"No auth for {KEY}"}}, r"No auth for \*\*\*"),
    ],
)
def test_an_error_that_comes_with_status_200(answer: Any, says: str, server_module: Any, drain: Any) -> None:
    with server_module.running_server(lambda number, text: (200, answer) if number < 2 or says else None) as server:
        teacher = opened(server)
        if says:
            with pytest.raises(TeacherRefused, match=says):
                drain(teacher, [ask("one")])
        else:
            [(_, reply)] = drain(teacher, [ask("one")])
            assert isinstance(reply, Reply)
            assert reply.attempts == 3
        teacher.close()


def test_the_error_of_status_200_is_said(server_module: Any, drain: Any) -> None:
    with server_module.running_server(lambda number, text: (200, {"error": {"message": "no GPU left"}})) as server:
        teacher = opened(server, attempts=2)
        [(_, failure)] = drain(teacher, [ask("one")])
        teacher.close()
    assert "no GPU left" in failure.reason


def test_json_that_groq_could_not_finish_is_asked_again(server_module: Any, drain: Any) -> None:
    error = {"error": {"message": "Failed to generate JSON.", "code": "json_validate_failed"}}
    with server_module.running_server(lambda number, text: (400, error) if number == 0 else None) as server:
        teacher = opened(server)
        [(_, reply)] = drain(teacher, [ask("one", schema={"type": "object"})])
        teacher.close()
    assert isinstance(reply, Reply)


def test_early_refusals_beside_slow_answers_are_failures(server_module: Any, drain: Any) -> None:
    def fault(number: int, text: str) -> str | None:
        if text.startswith("good"):
            time.sleep(0.5)
        return "400" if text.startswith("bad") else None

    with server_module.running_server(fault) as server:
        teacher = opened(server, concurrency=12)
        replies = drain(teacher, [ask(f"{'bad' if i % 3 == 0 else 'good'} {i}") for i in range(12)])
        teacher.close()
    assert sum(isinstance(reply, Failure) for _, reply in replies) == 4
    assert sum(isinstance(reply, Reply) for _, reply in replies) == 8


@pytest.mark.parametrize("key", ["x", "test", "null", "reply"])
def test_words_that_are_also_keys_stay_in_replies(
    key: str, server_module: Any, drain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with server_module.running_server() as server:
        url = server.url.replace("http://", "http://text:preview@")
        teacher = open_teacher(f"openai:{url}?api-version=preview#m", flavour="openai", **FAST)
        [(_, reply)] = drain(teacher, [ask("a text of the preview, a test and null")])
        teacher.close()
    assert isinstance(reply, Reply)
    assert reply.text == "reply to a text of the preview, a test and null"


def test_nothing_listens(drain: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    teacher = open_teacher(f"openai:http://127.0.0.1:{port}/v1#m", **FAST)
    started = time.monotonic()
    with pytest.raises(TeacherUnavailable, match="could not be reached"):
        drain(teacher, [ask("one")])
    assert time.monotonic() - started < 5
    teacher.close()


def test_an_endpoint_that_is_down_for_a_while_is_waited_for(server_module: Any, drain: Any) -> None:
    began: list[float] = []

    def fault(number: int, text: str) -> str | None:
        if number == 20:
            began.append(time.monotonic())
        return "503" if began and time.monotonic() < began[0] + 1.0 else None

    with server_module.running_server(fault, delay_s=0.05) as server:
        teacher = opened(server, concurrency=4, attempts=50)
        replies = drain(teacher, [ask(f"{i}") for i in range(100)])
        teacher.close()
    assert all(isinstance(reply, Reply) for _, reply in replies)
    assert server.faults["503"] > 0


@pytest.mark.parametrize("status", ["502", "503", "504"])
def test_an_outage_behind_a_gateway_costs_no_request(status: str, server_module: Any, drain: Any) -> None:
    began: list[float] = []

    def fault(number: int, text: str) -> str | None:
        if number == 20:
            began.append(time.monotonic())
        return status if began and time.monotonic() < began[0] + 1.2 else None

    with server_module.running_server(fault, delay_s=0.05) as server:
        teacher = opened(server, concurrency=4, attempts=3)
        replies = drain(teacher, [ask(f"{i}") for i in range(60)])
        teacher.close()
    assert all(isinstance(reply, Reply) for _, reply in replies)
    assert server.faults[status] > 12, "the outage was too short to fail four requests"


def test_an_outage_that_does_not_end_ends_the_run(server_module: Any, drain: Any) -> None:
    with server_module.running_server(lambda number, text: "502" if number >= 8 else None) as server:
        teacher = opened(server, concurrency=4, attempts=3, patience_s=0.8)
        with pytest.raises(TeacherUnavailable, match=r"gave no answer for 0.8 s \(HTTP 502"):
            drain(teacher, [ask(f"{i}") for i in range(60)])
        teacher.close()


def test_a_request_that_a_gateway_never_answers_fails_alone_where_others_are_answered(
    server_module: Any, drain: Any
) -> None:
    with server_module.running_server(lambda number, text: "504" if text == "bad" else None, delay_s=0.02) as server:
        teacher = opened(server, concurrency=4, attempts=3, patience_s=0.8)
        # Beside others its attempts are counted; as the last one, a harmless request tells that the server is there.
        replies = drain(teacher, [ask("bad"), *(ask(f"good {i}") for i in range(200))])
        (_, last) = drain(teacher, [ask("bad")])[0]
        teacher.close()
    first = replies[0][1]
    assert isinstance(first, Failure)
    assert isinstance(last, Failure)
    assert first.attempts == 3
    assert first.passing
    assert last.passing
    assert all(isinstance(reply, Reply) for _, reply in replies[1:])


def test_throttling_for_ever_ends(server_module: Any, drain: Any) -> None:
    with server_module.running_server(lambda number, text: "429") as server:
        teacher = opened(server, patience_s=1.0)
        with pytest.raises(TeacherUnavailable, match="gave no answer for 1 s"):
            drain(teacher, [ask("one")])
        teacher.close()
    assert server.asked < 100


def test_throttles_lower_the_number_in_flight(server_module: Any, drain: Any) -> None:
    # The server takes four at a time; more are throttled.
    def fault(number: int, text: str) -> str | None:
        return "429" if server.active > 4 else None

    with server_module.running_server(fault, delay_s=0.01) as server:
        teacher = opened(server, concurrency=32, start=32)
        replies = drain(teacher, [ask(f"{i}") for i in range(400)])
        limit = teacher.endpoints._all[0].pace.limit
        teacher.close()
    assert all(isinstance(reply, Reply) for _, reply in replies)
    assert limit <= 16
    assert server.faults["429"] < 200, "half of the requests were throttled: nothing was learnt"


def test_a_vllm_server_is_filled_at_once_and_another_is_not(server_module: Any, drain: Any) -> None:
    seen = {}
    for owner in ("vllm", "someone"):
        with server_module.running_server(owner=owner, delay_s=0.2) as server:
            teacher = opened(server, concurrency=32, start=4)
            drain(teacher, [ask(f"{i}") for i in range(32)])
            seen[owner] = (server.most_active, teacher.abilities)
            teacher.close()
    assert seen["vllm"][0] > 20 > seen["someone"][0]
    assert seen["vllm"][1].scores
    assert not seen["someone"][1].scores


def test_a_vllm_server_of_which_a_proxy_shows_v1_alone_writes_texts(
    server_module: Any, drain: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with server_module.running_server(owner="vllm") as server:
        server.tokenizes = False
        teacher = opened(server)
        assert not teacher.abilities.scores
        [(_, reply)] = drain(teacher, [ask("one")])
        teacher.close()
    assert isinstance(reply, Reply)
    assert "without /tokenize beside /v1 (HTTP 404" in caplog.text


def test_the_model_is_read_from_the_server(server_module: Any) -> None:
    with server_module.running_server() as server:
        teacher = open_teacher(f"openai:{server.url}", **FAST)
        assert teacher.identity == {"backend": "openai", "endpoint": server.url, "model": "m"}
        teacher.close()


def test_several_urls_share_the_work(server_module: Any, drain: Any) -> None:
    with server_module.running_server(delay_s=0.02) as one, server_module.running_server(delay_s=0.02) as two:
        teacher = open_teacher(f"openai:{one.url},{two.url}#m", **FAST)
        replies = drain(teacher, [ask(f"{i}") for i in range(100)])
        teacher.close()
    assert all(isinstance(reply, Reply) for _, reply in replies)
    assert min(one.asked, two.asked) > 25
    assert one.asked + two.asked == 100


def test_one_of_two_urls_is_dead(server_module: Any, drain: Any, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with server_module.running_server() as server:
        teacher = open_teacher(f"openai:http://127.0.0.1:{port}/v1,{server.url}#m", flavour="openai", **FAST)
        replies = drain(teacher, [ask(f"{i}") for i in range(50)])
        teacher.close()
    assert all(isinstance(reply, Reply) for _, reply in replies)
    # A slip in an address would else be worked around for a whole run, at half the pace.
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith(f"http://127.0.0.1:{port}/v1 gives no answer (")
    assert said.endswith("until it does, the other addresses are asked")


def test_a_dead_url_beside_one_that_is_slow_to_begin_ends_nothing(server_module: Any, drain: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with server_module.running_server(delay_s=3.0) as server:
        url = f"openai:http://127.0.0.1:{port}/v1,{server.url}#m"
        teacher = open_teacher(url, flavour="openai", **{**FAST, "timeout_s": 30.0})
        replies = drain(teacher, [ask(f"{i}") for i in range(8)])
        teacher.close()
    assert all(isinstance(reply, Reply) for _, reply in replies)


def test_a_dead_url_is_left_out_when_the_servers_are_asked_what_they_are(server_module: Any, drain: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with server_module.running_server(owner="vllm") as server:
        started = time.monotonic()
        teacher = open_teacher(f"openai:http://127.0.0.1:{port}/v1,{server.url}", **{**FAST, "startup_s": 30.0})
        assert (teacher.identity["model"], teacher.abilities.scores) == ("m", True)
        replies = drain(teacher, [ask(f"{i}") for i in range(30)])
        seconds = time.monotonic() - started
        teacher.close()
    assert all(isinstance(reply, Reply) for _, reply in replies)
    assert seconds < 20, "the dead one was waited for"


def test_one_of_two_servers_dies_in_the_middle(server_module: Any, drain: Any) -> None:
    dead = threading.Event()
    with server_module.running_server(delay_s=0.01) as one:
        # Connections that are open are reset, and new ones are refused.
        with server_module.running_server(lambda *_: "reset" if dead.is_set() else None, delay_s=0.01) as two:
            teacher = open_teacher(f"openai:{one.url},{two.url}#m", **{**FAST, "concurrency": 8, "start": 8})
            requests = [ask(f"{i}") for i in range(200)]
            source = iter(requests)
            found = []
            for request, reply in teacher.stream(lambda room: [r for _, r in zip(range(room), source)]):
                found.append((request, reply))
                if len(found) == 60:
                    dead.set()
                    two.shutdown()
                    two.server_close()
                    before = one.asked
        teacher.close()
    assert sorted(id(request) for request, _ in found) == sorted(id(request) for request in requests)
    assert all(isinstance(reply, Reply) for _, reply in found)
    assert one.asked - before > 100


def test_a_server_that_only_fails_does_not_draw_the_requests(server_module: Any, drain: Any) -> None:
    with server_module.running_server(lambda *_: "500") as bad, server_module.running_server(delay_s=0.02) as good:
        teacher = open_teacher(f"openai:{bad.url},{good.url}#m", **{**FAST, "concurrency": 8, "start": 8})
        replies = drain(teacher, [ask(f"{i}") for i in range(200)])
        teacher.close()
    assert all(isinstance(reply, Reply) for _, reply in replies)
    assert bad.asked < 100


def test_each_url_has_its_own_pace(server_module: Any, drain: Any) -> None:
    def fault(number: int, text: str) -> str | None:
        return "429" if narrow.active > 2 else None

    with (
        server_module.running_server(fault, delay_s=0.02) as narrow,
        server_module.running_server(delay_s=0.02) as wide,
    ):
        teacher = open_teacher(f"openai:{narrow.url},{wide.url}#m", **{**FAST, "concurrency": 32, "start": 32})
        replies = drain(teacher, [ask(f"{i}") for i in range(400)])
        limits = [endpoint.pace.limit for endpoint in teacher.endpoints._all]
        teacher.close()
    assert all(isinstance(reply, Reply) for _, reply in replies)
    assert limits[0] <= 8
    assert limits[1] == 16
    assert wide.asked > 2 * sum(narrow.answered.values())


def test_what_is_sent(server_module: Any, drain: Any) -> None:
    with server_module.running_server(owner="vllm") as server:
        teacher = opened(server)
        schema = {"type": "object", "properties": {"a": {"type": "string"}}}
        drain(teacher, [ask("x", max_tokens=7, temperature=0.5, stop=("END",), prefill="So", schema=schema, seed=3)])
        drain(teacher, [ask("y", choices=("a", "b"))])
        teacher.close()
    body, choice = server.bodies
    assert body["max_tokens"] == 7
    assert body["stop"] == ["END"]
    assert body["messages"][-1] == {"role": "assistant", "content": "So"}
    assert body["continue_final_message"] is True
    assert body["response_format"]["json_schema"]["schema"] == schema
    assert choice["structured_outputs"] == {"choice": ["a", "b"]}


@pytest.mark.parametrize("fault", ["length", "refusal"])
def test_finish_reasons(fault: str, server_module: Any, drain: Any) -> None:
    with server_module.running_server(lambda number, text: fault) as server:
        teacher = opened(server)
        [(_, reply)] = drain(teacher, [ask("one")])
        teacher.close()
    assert isinstance(reply, Reply)
    assert reply.finish == {"length": "length", "refusal": "refused"}[fault]


def ended(reason: Any, text: str = "The parcel that I ord") -> tuple[int, dict[str, Any]]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return 200, {"id": "x", "choices": [choice], "usage": {"prompt_tokens": 20, "completion_tokens": 5}}


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", "stop"), (None, "stop"), ("", "stop"), ("STOP", "stop"), ("eos_token", "stop"), ("end_turn", "stop"),
        ("tool_calls", "stop"), ("max_tokens", "length"), ("MAX_TOKENS", "length"), ("model_length", "length"),
        ("repetition", "length"), ("SAFETY", "refused"), ("content-filter", "refused"), ("RECITATION", "refused"),
    ],
)  # fmt: skip
def test_other_servers_words_for_an_ending_are_understood(
    reason: Any, finish: str, server_module: Any, drain: Any
) -> None:
    with server_module.running_server(lambda number, text: ended(reason)) as server:
        teacher = opened(server)
        [(_, reply)] = drain(teacher, [ask("one")])
        teacher.close()
    assert isinstance(reply, Reply)
    assert (reply.finish, reply.text, reply.attempts) == (finish, "The parcel that I ord", 1)


@pytest.mark.parametrize("reason", ["abort", "error", "insufficient_system_resource", "word of tomorrow", 3])
def test_half_a_text_whose_writing_was_broken_off_is_asked_for_again(
    reason: Any, server_module: Any, tmp_path: Any
) -> None:
    def fault(number: int, text: str) -> Any:
        return ended(reason) if number == 0 or text == "bad" else None

    with server_module.running_server(fault) as server:
        teacher = opened(server, attempts=3, concurrency=1)
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            good, bad = Asker(teacher, ledger).ask([ask("one"), ask("bad")], "test")
            assert ledger.totals().replies == 1, "half a text is kept as an answer"
            assert ledger.spent() == {teacher.name: (20 + 5 + 3 * 20, 5 + 4 + 3 * 5)}
        teacher.close()
    assert isinstance(good.reply, Reply)
    assert (good.reply.text, good.reply.attempts) == ("reply to one", 2)
    assert isinstance(bad.reply, Failure)
    assert f"finish_reason {str(reason)!r}" in bad.reply.reason


def test_two_thousand_requests_at_thirty_percent_faults(
    server_module: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    faults = ["429", "500", "502", "503", "reset", "reset-body", "html", "cut-json", "no-choices", "no-text", "array"]
    # By request and attempt, so that the run does not depend on the order of arrival.
    seen: dict[str, int] = {}

    def fault(number: int, text: str) -> str | None:
        with server.lock:
            attempt = seen[text] = seen.get(text, 0) + 1
        if text.endswith("77"):
            return "500"
        chance = random.Random(f"{text}/{attempt}")
        return chance.choice(faults) if chance.random() < 0.3 else None

    requests = [ask(f"request {i}") for i in range(2000)]
    with server_module.running_server(fault) as server:
        # No fault of these is a slow one: an answer that a busy machine gives late must not be asked for again.
        teacher = opened(server, attempts=8, concurrency=32, patience_s=60.0, timeout_s=30.0)
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            asker = Asker(teacher, ledger)
            answers = asker.ask(requests, "test")
            again = Asker(teacher, ledger)
            asked_before = server.asked
            second = again.ask([r for r in requests if not r.messages[0].content.endswith("77")], "test")
            totals = ledger.totals()
        teacher.close()
    assert len(answers) == 2000
    failed = [a for a in answers if isinstance(a.reply, Failure)]
    assert len(failed) == totals.failures >= 20
    assert len(failed) <= 25
    for answer in answers:
        text = answer.request.messages[0].content
        if isinstance(answer.reply, Reply):
            assert answer.reply.text == f"reply to {text}"
            assert server.answered[text] == 1, "paid twice"
    assert totals.replies == 2000 - len(failed)
    assert asker.counts.retried > 500
    # What was answered is not asked again; what failed otherwise may be.
    assert server.asked - asked_before <= 40
    assert sum(not answer.cached for answer in second) <= 5
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert KEY.encode() not in stored
    assert KEY not in caplog.text


def test_secrets_in_the_url_are_shown_nowhere(server_module: Any, drain: Any) -> None:
    with server_module.running_server(lambda number, text: "401") as server:
        port = server.server_address[1]
        teacher = open_teacher(f"openai:http://bob:hunter22@127.0.0.1:{port}/v1?token=tok-secret#m", **FAST)
        shown = f"{teacher.identity} {teacher.name} {teacher!r}"
        with pytest.raises(TeacherRefused) as caught:
            drain(teacher, [ask("x")])
        teacher.close()
    for secret in ("bob", "hunter22", "tok-secret", KEY):
        assert secret not in shown + str(caught.value)


def test_a_token_in_the_query_reaches_the_server_and_no_log(
    server_module: Any, drain: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with server_module.running_server() as server:
        teacher = open_teacher(f"openai:{server.url}?token=tok%2Fsecret&v=2#m", flavour="openai", **FAST)
        [(_, reply)] = drain(teacher, [ask("x")])
        teacher.close()
    assert isinstance(reply, Reply)
    assert server.headers[0][":path"] == "/v1/chat/completions?token=tok%2Fsecret&v=2"
    assert "HTTP Request: POST" in caplog.text, "nothing was logged that could hold it"
    assert "tok%2Fsecret" not in caplog.text
    assert "tok/secret" not in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("openai:ftp://x#m", "is no URL"),
        ("openai:localhost:8000#m", "is no URL"),
        ("openai:", "no model for api.openai.com"),
        ("opnai:#m", "did you mean 'openai'"),
    ],
)
def test_bad_references(ref: str, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        open_teacher(ref)


def test_no_key_for_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(OptionError, match="set the environment variable OPENAI_API_KEY"):
        open_teacher("openai:#gpt-5-mini")


def test_unknown_option() -> None:
    with pytest.raises(OptionError, match="did you mean 'timeout_s'"):
        open_teacher("openai:http://localhost:1/v1#m", timeout=3)


def test_split_url() -> None:
    assert split_url("https://a:b@Host:8/v1/?k=v") == ("https://host:8/v1", ("b", "a", "k=v"))
    assert split_url("http://[::1]:80/v1") == ("http://[::1]:80/v1", ())


def test_retry_after() -> None:
    assert retry_after({"retry-after": "2"}) == 2.0
    assert retry_after({"retry-after-ms": "1500"}) == 1.5
    assert retry_after({"retry-after": "nonsense"}) is None
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after({}) is None


def test_masking() -> None:
    secrets = Secrets(("abc", ""))
    assert secrets.mask("xabcx") == "x***x"
    assert "abc" not in repr(secrets)
