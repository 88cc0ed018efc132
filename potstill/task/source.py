"""What the user gave, as clean text: a path or a prompt in, text and its two halves out.

Only regular files of UTF-8 up to a bound are read; everything else is one clear message before any parser sees it.
"""

from __future__ import annotations

import os
import re
import stat
from difflib import get_close_matches
from pathlib import Path

from potstill.errors import TaskError
from potstill.task.front_matter import MAX_BYTES, Faults

_SUFFIXES = (".md", ".markdown", ".txt", ".mdx")


def path_in(given: str | Path) -> Path | None:
    """The path that was meant, or None for a prompt.

    A line is a path if it exists, or if it looks like one (`tickets.md`, `./tasks/tickets`), so that a misspelt
    path is not taken for a task.
    """
    if isinstance(given, Path):
        return given
    line = given.strip()
    if not line or "\n" in line or "\0" in line or len(line) > 1000:
        return None
    path = Path(line)
    if line.startswith("~"):
        try:
            path = path.expanduser()
        except RuntimeError:
            return None
    try:
        present = os.path.lexists(path)
    except (OSError, ValueError):
        return None
    named = line.lower().endswith(_SUFFIXES) or bool(re.fullmatch(r"(?:~|\.{1,2})?[/\\]\S+", line))
    return path if present or (named and not re.search(r"\s.*\s", line)) else None


def read_text(path: Path, where: str) -> str:
    """The text of a task file.

    Raises:
        TaskError: It is missing, no regular file, too large or not UTF-8.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise TaskError(where, ["is a folder; give the task file in it"])
        if not stat.S_ISREG(mode):
            raise TaskError(where, ["is no regular file; give a Markdown file"])
        with path.open("rb") as file:
            blob = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        try:
            near = {item.stem: item.name for item in sorted(path.parent.iterdir())[:1000] if item.suffix in _SUFFIXES}
        except OSError:
            near = {}
        # The names without their endings, which are alike in all of them.
        meant = [near[stem] for stem in get_close_matches(path.stem, near, n=1, cutoff=0.6)]
        there = ", ".join(list(near.values())[:5]) + (", …" if len(near) > 5 else "")
        hint = f"did you mean {meant[0]!r}" if meant else f"{path.parent} has {there or 'no task file'}"
        raise TaskError(where, [f"no such file; {hint}, or is the task to be given as a sentence?"]) from None
    except (OSError, ValueError) as error:
        raise TaskError(where, [f"cannot be read ({getattr(error, 'strerror', None) or error})"]) from None
    if len(blob) > MAX_BYTES:
        raise TaskError(where, [f"is larger than {MAX_BYTES:,} bytes; put data into files and name them with 'test:'"])
    if blob[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise TaskError(where, ["is UTF-16; save it as UTF-8"])
    try:
        return blob.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = blob.count(b"\n", 0, error.start) + 1
        raise TaskError(where, [f"line {line}: byte 0x{blob[error.start]:02x} is not UTF-8; save as UTF-8"]) from None


def checked_text(text: str, faults: Faults) -> str:
    """The text with `\\n` line ends; control characters are faults.

    Raises:
        TaskError: The text is too long to look at.
    """
    if len(text) > MAX_BYTES:
        raise TaskError(faults.where, [f"is longer than {MAX_BYTES:,} characters"])
    text = re.sub(r"\r\n?", "\n", text.removeprefix("\ufeff"))
    bad = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
    for count, found in enumerate(bad.finditer(text)):
        if count == 5:
            break
        line = text.count("\n", 0, found.start()) + 1
        faults.add(line, f"control character U+{ord(found[0]):04X}; take it out")
    return bad.sub(" ", text)


def split_front_matter(text: str, faults: Faults) -> tuple[str, str, int]:
    """Front matter ('' where there is none), body, and the number of the body's first line."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return "", text, 1
    for index, line in enumerate(lines[1:], 1):
        if line.rstrip() in ("---", "..."):
            return "\n".join(lines[1:index]), "\n".join(lines[index + 1 :]), index + 2
    faults.add(1, "the front matter that starts here never ends; close it with a line '---'")
    return "", "", 1
