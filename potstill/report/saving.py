"""What the student saves: a million answers by the student, and by the teacher as it was seen to answer this task.

What enters: `RunFacts` and the ledger beside it. What leaves: plain values for the templates.

The ledger keeps when each reply came and how long it was waited for. Many are waited for at once, so their sum is no
time that passed. Two figures are given: the mean wait, as if one answer were asked for after the other, and the time
during which at least one reply was waited for, with as many at a time as the run asked for. Asked for alone a reply
would come sooner, so where replies were waited for together the first is the most that it can be.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from potstill.asking.budget import Price, is_own, price_of, stated_price
from potstill.report.facts import RunFacts
from potstill.sqlite_reader import reader_of

MILLION = 1_000_000
_WRITES = re.compile(r"zero")
_SCORES = re.compile(r"scor|soft|evaluat")


@dataclass(frozen=True)
class Seen:
    """The teacher's replies that answer the task, summed.

    Attributes:
        requests: How many.
        prompt_tokens: Of all.
        completion_tokens: Of all.
        timed: Replies whose time is known; those of a provider's batch have none.
        scored: Whether they are label scores; otherwise the teacher wrote the answers.
        waited: Seconds from request to reply, summed over the timed.
        busy: Seconds during which at least one of them was waited for.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    timed: int
    scored: bool
    waited: float
    busy: float


def saving(facts: RunFacts, student: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figures of the section; None where the student was not timed or the teacher was not seen to answer."""
    latency, seen = student.get("latency_ms") or {}, teacher_seen(facts)
    if "p50" not in latency or seen is None:
        return None
    settings = dict(facts.run.get("settings", {}))
    teacher, told = dict(facts.run.get("teacher", {})), settings.get("teacher_options")
    if facts.run.get("answers_by"):  # it is the one whose answers are learnt, and which was measured
        teacher = dict(facts.run["answers_by"])
        told = dict(settings.get("generation") or {}).get("output_teacher_options")
    # Scored as a text written for each label, an answer takes as many requests as there are labels.
    soft = settings.get("soft") or {}
    a_text = len(facts.spec.labels) if seen.scored and soft.get("direction") == "channel" else 1
    answers = seen.requests / a_text
    prompt, completion = seen.prompt_tokens / answers * MILLION, seen.completion_tokens / answers * MILLION
    price = list_price(teacher, told)
    hours = latency["p50"] / 1000 * MILLION / 3600
    in_turn = seen.waited / seen.timed * a_text * MILLION / 3600 if seen.timed else None
    busy = seen.busy / seen.timed * a_text * MILLION / 3600 if seen.timed else None
    return {
        "requests": seen.requests,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "own": is_own(teacher),
        "usd": None if price is None else price.cost(round(prompt), round(completion)),
        "student_hours": hours,
        "teacher_hours": in_turn,
        "teacher_busy_hours": busy,
        "at_a_time": seen.waited / seen.busy if seen.busy else 1.0,
        "saved": _saved(hours, in_turn),
        "saved_busy": _saved(hours, busy),
    }


def list_price(teacher: Mapping[str, str], options: Mapping[str, Any] | None = None) -> Price | None:
    """Price of a teacher behind an API; None for one on a machine of one's own and where no list names the model.

    Args:
        teacher: Its identity. Where no list knows the endpoint, the model's name alone is looked up.
        options: Its options; a price that the user states there goes before all.
    """
    if (stated := stated_price(options or {})) is not None:
        return stated
    if is_own(teacher) or not teacher.get("model"):
        return None
    return price_of(teacher) or price_of({**teacher, "endpoint": ""})


def teacher_seen(facts: RunFacts) -> Seen | None:
    """The replies of this run's teacher that are answers to the task: those that it wrote, or else label scores.

    Scores of a generation task are of tokens that are there already, which is no answering.
    """
    path = facts.path / "ledger.sqlite"
    if not path.exists():
        return None
    query = "SELECT purpose, teacher, prompt_tokens, completion_tokens, seconds, at FROM replies"
    try:
        with contextlib.closing(reader_of(path, timeout_s=5)) as connection:
            rows = connection.execute(query).fetchall()
    except sqlite3.Error:
        return None
    name = facts.run.get("answers_by_name", facts.run.get("teacher_name"))
    own = [row for row in rows if name in (None, row[1])]
    found = [row for row in own if _WRITES.search(str(row[0]))]
    scored = not found and facts.spec.kind == "classification"
    if scored:
        found = [row for row in own if _SCORES.search(str(row[0]))]
    if not found:
        return None
    times = [(at - seconds, at) for *_, seconds, at in found if seconds > 0]
    return Seen(
        len(found), sum(row[2] for row in found), sum(row[3] for row in found), len(times), scored,
        sum(end - start for start, end in times), covered(times),
    )  # fmt: skip


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of spans."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _saved(student: float, teacher: float | None) -> str:
    """How much less time the student takes, in words."""
    if teacher is None:
        return "not known"
    if teacher <= student:
        return f"none: the teacher takes {student - teacher:,.1f} fewer"
    return f"{teacher - student:,.1f} ({teacher / student:,.1f} times)"
