"""Kinds of models that are taken to be batched rightly: a random one of each, rows side by side against one by one."""

from __future__ import annotations

from typing import Any

import pytest

from potstill.datagen.teachers.local_check import teacher_manner
from potstill.decoding import batch_check

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
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"] * 2, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
CONV = {"layer_types": ["conv", "full_attention"] * 2}
STATE = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_chunk_size": 64}
# Layers with a state, windows that no mask shows, biases by place.
IN_WAVES: dict[str, dict[str, Any]] = {
    "bamba": {**STATE, "mamba_expand": 2, "attn_layer_indices": [1, 3]}, "bloom": {"n_head": 4, "n_layer": 4},
    "doge": {}, "falcon_h1": {**HEAD, **STATE, "mamba_d_ssm": 64}, "falcon_mamba": {"state_size": 8},
    "gpt_neo": {"num_layers": 4, "num_heads": 4, "attention_types": [[["global", "local"], 2]], "window_size": 16},
    "granitemoehybrid": {
        **STATE, "mamba_expand": 2, "layer_types": ["mamba", "attention"] * 2, "num_local_experts": 4,
        "num_experts_per_tok": 2, "shared_intermediate_size": 64,
    },
    "jamba": {
        "num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1,
        "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 8, "use_mamba_kernels": False,
    },
    "lfm2": {**CONV, "block_ff_dim": 64, "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {**CONV, **FEW, "num_experts": 4, "num_dense_layers": 1},
    "llama4_text": {**HEAD, "intermediate_size_mlp": 64, "num_local_experts": 4, "attention_chunk_size": 16},
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "expand": 2, "chunk_size": 64},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 512},
    "nemotron_h": {
        **HEAD, "layers_block_type": ["mamba", "attention", "mlp", "mamba"], "mamba_num_heads": 8, "mamba_head_dim": 8,
        "ssm_state_size": 16, "n_groups": 1, "chunk_size": 64,
    },
    "olmo_hybrid": LINEAR, "qwen3_5_moe_text": {**HEAD, **LINEAR, **FEW, "num_experts": 4},
    "qwen3_5_text": {**HEAD, **LINEAR},
    "qwen3_next": {**HEAD, **LINEAR, **FEW, "num_experts": 4, "shared_expert_intermediate_size": 32},
}  # fmt: skip
# Of which nobody says how they are batched rightly.
OTHERS: dict[str, tuple[dict[str, Any], str | None]] = {
    "falcon": ({"num_key_value_heads": None}, "slots"),
    "exaone4": ({**WINDOW, "sliding_window_pattern": 2}, "slots"),
    "rwkv": ({}, None),
    "xlstm": ({"num_heads": 4, "num_blocks": 2}, None),
}


def made(kind: str, fields: dict[str, Any]) -> Any:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**{**SHAPE, **fields})).float().eval()
    assert model.config.model_type == kind
    return model


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, *IN_WAVES])
def test_a_known_kind_is_batched_rightly(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(kind, {**KINDS, **IN_WAVES}[kind])
    right = "slots" if kind in KINDS else "padded"
    assert batch_check.known_manner(model) == right
    monkeypatch.setattr(batch_check, "KNOWN", frozenset())
    monkeypatch.setattr(batch_check, "KNOWN_IN_WAVES", frozenset())
    assert teacher_manner(model, 0) == (right, "")


@pytest.mark.parametrize("kind", OTHERS)
def test_another_kind_is_tried(kind: str) -> None:
    fields, right = OTHERS[kind]
    model = made(kind, fields)
    assert batch_check.known_manner(model) is None
    manner, fault = teacher_manner(model, 0)
    assert manner == right
    assert (fault == "") == (right is not None)


def test_every_known_kind_is_compared() -> None:
    assert set(KINDS) == batch_check.KNOWN
    assert set(IN_WAVES) == batch_check.KNOWN_IN_WAVES
