"""The refused rows of a run as one passing Parquet file, so that they are browsed like the kept ones.

What enters: the `dropped.jsonl` of each stage. What leaves: a Parquet file of their columns, in row groups. pyarrow
reads the lines, many at a time: made one by one in Python, the first look at 100,000 of them took seconds. A row's id
is a hash that the lines do not hold; it is taken for the rows that are shown, and for all once one is asked for by id.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.errors import DataError
from potstill.rows import Source, row_id

_GROUP = 5000
_BLOCK = 4 << 20
_TEXTS = ("input", "output", "origin", "reason", "detail", "stage")


def copy_refused(files: list[Path], place: Path) -> None:
    """Write the rows of some `dropped.jsonl` as one Parquet file; an empty stage becomes the name of its folder.

    Raises:
        DataError: A file holds something else.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = _schema()
    temporary = place.with_suffix(".tmp")
    with pq.ParquetWriter(temporary, schema) as writer:
        for file in files:
            try:
                for block in _blocks(file):
                    table = _parsed(block, schema)
                    columns = {name: pc.fill_null(table[name], "") for name in _TEXTS}
                    stage = columns["stage"]
                    columns["stage"] = pc.if_else(pc.equal(stage, ""), file.parent.name, stage)
                    columns["source"] = table["source"]
                    writer.write_table(pa.table(columns, schema=schema), row_group_size=_GROUP)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise DataError(
                    f"{file} is not what potstill wrote ({error}); delete its folder and run again"
                ) from None
    temporary.replace(place)


def refused_id(record: dict[str, Any]) -> str:
    """The id of a row as `copy_refused` stored it."""
    source = dict(record["source"] or {})
    return row_id(
        record["input"], record["output"], Source(**{**source, "requests": tuple(source.get("requests") or ())})
    )


def refused_ids(path: Path) -> Any:
    """The ids of all rows of a file of `copy_refused`, in order, as one pyarrow array."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(batch_size=_GROUP, columns=["input", "output", "source"])
        return pa.array([refused_id(record) for batch in batches for record in batch.to_pylist()], pa.string())


def _schema() -> Any:
    import pyarrow as pa

    text = pa.string()
    source = pa.struct(
        [("dataset", text), ("config", text), ("split", text), ("row", pa.int64()), ("teacher", text),
         ("requests", pa.list_(text))]
    )  # fmt: skip
    return pa.schema([*((name, text) for name in _TEXTS), ("source", source)])


def _blocks(file: Path) -> Iterator[bytes]:
    """The content of a file, some megabytes of whole lines at a time."""
    with file.open("rb") as lines:
        while block := lines.read(_BLOCK):
            yield block + lines.readline()


def _parsed(block: bytes, schema: Any) -> Any:
    import pyarrow as pa
    import pyarrow.json as pj

    table = pj.read_json(
        pa.BufferReader(block),
        pj.ReadOptions(use_threads=False, block_size=len(block) + 1),
        pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
    )
    table.validate(full=True)  # bytes that are no UTF-8 pass the parser
    return table
