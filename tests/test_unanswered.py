"""Requests that a server left unanswered: the next call asks for them again, and for nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potstill.events import Event
from potstill.pipeline import open_job
from potstill.run_dir import Stage
from potstill.stages.written import quality_stage

WORDS = [
    "amber",
    "anchor",
    "apron",
    "arrow",
    "attic",
    "badge",
    "barley",
    "basil",
    "beacon",
    "bishop",
    "blanket",
    "bottle",
    "branch",
    "bronze",
    "bucket",
]
TASK = "---\nlanguages: [en]\nlabels: {billing: invoices, bug: broken}\n---\nClassify support tickets.\n"
OPTIONS = {"backoff_s": 0.01, "longest_pause_s": 0.05, "attempts": 2, "patience_s": 0.6, "startup_s": 0.3}


def written(body: dict[str, Any]) -> str:
    chance = random.Random(json.dumps(body["messages"]) + str(body.get("seed")))
    return json.dumps({"texts": [" ".join(chance.sample(WORDS, 9)) + "."]})


@pytest.fixture
def generated(tmp_path: Path) -> Callable[..., tuple[Stage, list[str]]]:
    """Generate 20 rows with the server at an address; the stage, and what was noted."""
    (tmp_path / "task.md").write_text(TASK)

    def made(url: str, budget: str = "", **options: Any) -> tuple[Stage, list[str]]:
        notes: list[str] = []

        def hear(event: Event) -> None:
            if (event.stage, event.kind) == ("datagen", "note"):
                notes.append(event.message)

        settings = {
            "teacher": f"openai:{url}#m", "n": 20, "sources": "generated", "teacher_options": {**OPTIONS, **options},
            "generation": {"requests_per_row": 1.5}, **({"budget": budget} if budget else {}),
        }  # fmt: skip
        task = str(tmp_path / "task.md")
        with open_job(task, tmp_path / "run", hear, settings) as job:
            job.task(task)
            return job.datagen(job.retrieval()), notes

    return made


def writes(server: Any, number: int) -> bool:
    """Whether a request is for texts, and not for topics or descriptions."""
    return bool(server.bodies[number].get("response_format"))


def answers(server: Any, fault: Callable[[int, str], Any]) -> set[str]:
    """The requests that a server answered so far."""
    return {json.dumps(body) for number, body in enumerate(server.bodies) if fault(number, "") is None}


def test_what_a_failing_server_left_out_is_asked_for_again_and_nothing_else(
    teacher_server: Any, generated: Callable[..., tuple[Stage, list[str]]]
) -> None:
    ill = {"now": True}

    def fault(number: int, text: str) -> str | None:
        body = server.bodies[number]
        return "500" if ill["now"] and writes(server, number) and body["seed"] % 2 else None

    with teacher_server.running_server(fault, reply=written) as server:
        short, _ = generated(server.url)
        left = short.facts["unanswered"]
        assert 0 < short.facts["rows"] < 20
        assert left > 3
        assert f"{left} requests got no reply and are asked again" in short.facts["summary"]
        answered, asked = answers(server, fault), server.asked
        ill["now"] = False
        whole, _ = generated(server.url)
        assert (whole.reused, whole.facts["rows"]) == (False, 20)
        assert "unanswered" not in whole.facts
        assert 0 < server.asked - asked < asked
        assert answered.isdisjoint(map(json.dumps, server.bodies[asked:])), "an answered request was asked for again"
        asked = server.asked
        again, _ = generated(server.url)
        assert (again.reused, server.asked) == (True, asked)


@pytest.mark.parametrize("refusal", ["refusal", "400"])
def test_rows_that_a_server_refuses_are_not_asked_for_again(
    refusal: str, teacher_server: Any, generated: Callable[..., tuple[Stage, list[str]]]
) -> None:
    def fault(number: int, text: str) -> str | None:
        objects = writes(server, number) and server.bodies[number]["seed"] % 2 and text != "Say hello."
        return refusal if objects else None

    with teacher_server.running_server(fault, reply=written) as server:
        short, _ = generated(server.url)
        asked = server.asked
        assert 0 < short.facts["rows"] < 20
        assert "unanswered" not in short.facts
        again, _ = generated(server.url)
        assert (again.reused, server.asked) == (True, asked)


def test_checks_that_got_no_reply_are_asked_for_again(teacher_server: Any, tmp_path: Path) -> None:
    (tmp_path / "task.md").write_text(TASK)
    ill = {"now": True}

    def judges(body: dict[str, Any]) -> bool:
        return "Is the proposed answer right" in body["messages"][-1]["content"]

    def fault(number: int, text: str) -> str | None:
        body = server.bodies[number]
        return "500" if ill["now"] and judges(body) and sum(body["messages"][-1]["content"].encode()) % 2 else None

    def reply(body: dict[str, Any]) -> str:
        return '{"answer": "No"}' if judges(body) else written(body)

    def checked(url: str) -> Stage:
        settings = {
            "teacher": f"openai:{url}#m", "n": 12, "sources": "generated", "teacher_options": OPTIONS,
            "quality": {"judge": True, "action": "drop"},
        }  # fmt: skip
        with open_job(str(tmp_path / "task.md"), tmp_path / "run", lambda event: None, settings) as job:
            job.task(str(tmp_path / "task.md"))
            stage = quality_stage(job, job.datagen(job.retrieval()))
            assert stage is not None
            return stage

    with teacher_server.running_server(fault, reply=reply) as server:
        short = checked(server.url)
        left = short.facts["unanswered"]
        assert short.facts["dropped"] == 12 - left > 0
        answered, asked = answers(server, fault), server.asked
        ill["now"] = False
        whole = checked(server.url)
        assert (whole.reused, whole.facts["dropped"]) == (False, 12)
        assert "unanswered" not in whole.facts
        assert server.asked - asked == left
        assert answered.isdisjoint(map(json.dumps, server.bodies[asked:])), "an answered request was asked for again"
        assert checked(server.url).reused


@pytest.mark.parametrize("stopped_by", ["server", "budget"])
def test_rows_stay_where_the_rest_cannot_be_asked_for(
    stopped_by: str, teacher_server: Any, generated: Callable[..., tuple[Stage, list[str]]]
) -> None:
    down = {"from": 10**9}

    def fault(number: int, text: str) -> str | None:
        if number >= down["from"]:
            return "502"
        return "500" if writes(server, number) and server.bodies[number]["seed"] % 2 else None

    with teacher_server.running_server(fault, reply=written) as server:
        short, _ = generated(server.url)
        if stopped_by == "server":
            down["from"] = 0
        kept, notes = generated(server.url, budget="" if stopped_by == "server" else "10-tokens")
        assert (kept.reused, kept.output, kept.facts) == (True, short.output, short.facts)
        (note,) = notes
        assert ("gave no answer" if stopped_by == "server" else "budget of 10 tokens is met") in note


def test_more_room_for_thinking_brings_the_rows_that_thinking_cost(
    teacher_server: Any, generated: Callable[..., tuple[Stage, list[str]]]
) -> None:
    def fault(number: int, text: str) -> Any:
        body = server.bodies[number]
        if body["max_tokens"] > 3000 or not writes(server, number) or body["seed"] % 3 == 0:
            return None
        message = {"role": "assistant", "content": "", "reasoning_content": "hm"}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        return 200, {"id": "x", "choices": [choice], "usage": {"prompt_tokens": 20, "completion_tokens": 99}}

    with teacher_server.running_server(fault, reply=written) as server:
        short, _ = generated(server.url, thinking_tokens=512)
        assert 0 < short.facts["rows"] < 20
        assert "unanswered" not in short.facts, "with the same room it would go the same way"
        asked = server.asked
        same, _ = generated(server.url, thinking_tokens=512)
        assert (same.reused, server.asked) == (True, asked)
        answered = answers(server, fault)
        whole, _ = generated(server.url, thinking_tokens=8192)
        assert (whole.reused, whole.facts["rows"]) == (False, 20)
        bodies = [json.dumps({**body, "max_tokens": body["max_tokens"] - 8192 + 512}) for body in server.bodies[asked:]]
        assert bodies
        assert answered.isdisjoint(bodies), "an answered request was asked for again"
