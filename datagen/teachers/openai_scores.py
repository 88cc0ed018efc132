"""Scores of continuations from a vLLM server: the same prefix tree as in process, over HTTP.

What enters is a score request; what leaves is its reply. The server tokenises (`/tokenize`), so no tokenizer is
needed here; each inner node of the tree is one request of one token that returns the log-probs of its children.
A single long continuation, or one whose token log-probs are wanted, is read with `prompt_logprobs`. So are tokens that
are given by their numbers, of which nothing is left to tokenise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from potstill.asking.answering_template import CLOSED, SWITCHES
from potstill.asking.teacher import Reply, ScoreRequest, TokenTop
from potstill.datagen.teachers.openai_endpoints import root_path
from potstill.datagen.teachers.openai_wire import Fault, chat_messages, first_choice
from potstill.datagen.teachers.prefix_tree import build_tree, node_prefixes

if TYPE_CHECKING:
    from potstill.datagen.teachers.openai_api import OpenAITeacher
    from potstill.datagen.teachers.openai_endpoints import Endpoint

# vLLM's bound on `logprob_token_ids`.
_MAX_CHILDREN = 128
_BOUNDARY = 48
_SWITCH = "chat_template_kwargs"


async def scored(teacher: OpenAITeacher, request: ScoreRequest) -> Reply:
    """The reply to a score request.

    Raises:
        Fault: Whatever went wrong at the server.
    """
    if request.token_ids is not None:
        return await _by_number(teacher, request, *request.token_ids)
    if not request.continuations or not all(request.continuations):
        raise Fault("unfit", "there is no continuation, or an empty one, to score")
    endpoint = teacher.endpoints.pick()
    ids = await _unthought(teacher, endpoint, await _tokens(teacher, endpoint, request, ""))
    # Continuation tokens depend on the text right before them only, so one look-up serves all prompts that end alike.
    ending = (request.messages[-1].role if request.messages else "", request.prefill[-_BOUNDARY:])
    cache = teacher.continuation_tokens
    continuations: list[tuple[int, ...]] = []
    for text in request.continuations:
        if (ending, text) not in cache:
            whole = await _tokens(teacher, endpoint, request, text)
            if whole[: len(ids)] == ids and len(whole) > len(ids):
                cache[ending, text] = tuple(whole[len(ids) :])
            else:
                cache[ending, text] = tuple(await plain_tokens(teacher, endpoint, text))
        continuations.append(cache[ending, text])
    lengths = tuple(len(tokens) for tokens in continuations)
    if len(continuations) == 1 and (request.top_logprobs or lengths[0] > 8):
        return await _whole(teacher, endpoint, request, ids, continuations[0])
    tree = build_tree(continuations)
    logprobs: dict[tuple[int, int], float] = {}

    async def ask(node: int, prefix: Sequence[int], children: Sequence[int]) -> None:
        body = {
            "model": teacher.model,
            "prompt": [*ids, *prefix],
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": len(children),
            "logprob_token_ids": list(children),
            "return_tokens_as_token_ids": True,
        }
        read = len(ids) + len(prefix) + 1
        choice = first_choice(await teacher.endpoints.call(endpoint, "POST", "/completions", body, read))
        for token, value in _completion_logprobs(choice).items():
            logprobs[node, token] = value

    parts = [
        (node, prefix, children[start : start + _MAX_CHILDREN])
        for node, (prefix, children) in enumerate(node_prefixes(tree), start=-1)
        for start in range(0, len(children), _MAX_CHILDREN)
    ]
    # The first reads the prompt; the others find it in the prefix cache.
    await ask(*parts[0])
    await asyncio.gather(*(ask(*part) for part in parts[1:]))
    try:
        scores = tuple(sum(logprobs[step] for step in path) for path in tree.paths)
    except KeyError:
        raise Fault("again", "the server left out log-probs that were asked for") from None
    return Reply(prompt_tokens=len(ids), scores=scores, score_tokens=lengths)


async def _tokens(teacher: OpenAITeacher, endpoint: Endpoint, request: ScoreRequest, extra: str) -> list[int]:
    open_turn = bool(request.prefill or extra)
    body = {
        "model": teacher.model,
        "messages": chat_messages(request, extra),
        "add_generation_prompt": not open_turn,
        "continue_final_message": open_turn,
        # What is scored comes right behind the prompt, whatever the model may think elsewhere.
        _SWITCH: dict.fromkeys(SWITCHES, False),
    }
    if _SWITCH in teacher.refused_fields:
        del body[_SWITCH]
    try:
        return token_list(await teacher.endpoints.call(endpoint, "POST", root_path(endpoint, "/tokenize"), body))
    except Fault as fault:
        if _SWITCH not in fault.fields or _SWITCH not in body:
            raise
        teacher.leave_out(frozenset({_SWITCH}), str(fault))
        return await _tokens(teacher, endpoint, request, extra)


async def _unthought(teacher: OpenAITeacher, endpoint: Endpoint, ids: list[int]) -> list[int]:
    """A prompt's tokens with the thought closed that its template opens whatever it is told, where it does."""
    if teacher.thought_tokens is None:
        texts = ("<think>", "\n", "\n\n", CLOSED)
        found = [await plain_tokens(teacher, endpoint, text) for text in texts]
        teacher.thought_tokens = ThoughtTokens(*map(tuple, found))
    return teacher.thought_tokens.closed(ids)


