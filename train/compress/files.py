"""A compressed student as files, and files as a model again: one name a format.

packed        every method; the codes at their own bits; unpacked when loaded (small on disk, no faster)
plain         safetensors of the rounded values, for anything that reads a Hugging Face folder; no smaller
onnx          encoders, int8 or int4: integer products in onnxruntime, small and fast on CPU
vllm          compressed-tensors, W8A8 or 4-bit groups: integer products in vLLM; transformers reads it, too
gguf-q8_0     GGUF for llama.cpp, blocks of 32 in 8 bits
gguf-q4_0     GGUF for llama.cpp, blocks of 32 in 4 bits
bitsandbytes  LLM.int8 or NF4 in bitsandbytes' own layout, for transformers on a GPU or CPU
torchao       8-bit weights, inputs too or not, as torchao's tensors, for transformers on a GPU or CPU
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import MissingExtra, OptionError
from potstill.options import nearest
from potstill.train.quiet import quiet_bars, quiet_transformers
from potstill.whole_folders import written_whole

if TYPE_CHECKING:
    from potstill.train.compress.state import Compressed

# The library that writes a format, or loads it again to be measured, and the extra that brings it.
_LIBRARIES = {
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "compress"), "bitsandbytes": (("bitsandbytes",), "qlora"),
    "torchao": (("torchao",), "torchao"), "vllm": (("compressed_tensors",), "compress"),
}  # fmt: skip
_FORMAT_OF = {"compressed-tensors": "vllm", "bitsandbytes": "bitsandbytes", "torchao": "torchao"}
FORMATS = ("packed", "plain", "onnx", "vllm", "gguf-q8_0", "gguf-q4_0", "bitsandbytes", "torchao")
# Those in which some matrices may be rounded and others not.
KEEPING = ("packed", "plain", "onnx", "torchao")


def check_formats(formats: tuple[str, ...]) -> None:
    """Refuse formats that are unknown, or whose libraries are not here.

    Raises:
        OptionError: Every unknown name, with the nearest known one.
        MissingExtra: A library that a format needs is not installed.
    """
    faults = [f"there is no format {name!r}{nearest(name, (*FORMATS, 'auto'))}" for name in formats
              if name not in (*FORMATS, "auto")]  # fmt: skip
    if faults:
        raise OptionError("formats", faults)
    for name in formats:
        _check_libraries(name, f"the format {name}")


def _check_libraries(form: str, why: str) -> None:
    libraries, extra = _LIBRARIES.get(form, ((), ""))
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            raise MissingExtra(library, extra, why)


def format_faults(state: Compressed, form: str) -> list[str]:
    """Why a student cannot be written in a format; empty where it can."""
    if form == "onnx":
        from potstill.train.compress.onnx_file import onnx_faults

        return onnx_faults(state)
    if form == "vllm":
        from potstill.train.compress.vllm_files import vllm_faults

        return vllm_faults(state)
    if form.startswith("gguf"):
        from potstill.train.compress.gguf_file import gguf_faults

        return gguf_faults(state)
    if form == "bitsandbytes":
        from potstill.train.compress.bitsandbytes_files import bitsandbytes_faults

        return bitsandbytes_faults(state)
    if form == "torchao":
        from potstill.train.compress.torchao_files import torchao_faults

        return torchao_faults(state)
    return []


def best_format(state: Compressed) -> str:
    """The format that `auto` stands for: ONNX for an encoder that it can hold, where it is installed; else packed."""
    installed = all(importlib.util.find_spec(name) for name in _LIBRARIES["onnx"][0])
    if state.quantized and installed and not format_faults(state, "onnx"):
        return "onnx"
    return "packed"


def write_files(state: Compressed, folder: Path, form: str) -> None:
    """Write a student in a format, published by a rename.

    Raises:
        OptionError: The format cannot hold it.
        MissingExtra: A library of the format is not installed.
    """
    from potstill.train.compress.place import FACTS
    from potstill.train.compress.state import facts_of

    if faults := format_faults(state, form):
        raise OptionError(f"format {form}", faults)
    with written_whole(folder) as temporary:
        _write(state, temporary, form)
        (temporary / FACTS).write_text(json.dumps(facts_of(state, form), indent=1) + "\n", "utf-8")
        for path in temporary.iterdir():
            path.chmod(0o644)


def _write(state: Compressed, folder: Path, form: str) -> None:
    from potstill.train.compress.state import write_packed, write_plain

    if form == "packed":
        write_packed(state, folder)
    elif form == "plain":
        write_plain(state, folder)
    elif form == "onnx":
        from potstill.train.compress.onnx_file import write_onnx

        write_onnx(state, folder)
    elif form == "vllm":
        from potstill.train.compress.vllm_files import write_vllm

        write_vllm(state, folder)
    elif form == "bitsandbytes":
        from potstill.train.compress.bitsandbytes_files import write_bitsandbytes

        write_bitsandbytes(state, folder)
    elif form == "torchao":
        from potstill.train.compress.torchao_files import write_torchao

        write_torchao(state, folder)
    else:
        from potstill.train.compress.gguf_file import write_gguf

        write_gguf(state, folder, form.removeprefix("gguf-"))


def load_model(folder: Path, *, classifies: bool = False) -> tuple[Any, Any]:
    """Model and tokenizer of a folder in any format but ONNX, in evaluation mode.

    Args:
        folder: The student.
        classifies: Whether it is a classifier.

    Raises:
        DataError: Packed files that cannot be read.
        MissingExtra: The library that reads its format is not installed.
    """
    from potstill.train.compress.state import PACKED, load_state

    if (folder / PACKED).exists():
        state = load_state(folder)
        return state.model.to(state.dtype), state.tokenizer
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    auto = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    found = sorted(folder.glob("*.gguf"))
    more = {"gguf_file": found[0].name} if found else {}
    rounded = _quantization(folder)
    if (form := _FORMAT_OF.get(rounded)) is not None:
        _check_libraries(form, f"the student at {folder}")
    with quiet_transformers(), quiet_bars(rounded):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return auto.from_pretrained(folder, **more).eval(), tokenizer


def _quantization(folder: Path) -> str:
    """How config.json says that the weights are rounded; empty where it does not."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return str((config.get("quantization_config") or {}).get("quant_method") or "")
    except (OSError, ValueError, AttributeError):
        return ""  # the library says what is wrong with it
