"""Catalogues: many dataset cards from files, as one value.

In: paths of JSON lines (`.gz` too), Parquet, or folders of datasets. Out: a `Catalogue` of cards, and every card
that was left out with the reason. A broken card never stops the others; a file of which nothing can be read does.

A folder is walked: each folder in it with a `card.json`, or a `README.md` with front matter, is a dataset, and its
data files are where rows will be read from. A folder without any such dataset is taken for a catalogue's own folder,
and the JSONL and Parquet files in it are read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from potstill.errors import DataError
from potstill.retrieval.arrow_files import NOT_DATA
from potstill.retrieval.cards import MAX_TEXT, Card, CardFault, card_from_mapping, check_id, front_matter

__all__ = ["Card", "Catalogue", "Skipped", "card_data_files", "make_catalogue", "read_catalogue", "shipped_catalogue"]

MAX_LINE_BYTES = 8_000_000
MAX_FILE_BYTES = 8_000_000_000
MAX_ROW_GROUP_BYTES = 1_000_000_000
MAX_CARD_FILE_BYTES = 4_000_000
MAX_FOLDERS = 100_000
DATA_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".ndjson", ".json", ".csv", ".csv.gz", ".tsv", ".arrow")
_READ_ERRORS = (OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class Skipped:
    """A card that was left out. `where` is the file and line, row or folder."""

    where: str
    reason: str


@dataclass(frozen=True)
class Catalogue:
    """Cards in the order they were read, each id once.

    Attributes:
        cards: What can be searched.
        skipped: What was left out, with the reason.
        digest: sha256 over the cards: the same for the same cards in the same order.
    """

    cards: tuple[Card, ...]
    skipped: tuple[Skipped, ...] = ()
    digest: str = ""


def shipped_catalogue() -> Path:
    """The folder of small datasets that potstill carries."""
    return Path(__file__).resolve().parent / "shipped"


def read_catalogue(paths: Sequence[str | Path]) -> Catalogue:
    """Read cards from files and folders.

    Args:
        paths: JSONL, JSONL.gz, Parquet, or folders; where an id is met twice the first wins, unless only the
            second has its data on this machine.

    Returns:
        The catalogue.

    Raises:
        DataError: A path does not exist, is of no known kind, or nothing of it can be read.
    """
    cards: dict[str, Card] = {}
    skipped: list[Skipped] = []
    for path in paths:
        for where, found in _read_path(Path(path).expanduser()):
            if isinstance(found, str):
                skipped.append(Skipped(where, found))
                continue
            first = cards.get(found.id)
            if first is None or (first.location is None and found.location is not None):
                cards[found.id] = found
            if first is not None:
                skipped.append(Skipped(where, f"duplicate of {found.id}"))
    return make_catalogue(cards.values(), skipped)


def make_catalogue(cards: Any, skipped: Sequence[Skipped] = ()) -> Catalogue:
    """A catalogue of cards that are already at hand."""
    kept = tuple(cards)
    digest = hashlib.sha256()
    for card in kept:
        digest.update(json.dumps(asdict(card), sort_keys=True, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    return Catalogue(kept, tuple(skipped), digest.hexdigest())


def _read_path(path: Path) -> Iterator[tuple[str, Card | str]]:
    """Cards, or reasons as text, each with the place it was met."""
    if path.is_dir():
        yield from _read_folder(path.resolve())
    elif not path.exists():
        raise DataError(f"no catalogue at {path}; give JSONL, Parquet or a folder of datasets")
    elif path.name.endswith((".jsonl", ".jsonl.gz", ".json.gz", ".ndjson")):
        yield from _read_lines(path)
    elif path.suffix == ".parquet":
        yield from _read_parquet(path)
    else:
        raise DataError(f"{path} is no catalogue: its name must end in .jsonl, .jsonl.gz or .parquet, or be a folder")


def _card(raw: Any, location: str | None = None) -> Card | str | None:
    try:
        return card_from_mapping(raw, location)
    except CardFault as fault:
        return str(fault)


def _read_lines(path: Path) -> Iterator[tuple[str, Card | str]]:
    count = 0
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
            for number, line in _bounded_lines(file):  # type: ignore[arg-type]
                where = f"{path.name}:{number}"
                if isinstance(line, str):
                    yield where, line
                    continue
                if not line.strip():
                    continue
                try:
                    raw = json.loads(line.decode("utf-8"))
                except UnicodeDecodeError:
                    yield where, "the line is not UTF-8"
                    continue
                except (ValueError, RecursionError) as error:
                    yield where, f"the line is not JSON ({str(error)[:80]})"
                    continue
                found = _card(raw)
                count += 1
                if found is not None:
                    yield where, _beside(found, raw, path.parent)
    except _READ_ERRORS as error:
        if count == 0:
            raise DataError(f"{path} cannot be read ({error}); it is broken or cut short: make it anew") from None
        yield path.name, f"the file breaks off after {count:,} cards ({error})"


def _beside(found: Card | str, raw: Any, folder: Path) -> Card | str:
    """The card with its `location`, when it names something inside the catalogue's own folder."""
    given = raw.get("location") if isinstance(raw, dict) else None
    if isinstance(found, str) or not isinstance(given, str) or not given or "\x00" in given:
        return found
    root = folder.resolve()
    try:
        place = (root / given).resolve()
    except (OSError, ValueError):
        return found
    return replace(found, location=str(place)) if place.is_relative_to(root) and place.exists() else found


