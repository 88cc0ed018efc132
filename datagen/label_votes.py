"""How often a teacher answers each label: probabilities of one that gives no log-probs.

Each question is answered several times with sampling (self-consistency, Wang et al., arXiv:2203.11171), and the answers
are counted. An answer that names no label counts for none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from zlib import crc32

from potstill.asking.teacher import Message, Reply, Request
from potstill.datagen.outputs import label_reader
from potstill.datagen.writing import rng

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from potstill.asking.asker import Asker

_MOST_TOKENS = 24


def vote_scores(
    questions: Sequence[tuple[Message, ...]],
    names: Sequence[str],
    asker: Asker,
    purpose: str,
    *,
    votes: int,
    temperature: float,
    seed: int,
) -> NDArray[np.float64]:
    """Log share of the sampled answers that name each label, one vote spread evenly beforehand.

    Args:
        questions: Chats that end with a question for a label.
        names: The labels.
        asker: The teacher; where it can be told the choices it is, so that no vote is lost to another wording.
        purpose: For the ledger.
        votes: Answers to each question.
        temperature: Of the sampling.
        seed: Of the sampling.

    Returns:
        (questions, labels) float64; NaN where no answer named a label.

    Raises:
        TeacherError: The teacher refused or stayed away.
    """
    import numpy as np

    read = label_reader(names)
    requests = [
        Request(
            messages=question,
            max_tokens=_MOST_TOKENS,
            temperature=temperature,
            # Of the question and not of its place: with other texts beside it, its answers are in the ledger still.
            seed=rng(seed, crc32(question[-1].content.encode()), "votes").randrange(2**31),
            sample=sample,
            choices=tuple(names) if asker.abilities.choices else None,
            tag=index,
        )
        for index, question in enumerate(questions)
        for sample in range(votes)
    ]
    counts = np.full((len(questions), len(names)), 1 / len(names))
    heard = np.zeros(len(questions), dtype=bool)
    for answer in asker.ask(requests, purpose):
        if isinstance(answer.reply, Reply) and answer.reply.finish != "refused":
            name = read(answer.reply.text)
            if name is not None:
                row = int(str(answer.request.tag))
                counts[row, list(names).index(name)] += 1
                heard[row] = True
    scores: NDArray[np.float64] = np.log(counts / counts.sum(axis=1, keepdims=True))
    scores[~heard] = np.nan
    return scores
