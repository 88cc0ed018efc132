"""A recipe from its first step to files and report; each finished step rests on disk.

    open the student → check all steps → original measured → (step → verified → stored → measured)* → files → measured

What enters: the folder of a trained student (only read) and what to look at. What leaves: the compressed student's
folder, which `load_student` opens, and the report. Beside it, while the work goes on, `OUT.steps/` holds every finished
step under a name that has its content's hash; a killed run goes on after the last one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from potstill.errors import OptionError, PotstillError
from potstill.events import Event, Listener, silent
from potstill.models import local_model, model_identity
from potstill.options import as_json
from potstill.run_dir import digest, write_atomic
from potstill.task import TaskSpec
from potstill.train.card import weights_mib
from potstill.train.compress.files import best_format, check_formats, write_files
from potstill.train.compress.foresee import refuse_formats
from potstill.train.compress.measure import count_weights, timed
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.place import check_place, held
from potstill.train.compress.recipe import Recipe, Step, check_recipe, parse_recipe
from potstill.train.compress.scores import EXAMINED, Examiner
from potstill.train.compress.state import Compressed, load_state, open_source, save_state, source_name
from potstill.train.compress.steps import Helpers, run_step, scheme_of
from potstill.train.compress.teacher import check_teacher
from potstill.train.compress.texts import calibration
from potstill.train.compress.verify import verify_reload, verify_step
from potstill.train.early import early_faults, early_weights
from potstill.train.prune.anatomy import anatomy
from potstill.train.prune.cut import can_cut_heads
from potstill.train.prune.depth import layers_that_can_go
from potstill.train.quantize.schemes import Scheme, layer_list

if TYPE_CHECKING:
    from datasets import Dataset

REPORT = "report.json"
_TIMED = ("latency_ms", "first_token_ms", "latency_ratio", "first_token_ratio", "original")


@dataclass(frozen=True)
class Material:
    """What a compression looks at and is measured on.

    Attributes:
        texts: Inputs like those that the student meets, or running text for a bare decoder.
        answers: The label's name or the answer of each text; None for running text.
        spec: The task; None for a bare decoder.
        test: Gold rows; None, or a table of no rows, measures no score.
        held_out: Running text that perplexity is measured on (decoders).
        learnt: The rows that the student was trained on, as they were then; None where they are unknown.
    """

    texts: tuple[str, ...] = ()
    answers: tuple[str, ...] | None = None
    spec: TaskSpec | None = None
    test: Dataset | None = None
    held_out: tuple[str, ...] = ()
    learnt: Dataset | None = None

    @cached_property
    def looked_at(self) -> str:
        """Digest of what methods look at."""
        return digest([list(self.texts), list(self.answers or ()), self.answers is None])

    @cached_property
    def measured_on(self) -> str:
        """Digest of what scores and perplexities are measured on."""
        rows = [] if self.test is None else [self.test["input"][:], self.test["output"][:]]
        return digest([None if self.spec is None else self.spec.to_json(), rows, list(self.held_out)])


@dataclass(frozen=True)
class CompressResult:
    """A compressed student.

    Attributes:
        path: Its folder, which `load_student` opens; of a zoo with no recipe within the limits, the folder of them all.
        report: What each step did and gave; JSON types, as in `report.json`.
        more: Folders of the other formats by name.
    """

    path: Path
    report: dict[str, Any]
    more: Mapping[str, Path] = field(default_factory=dict)


def compress_student(
    source: Path | str,
    recipe: str | Recipe | list[Any],
    out: Path,
    material: Material,
    options: CompressOptions | None = None,
    *,
    listener: Listener = silent,
) -> CompressResult:
    """Compress a student.

    Args:
        source: Its folder, or a model's name.
        recipe: The steps.
        out: Folder of the compressed student.
        material: What methods look at, and what is measured on.
        options: Formats and measurements.
        listener: Progress.

    Raises:
        OptionError: A recipe, format or student that do not go together; before any work.
        UserError: A build of model that a step cannot handle; before any work, too.
        DataError: The student or the rows cannot be read.
        TrainingError: A step did not do what was asked, or healing was not finite; finished steps stay.
        MissingExtra: A library of a format is not installed.
        RunLocked: Another process compresses into the same folder.
    """
    options = options or CompressOptions()
    steps = recipe if isinstance(recipe, Recipe) else parse_recipe(recipe)
    check_formats(options.formats)
    check_place(out, local_model(str(source)))
    state = open_source(source)
    layer_list(state.model)
    work = _Work(source, steps, out, material, options, listener)
    return work.run(state)


class _Work:
    """One compression under way."""

    def __init__(
        self, source: Path | str, recipe: Recipe, out: Path, material: Material, options: CompressOptions,
        listener: Listener,
    ):  # fmt: skip
        self.source, self.recipe, self.out, self.material = source, recipe, out, material
        self.options, self.listener = options, listener
        self.place = out.with_name(f"{out.name}.steps")

    def run(self, state: Compressed) -> CompressResult:
        """Every step, the files, the report."""
        helpers = self._helpers(state)
        named = any(step.about.parts for step in self.recipe.steps)
        parts = anatomy(state.model) if named else None
        check_recipe(
            self.recipe, kind=state.kind, tokens=helpers.calibration.tokens or None,
            cuts_heads=None if parts is None else can_cut_heads(parts),
            units=None if parts is None else {"layers": layers_that_can_go(parts), "neurons": parts.neurons},
        )  # fmt: skip
        self._check_rewinding(state)
        if self.options.teacher is not None:
            check_teacher(state, self.options.teacher)
        refuse_formats(state, self.recipe, self.options.formats)
        examiner = Examiner(state, self.material, self.options, self.listener)
        self.place.mkdir(parents=True, exist_ok=True)
        with held(self.place):  # two processes would delete each other's steps
            return self._steps(state, helpers, examiner)

    def _steps(self, state: Compressed, helpers: Helpers, examiner: Examiner) -> CompressResult:
        original = self._original(state, examiner)
        examiner.remember_original(original)
        entries = [original]
        scheme: Scheme | None = None
        state, done = self._resume(state, entries, examiner)
        for index, step in enumerate(self.recipe.steps):
            scheme = scheme_of(step) or scheme
            if index < done:
                continue
            state = self._one(index, step, scheme, state, helpers, examiner, entries)
        return self._finish(state, examiner, entries)

    def _helpers(self, state: Compressed) -> Helpers:
        look = self.options.calibration_tokens, self.options.heal_tokens
        first, second = (
            calibration(state, self.material.texts, self.material.answers, tokens=tokens, length=self.options.window)
            for tokens in look
        )
        loaded: list[Any] = []

        def teacher() -> Any:
            """Whom healing listens to."""
            if not loaded:
                loaded.append(open_source(self.options.teacher or self.source).model)
            return loaded[0]

        def early(share: float) -> Mapping[str, torch.Tensor]:
            """The student early in its training."""
            assert self.material.spec is not None
            assert self.material.learnt is not None

            def told(event: Event) -> None:
                what = f"training anew to {share:.0%}: {event.message}"
                self.listener(replace(event, stage="compress", message=what))

            folder = Path(local_model(str(self.source)))
            return early_weights(folder, self.material.spec, self.material.learnt, share, listener=told)

        return Helpers(first, second, teacher, early)

    def _check_rewinding(self, state: Compressed) -> None:
        """Refuse to go back to early weights that cannot be made."""
        for step in self.recipe.steps:
            if step.options.get("rewind") is not None:
                folder = Path(local_model(str(self.source)))
                faults = early_faults(folder, self.material.spec, self.material.learnt, state.tokenizer)
                if faults:
                    raise OptionError("recipe", [f"{step}: {fault}; leave out rewind" for fault in faults])

    def _key(self, steps: tuple[Step, ...]) -> str:
        teacher = self.options.teacher
        material = [self.material.looked_at, teacher and model_identity(str(teacher))]
        numbers = [getattr(self.options, name) for name in ("calibration_tokens", "heal_tokens", "window", "seed")]
        return digest([model_identity(str(self.source)), [str(step) for step in steps], material, numbers])[:12]

    def _folder(self, index: int) -> Path:
        name = self.recipe.steps[index].method
        return self.place / f"{index + 1}-{name}-{self._key(self.recipe.steps[: index + 1])}"

    def _original(self, state: Compressed, examiner: Examiner) -> dict[str, Any]:
        cached = self.place / f"original-{self._key(())}-{examiner.key}.json"
        if cached.exists():
            found: dict[str, Any] = json.loads(cached.read_text("utf-8"))
            return found
        self.listener(Event("compress", "progress", "measuring the original"))
        folder = Path(local_model(str(self.source)))
        entry = {"step": "original", "kind": "original", "seconds": 0.0, **self._counts(state, folder)}
        entry |= examiner.examine(state)
        write_atomic(cached, json.dumps(entry))
        return entry

    def _noted(self, folder: Path, state: Compressed, examiner: Examiner) -> dict[str, Any]:
        """What a finished step noted; it is examined again where it was measured on something else."""
        entry: dict[str, Any] = json.loads((folder / "step.json").read_text("utf-8"))
        if entry.pop("examined", None) != examiner.key:
            student = load_state(folder)
            student.card = state.card
            entry = {name: value for name, value in entry.items() if name not in (*EXAMINED, *_TIMED)}
            entry |= examiner.examine(student) | self._speed(folder, examiner)
            write_atomic(folder / "step.json", json.dumps({**entry, "examined": examiner.key}, indent=1))
        return entry

    def _resume(self, state: Compressed, entries: list[dict[str, Any]], examiner: Examiner) -> tuple[Compressed, int]:
        """The student after the last finished step, and how many steps that were."""
        for done in range(len(self.recipe.steps), 0, -1):
            notes = [self._folder(i) / "step.json" for i in range(done)]
            if not all(note.exists() for note in notes):
                continue
            try:
                found = load_state(self._folder(done - 1))
            except PotstillError:
                shutil.rmtree(self._folder(done - 1))
                continue
            found.card = state.card
            entries += [self._noted(self._folder(i), state, examiner) for i in range(done)]
            self.listener(Event("compress", "note", f"{done} of {len(self.recipe.steps)} steps were done before"))
            return found, done
        return state, 0

    def _one(
        self, index: int, step: Step, scheme: Scheme | None, state: Compressed, helpers: Helpers, examiner: Examiner,
        entries: list[dict[str, Any]],
    ) -> Compressed:  # fmt: skip
        self.listener(Event("compress", "progress", f"{step}", index, len(self.recipe.steps)))
        before = self._counts(state, None)
        started = time.monotonic()
        torch.manual_seed(self.options.seed)
        facts = run_step(state, step, scheme, helpers, self.listener)
        seconds = time.monotonic() - started
        state.steps.append(str(step))
        after = self._counts(state, None)
        verify_step(state, step, before, after, scheme)
        folder = self._folder(index)
        save_state(state, folder)
        if step.kind == "structure" or step.method == "own":
            verify_reload(state, step, folder)
        entry = {"step": str(step), "kind": step.kind, "seconds": round(seconds, 2), "facts": facts}
        entry |= self._counts(state, folder) | examiner.examine(state)
        entry |= self._speed(folder, examiner)
        entries.append(entry)
        # Written last: a folder without it is a step that did not finish.
        write_atomic(folder / "step.json", json.dumps({**entry, "examined": examiner.key}, indent=1))
        return state

    def _counts(self, state: Compressed, folder: Path | None) -> dict[str, Any]:
        return count_weights(state, folder) | {"layers": len(layer_list(state.model))}

    def _speed(self, folder: Path, examiner: Examiner) -> dict[str, Any]:
        if self.options.speed != "all":
            return {}
        return self._timed([folder], examiner)[1][0]

    def _timed(self, folders: list[Path], examiner: Examiner) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        original = Path(local_model(str(self.source)))
        return timed(original, folders, examiner.probe_texts, threads=self.options.threads)

    def _finish(self, state: Compressed, examiner: Examiner, entries: list[dict[str, Any]]) -> CompressResult:
        forms = [best_format(state) if name == "auto" else name for name in self.options.formats]
        more: dict[str, Path] = {}
        places: list[Path] = []
        original, last = entries[0], entries[-1]
        for index, form in enumerate(dict.fromkeys(forms)):
            folder = self.out if index == 0 else self.out / "formats" / form
            self.listener(Event("compress", "progress", f"writing {form}"))
            write_files(state, folder, form)
            entry: dict[str, Any] = {"step": f"files: {form}", "kind": "files", "seconds": 0.0}
            entry |= {**self._counts(state, None), "size_mib": round(weights_mib(folder), 3)}
            entry["bits_per_parameter"] = round(entry["size_mib"] * 2**23 / entry["parameters"], 3)
            entry |= examiner.examine_files(folder, form, state, last)
            entries.append(entry)
            places.append(folder)
            if index:
                more[form] = folder
        if self.options.speed != "none":
            whole, files = self._timed(places, examiner)
            original |= whole
            for entry, found in zip(entries[-len(files) :], files, strict=True):
                entry |= found
        for entry in entries:
            entry |= ratios(entry, original)
        report = {
            "format": 1, "source": source_name(self.source), "recipe": str(self.recipe), "files": forms,
            "kind": state.kind,
            "metric": examiner.metric, "test_rows": examiner.rows, "text_tokens": examiner.text_tokens,
            "options": told_options(self.options, str(self.recipe)), "notes": _notes(self.recipe, forms, entries),
            "steps": entries,
        }  # fmt: skip
        write_atomic(self.out / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        if not self.options.keep_steps:
            shutil.rmtree(self.place)
        return CompressResult(self.out, report, more)


def ratios(entry: Mapping[str, Any], original: Mapping[str, Any]) -> dict[str, float]:
    """Size, score and perplexity of an entry over the original's; latencies were compared as they were measured."""
    found = {}
    for name in ("size_mib", "score", "perplexity"):
        if entry.get(name) is not None and original.get(name):
            found[f"{name.removesuffix('_mib')}_ratio"] = round(entry[name] / original[name], 5)
    return found


def told_options(options: CompressOptions, recipe: str) -> dict[str, Any]:
    """Options as the report shows them, without folders of this machine."""
    teacher = None if options.teacher is None else source_name(options.teacher)
    return as_json(replace(options, recipe=recipe, teacher=teacher))


def _notes(recipe: Recipe, forms: list[str], entries: list[dict[str, Any]]) -> list[str]:
    """What a reader of the report must know to read it right: of the whole, then of what each step cut or masked."""
    notes = []
    if any(step.kind == "sparsity" for step in recipe.steps):
        notes.append("zeros in tensors of the old size make no engine faster; only the packed files are smaller")
    rounds = any(step.kind == "quantize" and step.method not in ("bf16", "fp16") for step in recipe.steps)
    if "packed" in forms and rounds:  # a cast one is loaded as it was cast
        notes.append("packed files are unpacked when loaded: small on disk, no smaller or faster in memory")
    notes += [
        f"{step} is a step of the user's own: it was checked by what it left" for step in recipe.steps
        if step.method == "own"
    ]  # fmt: skip
    own = ((entry["step"], (entry.get("facts") or {}).get("note")) for entry in entries if entry["kind"] == "structure")
    return [*notes, *(f"{step}: {note}" for step, note in own if note)]
