"""Whether a run would work here, found out before it is started: one check a line, each failure with its mend.

What enters: a task (or none) and the settings of a run. What leaves: `Check`s. Nothing is kept: the teacher is asked
two or three short questions through a ledger of its own in a temporary folder, and no stage runs.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.doctor_check import Check, Status, failed
from potstill.doctor_teacher import Asked, teacher_checks
from potstill.errors import PotstillError
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from potstill.settings import Settings

_GIB = 2**30
_LEAST_DISK_GIB, _ENOUGH_DISK_GIB = 0.5, 5.0
_ENOUGH_MEMORY_GIB = 3.0  # what the shipped example takes at its peak, embedded teacher included
_RULED = 1000  # texts that rules are tried on


def examine(task: str | None = None, *, out: str | Path | None = None, **settings: Any) -> Iterator[Check]:
    """Look at everything that a run with these settings needs, the quick things first.

    Args:
        task: A prompt or task file; None checks the machine and the teacher alone.
        out: Run folder.
        **settings: As for `potstill.run`.

    Yields:
        Checks, as soon as each is known.
    """
    from potstill.settings import file_check, resolve
    from potstill.stages.start import foreign_languages, lacking_rows
    from potstill.task.file import read_task_file
    from potstill.user_data import OWN_ROWS, unsaid_fields

    yield _python()
    spec: TaskSpec | None = None
    from_file: dict[str, Any] = {}
    if task is not None:
        try:
            found = read_task_file(task, draft=True, own_rows=OWN_ROWS, check=file_check(settings))
            spec, from_file = found.spec, {**found.settings, **found.options}
            labels = f", labels {', '.join(spec.label_names[:6])}" if spec.labels else ""
            unnamed = spec.kind == "classification" and not spec.labels
            mend = "name the labels in the prompt or under labels: in the task file" if unnamed else ""
            yield Check("task", "warn" if unnamed else "ok", f"{spec.kind}{labels}", mend)
        except PotstillError as error:
            yield failed("task", error)
    try:
        resolved = resolve(from_file, settings)
    except PotstillError as error:
        yield failed("settings", error)
        return
    if spec is not None and (foreign := foreign_languages(spec, resolved)):
        head, _, mend = foreign.partition("; ")
        yield Check("languages", "warn", head, mend)
    for name in ("test", "labelled", "unlabelled"):
        if spec is not None and getattr(spec, name) is not None:
            yield _data(name, spec)
    if spec is not None and spec.unlabelled is not None and spec.kind != "classification":
        yield _own(spec, resolved)
    if spec is not None and spec.rules:
        yield _rules(spec, resolved)
    if spec is not None and resolved.writes and (unsaid := unsaid_fields(spec)):
        head, _, mend = unsaid.partition("; ")
        yield Check("fields", "warn", head, mend)
    if spec is not None and (lacking := lacking_rows(spec, resolved)):
        head, _, mend = lacking.partition("; ")
        yield Check("rows", "warn", head, mend)
    folder = Path(out).expanduser() if out else Path("runs") / (spec.name if spec else "")
    yield _disk(folder)
    yield _memory()
    yield _gpu()
    yield _hub_token()
    yield _encoder(resolved)
    if spec is not None:
        yield _student(spec, resolved)
    answering = None if spec is None or spec.kind == "classification" else resolved.answering
    yield from teacher_checks(resolved, None if answering else spec, folder)
    if answering is not None:
        for check in teacher_checks(answering, spec, folder, asked=Asked("generation.output_teacher")):
            yield replace(check, name=f"outputs: {check.name}")


_AS_UTF_8 = "save it as UTF-8; a run leaves such texts out"


def _python() -> Check:
    from potstill import __version__

    return Check("potstill", "ok", f"{__version__} on Python {sys.version.split()[0]}, {os.cpu_count()} cores")


def _data(name: str, spec: TaskSpec) -> Check:
    from potstill.retrieval.load import read_data, read_texts

    ref, left_out = getattr(spec, name), []  # type: Any, list[str]
    try:
        if name == "unlabelled":
            texts = read_texts(ref, spec)
            if broken := sum("\ufffd" in text for text in texts):
                return Check(name, "fail", f"{broken:,} of {len(texts):,} texts in {ref.path} are not UTF-8", _AS_UTF_8)
            count = len(texts)
        else:
            count = read_data(ref, spec, tell=left_out.append).num_rows
    except PotstillError as error:
        return failed(name, error)
    if not count:
        return Check(name, "fail", f"{ref.path} has no rows", f"check {name}: in the task file")
    few = name == "test" and count < 50
    mends = ["the scores will have wide intervals; give a few hundred rows if you can"] if few else []
    return Check(
        name, "warn" if few or left_out else "ok", f"{count:,} rows in {ref.path}", "; ".join(left_out + mends)
    )


def _own(spec: TaskSpec, settings: Settings) -> Check:
    """What becomes of the user's inputs in a task whose answer is a text."""
    from potstill.stages.own_inputs import own_inputs, unread_inputs

    if unread := unread_inputs(spec, settings):
        head, _, mend = unread.partition("; ")
        return Check("own inputs", "warn", head, mend)
    try:
        return Check("own inputs", "ok", own_inputs(spec, settings).told(settings.generation))
    except PotstillError as error:
        return failed("own inputs", error)


