"""The teacher's own answers to a task's inputs, without training.

What a student is compared with, and what labels texts where the teacher gives no probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from potstill.asking.chat import task_messages
from potstill.asking.teacher import Reply, Request
from potstill.datagen.label_question import label_questions
from potstill.datagen.label_scores import shows_examples
from potstill.datagen.outputs import label_reader, stated_output
from potstill.datagen.soft_options import SoftOptions
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
    spec: TaskSpec, inputs: Sequence[str], asker: Asker, options: SoftOptions, *, max_tokens: int = MOST_TOKENS
) -> list[str]:
    """The label that the teacher writes for each input, for a teacher that gives no label scores.

    Where the backend can be told the choices it is, so that no answer is lost to another wording.

    Args:
        spec: A classification task.
        inputs: Texts, in order.
        asker: The teacher.
        options: How long a text may be, and whether the task's examples are shown, as for label scores.
        max_tokens: Most new tokens; a label takes few, but some servers count what the model thinks before it.

    Returns:
        One label an input; an empty string where the teacher named none, refused or gave no answer.

    Raises:
        TeacherError: The teacher refused or stayed away.
    """
    names = spec.label_names
    read = label_reader(names)
    texts = [text[: options.max_chars] for text in inputs]
    requests = [
        Request(
            messages=question,
            max_tokens=max_tokens,
            temperature=0.0,
            choices=names if asker.abilities.choices else None,
        )
        for question in label_questions(spec, texts, "choose_label", examples=shows_examples(asker, options))
    ]
    replies = [answer.reply for answer in asker.ask(requests, PURPOSE)]
    return [
        (read(reply.text) or "") if isinstance(reply, Reply) and reply.finish != "refused" else "" for reply in replies
    ]
