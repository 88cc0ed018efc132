"""Token-level soft targets: the teacher's top-k log-probs of each output token, and the log of the rest of its mass.

A side table keyed by row id. With the rest of the mass as one more bucket, 32 log-probs a token give a gradient at
0.995 cosine to that of the whole vocabulary; renormalised without it, 0.964. Temperature is 1 throughout. Targets come
free while the teacher writes (`written_target`); for rows from elsewhere one scoring pass brings them (`targets_for`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from potstill.asking.chat import task_messages
from potstill.asking.teacher import Reply, ScoreRequest, TokenTop
from potstill.events import Event, Listener, silent
from potstill.rows import Row, stripped_text
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset, Features

    from potstill.asking.asker import Asker

PURPOSE = "soft"
# Mass that rounding leaves over: without a floor the log of the rest would be minus infinity.
_LEAST_TAIL = 1e-8


def target_features() -> Features:
    """Schema of the side table; `top_logprobs` and `tail` are nats at temperature 1."""
    from datasets import Features, List, Value

    return Features(
        {
            "id": Value("string"),
            "token_ids": List(Value("int32")),
            "top_ids": List(List(Value("int32"))),
            # Half the bytes of float32, at an error of at most 0.008 nats.
            "top_logprobs": List(List(Value("float16"))),
            "tail": List(Value("float32")),
        }
    )


def tail_logprob(logprobs: Sequence[float]) -> float:
    """Log of the mass outside the top-k: log(1 - Σ exp(logprobs)), at least log 10⁻⁸."""
    return math.log(max(_LEAST_TAIL, 1.0 - math.fsum(math.exp(value) for value in logprobs)))


def target_row(row_id: str, top: Sequence[TokenTop], k: int) -> dict[str, Any]:
    """One row of the side table: the k likeliest of each position, likeliest first."""
    import numpy as np

    ids: list[list[int]] = []
    logprobs: list[list[float]] = []
    for item in top:
        order = sorted(range(len(item.top_ids)), key=lambda i: -item.top_logprobs[i])[:k]
        ids.append([item.top_ids[i] for i in order])
        # As they are stored, so that the tail makes up for the rounding.
        logprobs.append(np.array([item.top_logprobs[i] for i in order], dtype=np.float16).astype(float).tolist())
    return {
        "id": row_id,
        "token_ids": [item.token_id for item in top],
        "top_ids": ids,
        "top_logprobs": logprobs,
        "tail": [tail_logprob(values) for values in logprobs],
    }


def written_target(row: Row, reply: Reply, k: int) -> dict[str, Any] | None:
    """Targets of a row whose output the teacher just wrote.

    None where the output is not the reply's text word for word (cleaning changed it): its tokens would not be the
    output's.
    """
    return target_row(row.id, reply.top, k) if reply.top and stripped_text(reply.text) == row.output else None


def targets_for(
    spec: TaskSpec,
    table: Dataset,
    asker: Asker,
    k: int = 32,
    *,
    have: Dataset | None = None,
    listener: Listener = silent,
) -> Dataset:
    """Targets for every row of a table, by scoring the outputs that have none yet.

    Args:
        spec: The task; prompts are `chat.task_messages`, as the student sees them.
        table: Rows in the one schema.
        asker: The teacher.
        k: Log-probs a token; at most what the teacher gives.
        have: Targets stored while the teacher wrote; taken over for the ids of `table`.
        listener: Called with progress.

    Returns:
        The side table, in the order of `table`; rows whose scoring failed are left out.
    """
    k = min(k, asker.abilities.top_logprobs)
    stored: dict[str, Mapping[str, Any]] = {}
    if have is not None:
        wanted = set(table["id"])
        stored = {item["id"]: item for item in have if item["id"] in wanted}
    missing = [item for item in table.select_columns(["id", "input", "output"]) if item["id"] not in stored]
    made: dict[str, Mapping[str, Any]] = dict(stored)
    if k > 0 and asker.abilities.scores and missing:
        listener(Event("soft", "progress", f"scoring {len(missing)} outputs", 0, len(missing)))
        requests = [
            ScoreRequest(messages=task_messages(spec, item["input"]), continuations=(item["output"],), top_logprobs=k)
            for item in missing
        ]
        for item, answer in zip(missing, asker.ask(requests, PURPOSE), strict=True):
            if isinstance(answer.reply, Reply) and answer.reply.top:
                made[item["id"]] = target_row(item["id"], answer.reply.top, k)
        listener(Event("soft", "progress", "outputs scored", len(missing), len(missing)))
    return target_table([made[id] for id in table["id"] if id in made])


def target_table(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """Gather rows of the side table."""
    from datasets import Dataset

    features = target_features()
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)
