"""Events for a person or a machine: a live view in a terminal, plain lines elsewhere, JSON lines on demand.

With `--json` every event is one line `{"event": {…}}` with the fields of `events.Event`, and what the command gives is
the last line, told apart by its `kind`. In a run, `data.run_left_s` is how long the whole of it still takes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict

from potstill.events import Event, Listener

_PLAIN_EVERY_S = 10.0


@contextlib.contextmanager
def listener_for(*, as_json: bool) -> Iterator[Listener]:
    """The listener that fits: JSON lines, a live view on a terminal, or plain lines."""
    if as_json:
        yield _json_lines
    elif sys.stderr.isatty():
        from potstill.pages.live_view import live

        with live() as listener:
            yield listener
    else:
        yield _plain()


# Said by the environment, their bars are off (or on) for good, and there is no need to load them for it.
_BARS = {"datasets": "HF_DATASETS_DISABLE_PROGRESS_BARS", "huggingface_hub": "HF_HUB_DISABLE_PROGRESS_BARS"}


def _datasets_bars_off() -> None:
    import datasets

    datasets.disable_progress_bars()


def _hub_bars_off() -> None:
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    if "transformers" in sys.modules:  # which asks it as it is loaded
        from transformers.utils import logging as theirs

        theirs.disable_progress_bar()


_BARS_OFF = {"datasets": _datasets_bars_off, "huggingface_hub": _hub_bars_off}

# bitsandbytes warns, wherever it is installed, of a faster kernel that it may not fetch.
_KERNEL_LOG = logging.getLogger("bitsandbytes.backends.cpu.ops")


def _tells_of_no_kernel(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward" not in record.getMessage()


def switch_library_bars_off() -> None:
    """No progress bar of the libraries in this process: they would tear the live view, and fill a log."""
    for library, variable in _BARS.items():
        if variable in os.environ:
            continue
        os.environ[variable] = "1"
        # It is read when they are loaded, and in a process that is not ours alone they may have been.
        if library in sys.modules:
            _BARS_OFF[library]()
    _KERNEL_LOG.addFilter(_tells_of_no_kernel)
    # The export to ONNX warns of four operators of torchvision, which no text model has.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


@contextlib.contextmanager
def library_bars_off() -> Iterator[None]:
    """The same inside a block, for a caller whose process is not ours. A run tells its progress by events."""
    with contextlib.ExitStack() as restore:
        if _tells_of_no_kernel not in _KERNEL_LOG.filters:
            _KERNEL_LOG.addFilter(_tells_of_no_kernel)
            restore.callback(_KERNEL_LOG.removeFilter, _tells_of_no_kernel)
        if _BARS["datasets"] not in os.environ:
            import datasets

            if not datasets.are_progress_bars_disabled():
                datasets.disable_progress_bars()
                restore.callback(datasets.enable_progress_bars)
        if _BARS["huggingface_hub"] not in os.environ:
            from transformers.utils import logging as theirs

            if theirs.is_progress_bar_enabled():
                theirs.disable_progress_bar()
                restore.callback(theirs.enable_progress_bar)
        yield


def _json_lines(event: Event) -> None:
    print(json.dumps({"event": asdict(event)}, ensure_ascii=False), flush=True)


def _plain() -> Listener:
    from potstill.pages.live_view import RunView, duration

    last = {"at": 0.0}
    started: dict[str, float] = {}
    view = RunView()

    def run_left(event: Event) -> str:
        seconds = event.data.get("run_left_s")
        return f", about {duration(seconds)} left of the run" if seconds and event.kind != "reused" else ""

    def listen(event: Event) -> None:
        view.take(event)
        if event.kind == "start":
            started[event.stage] = event.time_s
            return
        if event.kind == "progress":
            if event.time_s - last["at"] < _PLAIN_EVERY_S:
                return
            last["at"] = event.time_s
            left = view.stages[event.stage].left_s(event.time_s)
            of_run = event.data.get("run_left_s")
            # Of the last stage both are one figure.
            told = f", {duration(left)} left" if left and (not of_run or of_run - left > 10) else ""
            print(_line(event, None) + told + run_left(event), file=sys.stderr, flush=True)
            return
        print(_line(event, started.get(event.stage)) + run_left(event), file=sys.stderr, flush=True)

    return listen


def _line(event: Event, started: float | None) -> str:
    if event.kind == "progress":
        share = f"{event.done}/{event.total}" if event.total else ""  # without a total the message says how many
        told = event.message if share in event.message else f"{share} {event.message}"
        return f"  {event.stage}: {told}"
    mark = {"done": "done", "reused": "kept", "failed": "FAILED", "note": "note"}.get(event.kind, event.kind)
    seconds = f" ({event.time_s - started:.0f} s)" if started and event.kind == "done" else ""
    return f"{mark:<6} {event.stage:<10} {event.message}{seconds}"
