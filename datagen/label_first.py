"""The plan of classification data: a label is drawn by quota, then an input is written for it.

Writing the text for a given label, and not a label for a given text, keeps the labels balanced and spares a weak
teacher the judgement that it is bad at (Self-Instruct's output-first, arXiv:2212.10560 §2.2). Each label has a quota
and a bound on requests; the next request goes to the label that lacks most after what is in flight is counted in at
the label's own rate of kept texts, so labels with many drops are asked for more.

The n-th request of a label is a function of seed, label and n, and of what replies to its earlier requests held: not of
what filters kept, nor of the other labels. Other filters or another number of rows ask the same requests, more of them
or fewer, and those that the ledger knows cost nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from potstill.asking.teacher import Failure, Request
from potstill.datagen.filters import names_itself, wrong_language
from potstill.datagen.heard import FirstReply, Heard, beginning
from potstill.datagen.screen import Screen
from potstill.datagen.tally import Tally
from potstill.datagen.writing import Material, read_reply, write_request
from potstill.language.label_words import label_words
from potstill.language.names import label_languages
from potstill.rows import Dropped, Row, Source

if TYPE_CHECKING:
    from potstill.asking.stream import Answer

# A label's rate of kept texts is known this badly before its first answers: as if 2 of 3 had been kept.
_PRIOR_KEPT, _PRIOR_ASKED = 2.0, 3.0
# Where prompts show earlier texts: requests of one label that may be in flight at least, however many labels there are,
# and the part of the window that all labels share at first. A larger part would show the first texts later.
_LEAST_LAG, _SHARED = 16, 4


@dataclass
class _LabelState:
    quota: int
    bound: int
    heard: Heard
    asked: int = 0
    answered: int = 0
    naming_itself: int = 0
    kept: int = 0

    def lacking(self, texts_per_request: int) -> float:
        """Rows still missing after what is in flight brings its likely share."""
        rate = (self.kept + _PRIOR_KEPT * texts_per_request) / (self.answered + _PRIOR_ASKED)
        in_flight = self.asked - self.answered
        return self.quota - self.kept - min(rate, texts_per_request) * in_flight

    @property
    def open(self) -> bool:
        return self.kept < self.quota and self.asked < self.bound


class LabelFirst:
    """See the module's text. Implements `drive.Plan`.

    Args:
        material: What prompts are made from.
        screen: The filters.
        teacher: Name of the teacher, for provenance.
        licence: Stated for each row.
        keep: Called with each kept row.
        drop: Called with each dropped one.
        first_reply: What counts as the reply of an answer for what later prompts show (see `heard`).
    """

    def __init__(
        self,
        material: Material,
        screen: Screen,
        teacher: str,
        tally: Tally,
        keep: Callable[[Row], None],
        drop: Callable[[Dropped], None],
        first_reply: FirstReply = lambda answer: answer.reply,
    ):
        self._material = material
        self._screen = screen
        self._words = label_words(material.spec)
        self._spoken = label_languages(material.spec.instruction, material.spec.label_names)
        self._teacher = teacher
        self._tally = tally
        self._keep, self._drop = keep, drop
        self._first_reply = first_reply
        self._shows = material.avoid_shown > 0
        self._pending: deque[tuple[Request, str]] = deque()
        options = material.options
        names = material.spec.label_names
        self.labels: dict[str, _LabelState] = {}
        lag = max(_LEAST_LAG, options.ahead // _SHARED // max(1, len(names)))
        for place, name in enumerate(names):
            quota = options.rows // len(names) + (place < options.rows % len(names))
            bound = max(8, round(quota * options.requests_per_row / options.texts_per_request)) if quota else 0
            self.labels[name] = _LabelState(quota, bound, Heard(lag))
        self._stop_at_blank = not any("\n\n" in text for texts in material.examples.values() for text in texts)

    @property
    def finished(self) -> bool:
        """Whether every quota is met or its requests are spent and answered."""
        return all(not s.open and (s.kept >= s.quota or s.asked == s.answered) for s in self.labels.values())

    def next_request(self) -> Request | None:
        """A request for the label that lacks most of its quota."""
        count = self._material.options.texts_per_request
        best, most = "", 1e-9
        for name, state in self.labels.items():
            if state.open and self._may_ask(state):
                lacking = state.lacking(count) / state.quota
                if lacking > most:
                    best, most = name, lacking
        if not best:
            # Everything in flight may still fail; one request at a time keeps an unlucky end from stalling.
            waiting = [name for name, s in self.labels.items() if s.open and s.asked == s.answered]
            if not waiting:
                return None
            best = waiting[0]
        state = self.labels[best]
        heard = state.heard.before(state.asked)
        request = write_request(self._material, state.asked, best, heard, self._stop_at_blank)
        state.asked += 1
        self._pending.append((request, best))
        return request

    def _may_ask(self, state: _LabelState) -> bool:
        """Whether all is known that the next request of a label may show."""
        return not self._shows or state.asked - state.answered < state.heard.lag(state.asked)

    def accept(self, answer: Answer) -> None:
        """Take the texts of the oldest request that has no answer yet."""
        request, label = self._pending.popleft()
        state, tally = self.labels[label], self._tally
        if self._shows:
            state.heard.add(state.answered, beginning(self._material, request, self._first_reply(answer)))
        state.answered += 1
        tally.requests += 1
        source = Source(teacher=self._teacher, requests=(answer.key,))
        reply = answer.reply
        if isinstance(reply, Failure):
            tally.fail(reply)
            tally.drop("no_reply", label)
            self._drop(Dropped("no_reply", reply.reason, "", label, "generated", source, "datagen"))
            return
        tally.cached += answer.cached
        tally.prompt_tokens += reply.prompt_tokens
        tally.completion_tokens += reply.completion_tokens
        prompt = request.messages[-1].content
        for written in read_reply(self._material, request, reply):
            tally.texts += 1
            if state.kept >= state.quota:
                fault: Dropped | None = Dropped("quota_met", "", written.text, stage="datagen")
            elif written.fault:
                fault = Dropped(written.fault, written.detail, written.text, stage="datagen")
            else:
                fault = (
                    self._names_itself(written.text, label)
                    or self._in_another(written.text, label)
                    or self._screen.refuse(written.text, prompt)
                )
            if fault is not None:
                tally.drop(fault.reason, label)
                self._drop(replace(fault, output=label, origin="generated", source=source))
                continue
            state.kept += 1
            state.naming_itself += names_itself(written.text, self._words[label])
            tally.kept += 1
            self._keep(
                Row(
                    input=written.text,
                    output=label,
                    origin="generated",
                    source=source,
                    label=label,
                    licence=self._material.options.licence,
                )
            )

    def _in_another(self, text: str, label: str) -> Dropped | None:
        """Where labels are languages, a text that is clearly not in that of its label."""
        code = self._spoken.get(label)
        return wrong_language(text, (code,)) if code else None

    def _names_itself(self, text: str, label: str) -> Dropped | None:
        state = self.labels[label]
        share = self._material.options.own_name_share
        if not names_itself(text, self._words[label]) or state.naming_itself + 1 <= max(1, share * state.quota):
            return None
        detail = f"{state.naming_itself} of {state.quota} texts name {label!r} already, at most {share:.0%}"
        return Dropped("label_named_too_often", detail, text, stage="datagen")