@dataclass(frozen=True)
class ThoughtTokens:
    """A thought's marks as the server's tokenizer cuts them.

    Attributes:
        mark: What opens one.
        line: The end of a line.
        blank: An empty line.
        whole: An empty thought, from its mark to the words behind it.
    """

    mark: tuple[int, ...]
    line: tuple[int, ...]
    blank: tuple[int, ...]
    whole: tuple[int, ...]

    def closed(self, ids: list[int]) -> list[int]:
        """The tokens of a prompt, which do not end within a thought.

        Examples:
            >>> marks = ThoughtTokens((7,), (1,), (2,), (7, 2, 8, 2))
            >>> marks.closed([5, 6, 7, 1]), marks.closed([5, 6, 7]), marks.closed([5, 7, 6])
            ([5, 6, 7, 2, 8, 2], [5, 6, 7, 2, 8, 2], [5, 7, 6])
        """
        for end in (self.mark, (*self.mark, *self.line), (*self.mark, *self.blank)):
            if tuple(ids[-len(end) :]) == end:
                return [*ids[: -len(end)], *self.whole]
        return ids


async def plain_tokens(teacher: OpenAITeacher, endpoint: Endpoint, text: str) -> list[int]:
    """A text's tokens by their numbers, without those that a tokenizer puts before or after a whole one."""
    body = {"model": teacher.model, "prompt": text, "add_special_tokens": False}
    return token_list(await teacher.endpoints.call(endpoint, "POST", root_path(endpoint, "/tokenize"), body))


def token_list(body: Mapping[str, Any]) -> list[int]:
    """The tokens of an answer of `/tokenize`. Raises `Fault` where there are none."""
    tokens = body.get("tokens")
    if not isinstance(tokens, list) or not tokens:
        raise Fault("again", "the server's /tokenize gave no tokens")
    return [int(token) for token in tokens]


def _completion_logprobs(choice: Mapping[str, Any]) -> dict[int, float]:
    try:
        first = choice["logprobs"]["top_logprobs"][0]
        return {int(token.removeprefix("token_id:")): float(value) for token, value in first.items()}
    except (KeyError, TypeError, ValueError, IndexError):
        raise Fault("again", "the reply's log-probs are missing or unreadable") from None


async def _by_number(teacher: OpenAITeacher, request: ScoreRequest, ids: Sequence[int], scored: Sequence[int]) -> Reply:
    if not ids or not scored:
        raise Fault("unfit", "there is no token to score, or none before it")
    reply = await _whole(teacher, teacher.endpoints.pick(), request, list(ids), scored)
    # The whole is read, and one token is written that nobody wants.
    return replace(reply, prompt_tokens=len(ids) + len(scored), completion_tokens=1)


async def _whole(
    teacher: OpenAITeacher, endpoint: Endpoint, request: ScoreRequest, ids: list[int], continuation: Sequence[int]
) -> Reply:
    body = {
        "model": teacher.model,
        "prompt": [*ids, *continuation],
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": max(1, request.top_logprobs),
    }
    read = len(ids) + len(continuation) + 1
    choice = first_choice(await teacher.endpoints.call(endpoint, "POST", "/completions", body, read))
    tops: list[TokenTop] = []
    try:
        for token, item in zip(continuation, choice["prompt_logprobs"][len(ids) :], strict=True):
            best = sorted(item.items(), key=lambda pair: pair[1]["rank"])[: request.top_logprobs]
            tops.append(
                TokenTop(
                    token,
                    float(item[str(token)]["logprob"]),
                    tuple(int(name) for name, _ in best),
                    tuple(float(value["logprob"]) for _, value in best),
                )
            )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Fault("again", "the reply's prompt log-probs are missing or unreadable") from None
    return Reply(
        prompt_tokens=len(ids),
        scores=(sum(item.logprob for item in tops),),
        score_tokens=(len(continuation),),
        top=tuple(tops) if request.top_logprobs else (),
    )
