"""The rows of a run, a page at a time: filtered, searched, and each with where it came from.

What enters: a run folder. What leaves: `Page`s of records (JSON types) out of the merged splits or of what stages
refused. Parquet files are scanned by row group, and only the columns that a filter needs; the places that a filter
found are kept for the latest filters, so turning a page reads one row group. Refused rows lie in JSON lines; they are
copied into one passing Parquet file at first use (see `refused`), so that both are browsed alike.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from potstill.asking.ledger import Ledger
from potstill.decisions import Decision, read_decisions
from potstill.errors import DataError, OptionError, UserError
from potstill.near_runs import no_run
from potstill.pages.refused import copy_refused, refused_id, refused_ids
from potstill.run_dir import REFUSING_STAGES

View = Literal["kept", "dropped"]
SPLITS = ("train", "validation", "heldout")
_KEPT_COLUMNS = ["id", "input", "output", "origin", "source", "licence", "weight", "teacher_probs"]
_REMEMBERED_FILTERS = 32
_REMEMBERED_ROWS = 5000


@dataclass(frozen=True)
class Filter:
    """Which rows are wanted; an empty field lets all through.

    Attributes:
        view: `kept` rows of the merged splits, or `dropped` ones.
        origin: retrieved, generated, pseudo or user.
        label: Output, as a whole.
        source: Dataset id or teacher, as a whole.
        split: train, validation or heldout (kept rows).
        reason: Why a stage refused the row (dropped rows).
        stage: Which stage refused it (dropped rows).
        search: Words that the input or the output contains, in any case.
    """

    view: View = "kept"
    origin: str = ""
    label: str = ""
    source: str = ""
    split: str = ""
    reason: str = ""
    stage: str = ""
    search: str = ""

    def __post_init__(self) -> None:
        if self.view not in ("kept", "dropped"):
            raise OptionError("filter", [f"view {self.view!r} is none of kept, dropped"])


@dataclass(frozen=True)
class Page:
    """Some of the rows that a filter lets through.

    Attributes:
        total: How many it lets through.
        offset: Place of the first of `rows` among them.
        rows: Records, JSON types.
    """

    total: int
    offset: int
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class _Table:
    """One Parquet file with what is the same for all its rows."""

    path: Path
    split: str = ""


class RowBrowser:
    """Reads a run's rows. Safe to share between threads that take turns.

    Raises:
        UserError: There is no run, or it has no rows yet.
    """

    def __init__(self, run: Path | str):
        self.run = Path(run)
        if not (self.run / "task" / "task.json").exists():
            raise no_run(self.run)
        self._found: OrderedDict[tuple[Filter, str], list[tuple[int, int]]] = OrderedDict()
        self._shown: OrderedDict[str, tuple[View, str, int, int]] = OrderedDict()
        self._passing: tempfile.TemporaryDirectory[str] | None = None
        self._refused_ids: tuple[Path, Any] | None = None
        self._copying = threading.Lock()

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The task as JSON types."""
        return dict(json.loads((self.run / "task" / "task.json").read_text(encoding="utf-8")))

    @property
    def labels(self) -> list[str]:
        """Label names; empty unless classification."""
        return [str(label["name"]) for label in self.spec.get("labels", [])]

    def close(self) -> None:
        """Remove the passing copy of the refused rows."""
        with self._copying:
            if self._passing is not None:
                self._passing.cleanup()
                self._passing = None

    def prepare(self) -> None:
        """Copy the refused rows before somebody asks for them. Needs no turn.

        Raises:
            DataError: A file cannot be read.
        """
        self._dropped_table()

    def page(self, wanted: Filter, offset: int = 0, limit: int = 50) -> Page:
        """Rows `offset` to `offset + limit` of those that the filter lets through.

        Raises:
            UserError: There are no rows yet.
            DataError: A file cannot be read.
        """
        tables = self._tables(wanted.view)
        places = self._places(wanted, tables)
        rows = []
        for table, row in places[offset : offset + limit]:
            rows.append(self._record(wanted.view, tables[table], row))
            self._shown[rows[-1]["id"]] = (wanted.view, _mark(tables), table, row)
        while len(self._shown) > _REMEMBERED_ROWS:
            self._shown.popitem(last=False)
        decided = self.decisions()
        for record in rows:
            decision = decided.get((record["input"], record["output"]))
            record["decision"] = None if decision is None else decision.to_json()
        return Page(len(places), offset, rows)

    def facets(self, view: View = "kept") -> dict[str, dict[str, int]]:
        """For each field that can be filtered by, its values and their counts, the commonest first."""
        import pyarrow as pa

        tables = self._tables(view)
        names = ["origin", "output", "source"] + (["reason", "stage"] if view == "dropped" else [])
        counts: dict[str, dict[str, int]] = {}
        for table in tables:
            for batch in _batches(table.path, names):
                for name in names:
                    column = _source_names(batch) if name == "source" else batch[name]
                    key = "label" if name == "output" else name
                    if key == "label" and not self.labels:
                        continue
                    values = pa.chunked_array(column) if isinstance(column, list) else column
                    for item in values.value_counts().to_pylist():
                        place = counts.setdefault(key, {})
                        place[str(item["values"] or "")] = place.get(str(item["values"] or ""), 0) + item["counts"]
            if view == "kept":
                counts.setdefault("split", {})[table.split] = _rows_in(table.path)
        return {
            key: dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))[:200])
            for key, found in counts.items()
        }

    def find(self, id: str) -> dict[str, Any]:
        """One row by its id (or a start of it that no other row has), kept or dropped, with its `provenance`.

        Raises:
            UserError: No such row, or several.
        """
        record = self._shown_record(id) or self._found_record(id)
        decision = self.decisions().get((record["input"], record["output"]))
        record["decision"] = None if decision is None else decision.to_json()
        return record | {"provenance": self.provenance(record)}

    def _shown_record(self, id: str) -> dict[str, Any] | None:
        """A row that a page has shown, while its files are the same: the quick way to a row that is clicked."""
        if id not in self._shown:
            return None
        view, mark, table, row = self._shown[id]
        tables = self._tables(view, missing_ok=True)
        return self._record(view, tables[table], row) if _mark(tables) == mark else None

    def _found_record(self, id: str) -> dict[str, Any]:
        import pyarrow.compute as pc

        hits: list[dict[str, Any]] = []
        views: tuple[View, ...] = ("kept", "dropped")
        for view in views:
            for table in self._tables(view, missing_ok=True):
                start = 0
                for ids in self._ids(view, table):
                    for row in pc.indices_nonzero(pc.starts_with(ids, id)).to_pylist():
                        hits.append(self._record(view, table, start + row))
                    start += len(ids)
                    if len(hits) > 20:
                        break
            if any(hit["id"] == id for hit in hits):
                break  # a kept row goes before the refused ones, whose ids take a second
        whole = [hit for hit in hits if hit["id"] == id]
        unique = {hit["id"] for hit in hits}
        if not hits or (not whole and len(unique) > 1):
            what = f"{len(unique)} rows begin with" if unique else "no row has"
            raise UserError(f"{what} the id {id!r} in {self.run}; list ids with: potstill inspect {self.run}")
        return (whole or hits)[0]

    def _ids(self, view: View, table: _Table) -> Iterator[Any]:
        """The ids of a table, in parts."""
        if view == "kept":
            yield from (batch["id"] for batch in _batches(table.path, ["id"]))
            return
        if self._refused_ids is None or self._refused_ids[0] != table.path:
            self._refused_ids = (table.path, refused_ids(table.path))
        yield self._refused_ids[1]

    def provenance(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Where a row came from: the dataset's card and row, or each request to the teacher with its raw reply."""
        source = record["source"]
        if source.get("requests"):
            return {"teacher": source.get("teacher"), "requests": list(self._requests(source["requests"]))}
        name = source.get("dataset") or ""
        card = next((hit for hit in self._hits if hit.get("id") == name), None)
        place = {key: source[key] for key in ("dataset", "config", "split", "row") if source.get(key) is not None}
        return {"place": place, "card": card}

    def decisions(self) -> dict[tuple[str, str], Decision]:
        """What a person decided about rows, by input and output."""
        return read_decisions(self.run)

    @cached_property
    def _hits(self) -> list[dict[str, Any]]:
        path = self.run / "retrieval" / "ranking.json"
        try:
            return [dict(hit) for hit in json.loads(path.read_text(encoding="utf-8")).get("hits", [])]
        except (OSError, ValueError, AttributeError):
            return []

    def _requests(self, keys: list[str]) -> Iterator[dict[str, Any]]:
        path = self.run / "ledger.sqlite"
        if not path.exists():
            return
        with Ledger(path, read_only=True) as ledger:
            for key in keys:
                entry = ledger.get(key)
                if entry is None:
                    yield {"key": key, "missing": True}
                    continue
                request = dict(entry.request)
                yield {
                    "key": key, "purpose": entry.purpose, "teacher": entry.teacher,
                    "messages": request.pop("messages", []), "sampling": request, "reply": entry.reply.get("text", ""),
                    "raw": dict(entry.reply), "finish": entry.finish, "prompt_tokens": entry.prompt_tokens,
                    "completion_tokens": entry.completion_tokens, "seconds": entry.seconds,
                }  # fmt: skip

    def _tables(self, view: View, *, missing_ok: bool = False) -> list[_Table]:
        if view == "dropped":
            return [_Table(self._dropped_table())]
        found = [_Table(path, name) for name in SPLITS if (path := self.run / "merge" / f"{name}.parquet").exists()]
        if not found:
            written = [
                path for stage in ("datagen", "retrieval") if (path := self.run / stage / "rows.parquet").exists()
            ]
            found = [_Table(path, path.parent.name) for path in written]
        if not found and not missing_ok:
            raise UserError(f"{self.run} has no rows yet; go on with: potstill run TASK --out {self.run}")
        return found

    def _dropped_table(self) -> Path:
        """The refused rows of all stages as one Parquet file, copied again when one of them has changed."""
        files = [path for stage in REFUSING_STAGES if (path := self.run / stage / "dropped.jsonl").exists()]
        mark = "-".join(f"{path.stat().st_mtime_ns:x}" for path in files) or "none"
        with self._copying:
            if self._passing is None:
                self._passing = tempfile.TemporaryDirectory(prefix="potstill-browse-")
            place = Path(self._passing.name) / f"{hashlib.blake2b(mark.encode(), digest_size=16).hexdigest()}.parquet"
            if not place.exists():
                copy_refused(files, place)
        return place

    def _places(self, wanted: Filter, tables: list[_Table]) -> list[tuple[int, int]]:
        key = (wanted, _mark(tables))
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        places: list[tuple[int, int]] = []
        for number, table in enumerate(tables):
            if wanted.split and table.split != wanted.split:
                continue
            places += [(number, row) for row in _matching(table.path, wanted)]
        self._found[key] = places
        while len(self._found) > _REMEMBERED_FILTERS:
            self._found.popitem(last=False)
        return places

    def _record(self, view: View, table: _Table, row: int) -> dict[str, Any]:
        record = _row_at(table.path, row, None if view == "dropped" else _KEPT_COLUMNS)
        if view == "dropped":
            record = {"id": refused_id(record)} | record
        record["source"] = {
            key: value for key, value in (record.get("source") or {}).items() if value not in (None, [])
        }
        if record.get("teacher_probs") is not None:
            record["teacher_probs"] = [round(float(value), 4) for value in record["teacher_probs"]]
        return record | {"view": view, **({"split": table.split} if view == "kept" else {})}


def _mark(tables: list[_Table]) -> str:
    """Changes when a file of theirs does."""
    return "".join(f"{table.path}{table.path.stat().st_mtime_ns}" for table in tables)


def _matching(path: Path, wanted: Filter) -> Iterator[int]:
    """Places of the rows that a filter lets through, in order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    equal = {"origin": wanted.origin, "output": wanted.label, "reason": wanted.reason, "stage": wanted.stage}
    equal = {
        name: value
        for name, value in equal.items()
        if value and (wanted.view == "dropped" or name in ("origin", "output"))
    }
    names = [*equal, *(["source"] if wanted.source else []), *(["input", "output"] if wanted.search else [])]
    if not names:
        yield from range(_rows_in(path))
        return
    start = 0
    for batch in _batches(path, list(dict.fromkeys(names))):
        mask: Any = pa.array([True] * batch.num_rows)
        for name, value in equal.items():
            mask = pc.and_(mask, pc.fill_null(pc.equal(batch[name], value), False))
        if wanted.source:
            mask = pc.and_(mask, pc.fill_null(pc.equal(_source_names(batch), wanted.source), False))
        for word in wanted.search.split():
            either = pc.or_(
                pc.match_substring(batch["input"], word, ignore_case=True),
                pc.match_substring(batch["output"], word, ignore_case=True),
            )
            mask = pc.and_(mask, pc.fill_null(either, False))
        yield from (start + row for row in pc.indices_nonzero(mask).to_pylist())
        start += batch.num_rows


def _batches(path: Path, columns: list[str]) -> Iterator[Any]:
    """The row groups of a Parquet file as tables of some columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete its folder and run again") from None


def _rows_in(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def _row_at(path: Path, row: int, columns: list[str] | None) -> dict[str, Any]:
    table, start = _group_of(path, path.stat().st_mtime_ns, row, tuple(columns) if columns else None)
    return dict(table.slice(row - start, 1).to_pylist()[0])


# All browsers of a process share them, each of which may be asked in several threads.
_groups: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
_groups_lock = threading.Lock()
_REMEMBERED_GROUPS = 4


def _group_of(path: Path, changed: int, row: int, columns: tuple[str, ...] | None) -> tuple[Any, int]:
    """The row group that holds a row, and its first row's place; the four groups that were last asked for are kept."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if row < start + size:
                break
            start += size
        key = (path, changed, group, columns)
        with _groups_lock:
            if key in _groups:
                _groups.move_to_end(key)
                return _groups[key], start
        names = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        found = file.read_row_group(group, columns=names)
    with _groups_lock:
        _groups[key] = found
        while len(_groups) > _REMEMBERED_GROUPS:
            _groups.popitem(last=False)
    return found, start


def _source_names(batch: Any) -> Any:
    """The dataset id or the teacher of each row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    source = batch["source"].combine_chunks()
    if isinstance(source, pa.ChunkedArray):
        source = source.chunk(0) if source.num_chunks else pa.array([], type=source.type)
    return pc.coalesce(source.field("dataset"), source.field("teacher"))


FILTERS = tuple(item.name for item in fields(Filter))
