"""What answering the user's own inputs will take, apart from what is written beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from potstill.asking.token_estimate import likely_tokens
from potstill.datagen.answering import answer_messages
from potstill.plan.steps import Size, Step

if TYPE_CHECKING:
    from potstill.datagen.own_inputs import Own
    from potstill.datagen.probe import Probe
    from potstill.task import TaskSpec

_A_MESSAGE = 8.0  # what a chat template adds
_LEAST_TIMED = 8
_LOOKED_AT = 200


def own_step(
    spec: TaskSpec,
    own: Own,
    replied: float,
    *,
    probed: Probe | None = None,
    earlier: Size | None = None,
    report: Mapping[str, Any] | None = None,
    stage: str = "datagen",
) -> Step:
    """The requests that answer the inputs, in the surest way in which they are known.

    Args:
        spec: The task.
        own: The inputs.
        replied: Tokens that an answer is assumed to take.
        probed: The first answers.
        earlier: Of the requests that an earlier run in the folder made.
        report: Of that run's writing.
        stage: What the step is called: `answers` where another teacher than the one that writes answers.
    """
    count = len(own.inputs)
    tally = probed.tally if probed is not None else None
    before = (report or {}).get("own_inputs", {})
    if probed is not None and tally is not None and tally.requests:
        speed = probed.seconds / probed.fresh if probed.fresh >= _LEAST_TIMED else earlier.seconds if earlier else None
        size = Size(tally.prompt_tokens / tally.requests, tally.completion_tokens / tally.requests, speed, "probe")
        # Those that are asked again, for their form, are asked twice.
        return size.times(stage, count * tally.requests / max(1, tally.texts - len(own.dropped)))
    sample = own.inputs[:: max(1, count // _LOOKED_AT)]
    messages = [message for item in sample for message in answer_messages(spec, item.text)]
    read = sum(likely_tokens(message.content) + _A_MESSAGE for message in messages) / max(1, len(sample))
    if before.get("requests") and earlier is not None:
        again = before["requests"] / max(1, before["asked"])
        return earlier.times(stage, count * again)
    return Size(read, replied, None, "assumed").times(stage, count)
