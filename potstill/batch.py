"""Rows, their checks and their soft targets through the files of OpenAI's Batch API: half the price, within a day.

    potstill batch write TASK requests.jsonl --out RUN …     what can be asked now, and the ledger does not know
    potstill batch submit RUN requests.jsonl                 the file to the server (`batch_server`; or by hand)
    potstill batch fetch RUN --wait                          its results into the ledger, once they are there
    potstill batch read RUN results.jsonl errors.jsonl       the same with files that were downloaded by hand
    potstill run TASK --out RUN …                            goes on from the ledger, and asks what is left

Write goes through the stages with a teacher that collects requests where another would send them, and ends at the first
that asks for something: generation, then the checks of written rows, then soft targets, then the reasoning behind
outputs. The questions that rules ask about texts without a label depend on none of these and go with the first: those
with the same answers, and questions with others later. So the requests are, to the ledger's key, those of
`potstill run` with the same settings. What a file cannot hold (scores of labels on a server that has them, checks by
another teacher, the teacher's own figures) is left to `run`. A folder that begins with a batch plans
far enough ahead for one file to hold all that the rows are likely to take, and keeps that number for `run`
(`window.json`); prompts show no earlier texts then, since none are there. Where it began with a run or a preview, or
`generation.window` is set, a batch holds that many requests for rows at most.

A line's `custom_id` leads back to the request by `RUN/batch/pending.jsonl`. Results may come in any order and number of
files. A reply is recorded as one that came by wire; an error is noted as a failure, never as a result; what has no line
stays pending. All of these are asked again by the next `write` or `run`. A file holds no more requests than the budget
allows at the most that each may take. A reply's tokens count as of any other, so a budget in money takes them at the
full price: its cap is met early, never late.

Format: https://platform.openai.com/docs/guides/batch (also read by `vllm run-batch`).
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.asking.budget import Budget
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Request, Take
from potstill.asking.teacher_json import request_to_json
from potstill.batch_results import read_pending, write_pending
from potstill.datagen.result import PURPOSE
from potstill.datagen.teachers.openai_api import OpenAITeacher
from potstill.datagen.teachers.openai_endpoints import OpenAIOptions
from potstill.datagen.teachers.openai_wire import Flavour
from potstill.errors import BudgetReached, OptionError, TeacherRefused, UserError
from potstill.events import Listener, silent
from potstill.run_dir import RunDir, Stage, write_atomic
from potstill.run_state import LeftOpen

if TYPE_CHECKING:
    from potstill.stages.job import Job

# The Batch API's own bounds on a file.
MAX_LINES, MAX_BYTES = 50_000, 200 * 10**6
SERVER = "server.json"
_URL = "/v1/chat/completions"


@dataclass(frozen=True)
class BatchWritten:
    """What `write_batch` wrote.

    Attributes:
        run: The run folder.
        files: One file, or several where the API's bounds split them; none when nothing is left to ask.
        requests: Requests in them.
        full: Whether more could be planned with a larger window.
        capped: Whether the budget allows no more: each request is taken for the most that it may cost.
    """

    run: Path
    files: tuple[Path, ...]
    requests: int
    full: bool
    capped: bool = False


class _Collected(LeftOpen):
    """Everything that can be asked now is collected."""


class _Collector:
    """A teacher that keeps what it is asked, and then ends its stream with `_Collected`."""

    def __init__(self, teacher: OpenAITeacher, sending: str):
        self._teacher = teacher
        self._sending = sending
        self.requests: list[Request] = []
        self.purposes: list[str] = []

    def asked_for(self, purpose: str) -> None:
        """Note what those requests are for whose purpose is not noted yet."""
        self.purposes += [purpose] * (len(self.requests) - len(self.purposes))

    @property
    def name(self) -> str:
        return self._teacher.name

    @property
    def identity(self) -> Mapping[str, str]:
        return self._teacher.identity

    @property
    def abilities(self) -> Abilities:
        return self._teacher.abilities

    @property
    def concurrency(self) -> int:
        return MAX_LINES

    @property
    def thinking_tokens(self) -> int:
        return self._teacher.thinking_tokens

    @property
    def options(self) -> OpenAIOptions:
        return self._teacher.options

    def body(self, request: Request, flavour: Flavour) -> dict[str, Any]:
        return self._teacher.chat_body(request, flavour)

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        while taken := take(MAX_LINES):
            for request in taken:
                if not isinstance(request, Request):
                    raise TeacherRefused(
                        "a batch file holds texts to be written, and this step scores labels; let potstill run do it"
                    )
                if request.turn == "user":
                    raise TeacherRefused(
                        "a batch file holds chats, and generation.method=magpie opens a user's turn with raw prompts; "
                        "let potstill run do it, or take generation.method=auto"
                    )
                self.requests.append(request)
        if self.requests:
            raise _Collected("its requests are in a batch file", self._sending)
        yield from ()

    def close(self) -> None:
        self._teacher.close()


def write_batch(
    task: str, path: Path, *, out: str | Path | None = None, listener: Listener = silent, **settings: Any
) -> BatchWritten:
    """Write the requests that a run would send now as a batch file.

    Args:
        task: A prompt, or the path of a task file.
        path: The file; `name-2.jsonl` and so on where the API's bounds split it.
        out: Run folder; `runs/<task name>` by default.
        listener: Called with every progress event.
        **settings: As in `pipeline.run`, and the same as there.

    Raises:
        OptionError: The teacher is no OpenAI-compatible one, or a setting is impossible.
        UserError: `path` is a folder.
        TaskError: The task cannot be read.
        RunLocked: Another process works on the folder.
        TeacherRefused: A step before generation wants scores.
        BudgetReached: The budget allows not even one request.
    """
    from potstill.asking.asker import Asker
    from potstill.datagen.teachers import open_teacher
    from potstill.settings import read_with_settings
    from potstill.stages.job import Job
    from potstill.stages.start import settled
    from potstill.task.file import read_task_file
    from potstill.user_data import OWN_ROWS

    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it for the requests")
    draft, resolved = read_with_settings(task, settings)
    if resolved.answering is not None and draft.spec.kind != "classification":
        why = "a batch file is for one teacher, and generation.output_teacher names another for the outputs"
        raise OptionError("generation", [f"{why}; leave it out, or let potstill run ask both"])
    teacher = open_teacher(resolved.teacher, **resolved.teacher_options)
    if not isinstance(teacher, OpenAITeacher):
        why = f"a batch file is for an OpenAI-compatible teacher, not {resolved.teacher!r}"
        raise OptionError("teacher", [f"{why}; name one with --teacher, such as openai:#gpt-5-mini"])
    folder = RunDir(Path(out).expanduser() if out else Path("runs") / draft.spec.name)
    collector = _Collector(teacher, shlex.join(["potstill", "batch", "submit", str(folder.path), str(path)]))
    with folder.lock(), Ledger(folder.ledger_path) as ledger:
        budget = Budget.parse(resolved.budget) if resolved.budget else None
        asker = Asker(collector, ledger, budget=budget, listener=listener)
        try:
            spec = read_task_file(task, asker=asker, own_rows=OWN_ROWS).spec
            job = Job(folder, spec, resolved, ledger, asker, listener)
            job.task(task)
            _go_through(job, job.retrieval(), collector)
        except _Collected:
            pass
        finally:
            collector.close()
        collector.asked_for(asker.purpose)
        if collector.requests:
            keep_server(folder.path, collector.identity["endpoint"].split(",")[0], teacher.options.key_variable)
        files = _write(collector, asker.key, path, folder.path) if collector.requests else ()
        options = settled(folder.path, resolved.generation, collector.concurrency, keep=False)
        full = collector.purposes.count(PURPOSE) >= options.ahead
        capped = asker.meter is not None and asker.meter.refused
    return BatchWritten(folder.path, tuple(files), len(collector.requests), full, capped)


def keep_server(run: Path, url: str, key_variable: str) -> None:
    """Remember where the teacher of a run's batch files is, and which environment variable holds its key."""
    write_atomic(run / "batch" / SERVER, json.dumps({"url": url, "key_variable": key_variable}) + "\n")


