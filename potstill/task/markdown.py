"""The Markdown of a task file: prose, `## Labels` and `## Examples`.

Lines enter; title, instruction, labels and examples leave, each with the line it stands on.

- The first `# heading` is the title. `## Labels` (or Classes, Categories) and `## Examples` (at any level) are read;
  every other heading stays in the instruction, with its text.
- Labels: a bullet `- name: description`, a numbered line, a table row, or else a line of names between commas.
- Examples: `Input: …` then `Output: …` (each may go on over several lines, which keep their indentation; an output ends
  at a blank line unless that stands in a fence), `input -> output` (also `=>`, `→`), or a table whose last column is
  the output.
- In the prose, `"input" -> output` and `Input:`/`Output:` pairs are examples too, and leave the instruction.
- `Text: {text}` with an empty `Label:`, as prompts end that were written as templates, is left out.
- Headings inside fenced code are text. HTML comments are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from potstill.task.front_matter import Faults

_SECTIONS = {
    **dict.fromkeys(("labels", "label", "classes", "categories", "label set"), "labels"),
    **dict.fromkeys(("examples", "example"), "examples"),
}
_HEADING = re.compile(r"(#{1,6})\s+(.*)")
_BULLET = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)]|[A-Za-z]\)|\((?:\d{1,2}|[A-Za-z])\))\s+(.*\S)\s*")
_ARROW = re.compile(r"\s(?:-{1,2}>|=>|→|⇒)\s")
_FIELD = re.compile(r"\s*(?:[-*+]\s+)?\**(input|text|output|label|answer)\**\s*:\**\s*(.*)", re.IGNORECASE)
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
# Where the input goes in a prompt that is written as a template.
_PLACEHOLDER = re.compile(r"\{\{?[^{}]*\}?\}|<[^<>]*>|\[[^\[\]]*\]|%s|\.\.\.|…|_+")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`", "„": "“"}


@dataclass
class Parts:
    """What the text of a task file holds.

    Attributes:
        title: First level-1 heading.
        instruction: The prose.
        instruction_line: Line of the first word of the prose.
        labels: (line, name, description).
        examples: (line, input, output).
        sections: Line of each known section that is present.
    """

    title: str = ""
    instruction: str = ""
    instruction_line: int = 0
    labels: list[tuple[int, str, str]] = field(default_factory=list)
    examples: list[tuple[int, str, str]] = field(default_factory=list)
    sections: dict[str, int] = field(default_factory=dict)


def read_markdown(text: str, first_line: int, faults: Faults) -> Parts:
    """Split the body of a task file.

    Args:
        text: The body, with `\\n` line ends.
        first_line: Its first line's number in the file.
        faults: Where faults are noted.
    """
    parts = Parts()
    prose: list[tuple[int, str]] = []
    blocks: dict[str, list[tuple[int, str]]] = {"labels": [], "examples": []}
    section, fence = "", ""
    for line, content in enumerate(_without_comments(text).split("\n"), first_line):
        # Without trailing space every pattern of this module is linear in the line's length.
        content = content.rstrip()
        marker = _FENCE.match(content)
        if marker and (not fence or content.strip().startswith(fence)):
            fence = "" if fence else marker[1]
        heading = None if fence else _HEADING.fullmatch(content)
        if heading is None:
            (blocks[section] if section else prose).append((line, content))
            continue
        shown = heading[2].rstrip("# ")
        name = shown.strip(" :*").lower()
        section = _SECTIONS.get(name, "")
        if section:
            parts.sections.setdefault(section, line)
            continue
        if near := _misspelt(name):
            faults.add(line, f"section {shown[:60]!r} is not read; did you mean '## {near.capitalize()}'?")
        if not parts.title and len(heading[1]) == 1 and not any(text.strip() for _, text in prose):
            parts.title = shown
        else:
            prose.append((line, content))
    parts.labels = _read_labels(blocks["labels"], faults)
    parts.examples = _read_examples(blocks["examples"], faults)
    prose = _examples_of_prose(prose, parts)
    written = [line for line, content in prose if content.strip()]
    parts.instruction_line = written[0] if written else first_line
    parts.instruction = re.sub(r"\n{3,}", "\n\n", "\n".join(content.rstrip() for _, content in prose)).strip()
    return parts


def _without_comments(text: str) -> str:
    """Blank HTML comments, keeping the line count. Found by index: a regex would be quadratic on `<!--<!--…`."""
    kept, at = [], 0
    while (start := text.find("<!--", at)) >= 0 and (end := text.find("-->", start)) >= 0:
        kept += [text[at:start], "\n" * text.count("\n", start, end)]
        at = end + 3
    return "".join([*kept, text[at:]])


def _misspelt(name: str) -> str:
    from difflib import SequenceMatcher

    if len(name) > 12:
        return ""
    for known in ("labels", "examples", "classes", "categories"):
        same_letters = sorted(name) == sorted(known)
        if same_letters or SequenceMatcher(None, name, known).ratio() >= 0.85:
            return known
    return ""


def clean(text: str) -> str:
    """Text without surrounding space, emphasis or one pair of quotes."""
    text = text.strip()
    for mark in ("**", "__"):
        if len(text) > 4 and text.startswith(mark) and text.endswith(mark):
            text = text[2:-2].strip()
    if len(text) >= 2 and _QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def split_label(text: str) -> tuple[str, str]:
    """`name: description` (also `name - description`, `name – description`) in its two parts."""
    text = " ".join(text.split())
    quoted = re.match(r"\s*(\*\*|`|\"|“)(.{1,100}?)(\*\*|`|\"|”)\s*(?:[:–—-]\s*)?(.*)", text)
    if quoted:
        return clean(quoted[2].rstrip(":")), quoted[4].strip().removeprefix(":").strip()
    found = re.search(r":\s+|\s+[–—]\s+|\s+-{1,2}\s+|:$", text)
    if found is None:
        return clean(text), ""
    return clean(text[: found.start()]), text[found.end() :].strip()


def bullet(line: str) -> str | None:
    """The text of a bullet or numbered line, or None."""
    found = _BULLET.fullmatch(line)
    return found[1] if found else None


def table_row(line: str) -> list[str] | None:
    """The cells of a table's line, or None."""
    if not re.fullmatch(r"\s*\|.*\|\s*", line):
        return None
    return [clean(cell.replace("\0", "|")) for cell in line.strip().replace("\\|", "\0")[1:-1].split("|")]


