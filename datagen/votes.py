"""Labelling functions and their votes on unlabelled texts: the rules of a task file, and Python functions.

Whatever one function does on one text, the others go on. Three things may go wrong, and each is bounded and counted:

    a regular expression backtracks for ever    each search is stopped after a quarter of a second and abstains
    a Python function raises, or gives what     it abstains on that text; one that fails on every text is an error
    is no label                                 that names it
    a Python function hangs                     it is stopped after `timeout_s` and abstains

After eight stops a function abstains on every further text, so it costs two seconds (a rule) or eight times `timeout_s`
(a Python function) at most, whatever the file's size.

What is stopped of Python functions: those that run Python code, `re` included, in the main thread; the stop is an alarm
of the operating system (`signal.setitimer`). Not stopped: code in C that never looks for signals, functions that catch
`BaseException` and go on, and anything where `potstill.run` is called in another thread.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from potstill.errors import DataError, TaskError
from potstill.task import Rule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ABSTAIN = -1
_REGEX_TIMEOUT_S = 0.25
_FUNCTION_TIMEOUT_S = 5.0
_MOST_TIMEOUTS = 8
# Of values within values that a function reads, for its digest.
_DEEPEST = 20
_MOST_CHARS = 20_000
_MOST_TOLD = 200

LabellingFunction = Callable[[str], "str | None"]
"""Takes a text and gives a label's name, or None to abstain."""


class RuleFunction:
    """The labelling function of a rule of the task file.

    Attributes:
        rule: The rule.
        timeouts: Texts on which a regular expression was stopped.
        off: Whether it was stopped so often that it abstains from then on.
    """

    def __init__(self, rule: Rule):
        import regex  # `re` has no time limit

        self.rule = rule
        self.timeouts = 0
        self._compiled: list[Any] = []
        self._wanted = [pattern.casefold() for pattern in rule.patterns]
        faults = []
        patterns = rule.patterns if rule.kind == "regex" else ()
        if rule.kind == "keyword" and rule.patterns:
            words = "|".join(re.escape(pattern) for pattern in rule.patterns)
            patterns = (rf"(?<!\w)(?:{words})(?!\w)",)
        for pattern in patterns:
            try:
                self._compiled.append(regex.compile(pattern, regex.IGNORECASE))
            except regex.error as error:
                faults.append(f"the rule for {rule.label!r} has an unreadable regular expression {pattern!r}: {error}")
        if faults:
            raise TaskError("rules", faults)

    @property
    def off(self) -> bool:
        return self.timeouts >= _MOST_TIMEOUTS

    def __call__(self, text: str) -> str | None:
        """The rule's label where it matches, else None."""
        if self.rule.kind == "contains":
            folded = text.casefold()
            return self.rule.label if any(item in folded for item in self._wanted) else None
        if self.off:
            return None
        for item in self._compiled:
            try:
                if item.search(text, timeout=_REGEX_TIMEOUT_S):
                    return self.rule.label
            except TimeoutError:
                self.timeouts += 1
        return None


def rule_function(rule: Rule) -> RuleFunction:
    """The labelling function of a rule.

    Raises:
        TaskError: A regular expression that cannot be compiled.
    """
    return RuleFunction(rule)


@dataclass(frozen=True)
class FunctionFaults:
    """What went wrong in one labelling function.

    Attributes:
        faults: Texts on which it raised, gave what is no label, or was stopped; it abstains on them.
        first: What happened on the first of them.
        timeouts: Those of the texts on which it was stopped.
        off: Whether it was stopped so often that it abstained from then on.
    """

    faults: int = 0
    first: str = ""
    timeouts: int = 0
    off: bool = False


@dataclass(frozen=True)
class Votes:
    """The votes of all functions.

    Attributes:
        votes: (n_texts, n_functions) int64, a label's index or -1 for abstaining.
        faults: One entry a function.
    """

    votes: NDArray[np.int64]
    faults: tuple[FunctionFaults, ...]


