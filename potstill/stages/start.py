"""What is settled before a generation starts: how far it plans ahead, and what would end the run after it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.errors import OptionError
from potstill.events import Event, Listener, silent
from potstill.models import MINILM, SMOLLM2
from potstill.run_dir import write_atomic
from potstill.stages.own_inputs import unread_inputs
from potstill.user_data import check_data, unsaid_fields

if TYPE_CHECKING:
    from potstill.datagen.options import GenerationOptions
    from potstill.settings import Settings
    from potstill.task import Kind, TaskSpec
    from potstill.train.compress.options import CompressOptions
    from potstill.train.options import DistilOptions


def settled(
    folder: Path, options: GenerationOptions, concurrency: int, listener: Listener = silent, *, keep: bool = True
) -> GenerationOptions:
    """The options with a number for the window: what the folder began with, or what fits the teacher.

    A folder keeps its number in `window.json`, so that another `concurrency` later goes on with the same requests.

    Args:
        folder: The run folder.
        options: As the user gave them; a window of theirs stands.
        concurrency: Requests that the teacher takes at a time.
        listener: Told when the folder's window is too small for this teacher.
        keep: Whether the folder may be written to.
    """
    if options.window is not None:
        return options
    fitting = options.for_teacher(concurrency)
    path = folder / "window.json"
    kept = _kept(path)
    if kept is None:
        if keep:
            write_atomic(path, json.dumps({"window": fitting.window, "concurrency": concurrency}) + "\n")
        return fitting
    if kept < fitting.ahead:
        listener(
            Event(
                "datagen",
                "note",
                f"this folder plans {kept} requests ahead, as it began; {concurrency} at a time want {fitting.ahead}: "
                f"--set generation.window={fitting.ahead}",
            )
        )
    return replace(options, window=kept)


def _kept(path: Path) -> int | None:
    try:
        window = json.loads(path.read_text("utf-8"))["window"]
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or none that can be read: settled anew
        return None
    return window if isinstance(window, int) and window >= 1 else None


def lacking_rows(spec: TaskSpec, settings: Settings) -> str:
    """What is wrong where rows will be wanting, with the mend; "" where nothing is.

    That is where fewer are to be written than there are labels, where just as many leave none to measure on, or where
    the user's own are to be the only ones and the task names none.
    """
    if settings.sources == "labelled" and spec.labelled is None:
        return (
            "sources = labelled learns from your own rows alone, and the task has none; "
            "name them (labelled: FILE in the task file), or take other sources"
        )
    rows, labels = settings.generation.rows, len(spec.label_names)
    if spec.kind != "classification" or not settings.writes:
        return ""
    if rows == labels and settings.sources == "generated" and spec.test is None and spec.labelled is None:
        return (
            f"{rows} rows for {labels} labels leave none to measure on; ask for {10 * labels} with -n {10 * labels} "
            "(ten a label), or name real rows with test: in the task file"
        )
    if rows >= labels:
        return ""
    return (
        f"{rows} rows for {labels} labels: nothing would be written for {labels - rows} of them; ask for {10 * labels} "
        f"with -n {10 * labels} (ten a label), or look at a few first with: potstill preview"
    )


def check_ahead(spec: TaskSpec, settings: Settings, *, merged: bool = False, trained: bool = False) -> None:
    """Refuse, before anything is asked of a teacher, what a later stage would end the run with.

    Args:
        spec: The task.
        settings: The run's settings.
        merged: Whether the rows are merged already; then data on the Hub is not asked for again.
        trained: Whether there is a student already; then the model that it began with is not looked for again.

    Raises:
        OptionError: Options that this task's student or the compression cannot take.
        DataError: The user's own data cannot be read.
        MissingExtra: A library that an option needs.
        UserError: The student's model cannot be loaded, or cannot be told the task.
    """
    check_data(spec, hub=not merged)
    check_student_options(spec, settings, trained=trained)


def check_student_options(spec: TaskSpec, settings: Settings, *, trained: bool = False) -> None:
    """The part of `check_ahead` that is about the student: its options, its compression, its model.

    Arguments and errors are those of `check_ahead`.
    """
    from potstill.stages.student_choice import distil_options
    from potstill.train.options import check_for_kind
    from potstill.train.ready import check_prompts, check_student, check_tokenizers

    check_for_kind(settings.distil, spec.kind, settings.answers_by)
    kind = "classification" if spec.kind == "classification" else "causal"
    _check_compression(settings.compress, kind)
    if not trained:
        options = distil_options(settings, spec)
        check_student(options, spec.kind)
        check_prompts(options, spec)
        check_tokenizers(options, spec.kind, settings.answers_by)
        _check_written(settings.compress, options, spec.kind)


def _check_compression(options: CompressOptions, kind: str) -> None:
    if not options.recipe:
        return
    from potstill.train.compress.files import check_formats
    from potstill.train.compress.options import check_limits
    from potstill.train.compress.recipe import check_recipe, parse_recipe

    check_limits(options, options.recipe)
    check_formats(options.formats)
    if options.recipe != "all":
        check_recipe(parse_recipe(options.recipe), kind=kind, tokens=options.calibration_tokens)


def _check_written(options: CompressOptions, distil: DistilOptions, kind: Kind) -> None:
    """Refuse formats that cannot hold what the recipe leaves of the student, whose width its model tells."""
    if options.recipe in ("", "all"):
        return
    from potstill.train.compress.foresee import check_student_formats
    from potstill.train.compress.recipe import parse_recipe
    from potstill.train.options import student_name

    sort = "classification" if kind == "classification" else "causal"
    check_student_formats(
        student_name(distil, kind), sort, parse_recipe(options.recipe), options.formats, distil.student_ffn
    )


def check_start(spec: TaskSpec, settings: Settings, listener: Listener) -> None:
    """Refuse rows that cannot suffice where they have one source; elsewhere say so, as of languages and of fields.

    Raises:
        OptionError: Labels would be left without any row, or the run without rows.
    """
    if foreign := foreign_languages(spec, settings):
        listener(Event("task", "note", foreign))
    if settings.writes and (unsaid := unsaid_fields(spec)):
        listener(Event("task", "note", unsaid))
    if unread := unread_options(spec, settings):
        listener(Event("task", "note", unread))
    if unable := unable_to_answer(spec, settings):
        listener(Event("task", "note", unable))
    fault = lacking_rows(spec, settings)
    if not fault:
        return
    if settings.sources == "labelled":
        raise OptionError("sources", [fault])
    if settings.sources == "generated" and spec.labelled is None and spec.unlabelled is None:
        raise OptionError("generation", [fault])
    listener(Event("datagen", "note", fault))


def unread_options(spec: TaskSpec, settings: Settings) -> str:
    """What the user said that changes nothing for this task; "" where all of it counts."""
    from potstill.datagen.options import unread

    method, answered = settings.generation.method, bool(settings.generation.output_teacher)
    given = [name for name in unread(spec.kind, method, answered=answered) if f"generation.{name}" in settings.origin]
    what = f"kind: {spec.kind}" + (f" with generation.method={method}" if method != "auto" else "")
    said = [
        f"{what} does not go by {', '.join(f'generation.{name}' for name in given)}"
        if given and settings.writes
        else "",
        "no row is written (sources), so the checks of `quality` have nothing to look at"
        if settings.quality.on and not settings.writes
        else "",
        "`rules` label the texts of `unlabelled`, and the task names none"
        if spec.rules and not spec.unlabelled
        else "",
        unread_inputs(spec, settings),
    ]
    return "; ".join(filter(None, said))


def unable_to_answer(spec: TaskSpec, settings: Settings) -> str:
    """What is wrong where rules ask the built-in teacher, with the mend; "" where they do not."""
    if not spec.questions or settings.teacher not in ("transformers", f"transformers:{SMOLLM2}"):
        return ""
    return (
        "rules ask the built-in teacher, which answers questions about a text hardly better than chance; "
        "name a larger one (--teacher), or leave its questions out"
    )


def foreign_languages(spec: TaskSpec, settings: Settings) -> str:
    """Which built-in models would meet a language that they do not know, with the mend; "" where none would."""
    foreign = [language for language in spec.languages if language.lower() not in ("en", "english")]
    english = [
        (settings.teacher in ("transformers", f"transformers:{SMOLLM2}"), "teacher", "--teacher"),
        (settings.encoder == MINILM, "sentence encoder", "encoder:"),
        (settings.distil.student in (None, MINILM, SMOLLM2), "student", "distil.student:"),
    ]
    met = [(what, option) for is_built_in, what, option in english if is_built_in]
    if not foreign or not met:
        return ""
    shown = " and ".join(", ".join(what for what, _ in met).rsplit(", ", 1))
    options = ", ".join(option for _, option in met)
    return (
        f"{', '.join(foreign)}, and the built-in {shown} know English alone; "
        f"give models that know {', '.join(foreign)} ({options})"
    )
