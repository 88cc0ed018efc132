"""What a teacher is: a source of replies and of label scores, one protocol for every backend.

A teacher pulls its work. `stream(take)` calls `take(n)` whenever it has room for `n` more requests, and yields
replies in the order they finish; it ends when `take` returns nothing while nothing is in flight. So the engine
stays full across refills and retries with no barrier between batches, and whoever makes the requests can decide
each one late.

Identity is what decides a reply: backend, endpoint, model and its revision or weights hash, numeric format. It
enters every ledger key, so two servers with the same model name never share answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "refused", "error"]


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True)
class Request:
    """One text to be written. Every field except `tag` enters the ledger key.

    Attributes:
        messages: The chat so far.
        prefill: Start of the assistant's turn that the reply continues (only where `Abilities.prefill`).
        max_tokens: Upper bound on new tokens.
        temperature: 0 is greedy.
        top_p: Nucleus mass.
        stop: Strings that end the reply; they are not part of it.
        seed: Seed of this request's own sampling.
        sample: Index that tells apart several samples of one prompt.
        schema: JSON schema that the reply must satisfy (only where `Abilities.json_schema`).
        choices: The reply is one of these strings (only where `Abilities.choices`).
        top_logprobs: How many token log-probs to return a position, 0 for none.
        token_texts: How many of the likeliest tokens to return a position as texts (`Reply.said`), 0 for none: what
            servers give that name tokens by their text alone.
        beams: Width of a beam search by mean log-prob a token, 1 for none (only where `Abilities.beams`). It knows no
            temperature, stop strings or choices.
        turn: Whose turn is written. `user` gives the model its chat template up to where a user's words begin, so that
            it writes them itself (only where `Abilities.user_turn`); `prefill` is then their start.
        tag: Bookkeeping of the asker; not part of the key.
    """

    messages: tuple[Message, ...]
    prefill: str = ""
    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    sample: int = 0
    schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] | None = None
    top_logprobs: int = 0
    token_texts: int = 0
    beams: int = 1
    turn: Literal["assistant", "user"] = "assistant"
    tag: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class ScoreRequest:
    """Log-probabilities of whole continuations after one prompt.

    Attributes:
        messages: The chat so far.
        prefill: Start of the assistant's turn.
        continuations: Strings whose tokens are scored, each right after the prompt.
        top_logprobs: With one continuation only: also return `Reply.top` for its tokens, `k` a position.
        token_ids: In place of messages and continuations: the tokens of a prompt and those that are scored after it, by
            their numbers in the teacher's vocabulary (only where `Abilities.token_ids`). Use `token_score`.
        tag: Bookkeeping of the asker; not part of the key.
    """

    messages: tuple[Message, ...]
    continuations: tuple[str, ...]
    prefill: str = ""
    top_logprobs: int = 0
    token_ids: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    tag: Any = field(default=None, compare=False)


def token_score(prompt: Sequence[int], scored: Sequence[int], top_logprobs: int) -> ScoreRequest:
    """What asks for the log-probs of tokens by their numbers, and of the `top_logprobs` likeliest in place of each."""
    return ScoreRequest((), (), top_logprobs=top_logprobs, token_ids=(tuple(prompt), tuple(scored)))


@dataclass(frozen=True)
class TokenTop:
    """Teacher log-probs at one output position: the sampled token and the `k` likeliest, at temperature 1."""

    token_id: int
    logprob: float
    top_ids: tuple[int, ...]
    top_logprobs: tuple[float, ...]


@dataclass(frozen=True)
class TokenText:
    """A token that was written, and those that might have been: texts with their log-probs.

    Attributes:
        text: The token.
        logprob: Its log-prob (nats), as the server counts it.
        others: The likeliest tokens there, mostly with the one that was written among them.
    """

    text: str
    logprob: float
    others: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        text: The reply, without the prefill and the stop string.
        finish: Why it ended; `length` means truncated.
        prompt_tokens: As counted by the backend, with those of attempts that gave nothing usable.
        completion_tokens: The same; some servers count what the model thought.
        top: One entry a completion token when `top_logprobs` was asked for.
        said: One entry a token when `token_texts` was asked for and the server gave them.
        scores: Summed log-prob (nats) of each continuation, for a ScoreRequest.
        score_tokens: Number of tokens of each continuation, for a ScoreRequest.
        raw: The backend's own reply where it has one (JSON types), for the record.
        attempts: How often the backend asked until this came.
    """

    text: str = ""
    finish: FinishReason = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    top: tuple[TokenTop, ...] = ()
    said: tuple[TokenText, ...] = ()
    scores: tuple[float, ...] = ()
    score_tokens: tuple[int, ...] = ()
    raw: Mapping[str, Any] | None = None
    attempts: int = 1


