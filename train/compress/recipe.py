"""A recipe: steps in a line of text or in YAML, read and checked before any work.

    wanda:0.5 -> heal:steps=100 -> int8:channel            one line
    prune: wanda 0.5 → heal: soft 1 epoch → quantize: int8-channel
    [{prune: wanda 0.5}, {heal: soft 1 epoch}, {quantize: int8-channel}]

A step is a method, then what it is given: a share or count (`0.5`, `50%`, `4`), a word (`channel`, `g64`, `nf4`,
`2:4`), or `option=value`. Steps run in one order: structure is cut, then weights are set to zero, then the rest is
rounded; healing may follow any of them, and after rounding it is quantisation-aware training. Other orders undo
themselves (a matrix cut after rounding loses its scales) and are refused.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from potstill.errors import MissingExtra, OptionError
from potstill.options import nearest
from potstill.train.compress.methods import GRIDS, KIND_OF, METHODS, Method
from potstill.train.prune.patterns import n_of_m, pattern_faults
from potstill.train.prune.schedules import schedule_faults

PREFIXES = {"prune": ("structure", "sparsity"), "quantize": ("quantize",), "quantise": ("quantize",)}
_RANK = {"structure": 0, "sparsity": 1, "quantize": 2}
_SCOPES = {"tensor": "tensor", "row": "row", "channel": "row", "column": "column", "group": "group"}
_WORDS_OF_HEALING = {"epoch": "epochs", "epochs": "epochs", "step": "steps", "steps": "steps"}


@dataclass(frozen=True)
class Step:
    """One step of a recipe.

    Attributes:
        method: Name of the method.
        amount: Share (float) or count (int) to remove, for pruning.
        options: What else was said, checked and typed.
    """

    method: str
    amount: float | int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """structure, sparsity, quantize or heal."""
        return KIND_OF[self.method]

    @property
    def about(self) -> Method:
        """What the method is, and what it needs."""
        return METHODS[self.method]

    def __str__(self) -> str:
        words = [] if self.amount is None else [f"{self.amount:g}"]
        words += [f"{name}={value}" for name, value in self.options.items()]
        return self.method + (":" + ",".join(words) if words else "")


@dataclass(frozen=True)
class Recipe:
    """Steps in their order."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return " -> ".join(map(str, self.steps))


def parse_recipe(given: str | Sequence[Any]) -> Recipe:
    """Read a recipe.

    Args:
        given: A line, or a list of lines, of mappings with one key (`prune`, `heal`, `quantize`, or a method), and of
            steps that are read already.

    Raises:
        OptionError: Every step that cannot be read, with the nearest name of an unknown one.

    Examples:
        >>> [step.method for step in parse_recipe("wanda:0.5 -> heal:steps=100 -> int8:channel").steps]
        ['wanda', 'heal', 'int8']
    """
    parts = re.split(r"->|→|\n|;", given) if isinstance(given, str) else list(given)
    steps: list[Step] = []
    faults: list[str] = []
    for part in parts:
        if isinstance(part, Step):
            steps.append(part)
            continue
        text = _as_text(part, faults)
        if text is None or not text.strip():
            continue
        try:
            steps.extend(_read_step(text.strip()))
        except ValueError as error:
            faults.append(f"{text.strip()!r}: {error}")
    if not steps and not faults:
        faults.append(f"no step is given; methods: {', '.join(sorted(METHODS))}")
    faults += [] if faults else _contradictions(steps)
    if faults:
        raise OptionError("recipe", faults)
    return Recipe(tuple(steps))


