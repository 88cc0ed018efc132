"""What a run folder tells a plan: its ledger, which a probe may write to, and the reports of its stages."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from potstill.asking.ledger import Ledger
from potstill.run_dir import RunDir

if TYPE_CHECKING:
    from potstill.asking.asker import Asker


@contextlib.contextmanager
def plan_ledger(folder: Path, probe: int) -> Iterator[Ledger]:
    """The run's own ledger where a probe may write to it or a run left one; else a passing one.

    What was made for a probe goes again where no reply came.
    """
    with contextlib.ExitStack() as stack:
        if probe or (folder / "ledger.sqlite").exists():
            new = [place for place in (folder / "ledger.sqlite", folder, *folder.parents) if not place.exists()]
            run = RunDir(folder)
            stack.enter_context(run.lock())
            if new:
                stack.callback(_remove_if_empty, folder, new)
            yield stack.enter_context(Ledger(run.ledger_path))
        else:
            place = stack.enter_context(TemporaryDirectory(prefix="potstill-plan-"))
            yield stack.enter_context(Ledger(Path(place) / "ledger.sqlite"))


def _remove_if_empty(folder: Path, new: list[Path]) -> None:
    """Take an empty ledger away, with its lock and the folders that were made for it, the innermost first."""
    with Ledger(folder / "ledger.sqlite", read_only=True) as ledger:
        if ledger.totals().replies:
            return
    for file in (*folder.glob("ledger.sqlite*"), folder / ".lock"):
        file.unlink(missing_ok=True)
    for place in new[1:]:
        with contextlib.suppress(OSError):  # somebody else has put something there
            place.rmdir()


def stage_report(folder: Path, stage: str) -> Mapping[str, Any]:
    """The report that an earlier run left of a stage; empty where there is none."""
    return _read(folder / stage / "report.json")


def stage_manifest(folder: Path, stage: str) -> Mapping[str, Any]:
    """The manifest that an earlier run left of a stage; empty where there is none."""
    return _read(folder / stage / "manifest.json")


def is_known(folder: Path, asker: Asker, answerer: Asker | None) -> bool:
    """Whether the folder holds a run of these teachers, from which requests, tokens and time follow without a probe."""
    stages = {stage: stage_manifest(folder, stage) for stage in ("datagen", "soft", "train")}
    made = stages["datagen"].get("key_parts", {})
    same = made.get("teacher") == asker.identity and made.get("answerer") == (answerer and answerer.identity)
    return all(stages.values()) and same


def _read(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
