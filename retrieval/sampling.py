"""A sample of a table, without reading the whole: row groups spread over a Parquet file, a bounded part of lines.

In: an open Parquet file, or lines. Out: rows with their numbers in the file. Files are often sorted by label, so the
first rows of one are no sample: row groups are taken from the whole length and rows from all over a group. What a
file claims is not believed: the bytes that come out are counted, for a few kilobytes of Parquet can unpack to
terabytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, BinaryIO

from potstill.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

MAX_SAMPLE_BYTES = 400_000_000
MAX_GROUP_BYTES = 1_500_000_000
# What the readers, and the library where it takes a schema's own description of the columns, raise besides Arrow's.
BROKEN = (OSError, ValueError, TypeError, MemoryError, LookupError, AttributeError)
_BATCH = 64
_MOST_GROUPS = 16
# Over what writers put into one group by default (2 ** 20 rows), so that such a group is sampled to its end.
_MOST_ROWS_OF_A_GROUP = 1_100_000


@dataclass(frozen=True)
class Sample:
    """Rows of a table.

    Attributes:
        table: The rows, nested columns flattened (`translation.en`).
        rows: Number of each row in its split; None where that is unknown.
        total: Rows of the split; 0 when unknown.
        commit: The commit of a Hub dataset that they were read at.
        split: The split that was read; None for a single file.
    """

    table: Dataset
    rows: Sequence[int | None]
    total: int = 0
    commit: str | None = None
    split: str | None = None


def sample_parquet(files: Sequence[tuple[str, BinaryIO]], limit: int | None) -> Sample:
    """Sample rows evenly from Parquet files that are parts of one split.

    Args:
        files: Names for messages, and open files (local, or remote with range requests).
        limit: Rows wanted; None reads all.

    Raises:
        DataError: No Parquet, cut short, or unpacks to more than a sample may.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    tables: list[pa.Table] = []
    numbers: list[int] = []
    start = used = total = 0
    readers = []
    name = ""
    try:
        for name, file in files:
            reader = pq.ParquetFile(file)
            readers.append((name, reader, total))
            total += reader.metadata.num_rows
        for name, reader, start in readers:
            share = (
                reader.metadata.num_rows if limit is None else round(limit * reader.metadata.num_rows / max(1, total))
            )
            share = min(reader.metadata.num_rows, max(1, share)) if reader.metadata.num_rows else 0
            for batch, found in _batches(name, reader, share, limit is None):
                used += batch.nbytes
                if used > MAX_SAMPLE_BYTES and limit is not None:
                    raise DataError(
                        f"{name}: {len(numbers):,} rows unpack to over {MAX_SAMPLE_BYTES >> 20} MiB; its cells are too "
                        "large for training text"
                    )
                tables.append(batch)
                numbers += [start + number for number in found]
        if not tables:
            tables = [readers[0][1].schema_arrow.empty_table()] if readers else []
        joined = pa.concat_tables(tables, promote_options="default")
        joined.validate(full=True)  # text that is no UTF-8 passes the reader, and would fail at its first use
        table = Dataset(joined)
    except (pa.ArrowException, *BROKEN) as error:
        raise DataError(f"{name} cannot be read ({str(error)[:200]}); check that the file is whole") from None
    return Sample(flat(table), numbers, total)


