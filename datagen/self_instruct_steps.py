"""The files that Self-Instruct's own steps leave, for programs that go on from them.

is_clf_or_not_TEACHER_template_1.jsonl   {instruction, is_classification}; "Yes" or "No", as the run took it
machine_generated_instances.jsonl        {instruction, raw_instances, instance_metadata, instruction_metadata,
                                          most_similar, avg_similarity_score}; the reply as it came, with its opening
gpt3_finetuning_data_N.jsonl             {prompt, completion}; N pairs, of which no two are the same

Replies go to disk while they come; in memory stays a place for each instruction. The pairs are in the form of the
paper's finetuning (arXiv:2212.10560 §2.3): one of thirteen templates is drawn for each instance, a lone field
name before an input is left out in half of them, and blank lines are halved in half of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from potstill.datagen.self_instruct_files import Instructed

INSTANCES = "machine_generated_instances.jsonl"
_END = "<|endoftext|>"
# A completion begins with a space where its prompt ends with a word or a colon.
_WITH_INPUT = (
    "{instruction}\nInput: {input}\nOutput:",
    "{instruction}\n\nInput: {input}\n\nOutput:",
    "Task: {instruction}\nInput: {input}\nOutput:",
    "{instruction}\n\n{input}\n\nOutput:",
    "{instruction}\n\n{input}\n\n",
    "{instruction}\n{input}\n\n",
    "Task: {instruction}\n\n{input}\n\n",
)
_ALONE = (
    "{instruction} Output:",
    "{instruction}\nOutput:",
    "{instruction}\n\nOutput:",
    "{instruction}\n",
    "{instruction}\n\n",
    "Task: {instruction}\n\n",
)
_FIELD = re.compile(r"\A\w+:[ \t]*")


def kinds_file(teacher: str) -> str:
    """Name of the file of kinds, in which the teacher's name is one of a file.

    Examples:
        >>> kinds_file("transformers:HuggingFaceTB/SmolLM2-135M-Instruct")
        'is_clf_or_not_transformers_HuggingFaceTB_SmolLM2-135M-Instruct_template_1.jsonl'
    """
    name = re.sub(r"[^\w.-]+", "_", teacher)[:120]
    return f"is_clf_or_not_{name}_template_1.jsonl"


def write_kinds(kinds: Mapping[str, bool], teacher: str, folder: Path) -> Path:
    """Write whether each instruction was taken for classification, in the order given."""
    path = folder / kinds_file(teacher)
    with path.open("w", encoding="utf-8") as file:
        for instruction, yes in kinds.items():
            _line(file, {"instruction": instruction, "is_classification": "Yes" if yes else "No"})
    return path


class RawInstances:
    """The replies with instances, as they came, until they can be joined with what each instruction is like.

    Args:
        folder: Where they are kept, and where `INSTANCES` is written.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._path = folder / f"{INSTANCES}.part"
        self._file = self._path.open("w+", encoding="utf-8", newline="\n")
        self._places: dict[str, int] = {}

    def add(self, instruction: str, raw: str, metadata: Mapping[str, Any]) -> None:
        """Keep the reply to an instruction; `metadata` is told beside it."""
        self._places[instruction] = self._file.tell()
        _line(self._file, {"raw_instances": raw, "instance_metadata": dict(metadata)})

    def write(self, machine: Path) -> Path:
        """Write `INSTANCES`, in the order of `machine_generated_instructions.jsonl`, those without a reply left out.

        Args:
            machine: That file.
        """
        path = self._folder / INSTANCES
        with machine.open(encoding="utf-8") as told, path.open("w", encoding="utf-8") as file:
            for line in told:
                value = json.loads(line)
                place = self._places.get(value["instruction"])
                if place is None:
                    continue
                self._file.seek(place)
                found = json.loads(self._file.readline())
                _line(
                    file,
                    {
                        "instruction": value["instruction"],
                        **found,
                        "instruction_metadata": value["metadata"],
                        "most_similar": value["most_similar"],
                        "avg_similarity_score": value["avg_similarity_score"],
                    },
                )
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def write_finetuning(rows: Sequence[Instructed], folder: Path, seed: int = 0) -> Path:
    """Write `gpt3_finetuning_data_N.jsonl`.

    Args:
        rows: The instances.
        folder: Where it goes.
        seed: Of the templates, which are a function of it and of the instance.

    Returns:
        The file, with the number of its pairs in its name.
    """
    pairs = dict.fromkeys(encoded(row, seed) for row in rows)
    path = folder / f"gpt3_finetuning_data_{len(pairs)}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for prompt, completion in pairs:
            _line(file, {"prompt": prompt, "completion": completion})
    return path


def encoded(row: Instructed, seed: int = 0) -> tuple[str, str]:
    """An instance as prompt and completion.

    Examples:
        >>> encoded(Instructed("Name a tree.", "", "larch"))[1].strip()
        'larch<|endoftext|>'
    """
    key = f"{seed}\0{row.instruction}\0{row.input}\0{row.output}"
    random = Random(sha256(key.encode("utf-8", "surrogatepass")).hexdigest())
    given = row.input.strip()
    if given and random.random() < 0.5 and len(re.findall(r"^\w[^\n:]{0,40}:", given, re.MULTILINE)) == 1:
        given = _FIELD.sub("", given).strip() or given
    if random.random() < 0.5:
        given = given.replace("\n\n", "\n")
    template = random.choice(_WITH_INPUT if given else _ALONE)
    prompt = template.replace("{instruction}", row.instruction.strip(), 1)
    # From the right, where the template's own mark stands whatever the instruction says.
    head, mark, tail = prompt.rpartition("{input}") if given else (prompt, "", "")
    prompt = head + given + tail if mark else prompt
    space = " " if prompt.endswith(":") else ""
    return prompt, f"{space}{row.output.strip()}{_END}"


def _line(file: Any, value: Mapping[str, Any]) -> None:
    file.write(json.dumps(value, ensure_ascii=False) + "\n")
