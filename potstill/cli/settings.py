"""What several commands take: their arguments, and the options as the mapping that `settings.resolve` takes."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from potstill.errors import OptionError
from potstill.task.option_places import place_of

if TYPE_CHECKING:
    from typer._click.core import Context, Parameter


def at_home(path: Path | None) -> Path | None:
    """A path whose `~` no shell has replaced (`--out=~/run`, a variable's), with the home folder in its place."""
    with contextlib.suppress(RuntimeError):  # of no user of that name
        return path and path.expanduser()
    return path


Task = Annotated[str, typer.Argument(metavar="TASK", help="A task file, or a quoted prompt.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", help="Run folder, by default runs/NAME-OF-THE-TASK; the same folder continues.", callback=at_home
    ),
]
Teacher = Annotated[
    str | None, typer.Option(help="transformers[:MODEL], the default; vllm:MODEL, openai:URL#MODEL, fake.")
]
Student = Annotated[str | None, typer.Option(help="Base model of the student.")]
Rows = Annotated[int | None, typer.Option("-n", help="Rows to generate; 800 by default.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random; 0 by default.")]
SourcesOf = Annotated[
    str | None,
    typer.Option("--sources", help="both, the default; retrieved, generated, or labelled (your own rows alone)."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="STAGE.OPTION=VALUE", help="One option of a stage, such as distil.epochs=3; may be repeated."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable lines.")]


class Group(TyperGroup):
    """A group of commands whose help loads little: to read a flag without a default, typer loads pydantic.

    What is no option of a command and is one of a stage, or `-n` by another name, is told as it is written here.
    """

    def invoke(self, ctx: Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if type(error).__name__ == "NoSuchOption":  # of click, which newer releases of typer bring themselves
                _tell_option_meant(error)
            raise

    def get_params(self, ctx: Context) -> list[Parameter]:
        params: list[Parameter] = super().get_params(ctx)
        for parameter in params:
            if parameter.default is None and getattr(parameter, "is_bool_flag", False):
                parameter.default = False
        return params


def _tell_option_meant(error: Any) -> None:
    """Put into an error of an unknown option what it is called here, where that is known."""
    own = {name for parameter in error.ctx.command.params for name in parameter.opts} if error.ctx else set()
    place = place_of(error.option_name.lstrip("-"))
    if error.option_name in ("--n", "--rows") and "-n" in own:
        error.possibilities = ["-n"]
    elif place is not None and "--set" in own:
        error.possibilities = [f"--set {'.'.join(place)}=VALUE"]


def merge_settings(settings: dict[str, Any], pairs: list[str]) -> dict[str, Any]:
    """Add `stage.option=value` pairs; values are read as JSON where they parse, else as text."""
    merged = {key: value for key, value in settings.items() if value is not None}
    faults = []
    for pair in pairs:
        name, equals, text = pair.partition("=")
        stage, dot, option = name.strip().partition(".")
        if not equals or not dot or not stage or not option:
            faults.append(f"--set {pair!r}: write stage.option=value, such as distil.epochs=3")
            continue
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        *groups, option = option.split(".")
        place = merged
        for group in (stage, *groups):
            place = place.setdefault(group, {}) if isinstance(place, dict) else place
        if not isinstance(place, dict):
            faults.append(f"--set {pair!r}: {name.strip().rpartition('.')[0]} is {place!r} and has no options")
            continue
        place[option] = value
    if faults:
        raise OptionError("command line", faults)
    return merged


def run_command(task: str, out: Path, settings: dict[str, Any], pairs: list[str] | None) -> str:
    """The `potstill run` with the settings that another command was given, as a line for a shell."""
    words = ["potstill", "run", task, "--out", str(out)]
    for name, value in settings.items():
        if value is not None:
            words += ["-n" if name == "n" else f"--{name}", str(value)]
    for pair in pairs or []:
        words += ["--set", pair]
    return shlex.join(words)
