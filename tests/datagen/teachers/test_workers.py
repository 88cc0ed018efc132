"""Requests leased to real worker processes: same rows as without, whoever is killed; and what is kept out."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from potstill.asking.teacher import (
    AnyRequest,
    Failure,
    Message,
    Reply,
    Request,
    ScoreRequest,
    Tokenizes,
    TokenTop,
    token_score,
)
from potstill.cli.app import app
from potstill.datagen.teachers import open_teacher, worker_wire
from potstill.datagen.teachers.fake import FakeOptions, FakeTeacher
from potstill.datagen.teachers.labour import _in_bodies, unlike, what_answers, work_for
from potstill.datagen.teachers.local import LocalOptions, LocalTeacher
from potstill.datagen.teachers.ray_cluster import RayTeacher
from potstill.datagen.teachers.worker_wire import (
    ADDRESS_FILE,
    Address,
    Away,
    Line,
    find_run,
    outcome_from_wire,
    outcome_to_wire,
    read_address,
    request_from_wire,
    request_to_wire,
    run_token,
    token_of,
    workers_of,
    write_address,
)
from potstill.datagen.teachers.workers import WorkersOptions, WorkersTeacher
from potstill.errors import DataError, OptionError, RunError, TeacherUnavailable, UserError
from potstill.events import Event
from potstill.settings import resolve

SCRIPT = Path(__file__).with_name("leased_run.py")
_SPEC = importlib.util.spec_from_file_location("leased_run", SCRIPT)
assert _SPEC is not None
assert _SPEC.loader is not None
leased_run = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(leased_run)
TOKEN = "a-token-of-the-tests-0123456789"


def source(requests: Sequence[AnyRequest]) -> Callable[[int], list[AnyRequest]]:
    left = iter(requests)
    return lambda room: [request for _, request in zip(range(room), left)]


def asked(count: int) -> list[AnyRequest]:
    return [Request((Message("user", f"say {i}"),), seed=i) for i in range(count)]


def rows_of(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "out" / "rows.parquet").read_bytes(), (folder / "out" / "dropped.jsonl").read_bytes()


@pytest.fixture
def alone(tmp_path: Path) -> Callable[[int], tuple[Any, tuple[bytes, bytes]]]:
    """Totals, rows and drops of a run in one process."""

    def generate(rows: int) -> tuple[Any, tuple[bytes, bytes]]:
        folder = tmp_path / "alone"
        totals = leased_run.generate(FakeTeacher(FakeOptions(concurrency=8)), folder, rows)
        return totals, rows_of(folder)

    return generate


@contextmanager
def started(*command: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed at the end, whatever happens."""
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def worker(place: Path | str, *more: str, **kinds: Any) -> Any:
    """`potstill work`."""
    return started("-m", "potstill", "work", str(place), "--patience", "60", *more, **kinds)


def run(folder: Path, rows: int, *, ref: str = "fake", teacher: dict[str, Any], **options: Any) -> Any:
    """A run's process."""
    return started(str(SCRIPT), str(folder), str(rows), ref, json.dumps(options), json.dumps(teacher))


