"""Data files and Hub datasets → tables, and the user's own data → rows.

What enters is a path or a Hub id; what leaves is a `datasets.Dataset` with its real features (class names
included), one split at a time: train feeds training, test stays apart. Only data formats are read (Parquet, Arrow,
JSON lines, JSON, CSV); of a dataset that needs a script to load, what the Hub made of it is read. Nothing is ever
executed. A sample is read where a limit is given: row groups of Parquet spread over the file, on the Hub by range
requests.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import DataError
from potstill.retrieval.arrow_files import NOT_DATA, sample_arrow, saved_splits
from potstill.retrieval.configs import chosen_split
from potstill.retrieval.csv_rows import csv_records
from potstill.retrieval.hub_rows import open_hub
from potstill.retrieval.row_texts import all_references, holds_references, joined_instruction, text_items
from potstill.retrieval.sampling import Sample, sample_lines, sample_parquet, table_of
from potstill.rows import REFERENCES, Origin, Row, Source, join_fields, rows_to_dataset, whole_characters
from potstill.task import DataRef, TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.retrieval.columns import ColumnChoice

_Tell = Callable[[str], object] | None
FORMATS = (".parquet", ".jsonl", ".jsonl.gz", ".ndjson", ".json", ".csv", ".csv.gz", ".tsv", ".arrow")
_SAYS_LABEL = ("label", "labels", "label_text", "output", "class", "category")
_SAYS_ANSWER = (
    "output",
    "outputs",
    "answer",
    "answers",
    "response",
    "completion",
    "summary",
    "target",
    "reply",
    "solution",
)
# What files and folders of datasets are called after, as the `datasets` library reads their names.
_SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip
_FILE_LIMIT = 2 << 30
_LINE_LIMIT = 64 << 20


def read_data(
    ref: DataRef,
    spec: TaskSpec,
    *,
    origin: Origin = "user",
    limit: int | None = None,
    tell: Callable[[str], object] | None = None,
    commits: dict[str, str] | None = None,
    measured: bool = False,
) -> Dataset:
    """The user's labelled data as rows in the one schema.

    Args:
        ref: Where it is, and which columns.
        spec: The task; labels are matched to its names (`LabelNames`). Rows without a label are left out, and of a task
            without labels those whose answer is null, or an empty cell of a CSV.
        origin: Origin of the rows.
        limit: At most this many rows.
        tell: Is told how many rows are left out, where some are: those without a text, label or answer; and where the
            first line of a CSV is read as a row.
        commits: Takes the commit that a dataset of the Hub was read at, under the path of `ref`.
        measured: Whether answers are measured on these rows: where some have several right ones, a column
            `references` holds them all. What is learnt from has the first.

    Raises:
        DataError: The data cannot be read, a column is missing, or a label is not one of the task's; the message
            names both sides.
    """
    from potstill.retrieval.label_names import LabelNames

    table = _unfolded(_table(ref, ref.split, limit, commits, tell), ref, spec)
    inputs, output = _columns(table, ref, spec)
    known = LabelNames(spec.label_names)
    rows, foreign, unlabelled = [], set(), 0
    # Written as "" an answer is empty; a cell with nothing in it has none, and a CSV cannot say "".
    none = (None, "") if ref.path.endswith((".csv", ".csv.gz", ".tsv")) else (None,)
    missing = () if spec.labels else {index for index, value in enumerate(table[output]) if value in none}
    references, join = holds_references(spec, output), _join(spec)
    for index, item in enumerate(text_items(table, inputs, output, spec.inputs, references=references, join=join)):
        text, answer = item
        if index in missing:
            unlabelled += 1
            continue
        if spec.labels:
            if not answer.strip():  # a cell left empty, or class -1 for what nobody labelled
                unlabelled += 1
                continue
            name = known.get(answer)
            if name is None:
                foreign.add(answer)
                continue
            answer = name
        if text.strip():
            source = Source(dataset=ref.path, config=ref.config, split=ref.split, row=index)
            rows.append(Row(text, answer, origin, source, label=answer if spec.labels else None))
    if foreign:
        shown = ", ".join(repr(name) for name in sorted(foreign)[:8])
        raise DataError(
            f"{ref.path}: column {output!r} holds labels that the task does not have: {shown}; the task's labels are "
            f"{', '.join(spec.label_names)}; rename them in the data or add them to the task"
        )
    if unlabelled and not rows:
        raise DataError(
            f"{ref.path}: column {output!r} is empty in all {unlabelled} rows; name the column of the "
            f"{'labels' if spec.labels else 'answers'}"
        )
    if tell is not None and len(rows) < table.num_rows:
        what = f"have no text or no {'label' if spec.labels else 'answer'}"
        tell(f"{table.num_rows - len(rows):,} of {table.num_rows:,} rows in {ref.path} {what} and are left out")
    made = rows_to_dataset(rows, spec.label_names)
    if not (measured and references):
        return made
    right = [[whole_characters(one) for one in all_references(value)] for value in table[output]]
    kept = [right[row.source.row or 0] for row in rows]
    return made.add_column(REFERENCES, kept) if any(len(answers) > 1 for answers in kept) else made


def input_columns(ref: DataRef, spec: TaskSpec, limit: int) -> tuple[str, ...]:
    """The columns that `read_data` makes the input of, told from a sample of the rows.

    Raises:
        DataError: As of `read_data`.
    """
    return _columns(_unfolded(_table(ref, ref.split, limit, None), ref, spec), ref, spec)[0]


def _columns(table: Dataset, ref: DataRef, spec: TaskSpec) -> tuple[tuple[str, ...], str]:
    if not table.num_rows:
        raise DataError(f"{ref.path} has no rows; give a file that has some")
    for column in (*ref.inputs, *((ref.output,) if ref.output else ())):
        if column not in table.column_names:
            raise DataError(f"{ref.path} has no column {column!r}; its columns are {', '.join(table.column_names)}")
    inputs, output = ref.inputs or _fields_of(table, spec), ref.output
    if output is not None and output in ref.inputs:
        raise DataError(
            f"{ref.path}: the column {output!r} is named as an input and as the output; leave it out of one"
        )
    if inputs and output is not None:
        return tuple(inputs), output
    choice = _choice(table, spec)
    if choice.output is None:
        mend = "name them: inputs: [...], output: ... in a task file, --input and --output on the command line"
        raise DataError(f"{ref.path}: {choice.how}; {mend}")
    return tuple(inputs or choice.inputs), output or choice.output


def output_column(table: Dataset, ref: DataRef, spec: TaskSpec) -> str | None:
    """The column of the answers, named by the reference or else chosen; None where there is none."""
    output = ref.output or _choice(table, spec).output
    return output if output in table.column_names else None


def _join(spec: TaskSpec) -> Callable[[Mapping[str, str]], str]:
    """How the texts of a row's columns become its input: as in the rows that the student learns from."""
    return joined_instruction if spec.kind == "instructions" else join_fields


