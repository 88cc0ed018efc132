"""Replies under way, and what every way of writing them side by side shares: who may join, what each row says next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch

from potstill.asking.teacher import FinishReason, Request, TokenTop
from potstill.decoding.model import OutputHead, end_tokens
from potstill.decoding.sampling import choose_tokens, token_tops

# The tokens that are decoded again at each step to look for a stop string; a longer stop string adds its length.
_TAIL = 8


@dataclass
class Row:
    """One reply under way.

    Attributes:
        request: What was asked.
        prompt: Tokens of the prompt.
        room: Most new tokens that the bound and the context allow.
        allowed: The prefix tree of `choices` as nested mappings; None lets every token.
        end: A token that ends it beside those of the model.
        stop: Strings that end it beside those of the request.
        tokens: New tokens so far, the ending one included.
        tops: Log-probs of the new tokens, where asked for.
        finish: Why it ended, once it has.
    """

    request: Request
    prompt: Sequence[int]
    room: int
    allowed: Mapping[int, Any] | None = None
    end: int | None = None
    stop: tuple[str, ...] = ()
    tokens: list[int] = field(default_factory=list)
    tops: list[TokenTop] = field(default_factory=list)
    finish: FinishReason | None = None
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(f"{self.request.seed}/{self.request.sample}")

        self.stop = tuple(stop for stop in (*self.request.stop, *self.stop) if stop)

    @property
    def needs(self) -> int:
        """Positions that it may come to hold."""
        return len(self.prompt) + self.room


def choice_tree(choices: Sequence[Sequence[int]], end: int) -> dict[int, Any]:
    """Nested mappings token → next tokens; a whole choice is followed by the ending token."""
    root: dict[int, Any] = {}
    for choice in choices:
        node = root
        for token in choice:
            node = node.setdefault(token, {})
        node[end] = {}
    return root


def keeps_logprobs(rows: Sequence[Row]) -> bool:
    """Whether log-probs of one of the rows are asked for, which then are taken from exact logits."""
    return any(row.request.top_logprobs for row in rows)


class Batch(ABC):
    """Rows at work together. Not safe for several threads."""

    def __init__(self, model: Any, tokenizer: Any, slots: int, positions: int, ends: frozenset[int] | None = None):
        """Args:
        model: The model.
        tokenizer: Its tokenizer.
        slots: Most rows at a time.
        positions: Most positions that all slots together may take, by memory.
        ends: Tokens that end a row; None takes those of the model.
        """
        self._model = model
        self._tokenizer = tokenizer
        self._slots = slots
        self._positions = positions
        self._ends = end_tokens(model, tokenizer) if ends is None else ends
        self._head = OutputHead(model)
        self._pad = next(iter(self._ends), 0)
        self.rows: list[Row] = []

    @abstractmethod
    def join(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Read the prompts of new rows at once and choose their first tokens; the rows that ended with those."""

    @abstractmethod
    def step(self) -> Iterator[Row]:
        """One more token for every row; the rows that ended with it."""

    @abstractmethod
    def clear(self) -> None:
        """Leave all rows unfinished."""

    def fits(self, row: Row, joining: Sequence[Row] = ()) -> bool:
        """Whether a row may join now: a slot is free and the memory for its worst case too."""
        count = len(self.rows) + len(joining) + 1
        if count > self._slots:
            return False
        longest = max([row.needs, *(other.needs for other in (*self.rows, *joining))])
        return count == 1 or count * longest <= self._positions

    def unread(self, row: Row) -> int:
        """Tokens of a row's prompt that are to be read."""
        return len(row.prompt)

    def beside(self, size: int, other: int) -> bool:
        """Whether rows with so many tokens to be read can be read in one pass."""
        return True

    def admit(self, waiting: deque[Row], batch_tokens: int) -> Iterator[Row]:
        """Let rows join while they fit, those of like length together; the rows that ended with their first token.

        Args:
            waiting: Rows in the order they came; those that join are taken out.
            batch_tokens: Prompt tokens that are read in one pass.
        """
        joining: list[Row] = []
        while waiting and self.fits(waiting[0], joining):
            joining.append(waiting.popleft())
        while joining:
            # Each pass may leave beginnings that shorten what the next has to read.
            sizes = {id(row): self.unread(row) for row in joining}
            joining.sort(key=lambda row: sizes[id(row)])
            least, count = sizes[id(joining[0])], 1
            while count < len(joining):
                size = sizes[id(joining[count])]
                if (count + 1) * size > batch_tokens or not self.beside(least, size):
                    break
                count += 1
            yield from self.join(joining[:count])
            joining = joining[count:]

    def _choose(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        ruled = logits
        if any(row.allowed is not None for row in rows):
            ruled = logits.clone()
            for place, row in enumerate(rows):
                if row.allowed is not None:
                    keep = torch.tensor(sorted(row.allowed), device=logits.device)
                    values = ruled[place, keep]
                    ruled[place] = float("-inf")
                    ruled[place, keep] = values
        chosen = choose_tokens(
            ruled,
            [row.request.temperature for row in rows],
            [row.request.top_p for row in rows],
            [row.random for row in rows],
        )
        watched = [place for place, row in enumerate(rows) if row.request.top_logprobs]
        if watched:
            index = torch.tensor(watched, device=logits.device)
            counts = [rows[place].request.top_logprobs for place in watched]
            for place, top in zip(watched, token_tops(logits[index], chosen[index], counts), strict=True):
                rows[place].tops.append(top)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            row.tokens.append(token)
            if row.allowed is not None:
                row.allowed = row.allowed[token]
            row.finish = self._finish(row, token)

    def _finish(self, row: Row, token: int) -> FinishReason | None:
        if token in self._ends or token == row.end or (row.allowed is not None and not row.allowed):
            return "stop"
        if row.stop:
            longest = max(len(stop) for stop in row.stop)
            tail = self._tokenizer.decode(row.tokens[-(_TAIL + longest) :], skip_special_tokens=True)
            if any(stop in tail for stop in row.stop):
                return "stop"
        return "length" if len(row.tokens) >= row.room else None

    def text(self, row: Row) -> str:
        """The reply of an ended row, cut before its stop string."""
        text: str = self._tokenizer.decode(row.tokens, skip_special_tokens=True)
        cuts = [text.find(stop) for stop in row.stop if stop in text]
        return text[: min(cuts)] if cuts else text
