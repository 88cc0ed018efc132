"""Options of a stage from a mapping: every fault at once, the nearest name for an unknown key.

Each stage keeps one frozen dataclass beside its code; this module only turns what a user wrote (front matter,
`--set stage.key=value`, keyword arguments) into it. Types are checked by pydantic.
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from potstill.errors import BadOptions, OptionError, OptionFault

T = TypeVar("T")

# What the libraries take that draw at random.
LARGEST_SEED = 2**32 - 1

# What options are called elsewhere.
USUAL_NAMES = {
    "lr": "learning_rate", "num_epochs": "epochs", "epoch": "epochs", "num_train_epochs": "epochs",
    "batch": "batch_size", "per_device_train_batch_size": "batch_size", "max_seq_length": "max_length",
    "gradient_accumulation_steps": "gradient_accumulation",
}  # fmt: skip


def nearest(word: str, known: object) -> str:
    """A hint `; did you mean 'x'?` for an unknown word, or the list of known ones.

    Examples:
        >>> nearest("epoch", {"epochs", "lr"})
        "; did you mean 'epochs'?"
        >>> nearest("shape", {"epochs", "batch"})
        '; known: batch, epochs'
        >>> nearest("lr", {"learning_rate", "qlora"})
        "; did you mean 'learning_rate'?"
    """
    names = sorted(str(name) for name in known)  # type: ignore[attr-defined]
    usual = USUAL_NAMES.get(word.lower().replace("-", "_"))
    close = [usual] if usual in names else get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def build_options(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build the frozen dataclass `cls` from `values`.

    Args:
        cls: A dataclass type whose fields are the known keys.
        values: What the user wrote.
        where: Prefix for messages, such as `generation`.

    Raises:
        OptionError: Unknown keys, wrong types or values that the dataclass refuses; all are listed.
    """
    from pydantic import TypeAdapter, ValidationError

    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    at: tuple[str, ...] = tuple(where.split("."))
    faults: list[str] = [
        OptionFault(f"{where}.{key}: no such option{nearest(key, known)}", *at, key)
        for key in values
        if key not in known
    ]
    good = {key: value for key, value in values.items() if key in known}
    hints = typing.get_type_hints(cls)
    for key in [key for key, value in good.items() if isinstance(value, bool) and not _takes_bool(hints[key])]:
        # Which pydantic would read as 1 or 0.
        faults.append(
            OptionFault(f"{where}.{key}: {good.pop(key)!r} is yes or no, and another value is needed", *at, key)
        )
    for name, inner in option_groups(cls).items():
        if isinstance(good.get(name), Mapping):
            # Pydantic lets unknown keys of an inner dataclass pass.
            try:
                good[name] = build_options(inner, good[name], f"{where}.{name}")
            except OptionError as error:
                faults.extend(error.faults)
                del good[name]
    try:
        built: T = TypeAdapter(cls).validate_python(good)
    except ValidationError as error:
        for item in error.errors():
            own, within = item.get("ctx", {}).get("error"), [str(part) for part in item["loc"]]
            said = ".".join((where, *within))
            if isinstance(own, BadOptions):
                faults += [OptionFault(f"{said}: {fault}", *at, *within, *fault.place) for fault in own.faults]
            else:
                faults.append(OptionFault(f"{said}: {_told(item)}", *at, *within))
        raise OptionError(where, faults) from None
    except OptionError as error:  # of a dataclass that names its own place
        raise OptionError(where, [*faults, *error.faults]) from None
    except ValueError as error:
        faults.append(OptionFault(f"{where}: {error}", *at))
        raise OptionError(where, faults) from None
    faults += [
        OptionFault(f"{where}.{name}: {fault} is needed (got {value!r})", *at, name)
        for name, value in ((name, getattr(built, name)) for name in sorted(known))
        if (fault := _number_fault(name, value))
    ]
    if faults:
        raise OptionError(where, faults)
    return built


def _takes_bool(hint: Any) -> bool:
    """Whether a type has yes and no among its values, or says nothing of numbers."""
    inner = typing.get_args(hint)
    return bool in (hint, *inner) or not {int, float} & {hint, *inner}


def _number_fault(name: str, value: Any) -> str:
    """What no option's own check finds: it compares, and nothing is above or below NaN."""
    if isinstance(value, float) and math.isnan(value):
        return "a number"
    if name == "seed" and isinstance(value, int) and not 0 <= value <= LARGEST_SEED:
        return f"a whole number from 0 to {LARGEST_SEED:,}"
    return ""


def _told(item: Any) -> str:
    """What pydantic found, in words that need no Python."""
    own, got = item.get("ctx", {}).get("error"), item.get("input")
    if own:  # of the dataclass itself, which says what it got
        return str(own)
    if item["type"] == "tuple_type" and isinstance(got, str):
        return f"a list is needed; write [{json.dumps(got, ensure_ascii=False)}]"
    return f"{item['msg']} (got {got!r})"


def option_groups(cls: type[Any]) -> dict[str, type[Any]]:
    """Fields that are dataclasses themselves."""
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    return {name: hints[name] for name in names if dataclasses.is_dataclass(hints[name])}


def as_json(options: object) -> dict[str, Any]:
    """The resolved values of an options dataclass as JSON types, for manifests and reports."""
    from pydantic import TypeAdapter

    dumped: dict[str, Any] = TypeAdapter(type(options)).dump_python(options, mode="json")
    return dumped
