"""The teacher's own answers to a task's inputs, with no example and no training: what a student is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from potstill.chat import task_messages
from potstill.datagen.outputs import stated_output
from potstill.task import TaskSpec
from potstill.teacher import Reply, Request

if TYPE_CHECKING:
    from potstill.asker import Asker


def zero_shot_outputs(spec: TaskSpec, inputs: Sequence[str], asker: Asker, *, max_tokens: int = 256) -> list[str]:
    """The teacher's greedy answer to each input, in the form of `chat.task_messages`.

    Args:
        spec: The task.
        inputs: Texts, in order.
        asker: The teacher.
        max_tokens: Most new tokens; a longer answer is taken as far as it goes.

    Returns:
        One answer an input; an empty string where the teacher gave none.

    Raises:
        TeacherError: The teacher refused or stayed away.
    """
    requests = [Request(messages=task_messages(spec, text), max_tokens=max_tokens, temperature=0.0) for text in inputs]
    answers = asker.ask(requests, "zero-shot")
    return [stated_output(spec, answer.reply.text) if isinstance(answer.reply, Reply) else "" for answer in answers]
