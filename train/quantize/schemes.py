"""A quantisation as a recipe names it, and the weights of a model that it is for.

    blocks       matrices of the transformer layers: the method itself
    rest         embeddings, pooler, task head: int8 a row, or what `embeddings` says (`int4`, `keep`, `same`)

Embeddings are a fifth of a 135M decoder and half of MiniLM, so leaving them out would halve what compression gives;
a head tied to them is the same tensor and is rounded with them. Norms and biases stay: together under 0.2 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from torch import Tensor, nn

from potstill.errors import UserError
from potstill.train.layers import within
from potstill.train.quantize.absmax import Scope, fit_absmax
from potstill.train.quantize.codebook import fit_binary, fit_gobo, fit_nf4
from potstill.train.quantize.lattice import Lattice, QuantizedWeight, onto
from potstill.train.quantize.packing import narrowed

Part = Literal["blocks", "embeddings", "rest"]
Family = Literal["absmax", "nf4", "gobo", "binary"]


@dataclass(frozen=True)
class Scheme:
    """How a matrix is rounded.

    Attributes:
        family: Which method.
        bits: Bits of a code.
        scope: What shares a scale (absmax).
        group: Neighbours of a row that share one (absmax by group, NF4).
        symmetric: Whether 0 lies in the middle (absmax).
        clip: `absmax` or `mse` (absmax).
        double: Whether scales are quantised too (NF4).
        threshold: Log density below which a weight is an outlier (GOBO).
        keep: Parts of names, such as `layers.0`, of the weights that stay as they are.
    """

    family: Family
    bits: int
    scope: Scope = "row"
    group: int = 64
    symmetric: bool = True
    clip: str = "absmax"
    double: bool = True
    threshold: float = -4.0
    keep: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The scheme in a few signs, such as `int4:group=64`."""
        if self.family == "absmax":
            scope = f"group={self.group}" if self.scope == "group" else self.scope
            return f"int{self.bits}:{scope}" + ("" if self.symmetric else ",zero-point")
        return {"nf4": f"nf4:group={self.group}", "gobo": f"gobo:{self.bits}", "binary": "binary"}[self.family]

    def fit(self, weight: Tensor) -> Lattice:
        """The values for a matrix (out, in)."""
        if self.family == "nf4":
            return fit_nf4(weight, group=self.group, double=self.double)
        if self.family == "gobo":
            return fit_gobo(weight, self.bits, threshold=self.threshold)
        if self.family == "binary":
            return fit_binary(weight)
        return fit_absmax(
            weight, self.bits, scope=self.scope, group=self.group, symmetric=self.symmetric, clip=self.clip
        )

    def quantize(self, weight: Tensor) -> QuantizedWeight:
        """A matrix on its nearest values."""
        return narrowed(onto(self.fit(weight), weight, self.title))

    @property
    def most_bits(self) -> float:
        """Bits a weight that a matrix of ordinary size may take: codes, scales, zeros and outliers."""
        # A scale in single precision with a zero of 8 bits, and in GOBO an outlier in each hundred weights.
        scales = {"absmax": 40 / self.group if self.scope == "group" else 0.5, "nf4": 16.5 / self.group}
        return self.bits + scales.get(self.family, 1.0) + 0.1


INT8 = Scheme("absmax", 8)
INT4 = Scheme("absmax", 4, scope="group", group=32, clip="mse")


@dataclass(frozen=True)
class Target:
    """A weight that can be rounded.

    Attributes:
        name: Its parameter's name.
        module: The module that holds it.
        part: Where it stands.
    """

    name: str
    module: nn.Module
    part: Part

    def within(self, parts: Sequence[str]) -> bool:
        """Whether its name holds one of these pieces (see `potstill.train.layers.within`)."""
        return within(self.name, parts)


def targets(model: Any) -> Iterator[Target]:
    """Every matrix and embedding of a model, a tied one once.

    Raises:
        UserError: A model without a list of layers that hold linear projections.
    """
    layers = layer_list(model)
    inside = {id(module) for module in layers.modules()}
    seen: set[int] = set()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding) or id(module.weight) in seen:
            continue
        seen.add(id(module.weight))
        part: Part = "blocks" if id(module) in inside else "rest"
        if isinstance(module, nn.Embedding):
            part = "embeddings"
        # A head of a few labels is not worth a scale.
        if part == "blocks" or module.weight.numel() >= 1024:
            yield Target(f"{name}.weight", module, part)


def layer_list(model: Any) -> nn.ModuleList:
    """The list of a model's transformer layers.

    Raises:
        UserError: It has none whose projections are linear layers.
    """
    depth = int(getattr(model.config.get_text_config(), "num_hidden_layers", 0))
    for module in model.modules():
        linear = any(isinstance(part, nn.Linear) for part in module.modules())
        if isinstance(module, nn.ModuleList) and len(module) == depth and linear:
            return module
    raise UserError(
        f"{type(model).__name__} cannot be quantised: it has no list of {depth} layers with linear projections; "
        "supported are encoders like BERT, MiniLM and RoBERTa and decoders like Llama, SmolLM2 and Qwen"
    )


def scheme_for(target: Target, scheme: Scheme, embeddings: str) -> Scheme | None:
    """What a weight is rounded with; None keeps it as it is.

    Args:
        target: The weight.
        scheme: What the recipe names.
        embeddings: `int8`, `int4`, `same` or `keep`.
    """
    if target.within(scheme.keep):
        return None
    if target.part == "blocks":
        return scheme
    if target.part == "rest":
        return replace(INT8, scope=scheme.scope) if scheme.bits == 8 and scheme.scope == "tensor" else INT8
    return {"int8": INT8, "int4": INT4, "same": scheme, "keep": None}[embeddings]


def quantize_model(model: Any, scheme: Scheme, embeddings: str = "int8") -> dict[str, QuantizedWeight]:
    """Round every matrix of a model in place, each to its nearest values.

    Args:
        model: The model; its weights become the rounded ones.
        scheme: For the matrices of the layers.
        embeddings: What embeddings are rounded with (see `scheme_for`).

    Returns:
        The codes of each rounded weight, by parameter name.
    """
    found = {}
    for target in targets(model):
        chosen = scheme_for(target, scheme, embeddings)
        if chosen is not None:
            found[target.name] = put_rounded(target, chosen.quantize(weight_of(target)))
    return found


def weight_of(target: Target) -> Tensor:
    """The weight itself, (out, in)."""
    return cast(Tensor, target.module.weight).detach()


def put_rounded(target: Target, rounded: QuantizedWeight) -> QuantizedWeight:
    """Put the values of codes into the model, and give the codes back."""
    weight = weight_of(target)
    weight.copy_(rounded.values().to(weight.dtype))
    return rounded
