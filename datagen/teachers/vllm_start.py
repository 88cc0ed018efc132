"""What vLLM's engine must not meet in this process while it starts."""

from __future__ import annotations

import contextlib
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
