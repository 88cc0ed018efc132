"""What a teacher adds to the search: hypothetical cards before it, a second opinion on its first hits after it.

Both are off by default: with the embedded teacher neither helps (docs/retrieval-search.md). Both go through the asker,
so a search that is repeated asks nothing again. A card's text reaches a teacher only where the reply is a number, the
likelihood of the user's own words, so a card that holds instructions can give none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from potstill import prompts
from potstill.asking.teacher import Message, Reply, Request, ScoreRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from potstill.asking.asker import Asker

CARD_CHARACTERS = 400
MAX_TOKENS = 120
PURPOSE = "retrieval"


def hypothetical_cards(task: str, count: int, asker: Asker, *, seed: int = 0) -> list[str]:
    """Descriptions of datasets that would serve a task, as the teacher imagines them.

    Args:
        task: What is searched for.
        count: How many; the first is the teacher's greedy answer, the others are sampled.
        asker: The teacher.
        seed: Of the samples.

    Returns:
        At most `count` texts; a refused or empty reply leaves its place out.

    Source: arXiv:2212.10496 §3 (there: of one to eight samples the embeddings are averaged with the query's).
    """
    answers = asker.ask(hypothetical_card_requests(task, count, seed=seed), PURPOSE)
    texts = [answer.reply.text.strip() for answer in answers if isinstance(answer.reply, Reply)]
    return [text for text in texts if text]


def hypothetical_card_requests(task: str, count: int, *, seed: int = 0) -> list[Request]:
    """What `hypothetical_cards` asks; whoever has many tasks asks for all of them at once first."""
    message = Message("user", prompts.load("hypothetical_card").render(task=task))
    return [
        Request((message,), max_tokens=MAX_TOKENS, temperature=0.8 if sample else 0.0, seed=seed, sample=sample)
        for sample in range(count)
    ]


def query_likelihood(task: str, cards: Sequence[str], asker: Asker) -> NDArray[np.float64]:
    """How likely the teacher finds the task after reading each card.

    Args:
        task: What is searched for.
        cards: Texts of the cards; each is cut to 400 characters.
        asker: The teacher; it must be able to score (`abilities.scores`).

    Returns:
        (n,) mean log-prob a token of the task, nats; NaN where the teacher gave no reply.

    Source: arXiv:2204.07496 §2.
    """
    import numpy as np

    prompt = prompts.load("query_for_card")
    requests = [
        ScoreRequest((Message("user", prompt.render(card=card[:CARD_CHARACTERS])),), continuations=(task,))
        for card in cards
    ]
    replies = [answer.reply for answer in asker.ask(requests, PURPOSE)]
    return np.array(
        [
            reply.scores[0] / max(1, reply.score_tokens[0]) if isinstance(reply, Reply) and reply.scores else np.nan
            for reply in replies
        ],
        dtype=np.float64,
    )
