"""The tasks of the data pack as a user would give them: prompt and label names, and files of their rows.

In: `$POTSTILL_DATA/tasks/NAME` with card.json, train.parquet, test.parquet. Out: task files, and tables whose columns
are what a user would have: the input's columns, `output`, and for scoring `references` (every right answer) and `group`
(the sub-task, where a task holds many). Rows with several labels are left out, as in the pack's own reference. Rows of
the pack are in a fixed shuffled order, so that the first N are a fair sample.

Instruction tasks (instruction_induction, super_natural_instructions) hold another instruction in each row: the input is
the instruction, a blank line and the row's input, the form in which potstill writes instruction rows itself.

A task that is in none of the lists here is read by its card: what kind it is, what its classes are called, how it is
judged.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("POTSTILL_DATA") or ROOT.parent / "shared" / "data")
# Real datasets of others that `found_datasets.py` makes; left out where it was not run.
FOUND = ROOT / "runs" / "found-datasets"
CLASSIFICATION = (
    "ag_news", "banking77", "customer_reviews", "go_emotions", "hate_speech_offensive", "sick", "sms_spam", "snips",
    "subj", "trec", "boolq",
)  # fmt: skip
GENERATION = ("gsm8k", "scitldr", "mconala", "super_natural_instructions", "instruction_induction")
INSTRUCTIONS = ("super_natural_instructions", "instruction_induction")
METRIC = {
    "scitldr": "rouge_l", "mconala": "chrf", "gsm8k": "exact_match", "super_natural_instructions": "rouge_l",
    "instruction_induction": "exact_match",
}  # fmt: skip
LANGUAGES = {"mconala": ["es", "ja", "ru"]}
# The same data under other names; retrieval itself knows a name under another owner.
COPIES = {
    "boolq": ("super_glue", "super_glue/*"),
    "customer_reviews": ("CR", "*/CR", "*/cr"),
    "hate_speech_offensive": ("hate_offensive", "*/hate_offensive", "tdavidson/*"),
    "sick": ("*/sick", "yangwang825/sick"),
    "snips": ("snips_built_in_intents", "*/snips_built_in_intents"),
    "subj": ("*/subj",),
    "trec": ("*/trec", "*/TREC*"),
    "super_natural_instructions": ("*natural-instructions", "*natural_instructions", "*natural-instructions*"),
}
_SEVERAL = ", "
# A column of at most so many different short values, each of which comes back, holds classes.
_MOST_CLASSES, _MOST_CHARS, _COME_BACK = 200, 60, 4
_REFERENCES = ("outputs", "summaries", "references", "answers")
# Words for a metric. What this project does not have is measured by what is nearest to it.
_FIGURES = {
    r"exact[ _-]match|\bem\b|accura": "exact_match", r"chrf|bleu\b": "chrf", "rouge|meteor|bertscore": "rouge_l",
    r"\bf1\b|f-?score": "token_f1",
}  # fmt: skip
# A solution is right or wrong by the number that it ends with, where the card says so or most end with this sign.
_NUMBER, _SIGN = (
    re.compile(r"\b(?:final|last) (?:\w+ )?(?:number|answer|value|result)|\bnumber\b", re.IGNORECASE),
    "####",
)


@dataclass(frozen=True)
class PackTask:
    """A task of the pack.

    Attributes:
        name: Its folder.
        kind: As in a task file.
        prompt: The task in a user's words.
        inputs: Columns of the input, as `rows_of` names them.
        labels: Names of the classes; empty unless classification.
        metric: What it is judged by.
        exclude: The dataset itself and its copies.
        number: Whether of each answer only the number at its end is compared.
    """

    name: str
    kind: str
    prompt: str
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    exclude: tuple[str, ...]
    number: bool = False


@cache
def pack_task(name: str) -> PackTask:
    """Read a task of the pack."""
    card = _card(name)
    pack = card["pack"]
    exclude = {card["id"], name, f"*/{name}", pack.get("catalogue_id") or name, *COPIES.get(name, ())}
    kind = _kind(name, card)
    labels: tuple[str, ...] = ()
    if kind == "classification":
        splits = ("test",) if name in CLASSIFICATION else ("train", "test")
        values = {value for split in splits for value in _outputs(name, split) if value}
        labels = tuple(sorted(value for value in values if not _is_several(value, values)))
    metric = METRIC.get(name, "macro_f1" if labels else _figure(str(pack.get("metric") or "")))
    inputs = ("text",) if kind == "instructions" else tuple(pack["input_columns"])
    number = kind == "generation" and metric == "exact_match" and _ends_with_numbers(name, card)
    return PackTask(name, kind, pack["task_prompt"], inputs, labels, metric, tuple(sorted(exclude)), number)


def _kind(name: str, card: Mapping[str, Any]) -> str:
    pack = card["pack"]
    column = pack["output_column"]
    if name in INSTRUCTIONS or name in GENERATION:
        return "instructions" if name in INSTRUCTIONS else "generation"
    if name in CLASSIFICATION or column == "label_text" or _class_names(card, column):
        return "classification"
    if "task" in pack["input_columns"] and ("instruction" in _features(card) or _definitions(name)):
        return "instructions"
    if any("generation" in category or category == "summarization" for category in card.get("task_categories") or ()):
        return "generation"
    values = [value for value in _outputs(name, "train") if value]
    few = set(values)
    classes = 2 <= len(few) <= min(_MOST_CLASSES, len(values) // _COME_BACK)
    return "classification" if classes and all(len(value) <= _MOST_CHARS for value in few) else "generation"


def _figure(said: str) -> str:
    """The figure that a card's words for its metric name first; ROUGE-L where they name none."""
    low = said.lower()
    places = {found.start(): figure for words, figure in _FIGURES.items() if (found := re.search(words, low))}
    return places[min(places)] if places else "rouge_l"


