"""A teacher in worker processes of any machines, without Ray: requests are leased over HTTP, one stream of replies.

What enters are requests; what leaves are replies in the order they finish, from all workers. Ledger, budget and plan
stay in the run's process, the only one that writes; `leases` knows which request is where, and what a dead worker had
is given to the others. A worker (`potstill work`, `labour`) may come and go at any time; the run's own process is one,
unless `here` is off. Rows are those of a run without workers: which requests are made depends on `count`, the workers
that are planned for, and not on those that come.

It listens on the loopback unless another address is given. Every call carries a token, which is compared in constant
time; bodies are JSON and bounded.
"""

from __future__ import annotations

import logging
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill import errors
from potstill.asking.teacher import AnyRequest, Failure, Reply, Take
from potstill.datagen.teachers.leases import About, Leases
from potstill.datagen.teachers.worker import Broken, Front, Worker
from potstill.datagen.teachers.worker_wire import (
    MAX_BODY,
    Address,
    forget_address,
    outcome_from_wire,
    request_to_wire,
    run_token,
    write_address,
)
from potstill.errors import OptionError, PotstillError, RunError, TeacherError, TeacherUnavailable, UserError

if TYPE_CHECKING:
    from potstill.pages.web import Answer, App, Call

_LOG = logging.getLogger(__name__)
_LOOK_S = 1.0
# How long workers are waited for that have still to hear that the run is over: a full one looks every two seconds.
_GOODBYE_S = 3.0
_MOST_WORKERS = 512


@dataclass(frozen=True)
class WorkersOptions:
    """How requests are leased to worker processes (`executor: workers`).

    Attributes:
        listen: `HOST:PORT` to be reached at; port 0 takes a free one. `0.0.0.0:8470` is reached from other machines.
        count: Workers that are planned for: requests are made ahead for so many. Others may come, and fewer.
        here: Whether the run's own process answers too.
        lease_s: What a worker has is given to others after so many seconds without a word from it.
        patience_s: How long a run waits that has no worker at all.
    """

    listen: str = "127.0.0.1:0"
    count: int = 1
    here: bool = True
    lease_s: float = 30.0
    patience_s: float = 600.0

    def __post_init__(self) -> None:
        faults = []
        if self.count < 1:
            faults.append(f"count must be at least 1 (got {self.count})")
        if not self.lease_s >= 5:  # a worker is heard every two seconds
            faults.append(f"lease_s must be at least 5 (got {self.lease_s:g})")
        if not self.patience_s >= 0:
            faults.append(f"patience_s must be at least 0 (got {self.patience_s:g})")
        host, _, port = self.listen.rpartition(":")
        if not host.strip("[]") or not (port.isascii() and port.isdigit() and int(port[:6]) < 65536):
            faults.append(f"listen must be HOST:PORT, such as 0.0.0.0:8470 (got {self.listen!r})")
        if faults:
            raise ValueError("; ".join(faults))


