"""Each setting that can change what a run leaves is in some stage's key."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import TypeAdapter

from potstill.errors import OptionError
from potstill.events import silent
from potstill.options import as_json
from potstill.run_dir import RunDir, Stage, digest
from potstill.settings import Settings, resolve
from potstill.stages.job import Job
from potstill.stages.optional import compress_stage
from potstill.stages.rationales import rationale_stage
from potstill.stages.rules import weak_stage
from potstill.stages.written import quality_stage
from potstill.task import Example, TaskSpec
from potstill.task.file import read_task_file

SORTS = "---\nlabels: [billing, bug]\nlabel_prior: estimate\nunlabelled: texts.txt\n---\nClassify support tickets.\n"
WRITES = "---\nkind: generation\n---\nSay the sentence more politely.\n"
# What changes no output: how much is asked at a time, by whom of equals, when to stop, and what is kept besides.
IDLE = {
    *("budget", "at_budget", "concurrency", "executor", "origin", "compress.keep_steps"),
    "given",  # a teacher in Python stands in keys by its identity, as one that is named
    # Where they change replies, the teacher's identity is another.
    *("teacher_options", "quality.teacher_options", "generation.output_teacher_options"),
    *(f"{name}.{field.name}" for name in ("workers", "ray") for field in dataclasses.fields(getattr(Settings(), name))),
}


class KeysAlone(Job):
    """A job that makes no stage and remembers each one's key."""

    keys: typing.ClassVar[dict[str, str]] = {}

    def make_stage(self, name: str, parts: Any, make: Any, asker: Any = None, again: Any = None) -> Stage:
        """The key, nothing else."""
        self.keys[name] = digest({"stage": name, **parts})
        return _stage(name)


def _stage(name: str) -> Stage:
    return Stage(name, Path("nowhere") / name, "key", "output", True, 0.0, {})


def keys(settings: Settings, spec: TaskSpec, folder: Path) -> dict[str, str]:
    """The key of each stage that a run with these settings has, its inputs being what they were."""

    def asker(ref: str) -> Any:
        teacher = SimpleNamespace(concurrency=4, name=ref, identity={"name": ref})
        return SimpleNamespace(teacher=teacher, identity={"name": ref}, meter=None)

    KeysAlone.keys = {}
    checker = asker(settings.quality.teacher) if settings.quality.teacher else None
    answerer = asker(settings.generation.output_teacher) if settings.generation.output_teacher else None
    run: Any = RunDir(folder / "run")
    none: Any = None
    job = KeysAlone(run, spec, settings, none, asker(settings.teacher), silent, checker, answerer=answerer)
    retrieved, made = job.retrieval(), _stage("datagen")
    job.datagen(retrieved)
    quality_stage(job, made)
    weak = weak_stage(job)
    merged = job.merge(retrieved, made, weak)
    soft = job.soft(merged, made)
    trained = job.train(soft, merged, weak, rationale_stage(job, soft))
    job.evaluate(trained, soft, merged, compress_stage(job, trained, soft, merged))
    return dict(KeysAlone.keys)


