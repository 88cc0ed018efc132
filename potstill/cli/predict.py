"""The command `potstill predict STUDENT [TEXT…]`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from potstill.cli.settings import Json, at_home
from potstill.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from potstill.train.card import StudentCard


def predict(
    student: Annotated[
        Path, typer.Argument(metavar="STUDENT", help="A run, a loaded unit, or a model's folder.", callback=at_home)
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT", help='Inputs; none reads lines from stdin. Of several fields: \'{"premise": "…", …}\'.'
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="Ask for each line of a .txt, or each row of JSON lines, CSV, Parquet.", callback=at_home
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask the student: that of a run, or one in a folder of its own, such as a compressed one."""
    from potstill.pages.serving import file_inputs, student_folder, told_answer
    from potstill.train.student import load_student

    place = student_folder(student)
    if file is not None and texts:
        raise OptionError("predict", [f"give texts or --file {file}, not both"])
    for given in texts or ():
        _refuse_file_name(given, student)
    asked = load_student(place)
    if file is not None:
        inputs = file_inputs(file, asked.card)
        read: list[str | None] = [text if text.strip() else None for text in inputs]
    else:
        inputs = texts or [line.rstrip("\r\n") for line in sys.stdin]
        read = _read(inputs, asked.card, lines=not texts)
    answers = iter(asked.predict([text for text in read if text is not None]))
    broken = 0
    for given, text in zip(inputs, read, strict=True):
        prediction = None if text is None else next(answers)
        broken += prediction is not None and "\n" in prediction.output
        if as_json:
            told = {} if prediction is None else told_answer(prediction, asked.card.labels)
            typer.echo(json.dumps({"input": given, "output": None, "probs": None, **told}, ensure_ascii=False))
        else:
            typer.echo("" if prediction is None else prediction.output)
    if broken and not texts and not as_json:
        told_of = (
            f"{broken} of {len(inputs)} answers have several lines, so lines and inputs do not pair up; use --json"
        )
        typer.echo(told_of, err=True)


def _read(inputs: Sequence[str], card: StudentCard, *, lines: bool) -> list[str | None]:
    """What the student reads of arguments or of lines; None for a blank line, so that line N is answered by line N."""
    from potstill.pages.serving import line_input

    found: list[str | None] = []
    unread: dict[str, None] = {}
    for number, given in enumerate(inputs, 1):
        if lines and not given.strip():
            found.append(None)
            continue
        try:
            text, left = line_input(given, card)
        except OptionError as error:
            raise OptionError("predict", [f"{'line' if lines else 'text'} {number}: {error.faults[0]}"]) from None
        found.append(text)
        unread.update(dict.fromkeys(left))
    if unread:
        typer.echo(f"note: of JSON lines the text is read, and not: {', '.join(unread)}", err=True)
    return found


def _refuse_file_name(text: str, student: Path) -> None:
    """Refuse an argument that is a file's name: nobody asks for the label of a name.

    Raises:
        OptionError: It names a file that is there.
    """
    try:
        named = ("." in text or "/" in text) and len(text) < 1000 and Path(text).is_file()
    except (OSError, ValueError):
        return
    if named:
        mend = shlex.join(["potstill", "predict", str(student), "--file", text])
        raise OptionError("predict", [f"{text} is a file; to ask for its lines or rows: {mend}"])
