"""A user's turn written by the model behind a vLLM server (Magpie, arXiv:2406.08464 §2): its chat template, opened.

What enters is a request for a user's turn; what leaves is its reply. The server renders the template (`/tokenize`): of
two chats that differ in the user's words alone, the tokens that both begin with come before the words, and those that
both end with come after them. The first are the prompt of `/v1/completions`, the second end its reply. A template that
refuses a system message, or leaves it out, has it before the user's words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from potstill.asking.teacher import Message, Reply, Request
from potstill.asking.token_estimate import expected_tokens, most_tokens
from potstill.datagen.teachers.chat_prompt import first_mark, shared
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
_HARMLESS = (Message("system", "Be polite."),)
_MEND = "serve its instruct or chat version"

Opening = tuple[tuple[int, ...], tuple[int, ...], str]
"""Tokens before a user's words; the control token that ends them, or none; the text that does, or ""."""


class Openings:
    """What a served template is known to write.

    Attributes:
        known: What stands around a user's words by the messages before them.
        takes_system: Whether it writes system messages; None where none was rendered yet.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[tuple[str, str], ...], Opening] = {}
        self.takes_system: bool | None = None


async def turn_fault(teacher: OpenAITeacher) -> str:
    """Why the served model cannot write a user's turn; "" where it can, or where the server does not tell now."""
    try:
        await _opening(teacher, teacher.endpoints.pick(), _HARMLESS)
    except Fault as fault:
        return str(fault) if fault.kind == "fatal" else ""
    return ""


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
    openings = teacher.openings
    key = tuple((message.role, message.content) for message in messages)
    found = openings.known.get(key)
    if found is None:
        if openings.takes_system is None:
            openings.takes_system = await _takes_system(teacher, endpoint, messages)
        told = "".join(f"{message.content}\n\n" for message in messages)
        chats = [(messages, words) if openings.takes_system else ((), told + words) for words in _WORDS]
        first, second = [await _rendered(teacher, endpoint, *chat) for chat in chats]
        before = shared(first, second)
        after = shared(first[before:][::-1], second[before:][::-1])
        found = (tuple(first[:before]), *await _ends(teacher, endpoint, first[len(first) - after :] if after else []))
        if len(openings.known) >= _MOST_OPENINGS:
            openings.known.clear()
        openings.known[key] = found
    return found


async def _takes_system(teacher: OpenAITeacher, endpoint: Endpoint, messages: Sequence[Message]) -> bool:
    """Whether the template writes a system message; neither where it refuses one, nor where it leaves it out."""
    alone = await _rendered(teacher, endpoint, (), _WORDS[0])
    try:
        return await _rendered(teacher, endpoint, messages, _WORDS[0]) != alone
    except Fault as fault:
        if fault.kind in ("unfit", "fatal"):  # of the message: without it the chat was rendered
            return False
        raise


async def _ends(teacher: OpenAITeacher, endpoint: Endpoint, after: Sequence[int]) -> tuple[tuple[int, ...], str]:
    """What ends a user's words, by the tokens that come after them."""
    if after and _MARK.fullmatch(await _text(teacher, endpoint, after[:1])):
        return (after[0],), ""
    stop = first_mark(await _text(teacher, endpoint, after)) if after else ""
    if not stop:
        raise Fault("fatal", f"the served model's chat template has nothing behind what a user says; {_MEND}")
    return (), stop


async def _rendered(teacher: OpenAITeacher, endpoint: Endpoint, messages: Sequence[Message], words: str) -> list[int]:
    body = {
        "model": teacher.model,
        "messages": chat_messages(Request((*messages, Message("user", words)))),
        # By the beginning of the assistant's turn alone some templates end the user's.
        "add_generation_prompt": True,
        "continue_final_message": False,
    }
    try:
        return token_list(await teacher.endpoints.call(endpoint, "POST", root_path(endpoint, "/tokenize"), body))
    except Fault as fault:
        if fault.kind == "unfit" and "template" in str(fault).lower():
            raise Fault(
                "fatal", f"the served model has no chat template to open a user's turn with ({fault}); {_MEND}"
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