def _unfolded(table: Dataset, ref: DataRef, spec: TaskSpec) -> Dataset:
    """A table of chats as one of instructions, where the task is to follow these and no column is named."""
    from potstill.retrieval.instruction_sets import unfolded_chats

    return unfolded_chats(table) if spec.kind == "instructions" and not (ref.inputs or ref.output) else table


def _choice(table: Dataset, spec: TaskSpec) -> ColumnChoice:
    from potstill.retrieval.columns import choose_columns
    from potstill.retrieval.instruction_sets import instruction_columns

    if spec.kind == "instructions" and (own := instruction_columns(table, own=True)).output is not None:
        return own
    choice = choose_columns(table, spec)
    # Where no column fits, one that is called so: its values are told to be no labels of the task, or to be missing.
    return (_named_output(table, spec) if choice.output is None else None) or choice


def read_texts(
    ref: DataRef,
    spec: TaskSpec,
    limit: int | None = None,
    commits: dict[str, str] | None = None,
    *,
    blanks: bool = False,
) -> list[str]:
    """Texts without labels: a text file with one a line, or a column of a table.

    Bytes of a text file that are not UTF-8 become U+FFFD, so that the caller can count the lines that hold some.
    `commits` takes the commit that a dataset of the Hub was read at, under the path of `ref`. Lines and rows without
    a text are left out, unless `blanks` are wanted, so that places in the list are those of the file.

    Raises:
        DataError: The data cannot be read, or has no text column.
    """
    from potstill.retrieval.columns import choose_columns, text_columns

    if Path(ref.path).suffix.lower() == ".txt":
        _refuse_parts(ref.path, ref.split, ref.config)
        text = _decoded(_read_bytes(Path(ref.path)), errors="replace")
        lines = [line.strip() for line in text.removesuffix("\n").split("\n")]
        return list(islice((line for line in lines if blanks or line), limit))
    table = _unfolded(_table(ref, ref.split, limit, commits), ref, spec)
    if not table.num_rows:
        raise DataError(f"{ref.path} has no rows; give a file that has some")
    chosen = _choice if spec.kind == "instructions" else choose_columns
    inputs = ref.inputs or _fields_of(table, spec) or chosen(table, spec).inputs or text_columns(table, spec)
    if not inputs:
        raise DataError(f"{ref.path} has no text column among {', '.join(table.column_names)}")
    items = text_items(table, inputs, None, spec.inputs, join=_join(spec))
    return [text for text, _ in items if blanks or text.strip()]


