"""A model's likeliest answers to many prompts.

Rows that have ended leave the batch, as in a teacher's (`decoder`). The library's own `generate` carries them along
until the longest answer of the batch ends: for a student that rambles on one text of thirty-two, most of the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from potstill.asking.teacher import Request
from potstill.decoding.batch import Batch, Row
from potstill.decoding.batch_check import manner_of
from potstill.decoding.decoder import Decoder
from potstill.decoding.model import bytes_a_position, context_length, grouped_attention
from potstill.decoding.waves import Waves

# Prompt tokens that are read in one pass.
_BATCH_TOKENS = 4096
_CACHE_BYTES = 2 * 2**30
# What `generate` obeys of a generation config beside the likeliest token, with the values that mean nothing.
_RULES = {
    "repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None,),
    "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
}


def greedy_writer(model: Any, tokenizer: Any, slots: int = 64) -> Greedy | None:
    """What gives the answers that the library's `generate` would; None where only that can.

    So it is if a model's settings hold another rule than the likeliest token, or if its rows cannot be padded.

    Args:
        model: A causal model.
        tokenizer: Its tokenizer.
        slots: Most rows at a time.
    """
    settings = getattr(model, "generation_config", None)
    ruled = any(getattr(settings, name, None) not in idle for name, idle in _RULES.items())
    if ruled or model.get_output_embeddings() is None:
        return None
    manner, _ = manner_of(model)
    return None if manner in (None, "unpadded") else Greedy(model, tokenizer, slots, in_slots=manner == "slots")


class Greedy:
    """A model with its batch. Not safe for several threads."""

    def __init__(self, model: Any, tokenizer: Any, slots: int, *, in_slots: bool):
        """Args:
        model: A causal model.
        tokenizer: Its tokenizer.
        slots: Most rows at a time.
        in_slots: Whether rows come and go one by one, and not in waves.
        """
        self._model = model
        self._in_slots = in_slots
        sizes = (model, tokenizer, slots, _CACHE_BYTES // bytes_a_position(model))
        self._batch: Batch = Decoder(*sizes) if in_slots else Waves(*sizes, pads=True)
        self._context = context_length(model)

    @torch.inference_mode()
    def answers(
        self, prompts: Sequence[Sequence[int]], room: int, progress: Callable[[int], None] | None = None
    ) -> list[str]:
        """The answers, in the order of the prompts.

        Args:
            prompts: Token ids.
            room: Most new tokens of an answer.
            progress: Called with the number of answers so far.
        """
        ask = Request(messages=(), max_tokens=room, temperature=0.0)
        rows = [Row(ask, prompt, max(1, min(room, self._context - len(prompt)))) for prompt in prompts]
        waiting, done = deque(sorted(rows, key=lambda row: len(row.prompt))), 0
        self._batch.clear()  # of a call that was broken off
        with grouped_attention(self._model) if self._in_slots else nullcontext():
            while waiting or self._batch.rows:
                ended = list(self._batch.admit(waiting, _BATCH_TOKENS))
                if self._batch.rows:
                    ended += self._batch.step()
                done += len(ended)
                if ended and progress is not None:
                    progress(done)
        return [self._batch.text(row) for row in rows]