def _go_through(job: Job, retrieved: Stage, collector: _Collector) -> None:
    """Make the stages that ask the run's own teacher, until one has something to ask."""
    from potstill.stages.checks import check_asked, check_outputs
    from potstill.stages.rationales import rationale_stage
    from potstill.stages.rules import weak_stage
    from potstill.stages.written import quality_stage

    check_outputs(job.spec, job.settings, job.outputs)
    try:
        generated = job.datagen(retrieved)
    except _Collected:
        collector.asked_for(job.asker.purpose)
        if job.spec.questions and not collector.abilities.scores:
            # What the budget has no room for beside the rows is asked for by a later file.
            with contextlib.suppress(BudgetReached):
                weak_stage(job)
        raise
    if job.settings.checking is not None:
        return
    check_asked(job)
    with contextlib.suppress(TeacherRefused):  # a step that wants scores is `run`'s
        checked = quality_stage(job, generated)
        merged = job.merge(retrieved, checked or generated, weak_stage(job))
        rationale_stage(job, job.soft(merged, generated))


def _write(collector: _Collector, key_of: Any, path: Path, run: Path) -> list[Path]:
    flavour: Flavour = "vllm" if collector.abilities.prefill else "openai"
    pending = read_pending(run)
    parts: list[list[str]] = [[]]
    size = 0
    for request, purpose in zip(collector.requests, collector.purposes, strict=True):
        key = key_of(request)
        name = f"{key[:40]}-{request.max_tokens + collector.thinking_tokens}"
        line = json.dumps(
            {"custom_id": name, "method": "POST", "url": _URL, "body": collector.body(request, flavour)},
            ensure_ascii=False,
        )
        pending[name] = {
            **pending.get(name, {}),
            "custom_id": name,
            "key": key,
            "request": request_to_json(request),
            "max_tokens": request.max_tokens,
            "thinking_tokens": collector.thinking_tokens,
            "purpose": purpose,
            "teacher": collector.name,
            "flavour": flavour,
        }
        bytes_ = len(line.encode("utf-8", "replace")) + 1
        if len(parts[-1]) >= MAX_LINES or size + bytes_ > MAX_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += bytes_
    write_pending(run, pending)
    files = []
    for number, lines in enumerate(parts, start=1):
        file = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        write_atomic(file, "".join(line + "\n" for line in lines))
        files.append(file)
    return files
