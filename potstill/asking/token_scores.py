"""Log-probs of given tokens, asked of a teacher one batch at a time: what a training on policy is handed.

What enters: pairs of a prompt and an answer, as numbers of the teacher's own tokens. What leaves: a reply for each, in
their order, whose `top` holds one entry a token of the answer. They go through an `Asker`, so its ledger answers what
was asked before and its budget pays for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from potstill.asking.teacher import Failure, Reply, token_score

if TYPE_CHECKING:
    from potstill.asking.asker import Asker

Pair = tuple[Sequence[int], Sequence[int]]


class TokenScores(Protocol):
    """Who tells the log-probs of tokens."""

    @property
    def name(self) -> str:
        """The teacher, for people."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides the log-probs."""
        ...

    @property
    def top(self) -> int:
        """How many of the likeliest tokens are told of a position."""
        ...

    @property
    def budget_end(self) -> Mapping[str, str]:
        """Where a run goes on at its budget, what is told of a cap that was met (`Meter.end`); else empty."""
        ...

    def ask(self, pairs: Sequence[Pair]) -> list[Reply | Failure]:
        """The reply to each pair of a prompt's and an answer's tokens; a failure for one that got none.

        Raises:
            BudgetReached: The cap was met; what was answered is in the ledger.
            TeacherError: The teacher refused, or could not be reached.
        """
        ...


class AskedTokens:
    """`TokenScores` of an asker's teacher.

    Args:
        asker: Who is asked. Its listener hears of every batch.
        top: How many of the likeliest tokens to ask for a position; at most what the teacher gives, at least 1.
        purpose: For the ledger's accounts.
    """

    def __init__(self, asker: Asker, top: int, purpose: str = "train"):
        self._asker, self._purpose = asker, purpose
        self.top = max(1, min(top, asker.abilities.top_logprobs))

    @property
    def name(self) -> str:
        """The teacher, for people."""
        return self._asker.teacher.name

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides the log-probs."""
        return self._asker.identity

    @property
    def budget_end(self) -> Mapping[str, str]:
        """See `TokenScores.budget_end`."""
        meter = self._asker.meter
        return meter.end() if meter is not None and meter.goes_on else {}

    def ask(self, pairs: Sequence[Pair]) -> list[Reply | Failure]:
        """See `TokenScores.ask`."""
        requests = [token_score(prompt, answer, self.top) for prompt, answer in pairs]
        return [answer.reply for answer in self._asker.ask(requests, self._purpose)]
