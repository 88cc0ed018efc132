"""The commands before a run: `potstill init`, `doctor` and `preview`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from potstill.cli.settings import Json, Out, Seed, Set, SourcesOf, Task, Teacher, at_home, merge_settings, run_command
from potstill.errors import UserError

if TYPE_CHECKING:
    from potstill.preview import Preview
    from potstill.task import TaskSpec
    from potstill.task.draft import Answers

app = typer.Typer()


@app.command(epilog='Example: potstill init "Classify support tickets as billing, bug or other." -o tickets.md --yes')
def init(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the model should do, in a sentence.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The task file to write.", callback=at_home)] = Path(
        "task.md"
    ),
    teacher: Annotated[
        str | None, typer.Option(help="A teacher that reads the prompt where its words leave something open.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented task file from a prompt, asking what the prompt does not tell."""
    from potstill.task.draft import Answers, draft_task
    from potstill.task.file import read_task_file

    if out.is_dir():
        raise UserError(f"{out} is a folder; name a file in it with -o")
    if out.exists() and not force:
        raise UserError(f"{out} is there already; choose another file with -o, or add --force to replace it")
    spec = _named_after(out, _read(prompt, teacher))
    answers = Answers(teacher=teacher or "") if yes else _ask(spec, teacher or "")
    if spec.kind == "classification" and not spec.labels and not answers.labels and yes:
        read_task_file(prompt)  # raises, and says how to name the labels
    text = draft_task(prompt, spec, answers)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    read_task_file(out)
    for found in spec.inferred:
        if answers.labels and found.field in ("kind", "metric"):
            continue  # what was answered, not inferred
        typer.echo(f"{found.field:<10} {found.value}  (by {found.how})")
    typer.echo(
        f"\nwrote {out}; look it over, then:\n  potstill doctor {out}\n  potstill plan {out}\n  potstill run {out}"
    )


def _named_after(out: Path, spec: TaskSpec) -> TaskSpec:
    """The task under its file's name, as a file without a `name` would have it: `tickets.md` runs in `runs/tickets`."""
    from potstill.task.file import GENERIC_STEMS
    from potstill.task.inference import slug

    if out.stem.lower() in GENERIC_STEMS:
        return spec
    name = slug(out.stem)
    inferred = tuple(replace(item, value=name) if item.field == "name" else item for item in spec.inferred)
    return replace(spec, name=name, inferred=inferred)


def _read(prompt: str, teacher: str | None) -> TaskSpec:
    from potstill.task.draft import read_prompt

    if teacher is None:
        return read_prompt(prompt)
    import tempfile

    from potstill.asking.ledger import Ledger
    from potstill.events import silent
    from potstill.pipeline import open_asker
    from potstill.settings import Settings

    with tempfile.TemporaryDirectory(prefix="potstill-init-") as folder:
        with Ledger(Path(folder) / "ledger.sqlite") as ledger:
            with open_asker(replace(Settings(), teacher=teacher), ledger, silent) as asker:
                return read_prompt(prompt, asker=asker)


def _ask(spec: TaskSpec, teacher: str) -> Answers:
    """Ask on the terminal; an empty answer, or the end of the input, leaves a thing as it is."""
    from potstill.task.draft import Answers

    names: tuple[str, ...] = ()
    assumed = any(item.field == "kind" and item.how == "assumption" for item in spec.inferred)
    if assumed or (spec.kind == "classification" and not spec.labels):
        told = _answer("Which labels, separated by commas? (Enter: the answer is free text)")
        names = tuple(dict.fromkeys(name.strip() for name in told.split(",") if name.strip()))
    descriptions = {}
    for label in spec.labels:
        if not label.description and (told := _answer(f"What belongs to {label.name!r}, in a sentence? (Enter: skip)")):
            descriptions[label.name] = told
    for name in names:
        if told := _answer(f"What belongs to {name!r}, in a sentence? (Enter: skip)"):
            descriptions[name] = told
    test = ""
    while not test and (told := _answer("A file of real labelled rows to measure on? (Enter: none)")):
        if Path(told).expanduser().exists() or ("/" in told and not told.startswith((".", "/", "~"))):
            test = told
        else:
            typer.echo(f"there is no {told}", err=True)
    teacher = teacher or _answer("Which teacher writes the rows? (Enter: the small one that is built in)")
    return Answers(labels=names, descriptions=descriptions, test=test, teacher=teacher)


