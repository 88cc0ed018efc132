"""The server process of `torture_runs.py`, which makes the whole runs that are killed, starved of disk or changed.

It imports everything once and forks a child for each run, so that a run costs its own work alone. The child makes the
shipped stages with the fake teacher, tiny random models as encoder and student, then exports the unit to a folder and
pushes it to a Hub on the loopback. An audit hook is the layer under the file system: it sees each opening for writing,
rename, removal and new folder below the run folder (and each fsync), and counts, kills or raises `OSError` there. What
C code writes without Python seeing it is met by `RLIMIT_FSIZE`.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


class Layer:
    """The audit hook of one child; see the module's text.

    Args:
        folder: Only paths below it count.
        job: `kill_at` (a step), `errno` and `stage` (what to raise, and below which stage's working folder), `shadow`
            (a folder for the notes of `torture_power`).
    """

    def __init__(self, folder: str, job: Mapping[str, Any]):
        self.folder, self.job, self.steps = folder, job, 0
        self.match = f"/.work/{job['stage']}-" if job.get("stage") else ""
        self._lock, self._inside = threading.Lock(), threading.local()
        self.recorder: Any = None
        if job.get("shadow"):
            from torture_power import Recorder

            self.recorder = Recorder(Path(folder), Path(job["shadow"]))
        self._fsync = os.fsync
        os.fsync = self.fsync
        sys.addaudithook(self)

    def fsync(self, descriptor: int) -> None:
        """A step like the others."""
        self.step(self.folder if not self.match else "")
        self._fsync(descriptor)
        if self.recorder:
            self._record(self.recorder.synced, descriptor)

    def _record(self, call: Callable[..., None], *arguments: Any) -> None:
        """What the recorder itself does to files is no step."""
        with self._lock:
            self._inside.yes = True
            try:
                call(*arguments)
            finally:
                self._inside.yes = False

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
        if isinstance(path, str) and path.startswith(self.folder) and not getattr(self._inside, "yes", False):
            self.step(path)

    def step(self, path: str) -> None:
        """Count; then kill, raise, or nothing."""
        self.steps += 1
        if self.recorder:
            self._record(self.recorder.note)
        if self.steps == self.job.get("kill_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.match and self.match in path:
            raise OSError(self.job["errno"], os.strerror(self.job["errno"]), path)


def _child(job: dict[str, Any]) -> int:
    import potstill
    from potstill.errors import PotstillError
    from potstill.hub.export import build_unit

    folder = Path(job["folder"])
    told: dict[str, Any] = {"made": []}
    try:
        with open(job["log"], "ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        _change_teacher(Path(job["asked"]), job)
        layer = Layer(str(folder), job)
        if job.get("fsize"):
            _bound_files(job["fsize"])

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
    if job.get("fsize"):
        _bound_files(resource.RLIM_INFINITY)
    Path(job["told"]).write_text(json.dumps(told))
    return code


def _bound_files(size: int) -> None:
    """No file of this process grows beyond `size` bytes: `EFBIG` (Python ignores the signal)."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def _change_teacher(asked: Path, job: Mapping[str, Any]) -> None:
    """Note each request that the fake teacher answers; another identity, templates or versions where asked for."""
    from potstill.asking.ledger import request_key
    from potstill.asking.teacher_json import request_to_json
    from potstill.datagen.teachers import fake
    from potstill.stages import job as stages

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
    if job.get("clock"):
        draw, now = random.Random(job["clock"]), time.time
        time.time = lambda: now() + draw.uniform(-1e9, 1e9)
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

    import potstill.hub.export
    import potstill.pipeline
    import potstill.report.page
    import potstill.report.plots
    import potstill.retrieval.retrieve
    import potstill.stages.evaluation
    import potstill.stages.job
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
