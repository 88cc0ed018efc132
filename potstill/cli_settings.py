"""Options of the command line as the mapping that `settings.resolve` takes."""

from __future__ import annotations

import json
from typing import Any

from potstill.errors import OptionError


def merge_settings(settings: dict[str, Any], pairs: list[str]) -> dict[str, Any]:
    """Add `stage.option=value` pairs; values are read as JSON where they parse, else as text."""
    merged = {key: value for key, value in settings.items() if value is not None}
    faults = []
    for pair in pairs:
        name, equals, text = pair.partition("=")
        stage, dot, option = name.strip().partition(".")
        if not equals or not dot or not stage or not option:
            faults.append(f"--set {pair!r}: write stage.option=value, such as distil.epochs=3")
            continue
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        *groups, option = option.split(".")
        place = merged.setdefault(stage, {})
        for group in groups:
            place = place.setdefault(group, {})
        place[option] = value
    if faults:
        raise OptionError("command line", faults)
    return merged
