"""The last layer of a BERT classifier, computed for the one token that its head reads.

A BERT head reads the pooler, and that the first token. What the last layer makes of the others is thrown away: their
queries, their attention output and their feed-forward part, five sixths of the layer's work. Here the layer computes
keys and values of all tokens and everything else of the first, which gives the same logits. A student that starts from
frozen features has one layer more than its base model (`head_start`); this takes most of its cost back.

What enters: a classifier. What leaves: the same one, weights and modules shared, with another last layer. It is made
anew for each batch, in microseconds, so that it follows whatever was done to the model.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


def reads_first_token(model: Any) -> Any:
    """A view of a BERT classifier that computes its last layer for the first token only.

    Args:
        model: Any classifier. One that is no BERT with a pooler, is being trained, or has attention of another kind
            than PyTorch's own is returned as it is.

    Returns:
        A model to be called for its logits; hidden states and attentions must be asked of `model`.
    """
    bert: Any = getattr(model, "bert", None)
    encoder: Any = getattr(bert, "encoder", None)
    config = getattr(model, "config", None)
    if (
        getattr(config, "model_type", "") != "bert"
        or getattr(bert, "pooler", None) is None
        or getattr(config, "_attn_implementation", "") not in ("sdpa", "eager")
        or model.training
        or not len(getattr(encoder, "layer", ()))
        or not _is_plain(encoder.layer[-1])
    ):
        return model
    layers = nn.ModuleList([*encoder.layer[:-1], _FirstToken(encoder.layer[-1])])
    return _with(model, bert=_with(bert, encoder=_with(encoder, layer=layers)))


class _FirstToken(nn.Module):
    """A BERT layer whose output is that of the first token: (n, tokens, d) → (n, 1, d)."""

    def __init__(self, layer: Any):
        super().__init__()
        self.layer = layer

    def forward(self, hidden: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any) -> Any:
        """As `BertLayer`; `attention_mask` is (n, 1, tokens, tokens), added or true where a token may be read."""
        own, first = self.layer.attention.self, hidden[:, :1]
        query, key, value = (
            part(states).unflatten(-1, (-1, own.attention_head_size)).transpose(1, 2)
            for part, states in ((own.query, first), (own.key, hidden), (own.value, hidden))
        )
        mask = None if attention_mask is None else attention_mask[:, :, :1]
        read = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=own.scaling)
        return self.layer.feed_forward_chunk(self.layer.attention.output(read.transpose(1, 2).flatten(2), first))


def _is_plain(layer: Any) -> bool:
    """Whether a layer is transformers' own, and no decoder's."""
    own = getattr(getattr(layer, "attention", None), "self", None)
    return (
        type(layer).__name__ == "BertLayer"
        and type(own).__name__ == "BertSelfAttention"
        and not layer.is_decoder
        and all(hasattr(own, name) for name in ("query", "key", "value", "scaling", "attention_head_size"))
    )


def _with(module: nn.Module, **parts: nn.Module) -> Any:
    """A copy of a module that shares everything with it but these parts."""
    twin = copy.copy(module)
    twin.__dict__["_modules"] = {**module.__dict__["_modules"], **parts}
    return twin
