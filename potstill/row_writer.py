"""Rows and drops to disk while they come, so that a stage's memory does not grow with its rows.

A table is written as zstd Parquet, one row group for each full buffer; drops as JSON lines. A file that was not closed
has no footer and is read by nobody: the stage that was killed writes it anew, from the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from potstill.rows import Dropped, Row, drop_line, row_features, row_record

if TYPE_CHECKING:
    from datasets import Features


class TableWriter:
    """A Parquet file that grows by row groups; `count` is how many rows it was given.

    Args:
        path: The file; an old one is replaced.
        features: Columns; the schema, label names included, is in the file.
        group: Rows in memory, and in a row group.
    """

    def __init__(self, path: Path, features: Features, group: int = 5000):
        import pyarrow.parquet as pq

        path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = features.arrow_schema
        self._writer: Any = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._group = group
        self._buffer: list[Mapping[str, Any]] = []
        self.count = 0

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one row, as JSON types."""
        self._buffer.append(record)
        self.count += 1
        if len(self._buffer) >= self._group:
            self._flush()

    def close(self) -> None:
        """Write what is left and the footer."""
        if self._writer is not None:
            self._flush()
            self._writer.close()
            self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._buffer:
            self._writer.write_table(pa.Table.from_pylist(self._buffer, schema=self._schema))
            self._buffer.clear()


class RowWriter:
    """Rows in the one schema to a Parquet file.

    Args:
        path: The file; an old one is replaced.
        labels: The task's label names.
        group: Rows in memory, and in a row group.
    """

    def __init__(self, path: Path, labels: Sequence[str], group: int = 5000):
        self._labels = list(labels)
        self._index = {name: number for number, name in enumerate(labels)}
        self._table = TableWriter(path, row_features(labels), group)

    @property
    def count(self) -> int:
        """Rows so far."""
        return self._table.count

    def add(self, row: Row) -> None:
        """Append a row.

        Raises:
            DataError: Its label, or the length of its probabilities, does not fit the labels.
        """
        self._table.add(row_record(row, self._index))

    def close(self) -> None:
        """Write what is left and the footer."""
        self._table.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class DropWriter:
    """Dropped rows as JSON lines; `rows.read_dropped` reads them.

    Args:
        path: The file; an old one is replaced.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8", errors="replace")
        self.count = 0

    def add(self, dropped: Dropped) -> None:
        """Append one."""
        self._file.write(drop_line(dropped))
        self.count += 1

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
