"""LLM.int8 or NF4 in bitsandbytes' own layout, which transformers loads on a GPU and on a CPU.

The student's weights are rounded by bitsandbytes itself, from full values of the model as it is; since those lie on
the same lattice already, its codes are the recipe's. The model never answers before it is saved: on a CPU an answer
repacks the weights, and what is saved after that is garbage without an error.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.errors import MissingExtra
from potstill.train.quiet import quiet_transformers

if TYPE_CHECKING:
    from potstill.train.compress.state import Compressed

_BLOCK = 64
_ROWS = 32


def bitsandbytes_faults(state: Compressed) -> list[str]:
    """Why bitsandbytes cannot hold a student; empty where it can."""
    if state.kind != "causal":
        return ["bitsandbytes is for decoders; choose onnx, packed or plain for a classifier"]
    how = _how(state)
    if how is None:
        return ["bitsandbytes holds llm.int8 and nf4 with groups of 64; choose one of them as the last step"]
    return _shape_faults(state) if "load_in_4bit" in how else []


def _shape_faults(state: Compressed) -> list[str]:
    """Matrices that processors with bfloat16 products cannot answer with: they repack 32 rows of whole blocks of 64."""
    from potstill.train.quantize.schemes import targets, weight_of

    shapes = {target.name: tuple(weight_of(target).shape) for target in targets(state.model)
              if target.part == "blocks"}  # fmt: skip
    bad = [(name, rows, width) for name, (rows, width) in shapes.items() if rows % _ROWS or width % _BLOCK]
    if not bad:
        return []
    name, rows, width = bad[0]
    return [
        f"bitsandbytes reads NF4 in {_ROWS} rows of whole blocks of {_BLOCK}, else it ends at the first answer on "
        f"processors with bfloat16; {name} is {rows} × {width}" + (f", and {len(bad) - 1} more" if bad[1:] else "")
        + "; choose packed or plain"
    ]  # fmt: skip


def write_bitsandbytes(state: Compressed, folder: Path) -> None:
    """Write the folder that `AutoModelForCausalLM.from_pretrained` loads with bitsandbytes.

    Raises:
        MissingExtra: bitsandbytes is not installed.
    """
    from potstill.train.compress.state import write_around, write_plain

    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise MissingExtra("bitsandbytes", "qlora", "the format bitsandbytes") from None
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options = _how(state) or {}
    with tempfile.TemporaryDirectory() as place, quiet_transformers():
        plain = Path(place)
        write_plain(state, plain)
        model = AutoModelForCausalLM.from_pretrained(plain, quantization_config=BitsAndBytesConfig(**options))
        model.save_pretrained(folder)
    config = (folder / "config.json").read_bytes()
    write_around(state, folder)
    (folder / "config.json").write_bytes(config)  # the one that names the rounding


def _how(state: Compressed) -> dict[str, object] | None:
    threshold = (state.activations or {}).get("threshold")
    if threshold is not None:
        return {"load_in_8bit": True, "llm_int8_threshold": threshold}
    methods = {weight.method for weight in state.quantized.values() if "nf4" in weight.method}
    if len(methods) == 1 and "nf4:group=64" in next(iter(methods)):
        double = any(w.lattice.scale_parts is not None for w in state.quantized.values())
        return {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": double}
    return None
