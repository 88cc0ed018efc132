"""What vLLM's outputs hold of log-probs, as parts of a reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from potstill.asking.teacher import Reply, ScoreRequest, TokenTop


def whole_reply(request: ScoreRequest, output: Any, first: int) -> Reply:
    """The reply to one continuation that was read with `prompt_logprobs`.

    Args:
        request: What was asked.
        output: vLLM's finished output.
        first: Place of the continuation's first token in the prompt that vLLM read.
    """
    ids = output.prompt_token_ids
    tokens, logprobs = ids[first:], [output.prompt_logprobs[place] for place in range(first, len(ids))]
    by_number = request.token_ids is not None
    return Reply(
        # Of tokens by their numbers the whole is told as read, and the one that has to be written as written.
        prompt_tokens=len(ids) if by_number else first,
        completion_tokens=int(by_number),
        scores=(sum(float(item[token].logprob) for item, token in zip(logprobs, tokens, strict=True)),),
        score_tokens=(len(tokens),),
        top=tops(tokens, logprobs, request.top_logprobs) if request.top_logprobs else (),
    )


def tops(tokens: Sequence[int], logprobs: Sequence[Mapping[int, Any]], k: int) -> tuple[TokenTop, ...]:
    """vLLM gives the chosen token and the `k` likeliest in one mapping, each with its rank."""
    found = []
    for token, options in zip(tokens, logprobs, strict=True):
        best = sorted(options.items(), key=lambda item: item[1].rank)[:k]
        found.append(
            TokenTop(
                int(token),
                float(options[token].logprob),
                tuple(int(i) for i, _ in best),
                tuple(float(value.logprob) for _, value in best),
            )
        )
    return tuple(found)
