"""A run folder, read once into the figures that cards and report are written from.

What enters: the files that the pipeline left (any but the task may be missing: a run that stopped half-way still
has a report). What leaves: `RunFacts`. Nothing here depends on when it is read, so the same run always gives the
same cards and the same report, byte for byte, and publishing it twice changes nothing.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from potstill.asking.counts import Asked
from potstill.asking.ledger import Ledger
from potstill.datagen.decontaminate import shared_texts
from potstill.datagen.tally import distinct_shares, near_duplicate_rate
from potstill.errors import DataError
from potstill.masking import public_name
from potstill.near_runs import no_run
from potstill.rows import UNKNOWN_LICENCE, Dropped, read_dropped
from potstill.run_dir import REFUSING_STAGES, STAGES
from potstill.task import TaskSpec

SPLITS = {"train": "train", "validation": "validation", "test": "heldout"}
_EXAMPLES_A_REASON = 3
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*")


@dataclass(frozen=True)
class SourceLine:
    """Rows of the unit that share origin, source and licence.

    Attributes:
        origin: retrieved, generated, pseudo or user.
        name: Dataset id, or the teacher's name; local paths are shortened to their last part.
        licence: SPDX id in lower case, or `unknown`.
        rows: How many rows of the published splits come from here.
        commit: The commit of a Hub dataset that they were read at.
    """

    origin: str
    name: str
    licence: str
    rows: int
    commit: str | None = None

    @property
    def place(self) -> str:
        """The name, with the commit in the form that a task takes."""
        return pinned(self.name, self.commit)


@dataclass(frozen=True)
class DropLine:
    """Rows that one stage refused for one reason, with a few of them."""

    stage: str
    reason: str
    rows: int
    examples: tuple[Dropped, ...]


@dataclass(frozen=True)
class Leak:
    """Test inputs found again among the training inputs.

    Attributes:
        test_rows: Test rows that were looked for.
        exact: Those of the same words as a training input, or one field of it.
        ngram: Those that share a run of 13 words with a training input.
    """

    test_rows: int
    exact: int
    ngram: int


@dataclass(frozen=True)
class Diversity:
    """How varied the training inputs are.

    Attributes:
        sample: Rows looked at.
        distinct_1: Distinct words over all words; a letter of a script without spaces is a word.
        distinct_2: Distinct word pairs over all word pairs.
        near_duplicates: Share of rows with ROUGE-L F1 above 0.7 to an earlier row of the sample.
    """

    sample: int
    distinct_1: float
    distinct_2: float
    near_duplicates: float


@dataclass(frozen=True)
class RunFacts:
    """What a run folder holds; the costly parts are read at first use."""

    path: Path
    spec: TaskSpec
    given: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)
    ranking: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    reports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    manifests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    history: Any = None

    @property
    def systems(self) -> list[dict[str, Any]]:
        """Scores, one mapping a system."""
        return [dict(item) for item in self.scores.get("systems", []) if isinstance(item, dict)]

    def system(self, name: str) -> dict[str, Any]:
        """Scores of one system, or an empty mapping."""
        return next((item for item in self.systems if item.get("name") == name), {})

    @property
    def test_kind(self) -> str:
        """`real`, `held-out`, or empty when nothing was measured."""
        return str(self.scores.get("test_set", {}).get("kind", ""))

    @property
    def student_path(self) -> Path:
        """Folder of the student; it exists once training has ended."""
        return self.path / "train" / "student"

    @cached_property
    def splits(self) -> dict[str, Path]:
        """Published splits and their Parquet files. The user's own test data is never one of them."""
        found = {}
        for name, stem in SPLITS.items():
            places = (self.path / stage / f"{stem}.parquet" for stage in ("train", "rationales", "soft", "merge"))
            if place := next((item for item in places if item.exists()), None):
                found[name] = place
        return found

    @cached_property
    def split_rows(self) -> dict[str, int]:
        """Rows of each split."""
        return {name: int(_columns(path, []).num_rows) for name, path in self.splits.items()}

    def columns(self, split: str, names: list[str]) -> Any:
        """Some columns of a split, as a pyarrow table.

        Raises:
            DataError: The file cannot be read.
        """
        return _columns(self.splits[split], names)

    @property
    def rows(self) -> int:
        """Rows of all splits."""
        return sum(self.split_rows.values())

    @cached_property
    def sources(self) -> list[SourceLine]:
        """Where the published rows come from, the largest first."""
        counts: Counter[tuple[str, str, str]] = Counter()
        for path in self.splits.values():
            table = _columns(path, ["origin", "source", "licence"]).flatten()
            keys = ["origin", "source.dataset", "source.teacher", "licence"]
            grouped = table.select(keys).group_by(keys).aggregate([([], "count_all")])
            for item in grouped.to_pylist():
                place = item["source.dataset"] or item["source.teacher"] or "(not recorded)"
                licence = (item["licence"] or UNKNOWN_LICENCE).strip().lower() or UNKNOWN_LICENCE
                counts[item["origin"] or "", public_name(place), licence] += item["count_all"]
        lines = [SourceLine(*key, rows=count, commit=self.commits.get(key[1])) for key, count in counts.items()]
        return sorted(lines, key=lambda line: (-line.rows, line.origin, line.name, line.licence))

    @cached_property
    def commits(self) -> dict[str, str]:
        """The commit that each dataset of the Hub was read at, by the name that the rows give."""
        noted = _mapping(self.reports.get("retrieval", {}).get("datasets"))
        found = {name: _mapping(note).get("commit") for name, note in noted.items()}
        for stage in ("datagen", "weak", "merge"):
            found |= _mapping(self.reports.get(stage, {}).get("commits"))
        return {name: str(commit) for name, commit in found.items() if commit}

    @property
    def test_source(self) -> str:
        """Where the test rows are from, with the commit of a Hub dataset; without the folders of the machine."""
        test = _mapping(self.scores.get("test_set"))
        return pinned(public_name(str(test.get("source", ""))), test.get("commit"))

    @cached_property
    def teachers(self) -> list[str]:
        """Names of the teachers that wrote rows of the unit, rewrote found ones, or answered for them."""
        tables = [_columns(path, ["source"]).flatten() for path in self.splits.values()]
        named = {name for table in tables for name in table["source.teacher"].unique().to_pylist() if name}
        written = self.reports.get("datagen", {})
        if written.get("answered_by"):  # rows name who answered; the inputs are another's
            named.add(str(written["teacher"]))
        if self.explained:
            named.add(str(self.explained["teacher"]))
        return sorted(map(public_name, named))

    @cached_property
    def on_policy_teacher(self) -> str | None:
        """Who told the student of each token of its own answers what it would have written; None where nobody did."""
        trained = self.reports.get("train", {})
        options = _mapping(trained.get("options"))
        if not options.get("on_policy"):
            return None
        name = _mapping(trained.get("asked_teacher")).get("teacher") or options.get("teacher")
        return public_name(str(name)) if name else None

    @property
    def learnt_from(self) -> list[str]:
        """Names of the teachers whose terms the student comes under: `teachers`, and the one of on-policy training."""
        other = self.on_policy_teacher
        # One that wrote rows is named with its backend there, and by its weights alone where they were loaded.
        known = other is None or any(name.partition(":")[2] == other or name == other for name in self.teachers)
        return self.teachers if other is None or known else [*self.teachers, other]

    @property
    def explained(self) -> Mapping[str, Any]:
        """What the report says of reasoning behind the outputs; empty where no row has any."""
        made = self.reports.get("rationales", {})
        return made if made.get("written") else {}

    @property
    def base_model(self) -> str | None:
        """What the student started from, if that is a name on the Hub."""
        name = self.base_model_name
        return name if name and _HUB_ID.fullmatch(name) and not Path(name).exists() else None

    @property
    def base_model_name(self) -> str | None:
        """What the student started from, as the training recorded it, without the folders of the machine."""
        value = self.reports.get("train", {}).get("base_model")
        return public_name(str(value)) if value else None

    @cached_property
    def label_counts(self) -> dict[str, Counter[str]]:
        """For each split, rows of each answer (classification only)."""
        if not self.spec.labels:
            return {}
        found = {}
        for name, path in self.splits.items():
            pairs = _columns(path, ["output"])["output"].value_counts().to_pylist()
            found[name] = Counter({str(item["values"]): item["counts"] for item in pairs})
        return found

    @cached_property
    def lengths(self) -> dict[str, list[int]]:
        """Words of every training input and output."""
        if "train" not in self.splits:
            return {}
        import pyarrow.compute as pc

        table = _columns(self.splits["train"], ["input", "output"])
        found = {}
        for column in table.column_names:
            parts = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(table[column]))
            found[column] = pc.list_value_length(parts).to_pylist()
        return found

    @cached_property
    def drops(self) -> list[DropLine]:
        """What was refused and why, with examples; the most frequent reason of a stage first."""
        lines = []
        for stage in REFUSING_STAGES:
            counts: Counter[str] = Counter()
            examples: dict[str, list[Dropped]] = {}
            for item in _dropped(self.path / stage / "dropped.jsonl"):
                counts[item.reason] += 1
                shown = examples.setdefault(item.reason, [])
                new = all(item.input != other.input for other in shown)
                if len(shown) < _EXAMPLES_A_REASON and (item.input or item.output) and new:
                    shown.append(item)
            lines += [DropLine(stage, reason, n, tuple(examples[reason])) for reason, n in counts.most_common()]
        return lines

    @cached_property
    def predictions(self) -> dict[str, list[Any]]:
        """Columns of `evaluate/predictions.parquet`."""
        path = self.path / "evaluate" / "predictions.parquet"
        return dict(_columns(path, None).to_pydict()) if path.exists() else {}

    @cached_property
    def leak(self) -> Leak | None:
        """The test inputs looked for among the training inputs, independently of the merge stage's own check."""
        tested = [str(text) for text in self.predictions.get("input", [])]
        if not tested or "train" not in self.splits:
            return None
        return find_leaks(tested, _columns(self.splits["train"], ["input"])["input"].to_pylist())

    @cached_property
    def diversity(self) -> Diversity | None:
        """Figures over a fixed sample of the training inputs."""
        if not self.split_rows.get("train"):
            return None
        return measure_diversity(_columns(self.splits["train"], ["input"])["input"].to_pylist())

    @cached_property
    def tokens(self) -> list[dict[str, Any]]:
        """What was asked in all calls of the run, one mapping a purpose; empty without a ledger."""
        return [
            {"purpose": purpose, "requests": asked.fresh, **asked.to_json()} for purpose, asked in self.asked.items()
        ]

    @cached_property
    def asked(self) -> dict[str, Asked]:
        """What the ledger counts, by purpose; empty without a ledger, or with one that cannot be read."""
        path = self.path / "ledger.sqlite"
        if not path.exists():
            return {}
        try:
            with Ledger(path, read_only=True) as ledger:
                return ledger.asked()
        except (DataError, sqlite3.Error):
            return {}


