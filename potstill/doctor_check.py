"""What is said of one thing that a run needs: how it stands, and its mend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from potstill.extras import install_command

Status = Literal["ok", "warn", "fail"]
# For errors whose text does not end with a mend of its own.
_MENDS = {
    "task": "fix what is named above; `potstill init PROMPT` writes a task file that can be read",
    "settings": "fix what is named above, in the task file or on the command line",
    "student": "fix what is named above, under distil: or compress: in the task file",
    "encoder": f"{install_command('embedded')}, or give `encoder:` a folder in the task file",
    "teacher": "check --teacher, its address and its key",
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        status: `ok`; `warn` where a run works but with less; `fail` where it would not.
        found: What was met.
        mend: What to do about it; empty when there is nothing to do.
    """

    name: str
    status: Status
    found: str
    mend: str = ""


def failed(name: str, error: Exception) -> Check:
    """The check that an error makes, its mend apart from what was met."""
    text = str(error).strip()
    head, _, mend = text.partition("; ")
    if mend and "\n" not in text:
        return Check(name, "fail", head, mend)
    return Check(name, "fail", text, _MENDS.get(name, f"check {name}: in the task file"))
