"""The command `potstill verify RUN`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from potstill.cli.settings import Json, at_home


def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", callback=at_home)],
    as_json: Json = False,
) -> None:
    """Check every artefact of a run against its manifest, and the ledger; exit code 4 when something differs."""
    from potstill.errors import ManifestError
    from potstill.verify import verify_run

    found = verify_run(run)
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        for note in found.notes:
            typer.echo(f"note: {note}")
    if found.faults:
        lines = [f"  - {fault.what}\n    {fault.mend}" for fault in found.faults]
        count = f"{len(found.faults)} fault{'s' if len(found.faults) != 1 else ''}"
        raise ManifestError("\n".join([f"{run}: {count}", *lines]))
    if not as_json:
        typer.echo(
            f"{run}: {found.files} files of {found.stages} stages are as their manifests say, "
            f"{found.replies} replies in the ledger can be read"
        )
