"""YAML front matter as nodes that remember their line, and nothing more than a task file needs.

Text enters; a tree of `Node` leaves, or faults with line numbers. It is built from the parser's events with a
stack of its own, so that neither nesting nor aliases can cost more than the text is long:

- anchors, aliases and tags are refused (no task needs them; they are how a YAML file becomes a bomb or an object);
- a scalar stays the text that was written until someone asks for a type. So `labels: [yes, no]` are the words
  and not booleans, `languages: [no]` is Norwegian, and `lr: 1e-5` is a number, which YAML 1.1 denies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from potstill.errors import TaskError

MAX_DEPTH = 12
MAX_BYTES = 1_000_000
MAX_FAULTS = 200


class Faults:
    """Faults found so far, each with the line it was met on (0 where there is none)."""

    def __init__(self, where: str):
        self.where = where
        self._found: dict[tuple[int, str], None] = {}

    def add(self, line: int, text: str) -> None:
        """Note a fault; the same text on the same line is noted once."""
        if not self.full:
            self._found[line, text] = None

    @property
    def full(self) -> bool:
        """True when so many faults are known that looking for more helps nobody."""
        return len(self._found) >= MAX_FAULTS

    def __bool__(self) -> bool:
        return bool(self._found)

    def error(self) -> TaskError:
        """The one error that lists them all, in the order of their lines."""
        ordered = sorted(self._found, key=lambda item: item[0])
        listed = [f"line {line}: {text}" if line else text for line, text in ordered]
        return TaskError(self.where, [*listed, "and maybe more: reading stopped here"] if self.full else listed)


@dataclass
class Node:
    """A value of the front matter.

    Attributes:
        line: Line in the file, from 1.
        kind: What it is.
        text: The scalar as written.
        quoted: Whether the scalar was quoted or a block, and so is surely text.
        items: Items of a list.
        fields: Values of a mapping, by key.
        key_lines: Line of each key of a mapping.
    """

    line: int
    kind: Literal["scalar", "list", "mapping"]
    text: str = ""
    quoted: bool = False
    items: list[Node] = field(default_factory=list)
    fields: dict[str, Node] = field(default_factory=dict)
    key_lines: dict[str, int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """True for nothing at all, `null` and `~`."""
        return self.kind == "scalar" and not self.quoted and self.text.strip().lower() in ("", "null", "~")

    def describe(self) -> str:
        """What was met, for a message."""
        if self.kind == "scalar":
            return repr(self.text if len(self.text) <= 60 else self.text[:57] + "…")
        return "a list" if self.kind == "list" else "a mapping"


def parse_yaml(text: str, first_line: int, faults: Faults) -> Node | None:
    """Parse `text` into nodes.

    Args:
        text: YAML of one document.
        first_line: Line of the file on which `text` starts, from 1.
        faults: Where faults are noted.

    Returns:
        The root, or None where the text is empty or cannot be parsed (a fault is noted then).
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    stack: list[tuple[Node, list[Node]]] = []
    root: Node | None = None
    try:
        for event in yaml.parse(text, Loader=loader):
            line = first_line + (event.start_mark.line if event.start_mark else 0)
            if isinstance(event, yaml.AliasEvent):
                faults.add(line, f"YAML alias *{event.anchor} is not read; write the value out, or quote a leading *")
                return None
            if isinstance(event, yaml.NodeEvent) and event.anchor:
                faults.add(line, f"YAML anchor &{event.anchor} is not read; write the value out, or quote a leading &")
                return None
            tag = getattr(event, "tag", None)
            if tag not in (None, "!"):
                faults.add(line, f"YAML tag {str(tag)[:60]!r} is not read; write a plain value, or quote a leading !")
                return None
            if isinstance(event, yaml.ScalarEvent):
                node = Node(line, "scalar", text=event.value, quoted=event.style not in (None, ""))
            elif isinstance(event, yaml.SequenceStartEvent):
                node = Node(line, "list")
            elif isinstance(event, yaml.MappingStartEvent):
                node = Node(line, "mapping")
            elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
                closed, parts = stack.pop()
                _close(closed, parts, faults)
                continue
            else:
                continue
            if stack:
                stack[-1][1].append(node)
            elif root is not None:
                faults.add(line, "the front matter holds a second YAML document; keep one")
                return root
            else:
                root = node
            if node.kind != "scalar":
                stack.append((node, []))
                if len(stack) > MAX_DEPTH:
                    faults.add(line, f"the front matter is nested more than {MAX_DEPTH} deep")
                    return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = first_line + (mark.line if mark else 0)
        problem = " ".join(str(part) for part in (error.context, error.problem) if part)
        faults.add(line, f"the front matter is not valid YAML ({problem}); quote texts that hold ': ' or ' #'")
        return None
    except (yaml.YAMLError, ValueError) as error:
        faults.add(first_line, f"the front matter is not valid YAML ({' '.join(str(error).split())[:200]})")
        return None
    return root


def _close(node: Node, parts: list[Node], faults: Faults) -> None:
    if node.kind == "list":
        node.items = parts
        return
    for key, value in zip(parts[::2], parts[1::2]):
        if key.kind != "scalar":
            faults.add(key.line, f"a key must be a word, not {key.describe()}")
        elif key.text in node.fields:
            faults.add(key.line, f"{key.text[:60]!r} is written twice (first on line {node.key_lines[key.text]})")
        else:
            node.fields[key.text] = value
            node.key_lines[key.text] = key.line


_INTEGER = re.compile(r"[-+]?\d{1,18}")
_FLOAT = re.compile(r"[-+]?(\d{1,30}(_\d+)*\.?\d{0,30}|\.\d{1,30})([eE][-+]?\d{1,3})?")
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def plain(node: Node) -> Any:
    """The node as JSON types: bool, int, float, None, str, list, dict."""
    if node.kind == "list":
        return [plain(item) for item in node.items]
    if node.kind == "mapping":
        return {key: plain(value) for key, value in node.fields.items()}
    if node.quoted:
        return node.text
    if node.empty:
        return None
    if node.text.lower() in _WORDS:
        return _WORDS[node.text.lower()]
    number = node.text.replace("_", "") if re.fullmatch(r"[-+]?\d+(_\d+)+", node.text) else node.text
    if _INTEGER.fullmatch(number):
        return int(number)
    if _FLOAT.fullmatch(number):
        return float(number)
    return node.text
