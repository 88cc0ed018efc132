"""The user's own inputs, which have no outputs yet: the teacher answers them, and the student learns from that.

They go before what is written from nothing, in one stream of requests with it (`InTurn`), and count towards the rows
asked for: of 800 rows with 500 own inputs, 300 are written. They are answered as written inputs are (`answering`). An
input whose output is refused is dropped with its reason; nothing takes its place.

In: texts with their places in the user's data. Out: rows of origin `pseudo`, real inputs with a teacher's outputs.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from potstill.asking.teacher import Failure, Reply
from potstill.datagen.answering import Accepted, Answering, FormCheck
from potstill.datagen.drive import Plan
from potstill.rows import Dropped, Row, Source

if TYPE_CHECKING:
    from potstill.asking.asker import Asker
    from potstill.asking.stream import Answer
    from potstill.asking.teacher import AnyRequest
    from potstill.datagen.options import GenerationOptions
    from potstill.datagen.tally import Tally
    from potstill.task import TaskSpec


@dataclass(frozen=True)
class OwnInput:
    """One input, and where it stands in the user's data."""

    text: str
    source: Source


@dataclass(frozen=True)
class Own:
    """The inputs that are to be answered.

    Attributes:
        name: Of the user's data; "" where there is none to answer.
        inputs: The inputs, in the order of the data.
        dropped: Those that cannot be learnt from, with the reasons.
        found: Inputs in the data.
    """

    name: str = ""
    inputs: tuple[OwnInput, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    found: int = 0

    @property
    def left(self) -> int:
        """Inputs that are not asked for, since the rows wanted are fewer."""
        return self.found - len(self.inputs) - len(self.dropped)

    def written_beside(self, options: GenerationOptions) -> int:
        """How many of the rows wanted are still written from nothing."""
        return max(0, options.rows - len(self.inputs))

    def told(self, options: GenerationOptions) -> str:
        """What becomes of them, in words; "" where there are none."""
        if not self.name:
            return ""
        said = f"the teacher answers {len(self.inputs):,} of {self.found:,} inputs in {self.name}"
        if reasons := Counter(item.reason for item in self.dropped):
            said += f" (left out: {', '.join(f'{count:,} {reason}' for reason, count in sorted(reasons.items()))})"
        written = self.written_beside(options)
        if not written:
            return f"{said} and writes no others" + ("; ask for more rows with -n" if self.left else "")
        return f"{said} and writes {written:,} more; -n {len(self.inputs)} writes none"


class OwnAnswers:
    """The plan: each input is answered once, and once more where its output is not in the form that is asked for.

    Implements `drive.Plan`.

    Args:
        own: The inputs.
        spec: The task.
        options: How to ask.
        asker: The way to the teacher that answers, for its name and abilities.
        tally: Counts, over all plans of a run.
        keep: Called with each kept row and the reply that wrote its output.
        drop: Called with each dropped one, those of `own.dropped` first.
        form: What became of the form that the task asks for.
    """

    def __init__(
        self,
        own: Own,
        spec: TaskSpec,
        options: GenerationOptions,
        asker: Asker,
        tally: Tally,
        keep: Callable[[Row, Reply], None],
        drop: Callable[[Dropped], None],
        form: FormCheck,
    ):
        self._own, self._teacher, self._tally, self._drop = own, asker.teacher.name, tally, drop
        self._answering = Answering(spec, options, asker.abilities, tally, keep, self._refused, form, "pseudo")
        self._to_answer = deque(Accepted(item.text, item.source) for item in own.inputs)
        self._pending: deque[Accepted] = deque()
        self._requests = 0
        self._dropped = Counter[str]()
        for item in own.dropped:
            self._answering.refuse(item, item.source)
        tally.texts += len(own.dropped)

    @property
    def finished(self) -> bool:
        """Whether every input is answered."""
        return not (self._to_answer or self._pending)

    def next_request(self) -> AnyRequest | None:
        """The output of the next input; None where none is left to ask for."""
        if not self._to_answer:
            return None
        accepted = self._to_answer.popleft()
        self._pending.append(accepted)
        return self._answering.request(accepted)

    def accept(self, answer: Answer) -> None:
        """Take the answer to the oldest request that has none yet."""
        accepted = self._pending.popleft()
        tally, reply = self._tally, answer.reply
        tally.requests += 1
        self._requests += 1
        tally.texts += not accepted.tries
        requests = (*accepted.source.requests, answer.key)
        source = replace(accepted.source, teacher=self._teacher, requests=requests)
        if isinstance(reply, Failure):
            tally.fail(reply)
            self._answering.refuse(Dropped("no_reply", reply.reason, accepted.text), source)
            return
        tally.cached += answer.cached
        tally.prompt_tokens += reply.prompt_tokens
        tally.completion_tokens += reply.completion_tokens
        again = self._answering.accept(accepted, reply, source)
        if again is not None:
            self._to_answer.appendleft(again)

    def _refused(self, dropped: Dropped) -> None:
        self._dropped[dropped.reason] += 1
        self._drop(dropped)

    def to_json(self) -> dict[str, Any]:
        """JSON types, for the report."""
        return {
            "data": self._own.name,
            "found": self._own.found,
            "asked": len(self._own.inputs),
            "left": self._own.left,
            "requests": self._requests,
            "kept": self._answering.kept,
            "dropped": dict(sorted(self._dropped.items())),
        }


@dataclass
class InTurn:
    """Two plans as one: requests of the first as long as it has some, those of the second beside its open ones.

    Both get the answers to their own requests in the order in which these were made, as if each had a stream of its
    own, so what either keeps does not depend on the other. Implements `drive.Plan`.
    """

    first: Plan
    second: Plan
    _asked: deque[Plan] = field(default_factory=deque)

    @property
    def finished(self) -> bool:
        """Whether neither wants more."""
        return self.first.finished and self.second.finished

    def next_request(self) -> AnyRequest | None:
        """A request of the first plan, or else of the second."""
        for plan in (self.first, self.second):
            request = None if plan.finished else plan.next_request()
            if request is not None:
                self._asked.append(plan)
                return request
        return None

    def accept(self, answer: Answer) -> None:
        """Hand the answer to the plan that asked."""
        plan = self._asked.popleft()
        if not plan.finished:  # what was in flight when a plan ended is stored by then, and not needed
            plan.accept(answer)
