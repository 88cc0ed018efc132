"""Progress as values: stages emit events, the roof decides how to show them.

A listener is any callable that takes one `Event`. The command line draws a live table from them, `--json`
prints them a line each, and a library user who passes none gets silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EventKind = Literal["start", "progress", "note", "done", "reused", "failed"]


@dataclass(frozen=True)
class Event:
    """One thing that happened in a stage.

    Attributes:
        stage: Name of the stage (`retrieval`, `datagen`, …).
        kind: What happened.
        message: One line for a person.
        done: Units finished so far, for `progress`.
        total: Units expected, or None when unknown.
        data: Figures for machines (JSON types only).
        time_s: Unix time in seconds.
    """

    stage: str
    kind: EventKind
    message: str = ""
    done: int = 0
    total: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    time_s: float = field(default_factory=time.time)


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener that shows nothing."""
