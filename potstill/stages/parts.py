"""What every stage uses: writing its outputs, and the parts of its content key."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.asking.budget import Meter, pays_more, spent_usd
from potstill.asking.counts import in_all
from potstill.code_version import DECIDING, versions
from potstill.flag_variables import variables_read
from potstill.masking import mask_teacher
from potstill.options import as_json
from potstill.rows import Dropped, write_dropped, write_rows
from potstill.run_dir import digest, file_digest
from potstill.task import DataRef, TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.asker import Asker
    from potstill.run_dir import Stage
    from potstill.stages.job import Job

# Facts of a stage that lacks something which another call may bring.
LEFT_OUT = frozenset(("unanswered", "teacher_left_out", "metrics_left_out"))


def lacks(facts: Mapping[str, Any], meter: Meter | None) -> bool:
    """Whether a finished stage lacks what this call may bring: an answer, or what a lower budget did not pay for."""
    return bool(LEFT_OUT & set(facts)) or pays_more(facts, meter)


def write_stage(out: Path, rows: Dataset, dropped: tuple[Dropped, ...], report: Mapping[str, Any]) -> None:
    """Rows, drops and report of a stage."""
    write_rows(rows, out / "rows.parquet")
    write_dropped(dropped, out / "dropped.jsonl")
    write_json(out / "report.json", report)


def write_json(path: Path, value: Any) -> None:
    """One readable JSON file."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def relevant(spec: TaskSpec, *without: str) -> dict[str, Any]:
    """The spec without what cannot change a stage's output."""
    skip = {"inferred", "name", *without}
    return {key: value for key, value in spec.to_json().items() if key not in skip}


def prompt_digest() -> str:
    """Hash of every prompt that can reach a teacher; card templates are for readers."""
    from potstill import prompts

    used = [name for name in prompts.names() if not name.startswith("card_")]
    return digest({name: prompts.load(name).sha256 for name in used})


def ref_content(ref: DataRef | None) -> Any:
    """What stands for the user's data in a key."""
    return None if ref is None else [as_json(ref), content(ref.path)]


def with_gaps(make: Callable[[Path], Mapping[str, Any]], asker: Asker | None) -> Callable[[Path], dict[str, Any]]:
    """A stage's work that remembers how many of its requests to a teacher were left `unanswered`, if any were."""

    def work(out: Path) -> dict[str, Any]:
        before = 0 if asker is None else asker.unanswered
        facts = dict(make(out))
        left = 0 if asker is None else asker.unanswered - before
        return {**facts, "unanswered": left} if left else facts

    return work


def contents(paths: Iterable[str | None]) -> dict[str, Any]:
    """The content of each path that is named, by its path."""
    return {path: content(path) for path in paths if path}


def content(path: str) -> Any:
    """What stands for the content of a path in a key: hashes of small files, size and time of large ones."""
    place = Path(path).expanduser()
    if not place.exists():
        return path
    files = [place] if place.is_file() else sorted(item for item in place.rglob("*") if item.is_file())
    table = []
    for file in files:
        stat = file.stat()
        mark = file_digest(file) if stat.st_size < 64 << 20 else f"{stat.st_size}-{stat.st_mtime_ns}"
        table.append([str(file.relative_to(place)) if place.is_dir() else file.name, mark])
    return digest(table)


def held_out_rows(merged: Path) -> tuple[Path, str]:
    """Where the rows lie that are measured on without real test data, and what they are, for the report.

    Where nothing was held out these are the rows that chose the student's weights; they are not learnt from then.
    """
    held = merged / "heldout.parquet"
    if held.exists():
        return held, "a held-out part of the merged rows"
    return merged / "validation.parquet", "the validation rows, by which the student's weights were chosen as well"


def command_given() -> str:
    """The command that started this process, quoted so that a shell reads the same arguments; empty for Python.

    Before it stand the environment variables that stood for its flags.
    Keys in a teacher's URL are masked: the command stands in files that are shown and pushed.
    """
    program = Path(sys.argv[0])
    ours = program.stem == "potstill" or program.parts[-2:] == ("potstill", "__main__.py")
    line = shlex.join(["potstill", *map(mask_teacher, sys.argv[1:])])
    return " ".join([*variables_read(sys.argv[1:]), line]) if ours else ""


def described(spec: TaskSpec) -> str:
    """Kind and labels in a line."""
    labels = f", labels {', '.join(spec.label_names[:8])}" + (" …" if len(spec.labels) > 8 else "")
    return f"{spec.kind}{labels if spec.labels else ''}"


def run_record(job: Job, stages: Sequence[Stage], seconds: float) -> dict[str, Any]:
    """What `run.json` holds: how to repeat a run, and what it cost.

    Args:
        job: A finished run.
        stages: All its stages.
        seconds: How long this call took.
    """
    asked = in_all(job.ledger.asked().values())
    askers = [own for own in (job.asker, job.checker, job.answerer) if own is not None]
    return {
        "command": command_given(),
        "settings": job.settings.to_json(),
        "versions": versions(*DECIDING) | {"python": sys.version.split()[0]},
        "teacher": dict(job.asker.teacher.identity),
        "teacher_name": job.asker.teacher.name,
        **(
            {"answers_by": {**job.answerer.teacher.identity}, "answers_by_name": job.answerer.teacher.name}
            if job.answerer
            else {}
        ),
        "seconds_this_time": round(seconds, 1),
        "stages": {s.name: {"seconds": s.seconds, "reused": s.reused, "key": s.key} for s in stages},
        "tokens": {
            "prompt": asked.prompt_tokens, "completion": asked.completion_tokens, "requests": asked.fresh,
            "failures": asked.failed,
        },
        "usd": spent_usd(job.ledger.spent(), {own.teacher.name: own.price for own in askers}),
        "counts": asked.to_json(),
        "counts_this_time": job.asker.counts.to_json(),
    }  # fmt: skip