def votes_of(
    functions: Sequence[LabellingFunction],
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    timeout_s: float = _FUNCTION_TIMEOUT_S,
) -> Votes:
    """Let every function vote on every text; the first 20,000 characters of a text are shown.

    Args:
        functions: Labelling functions; a rule's own faults are in its `timeouts`.
        texts: Unlabelled texts.
        labels: The labels' names.
        timeout_s: Seconds that a Python function may take for one text.

    Raises:
        DataError: A Python function fails on every text, or a rule names no label.
    """
    import numpy as np

    index = {name: i for i, name in enumerate(labels)}
    votes = np.full((len(texts), len(functions)), ABSTAIN, dtype=np.int64)
    found = []
    for column, function in enumerate(functions):
        if isinstance(function, RuleFunction):
            for row, text in enumerate(texts):
                name = function(text[:_MOST_CHARS])
                if name is not None and name not in index:
                    raise DataError(f"a rule is for {name!r}, which is none of {', '.join(labels)}")
                if name is not None:
                    votes[row, column] = index[name]
            found.append(FunctionFaults())
            continue
        said = _python_votes(function, texts, index, votes[:, column], timeout_s)
        if texts and said.faults == len(texts):
            raise DataError(
                f"the labelling function {function_name(function)} failed on all of {len(texts)} texts "
                f"({said.first}); mend it, or leave it out of `labelling_functions`"
            )
        found.append(said)
    return Votes(votes, tuple(found))


def _python_votes(
    function: LabellingFunction, texts: Sequence[str], index: dict[str, int], votes: NDArray[np.int64], timeout_s: float
) -> FunctionFaults:
    """Fill one column of votes; what went wrong."""
    faults = timeouts = 0
    first = ""
    with _stopped_after(timeout_s) as stopped:
        for row, text in enumerate(texts):
            if timeouts >= _MOST_TIMEOUTS:
                # It never answered: that is a failure on the texts which it was not shown, too.
                faults += (len(texts) - row) if faults == row else 0
                break
            try:
                name: object = stopped(function, text[:_MOST_CHARS])
                if name is None:
                    continue
                if isinstance(name, str) and name in index:
                    votes[row] = index[name]
                    continue
                what = f"gives {_short(repr(name))}, which is none of {_short(', '.join(index))}"
            except _Late:
                timeouts += 1
                what = f"no answer within {timeout_s:g} s"
            except Exception as error:  # the user's code may raise anything; the run goes on without this vote
                what = f"{type(error).__name__}: {_short(str(error))}"
            faults += 1
            first = first or what
    return FunctionFaults(faults, first, timeouts, timeouts >= _MOST_TIMEOUTS)


class _Late(BaseException):
    """Raised in a function that took too long; no `except Exception` of its own holds it up."""


@contextmanager
def _stopped_after(timeout_s: float) -> Iterator[Callable[[LabellingFunction, str], object]]:
    """A way to call functions that ends them after some seconds; outside the main thread it calls them plainly.

    An alarm that somebody else has set goes off when it is due, or a little later where a call was under way.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda function, text: function(text)
        return
    armed = False

    def late(number: int, frame: FrameType | None) -> None:
        if armed:
            raise _Late

    def call(function: LabellingFunction, text: str) -> object:
        nonlocal armed
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, timeout_s)
            return function(text)
        finally:
            armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    began = time.monotonic()
    left, every = signal.setitimer(signal.ITIMER_REAL, 0)
    before = signal.signal(signal.SIGALRM, late)
    try:
        yield call
    finally:
        signal.signal(signal.SIGALRM, before if before is not None else signal.SIG_DFL)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - began)), every)


def _short(text: str) -> str:
    """One line of some text of unknown origin that any file can hold."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return line if len(line) <= _MOST_TOLD else line[:_MOST_TOLD] + " …"


def contradicted(votes: NDArray[np.int64], labels: int) -> list[float]:
    """For each function the share of its votes that another one contradicts; 0 of one that never votes.

    Args:
        votes: (n, n_functions), a label's index or -1.
        labels: How many labels.
    """
    import numpy as np

    counts = np.stack([(votes == label).sum(axis=1) for label in range(labels)], axis=1)
    found = []
    for column in votes.T:
        rows = np.flatnonzero(column != ABSTAIN)
        others = counts[rows].sum(axis=1) > counts[rows, column[rows]]
        found.append(round(float(others.mean()), 4) if len(rows) else 0.0)
    return found


