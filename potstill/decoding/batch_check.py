"""Whether rows side by side give what a model gives to each alone: known of many kinds of models, tried of the others.

Slots, masks and positions are set from outside, which a model whose layers make their own (a window that no mask shows,
a state, a bias by place) does not heed: it would write other words than it means, without a fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch

from potstill.asking.teacher import Request
from potstill.decoding.decoder import Decoder, Row

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
# Of prompts as long as these, or as the model takes: a window of 256 positions shows.
_LENGTHS = (7, 40, 320)
_TOKENS = 3
# Of each log-prob, and of their mean where weights are rounded: there single ones differ by the rounding alone.
_CLOSE, _CLOSE_ROUNDED = 0.005, 0.25


def is_known(model: Any) -> bool:
    """Whether the kind of a model was compared with plain passes."""
    return model.config.get_text_config(decoder=True).model_type in KNOWN


def decoding_fault(model: Any) -> str:
    """How rows that are written side by side differ from those of plain passes; "" for none, and for a known kind.

    Takes a few passes over some hundred tokens.
    """
    if is_known(model):
        return ""
    prompts = prompts_of(model)
    decoder = Decoder(model, None, len(prompts), sum(map(len, prompts)) + 4096, ends=frozenset())
    ask = Request(messages=(), max_tokens=_TOKENS, temperature=0.0, top_logprobs=1)

    def written() -> list[float]:
        rows = [Row(ask, prompt, _TOKENS) for prompt in prompts]
        waiting = deque(rows)
        while waiting or decoder.rows:
            list(decoder.admit(waiting, 1 << 16))
            if decoder.rows:
                list(decoder.step())
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
