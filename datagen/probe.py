"""The first requests of a generation, to learn what the rest will cost.

The requests are the very ones that the run will make first, and their replies go to the same ledger: what a probe asks
is not asked again. They are a function of the options and the seed as long as there are at most `options.window`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from potstill.asking.teacher import Reply
from potstill.datagen.answering import FormCheck
from potstill.datagen.drive import ANSWERS, Plan, drive
from potstill.datagen.generate import at_once, material_for, options_beside, screen_for
from potstill.datagen.heard import first_reply_of
from potstill.datagen.input_first import InputFirst
from potstill.datagen.label_first import LabelFirst
from potstill.datagen.magpie import magpie_options
from potstill.datagen.options import GenerationOptions
from potstill.datagen.own_inputs import Own, OwnAnswers
from potstill.datagen.recipes import refuse_recipes
from potstill.datagen.result import PURPOSE
from potstill.datagen.screen import Screen
from potstill.datagen.tally import Tally
from potstill.datagen.writing import Material
from potstill.rows import Dropped, Row
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.asker import Asker
    from potstill.asking.stream import Answer
    from potstill.asking.teacher import AnyRequest

_WARM = 4


@dataclass(frozen=True)
class Probe:
    """What a few requests showed.

    Attributes:
        tally: Requests, tokens, kept and dropped texts.
        rows: The rows that came of them.
        fresh: Requests that the teacher answered now, after the first few that woke it.
        seconds: Wall-clock seconds of those.
        dropped: What was refused, with the reasons that the tally counts.
        own: The same of the user's own inputs, which are answered apart; None where there are none.
    """

    tally: Tally
    rows: list[Row] = field(default_factory=list)
    fresh: int = 0
    seconds: float = 0.0
    dropped: list[Dropped] = field(default_factory=list)
    own: Probe | None = None


class _First:
    """A plan that ends after its first requests."""

    def __init__(self, plan: Plan, most: int):
        self._plan = plan
        self._most = most
        self._made = self._accepted = 0

    @property
    def finished(self) -> bool:
        return self._plan.finished or self._accepted >= self._most

    def next_request(self) -> AnyRequest | None:
        if self._made >= self._most:
            return None
        request = self._plan.next_request()
        self._made += request is not None
        return request

    def accept(self, answer: Answer) -> None:
        self._accepted += 1
        self._plan.accept(answer)


def probe_generation(
    spec: TaskSpec,
    asker: Asker,
    options: GenerationOptions,
    count: int,
    *,
    retrieved: Dataset | None = None,
    own: Own | None = None,
    answerer: Asker | None = None,
) -> Probe:
    """Make the first `count` requests for inputs of a generation, and for its outputs where the task has some.

    Args:
        spec: A task whose rows come of no Self-Instruct (`generate.writes_tasks`).
        asker: The teacher.
        options: Those of the run.
        count: Requests for inputs.
        retrieved: As for the run.
        answerer: As for the run.
        own: As for the run. Half as many of these are answered first, or as many where nothing is written beside them.

    Raises:
        OptionError: The task or the teacher does not allow a recipe that the options ask for.
        TeacherError: The teacher refused or stayed away.
        BudgetReached: The cap was met.
    """
    refuse_recipes(spec, asker, options)
    options = magpie_options(spec, options.for_teacher(at_once(asker, answerer)))
    own = own or Own()
    answered = None
    if own.inputs:
        beside = own.written_beside(options)
        answered = _answer(
            own, spec, answerer or asker, options, -(-count // 2) if beside else count, ANSWERS if answerer else PURPOSE
        )
        if not beside:
            return Probe(Tally(), own=answered)
    material = material_for(spec, asker, options_beside(own, options), retrieved)
    window = min(count, options.ahead)
    most = count
    if spec.kind != "classification":
        # Outputs are asked for once inputs are accepted: a smaller window lets some of them come.
        window, most = max(1, window // 2), 2 * count
    # The first requests load the model, which would count as speed otherwise.
    _drive(material, own, asker, min(_WARM, most), window, answerer)
    before, started = asker.counts.fresh, time.monotonic()
    tally, rows, dropped = _drive(material, own, asker, most, window, answerer)
    return Probe(tally, rows, asker.counts.fresh - before, time.monotonic() - started, dropped, answered)


def _answer(
    own: Own, spec: TaskSpec, asker: Asker, options: GenerationOptions, most: int, purpose: str = PURPOSE
) -> Probe:
    """The first answers to the user's own inputs."""

    def first(count: int) -> tuple[Tally, list[Row], list[Dropped]]:
        tally, rows, dropped = Tally(), list[Row](), list[Dropped]()

        def keep(row: Row, reply: Reply | None = None) -> None:
            rows.append(row)

        plan = OwnAnswers(own, spec, options, asker, tally, keep, dropped.append, FormCheck(spec))
        drive(_First(plan, count), asker, window=min(count, options.ahead), purpose=purpose)
        return tally, rows, dropped

    first(min(_WARM, most))
    before, started = asker.counts.fresh, time.monotonic()
    tally, rows, dropped = first(most)
    return Probe(tally, rows, asker.counts.fresh - before, time.monotonic() - started, dropped)


def _drive(
    material: Material, own: Own, asker: Asker, most: int, window: int, answerer: Asker | None
) -> tuple[Tally, list[Row], list[Dropped]]:
    tally = Tally()
    rows: list[Row] = []
    dropped: list[Dropped] = []
    screen = screen_for(material)
    screen.know(item.text for item in own.inputs)
    name = asker.teacher.name

    def keep(row: Row, reply: Reply | None = None) -> None:
        rows.append(row)

    plan: Plan
    first = first_reply_of(asker.ledger)
    if isinstance(screen, Screen) and material.spec.kind == "classification":
        plan = LabelFirst(material, screen, name, tally, keep, dropped.append, first)
    else:
        plan = InputFirst(material, screen, name, tally, keep, dropped.append, first, answerer=answerer)
    drive(_First(plan, most), asker, window=window, purpose=PURPOSE, answerer=answerer)
    return tally, rows, dropped
