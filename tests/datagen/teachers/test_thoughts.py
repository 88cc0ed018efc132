"""A model that thinks before it answers: what it thought is in no reply, whoever runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.asking.teacher import Message, Reply, Request, TokenTop
from potstill.datagen.teachers.local import LocalTeacher
from potstill.datagen.teachers.openai_wire import chat_reply
from potstill.datagen.teachers.vllm_engine import _Engine
from potstill.decoding.decoder import Decoder

ASKED = Request((Message("user", "Which town has the tallest church?"),), max_tokens=4, top_logprobs=1)
SAID = [
    ("<think>\nA town? Ulm.\n</think>\n\nUlm", "Ulm"),
    ("A town? Ulm.\n</think>\n\nUlm", "Ulm"),  # the template opened the tag
    ("<think>\n\n</think>\n\n  Ulm\n", "Ulm\n"),
    ("<think>\nA town? Per", ""),
    ("Ulm", "Ulm"),
    ("  Ulm <think>", "  Ulm <think>"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_causal: Callable[[Path], Path]) -> LocalTeacher:
    return LocalTeacher(str(tiny_causal(tmp_path_factory.mktemp("tiny") / "model")))


def by_transformers(model: LocalTeacher, written: str, request: Request, drain: Any) -> Reply:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "text", lambda self, row: written)
        [(_, reply)] = drain(model, [request])
    assert isinstance(reply, Reply)
    return reply


def by_vllm(written: str, request: Request) -> Reply:
    likeliest = {7: SimpleNamespace(logprob=-0.1, rank=1)}
    done = SimpleNamespace(text=written, finish_reason="stop", token_ids=[7], logprobs=[likeliest])
    question = SimpleNamespace(request=request, prompt_tokens=3)
    return _Engine._reply(SimpleNamespace(), question, SimpleNamespace(outputs=[done]))  # type: ignore[arg-type]


@pytest.mark.parametrize(("written", "text"), SAID)
def test_thoughts_are_no_part_of_a_reply_and_of_its_log_probs(
    written: str, text: str, model: LocalTeacher, drain: Any
) -> None:
    for reply in (by_transformers(model, written, ASKED, drain), by_vllm(written, ASKED)):
        assert reply.text == text
        assert bool(reply.top) == (written == text)
        assert reply.completion_tokens > 0  # what was thought is counted


@pytest.mark.parametrize(
    "fields", [{"prefill": "1."}, {"choices": ("a</think>b", "c")}, {"turn": "user", "top_logprobs": 0}]
)
def test_what_no_thought_can_stand_in_stays_as_it_was_written(
    fields: dict[str, Any], model: LocalTeacher, drain: Any
) -> None:
    request = replace(ASKED, **fields)
    for reply in (by_transformers(model, "a</think>b", request, drain), by_vllm("a</think>b", request)):
        assert reply.text == "a</think>b"
        assert bool(reply.top) == bool(request.top_logprobs)
    assert by_vllm('{"a": "</think>"}', replace(ASKED, schema={"type": "object"})).text == '{"a": "</think>"}'


@pytest.mark.parametrize("message", [{"content": "<think>Ulm</think>Ulm"}, {"content": "Ulm", "reasoning": "Ulm?"}])
def test_log_probs_that_a_server_gives_of_thoughts_are_none_of_the_text(message: dict[str, Any]) -> None:
    token = {"token": "token_id:7", "logprob": -0.1}
    told = {"content": [{**token, "top_logprobs": [token]}]}
    body = {"choices": [{"message": message, "finish_reason": "stop", "logprobs": told}]}
    reply = chat_reply(body, ASKED, "vllm")
    assert (reply.text, reply.top) == ("Ulm", ())
    plain = {"choices": [{**body["choices"][0], "message": {"content": "Ulm"}}]}
    assert chat_reply(plain, ASKED, "vllm").top == (TokenTop(7, -0.1, (7,), (-0.1,)),)
