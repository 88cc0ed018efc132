"""Every stage in order: a task prompt in; dataset, student, scores and report out.

The order and dependencies of the stages are in `potstill.stages.job`, their work in `potstill.retrieval`,
`potstill.datagen` and `potstill.train`. A stage whose dependencies have not changed is not run again; one under way
when the process dies is resumed from the ledger or from its checkpoint.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.asking.ledger import Ledger
from potstill.errors import OptionError
from potstill.events import Event, Listener
from potstill.masking import masked
from potstill.near_runs import no_run
from potstill.notebook import html_table, listening
from potstill.progress import library_bars_off
from potstill.rows import Dropped, read_dropped, read_rows, with_same_columns
from potstill.run_dir import REFUSING_STAGES, STAGES, RunDir, Stage, write_atomic
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from potstill.asking.asker import Asker
    from potstill.asking.budget import Meter
    from potstill.asking.teacher import Teacher
    from potstill.hub.export import PushResult
    from potstill.retrieval.students import StudentRanking
    from potstill.settings import Settings
    from potstill.stages.job import Job
    from potstill.train.student import Student


@dataclass(frozen=True)
class RunResult:
    """A finished run. Everything is read from its folder at first use.

    Attributes:
        path: The run folder.
        spec: The task as understood.
        stages: The finished stages, in order.
    """

    path: Path
    spec: TaskSpec
    stages: tuple[Stage, ...] = ()

    @cached_property
    def scores(self) -> dict[str, Any]:
        """The content of `evaluate/scores.json`."""
        return dict(json.loads((self.path / "evaluate" / "scores.json").read_text("utf-8")))

    @cached_property
    def dataset(self) -> Dataset:
        """The rows that the student was taught: the training rows alone, without those held out (see `splits`).

        Columns are those of `potstill.rows`: input, output, label, origin, source, licence, teacher_probs and weight;
        with `distil.rationale_weight` also rationale.
        Of written rows some may not have been learnt from (see the report).
        """
        # There where the student labelled rows of its own, or the teacher explained the outputs.
        places = [self.path / stage / "train.parquet" for stage in ("train", "rationales", "soft")]
        return read_rows(next((place for place in places if place.exists()), places[-1]))

    @cached_property
    def splits(self) -> DatasetDict:
        """All rows of the run, as `push` publishes them.

        `train` is `dataset`; by `validation` the training chose the weights that stayed; `test` was held out to measure
        on, and is not there, or empty, where the task file names test rows of its own.
        """
        from datasets import DatasetDict

        from potstill.report.facts import RunFacts

        places = RunFacts(self.path, self.spec).splits
        return DatasetDict(with_same_columns({name: read_rows(path) for name, path in places.items()}))

    @cached_property
    def student(self) -> Student:
        """The student, ready to be called with a text."""
        from potstill.train.student import load_student

        return load_student(self.path / "train" / "student")

    @cached_property
    def compressed(self) -> Student | None:
        """The compressed student; None where the run made none."""
        from potstill.train.student import load_student

        place = self.path / "compress" / "student"
        return load_student(place) if place.exists() else None

    @cached_property
    def dropped(self) -> tuple[Dropped, ...]:
        """Every row that a stage refused, with its reason."""
        return tuple(item for stage in REFUSING_STAGES for item in read_dropped(self.path / stage / "dropped.jsonl"))

    @property
    def report(self) -> Path:
        """The report as one HTML file."""
        return self.path / "report.html"

    def push(self, repo: str, *, private: bool = True, dry_run: bool = False) -> PushResult:
        """Send dataset, model and cards to the Hub (see `potstill.hub.export.push`)."""
        from potstill.hub.export import push

        return push(self.path, repo, private=private, dry_run=dry_run)

    def __repr__(self) -> str:
        systems = {s["name"]: s.get(self.spec.metric) for s in self.scores.get("systems", [])}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in systems.items() if value is not None)
        return f"RunResult({str(self.path)!r}, {self.spec.metric}: {shown})"

    def _repr_html_(self) -> str:
        """The score table, for a notebook."""
        metric, test = self.spec.metric, self.scores["test_set"]
        lines = []
        for system in self.scores.get("systems", []):
            if system.get(metric) is not None:
                ends = " to ".join(f"{end:.3f}" for end in system.get("ci", {}).get(metric, ()))
                lines.append((system["name"], float(system[metric]), ends))
        caption = f"{metric} of {self.spec.name}, on {test['rows']} {test['kind']} rows"
        return html_table(("system", metric, "95 % interval"), lines, caption)


def run(
    task: str | Path,
    *,
    out: str | Path | None = None,
    listener: Listener | None = None,
    labelling_functions: Sequence[Callable[[str], str | None]] = (),
    metrics: Mapping[str, Callable[..., Any]] | None = None,
    **settings: Any,
) -> RunResult:
    """Do the whole job, or the part of it that is not done yet.

    Args:
        task: A prompt, or the path of a task file.
        out: Run folder; `runs/<task name>` by default. The same folder continues.
        listener: Called with every progress event. Without one, a notebook shows a table that follows the run and a
            script shows nothing; `potstill.events.silent` shows nothing in either.
        labelling_functions: Functions from a text to a label's name, or None to abstain, that vote on the task's
            unlabelled texts beside its rules.
        metrics: Functions by name, from a right answer and an output (and the input, if they take three arguments) to
            a number, whose means stand beside the other figures of every system.
        **settings: Anything of `potstill.settings.Settings` (`teacher="vllm"`, `n=2000`, `budget="2usd"`), and a
            mapping of options for a stage (`distil={"epochs": 3}`). `teacher` may also be a function from messages to
            text, or an object of the protocol `potstill.asking.teacher.Teacher`.

    Returns:
        The finished run.

    Raises:
        TaskError: The task cannot be read; lists every fault.
        OptionError: Unknown or impossible settings; lists every fault.
        DataError: The user's own data cannot be read; told before anything is asked for.
        RunLocked: Another process works on the folder.
        TeacherError: The teacher refused or stayed unreachable; finished work stays.
        BudgetReached: The cap was met; run again with a higher one to go on, or with `at_budget="train"` to train on
            what is paid for.
    """
    from potstill.run_left import RunClock, expected_seconds
    from potstill.run_state import stages_with
    from potstill.stages.optional import optional_stages

    with listening(listener) as told:
        clock = RunClock(told)
        with open_job(task, out, clock, settings, labelling_functions, metrics) as job:
            if (job.folder.path / "batch").exists():
                from potstill.batch_server import batches_note

                if note := batches_note(job.folder.path):
                    job.listener(Event("batch", "note", note))
            names, rows = stages_with(optional_stages(job)), job.settings.generation.rows
            clock.start(expected_seconds(job.folder.path, names, rows))
            stages = job.all_stages(str(task))
    return RunResult(job.folder.path, job.spec, stages)


def students(task: str | Path, *, listener: Listener | None = None, **settings: Any) -> StudentRanking:
    """Models that could be the student of a task; what `distil.student: auto` takes the first of.

    Args:
        task: A prompt, or the path of a task file.
        listener: As for `run`.
        **settings: As for `run`; `retrieval` holds the catalogues and the largest size.

    Raises:
        TaskError: The task cannot be read; lists every fault.
        OptionError: Unknown or impossible settings; lists every fault.
        DataError: A catalogue cannot be read.
    """
    from potstill.models import sentence_encoder
    from potstill.retrieval.students import find_students
    from potstill.settings import read_with_settings

    draft, resolved = read_with_settings(task, settings)
    encoder = sentence_encoder(resolved.encoder)
    with listening(listener) as told:
        return find_students(draft.spec, resolved.retrieval, encoder=encoder, listener=told)


def load(path: str | Path) -> RunResult:
    """Open a finished run folder.

    Raises:
        UserError: There is no run at `path`.
    """
    folder = Path(path)
    try:
        spec = TaskSpec.from_json(json.loads((folder / "task" / "task.json").read_text("utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        raise no_run(folder) from None
    found = RunDir(folder)
    stages = [stage for name in STAGES if name != "task" if (stage := found.finished(name)) is not None]
    return RunResult(folder, spec, tuple(stages))


@contextlib.contextmanager
def open_job(
    task: str | Path,
    out: str | Path | None,
    listener: Listener,
    settings: Mapping[str, Any],
    labelling_functions: Sequence[Callable[[str], str | None]] = (),
    metrics: Mapping[str, Callable[..., Any]] | None = None,
) -> Iterator[Job]:
    """A run made ready for its stages: the task read, the settings resolved, the folder locked, the teachers at hand.

    Arguments and errors are those of `run`.
    """
    from potstill.datagen.outputs import form_of
    from potstill.settings import read_with_settings
    from potstill.stages.job import Job
    from potstill.task.file import read_task_file
    from potstill.user_data import OWN_ROWS

    if metrics is not None:
        from potstill.train.own_metrics import check_metrics

        check_metrics(metrics)
    # The draft gives the name and the settings; the teacher, who may fill what rules did not find, needs both.
    draft, resolved = read_with_settings(task, settings)
    folder = RunDir(Path(out).expanduser() if out else Path("runs") / draft.spec.name)
    with contextlib.ExitStack() as opened:
        opened.enter_context(folder.lock())
        opened.enter_context(library_bars_off())
        ledger = opened.enter_context(Ledger(folder.ledger_path))
        _heed_own_teacher(folder.path, resolved)
        asker = opened.enter_context(open_asker(resolved, ledger, listener))
        checker = opened.enter_context(open_checker(resolved, ledger, listener, asker.meter))
        spec = read_task_file(task, asker=asker, own_rows=OWN_ROWS).spec
        answerer = None
        if spec.kind != "classification":
            answerer = opened.enter_context(open_answerer(resolved, ledger, listener, asker.meter))
        _check_functions(spec, labelling_functions)
        for found in spec.inferred:
            listener(Event("task", "note", f"{found.field}: {found.value} (inferred by {found.how})"))
        if spec.kind == "generation" and (form := form_of(spec)):
            listener(Event("task", "note", f"outputs: {form.told()} (asked for by the task)"))
        given = {"labelling_functions": labelling_functions, "metrics": metrics}
        call = _call(task, out, settings, [name for name, value in given.items() if value])
        functions = tuple(labelling_functions)
        yield Job(
            folder, spec, resolved, ledger, asker, listener, checker, functions, call, dict(metrics or {}), answerer
        )


def _check_functions(spec: TaskSpec, functions: Sequence[Any]) -> None:
    """Refuse labelling functions that would see no text.

    Raises:
        OptionError: The task has no unlabelled texts, or no labels.
    """
    if functions and spec.kind != "classification":
        why = f"give labels, and this is {spec.kind}"
    elif functions and spec.unlabelled is None:
        why = "vote on the texts of `unlabelled:`, and the task names none"
    else:
        return
    raise OptionError("labelling_functions", [f"labelling_functions {why}"])


def _heed_own_teacher(folder: Path, settings: Settings) -> None:
    """Refuse to go on with a run that a teacher of one's own began, where no teacher is named and it is not given.

    The folder remembers its name in `own_teacher.json` until another teacher is named.
    """
    path = folder / "own_teacher.json"
    if settings.given is not None:
        write_atomic(path, json.dumps({"teacher": settings.teacher}, ensure_ascii=False) + "\n")
        return
    if "teacher" in settings.origin:
        path.unlink(missing_ok=True)
    elif path.exists():
        from potstill.datagen.teachers.own import given_again

        raise given_again(str(json.loads(path.read_text(encoding="utf-8"))["teacher"]), folder)


def _call(task: str | Path, out: str | Path | None, settings: Mapping[str, Any], functions: Sequence[str]) -> str:
    """The call of `run` that goes on, for a run that was begun in Python; keys in teachers' URLs are masked.

    `functions` names the arguments that hold some, which no text can give again.
    """
    given = {} if out is None else {"out": str(out)}
    given |= {key: value for key, value in settings.items() if value is not None}
    own = given.pop("teacher") if not isinstance(given.get("teacher", ""), str) else None
    words = [f"{key}={value!r}" for key, value in masked(given).items()]
    words += ["teacher=..."] if own is not None else []
    words += [f"{name}=..." for name in functions]
    return f"potstill.run({', '.join([repr(masked(str(task))), *words])})"


def open_checker(
    settings: Settings, ledger: Ledger, listener: Listener, meter: Meter | None = None
) -> AbstractContextManager[Asker | None]:
    """An asker of the teacher of `quality.teacher`, as `open_asker` gives one; None where the run's own checks."""
    return _open_other(settings.checking, ledger, listener, meter)


