"""Whole runs that are killed, starved of disk, or changed by one input: the part of `torture.py` that runs potstill.

A server process imports everything once and forks a child for each run, so that a run costs its own work alone. The
child makes the shipped stages with the fake teacher, tiny random models as encoder and student, then exports the unit
to a folder and pushes it to a Hub on the loopback. An audit hook is the layer under the file system: it sees each
opening for writing, rename, removal and new folder below the run folder (and each fsync), and counts, kills or raises
`OSError` there. What C code writes without Python seeing it is met by `RLIMIT_FSIZE`.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("task", "retrieval", "datagen", "merge", "soft", "train", "evaluate")
REPO = "me/torture"
SETTINGS: dict[str, Any] = {
    "teacher": "fake",
    "n": 36,
    "distil": {"epochs": 1, "min_steps": 6, "batch_size": 8, "checkpoint_steps": 2},
    "evaluate": {"rows": 12, "latency_rows": 2},
    "retrieval": {"rows_per_dataset": 12, "datasets": 2, "min_score": -1.0},
}
_TASK = """---
name: torture
labels: {refund: wants money back, delivery: asks where an order is, account: cannot log in}
languages: [en]
test: {path: test.jsonl, inputs: [text], output: label}
---
Sort messages to a shop by what the customer wants.
"""
_TEST = (
    ("Please send my money back for the broken lamp.", "refund"),
    ("Where is the parcel that I ordered last week?", "delivery"),
    ("The page says that my password is wrong.", "account"),
)
_WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


# ---- the child ------------------------------------------------------------------------------------------------------


class Layer:
    """The audit hook of one child; see the module's text.

    Args:
        folder: Only paths below it count.
        job: `kill_at` (a step), `errno` and `stage` (what to raise, and below which stage's working folder).
    """

    def __init__(self, folder: str, job: Mapping[str, Any]):
        self.folder, self.job, self.steps = folder, job, 0
        self.match = f"/.work/{job['stage']}-" if job.get("stage") else ""
        self._fsync = os.fsync
        os.fsync = self.fsync
        sys.addaudithook(self)

    def fsync(self, descriptor: int) -> None:
        """A step like the others."""
        self.step(self.folder if not self.match else "")
        self._fsync(descriptor)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in _WRITES:
            path = arguments[0]
        else:
            return
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if isinstance(path, str) and path.startswith(self.folder):
            self.step(path)

    def step(self, path: str) -> None:
        """Count; then kill, raise, or nothing."""
        self.steps += 1
        if self.steps == self.job.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.match and self.match in path:
            raise OSError(self.job["errno"], os.strerror(self.job["errno"]), path)


def _child(job: dict[str, Any]) -> int:
    import potstill
    from potstill.errors import PotstillError
    from potstill.export import build_unit

    folder = Path(job["folder"])
    told: dict[str, Any] = {"made": []}
    try:
        with open(job["log"], "ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        _change_teacher(Path(job["asked"]), job)
        layer = Layer(str(folder), job)
        if job.get("fsize"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["fsize"], job["fsize"]))

        def note(event: Any) -> None:
            if event.kind == "done":
                told["made"].append(event.stage)

        potstill.run(job["task"], out=folder, listener=note, **job["settings"])
        unit = folder.with_name(folder.name + "-unit")
        if job.get("export", True):
            build_unit(folder, unit)
        if job.get("push"):
            potstill.load(folder).push(job["push"])
        told["steps"] = layer.steps
        code = 0
    except PotstillError as error:
        told["error"] = f"{type(error).__name__}: {error}"
        code = error.exit_code
    except BaseException:
        told["traceback"] = traceback.format_exc()
        code = 70
    if not job.get("fsize"):
        Path(job["told"]).write_text(json.dumps(told))
    else:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        )
        with open(job["told"], "w") as file:  # shorter than the smallest limit
            file.write(json.dumps({key: str(value)[-700:] for key, value in told.items()}))
    return code


def _change_teacher(asked: Path, job: Mapping[str, Any]) -> None:
    """Note each request that the fake teacher answers; another identity, templates or versions where asked for."""
    from potstill import stages
    from potstill.datagen.teachers import fake
    from potstill.ledger import request_key
    from potstill.teacher_json import request_to_json

    answer, identity = fake.FakeTeacher.answer, fake.FakeTeacher.identity.fget
    assert identity is not None

    def noting(self: Any, request: Any) -> Any:
        key = request_key(self.identity, request_to_json(request))
        with asked.open("a") as file:
            file.write(f"{key} {getattr(request, 'max_tokens', 0)}\n")
        time.sleep(job.get("delay_s", 0.0))
        return answer(self, request)

    fake.FakeTeacher.answer = noting  # type: ignore[method-assign]
    if job.get("identity"):
        fake.FakeTeacher.identity = property(lambda self: {**identity(self), **job["identity"]})  # type: ignore
    if job.get("version"):
        name, number = job["version"]
        known = stages.version
        stages.version = lambda library: number if library == name else known(library)
    if job.get("template"):
        from potstill import prompts

        load = prompts.load
        name, text = job["template"]

        def changed(wanted: str) -> Any:
            found = load(wanted)
            if wanted != name:
                return found
            return type(found)(found.name, found.source + text)

        prompts.load = changed  # type: ignore[assignment]


def serve(model: str) -> None:
    """Import everything, write the tiny model, then fork a child for each line of stdin."""
    import datasets  # noqa: F401
    import faiss  # noqa: F401
    import huggingface_hub  # noqa: F401
    import sentence_transformers  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import potstill.evaluation
    import potstill.export
    import potstill.pipeline
    import potstill.report
    import potstill.report_plots
    import potstill.retrieval.retrieve
    import potstill.stages
    import potstill.train.recipe  # noqa: F401

    torch.set_num_threads(1)
    tiny(model)
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=told, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(_child(job))
        started = time.monotonic()
        status = None
        while status is None:
            gone, found = os.waitpid(pid, os.WNOHANG)
            if gone:
                status = os.waitstatus_to_exitcode(found)
            elif time.monotonic() - started > job.get("kill_after", 600.0):
                os.kill(pid, signal.SIGKILL)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            else:
                time.sleep(0.005)
        answer = {"status": status, "seconds": time.monotonic() - started}
        print(json.dumps(answer), file=told, flush=True)


# ---- the side that judges -------------------------------------------------------------------------------------------


@dataclass
class Runs:
    """A server with its folder.

    Attributes:
        place: Where runs, task and models are.
        seconds: Of the undisturbed run.
        steps: File-system steps of the undisturbed run.
    """

    place: Path
    process: subprocess.Popen[str]
    seconds: float = 0.0
    steps: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def calm(self) -> Path:
        """The undisturbed run."""
        return self.place / "calm"

    def run(self, folder: Path, **job: Any) -> dict[str, Any]:
        """One child; its status, seconds, and what it told (nothing when it was killed)."""
        told = folder.with_name(folder.name + ".told")
        told.unlink(missing_ok=True)
        tiny = str(self.place / "tiny")
        settings = {**SETTINGS, "encoder": tiny, "distil": {**SETTINGS["distil"], "student": tiny}}
        for name, value in job.pop("change", {}).items():
            settings[name] = {**settings[name], **value} if isinstance(settings.get(name), dict) else value
        whole = {
            "folder": str(folder), "task": str(self.place / "task.md"), "settings": settings, "told": str(told),
            "asked": str(folder.with_name(folder.name + ".asked")), "log": str(self.place / "log.txt"), **job,
        }  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(whole) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return {**answer, **(json.loads(told.read_text()) if told.exists() else {})}

    def asked_in(self, folder: Path) -> list[str]:
        """Requests that the teacher answered in a folder, in order."""
        path = folder.with_name(folder.name + ".asked")
        return path.read_text().split("\n")[:-1] if path.exists() else []


@contextmanager
def running(place: Path, environment: Mapping[str, str] | None = None) -> Iterator[Runs]:
    """The server, with an undisturbed run made."""
    (place / "task.md").write_text(_TASK)
    (place / "test.jsonl").write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in _TEST * 4))
    variables = {
        **os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "POTSTILL_CACHE": str(place / "cache"),
        "HF_HUB_OFFLINE": "1", **(environment or {}),
    }  # fmt: skip
    command = [sys.executable, __file__, str(place / "tiny")]
    with (place / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=variables, cwd=place
        )
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise SystemExit(f"the runs do not start: {(place / 'log.txt').read_text()[-2000:]}")
            yield Runs(place, process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


def make_calm(runs: Runs, push: bool) -> None:
    """The undisturbed run, to compare with."""
    done = runs.run(runs.calm, push=REPO if push else None, delay_s=0.002)
    if done["status"] != 0:
        raise SystemExit(f"the undisturbed run fails: {done}")
    runs.seconds, runs.steps, runs.asked = done["seconds"], done["steps"], runs.asked_in(runs.calm)


def known(folder: Path) -> set[str]:
    """Requests whose reply is in the ledger: key and bound."""
    import sqlite3

    path = folder / "ledger.sqlite"
    if not path.exists():
        return set()
    connection = sqlite3.connect(path)
    try:
        return {f"{key} {bound}" for key, bound in connection.execute("SELECT key, max_tokens FROM replies")}
    except sqlite3.OperationalError:  # killed before the tables were made
        return set()
    finally:
        connection.close()


def unequal(runs: Runs, folder: Path) -> list[str]:
    """Files that must be byte for byte those of the undisturbed run, and are not."""
    names = [
        path.relative_to(runs.calm)
        for stage in ("task", "retrieval", "datagen", "merge", "soft")
        for path in sorted((runs.calm / stage).rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "report.json")
    ]
    names.append(Path("train/student/model.safetensors"))
    return [
        str(name)
        for name in names
        if not (folder / name).exists() or (folder / name).read_bytes() != (runs.calm / name).read_bytes()
    ]


def crash(runs: Runs, kills: int, seed: int, push: bool) -> list[dict[str, Any]]:
    """SIGKILL at random moments, and at random file-system steps, of whole runs with export and push."""
    from potstill.verify import verify_run

    records = []
    for what in ("at a moment", "at a file-system step"):
        draw = random.Random(f"{seed} {what}")
        want = kills // 2 if what != "at a moment" else kills - kills // 2
        done = number = repeated = again = faults = bad = 0
        differ: list[str] = []
        while done < want:
            folder = runs.place / f"crash-{what.split()[-1]}-{number}"
            number += 1
            killed = 0
            while True:
                stored, before = known(folder), len(runs.asked_in(folder))
                job: dict[str, Any] = {"push": REPO if push else None, "delay_s": 0.002}
                if killed < 5 and done < want:
                    if what == "at a moment":
                        job["kill_after"] = draw.uniform(0.0, runs.seconds)
                    else:
                        job["kill_at"] = draw.randint(1, runs.steps)
                result = runs.run(folder, **job)
                repeated += sum(line in stored for line in runs.asked_in(folder)[before:])
                if result["status"] == -signal.SIGKILL:
                    killed, done = killed + 1, done + 1
                    continue
                if result["status"] != 0:
                    bad += 1
                    print(f"run {folder.name} ended with {result}", file=sys.stderr)
                    break
                break
            lines = runs.asked_in(folder)
            again += len(lines) - len(set(lines))
            if folder.exists():
                found = verify_run(folder)
                faults += len(found.faults)
                differ += unequal(runs, folder)
                if not differ:
                    shutil.rmtree(folder)
        records.append(
            {
                "suite": "crash", "what": f"SIGKILL {what}, whole runs with export{' and push' if push else ''}",
                "count": done, "bad": bad + repeated + faults + len(differ), "runs": number,
                "answered_requests_repeated": repeated, "in_flight_asked_again": again - repeated,
                "unequal_files": len(differ), "faults_of_verify": faults, "runs_that_failed": bad,
                "which": sorted(set(differ))[:5] or None,
            }
        )  # fmt: skip
    return records


def disk(runs: Runs, stages: tuple[str, ...] = STAGES) -> list[dict[str, Any]]:
    """A full disk and a read-only one under each stage, and files that may not grow beyond a bound."""
    from potstill.verify import verify_run

    records = []
    cases: list[tuple[str, dict[str, Any]]] = []
    for stage in stages:
        cases.append((f"disk full in {stage}", {"stage": stage, "errno": errno.ENOSPC}))
        cases.append((f"read-only disk in {stage}", {"stage": stage, "errno": errno.EROFS}))
    cases += [
        (f"files stop growing at {size} bytes", {"fsize": size})
        for size in ((12_000, 120_000) if stages != STAGES else (3000, 12_000, 40_000, 120_000))
    ]
    for kind in ("disk full", "read-only disk", "files stop growing"):
        bad: list[str] = []
        count = stopped = 0
        for what, job in cases:
            if not what.startswith(kind):
                continue
            count += 1
            folder = runs.place / what.replace(" ", "-")
            broken = runs.run(folder, export=False, **job)
            clean = broken["status"] in (2, 4, 5) and "error" in broken
            stopped += clean
            if not clean:
                bad.append(f"{what}: {broken.get('traceback', broken)!s:.600}")
            if folder.exists() and (folder / "task").exists() and any(
                "stale" not in fault.what and "damaged" not in fault.what for fault in verify_run(folder).faults
            ):  # fmt: skip
                bad.append(f"{what}: a half-written stage was published")
            after = runs.run(folder, export=False)
            if after["status"] != 0:
                bad.append(f"{what}: the next run fails: {after!s:.300}")
            elif differ := unequal(runs, folder):
                bad.append(f"{what}: unequal {differ[:3]}")
            shutil.rmtree(folder, ignore_errors=True)
        for line in bad:
            print(line, file=sys.stderr)
        records.append(
            {
                "suite": "disk", "what": kind, "count": count, "bad": len(bad), "ended_with_one_error": stopped,
                "which": bad[:3] or None,
            }
        )  # fmt: skip
    return records


def caches(runs: Runs) -> list[dict[str, Any]]:
    """Change one input of a finished run: which stages are made again, and which should be."""
    after = {name: set(STAGES[STAGES.index(name) :]) for name in STAGES}
    every = after["retrieval"]
    test = runs.place / "test.jsonl"
    task = runs.place / "task.md"
    cases: list[tuple[str, dict[str, Any], set[str], set[str]]] = [
        ("nothing", {}, set(), set()),
        ("a place for the model's name", {"identity": {"model": "other"}}, every, set()),
        ("base_url", {"identity": {"endpoint": "http://other"}}, every, set()),
        ("text of a template", {"template": ["write_for_label", "\nBe brief."]}, every, set()),
        ("seed", {"change": {"seed": 1}}, every, set()),
        ("generation.temperature", {"change": {"generation": {"temperature": 0.9}}}, after["datagen"], set()),
        ("generation.top_p", {"change": {"generation": {"top_p": 0.9}}}, after["datagen"], set()),
        ("merge.test_near", {"change": {"merge": {"test_near": 0.7}}}, {"merge"}, after["soft"]),
        ("soft.temperature", {"change": {"soft": _soft_change()}}, {"soft"}, {"train", "evaluate"}),
        ("distil.temperature", {"change": {"distil": {"temperature": 3.0}}}, {"train", "evaluate"}, set()),
        ("evaluate.rows", {"change": {"evaluate": {"rows": 10}}}, {"evaluate"}, set()),
        ("version of torch", {"version": ["torch", "0.0.1"]}, set(STAGES), set()),
        ("a row of the test file", {"file": (test, test.read_text() + '{"text": "Hi", "label": "account"}\n')},
         {"merge", "evaluate"}, {"soft", "train"}),
        ("a label's description", {"file": (task, _TASK.replace("cannot log in", "is locked"))}, set(STAGES), set()),
    ]  # fmt: skip
    wrong: list[str] = []
    for what, job, must, may in cases:
        folder = runs.place / "changed"
        shutil.copytree(runs.calm, folder)
        file, text = job.pop("file", (None, ""))
        old = file.read_text() if file else ""
        if file:
            file.write_text(text)
        result = runs.run(folder, export=False, **job)
        if file:
            file.write_text(old)
        made = set(result.get("made", ()))
        # A stage whose output came out the same leaves those below it in place.
        if result["status"] != 0 or not must <= made <= must | may:
            wrong.append(f"{what}: made {sorted(made)}, wanted {sorted(must)} {result!s:.300}")
        shutil.rmtree(folder)
    for line in wrong:
        print(line, file=sys.stderr)
    return [
        {"suite": "caches", "what": "one input changed: exactly the stages that depend on it are made again",
         "count": len(cases), "bad": len(wrong), "which": wrong[:3] or None}
    ]  # fmt: skip


def _soft_change() -> dict[str, Any]:
    from dataclasses import fields

    from potstill.datagen.soft import SoftOptions

    for option in fields(SoftOptions):
        if option.name == "temperature":
            return {"temperature": 2.0}
    number = next(o for o in fields(SoftOptions) if isinstance(o.default, float) and 0 < o.default < 1)
    return {number.name: number.default * 0.9}


def tiny(folder: str) -> None:
    """Write a BERT of two layers with random weights, for encoder and student."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from potstill.datagen.teachers.fake import _TOPIC_WORDS

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "a", "and", "with", ".", *_TOPIC_WORDS]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(names), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=256,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=256,
    ).save_pretrained(folder)  # fmt: skip


if __name__ == "__main__":
    serve(sys.argv[1])
