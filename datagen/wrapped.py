"""What chat models put around a short output: quotation marks, bold type, or the name of what was asked for.

`**Title:** "Graphs on Maps"` answers "Write a title" with a title, but for what stands around it. A student would learn
to write that as well, and no reference has it.

In: a task and a reply without its lead-in and fence. Out: the output alone, or the reply as it is where the task itself
speaks of such marks, its examples have them, or the task is about code, to which they may belong.
"""

from __future__ import annotations

import re

from potstill.datagen.parse import unquoted
from potstill.task import TaskSpec

_IN_QUOTES = re.compile(r"[\"“'‘«「](?=\S).*\S?[\"”'’»」]")
_IN_BACKTICKS = re.compile(r"`([^`\n]+)`")
_IN_BOLD = re.compile(r"(\*\*|__)(?=\S)((?:(?!\1)[^\n])+)(?<=\S)\1")
_NAMED = re.compile(r"(?:\*\*|__|#{1,4} )?([A-Za-z][A-Za-z'-]*(?: [A-Za-z'-]+){0,2})(?:\*\*|__)?:(?:\*\*|__)?\s+(?=\S)")
_OTHER_NAMED = re.compile(r"^[ \t]*(?:\*\*|__|#{1,4} |[-*] )?[A-Za-z][\w' -]{0,40}(?:\*\*|__)?:", re.MULTILINE)
_SPEAKER = re.compile(r"(?:assistant|user|human|bot|gpt)", re.IGNORECASE)
# Names of any task's output.
_OUTPUT = re.compile(
    r"(?:final |short )?(?:answer|output|result|response|summary|translation|paraphrase|rewrite|correction)"
    r"|(?:corrected|rewritten|revised|simplified|paraphrased|translated|improved|formal|informal|polite) "
    r"(?:text|sentence|version|message|question|e-?mail|paragraph)|corrected|simplified|rewritten|translated",
    re.IGNORECASE,
)
_WRITES = (
    r"(?:write|suggest|generate|give|create|produce|compose|draft|propose|make|list|extract|formulate|invent|"
    r"provide|return)"
)
_OWN_WORD = r"(?!(?:with|for|of|from|about|to|in|on|by|as|and|or|that|which)\b)[\w-]+,? "
# A paragraph at the end on what was done, and words by which a task wants one.
_REMARK = re.compile(
    r"\n[ \t]*\n(?:\*\*|__|#{1,4} |\()?(?:explanation|reasoning|rationale|justification|(?:key )?changes(?: made)?)"
    r"(?:\*\*|__)?:.*\Z",
    re.IGNORECASE | re.DOTALL,
)
_WANTS_REMARK = re.compile(r"\b(?:expla\w+|reason\w*|rational\w*|justif\w+|chang\w+|why|steps?)\b", re.IGNORECASE)
_ITS_ANSWER = re.compile(r"\n[ \t]*(?:\*\*|__)?answer(?:\*\*|__)?:.*\Z", re.IGNORECASE | re.DOTALL)
_ABOUT_CODE = re.compile(
    r"\b(?:code|python|javascript|java|sql|bash|shell|html|xml|json|ya?ml|csv|config\w*|script|regex\w*|"
    r"regular expressions?|snippets?|programs?|functions?|commands?|markup|latex)\b",
    re.IGNORECASE,
)
_ABOUT_QUOTES = re.compile(r"\bquot\w+|\bverbatim\b|\bas (?:it is|they are) written\b", re.IGNORECASE)
_ABOUT_MARKS = re.compile(r"\bmarkdown|\bbold\b|\*\*|\bheadings?\b", re.IGNORECASE)


def unwrapped(spec: TaskSpec, text: str) -> str:
    """An output without its name, bold type and quotation marks around all of it.

    Examples:
        >>> titles = TaskSpec("t", "Write a title for the paper.", "generation")
        >>> unwrapped(titles, '**Title:** "Graphs on Maps"'), unwrapped(titles, "Graphs: On Maps")
        ('Graphs on Maps', 'Graphs: On Maps')
    """
    shown = [example.output.strip() for example in spec.examples]
    code, marks = _ABOUT_CODE.search(spec.instruction), _ABOUT_MARKS.search(spec.instruction)
    if not code:
        if not _WANTS_REMARK.search(spec.instruction) and not any(map(_REMARK.search, shown)):
            text = _REMARK.sub("", text).rstrip() or text
        text = _without_name(spec, text, shown)
    if not marks and (found := _IN_BOLD.fullmatch(text)) and not any(map(_IN_BOLD.fullmatch, shown)):
        text = found[2]
    if not marks and (found := _IN_BACKTICKS.fullmatch(text)) and not any(map(_IN_BACKTICKS.fullmatch, shown)):
        return found[1].strip() or text
    quotes = code or _ABOUT_QUOTES.search(spec.instruction) or any(map(_IN_QUOTES.fullmatch, shown))
    return text if quotes or _IN_QUOTES.fullmatch(text) is None else unquoted(text) or text


def _without_name(spec: TaskSpec, text: str, shown: list[str]) -> str:
    """A text without the name of what the task asks for before it, where it is the only such name."""
    found = _NAMED.match(text)
    if found and found[1].lower() == "question" and not re.search(r"\banswers?\b", spec.instruction, re.IGNORECASE):
        text = _ITS_ANSWER.sub("", text).rstrip()
    if found is None or _OTHER_NAMED.search(text, found.end()) or any(map(_NAMED.match, shown)):
        return text
    name = found[1]
    if re.search(rf"{re.escape(name)}[\"'*`]*\s?:", spec.instruction, re.IGNORECASE):
        return text
    if not (_OUTPUT.fullmatch(name) or _SPEAKER.fullmatch(name) or _is_written(name, spec.instruction)):
        return text
    return text[found.end() :].strip()


def _is_written(name: str, instruction: str) -> bool:
    """Whether a name is that of what the task has written: `Title` of "suggest a short title for the paper"."""
    own = re.escape(name.removesuffix("s"))
    return re.search(rf"\b{_WRITES}\s+(?:{_OWN_WORD}){{0,4}}?{own}s?\b", instruction, re.IGNORECASE) is not None
