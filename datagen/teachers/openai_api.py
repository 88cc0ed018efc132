"""The OpenAI-compatible teacher: any such server, through the openai client.

What enters are requests; what leaves are replies in the order they finish. Attempts run in an event loop of their
own thread; the client's own retries are off, because here the faults decide: what a server asks to be slowed down
(429) slows every request down (`pace`), what went wrong once is asked again with jittered backoff a bounded number
of times, an endpoint that goes away is waited for within a bound, and a refusal that would meet every request
(a wrong key, an unknown model) ends the stream at once with the mend. Several URLs serve as one teacher.

With a vLLM server behind the URL a reply can be started for it, labels can be scored, and token log-probs carry
their ids; other servers offer none of these.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from potstill.asking.answering_template import SWITCHES
from potstill.asking.budget import Purse
from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Request, Take
from potstill.asking.token_estimate import expected_tokens
from potstill.datagen.teachers.openai_attempts import Ask, harmless_like, until_answered
from potstill.datagen.teachers.openai_endpoints import Endpoints, OpenAIOptions, root_path
from potstill.datagen.teachers.openai_fields import LOGPROB_FIELDS, fitted, is_thinking, refused_from_the_start
from potstill.datagen.teachers.openai_scores import ThoughtTokens, plain_tokens, scored
from potstill.datagen.teachers.openai_turns import Openings, turn_fault, user_turn
from potstill.datagen.teachers.openai_wire import Fault, Flavour, Secrets, chat_body, chat_reply, split_url
from potstill.datagen.teachers.rate_limits import RateLimits
from potstill.errors import OptionError, TeacherError, TeacherRefused, TeacherUnavailable

_LOG = logging.getLogger(__name__)
DEFAULT_URL = "https://api.openai.com/v1"
# OpenAI's bound on the texts of likely tokens.
_MAX_TOP = 20
_THINKING_TOKENS = 4096
# So many requests in a row with no reply: the server is out of order, and the rest would only fail slowly.
_MOST_FAILURES = 32
# So many refusals in a row: theirs, or has the server begun to refuse everything?
_DOUBTED_REFUSALS = 8


class OpenAITeacher:
    """A server, or several that serve the same model; see the module's text."""

    def __init__(self, url: str = "", model: str = "", options: OpenAIOptions | None = None):
        """Args:
            url: Base URL (ending in `/v1`), several with commas; empty takes `OPENAI_BASE_URL` or api.openai.com.
            model: Model name; empty takes the one that the server lists.
            options: How it is asked.

        Raises:
            OptionError: A URL that is none, or no key for api.openai.com.
        """
        from pydantic import SecretStr

        self.options = options or OpenAIOptions()
        given = url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
        self._urls = [part.strip() for part in given.split(",") if part.strip()]
        stripped = [split_url(part) for part in self._urls]
        self._shown = [shown for shown, _ in stripped]
        self._key = SecretStr(os.environ.get(self.options.key_variable, ""))
        texts = [text for _, found in stripped for text in found]
        # A value of a query alone, too: the client may write the query anew.
        texts += [value for text in texts for _, value in parse_qsl(text) if len(value) > 3]
        self._secrets = Secrets((self._key.get_secret_value(), *texts))
        faults = [
            f"{shown!r} is no URL of a server; write it like http://localhost:8000/v1"
            for shown in self._shown
            if not shown.startswith(("http://", "https://")) or shown.count("/") < 2 or not shown.split("/")[2]
        ]
        if not self._key.get_secret_value() and any("//api.openai.com" in shown for shown in self._shown):
            faults.append(f"no key for api.openai.com; set the environment variable {self.options.key_variable}")
        if not model and len(faults) == 0 and any("//api.openai.com" in shown for shown in self._shown):
            faults.append("no model for api.openai.com; write openai:#MODEL, such as openai:#gpt-5-mini")
        if faults:
            raise OptionError("teacher", faults)
        self._model = model
        limits = self.options.requests_per_minute, self.options.tokens_per_minute
        self._limits = RateLimits(*limits) if any(limits) else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._replied = False
        self._began = time.monotonic()
        # Fields of a chat request that the server does not take.
        self.refused_fields = set[str]()
        for shown in self._shown:
            self.refused_fields |= refused_from_the_start(urlsplit(shown).hostname or "", model)
        # Who pays for attempts that gave nothing usable; set by who streams, and taken when the stream begins.
        self.purse: Purse | None = None
        # Tokens of continuations by what stands before them, filled by `openai_scores`.
        self.continuation_tokens: dict[tuple[tuple[str, str], str], tuple[int, ...]] = {}
        # Tokens of a thought's marks, by which one is known that the template opens; filled there too.
        self.thought_tokens: ThoughtTokens | None = None
        # What a user's words stand between, filled by `openai_turns`.
        self.openings = Openings()

    def __repr__(self) -> str:
        return f"OpenAITeacher({','.join(self._shown)!r}, {self._model!r})"

    @property
    def name(self) -> str:
        """Short name for people, without secrets."""
        return f"openai:{','.join(self._shown)}#{self._model}"

    @property
    def model(self) -> str:
        """The model's name; asks the server where none was given."""
        if not self._model:
            _ = self._flavour
        return self._model

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """Backend, endpoint and model."""
        named = {"backend": "openai", "endpoint": ",".join(sorted(self._shown)), "model": self.model}
        return named | ({"effort": self.options.effort} if self.options.effort else {})

    @property
    def abilities(self) -> Abilities:
        """By flavour; asks the server's model list once. A model that thinks could not do so before a beginning."""
        vllm = self._flavour == "vllm"
        return Abilities(
            prefill=vllm and not self.thinking_tokens, scores=vllm, token_ids=vllm, user_turn=vllm,
            json_schema=True, choices=True,
            top_logprobs=self.options.top_logprobs if vllm else 0,
            token_texts=0 if vllm or LOGPROB_FIELDS & self.refused_fields else _MAX_TOP,
        )  # fmt: skip

    @property
    def concurrency(self) -> int:
        """Most requests at a time."""
        return self.options.concurrency

    @property
    def thinking_tokens(self) -> int:
        """Tokens that each request may take beyond its own bound."""
        if self.options.thinking_tokens is not None:
            return self.options.thinking_tokens
        return _THINKING_TOKENS if is_thinking(self._model) else 0

    @cached_property
    def _flavour(self) -> Flavour:
        if self.options.flavour != "auto" and self._model:
            return self.options.flavour
        if self._model and all("//api.openai.com" in shown for shown in self._shown):
            return "openai"
        self._began = time.monotonic()
        owned_by_vllm = self._wait(self._probe())
        if self.options.flavour != "auto":
            return self.options.flavour
        return "vllm" if owned_by_vllm else "openai"

    def tokens_of(self, text: str) -> list[int]:
        """The numbers of a text's tokens, as a vLLM server tells them (see `Tokenizes`)."""
        try:
            return list(self._wait(self._attempts(lambda: plain_tokens(self, self.endpoints.pick(), text))))
        except Fault as fault:
            raise self._refused(fault) from None

    def user_turn_fault(self) -> str:
        """Why the served model cannot write a user's turn, with the mend; "" where it can."""
        return str(self._wait(turn_fault(self)))

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        """Answer everything that `take` gives, in the order of completion.

        Raises:
            TeacherRefused: A wrong key, an unknown model or URL, or requests refused whatever they say.
            TeacherUnavailable: The endpoint stayed unreachable or throttled for longer than allowed.
        """
        # None wakes this thread: a request that waited for its minute has gone, and another may be taken.
        done: queue.SimpleQueue[tuple[AnyRequest, Reply | Failure | TeacherError | Fault | BaseException] | None]
        done = queue.SimpleQueue()
        if self._limits is not None:
            self._limits.passed = lambda: done.put(None)
        # By id: each request without an outcome, its attempts' faults, and the work on it.
        flying: dict[int, tuple[AnyRequest, list[Fault], Future[None]]] = {}
        purse, self.purse = self.purse, None
        # Requests refused (400) before anything succeeded: a fault of theirs, or of all?
        doubtful: list[tuple[AnyRequest, Fault]] = []
        failures = refusals = 0
        self._began = time.monotonic()
        try:
            while True:
                room = self.options.concurrency - len(flying)
                if self._limits is not None:
                    room = min(room, self._limits.room(len(flying)))
                taken = take(room) if room > 0 else ()
                # Asked from this thread: the event loop cannot wait for itself.
                flavour = self._flavour if taken else "openai"
                for request in taken:
                    faults: list[Fault] = []
                    work = self._finish(request, flavour, done, faults, purse)
                    flying[id(request)] = request, faults, asyncio.run_coroutine_threadsafe(work, self._started())
                if not flying:
                    if not taken:
                        break
                    continue
                outcome: Any
                if (came := done.get()) is None:
                    continue
                request, outcome = came
                del flying[id(request)]
                if isinstance(outcome, Fault):
                    if not self._replied:
                        doubtful.append((request, outcome))
                        if len(doubtful) < 3 and flying:
                            continue
                        # A run that goes on may have nothing left but what is refused: a harmless request tells.
                        fault = self._wait(self._tried(harmless_like(request), self._flavour))
                        if fault is not None:
                            raise self._refused(fault)
                        outcome = None
                        self._replied = True
                elif isinstance(outcome, BaseException):
                    raise outcome
                elif isinstance(outcome, Reply):
                    self._replied = True
                    refusals = 0
                if self._replied:
                    for other, fault in doubtful:
                        yield other, Failure(str(fault))
                    doubtful.clear()
                if outcome is None:
                    continue
                if isinstance(outcome, Fault):
                    refusals += 1
                    self._replied = refusals % _DOUBTED_REFUSALS != 0
                    yield request, Failure(str(outcome))
                    continue
                failures = failures + 1 if isinstance(outcome, Failure) else 0
                yield request, outcome
                if failures >= _MOST_FAILURES:
                    assert isinstance(outcome, Failure)
                    raise TeacherUnavailable(
                        f"{', '.join(self._shown)} failed {failures} requests in a row ({outcome.reason}); check the "
                        "server, then run again: finished replies are in the ledger"
                    )
        finally:
            if self._limits is not None:
                self._limits.passed = None
            if purse is not None:
                while not done.empty():
                    if (came := done.get()) is None:
                        continue
                    request, outcome = came
                    del flying[id(request)]
                    if isinstance(outcome, Reply | Failure):
                        purse.receive(request, outcome)
            for request, faults, future in flying.values():
                future.cancel()
                if purse is not None and any(_paid(faults)):
                    left = Failure("left before it was answered", len(faults), *_paid(faults), passing=True)
                    purse.receive(request, left)

    def close(self) -> None:
        """Close the connections and stop the thread."""
        if self._loop is None or self._thread is None:
            return

        async def shut() -> None:
            current = asyncio.current_task()
            tasks = [task for task in asyncio.all_tasks() if task is not current]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.endpoints.close()

        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(shut(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
        self._loop = self._thread = None
        self.__dict__.pop("endpoints", None)

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._started()).result()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="openai-teacher", daemon=True)
            self._thread.start()
        return self._loop

    @cached_property
    def endpoints(self) -> Endpoints:
        """The URLs with their connections, opened at first use in the event loop's thread."""
        key = self._key.get_secret_value()
        return Endpoints(self._urls, self._shown, key, self._secrets, self.options, self._limits)

    async def _probe(self) -> bool:
        """Ask the model lists; True when all endpoints that answer are vLLM servers. Fills in the model's name."""
        try:
            owners: list[str] = await self._attempts(self.endpoints.owners)
        except Fault as fault:
            raise self._refused(fault) from None
        names = self.endpoints.models
        if not self._model:
            if len(names) != 1:
                listed_names = ", ".join(names[:8]) or "none"
                raise TeacherRefused(
                    f"{', '.join(self._shown)} lists {len(names)} models ({listed_names}), so one must be named: "
                    f"openai:{self._shown[0]}#MODEL"
                )
            self._model = names[0]
        if not all(owner == "vllm" for owner in owners):
            return False
        self.endpoints.full_speed()
        return self.options.flavour != "auto" or await self._tokenizes()

    async def _tokenizes(self) -> bool:
        """Whether a vLLM server can be reached beside `/v1`, too: hosted ones and proxies often pass that on alone."""
        endpoint = self.endpoints.pick()
        try:
            body = {"model": self._model, "prompt": "a"}
            await self.endpoints.call(endpoint, "POST", root_path(endpoint, "/tokenize"), body)
        except Fault as fault:
            if fault.kind not in ("unfit", "fatal"):
                return True  # a moment's trouble says nothing of what is there
            _LOG.warning(
                "%s is a vLLM server without /tokenize beside /v1 (%s): it writes texts and scores none",
                self.name, fault,
            )  # fmt: skip
            return False
        return True

    async def _tried(self, request: AnyRequest, flavour: Flavour) -> Fault | None:
        """What is wrong with a request, or None where it is answered."""
        try:
            await self._attempts(lambda: self._asked(request, flavour))
        except Fault as fault:
            return None if fault.kind == "spent" else fault
        return None

    async def _asked(self, request: AnyRequest, flavour: Flavour) -> Any:
        if isinstance(request, Request):
            return await (user_turn(self, request) if request.turn == "user" else self._chat(request, flavour))
        return await scored(self, request)

    async def _finish(
        self,
        request: AnyRequest,
        flavour: Flavour,
        done: queue.SimpleQueue[Any],
        faults: list[Fault],
        purse: Purse | None,
    ) -> None:
        try:
            outcome: Any = await until_answered(
                lambda: self._asked(request, flavour), faults, self.endpoints, self.options, self._began,
                harmless=lambda: self._asked(harmless_like(request), flavour),
                again=None if purse is None else lambda *paid: purse.again(request, *paid),
            )  # fmt: skip
            if faults and isinstance(outcome, Reply):
                prompt, completion = _paid(faults)
                outcome = replace(
                    outcome,
                    attempts=1 + len(faults),
                    prompt_tokens=outcome.prompt_tokens + prompt,
                    completion_tokens=outcome.completion_tokens + completion,
                )
        except asyncio.CancelledError:
            raise
        except Fault as fault:
            if fault.kind == "fatal":
                outcome = self._refused(fault)
            elif fault.kind == "unfit":
                outcome = fault
            elif fault.kind == "spent":
                outcome = Failure(str(fault), len(faults), *_paid(faults))
            else:
                reason = f"no reply after {len(faults)} attempts, the last: {fault}"
                outcome = Failure(reason, len(faults), *_paid(faults), passing=fault.kind != "amiss")
        except BaseException as error:
            outcome = error
        done.put((request, outcome))

    def chat_body(self, request: Request, flavour: Flavour) -> dict[str, Any]:
        """What is sent for a request: no field that the server is known to refuse."""
        body = chat_body(request, self._model, flavour)
        body["max_tokens"] += self.thinking_tokens
        if self.options.effort:
            body["reasoning_effort"] = self.options.effort
        if flavour == "vllm" or self.options.thinking_tokens == 0:
            body["chat_template_kwargs"] = dict.fromkeys(SWITCHES, self.thinking_tokens > 0)
        return fitted(body, self.refused_fields)

    async def _chat(self, request: Request, flavour: Flavour) -> Reply:
        body, most = self.chat_body(request, flavour), sum(expected_tokens(request)) + self.thinking_tokens
        while True:
            try:
                answer = await self.endpoints.call(self.endpoints.pick(), "POST", "/chat/completions", body, most)
                return chat_reply(answer, request, flavour)
            except Fault as fault:
                refused = fault.fields & set(body)
                self.leave_out(refused, str(fault))
                body = self.chat_body(request, flavour)
                if not refused or refused & set(body):  # none, or one without which nothing can be asked
                    raise

    def leave_out(self, refused: frozenset[str], said: str) -> None:
        """Send fields no longer that the server refuses, and tell why."""
        new = refused - self.refused_fields
        if new:
            self.refused_fields |= new
            _LOG.warning("%s takes no %s and is asked without (%s)", self.name, ", ".join(sorted(new)), said)

    async def _attempts(self, ask: Ask) -> Any:
        return await until_answered(ask, [], self.endpoints, self.options, self._began)

    def _refused(self, fault: Fault) -> TeacherError:
        said = str(fault)
        where = f"{', '.join(self._shown)} (model {self._model or '?'})"
        if fault.kind in ("again", "amiss", "throttle", "away", "down"):
            return TeacherUnavailable(f"{where} gives no usable answer: {said}; check the URL and the server")
        if "HTTP 401" in said or "HTTP 403" in said:
            mend = f"check the key in {self.options.key_variable} and what it may use"
        elif "HTTP 404" in said:
            served = self.endpoints.models
            listed = f" (served: {', '.join(served[:5])})" if served else ""
            mend = f"check the model's name{listed} and that the URL ends in /v1"
        elif "HTTP 429" in said or "HTTP 402" in said:
            mend = "the account has no credit left; add some, or use another teacher"
        else:
            mend = "the server does not take these requests; check the model, its context length and the options"
        return TeacherRefused(f"{where} refused: {said}; {mend}")


def _paid(faults: list[Fault]) -> tuple[int, int]:
    """Prompt and completion tokens that attempts took which gave nothing usable."""
    return sum(fault.paid[0] for fault in faults), sum(fault.paid[1] for fault in faults)
