"""A decoder as compressed-tensors: integers that vLLM multiplies, and that transformers reads.

    W8A8     format int-quantized     NAME.weight int8 (out, in), NAME.weight_scale (out, 1); inputs rounded a token
    W4A16    format pack-quantized    NAME.weight_packed int32 (out, in / 8), NAME.weight_scale (out, in / group),
                                      NAME.weight_shape

The matrices of the layers are integers; embeddings, and a head tied to them, are the rounded values in the model's
number format, since vLLM reads no rounded embeddings. The library of the same name is not needed to write.

Measured by hand before: SmolLM2-135M 159 MiB (W8A8) and 111 MiB (4 bits, groups of 64) of 257; decoding in vLLM on a
CPU took 0.38x the time of bf16 with W8A8.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from potstill.train.compress.state import Compressed, plain_tensors, write_around
from potstill.train.quantize.lattice import QuantizedWeight
from potstill.train.quantize.schemes import targets

_A_WORD = 8


def vllm_faults(state: Compressed) -> list[str]:
    """Why a student cannot be written so; empty where it can."""
    if state.kind != "causal":
        return ["vllm is for decoders; choose onnx, packed or plain for a classifier"]
    blocks = _blocks(state)
    kinds = {lattice_form(weight) for weight in blocks.values()}
    if not blocks or kinds - {"int8", "int4"} or len(kinds) != 1:
        return [
            "vLLM reads int8:channel and symmetric int4 in groups of 32, 64 or 128 that divide the width (also of gptq "
            "or lkd); this student has " + (", ".join(sorted({w.method for w in blocks.values()})) or "plain weights")
        ]
    threshold = (state.activations or {}).get("threshold")
    return ["vLLM keeps no outlier features apart; choose int8:channel"] if threshold is not None else []


def write_vllm(state: Compressed, folder: Path) -> None:
    """Write `model.safetensors`, configuration with the quantisation, tokenizer and card."""
    blocks = _blocks(state)
    tensors: dict[str, Tensor] = {}
    for name, value in plain_tensors(state).items():
        if name in blocks:
            tensors |= _stored(name, blocks[name], state.dtype)
        else:
            tensors[name] = value.clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    write_around(state, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["quantization_config"] = _config(next(iter(blocks.values())), _ignored(state, blocks))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _blocks(state: Compressed) -> dict[str, QuantizedWeight]:
    names = [target.name for target in targets(state.model) if target.part == "blocks"]
    return {name: state.quantized[name] for name in names if name in state.quantized}


def lattice_form(weight: QuantizedWeight) -> str:
    """`int8` for a symmetric scale a row, `int4` for symmetric groups that engines know, else `other`."""
    lattice = weight.lattice
    if lattice.zero is None or not bool((lattice.zero == 2 ** (lattice.bits - 1)).all()):
        return "other"
    if lattice.bits == 8 and lattice.scale.shape == (weight.codes.shape[0], 1):
        return "int8"
    divides = bool(lattice.group) and weight.codes.shape[1] % lattice.group == 0
    return "int4" if lattice.bits == 4 and divides and lattice.group in (32, 64, 128) else "other"


def _stored(name: str, weight: QuantizedWeight, dtype: torch.dtype) -> dict[str, Tensor]:
    base = name.removesuffix(".weight")
    scale = weight.lattice.scale.to(dtype if dtype != torch.float32 else torch.float32).contiguous()
    if weight.lattice.bits == 8:
        return {name: (weight.codes.int() - 128).to(torch.int8), f"{base}.weight_scale": scale}
    rows, width = weight.codes.shape
    words = torch.zeros(rows, width // _A_WORD, dtype=torch.int64)
    for i in range(_A_WORD):
        words |= weight.codes[:, i::_A_WORD].to(torch.int64) << (4 * i)
    signed = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
    shape = torch.tensor([rows, width])
    return {f"{base}.weight_packed": signed, f"{base}.weight_scale": scale, f"{base}.weight_shape": shape}


def _ignored(state: Compressed, blocks: dict[str, QuantizedWeight]) -> list[str]:
    """Linear layers that stay in full: the head, above all."""
    return [
        name
        for name, module in state.model.named_modules()
        if isinstance(module, torch.nn.Linear) and f"{name}.weight" not in blocks
    ]


def _config(weight: QuantizedWeight, ignored: list[str]) -> dict[str, Any]:
    lattice = weight.lattice
    common = {"num_bits": lattice.bits, "type": "int", "symmetric": True, "dynamic": False, "observer": "minmax"}
    group: dict[str, Any] = {"targets": ["Linear"], "output_activations": None}
    if lattice.bits == 8:
        group["weights"] = {**common, "strategy": "channel", "group_size": None}
        group["input_activations"] = {
            "num_bits": 8, "type": "int", "symmetric": True, "dynamic": True, "strategy": "token", "observer": None,
        }  # fmt: skip
    else:
        group["weights"] = {**common, "strategy": "group", "group_size": lattice.group}
        group["input_activations"] = None
    form = "int-quantized" if lattice.bits == 8 else "pack-quantized"
    return {
        "quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed",
        "config_groups": {"group_0": {**group, "format": form}}, "ignore": ignored, "kv_cache_scheme": None,
    }  # fmt: skip
