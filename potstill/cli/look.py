"""The commands after a run: `potstill inspect`, `compare`, `evaluate` and `load`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from potstill.cli.settings import Json, at_home

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer()

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", callback=at_home)]


@app.command(epilog="Example: potstill inspect runs/support-tickets --dropped --reason near_duplicate -n 5")
def inspect(
    run: _Run,
    dropped: Annotated[bool, typer.Option("--dropped", help="Rows that a stage refused, with the reason.")] = False,
    origin: Annotated[str, typer.Option(help="retrieved, generated, pseudo or user.")] = "",
    label: Annotated[str, typer.Option(help="Rows with this output.")] = "",
    source: Annotated[str, typer.Option(help="Rows of this dataset or teacher.")] = "",
    split: Annotated[str, typer.Option(help="train, validation or heldout.")] = "",
    reason: Annotated[str, typer.Option(help="Refused for this reason.")] = "",
    stage: Annotated[str, typer.Option(help="Refused by this stage.")] = "",
    search: Annotated[str, typer.Option("--search", "-s", help="Words in the input or output.")] = "",
    row: Annotated[
        str, typer.Option("--id", help="One row, with where it came from; the beginning of its id is enough.")
    ] = "",
    n: Annotated[int, typer.Option("-n", min=1, help="Rows to show.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Rows to skip.")] = 0,
    as_json: Json = False,
) -> None:
    """Browse a run's rows and what was refused."""
    from potstill.pages.browse import Filter, RowBrowser

    browser = RowBrowser(run)
    try:
        if row:
            found = browser.find(row)
            typer.echo(json.dumps(found, ensure_ascii=False) if as_json else _one(found))
            return
        view = "dropped" if dropped or reason or stage else "kept"
        wanted = Filter(view, origin, label, source, split, reason, stage, search)  # type: ignore[arg-type]
        page = browser.page(wanted, offset, n)
        if as_json:
            for record in page.rows:
                typer.echo(json.dumps(record, ensure_ascii=False))
            return
        if page.rows:
            _print_rows(page.rows, view)
            places = f"rows {offset + 1:,}–{offset + len(page.rows):,} of {page.total:,}"
            typer.echo(f"{places}; all of one: potstill inspect {shlex.quote(str(run))} --id {page.rows[0]['id'][:8]}")
        elif page.total:
            typer.echo(f"no rows after {offset:,}: there are {page.total:,}; give a smaller --offset")
        else:
            every = browser.page(Filter(view), 0, 0).total  # type: ignore[arg-type]
            typer.echo(f"none of the {every:,} {view} rows fit; there are:" if every else f"there are no {view} rows")
            facets = browser.facets(view)  # type: ignore[arg-type]
            for name, counts in facets.items():
                typer.echo(
                    f"{name:<8} " + ", ".join(f"{value} {count:,}" for value, count in list(counts.items())[:12])
                )
    finally:
        browser.close()


def _print_rows(rows: Sequence[dict[str, Any]], view: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from potstill.report.page import shown

    last = "reason" if view == "dropped" else "origin"
    table = Table("id", "input", "output", last, box=None, padding=(0, 1))
    for record in rows:
        source = record["source"].get("dataset") or record["source"].get("teacher") or ""
        tail = f"{record['reason']}: {record['detail']}" if view == "dropped" else f"{record['origin']} {source}"
        mark = f" ({record['decision']['action']}ed)" if record.get("decision") else ""
        cells = (record["id"][:8], shown(record["input"], 300), shown(record["output"], 120), shown(tail + mark, 120))
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)


def _one(record: dict[str, Any]) -> str:
    from potstill.report.page import shown

    lines = [f"id        {record['id']}", f"view      {record['view']}"]
    for name in ("split", "stage", "reason", "detail", "origin", "licence", "weight", "teacher_probs", "decision"):
        if record.get(name) not in (None, ""):
            lines.append(f"{name:<9} {shown(record[name], 300)}")
    lines += [f"input     {shown(record['input'], 4000)}", f"output    {shown(record['output'], 4000)}"]
    came = record["provenance"]
    if "requests" in came:
        for request in came["requests"]:
            lines.append(f"\nrequest {request['key'][:16]} to {request.get('teacher', '(not in the ledger)')}")
            for message in request.get("messages", []):
                if isinstance(message, dict):
                    message = [message.get("role", ""), message.get("content", "")]
                lines.append(f"  {message[0]}: {shown(message[1], 4000)}")
            if "reply" in request:
                lines.append(f"  reply ({request['finish']}): {shown(request['reply'], 4000)}")
        return "\n".join(lines)
    lines.append("from      " + ", ".join(f"{key} {value}" for key, value in came["place"].items()))
    if came.get("card"):
        lines.append(f"card      {shown(came['card'].get('title', ''), 200)}, licence {came['card'].get('licence')}")
    return "\n".join(lines)


