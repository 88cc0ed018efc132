"""Kinds of models that are taken to be batched rightly: a random one of each, rows side by side against one by one."""

from __future__ import annotations

from typing import Any

import pytest

from potstill.datagen.teachers.local_check import passes_fault
from potstill.decoding import batch_check
from potstill.decoding.model import grouped_attention, unknown_layers

SHAPE: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": 1,
    "initializer_range": 0.3,
}  # fmt: skip
HEAD, WINDOW = {"head_dim": 8}, {"sliding_window": 16}
FEW = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
GPT2 = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512}
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "num_key_value_heads": 4,
}  # fmt: skip
GROUPS = {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1}
LAYERED = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 512}
KINDS: dict[str, dict[str, Any]] = {
    "apertus": {}, "arcee": {}, "biogpt": {}, "bitnet": {}, "codegen": {**GPT2, "rotary_dim": 8}, "cohere": {},
    "cohere2": WINDOW, "deepseek_v2": {**LATENT, **FEW, **GROUPS, "v_head_dim": 8},
    "deepseek_v3": {**LATENT, **FEW, **GROUPS, "v_head_dim": 16}, "diffllama": {}, "ernie4_5": HEAD,
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32}, "gemma": HEAD,
    "gemma2": {**HEAD, **WINDOW}, "gemma3_text": {**HEAD, **WINDOW},
    "gemma3n_text": {**HEAD, **WINDOW, **LAYERED, "num_kv_shared_layers": 2, "laurel_rank": 8},
    "gemma4_text": {**HEAD, **WINDOW, **LAYERED, "global_head_dim": 8}, "glm": HEAD, "glm4": HEAD,
    "glm4_moe": {**HEAD, **FEW, "n_routed_experts": 4, "first_k_dense_replace": 1}, "gpt2": GPT2, "gpt_bigcode": GPT2,
    "gpt_neox": {}, "gpt_oss": {**HEAD, **WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gptj": {**GPT2, "rotary_dim": 8}, "granite": {},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoeshared": {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 32},
    "helium": HEAD, "hunyuan_v1_dense": HEAD, "jetmoe": {"kv_channels": 8, "num_local_experts": 4}, "llama": {},
    "minicpm3": {**LATENT, "v_head_dim": 8}, "minimax_m2": {**HEAD, "num_local_experts": 4, "num_experts_per_tok": 2},
    "ministral": {**HEAD, **WINDOW}, "ministral3": HEAD, "mistral": WINDOW, "mixtral": {"num_local_experts": 4},
    "modernbert-decoder": {"global_attn_every_n_layers": 2, "local_attention": 16}, "nanochat": HEAD, "nemotron": {},
    "olmo": {}, "olmo2": {}, "olmo3": WINDOW, "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32}, "persimmon": {"num_key_value_heads": 4}, "phi": {},
    "phi3": WINDOW, "phimoe": {"num_local_experts": 4}, "qwen2": {**WINDOW, "use_sliding_window": True},
    "qwen2_moe": {**FEW, "num_experts": 4, "shared_expert_intermediate_size": 32}, "qwen3": HEAD,
    "qwen3_moe": {**HEAD, **FEW, "num_experts": 4}, "seed_oss": HEAD, "smollm3": {"no_rope_layer_interval": 2},
    "stablelm": {}, "starcoder2": WINDOW,
    "xglm": {"d_model": 32, "num_layers": 4, "attention_heads": 4, "ffn_dim": 64},
}  # fmt: skip
# Of which nobody says that they are batched rightly; the first two are.
OTHERS: dict[str, tuple[dict[str, Any], bool]] = {
    "falcon": ({"num_key_value_heads": None}, True),
    "exaone4": ({**WINDOW, "sliding_window_pattern": 2}, True),
    "mpt": ({"d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 512}, False),
    "bloom": ({"n_head": 4, "n_layer": 4}, False),
    "gpt_neo": (
        {"num_layers": 4, "num_heads": 4, "attention_types": [[["global", "local"], 2]], "window_size": 16}, False,
    ),
    "rwkv": ({}, False),
}  # fmt: skip


def made(kind: str, fields: dict[str, Any]) -> Any:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**{**SHAPE, **fields})).float().eval()
    assert model.config.model_type == kind
    assert unknown_layers(model) == []
    return model


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_known_kind_is_batched_rightly(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(kind, KINDS[kind])
    assert batch_check.is_known(model)
    monkeypatch.setattr(batch_check, "KNOWN", frozenset())
    with grouped_attention(model):
        assert passes_fault(model, 0) == ""


@pytest.mark.parametrize("kind", OTHERS)
def test_another_kind_is_tried(kind: str) -> None:
    fields, right = OTHERS[kind]
    model = made(kind, fields)
    assert not batch_check.is_known(model)
    with grouped_attention(model):
        assert (passes_fault(model, 0) == "") == right


def test_every_known_kind_is_compared() -> None:
    assert set(KINDS) == batch_check.KNOWN
