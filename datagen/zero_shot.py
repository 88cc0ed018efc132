"""The teacher's own answers to a task's inputs, with no example and no training: what a student is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from potstill import prompts
from potstill.asking.chat import task_messages
from potstill.asking.teacher import Message, Reply, Request
from potstill.datagen.outputs import label_reader, stated_output
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from potstill.asking.asker import Asker

PURPOSE = "zero-shot"
MOST_TOKENS = 256


def zero_shot_outputs(
    spec: TaskSpec, inputs: Sequence[str], asker: Asker, *, max_tokens: int = MOST_TOKENS
) -> list[str]:
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
    answers = asker.ask(requests, PURPOSE)
    return [stated_output(spec, answer.reply.text) if isinstance(answer.reply, Reply) else "" for answer in answers]


def zero_shot_labels(
    spec: TaskSpec, inputs: Sequence[str], asker: Asker, *, max_chars: int = 4000, max_tokens: int = MOST_TOKENS
) -> list[str]:
    """The label that the teacher writes for each input, for a teacher that gives no label scores.

    Where the backend can be told the choices it is, so that no answer is lost to another wording.

    Args:
        spec: A classification task.
        inputs: Texts, in order.
        asker: The teacher.
        max_chars: Longer texts are cut, as they are for label scores.
        max_tokens: Most new tokens; a label takes few, but some servers count what the model thinks before it.

    Returns:
        One label an input; an empty string where the teacher named none, refused or gave no answer.

    Raises:
        TeacherError: The teacher refused or stayed away.
    """
    names = spec.label_names
    prompt, read = prompts.load("choose_label"), label_reader(names)
    requests = [
        Request(
            messages=(
                Message(
                    "user", prompt.render(instruction=spec.instruction, input=text[:max_chars], labels=list(names))
                ),
            ),
            max_tokens=max_tokens,
            temperature=0.0,
            choices=names if asker.abilities.choices else None,
        )
        for text in inputs
    ]
    replies = [answer.reply for answer in asker.ask(requests, PURPOSE)]
    return [
        (read(reply.text) or "") if isinstance(reply, Reply) and reply.finish != "refused" else "" for reply in replies
    ]
