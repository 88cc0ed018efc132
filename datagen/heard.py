"""What later prompts may show as already written: how the texts of earlier replies begin.

A prompt that shows earlier texts depends on the replies before it, and so does whether the ledger knows it. Three rules
keep that to what was really asked again:

- Request n of a label sees the replies to its requests up to n - `lag(n)`, whatever filters made of them.
- Of each reply only the beginning of its first text is shown, which is the same when a higher `max_tokens` lets a reply
  end that was cut; of a reply that the ledger holds both cut and whole, the one that came first counts. So even where a
  hosted model answers differently the second time, the prompts after it stay as they were.
- Each request has a place of its own, empty where nothing can be shown. Prompts draw places, so one place that changes
  touches only the prompts that drew it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from potstill.asking.teacher import Failure, Reply, Request
from potstill.asking.teacher_json import reply_from_json
from potstill.datagen.writing import Material, read_reply
from potstill.errors import DataError

if TYPE_CHECKING:
    from potstill.asking.ledger import Ledger
    from potstill.asking.stream import Answer

# Of each label's replies, the latest so many may be shown.
SHOWN_FROM = 256
# Shown of a text: some fifteen English words, less than any sensible `max_tokens` holds.
SHOWN_CHARS = 100

FirstReply = Callable[["Answer"], "Reply | Failure"]


class Heard:
    """How the replies to one label's requests begin.

    Args:
        lag: How far a request is behind the replies that it sees, at least.
    """

    def __init__(self, lag: int):
        self._lag = lag
        self._coming: deque[tuple[int, str]] = deque()
        self._seen: deque[str] = deque(maxlen=SHOWN_FROM)

    def lag(self, number: int) -> int:
        """How far request `number` is behind the replies that it sees: so many of its label may be in flight.

        It grows with the number, so that a label which is late, because much of it was dropped, can have as many
        requests in flight as all labels together had at first.
        """
        return max(self._lag, number // 2)

    def add(self, number: int, text: str) -> None:
        """What the reply to request `number` shows (see `beginning`), or "". Numbers must not fall."""
        self._coming.append((number, text))

    def before(self, number: int) -> Sequence[str]:
        """The places that request `number` may draw from, oldest first, some of them empty; numbers must not fall."""
        while self._coming and self._coming[0][0] <= number - self.lag(number):
            self._seen.append(self._coming.popleft()[1])
        return self._seen


def beginning(material: Material, request: Request, reply: Reply | Failure) -> str:
    """The first 100 characters of a reply's first text, to a whole word; "" where it has none, or was cut before."""
    if isinstance(reply, Failure):
        return ""
    cut = reply.finish == "length"
    written = read_reply(material, request, replace(reply, finish="stop") if cut else reply)[0]
    text = " ".join(written.text.split())
    if written.fault or (cut and len(text) <= SHOWN_CHARS):
        return ""
    if len(text) <= SHOWN_CHARS:
        return text
    head = text[:SHOWN_CHARS]
    return (head.rpartition(" ")[0] or head) + " …"


def first_reply_of(ledger: Ledger) -> FirstReply:
    """For an answer, the reply that the ledger got first: the cut one of a request that was asked again."""

    def first_reply(answer: Answer) -> Reply | Failure:
        try:
            entry = ledger.first(answer.key)
        except DataError:  # a damaged reply has been asked again; what came is the answer
            return answer.reply
        return answer.reply if entry is None else reply_from_json(entry.reply)

    return first_reply