def _bounded_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | str]]:
    """Numbered lines; a line over the limit comes as its reason, and never whole into memory."""
    number = total = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        total += len(line)
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n") and total <= MAX_FILE_BYTES:
                line = file.readline(MAX_LINE_BYTES)
                total += len(line)
            yield number, f"the line is longer than {MAX_LINE_BYTES:,} bytes"
        else:
            yield number, line
        if total > MAX_FILE_BYTES:
            yield number, f"the file unpacks to more than {MAX_FILE_BYTES:,} bytes; the rest is not read"
            return


def _read_parquet(path: Path) -> Iterator[tuple[str, Card | str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)]
            if groups and max(groups) > MAX_ROW_GROUP_BYTES:
                raise DataError(
                    f"{path} unpacks to {max(groups):,} bytes in one row group, over {MAX_ROW_GROUP_BYTES:,}; "
                    "write it with smaller row groups"
                )
            for batch in file.iter_batches(batch_size=256):
                for raw in batch.to_pylist():
                    number += 1
                    found = _card(raw)
                    if found is not None:
                        yield f"{path.name}:{number}", _beside(found, raw, path.parent)
    except (pa.ArrowException, OSError, ValueError) as error:
        if number == 0:
            raise DataError(f"{path} is not a readable Parquet file ({str(error)[:120]}); make it anew") from None
        yield path.name, f"the file breaks off after {number:,} cards ({str(error)[:120]})"


def _read_folder(root: Path) -> Iterator[tuple[str, Card | str]]:
    met = 0
    for count, (name, folders, files) in enumerate(os.walk(root)):
        folders[:] = sorted(folder for folder in folders if not folder.startswith((".", "__")))
        folder = Path(name)
        if count >= MAX_FOLDERS:
            yield str(root), f"more than {MAX_FOLDERS:,} folders; the rest is not read"
            return
        found = _folder_card(root, folder, files)
        if found is not None:
            met += 1
            yield str(folder.relative_to(root.parent)), found
    if met == 0:
        listed = sorted(path for path in root.iterdir() if path.name.endswith((".jsonl", ".jsonl.gz", ".parquet")))
        if not listed:
            raise DataError(
                f"no cards in {root}: no folder in it has a card.json or a README.md with front matter, and it "
                "holds no JSONL or Parquet"
            )
        for path in listed:
            yield from _read_path(path)


