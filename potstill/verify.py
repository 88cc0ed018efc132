"""Is a run folder what its run left? Files against hashes, stages against what they were made from, the ledger.

What enters is a folder; what leaves is a list of faults, each with its mend. Nothing is written. Checked are:

    stages      every file of a stage, and of a superseded one in `.old`, has its size and sha256, none is missing or
                new; the manifest is as it was written, and its key is the hash of its parts
    order       each stage was made from the outputs of the stages above it that are there now
    ledger      SQLite's own check, each row's checksum, and that each reply can be read; the replies that rows name
    top         run.json and the reports against `files.json`

Bytes that SQLite does not use (free pages) can change unseen; nothing reads them.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from potstill.asking.ledger import ledger_faults
from potstill.errors import ManifestError
from potstill.near_runs import no_run
from potstill.run_dir import (
    MANIFEST,
    OPTIONAL_STAGES,
    ROOT_FILES,
    STAGES,
    RunDir,
    digest,
    folder_faults,
    read_manifest,
    root_faults,
)
from potstill.sqlite_reader import reader_of


@dataclass(frozen=True)
class Fault:
    """Something that differs: what, and what to do."""

    what: str
    mend: str


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        faults: What differs; empty when all is well.
        notes: What could not be checked, or is unfinished.
        stages: Stages checked.
        files: Files checked, with those at the top.
        replies: Replies of the ledger that were read.
    """

    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    stages: int
    files: int
    replies: int

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)


def verify_run(path: Path | str) -> Verdict:
    """Check a run folder.

    Raises:
        UserError: There is no run at `path`.
        RunLocked: A process works on it now.
    """
    folder = Path(path)
    made = sorted(item.parent for item in folder.glob(f"*/{MANIFEST}"))
    if not made and not (folder / "ledger.sqlite").exists():
        raise no_run(folder, "stage and no ledger")
    with contextlib.ExitStack() as held:
        if (folder / ".lock").exists():  # nothing is written where no run was
            with contextlib.suppress(PermissionError):
                held.enter_context(RunDir(folder).lock())
        faults: list[Fault] = []
        notes: list[str] = []
        manifests = _stages(folder, made, faults)
        _order(manifests, faults, notes)
        _kept_aside(folder, faults)
        replies = _ledger(folder, faults, notes)
        faults += [_top_fault(folder, what) for what in root_faults(folder)]
        if not (folder / ROOT_FILES).exists():
            notes.append(f"the report is not sealed yet; potstill report {folder} does it")
        files = sum(len(manifest["files"]) for manifest in manifests.values())
        top = sum((folder / name).is_file() for name in ("run.json", "report.html", "report.md"))
    return Verdict(tuple(faults), tuple(notes), len(manifests), files + top, replies)


def _stages(folder: Path, made: list[Path], faults: list[Fault]) -> dict[str, dict[str, Any]]:
    manifests: dict[str, dict[str, Any]] = {}
    for name in STAGES:
        if (folder / name).is_dir() and not (folder / name / MANIFEST).exists():
            faults.append(Fault(f"{name}/{MANIFEST}: missing", _again(folder / name)))
    for stage in made:
        faults += [Fault(what, _again(stage)) for what in folder_faults(stage)]
        with contextlib.suppress(ManifestError):
            manifest = read_manifest(stage)
            manifests[stage.name] = manifest
            parts = manifest.get("key_parts")
            if isinstance(parts, Mapping) and digest({"stage": stage.name, **parts}) != manifest["key"]:
                faults.append(Fault(f"{stage.name}/{MANIFEST}: its key is not the hash of its parts", _again(stage)))
    return manifests


def _again(stage: Path) -> str:
    kept = "" if stage.name == "train" else "; replies come from the ledger"
    return f"move {stage} out of the run folder and give the same `potstill run` again{kept}"


def _order(manifests: Mapping[str, dict[str, Any]], faults: list[Fault], notes: list[str]) -> None:
    """Find stages that were made from something else than what is there now."""
    for name, manifest in manifests.items():
        for above, output in _made_from(name, manifest.get("key_parts") or {}):
            present = [manifests[other]["output"] for other in above if other in manifests]
            if output not in present:
                state = "is another now" if present else "is not there"
                faults.append(
                    Fault(
                        f"{name}: stale; it was made from an output of {above[0]} that {state}",
                        "give the same `potstill run` again: it makes the stages that are out of date",
                    )
                )
    missing = [name for name in STAGES if name not in manifests and name not in OPTIONAL_STAGES]
    if missing:
        notes.append(f"not made yet: {', '.join(missing)}")


def _made_from(name: str, parts: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The outputs that a stage's key names, each with the stages that it may be of."""
    places: dict[str, tuple[str, list[tuple[str, ...]]]] = {
        "datagen": ("retrieved", [("retrieval",)]),
        "quality": ("rows", [("datagen",)]),
        "merge": ("rows", [("retrieval",), ("quality", "datagen"), ("weak",)]),
        "soft": ("rows", [("merge",), ("datagen",)]),
        "rationales": ("rows", [("soft",)]),
        "train": ("rows", [("soft",), ("rationales",)]),
        "compress": ("inputs", [("train",), ("soft",), ("merge",)]),
        "evaluate": ("inputs", [("train",), ("soft",), ("merge",), ("compress",)]),
    }
    if name in places and places[name][0] in parts:
        given = parts[places[name][0]]
        outputs = given if isinstance(given, list) else [given]
        yield from zip(places[name][1], map(str, outputs))


def _kept_aside(folder: Path, faults: list[Fault]) -> None:
    for kept in sorted((folder / ".old").glob(f"*/{MANIFEST}")):
        if not kept.parent.name.endswith("-damaged"):
            mend = f"delete {kept.parent}; a run with its settings would bring it back"
            faults += [Fault(f".old/{what}", mend) for what in folder_faults(kept.parent)]


def _ledger(folder: Path, faults: list[Fault], notes: list[str]) -> int:
    path = folder / "ledger.sqlite"
    if not path.exists():
        notes.append("there is no ledger; a run that asks the teacher again pays again")
        return 0
    found, replies = ledger_faults(path)
    if not found:
        try:
            lost = _lost_replies(folder, path)
        except sqlite3.Error as error:
            found = [f"{path.name}: cannot be read ({error})"]
        else:
            if lost:
                found = [f"{path.name}: {lost} replies that rows of datagen name are not in it"]
    mend = (
        f"take {path.name} from a backup; without one, save what is readable with `sqlite3 {path} .recover`, or move "
        "it away and pay for its replies again"
    )
    faults += [Fault(what, mend) for what in found]
    return replies


def _lost_replies(folder: Path, path: Path) -> int:
    """How many of the replies that generated rows name are not in the ledger."""
    rows = folder / "datagen" / "rows.parquet"
    if not rows.exists():
        return 0
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(rows, columns=["source"])
    except (pa.ArrowException, OSError, KeyError):
        return 0  # its hash differs, which is said already
    wanted = {key for source in table["source"].to_pylist() if source for key in source.get("requests") or ()}
    connection = reader_of(path)
    try:
        find = "SELECT 1 FROM replies WHERE key = ? LIMIT 1"
        return sum(connection.execute(find, (key,)).fetchone() is None for key in wanted)
    finally:
        connection.close()


def _top_fault(folder: Path, what: str) -> Fault:
    if what.startswith("run.json"):
        return Fault(what, "give the same `potstill run` again: it writes the file and makes no stage again")
    return Fault(what, f"potstill report {folder} writes it again")
