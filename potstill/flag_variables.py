"""Every flag of every command is also an environment variable: `potstill run -n 50` is `POTSTILL_RUN_N=50`.

The name is the command's words and the flag's longest spelling. A flag that is written goes before its variable, and a
variable before the task file. Flags that may be repeated take several values with spaces between. `--help` and
`--version` have none, and help shows no variable's value.
"""

from __future__ import annotations

import os
import shlex
from typing import Any

# The variables of each command, by the beginning that they share.
_NAMED: dict[str, list[str]] = {}


def name_variables(group: Any, words: str = "POTSTILL") -> None:
    """Give each option of each command below a group its variable, where it has none yet."""
    for name, command in group.commands.items():
        place = f"{words}_{_upper(name)}"
        if hasattr(command, "commands"):
            name_variables(command, place)
            continue
        options = [item for item in command.params if item.param_type_name == "option" and not item.is_eager]
        for option in options:
            option.envvar = option.envvar or f"{place}_{_upper(max(option.opts, key=len))}"
        _NAMED[place] = sorted(str(option.envvar) for option in options)


def variables_read(words: list[str]) -> list[str]:
    """The variables that stand for flags of the command in a command line, as a shell sets them; keys are masked."""
    from potstill.masking import mask_teacher

    places = ["_".join(["POTSTILL", *map(_upper, words[:count])]) for count in (2, 1)]
    names = next((_NAMED[place] for place in places if place in _NAMED), [])
    return [f"{name}={shlex.quote(mask_teacher(os.environ[name]))}" for name in names if os.environ.get(name)]


def _upper(name: str) -> str:
    return name.lstrip("-").replace("-", "_").upper()
