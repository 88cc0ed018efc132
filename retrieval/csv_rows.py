"""The text of a CSV file → its rows, or what is wrong with it.

Spreadsheets of some countries write semicolons, others tabs, and some say which in a first line `sep=;`. What would
give other texts than those that were meant is refused, with the line: a text with a bare comma, of which the rest would
be lost, and a double quote that is never closed, behind which all rows would be one.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from potstill.errors import DataError

_FIELD_LIMIT = 16 << 20
_MOST_LABELS = 200
_LOOKED_AT = 20_000
_SEPARATORS = ",;\t|"


def csv_records(
    text: str, name: str, separator: str | None = None, tell: Callable[[str], object] | None = None
) -> list[dict[str, Any]]:
    """Rows of a CSV by the names in its first line; a cell that a row lacks is None.

    Where the first line gives itself away as a row (`_is_row`) it is read as one.

    Args:
        text: What the file holds.
        name: The file, for messages.
        separator: What stands between cells; None takes what stands most often in the first line.
        tell: Is told where the first line is read as a row.

    Returns:
        One mapping a row. Where several columns have one name they are told apart as `name (1)`, `name (2)`.

    Raises:
        DataError: A row has more cells than the first line, or a double quote is not closed.
        csv.Error: A cell is longer than the limit.
    """
    skipped = 0
    if hint := re.match(r'"?sep=([^\r\n])"?\r?\n', text, re.IGNORECASE):
        text, skipped, separator = text[hint.end() :], 1, separator or hint[1]
    if "\n" not in text:
        text = text.replace("\r", "\n")  # as spreadsheets on old Macs end lines
    head = text.partition("\n")[0]
    separator = separator or max(_SEPARATORS, key=head.count)
    lines = _Lines(text)
    before = csv.field_size_limit(_FIELD_LIMIT)
    try:
        reader = csv.reader(lines, delimiter=separator)
        columns, records, line = None, [], skipped + 1
        for cells in reader:
            if lines.ended:  # the file ended before the row did
                raise DataError(
                    f"{name}: a double quote that opens on line {line} or later is never closed; close it, or write a "
                    'quote within a text twice ("")'
                )
            if cells and columns is None:
                columns = _told_apart(cells)
            elif cells and columns is not None:
                if any(cell.strip() for cell in cells[len(columns) :]):
                    shown = {"\t": "a tab"}.get(separator, repr(separator))
                    raise DataError(
                        f"{name}, line {line}: {len(cells)} cells, where the first line names {len(columns)}; put a "
                        f"text that holds {shown} between double quotes"
                    )
                records.append({column: cells[i] if i < len(cells) else None for i, column in enumerate(columns)})
            line = reader.line_num + skipped + 1
        if columns is not None and (shown := _is_row(columns, records)):
            if tell is not None:
                tell(
                    f"{name} has no line of column names: its first line holds {shown!r}, as rows do, and is read as a "
                    f"row; the columns are called column 1 to column {len(columns)}"
                )
            names = {column: f"column {number}" for number, column in enumerate(columns, 1)}
            first: dict[str, Any] = {column: column for column in columns}
            return [{names[key]: value for key, value in record.items()} for record in [first, *records]]
        return records
    finally:
        csv.field_size_limit(before)


class _Lines:
    """Lines of a text, and whether more were asked for than there are."""

    def __init__(self, text: str):
        self._stream = io.StringIO(text)
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        yield from self._stream
        self.ended = True


def _told_apart(names: list[str]) -> list[str]:
    """Column names, those that stand several times with their number."""
    count, seen = Counter(names), Counter[str]()
    told = []
    for name in names:
        seen[name] += 1
        told.append(f"{name} ({seen[name]})" if name and count[name] > 1 else name)
    return told


def _is_row(columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> str:
    """The cell by which a first line gives itself away as a row, or ''.

    It is one of the few values of its column, such as a label, and no other cell is a usual name of a column. Numbers
    in a row (`0,1`) are what some libraries write for columns without names, and a line that comes again is a heading
    that was pasted with its table.
    """
    from potstill.retrieval.columns import is_usual_name

    counted = list(columns) == [str(number) for number in range(len(columns))]
    if len(columns) < 2 or counted or any(all(row[name] == name for name in columns) for row in records):
        return ""
    for place, name in enumerate(columns):
        values = Counter(row[name].strip() for row in records[:_LOOKED_AT] if row[name] and row[name].strip())
        few = 2 <= len(values) <= max(2, values.total() // 2) and len(values) <= _MOST_LABELS
        others = [*columns[:place], *columns[place + 1 :]]
        if few and name.strip() in values and not any(is_usual_name(other.strip()) for other in others):
            return name.strip()
    return ""
