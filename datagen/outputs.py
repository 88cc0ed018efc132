"""A teacher's reply to one input of a task: what of it is the task's output, and why an output cannot be learnt from.

Chat models wrap code, queries and markup in a fence, often with a lead-in before it and remarks behind. A student that
learns from such replies writes the fence and the remarks as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from potstill.asking.teacher import Reply
from potstill.datagen import filters
from potstill.datagen.asked_form import AskedForm, asked_form
from potstill.datagen.label_question import answer_spellings
from potstill.datagen.parse import lacks_end, plain, unquoted, without_lead_in
from potstill.datagen.refusals import said_by_input
from potstill.datagen.wrapped import unwrapped
from potstill.rows import Dropped, stripped_text
from potstill.task import TaskSpec

_MARKS = ("```", "~~~")
_WANTS_FENCE = re.compile(r"```|~~~|\b(?:fenced?|code blocks?)\b", re.IGNORECASE)
_MARKDOWN = re.compile(r"\bmarkdown\b", re.IGNORECASE)
_MARKDOWN_NAMES = ("markdown", "md", "mdx", "gfm")
# Words by which a task wants its output alone; "use only POSIX tools" and "reply only if" are none.
_CODE = r"(?:code|query|command|script|function|program|expression|formula|regex|sql|html|markup|json|yaml|xml|snippet)"
_NO_CONDITION = (
    r"(?! (?:if|when|where|whenever|once|after|before|from|about|on|for|to|in case|because|based|those|what|questions?|"
    r"as|at|using)\b)"
)
_SAYS = r"(?:return|reply|respond|answer|output|give|write|print|produce|show|provide|state|send|emit)"
_ALONE = re.compile(
    r"\bnothing (?:else|but|more)\b|\b(?:do not|don't) (?:explain|comment|add (?:any )?(?:explanations?|remarks?))\b"
    r"|\b(?:no|without(?: any)?) (?:other |further |additional |extra )?(?:explanations?|comments?|remarks?|prose|"
    r"preamble|commentary|introductions?|(?<=other )(?:text|words?|output)|(?<=additional )text|(?<=extra )text)\b"
    rf"|\b{_SAYS}(?: me| us| back)?(?: with| in| as)? (?:only|just)\b{_NO_CONDITION}"
    rf"|\bonly (?:return|reply with|respond with|answer with|output|give|write|print|provide)\b{_NO_CONDITION}"
    r"|\b(?:the|your|its|each|every|an?) (?:output|answer|reply|response|result)s?\b(?:(?!\buse|\busing)[^.;!?]){0,40}"
    rf"\b(?:only|just|alone)\b{_NO_CONDITION}"
    r"|\b(?:return|(?:reply|respond|answer) (?:with|in)|output|give|write|print|provide)"
    r"(?: (?!us(?:e|es|ing) )[\w'-]+){1,6} (?:only|alone)(?=\W*$|[.;,!)]| and\b| without\b)"
    rf"|(?:^|[.;:!?(,]\s{{0,3}})(?:(?:only|just)(?: [\w-]+){{0,3}} {_CODE}|(?:[\w-]+ ){{0,2}}{_CODE} (?:only|alone))"
    r"(?=\W*$|[.;,!)])"
    rf"|\bwith (?:only|just) the (?:[\w-]+ ){{0,2}}{_CODE}\b",
    re.IGNORECASE,
)
_LEAD_IN_WORDS = 15
# A chat model's way of answering, which no task asks for: 'The answer to this question is: "in May"'.
_ANSWER_IS = re.compile(
    r"(?:the|my)\s+(?:\w+\s+)?answer(?:\s+to\s+(?:this|the|your)\s+question)?(?:\s+[\"“][^\"”\n]{1,200}[\"”])?\s+is"
    r"(?::\s*(?=\S)|\s+(?=[\"“][^\"“”\n]+[\"”]\.?\Z))",
    re.IGNORECASE,
)
_ANNOUNCES = re.compile(
    r"[^\n]*\b(?:is|are|be|as follows|following|here|below|for (?:the|this) \w+)\W*:", re.IGNORECASE
)
# Before an answer that a reply begins with, and behind it.
_MARKED = r"[\s\"'*`(]*"
_SET_APART = r"[\"'*`]*(?:[.,:;!?)]+(?=[\s\"'*`]|\Z)|[ \t]*(?:[(–—\n]|\Z)|\s-\s)"
_FaultOf = Callable[[str, str], Dropped | None]


def stated_output(spec: TaskSpec, text: str) -> str:
    """The output that a reply states.

    It is the content of a fence when the reply holds one fence, with nothing around it but a short lead-in that ends
    with a colon, or with anything around it where the task wants its output alone ("Python code only"). Otherwise it is
    the whole reply: also for a task that speaks of fences, or whose examples hold one, and for one that speaks of
    Markdown, unless the fence wraps the Markdown itself. A line that announces what follows ("Here is a title for the
    change:", "The answer to this question is:") is no part of it, nor are the marks and names that `wrapped` knows. The
    first line keeps its indent where all have it.

    Args:
        spec: The task.
        text: The reply.
    """
    return unwrapped(spec, _unfenced(spec, text))


def _unfenced(spec: TaskSpec, text: str) -> str:
    """A reply without its fence, where that only wraps the output, and without what announces it."""
    text = stripped_text(plain(text))
    outputs = [example.output for example in spec.examples]
    if _MARKDOWN.search(spec.instruction) and not _WANTS_FENCE.search(spec.instruction):
        fenced = any(output.lstrip().startswith(_MARKS) for output in outputs)
        inner = None if fenced else _wrapped_markdown(text, _ALONE.search(spec.instruction) is not None)
        return _without_answer_is(spec, without_lead_in(text)) if inner is None else inner
    parts = _around_one_fence(text)
    if parts is None or _WANTS_FENCE.search("\n".join([spec.instruction, *outputs])):
        return text if parts is not None else _without_answer_is(spec, without_lead_in(text))
    before, content, behind = parts
    return content if (_leads_in(before) and not behind) or _ALONE.search(spec.instruction) else text


def _leads_in(before: str) -> bool:
    return not before or (before.endswith(":") and len(before.split()) <= _LEAD_IN_WORDS)


def _wrapped_markdown(text: str, alone: bool) -> str | None:
    """The Markdown that a fence of its own wraps, with the fences in it; None where the fences are a part of it."""
    lines = text.split("\n")
    marks = [number for number, line in enumerate(lines) if line.lstrip().startswith(_MARKS)]
    if len(marks) < 2 or len(marks) % 2 or lines[marks[-1]].strip() != lines[marks[0]].strip()[:3]:
        return None
    content = "\n".join(lines[marks[0] + 1 : marks[-1]]).strip("\n").rstrip()
    name = lines[marks[0]].strip().strip("`~").strip().lower()
    if name not in _MARKDOWN_NAMES and (name or len(marks) > 2 or not content.startswith(("|", "# ", "## "))):
        return None
    before, behind = "\n".join(lines[: marks[0]]).strip(), "\n".join(lines[marks[-1] + 1 :]).strip()
    return content if alone or (_leads_in(before) and not behind) else None


def form_of(spec: TaskSpec) -> AskedForm:
    """The form that the task asks of its outputs, as wide as the outputs of its own examples take it."""
    return _form(spec.instruction, tuple((example.input, example.output) for example in spec.examples))


@lru_cache(maxsize=64)
def _form(instruction: str, examples: tuple[tuple[str, str], ...]) -> AskedForm:
    form = asked_form(instruction)
    for input, output in examples:
        form = form.allowing(output, input)
    return form


def off_form(spec: TaskSpec, input: str, output: str) -> Dropped | None:
    """Why an output is not in the form that the task asks for; None where it is."""
    fault = form_of(spec).fault(output, input)
    return Dropped("off_form", fault, input, output) if fault else None


def label_reader(names: Sequence[str]) -> Callable[[str], str | None]:
    """What reads the label off a written answer.

    It is the whole of it; or else what it begins with, set apart from what is said of it ("No. It never says yes"); or
    else the longest name that it holds as words.

    Args:
        names: The labels.

    Returns:
        A function from an answer to the label's name, None where it names none.
    """
    spelling = {form.lower(): name for name in names for form in answer_spellings(name)}
    by_length = sorted(spelling, key=len, reverse=True)
    begins = re.compile(rf"{_MARKED}({'|'.join(map(re.escape, by_length))}){_SET_APART}") if by_length else None
    worded = [name for name in by_length if filters.words(name)]  # "+" would be in any reply without a word

    def read(text: str) -> str | None:
        if text in names:  # before names that differ in case only are taken for one
            return text
        lower = plain(text).lower()
        said = " ".join(lower.split()).strip(" .\"'*`")
        if said in spelling:
            return spelling[said]
        begun = begins.match(lower) if begins is not None else None
        named = begun[1] if begun else next((name for name in worded if filters.names_itself(said, name)), None)
        return None if named is None else spelling[named]

    return read


def _around_one_fence(text: str) -> tuple[str, str, str] | None:
    """What stands before, in and behind the only fence of a text; None where there is none, or more, or it is open."""
    lines = text.split("\n")
    marks = [number for number, line in enumerate(lines) if line.lstrip().startswith(_MARKS)]
    if len(marks) != 2 or lines[marks[1]].strip() != lines[marks[0]].strip()[:3]:
        return None
    first, last = marks
    before, content, behind = lines[:first], lines[first + 1 : last], lines[last + 1 :]
    return "\n".join(before).strip(), "\n".join(content).strip("\n").rstrip(), "\n".join(behind).strip()


def read_output(spec: TaskSpec, input: str, reply: Reply) -> tuple[str, Dropped | None]:
    """The output of a reply, and why it is refused.

    Sentences beyond those that the task asks for (`form_of`) are left out. Remarks that were cut off behind a closed
    fence do no harm. What an output of the user's own examples is as well, a copy of its input or a word again and
    again, is right for the task, and so is a refusal that the input itself says where the task mends or translates it.
    """
    output = form_of(spec).cut(stated_output(spec, reply.text), input)
    whole = plain(reply.text).rstrip().endswith(output)
    declined = _wrong(spec, _refusal, input, output) and not said_by_input(spec.instruction, input, output)
    if reply.finish == "refused" or declined:
        return output, Dropped("refusal", output[:200], input, output)
    if not output:
        return output, Dropped("empty_output", "", input, output)
    if lacks_end(reply) and whole:
        return output, Dropped("truncated_output", f"{len(output)} characters without an end", input, output)
    faults = (_wrong(spec, fault_of, input, output) for fault_of in (_copy, _loop, _bare_announcement))
    return output, next((fault for fault in faults if fault), None)


def _wrong(spec: TaskSpec, fault_of: _FaultOf, input: str, output: str) -> Dropped | None:
    fault = fault_of(input, output)
    return None if fault and any(fault_of(example.input, example.output) for example in spec.examples) else fault


def _refusal(input: str, output: str) -> Dropped | None:
    return Dropped("refusal", output[:200], input, output) if filters.refusal(output) else None


def _without_answer_is(spec: TaskSpec, text: str) -> str:
    """A reply without "The answer is:" at its start, unless the task or an example of it says so."""
    found = _ANSWER_IS.match(text)
    if found is None or re.search(r"\banswer is\b", spec.instruction, re.IGNORECASE):
        return text
    if any(_ANSWER_IS.match(example.output) for example in spec.examples):
        return text
    answer = text[found.end() :]
    return unquoted(answer.strip().removesuffix(".")) if answer[0] in '"“' else answer


def _bare_announcement(input: str, output: str) -> Dropped | None:
    """An announcement ("The answer to this question is:") with nothing behind it."""
    if _ANNOUNCES.fullmatch(output.strip()) is None:
        return None
    return Dropped("unfinished", "announces an answer and gives none", input, output)


def _copy(input: str, output: str) -> Dropped | None:
    # To the letter: a task may be about capitals, or about spaces.
    return Dropped("output_is_input", "", input, output) if output.strip() == input.strip() else None


def _loop(input: str, output: str) -> Dropped | None:
    loop = filters.repetition(output)
    return Dropped("repetition", loop.detail, input, output) if loop else None
