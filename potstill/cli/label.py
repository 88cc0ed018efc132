"""The command `potstill label TASK [TEXTS]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from potstill.cli.settings import Json, Seed, Task, at_home

if TYPE_CHECKING:
    from potstill.labelling import Labelling

# With more labels than this the likeliest are shown; the others are given by name.
_SHOWN_LABELS = 12


def label(
    task: Task,
    texts: Annotated[
        str | None,
        typer.Argument(metavar="[TEXTS]", help="A file, folder or Hub id; by default the task's unlabelled."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="File for the answers (.jsonl); an existing one is continued.", callback=at_home
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Labelled texts to reach in all.")] = 100,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Texts chosen at a time; by default 25, or one for each label.")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Take the answers of this CSV file, and write the next batch into it.", callback=at_home),
    ] = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Label the texts that a student learns most from: here, in a sheet, or with a tool of your own (--json)."""
    from potstill.labelling import Labelling

    work = Labelling(task, texts, out=out, batch=batch, seed=seed or 0)
    if sheet is not None:
        found = work.exchange(sheet, n)
        typer.echo(f"took {found.taken} from {sheet}; {work.told()} in {work.out}")
        if found.written:
            typer.echo(f"the next {found.written} stand in {sheet}: fill in its column label, then run this again")
    elif as_json:
        for text in work.next_batch(min(work.batch, max(n - len(work.answers), 0))):
            guesses = {name: round(prob, 4) for name, prob in work.guesses(text)}
            print(json.dumps({"kind": "text", "text": text, "guesses": guesses}, ensure_ascii=False), flush=True)
        return
    else:
        _ask(work, n)
        typer.echo(f"{work.told()} in {work.out}")
    if work.answers:
        typer.echo(f"in the task file: labelled: {work.out}")


def _ask(work: Labelling, most: int) -> None:
    """Show one text after another until enough have a label, the input ends, or the person does."""
    typer.echo(
        "a number, a name or its beginning; Enter passes over; :u takes the last back, :l lists, :q ends", err=True
    )
    waiting: list[str] = []
    in_batch = 0
    while len(work.answers) < most:
        if not waiting or in_batch >= work.batch:
            waiting, in_batch = work.next_batch(), 0
        if not waiting:
            typer.echo("every text has a label or was passed over", err=True)
            return
        text = waiting.pop(0)
        word = _answer(work, text, most)
        if word is None:
            return
        if word == ":u":
            waiting.insert(0, text)
            if (before := work.undo()) is not None:
                waiting.insert(0, before)
        elif not word:
            work.pass_over(text)
        else:
            work.answer(text, word)
            in_batch += 1


def _answer(work: Labelling, text: str, most: int) -> str | None:
    """A label, `:u`, nothing to pass over, or None to end."""
    typer.echo(f"\n{len(work.answers) + 1}/{most}  {_printable(text)}\n  {_choices(work, text)}", err=True)
    while True:
        typer.echo("> ", err=True, nl=False)
        line = sys.stdin.readline()
        word = line.strip()
        if not line.endswith("\n") and not word:
            typer.echo("", err=True)
            return None
        if word == ":q":
            return None
        if word == ":l":
            names = work.spec.label_names
            typer.echo("  " + "  ".join(f"{i} {name}" for i, name in enumerate(names, 1)), err=True)
            continue
        if word in ("", ":u"):
            return word
        found = work.match(word)
        if len(found) == 1:
            return found[0]
        told = f"{word!r} may be {', '.join(found[:8])}" if found else f"{word!r} is no label"
        typer.echo(f"  {told}; :l lists all", err=True)


def _choices(work: Labelling, text: str) -> str:
    """The labels with their numbers; of many the likeliest, in the order of the task, so that none is suggested."""
    names = work.spec.label_names
    shown = list(names)
    if len(names) > _SHOWN_LABELS:
        likely = {name for name, _ in work.guesses(text)[:_SHOWN_LABELS]}
        shown = [name for name in names if name in likely]
    line = "  ".join(f"{names.index(name) + 1} {name}" for name in shown)
    return line + (f"  … {len(names) - len(shown)} more (:l)" if len(shown) < len(names) else "")


def _printable(text: str) -> str:
    """Without control signs, which could change the terminal; line ends stay."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)