def _answer(question: str) -> str:
    typer.echo(f"{question} ", err=True, nl=False)
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        typer.echo("", err=True)
    return line.strip()


@app.command(epilog="Example: potstill doctor examples/support/task.md --teacher fake")
def doctor(
    task: Annotated[
        str | None, typer.Argument(metavar="TASK", help="A task file or prompt; none: the machine.")
    ] = None,
    out: Out = None,
    teacher: Teacher = None,
    options: Set = None,
    as_json: Json = False,
) -> None:
    """Check whether a run would work here: task, disk, memory, GPU, Hub token, teacher; say what to fix."""
    from potstill.doctor import examine

    marks = {"ok": "✓", "warn": "!", "fail": "✗"}
    colours = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}
    failed = 0
    for check in examine(task, out=out, **merge_settings({"teacher": teacher}, options or [])):
        failed += check.status == "fail"
        if as_json:
            print(json.dumps({"kind": "check", **vars(check)}, ensure_ascii=False), flush=True)
            continue
        mark = typer.style(marks[check.status], fg=colours[check.status])
        typer.echo(f"{mark} {check.name:<10} {check.found}")
        if check.mend:
            typer.echo(f"  {'':<10} → {check.mend}")
    if failed:
        raise typer.Exit(2)


@app.command(epilog='Example: potstill preview "Classify support tickets as billing, bug or other." -n 10')
def preview(
    task: Task,
    rows: Annotated[int, typer.Option("-n", min=1, max=200, help="Rows to show.")] = 10,
    out: Out = None,
    teacher: Teacher = None,
    seed: Seed = None,
    sources: SourcesOf = None,
    options: Set = None,
    as_json: Json = False,
) -> None:
    """Make the first rows now and show them; `potstill run` with the same settings continues from them."""
    from potstill.preview import preview_rows
    from potstill.progress import listener_for

    settings: dict[str, Any] = {"teacher": teacher, "seed": seed, "sources": sources}
    with listener_for(as_json=as_json) as listener:
        found = preview_rows(task, rows=rows, out=out, listener=listener, **merge_settings(settings, options or []))
    if as_json:
        print(json.dumps({"kind": "preview", **found.to_json()}, ensure_ascii=False))
    else:
        _print_preview(found, run_command(task, found.path, settings, options))
    if not (found.rows or found.retrieved or found.labelled):
        raise typer.Exit(1)


def _print_preview(found: Preview, line: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table("#", "input", "output", "from", show_lines=True)
    for i, row in enumerate(found.rows, 1):
        table.add_row(str(i), Text(_short(row.input, 400)), Text(_short(row.output, 200)), "written")
    for row in found.retrieved:
        place = row.source.dataset or ""
        table.add_row("", Text(_short(row.input, 400)), Text(_short(row.output, 200)), Text(f"found: {place}"))
    for row in found.labelled:
        table.add_row("", Text(_short(row.input, 400)), Text(_short(row.output, 200)), "yours")
    console.print(table)
    if found.requests:
        lost = ", ".join(f"{count} {reason}" for reason, count in list(found.reasons.items())[:6])
        console.print(
            f"{len(found.rows)} rows from {found.requests} requests; dropped on the way: {lost or 'none'}", markup=False
        )
    if found.dropped and not found.rows:
        console.print("what was refused first, as the teacher wrote it:", markup=False)
        for item in found.dropped[:3]:
            console.print(f"  {item.reason}: {_short(item.input or item.output, 300)}", markup=False)
    if found.found:
        console.print(f"retrieval found {found.found:,} rows; {len(found.retrieved)} of them are shown")
    if found.own:
        console.print(f"{found.own:,} labelled rows are yours; {len(found.labelled)} of them are shown")
    console.print(f"go on with the same settings: {line}", markup=False, soft_wrap=True)


def _short(text: str, most: int) -> str:
    from potstill.report.page import shown

    return shown(text, most)
