"""Building a catalogue: cards of the Hub, of folders and of files into one Parquet file.

In: sources, each `hub` or a path. Out: a Parquet file with one card a row, and what was left out with the reason.
The Hub's list is long, so a build can be stopped at any page: pages lie as parts beside the file, with the address of
the next one, and the same command goes on there. A later build asks only for what changed since (`lastModified`).
The file itself is replaced at the end, in one rename.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill.errors import DataError, OptionError
from potstill.events import Event, Listener, silent
from potstill.retrieval.cards import Card, CardFault, card_from_mapping
from potstill.retrieval.catalogue import read_catalogue
from potstill.retrieval.hub_listing import endpoint, first_page, pages
from potstill.rows import UNKNOWN_LICENCE
from potstill.run_dir import digest, write_atomic

HUB = "hub"
_BATCH = 5000


@dataclass(frozen=True)
class BuildResult:
    """What a build gave.

    Attributes:
        path: The catalogue.
        cards: Cards in it.
        new: Cards that were not in it before.
        updated: Cards that were, and changed.
        skipped: Reasons why cards were left out, with counts.
        pages: Pages of the Hub that were read this time.
        resumed: Whether an earlier build was gone on with.
        unreachable: Cards whose data lie outside the catalogue's own folder, and will not be read from it.
    """

    path: Path
    cards: int
    new: int
    updated: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    pages: int = 0
    resumed: bool = False
    unreachable: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {**vars(self), "path": str(self.path), "skipped": dict(self.skipped)}


@dataclass
class _State:
    """Where a listing of the Hub stands, in `state.json` beside its parts."""

    query: str
    next: str | None
    newest: str = ""
    parts: int = 0
    whole: bool = False
    skipped: dict[str, int] = field(default_factory=dict)


def build_catalogue(
    sources: Sequence[str],
    out: Path,
    *,
    filters: Sequence[str] = (),
    search: str = "",
    limit: int | None = None,
    full: bool = False,
    page: int = 1000,
    listener: Listener = silent,
) -> BuildResult:
    """Write or bring up to date a catalogue.

    Args:
        sources: `hub`, or paths that `read_catalogue` takes (JSONL, Parquet, folders).
        out: The Parquet file; cards that it holds already stay unless a source has a newer one.
        filters: Tags that the Hub filters by, such as `language:en`.
        search: Words that the Hub searches names by.
        limit: Most cards to take from the Hub this time.
        full: List the whole Hub again, also what did not change.
        page: Items a page.
        listener: Called with progress.

    Raises:
        OptionError: What is to be taken from the Hub is said, and the Hub is no source.
        DataError: A source cannot be read at all, the Hub broke off (what came is kept: run it again), or `out` is
            no catalogue's Parquet file.
    """
    if HUB not in sources and (filters or search or limit is not None or full):
        raise OptionError(
            "catalogue", ["filter, search, limit and full say what is taken from the Hub; name `hub` among the sources"]
        )
    if out.suffix != ".parquet":
        raise DataError(f"a catalogue is written as Parquet: {out} must end in .parquet")
    out = out.expanduser().resolve()
    old = _old_marks(out)
    marks = _hub_marks(out)
    found: dict[str, dict[str, Any]] = {}
    skipped: Counter[str] = Counter()
    read = 0
    resumed = False
    parts = out.with_name(out.name + ".parts")
    if local := [source for source in sources if source != HUB]:
        catalogue = read_catalogue(local)
        found.update((card.id, card_row(card, out.parent)) for card in catalogue.cards)
        skipped.update(_short(item.reason) for item in catalogue.skipped)
    if HUB in sources:
        state, resumed = _state(
            parts,
            [endpoint(), list(filters), search],
            first_page(filters, search, page if limit is None else max(1, min(page, limit))),
        )
        read = _read_hub(parts, state, "" if full else marks.get(state.query, ""), limit, listener)
        if state.whole and state.newest:
            marks[state.query] = state.newest
        skipped.update(state.skipped)
        for number in range(state.parts):
            for row in _read_part(parts / f"part-{number:05d}.parquet"):
                if row["id"] not in found:
                    found[row["id"]] = row
                else:
                    skipped["duplicate"] += 1
    new = sum(key not in old for key in found)
    updated = sum(key in old and old[key] != _mark(row) for key, row in found.items())
    outside = sum(bool(row.pop("outside", False)) for row in found.values())
    count = _write(out, found, marks)
    shutil.rmtree(parts, ignore_errors=True)
    listener(Event("catalogue", "done", f"{count:,} cards, {new:,} new, {updated:,} changed"))
    return BuildResult(out, count, new, updated, dict(skipped), read, resumed, outside)


def card_row(card: Card, home: Path | None = None) -> dict[str, Any]:
    """A card as one row of a catalogue file; `card_from_mapping` is the inverse.

    Args:
        card: The card.
        home: Folder of the catalogue; a location inside it is stored relative to it, any other is left out.
    """
    place = None
    if card.location is not None and home is not None and Path(card.location).is_relative_to(home):
        place = str(Path(card.location).relative_to(home))
    configs = {n: {"features": dict(c.features), "splits": dict(c.splits)} for n, c in card.configs.items()}
    return {
        "id": card.id,
        "pretty_name": card.title,
        "description": card.description,
        "languages": list(card.languages),
        "licences": [] if card.licence == UNKNOWN_LICENCE else card.licence.split(" and "),
        "task_categories": list(card.tasks),
        "num_rows": card.rows,
        "configs": json.dumps(configs, ensure_ascii=False) if configs else "",
        "gated": card.gated,
        "downloads": card.downloads,
        "known_as": list(card.known_as),
        "train_eval_index": json.dumps([dict(e) for e in card.train_eval_index]) if card.train_eval_index else "",
        "location": place,
        "last_modified": "",
        **({"outside": True} if card.location is not None and place is None else {}),
    }


def _schema() -> Any:
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    return pa.schema(
        [("id", text), ("pretty_name", text), ("description", text), ("languages", texts), ("licences", texts),
         ("task_categories", texts), ("num_rows", pa.int64()), ("configs", text), ("gated", pa.bool_()),
         ("downloads", pa.int64()), ("known_as", texts), ("train_eval_index", text), ("location", text),
         ("last_modified", text)]
    )  # fmt: skip


def _read_hub(parts: Path, state: _State, since: str, limit: int | None, listener: Listener) -> int:
    """Read pages into parts until the end, a known item or the limit; returns how many pages."""
    count = read = 0
    if state.next is None:
        return 0
    for page in pages(state.next):
        rows: list[dict[str, Any]] = []
        reached = full = False
        for item in page.items:
            full = limit is not None and count + len(rows) >= limit
            if full:
                break
            changed = str(item.get("last_modified") or "") if isinstance(item, Mapping) else ""
            if since and changed and changed < since:
                reached = True
                break
            state.newest = max(state.newest, changed)
            try:
                if isinstance(item, Mapping) and item.get("hidden"):
                    raise CardFault("private or switched off")
                card = card_from_mapping(item)
            except CardFault as fault:
                reason = _short(str(fault))
                state.skipped[reason] = state.skipped.get(reason, 0) + 1
                continue
            if card is not None:
                rows.append({**card_row(card), "last_modified": changed})
        read += 1
        count += len(rows)
        _write_table(parts / f"part-{state.parts:05d}.parquet", rows)
        state.parts += 1
        ended = reached or full or (limit is not None and count >= limit)
        # What a limit cut off must still be new to the next build.
        state.whole = reached or (page.next is None and not full)
        state.next = None if ended else page.next
        write_atomic(parts / "state.json", json.dumps(vars(state)))
        listener(Event("catalogue", "progress", f"{count:,} cards in {read} pages", count, limit))
        if ended:
            break
    return read


def _state(parts: Path, query: list[Any], start: str) -> tuple[_State, bool]:
    """The state of a listing that was stopped, when it asked the same; else a new one."""
    key = digest(query)
    try:
        stored = _State(**json.loads((parts / "state.json").read_text("utf-8")))
        whole = all((parts / f"part-{number:05d}.parquet").exists() for number in range(stored.parts))
        if stored.query == key and whole:
            return stored, True
    except (OSError, ValueError, TypeError):
        pass
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    return _State(key, start), False


def _write(out: Path, found: Mapping[str, dict[str, Any]], marks: Mapping[str, str]) -> int:
    """Old rows that no source replaced, then the found ones; batch by batch, one rename. Returns the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema().with_metadata({"potstill_hub": json.dumps(dict(marks))})
    part = out.with_name(f".{out.name}.{os.getpid()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for rows in _batches(_kept(out, found)):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                count += len(rows)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return count


def _kept(out: Path, found: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    left = dict(found)
    for row in _read_part(out) if out.exists() else ():
        yield left.pop(row["id"], row)
    yield from left.values()


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = path.with_suffix(".tmp")
    pq.write_table(pa.Table.from_pylist(rows, schema=_schema()), part, compression="zstd")
    os.replace(part, path)


def _read_part(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file that this module wrote."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable catalogue ({str(error)[:120]}); delete it and build again") from None


def _mark(row: Mapping[str, Any]) -> str:
    return digest({key: value for key, value in row.items() if key not in ("downloads", "last_modified", "outside")})


def _old_marks(out: Path) -> dict[str, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not out.exists():
        return {}
    try:
        columns = pq.read_schema(out)
    except (pa.ArrowException, OSError, ValueError):
        columns = None  # which `_read_part` tells of
    if columns is not None and not {"id", "licences", "task_categories"} <= set(columns.names):
        raise DataError(
            f"{out} is a Parquet file but no catalogue (its columns: {', '.join(columns.names[:8])}); choose another "
            "with --out"
        )
    return {row["id"]: _mark(row) for row in _read_part(out)}


def _hub_marks(out: Path) -> dict[str, str]:
    """Newest change that each listing of the Hub has seen, as the file itself records it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = json.loads((pq.read_schema(out).metadata or {}).get(b"potstill_hub", b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _short(reason: str) -> str:
    """A reason without what differs from card to card, for counting."""
    return "duplicate" if reason.startswith("duplicate of") else reason[:80]
