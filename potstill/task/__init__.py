"""The task: as a value (`spec.py`), and how it is read from a prompt or a file (`file.py`)."""

from potstill.task.spec import (
    KINDS,
    METRICS,
    REVISION,
    Answer,
    DataRef,
    Example,
    Inferred,
    Kind,
    Label,
    LicencePolicy,
    Metric,
    Rule,
    TaskSpec,
    readable,
)

__all__ = [
    "KINDS",
    "METRICS",
    "REVISION",
    "Answer",
    "DataRef",
    "Example",
    "Inferred",
    "Kind",
    "Label",
    "LicencePolicy",
    "Metric",
    "Rule",
    "TaskSpec",
    "readable",
]
