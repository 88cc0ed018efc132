"""Self-Instruct's files and Alpaca's: read and written so that their other readers understand them.

seed_tasks.jsonl                      {id, name, instruction, instances: [{input, output}], is_classification}
machine_generated_instructions.jsonl  {instruction, most_similar, avg_similarity_score, metadata, request_idx}
all_generated_instances.jsonl         {instruction, input, output}
Alpaca                                one JSON list of {instruction, input, output}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from potstill.errors import DataError

_MAX_LINE = 1_000_000


@dataclass(frozen=True)
class Instance:
    """One input (empty where the task needs none) with its output."""

    input: str
    output: str


@dataclass(frozen=True)
class SeedTask:
    """A task with an instruction of its own and worked instances."""

    instruction: str
    instances: tuple[Instance, ...]
    is_classification: bool
    id: str = ""
    name: str = ""


@dataclass(frozen=True)
class Instructed:
    """One instance with its instruction, as in Alpaca's list and in `all_generated_instances.jsonl`."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True)
class Seeds:
    """Seed tasks, and the lines that were left out with the reason."""

    tasks: tuple[SeedTask, ...]
    skipped: tuple[str, ...] = field(default=())


def read_seed_tasks(path: Path | str | None = None) -> Seeds:
    """Seed tasks of a file, or the ones that potstill ships.

    A line with missing fields is left out and said in `Seeds.skipped`.

    Raises:
        DataError: The file cannot be read, or holds no usable task.
    """
    try:
        if path is None:
            text = resources.files("potstill.prompts").joinpath("seed_tasks.jsonl").read_text(encoding="utf-8")
        else:
            text = Path(path).expanduser().read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(
            f"cannot read the seed tasks at {path} ({error}); check `seed_tasks` in the task file"
        ) from None
    tasks: list[SeedTask] = []
    skipped: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            tasks.append(_seed_task(json.loads(line[:_MAX_LINE])))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            skipped.append(f"line {number}: {error}"[:300])
    if not tasks:
        first = f"; {skipped[0]}" if skipped else ""
        raise DataError(
            f"no usable seed task in {path} ({len(skipped)} lines left out{first}); each line needs "
            '{"instruction": …, "instances": [{"input": …, "output": …}], "is_classification": …}'
        )
    return Seeds(tuple(tasks), tuple(skipped))


def _seed_task(value: Any) -> SeedTask:
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    instruction = value.get("instruction")
    if not isinstance(instruction, str) or not instruction.strip():
        raise ValueError("no instruction")
    found = value.get("instances")
    instances = tuple(
        Instance(str(item.get("input") or ""), str(item["output"]))
        for item in (found if isinstance(found, list) else [])
        if isinstance(item, dict) and str(item.get("output") or "").strip()
    )
    if not instances:
        raise ValueError("no instance with an output")
    return SeedTask(
        instruction.strip(),
        instances,
        bool(value.get("is_classification")),
        str(value.get("id", "")),
        str(value.get("name", "")),
    )


def write_seed_tasks(tasks: Iterable[SeedTask], path: Path) -> None:
    """Write seed tasks in Self-Instruct's form."""
    keys = ("id", "name", "instruction", "instances", "is_classification")
    _write_lines(({key: asdict(task)[key] for key in keys} for task in tasks), path)


def write_instances(rows: Iterable[Instructed], path: Path) -> None:
    """Write `all_generated_instances.jsonl`."""
    _write_lines((asdict(row) for row in rows), path)


def read_instances(path: Path) -> list[Instructed]:
    """Read `all_generated_instances.jsonl` or an Alpaca list.

    Raises:
        DataError: The file is neither.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if text.lstrip().startswith("[") else [json.loads(x) for x in text.split("\n") if x]
        return [Instructed(v["instruction"], v.get("input") or "", v["output"]) for v in values]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} holds no instances ({error}); give a JSON list or JSON lines of instruction, input and output"
        ) from None


def write_alpaca(rows: Sequence[Instructed], path: Path) -> None:
    """Write Alpaca's form: one JSON list."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def write_machine_instructions(items: Iterable[dict[str, Any]], path: Path) -> None:
    """Write `machine_generated_instructions.jsonl` from what a run's report holds."""
    _write_lines(items, path)


def _write_lines(values: Iterable[Any], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for value in values:
            file.write(json.dumps(value, ensure_ascii=False) + "\n")
