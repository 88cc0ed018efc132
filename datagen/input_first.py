"""The plan of generation data: an input is written, then the task is done on it by a second request.

So are instructions where the teacher writes them in a user's turn (`magpie`).

Two requests and not one: the output is asked for in the very form in which the student will see the task, greedily
by default, so that its tokens and their log-probs can be learnt as they are; and inputs can be written hot without
the outputs suffering. Accepted inputs are answered (`answering`) before more inputs are asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from potstill.asking.teacher import Failure, Reply, Request
from potstill.datagen.answering import Accepted, Answering, FormCheck
from potstill.datagen.evolve import Chain, Evolution
from potstill.datagen.field_by_field import Begun, field_request, next_field, read_field, whole_input
from potstill.datagen.heard import FirstReply, Heard, beginning
from potstill.datagen.magpie import QueryScreen, query_request, read_query
from potstill.datagen.screen import Screen
from potstill.datagen.tally import Tally
from potstill.datagen.writing import Material, Written, read_reply, write_request
from potstill.rows import Dropped, Row, Source

if TYPE_CHECKING:
    from potstill.asking.asker import Asker
    from potstill.asking.stream import Answer


# The part of the window that inputs may take where prompts show earlier ones; see `label_first`.
_SHARED = 4


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
        form: What became of the form that the task asks for; None where nothing but this plan is answered.
        answerer: The way to the teacher that writes the outputs, where it is another one.

    Attributes:
        evolution: What became of kept inputs that were taken up again.
    """

    def __init__(
        self,
        material: Material,
        screen: Screen | QueryScreen,
        teacher: str,
        tally: Tally,
        keep: Callable[[Row, Reply], None],
        drop: Callable[[Dropped], None],
        first_reply: FirstReply = lambda answer: answer.reply,
        form: FormCheck | None = None,
        answerer: Asker | None = None,
    ):
        self._material = material
        self._screen = screen
        self._teacher = teacher
        self._answers_by = teacher if answerer is None else answerer.teacher.name
        abilities = material.abilities if answerer is None else answerer.abilities
        self._tally = tally
        self._answering = Answering(
            material.spec, material.options, abilities, tally, keep, drop, form or FormCheck(material.spec),
            licence=material.options.licence,
        )  # fmt: skip
        self.evolution = Evolution(material.spec, material.options, material.abilities)
        # What a request in flight is for: an input's output, its next field, what it becomes, or (None) a new input.
        self._pending: deque[tuple[Request, Accepted | Begun | Chain | None]] = deque()
        self._to_answer: deque[Accepted] = deque()
        self._to_go_on: deque[Begun] = deque()
        self._first_reply = first_reply
        self._shows = material.avoid_shown > 0
        self._heard = Heard(max(1, material.options.ahead // _SHARED))
        self._read = self._asked = self._answered = self._ended = self._answers_out = self._answers_in = 0
        self._stop_at_blank = not any("\n\n" in text for texts in material.examples.values() for text in texts)

    @property
    def finished(self) -> bool:
        """Whether the rows are there, or the requests are spent and answered."""
        return self._answering.kept >= self._material.options.rows or (
            self._asked >= self._material.options.max_requests
            and not (self._pending or self._to_answer or self._to_go_on or self.evolution.waiting)
        )

    def next_request(self) -> Request | None:
        """The output of an accepted input, or else the next field of one, or a new one while too few are on the way."""
        options = self._material.options
        if self._to_answer:
            accepted = self._to_answer.popleft()
            self._answers_out += 1
            request = self._answering.request(accepted)
            self._pending.append((request, accepted))
            return request
        if self._to_go_on:
            begun = self._to_go_on.popleft()
            request = field_request(self._material, begun)
            self._pending.append((request, begun))
            return request
        evolution = self.evolution
        # Two in three are taken to be kept at first; all, where they are to be evolved, which would come too late.
        doubt = 2 if evolution.on else 3
        keep_rate = (self._answering.kept + 2) / (self._answers_in + doubt)
        answers = self._answers_out - self._answers_in
        if evolution.waiting and self._is_short_of(keep_rate * (answers + evolution.in_flight)):
            made = evolution.next_request()
            self._pending.append(made)
            return made[0]
        if self._asked >= options.max_requests:
            return None
        if self._shows and self._asked - self._answered >= self._heard.lag(self._asked):
            return None  # what the next input may show is not known yet
        read_rate = (self._read + 2 * options.texts_per_request) / (self._ended + doubt)
        first = answers + read_rate * (self._asked - self._ended)
        if not self._is_short_of(keep_rate * (first * (1 + evolution.a_text) + evolution.expected)):
            return None
        if options.method == "magpie":
            request = query_request(self._material, self._asked)
        else:
            heard = self._heard.before(self._asked)
            request = write_request(self._material, self._asked, "", heard, self._stop_at_blank)
        self._asked += 1
        self._pending.append((request, None))
        return request

    def _is_short_of(self, on_the_way: float) -> bool:
        """Whether rows are lacking beside so many that are on the way; where nothing is in flight, there are none."""
        return self._material.options.rows - self._answering.kept > on_the_way or not self._pending

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
        elif isinstance(meant, Accepted):
            self._answers_in += 1
        reply = answer.reply
        before = meant.source.requests if isinstance(meant, Accepted) else meant.keys if meant else ()
        teacher = self._answers_by if isinstance(meant, Accepted) else self._teacher
        source = Source(teacher=teacher, requests=(*before, answer.key))
        if isinstance(reply, Failure):
            tally.fail(reply)
            self._ended += not isinstance(meant, Accepted | Chain)
            text = "" if meant is None or isinstance(meant, Begun) else meant.text
            self._answering.refuse(Dropped("no_reply", reply.reason, text), source)
            if isinstance(meant, Chain):
                self.evolution.end(meant)
            came_of = meant.came_of if isinstance(meant, Accepted) else meant
            if isinstance(came_of, Chain):
                self.evolution.eliminate(came_of, "no_reply")
            return
        tally.cached += answer.cached
        tally.prompt_tokens += reply.prompt_tokens
        tally.completion_tokens += reply.completion_tokens
        if isinstance(meant, Accepted):
            self._accept_answer(meant, reply, source)
        elif isinstance(meant, Chain):
            written = self.evolution.read(meant, request, reply)
            tally.texts += 1
            self._accept_input(written, "", source, meant)
        elif self._material.in_parts:
            self._accept_field(meant or Begun(number, {}, ()), request, reply, source)
        else:
            self._ended += 1
            theirs = request.turn == "user"
            texts = (
                [read_query(self._material, request, reply)] if theirs else read_reply(self._material, request, reply)
            )
            for written in texts:
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

    def _accept_answer(self, accepted: Accepted, reply: Reply, source: Source) -> None:
        """Keep a row or drop it, or ask again; a kept input is taken up for the next round."""
        kept = self._answering.kept
        again = self._answering.accept(accepted, reply, source)
        if again is not None:
            self._to_answer.append(again)
        elif self._answering.kept > kept:
            self.evolution.add(accepted.text, source.requests, accepted.came_of)
        elif accepted.came_of:
            self.evolution.eliminate(accepted.came_of, "answer")

    def _accept_input(self, written: Written, prompt: str, source: Source, came_of: Chain | None = None) -> None:
        """Have an input answered, unless it or its reading is at fault."""
        fault = (
            Dropped(written.fault, written.detail, written.text)
            if written.fault
            else self._screen.refuse(written.text, prompt)
        )
        if fault is not None:
            self._answering.refuse(fault, source)
            if came_of:
                self.evolution.eliminate(came_of, fault.reason)
            return
        if came_of:
            self.evolution.passed()
        else:
            self._read += 1
        self._to_answer.append(Accepted(written.text, source, came_of=came_of))