def _folder_card(root: Path, folder: Path, files: Sequence[str]) -> Card | str | None:
    """The card of one folder; None where it is no dataset."""
    raw: dict[str, Any] = {}
    try:
        if "README.md" in files:
            matter = front_matter(_read_text(folder / "README.md"), "README.md")
            if matter is None and "card.json" not in files:
                return None
            raw.update(matter or {})
        if "card.json" in files:
            given = json.loads(_read_text(folder / "card.json"))
            if not isinstance(given, dict):
                raise CardFault(f"card.json must hold an object (got {type(given).__name__})")
            raw.update({key: value for key, value in given.items() if value not in (None, "", [], {})})
        if not raw:
            return None
        if "id" not in raw:
            raw["id"] = check_id(folder.name if folder == root else "/".join(folder.relative_to(root).parts[-2:]))
        files_of_data = _data_files(folder)
        # A folder with a script and no data is here and not on the Hub; reading it will say why it cannot be used.
        here = files_of_data or any(name.endswith(".py") for name in files)
        card = card_from_mapping(raw, str(folder) if here else None)
        return replace(card, rows=_count_rows(files_of_data)) if card is not None and card.rows == 0 else card
    except CardFault as fault:
        return str(fault)
    except (OSError, ValueError, RecursionError) as error:
        return f"the card cannot be read ({str(error)[:120]})"


def card_data_files(folder: Path, config: str | None = None) -> dict[str, list[Path]]:
    """Data files by split, as the folder's README.md declares them; empty where it declares none.

    Of several configurations the one asked for, or named or marked as the default, or the first is taken. Patterns
    are resolved inside the folder only; what points out of it is left out.
    """
    try:
        matter = (
            front_matter(_read_text(folder / "README.md"), "README.md") if (folder / "README.md").exists() else None
        )
    except (CardFault, OSError):
        return {}
    configs = (matter or {}).get("data_files")
    listed = [item for item in configs if isinstance(item, dict)] if isinstance(configs, list) else []
    chosen = [item for item in listed if config is not None and item.get("config_name") == config]
    chosen += [item for item in listed if item.get("config_name") == "default" or item.get("default") is True]
    declared = next(iter(chosen or listed), {}).get("data_files")
    found: dict[str, list[Path]] = {}
    for item in declared if isinstance(declared, list) else [declared]:
        if isinstance(item, dict):
            split, patterns = str(item.get("split") or "train"), item.get("path")
        else:
            split, patterns = "train", item
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            if isinstance(pattern, str):
                files = found.setdefault(split, [])
                files.extend(path for path in _inside(folder, pattern) if path not in files)
    return {split: files for split, files in found.items() if files}


def _inside(folder: Path, pattern: str) -> list[Path]:
    """Files of the folder that a pattern names, sorted."""
    if not pattern or pattern.startswith(("/", "~")) or ".." in Path(pattern).parts or "\x00" in pattern:
        return []
    root = folder.resolve()
    try:
        return sorted(path for path in folder.glob(pattern) if path.is_file() and path.resolve().is_relative_to(root))
    except (ValueError, OSError):
        return []


def _read_text(path: Path) -> str:
    if path.stat().st_size > MAX_CARD_FILE_BYTES:
        raise CardFault(f"{path.name} is longer than {MAX_TEXT:,} characters")
    return path.read_text(encoding="utf-8", errors="replace")


def _data_files(folder: Path) -> list[Path]:
    """Data files of the folder and of at most two levels in it, sorted."""
    return sorted(
        path
        for depth in ("*", "*/*", "*/*/*")
        for path in folder.glob(depth)
        if path.name.endswith(DATA_SUFFIXES) and path.name not in NOT_DATA and path.is_file()
    )


def _count_rows(files: Sequence[Path]) -> int:
    """Rows of Parquet and of small plain JSONL files; 0 where any other kind is among them, as none is then known."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 0
    for path in files[:100]:
        try:
            if path.suffix == ".parquet":
                rows += pq.read_metadata(path).num_rows
            elif path.suffix == ".jsonl" and path.stat().st_size < 50_000_000:
                with path.open("rb") as lines:
                    rows += sum(1 for line in lines if line.strip())
            else:
                return 0
        except (OSError, pa.ArrowException):
            return 0
    return rows
