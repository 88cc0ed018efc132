"""Silence for libraries that print: progress reaches the user through events alone."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and nothing below an error from transformers, inside the block."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def quiet_bars(rounded: str) -> Iterator[None]:
    """No bars of libraries that unpack weights, which know no switch; what they raise is raised.

    Args:
        rounded: How the weights are rounded. bitsandbytes tells of each product that it casts its inputs, for good.
    """
    if rounded == "bitsandbytes":
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with redirect_stderr(io.StringIO()):
        yield
