"""Generation in workers of a real Ray cluster on this machine: same rows, and nothing lost or doubled by a death."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import AnyRequest, Message, Reply, Request, Teacher
from potstill.datagen.generate import GenerationOptions, generate_rows
from potstill.datagen.teachers.fake import FakeOptions, FakeTeacher
from potstill.datagen.teachers.ray_cluster import RayOptions, RayTeacher
from potstill.errors import OptionError, TeacherUnavailable, UserError
from potstill.events import Event
from potstill.settings import resolve
from potstill.task import Label, TaskSpec

NEWS = TaskSpec("news", "Classify a news article.", "classification", tuple(Label(n) for n in ("World", "Sports")))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One cluster for all: starting it takes most of the time."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    first = RayTeacher("fake", RayOptions(workers=1, cpus=0.1))
    list(first.stream(source([Request((Message("user", "start"),))])))
    yield
    first.close()
    assert not ray.is_initialized()


def source(requests: Sequence[AnyRequest]) -> Callable[[int], list[AnyRequest]]:
    left = iter(requests)
    return lambda room: [request for _, request in zip(range(room), left)]


def generated(teacher: Teacher, folder: Path, rows: int, **more: Any) -> tuple[bytes, bytes, Any]:
    """Rows and drops as bytes, and the ledger's totals."""
    with Ledger(folder / "ledger.sqlite") as ledger:
        options = GenerationOptions(rows=rows, window=64)
        generate_rows(NEWS, Asker(teacher, ledger), options, out=folder / "out", **more)
        totals = ledger.totals()
        assert len({entry.key for entry in ledger.entries()}) == totals.replies
    return (folder / "out" / "rows.parquet").read_bytes(), (folder / "out" / "dropped.jsonl").read_bytes(), totals


def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(cluster: None, tmp_path: Path) -> None:
    notices: list[str] = []
    options = {"delay_s": 0.002, "concurrency": 8}
    teacher = RayTeacher("fake", RayOptions(workers=2, cpus=0.1), notice=notices.append, **options)
    killed: list[int] = []

    def kill_one(event: Event) -> None:
        if event.stage == "datagen" and event.done > 60 and not killed:
            killed.append(teacher.pids[0])
            os.kill(killed[0], signal.SIGKILL)

    rows, drops, totals = generated(teacher, tmp_path / "ray", 600, listener=kill_one)
    alone_rows, alone_drops, alone = generated(FakeTeacher(FakeOptions(concurrency=8)), tmp_path / "alone", 600)
    assert len(killed) == 1
    assert teacher.deaths == 1
    assert f"process {killed[0]}" in notices[0]
    assert "another is started" in notices[0]
    # No request was made twice, none is missing: the two runs asked for the same and keep the same, to the byte.
    assert (rows, drops) == (alone_rows, alone_drops)
    # What is planned beyond the last row is sent or not, as the teacher had room.
    assert abs(totals.replies - alone.replies) <= 5
    assert totals.failures == 0
    # A second run asks the cluster for nothing.
    again = generated(teacher, tmp_path / "ray", 600)
    assert again[2] == totals
    teacher_close(teacher)


def test_a_stream_that_is_left_early_leaves_nothing_behind(cluster: None) -> None:
    teacher = RayTeacher("fake", RayOptions(workers=2, cpus=0.1), delay_s=0.002, concurrency=8)
    requests: list[AnyRequest] = [Request((Message("user", f"say {i}"),), seed=i) for i in range(60)]
    for _ in range(3):
        stream = teacher.stream(source(requests))
        for _ in range(5):
            next(stream)
        stream.close()  # type: ignore[attr-defined]
    found = list(teacher.stream(source(requests)))
    assert sorted(id(request) for request, _ in found) == sorted(id(request) for request in requests)
    fake = FakeTeacher(FakeOptions())
    assert all(reply == fake.answer(request) for request, reply in found)
    teacher_close(teacher)


def test_all_workers_dead(cluster: None) -> None:
    teacher = RayTeacher("fake", RayOptions(workers=1, cpus=0.1, restarts=0), delay_s=0.01)
    stream = teacher.stream(source([Request((Message("user", f"say {i}"),)) for i in range(50)]))
    next(stream)
    os.kill(teacher.pids[0], signal.SIGKILL)
    with pytest.raises(TeacherUnavailable, match="all 1 Ray workers died"):
        list(stream)


@pytest.mark.slow
def test_a_teacher_that_no_worker_can_open(cluster: None, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    teacher = RayTeacher(f"transformers:{tmp_path / 'model'}", RayOptions(workers=1, cpus=0.1))
    with pytest.raises(UserError, match="model"):
        list(teacher.stream(source([Request((Message("user", "hello"),))])))
    teacher_close(teacher)


def test_nothing_to_ask_starts_no_cluster(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    teacher = RayTeacher("fake", RayOptions(workers=2))
    assert list(teacher.stream(lambda room: [])) == []
    assert teacher.pids == ()
    assert teacher.identity == FakeTeacher(FakeOptions()).identity
    teacher.close()


def test_what_is_refused() -> None:
    with pytest.raises(OptionError, match="openai:URL,URL#MODEL"):
        RayTeacher("openai:http://localhost:1/v1#m")
    with pytest.raises(OptionError) as caught:
        resolve({}, {"executor": "spark", "ray": {"workers": -1, "works": 2}})
    assert "'spark' is none of local, workers, ray" in str(caught.value)
    assert "workers must be at least 0 (got -1" in str(caught.value)
    assert "did you mean 'workers'" in str(caught.value)
    assert resolve({"executor": "ray"}, {"ray": {"workers": 3}}).ray.workers == 3


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(900)
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_real_vllm_in_two_workers_one_of_them_killed(cluster: None, tmp_path: Path) -> None:
    options = {"enforce_eager": True, "max_model_len": 512, "kv_cache_gib": 1.0, "concurrency": 8}
    teacher = RayTeacher("vllm", RayOptions(workers=2, cpus=0.5, restarts=1), **options)
    requests = [Request((Message("user", f"Write a line about {i}."),), max_tokens=24, seed=i) for i in range(200)]
    killed: list[int] = []
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = Asker(teacher, ledger)
        answers = []
        left = iter(requests)

        def take(room: int) -> list[AnyRequest]:
            # More is held back until both engines are up, so that both have work when one dies.
            count = room if len(teacher.pids) == 2 or killed else min(room, 1)
            return [request for _, request in zip(range(count), left)]

        for answer in asker.stream(take, "test"):
            answers.append(answer)
            if len(teacher.pids) == 2 and not killed:
                killed.append(teacher.pids[0])
                os.kill(killed[0], signal.SIGKILL)
        assert len(killed) == 1
        assert teacher.deaths == 1
        assert sorted(id(answer.request) for answer in answers) == sorted(id(request) for request in requests)
        assert all(isinstance(answer.reply, Reply) and answer.reply.text for answer in answers)
        assert (ledger.totals().replies, ledger.totals().failures) == (200, 0)
        fresh = asker.counts.fresh
        assert [answer.cached for answer in asker.ask(requests, "test")] == [True] * 200
        assert asker.counts.fresh == fresh == 200
    teacher_close(teacher)


def teacher_close(teacher: RayTeacher) -> None:
    """End its workers; the cluster belongs to the fixture."""
    teacher.close()
