"""The task done by the teacher on one input: the request for an output, and the row that its reply makes.

Inputs that the teacher wrote (`input_first`) and inputs of the user's own (`own_inputs`) are answered alike, in the
very form in which the student will see the task. Where the task says what its outputs have to look like (`asked_form`),
an output that does not is asked for once more, sampled, and then refused: unless this teacher hardly ever keeps the
form, since rows without it are better than none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from potstill.asking.chat import task_messages
from potstill.asking.teacher import Abilities, Message, Reply, Request
from potstill.datagen.drive import ANSWER
from potstill.datagen.evolve import Chain, refuse_answer
from potstill.datagen.options import GenerationOptions
from potstill.datagen.outputs import form_of, off_form, read_output, stated_output
from potstill.datagen.tally import Tally
from potstill.datagen.writing import rng
from potstill.rows import UNKNOWN_LICENCE, Dropped, Origin, Row, Source
from potstill.task import TaskSpec

# An output is asked for so often at most. The second time the temperature is at least this.
_TRIES, _AGAIN_TEMPERATURE = 2, 0.7
# Of this many outputs at least one in so many has to be in the form that the task asks for.
_JUDGED, _ONE_IN = 10, 5


@dataclass(frozen=True)
class Accepted:
    """An input that is to be answered.

    Attributes:
        text: What it says.
        source: Where it is from: the requests that wrote it and answered it in vain, or a row of the user's data.
        tries: How often it was answered in vain.
        came_of: What it was evolved from; None where it was written at first.
    """

    text: str
    source: Source
    tries: int = 0
    came_of: Chain | None = None


class FormCheck:
    """Whether outputs are in the form that the task asks for, as long as the teacher manages that now and then.

    Args:
        spec: The task.

    Attributes:
        judged: Inputs whose output was judged.
        fitting: Those of them whose output was in the form.
        tried: Outputs that were asked for again.
        mended: Those of them that then were in the form.
    """

    def __init__(self, spec: TaskSpec):
        self._spec = spec
        self.judged = self.fitting = self.tried = self.mended = 0

    @property
    def given_up(self) -> bool:
        """Whether so few outputs are in the form that it is no longer asked for."""
        return self.judged >= _JUDGED and self.fitting * _ONE_IN < self.judged

    @property
    def again(self) -> bool:
        """Whether asking again is worth it, as far as it was tried."""
        return self.tried < _JUDGED or self.mended * _ONE_IN >= self.tried

    def to_json(self) -> dict[str, Any] | None:
        """JSON types, for the report; None where the task asks for no form."""
        form = form_of(self._spec)
        if not form:
            return None
        return {"asked": form.told(), "judged": self.judged, "fitting": self.fitting, "given_up": self.given_up}


def answer_messages(spec: TaskSpec, input: str) -> tuple[Message, ...]:
    """The task on one input, after the user's examples as earlier turns."""
    turns: list[Message] = []
    for example in spec.examples[:3]:
        turns += [*task_messages(spec, example.input), Message("assistant", example.output)]
    return (*turns, *task_messages(spec, input))


class Answering:
    """Makes the requests for outputs and reads their replies.

    Args:
        spec: The task.
        options: How to ask.
        abilities: Of the teacher that answers.
        tally: Counts.
        keep: Called with each kept row and the reply that wrote its output.
        drop: Called with each dropped one.
        form: What became of the form that the task asks for, over all that is answered in a run.
        origin: Of the rows.
        licence: Of the rows.

    Attributes:
        kept: Rows kept.
    """

    def __init__(
        self,
        spec: TaskSpec,
        options: GenerationOptions,
        abilities: Abilities,
        tally: Tally,
        keep: Callable[[Row, Reply], None],
        drop: Callable[[Dropped], None],
        form: FormCheck,
        origin: Origin = "generated",
        licence: str = UNKNOWN_LICENCE,
    ):
        self._spec, self._options, self._abilities = spec, options, abilities
        self._tally, self._keep, self._drop = tally, keep, drop
        self._form, self._origin, self._licence = form, origin, licence
        self.kept = 0

    def request(self, accepted: Accepted) -> Request:
        """The request for an input's output."""
        options = self._options
        temperature = options.answer_temperature
        return Request(
            messages=answer_messages(self._spec, accepted.text),
            max_tokens=options.answer_max_tokens,
            temperature=max(temperature, _AGAIN_TEMPERATURE) if accepted.tries else temperature,
            sample=accepted.tries,
            # By the input and not by its number: under other filters it is still the same request.
            seed=rng(options.seed, 0, f"answer {accepted.text}").randrange(2**31),
            top_logprobs=min(options.answer_top_k, self._abilities.top_logprobs),
            tag=ANSWER,
        )

    def accept(self, accepted: Accepted, reply: Reply, source: Source) -> Accepted | None:
        """Keep the row that a reply makes, or drop it.

        Args:
            accepted: The input.
            reply: The reply to its request.
            source: Of the row, this request among its requests.

        Returns:
            What is to be asked again; None where the row was kept or dropped.
        """
        # A row with an instruction of its own is held to what that asks for.
        spec, form = self._of_input(accepted.text), self._form
        output, fault = read_output(spec, accepted.text, reply)
        if fault is None and accepted.came_of:
            fault = refuse_answer(accepted.text, output)
        if fault is None and form_of(spec):
            off = off_form(spec, accepted.text, output)
            fault = None if form.given_up and spec is self._spec else off
            again = fault is not None and accepted.tries + 1 < _TRIES and form.again
            form.tried += again
            if again:
                return replace(accepted, source=source, tries=accepted.tries + 1)
            form.judged += 1
            form.fitting += off is None
            form.mended += fault is None and accepted.tries > 0
        if fault is not None:
            self.refuse(fault, source)
            return None
        self.kept += 1
        self._tally.kept += 1
        self._tally.cut_to_form += output != stated_output(spec, reply.text)
        self._keep(Row(accepted.text, output, self._origin, source, licence=self._licence), reply)
        return None

    def refuse(self, fault: Dropped, source: Source) -> None:
        """Drop an input or an output, and count it."""
        self._tally.drop(fault.reason)
        self._drop(replace(fault, origin=self._origin, source=source, stage="datagen"))

    def _of_input(self, text: str) -> TaskSpec:
        """The task as one input states it: its own instruction, where each brings one."""
        if self._spec.kind != "instructions":
            return self._spec
        return replace(self._spec, instruction=text.strip().partition("\n\n")[0], examples=())