@dataclass(frozen=True)
class Failure:
    """A request that got no reply after bounded retries. It is counted and recorded, and never cached.

    Attributes:
        reason: Why.
        attempts: How often it was asked.
        prompt_tokens: What the attempts cost all the same: answers that could not be used are paid for.
        completion_tokens: The same.
        passing: Whether the server or the way to it was at fault, so that another day may bring the reply; not where
            the request is refused, cannot be taken, or used its bound up.
    """

    reason: str
    attempts: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0
    passing: bool = False


AnyRequest = Request | ScoreRequest
Take = Callable[[int], Sequence[AnyRequest]]


@dataclass(frozen=True)
class Abilities:
    """What a backend can do. `token_texts` is asked for and may still be left out by the server."""

    prefill: bool = False
    json_schema: bool = False
    choices: bool = False
    top_logprobs: int = 0
    token_texts: int = 0
    scores: bool = False
    token_ids: bool = False
    beams: bool = False
    user_turn: bool = False

    def lacking(self, request: AnyRequest) -> str:
        """What a request needs and this backend cannot, as the rest of `cannot …`; empty where it can answer it."""
        if request.prefill and not self.prefill:
            return "continue a started reply (prefill)"
        if request.top_logprobs > self.top_logprobs:
            return f"return {request.top_logprobs} token log-probs (at most {self.top_logprobs})"
        if isinstance(request, ScoreRequest):
            if request.token_ids is not None:
                return "" if self.token_ids else "score tokens by their numbers"
            return "" if self.scores else "score continuations"
        if request.token_texts > self.token_texts:
            return f"return the texts of {request.token_texts} tokens a position (at most {self.token_texts})"
        if request.schema is not None and not self.json_schema:
            return "follow a JSON schema"
        if request.turn == "user" and not self.user_turn:
            return "write a user's turn, for which it must be given the chat template's own text"
        if request.beams > 1 and not self.beams:
            return "search with beams"
        if request.beams > 1 and (request.stop or request.choices is not None):
            return "search with beams under stop strings or choices"
        return "choose among fixed strings" if request.choices is not None and not self.choices else ""


@runtime_checkable
class Teacher(Protocol):
    """A teacher LLM behind one of the backends."""

    @property
    def name(self) -> str:
        """Short name for people, such as `vllm:HuggingFaceTB/SmolLM2-135M-Instruct`."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides a reply, as JSON types; enters every ledger key. Holds no secret."""
        ...

    @property
    def abilities(self) -> Abilities: ...

    @property
    def concurrency(self) -> int:
        """How many requests the backend likes to have in flight."""
        ...

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        """Answer everything that `take` gives, in the order of completion (see the module's text).

        Raises:
            TeacherRefused: The endpoint refused (bad key, unknown model, malformed request).
            TeacherUnavailable: The endpoint could not be reached at all, after bounded retries.
        """
        ...

    def close(self) -> None:
        """Free the engine, connection or model."""
        ...


@runtime_checkable
class Tokenizes(Protocol):
    """A teacher that tells how it cuts a text into tokens; every one with `Abilities.token_ids` does."""

    def tokens_of(self, text: str) -> list[int]:
        """The numbers of a text's tokens, without those that are put before or after a whole one.

        Raises:
            TeacherError: The server refused, or could not be reached.
        """
        ...
