"""The one form in which a task's input is put to a model: teacher zero-shot, token targets and student share it."""

from __future__ import annotations

from potstill.asking.teacher import Message
from potstill.task import TaskSpec


def task_messages(spec: TaskSpec, input: str) -> tuple[Message, ...]:
    """One user turn: the instruction, a blank line, the input. No system turn."""
    return (Message("user", f"{spec.instruction}\n\n{input}"),)
