"""Training and writing beside another program: what it costs that threads wait by looking again and again.

    python benchmarks/shared_cores.py [--rounds 3]      minutes on 2 cores
    python benchmarks/shared_cores.py --print           the table of the last results

GNU's OpenMP, which torch's CPU build computes with, lets a thread that waits look 300,000 times before it sleeps. Where
another program has a core, the waiting takes the time that the awaited thread needs. potstill lets it look 1,000 times
(`potstill/__init__.py`). Each job runs in a process of its own with all cores, once with the library's own number and
once with potstill's, alone and beside a program of another session that keeps one core busy; on an idle machine.

`train` is 30 steps of MiniLM on 180 real rows of trec, `write` is 24 rows of the embedded teacher, `write with vLLM`
100 rows of it through vLLM in the process; loading is not counted.
Writes benchmarks/results/shared_cores.json (job, beside, looks, wall_s, cpu_s: medians; slower: wall over that of the
same job alone with the library's own number).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from label_rows import real_rows, task_spec
from results_file import merge_results, print_table, read_results

_OWN, _OURS = 300_000, 1_000
_BUSY = "while True: pass"


def main() -> None:
    """Measure in turns, or be one job."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--alone", action="store_true", help="not beside a busy program")
    parser.add_argument("--job", choices=tuple(JOBS), help="run this job here and print its seconds")
    parser.add_argument("--print", action="store_true", dest="show")
    args = parser.parse_args()
    if args.job:
        print(json.dumps(JOBS[args.job]()))
        return
    if not args.show:
        merge_results(
            "shared_cores", measure(args.jobs.split(","), args.rounds, args.alone), ("job", "beside", "looks")
        )
    print_table(read_results("shared_cores"))


def measure(jobs: list[str], rounds: int, alone: bool) -> list[dict[str, Any]]:
    """Medians of each job, both ways, alone and beside a busy program."""
    found: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for job in jobs:
            for beside in ("nothing",) if alone else ("nothing", "a busy program"):
                for looks in (_OWN, _OURS):
                    seconds = beside_a_program(job, looks, busy=beside != "nothing")
                    found.setdefault((job, beside, looks), []).append(seconds)
                    print(job, beside, looks, seconds, flush=True)
    medians = {
        key: {name: statistics.median(s[name] for s in runs) for name in ("wall_s", "cpu_s")}
        for key, runs in found.items()
    }
    return [
        {
            "job": job, "beside": beside, "looks": looks, "wall_s": round(median["wall_s"], 1),
            "cpu_s": round(median["cpu_s"], 1), "rounds": rounds, "cores": os.cpu_count(),
            "slower": round(median["wall_s"] / medians[job, "nothing", _OWN]["wall_s"], 2),
        }
        for (job, beside, looks), median in medians.items()
    ]  # fmt: skip


def beside_a_program(job: str, looks: int, busy: bool) -> dict[str, float]:
    """The job in a process of its own."""
    environment = {**os.environ, "GOMP_SPINCOUNT": str(looks)}
    environment.pop("OMP_WAIT_POLICY", None)
    environment.pop("OMP_NUM_THREADS", None)
    other = subprocess.Popen([sys.executable, "-c", _BUSY], start_new_session=True) if busy else None
    try:
        command = [sys.executable, __file__, "--job", job]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    finally:
        if other is not None:
            other.kill()
            other.wait()
    return dict(json.loads(done.stdout.splitlines()[-1]))


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Wall-clock and processor seconds of a piece of work in this process."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    return {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}


def train() -> dict[str, float]:
    """Thirty steps of a classifier."""
    from potstill.datagen.merge import MergeOptions, split_rows
    from potstill.train.classify import distil_classifier
    from potstill.train.options import DistilOptions

    with tempfile.TemporaryDirectory() as folder:
        spec, _ = task_spec("trec", Path(folder))
        splits = split_rows(spec, real_rows("trec", spec, "train", 200), MergeOptions(heldout=0.0))
        options = DistilOptions(
            soft_weight=0.0, hard_weight=1.0, max_length=128, empty_classes="allow", min_steps=30, epochs=1
        )
        return timed(lambda: distil_classifier(spec, splits.train, splits.validation, Path(folder) / "out", options))


def write(backend: str = "transformers", rows: int = 24) -> dict[str, float]:
    """Rows of the embedded teacher."""
    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.datagen.generate import GenerationOptions, generate_rows
    from potstill.datagen.teachers import open_teacher
    from potstill.task import Label, TaskSpec

    labels = tuple(Label(name) for name in ("World", "Sports", "Business", "Science"))
    spec = TaskSpec("news", "Classify a news article by topic.", "classification", labels)
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        asker = Asker(open_teacher(backend), ledger)
        # A first row loads the model.
        generate_rows(spec, asker, GenerationOptions(rows=4), out=Path(folder) / "first")
        return timed(lambda: generate_rows(spec, asker, GenerationOptions(rows=rows), out=Path(folder) / "datagen"))


JOBS: dict[str, Callable[[], dict[str, float]]] = {
    "train": train, "write": write, "write with vLLM": partial(write, "vllm", 100),
}  # fmt: skip

if __name__ == "__main__":
    main()