def told_of(function: LabellingFunction, cast_by: Votes, column: int) -> dict[str, Any]:
    """What a report says of a function: its name, and what went wrong in it.

    Args:
        function: A rule's function, or a Python function.
        cast_by: The votes that it was among.
        column: Its place there.
    """
    found: dict[str, Any] = {"name": function_name(function)}
    if isinstance(function, RuleFunction):
        if function.timeouts:
            found |= {"timeouts": function.timeouts, "off": function.off}
        return found
    said = cast_by.faults[column]
    if said.faults:
        found |= {"faults": said.faults, "first_fault": said.first}
    if said.timeouts:
        found |= {"timeouts": said.timeouts, "off": said.off}
    return found


def function_name(function: LabellingFunction) -> str:
    """What a labelling function is called in reports: a rule by its label and patterns, a function by its name."""
    if isinstance(function, RuleFunction):
        return rule_name(function.rule)
    return str(getattr(function, "__name__", type(function).__name__))


def rule_name(rule: Rule) -> str:
    """What a rule is called in reports: by its label, or those of its answers, and its patterns or wordings."""
    voted = dict.fromkeys(answer.label for answer in rule.choices if answer.label)
    return f"{rule.label or ' or '.join(voted)}: {rule.kind} {', '.join(rule.patterns)}"[:120]


def function_digest(function: LabellingFunction) -> str:
    """Hash of what a Python labelling function's votes depend on, for a stage's key.

    That is its source (or code, where it has none), and whatever it reads beside its text: variables that it closes
    over, globals that it names, arguments of a `functools.partial`, attributes of an object. A value that cannot be
    told from another of its kind gives a hash that no other call gives, so that nothing stale is taken again.
    """
    return hashlib.sha256(_described(function, ()).encode("utf-8", "surrogatepass")).hexdigest()


def _described(value: Any, within: tuple[int, ...]) -> str:
    """A text that two values share only where they are the same thing to a function that reads them."""
    if value is None or isinstance(value, str | bytes | bool | int | float | complex | re.Pattern | Enum | Path):
        return f"{type(value).__qualname__} {value!r}"
    if isinstance(value, type | ModuleType):
        return f"{getattr(value, '__module__', '')}.{value.__name__}"
    if id(value) in within:
        return "itself"
    if len(within) >= _DEEPEST:
        return uuid4().hex
    within = (*within, id(value))
    below = [type(value).__qualname__]
    if isinstance(value, Mapping):
        below += sorted(f"{_described(key, within)}: {_described(held, within)}" for key, held in value.items())
    elif isinstance(value, list | tuple | deque):
        below += [_described(part, within) for part in value]
    elif isinstance(value, set | frozenset):
        below += sorted(_described(part, within) for part in value)
    elif isinstance(value, partial):
        below += [_described(part, within) for part in (value.func, value.args, value.keywords)]
    elif inspect.ismethod(value):
        below += [_described(value.__func__, within), _described(value.__self__, within)]
    elif inspect.isbuiltin(value):
        below.append(f"{value.__module__}.{value.__qualname__}")
    elif inspect.isfunction(value):
        below += _function_parts(value, within)
    elif hasattr(value, "__dict__"):
        methods = {name: held for name, held in vars(type(value)).items() if inspect.isfunction(held)}
        below += [type(value).__module__, _described(methods, within), _described(vars(value), within)]
    else:
        return uuid4().hex
    return "(" + ", ".join(below) + ")"


def _names_within(code: CodeType) -> set[str]:
    """The global names and attributes that code objects within one read, at any depth."""
    held = [part for part in code.co_consts if isinstance(part, CodeType)]
    return {name for part in held for name in (*part.co_names, *_names_within(part))}


def _function_parts(function: Any, within: tuple[int, ...]) -> list[str]:
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        code = function.__code__
        text = f"{code.co_code.hex()} {code.co_consts} {code.co_names}"
    found = inspect.getclosurevars(function)
    defaults = [function.__defaults__, function.__kwdefaults__]
    # Names that only a lambda, a comprehension or a function within it reads are in none of the outer code's lists.
    known = function.__globals__
    inner = {name: known[name] for name in _names_within(function.__code__) if name in known}
    reads = {**inner, **found.globals, **found.nonlocals}
    return [text, _described(reads, within), _described(defaults, within)]
