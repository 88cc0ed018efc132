"""A student under compression, and the folder that holds it exactly: packed codes, zeros as a bit each, the rest plain.

What enters: a student's folder, or a model of transformers. What leaves: `Compressed`, the model with its codes, masks
and rounding of activations; and after a step its folder:

    config.json, tokenizer files, potstill.json     as for any student
    packed.safetensors                              NAME for plain tensors, NAME::codes, ::scale, … for rounded ones,
                                                ::mask and ::nonzero for pruned ones; what decodes them stands in
                                                    the file's own metadata
    compression.json                                the steps that were done, activations, what it was made from
    masks.bits, exact.float32                       of a student that goes on: what is pruned, and values that its
                                                    number format rounds

`load_student` reads it; the weights are unpacked to the number format of config.json when it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from potstill.errors import DataError, OptionError
from potstill.models import local_model
from potstill.train.card import CARD, StudentCard, read_card, write_card
from potstill.train.compress.place import FACTS
from potstill.train.quantize.activations import install
from potstill.train.quantize.lattice import QuantizedWeight
from potstill.train.quantize.packing import describe, pack_bits, restore, stored_tensors, unpack_bits
from potstill.train.quiet import quiet_transformers
from potstill.whole_folders import written_whole

PACKED = "packed.safetensors"
# Not named as weights, since the size of a step is that of the files which could be delivered after it.
MASKS = "masks.bits"
EXACT = "exact.float32"
_SPARSE = 0.1


@dataclass
class Compressed:
    """A student between two steps.

    Attributes:
        model: The model, in float32; rounded weights hold the values of their codes.
        tokenizer: Its tokenizer.
        card: What the student is for; None for a bare model.
        kind: `classification` or `causal`.
        dtype: Number format that plain weights rest in.
        quantized: Codes by parameter name.
        kept: Masks by parameter name, True where a weight stays.
        activations: How inputs of linear layers are rounded (`threshold`, or None for naive); None leaves them.
        steps: The steps that were done, as text.
        source: What it was made from.
    """

    model: Any
    tokenizer: Any
    card: StudentCard | None
    kind: str
    dtype: torch.dtype
    quantized: dict[str, QuantizedWeight] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    activations: dict[str, Any] | None = None
    steps: list[str] = field(default_factory=list)
    source: str = ""


def open_source(path: Path | str) -> Compressed:
    """A student, or a bare model of transformers, to be compressed; its files are only read.

    Raises:
        OptionError: It is compressed already.
        DataError: It cannot be read.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from potstill.decoding.text_model import load_text_model, writes_text

    place = local_model(str(path))
    folder = Path(place)
    missing = f"{path} is no folder here, and no model of that name is at hand or on the Hub; give a run, a student's"
    missing += " folder, or a decoder's name as on the Hub"
    # A name of the Hub has one slash at most, and is not meant where the part before it is a folder.
    if not folder.exists() and (len(folder.parts) > 2 or (len(folder.parts) == 2 and folder.parent.is_dir())):
        raise DataError(missing)
    if already := compressed_as(folder):
        raise OptionError(
            "recipe", [f"{path} is compressed already ({already}); give the student that it was made from"]
        )
    try:
        config = AutoConfig.from_pretrained(place)
        bare = not (folder / CARD).exists()
        causal = writes_text(config)
        card = None if bare and causal else read_card(folder)
        kind = "classification" if card is not None and card.kind == "classification" else "causal"
        load = AutoModelForSequenceClassification.from_pretrained if kind == "classification" else load_text_model
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(place)
            model = load(place, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        if not folder.exists():
            raise DataError(missing) from None
        raise DataError(
            f"the student at {path} cannot be loaded ({error}); give a folder of a trained student"
        ) from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Compressed(model, tokenizer, card, kind, config.dtype or torch.float32, source=source_name(path))


def source_name(path: Path | str) -> str:
    """What files say of where a student came from: a model's name, or the last part of a folder."""
    return Path(path).name if Path(path).is_dir() else str(path)


def compressed_as(folder: Path) -> str:
    """How a folder's student is compressed; empty for a plain one."""
    if not folder.is_dir():
        return ""
    for name in (FACTS, PACKED):
        if (folder / name).exists():
            return f"it has {name}"
    for pattern in ("*.onnx", "*.gguf"):
        if found := sorted(folder.glob(pattern)):
            return f"it is {found[0].name}"
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    method = (config.get("quantization_config") or {}).get("quant_method")
    return f"its config.json says {method}" if config.get("quantization_config") else ""


def save_state(state: Compressed, folder: Path) -> None:
    """Write a student under compression, exactly: the next step goes on from it. Published by a rename."""
    with written_whole(folder) as temporary:
        write_packed(state, temporary)
        if state.kept:
            save_file(
                {name: pack_bits(mask.to(torch.uint8), 1) for name, mask in state.kept.items()}, temporary / MASKS
            )
        if rounded := {
            name: value.clone()
            for name, value in _untied(state)
            if name not in state.quantized and value.is_floating_point()
            and not torch.equal(value.to(state.dtype).to(value.dtype), value)
        }:  # fmt: skip
            save_file(rounded, temporary / EXACT)
        for path in temporary.iterdir():
            path.chmod(0o644)  # safetensors writes for its owner alone


def write_packed(state: Compressed, folder: Path) -> None:
    """Write the packed files into a folder that exists."""
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    for name, value in plain_tensors(state).items():
        if name in state.quantized:
            parts = stored_tensors(state.quantized[name])
            facts[name] = describe(state.quantized[name])
        elif name in state.kept and float((value == 0).float().mean()) > _SPARSE:
            mask = value != 0
            parts = {"mask": pack_bits(mask.to(torch.uint8), 1), "nonzero": value[mask]}
            facts[name] = {"shape": list(value.shape)}
        else:
            tensors[name] = value.clone()  # slices and tied tensors share storage, which the format refuses
            continue
        tensors |= {f"{name}::{part}": tensor for part, tensor in parts.items()}
    # One entry of metadata: safetensors writes several in an order of chance, and equal students have equal files.
    save_file(tensors, folder / PACKED, {"potstill": json.dumps(facts)})
    write_around(state, folder)
    (folder / FACTS).write_text(json.dumps(facts_of(state, "packed"), indent=1) + "\n", "utf-8")


def facts_of(state: Compressed, form: str) -> dict[str, Any]:
    """What compression.json says."""
    return {
        "format": 1, "files": form, "source": state.source, "steps": list(state.steps),
        "activations": state.activations,
    }  # fmt: skip


def write_around(state: Compressed, folder: Path) -> None:
    """Configuration, tokenizer and card beside a student's weights."""
    config = state.model.config
    before = config.dtype
    config.dtype = state.dtype
    config.save_pretrained(folder)
    config.dtype = before
    if getattr(state.model, "generation_config", None) is not None and state.kind == "causal":
        state.model.generation_config.save_pretrained(folder)
    state.tokenizer.save_pretrained(folder)
    if state.card is not None:
        write_card(folder, state.card)


def write_plain(state: Compressed, folder: Path) -> None:
    """Write the rounded values in the student's number format into a folder that exists, as transformers reads them."""
    tensors = {name: value.clone() for name, value in plain_tensors(state).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    write_around(state, folder)


def plain_tensors(state: Compressed) -> dict[str, Tensor]:
    """The model's tensors in the number format that they rest in, a tied one once, under its first name."""
    return {
        name: value.to(state.dtype).contiguous() if value.is_floating_point() else value.contiguous()
        for name, value in _untied(state)
    }


def _untied(state: Compressed) -> Iterator[tuple[str, Tensor]]:
    tied = set(getattr(state.model, "all_tied_weights_keys", None) or {})
    return ((name, value) for name, value in state.model.state_dict().items() if name not in tied)


def load_state(folder: Path) -> Compressed:
    """Read what `save_state` wrote: the same values, codes and masks.

    Raises:
        DataError: Files are missing, cut short, or do not fit each other.
    """
    import transformers
    from transformers import AutoConfig, AutoTokenizer

    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        config = AutoConfig.from_pretrained(folder)
        tensors, quantized = _read_packed(folder / PACKED)
        if (folder / EXACT).exists():
            tensors |= load_file(folder / EXACT)
        packed = load_file(folder / MASKS) if (folder / MASKS).exists() else {}
        kept = {
            name: unpack_bits(bits, 1, tensors[name].numel()).bool().view_as(tensors[name])
            for name, bits in packed.items()
        }
        architecture = getattr(transformers, (config.architectures or ["?"])[0])
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model = architecture.from_pretrained(None, config=config, state_dict=tensors, dtype=torch.float32)
        steps, activations, source = list(facts["steps"]), facts["activations"], str(facts["source"])
    except DataError:
        raise
    except Exception as error:  # safetensors, tokenizers and transformers each raise their own kinds
        raise DataError(f"the packed student at {folder} cannot be loaded ({error}); compress it again") from error
    card = read_card(folder) if (folder / CARD).exists() else None
    kind = "classification" if "SequenceClassification" in type(model).__name__ else "causal"
    if activations is not None:
        install(model, activations.get("threshold"))
    dtype = config.dtype or torch.float32
    return Compressed(model.eval(), tokenizer, card, kind, dtype, quantized, kept, activations, steps, source)


def _read_packed(path: Path) -> tuple[dict[str, Tensor], dict[str, QuantizedWeight]]:
    """Plain values of every tensor, and codes."""
    grouped: dict[str, dict[str, Tensor]] = {}
    values: dict[str, Tensor] = {}
    with safe_open(path, "pt") as file:
        facts: Mapping[str, Any] = json.loads((file.metadata() or {}).get("potstill", "{}"))
        for key in file.keys():  # noqa: SIM118 - not a mapping
            name, _, part = key.partition("::")
            if part:
                grouped.setdefault(name, {})[part] = file.get_tensor(key)
            else:
                values[name] = file.get_tensor(key)
    quantized = {}
    for name, parts in grouped.items():
        if "mask" in parts:
            shape = facts[name]["shape"]
            count = int(torch.tensor(shape).prod())
            mask = unpack_bits(parts["mask"], 1, count).bool()
            value = torch.zeros(count, dtype=parts["nonzero"].dtype).masked_scatter_(mask, parts["nonzero"])
            values[name] = value.view(shape)
        else:
            quantized[name] = restore(parts, facts[name], name)
            values[name] = quantized[name].values()
    return values, quantized
