"""Every method that a recipe can name: its kind, its options, what it needs. No library is loaded here.

Methods that prune have their code in `potstill.train.prune`; a test compares this table with their signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

StepKind = Literal["structure", "sparsity", "quantize", "heal"]
GRIDS = ("int8", "int4", "int3", "nf4", "gobo4", "gobo3", "binary")
_BOTH = ("classification", "causal")


@dataclass(frozen=True)
class Option:
    """An option of a method.

    Attributes:
        type: int, float, bool or str.
        default: What it is where nothing is said; None leaves it to the method.
        choices: The only values, where there are few.
        least: Smallest value.
        most: Largest value.
    """

    type: Callable[[str], Any]
    default: Any = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        name: What a recipe calls it.
        kind: structure, sparsity, quantize or heal.
        about: What it does, in a phrase.
        example: A step that names it.
        options: Its options by name.
        required: Options that have no default.
        texts: Tokens of calibration text that it needs at least; 0 for none (see `texts_for`).
        models: Kinds of student.
        libraries: What it needs beside the core, and after it the extra that brings it.
        counts: Whether what is cut may be a count as well as a share.
        learns: Whether it trains, and so looks at the texts of healing: more of them than are looked at otherwise.
    """

    name: str
    kind: StepKind
    about: str
    example: str
    options: Mapping[str, Option] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    texts: int = 0
    models: tuple[str, ...] = _BOTH
    libraries: tuple[str, ...] = ()
    counts: bool = False
    learns: bool = False

    @property
    def parts(self) -> bool:
        """Whether it must know which matrix of a layer is which (`potstill.train.prune.anatomy`)."""
        return self.kind in ("structure", "sparsity") or self.name in ("gptq", "lkd")

    def texts_for(self, options: Mapping[str, Any]) -> int:
        """Tokens of text that it needs with these options."""
        return 1024 if options.get("schedule") == "cubic" else self.texts


# `keep` is for what is done to single matrices; llm.int8 and 8-bit inputs are of all.
_KEEP = {"keep": Option(str)}
_EMBEDDINGS = {"embeddings": Option(str, "int8", ("int8", "int4", "same", "keep")), **_KEEP}
_GROUP = {"group": Option(int, 64, least=2)}
_SCOPE = {"scope": Option(str, "row", ("tensor", "row", "column", "group"))}
_ROUND = {
    **_SCOPE, **_GROUP, "zero_point": Option(bool, False), "clip": Option(str, "absmax", ("absmax", "mse")),
    **_EMBEDDINGS,
}  # fmt: skip
_GRID = {"grid": Option(str, None, GRIDS), "group": Option(int, None, least=2), **_EMBEDDINGS}
_HEAL = {
    "steps": Option(int, None, least=1), "epochs": Option(float, None, least=0.01),
    "learning_rate": Option(float, None, least=1e-8), "temperature": Option(float, 1.0, least=0.01),
    "hidden_weight": Option(float, 0.0, least=0.0), "train_embeddings": Option(bool, False),
}  # fmt: skip

_ALL = (
    Method("bf16", "quantize", "cast to bfloat16", "bf16"),
    Method("fp16", "quantize", "cast to float16", "fp16"),
    Method(
        "int8", "quantize", "absmax rounding to 8 bits", "int8:channel",
        {**_ROUND, "activations": Option(str, "float", ("float", "int8"))},
    ),
    Method("int4", "quantize", "absmax rounding to 4 bits", "int4:g64", {**_ROUND, "scope": Option(
        str, "group", ("tensor", "row", "column", "group"))}),
    Method("int3", "quantize", "absmax rounding to 3 bits", "int3:g64", {**_ROUND, "scope": Option(
        str, "group", ("tensor", "row", "column", "group"))}),
    Method("nf4", "quantize", "16 values of a normal distribution", "nf4:g64",
           {**_GROUP, "double": Option(bool, True), **_EMBEDDINGS}),
    Method("gobo", "quantize", "bins fitted to each matrix, outliers apart", "gobo:4",
           {"bits": Option(int, 4, least=2, most=8), "threshold": Option(float, -4.0), **_EMBEDDINGS}),
    Method("binary", "quantize", "1 bit a weight, a scale a row", "binary", _EMBEDDINGS),
    Method("llm.int8", "quantize", "8-bit weights and inputs, outlier features apart", "llm.int8:threshold=6",
           {"threshold": Option(float, 6.0, least=0.0), "embeddings": _EMBEDDINGS["embeddings"]}),
    Method("gptq", "quantize", "rounding whose errors the columns after it make good", "gptq:nf4",
           {**_GRID, "damp": Option(float, 0.01, least=1e-6), "order": Option(str, "activation", (
               "activation", "given"))}, ("grid",), texts=1024),
    Method("lkd", "quantize", "each rounded layer learns its twin's output, then the next", "lkd:gobo3,steps=40",
           {**_GRID, "steps": Option(int, 40, least=1), "learning_rate": Option(float, 1e-4, least=1e-8),
            "start": Option(str, "gptq", ("gptq", "round"))}, ("grid",), texts=1024),
    Method("qat", "quantize", "training on rounded weights (straight-through)", "qat:binary,steps=200",
           {**_GRID, **_HEAL}, ("grid",), texts=1024),
    Method("heal", "heal", "distil again from the uncompressed student or the teacher", "heal:steps=100", _HEAL,
           texts=1024),
    Method("qlora", "heal", "adapters learn on a base in 4 bits, then merged into its full weights",
           "qlora:steps=100,rank=16",
           {**{name: option for name, option in _HEAL.items() if name != "train_embeddings"},
            "rank": Option(int, 16, least=1), "alpha": Option(float, None, least=0.01)},
           texts=1024, models=("causal",), libraries=("peft", "bitsandbytes", "qlora")),
)  # fmt: skip