@app.command(epilog="Example: potstill compare runs/support-tickets runs/support-longer")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders; the first is the base.")],
    as_json: Json = False,
) -> None:
    """Scores of runs side by side with their intervals, and the settings that differ."""
    from potstill.compare import compare_runs

    found = compare_runs(runs)
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from potstill.report.page import shown

    def table_of(*heads: str, title: str) -> Table:
        # Text, since a name in brackets would be read as a style, and vanish.
        columns = [Column(Text(shown(head, 200)), overflow="fold") for head in heads]
        return Table(*columns, title=title, title_justify="left")

    console = Console()
    table = table_of("system", "figure", *found.names, title="scores, with 95 % intervals")
    system = ""
    for name, figure, values in found.scores:
        table.add_row(Text(shown(name if name != system else "", 200)), figure, *(Text(value) for value in values))
        system = name
    for name, values in found.facts:
        if any(values):
            table.add_row(name, "", *(Text(value) for value in values))
    console.print(table)
    if found.settings:
        differ = table_of("differs", *found.names, title="settings")
        for name, values in found.settings:
            differ.add_row(
                Text(name), *(Text(shown(value if len(value) < 120 else value[:117] + "…")) for value in values)
            )
        console.print(differ)
    else:
        console.print("all settings are the same")
    for difference in found.differences:
        console.print(shown(difference), markup=False, highlight=False)
    for note in found.notes:
        console.print(shown(f"note: {note}", 2000), markup=False, highlight=False)


@app.command(epilog="Example: potstill evaluate runs/support-tickets --on my-tickets.jsonl")
def evaluate(
    run: _Run,
    on: Annotated[str, typer.Option("--on", help="JSON lines, CSV, Parquet, a folder, or a dataset of the Hub.")],
    inputs: Annotated[list[str] | None, typer.Option("--input", help="A column of the input; may be repeated.")] = None,
    output: Annotated[str | None, typer.Option("--output", help="The column of the answer.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of the folder or dataset to read.")] = None,
    rows: Annotated[int, typer.Option("-n", min=0, help="Use at most so many rows; 0 uses all.")] = 0,
    as_json: Json = False,
) -> None:
    """Measure the student on other labelled data, and say how much of it was in its training rows."""
    from potstill.cli.tables import print_scores
    from potstill.measure import evaluate_on
    from potstill.progress import listener_for
    from potstill.task import DataRef

    ref = DataRef(on, split=split, inputs=tuple(inputs or ()), output=output)
    with listener_for(as_json=as_json) as listener:
        found = evaluate_on(run, ref, rows=rows, listener=listener)
    if as_json:
        print(json.dumps({"kind": "measured", "path": str(found.path), "scores": found.scores}, ensure_ascii=False))
        return
    print_scores(found.scores)
    if found.known:
        metric = found.scores["metric"]
        rest = f"; without them {metric} is {found.without_known[metric]:.3f}" if found.without_known else ""
        typer.echo(f"note: the student was trained on {found.known} of these texts{rest}")
    typer.echo(f"kept in {found.path}")


@app.command(epilog="Example: potstill load me/support-tickets --out tickets")
def load(
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="Name on the Hub, as given to push.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write; NAME by default.", callback=at_home)
    ] = None,
    unit: Annotated[str | None, typer.Option("--unit", help="An earlier unit's id; the newest by default.")] = None,
    as_json: Json = False,
) -> None:
    """Fetch a published dataset and student, and check that they are whole and belong together."""
    from potstill.hub.load import load_unit

    found = load_unit(repo, out, unit=unit)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    typer.echo(f"unit {found.unit[:12]} of {repo} {'was here already' if found.kept else 'is at ' + str(found.path)}")
    typer.echo(f"dataset  datasets.load_dataset({str(found.dataset)!r})")
    typer.echo(f"student  potstill serve {found.model}")
