"""The commands `potstill batch write|submit|fetch|read`: a run through the files of OpenAI's Batch API."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from potstill.cli.settings import (
    Group,
    Json,
    Rows,
    Seed,
    Set,
    SourcesOf,
    Task,
    Teacher,
    at_home,
    merge_settings,
    run_command,
)

if TYPE_CHECKING:
    from potstill.batch_results import BatchRead

app = typer.Typer(
    name="batch", cls=Group, no_args_is_help=True,
    help="Requests as files of OpenAI's Batch API, and their results back.",
    epilog="Example: potstill batch write task.md requests.jsonl --teacher openai:#gpt-5-mini -o runs/a",
)  # fmt: skip


@app.command(epilog="Example: potstill batch write task.md requests.jsonl --teacher openai:#gpt-5-mini -o runs/a")
def write(
    task: Task,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The JSONL file to upload.", callback=at_home)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folder; `potstill run` continues in it.", callback=at_home)
    ] = None,
    teacher: Teacher = None,
    n: Rows = None,
    seed: Seed = None,
    sources: SourcesOf = None,
    budget: Annotated[str | None, typer.Option(help="Write no more than 2usd or 500k-tokens can pay for.")] = None,
    options: Set = None,
    as_json: Json = False,
) -> None:
    """Write what a run with these settings would ask now. Give `potstill run` the same settings afterwards."""
    from potstill.batch import write_batch
    from potstill.progress import listener_for

    settings: dict[str, Any] = {"teacher": teacher, "n": n, "seed": seed, "sources": sources, "budget": budget}
    with listener_for(as_json=as_json) as listener:
        written = write_batch(task, file, out=out, listener=listener, **merge_settings(settings, options or []))
    if as_json:
        typer.echo(json.dumps({**asdict(written), "run": str(written.run), "files": [str(f) for f in written.files]}))
        return
    if not written.requests:
        line = run_command(task, written.run, settings, options)
        typer.echo(f"nothing is left to ask; go on with: {line}")
        return
    typer.echo(f"{written.requests} requests in {', '.join(map(str, written.files))}")
    if written.capped:
        typer.echo(
            "the budget allows no more than these at the most that each may take; read their results, or raise it"
        )
    elif written.full:
        typer.echo("as many as generation plans ahead; for more, add --set generation.window=5000 here and to run")
    names = " ".join(shlex.quote(str(file)) for file in written.files)
    typer.echo(f"then: potstill batch submit {shlex.quote(str(written.run))} {names}")


@app.command(epilog="Example: potstill batch submit runs/a requests.jsonl")
def submit(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The run folder given to `batch write`.", callback=at_home)
    ],
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="What `batch write` wrote.")],
    as_json: Json = False,
) -> None:
    """Send batch files to the teacher's server, which answers within a day; a file that was sent is not sent again."""
    from potstill.batch_server import submit_batch

    found = submit_batch(run, files)
    if as_json:
        typer.echo(json.dumps([asdict(item) for item in found]))
        return
    for item in found:
        typer.echo(f"{item.name}  {item.batch}  {item.state}")
    typer.echo(f"then: potstill batch fetch {shlex.quote(str(run))} --wait")


@app.command(epilog="Example: potstill batch fetch runs/a --wait")
def fetch(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The run folder given to `batch submit`.", callback=at_home)
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Look each minute until all batches have ended.")] = False,
    as_json: Json = False,
) -> None:
    """Say how far the batches of a run are, and read the results of those that have ended into its ledger."""
    from potstill.batch_server import fetch_batch
    from potstill.progress import listener_for

    with listener_for(as_json=as_json) as listener:
        batches, found = fetch_batch(run, wait_s=60.0 if wait else None, listener=listener)
    if as_json:
        typer.echo(json.dumps({"batches": [asdict(item) for item in batches], **asdict(found)}))
        return
    for item in batches:
        why = f": {item.why}" if item.why else ""
        said = f"{item.batch}  {item.state}, {item.done} of {item.total}{why}"
        if not item.batch:
            said = f"uploaded alone; send it again: potstill batch submit {shlex.quote(str(run))} {item.name}"
        typer.echo(f"{item.name}  {said}")
    _print_read(found)
    if all(item.ended for item in batches):
        typer.echo("write the next file with the same `potstill batch write`, or go on with `potstill run`")


@app.command(epilog="Example: potstill batch read runs/a output.jsonl errors.jsonl")
def read(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The run folder given to `batch write`.", callback=at_home)
    ],
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Output and error files of the batch.")],
    as_json: Json = False,
) -> None:
    """Read results into the run's ledger."""
    from potstill.batch_results import read_batch

    found = read_batch(run, files)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    _print_read(found)


def _print_read(found: BatchRead) -> None:
    """What was read, in words."""
    failed = ", ".join(f"{count} {reason}" for reason, count in sorted(found.failed.items()))
    typer.echo(f"{found.answered} replies read ({found.truncated} cut), {found.already} known before")
    typer.echo(f"{sum(found.failed.values())} failed{f' ({failed})' if failed else ''}, {found.missing} without reply")
    if found.unknown or found.unreadable:
        typer.echo(f"{found.unknown} lines of another run or read before, {found.unreadable} unreadable")