def is_rule(cells: list[str]) -> bool:
    """Whether cells are the line under a table's head."""
    return all(re.fullmatch(r":?-+:?", cell) for cell in cells)


def _table(lines: list[tuple[int, str]]) -> list[tuple[int, list[str]]]:
    """Rows of the table in `lines`, without its header and its rule."""
    rows = [(line, cells) for line, content in lines if (cells := table_row(content)) is not None]
    if len(rows) > 1 and is_rule(rows[1][1]):
        rows = rows[2:]
    return [(line, cells) for line, cells in rows if not is_rule(cells)]


def _read_labels(lines: list[tuple[int, str]], faults: Faults) -> list[tuple[int, str, str]]:
    found: list[tuple[int, str, str]] = []
    for line, cells in _table(lines):
        found.append((line, cells[0], " ".join(cells[1:]).strip()))
    loose: list[tuple[int, str]] = []
    for line, content in lines:
        text = bullet(content)
        if text is not None:
            found.append((line, *split_label(text)))
        elif content.strip() and table_row(content) is None:
            if found and content[:1] in " \t" and found[-1][0] < line:
                last, name, description = found[-1]
                found[-1] = (last, name, f"{description} {content.strip()}".strip())
            else:
                loose.append((line, content.strip()))
    if not found:
        for line, content in loose:
            found += [(line, clean(name), "") for name in re.split(r"[,;]", content.rstrip(".")) if name.strip()]
    else:
        for line, content in loose:
            if not content.endswith((":", ".")):
                faults.add(line, f"{content[:60]!r} is no label; write '- name: description'")
    return sorted(found, key=lambda item: item[0])


def _read_examples(lines: list[tuple[int, str]], faults: Faults) -> list[tuple[int, str, str]]:
    pairs, rest = _field_pairs(lines)
    for line, cells in _table(rest):
        if len(cells) < 2:
            faults.add(line, "an example's table row needs two columns: input and output")
        else:
            pairs.append((line, "\n".join(cells[:-1]), cells[-1]))
    for line, content in rest:
        text = content.strip()
        if not text or table_row(content) is not None or re.fullmatch(r"(`{3,}|~{3,}).*|-{3,}", text):
            continue
        pair = _arrow_pair(bullet(content) or text)
        if pair is not None:
            pairs.append((line, *pair))
        elif not text.endswith(":"):
            faults.add(line, f"{text[:60]!r} is no example; write 'input -> output', or 'Input: …' and 'Output: …'")
    return sorted(pairs, key=lambda item: item[0])


