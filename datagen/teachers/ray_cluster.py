"""A teacher on a Ray cluster: one engine in each worker, one stream of replies.

What enters are requests; what leaves are replies in the order they finish, from all workers. Each worker (`worker`)
is a Ray actor that holds a teacher, usually vLLM's engine, and keeps it full from what it was given. Ledger, budget and
plan stay in the driver, which knows at any time which request is where: what a dead worker had is given to the others,
a worker is started in its place, and a reply counts once, whoever gave it.

Why not `ray.data.llm`, which runs vLLM over a dataset: its rows are fixed when it starts and its engines end with it,
while here each request is made from the replies before it (refills, retries, quotas). Every refill would be a dataset
of its own: a barrier, and a new load of the model. It also gives a block of replies away only when the block is whole,
so more than what was under way would be asked anew after a death.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from potstill import errors
from potstill.asking.teacher import AnyRequest, Failure, Reply, Take
from potstill.datagen.teachers.worker import Broken, Front, Worker
from potstill.errors import (
    BadOptions,
    MissingExtra,
    OptionError,
    OptionFault,
    PotstillError,
    TeacherError,
    TeacherUnavailable,
)

_LOG = logging.getLogger(__name__)
# A request that was under way in so many dying workers is taken for the cause.
_MOST_DEATHS = 3


@dataclass(frozen=True)
class RayOptions:
    """How a Ray cluster is used (`executor: ray`).

    Attributes:
        workers: Engines; 0 takes one for each GPU of the cluster, or one for each node where there is none.
        address: Address of a running cluster; empty takes `RAY_ADDRESS`, or starts one on this machine.
        cpus: CPUs that a worker reserves.
        gpus: GPUs that a worker reserves; None takes 1 where the cluster has any.
        restarts: Workers started anew in place of dead ones, in all.
    """

    workers: int = 0
    address: str = ""
    cpus: float = 1.0
    gpus: float | None = None
    restarts: int = 3

    def __post_init__(self) -> None:
        counts = {"workers": self.workers, "cpus": self.cpus, "gpus": self.gpus or 0, "restarts": self.restarts}
        faults = [
            OptionFault(f"{name} must be at least 0 (got {value})", name) for name, value in counts.items() if value < 0
        ]
        if faults:
            raise BadOptions(faults)


@dataclass
class _Member:
    """A worker as the driver sees it."""

    number: int
    actor: Any
    pid: int = 0
    flying: set[int] = field(default_factory=set)
    # The one call that is waited for: `about` while it starts, then `collect`.
    call: Any = None

    @property
    def up(self) -> bool:
        return self.pid > 0


class RayTeacher(Front):
    """Many workers as one teacher; see the module's text. Not safe for several threads.

    Attributes:
        deaths: Workers that died so far.
    """

    def __init__(
        self,
        ref: str,
        options: RayOptions | None = None,
        *,
        notice: Callable[[str], None] | None = None,
        **teacher_options: Any,
    ):
        """Args:
            ref: The teacher that each worker opens; what `open_teacher` takes.
            options: How the cluster is used.
            notice: Told when a worker dies or is started anew; None logs a warning.
            **teacher_options: Options of each worker's teacher.

        Raises:
            MissingExtra: Ray is not installed.
            OptionError: A teacher that gains nothing from workers, or that cannot be opened.
        """
        import importlib.util

        if ref.strip().startswith("openai"):
            raise OptionError(
                "executor",
                [f"ray starts engines, and {ref!r} is a server; write openai:URL,URL#MODEL to use several"],
            )
        # After what no installation would mend.
        if importlib.util.find_spec("ray") is None:
            raise MissingExtra("ray", "ray", "executor ray")
        super().__init__(ref, teacher_options)
        self.options = options or RayOptions()
        self.deaths = 0
        self._notice = notice or _LOG.warning
        self._members: list[_Member] = []
        self._numbers = itertools.count()
        self._epoch = 0
        self._size = 0
        self._began = False
        self._ray: Any = None

    @property
    def concurrency(self) -> int:
        """Requests in flight over all workers."""
        return self._example.concurrency * max(1, self._size or self.options.workers)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that are up, on whatever node."""
        return tuple(member.pid for member in self._members if member.up)

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        """Answer everything that `take` gives, in the order of completion.

        Raises:
            UserError: The teacher cannot be opened in a worker.
            TeacherUnavailable: Every worker died and none may be started anew.
        """
        waiting: deque[int] = deque()
        requests: dict[int, AnyRequest] = {}
        deaths: dict[int, int] = {}
        numbers = itertools.count()

        def pull(room: int) -> None:
            for request in take(room) if room > 0 else ():
                number = next(numbers)
                requests[number] = request
                waiting.append(number)

        pull(self.concurrency)
        if not requests:
            return
        self._start()
        self._epoch += 1
        try:
            while True:
                pull(self.concurrency - len(requests))
                if not requests:
                    return
                self._hand_out(waiting, requests)
                for member, outcome in self._next():
                    if isinstance(outcome, list):
                        for number, reply in outcome:
                            if number in member.flying:
                                member.flying.discard(number)
                                yield requests.pop(number), reply
                        continue
                    lost = sorted(member.flying)
                    self._bury(member, outcome)
                    for number in reversed(lost):
                        deaths[number] = deaths.get(number, 0) + 1
                        if deaths[number] < _MOST_DEATHS:
                            waiting.appendleft(number)
                            continue
                        reason = f"{deaths[number]} workers died while they answered it, the last: {outcome.message}"
                        yield requests.pop(number), Failure(reason, attempts=deaths[number])
        finally:
            self._drop()

    def close(self) -> None:
        """End the workers, and the cluster where it was started here."""
        for member in self._members:
            self._ray.kill(member.actor)
        self._members.clear()
        if self._began and self._ray is not None:
            self._ray.shutdown()
            self._began = False
        self._example.close()

    def _start(self) -> None:
        """Join or start the cluster, and start the workers."""
        if self._members:
            return
        address = self.options.address or os.environ.get("RAY_ADDRESS") or None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address is None:
            # Ray's switch for "this machine alone": it then listens on the loopback and nowhere else.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        import ray

        self._ray = ray
        if not ray.is_initialized():
            local = {} if address else {"include_dashboard": False}
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                raise TeacherUnavailable(
                    f"no Ray cluster at {address or 'this machine'} ({str(error).strip().splitlines()[0]}); check the "
                    "address, or leave it out to start a cluster here"
                ) from None
            self._began = True
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        nodes = sum(1 for node in ray.nodes() if node.get("Alive"))
        self._size = self.options.workers or gpus or max(1, nodes)
        for _ in range(self._size):
            self._add()

    def _add(self) -> None:
        gpus = self.options.gpus
        if gpus is None:
            gpus = 1.0 if self._ray.cluster_resources().get("GPU") else 0.0
        remote = self._ray.remote(Worker)
        # `give` and `about` must not wait behind a `collect`.
        actor = remote.options(num_cpus=self.options.cpus, num_gpus=gpus, max_concurrency=4, max_restarts=0).remote(
            self._ref, self._teacher_options
        )
        member = _Member(next(self._numbers), actor)
        member.call = actor.about.remote()
        self._members.append(member)

    def _hand_out(self, waiting: deque[int], requests: Mapping[int, AnyRequest]) -> None:
        """Give what waits to the workers with the least to do, and wait for what they finish."""
        up = [member for member in self._members if member.up]
        batches: dict[int, list[tuple[int, AnyRequest]]] = {member.number: [] for member in up}
        while waiting and up:
            member = min(up, key=lambda one: len(one.flying))
            if len(member.flying) >= self._example.concurrency:
                break
            number = waiting.popleft()
            member.flying.add(number)
            batches[member.number].append((number, requests[number]))
        for member in up:
            if batches[member.number]:
                member.actor.give.remote(self._epoch, batches[member.number])
            if member.flying and member.call is None:
                member.call = member.actor.collect.remote(self._epoch)

    def _next(self) -> Iterator[tuple[_Member, list[tuple[int, Reply | Failure]] | Broken]]:
        """Wait for the first call that ends; what each worker whose call ended has to say."""
        calls = {member.call: member for member in self._members if member.call is not None}
        ended, _ = self._ray.wait(list(calls), num_returns=1)
        for call in ended:
            member = calls[call]
            member.call = None
            try:
                value = self._ray.get(call)
            except self._ray.exceptions.RayError as error:
                said = str(error).strip().splitlines()
                yield member, Broken(type(error).__name__, said[-1].strip() if said else type(error).__name__)
                continue
            if isinstance(value, int):
                member.pid = value
            else:
                yield member, value

    def _bury(self, member: _Member, broken: Broken) -> None:
        """Take a worker out, and start another while that is allowed.

        Raises:
            UserError: The worker could not open its teacher: no other will.
            TeacherUnavailable: None is left.
        """
        self.deaths += 1
        self._members.remove(member)
        self._ray.kill(member.actor)
        kind = getattr(errors, broken.error, None)
        if isinstance(kind, type) and issubclass(kind, PotstillError) and not issubclass(kind, TeacherError):
            raise errors.UserError(broken.message)
        left = self.options.restarts - self.deaths + 1
        where = f"worker {member.number}" + (f" (process {member.pid})" if member.pid else " (never up)")
        said = f"{where} died: {broken.message[:300]}; its {len(member.flying)} requests go to others"
        if left > 0:
            self._notice(f"{said}; another is started")
            self._add()
        elif self._members:
            self._notice(f"{said}; {len(self._members)} of {self._size} workers are left")
        else:
            raise TeacherUnavailable(
                f"all {self._size} Ray workers died, the last: {broken.message[:300]}; finished replies are in the "
                "ledger: run again, with fewer workers or a smaller model where memory was short"
            )

    def _drop(self) -> None:
        """Forget what is under way, so that the next stream starts clean."""
        self._epoch += 1
        for member in self._members:
            if member.flying:
                member.flying.clear()
                member.actor.drop.remote(self._epoch)
            if member.up:
                member.call = None
