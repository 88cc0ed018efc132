"""The URLs behind one OpenAI-compatible teacher: their connections, which one to ask now, one attempt at one of them.

What enters is a path and a body; what leaves is the JSON of the answer, or a `Fault` that says whose it was. An
endpoint that is away, or fails at once, is left alone for a while, so that it does not draw the requests that others
could answer; each URL has a pace of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from potstill.datagen.teachers.openai_wire import (
    Fault,
    Secrets,
    body_of,
    connection_fault,
    hidden_fault,
    parse_body,
    send,
    stated_tokens,
    status_fault,
)
from potstill.datagen.teachers.rate_limits import Turn, told_pause_s
from potstill.errors import BadOptions, OptionFault

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from potstill.datagen.teachers.pace import Pace
    from potstill.datagen.teachers.rate_limits import RateLimits

_CONNECT_S = 15.0
_LOG = logging.getLogger(__name__)
# Attempts in a row after which an endpoint that had answered counts as away.
_TOLD_AFTER = 5
_LOGGERS = ("httpx2", "httpx", "httpcore2.connection", "httpcore2.http11", "openai", "openai._base_client")


class _Masked(logging.Filter):
    """Takes secrets out of what other libraries log."""

    def __init__(self, secrets: Secrets):
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the message; every record passes."""
        record.msg, record.args = self._secrets.mask(record.getMessage()), ()
        return True


