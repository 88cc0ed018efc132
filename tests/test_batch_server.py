"""Batch files sent to a server on the loopback that has OpenAI's files and batches, and fetched from it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import potstill
from potstill import batch_server
from potstill.asking.ledger import Ledger
from potstill.batch import write_batch
from potstill.batch_server import fetch_batch, submit_batch
from potstill.cli.app import app
from potstill.datagen.teachers import openai_api
from potstill.errors import DataError, TeacherRefused, TeacherUnavailable
from potstill.events import Event

TASK = "Classify a news article as World, Sports or Business."
KEY = "sk-secret-0123456789"


class BatchServer(ThreadingHTTPServer):
    """Keeps files and batches; a batch is under way until `answer` has answered it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.fault: tuple[str, int] | None = None
        # (method, part of the path): what is sent in place of the answer to the next such call, which is done all the
        # same; None breaks the connection off.
        self.instead: dict[tuple[str, str], tuple[int, bytes] | None] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def answer(self, state: str = "completed", leave_out: int = 0) -> None:
        """End every batch: its requests are answered, but some of which the error file tells."""
        for batch in self.batches.values():
            lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
            output, errors = [], []
            for number, line in enumerate(lines):
                text = json.dumps(
                    {"texts": [f"some words number {number} about matters of state {line['custom_id'][:9]}"]}
                )
                choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                body = {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 5}, "id": "c"}
                response, error = {"status_code": 200, "body": body}, None
                if number < leave_out:
                    response, error = None, {"code": "batch_expired", "message": "too late"}
                (errors if error else output).append(
                    {"custom_id": line["custom_id"], "response": response, "error": error}
                )
            for kind, found in (("output", output), ("error", errors)):
                name = f"file-{kind}-{batch['id']}"
                self.files[name] = "".join(json.dumps(item) + "\n" for item in found).encode()
                batch[f"{kind}_file_id"] = name if found else None
            batch["status"] = state
            counts = {"total": len(lines), "completed": len(output), "failed": len(errors)}
            batch["request_counts"] = counts


