"""Compress a student from where users have it: a run, a student's folder, or a model's name.

What enters: the place, and texts or rows where the place has none of its own. What leaves: a compressed student's
folder with its report as JSON, Markdown and SVG.

    a run folder        rows of its training, its test data (or held-out rows), its student
    a student's folder  `texts` (a table of rows or a text file), `test` (a table with gold answers)
    a decoder           `texts` and `held_out`: running text
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import DataError, OptionError, PotstillError, RunError
from potstill.events import Listener
from potstill.notebook import listening
from potstill.options import build_options
from potstill.report.compression_page import write_compression_report
from potstill.run_dir import disk_problem
from potstill.stages.parts import held_out_rows
from potstill.task import DataRef, TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.train.compress.run import CompressResult, Material


def compress(
    student: str | Path,
    recipe: str | list[Any],
    *,
    out: str | Path | None = None,
    texts: str | None = None,
    test: str | None = None,
    held_out: str | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> CompressResult:
    """Make a student smaller and say what that did to it.

    Args:
        student: A run folder, a student's folder, or a decoder's name or folder.
        recipe: Steps such as `int8:channel`, `wanda:0.5 -> heal:steps=100 -> int8`, or `all` for the whole zoo. In a
            list, a function of model and texts is a step of your own (`potstill.train.compress.own`).
        out: Folder of the compressed student; by default `NAME-small` in the working directory. What an earlier
            compression wrote there is replaced, anything else refused.
        texts: File of inputs that methods look at: rows (Parquet, CSV, JSON lines; answers help healing) or plain text.
            A run has its own.
        test: File of rows with gold answers. A run has its own.
        held_out: Plain text that a decoder's perplexity is measured on; by default every tenth piece of `texts`, or
            the test rows of a student that answers them.
        listener: As for `potstill.run`: without one, a notebook shows a table.
        **options: Anything of `potstill.train.compress.options.CompressOptions`.

    Raises:
        OptionError: A recipe that cannot be, with every reason; nothing was done then.
        DataError: A file cannot be read, or there is no such student; of a run's name that is mistyped the right one.
        TrainingError: A step did not do what was asked; the steps before it are kept beside `out`.
        RunError: The disk is full or read-only, or another process compresses into `out`.
    """
    from potstill.train.compress.options import CompressOptions, check_limits
    from potstill.train.compress.recipe import parse_recipe
    from potstill.train.compress.run import compress_student
    from potstill.train.compress.zoo import compress_all

    chosen = build_options(CompressOptions, options, "compress")
    everything = recipe == "all"
    steps = None if everything else parse_recipe(_with_own_steps(recipe))
    check_limits(chosen, recipe)
    place = Path(student)
    _refuse_unknown(str(student))
    run = (place / "task" / "task.json").exists()
    source = place / "train" / "student" if run else student
    if run and (given := [name for name, file in _files(texts, test, held_out).items() if file is not None]):
        mend = f"leave it out, or compress {source} with --texts and --test"
        raise OptionError(
            "compress", [f"{name} is not read, since {student} has its own rows; {mend}" for name in given]
        )
    material = run_material(place, choosing=everything) if run else file_material(source, texts, test, held_out)
    target = (
        Path(out).expanduser() if out else Path(f"{str(student).rstrip('/').rpartition('/')[2] or 'student'}-small")
    )
    with _writable(target), listening(listener) as told:
        if steps is None:
            result = compress_all(source, target, material, chosen, listener=told)
        else:
            result = compress_student(source, steps, target, material, chosen, listener=told)
        write_compression_report(target, result.report)
    return result


def _with_own_steps(recipe: str | list[Any]) -> str | list[Any]:
    """The recipe with functions of the user as steps that are known by name and source."""
    from potstill.datagen.votes import function_digest
    from potstill.train.compress.own import is_own, own_step

    if isinstance(recipe, str):
        return recipe
    return [own_step(part, function_digest(part)) if is_own(part) else part for part in recipe]


def _refuse_unknown(student: str) -> None:
    """Refuse what is no folder and cannot be a model of the Hub, before a library waits for the Hub's answer.

    Raises:
        DataError: The name of a run nearby, or what a name of the Hub looks like, or why the Hub is not asked.
    """
    from potstill.hub_way import hub_unreachable
    from potstill.models import EMBEDDED, in_hub_cache
    from potstill.near_runs import near_run

    if Path(student).expanduser().exists() or student in EMBEDDED:
        return
    if (near := near_run(student)) is not None:
        raise DataError(f"{student} is no folder here; did you mean {near}?")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", student) is None or Path(student).parent.is_dir():
        raise DataError(
            f"{student} is no folder here; give a run, a student's folder, or a decoder: a model of the Hub is named "
            "with its user, such as openai-community/gpt2"
        )
    if not in_hub_cache(student) and (why := hub_unreachable()):
        raise DataError(
            f"{student} is no folder here, nor a model that was fetched before, and the Hub cannot be reached: {why}"
        )


@contextlib.contextmanager
def _writable(target: Path) -> Iterator[None]:
    """A disk that is full, read-only or not there is the user's to mend, whichever library meets it."""
    try:
        yield
    except PotstillError:
        raise
    except Exception as error:
        if problem := disk_problem(error):
            raise RunError(
                f"{target} could not be written ({problem}); finished steps are kept in {target}.steps: free some "
                "room, then give the same command again"
            ) from error
        if isinstance(error, OSError) and error.filename and str(target.parent) in str(error.filename):
            raise RunError(
                f"{target} cannot be written ({error.strerror}); choose another folder with --out"
            ) from error
        raise