def check_recipe(
    recipe: Recipe, *, kind: str, compressed: str = "", tokens: int | None = None, cuts_heads: bool | None = None,
    units: Mapping[str, int] | None = None,
) -> None:  # fmt: skip
    """Refuse a recipe that this student cannot take.

    Args:
        recipe: The recipe.
        kind: `classification` or `causal`.
        compressed: What the student's files say that it is already; empty for a plain one.
        tokens: Tokens of calibration text; None where there is none.
        cuts_heads: Whether the student's build lets heads be cut; else they are masked. None asks its kind alone:
            those of decoders are cut.
        units: How many `layers` the student has that can go, and `neurons` each; None where it is not open yet.

    Raises:
        OptionError: Every reason.
        MissingExtra: A library that a step needs is not installed.
    """
    faults = []
    if compressed:
        faults.append(f"the student is compressed already ({compressed}); give the one that it was made from")
    for step in recipe.steps:
        method = step.about
        for library in method.libraries[:-1]:
            if importlib.util.find_spec(library) is None:
                raise MissingExtra(library, method.libraries[-1], f"the step {step}")
        if kind not in method.models:
            faults.append(f"{step}: {step.method} is for {' and '.join(method.models)} students; this one is {kind}")
        least = method.texts_for(step.options)
        least = least if kind == "causal" else min(least, 256)
        if least and tokens is None:
            faults.append(f"{step}: {step.method} looks at texts, and there are none; give some (--texts FILE)")
        elif least and tokens is not None and tokens < least:
            faults.append(f"{step}: {tokens} tokens of calibration text are too few; give at least {least}")
        if step.method == "heads" and "step" in step.options and cuts_heads and step.options.get("uniform", True):
            faults.append(
                f"{step}: step is for masked heads, and a cut goes group by group; leave it out or uniform=no"
            )
    faults += _too_many(recipe.steps, dict(units or {}))
    faults += _zeros_lost(recipe.steps, masked_heads=not (kind == "causal" if cuts_heads is None else cuts_heads))
    if faults:
        raise OptionError("recipe", faults)


def _too_many(steps: Sequence[Step], left: dict[str, int]) -> list[str]:
    """Cuts of none or of all layers or neurons that the steps before them leave."""
    faults = []
    for step in steps:
        if step.method in ("cofi", "bonsai"):
            break  # what these leave is learnt
        total = left.get(step.method)
        if total is None or step.amount is None:
            continue
        count = step.amount if isinstance(step.amount, int) else round(step.amount * total)
        if not 1 <= count < total:
            can = f"choose 1 to {total - 1}" if total > 1 else "leave the step out"
            faults.append(f"{step}: {count} of {total} {step.method} cannot be removed; {can}")
        left[step.method] = total - count
    return faults


def _as_text(part: Any, faults: list[str]) -> str | None:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and len(part) == 1:
        (name, value), *_ = part.items()
        if isinstance(value, Mapping):
            value = ",".join(f"{key}={item}" for key, item in value.items())
        return f"{name}: {'' if value is None else value}"
    faults.append(f"{part!r}: a step is a line of text, or a mapping with one key such as `prune: wanda 0.5`")
    return None


def _read_step(text: str) -> list[Step]:
    """The steps that a line stands for: one, or two for `qat`.

    Raises:
        ValueError: It cannot be read; the message says why.
    """
    head, _, rest = text.partition(":")
    if head.strip() in PREFIXES:
        wanted, text = PREFIXES[head.strip()], rest.strip()
    else:
        wanted = ()
    match = re.match(r"[\w.]+", text)
    if not match:
        raise ValueError(f"no method is named; methods: {', '.join(sorted(METHODS))}")
    name = match[0].lower()
    # The line of `int8-channel` joins, and that of `layers:-1` is a sign.
    found, words = name, re.sub(r"^(?:[ :,]*-(?![\d.])|-)?[ :,]*", "", text[match.end() :])
    if name not in METHODS:
        # `gobo3` and `int4g64` are how people write them.
        joined = re.fullmatch(r"(gobo|int\d)_?(g\d+|(?<!\d)\d)", name)
        if not joined or joined[1] not in METHODS:
            raise ValueError(f"there is no method {name!r}{nearest(name, METHODS)}")
        found, words = joined[1], f"{joined[2]} {words}"
    if wanted and KIND_OF[found] not in wanted:
        raise ValueError(f"{found} is not a method to {head.strip()}; write it without `{head.strip()}:`")
    step = _with_words(METHODS[found], [word for word in re.split(r"[,\s]+", words) if word])
    if found != "qat":
        return [step]
    options = dict(step.options)
    named = [options.pop(name, None) for name in ("group", "embeddings", "keep")]
    grid = grid_step(str(options.pop("grid")), *named)
    length = {} if "epochs" in options else {"steps": 200}
    return [grid, Step("heal", None, length | options)]


def grid_step(grid: str, group: int | None = None, embeddings: str | None = None, keep: str | None = None) -> Step:
    """The plain rounding that a grid's name stands for, such as `int4`, `nf4` or `gobo3`."""
    bits = re.fullmatch(r"gobo(\d)", grid)
    options: dict[str, Any] = {"bits": int(bits[1])} if bits else {}
    if group is not None and not bits and grid != "binary":
        options |= {"group": group} | ({"scope": "group"} if grid.startswith("int") else {})
    if embeddings is not None:
        options["embeddings"] = embeddings
    if keep is not None:
        options["keep"] = keep
    return Step("gobo" if bits else grid, None, options)


