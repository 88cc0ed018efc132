"""Rows written by the teacher for a task.

In: a `TaskSpec`, an `Asker`, and the retrieved rows for their style. Out: rows in the one schema, everything that was
dropped with its reason, a report, and for generation tasks the teacher's top-k log-probs of the outputs, all written
while they come (`gathering`), so that memory does not grow with the rows but for the novelty filter's. The method
follows the task's kind: label-first for classification (`label_first`), input-first for generation (`input_first`),
Self-Instruct for open instructions (`self_instruct`), unless the options name another method (`magpie`). In the last
two the user's own inputs are answered before any are written (`own_inputs`).

The rows are a function of the task, the options, the retrieved rows and the teacher's replies: not of the order in
which replies arrive, nor of how often the run was killed (see `drive`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.asking.budget import as_paid
from potstill.datagen.answering import FormCheck
from potstill.datagen.attributes import attributes_report, describe_labels, propose_attributes
from potstill.datagen.drive import drive
from potstill.datagen.gathering import Gathering, insist
from potstill.datagen.heard import first_reply_of
from potstill.datagen.input_first import InputFirst
from potstill.datagen.label_first import LabelFirst
from potstill.datagen.magpie import QueryScreen, magpie_options
from potstill.datagen.options import GenerationOptions
from potstill.datagen.own_inputs import InTurn, Own, OwnAnswers
from potstill.datagen.personas import SHOWN_PERSONAS, personas_for
from potstill.datagen.recipes import refuse_recipes
from potstill.datagen.result import PURPOSE, GenerationResult, answered_by
from potstill.datagen.screen import Screen
from potstill.datagen.tally import Tally
from potstill.datagen.writing import Material, examples_by_label, styles_by_label
from potstill.events import Event, Listener, silent
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.asker import Asker

_METHODS = {"classification": "label-first", "generation": "input-first"}
__all__ = ["GenerationOptions", "GenerationResult", "generate_rows"]


def generate_rows(
    spec: TaskSpec,
    asker: Asker,
    options: GenerationOptions,
    *,
    retrieved: Dataset | None = None,
    own: Own | None = None,
    answerer: Asker | None = None,
    listener: Listener = silent,
    out: Path | None = None,
) -> GenerationResult:
    """Let the teacher write rows for a task, and answer the user's own inputs.

    Args:
        spec: The task.
        asker: The teacher, with its ledger and budget.
        options: How many rows, and how to ask.
        retrieved: Rows found by retrieval; a few are shown for their style, none is copied.
        own: Inputs of the user's that the teacher answers, in tasks whose answer is a text; the rest of the rows is
            written.
        answerer: Another teacher that writes the outputs, in tasks whose answer is a text; None for the same one.
        listener: Called with progress, at most five times a second.
        out: Folder for the files that `gathering` names; None keeps them in a temporary one.

    Returns:
        Rows, drops and report. Fewer rows than asked for are no error: the report says which label fell short.

    Raises:
        OptionError: The task or the teacher does not allow a recipe that the options ask for.
        TeacherError: No usable row came of all requests (the message counts the reasons), or the teacher refused or
            stayed away.
        BudgetReached: The cap was met, and the run stops at it or no row came before; a later run goes on from the
            ledger.
    """
    refuse_recipes(spec, asker, options)
    answerer = None if spec.kind == "classification" else answerer
    options = magpie_options(spec, options.for_teacher(at_once(asker, answerer)))
    if writes_tasks(spec, options):
        from potstill.datagen.self_instruct_run import generate_instructions

        return generate_instructions(spec, asker, options, own=own, answerer=answerer, listener=listener, out=out)
    tally = Tally()
    listener(Event("datagen", "progress", "preparing the requests", 0, options.rows))
    own = own or Own()
    written = own.written_beside(options)
    material = material_for(spec, asker, options_beside(own, options), retrieved)
    screen = screen_for(material)
    screen.know(item.text for item in own.inputs)
    teacher = asker.teacher.name
    by = answerer or asker
    top_k = 0 if spec.kind == "classification" else min(options.answer_top_k, by.abilities.top_logprobs)
    fill: dict[str, Any] = {}
    told: dict[str, Any] = {}
    first = first_reply_of(asker.ledger)
    with Gathering(out, spec.label_names, options.rows, tally, listener, top_k, options.seed) as gathered:
        if isinstance(screen, Screen) and spec.kind == "classification":
            plan = LabelFirst(material, screen, teacher, tally, gathered.keep, gathered.drop, first)
            with as_paid(asker.meter) as met:
                drive(plan, asker, window=options.ahead, purpose=PURPOSE)
            fill = {name: {"quota": s.quota, "kept": s.kept, "requests": s.answered} for name, s in plan.labels.items()}
        else:
            form = FormCheck(spec)
            answers = OwnAnswers(own, spec, options, by, tally, gathered.keep, gathered.drop, form)
            inputs = InputFirst(material, screen, teacher, tally, gathered.keep, gathered.drop, first, form, answerer)
            both = InTurn(answers, inputs) if written else answers
            with as_paid(asker.meter) as met:
                drive(both, asker, window=options.ahead, purpose=PURPOSE, answerer=answerer)
            told = {"form": form.to_json()} if form.to_json() else {}
            told |= {"own_inputs": answers.to_json()} if own.name else {}
            told |= {"evolved": inputs.evolution.to_json()} if inputs.evolution.on else {}
        insist(gathered, tally, asker, _cut(tally, material), cut_short=bool(met))
        report = {
            "method": options.method if options.method != "auto" else _METHODS[spec.kind],
            "teacher": teacher,
            **answered_by(answerer),
            "window": options.ahead,
            **tally.to_json(),
            **told,
            **met,
            "labels": fill,
            "label_fill": _label_fill(fill),
            "topics": {label: list(topics) for label, topics in material.topics.items()},
            "attributes": attributes_report(material.manners, material.proposed),
            **({"personas": list(material.personas[:SHOWN_PERSONAS])} if options.personas != "none" else {}),
            "descriptions": dict(material.descriptions),
            **gathered.sample.diversity(options.seed),
            "short": {
                name: max(1, item["quota"]) - item["kept"]
                for name, item in fill.items()
                if item["kept"] < max(1, item["quota"])
            },
        }
        return gathered.result(report)


def at_once(asker: Asker, answerer: Asker | None) -> int:
    """Requests that the quicker of the teachers takes at a time; `answerer` is another one that answers."""
    return max(own.teacher.concurrency for own in (asker, answerer) if own is not None)


def writes_tasks(spec: TaskSpec, options: GenerationOptions) -> bool:
    """Whether rows come of Self-Instruct, which writes instructions with instances and has requests of its own."""
    return spec.kind == "instructions" and options.method == "auto"


def screen_for(material: Material) -> Screen | QueryScreen:
    """The filters that a written input has to pass."""
    shown = [text for texts in material.examples.values() for text in texts]
    if material.spec.kind == "instructions":
        return QueryScreen(material.spec, material.options, shown, opened=material.opened)
    styles = [text for texts in material.styles.values() for text in texts]
    return Screen(material.spec, material.options, shown, styles, opened=material.opened)


def options_beside(own: Own, options: GenerationOptions) -> GenerationOptions:
    """How what is written beside the user's own inputs is asked for; where nothing is, no attributes are proposed."""
    written = own.written_beside(options)
    return replace(options, rows=written) if written else replace(options, attributes="none", personas="none")


