"""What Self-Instruct reads out of replies, and which instructions and instances it refuses: pure functions.

The heuristics are the paper's (arXiv:2212.10560 §2.2 and appendix A) with these faults mended:

- instructions keep the case of names and acronyms;
- lists are split at the numbers that start lines, so "… in 2016." is not cut;
- words such as plot, map and draw refuse an instruction only where it asks to make or to look at such a thing
  (`not_text`), and "Write a program" only where no programming language is named, since the answer may then be the
  program or its result;
- an instruction may start with an opening quote, a ¿ or any letter; length is counted in scripts without spaces too;
- what only looks like an instance (no output, the input again) does not turn its sound twin into a conflict.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from potstill.datagen import filters
from potstill.datagen.not_text import not_text
from potstill.datagen.parse import clean_text, plain
from potstill.datagen.self_instruct_files import Instance
from potstill.rows import Dropped

MOST_INSTANCES = 5

_MARKS = r"[ \t*_#>]*"
_ITEM = re.compile(
    r"^([ \t]*)(?:[*_#]{1,4}[ \t]*)?(?:(?:task|instruction)[ \t]+#?)?(\d{1,2})[ \t]?[.):][*_]{0,2}(?!\d)[ \t]*",
    re.MULTILINE | re.IGNORECASE,
)
_BULLET = re.compile(r"^[ \t]*[-*•–][ \t]+", re.MULTILINE)
_ITEM_NAME = re.compile(r"^(?:new )?(?:task|instruction)(?: ?#?\d{1,2})?:\s*", re.IGNORECASE)
_BOLD = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")
# Talk of a teacher around or in place of its list.
_CHATTER = re.compile(
    r"(?:sure|certainly|absolutely|of course|great|okay|ok|yes|no|got it|understood|sorry|thanks?|thank you|hello)\b\s?"
    r"(?:$|[,.!:;–—-])"
    r"|(?:here|below|above|following|these) (?:is|are|you|come|comes|goes?)\b[^.?!]{0,80}"
    r"\b(?:tasks?|instructions?|list|examples?|suggestions?|ideas|go)\b[^.?!]{0,80}[:.!]?$"
    r"|(?:these|the (?:above|following|listed)|all (?:of )?these) (?:\w+ )?(?:tasks?|instructions?|examples?)\b"
    r"|(?:please )?(?:let me know if you|feel free to|i hope (?:this|these|that|you)|hope (?:this|these|that)|"
    r"would you like me|do you want me|if you (?:need|want|would like|'d like|have) (?:any |some )?(?:more|other|"
    r"further|help|additional|me)|is there anything else|don't hesitate|i(?:'m| am) (?:happy|glad|not|sorry|unable)|"
    r"i'd be|"
    r"i(?:'ve| have) (?:added|written|made|created|listed|continued|provided)|i(?:'ll| will| can)(?:not)?\b|"
    r"i (?:can't|do(?:n't| not))|it (?:can't|cannot|is not possible)|note:|note that (?:these|the tasks))",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"\A(?:[\[(<{]|insert (?:name|text|title|here)\Z)", re.IGNORECASE)
_PROGRAM = re.compile(
    r"(?:please )?(?:write|create|make) an? (?:computer |simple |short |small )*program\b", re.IGNORECASE
)
_LANGUAGE = re.compile(
    r"\b(?:python|java|javascript|typescript|rust|ruby|perl|php|kotlin|scala|haskell|matlab|sql|bash|shell|pascal|"
    r"fortran|cobol|lisp|prolog|assembly|html|powershell|elixir|erlang|pseudo-?code|c(?:\+\+|#))(?!\w)"
    r"|\b(?:in|using|with) (?:c|r|go|lua|swift|julia|basic|scratch|scheme|dart)\b",
    re.IGNORECASE,
)
_COMPUTES = re.compile(r"\W*(?:$|(?:that|which|to|where|in which|for (?:\w+ing|an?)|called|named)\b)", re.IGNORECASE)
_OPENERS = frozenset("\"'“”„‘’«‹「『(¿¡<`[")
_NO_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")

_LABEL = re.compile(rf"^{_MARKS}(?:class )?label[ \t]*\d{{0,2}}{_MARKS}:{_MARKS}", re.IGNORECASE | re.MULTILINE)
_OUTPUT = re.compile(rf"^{_MARKS}output[ \t]*\d{{0,2}}{_MARKS}:{_MARKS}", re.IGNORECASE | re.MULTILINE)
_ANSWER = re.compile(rf"^{_MARKS}answer[ \t]*\d{{0,2}}{_MARKS}:{_MARKS}", re.IGNORECASE | re.MULTILINE)
_INPUT = re.compile(rf"^{_MARKS}input[ \t]*\d{{0,2}}{_MARKS}:{_MARKS}", re.IGNORECASE | re.MULTILINE)
_INPUT_INSIDE = re.compile(r"[ \t]+input:[ \t]*", re.IGNORECASE)
_TASK = re.compile(rf"^{_MARKS}task[ \t]*\d{{0,2}}{_MARKS}:.*$", re.IGNORECASE | re.MULTILINE)
_EXAMPLE = re.compile(rf"^{_MARKS}example[ \t]*\d{{0,2}}{_MARKS}[:.]?{_MARKS}$", re.IGNORECASE | re.MULTILINE)
_REMARK = re.compile(
    rf"^{_MARKS}(?:explanation|reason(?:ing)?|note|output|(?:the )?(?:correct )?(?:answer|class label)(?: is)?)"
    rf"{_MARKS}:.*\Z|^the (?:correct )?(?:answer|label|class|output) is\b.*\Z|^(?:[-=*_]{{3,}}|#{{2,}})[ \t]*$.*\Z",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_RULE = re.compile(r"\n[ \t]*(?:[-=*_]{3,}|#{2,})[ \t]*\Z")
_NO_INPUT = re.compile(
    r"\W*(?:none|n/?a|null|nil|empty|nothing|noinput|not (?:applicable|needed|required|necessary)|"
    r"none (?:needed|required)|"
    r"no (?:additional |further )?input(?: (?:is )?(?:needed|required|necessary|provided|given))?)\W*|[-–—.…]*",
    re.IGNORECASE,
)


_FENCE = re.compile(r"[ \t]{0,3}(`{3,}|~{3,})[ \t]*([^`\s]?)[^`]*")
_ONLY_FENCE = re.compile(r"\s*(`{3,}|~{3,})[^\n`]*(?:\s*(?:`{3,}|~{3,}))?\s*")
# Comments of Python and shells; and in C, the lines of one.
_COMMENT = re.compile(r"[ \t]*#(?!#)|[ \t]+\*[ \t]")
_CODE = re.compile(
    r"[ \t]*(?:(?:def|class|for|while|if|else|elif|try|with)\b.*:|(?:import|return) \S.*|from \w\S* import .*"
    r"|[\w.]+\(.*\);?|[\w.\[\]]+ [-+*/]?= .*|[{}]+;?)[ \t]*"
)
# Stands before lines that are no fields; no text holds it, since `plain` takes it off.
_GUARD = "\ue000"


def split_instructions(text: str, most: int, cut: bool) -> list[str]:
    """The instructions of a continued list.

    A numbered list is read by its numbers, a bulleted one by its bullets, and any other reply by its lines; what a
    teacher says before, between and after is left out, and so are lists inside an item (their numbers are lower or
    further in).

    Args:
        text: The reply, with its opening.
        most: How many at most.
        cut: Whether the reply was truncated: its last item is left out.

    Examples:
        >>> split_instructions("9. Name the winners of 2016. Then those\\n10. Explain what NASA is.", 7, False)
        ['Name the winners of 2016. Then those', 'Explain what NASA is.']
    """
    text = plain(text)
    numbered = _in_order(list(_ITEM.finditer(text)))
    marks = numbered or list(_BULLET.finditer(text))
    if marks:
        ends = [match.start() for match in marks[1:]] + [len(text)]
        parts = [text[match.end() : end] for match, end in zip(marks, ends, strict=True)]
    else:
        parts = [line for line in text.split("\n") if line.strip()]
    if cut:
        parts = parts[:-1]
    # An item is its first line: what follows is the teacher doing the task.
    items = [_item(part.strip().split("\n")[0]) for part in parts if part.strip()]
    return [item for item in items if item and not _CHATTER.match(item)][:most]


def _in_order(found: list[re.Match[str]]) -> list[re.Match[str]]:
    kept: list[re.Match[str]] = []
    for match in found:
        number, indent = int(match.group(2)), len(match.group(1).expandtabs(4))
        first = kept[0] if kept else match
        last = kept[-1] if kept else match
        if number >= int(last.group(2)) and indent <= len(first.group(1).expandtabs(4)) + 1:
            kept.append(match)
    return kept


def _item(text: str) -> str:
    text = _BOLD.sub(r"\2", text.strip()).removesuffix("**").strip()
    text = clean_text(_ITEM_NAME.sub("", text))
    first = text.split(" ", 1)[0]
    # `iPhone` and `pH` are spelled so.
    return text[:1].upper() + text[1:] if first.islower() else text


def refuse_instruction(text: str) -> Dropped | None:
    """Why an instruction cannot be used, or None.

    Examples:
        >>> refuse_instruction("Describe the plot of a film about a family photo album.")
        >>> refuse_instruction("Draw a house by the sea.").reason
        'instruction_not_text'
    """
    count = len(text.split())
    count = max(count, len(_NO_SPACES.findall(text)) // 2)
    if count <= 3 or count > 150:
        return Dropped("instruction_length", f"{count} words, 4 to 150", text)
    program = _PROGRAM.match(text)
    if program and _COMPUTES.match(text, program.end()) and not _LANGUAGE.search(text, program.end()):
        return Dropped("instruction_program", f"starts with `{program.group(0)}` and names no language", text)
    if not text[0].isalnum() and text[0] not in _OPENERS:
        return Dropped("instruction_start", f"starts with {text[0]!r}", text)
    found = not_text(text)
    if found:
        return Dropped("instruction_not_text", found, text)
    return _talks(text) or filters.repetition(text)


def _talks(text: str) -> Dropped | None:
    """A refusal or a remark in place of an instruction, or a placeholder in it."""
    if _CHATTER.match(text):
        return Dropped("meta_talk", text[:60], text)
    refused = filters.refusal(text)
    # Inside a sentence it is what the instruction is about: "Answer a mail that says: sorry, I am late."
    if refused is not None and text.lower().startswith((refused.detail.lower(), "i'm ", "i am ", "unfortunately")):
        return refused
    meta = filters.meta_talk(text)
    return meta if meta is not None and _PLACEHOLDER.match(meta.detail) else None


def is_yes(text: str) -> bool | None:
    """Yes, no, or None where the reply says neither."""
    word = re.search(r"\b(yes|no)\b", plain(text)[:200], re.IGNORECASE)
    return None if word is None else word.group(1).lower() == "yes"


@dataclass(frozen=True)
class Found:
    """What a reply gives as one instance; `input` is None where it names none and does not say that none is needed."""

    input: str | None
    output: str


def read_instances(text: str, classification: bool, cut: bool) -> list[Found]:
    """The instances of a reply: label by label with the inputs of each, or inputs each with its output.

    What belongs to the next task is left out, and so is the instance that the end of a truncated reply belongs to.

    Args:
        text: The reply, with its opening.
        classification: Whether labels come first.
        cut: Whether the reply was truncated.
    """
    text = _first_task(_EXAMPLE.sub("", _guarded(plain(text))))
    blocks = _LABEL.split(text)[1:] if classification else _INPUT.split(text)
    read = _label_first if classification else _input_first
    made: list[Found] = []
    for number, block in enumerate(blocks, 1):
        found, closed = read(block)
        made += found[:-1] if cut and number == len(blocks) and not closed else found
    return [
        Found(item.input and item.input.replace(_GUARD, ""), item.output.replace(_GUARD, ""))
        for item in made[:MOST_INSTANCES]
    ]


def _guarded(text: str) -> str:
    """A text with a guard before each line of code that might be taken for a field, such as `# Output: 4`.

    All lines of a fence that is closed are guarded. Of one that is not, and of one that stands before the first field
    and so may hold the whole reply, only comments are; without a fence, comments right behind a line of code in an
    output.
    """
    lines = text.split("\n")
    made: list[str] = []
    at, named, answered = 0, False, False
    while at < len(lines):
        line = lines[at]
        fence = _FENCE.fullmatch(line)
        if fence is None:
            guarded = answered and bool(_CODE.fullmatch(made[-1])) and bool(_COMMENT.match(line))
            answered = answered or any(part.match(line) for part in (_OUTPUT, _ANSWER))
            named = named or answered or any(part.match(line) for part in (_LABEL, _INPUT))
            made.append(_GUARD + line if guarded else line)
            at += 1
            continue
        end, closed = _end_of_fence(lines, at, fence[1])
        made.append(line)
        whole = closed and named
        made += [_GUARD + own if whole or _COMMENT.match(own) else own for own in lines[at + 1 : end]]
        made += lines[end : end + 1] if closed else []
        at = end + closed
    return "\n".join(made)


def _end_of_fence(lines: Sequence[str], start: int, mark: str) -> tuple[int, bool]:
    """The line behind the last one of a fence, and whether it closes it; another that opens tells that none does."""
    for at in range(start + 1, len(lines)):
        found = _FENCE.fullmatch(lines[at])
        if found is None or found[1][0] != mark[0]:
            continue
        if found[2]:
            return at, False
        if len(found[1]) >= len(mark):
            return at, True
    return len(lines), False


def _first_task(text: str) -> str:
    """From the first field on, or from what stands before an output, to the next task."""
    fields = [found.start() for part in (_LABEL, _INPUT, _OUTPUT, _ANSWER) if (found := part.search(text))]
    if not fields:
        return ""
    start = min(fields)
    end = _TASK.search(text, start)
    lead = _TASK.split(text[:start])[-1].strip()
    talk = _CHATTER.match(lead) or lead.endswith(":")
    return ("" if talk or not lead else lead + "\n") + text[start : end.start() if end else len(text)]


def _label_first(block: str) -> tuple[list[Found], bool]:
    """The label with each of its inputs, and whether something behind the last of them shows that it is whole."""
    label, _, rest = block.partition("\n")
    inside = _INPUT_INSIDE.split(label, maxsplit=1)
    label = _label(inside[0])
    given = _INPUT.split(rest)
    inputs = [*inside[1:], *given[1:]] if len(given) > 1 or len(inside) > 1 else given
    texts = [_REMARK.sub("", "\n" + text).strip() for text in inputs]
    closed = bool(_REMARK.search("\n" + inputs[-1]))
    stated = len(given) > 1 or len(inside) > 1
    return [Found(_input(text) if text else "" if stated and closed else None, label) for text in texts], closed


def _input_first(block: str) -> tuple[list[Found], bool]:
    parts = _OUTPUT.split(block)
    if len(parts) == 1:
        parts = _ANSWER.split(block)
    if len(parts) == 1:
        return [], False
    return [Found(_input(parts[0].strip()), _RULE.sub("", parts[1].rstrip()).strip())], len(parts) > 2


def _label(text: str) -> str:
    text = text.strip(" \t*_`\"'“”‘’")
    # A label is no sentence; `U.S.` keeps its points.
    return text[:-1].rstrip(" *_\"'") if text.endswith(".") and text.count(".") == 1 and len(text) < 40 else text


def _input(text: str) -> str:
    return "" if _NO_INPUT.fullmatch(text[:60]) and len(text) <= 60 else text


def refuse_instances(
    found: Sequence[Found],
    *,
    classification: bool = False,
    instruction: str = "",
    echoes: Collection[str] = (),
) -> tuple[list[Instance], list[Dropped]]:
    """Keep the sound instances of one instruction.

    Dropped are: no output, output equal to the input or the instruction, an input or output that ends with a colon, a
    copy of a shown example, a loop, a refusal; for classification also a label without an input where the reply does
    not say that none is needed. Of what is left, every instance of an input that has different outputs, and copies.
    Which instances are kept does not depend on their order.

    Args:
        found: As read.
        classification: Whether outputs are labels. Texts that are written without an input may differ from one
            another, labels may not.
        instruction: The instruction; repeated as an input, it is none.
        echoes: Texts of the prompts, as `squeezed` gives them.
    """
    kept: list[Found] = []
    dropped: list[Dropped] = []
    outputs: dict[str, set[str]] = defaultdict(set)
    for item in found:
        if item.input and squeezed(item.input) == squeezed(instruction):
            item = replace(item, input=None if classification else "")
        fault = _fault(item, classification, instruction, echoes)
        if fault:
            dropped.append(Dropped(fault, "", item.input or "", item.output))
        else:
            kept.append(item)
            outputs[" ".join((item.input or "").split())].add(squeezed(item.output))
    sound: list[Instance] = []
    seen: set[tuple[str, str]] = set()
    for item in kept:
        key = " ".join((item.input or "").split()), squeezed(item.output)
        fault = ""
        if len(outputs[key[0]]) > 1 and (key[0] or classification):
            fault = "conflicting_outputs" if key[0] else "conflicting_outputs_without_input"
        elif key in seen:
            fault = "duplicate_instance"
        if fault:
            dropped.append(Dropped(fault, "", item.input or "", item.output))
        else:
            seen.add(key)
            sound.append(Instance(item.input or "", item.output))
    return sound, dropped


def squeezed(text: str) -> str:
    """A text in lower case with single spaces, to compare.

    Examples:
        >>> squeezed(" The  Lamp\\n")
        'the lamp'
    """
    return " ".join(text.casefold().split())


def _fault(item: Found, classification: bool, instruction: str, echoes: Collection[str]) -> str:
    if not item.output.strip() or _ONLY_FENCE.fullmatch(item.output):
        return "empty_output"
    if classification and item.input is None:
        return "no_input"
    given = (item.input or "").strip()
    if not given and not classification and _NO_INPUT.fullmatch(item.output[:60]):
        return "empty_output"
    alike = squeezed(item.output) == squeezed(given) if classification else item.output.strip() == given
    if alike or item.output.strip() == instruction:
        return "output_is_input"
    if given.endswith(":") or item.output.strip().endswith(":"):
        return "ends_with_colon"
    if squeezed(given) in echoes or squeezed(item.output) in echoes:
        return "example_echo"
    loop = filters.repetition(item.output) or filters.repetition(given)
    if loop is not None:
        return loop.reason
    return "refusal" if filters.refusal(item.output) else ""
