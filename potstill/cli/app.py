"""The command line: arguments become settings, nothing else happens here.

Exit codes are the error's (see `potstill.errors`): 0 done, 2 something to mend, 3 the teacher, 4 the run folder,
5 training, 6 the Hub, 130 interrupted, 143 ended by SIGTERM.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from potstill.cli.batch import app as batch_app
from potstill.cli.catalogue import app as catalogue_app
from potstill.cli.compress import compress
from potstill.cli.label import label
from potstill.cli.look import app as look_app
from potstill.cli.predict import predict
from potstill.cli.settings import (
    Group,
    Json,
    Out,
    Rows,
    Seed,
    Set,
    SourcesOf,
    Student,
    Task,
    Teacher,
    at_home,
    merge_settings,
)
from potstill.cli.start import app as start_app
from potstill.cli.status import status
from potstill.cli.verify import verify
from potstill.cli.web import app as web_app
from potstill.cli.work import work
from potstill.errors import BudgetReached, OptionError, PotstillError
from potstill.flag_variables import name_variables, variables_read
from potstill.progress import switch_library_bars_off

if TYPE_CHECKING:
    from typer._click.core import Command, Context

# In the order of a first time, with a line for each that fits a terminal of 80 columns.
_COMMANDS = {
    "init": "Write a commented task file from a prompt.",
    "doctor": "Check whether a run would work here, and what to fix.",
    "plan": "Say what a run will take before it is paid for.",
    "preview": "Make the first rows now and show them.",
    "run": "Do the whole job: find data, write the rest, distil, measure.",
    "work": "Answer the requests of a run that uses workers.",
    "label": "Choose the texts that help a student most, and label them.",
    "status": "How far a run has come.",
    "report": "Write report.html and report.md again from a run folder.",
    "inspect": "Browse a run's rows, kept or refused.",
    "view": "Browse, judge and correct a run's rows on a local page.",
    "compare": "Scores of runs side by side, and the settings that differ.",
    "evaluate": "Measure the student on other labelled data.",
    "predict": "Ask the student.",
    "compress": "Make a student smaller: prune, round, heal; measured.",
    "serve": "Serve the student: POST /predict, and a page to try it.",
    "push": "Send dataset, model, cards and report to the Hub.",
    "load": "Fetch a published dataset and student, and check them.",
    "verify": "Check every artefact of a run against its manifest.",
    "students": "Which models could be the student, best first.",
    "catalogue": "Catalogues of datasets: build, look into, search.",
    "batch": "Requests as files of OpenAI's Batch API, and their results.",
}


class _Root(Group):
    """All commands, listed as a newcomer meets them; each flag has its environment variable."""

    def __init__(self, **attributes: Any):
        super().__init__(**attributes)
        name_variables(self)

    def list_commands(self, ctx: Context) -> list[str]:
        return sorted(super().list_commands(ctx), key=list(_COMMANDS).index)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        command: Command | None = super().get_command(ctx, cmd_name)
        if command is not None:
            command.short_help = _COMMANDS[cmd_name]
        return command


app = typer.Typer(
    name="potstill",
    cls=_Root,
    help="From a task prompt to a small distilled model.",
    epilog='Example: potstill run "Classify support tickets as billing, bug or other." -n 300',
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.add_typer(start_app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from potstill import __version__

        typer.echo(f"potstill {__version__}, Python {sys.version.split()[0]}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version, and end.")
    ] = False,
) -> None:
    """From a task prompt to a small distilled model."""


_Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", callback=at_home)]


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
    at_budget: Annotated[
        str | None, typer.Option(help="When the budget is met: stop, the default, or train on what is paid for.")
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            help="Where the teacher runs: local (default), workers (`potstill work` on any machine) or ray (a cluster)."
        ),
    ] = None,
    options: Set = None,
    as_json: Json = False,
) -> None:
    """Do the whole job: find data, generate the rest, distil, measure, report."""
    from potstill.pipeline import run as run_pipeline
    from potstill.progress import listener_for

    settings: dict[str, Any] = {
        "teacher": teacher, "student": student, "n": n, "seed": seed, "sources": sources, "budget": budget,
        "at_budget": at_budget, "executor": executor,
    }  # fmt: skip
    with listener_for(as_json=as_json) as listener:
        result = run_pipeline(task, out=out, listener=listener, **merge_settings(settings, options or []))
    if as_json:
        print(json.dumps({"kind": "result", "path": str(result.path), "scores": result.scores}))
        return
    from potstill.cli.tables import print_scores

    print_scores(result.scores)
    typer.echo(f"\nreport   {result.report}\nstudent  {result.path / 'train' / 'student'}")
    spec = result.spec
    if spec.kind == "classification" and spec.unlabelled is not None and spec.labelled is None:
        more = shlex.join(["potstill", "label", task])
        typer.echo(f"better   {more}: answers to a hundred of your texts, well chosen")
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
        int | None,
        typer.Option(
            min=0,
            help="Requests to send now (by default 32; none to an API or after a run); 0 also times no training step.",
        ),
    ] = None,
    options: Set = None,
    as_json: Json = False,
) -> None:
    """Say what a run will take before it is paid for: datasets, requests, tokens, money, time."""
    from potstill.plan.estimate import plan_run
    from potstill.progress import listener_for
    from potstill.run_left import keep_plan_of

    settings: dict[str, Any] = {
        "teacher": teacher, "student": student, "n": n, "seed": seed, "sources": sources, "budget": budget,
    }  # fmt: skip
    with listener_for(as_json=as_json) as listener:
        wanted = merge_settings(settings, options or [])
        found = plan_run(task, out=out, probe=probe, listener=listener, **wanted)
    keep_plan_of(task, out, wanted, found)
    if as_json:
        print(json.dumps({"kind": "plan", **found.to_json()}))
        return
    from potstill.cli.tables import print_plan

    print_plan(found)


@app.command(epilog="Example: potstill push runs/support-tickets me/support-tickets --dry-run")
def push(
    run: _Run,
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="Name on the Hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Make the repositories public (private by default).")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go.")] = False,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Propose it by pull requests, where you may not write.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send dataset, model, cards and report to the Hub. The token is read from HF_TOKEN."""
    from potstill.hub.export import push as push_run

    result = push_run(run, repo, private=not public, dry_run=dry_run, create_pr=create_pr)
    typer.echo(json.dumps(result.to_json()) if as_json else str(result))


