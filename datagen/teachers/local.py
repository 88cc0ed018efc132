"""The transformers teacher: a causal language model in this process, on a GPU or on a plain CPU.

What enters are requests for texts and for scores; what leaves are replies in the order they finish. Texts share a
continuously refilled batch (`potstill.decoding`), scores are taken in one pass a prompt (`local_scores`). The model
is loaded at the first request, so a run that the ledger answers alone loads none.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Request, ScoreRequest, Take, TokenTop
from potstill.datagen.teachers.thoughts import spoken, thinking_faults, thinks
from potstill.errors import BadOptions, OptionFault, UserError
from potstill.models import SMOLLM2, install_hint, local_model

if TYPE_CHECKING:
    from potstill.datagen.teachers.chat_prompt import ChatPrompt
    from potstill.datagen.teachers.local_scores import ScoreItem
    from potstill.decoding.batch import Batch, Row

_MAX_TOP = 1024


@dataclass(frozen=True)
class LocalOptions:
    """How the model runs.

    Attributes:
        concurrency: Rows in a batch; more is faster until memory or the processor is full.
        dtype: `bfloat16`, `float16` or `float32`; None takes bfloat16 where the device multiplies it.
        device: Such as `cpu` or `cuda:0`; None takes a GPU where there is one.
        kv_cache_gib: Memory for keys and values, GiB; on a CPU an eighth more for prompts that others begin like.
        batch_tokens: Prompt tokens that are read in one pass.
        threads: CPU threads; None leaves torch's own choice.
        thinking_tokens: Tokens that the model may think for before a text, on top of the text's bound; 0 has it answer
            at once. Labels that are scored, and choices, are never thought about.
    """

    concurrency: int = 64
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    device: str | None = None
    kv_cache_gib: float = 2.0
    batch_tokens: int = 4096
    threads: int | None = None
    thinking_tokens: int = 0

    def __post_init__(self) -> None:
        faults = thinking_faults(self.thinking_tokens)
        for name in ("concurrency", "kv_cache_gib", "batch_tokens"):
            if getattr(self, name) <= 0:
                faults.append(OptionFault(f"{name} must be above 0, got {getattr(self, name)}", name))
        if faults:
            raise BadOptions(faults)


class LocalTeacher:
    """A model through transformers; see the module's text. Not safe for several threads."""

    def __init__(self, model: str | None = None, options: LocalOptions | None = None):
        """Args:
        model: A folder, a known name or a Hub id; None is the embedded SmolLM2-135M-Instruct.
        options: How it runs.
        """
        self.options = options or LocalOptions()
        self._ref = model or SMOLLM2
        self._loaded: _Loaded | None = None

    @property
    def name(self) -> str:
        """Short name for people."""
        return f"transformers:{self._ref}"

    @cached_property
    def _dtype(self) -> str:
        from potstill.decoding.model import default_dtype, pick_device

        return self.options.dtype or default_dtype(pick_device(self.options.device))

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """Backend, weights and numeric format."""
        from potstill.decoding.model import identity_of

        thinking = {"thinks": "yes"} if self.options.thinking_tokens else {}
        return {"backend": "transformers", **identity_of(self._ref, self._dtype), **thinking}

    @property
    def abilities(self) -> Abilities:
        """Everything but JSON schemas; of a model that thinks no beginnings either, before which it could not."""
        return Abilities(
            prefill=not self.options.thinking_tokens, choices=True, top_logprobs=_MAX_TOP, scores=True, beams=True,
            user_turn=True,
        )  # fmt: skip

    def user_turn_fault(self) -> str:
        """Why it cannot write a user's turn, with the mend; "" where it can."""
        from potstill.datagen.teachers.chat_prompt import template_fault

        return template_fault(self._ref)

    @property
    def thinking_tokens(self) -> int:
        """Tokens that a reply may take beyond its own bound."""
        return self.options.thinking_tokens

    @property
    def concurrency(self) -> int:
        """Rows in a batch."""
        return self.options.concurrency

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        """Answer everything that `take` gives, in the order of completion.

        Raises:
            UserError: The model cannot be loaded.
        """
        loaded: _Loaded | None = None
        waiting: deque[Row] = deque()
        # Prompts are read together, so new rows wait until a part of the batch is free.
        least = max(1, self.options.concurrency // 8)
        while True:
            at_work = len(loaded.decoder.rows) if loaded else 0
            room = self.options.concurrency - at_work - len(waiting)
            if room >= least or not at_work:
                taken = take(room) if room > 0 else ()
                if taken and loaded is None:
                    loaded = self._load()
                if loaded is not None and taken:
                    yield from loaded.scores([r for r in taken if isinstance(r, ScoreRequest)])
                    yield from loaded.searched([r for r in taken if isinstance(r, Request) and r.beams > 1])
                    for request in taken:
                        if isinstance(request, Request) and request.beams == 1:
                            row = loaded.row(request)
                            if isinstance(row, Failure):
                                yield request, row
                            else:
                                waiting.append(row)
            if loaded is None or not (waiting or loaded.decoder.rows):
                if loaded is None or not taken:
                    return
                continue
            yield from loaded.admit(waiting)
            if loaded.decoder.rows:
                for row in loaded.decoder.step():
                    yield row.request, loaded.reply(row)

    def close(self) -> None:
        """Drop the model."""
        self._loaded = None

    def _load(self) -> _Loaded:
        if self._loaded is None:
            self._loaded = _Loaded(self._ref, self._dtype, self.options)
        return self._loaded


class _Loaded:
    """The model in memory with what feeds it."""

    def __init__(self, ref: str, dtype: str, options: LocalOptions):
        import torch

        from potstill.datagen.teachers.chat_prompt import ChatPrompt
        from potstill.datagen.teachers.local_check import teacher_manner
        from potstill.decoding.decoder import Decoder
        from potstill.decoding.model import (
            OutputHead,
            bytes_a_position,
            context_length,
            end_tokens,
            load_model,
            pick_device,
            use_grouped_attention,
        )
        from potstill.decoding.waves import Waves

        if options.threads:
            torch.set_num_threads(options.threads)
        folder = local_model(ref)
        if ref == SMOLLM2 and not os.path.isdir(folder) and os.environ.get("HF_HUB_OFFLINE") == "1":
            raise UserError(f"the teacher {ref} is not installed and the Hub is switched off; {install_hint(ref)}")
        self.model, self.tokenizer = load_model(folder, pick_device(options.device), dtype)
        positions = int(options.kv_cache_gib * 2**30 / bytes_a_position(self.model))
        self.options = options
        self.context = context_length(self.model)
        self.prompts: ChatPrompt = ChatPrompt(self.tokenizer, ref)
        self._ends = end_tokens(self.model, self.tokenizer)
        self._end = min(self._ends, default=0)
        manner, fault = teacher_manner(self.model, self._end)
        if manner is None:
            raise UserError(
                f"the model {ref!r} is of a kind ({self.model.config.model_type}) that this backend does not run "
                f"rightly ({fault}); use vllm:MODEL or openai:URL#MODEL for it"
            )
        self._head = OutputHead(self.model)
        self._in_slots, self._pads = manner == "slots", manner != "unpadded"
        sizes = (self.model, self.tokenizer, options.concurrency, positions)
        if self._in_slots:
            use_grouped_attention(self.model)
        self.decoder: Batch = Decoder(*sizes) if self._in_slots else Waves(*sizes, pads=self._pads)

    def row(self, request: Request) -> Row | Failure:
        """A request as a row, or why it cannot be one."""
        from potstill.decoding.batch import Row, choice_tree

        thinking = self._thinking(request)
        opened = self.prompts.opened(request, thinks=thinking > 0)
        text, ids = opened.text, list(opened.ids)
        room = min(request.max_tokens + thinking, self.context - len(ids))
        if room < 1:
            return Failure(self._too_long(len(ids)))
        allowed = None
        if request.choices is not None:
            allowed = choice_tree(
                [self.prompts.continuation_ids(text, ids, choice) for choice in request.choices], self._end
            )
        row = Row(request, ids, room, allowed, opened.end, (opened.stop,))
        if thinking:  # the request's stops hold for the text alone, where `spoken` looks for them
            row.stop = ()
        return row

    def _thinking(self, request: Request) -> int:
        return self.options.thinking_tokens if thinks(request) else 0

    def _too_long(self, tokens: int) -> str:
        return f"the prompt has {tokens} tokens and leaves no room in the model's context of {self.context}"

    def admit(self, waiting: deque[Row]) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        """Let rows join while they fit; those that end at once."""
        for row in self.decoder.admit(waiting, self.options.batch_tokens):
            yield row.request, self.reply(row)

    def reply(self, row: Row) -> Reply | Failure:
        """What an ended row says."""
        reply = Reply(
            text=self.decoder.text(row),
            finish=row.finish or "stop",
            prompt_tokens=len(row.prompt),
            completion_tokens=len(row.tokens),
            top=tuple(row.tops),
        )
        thinking = self._thinking(row.request)
        return spoken(row.request, reply, opened=thinking > 0 and self.prompts.opens_thought, tokens=thinking)

    def searched(self, requests: Sequence[Request]) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        """Beam searches, those of one width and like length together."""
        from potstill.datagen.teachers.local_beams import search_batches, search_beams
        from potstill.datagen.teachers.local_scores import ScoreItem

        found: list[tuple[Request, Row]] = []
        for request in requests:
            row = self.row(request)
            if isinstance(row, Failure):
                yield request, row
            else:
                found.append((request, row))
        rows = [row for _, row in found]
        for batch in search_batches(rows, self.options.concurrency, self.options.batch_tokens, pads=self._pads):
            for i, tokens in zip(batch, search_beams(self.model, [rows[i] for i in batch], self._ends), strict=True):
                row = rows[i]
                row.tokens = tokens
                row.finish = "stop" if tokens and tokens[-1] in self._ends else "length"
                if row.request.top_logprobs and tokens:
                    ((_, tops),) = self._scored([ScoreItem(row.prompt, [tokens], row.request.top_logprobs)])
                    row.tops = list(tops)
                yield found[i][0], self.reply(row)

    def scores(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        """Score requests, those of like length together."""
        from potstill.datagen.teachers.local_scores import ScoreItem, score_batches

        items: list[ScoreItem] = []
        kept: list[ScoreRequest] = []
        for request in requests:
            text = self.prompts.text(request.messages, request.prefill)
            ids = self.prompts.ids(text)
            continuations = [self.prompts.continuation_ids(text, ids, item) for item in request.continuations]
            if not continuations or not all(continuations):
                yield request, Failure("there is no continuation, or an empty one, to score")
            elif len(ids) + max(len(c) for c in continuations) > self.context:
                yield request, Failure(self._too_long(len(ids)))
            else:
                items.append(ScoreItem(ids, continuations, request.top_logprobs if len(continuations) == 1 else 0))
                kept.append(request)
        for batch in score_batches(items, self.options.batch_tokens):
            for i, (scores, tops) in zip(batch, self._scored([items[i] for i in batch]), strict=True):
                yield (
                    kept[i],
                    Reply(
                        prompt_tokens=len(items[i].prompt),
                        scores=tuple(scores),
                        score_tokens=tuple(len(c) for c in items[i].continuations),
                        top=tuple(tops),
                    ),
                )

    def _scored(self, items: Sequence[ScoreItem]) -> list[tuple[list[float], list[TokenTop]]]:
        from potstill.datagen.teachers.local_scores import score_batch
        from potstill.datagen.teachers.local_scores_in_waves import score_in_waves

        if not self._in_slots:
            return score_in_waves(self.model, self._head, items, self._end, pads=self._pads)
        with self._head.using(precise=True):
            return score_batch(self.model, items, self._end)