def _client(make: type[AsyncOpenAI], url: str, **options: Any) -> AsyncOpenAI:
    """A client whose address keeps its query: the client would write paths behind it."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    return make(base_url=urlunsplit(parts._replace(query="")), default_query=query, **options)


@dataclass(frozen=True)
class OpenAIOptions:
    """How the server is asked.

    Attributes:
        concurrency: Most requests at a time, over all URLs.
        start: Requests at a time before anything is known of the server; a vLLM server gets `concurrency`.
        timeout_s: Most seconds for one attempt.
        attempts: Most attempts that a request may fail by its own fault (500, half a JSON, no choices, timeout).
        backoff_s: First pause after a fault; doubles, with jitter, up to `longest_pause_s`.
        longest_pause_s: Longest pause between two attempts.
        startup_s: How long an endpoint that never answered is waited for.
        patience_s: How long an endpoint that went away, only throttles, or is down behind its gateway (502, 503, 504)
            is waited for.
        flavour: `vllm` or `openai`; `auto` asks the server's model list.
        key_variable: Environment variable that holds the key.
        thinking_tokens: Tokens that a model may think for before it answers, on top of the bound of each answer. None
            is 4,096 for OpenAI's thinking models (gpt-5, o3) and 0 for others. With 0 a vLLM server is told that the
            model is not to think at all, and another one if 0 was said (`chat_template_kwargs`).
        top_logprobs: Most log-probs a token that a vLLM server gives: its `--max-logprobs`.
        effort: How much it should think, in the server's words (`minimal`, `low`, `high`); empty leaves it to it.
        usd_read: US dollars for a million tokens read, where you know better than the list of prices, or where a
            server on a machine of your own passes requests on to one that is paid.
        usd_written: The same for a million tokens written.
        requests_per_minute: Most requests within any 60 seconds, over all URLs and with those that are sent again; 0
            for no limit. They are spread over the minute.
        tokens_per_minute: The same of prompt and completion tokens. What a request may take is set aside before it is
            sent, and what it took counts once its reply is there.
    """

    concurrency: int = 64
    start: int = 16
    timeout_s: float = 300.0
    attempts: int = 8
    backoff_s: float = 0.5
    longest_pause_s: float = 30.0
    startup_s: float = 20.0
    patience_s: float = 300.0
    flavour: Literal["auto", "openai", "vllm"] = "auto"
    key_variable: str = "OPENAI_API_KEY"
    thinking_tokens: int | None = None
    top_logprobs: int = 20
    effort: str = ""
    usd_read: float | None = None
    usd_written: float | None = None
    requests_per_minute: float = 0.0
    tokens_per_minute: int = 0

    def __post_init__(self) -> None:
        faults: list[OptionFault] = []
        for name in ("concurrency", "start", "timeout_s", "attempts", "top_logprobs"):
            if getattr(self, name) <= 0:
                faults.append(OptionFault(f"{name} must be above 0, got {getattr(self, name)}", name))
        for name in ("usd_read", "usd_written", "thinking_tokens", "requests_per_minute", "tokens_per_minute"):
            if (getattr(self, name) or 0) < 0:
                faults.append(OptionFault(f"{name} must not be below 0, got {getattr(self, name)}", name))
        if faults:
            raise BadOptions(faults)


@dataclass
class Endpoint:
    """One URL with its client, its pace and what is known of its health."""

    url: str
    client: AsyncOpenAI
    pace: Pace
    away_until: float = 0.0
    failing: int = 0  # attempts in a row that got no answer
    models: tuple[str, ...] = field(default_factory=tuple)
    answered: bool = False
    told: bool = False  # that it is away


def root_path(endpoint: Endpoint, path: str) -> str:
    """The address of what vLLM serves beside `/v1`, not below it."""
    return f"{endpoint.url.removesuffix('/v1')}{path}"


class Endpoints:
    """The endpoints of one teacher; used from its event loop.

    Args:
        urls: Addresses as they are asked.
        shown: The same without secrets.
        key: The API key; empty for servers that want none.
        secrets: What no message may hold.
        options: How they are asked.
        limits: The gate of what may be asked in a minute; None where nothing limits it.

    Attributes:
        last_success: When any of them last answered (monotonic seconds), or None.
        waiting_since: When the first attempt after that was sent, or None; a limit may have kept it back for long.
    """

    def __init__(
        self,
        urls: Sequence[str],
        shown: Sequence[str],
        key: str,
        secrets: Secrets,
        options: OpenAIOptions,
        limits: RateLimits | None = None,
    ):
        import httpx2
        from openai import AsyncOpenAI

        from potstill.datagen.teachers.pace import Pace

        self._options = options
        self._secrets = secrets
        self._limits = limits
        self.last_success: float | None = None
        self.waiting_since: float | None = None
        # A host that does not even take the connection must not hold a request for as long as an answer may take.
        timeout = httpx2.Timeout(options.timeout_s, connect=min(options.timeout_s, _CONNECT_S))
        # A server of one's own queues by itself; slowing the start would only leave it idle.
        start = options.concurrency if options.flavour == "vllm" else options.start
        most = max(1, -(-options.concurrency // len(urls)))
        self._all = [
            Endpoint(
                name,
                _client(AsyncOpenAI, url, api_key=key or "EMPTY", max_retries=0, timeout=timeout),
                Pace(max(1, start // len(urls)), most),
            )
            for url, name in zip(urls, shown, strict=True)
        ]

        # The client's libraries log each address that they ask, with what is in it.
        self._masked = _Masked(secrets)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self._masked)

    @property
    def shown(self) -> str:
        """Their addresses, without secrets."""
        return ", ".join(endpoint.url for endpoint in self._all)

    @property
    def models(self) -> list[str]:
        """Names that the endpoints listed, sorted."""
        return sorted({name for endpoint in self._all for name in endpoint.models})

    @property
    def all_failing(self) -> bool:
        """Whether none may be at work on its first answer, which can take long."""
        return all(endpoint.failing for endpoint in self._all)

    def full_speed(self) -> None:
        """Let every endpoint take its most at once."""
        for endpoint in self._all:
            endpoint.pace.limit = float(endpoint.pace.most)

    async def close(self) -> None:
        """Close the connections."""
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self._masked)
        for endpoint in self._all:
            with contextlib.suppress(Exception):
                await endpoint.client.close()

    async def owners(self) -> list[str]:
        """Owners of the models that the endpoints list; those that are away are left out, for the others serve.

        Raises:
            Fault: None answered, or one refuses the key.
        """

        async def owner(endpoint: Endpoint) -> str | Fault:
            try:
                body = await self.call(endpoint, "GET", "/models")
            except Fault as fault:
                if fault.kind == "unfit" or (fault.kind == "fatal" and "404" in str(fault)):
                    return ""
                return fault
            listed = [item for item in body.get("data") or () if isinstance(item, dict)]
            endpoint.models = tuple(str(item.get("id")) for item in listed)
            return next((str(item.get("owned_by")) for item in listed), "")

        found = await asyncio.gather(*(owner(endpoint) for endpoint in self._all))
        faults = [item for item in found if isinstance(item, Fault)]
        owners = [item for item in found if isinstance(item, str)]
        fatal = next((fault for fault in faults if fault.kind == "fatal"), None)
        if fatal is not None or not owners:
            raise fatal or faults[0]
        return owners

    def pick(self) -> Endpoint:
        """The endpoint to ask now: one that is not away, with the most room."""
        now = time.monotonic()
        near = [endpoint for endpoint in self._all if endpoint.away_until <= now] or self._all
        return min(near, key=lambda endpoint: (endpoint.pace.active + 1) / endpoint.pace.limit)

    def _tell(self, endpoint: Endpoint, fault: Fault) -> None:
        """Say once that one of several endpoints is away: the others do its work, and nobody would notice."""
        never = fault.kind == "away" and not endpoint.answered
        if len(self._all) > 1 and not endpoint.told and (never or endpoint.failing >= _TOLD_AFTER):
            endpoint.told = True
            _LOG.warning("%s gives no answer (%s); until it does, the other addresses are asked", endpoint.url, fault)

    async def call(
        self,
        endpoint: Endpoint,
        method: Literal["GET", "POST"],
        path: str,
        body: Mapping[str, Any] | None = None,
        tokens: int = 0,
    ) -> dict[str, Any]:
        """One attempt at one endpoint; `path` follows the base URL, or is absolute.

        Args:
            endpoint: Where.
            method: Of HTTP.
            path: What.
            body: What is sent.
            tokens: The most prompt and completion tokens that it can take, for the limits a minute.

        Raises:
            Fault: Whatever went wrong, by kind; no secret is in its text and no cause is attached.
        """
        import openai

        async with endpoint.pace.turn(), self._turn(endpoint, tokens) as turn:
            fault: Fault
            began = time.monotonic()
            self.waiting_since = self.waiting_since or began
            try:
                response = await asyncio.wait_for(send(endpoint.client, method, path, body), self._options.timeout_s)
                found = parse_body(response.headers.get("content-type", ""), response.content, self._secrets)
                if (hidden := hidden_fault(found, self._secrets)) is not None:
                    raise hidden
            except openai.APIStatusError as error:
                fault = status_fault(error.status_code, error.response.headers, body_of(error.response), self._secrets)
            except (openai.APITimeoutError, TimeoutError) as error:
                if "ConnectTimeout" in type(error.__cause__).__name__:
                    fault = Fault("away", f"no connection within {_CONNECT_S:g} s")
                else:
                    fault = Fault("again", f"no answer within {self._options.timeout_s:g} s")
            except openai.APIConnectionError as error:
                fault = connection_fault(error, self._secrets)
            except Fault as error:
                fault = error
            except (OSError, ValueError, RuntimeError, openai.OpenAIError) as error:
                fault = Fault("again", self._secrets.mask(f"{type(error).__name__}: {error}")[:300])
            else:
                self.last_success, self.waiting_since = time.monotonic(), None
                endpoint.away_until, endpoint.failing = 0.0, 0
                endpoint.answered = True
                endpoint.pace.succeeded()
                if any(stated := stated_tokens(found)):
                    turn.took(sum(stated))
                if (pause := told_pause_s(response.headers, tokens)) > 0:
                    endpoint.pace.hold(pause)
                return found
            if fault.kind != "again":  # of one that broke off nobody knows what it took
                turn.took(0)
            if fault.kind == "throttle":
                pause = min(fault.retry_after_s or 0.0, self._options.patience_s)
                endpoint.pace.throttle(began, pause)
            elif fault.kind in ("away", "down", "again"):
                # What fails at once is always free: without this it would draw the requests that others could answer.
                endpoint.failing += 1
                away_s = 1.0 if fault.kind == "away" else min(5.0, 0.05 * 2 ** min(endpoint.failing, 10))
                endpoint.away_until = time.monotonic() + away_s
                self._tell(endpoint, fault)
        raise fault from None

    @contextlib.asynccontextmanager
    async def _turn(self, endpoint: Endpoint, tokens: int) -> AsyncIterator[Turn]:
        if self._limits is None:
            yield Turn(None, None)
            return
        async with self._limits.turn(tokens, endpoint.pace.pause_s) as turn:
            yield turn