def _ends_with_numbers(name: str, card: Mapping[str, Any]) -> bool:
    """Whether the outputs are solutions of several words whose last number is the answer."""
    outputs = [output for output in _outputs(name, "train") if output.strip()][:200]
    said = _NUMBER.search(str(card["pack"].get("metric") or "")) is not None
    ends = sum(bool(re.search(r"\d\W*$", output)) and (said or _SIGN in output) for output in outputs)
    return 2 * ends > len(outputs) and any(len(output.split()) > 3 for output in outputs)


def rows_of(name: str, split: str, most: int = 0) -> list[dict[str, Any]]:
    """Rows of a split in the columns that the module names; `most` of them, 0 for all."""
    import pyarrow.parquet as pq

    task, card = pack_task(name), _card(name)
    pack = card["pack"]
    definitions = _definitions(name) if task.kind == "instructions" else {}
    found: list[dict[str, Any]] = []
    answers = _outputs(name, split)
    for row, output in zip(pq.read_table(DATA / "tasks" / name / f"{split}.parquet").to_pylist(), answers, strict=True):
        if task.labels and output not in task.labels:
            continue
        if task.kind == "instructions":
            instruction = row.get("instruction") or definitions[row["task"]]
            values = {"text": f"{instruction}\n\n{row['input']}"}
        else:
            values = {column: row[column] for column in task.inputs}
        if not output.strip() or not any(str(value).strip() for value in values.values()):
            continue
        references = _references(name, row, output, pack)
        found.append({**values, "output": output, "references": references, "group": str(row.get("task", ""))})
        if most and len(found) == most:
            break
    return found


def _references(name: str, row: Mapping[str, Any], output: str, pack: Mapping[str, Any]) -> list[str]:
    """Every right answer of a row: a list that the output stands in, or one called so with it, else the output alone.

    Of lists that hold the output, one that is called so comes first. A list that does not is about something else
    ("summaries" beside a title), unless it is called references, outputs or like the output's column.
    """
    if name == "gsm8k":  # its answer is the last number of its solution
        return [row["answer"]]
    lists = {column: _texts(value) for column, value in row.items() if column not in pack["input_columns"]}
    called = [(column, texts) for column in _REFERENCES if (texts := lists.get(column))]
    holding = (texts for texts in [*(texts for _, texts in called), *lists.values()] if output in texts)
    stem = pack["output_column"].lower()[:5]
    named = (texts for column, texts in called if column in ("references", "outputs") or column.startswith(stem))
    return next(holding, None) or [output, *next(named, [])]


def _texts(value: Any) -> list[str]:
    """The texts of a list, or of the lists in a struct such as SQuAD's answers; none of anything else."""
    if isinstance(value, Mapping):
        return next((texts for part in value.values() if (texts := _texts(part))), [])
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return value
    return []


