"""Requests and replies as JSON types: what the ledger stores and what its keys are made of."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any, cast

from potstill.asking.teacher import AnyRequest, FinishReason, Message, Reply, Request, TokenText, TokenTop
from potstill.errors import DataError


def request_to_json(request: AnyRequest) -> dict[str, Any]:
    """The canonical request: every field that decides the reply except `max_tokens` (see `ledger`)."""
    plain: dict[str, Any] = {
        "messages": [[message.role, message.content] for message in request.messages],
        "prefill": request.prefill,
        "top_logprobs": request.top_logprobs,
    }
    if isinstance(request, Request):
        # Left out where they are not asked for, so that keys of earlier ledgers stay.
        beams = {"beams": request.beams} if request.beams > 1 else {}
        texts = {"token_texts": request.token_texts} if request.token_texts else {}
        turn = {"turn": request.turn} if request.turn != "assistant" else {}
        return (
            plain
            | beams
            | texts
            | turn
            | {
                "kind": "text",
                "temperature": float(request.temperature),
                "top_p": float(request.top_p),
                "stop": list(request.stop),
                "seed": request.seed,
                "sample": request.sample,
                "schema": None if request.schema is None else dict(request.schema),
                "choices": None if request.choices is None else list(request.choices),
            }
        )
    tokens = {} if request.token_ids is None else {"token_ids": [list(ids) for ids in request.token_ids]}
    return plain | tokens | {"kind": "scores", "continuations": list(request.continuations)}


def request_from_json(plain: Mapping[str, Any], max_tokens: int) -> Request:
    """A text request from its canonical form, which lacks `max_tokens`."""
    return Request(
        messages=tuple(Message(role, content) for role, content in plain["messages"]),
        prefill=plain["prefill"],
        max_tokens=max_tokens,
        temperature=plain["temperature"],
        top_p=plain["top_p"],
        stop=tuple(plain["stop"]),
        seed=plain["seed"],
        sample=plain["sample"],
        schema=plain["schema"],
        choices=None if plain["choices"] is None else tuple(plain["choices"]),
        top_logprobs=plain["top_logprobs"],
        token_texts=plain.get("token_texts", 0),
        beams=plain.get("beams", 1),
        turn=plain.get("turn", "assistant"),
    )


def reply_to_json(reply: Reply) -> dict[str, Any]:
    """A reply as JSON types; token log-probs are packed as base64 of little-endian int32 and float32."""
    plain: dict[str, Any] = {
        "text": reply.text,
        "finish": reply.finish,
        "tokens": [reply.prompt_tokens, reply.completion_tokens],
    }
    if reply.attempts != 1:
        plain["attempts"] = reply.attempts
    if reply.scores or reply.score_tokens:
        plain["scores"] = [round(float(score), 6) for score in reply.scores]
        plain["score_tokens"] = list(reply.score_tokens)
    if reply.raw is not None:
        plain["raw"] = dict(reply.raw)
    if reply.said:
        plain["said"] = [
            [token.text, round(token.logprob, 6), [[text, round(value, 6)] for text, value in token.others]]
            for token in reply.said
        ]
    if reply.top:
        plain["top"] = {
            "counts": _pack("<i4", [len(item.top_ids) for item in reply.top]),
            "ids": _pack("<i4", [item.token_id for item in reply.top]),
            "logprobs": _pack("<f4", [item.logprob for item in reply.top]),
            "top_ids": _pack("<i4", [token for item in reply.top for token in item.top_ids]),
            "top_logprobs": _pack("<f4", [value for item in reply.top for value in item.top_logprobs]),
        }
    return plain


def reply_from_json(plain: Mapping[str, Any]) -> Reply:
    """A reply from its stored form.

    Raises:
        DataError: It is no stored reply.
    """
    try:
        return _reply(plain)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
        raise DataError(
            f"a stored reply cannot be read ({type(error).__name__}: {error}); see potstill verify RUN"
        ) from None


def _reply(plain: Mapping[str, Any]) -> Reply:
    """The inverse of `reply_to_json`."""
    top: list[TokenTop] = []
    if "top" in plain:
        packed = plain["top"]
        ids, logprobs = _unpack("<i4", packed["ids"]), _unpack("<f4", packed["logprobs"])
        top_ids, top_logprobs = _unpack("<i4", packed["top_ids"]), _unpack("<f4", packed["top_logprobs"])
        start = 0
        for token, logprob, count in zip(ids, logprobs, _unpack("<i4", packed["counts"]), strict=True):
            end = start + count
            top.append(TokenTop(token, logprob, tuple(top_ids[start:end]), tuple(top_logprobs[start:end])))
            start = end
    return Reply(
        text=plain["text"],
        finish=cast(FinishReason, plain["finish"]),
        prompt_tokens=plain["tokens"][0],
        completion_tokens=plain["tokens"][1],
        top=tuple(top),
        said=tuple(
            TokenText(text, float(value), tuple((other, float(its)) for other, its in others))
            for text, value, others in plain.get("said", ())
        ),
        scores=tuple(plain.get("scores", ())),
        score_tokens=tuple(plain.get("score_tokens", ())),
        raw=plain.get("raw"),
        attempts=plain.get("attempts", 1),
    )


def _pack(kind: str, values: Sequence[float]) -> str:
    import numpy as np

    return base64.b64encode(np.asarray(values, dtype=kind).tobytes()).decode("ascii")


def _unpack(kind: str, text: str) -> list[Any]:
    import numpy as np

    return cast(list[Any], np.frombuffer(base64.b64decode(text), dtype=kind).tolist())
