"""The first rows of a run, made as the run will make them.

What enters: a task and settings. What leaves: `Preview`. Retrieval is the run's own stage, and the teacher's replies
go to the run's ledger, so that `potstill run` with the same settings asks for none of them again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.asking.counts import in_all
from potstill.errors import OptionError
from potstill.events import Event, Listener
from potstill.notebook import html_lines, html_table, listening
from potstill.rows import Dropped, Row, dataset_to_rows, read_rows
from potstill.stages.own_inputs import told_inputs
from potstill.stages.start import lacking_rows, settled
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.datagen.options import GenerationOptions
    from potstill.datagen.own_inputs import Own
    from potstill.stages.job import Job

_MOST_REQUESTS_A_ROW = 6
# Rows shown of those that are not made here: found ones and the user's own.
_SHOWN_OF_OTHERS = 3


@dataclass(frozen=True)
class Preview:
    """What a run's first minutes bring.

    Attributes:
        path: The run folder, in which `potstill run` goes on.
        spec: The task as understood.
        rows: Rows that the teacher wrote and the filters kept.
        dropped: Rows that were refused on the way.
        retrieved: A few of the rows that retrieval found.
        found: How many those are in all.
        labelled: A few of the user's own rows (`labelled:`), which are learnt from as they are.
        own: How many those are in all.
        requests: Replies that these rows took (the ledger's earlier ones included).
        tokens: Tokens read and written by the teacher for them, now.
    """

    path: Path
    spec: TaskSpec
    rows: tuple[Row, ...]
    dropped: tuple[Dropped, ...]
    retrieved: tuple[Row, ...] = ()
    found: int = 0
    requests: int = 0
    tokens: int = 0
    labelled: tuple[Row, ...] = ()
    own: int = 0

    @property
    def reasons(self) -> dict[str, int]:
        """Refused rows by reason, the commonest first."""
        return dict(Counter(item.reason for item in self.dropped).most_common())

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""

        def plain(row: Row) -> dict[str, Any]:
            return {"input": row.input, "output": row.output, "origin": row.origin, "source": vars(row.source)}

        return {
            "run": str(self.path), "rows": [plain(row) for row in self.rows], "dropped": self.reasons,
            "retrieved": [plain(row) for row in self.retrieved], "found": self.found,
            "labelled": [plain(row) for row in self.labelled], "own": self.own,
            "requests": self.requests, "tokens": self.tokens,
        }  # fmt: skip

    def _repr_html_(self) -> str:
        """The rows, and what was refused, for a notebook."""
        rows = [(row.output, row.input, row.origin) for row in (*self.rows, *self.retrieved, *self.labelled)]
        caption = f"first rows of {self.spec.name}: {len(self.rows)} written, {self.found} retrieved"
        if self.own:
            caption += f", {self.own} of your own"
        refused = html_table(("refused for", "rows"), self.reasons.items()) if self.dropped else ""
        said = html_lines([f"{self.requests:,} requests, {self.tokens:,} tokens; the run goes on in {self.path}"])
        return html_table(("output", "input", "origin"), rows, caption) + refused + said


def preview_rows(
    task: str | Path,
    *,
    rows: int = 10,
    out: str | Path | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> Preview:
    """Make the first rows of a run.

    Args:
        task: As for `potstill.run`.
        rows: Written rows wanted; fewer come where the teacher's texts are refused too often.
        out: Run folder; `runs/<task name>` by default.
        listener: As for `potstill.run`: without one, a notebook shows a table.
        **settings: As for `potstill.run`.

    Raises:
        TaskError: The task cannot be read.
        OptionError: Unknown or impossible settings, or none by which there would be a row.
        DataError: The user's labelled rows cannot be read.
        RunLocked: Another process works on the folder.
        TeacherError: The teacher refused or stayed away.
    """
    from potstill.datagen.generate import at_once, writes_tasks
    from potstill.pipeline import open_job
    from potstill.retrieval.load import read_data

    with listening(listener) as told, open_job(task, out, told, settings) as job:
        spec, asker = job.spec, job.asker
        if job.settings.sources == "labelled" and spec.labelled is None:
            raise OptionError("sources", [lacking_rows(spec, job.settings)])
        requests_at_once = at_once(asker, job.answerer)
        options = settled(job.folder.path, job.settings.generation, requests_at_once, told)
        job.task(str(task))
        labelled = None if spec.labelled is None else read_data(spec.labelled, spec)
        retrieved = read_rows(job.retrieval().path / "rows.parquet")
        told(Event("preview", "progress", "asking the teacher", 0, rows))
        made: list[Row] = []
        dropped: list[Dropped] = []
        requests = 0
        if job.settings.writes:
            own, _ = told_inputs(job)
            if writes_tasks(spec, options):
                made, dropped, requests = _instructions(job, options, rows, own)
            else:
                made, dropped, requests = _written(job, options, rows, retrieved, own)
        counts = in_all(own.counts for own in (asker, job.answerer) if own is not None)
    return Preview(
        path=job.folder.path,
        spec=spec,
        rows=tuple(made[:rows]),
        dropped=tuple(dropped),
        retrieved=_first(retrieved),
        found=retrieved.num_rows,
        labelled=() if labelled is None else _first(labelled),
        own=0 if labelled is None else labelled.num_rows,
        requests=requests,
        tokens=counts.prompt_tokens + counts.completion_tokens,
    )


def _first(rows: Dataset) -> tuple[Row, ...]:
    return tuple(dataset_to_rows(rows.select(range(min(_SHOWN_OF_OTHERS, rows.num_rows)))))


def _written(
    job: Job, options: GenerationOptions, rows: int, retrieved: Dataset, own: Own
) -> tuple[list[Row], list[Dropped], int]:
    """The run's first requests, more of them until there are enough rows; those asked before cost nothing."""
    from potstill.datagen.probe import probe_generation

    count = rows
    if len(own.inputs) >= rows:  # nothing is written before they are answered
        own, options = replace(own, inputs=own.inputs[:rows]), replace(options, rows=rows)
    while True:
        probe = probe_generation(
            job.spec, job.asker, options, count, retrieved=retrieved, own=own, answerer=job.answerer
        )
        parts = [part for part in (probe.own, probe) if part is not None]
        made = [row for part in parts for row in part.rows]
        if len(made) >= rows or count >= min(_MOST_REQUESTS_A_ROW * rows, options.ahead):
            return made, [item for part in parts for item in part.dropped], sum(part.tally.requests for part in parts)
        count = min(2 * count, _MOST_REQUESTS_A_ROW * rows, options.ahead)


def _instructions(job: Job, options: GenerationOptions, rows: int, own: Own) -> tuple[list[Row], list[Dropped], int]:
    """A small Self-Instruct of its own. The run asks its first requests again where its pool has grown otherwise."""
    from potstill.datagen.generate import generate_rows

    result = generate_rows(
        job.spec, job.asker, replace(options, rows=rows), own=replace(own, inputs=own.inputs[:rows]),
        answerer=job.answerer,
    )  # fmt: skip
    return list(dataset_to_rows(result.rows)), list(result.dropped), int(result.report.get("requests", 0))