def _files(texts: str | None, test: str | None, held_out: str | None) -> dict[str, str | None]:
    return {"texts": texts, "test": test, "held_out": held_out}


def run_material(run: Path, *, choosing: bool = False) -> Material:
    """Training rows and test rows of a finished run.

    Args:
        run: Its folder.
        choosing: Whether a student is chosen by the scores: then the validation rows are taken, since a choice by
            test scores would flatter what is chosen.

    Raises:
        DataError: The run has no training rows.
    """
    from potstill.retrieval.load import read_data
    from potstill.rows import read_rows

    spec = TaskSpec.from_json(json.loads((run / "task" / "task.json").read_text("utf-8")))
    train = next(
        (path for path in (run / "train" / "train.parquet", run / "soft" / "train.parquet") if path.exists()), None
    )
    if train is None:
        raise DataError(f"{run} has no training rows (soft/train.parquet); run the task to its end first")
    validation = run / "merge" / "validation.parquet"
    if choosing and validation.exists():
        test = read_rows(validation)
    elif spec.test is not None:
        test = read_data(spec.test, spec, measured=True)
    else:
        test = read_rows(held_out_rows(run / "merge")[0])
    return material_of(spec, read_rows(train), test, read_rows(learnt_file(run / "train", run / "soft")))


def learnt_file(trained: Path, soft: Path) -> Path:
    """The rows that a run's student was trained on: in the folder of its training where they are others than before."""
    places = (trained / "train.parquet", trained / "learnt.parquet", soft / "train.parquet")
    return next((place for place in places if place.exists()), places[-1])


def stage_material(spec: TaskSpec, trained: Path, soft: Path, merged: Path) -> Material:
    """What a run's own stage looks at: the rows of its stages, measured on the validation rows where there are some."""
    from potstill.rows import read_rows

    validation = read_rows(merged / "validation.parquet")
    learnt = read_rows(learnt_file(trained, soft))
    return material_of(spec, read_rows(soft / "train.parquet"), validation if validation.num_rows else None, learnt)


def material_of(spec: TaskSpec, train: Dataset, test: Dataset | None, learnt: Dataset | None = None) -> Material:
    """Rows of a task as what a compression looks at; `learnt` are those of the student's training."""
    from potstill.train.compress.run import Material

    rows = train.shuffle(seed=0)
    return Material(tuple(rows["input"]), tuple(rows["output"]), spec, test, learnt=learnt)


def file_material(source: str | Path, texts: str | None, test: str | None, held_out: str | None) -> Material:
    """What a compression looks at, from files.

    Raises:
        DataError: A file cannot be read.
        OptionError: Test rows for a model that has no task, or running text for one that classifies.
    """
    from potstill.retrieval.load import read_data
    from potstill.train.card import CARD, read_card
    from potstill.train.compress.run import Material

    has_card = isinstance(source, Path) or Path(source).is_dir()
    if not (has_card and (Path(source) / CARD).exists()):
        if test is not None:
            raise OptionError("compress", [f"{source} has no {CARD}, so its task is unknown; leave out --test"])
        return _text_material(texts, held_out)
    card = read_card(Path(source))
    if held_out is not None and card.kind == "classification":
        raise OptionError(
            "compress", [f"held_out is for perplexity, and {source} classifies; leave it out, or give rows with --test"]
        )
    from potstill.task import Label

    read = () if held_out is None else tuple(_paragraphs(held_out))
    labels = tuple(Label(name) for name in card.labels)
    spec = TaskSpec(name=card.name, instruction=card.instruction, kind=card.kind, labels=labels, inputs=card.inputs)
    rows = None if test is None else read_data(DataRef(test), spec, measured=True)
    if texts is None:
        return Material(spec=spec, test=rows, held_out=read)
    if Path(texts).suffix.lower() in (".txt", ".md"):
        return Material(tuple(_paragraphs(texts)), None, spec, rows, read)
    table = read_data(DataRef(texts, training=True), spec).shuffle(seed=0)
    return Material(tuple(table["input"]), tuple(table["output"]), spec, rows, read)


def _text_material(texts: str | None, held_out: str | None) -> Material:
    from potstill.train.compress.run import Material

    given = [] if texts is None else _paragraphs(texts)
    if held_out is not None:
        return Material(tuple(given), held_out=tuple(_paragraphs(held_out)))
    # Every tenth piece is kept for measuring, so that no text is both looked at and measured on.
    kept = [text for i, text in enumerate(given) if i % 10 != 9]
    return Material(tuple(kept), held_out=tuple(given[9::10]))


def _paragraphs(path: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); give a UTF-8 text file") from None
    return [part.strip() for part in text.split("\n\n") if part.strip()]
