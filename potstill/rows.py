"""The one row schema: what every stage takes and gives.

    id             str      sha256 of content and source, first 16 bytes in hex
    input          str      the text that the student reads
    output         str      the text that the student should write (the label's name, for classification)
    label          ClassLabel or null
    teacher_probs  float32[n_labels] or null: the teacher's calibrated distribution over the labels
    origin         retrieved | generated | pseudo | user
    source         struct: dataset, config, split, row | teacher, requests (ledger keys)
    licence        SPDX id, or `unknown`
    weight         float32, share of this row in the loss

Token-level soft targets (top-k ids and log-probs) live in a side table keyed by `id`. Test rows may have one column
more, `references` (lists of str): every right answer of a row, `output` the first. Training rows may have `rationale`
(str or null): what leads from the input to the output, in the teacher's words (`distil.rationale_weight`).

Rows travel as `datasets.Dataset` and rest as zstd Parquet. A dropped row keeps its text and its reason, in JSON
lines beside the stage's output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from potstill.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset, Features

Origin = Literal["retrieved", "generated", "pseudo", "user"]
ORIGINS: tuple[Origin, ...] = ("retrieved", "generated", "pseudo", "user")
UNKNOWN_LICENCE = "unknown"
REFERENCES = "references"
RATIONALE = "rationale"
# Characters; what stands before a colon in a longer line is a sentence.
MOST_FIELD_NAME = 60


@dataclass(frozen=True)
class Source:
    """Where a row came from: a dataset's row, or a teacher's replies."""

    dataset: str | None = None
    config: str | None = None
    split: str | None = None
    row: int | None = None
    teacher: str | None = None
    requests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One row, before it enters a table."""

    input: str
    output: str
    origin: Origin
    source: Source = field(default_factory=Source)
    label: str | None = None
    teacher_probs: tuple[float, ...] | None = None
    licence: str = UNKNOWN_LICENCE
    weight: float = 1.0

    def __post_init__(self) -> None:
        # Half an emoji in a teacher's JSON is a lone surrogate, which no Parquet file or tokenizer takes.
        for name in ("input", "output"):
            object.__setattr__(self, name, whole_characters(getattr(self, name)))

    @property
    def id(self) -> str:
        """Hash of content and source: the same text from two sources has two ids."""
        return row_id(self.input, self.output, self.source)


@dataclass(frozen=True)
class Dropped:
    """A row that a stage refused, with its reason.

    Attributes:
        reason: A short fixed word for counting (`near_duplicate`, `label_leak`, …).
        detail: What exactly was seen, for a person.
    """

    reason: str
    detail: str = ""
    input: str = ""
    output: str = ""
    origin: str = ""
    source: Source = field(default_factory=Source)
    stage: str = ""


def whole_characters(text: str) -> str:
    """The text with `?` for each half of a character, as rows and students read it.

    Examples:
        >>> whole_characters("half \\ud83d")
        'half ?'
    """
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def stripped_text(text: str) -> str:
    """A text without space around it, but for an indent that all of its lines have: the body of a function.

    Examples:
        >>> stripped_text(" It rained.\\n"), stripped_text("\\n    a = 1\\n    return a\\n")
        ('It rained.', '    a = 1\\n    return a')
    """
    lines = text.rstrip().split("\n")
    while lines and not lines[0].strip():
        lines.pop(0)
    if not lines:
        return ""
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    rest = [line for line in lines[1:] if line.strip()]
    kept = bool(rest) and len(indent.expandtabs(4)) > 1 and all(line.startswith(indent) for line in rest)
    return "\n".join(lines) if kept else "\n".join(lines).strip()


