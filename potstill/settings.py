"""Everything that a run can be told, resolved from the task file, the command line and keyword arguments.

Precedence, lowest first: defaults of each stage's options, the task file's front matter, what the caller passed.
`resolve` gathers all faults into one message and remembers where each value came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from potstill.asking.budget import Budget, Then
from potstill.datagen.generate import GenerationOptions
from potstill.datagen.merge import MergeOptions
from potstill.datagen.quality import QualityOptions
from potstill.datagen.rationale_options import RationaleOptions
from potstill.datagen.soft_options import SoftOptions
from potstill.datagen.teachers import options_class
from potstill.datagen.teachers.own import own_name
from potstill.datagen.teachers.ray_cluster import RayOptions
from potstill.datagen.teachers.workers import WorkersOptions
from potstill.datagen.weak import WeakOptions
from potstill.errors import BadOptions, OptionError, OptionFault
from potstill.masking import masked
from potstill.options import LARGEST_SEED, as_json, build_options, nearest, option_groups
from potstill.retrieval.retrieve import RetrievalOptions
from potstill.task.option_places import place_of
from potstill.train.compress.options import CompressOptions
from potstill.train.options import DistilOptions
from potstill.train.self_training import SelfTrainingOptions

if TYPE_CHECKING:
    from potstill.task.file import Check, TaskFile

Sources = Literal["both", "retrieved", "generated", "labelled"]
Executor = Literal["local", "workers", "ray"]
STAGES = {
    "retrieval": RetrievalOptions,
    "generation": GenerationOptions,
    "quality": QualityOptions,
    "weak": WeakOptions,
    "soft": SoftOptions,
    "merge": MergeOptions,
    "rationales": RationaleOptions,
    "distil": DistilOptions,
    "self_training": SelfTrainingOptions,
    "compress": CompressOptions,
}


@dataclass(frozen=True)
class EvaluateOptions:
    """How the student is measured.

    Attributes:
        rows: Most test rows to use; more are sampled down with the run's seed. 0 uses all.
        teacher: Whether the teacher is measured on the same rows.
        latency_rows: Single inputs that are timed, after a warm-up.
    """

    rows: int = 1000
    teacher: bool = True
    latency_rows: int = 50

    def __post_init__(self) -> None:
        faults = [
            OptionFault(f"{name} must be at least 0 (got {value})", name)
            for name, value in (("rows", self.rows), ("latency_rows", self.latency_rows))
            if value < 0
        ]
        if faults:
            raise BadOptions(faults)


@dataclass(frozen=True)
class Settings:
    """The resolved settings of one run.

    Attributes:
        teacher: `transformers[:MODEL]`, `vllm:MODEL`, `openai:URL#MODEL` or `fake`; `python:NAME` of one that was
            given as an object.
        encoder: Sentence encoder for retrieval and near-duplicates.
        sources: Train on retrieved rows, generated rows, both, or neither: on the user's `labelled` rows alone, with
            `unlabelled` texts where there are some. Labelled rows are learnt from with each of them.
        seed: Decides every draw of the run.
        budget: Cap such as `2usd`, `500k-tokens` or `30min`; None for no cap.
        at_budget: What follows when the budget is met: `stop` ends the run, `train` goes on with the rows that are paid
            for; checks and soft targets that cannot be paid are left out, and the report says so.
        concurrency: Requests in flight; 0 leaves it to the backend. With another executor than `local`, of each worker.
        teacher_options: Options of the teacher's backend, such as `max_model_len` of vLLM or `timeout_s` of a server:
            the fields of `LocalOptions`, `VllmOptions`, `OpenAIOptions`, `FakeOptions` or `FunctionOptions`.
        executor: Where the teacher runs: `local` in this process, `workers` in processes that join the run from any
            machine (`potstill work`), or `ray` in workers of a Ray cluster.
        origin: For each value that is not a default, `task file` or `caller`.
        given: The teacher itself, where the caller gave a function or an object in place of a name
            (`datagen.teachers.own`); None where it is named.
    """

    teacher: str = "transformers"
    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    sources: Sources = "both"
    seed: int = 0
    budget: str | None = None
    at_budget: Then = "stop"
    concurrency: int = 0
    executor: Executor = "local"
    teacher_options: Mapping[str, Any] = field(default_factory=dict)
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)
    quality: QualityOptions = field(default_factory=QualityOptions)
    weak: WeakOptions = field(default_factory=WeakOptions)
    soft: SoftOptions = field(default_factory=SoftOptions)
    merge: MergeOptions = field(default_factory=MergeOptions)
    rationales: RationaleOptions = field(default_factory=RationaleOptions)
    distil: DistilOptions = field(default_factory=DistilOptions)
    self_training: SelfTrainingOptions = field(default_factory=SelfTrainingOptions)
    compress: CompressOptions = field(default_factory=CompressOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    workers: WorkersOptions = field(default_factory=WorkersOptions)
    ray: RayOptions = field(default_factory=RayOptions)
    origin: Mapping[str, str] = field(default_factory=dict)
    given: Any = field(default=None, repr=False, compare=False)

    @property
    def retrieves(self) -> bool:
        """Whether datasets are searched for rows."""
        return self.sources in ("both", "retrieved")

    @property
    def writes(self) -> bool:
        """Whether the teacher writes rows."""
        return self.sources in ("both", "generated")

    @property
    def checking(self) -> Settings | None:
        """The settings of the teacher that `quality.teacher` names; None where the run's own checks, or none does."""
        quality = self.quality
        if not (self.writes and quality.on and quality.teacher):
            return None
        return self._of(quality.teacher, quality.teacher_options)

    @property
    def answering(self) -> Settings | None:
        """The settings of the teacher that `generation.output_teacher` names; None where the run's own answers."""
        generation = self.generation
        if not generation.output_teacher:
            return None
        return self._of(generation.output_teacher, generation.output_teacher_options)

    @property
    def answers_by(self) -> str:
        """The teacher whose outputs a student that writes texts learns, as `teacher` names it."""
        return self.generation.output_teacher or self.teacher

    def _of(self, teacher: str, options: Mapping[str, Any]) -> Settings:
        """The settings of another teacher.

        A server runs elsewhere already and needs no workers, whatever `executor` says; processes that join a run open
        its teacher alone, so that another one answers in the run's own process.
        """
        served = _backend(teacher) == "openai"
        return replace(
            self,
            teacher=teacher,
            given=None,
            teacher_options=options,
            executor="ray" if self.executor == "ray" and not served else "local",
            concurrency=0 if "concurrency" in options else self.concurrency,
        )

    @property
    def asking_ahead(self) -> Settings:
        """The settings for a few questions ahead of a run: without a budget, and no worker is waited for."""
        return replace(self, budget=None, executor="local" if self.executor == "workers" else self.executor)

    def to_json(self) -> dict[str, Any]:
        """The resolved values as JSON types, the keys in teachers' URLs masked."""
        plain = dict(masked(as_json(replace(self, given=None))))
        del plain["given"]
        return plain


