"""The commands with a page: `potstill view` and `potstill serve`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from potstill.cli.settings import at_home

if TYPE_CHECKING:
    from potstill.pages.web import App

app = typer.Typer()

_Host = Annotated[str, typer.Option(help="Address to listen on; the default can be reached from this machine alone.")]
_Port = Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")]
_Open = Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")]
_For = Annotated[float, typer.Option("--for", min=0, help="Stop after so many seconds; 0 waits for Ctrl-C.")]


@app.command(epilog="Example: potstill view runs/support-tickets --no-open --for 2")
def view(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", callback=at_home)],
    host: _Host = "127.0.0.1",
    port: _Port = 0,
    show: _Open = True,
    seconds: _For = 0,
) -> None:
    """Browse, judge and correct a run's rows on a local page; the next `potstill run` uses it."""
    from potstill.pages.viewer import viewer_app

    _serve(viewer_app(run), host, port, show, seconds)


@app.command(epilog="Example: potstill serve runs/support-tickets --port 8765 --for 2")
def serve(
    student: Annotated[
        Path, typer.Argument(metavar="STUDENT", help="A run, a loaded unit, or a model's folder.", callback=at_home)
    ],
    host: _Host = "127.0.0.1",
    port: _Port = 8765,
    show: _Open = False,
    seconds: _For = 0,
) -> None:
    """Serve the student: POST /predict, and a page to try it."""
    from potstill.pages.serving import Batcher, student_app, student_folder
    from potstill.train.student import load_student

    loaded = load_student(student_folder(student))
    batcher = Batcher(loaded)
    try:
        _serve(student_app(loaded, batcher), host, port, show, seconds)
    finally:
        batcher.close()


def _serve(pages: App, host: str, port: int, show: bool, seconds: float) -> None:
    import threading

    from potstill.pages.web import Server, running

    with running(Server(pages, host, port)) as server:
        typer.echo(f"{server.url}  (Ctrl-C stops)")
        if show:
            webbrowser.open(server.url)
        try:
            threading.Event().wait(seconds or None)
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
