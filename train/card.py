"""What potstill.json says in a student's folder: the task that its model was trained to do; and the folder's size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from potstill.errors import DataError, OptionError
from potstill.rows import join_fields, split_fields, whole_characters
from potstill.task import KINDS, Kind, TaskSpec

CARD = "potstill.json"
ONNX = "model.onnx"
ONE_TEXT = ("text", "input")  # what the field of an input that is one text may be called
_WEIGHTS = ("*.safetensors", "*.gguf", "*.onnx")


@dataclass(frozen=True)
class StudentCard:
    """What potstill.json holds.

    Attributes:
        name: Name of the task.
        kind: Kind of the task.
        instruction: What a causal student is told before its input.
        labels: Names of the classes, in the order of the logits.
        max_length: Tokens of input (classification) or of prompt and answer together (generation).
        max_new_tokens: Tokens of one answer at most (generation).
        base: Model that the training started from.
        inputs: Names of an input's fields where it has several; empty for one text.
    """

    name: str
    kind: Kind
    instruction: str = ""
    labels: tuple[str, ...] = ()
    max_length: int = 256
    max_new_tokens: int = 256
    base: str = ""
    inputs: tuple[str, ...] = ()

    def input_text(self, given: object) -> str:
        """An input as the student learnt to read it: a text, or a mapping of its fields in any order.

        One text may come as `{"text": …}` or `{"input": …}` too; of other names nothing tells that they mean it.
        Half an emoji (a lone surrogate, which no tokenizer takes) is read as `?`, as it stands in rows.

        Raises:
            OptionError: Another type, or fields that are missing or unknown.
        """
        if isinstance(given, str):
            if split_fields(given, self.inputs) is None:
                raise OptionError(
                    "predict", [f"the student reads {self._fields}, and {given[:60]!r} has no such fields"]
                )
            return whole_characters(given)
        if not isinstance(given, Mapping):
            got = "nothing" if given is None else type(given).__name__
            many = "" if given is None or isinstance(given, int | float) else "; for many inputs: student.predict([…])"
            raise OptionError("predict", [f"a text or a mapping of fields is needed (got {got}){many}"])
        fits = set(given) == set(self.inputs) if self.inputs else len(given) == 1 and set(given) <= set(ONE_TEXT)
        names = self.inputs or tuple(given)
        if not fits or not all(isinstance(given[name], str | int | float) for name in names):
            wanted = self._fields if self.inputs else 'one text, given as it is or as {"text": "…"}'
            shown = ", ".join(map(str, given)) or "none"
            raise OptionError("predict", [f"the student reads {wanted}; the fields given are {shown}"])
        return whole_characters(join_fields({name: str(given[name]) for name in names}))

    @property
    def _fields(self) -> str:
        example = json.dumps(dict.fromkeys(self.inputs, "…"), ensure_ascii=False)
        return f"the fields {' and '.join(self.inputs)}, such as {example}"


def fields_of(spec: TaskSpec) -> tuple[str, ...]:
    """Names of the fields of a task's inputs where they have several; an instruction with its input is one text."""
    return spec.inputs if len(spec.inputs) > 1 and spec.kind != "instructions" else ()


def write_card(folder: Path, card: StudentCard) -> None:
    """Write potstill.json into a student's folder."""
    (folder / CARD).write_text(json.dumps({"format": 1, **asdict(card)}, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_card(folder: Path) -> StudentCard:
    """Read potstill.json; without it, what config.json tells about a classifier.

    Raises:
        DataError: No such student, or a card that cannot be read.
    """
    config = folder / "config.json"
    if not config.exists():
        raise DataError(f"no student at {folder} (config.json is missing); run the training, or give another folder")
    try:
        if (folder / CARD).exists():
            return _from_json(json.loads((folder / CARD).read_text("utf-8")))
        names = json.loads(config.read_text("utf-8")).get("id2label") or {}
        labels = tuple(names[key] for key in sorted(names, key=int))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder} holds a student whose card cannot be read ({error}); train it again") from None
    if not labels:
        raise DataError(f"{folder / CARD} is missing, so the student's task is unknown; train it again")
    return StudentCard(name=folder.name, kind="classification", labels=labels)


def _from_json(value: Any) -> StudentCard:
    if not isinstance(value, dict):
        raise ValueError(f"it holds {type(value).__name__}, not an object")
    card = StudentCard(**{name: part for name, part in value.items() if name not in ("format", "labels", "inputs")})
    labels, inputs = value.get("labels") or [], value.get("inputs") or []
    if card.kind not in KINDS:
        raise ValueError(f"kind {card.kind!r} is none of {', '.join(KINDS)}")
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in (labels, inputs)):
        raise ValueError("labels or inputs are not a list of names")
    if not all(isinstance(text, str) for text in (card.name, card.instruction, card.base)):
        raise ValueError("name, instruction and base are not texts")
    if not all(isinstance(size, int) and size > 0 for size in (card.max_length, card.max_new_tokens)):
        raise ValueError("max_length and max_new_tokens are not numbers above 0")
    return replace(card, labels=tuple(labels), inputs=tuple(inputs))


def weights_mib(folder: Path) -> float:
    """Size of the weight files in a folder, in MiB."""
    return sum(path.stat().st_size for pattern in _WEIGHTS for path in folder.glob(pattern)) / 2**20
