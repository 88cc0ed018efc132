"""Which metric fits a task, by what its instruction says that an output is."""

from __future__ import annotations

import re

from potstill.language.form_words import asks_for_translation, asks_for_value, said_form
from potstill.task import Kind, Metric
from potstill.task.inference import first_verb

# An output that is one value: one word, a number, a date, JSON. Elsewhere these words are only about the texts.
_VALUE = r"(?:numbers?|integer|digits?|figure|date|amount|price|sum|numeral)"
_ONLY = r"(?:only |just |exactly )?"
_ONE_VALUE = re.compile(
    rf"####|\b(?:in|with|as|is|be|give|return|output|answer|reply|use) {_ONLY}(?:one|a single) (?:\w+ )?word\b"
    r"|\b(?:one|single)[- ]word (?:answer|reply|output|label|name)"
    # JSON that comes out, not what is told or rewritten.
    rf"|\b(?:in|as|into|to|is|are|with|return|output|produce|give|write|generate) {_ONLY}(?:an? |one |the )?"
    r"(?:(?:valid|single|flat|compact|minified|well-formed|strict) )?json\b(?! (?:\w+ )?(?:into|to)\b| schema| file)"
    rf"|\b(?:only|just) (?:the|an?|one) (?:[\w-]+ ){{0,2}}{_VALUE}\b(?! of (?:sentences|words|points|bullets))"
    rf"|\bthe (?:[\w-]+ ){{0,2}}{_VALUE} (?:only|alone|and nothing else)\b"
    rf"|\b(?:reply|answer|respond|return|output)s? (?:with )?(?:an?|the|one) (?:[\w-]+ ){{0,2}}{_VALUE}\b"
    rf"|\b(?:output|answer|result|reply) (?:is|must be|should be) {_ONLY}(?:an?|the|one) (?:[\w-]+ ){{0,2}}{_VALUE}\b"
    r"|\b(?:in|to|into|as|an) iso(?:[- ]?8601| date| format| form)?\b(?! \d)|\b(?:in|into|to|as) digits\b"
    r"|\bexact (?:[\w-]+ )?(?:answer|value|string|match|label|name|figure)\b",
)
# A verb whose object is such a value. The object ends at a word that is none of its own, or at a comma behind which
# more is asked for.
_TAKES_OUT = re.compile(
    r"\b(?:extract|find|compute|calculate|count|get|give|determine|identify|estimate|parse|convert|normali[sz]e|turn|read|"
    r"return|output|state|name) (?:(?:the|an?|its|each|every) )?(?:(?!(?:and|or|of|for|with|about|from|in|how)\b)"
    rf"[\w'-]+ ){{0,4}}{_VALUE}\b(?!,? (?:\w+ )*?(?:and|or)\b|, )"
    r"|\b(?:convert|turn|change|translate|parse|round)\b[^.;:]{0,200} "
    rf"(?:in)?to (?:an?|the) (?:[\w-]+ ){{0,2}}{_VALUE}\b",
)
_GIVEN = re.compile(r"^(?:given|from|based on|using|you (?:get|are given|receive)|the inputs? (?:is|are))\b")
_TELLS = frozenset(
    ("write", "summarise", "summarize", "reply", "respond", "draft", "compose", "describe", "explain", "rewrite")
    + ("paraphrase", "rephrase", "shorten", "simplify", "expand", "suggest", "create", "generate", "list", "plan")
)


def _is_one_value(instruction: str) -> bool:
    """Whether an instruction asks for one value, which is right or wrong, and not for a text that may hold some."""
    flat = " ".join(instruction.lower().split())
    asked = "; ".join(part for part in re.split(r"[,;:.?!] ", flat) if not _GIVEN.match(part))
    if _ONE_VALUE.search(asked):
        return True
    return first_verb(flat) not in _TELLS and _TAKES_OUT.search(flat) is not None


def infer_metric(kind: Kind, instruction: str, outputs: list[str]) -> Metric:
    """The metric that fits: macro-F1 for classes; for texts, by what the answers look like."""
    if kind == "classification":
        return "macro_f1"
    if kind == "instructions":
        return "rouge_l"
    words = instruction.lower()
    if re.search(r"\b(?:translat\w+|python|sql|javascript|java|code|regex|shell|bash|snippet)\b", words):
        return "chrf"
    if asks_for_translation(instruction):
        return "chrf"
    if _is_one_value(instruction) or asks_for_value(instruction):
        return "exact_match"
    if said_form(instruction).within:
        return "token_f1"
    if re.search(r"\b(?:spans?|substring|named entit\w+|short (?:phrase|answer))\b", words):
        return "token_f1"  # which answers from a text are measured by, as in SQuAD
    if outputs and all(len(output.split()) <= 3 for output in outputs):
        return "exact_match"
    return "rouge_l"
