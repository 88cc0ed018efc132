"""What a task says to write where there is no answer: "write 'no answer'", "or N/A if none", "otherwise say unknown".

In: an English instruction. Out: the words, as it writes them. An output that is one of them keeps whatever form the
task asks for otherwise: it is no number, no JSON and no part of its input, and right.
"""

from __future__ import annotations

import re

_MOST = 4
_GIVES = r"(?:write|say|reply|answer|respond|return|output|give|print|use|put|state|or|else|otherwise)"
_MORE = (
    r"(?:,? (?:with|just|only|simply|write|say|answer|return|output|give|"
    r"the (?:words?|texts?|strings?|phrases?|labels?))){0,4}"
)
# In quotes, in a sentence that says when.
_QUOTED = re.compile(rf"\b{_GIVES}\b{_MORE},?:? (?P<said>[\"'“‘`][^\"'“”‘’`\n]{{1,30}}[\"'”’`])(?!\w)", re.IGNORECASE)
_ALSO = re.compile(r",? or (?P<said>[\"'“‘`][^\"'“”‘’`\n]{1,30}[\"'”’`])(?!\w)", re.IGNORECASE)
_BARE = re.compile(
    rf"\b{_GIVES}\b{_MORE},? (?P<said>N/?A|none|null|nil|unknown|nothing|unanswerable|undefined|missing|"
    r"no (?:answer|date|name|match|entity|entities|result)|"
    r"not (?:found|stated|given|mentioned|available|specified|applicable|known))"
    r"(?=\W*$|[.;)]|,? (?:if|when|where|in case|for)\b)",
    re.IGNORECASE,
)
_WHEN = re.compile(r"\b(?:if|when|whenever|where|unless|or|else|otherwise|in case)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?;])\s+(?=[A-Z])")


def no_answer(instruction: str) -> tuple[str, ...]:
    """The words that an instruction gives for outputs without an answer; at most four, in order.

    Examples:
        >>> no_answer("Answer with a number; if the text has none, write 'unknown'.")
        ('unknown',)
        >>> no_answer("Reply with only the number, or N/A if none."), no_answer("Say whether it is 'spam'.")
        (('N/A',), ())
    """
    found: dict[str, None] = {}
    for sentence in _SENTENCE.split(instruction):
        if not _WHEN.search(sentence):
            continue
        hits = [hit for form in (_QUOTED, _ALSO, _BARE) for hit in form.finditer(sentence)]
        found |= {hit["said"].strip("\"'“”‘’`").strip(): None for hit in sorted(hits, key=lambda hit: hit.start())}
    return tuple(word for word in found if word)[:_MOST]


def is_no_answer(output: str, said: tuple[str, ...]) -> bool:
    """Whether an output is one of these words, whatever its capitals, quotes and last stop.

    Examples:
        >>> is_no_answer("No answer.", ("no answer",)), is_no_answer("There is no answer.", ("no answer",))
        (True, False)
    """
    own = output.strip().strip("\"'“”‘’`.").casefold()
    return any(own == word.strip(".").casefold() for word in said)