def _table(
    ref: DataRef,
    split: str | None,
    limit: int | None,
    commits: dict[str, str] | None,
    tell: Callable[[str], object] | None = None,
) -> Dataset:
    sample = read_sample(ref.path, split=split, config=ref.config, limit=limit, tell=tell, training=ref.training)
    if commits is not None and sample.commit:
        commits[ref.path] = sample.commit
    return sample.table


def _named_output(table: Dataset, spec: TaskSpec) -> ColumnChoice | None:
    """Of a table of two columns one of which is called the label, or the answer: that one, whatever it holds."""
    from potstill.retrieval.columns import ColumnChoice

    names = table.column_names
    called = [
        name for name in names if name.lower() in (_SAYS_LABEL if spec.kind == "classification" else _SAYS_ANSWER)
    ]
    if len(names) != 2 or len(called) != 1:
        return None
    return ColumnChoice(tuple(name for name in names if name not in called), called[0], "the columns' names")


def _fields_of(table: Dataset, spec: TaskSpec) -> tuple[str, ...]:
    """The task's own input fields where the user's table has columns of just these names: nothing is left to guess."""
    return spec.inputs if spec.inputs and set(spec.inputs) <= set(table.column_names) else ()


def open_table(path: str, *, split: str | None = None, config: str | None = None, limit: int | None = None) -> Dataset:
    """The rows of `read_sample`, without their numbers."""
    return read_sample(path, split=split, config=config, limit=limit).table


def read_sample(
    path: str,
    *,
    split: str | None = None,
    config: str | None = None,
    limit: int | None = None,
    tell: Callable[[str], object] | None = None,
    training: bool = False,
) -> Sample:
    """One split of a local file or folder, or of a Hub dataset, or an even sample of it.

    Args:
        path: Local path, or a Hub id `user/name` or `user/name@revision`.
        split: Split to read; None takes the training split for what is learnt from, else `test` where there is one,
            or the only one.
        config: Configuration (Hub, or a folder whose card lists several).
        limit: At most this many rows, spread over the whole split.
        tell: Is told where the first line of a CSV is read as a row.
        training: Whether it is learnt from.

    Raises:
        DataError: Unreadable, of an unknown format, too large, not there, or not reachable.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        return _open_folder(place, split, config, limit, tell, training)
    if place.exists():
        _refuse_parts(path, split, config)
        return _open_files([place], limit, tell)
    name, pinned, revision = path.partition("@")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or (place.suffix and "/" not in path):
        raise DataError(f"no data at {path}; give a file ({', '.join(FORMATS)}), a folder, or a Hub id user/name")
    return open_hub(name, split, config, limit, revision if pinned else None, training=training)


def _refuse_parts(file: str, split: str | None, config: str | None) -> None:
    """Refuse a split or a configuration of a single file: read without them, it would be taken for what was meant."""
    for what, asked in (("split", split), ("configuration", config)):
        if asked is not None:
            raise DataError(
                f"{file} is one file, which has no {what} {asked!r}; leave it out, or give a folder or a dataset of "
                "the Hub that has some"
            )


def splits_of(folder: Path, config: str | None = None) -> dict[str, list[Path]]:
    """Data files of a folder by split: from the card's `data_files`, as `save_to_disk` left them, or by their names."""
    from potstill.retrieval.catalogue import card_data_files

    declared = card_data_files(folder, config) or saved_splits(folder)
    if declared:
        return declared
    found: dict[str, list[Path]] = {}
    for sub in (folder, folder / "data"):
        for file in sorted(sub.glob("*")) if sub.is_dir() else []:
            named = file.name.endswith(FORMATS) and not file.name.startswith(("card", "tasks."))
            if named and file.name not in NOT_DATA and file.is_file():
                found.setdefault(_split_of(file.name), []).append(file)
    return found


def _split_of(name: str) -> str:
    """The split that a file's name says: a word for one anywhere in it, else its first word."""
    stem = name.split(".")[0].lower()
    words = re.split(r"[^a-z]+", stem)
    return next((_SPLITS[word] for word in words if word in _SPLITS), re.split(r"[-_]", stem)[0])


def _open_folder(
    folder: Path, split: str | None, config: str | None, limit: int | None, tell: _Tell, training: bool
) -> Sample:
    splits = splits_of(folder, config)
    if not splits:
        scripts = [file.name for file in folder.glob("*.py")]
        why = f"only a loading script ({scripts[0]}), which is never run" if scripts else "no data file"
        raise DataError(f"{folder} holds {why}; data must be one of {', '.join(FORMATS)}")
    if split is not None and split not in splits:
        split = _SPLITS.get(split.lower(), split)
    name = split or chosen_split(splits, training, str(folder))
    if name not in splits:
        raise DataError(f"{folder} has no split {name!r}; it has {', '.join(splits)}")
    return replace(_open_files(splits[name], limit, tell), split=name)