def _batches(name: str, reader: Any, share: int, everything: bool) -> Iterable[tuple[pa.Table, list[int]]]:
    """Parts of one file with the numbers of their rows."""
    import pyarrow as pa

    meta = reader.metadata
    groups = list(range(meta.num_row_groups))
    if not everything and len(groups) > _MOST_GROUPS:
        groups = [groups[round(i * (len(groups) - 1) / (_MOST_GROUPS - 1))] for i in range(_MOST_GROUPS)]
    starts = [0]
    for number in range(meta.num_row_groups):
        starts.append(starts[-1] + meta.row_group(number).num_rows)
    chosen = sum(meta.row_group(group).num_rows for group in groups)
    for group in groups:
        rows = meta.row_group(group).num_rows
        size = meta.row_group(group).total_byte_size
        if size > MAX_GROUP_BYTES:
            raise DataError(
                f"{name} unpacks to {size:,} bytes in one row group, over {MAX_GROUP_BYTES:,}; write it with smaller "
                "row groups"
            )
        within = min(rows, rows if everything else _MOST_ROWS_OF_A_GROUP)
        wanted = within if everything else min(within, -(-share * rows // max(1, chosen)))
        if not wanted:
            continue
        take = {i * within // wanted for i in range(wanted)}
        seen = 0
        for batch in reader.iter_batches(batch_size=4096 if everything else _BATCH, row_groups=[group]):
            places = [i for i in range(batch.num_rows) if seen + i in take]
            if places:
                part = plain_columns(pa.Table.from_batches([batch]).take(places))
                yield part, [starts[group] + seen + place for place in places]
            seen += batch.num_rows
            if seen >= within:
                break


def plain_columns(table: pa.Table) -> pa.Table:
    """Dictionary columns as what they stand for: their size counts, and every reader knows them."""
    import pyarrow as pa

    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return table


def sample_lines(name: str, lines: Iterable[bytes], limit: int | None, seed: int = 0) -> Sample:
    """Sample objects from JSON lines: a reservoir, so that each line has the same chance (Vitter 1985, algorithm R).

    Raises:
        DataError: A line is no JSON object.
    """
    rng = Random(seed)
    kept: list[tuple[int, int, bytes]] = []  # number of the row, of the line in the file, and the line
    used = seen = 0
    for at, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if limit is None or len(kept) < limit:
            kept.append((seen, at, line))
            used += len(line)
            if used > MAX_SAMPLE_BYTES and limit is not None:
                raise DataError(
                    f"{name}: {len(kept):,} lines hold over {MAX_SAMPLE_BYTES >> 20} MiB; give smaller rows"
                )
        else:
            place = rng.randrange(seen + 1)
            if place < limit:
                kept[place] = (seen, at, line)
        seen += 1
    kept.sort()
    records = []
    for _, at, line in kept:
        try:
            record = json.loads(line.rstrip().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            why = (
                f"{error.msg}, character {error.pos + 1}"
                if isinstance(error, json.JSONDecodeError)
                else str(error)[:120]
            )
            raise DataError(
                f"{name} cannot be read (line {at}: {why}); each line must be a JSON object of its own"
            ) from None
        if not isinstance(record, dict):
            raise DataError(f"{name} must hold objects, one a line (line {at} is {type(record).__name__})")
        records.append(record)
    return Sample(table_of(records, name), [number for number, _, _ in kept], seen)


def table_of(records: Sequence[dict[str, Any]], name: str) -> Dataset:
    """Objects as a table; columns that mix types become text, so that one odd row does not spoil a file."""
    import pyarrow as pa
    from datasets import Dataset

    columns = list(dict.fromkeys(str(key) for record in records for key in record))
    if len(columns) > 2000:
        raise DataError(f"{name} has {len(columns):,} columns, over 2,000")
    held: dict[str, Any] = {}
    for column in columns:
        values = [record.get(column) for record in records]
        try:
            held[column] = pa.array(values)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            plain = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
            held[column] = pa.array([None if v is None else v.encode("utf-8", "replace").decode() for v in plain])
    try:
        return flat(Dataset(pa.table(held)))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"{name} cannot be read ({str(error)[:200]}); check that the file is whole") from None


def flat(table: Dataset) -> Dataset:
    """Structs and translations as columns of their own, two levels deep; without images, sound and films.

    These are no text, and reading one would open the file or the address that the data names.
    """
    table = table.remove_columns([name for name, feature in table.features.items() if is_media(feature)])
    nested = any(
        isinstance(feature, dict) or type(feature).__name__ == "Translation" for feature in table.features.values()
    )
    return table.flatten(max_depth=2) if nested else table


def is_media(feature: Any) -> bool:
    """Whether a feature's values are decoded when they are read, or hold such."""
    if isinstance(feature, dict):
        return any(map(is_media, feature.values()))
    if isinstance(feature, list | tuple):
        return any(map(is_media, feature))
    return hasattr(feature, "decode_example") or is_media(getattr(feature, "feature", ()))
