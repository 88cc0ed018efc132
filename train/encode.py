"""Texts to token ids for the causal student: one function for training and for answering, so that both agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from potstill.asking.chat import task_messages
from potstill.asking.control_tokens import control_tokens
from potstill.errors import TrainingError
from potstill.task import TaskSpec


def encode_prompt(tokenizer: Any, spec: TaskSpec, text: str, max_tokens: int) -> list[int]:
    """Token ids of the chat up to where the answer starts.

    A prompt that is too long loses the end of its input; the instruction and the turn markers stay.

    Raises:
        TrainingError: The tokenizer has no chat template, or the instruction alone is longer than `max_tokens`.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise TrainingError(
            "the student's tokenizer has no chat template, so it cannot be asked anything; "
            "choose an instruction-tuned student"
        )
    ids = _chat_ids(tokenizer, spec, text)
    if len(ids) <= max_tokens:
        return ids
    room = max_tokens - len(_chat_ids(tokenizer, spec, ""))
    if room <= 0:
        raise TrainingError(
            f"the instruction alone takes {max_tokens - room} of {max_tokens} tokens; raise max_length or shorten it"
        )
    words = tokenizer(control_tokens(tokenizer).spelled_out(text), add_special_tokens=False)["input_ids"]
    while room > 0:
        # Tokens can end within a letter, whose bytes decode to this sign. Cutting between tokens can merge anew at the
        # seam, so the result is measured again.
        ids = _chat_ids(tokenizer, spec, tokenizer.decode(words[:room]).rstrip("\ufffd"))
        if len(ids) <= max_tokens:
            return ids
        room -= len(ids) - max_tokens
    return _chat_ids(tokenizer, spec, "")


def _chat_ids(tokenizer: Any, spec: TaskSpec, text: str) -> list[int]:
    # What an input spells must not end its turn, here as little as in the teacher's prompts.
    told = control_tokens(tokenizer).spelled_out
    messages = [{"role": turn.role, "content": told(turn.content)} for turn in task_messages(spec, text)]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    return ids


def answer_ids(tokenizer: Any, output: str) -> list[int]:
    """Token ids of an answer, without the one that ends it. A control token that it spells is text like any other."""
    ids: list[int] = tokenizer(output, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def end_of_turn(model: Any, tokenizer: Any) -> int:
    """The token that ends an answer."""
    ends = model.generation_config.eos_token_id
    if isinstance(ends, list) and ends:
        return int(tokenizer.eos_token_id if tokenizer.eos_token_id in ends else ends[0])
    return int(ends if isinstance(ends, int) else tokenizer.eos_token_id)


def batches_by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Rows in batches of like lengths, each of at most `tokens` padded tokens (one row at least)."""
    found: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        # Rows come by length, so the newest is the longest of its batch.
        if found and (len(found[-1]) + 1) * lengths[i] <= tokens:
            found[-1].append(i)
        else:
            found.append([i])
    return found