def row_id(input: str, output: str, source: Source) -> str:
    """First 16 bytes of the sha256 of content and source, in hex."""
    blob = json.dumps([input, output, vars(source)], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(blob.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def row_features(labels: Sequence[str]) -> Features:
    """The schema as `datasets.Features`; `labels` are the class names (empty for generation tasks)."""
    from datasets import ClassLabel, Features, List, Value

    return Features(
        {
            "id": Value("string"),
            "input": Value("string"),
            "output": Value("string"),
            "label": ClassLabel(names=list(labels)) if labels else Value("int64"),
            "teacher_probs": List(Value("float32")),
            "origin": Value("string"),
            "source": {
                "dataset": Value("string"),
                "config": Value("string"),
                "split": Value("string"),
                "row": Value("int64"),
                "teacher": Value("string"),
                "requests": List(Value("string")),
            },
            "licence": Value("string"),
            "weight": Value("float32"),
        }
    )


def row_record(row: Row, index: Mapping[str, int]) -> dict[str, Any]:
    """A row as one record of the table; `index` gives each label's number.

    Raises:
        DataError: The row carries a label that is not in `index`, or probabilities of another length.
    """
    if row.label is not None and row.label not in index:
        raise DataError(f"row {row.id} has label {row.label!r}, which is not one of {list(index)}")
    if row.teacher_probs is not None and len(row.teacher_probs) != len(index):
        raise DataError(
            f"row {row.id} has {len(row.teacher_probs)} teacher probabilities for {len(index)} labels; "
            "the label set changed since they were made: run the soft-target stage again"
        )
    source = row.source
    return {
        "id": row.id,
        "input": row.input,
        "output": row.output,
        "label": None if row.label is None else index[row.label],
        "teacher_probs": None if row.teacher_probs is None else list(row.teacher_probs),
        "origin": row.origin,
        "source": {
            "dataset": source.dataset,
            "config": source.config,
            "split": source.split,
            "row": source.row,
            "teacher": source.teacher,
            "requests": list(source.requests),
        },
        "licence": row.licence,
        "weight": row.weight,
    }


def rows_to_dataset(rows: Iterable[Row], labels: Sequence[str]) -> Dataset:
    """Gather rows into a table in the one schema.

    Raises:
        DataError: A row carries a label that is not in `labels`, or probabilities of another length.
    """
    from datasets import Dataset

    features = row_features(labels)
    index = {name: i for i, name in enumerate(labels)}
    columns: dict[str, list[Any]] = {name: [] for name in features}
    for row in rows:
        for name, value in row_record(row, index).items():
            columns[name].append(value)
    return Dataset.from_dict(columns, features=features)


def dataset_to_rows(table: Dataset) -> Iterator[Row]:
    """The rows of a table, one by one, labels as names."""
    names = label_names(table)
    for item in table:
        source = item["source"] or {}
        probs = item["teacher_probs"]
        yield Row(
            input=item["input"],
            output=item["output"],
            origin=item["origin"],
            source=Source(**{**source, "requests": tuple(source.get("requests") or ())}),
            label=None if item["label"] is None or not names else names[item["label"]],
            teacher_probs=None if probs is None else tuple(probs),
            licence=item["licence"],
            weight=item["weight"],
        )


def label_names(table: Dataset) -> list[str]:
    """Class names of a table's `label` column; empty for generation tasks."""
    feature = table.features["label"]
    return list(getattr(feature, "names", []) or [])


def write_rows(table: Dataset, path: Path) -> None:
    """Write any table as zstd Parquet (the schema, label names included, is in the file).

    `Dataset.to_parquet` of datasets 5.2 chooses the codec itself and takes none, hence the writer of pyarrow.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, table.features.arrow_schema, compression="zstd") as writer:
        for batch in table.with_format("arrow").iter(batch_size=10_000):
            writer.write_table(pa.table(batch).cast(table.features.arrow_schema))


def take_rows(table: Dataset, places: Sequence[int]) -> Dataset:
    """Rows of a table by their places, in that order, as a table of their own.

    Arrow gathers them; `Dataset.flatten_indices` makes each row a Python object and takes 150 times as long.
    """
    from datasets import Dataset

    picked = table.select(places)
    if picked._indices is None:  # in one piece, which needs no gathering
        return picked
    taken = picked.data.table.take(picked._indices.column(0))
    return Dataset(taken, info=picked.info.copy(), split=picked.split)


def sample_rows(table: Dataset, most: int, seed: int) -> Dataset:
    """At most so many rows, drawn with the seed; all of them for `most` 0 or where there are no more."""
    if not most or table.num_rows <= most:
        return table
    return take_rows(table.shuffle(seed=seed), range(most))


def table_digest(table: Dataset) -> str:
    """sha256 of the rows of a table, in hex: equal for tables with the same columns and the same values in order."""
    data = take_rows(table, range(table.num_rows)).data.table.replace_schema_metadata(None)
    sums = hashlib.sha256(str(data.schema).encode())
    for batch in data.combine_chunks().to_batches(max_chunksize=1000):
        sums.update(batch.serialize())
    return sums.hexdigest()


def read_rows(path: Path) -> Dataset:
    """Read a table that `write_rows` wrote.

    Raises:
        DataError: The file is missing, cut short or not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    try:
        return Dataset(pq.read_table(path, memory_map=False))
    except FileNotFoundError:
        raise DataError(f"no rows at {path}; run the stage that makes them") from None
    except (pa.ArrowInvalid, pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable Parquet file ({error}); delete it and run again") from None


def with_rationales(table: Dataset, rationales: Sequence[str | None]) -> Dataset:
    """A table with the column `rationale`, one entry a row; one that is there is replaced."""
    from datasets import Value

    if RATIONALE in table.column_names:
        table = table.remove_columns(RATIONALE)
    whole = [None if said is None else whole_characters(said) for said in rationales]
    return table.add_column(RATIONALE, whole, feature=Value("string"))


def with_same_columns(splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Splits of one dataset, each with the column `rationale` where one has it: null where nobody was asked."""
    some = any(RATIONALE in table.column_names for table in splits.values())
    return {
        name: with_rationales(table, [None] * table.num_rows) if some and RATIONALE not in table.column_names else table
        for name, table in splits.items()
    }


def drop_line(dropped: Dropped) -> str:
    """One line of a file of dropped rows."""
    return json.dumps({**vars(dropped), "source": vars(dropped.source)}, ensure_ascii=False) + "\n"


def write_dropped(dropped: Iterable[Dropped], path: Path) -> int:
    """Write dropped rows as JSON lines; returns how many."""
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors="replace") as file:
        for item in dropped:
            file.write(drop_line(item))
            count += 1
    return count


def read_dropped(path: Path) -> Iterator[Dropped]:
    """Read what `write_dropped` wrote; nothing where the file is absent."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            item = json.loads(line)
            source = item.pop("source", None) or {}
            source["requests"] = tuple(source.get("requests") or ())
            yield Dropped(**item, source=Source(**source))


def join_fields(values: Mapping[str, str]) -> str:
    """One input text from one or more named fields.

    A single field is its value; several become `name: value` lines, in the mapping's order.

    Examples:
        >>> print(join_fields({"premise": "It rains.", "hypothesis": "It is wet."}))
        premise: It rains.
        hypothesis: It is wet.
    """
    items = [(name, str(value).strip()) for name, value in values.items()]
    if len(items) == 1:
        return items[0][1]
    return "\n".join(f"{name}: {value}" for name, value in items)


def split_fields(text: str, names: Sequence[str]) -> tuple[str, ...] | None:
    """The fields of a text that `join_fields` made; None where one of them is missing or they come in another order.

    Examples:
        >>> split_fields("premise: It rains.\\nhypothesis: It is wet.", ("premise", "hypothesis"))
        ('It rains.', 'It is wet.')
        >>> split_fields("It rains.", ("premise", "hypothesis")) is None
        True
    """
    if len(names) < 2:
        return (text,)
    rest, found = f"\n{text}", []
    for place, name in enumerate(names):
        before, mark, rest = rest.partition(f"\n{name}: ")
        if not mark or (place == 0 and before):
            return None
        if place:
            found.append(before.strip())
    return (*found, rest.strip())


def shared_fields(texts: Sequence[str]) -> tuple[str, ...]:
    """Names of the fields that all texts have as `join_fields` writes them; empty where they do not have two.

    Examples:
        >>> shared_fields(["one: a b\\ntwo: c", "one: d\\nmore\\ntwo: e"])
        ('one', 'two')
        >>> shared_fields(["one: a\\ntwo: b", "plain"])
        ()
    """
    if not texts:
        return ()
    marks = (line.partition(": ") for line in texts[0].split("\n"))
    names = list(dict.fromkeys(name for name, mark, _ in marks if mark and len(name) <= MOST_FIELD_NAME))
    # A line of the first text that merely looks like a field is none of the others'.
    heads = [f"\n{text}" for text in texts]
    kept = tuple(name for name in names if all(f"\n{name}: " in head for head in heads))
    fitting = len(kept) > 1 and all(split_fields(text, kept) is not None for text in texts)
    return kept if fitting else ()


def join_instruction(instruction: str, input: str = "") -> str:
    """The input text of a row that carries its own instruction: the instruction, a blank line, and its input if any.

    Examples:
        >>> join_instruction("Name a tree.")
        'Name a tree.'
    """
    return "\n\n".join(part for part in (instruction.strip(), input.strip()) if part)