def read_run(path: Path) -> RunFacts:
    """Read a run folder.

    Raises:
        UserError: There is no run at `path`.
        DataError: A file of the run is no readable JSON.
    """
    task = next((place for place in (path / "task" / "task.json", path / "task.json") if place.exists()), None)
    if task is None:
        raise no_run(path)
    given = task.with_name("task.md")
    reports = {stage: _json(path / stage / "report.json", {}) for stage in STAGES}
    manifests = {stage: _json(path / stage / "manifest.json", {}) for stage in STAGES}
    return RunFacts(
        path=path,
        spec=TaskSpec.from_json(_json(task, {})),
        given=given.read_text(encoding="utf-8", errors="replace").strip() if given.exists() else "",
        run=_mapping(_json(path / "run.json", {})),
        ranking=_mapping(_json(path / "retrieval" / "ranking.json", {})),
        scores=_mapping(_json(path / "evaluate" / "scores.json", {})),
        reports={stage: _mapping(value) for stage, value in reports.items() if value},
        manifests={stage: _mapping(value) for stage, value in manifests.items() if value},
        history=_json(path / "train" / "history.json", None),
    )


def pinned(name: str, commit: Any) -> str:
    """A dataset of the Hub at a commit, as `test:` and the like take it; other names as they are.

    Examples:
        >>> pinned("me/reviews@v1", "c0ffee"), pinned("local:rows.csv", None)
        ('me/reviews@c0ffee', 'local:rows.csv')
    """
    return f"{name.partition('@')[0]}@{commit}" if commit else name


def find_leaks(tested: Sequence[str], trained: Iterable[str | None]) -> Leak:
    """Look for test inputs among training inputs, as merging does: the same words, and runs of 13 words in common."""
    same, shared = shared_texts(tested, (text or "" for text in trained))
    return Leak(len(tested), len(same), len(shared))


def measure_diversity(texts: Sequence[str | None], *, sample: int = 1000) -> Diversity:
    """How varied texts are, over an evenly spaced sample: the figures of a generation's report."""
    step = max(1, len(texts) / sample)
    chosen = [texts[int(i * step)] or "" for i in range(min(sample, len(texts)))]
    one, two = distinct_shares(chosen)
    return Diversity(len(chosen), one, two, near_duplicate_rate(chosen))


def _columns(path: Path, names: list[str] | None) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete its folder and run again") from None


def _dropped(path: Path) -> Iterable[Dropped]:
    try:
        yield from read_dropped(path)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not what potstill wrote ({error}); delete its folder and run again") from None


def _json(path: Path, default: Any) -> Any:
    if not path.exists():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable JSON ({error}); delete its folder and run again") from None


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}
