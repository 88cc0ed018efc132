"""The tasks of the data pack as a user would give them: prompt and label names, and files of their rows.

In: `$POTSTILL_DATA/tasks/NAME` with card.json, train.parquet, test.parquet. Out: task files, and tables whose columns
are what a user would have: the input's columns, `output`, and for scoring `references` (every right answer) and `group`
(the sub-task, where a task holds many). Rows with several labels are left out, as in the pack's own reference. Rows of
the pack are in a fixed shuffled order, so that the first N are a fair sample.

Instruction tasks (instruction_induction, super_natural_instructions) hold another instruction in each row: the input is
the instruction, a blank line and the row's input, the form in which potstill writes instruction rows itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
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
    """

    name: str
    kind: str
    prompt: str
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    exclude: tuple[str, ...]


@cache
def pack_task(name: str) -> PackTask:
    """Read a task of the pack; one that is in no list above is a classification if its output is `label_text`."""
    card = json.loads((DATA / "tasks" / name / "card.json").read_text("utf-8"))
    pack = card["pack"]
    exclude = {card["id"], name, f"*/{name}", pack.get("catalogue_id") or name, *COPIES.get(name, ())}
    kind = "instructions" if name in INSTRUCTIONS else "generation" if name in GENERATION else "classification"
    if name not in (*CLASSIFICATION, *GENERATION) and pack["output_column"] != "label_text":
        kind = "generation"
    labels: tuple[str, ...] = ()
    if kind == "classification":
        values = _column(name, "test", pack["output_column"])
        labels = tuple(sorted({value for value in values if _SEVERAL not in value}))
    metric = METRIC.get(name, "macro_f1" if labels else "rouge_l")
    inputs = ("text",) if kind == "instructions" else tuple(pack["input_columns"])
    return PackTask(name, kind, pack["task_prompt"], inputs, labels, metric, tuple(sorted(exclude)))


def rows_of(name: str, split: str, most: int = 0) -> list[dict[str, Any]]:
    """Rows of a split in the columns that the module names; `most` of them, 0 for all."""
    import pyarrow.parquet as pq

    task = pack_task(name)
    pack = json.loads((DATA / "tasks" / name / "card.json").read_text("utf-8"))["pack"]
    definitions = _definitions(name) if task.kind == "instructions" else {}
    found: list[dict[str, Any]] = []
    for row in pq.read_table(DATA / "tasks" / name / f"{split}.parquet").to_pylist():
        output = row[pack["output_column"]]
        if task.labels and output not in task.labels:
            continue
        if task.kind == "instructions":
            instruction = row.get("instruction") or definitions[row["task"]]
            values = {"text": f"{instruction}\n\n{row['input']}"}
        else:
            values = {column: row[column] for column in task.inputs}
        if not output.strip() or not any(str(value).strip() for value in values.values()):
            continue
        references = row.get("outputs") or row.get("summaries") or [row.get("answer") or output]
        found.append({**values, "output": output, "references": list(references), "group": str(row.get("task", ""))})
        if most and len(found) == most:
            break
    return found


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

    task = pack_task(name)
    pack = json.loads((DATA / "tasks" / name / "card.json").read_text("utf-8"))["pack"]
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


def _column(name: str, split: str, column: str) -> list[str]:
    import pyarrow.parquet as pq

    values: list[str] = pq.read_table(DATA / "tasks" / name / f"{split}.parquet", columns=[column])[column].to_pylist()
    return values


def _has_several(name: str) -> bool:
    """Whether rows of the test split carry several labels."""
    pack = json.loads((DATA / "tasks" / name / "card.json").read_text("utf-8"))["pack"]
    task = pack_task(name)
    return bool(task.labels) and any(value not in task.labels for value in _column(name, "test", pack["output_column"]))


def _definitions(name: str) -> dict[str, str]:
    """The instruction of each sub-task, where it stands apart from the rows."""
    path = DATA / "tasks" / name / "tasks.jsonl"
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return {line["task"]: str(line.get("definition") or line.get("instructions", [""])[0]) for line in lines}
