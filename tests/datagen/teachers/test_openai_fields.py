"""Servers that call themselves OpenAI-compatible and take only some fields: each as it answers, in its own words."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Failure, Message, Reply, Request
from potstill.datagen.teachers import open_teacher
from potstill.datagen.teachers.openai_fields import fitted, named_fields, refused_from_the_start
from potstill.errors import TeacherRefused

FAST: dict[str, Any] = {
    "backoff_s": 0.01,
    "longest_pause_s": 0.1,
    "timeout_s": 5.0,
    "patience_s": 5.0,
    "flavour": "openai",
}
SCHEMA = {
    "type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"], "additionalProperties": False,
}  # fmt: skip


def _openai(body: dict[str, Any]) -> Any:
    """A model of OpenAI that thinks: one complaint at a time."""
    for name in ("max_tokens", "stop"):
        if name in body:
            said = f"Unsupported parameter: '{name}' is not supported with this model."
            return 400, {"error": {"message": said, "param": name, "code": "unsupported_parameter"}}
    for name in ("temperature", "top_p"):
        if name in body:
            said = f"Unsupported value: '{name}' does not support 0.0 with this model. Only the default (1) is."
            return 400, {"error": {"message": said, "param": name, "code": "unsupported_value"}}
    return None


def _mistral(body: dict[str, Any]) -> Any:
    detail = [
        {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": body[name]}
        for name in ("seed", "max_completion_tokens")
        if name in body
    ]
    return (422, {"object": "error", "message": {"detail": detail}, "param": None}) if detail else None


def _claude(body: dict[str, Any]) -> Any:
    said = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    return (400, {"error": {"message": said}}) if "temperature" in body and "top_p" in body else None


def _deepseek(body: dict[str, Any]) -> Any:
    said = "This response_format type is unavailable now"
    return (400, {"error": {"message": said}}) if "response_format" in body else None


def _groq(body: dict[str, Any]) -> Any:
    said = "This model does not support response format `json_schema`. See supported models at https://x.example"
    return (400, {"error": {"message": said, "param": "response_format"}}) if "response_format" in body else None


def _grok(body: dict[str, Any]) -> Any:
    return (400, {"code": "400", "error": "Argument not supported on this model: stop"}) if "stop" in body else None


def _gemini(body: dict[str, Any]) -> Any:
    said = 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'
    return (400, [{"error": {"code": 400, "message": said}}]) if "seed" in body else None


@pytest.mark.parametrize(
    ("takes", "lacking"),
    [
        (_openai, {"max_tokens", "stop", "temperature", "top_p"}), (_mistral, {"seed"}), (_claude, {"top_p"}),
        (_deepseek, {"response_format"}), (_groq, {"response_format"}), (_grok, {"stop"}), (_gemini, {"seed"}),
    ],
)  # fmt: skip
def test_a_field_that_a_server_does_not_take_is_left_out(
    takes: Callable[[dict[str, Any]], Any],
    lacking: set[str],
    server_module: Any,
    drain: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)

    def fault(number: int, text: str) -> Any:
        return takes(server.bodies[number])

    requests = [
        Request((Message("user", f"Name town {i}."),), max_tokens=9, temperature=0.0, stop=("END",), schema=SCHEMA)
        for i in range(20)
    ]
    with server_module.running_server(fault, reply=lambda body: 'Sure: ```json\n{"town": "Ulm"}\n```') as server:
        teacher = open_teacher(f"openai:{server.url}#m", **{**FAST, "concurrency": 1})
        with Ledger(tmp_path / "l.sqlite") as ledger:
            answers = Asker(teacher, ledger).ask(requests, "test")
        teacher.close()
    assert [json.loads(answer.reply.text) for answer in answers if isinstance(answer.reply, Reply)] == [
        {"town": "Ulm"}
    ] * 20
    assert teacher.refused_fields == lacking
    assert server.asked == 20 + len(lacking), "each refusal is learnt once"
    last = server.bodies[-1]
    assert (last.get("max_tokens") or last.get("max_completion_tokens")) == 9, "never without a bound"
    asked_in_words = json.dumps(SCHEMA) in last["messages"][-1]["content"]
    assert asked_in_words == ("response_format" not in last)
    assert len([r for r in caplog.records if "is asked without" in r.getMessage()]) == len(lacking)


def test_many_refused_at_once_are_all_asked_again(server_module: Any, drain: Any) -> None:
    def fault(number: int, text: str) -> Any:
        return _openai(server.bodies[number])

    with server_module.running_server(fault, delay_s=0.05) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **{**FAST, "concurrency": 16})
        replies = drain(teacher, [Request((Message("user", f"{i}"),), stop=("x",)) for i in range(16)])
        teacher.close()
    assert all(isinstance(reply, Reply) for _, reply in replies)


def test_a_server_that_takes_no_bound_at_all_is_told_of(server_module: Any, drain: Any) -> None:
    def fault(number: int, text: str) -> Any:
        name = next((name for name in ("max_tokens", "max_completion_tokens") if name in server.bodies[number]), None)
        return (400, {"error": {"message": f"Unknown parameter: '{name}'."}}) if name else None

    with server_module.running_server(fault) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **FAST)
        with pytest.raises(TeacherRefused, match="Unknown parameter"):
            drain(teacher, [Request((Message("user", "x"),))])
        teacher.close()
    assert server.asked < 10


def test_a_value_out_of_range_is_no_refused_field(server_module: Any, drain: Any) -> None:
    said = "max_tokens is too large: 9000. This model supports at most 4096 completion tokens."

    def fault(number: int, text: str) -> Any:
        return (400, {"error": {"message": said, "param": "max_tokens"}}) if text == "long" else None

    with server_module.running_server(fault) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **FAST)
        replies = drain(teacher, [Request((Message("user", text),)) for text in ("long", "short")])
        teacher.close()
    assert isinstance(replies[0][1], Failure)
    assert teacher.refused_fields == set()


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("The prompt was filtered; stop, seed and field are words of it", set()),
        (
            "This model's maximum context length is 4096 tokens; your max_tokens is unsupported? no: 5000",
            {"max_tokens"},
        ),
        ("litellm.UnsupportedParamsError: gpt-5 models don't support temperature=0.0", {"temperature"}),
        ("Invalid schema for response_format 'reply': 'minItems' is not permitted.", {"response_format"}),
        ('{"detail": [{"loc": ["body", "seed"], "msg": "Unexpected", "input": {"stop": "`top_p`"}}]}', {"seed"}),
        ("", set()),
    ],
)
def test_named_fields(said: str, names: set[str]) -> None:
    assert named_fields(said) == names


def test_what_openai_takes_is_known_before_a_batch_is_written() -> None:
    body = {"model": "m", "messages": [], "max_tokens": 5, "temperature": 0.0, "top_p": 1.0, "seed": 1}
    assert fitted(body, refused_from_the_start("api.openai.com", "gpt-5-mini")) == {
        "model": "m", "messages": [], "max_completion_tokens": 5, "seed": 1,
    }  # fmt: skip
    assert fitted(body, refused_from_the_start("api.openai.com", "gpt-4o-mini"))["temperature"] == 0.0
    assert fitted(body, refused_from_the_start("localhost", "gpt-5-mini")) == body
