"""The plan of generation data: an input is written, then the task is done on it by a second request.

Two requests and not one: the output is asked for in the very form in which the student will see the task, greedily
by default, so that its tokens and their log-probs can be learnt as they are; and inputs can be written hot without
the outputs suffering. Accepted inputs are answered before more inputs are asked for.

Where the task says what its outputs have to look like (`asked_form`), an output that does not is asked for once more,
sampled, and then refused: unless this teacher hardly ever keeps the form, since rows without it are better than none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from potstill.asking.chat import task_messages
from potstill.asking.teacher import Failure, Message, Reply, Request
from potstill.datagen.field_by_field import Begun, field_request, next_field, read_field, whole_input
from potstill.datagen.heard import FirstReply, Heard, beginning
from potstill.datagen.outputs import form_of, off_form, read_output, stated_output
from potstill.datagen.screen import Screen
from potstill.datagen.tally import Tally
from potstill.datagen.writing import Material, Written, read_reply, rng, write_request
from potstill.rows import Dropped, Row, Source
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from potstill.asking.stream import Answer


# An output is asked for so often at most. The second time the temperature is at least this.
_TRIES, _AGAIN_TEMPERATURE = 2, 0.7
# Of this many outputs at least one in so many has to be in the form that the task asks for.
_JUDGED, _ONE_IN = 10, 5

# The part of the window that inputs may take where prompts show earlier ones; see `label_first`.
_SHARED = 4


@dataclass(frozen=True)
class _Accepted:
    """An input that passed.

    Attributes:
        text: What it says.
        keys: Of the requests that wrote it, and answered it in vain.
        tries: How often it was answered in vain.
    """

    text: str
    keys: tuple[str, ...]
    tries: int


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

    def fault(self, input: str, output: str) -> Dropped | None:
        """Why an output is refused for its form; None where it is in it, or that is not asked for."""
        return None if self.given_up else off_form(self._spec, input, output)

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


class InputFirst:
    """See the module's text. Implements `drive.Plan`.

    Args:
        material: What prompts are made from.
        screen: The filters.
        teacher: Name of the teacher, for provenance.
        tally: Counts.
        keep: Called with each kept row and the reply that wrote its output.
        drop: Called with each dropped one.
        first_reply: What counts as the reply of an answer for what later prompts show (see `heard`).

    Attributes:
        form: What became of the form that the task asks for.
    """

    def __init__(
        self,
        material: Material,
        screen: Screen,
        teacher: str,
        tally: Tally,
        keep: Callable[[Row, Reply], None],
        drop: Callable[[Dropped], None],
        first_reply: FirstReply = lambda answer: answer.reply,
    ):
        self._material = material
        self._screen = screen
        self._teacher = teacher
        self._tally = tally
        self._keep, self._drop = keep, drop
        # What a request in flight is for: an input's output, its next field, or (None) a new input.
        self._pending: deque[tuple[Request, _Accepted | Begun | None]] = deque()
        self._to_answer: deque[_Accepted] = deque()
        self._to_go_on: deque[Begun] = deque()
        self._first_reply = first_reply
        self.form = FormCheck(material.spec)
        self._shows = material.avoid_shown > 0
        self._heard = Heard(max(1, material.options.ahead // _SHARED))
        self._read = self._kept = self._asked = self._answered = self._ended = self._answers_out = self._answers_in = 0
        self._stop_at_blank = not any("\n\n" in text for texts in material.examples.values() for text in texts)

    @property
    def finished(self) -> bool:
        """Whether the rows are there, or the requests are spent and answered."""
        return self._kept >= self._material.options.rows or (
            self._asked >= self._material.options.max_requests
            and not (self._pending or self._to_answer or self._to_go_on)
        )

    def next_request(self) -> Request | None:
        """The output of an accepted input, or else the next field of one, or a new one while too few are on the way."""
        options = self._material.options
        if self._to_answer:
            accepted = self._to_answer.popleft()
            self._answers_out += 1
            request = self._answer_request(accepted)
            self._pending.append((request, accepted))
            return request
        if self._to_go_on:
            begun = self._to_go_on.popleft()
            request = field_request(self._material, begun)
            self._pending.append((request, begun))
            return request
        if self._asked >= options.max_requests:
            return None
        if self._shows and self._asked - self._answered >= self._heard.lag(self._asked):
            return None  # what the next input may show is not known yet
        read_rate = (self._read + 2 * options.texts_per_request) / (self._ended + 3)
        keep_rate = (self._kept + 2) / (self._answers_in + 3)
        on_the_way = keep_rate * (self._answers_out - self._answers_in + read_rate * (self._asked - self._ended))
        if options.rows - self._kept - on_the_way <= 0 and self._pending:
            return None
        heard = self._heard.before(self._asked)
        request = write_request(self._material, self._asked, "", heard, self._stop_at_blank)
        self._asked += 1
        self._pending.append((request, None))
        return request

    def _answer_request(self, accepted: _Accepted) -> Request:
        options = self._material.options
        temperature = options.answer_temperature
        return Request(
            messages=answer_messages(self._material.spec, accepted.text),
            max_tokens=options.answer_max_tokens,
            temperature=max(temperature, _AGAIN_TEMPERATURE) if accepted.tries else temperature,
            sample=accepted.tries,
            # By the input and not by its number: under other filters it is still the same request.
            seed=rng(options.seed, 0, f"answer {accepted.text}").randrange(2**31),
            top_logprobs=min(options.answer_top_k, self._material.abilities.top_logprobs),
        )

    def accept(self, answer: Answer) -> None:
        """Take the answer to the oldest request that has none yet."""
        request, meant = self._pending.popleft()
        tally = self._tally
        tally.requests += 1
        number = self._answered
        if meant is None:
            if self._shows:
                self._heard.add(number, beginning(self._material, request, self._first_reply(answer)))
            self._answered += 1
        elif isinstance(meant, _Accepted):
            self._answers_in += 1
        reply = answer.reply
        source = Source(teacher=self._teacher, requests=(*(meant.keys if meant else ()), answer.key))
        if isinstance(reply, Failure):
            tally.fail(reply)
            self._ended += not isinstance(meant, _Accepted)
            self._refuse(Dropped("no_reply", reply.reason, meant.text if isinstance(meant, _Accepted) else ""), source)
            return
        tally.cached += answer.cached
        tally.prompt_tokens += reply.prompt_tokens
        tally.completion_tokens += reply.completion_tokens
        if isinstance(meant, _Accepted):
            self._accept_output(meant, reply, source)
        elif self._material.in_parts:
            self._accept_field(meant or Begun(number, {}, ()), request, reply, source)
        else:
            self._ended += 1
            for written in read_reply(self._material, request, reply):
                self._tally.texts += 1
                self._accept_input(written, request.messages[-1].content, source)

    def _accept_field(self, begun: Begun, request: Request, reply: Reply, source: Source) -> None:
        material = self._material
        written = read_field(material, begun, request, reply)
        values = {**begun.values, next_field(material, begun.values): written.text}
        if not written.fault and next_field(material, values):
            self._to_go_on.append(Begun(begun.number, values, source.requests))
            return
        self._ended += 1
        self._tally.texts += 1
        if not written.fault:
            written = Written(whole_input(material, values))
        self._accept_input(written, material.spec.instruction, source)

    def _accept_input(self, written: Written, prompt: str, source: Source) -> None:
        """Have an input answered, unless it or its reading is at fault."""
        fault = (
            Dropped(written.fault, written.detail, written.text)
            if written.fault
            else self._screen.refuse(written.text, prompt)
        )
        if fault is not None:
            self._refuse(fault, source)
            return
        self._read += 1
        self._to_answer.append(_Accepted(written.text, source.requests, 0))

    def _accept_output(self, accepted: _Accepted, reply: Reply, source: Source) -> None:
        spec = self._material.spec
        output, fault = read_output(spec, accepted.text, reply)
        if fault is None and form_of(spec):
            fault = self.form.fault(accepted.text, output)
            again = fault is not None and accepted.tries + 1 < _TRIES and self.form.again
            self.form.tried += again
            if again:
                self._to_answer.append(_Accepted(accepted.text, source.requests, accepted.tries + 1))
                return
            self.form.judged += 1
            self.form.fitting += off_form(spec, accepted.text, output) is None
            self.form.mended += fault is None and accepted.tries > 0
        if fault is not None:
            self._refuse(fault, source)
            return
        self._kept += 1
        self._tally.kept += 1
        self._tally.cut_to_form += output != stated_output(spec, reply.text)
        row = Row(
            input=accepted.text,
            output=output,
            origin="generated",
            source=source,
            licence=self._material.options.licence,
        )
        self._keep(row, reply)

    def _refuse(self, fault: Dropped, source: Source) -> None:
        self._tally.drop(fault.reason)
        self._drop(replace(fault, origin="generated", source=source, stage="datagen"))