def leaves(options: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each leaf by its dotted name, with its value and its type."""
    hints = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{where}{field.name}.")
        else:
            yield f"{where}{field.name}", value, hints[field.name]


def others(value: Any, hint: Any) -> Iterator[Any]:
    """Values that a leaf of this type might take, the likeliest first."""
    choices = [hint, *typing.get_args(hint)]
    yield from (item for choice in choices if typing.get_origin(choice) is typing.Literal
                for item in typing.get_args(choice))  # fmt: skip
    if isinstance(value, bool) or hint is bool:
        yield not value
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield from (value + 1, value / 2, value - 1, value + 0.25, 2, 0.5, 0)
    yield from (0.5, 0.25, 1, 2, 3, 64, "x", "int4", ("x",), ("lora",), ("onnx",), (0,), (0, 2), {"generated": 0.5},
                {"x": 1.0}, ((0, 0),), (f"someone/rows@{'0' * 40}",))  # fmt: skip


def changed(options: Any, name: str, value: Any) -> Any:
    """The options with one leaf another; raises what the dataclasses raise."""
    first, _, rest = name.partition(".")
    return replace(options, **{first: changed(getattr(options, first), rest, value) if rest else value})


def with_another(base: Settings, name: str, value: Any, hint: Any) -> Iterator[Settings]:
    """The settings with the leaf at each value that they allow."""
    for other in others(value, hint):
        try:
            taken = TypeAdapter(hint).validate_python(other)
            found = changed(base, name, taken)
        except (ValueError, OptionError):  # of another type, or out of range
            continue
        if taken != value:
            yield found


@pytest.fixture
def runs(tmp_path: Path) -> list[tuple[TaskSpec, Settings]]:
    """Tasks and settings that have every stage between them."""
    (tmp_path / "texts.txt").write_text("\n".join(f"text number {i}" for i in range(30)))
    found = []
    for name, text in {"sorts": SORTS, "writes": WRITES, "explains": WRITES}.items():
        (tmp_path / f"{name}.md").write_text(text)
        spec = read_task_file(str(tmp_path / f"{name}.md"), draft=True).spec
        given: dict[str, Any] = {"teacher": "fake", "quality": {"votes": 3}, "compress": {"recipe": "int8"}}
        if name == "writes":
            given["distil"] = {"on_policy": 0.5, "teacher": "someone/large", "lora_rank": 4}
        if name == "explains":
            given["distil"] = {"rationale_weight": 1.0, "lora_rank": 8}
        found.append((spec, resolve({}, given)))
    return found


def test_every_setting_that_changes_an_output_is_in_a_key(
    runs: list[tuple[TaskSpec, Settings]], tmp_path: Path
) -> None:
    before = [keys(settings, spec, tmp_path) for spec, settings in runs]
    assert set(before[0]) == {
        "retrieval",
        "datagen",
        "quality",
        "weak",
        "merge",
        "soft",
        "train",
        "compress",
        "evaluate",
    }
    silent_ones, looked_at = [], 0
    for name, value, hint in leaves(runs[0][1]):
        if name.split(".")[0] in IDLE or name in IDLE:
            continue
        looked_at += 1
        tried = 0
        for (spec, base), old in zip(runs, before, strict=True):
            for other in with_another(base, name, value, hint):
                tried += 1
                if keys(other, spec, tmp_path) != old:
                    break
            else:
                continue
            break
        else:
            silent_ones.append(f"{name} ({tried} other values tried)")
    assert looked_at > 100
    assert silent_ones == []


def test_what_the_user_says_of_a_label_is_asked_with_in_every_stage_that_asks(
    runs: list[tuple[TaskSpec, Settings]], tmp_path: Path
) -> None:
    spec, settings = runs[0]
    before = keys(settings, spec, tmp_path)
    described = replace(spec, labels=(replace(spec.labels[0], description="money matters"), *spec.labels[1:]))
    shown = replace(spec, examples=(Example("Where is my refund?", "billing"),))
    for other in (described, shown):
        after = keys(settings, other, tmp_path)
        assert all(after[stage] != before[stage] for stage in ("quality", "soft", "evaluate"))


def test_a_seed_decides_where_the_stages_seeds_are_pinned(
    runs: list[tuple[TaskSpec, Settings]], tmp_path: Path
) -> None:
    spec, base = runs[0]
    old, new = keys(base, spec, tmp_path), keys(replace(base, seed=7), spec, tmp_path)
    assert {name for name in old if old[name] != new[name]} == {"soft", "train", "evaluate"}


def test_texts_are_learnt_from_anew_where_the_guard_against_test_texts_is_another(
    runs: list[tuple[TaskSpec, Settings]], tmp_path: Path
) -> None:
    spec, base = runs[0]
    old, new = keys(base, spec, tmp_path), keys(changed(base, "merge.test_near", 0.3), spec, tmp_path)
    assert {name for name in old if old[name] != new[name]} == {"merge", "train"}


def test_the_teacher_of_the_outputs_is_in_the_key_of_each_stage_that_asks_it(
    runs: list[tuple[TaskSpec, Settings]], tmp_path: Path
) -> None:
    spec, base = runs[2]
    old, new = keys(base, spec, tmp_path), keys(changed(base, "generation.output_teacher", "x"), spec, tmp_path)
    assert {name for name in old if old[name] != new[name]} == {"datagen", "quality", "soft", "rationales", "evaluate"}


def test_a_weight_alone_asks_for_no_reasoning_again(runs: list[tuple[TaskSpec, Settings]], tmp_path: Path) -> None:
    spec, base = runs[2]
    old, new = keys(base, spec, tmp_path), keys(changed(base, "distil.rationale_weight", 0.5), spec, tmp_path)
    assert {name for name in old if old[name] != new[name]} == {"train"}


@pytest.mark.parametrize(
    ("setting", "stage", "which"),
    [("distil.teacher", "train", 1), ("distil.teacher_tokenizer", "train", 1), ("compress.teacher", "compress", 0),
     ("teacher", "train", 1)],
)  # fmt: skip
def test_other_weights_in_a_teachers_folder_are_another_teacher(
    runs: list[tuple[TaskSpec, Settings]], tmp_path: Path, setting: str, stage: str, which: int
) -> None:
    spec, base = runs[which]
    folder = tmp_path / "teacher"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    if setting == "teacher":
        base = changed(replace(base, teacher=f"transformers:{folder}"), "distil.teacher", None)
    else:
        base = changed(base, setting, str(folder))

    def key(weights: bytes) -> str:
        (folder / "model.safetensors").write_bytes(weights * 9000)
        return keys(base, spec, tmp_path)[stage]

    assert key(b"a") == key(b"a") != key(b"b")


def test_what_keeps_steps_changes_no_student(runs: list[tuple[TaskSpec, Settings]], tmp_path: Path) -> None:
    spec, base = runs[0]
    assert as_json(base)["compress"]["keep_steps"] != as_json(changed(base, "compress.keep_steps", True))["compress"]
    assert keys(changed(base, "compress.keep_steps", True), spec, tmp_path) == keys(base, spec, tmp_path)


def test_other_personas_in_the_file_are_other_rows(runs: list[tuple[TaskSpec, Settings]], tmp_path: Path) -> None:
    spec, base = runs[-1]
    path = tmp_path / "personas.txt"
    path.write_text("a night porter\n")
    settings = replace(base, generation=replace(base.generation, personas=str(path)))
    before = keys(settings, spec, tmp_path)
    path.write_text("a day porter\n")
    after = keys(settings, spec, tmp_path)
    assert {name for name in before if before[name] != after[name]} >= {"datagen"}
