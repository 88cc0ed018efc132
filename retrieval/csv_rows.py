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
from collections.abc import Iterator
from typing import Any

from potstill.errors import DataError

_FIELD_LIMIT = 16 << 20
_SEPARATORS = ",;\t|"


def csv_records(text: str, name: str, separator: str | None = None) -> list[dict[str, Any]]:
    """Rows of a CSV by the names in its first line; a cell that a row lacks is None.

    Args:
        text: What the file holds.
        name: The file, for messages.
        separator: What stands between cells; None takes what stands most often in the first line.

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
