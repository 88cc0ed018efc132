"""The user's own files, looked at before the first request: a wrong path is told now, not after a night of writing.

In: a task. Out: nothing, or every fault of its `labelled`, `test` and `unlabelled` data in one error; and a note on the
fields that the task leaves unsaid. The stages read the data anew, whole and with their notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.errors import DataError

if TYPE_CHECKING:
    from potstill.task import DataRef, TaskSpec

# Rows of a file that are looked at, spread over it: what is wrong with the rest is told by the stage that reads it.
_LOOKED_AT = 20_000
_FIELDS = ("labelled", "test", "unlabelled")
_FEW = 200  # rows that tell the columns


def check_data(spec: TaskSpec, *, hub: bool = True) -> None:
    """Read the user's data as the stages will.

    Args:
        spec: The task.
        hub: Whether datasets of the Hub are asked for too; not where the stages that read them are done.

    Raises:
        DataError: Every fault: data that is not there, has no known form or no such column, or labels that the task
            does not have.
    """
    from potstill.retrieval.load import read_data, read_texts

    faults = []
    for name in _FIELDS:
        ref = getattr(spec, name)
        if ref is None or (not hub and not Path(ref.path).expanduser().exists()):
            continue
        try:
            if name == "unlabelled" and spec.kind == "generation":
                read_inputs(ref, spec, _LOOKED_AT)
            elif name == "unlabelled":
                read_texts(ref, spec, _LOOKED_AT)
            else:
                read_data(ref, spec, limit=_LOOKED_AT)
        except DataError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise DataError("\n".join(faults))


def read_inputs(
    ref: DataRef, spec: TaskSpec, limit: int | None = None, *, commits: dict[str, str] | None = None
) -> list[str]:
    """Inputs without outputs, one for each row of a table or line of a text file; "" for a row without one.

    Args:
        ref: Where they are.
        spec: A task whose answer is a text.
        limit: At most so many.
        commits: Takes the commit that a dataset of the Hub was read at.

    Raises:
        DataError: The data cannot be read, or lacks the fields of the task's input.
    """
    from potstill.retrieval.load import read_texts
    from potstill.rows import split_fields

    texts = read_texts(ref, spec, limit, commits, blanks=True)
    fields = spec.inputs if spec.kind == "generation" else ()
    if texts and all(split_fields(text, fields) is None for text in texts):
        raise DataError(
            f"{ref.path}: the task's inputs have the fields {', '.join(fields)}, and these texts are one field each; "
            "give a table with a column for each field, and name them where they are called otherwise: "
            f"unlabelled: {{path: {ref.path}, inputs: [...]}}"
        )
    return texts


class UserRows:
    """What the user's own rows tell of a task whose words leave it unsaid (`potstill.task.given.OwnRows`)."""

    def labels(self, instruction: str, refs: Sequence[DataRef]) -> tuple[str, ...]:
        """The labels that rows bear; empty where they leave a doubt.

        Args:
            instruction: The task's words, whose nouns may be the name of a column.
            refs: The labelled data and the test rows.

        Raises:
            DataError: The data cannot be read.
        """
        from potstill.retrieval.shown_labels import shown_labels
        from potstill.task import TaskSpec
        from potstill.task.lists import MAX_LABELS

        return shown_labels(refs, TaskSpec("labels", instruction, "classification"), MAX_LABELS)

    def hold(self, fields: Sequence[str], refs: Sequence[DataRef]) -> bool:
        """Whether each of the tables has a column for each field; not where one cannot be read, or is no table."""
        from potstill.retrieval.columns import field_columns
        from potstill.retrieval.load import read_sample

        try:
            tables = [
                read_sample(ref.path, split=ref.split, config=ref.config, limit=_FEW, training=ref.training).table
                for ref in refs
            ]
        except DataError:
            return False
        return all(len(ref.inputs) != 1 for ref in refs) and all(
            field_columns(fields, table.column_names) for table in tables
        )


OWN_ROWS = UserRows()


def unsaid_fields(spec: TaskSpec) -> str:
    """Which fields the user's own rows have where the task names none, with the mend; "" where nothing is unsaid.

    Rows would be written as one text, and measured on inputs of several fields. Only files are looked at, and none that
    cannot be read: `check_data` tells of those.
    """
    from potstill.retrieval.load import input_columns

    if spec.inputs or spec.kind == "instructions":
        return ""
    for name in ("test", "labelled"):
        ref = getattr(spec, name)
        if ref is None or not Path(ref.path).expanduser().exists():
            continue
        try:
            columns = input_columns(ref, spec, _FEW)
        except DataError:
            continue
        if len(columns) > 1:
            fields = ", ".join(columns)
            return (
                f"inputs in {ref.path} have the fields {fields}, and the task names none, so that rows are written as "
                f"one text; name them in the task file: inputs: [{fields}]"
            )
    return ""