_SEED = {"seed": Option(int, 0, least=0)}
_UNIFORM = {"uniform": Option(bool, True)}
_PATTERN = {"pattern": Option(str, None)}
_SCOPE_OF_ZEROS = ("layer", "global", "deviation")
_PRUNERS = (
    Method("magnitude", "sparsity", "the smallest weights become 0", "magnitude:0.5",
           {"scope": Option(str, "layer", _SCOPE_OF_ZEROS), **_PATTERN,
            "schedule": Option(str, "once", ("once", "cubic")), "steps": Option(int, None, least=1),
            "learning_rate": Option(float, None, least=1e-8), **_KEEP, **_SEED}, learns=True),
    Method("random", "sparsity", "weights become 0 by lot: the control of the others", "random:0.5",
           {**_KEEP, **_SEED}),
    Method("wanda", "sparsity", "weights of small size times input become 0", "wanda:0.5", {**_PATTERN, **_KEEP},
           texts=1024),
    Method("lottery", "sparsity", "train, prune, rewind, again (iterative magnitude)", "lottery:0.5,steps=30",
           {"rounds": Option(int, None, least=1), "start": Option(str, "rewound", ("rewound", "random")),
            "scope": Option(str, "global", _SCOPE_OF_ZEROS), "steps": Option(int, 30, least=1),
            "learning_rate": Option(float, None, least=1e-8), "rewind": Option(float, None, least=0.0, most=0.99),
            **_SEED}, texts=1024, learns=True),
    Method("heads", "structure", "attention heads that matter least are cut", "heads:0.2",
           {**_UNIFORM, "step": Option(float, 0.1, least=0.001, most=1.0)}, texts=1024),
    Method("neurons", "structure", "feed-forward neurons that matter least are cut", "neurons:0.3",
           {"by": Option(str, "activations", ("activations", "weights"))}, texts=1024, counts=True),
    Method("layers", "structure", "whole layers are cut", "layers:2",
           {"by": Option(str, "influence", ("influence", "alternate", "top"))}, texts=1024, counts=True),
    Method("hidden", "structure", "channels of the hidden state that matter least are cut", "hidden:0.25", texts=1024,
           counts=True),
    Method("cofi", "structure", "coarse and fine masks, learnt with an L0 penalty", "cofi:0.5,steps=200",
           {"steps": Option(int, 200, least=2), "learning_rate": Option(float, 2e-5, least=1e-9),
            "switch_rate": Option(float, 0.1, least=1e-9), "layer_weight": Option(float, 0.9, least=0.0, most=1.0),
            "temperature": Option(float, 2.0, least=0.01), "hidden": Option(bool, True), **_UNIFORM, **_SEED},
           texts=1024, learns=True),
    Method("bonsai", "structure", "modules whose absence costs least, by forward passes alone", "bonsai:0.25",
           {"sub_models": Option(int, 80, least=20), "rounds": Option(int, 1, least=1),
            "bundles": Option(int, 16, least=1), **_UNIFORM, **_SEED}, texts=1024),
)  # fmt: skip

METHODS: dict[str, Method] = {method.name: method for method in (*_ALL, *_PRUNERS)}
KIND_OF: dict[str, StepKind] = {method.name: method.kind for method in METHODS.values()}
