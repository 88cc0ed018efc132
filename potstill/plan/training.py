"""What the training of a plan takes: as long as the folder's earlier one, or some steps that are timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from potstill.asking.teacher import Abilities
from potstill.asking.token_estimate import likely_tokens
from potstill.datagen import writing
from potstill.events import Event, Listener
from potstill.plan.ledger import stage_manifest
from potstill.plan.speed import stand_in_texts
from potstill.plan.steps import Size, Step
from potstill.stages.rationales import wants_rationales
from potstill.stages.student_choice import distil_options
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from potstill.settings import Settings
    from potstill.train.options import StudentKind

_A_CHAT = 16.0  # what a chat template adds around the task and its input


def training_step(
    spec: TaskSpec,
    settings: Settings,
    folder: Path,
    rows: int,
    texts: Sequence[str],
    *,
    abilities: Abilities,
    timed: bool,
    listener: Listener,
) -> tuple[Step, str]:
    """The step `train`, and a note where its time is not predicted.

    Args:
        spec: The task.
        settings: The run's settings.
        folder: The run, whose earlier training tells best.
        rows: Rows that are trained on.
        texts: Inputs as long as theirs; where there are none, made-up ones.
        abilities: Of the teacher that writes, which decide how long made-up ones are.
        timed: Whether steps of the student may be timed.
        listener: Told before that is done.
    """
    from potstill.train.loop import plan_schedule
    from potstill.train.options import resolve_options
    from potstill.train.speed import seconds_a_causal_step, seconds_a_step

    kind: StudentKind = "classification" if spec.kind == "classification" else "causal"
    options = resolve_options(distil_options(settings, spec), kind)
    schedule = plan_schedule(rows, options)
    earlier = stage_manifest(folder, "train")
    before = earlier.get("facts", {}).get("rows")
    if before:
        seconds = earlier["seconds"] * schedule.steps / max(1, plan_schedule(before, options).steps)
        return Step("train", seconds=round(seconds, 1), basis="earlier"), ""
    if not timed:
        note = "the training's time is not predicted: with --probe 0 no step of the student is timed"
        return Step("train", seconds=None), note
    if not texts:
        plain = writing.Material(spec, settings.generation, abilities, {}, {}, {}, {})
        texts = stand_in_texts(spec, writing.assumed_input_tokens(plain))
    listener(Event("plan", "progress", "timing some steps of the student"))
    if kind == "causal":
        if options.lora_rank is not None:
            note = "the training's time is not predicted: the folder holds no earlier run with adapters"
            return Step("train", seconds=None), note
        reply = stand_in_texts(replace(spec, examples=()), settings.generation.answer_max_tokens / 2)
        each = seconds_a_causal_step([f"{text}\n{reply[i % 16]}" for i, text in enumerate(texts)], options)
        if wants_rationales(spec, settings):  # which each row of a step has a sequence more for
            said = stand_in_texts(replace(spec, examples=()), settings.rationales.max_tokens / 2)
            each += seconds_a_causal_step([f"{text}\n{said[i % 16]}" for i, text in enumerate(texts)], options)
    else:
        each = seconds_a_step(list(texts), options)
    # Where the held-out score stays behind, early stopping ends it sooner.
    speed: Literal["", "most"] = "most" if options.early_stopping and settings.merge.validation else ""
    return Step("train", seconds=round(schedule.steps * each, 1), basis="probe", speed=speed), ""


def on_policy_step(
    spec: TaskSpec, settings: Settings, rows: int, held_out: int, texts: Sequence[str], earlier: Size | None
) -> tuple[Step | None, str]:
    """What the teacher is asked while the student is trained, and a note of what is not predicted of such a training.

    Each answer that the student writes is read once, and so is each output of the rows and of the held-out rows that
    stands in for one, however often it comes.

    Args:
        spec: The task.
        settings: The run's settings.
        rows: Rows that are trained on.
        held_out: Rows that evaluations of the training measure on.
        texts: Inputs as long as theirs.
        earlier: What such a request took before, where the folder's ledger knows.

    Returns:
        The step, None where the training asks nothing; and the note, empty where there is no training on policy.
    """
    from potstill.train.loop import plan_schedule
    from potstill.train.options import asks_teacher, resolve_options

    if spec.kind == "classification" or settings.distil.on_policy == 0:
        return None, ""
    note = "the time in which the student writes its own answers (distil.on_policy) is not predicted"
    if not asks_teacher(settings.distil, settings.answers_by):
        return None, note
    options = resolve_options(settings.distil, "causal")
    steps = plan_schedule(rows, options, options.processes).steps * options.processes
    trained = steps * (options.batch_size or 1) * options.gradient_accumulation * (1 + options.search.trials)
    own = options.on_policy * trained
    given = min(trained - own, rows) + held_out
    if earlier is None:
        prompt = sum(map(likely_tokens, texts)) / len(texts) if texts else 75.0
        prompt += likely_tokens(spec.instruction) + _A_CHAT
        # A student that is not trained yet seldom ends by itself.
        answers = own * options.on_policy_tokens + given * settings.generation.answer_max_tokens / 2
        earlier = Size(prompt + answers / max(1.0, own + given), 1.0, None, "assumed")
    return earlier.times("on policy", own + given), note
