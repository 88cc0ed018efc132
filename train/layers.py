"""A shallower student: some of a model's layers, evenly spaced, the first and the last among them.

DistilBERT starts its student from layers 0, 2, 4, 7, 9, 11 of BERT (arXiv:1910.01108 §3). An encoder cut this way
learns again within an epoch or two; a decoder does not: SmolLM2 cut to half its layers starts with a loss above
that of a uniform guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from potstill.errors import TrainingError

# What configurations say of each layer in a list: SmolLM3's layers without positions, say.
_A_LAYER_EACH = (
    "layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "layer_rope_theta", "attention_window",
)  # fmt: skip


def within(name: str, parts: Sequence[str]) -> bool:
    """Whether a weight's name holds one of these pieces: `layers.1` is in `model.layers.1.mlp`, not in layer 10.

    Examples:
        >>> within("model.layers.1.mlp.weight", ["layers.1"]), within("model.layers.10.mlp.weight", ["layers.1"])
        (True, False)
    """
    return any(f".{part}." in f".{name}." for part in parts)


def spaced_layers(total: int, keep: int) -> list[int]:
    """Indices of `keep` of `total` layers, evenly spaced from the first to the last.

    Raises:
        TrainingError: `keep` is not between 1 and `total`.
    """
    if not 1 <= keep <= total:
        raise TrainingError(f"student_layers {keep} is not possible for a model of {total} layers; choose 1 to {total}")
    if keep == 1:
        return [0]
    return [round(i * (total - 1) / (keep - 1)) for i in range(keep)]


def uncuttable(config: Any) -> str:
    """Why a model can lose no layer; "" where it can.

    Args:
        config: Of transformers.
    """
    told = config.get_text_config()
    if getattr(told, "hidden_size_per_layer_input", 0):  # Gemma 3n, Gemma 4
        return f"a {config.model_type} has an embedding of each token for each layer, so that none can be left out"
    if getattr(told, "attention_types", None):  # GPT-Neo
        return f"a {config.model_type} says what its layers are by their number, so that none can be left out"
    return ""


def keep_layers(model: Any, keep: int, chosen: list[int] | None = None) -> Any:
    """Cut a model to some of its layers in place, the configuration included, and return it.

    Args:
        model: An encoder or decoder with one list of layers.
        keep: How many layers to keep.
        chosen: Which ones; None spaces them evenly.

    Raises:
        TrainingError: The model has no list of layers, or fewer than `keep`, or can lose none.
    """
    if why := uncuttable(model.config):
        raise TrainingError(f"{why}; leave student_layers out, or take another model")
    depth = model.config.num_hidden_layers
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == depth:
                picked = spaced_layers(depth, keep) if chosen is None else chosen
                setattr(module, name, nn.ModuleList([child[i] for i in picked]))
                _renumber(getattr(module, name))
                model.config.num_hidden_layers = len(picked)
                for each in _A_LAYER_EACH:
                    told = getattr(model.config, each, None)
                    if isinstance(told, list | tuple) and len(told) == depth:
                        setattr(model.config, each, [told[i] for i in picked])
                return model
    raise TrainingError(f"{type(model).__name__} has no single list of layers, so student_layers cannot be used")


def _renumber(layers: nn.ModuleList) -> None:
    # Key-value caches are addressed by this index; a gap would leave cache slots unfilled.
    for index, layer in enumerate(layers):
        for module in layer.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                setattr(module, "layer_idx", index)  # noqa: B010 - a plain attribute that nn.Module's stub denies