def read_with_settings(task: str | Path, given: Mapping[str, Any]) -> tuple[TaskFile, Settings]:
    """A task as a draft, and what a run of it is told.

    Args:
        task: A prompt, or the path of a task file.
        given: What the caller says; wins over the file.

    Raises:
        TaskError: Every fault of the file, those of its settings and options included, with their lines.
        OptionError: Every fault of what the caller said.
    """
    from potstill.task.file import read_task_file

    found = read_task_file(task, draft=True, check=file_check(given))
    return found, resolve({**found.settings, **found.options}, given)


def file_check(given: Mapping[str, Any]) -> Check:
    """A `check` for `read_task_file`: the faults of a file's settings and options beside what the caller says.

    With a fault of the file come those of the caller; alone they are left to `resolve`.
    """

    def check(of_file: Mapping[str, Any], lines: Mapping[str, int]) -> list[tuple[int, str]]:
        try:
            resolve(of_file, given)
        except OptionError as error:
            placed = [(_line_of(getattr(fault, "place", ()), lines, given), fault) for fault in error.faults]
            return placed if any(line for line, _ in placed) else []
        return []

    return check


def _line_of(place: Sequence[str], lines: Mapping[str, int], given: Mapping[str, Any]) -> int:
    """The line of a task file that a fault at a place is about; 0 where the caller said it, or there is no place."""
    if not place:
        return 0
    stage, *rest = place
    by_caller = given.get(stage)
    if isinstance(by_caller, Mapping):
        return 0 if not rest or rest[0] in by_caller else lines.get(f"{stage}.{rest[0]}", 0)
    if by_caller is not None:
        return 0
    return lines.get(f"{stage}.{rest[0]}" if rest else stage, lines.get(stage, 0))


