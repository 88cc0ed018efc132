"""The command `potstill status RUN`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from potstill.cli.settings import Json, at_home


def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", callback=at_home)],
    as_json: Json = False,
) -> None:
    """How far a run has come: each stage, what was asked of the teacher, and the command that continues it."""
    from potstill.asking.counts import Asked, in_all
    from potstill.asking.ledger import Ledger
    from potstill.datagen.teachers.worker_wire import workers_of
    from potstill.run_state import read_state

    found = read_state(run)
    totals: dict[str, Any] = {}
    asked: dict[str, Asked] = {}
    if (run / "ledger.sqlite").exists():
        with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
            totals = dict(vars(ledger.totals()))
            asked = ledger.asked()
    workers = workers_of(run) if found.process is not None else []
    if as_json:
        stages = {
            stage.name: {**stage.facts, "state": stage.state, "seconds": stage.seconds, "told": stage.told}
            for stage in found.stages
        }
        counts = {purpose: item.to_json() for purpose, item in asked.items()}
        facts = {
            "stages": stages, "process": found.process, "ledger": totals, "asked": counts,
            "asked_in_all": in_all(asked.values()).to_json(), "workers": workers, "next": found.next,
        }  # fmt: skip
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    for stage in found.stages:
        seconds = "" if stage.seconds is None else f"{stage.seconds:,.1f} s"
        typer.echo(f"{stage.name:<10} {stage.state:<8} {seconds:>10}  {stage.told}".rstrip())
    if asked:
        total = in_all(asked.values())
        typer.echo(f"asked      {total}, {total.prompt_tokens:,} tokens read, {total.completion_tokens:,} written")
        for purpose, item in asked.items() if len(asked) > 1 else ():
            typer.echo(f"  {purpose:<10} {item}"[:200])
    if found.process is not None:
        typer.echo(f"process    {found.process or 'unknown'} is at work here")
    for worker in workers:
        where = "this run" if worker["here"] else f"{worker['host']} (process {worker['process']})"
        told = f"{worker['answered']:,} answered, {worker['in_flight']:,} in flight, heard {worker['heard_s']:g} s ago"
        typer.echo(f"worker     {where}: {told}")
    typer.echo(f"next       {found.next}")
