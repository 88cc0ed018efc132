"""The command `potstill work RUN`."""

from __future__ import annotations

from typing import Annotated

import typer

from potstill.cli.settings import Set, merge_settings


def work(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its address such as http://node0:8470.")],
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a run that has not begun, or is away for a while.")
    ] = 300.0,
    idle: Annotated[
        float, typer.Option(min=0, help="End after so many seconds without a request; 0 stays until the run ends.")
    ] = 0.0,
    options: Set = None,
) -> None:
    """Answer the requests of a run that was started with --executor workers, until it needs no more."""
    from potstill.datagen.teachers.labour import work_for
    from potstill.errors import OptionError

    given = merge_settings({}, options or [])
    own = given.pop("teacher_options", {})
    if given:
        faults = [f"--set {name}: the run has decided it; a worker may set teacher_options.OPTION" for name in given]
        raise OptionError("command line", faults)
    answered = work_for(
        run, patience_s=patience, idle_s=idle, tell=lambda text: typer.echo(text, err=True), teacher_options=own
    )
    typer.echo(f"answered {answered:,} request{'' if answered == 1 else 's'}; the run needs no more here")