def _rules(spec: TaskSpec, settings: Settings) -> Check:
    """How many of the texts the rules label, and how often they contradict each other; no teacher is asked."""
    from potstill.datagen.votes import ABSTAIN, contradicted, function_name, rule_function, votes_of
    from potstill.datagen.weak import usable_texts
    from potstill.retrieval.load import read_texts
    from potstill.stages.start import unable_to_answer

    if spec.unlabelled is None:
        mend = "name texts without labels (unlabelled: FILE), or take the rules out"
        return Check("rules", "warn", f"{len(spec.rules)} rules, and no texts for them", mend)
    try:
        texts = [text for _, text in usable_texts(read_texts(spec.unlabelled, spec), spec.unlabelled.path)[0]]
        own = [rule_function(rule) for rule in spec.rules if rule.kind != "prompt"]
        some = texts[:_RULED]
        votes = votes_of(own, some, spec.label_names).votes
    except PotstillError as error:
        return failed("rules", error)
    cast, said, idle = votes != ABSTAIN, [], []
    if own:
        against = sum(share * count for share, count in zip(contradicted(votes, len(spec.labels)), cast.sum(axis=0)))
        said.append(f"rules of words match {cast.any(axis=1).mean():.0%} of {len(some):,} texts")
        said.append(f"{against / max(1, cast.sum()):.0%} of their votes are contradicted")
        idle = [function_name(rule) for rule, votes_here in zip(own, cast.T) if not votes_here.any()]
    if spec.questions:
        asked = len(texts) * spec.questions
        said.append(f"{spec.questions} questions to the teacher, {asked:,} requests (see potstill plan)")
    mends = [unable] if (unable := unable_to_answer(spec, settings)) else []
    if idle:
        shown = f"{'; '.join(idle[:3])}{' …' if len(idle) > 3 else ''}"
        mends.append(f"no text matches {shown}: mend it, or take it out")
    return Check("rules", "warn" if mends else "ok", ", ".join(said), "; ".join(mends))


def _disk(folder: Path) -> Check:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        return Check("disk", "fail", f"{place} cannot be written", "choose another folder with --out")
    free = shutil.disk_usage(place).free / _GIB
    mend = "free some space, or choose a folder on another disk with --out"
    status: Status = "fail" if free < _LEAST_DISK_GIB else "warn" if free < _ENOUGH_DISK_GIB else "ok"
    return Check("disk", status, f"{free:,.1f} GiB free at {place}", "" if status == "ok" else mend)


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available / _GIB
    if free >= _ENOUGH_MEMORY_GIB:
        return Check("memory", "ok", f"{free:,.1f} GiB available")
    mend = "close other programs, or take a smaller student or a teacher on another machine"
    return Check("memory", "warn", f"{free:,.1f} GiB available; the shipped example takes 2.9", mend)


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return Check("gpu", "ok", f"{torch.cuda.device_count()} × {', '.join(sorted(names))}")
    if shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists():
        mend = "install a CUDA build of torch (pip install torch, without a CPU index)"
        return Check("gpu", "warn", f"a driver is here, but torch {torch.__version__} does not see a GPU", mend)
    return Check("gpu", "ok", "none; training and an in-process teacher use the CPU")


def _hub_token() -> Check:
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    token = get_token()
    if not token:
        return Check("hub token", "warn", "none; only `potstill push` and gated data need one", "set HF_TOKEN")
    if constants.is_offline_mode():
        return Check("hub token", "ok", "set; not tried, since HF_HUB_OFFLINE is on")
    try:
        who = HfApi(token=token).whoami()
    except HfHubHTTPError as error:
        code = getattr(error.response, "status_code", 0)
        mend = "set HF_TOKEN to a token with write access" if code in (401, 403) else "try again later"
        return Check("hub token", "fail", f"the Hub refused it (HTTP {code})", mend)
    except Exception as error:  # the client raises its transport's own kinds when there is no network
        mend = "check the network, or HF_ENDPOINT; without it, set HF_HUB_OFFLINE=1 and a run asks the Hub for nothing"
        return Check("hub token", "warn", f"not tried: the Hub cannot be reached ({type(error).__name__})", mend)
    role = ((who.get("auth") or {}).get("accessToken") or {}).get("role", "")
    mend = "it can only read: make one with write access for potstill push" if role == "read" else ""
    return Check(
        "hub token", "warn" if mend else "ok", f"user {who.get('name', '?')}{f', {role}' if role else ''}", mend
    )


def _encoder(settings: Settings) -> Check:
    from potstill.models import sentence_encoder

    try:
        size = sentence_encoder(settings.encoder).encode(["a text"]).shape[1]
    except PotstillError as error:
        return failed("encoder", error)
    return Check("encoder", "ok", f"{settings.encoder}, {size} dimensions")


def _student(spec: TaskSpec, settings: Settings) -> Check:
    from potstill.stages.start import check_student_options
    from potstill.train.options import student_name

    try:
        check_student_options(spec, settings)
    except PotstillError as error:
        return failed("student", error)
    return Check("student", "ok", student_name(settings.distil, spec.kind))
