"""Where generation puts its rows: kept and dropped rows go to disk as they come, and progress is told.

    rows.parquet            the kept rows, in the one schema
    dropped.jsonl           what was refused, each with its reason
    token_targets.parquet   top-k log-probs of written outputs (generation tasks whose teacher gives them)

In memory stay counts, one buffer of rows for each file, and a fixed sample of texts for the diversity figures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from potstill.asking.teacher import Reply
from potstill.datagen.result import DROPPED, ROWS, TARGETS, GenerationResult
from potstill.datagen.tally import Tally, TextSample
from potstill.errors import TeacherError
from potstill.events import Event, Listener
from potstill.language.names import LANGUAGES
from potstill.row_writer import DropWriter, RowWriter, TableWriter
from potstill.rows import Dropped, Row
from potstill.whole_folders import PassingFolder

if TYPE_CHECKING:
    from potstill.asking.asker import Asker

_EVENT_EVERY_S = 0.2
# A row's targets are a hundred times the size of the row.
_TARGETS_GROUP = 128


class Gathering:
    """The files of a generation under way.

    Args:
        folder: Where they go; None makes a temporary folder.
        labels: The task's label names.
        wanted: Rows wanted, for progress.
        tally: Counts of the plan, for progress.
        listener: Called with progress, at most five times a second.
        top_k: Log-probs a token to keep of written outputs; 0 keeps none.
        seed: Of the sample of texts.
    """

    def __init__(
        self,
        folder: Path | None,
        labels: Sequence[str],
        wanted: int,
        tally: Tally,
        listener: Listener,
        top_k: int = 0,
        seed: int = 0,
    ):
        self.keeper = PassingFolder() if folder is None else None
        self.folder = Path(self.keeper.name) if self.keeper is not None else Path(folder or ".")
        self._rows = RowWriter(self.folder / ROWS, labels)
        self._dropped = DropWriter(self.folder / DROPPED)
        self._targets: TableWriter | None = None
        self._top_k = top_k
        self._wanted = wanted
        self._tally = tally
        self._listener = listener
        self._told = 0.0
        self.sample = TextSample(seed=seed)
        self.first_failure = ""
        self.first_foreign = ""

    @property
    def kept(self) -> int:
        """Rows kept so far."""
        return self._rows.count

    @property
    def refused(self) -> int:
        """Rows dropped so far."""
        return self._dropped.count

    def keep(self, row: Row, reply: Reply | None = None) -> None:
        """Write a kept row, and the targets of its output where a reply wrote it."""
        self._rows.add(row)
        self.sample.add(row.input)
        if reply is not None and self._top_k:
            self._add_targets(row, reply)
        self._tell()

    def drop(self, dropped: Dropped) -> None:
        """Write a dropped row."""
        self._dropped.add(dropped)
        if dropped.reason == "no_reply" and not self.first_failure:
            self.first_failure = dropped.detail
        if dropped.reason == "wrong_language" and not self.first_foreign:
            self.first_foreign = dropped.detail
        self._tell()

    def result(self, report: dict[str, Any]) -> GenerationResult:
        """End the files."""
        self.close()
        return GenerationResult(self.folder, self.kept, self.refused, report, self.keeper)

    def close(self) -> None:
        """End the files, finished or not."""
        for writer in (self._rows, self._dropped, self._targets):
            if writer is not None:
                writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _add_targets(self, row: Row, reply: Reply) -> None:
        from potstill.datagen.token_targets import target_features, written_target

        if self._targets is None:
            self._targets = TableWriter(self.folder / TARGETS, target_features(), _TARGETS_GROUP)
        target = written_target(row, reply, self._top_k)
        if target is not None:
            self._targets.add(target)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told < _EVENT_EVERY_S:
            return
        self._told = now
        tally = self._tally
        self._listener(
            Event(
                "datagen",
                "progress",
                f"{self.kept} of {self._wanted} rows kept, {self.refused} dropped, {tally.requests} requests",
                done=self.kept,
                total=self._wanted,
                data={"dropped": dict(tally.dropped), "completion_tokens": tally.completion_tokens},
            )
        )


def insist(gathered: Gathering, tally: Tally, asker: Asker, mend: str = "", *, cut_short: bool = False) -> None:
    """Raise when nothing at all is usable: training on nothing would fail later and say less.

    Args:
        gathered: The rows.
        tally: Counts of the plan.
        asker: The teacher.
        mend: What is to be said before the general advice.
        cut_short: Whether the budget ended the generation.

    Raises:
        BudgetReached: No row was kept before the budget was met.
        TeacherError: No row was kept.
    """
    if gathered.kept:
        return
    if cut_short and asker.meter is not None:
        raise asker.meter.reached()
    (worst, _), *_ = tally.dropped.most_common(1) or [("", 0)]
    if worst == "wrong_language":  # which no other teacher mends
        found = gathered.first_foreign.partition(",")[0]
        advice = (
            f"most are in another language than the task's ({gathered.first_foreign}); if inputs may be in it, add "
            f"`languages: [{found if found in LANGUAGES else 'en'}]` to the task file"
        )
    else:
        advice = "try another --teacher, or more requests with --set generation.requests_per_row=10"
    reasons = ", ".join(f"{count} {reason}" for reason, count in tally.dropped.most_common(5))
    first = gathered.first_failure and f"the first failure: {gathered.first_failure}"
    said = "; ".join(filter(None, (first, mend, advice)))
    raise TeacherError(
        f"{asker.teacher.name} returned 0 usable rows of {tally.requests} requests ({reasons or 'no replies'}); {said}"
    )
