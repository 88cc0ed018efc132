"""Self-Instruct's files and Alpaca's: read and written so that their other readers understand them.

seed_tasks.jsonl                      {id, name, instruction, instances: [{input, output}], is_classification}
machine_generated_instructions.jsonl  {instruction, most_similar, avg_similarity_score, metadata, request_idx}
all_generated_instances.jsonl         {instruction, input, output}
Alpaca                                one JSON list of {instruction, input, output}

A run of `kind: instructions` leaves all four in its datagen folder (Alpaca's as `alpaca.json`), beside those of
`self_instruct_steps`, and `seed_tasks:` of a task file may name any of them but the second, which holds no instances.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TextIO

from potstill.datagen.novelty import any_script_tokens
from potstill.errors import DataError

COMPARED = 5000
"""Earlier instructions that `write_machine_instructions` compares one with, at most."""

_BLOCK = 256
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
class MachineInstruction:
    """One line of `machine_generated_instructions.jsonl`.

    Attributes:
        instruction: A kept new one.
        most_similar: The ten nearest of the earlier ones with their ROUGE-L F1, the nearest first.
        avg_similarity_score: Mean F1 with the earlier ones.
        metadata: What wrote it.
        request_idx: Number of the request that brought it.
    """

    instruction: str
    most_similar: dict[str, float]
    avg_similarity_score: float
    metadata: dict[str, Any]
    request_idx: int


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
    for number, line in enumerate(_items(text), 1):
        if isinstance(line, str) and not line.strip():
            continue
        try:
            tasks.append(_seed_task(json.loads(line[:_MAX_LINE]) if isinstance(line, str) else line))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            skipped.append(f"line {number}: {error}"[:300])
    if not tasks:
        first = f"; {skipped[0]}" if skipped else ""
        raise DataError(
            f"no usable seed task in {path} ({len(skipped)} lines left out{first}); each line needs "
            '{"instruction": …, "instances": [{"input": …, "output": …}], "is_classification": …}'
        )
    return Seeds(tuple(tasks), tuple(skipped))


def _items(text: str) -> list[Any]:
    """The entries of one JSON list (Alpaca's form), or the lines."""
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list):
            return [item if not isinstance(item, str) else f'"{item}"' for item in found]
    return text.split("\n")


def _seed_task(value: Any) -> SeedTask:
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    instruction = value.get("instruction")
    if not isinstance(instruction, str) or not instruction.strip():
        raise ValueError("no instruction")
    found = value.get("instances")
    if found is None and "output" in value:  # one instance beside its instruction, as Alpaca has it
        found = [value]
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


def write_seed_tasks(tasks: Sequence[SeedTask], path: Path) -> None:
    """Write `seed_tasks.jsonl`."""
    with path.open("w", encoding="utf-8") as file:
        for task in tasks:
            value = {
                "id": task.id,
                "name": task.name,
                "instruction": task.instruction,
                "instances": [asdict(item) for item in task.instances],
                "is_classification": task.is_classification,
            }
            file.write(json.dumps(value, ensure_ascii=False) + "\n")


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


def read_machine_instructions(path: Path) -> list[MachineInstruction]:
    """Read `machine_generated_instructions.jsonl`; all but the instruction may be missing.

    Raises:
        DataError: The file cannot be read, or a line holds no instruction.
    """
    try:
        made = []
        for line in path.read_text(encoding="utf-8").split("\n"):
            if not line.strip():
                continue
            value = json.loads(line)
            made.append(
                MachineInstruction(
                    str(value["instruction"]),
                    {str(text): float(score) for text, score in (value.get("most_similar") or {}).items()},
                    float(value.get("avg_similarity_score") or 0.0),
                    dict(value.get("metadata") or {}),
                    int(value.get("request_idx") or 0),
                )
            )
        return made
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} holds no machine-generated instructions ({type(error).__name__}: {error}); give JSON lines with "
            "instruction, most_similar, avg_similarity_score, metadata and request_idx"
        ) from None


def write_machine_instructions(
    seeds: Sequence[str],
    instructions: Sequence[str],
    request_idx: Sequence[int],
    teacher: str,
    path: Path,
    *,
    compared: int = COMPARED,
) -> None:
    """Write `machine_generated_instructions.jsonl`.

    `most_similar` holds the ten nearest of the earlier instructions with their ROUGE-L F1, the nearest first, and
    `avg_similarity_score` the mean over them all. Self-Instruct compares with every earlier one, which is quadratic.
    Here it is so up to `compared` of them; from then on an instruction is compared with `compared` of the earlier
    ones, the seeds and the others evenly spread, so that the cost of each stays the same. `metadata.compared_with`
    says how many they were. Texts without a token are like nothing.

    Args:
        seeds: Instructions of the seeds.
        instructions: The kept new ones, in order.
        request_idx: For each, the number of the request that brought it.
        teacher: Told under `metadata`.
        path: The file.
        compared: Earlier instructions that one is compared with, at most; as many as there are seeds at least.
    """
    import numpy as np
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    known = [*seeds, *instructions]
    codes = _one_character_a_token(known)
    compared = max(compared, len(seeds))
    with path.open("w", encoding="utf-8") as file:
        for start in range(len(seeds), len(known), _BLOCK):
            block = range(start, min(start + _BLOCK, len(known)))
            earlier = np.array(_earlier(len(seeds), block, compared), dtype=np.int64)
            # Indel similarity of two texts of one character a token is 2·LCS/(m+n), which is ROUGE-L F1.
            scores = cdist(
                [codes[place] for place in block],
                [codes[place] for place in earlier],
                scorer=Indel.normalized_similarity,
                dtype=np.float64,
            )
            for place, row in zip(block, scores, strict=True):
                f1 = row[: np.searchsorted(earlier, place)] * bool(codes[place])
                nearest = np.argsort(-f1, kind="stable")[:10]
                line = {
                    "instruction": known[place],
                    "most_similar": {known[earlier[i]]: round(float(f1[i]), 6) for i in nearest},
                    "avg_similarity_score": round(float(f1.mean()), 6) if len(f1) else 0.0,
                    "metadata": {"teacher": teacher, "compared_with": len(f1)},
                    "request_idx": request_idx[place - len(seeds)],
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _earlier(seeds: int, block: range, compared: int) -> Sequence[int]:
    """Places that the instructions of a block are compared with, rising; those that are no earlier are left out later.

    Up to `compared` known ones it is all of them; then the seeds and as many of the others, evenly spread.
    """
    if block.start <= compared:
        return range(block.stop)
    written, wanted = block.start - seeds, compared - seeds
    return [*range(seeds), *(seeds + number * written // wanted for number in range(wanted))]


def _one_character_a_token(texts: Sequence[str]) -> list[str]:
    """Texts with a character in place of each token, which rapidfuzz compares far faster than lists of strings."""
    numbers: dict[str, int] = {}
    return [
        "".join(_character(numbers.setdefault(token, len(numbers))) for token in any_script_tokens(text))
        for text in texts
    ]


def _character(number: int) -> str:
    # The lone surrogates are left out. Beyond a million tokens the rare ones share a character.
    number %= 0x110000 - 0x800
    return chr(number + 0x800 if number >= 0xD800 else number)


def append_instance(row: Instructed, file: TextIO) -> None:
    """Add one line to an open `all_generated_instances.jsonl`."""
    file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
