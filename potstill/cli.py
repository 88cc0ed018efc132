"""The command line: arguments become settings, nothing else happens here.

Exit codes are the error's (see `potstill.errors`): 0 done, 2 something to mend, 3 the teacher, 4 the run folder,
5 training, 6 the Hub, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from potstill.cli_batch import app as batch_app
from potstill.cli_catalogue import app as catalogue_app
from potstill.cli_settings import Json, Out, Rows, Seed, Set, SourcesOf, Student, Task, Teacher, merge_settings
from potstill.cli_verify import verify
from potstill.errors import PotstillError

app = typer.Typer(
    name="potstill",
    help="From a task prompt to a small distilled model.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(catalogue_app)
app.add_typer(batch_app)
app.command(epilog="Example: potstill verify runs/support-tickets")(verify)

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


@app.command(epilog='Example: potstill run "Classify support tickets as billing, bug or other." -n 300')
def run(
    task: Task,
    out: Out = None,
    teacher: Teacher = None,
    student: Student = None,
    n: Rows = None,
    seed: Seed = None,
    sources: SourcesOf = None,
    budget: Annotated[str | None, typer.Option(help="Stop cleanly at 2usd, 500k-tokens or 30min.")] = None,
    executor: Annotated[
        str | None, typer.Option(help="local, or ray: the teacher in workers of a Ray cluster.")
    ] = None,
    options: Set = None,
    as_json: Json = False,
) -> None:
    """Do the whole job: find data, generate the rest, distil, measure, report."""
    from potstill.pipeline import run as run_pipeline
    from potstill.progress import listener_for

    settings: dict[str, Any] = {
        "teacher": teacher, "student": student, "n": n, "seed": seed, "sources": sources, "budget": budget,
        "executor": executor,
    }  # fmt: skip
    with listener_for(as_json=as_json) as listener:
        result = run_pipeline(task, out=out, listener=listener, **merge_settings(settings, options or []))
    if as_json:
        print(json.dumps({"kind": "result", "path": str(result.path), "scores": result.scores}))
        return
    print_scores(result.scores)
    typer.echo(f"\nreport   {result.report}\nstudent  {result.path / 'train' / 'student'}")
    typer.echo(f"publish  potstill push {result.path} USER/NAME")


@app.command(epilog="Example: potstill plan examples/support/task.md -n 2000 --budget 2usd")
def plan(
    task: Task,
    out: Out = None,
    teacher: Teacher = None,
    student: Student = None,
    n: Rows = None,
    seed: Seed = None,
    sources: SourcesOf = None,
    budget: Annotated[str | None, typer.Option(help="Say whether 2usd, 500k-tokens or 30min suffice.")] = None,
    probe: Annotated[
        int | None, typer.Option(help="Requests to make now; 32 with a teacher of your own, else none.")
    ] = None,
    options: Set = None,
    as_json: Json = False,
) -> None:
    """Say what a run will take before it is paid for: datasets, requests, tokens, money, time."""
    from potstill.plan import plan_run
    from potstill.progress import listener_for

    settings: dict[str, Any] = {
        "teacher": teacher, "student": student, "n": n, "seed": seed, "sources": sources, "budget": budget,
    }  # fmt: skip
    with listener_for(as_json=as_json) as listener:
        found = plan_run(task, out=out, probe=probe, listener=listener, **merge_settings(settings, options or []))
    if as_json:
        print(json.dumps({"kind": "plan", **found.to_json()}))
        return
    print_plan(found)


@app.command(epilog="Example: potstill push runs/support-tickets me/support-tickets --dry-run")
def push(
    run: _Run,
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="Name on the Hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Make the repositories public (private by default).")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Send dataset, model, cards and report to the Hub. The token is read from HF_TOKEN."""
    from potstill.export import push as push_run

    result = push_run(run, repo, private=not public, dry_run=dry_run)
    typer.echo(json.dumps(result.to_json()) if as_json else str(result))


@app.command(epilog="Example: potstill report runs/support-tickets")
def report(run: _Run) -> None:
    """Write report.html and report.md again from a run folder."""
    from potstill.pipeline import load
    from potstill.report import write_report

    for path in write_report(load(run).path):
        typer.echo(str(path))


@app.command(epilog="Example: potstill status runs/support-tickets")
def status(run: _Run, as_json: Json = False) -> None:
    """Which stages are done, what they gave, what was asked of the teacher."""
    from potstill.ledger import Ledger
    from potstill.pipeline import load

    found = load(run)
    stages = {stage.name: {"seconds": stage.seconds, **stage.facts} for stage in found.stages}
    totals: dict[str, Any] = {}
    if (run / "ledger.sqlite").exists():
        with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
            totals = dict(vars(ledger.totals()))
    if as_json:
        typer.echo(json.dumps({"stages": stages, "ledger": totals}))
        return
    for name, facts in stages.items():
        typer.echo(f"{name:<10} {facts['seconds']:>8.1f} s  {facts.get('summary', '')}")
    typer.echo("ledger     " + ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in totals.items()))


