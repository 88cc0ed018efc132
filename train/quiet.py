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


def _tells_of_no_cast(record: logging.LogRecord) -> bool:
    """Whether a line of bitsandbytes is not the one that it prints of each product whose inputs it casts."""
    return "inputs will be cast" not in record.getMessage()


@contextmanager
def quiet_bars(rounded: str) -> Iterator[None]:
    """No bars of libraries that unpack weights, which know no switch; what they raise is raised.

    Args:
        rounded: How the weights are rounded. Of bitsandbytes' products one warning is dropped for good: they are
            made long after this block. What else that library says is the caller's to hear.
    """
    if rounded == "bitsandbytes":
        logging.getLogger("bitsandbytes.autograd._functions").addFilter(_tells_of_no_cast)
    with redirect_stderr(io.StringIO()):
        yield
