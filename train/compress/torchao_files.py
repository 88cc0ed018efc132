"""8-bit weights as torchao's tensors, which transformers loads on a CPU and on a GPU, decoders and classifiers alike.

    int8:channel                      Int8WeightOnlyConfig: weights in 8 bits, products in the student's number format
    int8:channel,activations=int8     Int8DynamicActivationInt8WeightConfig: inputs rounded a token, integer products

The codes and scales are the recipe's own: torchao rounds with scales of max |w| / 127.5, and rounding an int8 student
once more with them would move every weight, so its tensors are filled with ours. Embeddings and heads are the rounded
values in the student's number format.

Of torchao 0.18 with torch 2.13 no more is of use here: its int4 needs a library that is not on PyPI for CPUs
(`Requires mslk >= 1.0.0`), its intx int4 rests unpacked in 8 bits, its 1-bit values come back as garbage, and its
Wanda was removed; those methods are this package's own. Without `torch.compile` its int8 is no faster on a CPU.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from potstill.errors import MissingExtra
from potstill.train.quantize.schemes import targets
from potstill.train.quiet import quiet_transformers

if TYPE_CHECKING:
    from potstill.train.compress.state import Compressed
    from potstill.train.quantize.lattice import QuantizedWeight

_MIDDLE = 128


def torchao_faults(state: Compressed) -> list[str]:
    """Why torchao cannot hold a student; empty where it can."""
    from potstill.train.compress.vllm_files import lattice_form

    blocks = _blocks(state)
    if not blocks or {lattice_form(weight) for weight in blocks.values()} != {"int8"}:
        return [
            "torchao holds int8:channel, with or without activations=int8; this student has "
            + (", ".join(sorted({weight.method for weight in blocks.values()})) or "plain weights")
        ]
    if (state.activations or {}).get("threshold") is not None:
        return ["torchao keeps no outlier features apart; choose bitsandbytes"]
    return []


@torch.no_grad()
def write_torchao(state: Compressed, folder: Path) -> None:
    """Write the folder that `from_pretrained` loads where torchao is installed.

    Raises:
        MissingExtra: torchao is not installed.
    """
    from potstill.train.compress.state import write_around, write_plain

    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig
    except ImportError:
        raise MissingExtra("torchao", "torchao", "the format torchao") from None
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TorchAoConfig

    auto: Any = AutoModelForCausalLM if state.kind == "causal" else AutoModelForSequenceClassification
    kind = Int8WeightOnlyConfig if state.activations is None else Int8DynamicActivationInt8WeightConfig
    blocks = _blocks(state)
    plain_linears = [
        name for name, module in state.model.named_modules()
        if isinstance(module, torch.nn.Linear) and f"{name}.weight" not in blocks
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as place, quiet_transformers():
        plain = Path(place)
        write_plain(state, plain)
        how = TorchAoConfig(kind(), modules_to_not_convert=plain_linears)
        model = auto.from_pretrained(plain, dtype=state.dtype, quantization_config=how)
        for name, weight in blocks.items():
            stored = model.get_parameter(name)
            stored.qdata.copy_((weight.codes.int() - _MIDDLE).to(torch.int8))
            stored.scale.copy_(weight.lattice.scale.reshape(stored.scale.shape))
        model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    write_around(state, folder)
    ours = json.loads((folder / "config.json").read_text("utf-8"))
    ours["quantization_config"] = config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(ours, indent=2) + "\n", "utf-8")


def _blocks(state: Compressed) -> dict[str, QuantizedWeight]:
    names = [target.name for target in targets(state.model) if target.part == "blocks"]
    return {name: state.quantized[name] for name in names if name in state.quantized}
