"""How optional libraries are installed: the command that works where potstill itself came from."""

from __future__ import annotations

import shlex
from pathlib import Path


def install_command(extra: str) -> str:
    """The command that installs an extra of pyproject.toml: of the folder that potstill runs from, where it has one.

    Args:
        extra: Such as `vllm`.
    """
    folder = Path(__file__).resolve().parent.parent
    if (folder / "pyproject.toml").is_file():
        return f"pip install -e {shlex.quote(f'{folder}[{extra}]')}"
    return f"pip install 'potstill[{extra}]'"
