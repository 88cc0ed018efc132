"""A user's turn written by the model behind a vLLM server (Magpie, arXiv:2406.08464 §2): its chat template, opened.

What enters is a request for a user's turn; what leaves is its reply. The server renders the template (`/tokenize`): of
two chats that differ in the user's words alone, the tokens that both begin with come before the words, and those that
both end with come after them. The first are the prompt of `/v1/completions`, the second end its reply.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from potstill.asking.teacher import Message, Reply, Request
from potstill.asking.token_estimate import expected_tokens, most_tokens
from potstill.datagen.teachers.openai_endpoints import root_path
from potstill.datagen.teachers.openai_finish import finish_of
from potstill.datagen.teachers.openai_scores import plain_tokens, token_list
from potstill.datagen.teachers.openai_wire import Fault, chat_messages, first_choice, request_seed, stated_tokens

if TYPE_CHECKING:
    from potstill.datagen.teachers.openai_api import OpenAITeacher
    from potstill.datagen.teachers.openai_endpoints import Endpoint

# Two users' words that share no token, neither the first nor the last.
_WORDS = ("Zq", "7#")
# A whole control token, such as `<|im_end|>`, `<end_of_turn>` or `[/INST]`.
_MARK = re.compile(r"\s*(?:<[^<>\s]+>|\[[^\[\]\s]+\])\s*")
_MOST_OPENINGS = 20_000

Opening = tuple[tuple[int, ...], tuple[int, ...], str]
"""Tokens before a user's words; the control token that ends them, or none; the text that does, or ""."""


async def user_turn(teacher: OpenAITeacher, request: Request) -> Reply:
    """The reply to a request for a user's turn.

    Raises:
        Fault: Whatever went wrong at the server.
    """
    endpoint = teacher.endpoints.pick()
    start, ends, stop = await _opening(teacher, endpoint, request.messages)
    begun = await plain_tokens(teacher, endpoint, request.prefill) if request.prefill else []
    body: dict[str, Any] = {
        "model": teacher.model,
        "prompt": [*start, *begun],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request_seed(request),
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stop": [text for text in (*request.stop, stop) if text],
        "stop_token_ids": list(ends),
    }
    read = len(body["prompt"]) + request.max_tokens
    answer = await teacher.endpoints.call(endpoint, "POST", "/completions", body, read)
    return _reply(answer, request)


async def _opening(teacher: OpenAITeacher, endpoint: Endpoint, messages: Sequence[Message]) -> Opening:
    key = tuple((message.role, message.content) for message in messages)
    found = teacher.openings.get(key)
    if found is None:
        first, second = [await _rendered(teacher, endpoint, messages, words) for words in _WORDS]
        before = _shared(first, second)
        after = _shared(first[before:][::-1], second[before:][::-1])
        left = first[len(first) - after :]
        found = (tuple(first[:before]), *await _ends(teacher, endpoint, left))
        if len(teacher.openings) >= _MOST_OPENINGS:
            teacher.openings.clear()
        teacher.openings[key] = found
    return found


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two lists both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


async def _ends(teacher: OpenAITeacher, endpoint: Endpoint, after: Sequence[int]) -> tuple[tuple[int, ...], str]:
    """What ends a user's words, by the tokens that come after them."""
    if not after:
        return (), ""
    if _MARK.fullmatch(await _text(teacher, endpoint, after[:1])):
        return (after[0],), ""
    return (), (await _text(teacher, endpoint, after)).strip().split("\n")[0]


async def _rendered(teacher: OpenAITeacher, endpoint: Endpoint, messages: Sequence[Message], words: str) -> list[int]:
    chat = Request((*messages, Message("user", words)))
    body = {
        "model": teacher.model,
        "messages": chat_messages(chat),
        "add_generation_prompt": False,
        "continue_final_message": False,
    }
    try:
        return token_list(await teacher.endpoints.call(endpoint, "POST", root_path(endpoint, "/tokenize"), body))
    except Fault as fault:
        if fault.kind == "unfit" and "template" in str(fault).lower():
            mend = "serve its instruct or chat version, or take generation.method=auto"
            raise Fault(
                "fatal", f"the served model has no chat template to open a user's turn with ({fault}); {mend}"
            ) from None
        raise


async def _text(teacher: OpenAITeacher, endpoint: Endpoint, tokens: Sequence[int]) -> str:
    body = {"model": teacher.model, "tokens": list(tokens)}
    found = await teacher.endpoints.call(endpoint, "POST", root_path(endpoint, "/detokenize"), body)
    text = found.get("prompt")
    if not isinstance(text, str):
        raise Fault("again", "the server's /detokenize gave no text")
    return text


def _reply(body: Mapping[str, Any], request: Request) -> Reply:
    choice = first_choice(body)
    text, finish = choice.get("text"), finish_of(choice.get("finish_reason"))
    if finish is None or not isinstance(text, str):
        raise Fault("again", f"the server gave no whole text (finish_reason {str(choice.get('finish_reason'))[:60]!r})")
    prompt, completion = stated_tokens(body)
    return Reply(
        text=text,
        finish=finish,
        prompt_tokens=prompt or expected_tokens(request)[0],
        completion_tokens=completion or most_tokens(text),
    )