def _outputs(name: str, split: str) -> list[str]:
    """The right answer of each row of a split: a class by its name, of several answers the first; "" where none is."""
    card = _card(name)
    column = card["pack"]["output_column"]
    names = _class_names(card, column)

    def said(value: Any) -> str:
        if texts := _texts(value):
            return texts[0]
        if names and isinstance(value, int):
            return names[value] if 0 <= value < len(names) else ""
        return "" if value is None or isinstance(value, list | Mapping) else str(value)

    return [said(value) for value in _column(name, split, column)]


def _card(name: str) -> dict[str, Any]:
    path = DATA / "tasks" / name / "card.json"
    if not path.is_file():
        raise SystemExit(f"no task {name!r} at {path.parent}; set POTSTILL_DATA to the data pack's folder")
    card: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return card


def _features(card: Mapping[str, Any]) -> Mapping[str, Any]:
    configs = list((card.get("configs") or {}).values())
    return configs[0].get("features") or {} if configs else {}


def _class_names(card: Mapping[str, Any], column: str) -> list[str]:
    """Names of the classes of a column, where the card says that it has classes."""
    feature = _features(card).get(column)
    names = feature.get("class_label") if isinstance(feature, Mapping) else None
    return list(names) if isinstance(names, list) else []


def _is_several(value: str, values: Collection[str]) -> bool:
    """Whether a value is several labels of one row: `anger, joy`, and no name that holds a comma."""
    return _SEVERAL in value and all(part in values for part in value.split(_SEVERAL))


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path, columns: Sequence[str]) -> Path:
    """Write some columns of rows as Parquet; a file that is there with as many rows is left alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({column: [row[column] for row in rows] for column in columns})
    if not path.exists() or not pq.read_table(path).equals(table):
        pq.write_table(table, path)
    return path


def write_task(name: str, out: Path, *, test: Path | None = None, file: str = "", **more: Any) -> Path:
    """The task file a user would write: prompt, label names, the test split for measuring, exclusions.

    Args:
        name: The task.
        out: Folder of the file.
        test: Rows as `rows_of` gives them; None takes the pack's own file where it has one label a row.
        file: Name of the file, without its ending; by default the task's.
        more: Further fields of the front matter, such as `labelled`.
    """
    import yaml

    task, pack = pack_task(name), _card(name)["pack"]
    own = DATA / "tasks" / name / "test.parquet"
    plain = task.kind != "instructions" and not _has_several(name)
    where = {"path": str(own), "inputs": list(task.inputs), "output": pack["output_column"]}
    if test is None and not plain:
        columns = (*task.inputs, "output")
        test = write_rows(rows_of(name, "test"), out / "data" / f"{name}-test.parquet", columns)
    if test is not None:
        where = data_ref(name, test)
    # Without the small datasets that potstill ships: who wrote them knew these tasks.
    catalogue = (DATA / "tasks", DATA / "catalogue" / "catalogue.jsonl.gz", FOUND)
    matter: dict[str, Any] = {
        "name": name.replace("_", "-"),
        "kind": task.kind,
        "test": where,
        "exclude": list(task.exclude),
        "retrieval": {"catalogue": [str(path) for path in catalogue if path.exists()]},
    }
    if task.labels:
        matter["labels"] = list(task.labels)
    else:
        matter["metric"] = task.metric
    if len(task.inputs) > 1:
        matter["inputs"] = list(task.inputs)  # a copy: YAML writes a second mention of one list as an anchor
    if name in LANGUAGES:
        matter["languages"] = LANGUAGES[name]
    matter |= more
    path = out / f"{file or name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---\n{task.prompt}\n")
    return path


def data_ref(name: str, path: Path, *, labelled: bool = True) -> dict[str, Any]:
    """Where rows that `write_rows` wrote are, as a task file says it."""
    ref = {"path": str(path.resolve()), "inputs": list(pack_task(name).inputs)}
    return {**ref, "output": "output"} if labelled else ref


def _column(name: str, split: str, column: str) -> list[Any]:
    import pyarrow.parquet as pq

    values: list[Any] = pq.read_table(DATA / "tasks" / name / f"{split}.parquet", columns=[column])[column].to_pylist()
    return values


def _has_several(name: str) -> bool:
    """Whether rows of the test split carry several labels."""
    task = pack_task(name)
    return bool(task.labels) and any(value not in task.labels for value in _outputs(name, "test"))


def _definitions(name: str) -> dict[str, str]:
    """The instruction of each sub-task, where it stands apart from the rows."""
    path = DATA / "tasks" / name / "tasks.jsonl"
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return {line["task"]: str(line.get("definition") or line.get("instructions", [""])[0]) for line in lines}
