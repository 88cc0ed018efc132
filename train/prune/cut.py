"""Cuts that make tensors smaller: heads, neurons, layers and hidden width, the same number in every layer.

A configuration holds one number of heads and neurons for all layers, so only a uniform cut reloads with
`from_pretrained`. Every cut changes the configuration with the tensors.

A cut of heads needs a configuration in which the head size stands alone, as in Llama's (`head_dim`). BERT's head size
is hidden size / heads: there heads go together with hidden width, or stay and are masked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn

from potstill.errors import UserError
from potstill.train.prune.anatomy import Anatomy, Block, anatomy
from potstill.train.width import columns_of, neurons_option, rows_of


def can_cut_heads(parts: Anatomy) -> bool:
    """Whether the configuration lets heads go while the hidden width stays."""
    return parts.decoder and hasattr(parts.model.config.get_text_config(), "head_dim")


def cut_heads(parts: Anatomy, kept: Sequence[Sequence[int]]) -> Anatomy:
    """Keep some query heads of every layer; a key-value group stays while one of its heads does.

    Args:
        parts: The model, changed in place.
        kept: Indices of the query heads that stay, one list a layer. Every layer keeps the same number of groups, and
            every group the same number of heads, since the configuration holds one number of each.

    Raises:
        UserError: The configuration cannot say so, or the numbers differ.
    """
    _same_length(kept, "heads")
    if not can_cut_heads(parts):
        raise UserError(
            f"{type(parts.model).__name__} ties the size of a head to its hidden width, so heads alone cannot be cut; "
            "cut its hidden width, or mask the heads"
        )
    groups = [_groups_of(heads, parts) for heads in kept]
    count = _same_length(groups, "key-value groups")
    each = len(kept[0]) // count
    for block, heads, held in zip(parts.blocks, kept, groups, strict=True):
        _cut_heads(block, heads, held, parts)
        _set(block.attention, num_heads=len(heads), num_key_value_heads=count, num_key_value_groups=each)
    config = parts.model.config.get_text_config()
    config.head_dim = parts.head_size
    config.num_attention_heads, config.num_key_value_heads = count * each, count
    return anatomy(parts.model)


def _groups_of(heads: Sequence[int], parts: Anatomy) -> list[int]:
    """The key-value groups of some query heads.

    Raises:
        UserError: The groups would keep different numbers of heads.
    """
    each = parts.heads // parts.groups
    counts = Counter(head // each for head in heads)
    if len(set(counts.values())) != 1:
        raise UserError(f"key-value groups would keep {sorted(set(counts.values()))} heads; each keeps the same number")
    return sorted(counts)


def neuron_multiple(total: int) -> int:
    """What the number of neurons that stay is rounded to: the blocks in which engines read a row of the down projection
    (64 of NF4 and of int4 in groups, 32 of GGUF), as far as that is no more than a sixteenth of a layer.

    Examples:
        >>> neuron_multiple(1536), neuron_multiple(192), neuron_multiple(64)
        (64, 8, 1)
    """
    return next((size for size in (64, 32, 16, 8) if total % size == 0 and 16 * size <= total), 1)


def cut_neurons(parts: Anatomy, kept: Sequence[Sequence[int]]) -> Anatomy:
    """Keep some feed-forward neurons of every layer.

    Args:
        parts: The model, changed in place.
        kept: Indices of the neurons that stay, one list a layer, all of the same length.
    """
    count = _same_length(kept, "neurons")
    for block, neurons in zip(parts.blocks, kept, strict=True):
        picked = torch.as_tensor(neurons, device=block.down.weight.device)
        for linear in block.into:
            _replace(block.module, linear, rows_of(linear, picked))
        _replace(block.module, block.down, columns_of(block.down, picked))
        for module in block.module.modules():
            _set(module, intermediate_size=count)
    config = parts.model.config.get_text_config()
    setattr(config, neurons_option(config), count)
    return anatomy(parts.model)


def cut_hidden(parts: Anatomy, kept: Sequence[int], groups: Sequence[Sequence[int]] | None = None) -> Anatomy:
    """Keep some channels of the hidden state, everywhere in the model.

    Args:
        parts: The model, changed in place.
        kept: Indices of the channels that stay.
        groups: For an encoder, the heads that stay in every layer: heads · head size must be the new width.

    Raises:
        UserError: The new width does not fit the heads.
    """
    model, config = parts.model, parts.model.config.get_text_config()
    width, picked = int(config.hidden_size), torch.as_tensor(kept, device=model.device)
    if not parts.decoder:
        if groups is None or _same_length(groups, "heads") * parts.head_size != len(kept):
            raise UserError(
                f"an encoder of head size {parts.head_size} needs as many heads as fill {len(kept)} channels"
            )
        for block, heads in zip(parts.blocks, groups, strict=True):
            _cut_heads(block, heads, heads, parts)
            _set(
                block.attention, num_attention_heads=len(heads), all_head_size=len(heads) * parts.head_size,
                attention_head_size=parts.head_size,
            )  # fmt: skip
        config.num_attention_heads = len(groups[0])
        parts = anatomy(model)
    elif not can_cut_heads(parts) or len(kept) % parts.heads:
        raise UserError(
            f"{type(model).__name__} cannot have {len(kept)} channels: with {parts.heads} heads their number must be a "
            "multiple of that"
        )
    else:
        config.head_dim = parts.head_size
    for block in parts.blocks:
        for linear in (block.query, block.key, block.value, *block.into):
            _replace(block.module, linear, columns_of(linear, picked))
        for linear in (block.out, block.down):
            _replace(block.module, linear, rows_of(linear, picked))
    _cut_around(anatomy(model), width, picked)
    config.hidden_size = len(kept)
    if getattr(config, "embedding_size", None) == width:  # ELECTRA, whose embeddings are as wide without a projection
        config.embedding_size = len(kept)
    model.tie_weights()
    return anatomy(model)


def _cut_around(parts: Anatomy, width: int, picked: torch.Tensor) -> None:
    """Embeddings, norms, pooler and the head of the task."""
    inside = {id(linear) for block in parts.blocks for linear in block.linears}
    embedding = int(parts.model.get_input_embeddings().weight.shape[1])
    for module in list(parts.model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and id(child) not in inside and child.in_features == width:
                made = columns_of(child, picked)
                # A pooler reads the hidden state and gives one of the same width.
                whole = name == "dense" and child.out_features == width
                setattr(module, name, rows_of(made, picked) if whole else made)
            elif isinstance(child, nn.Linear) and (child.in_features, child.out_features) == (embedding, width):
                setattr(module, name, rows_of(child, picked))  # from narrower embeddings to the hidden state
            elif isinstance(child, nn.Embedding) and child.embedding_dim == width:
                child.weight = nn.Parameter(child.weight.detach()[:, picked].clone())
                child.embedding_dim = len(picked)
            elif _is_norm(child, width):
                _cut_norm(child, width, picked)


def _is_norm(module: nn.Module, width: int) -> bool:
    weight = module._parameters.get("weight")
    return weight is not None and weight.shape == (width,)


def _cut_norm(norm: nn.Module, width: int, picked: torch.Tensor) -> None:
    # The mean square of the kept channels alone is larger than that of all of them where the others are near zero;
    # the factor keeps the normed state what it was with those channels at zero.
    factor = math.sqrt(width / len(picked))
    for own in ("weight", "bias"):
        value = norm._parameters.get(own)
        if value is not None:
            scale = factor if own == "weight" else 1.0
            setattr(norm, own, nn.Parameter(value.detach()[picked] * scale))
    if isinstance(norm, nn.LayerNorm):
        norm.normalized_shape = (len(picked),)


def _cut_heads(block: Block, heads: Sequence[int], groups: Sequence[int], parts: Anatomy) -> None:
    """Rows of query, key and value, and columns of the output projection."""
    queries = _spread(heads, parts.head_size, block.out.weight.device)
    pairs = _spread(groups, parts.head_size, block.out.weight.device)
    for linear, picked in ((block.query, queries), (block.key, pairs), (block.value, pairs)):
        _replace(block.module, linear, rows_of(linear, picked))
    _replace(block.module, block.out, columns_of(block.out, queries))


def _spread(units: Sequence[int], width: int, device: torch.device) -> torch.Tensor:
    """Indices of all rows that belong to some units of `width` rows each."""
    starts = torch.as_tensor(sorted(units), device=device)[:, None] * width
    return (starts + torch.arange(width, device=device)).flatten()


def _replace(root: nn.Module, old: nn.Linear, new: nn.Linear) -> None:
    for module in root.modules():
        for name, child in module.named_children():
            if child is old:
                setattr(module, name, new)
                return


def _set(module: nn.Module, **values: int) -> None:
    for name, value in values.items():
        if hasattr(module, name):
            setattr(module, name, value)


def _same_length(kept: Sequence[Sequence[int]], what: str) -> int:
    lengths = {len(units) for units in kept}
    if len(lengths) != 1 or 0 in lengths:
        raise UserError(f"layers would keep {sorted(lengths)} {what}; a uniform cut keeps the same number, at least 1")
    return lengths.pop()
