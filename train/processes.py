"""The processes of one training (`potstill.train.launch`): who does to files what may be done once, and who says.

Every process runs the whole recipe, and the trainers split the batches. What lies on disk is shared: a folder is moved
or deleted by the first process, after the others have read it, and what a clock decides is decided by the first one's.
Without a launcher there is one process, and nothing here waits.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any


def process_count() -> int:
    """Processes that share this training, as their launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
    """What one process does to files before the others look at them."""
    if process_count() == 1:
        yield
        return
    with _state().main_process_first():
        yield


def once(act: Callable[[], object]) -> None:
    """Have the first process do something to files; it waits for the others to come here, and they for its end."""
    if process_count() == 1:
        act()
        return
    state = _state()
    state.wait_for_everyone()
    if state.is_main_process:
        act()
    state.wait_for_everyone()


def as_the_first(figure: float) -> float:
    """The first process's figure in all of them: one that a clock gave differs from process to process."""
    if process_count() == 1:
        return figure
    import torch
    from accelerate.utils import broadcast

    told = broadcast(torch.tensor([figure], dtype=torch.float32, device=_state().device))
    return float(told[0])


def _state() -> Any:
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())
