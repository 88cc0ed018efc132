"""Arrow files, and the folders of them that `save_to_disk` of `datasets` writes.

In: files, or a folder. Out: a `Sample`, or the folder's files by split, as `state.json` of each split lists them. Files
are mapped into memory, so that of a large one only what is taken is read. `datasets.load_from_disk` would trust what a
file says of itself; here offsets are checked before they are followed, and only files inside the folder are opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import DataError
from potstill.retrieval.sampling import BROKEN, MAX_GROUP_BYTES, MAX_SAMPLE_BYTES, Sample, flat, plain_columns

if TYPE_CHECKING:
    import pyarrow as pa

_STATE, _SPLITS = "state.json", "dataset_dict.json"
# Files that stand beside data and hold none.
NOT_DATA = frozenset({
    "card.json", "manifest.json", "dataset_info.json", "dataset_infos.json", _SPLITS, _STATE, "cards.jsonl",
})  # fmt: skip
_MOST_BATCHES = 64
_STEP = 64
_FILE_MAGIC = b"ARROW1"


def saved_splits(folder: Path) -> dict[str, list[Path]]:
    """Arrow files of a folder by split; empty where `save_to_disk` did not write it."""
    if (folder / _STATE).is_file():
        return _files(folder, folder, None)
    names = _read(folder / _SPLITS).get("splits")
    found: dict[str, list[Path]] = {}
    for name in names if isinstance(names, list) else []:
        if isinstance(name, str) and name:
            found |= _files(folder, folder / name, name)
    return found


def _files(root: Path, folder: Path, split: str | None) -> dict[str, list[Path]]:
    """The files of one split under its name; nothing where one is missing or lies outside of `root`."""
    state = _read(folder / _STATE)
    listed = state.get("_data_files")
    names = [item.get("filename") for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    try:
        files = [folder / name for name in names if isinstance(name, str)]
        inside = all(file.is_file() and file.resolve().is_relative_to(root.resolve()) for file in files)
    except (OSError, ValueError):
        return {}
    return {split or str(state.get("_split") or "train"): files} if files and inside else {}


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def sample_arrow(files: Sequence[Path], limit: int | None) -> Sample:
    """Sample rows evenly from Arrow files that are parts of one split.

    Args:
        files: Streams, as `datasets` writes them, or files with a footer (Feather).
        limit: Rows wanted; None reads all.

    Raises:
        DataError: No Arrow, cut short, or unpacks to more than a sample may.
    """
    import pyarrow as pa
    from datasets import Dataset

    name = str(files[0])
    try:
        batches: list[pa.RecordBatch] = []
        for file in files:
            name = str(file)
            batches += _batches(file)
        tables = [plain_columns(pa.Table.from_batches([batches[0].slice(0, 0)]))]
        numbers: list[int] = []
        used, step = 0, _STEP if limit is not None else 64 * _STEP
        for batch, rows, start in _spread(batches, limit):
            batch.validate(full=True)
            # In steps: a dictionary's one long value may stand in every row.
            for place in range(0, len(rows), step):
                taken = batch.take(pa.array(rows[place : place + step], pa.int64()))
                tables.append(plain_columns(pa.Table.from_batches([taken])))
                used += tables[-1].nbytes
                if used > MAX_SAMPLE_BYTES and limit is not None:
                    raise DataError(
                        f"{name}: {len(numbers):,} rows hold over {MAX_SAMPLE_BYTES >> 20} MiB; its cells are too "
                        "large for training text"
                    )
            numbers += [start + row for row in rows]
        table = Dataset(pa.concat_tables(tables, promote_options="default"))
    except (pa.ArrowException, *BROKEN) as error:
        raise DataError(f"{name} cannot be read ({str(error)[:200]}); check that the file is whole") from None
    return Sample(flat(table), numbers, sum(batch.num_rows for batch in batches))


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    """Parts of one file, one without rows where it has none; their buffers are the file's own unless it is packed."""
    import pyarrow as pa

    source = pa.memory_map(str(file))
    footed = source.read(len(_FILE_MAGIC)) == _FILE_MAGIC
    source.seek(0)
    reader = pa.ipc.open_file(source) if footed else pa.ipc.open_stream(source)
    used = 0
    for batch in map(reader.get_batch, range(reader.num_record_batches)) if footed else reader:
        used += batch.nbytes
        if used > max(MAX_GROUP_BYTES, source.size()):
            raise DataError(f"{file} unpacks to more than {MAX_GROUP_BYTES:,} bytes; write it unpacked, or as Parquet")
        if batch.num_rows > 8 * max(batch.nbytes, source.size()):  # a column of nothing takes no bytes
            raise DataError(f"{file} claims {batch.num_rows:,} rows in {source.size():,} bytes; check that it is whole")
        yield batch
    yield pa.RecordBatch.from_pylist([], schema=reader.schema)


def _spread(batches: Sequence[pa.RecordBatch], limit: int | None) -> Iterator[tuple[pa.RecordBatch, list[int], int]]:
    """Batches from the whole length, each with the rows to take of it and the number of its first row."""
    starts = [0]
    for batch in batches:
        starts.append(starts[-1] + batch.num_rows)
    chosen = [place for place, batch in enumerate(batches) if batch.num_rows]
    if limit is not None and len(chosen) > _MOST_BATCHES:
        chosen = [chosen[round(i * (len(chosen) - 1) / (_MOST_BATCHES - 1))] for i in range(_MOST_BATCHES)]
    within = sum(batches[place].num_rows for place in chosen)
    wanted = within if limit is None else min(limit, within)
    before = 0
    for place in chosen:
        rows = batches[place].num_rows
        count = wanted * (before + rows) // within - wanted * before // within
        before += rows
        if count:
            yield batches[place], [i * rows // count for i in range(count)], starts[place]
