"""Batch files sent to the server that answers them, and their results fetched: its files and its batches.

    potstill batch submit RUN requests.jsonl     upload, and ask for the batch
    potstill batch fetch RUN                     what has ended is read into the ledger; what is under way is told

`RUN/batch/server.json` says where the run's teacher is (`batch.write_batch` writes it), `RUN/batch/submitted.json`
which files were sent. Both are written after each step, and a step that was done is found again: a file of the same
content is uploaded once, and a batch of that upload made once, also where the process was killed between the two or an
answer of the server was lost, since it is asked for its batches first. Nor is a file taken that holds a request which
is answered, or under way in another (`batch_results.note_sent`). So nothing is paid twice. Results are kept in
`RUN/batch/`, by the digests of the files that were sent.

Format: https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.batch import SERVER
from potstill.batch_results import BatchRead, note_sent, read_batch
from potstill.datagen.teachers.openai_wire import Secrets
from potstill.errors import DataError, OptionError, TeacherRefused, TeacherUnavailable
from potstill.events import Event, Listener, silent
from potstill.run_dir import RunDir, file_digest, write_atomic

if TYPE_CHECKING:
    from openai import OpenAI

_SUBMITTED = "submitted.json"
_ENDED = ("completed", "expired", "cancelled", "failed")
_TIMEOUT_S = 120.0
# Looks in a row at which a server may be away while somebody waits for it.
_MOST_AWAY = 60


@dataclass(frozen=True)
class Submitted:
    """A batch file that a server has.

    Attributes:
        sha256: Of the file, in hex.
        name: The file's name.
        upload: The server's id of the file.
        batch: The server's id of the batch; empty until it is made.
        state: What the server said of it last: `validating`, `in_progress`, `finalizing`, `completed`, `expired`,
            `cancelling`, `cancelled` or `failed`.
        done: Requests that are answered, or failed.
        answered: Those that are answered.
        total: Requests in it, as the server counts them.
        read: Whether its results are in the ledger.
        why: Why the server refused it; empty where it did not.
    """

    sha256: str
    name: str
    upload: str
    batch: str = ""
    state: str = ""
    done: int = 0
    answered: int = 0
    total: int = 0
    read: bool = False
    why: str = ""

    @property
    def ended(self) -> bool:
        """Whether the server does no more about it."""
        return self.state in _ENDED


def submit_batch(run: Path, files: Sequence[Path], *, listener: Listener = silent) -> list[Submitted]:
    """Upload batch files and ask for their answers within a day.

    Args:
        run: The run folder that `write_batch` wrote them for.
        files: The files.
        listener: Told of each.

    Returns:
        The batches of these files; those that were submitted before are as they were.

    Raises:
        DataError: No batch was written for this run, a file cannot be read, or holds requests of another run, or such
            as are answered or under way in another file.
        OptionError: The key is not in the environment.
        RunLocked: Another process works on the folder.
        TeacherRefused: The server refused.
        TeacherUnavailable: It cannot be reached.
    """
    folder, found = RunDir(run), []
    with folder.lock(), _Server(run) as server:
        known = _read(run)
        for file in files:
            try:
                sha256 = file_digest(file)
            except OSError as error:
                raise DataError(f"{file} cannot be read ({error.strerror}); give what `batch write` wrote") from None
            item = known.get(sha256)
            if item is None or not item.batch or (item.read and not item.answered):
                under_way = {key: other.batch for key, other in known.items() if other.batch and not other.read}
                note_sent(run, file, sha256, under_way)
                if item is None or item.batch:  # what got no answer from the server may be sent again
                    known[sha256] = item = Submitted(sha256, file.name, server.upload(file))
                    _write(run, known)
                known[sha256] = item = _told(item, server.batch_of(item.upload))
                _write(run, known)
                listener(Event("batch", "note", f"{file.name} is batch {item.batch}"))
            found.append(item)
    return found


def fetch_batch(
    run: Path, *, wait_s: float | None = None, listener: Listener = silent
) -> tuple[list[Submitted], BatchRead]:
    """Ask how far the batches of a run are, and read the results of those that have ended.

    Args:
        run: The run folder.
        wait_s: Seconds between two looks, until all have ended; None looks once.
        listener: Told how far they are.

    Returns:
        Every batch of the run, and what was read now, over all of them.

    Raises:
        DataError: Nothing was submitted for this run.
        OptionError: The key is not in the environment.
        RunLocked: Another process works on the folder.
        TeacherRefused: The server refused.
        TeacherUnavailable: It cannot be reached.
    """
    if not _read(run):
        raise DataError(f"nothing was submitted for {run}; do so with: potstill batch submit {run} FILE")
    read: list[BatchRead] = []
    away = 0
    while True:
        try:
            with _Server(run) as server:
                _fetch(run, server, read)
            away = 0
        except TeacherUnavailable as error:
            away += 1
            if wait_s is None or away > _MOST_AWAY:
                raise
            listener(Event("batch", "note", str(error)))
        known = list(_read(run).values())
        left = [item for item in known if item.batch and not item.read]
        if wait_s is None or not left:
            return known, _joined(run, read)
        done, total = (sum(getattr(item, name) for item in left) for name in ("done", "total"))
        listener(Event("batch", "progress", f"{len(left)} batches under way", done, total or None))
        time.sleep(wait_s)


def batches_note(run: Path) -> str:
    """What a run is told of its batches that are under way, since it asks what they are asked; "" without any."""
    names = [item.batch for item in _read(run).values() if item.batch and not item.read]
    if not names:
        return ""
    return (
        f"{', '.join(names)} {'are' if len(names) > 1 else 'is'} under way, and what it is asked will be asked again; "
        f"stop, and fetch it first: potstill batch fetch {shlex.quote(str(run))} --wait"
    )


def _fetch(run: Path, server: _Server, read: list[BatchRead]) -> None:
    """Look at each batch once; the results of ended ones go into the ledger, and what was read behind `read`.

    Raises:
        TeacherRefused: The server refused something about a batch; those after it were looked at.
        TeacherUnavailable: It cannot be reached, or gives no results of a batch that it answered.
    """
    refused = None
    for item in _read(run).values():
        if item.read or not item.batch:
            continue
        try:
            batch = server.look(item.batch)
            item = _told(item, batch)
            if item.ended:
                places = [
                    server.download(str(name), run / "batch" / f"{item.sha256[:16]}-{kind}.jsonl")
                    for kind in ("output", "error")
                    if (name := batch.get(f"{kind}_file_id"))
                ]
                found = read_batch(run, places)
                read.append(found)
                lines = found.answered + found.already + sum(found.failed.values()) + found.unknown
                if item.done and not lines:
                    raise TeacherUnavailable(
                        f"{server.url} gave no results of {item.batch}, which answered {item.done} requests; give the "
                        "same command again, or carry the files by hand"
                    )
                item = replace(item, read=True)
        except TeacherRefused as error:
            refused = refused or error
        with RunDir(run).lock():
            _write(run, {**_read(run), item.sha256: item})
    if refused is not None:
        raise refused


def _joined(run: Path, read: Sequence[BatchRead]) -> BatchRead:
    """Several readings as one; what is missing is so after the last."""
    read = read or [read_batch(run, ())]
    failed: Counter[str] = Counter()
    for one in read:
        failed.update(one.failed)
    counts = ("answered", "truncated", "already", "unknown", "unreadable")
    sums = {name: sum(getattr(one, name) for one in read) for name in counts}
    return BatchRead(**sums, failed=dict(failed), missing=read[-1].missing)


def _told(item: Submitted, batch: Mapping[str, Any]) -> Submitted:
    """A batch with what the server says of it."""
    errors, counts = batch.get("errors"), batch.get("request_counts")
    faults = errors.get("data") if isinstance(errors, Mapping) else None
    said = [str(fault.get("message", ""))[:200] for fault in faults or () if isinstance(fault, Mapping)]

    def count(name: str) -> int:
        found = counts.get(name) if isinstance(counts, Mapping) else None
        return found if isinstance(found, int) else 0

    return replace(
        item, batch=str(batch["id"]), state=str(batch.get("status", "")), done=count("completed") + count("failed"),
        answered=count("completed"), total=count("total"), why="; ".join(said[:3]),
    )  # fmt: skip


class _Server:
    """The endpoints of files and batches of a run's teacher; every error is one of potstill's, without the key."""

    def __init__(self, run: Path):
        path = run / "batch" / SERVER
        if not path.exists():
            raise DataError(f"no batch was written for {run}; do so with: potstill batch write TASK FILE --out {run}")
        place = json.loads(path.read_text("utf-8"))
        self.url, variable = str(place["url"]), str(place["key_variable"])
        key = os.environ.get(variable, "")
        if not key and "//api.openai.com" in self.url:
            raise OptionError("teacher", [f"no key for api.openai.com; set the environment variable {variable}"])
        self._key, self._secrets = key, Secrets((key,) if len(key) > 3 else ())
        self._client: OpenAI | None = None

    def __enter__(self) -> _Server:
        from openai import OpenAI

        self._client = OpenAI(base_url=self.url, api_key=self._key or "EMPTY", timeout=_TIMEOUT_S)
        return self

    def __exit__(self, *of: object) -> None:
        if self._client is not None:
            self._client.close()

    def upload(self, file: Path) -> str:
        """The server's id of a file that it takes."""
        with file.open("rb") as opened:
            made = self._object(
                "file", lambda client: client.files.with_raw_response.create(file=(file.name, opened), purpose="batch")
            )
        return str(made["id"])

    def batch_of(self, upload: str) -> dict[str, Any]:
        """The batch of an uploaded file: one that is there, else a new one."""
        known = self._object(
            "list of batches", lambda client: client.batches.with_raw_response.list(limit=100), field="data", kind=list
        )
        for batch in known["data"]:
            if isinstance(batch, dict) and batch.get("input_file_id") == upload and batch.get("id"):
                return batch
        # The client itself would ask again where an answer is lost, and the server would make a second batch.
        return self._object(
            "batch",
            lambda client: client.with_options(max_retries=0).batches.with_raw_response.create(
                input_file_id=upload, endpoint="/v1/chat/completions", completion_window="24h"
            ),
        )

    def look(self, batch: str) -> dict[str, Any]:
        """What the server says of a batch."""
        return self._object("batch", lambda client: client.batches.with_raw_response.retrieve(batch))

    def download(self, file: str, place: Path) -> Path:
        """Fetch a file of results."""
        content = self._ask(lambda client: client.files.content(file).read())
        write_atomic(place, content.decode("utf-8", "replace"))
        return place

    def _object(self, what: str, call: Any, *, field: str = "id", kind: type = str) -> dict[str, Any]:
        """The object that the server answers, which has a field.

        It is read here rather than by the client's models, which take what a login page says for an object.
        """
        content = self._ask(lambda client: call(client).http_response.content)
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and isinstance(found.get(field), kind) and found[field] != "":
            return found
        shown = self._secrets.mask(" ".join(content.decode("utf-8", "replace")[:200].split()))[:80]
        raise TeacherRefused(
            f"{self.url} answers with no {what} ({shown!r}); check its address and that it has files and batches, or "
            "carry the files by hand"
        )

    def _ask(self, call: Any) -> Any:
        import openai

        try:
            return call(self._client)
        except openai.APIStatusError as error:
            said = self._secrets.mask(str(error))[:300]
            if error.status_code == 429 or error.status_code >= 500:
                raise TeacherUnavailable(f"{self.url} is busy ({said}); give the same command again") from None
            mend = "check the key and that the server has files and batches"
            raise TeacherRefused(f"{self.url} refused ({said}); {mend}, or carry the files by hand") from None
        except openai.APIConnectionError as error:
            why = self._secrets.mask(str(error.__cause__ or error))[:200]
            raise TeacherUnavailable(f"{self.url} cannot be reached ({why}); give the same command again") from None


def _read(run: Path) -> dict[str, Submitted]:
    path = run / "batch" / _SUBMITTED
    found = json.loads(path.read_text("utf-8")) if path.exists() else []
    return {item["sha256"]: Submitted(**item) for item in found}


def _write(run: Path, known: Mapping[str, Submitted]) -> None:
    items = [asdict(item) for item in known.values()]
    write_atomic(run / "batch" / _SUBMITTED, json.dumps(items, indent=1, ensure_ascii=False) + "\n")