def _with_words(method: Method, words: list[str]) -> Step:
    amount: float | int | None = None
    options: dict[str, Any] = {}

    def put(found: Mapping[str, Any]) -> None:
        """Take options, each said once."""
        for name, value in found.items():
            if options.setdefault(name, value) != value:
                raise ValueError(f"{name} is given as {options[name]} and as {value}; keep one of them")

    position = 0
    while position < len(words):
        word, after = words[position], words[position + 1] if position + 1 < len(words) else ""
        position += 1
        key, equals, value = word.partition("=")
        if equals:
            if key not in method.options:
                raise ValueError(f"{method.name} has no option {key!r}{nearest(key, method.options)}")
            put({key: _typed(method, key, value)})
        elif method.kind == "heal" and after in _WORDS_OF_HEALING:
            key = _WORDS_OF_HEALING[after]
            put({key: _typed(method, key, word)})
            position += 1
        elif method.kind in ("structure", "sparsity") and (share := _share(word)) is not None:
            if amount is not None:
                raise ValueError(f"{method.name} is given {amount:g} and {share:g}; keep one of them")
            amount = share
        else:
            put(_meaning(method, word))
    if method.kind in ("structure", "sparsity"):
        amount = _checked_amount(method, amount, options)
    if method.name == "magnitude":
        given = {name: options.get(name) for name in ("pattern", "steps", "learning_rate")}
        if wrong := schedule_faults(options.get("schedule", "once"), **given):
            raise ValueError("; ".join(wrong))
    if (keep := options.get("keep")) is not None:
        if not re.fullmatch(r"[\w.]+(\+[\w.]+)*", keep):
            raise ValueError(f"keep={keep} is no list of names; write keep=layers.0, and more of them joined by +")
        if options.get("activations") == "int8":
            raise ValueError("keep leaves single weights as they are, and activations=int8 rounds the inputs of all")
    missing = [name for name in method.required if name not in options]
    if missing:
        raise ValueError(f"{method.name} needs {missing[0]}; {method.example}")
    if {"steps", "epochs"} <= set(options):
        raise ValueError(
            f"steps={options['steps']} and epochs={options['epochs']:g} both say how long {method.name} is; keep one "
            "of them"
        )
    return Step(method.name, amount, options)


def _meaning(method: Method, word: str) -> dict[str, Any]:
    """What a word without a key stands for."""
    group = re.fullmatch(r"g?(\d+)", word)
    if "scope" in method.options and word in _SCOPES:
        return {"scope": _SCOPES[word]}
    if method.name == "gobo" and group:
        return {"bits": _typed(method, "bits", group[1])}
    if "group" in method.options and group:
        scope = {"scope": "group"} if "scope" in method.options else {}
        return {**scope, "group": _typed(method, "group", group[1])}
    if "grid" in method.options and word in GRIDS:
        return {"grid": word}
    if "zero_point" in method.options and word in ("zero-point", "zero_point", "asymmetric"):
        return {"zero_point": True}
    if word == "symmetric" and "zero_point" in method.options:
        return {"zero_point": False}
    if "pattern" in method.options and re.fullmatch(r"\d+:\d+", word):
        return {"pattern": word}
    if method.kind == "heal" and word == "soft":
        return {}
    choices = {choice: name for name, option in method.options.items() for choice in option.choices}
    if word in choices:
        return {choices[word]: word}
    known = [*choices, *(f"{name}=" for name in method.options)]
    raise ValueError(f"{method.name} does not know {word!r}{nearest(word, known)}")


def _share(word: str) -> float | int | None:
    try:
        if word.endswith("%"):
            word = str(float(word[:-1]) / 100)
        share = int(word) if re.fullmatch(r"[+-]?\d+", word) else float(word)
        return share if math.isfinite(share) else None
    except ValueError:
        return None