def _arrow_pair(text: str) -> tuple[str, str] | None:
    cuts = list(_ARROW.finditer(text))
    if not cuts:
        return None
    return clean(text[: cuts[-1].start()]), clean(text[cuts[-1].end() :])


@dataclass
class _Pair:
    """An example whose lines are being read: its texts line by line, and the lines as they came."""

    line: int
    column: int
    given: list[str]
    wanted: list[str] | None = None
    wanted_column: int = 0
    held: list[tuple[int, str]] = field(default_factory=list)

    def texts(self) -> tuple[str, str]:
        return _value(self.given, self.column), _value(self.wanted or [], self.wanted_column)


def _field_pairs(lines: list[tuple[int, str]]) -> tuple[list[tuple[int, str, str]], list[tuple[int, str]]]:
    """`Input:`/`Output:` pairs and the lines that belong to none.

    An output ends at a blank line or at the next `Input:`; an input ends at its `Output:`. A fence that opens in
    either is part of it up to its end, whatever stands in it.
    """
    pairs: list[tuple[int, str, str]] = []
    rest: list[tuple[int, str]] = []
    pair: _Pair | None = None
    around, fenced_to = "", -1

    def close() -> None:
        nonlocal pair
        if pair is not None and pair.wanted is not None:
            pairs.append((pair.line, *pair.texts()))
        elif pair is not None:
            rest.extend(pair.held)
        pair = None

    for at, (line, content) in enumerate(lines):
        found = _FIELD.fullmatch(content) if at > fenced_to else None
        role = found[1].lower() if found else ""
        if found and role in ("input", "text") and (pair is None or pair.wanted is not None or role == "input"):
            close()
            pair = _Pair(line, found.start(1), [found[2]])
        elif found and role in ("output", "label", "answer") and pair is not None and pair.wanted is None:
            pair.wanted, pair.wanted_column = [found[2]], found.start(1)
        elif at > fenced_to and (marker := _FENCE.match(content)) and (pair is None or content.strip() == around):
            # The pairs stand in a fence of their own, which is none of theirs.
            close()
            around = "" if around else marker[1]
        elif pair is not None and pair.wanted is None:
            pair.given.append(content)
        elif pair is not None and pair.wanted is not None:
            if not content.strip() and "".join(pair.wanted).strip() and at > fenced_to:
                close()
                continue
            pair.wanted.append(content)
        if pair is None:
            rest.append((line, content))
            continue
        pair.held.append((line, content))
        if at > fenced_to and (marker := _FENCE.match(found[2] if found else content)):
            fenced_to = _fence_end(lines, at, marker[1])
    close()
    return pairs, sorted(rest, key=lambda item: item[0])


def _fence_end(lines: list[tuple[int, str]], start: int, marks: str) -> int:
    """Place of the line that closes a fence; before `start` where none does."""
    ends = (at for at in range(start + 1, len(lines)) if lines[at][1].strip() == marks)
    return next(ends, -1)


def _value(lines: list[str], column: int) -> str:
    """The text of a field from its lines, the first of which stood behind the field's name in this column.

    Spaces that lead the other lines belong to the text, as in code, beyond those that the name has as well. Where the
    lines of a paragraph all hang by the same number of spaces they do not.
    """
    first, *others = lines or [""]
    others = [text[min(column, len(text) - len(text.lstrip())) :] for text in others]
    depths = {len(text) - len(text.lstrip()) for text in others if text.strip()}
    hangs = len(depths) == 1 and not first.endswith((":", "{", "(", "["))
    cut = min(depths) if depths and (hangs or not first) else 0
    return clean("\n".join([first, *(text[cut:] for text in others)]))


def _examples_of_prose(prose: list[tuple[int, str]], parts: Parts) -> list[tuple[int, str]]:
    pairs, rest = _field_pairs(prose)
    pairs = [pair for pair in pairs if pair[2].strip() or not _PLACEHOLDER.fullmatch(pair[1].strip())]
    kept = []
    for line, content in rest:
        text = re.sub(
            r"^(?:e\.?g\.?|examples?|for example)\s*[:,]?\s*", "", bullet(content) or content.strip(), flags=re.I
        )
        pair = _arrow_pair(text) if text[:1] in _QUOTES else None
        if pair is not None and all(pair):
            pairs.append((line, *pair))
        else:
            kept.append((line, content))
    if not parts.examples:
        parts.examples = sorted(pairs, key=lambda item: item[0])
        return kept
    return prose
