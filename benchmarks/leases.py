"""What a leased request costs beside one that is answered in the run's process: processor time and wall clock.

    python benchmarks/leases.py [--requests 2000] [--rounds 5]

Three ways, in turns, with the fake teacher (no delay, texts of about 40 tokens): `in process`, `leased here` (the run's
own process is the worker, without sockets) and `leased over HTTP` (one `potstill work` on the loopback, the run's
process only leases). The worker is up before the clock starts. Each way is asked by the teacher's stream alone and
through a ledger on disk, which commits in fewer and larger groups where replies come several at a time. Processor time
is that of both processes; of the difference to `in process` in the same round the median is told, with the least and
the most.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from results_file import print_table, write_results

WAYS = ("in process", "leased here", "leased over HTTP")


@contextmanager
def opened(way: str, folder: Path) -> Iterator[tuple[Any, psutil.Process | None]]:
    """A teacher, and the process of its worker where it has one."""
    from potstill.datagen.teachers import open_teacher
    from potstill.datagen.teachers.workers import WorkersOptions, WorkersTeacher

    if way == WAYS[0]:
        yield open_teacher("fake"), None
        return
    here = way == WAYS[1]
    teacher = WorkersTeacher("fake", WorkersOptions(here=here), folder=folder, notice=lambda text: None)
    if here:
        try:
            yield teacher, None
        finally:
            teacher.close()
        return
    command = [sys.executable, "-P", "-m", "potstill", "work", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not teacher.workers():
            assert process.poll() is None, "the worker ended"
            time.sleep(0.05)
        yield teacher, psutil.Process(process.pid)
    finally:
        teacher.close()
        process.wait(timeout=60)


def used(process: psutil.Process | None) -> float:
    """Processor time of this process and of a worker's, seconds."""
    times = process.cpu_times() if process is not None else None
    return time.process_time() + (times.user + times.system if times is not None else 0.0)


def measured(way: str, requests: int, round: int, kept: bool) -> dict[str, float]:
    """Milliseconds a request."""
    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.asking.teacher import Message, Request

    asked = [Request((Message("user", f"Write about {round}, {i}."),), seed=i) for i in range(requests)]
    with tempfile.TemporaryDirectory() as name, Ledger(Path(name) / "ledger.sqlite") as ledger:
        with opened(way, Path(name)) as (teacher, process):
            asker = Asker(teacher, ledger)

            def ask(some: list[Request]) -> None:
                if kept:
                    asker.ask(some, "bench")
                    return
                source = iter(some)
                count = sum(1 for _ in teacher.stream(lambda room: list(itertools.islice(source, room))))
                assert count == len(some)

            ask(asked[: requests // 10])
            before, began = used(process), time.perf_counter()
            ask(asked[requests // 10 :])
            wall, cpu = time.perf_counter() - began, used(process) - before
    count = requests - requests // 10
    return {"cpu": 1e3 * cpu / count, "wall": 1e3 * wall / count}


def main() -> None:
    """Measure and write `results/leases.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    found: dict[tuple[bool, str], list[dict[str, float]]] = {(kept, way): [] for kept in (False, True) for way in WAYS}
    for round in range(given.rounds):
        for kept in (False, True):
            for way in WAYS[round % 3 :] + WAYS[: round % 3]:
                found[kept, way].append(measured(way, given.requests, round, kept))
    records = []
    for (kept, way), each in found.items():
        through = "ledger" if kept else "stream alone"
        record: dict[str, Any] = {"way": way, "through": through, "requests": given.requests, "rounds": given.rounds}
        for kind in ("cpu", "wall"):
            record[f"{kind}_ms"] = round_of(statistics.median(one[kind] for one in each))
            more = [one[kind] - base[kind] for one, base in zip(each, found[kept, WAYS[0]])]
            record[f"more_{kind}_ms"] = round_of(statistics.median(more))
            record[f"more_{kind}_ms_range"] = [round_of(min(more)), round_of(max(more))]
        records.append(record)
    print_table(records)
    write_results("leases", records)


def round_of(value: float) -> float:
    """Three places."""
    return round(value, 3)


if __name__ == "__main__":
    main()
