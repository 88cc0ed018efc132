"""Requests of batch files that have no reply yet, and the results that bring one.

`RUN/batch/pending.jsonl` has a line for each request that was written to a file (`batch.write_batch`), with the
`custom_id` of its line there. What enters: files of the Batch API, in any order and number. What leaves: replies and
failures in the run's ledger, and what is still pending.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Reply
from potstill.asking.teacher_json import reply_to_json, request_from_json
from potstill.datagen.teachers.openai_wire import Fault, chat_reply
from potstill.errors import DataError
from potstill.run_dir import RunDir, write_atomic

_WRITTEN_TOGETHER = 1000


@dataclass(frozen=True)
class BatchRead:
    """What `read_batch` read.

    Attributes:
        answered: Replies that are new in the ledger.
        truncated: Of these, cut at their bound.
        already: Lines whose reply the ledger had.
        failed: Lines without a usable reply, by reason.
        unknown: Lines whose `custom_id` belongs to no pending request of this run: another's, or read before.
        unreadable: Lines that are no result.
        missing: Pending requests that are still without a reply.
    """

    answered: int = 0
    truncated: int = 0
    already: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    unknown: int = 0
    unreadable: int = 0
    missing: int = 0


def note_sent(run: Path, file: Path, sha256: str, under_way: Mapping[str, str]) -> None:
    """Note of the requests in a batch file that they go to the server in it.

    Args:
        run: The run folder that it was written for, which the caller holds.
        file: The file.
        sha256: Its digest.
        under_way: Batches whose results are not read yet, by the digests of their files.

    Raises:
        DataError: A line is no request, or one is of another run, answered, or under way in another file.
    """
    pending = read_pending(run)
    names: list[str] = []
    for line in _lines([file]):
        try:
            names.append(str(json.loads(line)["custom_id"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(f"{file} holds a line that is no request; give what `batch write` wrote") from None
    with Ledger(RunDir(run).ledger_path, read_only=True) as ledger:
        done = sum(name not in pending or _known(ledger, pending[name]) for name in names)
    if done:
        raise DataError(
            f"{done} of {len(names)} requests in {file} are answered, or of another run, and nothing is paid for "
            "twice; write what is left with the same `potstill batch write`, and send that"
        )
    sent = [str(pending[name].get("sent")) for name in names]
    if twice := [other for other in sent if other in under_way and other != sha256]:
        raise DataError(
            f"{len(twice)} of {len(names)} requests in {file} are under way in {under_way[twice[0]]}; read its results "
            f"with `potstill batch fetch {run} --wait`, and write what is left with the same `potstill batch write`"
        )
    write_pending(run, {**pending, **{name: {**pending[name], "sent": sha256} for name in names}})


def _known(ledger: Ledger, item: Mapping[str, Any]) -> bool:
    """Whether the ledger has the reply to a pending request."""
    thinking = item.get("thinking_tokens", 0)  # a batch may be under way for a day, across versions
    return ledger.find(item["key"], item["max_tokens"], thinking) is not None


def read_batch(run: Path, results: Sequence[Path]) -> BatchRead:
    """Read result files (output and error files alike) into the ledger of a run.

    Args:
        run: The run folder that `write_batch` wrote for.
        results: Files of the Batch API, in any order.

    Raises:
        DataError: No batch was written for this run, or a file cannot be read.
        RunLocked: Another process works on the folder.
    """
    folder = RunDir(run)
    if not pending_path(run).exists():
        raise DataError(f"no batch was written for {run}; write one with: potstill batch write TASK FILE --out {run}")
    counts: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    with folder.lock(), Ledger(folder.ledger_path) as ledger:
        pending = read_pending(run)
        left = dict(pending)
        writing: list[Future[None]] = []  # many wait for the disk together
        for line in _lines(results):
            try:
                value = json.loads(line)
                name = value["custom_id"]
            except (ValueError, KeyError, TypeError, RecursionError):
                counts["unreadable"] += 1
                continue
            item = pending.get(name) if isinstance(name, str) else None
            if item is None:
                counts["unknown"] += 1
                continue
            if name not in left or _known(ledger, item):
                counts["already"] += 1
                left.pop(name, None)
                continue
            outcome = _outcome(value, item)
            if isinstance(outcome, _Fault):
                failed[outcome.reason.split(":")[0]] += 1
                writing.append(
                    ledger.record_failure(
                        item["key"],
                        purpose=item["purpose"],
                        teacher=item["teacher"],
                        reason=outcome.reason,
                        attempts=1,
                        prompt_tokens=outcome.paid[0],
                        completion_tokens=outcome.paid[1],
                    )
                )
            else:
                left.pop(name)
                thinking = item.get("thinking_tokens", 0) if outcome.finish == "length" else 0
                writing.append(
                    ledger.record(
                        item["key"],
                        purpose=item["purpose"],
                        teacher=item["teacher"],
                        request=item["request"],
                        reply=reply_to_json(outcome),
                        finish=outcome.finish,
                        max_tokens=item["max_tokens"] + thinking,
                        prompt_tokens=outcome.prompt_tokens,
                        completion_tokens=outcome.completion_tokens,
                    )
                )
                counts["answered"] += 1
                counts["truncated"] += outcome.finish == "length"
            if len(writing) >= _WRITTEN_TOGETHER:
                _wait(writing)
        _wait(writing)
        write_pending(run, left)
    return BatchRead(**counts, failed=dict(failed), missing=len(left))


def _wait(writing: list[Future[None]]) -> None:
    """Until all that is written is on disk; the list is empty then."""
    for done in writing:
        done.result()
    writing.clear()


@dataclass(frozen=True)
class _Fault:
    """Why a line holds no reply, and the prompt and completion tokens that it took all the same."""

    reason: str
    paid: tuple[int, int] = (0, 0)


def _outcome(value: Mapping[str, Any], item: Mapping[str, Any]) -> Reply | _Fault:
    """The reply of a result line, or why there is none."""
    error, response = value.get("error"), value.get("response")
    if isinstance(error, Mapping) and error:
        return _Fault(f"{error.get('code') or 'error'}: {str(error.get('message'))[:300]}")
    if not isinstance(response, Mapping):
        return _Fault("no response: the line holds none")
    body = response.get("body")
    status = response.get("status_code")
    if status != 200:
        inner = body.get("error") if isinstance(body, Mapping) else None
        said = inner.get("message") if isinstance(inner, Mapping) else body
        return _Fault(f"HTTP {status}: {str(said)[:300]}")
    if not isinstance(body, Mapping):
        return _Fault("no response: the body is no object")
    try:
        return chat_reply(body, request_from_json(item["request"], item["max_tokens"]), item["flavour"])
    except Fault as fault:
        return _Fault(f"unusable reply: {fault}", fault.paid)


def _lines(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                yield from (line for line in file if line.strip())
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); download the batch's result file") from None


def pending_path(run: Path) -> Path:
    """The file of a run's pending requests."""
    return run / "batch" / "pending.jsonl"


def read_pending(run: Path) -> dict[str, dict[str, Any]]:
    """The pending requests of a run, by their `custom_id`; empty where no batch was written.

    Each has `key`, `request`, `max_tokens`, `thinking_tokens`, `purpose` and `teacher` as the ledger takes them, the
    `flavour` of the server, and, once it was sent, the digest of its file as `sent`.
    """
    if not pending_path(run).exists():
        return {}
    with pending_path(run).open(encoding="utf-8") as file:
        return {item["custom_id"]: item for item in map(json.loads, file)}


def write_pending(run: Path, pending: Mapping[str, Mapping[str, Any]]) -> None:
    """Write all pending requests of a run anew, as `read_pending` gives them."""
    lines = (json.dumps(item, ensure_ascii=True) + "\n" for item in pending.values())
    write_atomic(pending_path(run), "".join(lines))
