"""A teacher of one's own, given to `potstill.run(teacher=…)` in Python: a function, or an object of the protocol.

What enters is a function from messages to text; what leaves is a teacher that asks it. It may be asynchronous, or be
asked from several threads at once (`concurrency`). What it raises costs its own request alone, after a few attempts. It
writes texts and scores none, so that a student learns hard labels from it. An object that fulfils `Teacher` is taken as
it is, and is its owner's to close.

A function is known by its name and by its source with all that it reads (`function_digest`), as labelling functions
are. Where that cannot be told again in another process, as of one that reads a client with open connections, a
`version` must say when its answers are other ones: a run would else pay anew for each call.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from potstill.asking.budget import Purse
from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Request, Take, Teacher
from potstill.asking.token_estimate import expected_tokens, most_tokens
from potstill.datagen.votes import function_digest
from potstill.errors import BadOptions, OptionError, OptionFault, TeacherError, TeacherUnavailable
from potstill.options import build_options

BACKEND = "python"
# So many requests in a row without a reply; fewer where there never was one: the function is broken, not a request.
_MOST_FAILURES, _MOST_AT_FIRST = 32, 8
_LONGEST_PAUSE_S = 30.0
_PROTOCOL = ("name", "identity", "abilities", "concurrency", "stream", "close")


@dataclass(frozen=True)
class FunctionOptions:
    """How a function is asked.

    Attributes:
        name: What it is called in reports, cards and keys; empty takes the function's own name.
        version: Stands in keys in place of the function's source and what it reads: another version asks for everything
            again, the same one for nothing.
        concurrency: Calls at a time. With 1 the run's own thread calls it; with more, so many threads do.
        attempts: Most calls for one request that raise or give no text.
        backoff_s: First pause after such a call; doubles, with jitter, up to half a minute.
        usd_read: US dollars for a million tokens read; without it and `usd_written` the price is not known.
        usd_written: The same for a million tokens written.
    """

    name: str = ""
    version: str = ""
    concurrency: int = 1
    attempts: int = 3
    backoff_s: float = 1.0
    usd_read: float | None = None
    usd_written: float | None = None

    def __post_init__(self) -> None:
        faults = [OptionFault(f"{name} must be above 0, got {getattr(self, name)}", name)
                  for name in ("concurrency", "attempts") if getattr(self, name) <= 0]  # fmt: skip
        faults += [OptionFault(f"{name} must not be below 0, got {getattr(self, name)}", name)
                   for name in ("backoff_s", "usd_read", "usd_written") if (getattr(self, name) or 0) < 0]  # fmt: skip
        if faults:
            raise BadOptions(faults)


class FunctionTeacher:
    """A Python function that answers; see the module's text.

    Attributes:
        options: How it is asked.
        purse: Who takes what was answered when nobody waits for it any more; set by who streams.
    """

    def __init__(self, function: Callable[..., Any], options: FunctionOptions | None = None):
        """Args:
            function: Takes the messages, a list of `{"role": …, "content": …}` as OpenAI's and other clients take them,
                and gives the reply's text, or a `Reply` where it knows the tokens; may be asynchronous. One that needs
                two arguments gets the `Request` as the second, with `max_tokens`, `temperature`, `stop` and the rest.
            options: How it is asked.

        Raises:
            OptionError: It has no name, or what it gives cannot be told without a `version`.
        """
        self.options = options or FunctionOptions()
        self._function = function
        self._name = self.options.name.strip() or _own_name(function)
        self._takes = _arguments(function)
        self._version = self.options.version.strip() or _version(function, self._name)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()
        self.purse: Purse | None = None

    @property
    def name(self) -> str:
        """Short name for people."""
        return f"{BACKEND}:{self._name}"

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """Name and version, or in place of the second a hash of the source and of what it reads."""
        return {"backend": BACKEND, "model": self._name, "version": self._version}

    @property
    def abilities(self) -> Abilities:
        """Texts alone."""
        return Abilities()

    @property
    def concurrency(self) -> int:
        """Calls at a time."""
        return self.options.concurrency

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        """Answer everything that `take` gives, in the order of completion.

        Raises:
            TeacherUnavailable: The function raised at so many requests in a row that it must be broken.
            TeacherError: The function raised it, to end the run.
        """
        purse, self.purse = self.purse, None
        done: queue.SimpleQueue[tuple[AnyRequest, Reply | Failure | BaseException]] = queue.SimpleQueue()
        stopped = threading.Event()
        threads = ThreadPoolExecutor(self.concurrency, "teacher") if self.concurrency > 1 else None
        flying = failures = 0
        answered = False
        try:
            while True:
                taken = take(self.concurrency - flying) if flying < self.concurrency else ()
                for request in taken:
                    flying += 1
                    if threads is None:
                        self._finish(request, done, stopped)
                    else:
                        threads.submit(self._finish, request, done, stopped)
                if not flying:
                    if not taken:
                        return
                    continue
                request, outcome = done.get()
                flying -= 1
                if isinstance(outcome, BaseException):
                    raise outcome
                answered |= isinstance(outcome, Reply)
                failures = failures + 1 if isinstance(outcome, Failure) else 0
                yield request, outcome
                if isinstance(outcome, Failure) and failures >= (_MOST_FAILURES if answered else _MOST_AT_FIRST):
                    raise TeacherUnavailable(
                        f"{self.name} gave no reply to {failures} requests in a row ({outcome.reason}); mend the "
                        "function or what it asks, then run again: finished replies are in the ledger"
                    )
        finally:
            stopped.set()
            if threads is not None:  # a call under way cannot be broken off, and may be paid for
                threads.shutdown(wait=True, cancel_futures=True)
            while purse is not None and not done.empty():
                request, outcome = done.get()
                if isinstance(outcome, Reply | Failure):
                    purse.receive(request, outcome)

    def close(self) -> None:
        """Stop the event loop of an asynchronous function."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None

    def _finish(self, request: AnyRequest, done: queue.SimpleQueue[Any], stopped: threading.Event) -> None:
        """Ask until it is answered or the attempts are used up."""
        options, reason = self.options, ""
        for attempt in range(1, options.attempts + 1):
            try:
                given = self._asked(request)
                if isinstance(given, str | Reply):
                    done.put((request, _reply(request, given, attempt)))
                    return
                reason = f"it gave {type(given).__name__}, not a text"
            except TeacherError as error:  # said on purpose, in potstill's own words
                done.put((request, error))
                return
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"[:300]
            except BaseException as error:  # Ctrl-C, in whichever thread
                done.put((request, error))
                return
            pause = min(_LONGEST_PAUSE_S, options.backoff_s * 2 ** (attempt - 1)) * (0.5 + random.random() / 2)
            if attempt == options.attempts or stopped.wait(pause):
                break
        said = f"no reply after {attempt} call{'s' if attempt > 1 else ''}, the last: {reason}"
        done.put((request, Failure(said, attempt, passing=True)))

    def _asked(self, request: AnyRequest) -> Any:
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        given = self._function(messages) if self._takes == 1 else self._function(messages, request)
        if inspect.isawaitable(given):
            return asyncio.run_coroutine_threadsafe(_awaited(given), self._started()).result()
        return given

    def _started(self) -> asyncio.AbstractEventLoop:
        """One loop for all calls: a client's connections belong to the loop that opened them."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run_loop, args=(self._loop,), name="own-teacher", daemon=True).start()
            return self._loop


async def _awaited(given: Any) -> Any:
    return await given


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _reply(request: AnyRequest, given: str | Reply, attempt: int) -> Reply:
    """A reply cut at the stop strings, with its tokens counted as a budget counts them where nobody else did."""
    reply = Reply(given) if isinstance(given, str) else given
    stops = request.stop if isinstance(request, Request) else ()
    cuts = [at for stop in stops if stop and (at := reply.text.find(stop)) >= 0]
    return replace(
        reply,
        text=reply.text[: min(cuts)] if cuts else reply.text,
        prompt_tokens=reply.prompt_tokens or expected_tokens(request)[0],
        completion_tokens=reply.completion_tokens or most_tokens(reply.text),
        attempts=attempt,
    )


def own_name(given: Any, options: Mapping[str, Any]) -> str:
    """What settings call a teacher of one's own: `python:` and its name.

    Args:
        given: What was given as `teacher`: an object of the protocol or a function.
        options: `teacher_options` beside it.

    Raises:
        OptionError: It is neither, or has no name, or the options are not for it; lists every fault.
    """
    return open_own(given, options).name if not _is_object(given) else f"{BACKEND}:{_checked(given, options).name}"


def open_own(given: Any, options: Mapping[str, Any]) -> Teacher:
    """The teacher that a function or an object of the protocol is. Arguments and errors are those of `own_name`."""
    if _is_object(given):
        return _checked(given, options)
    if isinstance(given, type) or not callable(given):
        what = f"the class {given.__name__}; give an object of it" if isinstance(given, type) else f"{given!r:.80}"
        raise OptionError(
            "teacher",
            [
                "a name such as transformers or openai:URL#MODEL is needed, a function from messages to text, or an "
                f"object with {', '.join(_PROTOCOL)} (got {what})"
            ],
        )
    return FunctionTeacher(given, build_options(FunctionOptions, options, "teacher"))


def _is_object(given: Any) -> bool:
    return not isinstance(given, type) and hasattr(given, "stream")


def _checked(given: Any, options: Mapping[str, Any]) -> Teacher:
    """An object, if it fulfils the protocol in what can be seen without asking it anything."""
    lacking = [name for name in _PROTOCOL if not hasattr(given, name)]
    faults = [f"{type(given).__name__} lacks {', '.join(lacking)} (see potstill.asking.teacher.Teacher)"] * bool(
        lacking
    )
    if options:
        faults.append(f"{', '.join(options)}: options are for a function or a named teacher; an object has its own")
    if not lacking:
        if not isinstance(given.name, str) or not given.name.strip():
            faults.append(f"name must be a text (got {given.name!r})")
        if not _is_identity(given.identity):
            faults.append(
                "identity must be a mapping of texts that says what decides a reply, such as "
                f'{{"backend": "mine", "model": "…", "version": "1"}} (got {given.identity!r:.80})'
            )
        if not isinstance(given.abilities, Abilities):
            faults.append(f"abilities must be potstill.asking.teacher.Abilities (got {given.abilities!r:.80})")
        if not isinstance(given.concurrency, int) or given.concurrency < 1:
            faults.append(f"concurrency must be a whole number of 1 or more (got {given.concurrency!r})")
    if faults:
        raise OptionError("teacher", faults)
    checked: Teacher = given
    return checked


def _is_identity(value: Any) -> bool:
    return (
        isinstance(value, Mapping) and bool(value) and all(isinstance(x, str) for item in value.items() for x in item)
    )


def _own_name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "" if hasattr(function, "func") else type(function).__name__)
    if not name or name == "<lambda>":
        raise OptionError(
            "teacher", ["the function has no name of its own; give it one with teacher_options={'name': 'my-model'}"]
        )
    return str(name)


def _arguments(function: Callable[..., Any]) -> int:
    """1 where the messages are all that it takes, 2 where it takes the request as well."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return 1
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_name = [p.name for p in parameters if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    spread = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    optional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if by_name or len(needed) > 2 or not (optional or spread):
        raise OptionError(
            "teacher",
            [
                f"{getattr(function, '__name__', type(function).__name__)} must take the messages, or the messages "
                f"and the request (it takes {inspect.signature(function)})"
            ],
        )
    return max(1, len(needed))


def _version(function: Callable[..., Any], name: str) -> str:
    digest = function_digest(function)
    if digest != function_digest(function):
        raise OptionError(
            "teacher",
            [
                f"what {name} answers cannot be told from its source, for it reads an object whose state no other run "
                "can compare (a client, a model, a lock); say when its answers are other ones with "
                "teacher_options={'version': '1'}"
            ],
        )
    return digest[:32]


def given_again(name: str, folder: Path) -> OptionError:
    """What is said where a run that a teacher of one's own began is to go on without it."""
    return OptionError(
        "teacher",
        [
            f"{folder} was begun with a teacher of one's own in Python, {name}; give it again with "
            "potstill.run(…, teacher=…), or name another one, such as teacher: transformers"
        ],
    )