@app.command(epilog="Example: potstill report runs/support-tickets")
def report(run: _Run) -> None:
    """Write report.html and report.md again from a run folder."""
    from potstill.pipeline import load
    from potstill.report.page import write_report

    for path in write_report(load(run).path):
        typer.echo(str(path))


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


app.command(epilog='Example: potstill predict runs/support-tickets "My parcel never came."')(predict)
app.command(epilog="Example: potstill label task.md messages.txt -n 100")(label)
app.command(epilog="Example: potstill work runs/support-tickets --patience 5")(work)
app.command(epilog="Example: potstill status runs/support-tickets")(status)
app.command(epilog="Example: potstill compress runs/support-tickets --recipe int8:channel --out small")(compress)
app.command(epilog="Example: potstill verify runs/support-tickets")(verify)
app.add_typer(look_app)
app.add_typer(web_app)
app.add_typer(catalogue_app)
app.add_typer(batch_app)


def main() -> None:
    """Entry point: errors meant for the user print their message alone; bugs print their traceback."""
    switch_library_bars_off()
    ended_by_signal: list[int] = []
    owner = os.getpid()

    def end(number: int, _: object) -> None:
        """What schedulers and containers send ends a run as Ctrl-C does; a forked worker simply ends."""
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        ended_by_signal.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        app()
    except PotstillError as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, BudgetReached) and error.or_train:
            from potstill.run_state import and_train

            again = " ".join([*variables_read(sys.argv[1:]), shlex.join(["potstill", *sys.argv[1:]])])
            print(f"to train on what is paid for: {and_train(again)}", file=sys.stderr)
        if isinstance(error, OptionError) and (read := variables_read(sys.argv[1:])):
            print(f"  from the environment: {' '.join(read)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        library = str(error.name).split(".")[0]
        if library == "potstill":
            raise
        print(f"error: the library {library} is not installed here; run: pip install potstill", file=sys.stderr)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == 130:  # typer's code for Ctrl-C
            again = " ".join([*variables_read(sys.argv[1:]), shlex.join(["potstill", *sys.argv[1:]])])
            print(f"\nstopped; finished work is kept. To go on from here: {again}", file=sys.stderr)
            if ended_by_signal:
                sys.exit(128 + signal.SIGTERM)
        raise


if __name__ == "__main__":
    main()