@app.command(epilog='Example: potstill students "Classify support tickets as billing, bug or other." --student-mib 200')
def students(
    task: Task,
    models: Annotated[
        list[str] | None, typer.Option("--models", help="A catalogue of model cards (JSON lines); may be repeated.")
    ] = None,
    student_mib: Annotated[float | None, typer.Option(help="Largest student, in MiB of 32-bit weights.")] = None,
    options: Set = None,
    as_json: Json = False,
) -> None:
    """Which models could be the student, best first, and why others may not."""
    from potstill.pipeline import students as find

    settings = merge_settings({}, options or [])
    chosen = {"students": models, "student_mib": student_mib}
    settings.setdefault("retrieval", {}).update({key: value for key, value in chosen.items() if value is not None})
    found = find(task, **settings)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    for hit in found.hits:
        typer.echo(
            f"{hit.score:6.2f}  {hit.model.size_mib:8,.0f} MiB  {hit.model.card.licence:<14} {hit.model.card.id}"
        )
    for item in found.refused:
        typer.echo(f"   not  {item.id}: {item.reason}")


@app.command(epilog='Example: potstill predict runs/support-tickets "My parcel never came."')
def predict(
    run: _Run,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT…", help="Inputs; none reads lines from stdin.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask the student."""
    from potstill.pipeline import load

    inputs = texts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    for text, prediction in zip(inputs, load(run).student.predict(inputs), strict=True):
        if as_json:
            probs = None if prediction.probs is None else [round(float(p), 6) for p in prediction.probs]
            typer.echo(json.dumps({"input": text, "output": prediction.output, "probs": probs}, ensure_ascii=False))
        else:
            typer.echo(prediction.output)


def print_scores(scores: dict[str, Any]) -> None:
    """The score table of a run, for a terminal."""
    from rich.console import Console
    from rich.table import Table

    columns = [
        c for c in ("accuracy", "macro_f1", "ece", "exact_match", "rouge_l", "chrf") if c in scores["systems"][0]
    ]
    kind = scores["test_set"]["kind"]
    title = f"{scores['test_set']['rows']} {kind} test rows" + ("" if kind == "real" else " (no real test data)")
    table = Table("system", *columns, "MiB", "ms p50", title=title)
    for system in scores["systems"]:
        latency = (system.get("latency_ms") or {}).get("p50")
        cells = [f"{system[c]:.3f}" if system.get(c) is not None else "" for c in columns]
        size = system.get("size_mib")
        table.add_row(system["name"], *cells, f"{size:.0f}" if size else "", f"{latency:.1f}" if latency else "")
    Console().print(table)


def print_plan(plan: Any) -> None:
    """What a run will take, for a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "stage", "requests", "prompt tokens", "new tokens", "minutes", "known from", title=f"teacher {plan.teacher}"
    )
    for column in table.columns[1:5]:
        column.justify = "right"
    for step in plan.steps:
        minutes = "?" if step.seconds is None else f"{step.seconds / 60:.1f}"
        counts = [f"{value:,}" for value in (step.requests, step.prompt_tokens, step.completion_tokens)]
        table.add_row(step.stage, *counts, minutes, step.basis if step.basis != "none" else "")
    prompt, completion = plan.tokens
    minutes = "?" if plan.seconds is None else f"{plan.seconds / 60:.1f}"
    table.add_section()
    table.add_row("all", f"{plan.requests:,}", f"{prompt:,}", f"{completion:,}", minutes, "")
    console = Console()
    for name, rows in plan.datasets:
        console.print(f"dataset  {name}, {rows:,} rows", markup=False)
    console.print(table)
    console.print(f"rows     about {plan.rows:,} after the merge")
    console.print(f"cost     {'not known' if plan.usd is None else f'{plan.usd:.2f} USD'}")
    if plan.budget is not None:
        console.print(f"budget   {plan.budget[0]} {'suffices' if plan.budget[1] else 'does not suffice'}")
    for note in plan.notes:
        console.print(f"note     {note}", markup=False)


def main() -> None:
    """Entry point: errors meant for the user print their message alone; bugs print their traceback."""
    try:
        app()
    except PotstillError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as ended:
        if ended.code == 130:  # typer's code for Ctrl-C
            print("\nstopped; finished work is kept: the same command goes on from here", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
