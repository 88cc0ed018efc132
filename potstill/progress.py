"""Events for a person or a machine: a live line in a terminal, plain lines elsewhere, JSON lines on demand."""

from __future__ import annotations

import contextlib
import json
import sys
import time
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
        with _live() as listener:
            yield listener
    else:
        yield _plain()


def _json_lines(event: Event) -> None:
    print(json.dumps({"event": asdict(event)}, ensure_ascii=False), flush=True)


def _plain() -> Listener:
    last = {"at": 0.0}
    started: dict[str, float] = {}

    def listen(event: Event) -> None:
        if event.kind == "start":
            started[event.stage] = event.time_s
            return
        if event.kind == "progress":
            if event.time_s - last["at"] < _PLAIN_EVERY_S:
                return
            last["at"] = event.time_s
        print(_line(event, started.get(event.stage)), file=sys.stderr, flush=True)

    return listen


def _line(event: Event, started: float | None) -> str:
    if event.kind == "progress":
        total = f"/{event.total}" if event.total else ""
        return f"  {event.stage}: {event.done}{total} {event.message}"
    mark = {"done": "done", "reused": "kept", "failed": "FAILED", "note": "note"}.get(event.kind, event.kind)
    seconds = f" ({event.time_s - started:.0f} s)" if started and event.kind == "done" else ""
    return f"{mark:<6} {event.stage:<10} {event.message}{seconds}"


@contextlib.contextmanager
def _live() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}"),
    )
    started: dict[str, float] = {}
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, int] = {}

        def listen(event: Event) -> None:
            if event.kind == "start":
                started[event.stage] = time.time()
                tasks[event.stage] = bars.add_task(event.stage, total=None, message="")
            elif event.kind == "progress":
                if event.stage not in tasks:
                    tasks[event.stage] = bars.add_task(event.stage, total=None, message="")
                message = event.message[:60]
                bars.update(tasks[event.stage], completed=event.done, total=event.total, message=message)  # type: ignore[arg-type]
            else:
                if event.kind != "note" and event.stage in tasks:
                    bars.remove_task(tasks.pop(event.stage))  # type: ignore[arg-type]
                console.print(_line(event, started.get(event.stage)), highlight=False, markup=False)

        yield listen