class WorkersTeacher(Front):
    """Many worker processes as one teacher; see the module's text. Not safe for several threads.

    Attributes:
        address: Where workers find it.
        deaths: Workers that went before the run was over.
    """

    def __init__(
        self,
        ref: str,
        options: WorkersOptions | None = None,
        *,
        folder: Path | None = None,
        notice: Callable[[str], None] | None = None,
        **teacher_options: Any,
    ):
        """Listens from now on, so that workers can come before the first request.

        Args:
            ref: The teacher that each worker opens; what `open_teacher` takes.
            options: How requests are leased.
            folder: The run folder, where workers find the address; None leaves it to who has `address`.
            notice: Told when a worker comes or goes; None logs it.
            **teacher_options: Options of each worker's teacher.

        Raises:
            OptionError: A teacher that gains nothing from workers, or that cannot be opened; a token that is too short.
            RunError: The address is taken.
        """
        if ref.strip().startswith("openai"):
            raise OptionError(
                "executor",
                [f"workers open engines, and {ref!r} is a server; write openai:URL,URL#MODEL to use several"],
            )
        super().__init__(ref, teacher_options)
        self.options = options or WorkersOptions()
        self.deaths = 0
        self._folder = folder
        self._notice = notice or _LOG.warning
        self._leases = Leases(self.options.lease_s)
        self._own: Worker | None = None
        self._thread: threading.Thread | None = None
        self._away = False
        self._opened = ExitStack()
        self._listen()

    @property
    def concurrency(self) -> int:
        """Requests in flight over the workers that are planned for."""
        return self._example.concurrency * self.options.count

    def workers(self) -> list[dict[str, Any]]:
        """Those that are there (`Leases.told`)."""
        return self._leases.told()

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        """Answer everything that `take` gives, in the order of completion.

        Raises:
            UserError: The teacher cannot be opened in this process.
            TeacherUnavailable: No worker was there for `patience_s`.
        """
        leases = self._leases
        began = time.monotonic()
        try:
            while True:
                room = max(self.concurrency, leases.room) - leases.pending
                leases.put(take(room) if room > 0 else ())
                if not leases.pending:
                    return
                self._work_here()
                yield from leases.outcomes(_LOOK_S)
                self._tell_news()
                alone = min(leases.alone_s, time.monotonic() - began)
                if alone > self.options.patience_s:
                    raise TeacherUnavailable(
                        f"no worker was at {self.address.url} for {alone:.0f} s; start some ({self._command}); "
                        "finished replies are in the ledger: run again"
                    )
        finally:
            leases.drop()

    def close(self) -> None:
        """Let the workers go and end what answers here. An interrupted run is waited for by its workers."""
        interrupted = self._away = isinstance(sys.exception(), KeyboardInterrupt)
        self._leases.end(0.0 if interrupted else _GOODBYE_S)
        self._opened.close()
        if self._folder is not None and not interrupted:
            forget_address(self._folder)
        if self._own is not None:
            self._own.close(wait_s=2.0 if interrupted else 30.0)
        self._example.close()

    @property
    def _command(self) -> str:
        return shlex.join(["potstill", "work", str(self._folder or self.address.url)])

    def _listen(self) -> None:
        from potstill.pages.web import Server, running

        token = run_token(os.environ)
        host, _, port = self.options.listen.rpartition(":")
        host = host.strip("[]")
        try:
            server = Server(self._app(token), host, int(port))
        except RunError as error:
            told = str(error).partition("; ")[0]
            raise RunError(f"{told}; choose another with --set workers.listen=HOST:PORT") from None
        self._opened.enter_context(running(server))
        host = socket.gethostname() if host in ("0.0.0.0", "::") else host
        url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_address[1]}/"
        self.address = Address(url, token, socket.gethostname())
        if self._folder is not None:
            try:
                write_address(self._folder, self.address)
            except OSError as error:
                self._opened.close()
                raise RunError(
                    f"workers cannot be told the address in {self._folder} ({error.strerror}); make it writable, or "
                    "choose another folder with --out"
                ) from None
        self._notice(f"workers are leased requests at {url}: {self._command}")

    def _app(self, token: str) -> App:
        from potstill.pages.web import Answer, App

        def of_this_start(route: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Callable[[Call], Answer]:
            def answer(call: Call) -> Answer:
                told = route(call.body)
                # Kept connections outlive the server, where the process goes on after an interrupted run. Looked at
                # last: a worker that is waiting right now must not hear that the run is over.
                return Answer({"error": "it was interrupted"}, 503) if self._away else Answer(told)

            return answer

        routes = {
            "/teacher": self._teacher, "/join": self._join, "/exchange": self._exchange, "/leave": self._leave,
            "/workers": lambda body: {"workers": self.workers()},
        }  # fmt: skip
        posts = {path: of_this_start(route) for path, route in routes.items()}
        return App(get={}, post=posts, slots=_MOST_WORKERS, queue=64, token=token, max_body=MAX_BODY, by_any_name=True)

    def _teacher(self, body: Mapping[str, Any]) -> dict[str, Any]:
        from potstill.datagen.teachers.labour import what_answers

        return {"teacher": self._ref, "options": self._teacher_options, "code": what_answers(self._example)["code"]}

    def _join(self, body: Mapping[str, Any]) -> dict[str, Any]:
        from potstill.datagen.teachers.labour import unlike, what_answers

        given = _part(body, "worker", dict)
        texts = {name: _part(given, name, str)[:200] for name in ("name", "host")}
        numbers = {name: max(1, _part(given, name, int)) for name in ("process", "room")}
        facts = _part(given, "answers", dict)
        kinds = {"identity": dict, "code": str, "versions": dict}
        # At each join: a worker outlives a start of the run, and the next one may have another teacher.
        fault, other = unlike(
            what_answers(self._example), {name: _part(facts, name, kind) for name, kind in kinds.items()}
        )
        if fault:
            raise UserError(
                f"this machine would not answer as the run does: {fault}; use the same model, the same potstill, and "
                "--set teacher_options.dtype=… where the formats differ"
            )
        self._leases.join(About(**texts, **numbers, other=other[:200]))
        return {}

    def _exchange(self, body: Mapping[str, Any]) -> dict[str, Any]:
        given = self._leases.exchange(
            _part(body, "worker", str),
            _part(body, "stint", str),
            [outcome_from_wire(item) for item in _part(body, "done", list)],
            [number for number in _part(body, "held", list) if isinstance(number, int)],
            _part(body, "room", int),
            min(5.0, float(_part(body, "wait_s", int, float))),
        )
        requests = [[number, request_to_wire(request)] for number, request in given.requests]
        return {"stint": given.stint, "requests": requests, "over": given.over, "known": given.known}

    def _leave(self, body: Mapping[str, Any]) -> dict[str, Any]:
        name, error, message = (_part(body, part, str) for part in ("worker", "error", "message"))
        self._leases.leave(name, Broken(error, message[:2000]))
        return {}

    def _work_here(self) -> None:
        """Let this process be a worker, from the first request on."""
        if not self.options.here or self._thread is not None:
            return
        from potstill.datagen.teachers.labour import answer_for, most_held

        name = "here"
        own = self._own = Worker(self._ref, self._teacher_options)
        leases = self._leases
        leases.join(About(name, socket.gethostname(), os.getpid(), most_held(self._example), here=True))

        def exchange(stint: str, done: Any, held: Any, room: int, wait_s: float) -> Any:
            given = leases.exchange(name, stint, done, held, room, wait_s)
            return replace(given, requests=[(number, replace(request)) for number, request in given.requests])

        def work() -> None:
            try:
                broken = answer_for(exchange, own)
            except Exception as error:  # of a thread that nobody hears of
                broken = Broken(type(error).__name__, f"{type(error).__name__}: {error}")
            if broken is not None:
                leases.leave(name, broken)

        self._thread = threading.Thread(target=work, name="own worker", daemon=True)
        self._thread.start()

    def _tell_news(self) -> None:
        """Say who came and went.

        Raises:
            UserError: The teacher cannot be opened here: nor could it be elsewhere.
            TeacherUnavailable: It broke here, and nobody else is there.
        """
        for item in self._leases.news():
            if isinstance(item, About):
                if not item.here:
                    self._notice(f"a worker came: {item}" + (f"; it has {item.other}" if item.other else ""))
                continue
            self.deaths += 1
            left = len(self._leases.told())
            self._notice(
                f"a worker went, {item.about}: {item.broken.message[:300]}; its {item.lost} requests go to others, of "
                f"whom {left} {'is' if left == 1 else 'are'} there"
            )
            if not item.about.here:
                continue
            kind = getattr(errors, item.broken.error, None)
            if isinstance(kind, type) and issubclass(kind, PotstillError) and not issubclass(kind, TeacherError):
                raise UserError(item.broken.message)
            if not left:
                raise TeacherUnavailable(
                    f"the teacher broke in this process, and no other worker is there: {item.broken.message[:300]}; "
                    "finished replies are in the ledger: run again"
                )


def _part(body: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """A field of a call.

    Raises:
        OptionError: It is not there, or of another type.
    """
    value = body.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise OptionError("workers", [f"{name}: {' or '.join(kind.__name__ for kind in kinds)} is needed"])
    return value
