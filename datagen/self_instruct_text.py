"""What Self-Instruct reads out of replies, and which instructions and instances it refuses: pure functions.

The heuristics are the paper's (arXiv:2212.10560 §2.2 and appendix A) with three faults mended: instructions keep the
case of names and acronyms; lists are split at the starts of lines only, so "… in 2016." is not cut; and words such as
plot, map and draw refuse an instruction only where it asks to make or to look at such a thing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from potstill.datagen import filters
from potstill.datagen.parse import clean_text, plain
from potstill.datagen.self_instruct_files import Instance
from potstill.rows import Dropped

_THINGS = r"(?:image|picture|photo|graph|chart|diagram|map|file|video|audio|drawing|screenshot|attachment)s?"
_NOT_TEXT = re.compile(
    rf"\b(?:this|these|the (?:following|given|attached|above|below)|attached|given|following) {_THINGS}\b"
    rf"|\b(?:create|make|generate|produce|show|display|draw|sketch|paint|design|open|save|upload|download|play|watch|"
    rf"look at|listen to)\b[^.]{{0,30}}?\b(?:an?|the|some|your|this)\s(?:\w+\s)?{_THINGS}\b"
    r"|\b(?:draw|sketch|paint)\b(?! (?:an? |the |your )?(?:conclusion|comparison|distinction|parallel|lesson))"
    r"|\bplot (?:a|an|the|this|these) (?:graph|chart|curve|function|line|data|points?|histogram|values?|equation)"
    r"|\bgo to (?:the |a |this )?(?:web ?site|page|link|url|store|shop|http)",
    re.IGNORECASE,
)
_ITEM = re.compile(r"^[ \t]*(\d{1,2})[ \t]?[.)][ \t]+", re.MULTILINE)
_LABEL = re.compile(r"^[ \t*]*(?:class )?label[ \t*]*:[ \t*]*", re.IGNORECASE | re.MULTILINE)
_OUTPUT = re.compile(r"^[ \t*]*(?:output|answer)[ \t*]*:[ \t*]*", re.IGNORECASE | re.MULTILINE)
_INPUT = re.compile(r"^[ \t*]*input[ \t*]*:[ \t*]*", re.IGNORECASE | re.MULTILINE)
_NEXT_TASK = re.compile(r"^[ \t*]*(?:task|example \d+)[ \t*]*:", re.IGNORECASE | re.MULTILINE)
_NO_INPUT = {"none", "n/a", "no input", "none.", "-", "<noinput>", "not applicable"}
MOST_INSTANCES = 5


def split_instructions(text: str, most: int, cut: bool) -> list[str]:
    """The instructions of a continued list.

    Args:
        text: The reply, with its opening.
        most: How many at most.
        cut: Whether the reply was truncated: its last item is left out.
    """
    text = plain(text)
    starts = list(_ITEM.finditer(text))
    if not starts:
        parts = [line for line in text.split("\n") if line.strip()]
    else:
        ends = [match.start() for match in starts[1:]] + [len(text)]
        parts = [text[match.end() : end] for match, end in zip(starts, ends, strict=True)]
    if cut:
        parts = parts[:-1]
    # An item is its first line: what follows is the teacher doing the task.
    items = [clean_text(part.strip().split("\n")[0]) for part in parts if part.strip()]
    return [item[:1].upper() + item[1:] for item in items if item][:most]


def refuse_instruction(text: str) -> Dropped | None:
    """Why an instruction cannot be used, or None."""
    count = len(text.split())
    if count <= 3 or count > 150:
        return Dropped("instruction_length", f"{count} words, 4 to 150", text)
    if text.startswith("Write a program"):
        return Dropped("instruction_program", "starts with `Write a program`", text)
    if not text[0].isalnum():
        return Dropped("instruction_start", f"starts with {text[0]!r}", text)
    found = _NOT_TEXT.search(text)
    if found:
        return Dropped("instruction_not_text", found.group(0), text)
    return filters.refusal(text) or filters.meta_talk(text) or filters.repetition(text)


def is_yes(text: str) -> bool | None:
    """Yes, no, or None where the reply says neither."""
    word = re.search(r"\b(yes|no)\b", plain(text)[:200], re.IGNORECASE)
    return None if word is None else word.group(1).lower() == "yes"


def read_instances(text: str, classification: bool, cut: bool) -> list[Instance]:
    """The instances of a reply: label-first blocks, or one input with its output. The last one is left out when cut."""
    text = _NEXT_TASK.split(plain(text).strip())[0]
    made: list[Instance] = []
    if classification:
        for block in _LABEL.split(text)[1:]:
            label, _, rest = block.partition("\n")
            given = _INPUT.sub("", rest, count=1).strip()
            made.append(Instance(_input(given), label.strip(" *\t.")))
    else:
        for block in _INPUT.split(text)[:MOST_INSTANCES]:
            parts = _OUTPUT.split(block, maxsplit=1)
            if len(parts) == 2:
                made.append(Instance(_input(parts[0].strip()), parts[1].strip()))
    return (made[:-1] if cut else made)[:MOST_INSTANCES]


def _input(text: str) -> str:
    return "" if text.lower().strip(" .") in _NO_INPUT else text


def refuse_instances(instances: Sequence[Instance]) -> tuple[list[Instance], list[Dropped]]:
    """Keep the sound instances of one instruction.

    Dropped are: no output, output equal to input, an input or output that ends with a colon, exact copies, and every
    instance of an input that has different outputs.
    """
    outputs: dict[str, set[str]] = defaultdict(set)
    for item in instances:
        outputs[item.input].add(item.output)
    kept: list[Instance] = []
    dropped: list[Dropped] = []
    for item in instances:
        fault = ""
        if not item.output.strip():
            fault = "empty_output"
        elif item.input == item.output:
            fault = "output_is_input"
        elif item.input.endswith(":") or item.output.endswith(":"):
            fault = "ends_with_colon"
        elif len(outputs[item.input]) > 1:
            fault = "conflicting_outputs" if item.input else "conflicting_outputs_without_input"
        elif item in kept:
            fault = "duplicate_instance"
        loop = filters.repetition(item.output) or filters.refusal(item.output)
        if not fault and loop is not None:
            fault = loop.reason
        if fault:
            dropped.append(Dropped(fault, "", item.input, item.output))
        else:
            kept.append(item)
    return kept, dropped
