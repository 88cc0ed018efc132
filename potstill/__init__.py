"""potstill: from a task prompt to a small distilled model.

import potstill
result = potstill.run("Classify support tickets as billing, bug or other.", n=600)
result.scores, result.dataset, result.student("My invoice is wrong")
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

if importlib.util.find_spec("potstill.prompts") is None:
    raise ImportError("potstill is not installed here (its parts lie in several folders); run: pip install -e .")

# Set before any library reads them: no telemetry, no tokenizer threads racing the data loader's forks.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "OMP_WAIT_POLICY" not in os.environ:
    # A thread that waits for others looks 1,000 times (tens of microseconds), then sleeps. GNU's OpenMP looks 300,000
    # times: where another program has one of two cores, the waiting takes what the awaited thread needs, and training
    # lasts fifty times as long. `benchmarks/shared_cores.py` measures it.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
__all__ = ["Task", "compress", "load", "run"]

if TYPE_CHECKING:
    from potstill.compression import compress
    from potstill.pipeline import load, run
    from potstill.task import TaskSpec as Task

_FACE = {
    "run": ("potstill.pipeline", "run"),
    "compress": ("potstill.compression", "compress"),
    "load": ("potstill.pipeline", "load"),
    "Task": ("potstill.task", "TaskSpec"),
}


def __getattr__(name: str) -> Any:
    """Load the public names at first use, so that `import potstill` costs no heavy library."""
    if name not in _FACE:
        raise AttributeError(f"module 'potstill' has no attribute {name!r}; public names: {', '.join(__all__)}")
    import importlib

    module, attribute = _FACE[name]
    return getattr(importlib.import_module(module), attribute)