def ended(process: subprocess.Popen[str]) -> str:
    """What a process said that ends well by itself."""
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def waited(until: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_rows_are_those_of_one_process_whoever_answers_and_whoever_is_killed(
    tmp_path: Path, alone: Callable[[int], tuple[Any, tuple[bytes, bytes]]]
) -> None:
    """Two workers and the run's own process answer; one worker is killed in the middle."""
    notices: list[str] = []
    folder = tmp_path / "run"
    folder.mkdir()
    options = WorkersOptions(lease_s=5)
    teacher = WorkersTeacher("fake", options, folder=folder, notice=notices.append, delay_s=0.02, concurrency=8)
    killed: list[dict[str, Any]] = []
    with worker(folder) as first, worker(folder) as second:
        waited(lambda: len(teacher.workers()) == 2)

        def kill_one(event: Event) -> None:
            busy = [one for one in teacher.workers() if one["in_flight"] and not one["here"]]
            if event.stage == "datagen" and event.done > 60 and busy and not killed:
                killed.append(busy[0])
                os.kill(busy[0]["process"], signal.SIGKILL)

        totals = leased_run.generate(teacher, folder, 600, listener=kill_one)
        told = teacher.workers()
        teacher.close()
        survivor = first if killed[0]["process"] == second.pid else second
        assert "the run needs no more here" in ended(survivor)
    expected, files = alone(600)
    assert rows_of(folder) == files
    # What is planned beyond the last row is sent or not, as the teacher had room.
    assert abs(totals.replies - expected.replies) <= 30
    assert totals.failures == 0
    assert teacher.deaths == 1
    assert f"a worker went, {socket.gethostname()} (process {killed[0]['process']})" in "\n".join(notices)
    assert TOKEN not in "".join(notices)
    assert {one["here"] for one in told} == {True, False}
    assert all(one["answered"] > 20 for one in told)
    assert not (folder / ADDRESS_FILE).exists()


def test_the_run_is_killed_again_and_again_and_its_workers_outlive_it(
    tmp_path: Path, alone: Callable[[int], tuple[Any, tuple[bytes, bytes]]]
) -> None:
    folder, random = tmp_path / "run", Random(1)
    folder.mkdir()
    slow = {"delay_s": 0.01, "concurrency": 8}
    starts = 0
    with worker(folder) as first, worker(folder) as second:
        for kills in range(4):
            with run(folder, 400, teacher=slow, here=False, lease_s=5) as process:
                starts += 1
                if kills == 3:
                    ended(process)
                    continue
                waited(lambda: len(workers_of(folder)) == 2)
                time.sleep(random.uniform(0.0, 0.7))
                process.kill()
                process.wait()
                assert stat.S_IMODE((folder / ADDRESS_FILE).stat().st_mode) == 0o600
        counts = [int(ended(one).split("answered ")[1].split()[0].replace(",", "")) for one in (first, second)]
    expected, files = alone(400)
    assert rows_of(folder) == files
    assert all(counts), "each answered something"
    # What was in flight when the run was killed is asked again, and nothing else: 9 a worker and the ledger's last.
    assert sum(counts) <= expected.replies + 3 * 2 * 2 * 9 + 30
    assert starts == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(4))
def test_whoever_is_killed_at_whatever_moment_the_rows_are_the_same(
    tmp_path: Path, alone: Callable[[int], tuple[Any, tuple[bytes, bytes]]], seed: int
) -> None:
    folder, random = tmp_path / "run", Random(seed)
    folder.mkdir()
    slow = {"delay_s": 0.01, "concurrency": 4, "shuffle": True}
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(folder)) for _ in range(2)]
        kills = 0
        while True:
            with run(folder, 300, teacher=slow, here=bool(seed % 2), lease_s=5) as process:
                while process.poll() is None:
                    time.sleep(random.uniform(0.3, 3.0))
                    if kills < 8 and random.random() < 0.5:
                        kills += 1
                        victim = random.choice([process, *workers])
                        victim.kill()
                        if victim is process:
                            break
                        workers[workers.index(victim)] = stack.enter_context(worker(folder))
                if process.wait(timeout=120) == 0:
                    break
    _, files = alone(300)
    assert rows_of(folder) == files
    assert kills >= 1


