"""Continuous batching for a model in this process: rows leave the batch when they end, new ones join the rest.

What enters is one row a request, as tokens with its sampling rules; what leaves is the row when it has ended. Rows
stay packed at the front of the key-value slots, so a step costs what the rows at work cost, and a long reply does
not hold the short ones back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch

from potstill.asking.teacher import FinishReason, Request, TokenTop
from potstill.decoding.model import OutputHead, Slots, attention_masks, cache_argument, end_tokens, padded
from potstill.decoding.prefixes import Prefixes
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


def _keeps_logprobs(rows: Sequence[Row]) -> bool:
    return any(row.request.top_logprobs for row in rows)


class Decoder:
    """The rows at work. Not safe for several threads."""

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
        self._cache = Slots(model.config.get_text_config(decoder=True).num_hidden_layers, slots)
        # Many small copies, which a GPU is slow at while it reads fast; there it has not been measured, so it is off.
        self._shares = model.device.type == "cpu"
        self._prefixes = Prefixes(positions // 8 if self._shares else 0)
        self._head = OutputHead(model)
        self._pad = next(iter(self._ends), 0)
        self.rows: list[Row] = []

    def fits(self, row: Row, joining: Sequence[Row] = ()) -> bool:
        """Whether a row may join now: a slot is free and the memory for its worst case too."""
        count = len(self.rows) + len(joining) + 1
        if count > self._slots:
            return False
        longest = max([row.needs, *(other.needs for other in (*self.rows, *joining))])
        return count == 1 or count * longest <= self._positions

    def unread(self, row: Row) -> int:
        """Tokens of a row's prompt that are to be read: all but those that it begins with like an earlier one."""
        return len(row.prompt) - self._prefixes.longest(row.prompt)

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
            # Each pass leaves beginnings that shorten what the next has to read.
            unread = {id(row): self.unread(row) for row in joining}
            joining.sort(key=lambda row: unread[id(row)])
            count = 1
            while count < len(joining) and (count + 1) * unread[id(joining[count])] <= batch_tokens:
                count += 1
            yield from self.join(joining[:count])
            joining = joining[count:]

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Read the prompts of new rows (several of like length at once) and choose their first tokens."""
        if not self.rows:
            self._cache.release()
        first, device = len(self.rows), self._model.device
        # Of rows with one prompt the first is read, the others are copies of it.
        origins = list(range(len(rows)))
        seen: dict[tuple[int, ...], int] = {}
        for place, row in enumerate(rows if self._shares else ()):
            origins[place] = seen.setdefault(tuple(row.prompt), place)
        places = sorted(set(origins))
        starts = [self._prefixes.longest(rows[place].prompt) for place in places]
        reach = max(starts) + max(len(rows[place].prompt) - start for place, start in zip(places, starts, strict=True))
        self._cache.reserve(max(reach, *(row.needs for row in rows)))
        for place in places:
            self._prefixes.fill(self._cache, first + place, rows[place].prompt)
        slots = [first + place for place in places]
        logits = self._read([rows[place].prompt for place in places], slots, starts, precise=_keeps_logprobs(rows))
        for place, origin in enumerate(origins):
            length = len(rows[place].prompt)
            if place == origin:
                self._prefixes.keep(self._cache, first + place, rows[place].prompt)
            else:
                self._cache.fill(first + place, self._cache.saved(first + origin, length), length)
        logits = logits[torch.tensor([places.index(origin) for origin in origins], device=device)]
        self.rows.extend(rows)
        self._choose(rows, logits[:, -1].float())
        return self._ended()

    def _read(
        self, prompts: Sequence[Sequence[int]], slots: Sequence[int], starts: Sequence[int], *, precise: bool
    ) -> torch.Tensor:
        """Logits after each prompt, of which the first `starts` positions are in its slot: (n, 1, vocabulary)."""
        device = self._model.device
        ids = padded([prompt[start:] for prompt, start in zip(prompts, starts, strict=True)], self._pad, device)
        begin, reach = torch.tensor(starts, device=device), max(starts) + ids.shape[1]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device) - begin
        positions = begin.unsqueeze(1) + torch.arange(ids.shape[1], device=device)
        # Right-padded: no real token comes after a padding one, so the causal mask hides it.
        distance = (positions.unsqueeze(2) - torch.arange(reach, device=device)).unsqueeze(1)
        self._cache.prefill(torch.tensor(slots, device=device), begin, reach)
        with self._head.using(lengths - 1, precise=precise):
            logits: torch.Tensor = self._model(
                input_ids=ids,
                attention_mask=attention_masks(self._model, distance >= 0, distance),
                position_ids=positions,
                use_cache=True,
                **cache_argument(self._model, self._cache),
            ).logits
        return logits

    @torch.inference_mode()
    def step(self) -> Iterator[Row]:
        """One more token for every row; the rows that ended with it."""
        rows, device = self.rows, self._model.device
        positions = torch.tensor([len(row.prompt) + len(row.tokens) - 1 for row in rows], device=device)
        self._cache.step(positions)
        reach = torch.arange(int(positions.max()) + 1, device=device)
        distance = (positions.unsqueeze(1) - reach).view(len(rows), 1, 1, -1)
        with self._head.using(precise=_keeps_logprobs(rows)):
            logits = self._model(
                input_ids=torch.tensor([[row.tokens[-1]] for row in rows], device=device),
                attention_mask=attention_masks(self._model, distance >= 0, distance),
                position_ids=positions.unsqueeze(1),
                use_cache=True,
                **cache_argument(self._model, self._cache),
            ).logits
        self._choose(rows, logits[:, -1].float())
        return self._ended()

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

    def _ended(self) -> Iterator[Row]:
        """Take ended rows out, from the back, so that each gap is filled by a row that stays."""
        ended = []
        for place in range(len(self.rows) - 1, -1, -1):
            if self.rows[place].finish is not None:
                ended.append(self.rows[place])
                last = len(self.rows) - 1
                self._cache.drop(place, last)
                self.rows[place] = self.rows[last]
                self.rows.pop()
        return reversed(ended)

    def text(self, row: Row) -> str:
        """The reply of an ended row, cut before its stop string."""
        text: str = self._tokenizer.decode(row.tokens, skip_special_tokens=True)
        cuts = [text.find(stop) for stop in row.stop if stop in text]
        return text[: min(cuts)] if cuts else text
