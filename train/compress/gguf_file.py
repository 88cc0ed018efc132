"""A Llama-like decoder as one GGUF file for llama.cpp: weights in blocks of 32, tokenizer inside.

The blocks are rounded by the `gguf` package (q8_0: a half-precision scale and 32 bytes; q4_0: a scale and 16 bytes)
from the student's weights as they are, so a student that was rounded before is rounded once more; q8_0 of an int8
student loses next to nothing. Rows of queries and keys are put into the order that llama.cpp's rotary embedding wants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from potstill.errors import UserError

if TYPE_CHECKING:
    from potstill.train.compress.state import Compressed

_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_BLOCK = 32
_NORMAL, _CONTROL = 1, 3


def gguf_faults(state: Compressed) -> list[str]:
    """Why a student cannot be a GGUF file; empty where it can."""
    model_type = str(getattr(state.model.config, "model_type", ""))
    if model_type != "llama":
        return [f"gguf is for decoders built like Llama (SmolLM2 is one); this student is {model_type!r}"]
    widths = {weight.shape[1] for weight in state.model.parameters() if weight.ndim == 2}
    if odd := sorted(width for width in widths if width % _BLOCK):
        return [f"gguf rounds blocks of {_BLOCK}, which do not divide rows of {odd[0]}; choose packed or vllm"]
    rope = str((getattr(state.model.config, "rope_parameters", None) or {}).get("rope_type") or "default")
    if rope != "default":
        return [f"gguf is written with plain rotary positions here; this student's are scaled ({rope!r})"]
    core = json.loads(state.tokenizer.backend_tokenizer.to_str())
    if (kind := core["model"]["type"]) != "BPE":
        return [f"gguf holds byte-level BPE tokenizers here; this one is {kind}"]
    if _splitter(core) is None:
        return ["gguf names a tokenizer's way to split words, and this one's has no name there"]
    return []


def write_gguf(state: Compressed, folder: Path, kind: str) -> None:
    """Write `model-KIND.gguf`, and beside it configuration, tokenizer and card.

    Args:
        state: The student.
        folder: Where to.
        kind: `q8_0` or `q4_0`.

    Raises:
        UserError: A tensor whose name GGUF has no word for.
    """
    import gguf

    from potstill.train.compress.state import plain_tensors, write_around

    rounding = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0}[kind]
    writer = gguf.GGUFWriter(folder / f"model-{kind}.gguf", "llama")
    _write_facts(writer, state, gguf, kind)
    _write_tokenizer(writer, state)
    config = state.model.config
    heads, groups = int(config.num_attention_heads), int(config.num_key_value_heads)
    for name, value in plain_tensors(state).items():
        array: NDArray[np.float32] = value.float().numpy()
        if ".q_proj." in name or ".k_proj." in name:
            array = _for_rotation(array, heads if ".q_proj." in name else groups)
        if array.ndim > 1:
            writer.add_tensor(_gguf_name(name), gguf.quants.quantize(array, rounding), raw_dtype=rounding)
        else:
            writer.add_tensor(_gguf_name(name), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_around(state, folder)


def _for_rotation(array: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of each head from halves (Hugging Face) to neighbours (llama.cpp): the two that rotate together."""
    rows = array.shape[0]
    cut = array.reshape(heads, 2, rows // heads // 2, *array.shape[1:])
    return np.ascontiguousarray(cut.swapaxes(1, 2).reshape(array.shape))


def _gguf_name(name: str) -> str:
    base, _, last = name.rpartition(".")
    if base in _TOP:
        return f"{_TOP[base]}.{last}"
    parts = base.split(".", 3)  # model.layers.N.REST
    if len(parts) == 4 and parts[1] == "layers" and parts[3] in _NAMES:
        return f"blk.{parts[2]}.{_NAMES[parts[3]]}.{last}"
    raise UserError(f"GGUF has no name for the tensor {name}; choose --format packed or vllm")


def _write_facts(writer: Any, state: Compressed, gguf: Any, kind: str) -> None:
    config = state.model.config
    head = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    writer.add_name(state.card.name if state.card is not None else Path(state.source).name)
    writer.add_file_type({"q8_0": gguf.LlamaFileType.MOSTLY_Q8_0, "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0}[kind])
    writer.add_vocab_size(int(config.vocab_size))
    writer.add_context_length(int(config.max_position_embeddings))
    writer.add_embedding_length(int(config.hidden_size))
    writer.add_block_count(int(config.num_hidden_layers))
    writer.add_feed_forward_length(int(config.intermediate_size))
    writer.add_head_count(int(config.num_attention_heads))
    writer.add_head_count_kv(int(config.num_key_value_heads))
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    rope = getattr(config, "rope_parameters", None) or {}
    theta: Any = rope.get("rope_theta") or getattr(config, "rope_theta", None) or 10000.0
    writer.add_rope_freq_base(float(theta))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _splitter(core: Mapping[str, Any]) -> str | None:
    """What llama.cpp calls the way in which a tokenizer splits text before its merges; None where it has no name."""
    given = core.get("pre_tokenizer") or {}
    parts = given.get("pretokenizers") or [given]
    kinds = [part.get("type") for part in parts]
    patterns = [str((part.get("pattern") or {}).get("Regex", "")) for part in parts if part.get("type") == "Split"]
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"]:
        return "smollm" if parts[0].get("individual_digits") else None
    if kinds == ["Split", "ByteLevel"] and r"\p{N}{1,3}" in patterns[0]:
        return "llama-bpe"
    if kinds == ["Split", "ByteLevel"] and r"\p{N}|" in patterns[0]:
        return "qwen2"
    return None


def _write_tokenizer(writer: Any, state: Compressed) -> None:
    tokenizer = state.tokenizer
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    names = {index: token for token, index in core["model"]["vocab"].items()}
    special = {item["id"]: item["content"] for item in core.get("added_tokens", ()) if item["special"]}
    names |= {item["id"]: item["content"] for item in core.get("added_tokens", ())}
    size = int(state.model.config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_splitter(core) or "gpt-2")
    writer.add_token_list([names.get(i, f"[PAD{i}]") for i in range(size)])
    writer.add_token_types([_CONTROL if i in special or i not in names else _NORMAL for i in range(size)])
    merges = core["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    for add, index in (
        (writer.add_bos_token_id, tokenizer.bos_token_id), (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):  # fmt: skip
        if index is not None:
            add(int(index))
    writer.add_add_bos_token(False)
    if getattr(tokenizer, "chat_template", None):
        writer.add_chat_template(tokenizer.chat_template)
