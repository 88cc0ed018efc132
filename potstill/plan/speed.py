"""How long a teacher's requests take, where it is told by replies of an earlier call, or must be assumed.

What enters is a ledger, or the size of a stage's requests; what leaves is seconds. A ledger keeps when each reply came
and how long it was waited for: the time in which at least one was waited for, by the number of replies, is the time
that a request takes at that concurrency. It tells so after a call that was killed, too. Without any reply of an API's
teacher, its time is assumed from what hosted models commonly give, and said to be assumed:

    seconds = (0.8 + new tokens / 60) x requests / requests at a time, and no less than one reply takes

Limits a minute that the teacher's options name bound every time from below.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.plan.steps import Size, Step
from potstill.report.saving import covered
from potstill.sqlite_reader import reader_of

if TYPE_CHECKING:
    from potstill.asking.budget import Price
    from potstill.task import TaskSpec

FIRST_TOKEN_S = 0.8
TOKENS_PER_S = 60.0
LEAST_REPLIES = 32
_LEAST_TIMED = 8


@dataclass(frozen=True)
class Role:
    """Which of a run's teachers a plan speaks of.

    Attributes:
        who: In words.
        options: Where its options stand.
        probed: Whether a probe asks it something.
    """

    who: str
    options: str
    probed: bool = True


WRITES = Role("the teacher", "teacher_options")
ANSWERS = Role("the teacher that answers", "generation.output_teacher_options")
CHECKS = Role("the teacher that checks", "quality.teacher_options", probed=False)
_WORDS = ("people", "ask", "for", "a", "thing", "and", "tell", "us", "about", "another", "in", "some", "words", "here")


def seen_size(path: Path, purpose: str, teacher: str | None, *, least: int = LEAST_REPLIES) -> tuple[Size, int] | None:
    """What a request of a purpose took in earlier calls, and how many replies tell it; None where too few do.

    Args:
        path: The ledger.
        purpose: Purpose of the requests.
        teacher: Name of the teacher; None for any.
        least: Replies that are needed.
    """
    query = "SELECT prompt_tokens, completion_tokens, seconds, at FROM replies WHERE purpose = ?"
    values: tuple[str, ...] = (purpose,)
    if teacher is not None:
        query, values = f"{query} AND teacher = ?", (purpose, teacher)
    with closing(reader_of(path)) as connection:
        rows = connection.execute(query, values).fetchall()
    n = len(rows)
    if n < least:
        return None
    # Replies of a provider's batch were waited for by nobody.
    spans = [(at - seconds, at) for _, _, seconds, at in rows if seconds > 0]
    seconds = covered(spans) / len(spans) if len(spans) >= _LEAST_TIMED else None
    return Size(sum(row[0] for row in rows) / n, sum(row[1] for row in rows) / n, seconds, "earlier"), n


def assumed_time(step: Step, concurrency: int) -> Step:
    """A step with the time that a hosted teacher is assumed to take for it; one whose time is known stays as it is."""
    if step.seconds is not None or not step.requests:
        return step
    one = FIRST_TOKEN_S + step.completion_tokens / step.requests / TOKENS_PER_S
    seconds = max(one, one * step.requests / max(1, concurrency))
    return replace(step, seconds=round(seconds, 1), speed="assumed")


def within_limits(step: Step, options: object) -> Step:
    """A step that takes as long at least as the limits a minute of the teacher's options let its requests take."""
    requests, tokens = _limits(options)
    least = max(
        step.requests / requests if requests else 0.0,
        (step.prompt_tokens + step.completion_tokens) / tokens if tokens else 0.0,
    )
    if not step.requests or step.seconds is None or 60.0 * least <= step.seconds:
        return step
    return replace(step, seconds=round(60.0 * least, 1))


def limits_told(options: object, *, role: Role = WRITES) -> list[str]:
    """What a plan says of limits a minute; nothing where there are none. `role` is the teacher's."""
    requests, tokens = _limits(options)
    said = [f"{requests:g} requests"] * bool(requests) + [f"{tokens:,} tokens"] * bool(tokens)
    names = ["requests_per_minute"] * bool(requests) + ["tokens_per_minute"] * bool(tokens)
    named = " and ".join(f"{role.options}.{name}" for name in names)
    return [f"no faster than {' and '.join(said)} a minute ({named})"] if said else []


def _limits(options: object) -> tuple[float, int]:
    return float(getattr(options, "requests_per_minute", 0.0)), int(getattr(options, "tokens_per_minute", 0))


def assumption(steps: Iterable[Step], concurrency: int, *, role: Role = WRITES) -> list[str]:
    """What a plan says of times that are assumed; nothing where none is.

    Args:
        steps: Those that this teacher is asked in.
        concurrency: Requests that it takes at a time.
        role: The teacher's.
    """
    if not any(step.speed == "assumed" for step in steps):
        return []
    whose = "the teacher's time" if role is WRITES else f"the time of {role.who}"
    return [
        f"{whose} is assumed: {FIRST_TOKEN_S:g} s to the first token and {TOKENS_PER_S:g} tokens/s a reply, "
        f"{concurrency} at a time{'; --probe 32 measures it' if role.probed else ''}"
    ]


def workers_note(count: int) -> str:
    """What a plan says of a run whose requests are leased to so many workers."""
    share = f"; {count} workers as fast as it take about 1/{count} of the teacher's time" if count > 1 else ""
    return f"the teacher is asked and timed in this process alone, and no worker is waited for{share}"


def uncounted_thinking(steps: Iterable[Step], tokens: int, price: Price | None, *, role: Role = WRITES) -> list[str]:
    """What a plan says of a teacher that thinks before it answers; nothing where its replies tell how much it does.

    How much a model thinks is known from its replies alone, which count it; until there are some, the bound is told.

    Args:
        steps: Those that this teacher is asked in.
        tokens: The most that it may think before an answer.
        price: Its price, where it is known.
        role: The teacher's.
    """
    requests = sum(step.requests for step in steps if step.basis == "assumed")
    if not requests or not tokens:
        return []
    most = requests * tokens
    usd = "" if price is None else f" and {price.cost(0, most):.2f} USD"
    return [
        f"{role.who} thinks before it answers, which is not counted here: up to {tokens:,} tokens a request "
        f"({role.options}.thinking_tokens), at the very most {most:,} tokens{usd} more"
        f"{'; --probe 32 measures it' if role.probed else ''}"
    ]


def stand_in_texts(spec: TaskSpec, tokens: float) -> list[str]:
    """Texts to time a training on, where none is there yet: the task's own examples, or words of the assumed length."""
    own = [example.input for example in spec.examples if example.input]
    words = max(4, round(tokens / 1.2))
    return own or [" ".join(_WORDS[(i + j) % len(_WORDS)] for j in range(words)) for i in range(16)]