def open_answerer(
    settings: Settings, ledger: Ledger, listener: Listener, meter: Meter | None = None
) -> AbstractContextManager[Asker | None]:
    """An asker of the teacher of `generation.output_teacher`, likewise; None where the run's own answers."""
    return _open_other(settings.answering, ledger, listener, meter)


@contextlib.contextmanager
def _open_other(
    settings: Settings | None, ledger: Ledger, listener: Listener, meter: Meter | None
) -> Iterator[Asker | None]:
    if settings is None:
        yield None
        return
    with open_asker(settings, ledger, listener, meter) as asker:
        yield asker


@contextlib.contextmanager
def open_asker(settings: Settings, ledger: Ledger, listener: Listener, meter: Meter | None = None) -> Iterator[Asker]:
    """An asker of a run; a second one spends by the first one's meter.

    Backends load their model at the first request, so a finished run opens none.
    """
    from potstill.asking.asker import Asker
    from potstill.asking.budget import Budget
    from potstill.datagen.teachers import open_teacher

    extra = {**settings.teacher_options, **({"concurrency": settings.concurrency} if settings.concurrency else {})}

    def notice(text: str) -> None:
        listener(Event("teacher", "note", text))

    if settings.executor == "ray":
        from potstill.datagen.teachers.ray_cluster import RayTeacher

        teacher: Teacher = RayTeacher(settings.teacher, settings.ray, notice=notice, **extra)
    elif settings.executor == "workers":
        from potstill.datagen.teachers.workers import WorkersTeacher

        folder = ledger.path.parent
        teacher = WorkersTeacher(settings.teacher, settings.workers, folder=folder, notice=notice, **extra)
    elif settings.given is not None:
        from potstill.datagen.teachers.own import open_own

        teacher = open_own(settings.given, extra)
    else:
        teacher = open_teacher(settings.teacher, **extra)
    budget = replace(Budget.parse(settings.budget), then=settings.at_budget) if settings.budget else None
    try:
        yield Asker(teacher, ledger, budget=budget, meter=meter, listener=listener)
    finally:
        if teacher is not settings.given:  # which is its owner's to close
            teacher.close()
