"""What a run will cost, before it is paid for: datasets, requests, tokens, money and time of each stage.

Retrieval is done for the count of rows, since it costs nothing but local time. Each stage's requests follow from the
options: how many rows are written and kept, scored and measured. What a request takes, and how many texts are kept, is
known in one of three ways, the surest that there is:

    earlier    the run folder's ledger and reports hold replies of the same teacher
    probe      the first requests of the run are made now: for a teacher on this machine by default, where no earlier
               run tells its speed, since they cost nothing but seconds; the run finds their replies in its ledger
    assumed    prompts are rendered and counted by script (`potstill.asking.token_estimate`); two thirds of the texts
               are kept, which are as long as the task's own, and an output takes half of what it may take

Money is tokens times the list price (genai-prices), nothing for a teacher of one's own. Time is the teacher's, as
measured or, for an API of which nothing tells, as assumed (`potstill.plan.speed`); and the training's, from some steps
of the real student on this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.asking.budget import Budget
from potstill.asking.token_estimate import likely_tokens
from potstill.datagen import writing
from potstill.datagen.evolve import assumed_shares
from potstill.datagen.generate import at_once, writes_tasks
from potstill.datagen.label_question import about_labels
from potstill.datagen.label_scores import can_score, questions_for_form, shows_examples
from potstill.datagen.magpie import magpie_options
from potstill.datagen.quality import refuse_impossible
from potstill.datagen.recipes import refuse_recipes
from potstill.events import Event, Listener
from potstill.notebook import listening
from potstill.plan import speed as plan_speed
from potstill.plan.answers import ANSWERED, ANSWERS_KEPT, EXPLAIN_TOKENS, by_teacher
from potstill.plan.found import found_rows
from potstill.plan.ledger import is_known, plan_ledger, stage_manifest, stage_report
from potstill.plan.own_inputs import own_step
from potstill.plan.rules import rules_step
from potstill.plan.scores import probe_scores
from potstill.plan.steps import RunPlan, Size, Step, joined, reading_note, texts_to_label
from potstill.plan.training import on_policy_step, training_step
from potstill.plan.written import A_MESSAGE, ASSUMED_KEPT, assumed_inputs, assumed_tasks, from_probe
from potstill.stages.checks import check_outputs, check_teachers, wants_outputs
from potstill.stages.own_inputs import own_inputs
from potstill.stages.rationales import wants_rationales
from potstill.stages.start import (
    check_ahead,
    foreign_languages,
    lacking_rows,
    settled,
    unable_to_answer,
    unread_options,
)
from potstill.stages.student_choice import teaches_itself
from potstill.task import TaskSpec
from potstill.user_data import OWN_ROWS, unsaid_fields

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.asker import Asker
    from potstill.datagen.options import GenerationOptions
    from potstill.datagen.probe import Probe
    from potstill.settings import Settings

_PROBE_REQUESTS = 32
_ASSUMED_REPLY = 0.5
_A_WORD = 8.0  # an answer that is a label, or Yes
_KEPT_BY_MERGE = 0.97


def plan_run(
    task: str | Path,
    *,
    out: str | Path | None = None,
    probe: int | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> RunPlan:
    """Predict a run.

    Args:
        task: As for `potstill.run`.
        out: Run folder; what an earlier run left there makes the prediction surer.
        probe: Requests to make now; None makes 32 with a teacher in this process whose speed no earlier run in the
            folder tells, and none with an API. 0 makes none, and times no step of the student either.
        listener: As for `potstill.run`: without one, a notebook shows a table.
        **settings: As for `potstill.run`.

    Raises:
        TaskError: The task cannot be read.
        OptionError: Unknown or impossible settings.
        RunLocked: A run is under way in the folder.
        DataError: The user's own data cannot be read.
        UserError: The student's model cannot be loaded.
        TeacherError: A probe was asked for and the teacher refused or stayed away.
    """
    from potstill.pipeline import open_answerer, open_asker, open_checker
    from potstill.settings import read_with_settings
    from potstill.task.file import read_task_file

    draft, resolved = read_with_settings(task, settings)
    folder = Path(out) if out else Path("runs") / draft.spec.name
    # One that Python was given may be paid for, too.
    asked = (resolved.teacher, resolved.answers_by)
    local = resolved.given is None and not any(teacher.startswith("openai") for teacher in asked)
    count = (_PROBE_REQUESTS if local else 0) if probe is None else probe
    with (
        listening(listener) as told,
        plan_ledger(folder, count) as ledger,
        open_asker(resolved.asking_ahead, ledger, told) as asker,
        open_answerer(resolved.asking_ahead, ledger, told) as answerer,
        open_checker(resolved.asking_ahead, ledger, told) as checker,
    ):
        if probe is None and count and is_known(folder, asker, answerer):
            count = 0
        spec = read_task_file(task, asker=asker if count else None, draft=not count, own_rows=OWN_ROWS).spec
        return _Planner(
            spec, resolved, folder, asker, count, told, answerer=answerer, checker=checker, timed=probe != 0
        ).plan()


class _Planner:
    def __init__(
        self, spec: TaskSpec, settings: Settings, folder: Path, asker: Asker, probe: int, listener: Listener, *,
        answerer: Asker | None = None, checker: Asker | None = None, timed: bool = True,
    ) -> None:  # fmt: skip
        self.answerer = None if spec.kind == "classification" else answerer
        generation = settled(folder, settings.generation, at_once(asker, self.answerer), keep=False)
        generation = magpie_options(spec, generation)
        self.spec, self.settings, self.folder = spec, replace(settings, generation=generation), folder
        self.asker, self.probe, self.listener, self.timed = asker, probe, listener, timed
        self.outputs = self.answerer or asker
        self.checker = checker or self.outputs
        unsaid = unsaid_fields(spec) if settings.writes else ""
        told = (
            lacking_rows(spec, settings),
            foreign_languages(spec, settings),
            unread_options(spec, settings),
            unable_to_answer(spec, settings),
            unsaid,
        )
        self.notes = [note for note in told if note]
        if settings.executor == "workers":
            self.notes.append(plan_speed.workers_note(settings.workers.count))
        self._sizes: dict[str, Size] = {}

    def plan(self) -> RunPlan:
        """Every stage in order."""
        settings, spec = self.settings, self.spec
        if settings.writes:
            check_teachers(settings, self.asker.ledger)
        check_ahead(spec, settings)
        if settings.writes:
            refuse_recipes(spec, self.asker, settings.generation)
        if settings.quality.on and settings.writes:
            refuse_impossible(spec, self.checker, settings.quality, settings.soft)
        check_outputs(spec, settings, self.outputs)
        datasets, retrieved = found_rows(self.spec, self.settings, self.listener)
        found = retrieved.num_rows if retrieved is not None else 0
        written = settings.generation.rows if settings.writes else 0
        steps = []
        texts: list[str] = list(retrieved["input"][:200]) if retrieved is not None and found else []
        if written:
            generation, rows = self._generation(retrieved)
            steps += generation
            texts = rows + texts
        if written and self._checks:
            steps.append(self._size("quality", texts).times("quality", self._checks * written))
        earlier = self._ledger_size("weak") if spec.questions else None
        steps += rules_step(spec, self.asker, settings.soft, earlier=earlier, probe=bool(self.probe))
        merged = round(_KEPT_BY_MERGE * (written + found + self._rows_at(spec.labelled)))
        test = self._rows_at(spec.test)
        held = 0.0 if test else settings.merge.heldout
        train = round(merged * (1 - held - settings.merge.validation))
        measured = min(test or round(merged * held), settings.evaluate.rows or 10**9)
        steps += self._soft(train, written, texts)
        if wants_outputs(spec, settings):
            steps.append(self._size("outputs", texts).times("outputs", train * settings.soft.requests_an_input))
        if wants_rationales(spec, settings):
            explained = train * (2 if settings.distil.method == "both" and settings.distil.sequence_share < 1 else 1)
            steps.append(self._size("rationales", texts).times("rationales", explained))
        training, untimed = training_step(
            spec, settings, self.folder, train, texts,
            abilities=self.asker.abilities, timed=self.timed, listener=self.listener,
        )  # fmt: skip
        held_out = round(merged * settings.merge.validation)
        on_policy, writes = on_policy_step(spec, settings, train, held_out, texts, self._ledger_size("train"))
        steps += [training, *([on_policy] if on_policy else [])]
        self.notes += filter(None, [untimed, writes])
        if settings.evaluate.teacher:
            scored = spec.kind == "classification" and can_score(self.asker, settings.soft)
            purpose, asked = ("soft", self._per_text()) if scored else ("zero-shot", 1)
            steps.append(self._size(purpose, texts).times("evaluate", measured * asked))
        for asker in dict.fromkeys((self.asker, self.outputs, self.checker)):
            if asker.teacher.identity.get("backend") == "openai":
                steps = self._of_an_api(asker, steps)
        if self.asker.teacher.identity.get("backend") == "openai":
            self.notes += filter(None, [reading_note(spec, settings.self_training, train)])
        if self.settings.given is not None and any(step.requests and step.seconds is None for step in steps):
            self.notes.append("the teacher's time is not known before it was asked; with probe=32 a plan asks it")
        plan = RunPlan(self.asker.teacher.name, tuple(datasets), merged, tuple(steps), None, None, tuple(self.notes))
        return self._priced(plan)

    def _of_an_api(self, asker: Asker, steps: list[Step]) -> list[Step]:
        """The steps with an assumed time for those of this teacher, of which notes say what is assumed or left out."""
        at_a_time = asker.teacher.concurrency
        own = {step.stage for step in steps if self._teacher_of(step.stage) is asker}
        options = getattr(asker.teacher, "options", None)
        timed = [
            plan_speed.within_limits(plan_speed.assumed_time(step, at_a_time), options) if step.stage in own else step
            for step in steps
        ]
        asked = [step for step in timed if step.stage in own and step.requests]
        others = {self.outputs: plan_speed.ANSWERS, self.asker: plan_speed.WRITES}
        role = others.get(asker, plan_speed.CHECKS)
        self.notes += plan_speed.assumption(asked, at_a_time, role=role)
        self.notes += plan_speed.limits_told(options, role=role)
        self.notes += plan_speed.uncounted_thinking(asked, asker.thinking_tokens, asker.price, role=role)
        return timed

    def _teacher_of(self, step: str) -> Asker:
        """Who is asked in a step, or for a purpose."""
        if step == "quality":
            return self.checker
        answered = self.spec.kind != "classification" and step in ANSWERED
        return self.outputs if answered else self.asker

    def _generation(self, retrieved: Dataset | None) -> tuple[list[Step], list[str]]:
        """Steps of answering own inputs, proposing and writing, and texts that a probe brought."""
        options, spec = self.settings.generation, self.spec
        own = own_inputs(spec, self.settings)
        self.notes += [told] if (told := own.told(options)) else []
        report, probed = stage_report(self.folder, "datagen"), None
        if self.probe and not writes_tasks(spec, options):
            self.listener(Event("plan", "progress", f"making the first {self.probe} requests"))
            from potstill.datagen.probe import probe_generation

            probed = probe_generation(
                spec, self.asker, options, self.probe, retrieved=retrieved, own=own, answerer=self.answerer
            )
        stage = "answers" if self.answerer else "datagen"
        answers = own_step(
            spec, own, _ASSUMED_REPLY * options.answer_max_tokens, probed=probed.own if probed else None,
            earlier=self._ledger_size(stage), report=report, stage=stage,
        )  # fmt: skip
        texts = [item.text for item in own.inputs[:200]]
        if not own.written_beside(options):
            return [answers], texts
        steps, more = self._writing(own.written_beside(options), probed, report, retrieved)
        if own.inputs:
            steps[-1] = joined(steps[-1], answers)
        return steps, texts + more

    def _writing(
        self, rows: int, probed: Probe | None, report: Mapping[str, Any], retrieved: Dataset | None
    ) -> tuple[list[Step], list[str]]:
        """Steps of proposing and writing so many rows, and texts that a probe brought."""
        options, spec = replace(self.settings.generation, rows=rows), self.spec
        proposed = self._proposals()
        steps = [proposed] if proposed.requests else []
        if report.get("requests") and self._ledger_size("datagen"):
            before = report.get("own_inputs", {"requests": 0, "kept": 0})
            per_row = (report["requests"] - before["requests"]) / max(1, report["kept"] - before["kept"])
            step = self._size("datagen", []).times("datagen", self._sent(options.rows * per_row, options))
            steps += self._by_teacher(step, rows)
            return steps, [row.input for row in probed.rows] if probed else []
        if writes_tasks(spec, options):
            self.notes.append("the requests of Self-Instruct are assumed, not probed")
            steps.append(assumed_tasks(spec, options, self.asker.abilities, self._ledger_size("datagen")))
            others = [self._size("answers", []).times("answers", rows / ANSWERS_KEPT)] if self.answerer else []
            return [*steps, *others], []
        if probed is not None:
            inputs = [row.input for row in probed.rows]
            return [*steps, *self._by_teacher(self._from_probe(probed, options), rows)], inputs
        first, evolving = assumed_shares(options.evolve)
        texts = options.rows * (first / ASSUMED_KEPT / options.texts_per_request + evolving)
        if spec.kind != "classification":
            texts = self._sent(texts + options.rows, options) - options.rows
        step = assumed_inputs(spec, self.settings.generation, self.asker.abilities, retrieved).times(
            "datagen", texts * writing.parts_of(spec, options, self.asker.abilities)
        )
        if spec.kind != "classification":
            tokens = likely_tokens(spec.instruction) + 100, _ASSUMED_REPLY * options.answer_max_tokens
            answers = Size(*tokens, None, "assumed").times("answers", rows / ANSWERS_KEPT)
            return [*steps, *([step, answers] if self.answerer else [joined(step, answers)])], []
        return [*steps, step], []

    def _by_teacher(self, step: Step, rows: int) -> list[Step]:
        """The requests that write so many rows, apart for each teacher where another one answers."""
        if self.answerer is None:
            return [step]
        sizes = [self._ledger_size(purpose, least=1) for purpose in ("datagen", "answers")]
        return by_teacher(step, rows, sizes[0], sizes[1] or self._size("answers", []))

    def _from_probe(self, probed: Probe, options: GenerationOptions) -> Step:
        size, wanted, note = from_probe(
            probed, self.spec, options, self.asker.abilities, earlier=self._ledger_size("datagen")
        )
        self.notes += [note] if note else []
        return size.times("datagen", self._sent(wanted, options))

    def _sent(self, needed: float, options: GenerationOptions) -> float:
        """Requests that reach the teacher: more than are needed while it is not known how many texts will be kept.

        The first ones are made before any reply, as if two texts in three were kept, and two outputs in three (all,
        where they are to be evolved); those that the teacher has taken when the last row comes are answered too. All
        inputs are answered before the last row.
        """
        at_once, texts = self.asker.teacher.concurrency, options.rows / options.texts_per_request
        if self.spec.kind == "classification":
            return needed + min(max(0.0, min(options.ahead, texts / ASSUMED_KEPT) - needed), at_once)
        if writes_tasks(self.spec, options):
            return needed
        first = min(
            options.ahead, texts * assumed_shares(options.evolve)[0] if options.evolve else texts / ASSUMED_KEPT**2
        )
        more = max(0.0, first - (needed - options.rows))
        return needed + more + min(more, at_once)

    def _proposals(self) -> Step:
        """Topics and descriptions, which are asked for once."""
        from potstill.datagen.attributes import proposal_requests

        options = self.settings.generation
        if writes_tasks(self.spec, options):
            options = replace(options, attributes="none", label_descriptions="names")
        requests = proposal_requests(self.spec, options, self.asker.abilities)
        if not requests:
            return Step("attributes")
        found = self._ledger_size("attributes", least=1)  # all are asked before the first text is
        return (found or Size(90, 110, None, "assumed")).times("attributes", requests)

    def _soft(self, train: int, written: int, texts: list[str]) -> list[Step]:
        more = texts_to_label(self.spec, self.settings.self_training, train)
        distil = self.settings.distil
        if (distil.soft_weight <= 0 or distil.on_policy > 0) and not more:
            return []
        if self.spec.kind == "classification":
            if not can_score(self.asker, self.settings.soft):  # texts without a label get one in words
                return [self._size("zero-shot", texts).times("soft", more)] if more else []
            forms = questions_for_form(self.spec, self.settings.soft, train) if self.asker.abilities.scores else 0
            return [self._size("soft", texts).times("soft", (train + more) * self._per_text() + forms)]
        unread = distil.method == "sequence" or teaches_itself(self.settings, self.spec)
        if unread or not self.outputs.abilities.top_logprobs:
            return []
        # Rows that the teacher wrote bring theirs with them; only the others are scored.
        return [self._size("soft", texts).times("soft", max(0, train - written))]

    def _per_text(self) -> int:
        """Requests for the label of a text, where the teacher tells how likely it finds each."""
        if self.settings.soft.votes and not self.asker.abilities.scores:
            return self.settings.soft.votes
        return len(self.spec.labels) if self.settings.soft.direction == "channel" and self.spec.labels else 1

    def _rows_at(self, ref: Any) -> int:
        if ref is None:
            return 0
        from potstill.retrieval.load import read_data

        return int(read_data(ref, self.spec).num_rows)

    def _size(self, purpose: str, texts: list[str]) -> Size:
        """What a request of a purpose takes, in the surest way that there is."""
        if purpose not in self._sizes:
            self._sizes[purpose] = self._measure(purpose, texts)
        return self._sizes[purpose]

    def _measure(self, purpose: str, texts: list[str]) -> Size:
        earlier = self._ledger_size(purpose)
        if earlier is not None:
            return earlier
        if self.probe and purpose == "soft" and texts and self.spec.kind == "classification":
            probed = probe_scores(self.spec, texts, self.asker, self.settings.soft)
            return probed or self._ledger_size("soft") or Size(100, 0, None, "assumed")
        tokens = (sum(map(likely_tokens, texts)) / len(texts) if texts else 75) + likely_tokens(self.spec.instruction)
        tokens += 2 * A_MESSAGE
        if self.spec.labels and purpose in ("soft", "zero-shot"):
            shown = shows_examples(self.asker, self.settings.soft)
            tokens += likely_tokens(about_labels(self.spec, examples=shown))
        reply = _ASSUMED_REPLY * self.settings.generation.answer_max_tokens
        replied = {
            "datagen": 150.0, "zero-shot": 128.0, "quality": self._checked_tokens(), "answers": reply,
            "rationales": _ASSUMED_REPLY * self.settings.rationales.max_tokens,
            "outputs": _ASSUMED_REPLY * self.settings.soft.max_output_tokens,
        }.get(purpose, 0.0)  # fmt: skip
        if purpose == "rationales":  # the output is shown, too
            tokens += reply + EXPLAIN_TOKENS
        written = purpose == "zero-shot" or (purpose == "soft" and not self.asker.abilities.scores)
        if written and self.spec.labels:  # a label is written, and the question names all of them
            tokens += sum(likely_tokens(name) + 0.5 for name in self.spec.label_names)
            replied = 8.0 + max(map(likely_tokens, self.spec.label_names))
        return Size(tokens, replied, None, "assumed")

    def _checked_tokens(self) -> float:
        """New tokens of a request that checks a row, the mean over the checks: some vote by a whole answer."""
        quality, requests = self.settings.quality, self._checks
        vote = _A_WORD if self.spec.labels else _ASSUMED_REPLY * quality.max_tokens
        return (quality.votes * vote + (quality.verify + quality.judge) * _A_WORD) / max(1, requests)

    @property
    def _checks(self) -> int:
        """Requests that check a row."""
        return self.settings.quality.checks + 2 * self.settings.quality.input_gain

    def _ledger_size(self, purpose: str, least: int = plan_speed.LEAST_REPLIES) -> Size | None:
        """Means over the ledger's replies of a purpose, where there are enough of them."""
        teacher = None if purpose == "quality" else self._teacher_of(purpose).teacher.name
        found = plan_speed.seen_size(self.asker.ledger.path, purpose, teacher, least=least)
        if found is None:
            return None
        size, replies = found
        if purpose == "attributes":
            return replace(size, seconds=0.0)  # asked already
        # A stage takes a little longer than its replies; of one that went on later, the last call's time is known.
        by_itself = ("soft", "quality", "weak", "rationales")
        alone = purpose in by_itself or (purpose == "datagen" and self.answerer is None)
        stage = purpose if alone else ""
        whole = (stage_manifest(self.folder, stage) if stage else {}).get("seconds")
        known = [value for value in (size.seconds, whole / replies if whole else None) if value is not None]
        return replace(size, seconds=max(known, default=None))

    def _priced(self, plan: RunPlan) -> RunPlan:
        usd: float | None = 0.0
        for step in plan.steps:
            price = self._teacher_of(step.stage).price
            if step.requests and usd is not None:
                usd = None if price is None else usd + price.cost(step.prompt_tokens, step.completion_tokens)
        usd = None if usd is None else round(usd, 4)
        prompt, completion = plan.tokens
        if usd is None:
            plan = replace(plan, notes=(*plan.notes, "the teacher's price is not known"))
        budget = None
        if self.settings.budget:
            cap = Budget.parse(self.settings.budget)
            fits = (
                (cap.usd is None or (usd is not None and usd <= cap.usd))
                and (cap.tokens is None or prompt + completion <= cap.tokens)
                and (cap.seconds is None or (plan.seconds is not None and plan.seconds <= cap.seconds))
            )
            budget = (str(cap), fits)
        return replace(plan, usd=usd, budget=budget)