_SHORT = {"n": ("generation", "rows"), "rows": ("generation", "rows"), "student": ("distil", "student")}
_PLAIN = ("teacher", "encoder", "sources", "seed", "budget", "at_budget", "concurrency", "executor")
# Stages that may have a teacher of their own, and the option that names it; its own options are NAME_options.
_OTHER_TEACHERS = (("quality", "teacher"), ("generation", "output_teacher"))
# Plain settings that are numbers, with the least that each may be, and those that are one of a few words.
_WHOLE = {"n": 1, "rows": 1, "seed": 0, "concurrency": 0}
_CHOICES: dict[str, tuple[str, ...]] = {"sources": get_args(Sources), "executor": get_args(Executor),
                                        "at_budget": get_args(Then)}  # fmt: skip
_NESTED: dict[str, type[Any]] = {**STAGES, "evaluate": EvaluateOptions, "workers": WorkersOptions,
                                 "ray": RayOptions}  # fmt: skip


def resolve(from_file: Mapping[str, Any], from_caller: Mapping[str, Any]) -> Settings:
    """Merge what the task file and the caller said over the defaults.

    Args:
        from_file: Front matter of the task file: plain settings and one mapping a stage.
        from_caller: The same shape, from the command line or keyword arguments; wins. A teacher of another backend
            leaves the file's `teacher_options` out, which are not for it. Its `teacher` may be a function or an object.

    Raises:
        OptionError: Every unknown key and impossible value of both, in one message.
    """
    values: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {name: {} for name in (*_NESTED, "teacher_options")}
    origin: dict[str, str] = {}
    faults: list[str] = []
    own = from_caller.get("teacher")
    own = None if isinstance(own, str) else own
    if own is not None:
        from_caller = {**from_caller, "teacher": _named(own, from_caller, faults)}
    asked = from_caller.get("teacher")
    if _backend(asked) not in (None, _backend(from_file.get("teacher")) or _backend(Settings.teacher)):
        from_file = _without(from_file, "teacher_options")
    for stage, name in _OTHER_TEACHERS:
        of_file = from_file.get(stage)
        if isinstance(of_file, Mapping) and _asks_another(of_file, from_caller.get(stage), name):
            from_file = {**from_file, stage: _without(of_file, f"{name}_options")}
    for where, given in (("task file", from_file), ("caller", from_caller)):
        for key, value in given.items():
            if value is None:
                continue
            if fault := _plain_fault(key, value):
                faults.append(OptionFault(fault, key))
                continue
            if key in _WHOLE:
                value = int(value)  # numpy's numbers are whole too
            if key in _SHORT:
                stage, option = _SHORT[key]
                nested[stage][option] = value
                origin[f"{stage}.{option}"] = where
            elif key in _PLAIN:
                values[key] = value
                origin[key] = where
            elif key in nested:
                if not isinstance(value, Mapping):
                    faults.append(OptionFault(f"{key}: a mapping of options is needed (got {value!r})", key))
                    continue
                groups = {f"{name}_options" for _, name in _OTHER_TEACHERS}
                groups |= set(option_groups(_NESTED[key]) if key in _NESTED else ())
                nested[key] |= {option: _joined(nested[key].get(option), said, option in groups)
                                for option, said in value.items()}  # fmt: skip
                origin.update({f"{key}.{option}": where for option in value})
            else:
                hint = nearest(key, [*_PLAIN, *_SHORT, *nested])
                if (place := place_of(key)) is not None:
                    hint = f"; did you mean {place[0]}={{{place[1]!r}: {value!r}}}?"
                faults.append(OptionFault(f"{key}: no such setting{hint}", key))
    seed = values.get("seed", 0)
    for name, cls in _NESTED.items():
        if any(f.name == "seed" for f in fields(cls)):
            nested[name].setdefault("seed", seed)
        try:
            values[name] = build_options(cls, nested[name], name)
        except OptionError as error:
            faults.extend(error.faults)
    values["teacher_options"] = nested["teacher_options"]
    for what, ref, options in (
        ("teacher", values.get("teacher", Settings.teacher), nested["teacher_options"]),
        *(
            (f"{stage}.{name}", nested[stage].get(name), nested[stage].get(f"{name}_options", {}))
            for stage, name in _OTHER_TEACHERS
        ),
    ):
        if what == "teacher" and own is not None:
            continue
        if ref and isinstance(ref, str) and isinstance(options, Mapping):
            try:
                build_options(options_class(ref), options, f"{what}_options")
            except OptionError as error:
                at = what.split(".")
                faults.extend(
                    OptionFault(f"{what}: {fault}", *at) if error.where == "teacher" else fault
                    for fault in error.faults
                )
    if faults:
        raise OptionError("options", faults)
    return replace(build_options(Settings, {}, "settings"), **values, origin=origin, given=own)


