"""Whether rows side by side give what a model gives to each alone: known of many kinds of models, tried of the others.

In slots (`decoder`), masks and positions are set from outside, which a model whose layers make their own (a window that
no mask shows, a state, a bias by place) does not heed: it would write other words than it means, without a fault. In
waves (`waves`) the library sets them, for most kinds rightly.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from potstill.asking.teacher import Request
from potstill.decoding.batch import Batch, Row
from potstill.decoding.decoder import Decoder
from potstill.decoding.model import grouped_attention, unknown_layers
from potstill.decoding.waves import Waves

# Rows in key-value slots, which come and go one by one; rows in waves, of padded prompts or of prompts of one length.
Manner = Literal["slots", "padded", "unpadded"]

# Kinds (`model_type` of the text model's config) of which random models are compared with plain passes, greedily and by
# scores, in `tests/datagen/teachers/test_kinds.py`.
KNOWN = frozenset({
    "apertus", "arcee", "biogpt", "bitnet", "codegen", "cohere", "cohere2", "deepseek_v2", "deepseek_v3",
    "diffllama", "ernie4_5", "ernie4_5_moe", "gemma", "gemma2", "gemma3_text", "gemma3n_text",
    "gemma4_text", "glm", "glm4", "glm4_moe", "gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "gptj", "granite",
    "granitemoe", "granitemoeshared", "helium", "hunyuan_v1_dense", "jetmoe", "llama", "minicpm3", "minimax_m2",
    "ministral", "ministral3", "mistral", "mixtral", "modernbert-decoder", "nanochat", "nemotron", "olmo",
    "olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2", "xglm",
})  # fmt: skip
# Those whose layers keep a state or make their own masks, in waves padded at the left; compared in the same test.
KNOWN_IN_WAVES = frozenset({
    "bamba", "bloom", "doge", "falcon_h1", "falcon_mamba", "gpt_neo", "granitemoehybrid", "jamba", "lfm2", "lfm2_moe",
    "llama4_text", "mamba", "mamba2", "mpt", "nemotron_h", "olmo_hybrid", "qwen3_5_moe_text", "qwen3_5_text",
    "qwen3_next",
})  # fmt: skip
# Of prompts as long as these, or as the model takes: a window of 256 positions shows.
_LENGTHS = (7, 40, 320)
_TOKENS = 5
# Of each log-prob, and of their mean where weights are rounded: there single ones differ by the rounding alone.
_CLOSE, _CLOSE_ROUNDED = 0.005, 0.25


def known_manner(model: Any) -> Manner | None:
    """How the kind of a model was found to be batched rightly; None of a kind that nobody compared."""
    kind = model.config.get_text_config(decoder=True).model_type
    return "slots" if kind in KNOWN else "padded" if kind in KNOWN_IN_WAVES else None


def manner_of(model: Any, *, slots: bool = True) -> tuple[Manner | None, str]:
    """The fastest way of writing rows side by side that gives what plain passes give; None and why where none does.

    A kind that nobody compared is tried, with a few passes over some hundred tokens.

    Args:
        model: A model with an output layer, and with the library's own attention.
        slots: Whether slots are among the ways.
    """
    if known := known_manner(model):
        return known, ""
    if slots and not unknown_layers(model):
        with grouped_attention(model):
            if not decoding_fault(model):
                return "slots", ""
    if not waves_fault(model, pads=True):
        return "padded", ""
    fault = waves_fault(model, pads=False)
    return (None, fault) if fault else ("unpadded", "")


def decoding_fault(model: Any) -> str:
    """How rows that are written in slots differ from those of plain passes; "" for none."""
    return _written_fault(model, Decoder)


def waves_fault(model: Any, *, pads: bool) -> str:
    """How rows that are written in waves differ from those of plain passes; "" for none.

    Args:
        model: The model.
        pads: Whether prompts of other lengths are padded.
    """
    return _written_fault(model, functools.partial(Waves, pads=pads))


def _written_fault(model: Any, batch: Callable[..., Batch]) -> str:
    prompts = prompts_of(model)
    ask = Request(messages=(), max_tokens=_TOKENS, temperature=0.0, top_logprobs=1)

    def written() -> list[float]:
        writer = batch(model, None, len(prompts), sum(map(len, prompts)) + 4096, ends=frozenset())
        # Rows that end apart show whether what stays is moved rightly.
        rows = [Row(ask, prompt, _TOKENS - place) for place, prompt in enumerate(prompts)]
        waiting = deque(rows)
        while waiting or writer.rows:
            list(writer.admit(waiting, 1 << 16))
            if writer.rows:
                list(writer.step())
        return [
            top.logprob - told
            for row in rows
            for top, told in zip(row.tops, plain_logprobs(model, row.prompt, row.tokens), strict=True)
        ]

    return fault_of(model, written)


def fault_of(model: Any, differences: Callable[[], Sequence[float]]) -> str:
    """What is wrong where log-probs differ too much from those of plain passes, or cannot be had."""
    try:
        found = differences()
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError) as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    apart = [abs(value) for value in found]
    exact = model.dtype in (torch.float32, torch.float64)
    told = max(apart) if exact else sum(apart) / len(apart)
    if told <= (_CLOSE if exact else _CLOSE_ROUNDED):
        return ""
    return f"log-probs differ by {told:.2g} from those of plain passes"


def prompts_of(model: Any) -> list[list[int]]:
    """Token ids to try a model with, of several lengths; any will do."""
    config = model.config.get_text_config(decoder=True)
    most = int(getattr(config, "max_position_embeddings", 1024)) - 2 * _TOKENS
    size = model.get_input_embeddings().num_embeddings
    return [
        [(7 * i * i + 3 * i + first) % size for i in range(min(length, most))]
        for first, length in enumerate(_LENGTHS, 1)
    ]


@torch.inference_mode()
def plain_logprobs(model: Any, prompt: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Log-prob of each token behind a prompt, from one pass over both alone."""
    ids = torch.tensor([[*prompt, *tokens]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    return [float(row[token]) for row, token in zip(logits, tokens, strict=True)]
