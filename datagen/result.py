"""What generation gives, apart from `generate` so that the plans below it can build it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.rows import Dropped, read_dropped, read_rows
from potstill.whole_folders import PassingFolder

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.asker import Asker

PURPOSE = "datagen"
ROWS, DROPPED, TARGETS = "rows.parquet", "dropped.jsonl", "token_targets.parquet"

_SHOWN = 10


def answered_by(answerer: Asker | None) -> dict[str, str]:
    """What a report says of another teacher that wrote the outputs; nothing where one wrote all."""
    return {} if answerer is None else {"answered_by": answerer.teacher.name}


@dataclass(frozen=True)
class GenerationResult:
    """The rows are in files and are read at first use.

    Attributes:
        folder: Where `rows.parquet`, `dropped.jsonl` and, for some, `token_targets.parquet` are.
        kept: Number of kept rows.
        refused: Number of dropped ones.
        report: Counts, yields, balance and diversity, as JSON types.
        keeper: Holds a temporary folder for as long as the result lives.
    """

    folder: Path
    kept: int
    refused: int
    report: dict[str, Any]
    keeper: PassingFolder | None = field(default=None, repr=False, compare=False)

    @cached_property
    def rows(self) -> Dataset:
        """The kept rows."""
        return read_rows(self.folder / ROWS)

    @cached_property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was refused, each with its reason."""
        return tuple(read_dropped(self.folder / DROPPED))

    @cached_property
    def token_targets(self) -> Dataset | None:
        """Top-k log-probs of the outputs by row id (see `token_targets`), or None."""
        path = self.folder / TARGETS
        return read_rows(path) if path.exists() else None

    def facts(self, wanted: int) -> dict[str, Any]:
        """What the stage remembers: counts, and `unanswered` requests where fewer rows came than were `wanted`.

        Only those that the server may answer another day are counted: what it refuses, it refuses then, too. Where the
        budget ended it, `budget_met` says so.
        """
        own = self.report.get("own_inputs", {}).get("kept", 0)
        answered = f"{own} inputs of yours answered, " if own else ""
        summary = f"{answered}{self.kept - own} rows written, {self.refused} dropped"
        left = self.report.get("unanswered", 0) if self.kept < wanted else 0
        if left:
            summary += f"; {left} requests got no reply and are asked again by the next run"
        met = {key: self.report[key] for key in ("budget_met",) if key in self.report}
        if met:
            summary += f"; {wanted} were wanted, and {met['budget_met']['told']}"
        return {
            "summary": summary, "rows": self.kept, "dropped": self.refused, **({"unanswered": left} if left else {}),
            **met,
        }  # fmt: skip

    def _repr_html_(self) -> str:
        """The first rows, and why others were refused, for a notebook."""
        from potstill.notebook import html_table

        rows = [(row["output"], row["input"]) for row in self.rows.select(range(min(_SHOWN, self.kept)))]
        shown = html_table(("output", "input"), rows, f"{self.kept:,} rows written, {self.refused:,} refused")
        reasons = Counter(item.reason for item in self.dropped)
        return shown + html_table(("refused for", "rows"), reasons.most_common()) if reasons else shown
