"""A training on several devices: the job is written to a folder, and `accelerate launch` runs this module on it.

    potstill run … --set distil.processes=4                  DDP on four GPUs of this machine (or CPU processes)
    potstill run … --set distil.processes=4 --set distil.sharding=fsdp
    accelerate launch --config_file mine.yaml -m potstill.train.launch JOB

The first two write the job, start the processes and pass on their events; the last is for clusters, with a copy of
the job folder that such a run leaves at RUN/train/job, and writes the student beside it. Every process reads the
whole job; the trainers split the batches, and the first process saves the student. The loss is that of one process
with as many rows a step (`loop.scaled_loss`).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import TrainingError, UserError
from potstill.events import Event, Listener, silent
from potstill.options import as_json, build_options
from potstill.rows import read_rows, write_rows
from potstill.task import TaskSpec
from potstill.train.options import DistilOptions
from potstill.train.result import DistilResult
from potstill.train.score_relay import answering, relayed_scores

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.token_scores import TokenScores

_FSDP = {
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
_TABLES = ("train", "validation", "targets")
# Seconds that a process may take to end after its last word.
_END_S = 60.0
_EVENT, _FAULT = "potstill-event ", "potstill-fault "


def write_job(
    folder: Path,
    spec: TaskSpec,
    train: Dataset,
    validation: Dataset | None,
    targets: Dataset | None,
    out: Path,
    options: DistilOptions,
) -> Path:
    """Write everything that a training needs into `folder`, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in zip(_TABLES, (train, validation, targets), strict=True):
        (folder / f"{name}.parquet").unlink(missing_ok=True)
        if table is not None and len(table):
            write_rows(table, folder / f"{name}.parquet")
    job = {"spec": spec.to_json(), "out": os.path.relpath(out, folder), "options": as_json(options)}
    (folder / "job.json").write_text(json.dumps(job, ensure_ascii=False) + "\n", "utf-8")
    return folder


def launch(
    folder: Path, options: DistilOptions, *, scores: TokenScores | None = None, listener: Listener = silent,
    port: int = 0,
) -> DistilResult:  # fmt: skip
    """Run a written job in `options.processes` processes of this machine.

    Args:
        folder: What `write_job` wrote.
        options: The same options; `processes` and `sharding` decide the launch.
        scores: Who is asked in on-policy training, by this process for all of them.
        listener: Progress, from the first process.
        port: Where the processes meet on the loopback; 0 takes a free one.

    Raises:
        UserError: Sharding without GPUs.
        TrainingError: A process failed; the message is the first one's own, or the end of its output.
        BudgetReached, TeacherError: From `scores`.
    """
    import torch

    if options.sharding == "fsdp" and not torch.cuda.is_available():
        raise UserError("distil.sharding=fsdp needs GPUs (accelerate shards on no CPU); leave it out for ddp")
    (folder / "result.json").unlink(missing_ok=True)
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    if not torch.cuda.is_available():
        environment["ACCELERATE_USE_CPU"] = "true"
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.processes)))
    with answering(scores) as relay:
        fault, code, tail = _followed(
            command(folder, options, port or _free_port()),
            environment | ({} if relay is None else relay.environment), listener,
        )  # fmt: skip
    if relay is not None and relay.fault is not None:
        raise relay.fault
    if fault:
        raise TrainingError(fault)
    if code or not (folder / "result.json").exists():
        raise TrainingError(f"a training process ended with code {code}:\n" + "\n".join(tail))
    value = json.loads((folder / "result.json").read_text("utf-8"))
    return DistilResult(Path(value["path"]), value["history"], value["report"])


def _followed(words: list[str], environment: dict[str, str], listener: Listener) -> tuple[str, int, deque[str]]:
    """Run the processes to their end: the first one's own fault, the code, and the end of what was printed."""
    process = subprocess.Popen(
        words, env=environment, text=True, encoding="utf-8", errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    tail: deque[str] = deque(maxlen=40)
    fault = ""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith(_EVENT):
                listener(Event(**json.loads(line.removeprefix(_EVENT))))
            elif line.startswith(_FAULT):
                fault = fault or json.loads(line.removeprefix(_FAULT))
            else:
                tail.append(line.rstrip())
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs as it ends
            process.wait(_END_S)
    finally:
        process.terminate()
        code = process.wait()
        process.stdout.close()
    return fault, code, tail


def command(folder: Path, options: DistilOptions, port: int) -> list[str]:
    """What starts the processes: `accelerate launch`, or torchrun on CPUs, for which it starts one process only."""
    import torch

    module = ["-m", "potstill.train.launch", str(folder)]
    count = str(options.processes)
    if not torch.cuda.is_available():
        place = ["--master-addr", "127.0.0.1", "--master-port", str(port)]
        return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", count, *place, *module]
    found = [
        sys.executable, "-m", "accelerate.commands.launch", "--num_processes", count, "--num_machines", "1",
        "--machine_rank", "0", "--main_process_ip", "127.0.0.1", "--main_process_port", str(port),
        "--mixed_precision", "no", "--dynamo_backend", "no",
    ]  # fmt: skip
    if options.sharding == "fsdp":
        flags = ((name.lower().replace("fsdp_", "--fsdp_"), value) for name, value in _FSDP.items())
        return [*found, "--use_fsdp", *(word for pair in flags for word in pair), *module]
    return [*found, *(["--multi_gpu"] if options.processes > 1 else []), *module]


def _free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def main(folder: Path) -> None:
    """Train a job in this process, one of those that `accelerate launch` started."""
    job = json.loads((folder / "job.json").read_text("utf-8"))
    spec, out = TaskSpec.from_json(job["spec"]), Path(os.path.normpath(folder / job["out"]))
    options = build_options(DistilOptions, {**job["options"], "processes": 1}, "distil")
    tables = {
        name: read_rows(path) if (path := folder / f"{name}.parquet").exists() else None for name in _TABLES
    }  # fmt: skip
    first = int(os.environ.get("RANK", "0")) == 0
    listener: Listener = _tell if first else silent
    train: Any = tables["train"]
    if spec.kind == "classification":
        from potstill.train.recipe import train_classifier

        result = train_classifier(spec, train, tables["validation"], out, options, listener=listener)
    else:
        from potstill.train.recipe import train_generator

        result = train_generator(
            spec, train, tables["validation"], tables["targets"], out, options, scores=relayed_scores(),
            listener=listener,
        )  # fmt: skip
    if first:
        value = {"path": str(result.path), "history": result.history, "report": result.report}
        (folder / "result.json").write_text(json.dumps(value), "utf-8")


def _tell(event: Event) -> None:
    print(_EVENT + json.dumps(asdict(event)), flush=True)


if __name__ == "__main__":
    from potstill.errors import PotstillError

    try:
        main(Path(sys.argv[1]))
    except PotstillError as error:
        print(_FAULT + json.dumps(str(error)), flush=True)
        sys.exit(error.exit_code)