def material_for(spec: TaskSpec, asker: Asker, options: GenerationOptions, retrieved: Dataset | None) -> Material:
    """What prompts are made from; the teacher may be asked for descriptions and attributes."""
    descriptions = describe_labels(spec, asker, options)
    attributes = propose_attributes(spec, asker, options, descriptions)
    return Material(
        spec=spec,
        options=options,
        abilities=asker.abilities,
        descriptions=descriptions,
        topics=attributes.topics,
        examples=examples_by_label(spec),
        styles=styles_by_label(spec, retrieved, options.seed) if options.style_shown else {},
        manners=attributes.manners,
        proposed=attributes.proposed,
        personas=personas_for(spec, asker, options),
    )


def _cut(tally: Tally, material: Material) -> str:
    """How many inputs and outputs were cut at their bound, and how it is raised; "" where none was."""
    bounds = {
        "truncated": ("inputs", "max_tokens", material.input_tokens),
        "truncated_output": ("outputs", "answer_max_tokens", material.options.answer_max_tokens),
    }
    return "; ".join(
        f"{tally.dropped[reason]} were cut at the most tokens that {what} may take; allow more with "
        f"--set generation.{option}={2 * bound}"
        for reason, (what, option, bound) in bounds.items()
        if tally.dropped[reason]
    )


def _label_fill(fill: dict[str, Any]) -> float | None:
    """Mean over all labels of rows kept by rows wanted; a label that none are wanted for is not filled."""
    if not fill:
        return None
    shares = [float(item["kept"] / item["quota"]) for item in fill.values() if item["quota"]]
    return round(sum(shares) / len(fill), 4)