def test_a_model_in_a_worker_or_in_the_runs_thread_writes_what_it_writes_alone(
    tmp_path: Path, tiny_causal: Any, drain: Any
) -> None:
    model = tiny_causal(tmp_path / "model")
    folder = tmp_path / "run"
    folder.mkdir()
    options = {"concurrency": 4, "device": "cpu", "dtype": "float32", "threads": 1}
    words = [("billing", " an invoice"), ("bug", " a blank page")]
    requests: list[AnyRequest] = [
        *(Request((Message("user", f"say {i}"),), seed=i, max_tokens=12, top_logprobs=2) for i in range(12)),
        *(ScoreRequest((Message("user", text),), tuple(name for name, _ in words)) for _, text in words),
        Request((Message("user", "which"),), choices=("yes", "no"), temperature=0.0, stop=("\n",)),
    ]
    here = LocalTeacher(str(model), LocalOptions(**options))  # type: ignore[arg-type]
    teacher = WorkersTeacher(
        f"transformers:{model}", WorkersOptions(here=False), folder=folder, notice=lambda text: None, **options
    )
    with worker(folder) as process:
        found = drain(teacher, requests)
        teacher.close()
        ended(process)
    assert teacher.identity == here.identity
    own = WorkersTeacher(f"transformers:{model}", notice=lambda text: None, **options)
    in_thread = drain(own, requests)
    own.close()
    plain = drain(here, requests)
    for (request, ours), (_, theirs) in [*zip(plain, found), *zip(plain, in_thread)]:
        assert isinstance(ours, Reply)
        assert isinstance(theirs, Reply)
        assert (theirs.text, theirs.finish, theirs.completion_tokens) == (
            ours.text, ours.finish, ours.completion_tokens
        ), request  # fmt: skip
        assert theirs.scores == pytest.approx(ours.scores, abs=1e-4)
        assert [top.token_id for top in theirs.top] == [top.token_id for top in ours.top]


def test_a_stream_that_is_left_early_leaves_nothing_behind() -> None:
    teacher = WorkersTeacher("fake", notice=lambda text: None, delay_s=0.002, concurrency=8)
    requests = asked(60)
    for _ in range(3):
        stream = teacher.stream(source(requests))
        for _ in range(5):
            next(stream)
        stream.close()  # type: ignore[attr-defined]
    found = list(teacher.stream(source(requests)))
    assert sorted(id(request) for request, _ in found) == sorted(id(request) for request in requests)
    fake = FakeTeacher(FakeOptions())
    assert all(reply == fake.answer(request) for request, reply in found)
    teacher.close()


def test_what_is_answered_while_the_caller_is_busy_is_not_lost() -> None:
    teacher = WorkersTeacher("fake", notice=lambda text: None, concurrency=8, delay_s=0.01)
    found = []
    for request, _ in teacher.stream(source(asked(12))):
        found.append(request)
        time.sleep(0.1)
    assert len(found) == 12
    teacher.close()


def test_nothing_to_ask_opens_no_engine() -> None:
    teacher = WorkersTeacher("fake", WorkersOptions(count=3), notice=lambda text: None)
    assert list(teacher.stream(lambda room: [])) == []
    assert teacher.workers() == []
    assert teacher.identity == FakeTeacher(FakeOptions()).identity
    assert teacher.concurrency == 3 * 64
    teacher.close()


