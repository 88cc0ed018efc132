"""How full a whole generation keeps its teacher, in simulated time. Used by `generation_throughput.py --only path`.

The teacher answers as the fake one does, and each request takes a simulated time that its own seed decides: log-normal,
mean 1. `sigma` 0.5 is an engine whose replies differ in length, 1.0 a hosted model with slow ones among them. A share
of the replies is dropped (`kept`), and of the first label more (`kept_first`), so that refills and a late label are
there.
The clock stands still while potstill works: what is measured is the plan, not the machine; the ledger is in memory.

`utilisation` is the mean number of requests in flight by what the teacher takes, over the whole run: from the first
request to the last reply, the unavoidable draining of the last ones included. `drain` is what would be reached by a
source that always has a request: the same number of requests, the same times, sent whenever there is room.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from random import Random
from types import SimpleNamespace
from typing import Any

from potstill.asking.asker import Asker
from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Request, Take
from potstill.datagen.generate import GenerationOptions, generate_rows
from potstill.datagen.teachers.fake import FakeOptions, FakeTeacher
from potstill.task import Label, TaskSpec
from potstill.task.file import read_task_file

# (labels, 0 for input-first; rows; in flight; sigma; opened: whether replies are opened, so that none is shown)
CASES = [
    *(
        (labels, rows, n, 0.5, True)
        for labels, rows in ((2, 2000), (6, 2000), (77, 3000), (0, 2000))
        for n in (64, 256)
    ),
    *((labels, rows, 64, 1.0, False) for labels, rows in ((2, 2000), (6, 2000), (77, 3000), (0, 2000))),
]
_WORD = re.compile(r"\w+|[^\w\s]")


class TimedTeacher(FakeTeacher):
    """The fake teacher with a simulated clock.

    Args:
        concurrency: Requests in flight at a time.
        sigma: Of the log-normal times.
        kept: Share of the replies that hold a text.
        kept_first: The same for prompts that hold `first`.
        first: What the first label is called; "" for none.
        opened: Whether replies are opened for it, as for an engine; prompts of one without show earlier texts.
    """

    def __init__(self, concurrency: int, sigma: float, kept: float, kept_first: float, first: str, opened: bool):
        super().__init__(FakeOptions(concurrency=concurrency))
        self._sigma, self._kept, self._kept_first, self._first = sigma, kept, kept_first, first
        self._opened = opened
        self.now = self.busy = 0.0
        self.times: list[float] = []

    @property
    def abilities(self) -> Abilities:
        """Those of an engine, or of a hosted model."""
        return super().abilities if self._opened else Abilities()

    def seconds(self, request: AnyRequest) -> float:
        """How long a request takes, mean 1."""
        random = Random(f"{getattr(request, 'seed', 0)} {len(request.messages[-1].content)}")
        return random.lognormvariate(-(self._sigma**2) / 2, self._sigma)

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        """Answer in the order of the simulated times."""
        flying: list[tuple[float, int, AnyRequest]] = []
        while True:
            for request in take(self.concurrency - len(flying)) if len(flying) < self.concurrency else ():
                self.times.append(self.seconds(request))
                heapq.heappush(flying, (self.now + self.times[-1], len(self.times), request))
            if not flying:
                return
            in_flight = len(flying)
            done, _, request = heapq.heappop(flying)
            self.busy += in_flight * (done - self.now)
            self.now = done
            yield request, self._reply(request)

    def _reply(self, request: AnyRequest) -> Reply | Failure:
        kept = self._kept_first if self._first and self._first in request.messages[-1].content else self._kept
        if isinstance(request, Request) and request.temperature > 0 and Random(request.seed + 1).random() >= kept:
            return Reply(text="", finish="stop", prompt_tokens=1, completion_tokens=1)
        return self.answer(request)


class MemoryLedger:
    """Knows nothing and stores at once: the simulated clock cannot wait for a disk."""

    def find(self, key: str, max_tokens: int) -> None:
        """Nothing is known."""

    def first(self, key: str) -> None:
        """Nothing is known."""

    def record(self, key: str, **reply: Any) -> Future[None]:
        """Stored."""
        done: Future[None] = Future()
        done.set_result(None)
        return done

    record_failure = record

    def spent(self) -> SimpleNamespace:
        """Nothing."""
        return SimpleNamespace(usd=0.0, tokens=0, seconds=0.0)


def full_share(times: list[float], concurrency: int) -> float:
    """Utilisation where a request is there whenever the teacher has room."""
    ends = [0.0] * concurrency
    for seconds in times:
        heapq.heapreplace(ends, ends[0] + seconds)
    return sum(times) / (concurrency * max(ends))


def simulate(
    labels: int,
    rows: int,
    concurrency: int,
    sigma: float,
    opened: bool,
    *,
    kept: float = 0.6,
    kept_first: float = 0.2,
    **options: Any,
) -> dict[str, Any]:
    """One generation; a flat record."""
    names = [f"topic {chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(labels)]
    spec = (
        TaskSpec("t", "Classify a message by topic.", "classification", tuple(Label(name) for name in names))
        if labels
        else TaskSpec("t", "Summarise a paragraph in one sentence.", "generation", metric="rouge_l")
    )
    first = f'"{names[0]}"' if labels else ""
    teacher = TimedTeacher(concurrency, sigma, kept, kept_first, first, opened)
    given = GenerationOptions(rows=rows, novelty=1.0, novelty_pool=1, attributes="none", **options)
    asker = Asker(teacher, MemoryLedger())  # type: ignore[arg-type]
    result = generate_rows(spec, asker, given)
    return {
        "backend": f"path, {'engine' if opened else 'hosted'}, {labels or 'no'} labels, {concurrency} in flight, "
        f"sigma {sigma:g}",
        "rows": result.kept,
        "requests": len(teacher.times),
        "utilisation": round(teacher.busy / (teacher.now * concurrency), 4),
        "of_a_full_source": round(
            teacher.busy / (teacher.now * concurrency) / full_share(teacher.times, concurrency), 4
        ),
        "window": result.report.get("window"),
    }


def path_records() -> list[dict[str, Any]]:
    """All cases; `utilisation_window_128` is the same run with the window that was fixed once."""
    records = []
    for case in CASES:
        record = simulate(*case)
        before = simulate(*case, window=128)
        records.append({**record, "utilisation_window_128": before["utilisation"]})
        print(records[-1], flush=True)
    return records


def prefix_records(tasks: Sequence[str], rows: int = 300) -> list[dict[str, Any]]:
    """The share of a run's prompt words (and signs) with which an earlier prompt of it begins too, by task."""
    records = []
    for task in tasks:
        spec = read_task_file(task, draft=True).spec
        for opened in (True, False):
            teacher = _Listening(64, 0.0, 1.0, 1.0, "", opened)
            generate_rows(spec, Asker(teacher, MemoryLedger()), GenerationOptions(rows=rows))  # type: ignore[arg-type]
            records.append(
                {
                    "backend": f"prompts, {spec.name}, {'engine' if opened else 'hosted'}",
                    "task": spec.name,
                    "requests": len(teacher.prompts),
                    "prompt_words": round(sum(map(len, teacher.prompts)) / len(teacher.prompts), 1),
                    "shared_prefix_share": round(shared_prefix_share(teacher.prompts), 4),
                }
            )
            print(records[-1], flush=True)
    return records


class _Listening(TimedTeacher):
    """Keeps the prompts, in words and signs."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.prompts: list[list[str]] = []

    def answer(self, request: AnyRequest) -> Reply | Failure:
        """As the fake teacher."""
        whole = "\n".join(message.content for message in request.messages)
        self.prompts.append([*_WORD.findall(whole), *_WORD.findall(request.prefill)])
        return super().answer(request)


def shared_prefix_share(prompts: Sequence[Sequence[str]]) -> float:
    """Share of all tokens that are part of a prefix which an earlier prompt has too."""
    seen: set[int] = set()
    shared = 0
    for prompt in prompts:
        mark, still = 0, True
        for token in prompt:
            mark = hash((mark, token))
            still = still and mark in seen
            shared += still
            seen.add(mark)
    return shared / max(1, sum(map(len, prompts)))