def _checked_amount(method: Method, amount: float | int | None, options: Mapping[str, Any]) -> float | int | None:
    if (pattern := options.get("pattern")) is not None:
        n, m = n_of_m(pattern)
        amount = 1 - n / m if amount is None else amount
        if wrong := pattern_faults(pattern, amount, options.get("scope", "layer")):
            raise ValueError("; ".join(wrong))
    if amount is None:
        raise ValueError(f"{method.name} needs a share to remove; {method.example}")
    if method.kind == "sparsity" and not 0 < amount < 1:
        raise ValueError(f"a sparsity of {amount:g} is not possible: choose a share between 0 and 1, such as 0.5")
    if method.kind == "structure" and (amount <= 0 or (isinstance(amount, float) and amount >= 1)):
        count = ", or a count of 1 or more" if method.counts else ""
        raise ValueError(f"{amount:g} cannot be removed: choose a share between 0 and 1{count}")
    if method.kind == "structure" and isinstance(amount, int) and not method.counts:
        raise ValueError(f"{amount} is no share to remove: choose one between 0 and 1, as in {method.example}")
    return amount


def _typed(method: Method, name: str, value: str) -> Any:
    option = method.options[name]
    if option.choices and value not in option.choices:
        raise ValueError(f"{name}={value} is none of {', '.join(option.choices)}")
    if option.type is bool:
        if value.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise ValueError(f"{name}={value} is neither true nor false")
        return value.lower() in ("true", "yes", "1")
    try:
        if option.type is float and value.endswith("%"):
            typed = float(value[:-1]) / 100
        else:
            typed = option.type(value)
    except ValueError:
        raise ValueError(f"{name}={value} is no {option.type.__name__}") from None
    if isinstance(typed, float) and not math.isfinite(typed):
        raise ValueError(f"{name}={value} is no number to work with")
    if option.least is not None and typed < option.least:
        raise ValueError(f"{name}={value} is too small; the least is {option.least:g}")
    if option.most is not None and typed > option.most:
        raise ValueError(f"{name}={value} is too large; the most is {option.most:g}")
    return typed


def _contradictions(steps: Sequence[Step]) -> list[str]:
    faults = []
    highest, last = -1, ""
    for index, step in enumerate(steps):
        if index and step.options.get("rewind") is not None:
            faults.append(
                f"{step.method} comes after {steps[index - 1].method}, and rewind={step.options['rewind']:g} goes back "
                f"to before it; put {step.method} first, or leave rewind out"
            )
        if step.method == "qlora":
            masked = [before.method for before in steps[:index] if before.options.get("uniform") is False]
            if highest >= _RANK["sparsity"] or masked:
                after = last if highest >= _RANK["sparsity"] else masked[-1]
                faults.append(
                    f"qlora comes after {after}: its adapters are merged into full weights, which would undo it; put "
                    "it before, or heal"
                )
            continue
        if step.kind == "heal" and step.method == "own":
            if highest == _RANK["quantize"]:
                faults.append(f"{step} comes after {last}: rounded weights have codes, which it cannot move")
            continue
        if step.kind == "heal":
            if index == 0:
                faults.append(
                    "heal comes first, when nothing was removed yet; put it after a step that prunes or rounds"
                )
            elif last in ("bf16", "fp16"):
                faults.append(f"heal after {last}: the cast would be undone; cast last")
            continue
        rank = _RANK[step.kind]
        if rank == 2 and highest == 2:
            faults.append(f"{last} and {step.method} both round the weights; keep one of them")
        elif rank < highest:
            faults.append(
                f"{step.method} ({step.kind}) comes after {last}: the order is structure, sparsity, quantisation"
            )
        highest, last = max(highest, rank), step.method
    return faults + _zeros_lost(steps, masked_heads=False)


def _zeros_lost(steps: Sequence[Step], *, masked_heads: bool) -> list[str]:
    """Roundings that have no value 0, after steps that set weights to zero."""
    zeros = [
        step.kind == "sparsity" or step.options.get("uniform") is False or (step.method == "heads" and masked_heads)
        for step in steps
    ]
    return [
        f"{step} has no value 0, so the pruned weights would come back; choose int8, int4 or nf4"
        for index, step in enumerate(steps)
        if any(zeros[:index]) and step.kind == "quantize" and not _keeps_zero(step)
    ]


def _keeps_zero(step: Step) -> bool:
    grid = str(step.options.get("grid", step.method))
    return not (grid.startswith("gobo") or grid == "binary")


def with_defaults(step: Step) -> Step:
    """The step with every option spelled out."""
    known = {name: option.default for name, option in step.about.options.items()}
    return replace(step, options={**known, **step.options})
