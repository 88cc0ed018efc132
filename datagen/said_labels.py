"""How likely a teacher finds each answer, from the log-probs of the answer that it wrote itself.

Servers of the chat protocol score no text that they are given, but many return, with each token that they write, the
likeliest tokens in its place, as texts and 5 to 20 of them: OpenAI, Azure, DeepSeek, xAI, Together, Fireworks,
llama.cpp, Ollama. One short answer then tells about every label. In: a question, spellings of its answers. Out: the
log-prob of each.

The written tokens are walked along. What was likely in the place of one begins another answer: its probability goes to
the answers that begin like that, in equal parts where several do, since how they would have gone on is not known. What
begins like no answer is left out. An answer that nothing was said of gets half of the least that was, at most, and no
more than the first place leaves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from potstill.asking.teacher import Message, Reply, Request, TokenText
from potstill.asking.token_estimate import likely_tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from potstill.asking.asker import Asker

# Some servers give 20 tokens a place, others refuse more than five.
_FEWER = 5
# Questions that are asked before it is said that a server gives no log-probs: a refused text says nothing of it.
_TRIED = 4
_LEAST = 1e-7
# What a model puts before its answer: quotes, marks of Markdown, white space.
_DECORATION = re.compile(r"^[\s\"'`*“”‘’«»(\[{]+")


def said_scores(
    questions: Sequence[tuple[Message, ...]], spellings: Sequence[Sequence[str]], asker: Asker, purpose: str
) -> NDArray[np.float64]:
    """Log-probs of the answers to each question.

    Args:
        questions: Chats that end with a question.
        spellings: How each answer may be written.
        asker: A teacher whose server returns tokens as texts (`abilities.token_texts`).
        purpose: For the ledger.

    Returns:
        (questions, answers) float64, nats; NaN where there was no reply, or none that begins like an answer. All NaN
        after a few questions if the server leaves the log-probs out.

    Raises:
        TeacherError: The teacher refused or stayed away.
    """
    import numpy as np

    found = np.full((len(questions), len(spellings)), np.nan)
    count = tokens_a_place(questions[:_TRIED], spellings, asker, purpose)
    if not count:
        return found
    requests = [_request(question, spellings, count) for question in questions]
    for row, answer in enumerate(asker.ask(requests, purpose)):
        if isinstance(answer.reply, Reply) and answer.reply.finish != "refused":
            shares = answer_shares(answer.reply.said, spellings)
            if shares is not None:
                found[row] = np.log(shares)
    return found


def tokens_a_place(
    questions: Iterable[tuple[Message, ...]], spellings: Sequence[Sequence[str]], asker: Asker, purpose: str
) -> int:
    """How many tokens a place the server gives, by asking a question or, where texts are refused, a few; 0 for none.

    Raises:
        TeacherError: The teacher refused or stayed away.
    """
    for question in questions:
        for count in (asker.abilities.token_texts, _FEWER):
            if not count or count > asker.abilities.token_texts:  # refused by now
                return 0
            reply = asker.ask([_request(question, spellings, count)], purpose)[0].reply
            if isinstance(reply, Reply):
                if reply.said:
                    return count
                if reply.finish == "stop":
                    return 0
                break
    return 0


def _request(question: tuple[Message, ...], spellings: Sequence[Sequence[str]], count: int) -> Request:
    longest = max((likely_tokens(one) for own in spellings for one in own), default=0.0)
    return Request(question, max_tokens=8 + 2 * math.ceil(longest), temperature=0.0, token_texts=count)


def answer_shares(said: Sequence[TokenText], spellings: Sequence[Sequence[str]]) -> list[float] | None:
    """Probability of each answer, of sum 1; None where what was said begins like none of them.

    Args:
        said: The tokens of a reply, with the likeliest in the place of each.
        spellings: How each answer may be written.

    Examples:
        >>> tokens = [TokenText("bill", -0.2, (("bill", -0.2), ("bug", -1.9))), TokenText("ing", 0.0)]
        >>> [round(share, 2) for share in answer_shares(tokens, [["billing"], ["bug"]])]
        [0.85, 0.15]
    """
    if not said:
        return None
    forms = _Forms(spellings)
    shares = [0.0] * len(spellings)
    left = list(range(len(spellings)))
    written, mass = "", 1.0
    for token in said:
        for text, logprob in token.others:
            if text != token.text:
                _give(shares, forms.begun(written + text, left), mass * math.exp(min(logprob, 0.0)))
        mass *= math.exp(min(token.logprob, 0.0))
        written += token.text
        left = forms.begun(written, left)
        if len(left) < 2:
            break
    _give(shares, forms.named(written, left), mass)
    met = [share for share in shares if share > _LEAST]
    if not met:
        return None
    listed = [math.exp(min(value, 0.0)) for _, value in said[0].others]
    floor = max(_LEAST, min([*met, *listed, 2 * (1 - sum(listed))]) / 2)
    filled = [share if share > _LEAST else floor for share in shares]
    total = sum(filled)
    return [share / total for share in filled]


def _give(shares: list[float], places: Sequence[int], mass: float) -> None:
    for place in places:
        shares[place] += mass / len(places)


class _Forms:
    """The spellings of all answers. Capitals count only where two answers differ in nothing else (`US`, `us`)."""

    def __init__(self, spellings: Sequence[Sequence[str]]) -> None:
        # A name that is nothing but marks stays one.
        forms = [{_bare(form) or form.strip() for form in own} for own in spellings]
        folded = [{form.casefold() for form in own} for own in forms]
        self._fold = sum(map(len, folded)) == len(set().union(*folded))
        self._forms = folded if self._fold else forms

    def begun(self, written: str, left: Sequence[int]) -> list[int]:
        """Those of the answers `left` that a text begins, or that it holds whole with something behind them."""
        bare = self._plain(written)
        return [place for place in left if any(f.startswith(bare) or _holds(bare, f) for f in self._forms[place])]

    def named(self, written: str, left: Sequence[int]) -> list[int]:
        """Those of the answers `left` that a whole reply names: `bug report` is no `bug`; all where it names none."""
        bare = self._plain(written)
        lengths = {place: max((len(f) for f in self._forms[place] if _holds(bare, f)), default=0) for place in left}
        longest = max(lengths.values(), default=0)
        return [place for place in left if lengths[place] == longest]

    def _plain(self, text: str) -> str:
        return _bare(text).casefold() if self._fold else _bare(text)


def _bare(text: str) -> str:
    """A text without what models put before an answer."""
    return _DECORATION.sub("", text)


def _holds(text: str, form: str) -> bool:
    """Whether a text begins with an answer, and not with a longer word."""
    return text.startswith(form) and not text[len(form) :][:1].isalnum()
