"""Whether formats can hold what a recipe will give, from a model's configuration: before it is trained, and before a
step is done.

In: configuration, recipe, formats. Out: what would be said when the files are written. The model is built without
weights (torch's meta device), its layers, channels and neurons are cut in number as the recipe will cut them, and a few
rows of each of its widths are rounded. What `cofi` and `bonsai` leave is learnt, and is not foreseen.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from potstill.errors import OptionError, UserError
from potstill.models import local_model
from potstill.train.compress.files import KEEPING, format_faults
from potstill.train.compress.recipe import Recipe, Step, with_defaults
from potstill.train.compress.state import Compressed
from potstill.train.compress.steps import activations_of, scheme_of
from potstill.train.layers import keep_layers
from potstill.train.prune.anatomy import anatomy
from potstill.train.prune.depth import layers_that_can_go
from potstill.train.prune.hidden import possible_width
from potstill.train.prune.neurons import neurons_left
from potstill.train.prune.sparse import keep_faults
from potstill.train.quantize.schemes import Scheme, scheme_for, targets, weight_of
from potstill.train.quiet import quiet_transformers
from potstill.train.width import neurons_kept, neurons_option

_LEARNT = ("cofi", "bonsai")
_ROWS = 32


def check_student_formats(
    name: str, kind: str, recipe: Recipe, formats: Sequence[str], ffn: float | None = None
) -> None:
    """Refuse formats that cannot hold the student that a model will become.

    Args:
        name: The model that the student starts from.
        kind: `classification` or `causal`.
        recipe: What it will be compressed with.
        formats: The formats; of `auto` nothing is foreseen, since it takes what fits.
        ffn: Share of the feed-forward neurons that training leaves in each layer; None leaves all.

    Raises:
        OptionError: Every reason.
        UserError: The model cannot be loaded.
    """
    if not [form for form in formats if form != "auto"]:
        return
    from transformers import AutoConfig, AutoTokenizer

    place = local_model(name)
    try:
        config = AutoConfig.from_pretrained(place)
        tokenizer = AutoTokenizer.from_pretrained(place) if any(form.startswith("gguf") for form in formats) else None
    except (OSError, ValueError) as error:
        raise UserError(f"the student {name!r} cannot be loaded ({error})") from None
    inner = config.get_text_config()
    if ffn is not None and hasattr(inner, neurons_option(inner)):
        setattr(inner, neurons_option(inner), neurons_kept(int(getattr(inner, neurons_option(inner))), ffn))
    model = _empty(config, kind)
    refuse_formats(Compressed(model, tokenizer, None, kind, torch.float32), recipe, formats)


def refuse_formats(state: Compressed, recipe: Recipe, formats: Sequence[str]) -> None:
    """Refuse formats that cannot hold what a recipe makes of a student; its weights are not looked at.

    Raises:
        OptionError: Every reason.
    """
    wanted = [form for form in formats if form != "auto"]
    rounding = next((step for step in recipe.steps if step.kind == "quantize"), None)
    scheme = None if rounding is None else scheme_of(rounding)
    model = _cut(state.model, [step for step in recipe.steps if step.kind == "structure"], state.kind)
    faults = []
    for step in recipe.steps:
        if step.kind == "sparsity" and (keep := step.options.get("keep")):
            faults += [f"{step}: {fault}" for fault in keep_faults(anatomy(model), keep.split("+"))]
    if rounding is not None and scheme is not None and scheme.keep:
        faults += _kept_faults(model, rounding, scheme, wanted)
    if wanted:
        foreseen = Compressed(model, state.tokenizer, state.card, state.kind, state.dtype)
        if rounding is not None and scheme is not None:
            embeddings = str(with_defaults(rounding).options.get("embeddings", "int8"))
            foreseen.quantized = _rounded(model, scheme, embeddings)
            foreseen.activations = activations_of(rounding)
        faults += [f"{form}: {fault}" for form in wanted for fault in format_faults(foreseen, form)]
    if faults:
        raise OptionError("formats", faults)


def _kept_faults(model: Any, rounding: Step, scheme: Scheme, formats: Sequence[str]) -> list[str]:
    """What is wrong with the weights that a rounding is to keep: a format that holds none, a name that is none."""
    found = list(targets(model))
    faults = [
        f"{form}: it holds no single weights that are kept ({rounding}); choose {', '.join(KEEPING)}"
        for form in formats
        if form not in KEEPING
    ]
    return faults + [
        f"keep={part} names no weight of {type(model).__name__}, whose first is {found[0].name}"
        for part in scheme.keep
        if not any(target.within([part]) for target in found)
    ]


def _rounded(model: Any, scheme: Scheme, embeddings: str) -> dict[str, Any]:
    """A few rows of one matrix of each part and width, rounded: formats ask for the grid and the width."""
    seen: set[tuple[str, int]] = set()
    found = {}
    for target in targets(model):
        width = int(weight_of(target).shape[1])
        chosen = scheme_for(target, scheme, embeddings)
        if chosen is None or target.part == "rest" or (target.part, width) in seen:
            continue
        seen.add((target.part, width))
        rows = torch.linspace(-1.0, 1.0, _ROWS * width).reshape(width, _ROWS).T.contiguous()
        found[target.name] = chosen.quantize(rows)
    return found


def _cut(model: Any, steps: Sequence[Step], kind: str) -> Any:
    """A model of the shapes that the steps leave, on the meta device; the model itself where they leave all."""
    for step in steps:
        if step.method in _LEARNT:
            break
        if step.method not in ("layers", "hidden", "neurons") or step.amount is None:
            continue
        config = copy.deepcopy(model.config)
        inner, parts = config.get_text_config(), anatomy(model)
        if step.method == "layers":
            gone = step.amount if isinstance(step.amount, int) else round(step.amount * layers_that_can_go(parts))
            model = keep_layers(_empty(config, kind), max(1, len(parts.blocks) - gone))
            continue
        if step.method == "neurons":
            setattr(inner, neurons_option(inner), neurons_left(parts.neurons, step.amount))
        else:
            width = int(inner.hidden_size)
            gone = step.amount if isinstance(step.amount, int) else round(step.amount * width)
            inner.hidden_size = possible_width(parts, width - gone)
            if parts.decoder:
                inner.head_dim = parts.head_size
            else:
                inner.num_attention_heads = inner.hidden_size // parts.head_size
        model = _empty(config, kind)
    return model


def _empty(config: Any, kind: str) -> Any:
    """A model without weights."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from potstill.decoding.text_model import text_config

    config = config if kind == "classification" else text_config(config)
    auto = AutoModelForSequenceClassification if kind == "classification" else AutoModelForCausalLM
    with quiet_transformers(), torch.device("meta"):
        return auto.from_config(config)