def test_it_is_asked_about_tokens_and_turns_as_the_teacher_is(tmp_path: Path, tiny_causal: Any) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    model = tiny_causal(tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    plain = open_teacher(f"vllm:{model}", dtype="float32")
    kinds: list[Callable[..., Any]] = [WorkersTeacher]
    if importlib.util.find_spec("ray") is not None:
        kinds.append(RayTeacher)
    for kind in kinds:
        teacher = kind(f"vllm:{model}", notice=lambda text: None, dtype="float32")
        assert (teacher.name, teacher.identity, teacher.abilities) == (plain.name, plain.identity, plain.abilities)
        assert isinstance(teacher, Tokenizes)
        assert teacher.tokens_of("a word") == plain.tokens_of("a word")  # type: ignore[attr-defined]
        assert teacher.user_turn_fault() == plain.user_turn_fault() != ""  # type: ignore[attr-defined]
        teacher.close()
    assert WorkersTeacher("fake", notice=lambda text: None).user_turn_fault() == ""


def test_no_worker_comes() -> None:
    teacher = WorkersTeacher("fake", WorkersOptions(here=False, patience_s=0.5), notice=lambda text: None)
    with pytest.raises(TeacherUnavailable, match=r"no worker was at http://127.0.0.1:\d+/ for .* \(potstill work http"):
        list(teacher.stream(source(asked(3))))
    teacher.close()


def test_a_teacher_that_cannot_be_opened_here(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    teacher = WorkersTeacher(f"transformers:{tmp_path}", notice=lambda text: None, dtype="float32", device="cpu")
    with pytest.raises(UserError, match="model"):
        list(teacher.stream(source(asked(1))))
    teacher.close()


@pytest.fixture
def leasing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkersTeacher]:
    """A run that waits for workers."""
    monkeypatch.setenv(worker_wire.TOKEN_VARIABLE, TOKEN)
    teacher = WorkersTeacher("fake", folder=tmp_path, notice=lambda text: None, concurrency=3)
    yield teacher
    teacher.close()


def call(teacher: WorkersTeacher, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(teacher.address.url.split("/")[2], timeout=10)
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("POST", path, body, given)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def test_who_has_not_the_token_is_told_nothing(leasing: WorkersTeacher) -> None:
    assert leasing.address.url.startswith("http://127.0.0.1:")
    for path in ("/teacher", "/join", "/exchange", "/leave", "/workers"):
        for token in ({}, {"X_Potstill_Token": "wrong"}, {"X_Potstill_Token": TOKEN[:-1]}):
            assert call(leasing, path, b"{}", **token)[0] == 403
    assert call(leasing, "/workers", b"{}", X_Potstill_Token=TOKEN) == (200, {"workers": []})
    with pytest.raises(UserError, match="has another token"):
        Line(Address(leasing.address.url, "x" * 20)).ask("/teacher", {})
    assert TOKEN not in repr(leasing.address)


def test_bodies_are_bounded_and_checked(leasing: WorkersTeacher) -> None:
    known = {"X_Potstill_Token": TOKEN}
    assert call(leasing, "/exchange", b"[1]", **known)[0] == 400
    assert call(leasing, "/exchange", b'{"worker": 1}', **known)[0] == 400
    assert call(leasing, "/exchange", b"\x80\x04N.", **known)[0] == 400, "a pickle is no JSON"
    assert call(leasing, "/exchange", b"{}", **known, Content_Length=str(1 << 30))[0] == 413
    line = Line(leasing.address)
    worker = {"name": "w", "host": "h", "process": 1, "room": 3, "answers": what_answers(FakeTeacher(FakeOptions()))}
    line.ask("/join", {"worker": worker})
    for answers in (None, {}, {**worker["answers"], "identity": "fake"}):  # type: ignore[dict-item]
        with pytest.raises(UserError, match="is needed"):
            line.ask("/join", {"worker": {**worker, "answers": answers}})
    said = {"worker": "w", "stint": "", "done": [], "held": [], "room": 3, "wait_s": 0}
    assert line.ask("/exchange", said)["known"]
    for done in ([[1]], [[1, {"reply": {"text": 1}}]], [["1", {"failure": {"reason": "x"}}]], [[1, {"failure": {}}]]):
        with pytest.raises(UserError, match="handed in what is no reply"):
            line.ask("/exchange", {**said, "done": done})
    with pytest.raises(UserError, match="worker: dict is needed"):
        line.ask("/join", {})
    line.close()


def test_a_worker_of_other_weights_is_refused_and_one_of_other_libraries_is_named(
    leasing: WorkersTeacher, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="would not answer as the run does: seed is 5 here and 0 there"):
        work_for(str(tmp_path), tell=print, teacher_options={"seed": 5})
    run = {"identity": {"model": "a@1"}, "code": "1", "versions": {"torch": "2.1", "vllm": "absent"}}
    assert unlike(run, run) == ("", "")
    fault, other = unlike(run, {**run, "code": "2", "versions": {"torch": "2.0", "vllm": "absent"}})
    assert fault == "the code of potstill is another one"
    assert other == "torch 2.0 in place of 2.1"


def test_a_worker_of_another_version_is_told_so_before_it_opens_anything(
    leasing: WorkersTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potstill.datagen.teachers.labour._code", lambda: "another" if opened else "the run's")
    opened: list[bool] = []
    ask = Line.ask

    def asked_by_another(self: Line, path: str, body: Any) -> Any:
        found = ask(self, path, body)
        opened.append(True)  # from here on it is the worker's code
        return found

    monkeypatch.setattr(Line, "ask", asked_by_another)
    with pytest.raises(UserError, match="runs other code of potstill than this machine; install the same version"):
        work_for(str(tmp_path), tell=print, teacher_options={"no_such_option": 1})


def test_what_the_command_is_told_is_checked(leasing: WorkersTeacher, tmp_path: Path) -> None:
    def called(*more: str) -> str:
        done = CliRunner().invoke(app, ["work", str(tmp_path), *more])
        return f"{done.output} {done.exception}"

    assert "teacher.patience_s: no such option" in called("--set", "teacher_options.patience_s=1")
    assert "--set generation: the run has decided it" in called("--set", "generation.rows=1")
    for option in ("--idle", "--patience"):
        assert option in called(option, "-1")


def test_a_worker_of_a_run_that_never_begins_gives_up(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(TeacherUnavailable, match="no run has begun there"):
        work_for(str(tmp_path), patience_s=0.2, tell=said.append)
    assert len(said) == 1
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "task.json").write_text("{}")
    with pytest.raises(TeacherUnavailable, match="a run is there, but it is not under way with --executor workers"):
        work_for(str(tmp_path), patience_s=0.2, tell=said.append)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(TeacherUnavailable, match="Refused"):
            work_for(url, patience_s=0.2, tell=said.append, environment={worker_wire.TOKEN_VARIABLE: TOKEN})


def test_a_worker_with_nothing_to_do_ends_when_it_is_told_to(leasing: WorkersTeacher, tmp_path: Path) -> None:
    environment = os.environ | {worker_wire.TOKEN_VARIABLE: TOKEN}
    with worker(leasing.address.url, "--idle", "0.5", env=environment) as process:
        assert "answered 0 requests" in ended(process)
    assert leasing.workers() == []


def test_an_interrupted_run_is_waited_for_and_a_finished_one_is_not(tmp_path: Path) -> None:
    def close(error: type[BaseException] | None) -> bool:
        teacher = WorkersTeacher("fake", folder=tmp_path, notice=lambda text: None)
        with suppress(KeyboardInterrupt, ValueError):
            try:
                if error is not None:
                    raise error
            finally:
                teacher.close()
        return (tmp_path / ADDRESS_FILE).exists()

    assert [close(error) for error in (KeyboardInterrupt, ValueError, None)] == [True, False, False]


def test_a_worker_finds_a_run_again_that_was_interrupted_in_a_process_that_lives_on(tmp_path: Path) -> None:
    """As in a notebook: the connection to the earlier start is still there, and the token is another one."""
    first = WorkersTeacher("fake", folder=tmp_path, notice=lambda text: None)
    with worker(tmp_path) as process:
        waited(lambda: len(first.workers()) == 1)
        interrupted(first)
        second = WorkersTeacher("fake", WorkersOptions(here=False), folder=tmp_path, notice=lambda text: None)
        assert second.address.token != first.address.token
        assert len(list(second.stream(source(asked(30))))) == 30
        second.close()
        assert "answered 30 requests" in ended(process)


def interrupted(teacher: WorkersTeacher) -> None:
    with suppress(KeyboardInterrupt):
        try:
            raise KeyboardInterrupt
        finally:
            teacher.close()


def test_a_worker_that_outlives_its_run_is_no_worker_of_one_with_another_teacher(tmp_path: Path) -> None:
    first = WorkersTeacher("fake", folder=tmp_path, notice=lambda text: None)
    ends: list[BaseException] = []

    def work() -> None:
        try:
            work_for(str(tmp_path), patience_s=30, tell=lambda text: None)
        except UserError as error:
            ends.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    waited(lambda: len(first.workers()) == 1)
    interrupted(first)
    notices: list[str] = []
    second = WorkersTeacher("fake", WorkersOptions(here=False), folder=tmp_path, notice=notices.append, seed=5)
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert "would not answer as the run does: seed is 0 here and 5 there; use the same model" in str(ends[0])
    assert not any("a worker came" in text for text in notices)
    second.close()


def test_an_interrupted_run_leaves_no_thread_that_waits_for_requests() -> None:
    teacher = WorkersTeacher("fake", notice=lambda text: None)
    assert len(list(teacher.stream(source(asked(3))))) == 3
    interrupted(teacher)
    waited(lambda: not any(thread.name == "own worker" for thread in threading.enumerate()), 10.0)


def test_the_token_is_the_environments_or_new() -> None:
    assert run_token({worker_wire.TOKEN_VARIABLE: TOKEN}) == TOKEN
    assert len(run_token({})) >= 32
    assert run_token({}) != run_token({}), "what a stranger heard at an old address is of no use to him"
    with pytest.raises(OptionError, match="has 5 characters; 16 or more"):
        token_of({worker_wire.TOKEN_VARIABLE: "short"})


def test_where_a_worker_finds_its_run(tmp_path: Path) -> None:
    assert find_run(str(tmp_path), {}) is None
    write_address(tmp_path, Address("http://127.0.0.1:1/", TOKEN, "another"))
    with pytest.raises(UserError, match=r"listens on 127.0.0.1:1 of another, .*workers.listen=0.0.0.0:8470"):
        find_run(str(tmp_path), {})
    (tmp_path / ADDRESS_FILE).write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_address(tmp_path)
    with pytest.raises(OptionError, match="token is needed in POTSTILL_WORKERS_TOKEN"):
        find_run("http://node0:8470", {})
    assert find_run("http://node0:8470", {worker_wire.TOKEN_VARIABLE: TOKEN}) == Address("http://node0:8470", TOKEN)
    long = "a" * 64
    for url in (
        "http://", "http://h:x", f"http://{TOKEN}@h:1", "ftp://h", "http://[::1", "http://a b:1", f"http://{long}:1",
        "http://h:1/a b",
    ):  # fmt: skip
        with pytest.raises(OptionError) as caught:
            Line(Address(url, TOKEN))
        assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b'{"stint": "a", "requ'])
def test_a_run_that_is_killed_within_its_answer_is_away_and_no_other_program(body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def be_killed() -> None:
            connection, _ = server.accept()
            with connection:
                heard = b""
                while not heard.endswith(b"{}"):  # what is unread at the end would reset the connection
                    heard += connection.recv(1 << 16)
                connection.sendall(head + body)

        thread = threading.Thread(target=be_killed)
        thread.start()
        line = Line(Address(f"http://127.0.0.1:{server.getsockname()[1]}/", TOKEN), timeout_s=10)
        with pytest.raises(Away, match="IncompleteRead"):
            line.ask("/exchange", {})
        thread.join()
    line.close()


def test_requests_and_outcomes_come_over_the_wire_as_they_were() -> None:
    everything = Request(
        (Message("system", "s\ud800"), Message("user", "日本")), prefill="p", max_tokens=7, temperature=0, top_p=0.3,
        stop=("a", "b"), seed=2**70, sample=3, schema={"type": "object"}, choices=("x",), top_logprobs=2, token_texts=1,
        beams=2, turn="user",
    )  # fmt: skip
    scores = ScoreRequest((Message("user", "u"),), ("a", "b"), prefill="p", top_logprobs=4, token_ids=((1, 2), (3,)))
    for whole in (everything, scores):
        untold = [field.name for field in fields(whole) if getattr(whole, field.name) == field.default]
        assert untold == ["tag"], "a field that comes later must be told too"
    for request in (everything, scores, token_score([1, 2], [], 4), *asked(1)):
        again = request_from_wire(json.loads(json.dumps(request_to_wire(request))))
        assert again == request
        assert repr(again) == repr(request), "0 is not 0.0 for a teacher that reads it so"
    reply = Reply("t", "length", 3, 4, top=(TokenTop(1, -0.5, (1, 2), (-0.5, -1.5)),), raw={"a": [1]}, attempts=2)
    for outcome in ((1, reply), (2, Failure("why", 3, 4, 5, passing=True))):
        assert outcome_from_wire(json.loads(json.dumps(outcome_to_wire(outcome)))) == outcome
    with pytest.raises(DataError, match="no request"):
        request_from_wire({"messages": [["user"]]})


def test_long_prompts_are_leased_by_as_many_as_a_worker_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run sends is bounded by what workers ask for, and no more by a body that they may send."""
    monkeypatch.setattr(worker_wire, "MAX_BODY", 1000)
    teacher = WorkersTeacher("fake", WorkersOptions(here=False), folder=tmp_path, notice=lambda text: None)
    thread = threading.Thread(target=lambda: work_for(str(tmp_path), patience_s=5, tell=lambda text: None))
    thread.start()
    requests = [Request((Message("user", f"{i} " + "long " * 100),)) for i in range(20)]
    assert len(list(teacher.stream(source(requests)))) == 20
    teacher.close()
    thread.join(timeout=20)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "said",
    [
        {"tokens": [10**400, 1]}, {"tokens": [True, 1]}, {"scores": ["x"]}, {"scores": [10**400]},
        {"score_tokens": ["1"]}, {"raw": [1]}, {"said": [[5, 1, []]]}, {"said": [["a", 1, [[5, 1]]]]}, {"finish": []},
        {"attempts": 1 << 70},
    ],
)  # fmt: skip
def test_a_reply_that_no_ledger_could_keep_is_refused_where_it_comes_in(said: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="handed in what is no reply"):
        outcome_from_wire([1, {"reply": {"text": "a", "finish": "stop", "tokens": [1, 1]} | said}])


def test_what_is_too_much_for_a_body_goes_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("potstill.datagen.teachers.labour.MAX_BODY", 100)
    lines = [[i, {"reply": "x" * 20}] for i in range(5)]
    parts = _in_bodies(lines)
    assert [line for part in parts for line in part] == lines
    assert len(parts) > 2
    assert _in_bodies([]) == [[]]


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="openai:URL,URL#MODEL"):
        WorkersTeacher("openai:http://localhost:1/v1#m")
    for option in ("lease_s", "patience_s"):
        with pytest.raises(OptionError, match=f"{option} must be at least"):
            resolve({}, {"workers": {option: float("nan")}})
    with pytest.raises(OptionError) as caught:
        resolve({}, {"executor": "workers", "workers": {"count": 0, "listen": "8470", "lease_s": 1, "lisen": "x"}})
    text = str(caught.value)
    assert "count must be at least 1 (got 0)" in text
    assert "listen must be HOST:PORT, such as 0.0.0.0:8470 (got '8470')" in text
    assert "lease_s must be at least 5" in text
    assert "did you mean 'listen'" in text
    assert resolve({"executor": "workers"}, {"workers": {"count": 3}}).workers.count == 3
    with pytest.raises(OptionError, match="executor: workers opens engines of its own"):
        resolve({}, {"teacher": lambda messages: "x", "executor": "workers"})
    checked = {"executor": "workers", "quality": {"judge": True, "teacher": "transformers:other"}}
    checking = resolve({}, checked).checking
    assert checking is not None
    assert checking.executor == "local", "workers open the run's teacher alone"
    with pytest.raises(RunError, match=r"cannot be told the address in .* choose another folder"):
        WorkersTeacher("fake", folder=tmp_path / "nowhere", notice=print)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RunError, match=r"cannot listen on .* --set workers\.listen"):
            WorkersTeacher("fake", WorkersOptions(listen=f"127.0.0.1:{taken.getsockname()[1]}"), notice=print)