class _Handler(BaseHTTPRequestHandler):
    server: BatchServer

    def log_message(self, *of: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        kept = self.server
        kept.calls.append(f"GET {self.path}")
        place = self.path.partition("?")[0].removeprefix("/v1/").split("/")
        if place[0] == "batches" and len(place) == 1:
            self._send({"object": "list", "data": list(kept.batches.values()), "has_more": False})
        elif place[0] == "batches":
            self._send(kept.batches[place[1]])
        else:
            self._send(kept.files[place[1]])

    def do_POST(self) -> None:
        kept = self.server
        kept.calls.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if kept.fault is not None and kept.fault[0] in self.path:
            self._send({"error": {"message": f"no, {self.headers['Authorization']}"}}, kept.fault[1])
        elif self.path.startswith("/v1/files"):
            mark = self.headers["Content-Type"].partition("boundary=")[2].encode()
            part = next(part for part in body.split(b"--" + mark) if b"filename=" in part)
            name = f"file-{len(kept.files)}"
            kept.files[name] = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
            self._send({"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": "f", "purpose": "batch",
                        "status": "processed"})  # fmt: skip
        else:
            asked = json.loads(body)
            made = {
                "id": f"batch-{len(kept.batches)}",
                "object": "batch",
                "created_at": 0,
                "status": "validating",
                **asked,
            }
            kept.batches[made["id"]] = made
            self._send(made)

    def _send(self, value: Any, status: int = 200) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        called = next((call for call in self.server.instead if call[0] == self.command and call[1] in self.path), None)
        if called is not None:
            sent = self.server.instead.pop(called)
            if sent is None:
                self.close_connection = True
                return
            status, content = sent
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setattr(openai_api.OpenAITeacher, "_flavour", "openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = BatchServer()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    with contextlib.closing(made.socket):
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def written(server: BatchServer, tmp_path: Path) -> tuple[Path, Path]:
    """A run folder, and the batch file of its rows."""
    run, file = tmp_path / "run", tmp_path / "requests.jsonl"
    options = {"attributes": "builtin", "window": 20}
    write_batch(TASK, file, out=run, teacher=f"openai:{server.url}#m", sources="generated", n=8, generation=options)
    return run, file


def test_a_file_is_sent_once_and_its_results_are_fetched_when_they_are_there(
    server: BatchServer, written: tuple[Path, Path]
) -> None:
    run, file = written
    (sent,) = submit_batch(run, [file])
    assert (sent.name, sent.batch, sent.state) == ("requests.jsonl", "batch-0", "validating")
    assert server.files["file-0"] == file.read_bytes()
    assert server.batches["batch-0"]["completion_window"] == "24h"
    assert submit_batch(run, [file]) == [sent]
    assert (len(server.files), len(server.batches)) == (1, 1)
    (under_way,), read = fetch_batch(run)
    assert not under_way.ended
    assert read.answered == 0
    server.answer(leave_out=2)
    (ended,), read = fetch_batch(run)
    count = len(file.read_text().splitlines())
    assert (ended.state, ended.done, ended.total, ended.read) == ("completed", count, count, True)
    assert (read.answered, dict(read.failed), read.missing) == (count - 2, {"batch_expired": 2}, 2)
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.totals().replies == count - 2
    calls = len(server.calls)
    assert fetch_batch(run)[1].answered == 0
    assert len(server.calls) == calls, "what was read is not asked for again"
    assert KEY not in "".join(path.read_text() for path in (run / "batch").iterdir())


def test_what_was_uploaded_before_a_kill_is_not_uploaded_and_not_asked_for_again(
    server: BatchServer, written: tuple[Path, Path]
) -> None:
    run, file = written
    server.fault = ("/v1/batches", 400)
    with pytest.raises(TeacherRefused, match=r"refused \(.*no, Bearer \*\*\*") as caught:
        submit_batch(run, [file])
    assert KEY not in str(caught.value)
    server.fault = None
    (sent,) = submit_batch(run, [file])
    assert (len(server.files), sent.upload) == (1, "file-0")
    submitted = run / "batch" / "submitted.json"
    told = json.loads(submitted.read_text())
    submitted.write_text(json.dumps([{**told[0], "batch": "", "state": ""}]))  # killed before it was written down
    assert submit_batch(run, [file])[0].batch == sent.batch
    assert len(server.batches) == 1


def test_a_batch_that_the_server_failed_says_why_and_may_be_sent_again(
    server: BatchServer, written: tuple[Path, Path]
) -> None:
    run, file = written
    submit_batch(run, [file])
    server.batches["batch-0"] |= {"status": "failed", "errors": {"data": [{"message": "the model is not known"}]}}
    (item,), read = fetch_batch(run)
    assert (item.state, item.why) == ("failed", "the model is not known")
    assert read.missing == len(file.read_text().splitlines())
    assert submit_batch(run, [file])[0].batch == "batch-1"


def test_waiting_looks_again_until_all_have_ended(
    server: BatchServer, written: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = written
    submit_batch(run, [file])
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            server.answer()

    monkeypatch.setattr("potstill.batch_server.time.sleep", sleep)
    (item,), read = fetch_batch(run, wait_s=60)
    assert waited == [60, 60]
    assert item.read
    assert read.missing == 0


def test_a_file_whose_requests_are_answered_is_not_sent_again(server: BatchServer, written: tuple[Path, Path]) -> None:
    """It was: the batch had ended and was read, so all of it would have been paid for twice."""
    run, file = written
    submit_batch(run, [file])
    server.answer()
    fetch_batch(run)
    (item,) = submit_batch(run, [file])
    assert (item.batch, item.state, len(server.batches)) == ("batch-0", "completed", 1)


def test_a_file_of_which_nothing_was_answered_may_be_sent_again(
    server: BatchServer, written: tuple[Path, Path]
) -> None:
    run, file = written
    submit_batch(run, [file])
    server.answer("expired", leave_out=99)
    fetch_batch(run)
    assert submit_batch(run, [file])[0].batch == "batch-1", "batch write would write the same file"


@pytest.mark.parametrize("sent", [(500, b"{}"), None], ids=["error", "cut"])
def test_a_batch_whose_answer_is_lost_is_made_once(
    server: BatchServer, written: tuple[Path, Path], sent: tuple[int, bytes] | None
) -> None:
    """The client asked again by itself, and the server made two batches of one file."""
    run, file = written
    server.instead["POST", "/v1/batches"] = sent
    with pytest.raises(TeacherUnavailable, match="give the same command again"):
        submit_batch(run, [file])
    assert submit_batch(run, [file])[0].batch == "batch-0"
    assert len(server.batches) == 1


def test_what_is_under_way_or_answered_is_not_sent_in_another_file(
    server: BatchServer, written: tuple[Path, Path], tmp_path: Path
) -> None:
    run, file = written
    lines = file.read_text().splitlines(keepends=True)
    half, more = tmp_path / "half.jsonl", tmp_path / "more.jsonl"
    half.write_text("".join(lines[:5]))
    more.write_text("".join(lines[4:]))
    submit_batch(run, [half])
    with pytest.raises(DataError, match=r"1 of 9 requests in .*more\.jsonl are under way in batch-0.*batch fetch"):
        submit_batch(run, [more])
    server.answer()
    fetch_batch(run)
    with pytest.raises(DataError, match=r"1 of 9 requests in .*more\.jsonl are answered.*batch write"):
        submit_batch(run, [more])
    more.write_text("".join(lines[5:]))
    assert submit_batch(run, [more])[0].batch == "batch-1"
    more.write_text("".join(lines[5:]).replace('"custom_id": "', '"custom_id": "another'))
    with pytest.raises(DataError, match=r"8 of 8 requests in .*more\.jsonl are .*of another run"):
        submit_batch(run, [more])
    more.write_text("no line of a batch\n")
    with pytest.raises(DataError, match=r"more\.jsonl holds a line that is no request"):
        submit_batch(run, [more])
    assert len(server.batches) == 2


def test_a_run_says_that_a_batch_is_under_way(
    server: BatchServer, written: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the batch is asked would be asked again, and paid for twice."""
    run, file = written
    monkeypatch.setattr("potstill.stages.job.Job.all_stages", lambda job, task: ())

    def notes() -> list[str]:
        told: list[Event] = []
        potstill.run(TASK, out=run, teacher=f"openai:{server.url}#m", sources="generated", n=8, listener=told.append)
        return [event.message for event in told if event.stage == "batch"]

    assert notes() == []
    submit_batch(run, [file])
    (note,) = notes()
    assert note.startswith("batch-0 is under way, and what it is asked will be asked again; stop, and fetch it first: ")
    assert note.endswith(f"potstill batch fetch {run} --wait")
    server.answer()
    fetch_batch(run)
    assert notes() == []


def test_a_server_names_no_file(server: BatchServer, written: tuple[Path, Path], tmp_path: Path) -> None:
    """The batch's id, which the server makes, was the name under which its results were kept."""
    run, file = written
    submit_batch(run, [file])
    server.answer()
    server.batches["batch-0"]["id"] = "../../evil"
    fetch_batch(run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["requests.jsonl", "run"]


def test_waiting_ends_where_a_file_was_only_uploaded(
    server: BatchServer, written: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No batch was there to end, and so the wait had none."""
    run, file = written
    server.fault = ("/v1/batches", 400)
    with pytest.raises(TeacherRefused):
        submit_batch(run, [file])
    monkeypatch.setattr("potstill.batch_server.time.sleep", lambda seconds: pytest.fail("it waits"))
    (item,), _ = fetch_batch(run, wait_s=60)
    assert not item.batch
    shown = CliRunner().invoke(app, ["batch", "fetch", str(run)]).stdout
    assert f"requests.jsonl  uploaded alone; send it again: potstill batch submit {run} requests.jsonl" in shown
    assert "0 without reply" not in shown


def test_waiting_outlasts_a_server_that_is_away(
    server: BatchServer, written: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = written
    submit_batch(run, [file])
    away = TeacherUnavailable("away")
    looks = iter([away, away])
    real = batch_server._Server.look

    def look(self: Any, batch: str) -> dict[str, Any]:
        if (error := next(looks, None)) is not None:
            raise error
        return real(self, batch)

    monkeypatch.setattr(batch_server._Server, "look", look)
    monkeypatch.setattr("potstill.batch_server.time.sleep", lambda seconds: server.answer())
    assert fetch_batch(run, wait_s=60)[0][0].read
    submitted = run / "batch" / "submitted.json"
    submitted.write_text(submitted.read_text().replace('"read": true', '"read": false').replace("completed", "x"))
    looks = iter([away] * 1000)
    with pytest.raises(TeacherUnavailable, match="away"):
        fetch_batch(run, wait_s=60)


@pytest.mark.parametrize("sent", [b"<html>log in</html>", b"[]", b"", b"null", b'{"data": 1, "status": 2}'])
@pytest.mark.parametrize("call", [("POST", "/files"), ("GET", "/batches"), ("POST", "/batches"), ("GET", "/batches/")])
def test_an_answer_that_is_none_is_told(
    server: BatchServer, written: tuple[Path, Path], call: tuple[str, str], sent: bytes
) -> None:
    run, file = written
    if call == ("GET", "/batches/"):
        submit_batch(run, [file])
    server.instead[call] = 200, sent
    with pytest.raises(TeacherRefused, match=r"no (file|batch|list of batches) \("):
        _ = fetch_batch(run) if call == ("GET", "/batches/") else submit_batch(run, [file])


@pytest.mark.parametrize("sent", [b"<html>log in</html>", b"", b"[]\n"])
def test_results_that_are_none_are_fetched_again(server: BatchServer, written: tuple[Path, Path], sent: bytes) -> None:
    """They were taken for read, and what was paid for was never asked for again."""
    run, file = written
    submit_batch(run, [file])
    server.answer()
    server.instead["GET", "/content"] = 200, sent
    with pytest.raises(TeacherUnavailable, match=r"no results of batch-0, which answered \d+"):
        fetch_batch(run)
    (item,), read = fetch_batch(run)
    assert item.read
    assert read.answered == item.done


def test_results_that_are_gone_keep_none_of_another_batch(
    server: BatchServer, written: tuple[Path, Path], tmp_path: Path
) -> None:
    run, file = written
    lines = file.read_text().splitlines(keepends=True)
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for place, part in zip(files, (lines[:5], lines[5:]), strict=True):
        place.write_text("".join(part))
    submit_batch(run, files)
    server.answer()
    server.instead["GET", "file-output-batch-0"] = 404, b'{"error": {"message": "it is gone"}}'
    with pytest.raises(TeacherRefused, match="it is gone"):
        fetch_batch(run)
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.totals().replies == len(lines) - 5
    assert [item.read for item in fetch_batch(run)[0]] == [True, True]


def test_what_cannot_be_sent_is_told_with_the_mend(
    server: BatchServer, written: tuple[Path, Path], tmp_path: Path
) -> None:
    run, file = written
    with pytest.raises(DataError, match=r"nothing was submitted for .*potstill batch submit"):
        fetch_batch(run)
    with pytest.raises(DataError, match="no batch was written for"):
        submit_batch(tmp_path / "other", [file])
    with pytest.raises(DataError, match=r"none\.jsonl cannot be read"):
        submit_batch(run, [tmp_path / "none.jsonl"])
    place = run / "batch" / "server.json"
    place.write_text(place.read_text().replace(server.url, "http://127.0.0.1:9/v1"))
    with pytest.raises(TeacherUnavailable, match="cannot be reached"):
        submit_batch(run, [file])


def test_the_commands_say_what_comes_next(server: BatchServer, written: tuple[Path, Path]) -> None:
    run, file = written
    shown = CliRunner().invoke(app, ["batch", "submit", str(run), str(file)]).stdout
    assert "requests.jsonl  batch-0  validating" in shown
    assert f"then: potstill batch fetch {run} --wait" in shown
    server.answer()
    shown = CliRunner().invoke(app, ["batch", "fetch", str(run)]).stdout
    assert "completed" in shown
    assert "potstill run" in shown
    told = json.loads(CliRunner().invoke(app, ["batch", "fetch", str(run), "--json"]).stdout.splitlines()[-1])
    assert told["batches"][0]["read"]
