"""Every flag of every command is also an environment variable: `potstill run -n 50` is `POTSTILL_RUN_N=50`.

The name is the command's words and the flag's longest spelling. A flag that is written goes before its variable, and a
variable before the task file. Flags that may be repeated take several values with spaces between. `--help` and
`--version` have none, and help shows no variable's value.
"""

from __future__ import annotations

import os
import shlex
from typing import Any

_NAMED: set[str] = set()


def name_variables(group: Any, words: str = "POTSTILL") -> None:
    """Give each option of each command below a group its variable, where it has none yet."""
    for name, command in group.commands.items():
        place = f"{words}_{_upper(name)}"
        if hasattr(command, "commands"):
            name_variables(command, place)
            continue
        for option in command.params:
            if option.param_type_name == "option" and not option.is_eager:
                option.envvar = option.envvar or f"{place}_{_upper(max(option.opts, key=len))}"
                _NAMED.add(str(option.envvar))


def variables_read(words: list[str]) -> list[str]:
    """The variables that stand for flags of the command in a command line, as a shell sets them; keys are masked."""
    from potstill.masking import mask_teacher

    below = "_".join(["POTSTILL", *(_upper(word) for word in words[:2])])
    place = next((f"{name}_" for name in (below, below.rpartition("_")[0]) if _any(f"{name}_")), None)
    names = sorted(name for name in _NAMED if place and name.startswith(place) and os.environ.get(name))
    return [f"{name}={shlex.quote(mask_teacher(os.environ[name]))}" for name in names]


def _any(start: str) -> bool:
    return any(name.startswith(start) for name in _NAMED)


def _upper(name: str) -> str:
    return name.lstrip("-").replace("-", "_").upper()