def _open_files(files: Sequence[Path], limit: int | None, tell: _Tell) -> Sample:
    from datasets import concatenate_datasets

    if all(file.name.lower().endswith(".parquet") for file in files):
        with ExitStack() as stack:
            try:
                opened = [(str(file), stack.enter_context(file.open("rb"))) for file in files]
            except OSError as error:
                raise DataError(f"{files[0]} cannot be read ({error}); check the path") from None
            return sample_parquet(opened, limit)
    if all(file.name.lower().endswith(".arrow") for file in files):
        return sample_arrow(files, limit)
    parts = [_open_file(file, None if limit is None else -(-limit // len(files)), tell) for file in files]
    if len(parts) == 1:
        return parts[0]
    starts = [sum(part.total for part in parts[:i]) for i in range(len(parts))]
    numbers = [None if number is None else start + number for start, part in zip(starts, parts) for number in part.rows]
    try:
        joined = concatenate_datasets([part.table for part in parts])
    except (ValueError, TypeError) as error:
        raise DataError(f"{files[0].parent}: its files do not hold the same columns ({str(error)[:120]})") from None
    return Sample(joined, numbers, sum(part.total for part in parts))


def _open_file(file: Path, limit: int | None, tell: _Tell) -> Sample:
    name = file.name.lower()
    if name.endswith((".parquet", ".arrow")):
        return _open_files([file], limit, tell)
    if not name.endswith(FORMATS):
        mend = {".txt": "; a .txt has no labels or answers: as unlabelled: it would do", ".xlsx": "; save it as CSV"}
        raise DataError(f"{file} is of no known format; known: {', '.join(FORMATS)}{mend.get(Path(name).suffix, '')}")
    try:
        if name.endswith((".jsonl", ".jsonl.gz", ".ndjson")):
            with gzip.open(file) if name.endswith(".gz") else file.open("rb") as stream:
                return sample_lines(str(file), _bounded(stream, file), limit)
        text = _decoded(_read_bytes(file))
        if name.endswith(".json"):
            try:
                records = json.loads(text)
            except json.JSONDecodeError as error:
                if not error.msg.startswith("Extra data"):
                    raise
                return sample_lines(str(file), text.encode().split(b"\n"), limit)  # objects, one a line
            if isinstance(records, dict) and not any(isinstance(part, (dict, list)) for part in records.values()):
                records = [records]  # of which there is one
        else:
            records = csv_records(text, str(file), "\t" if name.endswith(".tsv") else None, tell)
        if not isinstance(records, list) or not all(isinstance(item, dict) for item in records):
            held = "a list of others" if isinstance(records, list) else f"a {type(records).__name__}"
            raise DataError(f"{file} must hold a list of objects, or objects one a line; it holds {held}")
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        raise DataError(f"{file} is not UTF-8 (byte 0x{found:02x} at {error.start:,}); save it as UTF-8") from None
    except (OSError, EOFError, zlib.error, ValueError, TypeError, RecursionError, csv.Error) as error:
        raise DataError(f"{file} cannot be read ({str(error)[:200]}); check that the file is whole") from None
    wanted = len(records) if limit is None else min(limit, len(records))
    numbers = [i * len(records) // wanted for i in range(wanted)] if wanted else []
    return Sample(table_of([records[i] for i in numbers], str(file)), numbers, len(records))


def _decoded(data: bytes, errors: str = "strict") -> str:
    """UTF-8, or UTF-16 where the file begins with its mark, as spreadsheets write Unicode."""
    coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return data.decode(coding, errors)


def _bounded(stream: Any, file: Path) -> Iterator[bytes]:
    """Lines of a stream, counted: what unpacks to more than the limit is refused before it fills the memory."""
    total = 0
    while line := stream.readline(_LINE_LIMIT + 1):
        total += len(line)
        if len(line) > _LINE_LIMIT:
            raise DataError(f"{file} has a line of over {_LINE_LIMIT >> 20} MiB; check that it holds one row a line")
        if total > _FILE_LIMIT:
            raise DataError(f"{file} unpacks to more than {_FILE_LIMIT >> 20} MiB; give a sample of it")
        yield line


def _read_bytes(file: Path) -> bytes:
    try:
        if file.suffix == ".gz":
            with gzip.open(file) as stream:
                data = stream.read(_FILE_LIMIT + 1)
            if len(data) > _FILE_LIMIT:
                raise DataError(f"{file} unpacks to more than {_FILE_LIMIT >> 20} MiB; give a sample of it")
            return data
        if (size := file.stat().st_size) > _FILE_LIMIT:
            raise DataError(f"{file} has {size >> 20} MiB, more than {_FILE_LIMIT >> 20}; give a sample of it")
        return file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"no file at {file}; check the path") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read ({error}); check the path and that the file is whole") from None
