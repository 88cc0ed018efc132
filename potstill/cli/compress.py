"""The command `potstill compress`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from potstill.cli.settings import Json, at_home, merge_settings


def compress(
    student: Annotated[
        str | None, typer.Argument(metavar="STUDENT|RUN", help="A run folder, a student's folder, or a decoder.")
    ] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="Steps joined by ->, or `all` for every recipe of the zoo.")
    ] = "int8:channel",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the compressed student.", callback=at_home)
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", "-f", help="auto, packed, plain, onnx, vllm, gguf-q8_0, gguf-q4_0, bitsandbytes, torchao."
        ),
    ] = None,
    texts: Annotated[str | None, typer.Option(help="Texts or rows that some methods need (a run has its own).")] = None,
    test: Annotated[str | None, typer.Option(help="Rows with gold answers (a run has its own).")] = None,
    held_out: Annotated[str | None, typer.Option(help="Text that a decoder's perplexity is measured on.")] = None,
    max_mib: Annotated[float | None, typer.Option(help="With `all`: the largest student to recommend.")] = None,
    max_ms: Annotated[float | None, typer.Option(help="With `all`: the slowest student to recommend.")] = None,
    methods: Annotated[bool, typer.Option("--methods", help="List every method with its options, and end.")] = False,
    options: Annotated[
        list[str] | None, typer.Option("--set", help="One option, as name=value, such as rows=500.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a student smaller: prune, round, heal; measured at every step."""
    if methods:
        print_methods()
        return
    if student is None:
        raise typer.BadParameter("give a run folder, a student's folder or a decoder; --methods lists the methods")
    from potstill.compression import compress as compress_one
    from potstill.progress import listener_for

    pairs = [f"compress.{pair}" for pair in options or []]
    given: dict[str, Any] = {"max_mib": max_mib, "max_ms": max_ms, **merge_settings({}, pairs).get("compress", {})}
    if formats:
        given["formats"] = tuple(formats)
    given = {name: value for name, value in given.items() if value is not None}
    with listener_for(as_json=as_json) as listener:
        result = compress_one(
            student, recipe, out=out, texts=texts, test=test, held_out=held_out, listener=listener, **given
        )
    if as_json:
        print(json.dumps({"kind": "result", "path": str(result.path), "report": result.report}))
        return
    print_report(result.report)
    typer.echo(f"\n{'students' if result.report.get('why_none') else 'student '} {result.path}")
    for name, place in result.more.items():
        typer.echo(f"{name:<8} {place}")


def print_report(report: dict[str, Any]) -> None:
    """The table of steps, for a terminal."""
    from rich.console import Console
    from rich.table import Table

    from potstill.report.compression_page import step_rows

    console = Console()
    columns, rows = step_rows(report, narrow=console.width < 120)
    table = Table(*columns, title=f"{report['recipe']} on {report['source']}")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for item in report.get("failed", ()):
        console.print(f"failed   {item['step']}: {item['why']}", markup=False)
    if chosen := report.get("recommended"):
        console.print(f"take     {chosen['step']}: {chosen['why']}", markup=False)
    elif report.get("why_none"):
        console.print(f"take     none: {report['why_none']}", markup=False)
    for note in report.get("notes", ()):
        console.print(f"note     {note}", markup=False)


def print_methods() -> None:
    """Every method with an example and its options."""
    from potstill.train.compress.methods import METHODS

    for kind in ("structure", "sparsity", "quantize", "heal"):
        typer.echo(f"{kind}")
        for method in METHODS.values():
            if method.kind == kind:
                typer.echo(f"  {method.name:<10} {method.about}; for example {method.example}")
                shown = ", ".join(
                    name + (f" ({'|'.join(option.choices)})" if option.choices else "")
                    for name, option in method.options.items()
                )
                if shown:
                    typer.echo(f"  {'':<10} {shown}")
