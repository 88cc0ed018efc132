"""Asks the real vLLM engine what `test_vllm.py` compares, in a process of its own; prints one JSON object."""

from __future__ import annotations

import json
import sys
from typing import Any

from potstill.asking.teacher import AnyRequest, Failure, Message, Reply, Request, ScoreRequest, token_score
from potstill.asking.teacher_json import reply_to_json
from potstill.datagen.teachers import open_teacher

TEXTS = (
    "Hi.",
    "The match ended two all after a late goal in the rain, and nobody went home unhappy.",
    "Shares fell as the company cut its forecast for the third time this year. " * 3,
)
LABELS = ("World", "Sports", "Business", "Science and technology", "Science fiction", "Sports news from abroad")
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def questions() -> dict[str, list[AnyRequest]]:
    """The same for every backend."""
    users = [(Message("user", text),) for text in TEXTS]
    return {
        "scores": [ScoreRequest(user, LABELS) for user in users],
        "prefilled": [ScoreRequest(user, (" World", " Sports"), prefill="Label:") for user in users],
        "targets": [ScoreRequest(users[0], (TEXTS[1],), top_logprobs=8)],
        "greedy": [Request(user, temperature=0.0, max_tokens=12, top_logprobs=4) for user in users],
        "sampled": [Request(users[0], max_tokens=8, seed=seed) for seed in range(6)],
        "choices": [Request((Message("user", "Is the sky blue?"),), choices=("yes it is", "yes", "no"))],
        "stopped": [Request((Message("user", "Count to ten."),), temperature=0.0, max_tokens=30, stop=(",", "2"))],
    }


def extra() -> dict[str, list[AnyRequest]]:
    """What only vLLM does, and what it must refuse."""
    user = (Message("user", "Describe a person."),)
    return {
        "schema": [Request(user, schema=SCHEMA, max_tokens=60, seed=seed) for seed in range(4)],
        "too_long": [Request((Message("user", "word " * 20_000),))],
        "by_number": [token_score((504, 3575, 282, 4649, 314), (7042, 30, 2), 5)],
        "many": [Request((Message("user", f"Say {i}."),), max_tokens=3 + i % 7, seed=i) for i in range(60)],
    }


def answers(teacher: Any, requests: list[AnyRequest]) -> list[Any]:
    """Replies as JSON, in the order of the requests; failures as their reason."""
    source = iter(requests)
    found: dict[int, Reply | Failure] = {}
    for request, reply in teacher.stream(lambda room: [r for _, r in zip(range(room), source)]):
        assert id(request) not in found
        found[id(request)] = reply
    replies = [found[id(request)] for request in requests]
    return [reply_to_json(r) if isinstance(r, Reply) else {"failure": r.reason} for r in replies]


def main() -> None:
    """Engine in float32, so that only the order of additions differs from other backends."""
    teacher = open_teacher(
        "vllm", dtype="float32", enforce_eager=True, max_model_len=1024, kv_cache_gib=1, concurrency=16
    )
    found = {name: answers(teacher, requests) for name, requests in {**questions(), **extra()}.items()}
    found["sampled_again"] = answers(teacher, list(reversed(questions()["sampled"])))[::-1]
    teacher.close()
    print("RESULT " + json.dumps(found), flush=True)


if __name__ == "__main__":
    sys.exit(main())
