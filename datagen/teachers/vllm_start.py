"""What vLLM's engine must not meet in this process, or must, while it starts."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def unlisted(name: str) -> Iterator[None]:
    """Keep a module out of the list of loaded ones for a while; whoever holds it keeps it.

    On a CPU, vLLM's engine starts by looking at all that loaded modules hold, and dies of the one object of numba's
    library that answers to any name, `__dict__` included. The search for datasets loads that library.
    """
    module = sys.modules.pop(name, None)
    try:
        yield
    finally:
        if module is not None:
            sys.modules[name] = module


@contextlib.contextmanager
def told_offline(wanted: bool) -> Iterator[None]:
    """Tell the engine, and the processes that it starts, to ask the Hub for nothing; nobody else afterwards.

    A student of the same run, or the next run of a notebook, may be the Hub's.

    Args:
        wanted: Whether it is to be told: its model is a folder. What the environment says already stays.
    """
    # The Hub's client reads it when it is loaded, and keeps it.
    import huggingface_hub.constants  # noqa: F401

    if not wanted or "HF_HUB_OFFLINE" in os.environ:
        yield
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        os.environ.pop("HF_HUB_OFFLINE", None)