def _named(given: Any, from_caller: Mapping[str, Any], faults: list[str]) -> str | None:
    """What a teacher is called that the caller gave as a function or an object; None, and why, where it is none."""
    options = from_caller.get("teacher_options") or {}
    if not isinstance(options, Mapping):  # told with the other settings
        options = {}
    if (executor := from_caller.get("executor")) in ("workers", "ray"):
        faults.append(
            OptionFault(
                f"executor: {executor} opens engines of its own, and a teacher in Python runs here; leave executor out",
                "executor",
            )
        )
    at_once = from_caller.get("concurrency")
    try:
        return own_name(given, {**options, **({"concurrency": at_once} if at_once else {})})
    except OptionError as error:
        faults.extend(OptionFault(f"teacher: {fault}", "teacher") for fault in error.faults)
        return None


def _plain_fault(key: str, value: Any) -> str:
    """What is wrong with a plain setting, or ""."""
    if key in _WHOLE:
        least = _WHOLE[key]
        if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
            return f"{key}: a whole number of {least} or more is needed (got {value!r})"
        if key == "seed" and int(value) > LARGEST_SEED:
            return f"seed: a whole number up to {LARGEST_SEED:,} is needed (got {value!r})"
    elif key in _CHOICES:
        if value not in _CHOICES[key]:
            return f"{key}: {value!r} is none of {', '.join(_CHOICES[key])}"
    elif key in (*_PLAIN, *_SHORT):
        if not isinstance(value, str) or not value.strip():
            return f"{key}: a text is needed (got {value!r})"
        if key == "budget":
            try:
                Budget.parse(value)
            except OptionError as error:
                return "; ".join(error.faults)
    return ""


def _joined(before: Any, said: Any, is_group: bool) -> Any:
    """What is said of an option over what was said before: of a group of options each by itself."""
    joins = is_group and isinstance(before, Mapping) and isinstance(said, Mapping)
    return {**before, **said} if joins else said


def _asks_another(of_file: Mapping[str, Any], of_caller: Any, name: str) -> bool:
    """Whether the caller has a stage's own teacher be one of another backend than the task file."""
    return isinstance(of_caller, Mapping) and _backend(of_caller.get(name)) not in (None, _backend(of_file.get(name)))


def _without(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != name}


def _backend(teacher: Any) -> str | None:
    """The backend of a teacher that somebody named; None where nobody did."""
    return str(teacher).partition(":")[0].strip() if teacher else None
