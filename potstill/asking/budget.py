"""Caps on what a run may spend: `2usd`, `500k-tokens`, `30min`, or several with commas; the first one met stops.

What enters is the text that the user wrote and, while a run goes on, the size of each request before it is sent
and of each reply after it came. What leaves is a verdict: send, wait, or stop.

Money and tokens are counted over the whole run folder, earlier calls of the same run included, so that running
again never pays twice for one cap; time is counted from the start of this call. A request is sent only when its
worst case (the most tokens that its prompt can have, and `max_tokens`) still fits beside what is spent and what is in
flight, so the cap is not overshot by a full engine; so is a second attempt where the first was billed for nothing.
Prices come from genai-prices; a teacher on a machine of your own (in this process, or behind an address of this machine
or network) costs nothing, whatever its model's name, unless you say what it costs: `teacher_options.usd_read` and
`usd_written`.

Time stops requests and stages that have not begun; a training under way ends first.

Where the run is told to `train` at its budget (`Budget.then`), it goes on with what is paid for: whoever asks the
teacher takes what has come by then (`as_paid`), and stages begin after the time is over, too.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable
from urllib.parse import urlsplit

from potstill.asking.teacher import AnyRequest, Failure, Reply
from potstill.asking.token_estimate import expected_tokens
from potstill.errors import BudgetReached, OptionError

Verdict = Literal["send", "wait", "stop"]
Then = Literal["stop", "train"]


class Purse(Protocol):
    """Who pays for the attempts of a teacher that asks again by itself: its `purse`, for the next stream."""

    def again(self, request: AnyRequest, prompt_tokens: int, completion_tokens: int) -> Verdict:
        """Whether a request may be sent again, after an attempt that was billed for so much and gave nothing usable.

        After `wait` the same is asked a little later. May be called from any thread.
        """
        ...

    def receive(self, request: AnyRequest, reply: Reply | Failure) -> None:
        """Take what came, or was billed, for a request whose answer nobody waits for any more."""
        ...


@runtime_checkable
class Payer(Protocol):
    """A teacher that asks its purse before it pays for another attempt."""

    purse: Purse | None


_AMOUNT = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmb]?)\s*[- ]?\s*([a-z$]+)")
_SCALE = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}
_UNITS: Mapping[str, tuple[str, float]] = {
    **dict.fromkeys(("usd", "dollar", "dollars", "$"), ("usd", 1.0)),
    **dict.fromkeys(("token", "tokens", "tok"), ("tokens", 1.0)),
    **dict.fromkeys(("s", "sec", "second", "seconds"), ("seconds", 1.0)),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), ("seconds", 60.0)),
    **dict.fromkeys(("h", "hour", "hours"), ("seconds", 3600.0)),
}


@dataclass(frozen=True)
class Budget:
    """Caps; None is no cap.

    Attributes:
        usd: US dollars, over the whole run.
        tokens: Prompt and completion tokens, over the whole run.
        seconds: Wall-clock seconds of this call.
        then: What follows when a cap is met: the run ends, or goes on with what is paid for.
    """

    usd: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    then: Then = "stop"

    @staticmethod
    def parse(text: str) -> Budget:
        """Read `2usd`, `$2`, `500k-tokens`, `30min`, `1.5h`, or several with commas.

        Raises:
            OptionError: A part that is no amount with a unit, an amount of zero, or a unit given twice.

        Examples:
            >>> Budget.parse("2usd, 500k-tokens")
            Budget(usd=2.0, tokens=500000, seconds=None, then='stop')
            >>> Budget.parse("1.5h").seconds
            5400.0
        """
        caps: dict[str, float] = {}
        faults: list[str] = []
        for part in text.lower().split(","):
            word = part.strip()
            if word.startswith("$"):
                word = word[1:] + "$"
            match = _AMOUNT.fullmatch(word)
            # `2min` must not be read as 2 million `in`; a scale letter counts only where a unit follows it.
            amount, scale, unit = match.groups() if match else ("", "", "")
            if unit not in _UNITS and scale + unit in _UNITS:
                scale, unit = "", scale + unit
            if not match or unit not in _UNITS:
                faults.append(f"budget {part.strip()!r} is no amount with a unit; write 2usd, 500k-tokens or 30min")
                continue
            name, factor = _UNITS[unit]
            value = float(amount) * _SCALE[scale] * factor
            if value <= 0:
                faults.append(f"budget {part.strip()!r} is zero; leave the budget out for no cap")
            elif name in caps:
                faults.append(f"budget {part.strip()!r}: there is a second cap on {name} in {text!r}; keep one")
            caps[name] = value
        if faults:
            raise OptionError("budget", faults)
        return Budget(
            usd=caps.get("usd"),
            tokens=None if "tokens" not in caps else int(caps["tokens"]),
            seconds=caps.get("seconds"),
        )

    def __str__(self) -> str:
        parts = []
        if self.usd is not None:
            parts.append(f"{self.usd:g} USD")
        if self.tokens is not None:
            parts.append(f"{self.tokens:,} tokens")
        if self.seconds is not None:
            parts.append(f"{self.seconds / 60:g} min" if self.seconds >= 60 else f"{self.seconds:g} s")
        return ", ".join(parts) or "no cap"


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens."""

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars for so many tokens.

        Examples:
            >>> Price(prompt=2.5, completion=10.0).cost(1_000_000, 100_000)
            3.5
        """
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


_HERE = ("transformers", "vllm", "fake")
_OWN_SUFFIXES = (".localhost", ".local", ".lan", ".internal", ".home.arpa")


def is_own(identity: Mapping[str, str]) -> bool:
    """Whether a teacher is known to run in this process or behind addresses of this machine or network alone.

    Where one answers from that Python was given, nothing tells.

    Examples:
        >>> is_own({"backend": "openai", "endpoint": "http://127.0.0.1:8000/v1,http://gpu-box.lan:8000/v1"})
        True
        >>> is_own({"backend": "openai", "endpoint": "https://api.openai.com/v1"})
        False
    """
    if identity.get("backend") != "openai":
        return identity.get("backend") in _HERE
    return all(_own_host(urlsplit(url.strip()).hostname or "") for url in identity.get("endpoint", "").split(","))


def _own_host(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name; one without a dot is known to this network only
        return bool(host) and ("." not in host or host.endswith(_OWN_SUFFIXES))
    return address.is_private or address.is_loopback or address.is_link_local


def stated_price(options: Mapping[str, Any]) -> Price | None:
    """What the user says that the teacher costs: `usd_read` and `usd_written` of its options; None where neither is."""
    read, written = options.get("usd_read"), options.get("usd_written")
    return None if read is None and written is None else Price(float(read or 0.0), float(written or 0.0))


def price_of(identity: Mapping[str, str], options: object = None) -> Price | None:
    """What a teacher costs: from genai-prices for an API, nothing for one of one's own, None when unknown.

    Args:
        identity: A teacher's identity; `backend`, `model` and `endpoint` are read.
        options: Its options; a price that they state goes before all.
    """
    if (stated := stated_price(getattr(options, "__dict__", {}))) is not None:
        return stated
    if is_own(identity) and (identity.get("backend") != "openai" or identity.get("endpoint")):
        return Price()
    if identity.get("backend") != "openai":
        return None
    from genai_prices import Usage, calc_price

    # Some prices rise with the length of the prompt: the size asked about is that of one request.
    tokens = 1_000
    model, endpoint = identity.get("model", ""), identity.get("endpoint", "").split(",")[0]
    try:
        found = calc_price(
            Usage(input_tokens=tokens, output_tokens=tokens), model_ref=model, provider_api_url=endpoint or None
        )
    except LookupError:
        return None
    return Price(
        prompt=float(found.input_price * 1_000_000 / tokens), completion=float(found.output_price * 1_000_000 / tokens)
    )


def _price_of_name(teacher: str) -> Price | None:
    """What a teacher of an earlier call costs, of whom only the name is left."""
    backend, _, rest = teacher.partition(":")
    endpoint, _, model = rest.rpartition("#")
    return price_of({"backend": backend, "model": model, "endpoint": endpoint})


def spent_usd(spent: Mapping[str, tuple[int, int]], prices: Mapping[str, Price | None]) -> float | None:
    """US dollars for what all teachers of a run took, each at its own price; None where one's is not known.

    Args:
        spent: Prompt and completion tokens by the teacher's name (`Ledger.spent`).
        prices: Of the teachers at hand; those of earlier calls are looked up by their names.
    """
    told = [(prices[name] if name in prices else _price_of_name(name), tokens) for name, tokens in spent.items()]
    return None if any(price is None for price, _ in told) else sum(p.cost(*tokens) for p, tokens in told if p)


class Meter:
    """What a run has spent and what is in flight, against a budget; all its teachers share one.

    Args:
        budget: The caps.
        spent: Prompt and completion tokens of earlier calls, by the teacher's name (`Ledger.spent`).
    """

    def __init__(self, budget: Budget, spent: Mapping[str, tuple[int, int]] | None = None):
        self.budget = budget
        self._prices: dict[str, Price] = {}
        self._thinking: dict[str, int] = {}
        self._spent = {name: list(tokens) for name, tokens in (spent or {}).items()}
        self._reserved_tokens = 0
        self._reserved_usd = 0.0
        self._last_refused = ""  # what the request that did not fit may take, for people
        # By a request's id, from its first billed attempt on: what is counted of it already, and whether it rests.
        self._counted: dict[int, tuple[int, int]] = {}
        self._resting: set[int] = set()
        self._lock = threading.Lock()
        self._started = time.monotonic()
        for name in self._spent:
            # Where the price of a teacher of an earlier call is not known it counts 0.
            self._prices[name] = _price_of_name(name) or Price()

    def join(self, teacher: str, price: Price | None, thinking_tokens: int = 0) -> None:
        """Let a teacher spend; each of its requests may take `thinking_tokens` beyond its own bound.

        Raises:
            OptionError: Money is capped and this teacher's price is not known.
        """
        if self.budget.usd is not None and price is None:
            raise OptionError(
                "budget",
                [
                    f"the price of the teacher {teacher} is not known, so {self.budget.usd:g} USD cannot be watched; "
                    "cap tokens or time instead, such as 500k-tokens or 30min"
                ],
            )
        self._prices[teacher] = price or Price()
        self._thinking[teacher] = thinking_tokens
        self._spent.setdefault(teacher, [0, 0])

    @property
    def refused(self) -> bool:
        """Whether a request did not fit beside what was spent and set aside by then."""
        return bool(self._last_refused)

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens spent so far, by all teachers."""
        return sum(prompt + completion for prompt, completion in self._spent.values())

    @property
    def usd(self) -> float:
        """US dollars spent so far, each teacher's tokens at its own price."""
        return sum(self._prices[name].cost(*tokens) for name, tokens in self._spent.items())

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since this call began."""
        return time.monotonic() - self._started

    def admit(self, request: AnyRequest, teacher: str) -> Verdict:
        """`send` reserves the request's worst case; `wait` may fit once others finish; `stop` never will."""
        with self._lock:
            return self._admit(request, teacher)

    def again(self, request: AnyRequest, teacher: str, prompt_tokens: int, completion_tokens: int) -> Verdict:
        """As `admit`, for a request that was admitted, after an attempt that was billed and gave nothing usable.

        What the attempt took is counted at once. After `wait` the same is asked a little later, and counts once.
        """
        with self._lock:
            number = id(request)
            if number not in self._resting:
                self._resting.add(number)
                self._release(request, teacher)
                prompt, completion = self._counted.get(number, (0, 0))
                self._counted[number] = prompt + prompt_tokens, completion + completion_tokens
                self._spend(teacher, prompt_tokens, completion_tokens)
            verdict = self._admit(request, teacher)
            if verdict == "send":
                self._resting.discard(number)
            return verdict

    def _admit(self, request: AnyRequest, teacher: str) -> Verdict:
        prompt, completion = self._most(request, teacher)
        cap, worst = self.budget, self._prices[teacher].cost(prompt, completion)
        if cap.seconds is not None and self.seconds >= cap.seconds:
            return "stop"
        tokens, usd = self.tokens + prompt + completion, self.usd + worst
        if self._fits(tokens + self._reserved_tokens, usd + self._reserved_usd):
            self._reserved_tokens += prompt + completion
            self._reserved_usd += worst
            return "send"
        fits = cap.tokens is None or tokens + self._reserved_tokens <= cap.tokens
        self._last_refused = f"{worst:.4f} USD" if fits else f"{prompt + completion:,} tokens"
        return "wait" if self._fits(tokens, usd) else "stop"

    def _most(self, request: AnyRequest, teacher: str) -> tuple[int, int]:
        prompt, completion = expected_tokens(request)
        return prompt, completion + (self._thinking.get(teacher, 0) if completion else 0)

    def _fits(self, tokens: int, usd: float) -> bool:
        cap = self.budget
        return (cap.tokens is None or tokens <= cap.tokens) and (cap.usd is None or usd <= cap.usd)

    def settle(self, request: AnyRequest, teacher: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Replace a request's reservation by what it took (of a failure, what its attempts were billed for)."""
        with self._lock:
            if id(request) not in self._resting:
                self._release(request, teacher)
            self._resting.discard(id(request))
            prompt, completion = self._counted.pop(id(request), (0, 0))
            self._spend(teacher, prompt_tokens - prompt, completion_tokens - completion)

    def _release(self, request: AnyRequest, teacher: str) -> None:
        prompt, completion = self._most(request, teacher)
        self._reserved_tokens -= prompt + completion
        self._reserved_usd -= self._prices[teacher].cost(prompt, completion)

    def _spend(self, teacher: str, prompt_tokens: int, completion_tokens: int) -> None:
        self._spent[teacher][0] += prompt_tokens
        self._spent[teacher][1] += completion_tokens

    @property
    def goes_on(self) -> bool:
        """Whether the run goes on with what is paid for when a cap is met."""
        return self.budget.then == "train"

    def reached(self, or_train: bool = False) -> BudgetReached:
        """The error to raise, with what was spent and the mend; `or_train` where there may be rows to go on with."""
        other = ", or with --at-budget train to train on what is paid for" if or_train else ""
        return BudgetReached(
            f"{self.met()}; every reply so far is in the ledger: run again with a larger --budget to go on from here"
            f"{other}",
            or_train=or_train,
        )

    def met(self) -> str:
        """That a cap is met, and what was spent."""
        money = f"{self.usd:.4f} USD, " if self.budget.usd is not None else ""
        late = self.budget.seconds is not None and self.seconds >= self.budget.seconds
        tells = self._last_refused and not late
        more = f", and the next request may take up to {self._last_refused}" if tells else ""
        return f"the budget of {self.budget} is met: {money}{self.tokens:,} tokens, {self.seconds / 60:.1f} min{more}"

    def end(self) -> dict[str, str]:
        """What a stage remembers of a cap that was met: the caps as text and, `told`, a sentence."""
        return {"cap": str(self.budget), "told": self.met()}


@contextlib.contextmanager
def as_paid(meter: Meter | None, *, needed: bool = True) -> Iterator[dict[str, Any]]:
    """Ask the teacher in this block; where the run goes on at its budget, a met cap ends the block and no more.

    Args:
        meter: Of the run's teachers; None without a budget.
        needed: Whether a run that stops at its budget stops here too; else the block is left out there as well.

    Yields:
        A mapping that stays empty unless a cap was met; then `budget_met` holds the caps as text and, `told`, a
        sentence, for the stage's report and what it remembers.

    Raises:
        BudgetReached: A cap was met, and the run stops at it.
    """
    met: dict[str, Any] = {}
    try:
        yield met
    except BudgetReached:
        if meter is None:
            raise
        if needed and not meter.goes_on:
            raise meter.reached(or_train=True) from None
        met["budget_met"] = meter.end()


def pays_more(facts: Mapping[str, Any], meter: Meter | None) -> bool:
    """Whether a stage that a budget cut short may come further: under the same caps it would be the same again."""
    met = facts.get("budget_met")
    return met is not None and (meter is None or met["cap"] != str(meter.budget))


def in_time(make: Callable[[Path], Any], meter: Meter | None) -> Callable[[Path], Any]:
    """A stage's work that does not begin once the time of the budget is over: BudgetReached is raised instead.

    Where the run goes on at its budget, it begins all the same, and gets no more of the teacher.
    """

    def work(out: Path) -> Any:
        cap = None if meter is None or meter.goes_on else meter.budget.seconds
        if meter is not None and cap is not None and meter.seconds >= cap:
            raise meter.reached(or_train=True)
        return make(out)

    return work
