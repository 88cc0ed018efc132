"""Whether a teacher of a run answers, and what it can do, found out by two or three short questions.

What enters: the settings that name it. What leaves: `Check`s. Its replies go to a ledger in a temporary folder.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.asking.ledger import Ledger
from potstill.doctor_check import Check, failed
from potstill.errors import PotstillError
from potstill.events import silent
from potstill.extras import install_command
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from potstill.asking.asker import Asker
    from potstill.settings import Settings

_HELLO = "Write one short sentence about the weather."
_SCHEMA = {
    "type": "object",
    "properties": {"town": {"type": "string", "maxLength": 30}},
    "required": ["town"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Asked:
    """Where a teacher is named, for what is said of it.

    Attributes:
        option: The setting that names it; that of its options is NAME_options.
    """

    option: str = "teacher"

    @property
    def named(self) -> str:
        """The option, as it stands on the command line or in a task file."""
        return "--teacher" if self.option == "teacher" else self.option

    @property
    def another(self) -> str:
        """How another one is named on the command line."""
        return "--teacher transformers" if self.option == "teacher" else f"--set {self.option}=transformers"


def _workers(settings: Settings, folder: Path) -> Check:
    """Whether workers could reach a run here."""
    import socket

    from potstill.datagen.teachers.worker_wire import token_of

    listen = settings.workers.listen
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    how = f"potstill work {folder}"
    try:
        token_of(os.environ)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, int(port)))
    except OSError as error:
        mend = "name a free address of this machine: --set workers.listen=0.0.0.0:8470"
        return Check("workers", "fail", f"{listen} cannot be listened on ({error.strerror or error})", mend)
    except PotstillError as error:
        return failed("workers", error)
    if host in ("127.0.0.1", "localhost", "::1"):
        return Check("workers", "ok", f"on {listen}, for workers of this machine alone: {how}")
    return Check("workers", "ok", f"on {listen}, for workers that know the token: {how}")


def teacher_checks(
    settings: Settings, spec: TaskSpec | None, folder: Path, *, asked: Asked = Asked()
) -> Iterator[Check]:
    """Whether a teacher answers, and what it can do.

    Args:
        settings: Those that name it as `teacher`.
        spec: The task, whose student learns this teacher's outputs; None where there is none, or it learns another's.
        folder: Of the run.
        asked: Where the user named it.

    Yields:
        Checks, as soon as each is known.
    """
    if settings.teacher.startswith("vllm") and importlib.util.find_spec("vllm") is None:
        yield Check("teacher", "fail", "vllm is not installed", install_command("vllm"))
        return
    if settings.executor == "ray" and importlib.util.find_spec("ray") is None:
        yield Check("teacher", "fail", "ray is not installed", install_command("ray"))
        return
    if settings.executor == "workers":
        yield _workers(settings, folder)
        if not settings.workers.here:
            mend = "look there: potstill doctor --teacher … on a machine of the workers"
            yield Check("teacher", "warn", f"{settings.teacher} answers in workers alone, and was not asked here", mend)
            return
    try:
        with _asker(settings) as asker:
            yield from _questions(asker, asked)
            yield from _on_policy(asker, settings, spec)
            yield from _outputs(asker, settings, spec)
    except PotstillError as error:
        check = failed("teacher", error)
        other = f"another teacher: {asked.another}"
        yield replace(check, mend=f"{check.mend}; or {other}" if check.mend else other)


@contextmanager
def _asker(settings: Settings) -> Iterator[Asker]:
    from potstill.pipeline import open_asker

    with tempfile.TemporaryDirectory(prefix="potstill-doctor-") as folder:
        with Ledger(Path(folder) / "ledger.sqlite") as ledger:
            with open_asker(settings.asking_ahead, ledger, silent) as asker:
                yield asker


def _questions(asker: Asker, asked: Asked) -> Iterator[Check]:
    from potstill.asking.teacher import Message, Reply, Request, ScoreRequest

    can = asker.abilities
    hello = (Message("user", _HELLO),)

    def ask(request: Any) -> Reply:
        reply = asker.ask([request], "doctor")[0].reply
        if not isinstance(reply, Reply):
            raise _NoReply(reply.reason)
        return reply

    def tried(name: str, question: Callable[[], str], mend: str) -> Check:
        try:
            return Check(name, "ok", question())
        except (_NoReply, PotstillError) as error:
            return Check(name, "fail", str(error).split("\n")[0], mend)

    def answers() -> str:
        ask(Request(hello, max_tokens=4, temperature=0.0))  # loads the model, which would count as speed otherwise
        started = time.monotonic()
        reply = ask(Request(hello, max_tokens=24, temperature=0.0))
        seconds = time.monotonic() - started
        if not reply.text.strip():
            raise _NoReply("the reply was empty")
        return f"{asker.teacher.name} wrote {reply.completion_tokens} tokens in {seconds:.1f} s"

    first = tried("teacher", answers, f"check {asked.named}, its address and its key; another: {asked.another}")
    yield first
    if first.status != "ok":
        return

    def log_probs() -> str:
        if can.scores:
            reply = ask(ScoreRequest(hello, (" It rains.", " It is dry.")))
            if len(reply.scores) != 2:
                raise _NoReply(f"{len(reply.scores)} scores came for 2 texts")
            return f"scores texts, and gives up to {can.top_logprobs} log-probs a token"
        reply = ask(Request(hello, max_tokens=4, temperature=0.0, top_logprobs=min(5, can.top_logprobs)))
        if not reply.top:
            raise _NoReply("log-probs were asked for and none came")
        return f"up to {can.top_logprobs} a token"

    def words() -> int:
        """Tokens a place that a server says it might have written, which scores no text; 0 for none."""
        from potstill.datagen.said_labels import tokens_a_place

        try:
            return tokens_a_place([hello], [["It rains."]], asker, "doctor")
        except PotstillError:
            return 0

    if can.scores or can.top_logprobs:
        yield tried("log-probs", log_probs, "serve the model with vLLM, or go on with hard labels alone")
    elif count := words():
        found = f"{count} likeliest tokens a place, as texts: soft targets for labels, hard ones for written outputs"
        yield Check("log-probs", "ok", found)
    else:
        mend = "vllm:MODEL or transformers:MODEL give them; for labels, soft.votes=5 counts answers in their place"
        yield Check("log-probs", "warn", "none: the student learns from hard labels alone", mend)

    def schema() -> str:
        reply = ask(Request((Message("user", "Name a town."),), max_tokens=48, temperature=0.0, schema=_SCHEMA))
        try:
            found = json.loads(reply.text)
        except ValueError:
            raise _NoReply(f"the reply was no JSON: {reply.text[:60]!r}") from None
        if not isinstance(found, dict) or set(found) != {"town"} or not isinstance(found["town"], str):
            raise _NoReply(f"the reply was JSON, but not as asked for: {reply.text[:60]!r}")
        return f"followed: {json.dumps(found, ensure_ascii=False)[:60]}"

    if can.json_schema:
        yield tried("schema", schema, "rows will be read from plain text: --set generation.structured=never")
    else:
        yield Check("schema", "ok", "not offered; rows are read from plain text")
    price = asker.price
    if price is None:
        mend = f"cap tokens or time: --budget 500k-tokens; or say it: --set {asked.option}_options.usd_read=0.15"
        yield Check("price", "warn", "not known", mend)
    else:
        shown = f"{price.prompt:g} and {price.completion:g} USD for a million tokens read and written"
        yield Check("price", "ok", shown if price.prompt or price.completion else "nothing: it is your own machine")


def _on_policy(asker: Asker, settings: Settings, spec: TaskSpec | None) -> Iterator[Check]:
    """Whether a teacher that the training is to ask can be asked, where there is one."""
    from potstill.stages.asked_teacher import check_asked_teacher

    try:
        found = "" if spec is None else check_asked_teacher(spec, settings, asker)
    except PotstillError as error:
        yield failed("on policy", error)
        return
    if found:
        yield Check("on policy", "ok", found)


def _outputs(asker: Asker, settings: Settings, spec: TaskSpec | None) -> Iterator[Check]:
    """Whether one of a teacher's own outputs can be chosen, where the student learns them (`distil.method`)."""
    from potstill.datagen.sequence_targets import refuse_pick
    from potstill.stages.checks import wants_outputs

    if spec is None or not wants_outputs(spec, settings):
        return
    soft = settings.soft
    try:
        refuse_pick(asker, soft)
    except PotstillError as error:
        yield failed("method", error)
        return
    many = f"{soft.candidates} outputs for each input, and the {soft.pick} is learnt"
    if soft.pick == "beam":
        many = f"an output for each input, by a search with {soft.candidates} beams"
    yield Check("method", "ok", f"the teacher writes {many if soft.candidates > 1 else 'an output for each input'}")


class _NoReply(Exception):
    """The teacher's answer cannot be used; the text says why."""
