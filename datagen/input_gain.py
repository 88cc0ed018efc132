"""How much an output says of its own input: what the input adds to the output's log-prob, a token.

Small teachers answer some inputs with talk of the task ("The abstract of a scientific paper is a concise summary of the
main findings"). Such an output is as likely after any other input. Measured is

    gain = (log p(output | its input) - log p(output | another row's input)) / tokens of the output,

which is a pointwise mutual information with one sample in place of the mean over inputs. How large it is depends on the
task, so rows are compared with the middle one. Short outputs are not judged: "none" may be right for many inputs.

Source: Li et al., arXiv:1510.03055 §3 (answers that fit anything have low mutual information with what is answered).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from potstill.asking.chat import task_messages
from potstill.asking.teacher import Reply, ScoreRequest
from potstill.datagen.writing import rng
from potstill.rows import Row
from potstill.task import TaskSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from potstill.asking.asker import Asker

LEAST_SHARE = 0.4
"""A row's gain, by the middle row's, below which its output is taken to say nothing of its input."""

_LEAST_TOKENS = 8
_LEAST_ROWS = 10


def input_gain(
    spec: TaskSpec, rows: Sequence[Row], asker: Asker, purpose: str, *, seed: int = 0
) -> NDArray[np.float64]:
    """The gain of each row's output, nats a token.

    Args:
        spec: A task whose outputs are texts.
        rows: Its rows.
        asker: A teacher that scores.
        purpose: What the ledger books the requests under.
        seed: Decides which other input an output is scored with.

    Returns:
        (n,); NaN for outputs of fewer than eight tokens, without a score, or where there are fewer than ten rows.

    Raises:
        TeacherError: The teacher refused or stayed away.
    """
    import numpy as np

    found = np.full(len(rows), np.nan)
    if len(rows) < _LEAST_ROWS:
        return found
    order = rng(seed, len(rows), "input gain").sample(range(len(rows)), k=len(rows))
    other = {place: order[(at + 1) % len(order)] for at, place in enumerate(order)}
    requests = [
        ScoreRequest(messages=task_messages(spec, rows[place].input), continuations=(row.output,))
        for index, row in enumerate(rows)
        for place in (index, other[index])
    ]
    answers = list(asker.ask(requests, purpose))
    for index in range(len(rows)):
        own, foreign = (answer.reply for answer in answers[2 * index : 2 * index + 2])
        if isinstance(own, Reply) and isinstance(foreign, Reply) and own.scores and foreign.scores:
            tokens = own.score_tokens[0] if own.score_tokens else 0
            if tokens >= _LEAST_TOKENS:
                found[index] = (own.scores[0] - foreign.scores[0]) / tokens
    return found


def says_nothing(gains: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows' gain is far below the middle one; none where too few are known, or the middle is not above 0."""
    import numpy as np

    known = np.isfinite(gains)
    middle = float(np.median(gains[known])) if known.sum() >= _LEAST_ROWS else 0.0
    flagged: NDArray[np.bool_] = known & (middle > 0) & (np.where(known, gains, np.inf) < LEAST_SHARE * middle)
    return flagged
