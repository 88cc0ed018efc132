"""Where a model keeps its heads and neurons: one view for Llama-like decoders and BERT-like encoders.

What enters: a transformers model. What leaves: its list of layers, and of each layer the projections by their part.
Heads are counted in the units that can be removed alone. With grouped-query attention a key-value group serves several
query heads, so whole groups are the unit; without it, each head is a group of one.

    decoder   q_proj, k_proj, v_proj → o_proj      gate_proj, up_proj → down_proj      (Llama, Mistral, Qwen, SmolLM)
    encoder   query, key, value → output.dense     intermediate.dense → output.dense   (BERT, MiniLM, RoBERTa)
              q, k, v → o                          the same                            (MPNet)
              q_lin, k_lin, v_lin → out_lin        lin1 → lin2                         (DistilBERT)

A layer with matrices beside these (a convolution, a bottleneck, a bias by distance) is none of them: what is cut here
would not fit there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from potstill.errors import UserError
from potstill.train.layers import within

SUPPORTED = (
    "decoders built like Llama (SmolLM2, Mistral, Qwen) and encoders built like BERT (MiniLM, RoBERTa), MPNet "
    "or DistilBERT"
)
# Of each build: where query, key, value and output are, what reads into the neurons, what leads back, and whose
# attributes tell of heads.
_BUILDS: tuple[tuple[tuple[str, ...], tuple[str, ...], str, str], ...] = (
    (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj", "self_attn",
    ),
    (
        ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
        ("intermediate.dense",), "output.dense", "attention.self",
    ),
    (
        ("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
        ("intermediate.dense",), "output.dense", "attention.attn",
    ),
    (
        ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
        ("ffn.lin1",), "ffn.lin2", "attention",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """One layer of a model.

    Attributes:
        module: The layer itself.
        attention: The module that holds the query, key and value projections.
        query, key, value, out: Projections of the attention.
        into: Projections into the feed-forward neurons (gate and up, or one).
        down: The projection from the neurons back to the hidden width.
    """

    module: nn.Module
    attention: nn.Module
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    into: tuple[nn.Linear, ...]
    down: nn.Linear

    @property
    def linears(self) -> tuple[nn.Linear, ...]:
        """Every matrix of the layer."""
        return (self.query, self.key, self.value, self.out, *self.into, self.down)


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model.

    Attributes:
        model: The model.
        blocks: Its layers, from the input on.
        layers: The list that holds them.
        head_size: Width of one head.
        heads: Query heads a layer.
        groups: Key-value groups a layer.
        neurons: Feed-forward neurons a layer.
        decoder: Whether the sizes of head and hidden state are free of each other in its configuration, as they are
            in Llama's. BERT's says `head size = hidden size / heads`.
    """

    model: Any
    blocks: tuple[Block, ...]
    layers: nn.ModuleList
    head_size: int
    heads: int
    groups: int
    neurons: int
    decoder: bool

    def check_hidden(self, what: str) -> None:
        """Refuse to cut the hidden state of an encoder that is not built like BERT.

        Args:
            what: What would cut it, and what to do instead.

        Raises:
            UserError: It is such an encoder.
        """
        if not (self.decoder or hasattr(self.blocks[0].module.attention, "self")):
            raise UserError(f"the hidden state of a {type(self.model).__name__} cannot be cut: {what}")

    @property
    def group_width(self) -> int:
        """Columns of the output projection that belong to one key-value group."""
        return self.head_size * self.heads // self.groups

    def matrices(self, keep: Sequence[str] = ()) -> Iterator[tuple[str, nn.Linear]]:
        """Parameter name and layer of every matrix in the blocks; embeddings and heads of tasks are not among them.

        Args:
            keep: Pieces of names (`layers.1`, `down_proj`) whose matrices are left out.
        """
        names = {id(module): name for name, module in self.model.named_modules()}
        for block in self.blocks:
            for linear in block.linears:
                name = f"{names[id(linear)]}.weight"
                if not within(name, keep):
                    yield name, linear


def anatomy(model: Any) -> Anatomy:
    """Look at a model's parts.

    Raises:
        UserError: It is built in another way than those supported, or its layers have different sizes.
    """
    layers = next(
        (
            child
            for module in model.modules()
            for child in module.children()
            if isinstance(child, nn.ModuleList) and len(child) and _block(child[0]) is not None
        ),
        None,
    )
    found = [] if layers is None else [block for block in map(_block, layers) if block is not None]
    if layers is None or len(found) != len(layers):
        raise UserError(f"{type(model).__name__} cannot be pruned; supported: {SUPPORTED}")
    first = found[0]
    decoder = hasattr(first.module, "self_attn")
    config = model.config.get_text_config()
    heads = int(config.num_attention_heads)
    head_size = first.query.out_features // heads
    if len({tuple(linear.weight.shape for linear in block.linears) for block in found}) > 1:
        raise UserError(f"{type(model).__name__} has layers of different sizes, so it cannot be pruned uniformly")
    return Anatomy(
        model=model, blocks=tuple(found), layers=layers, head_size=head_size, heads=heads,
        groups=first.key.out_features // head_size, neurons=first.down.in_features, decoder=decoder,
    )  # fmt: skip


def _block(layer: nn.Module) -> Block | None:
    """The parts of a layer, or None where it is not of a known build."""
    for names, into, down, holder in _BUILDS:
        try:
            parts = [layer.get_submodule(name) for name in (*names, *into, down)]
            attention = layer.get_submodule(holder)
        except AttributeError:
            continue
        linears = [part for part in parts if isinstance(part, nn.Linear)]
        told = {id(linear.weight) for linear in linears}
        if len(linears) != len(parts) or any(p.dim() > 1 and id(p) not in told for p in layer.parameters()):
            return None
        query, key, value, out, *rest = linears
        return Block(layer, attention, query, key, value, out, tuple(rest[:-1]), rest[-1])
    return None
