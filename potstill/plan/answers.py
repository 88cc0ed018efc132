"""What a plan knows of outputs that another teacher writes (`generation.output_teacher`), and of reasoning."""

from __future__ import annotations

from potstill.plan.steps import Size, Step

# Steps and purposes in which the teacher of the outputs is asked, where the answer is a text.
ANSWERED = frozenset(("answers", "soft", "outputs", "rationales", "evaluate", "zero-shot", "on policy", "train"))
# Share of outputs that are kept, and the tokens of the words around a row whose output is to be explained.
ANSWERS_KEPT = 0.9
EXPLAIN_TOKENS = 50.0


def by_teacher(step: Step, rows: int, writes: Size | None, answers: Size) -> list[Step]:
    """The requests of a writing, apart for each of the two teachers.

    Args:
        step: All of them; the time of a teacher whose own is not known is not known either.
        rows: Rows wanted.
        writes: What a request of the teacher that writes the inputs takes; None where that is known of all alone.
        answers: What a request of the teacher that answers takes.
    """
    answered = min(step.requests, round(rows / ANSWERS_KEPT))
    mean = Size(
        step.prompt_tokens / max(1, step.requests), step.completion_tokens / max(1, step.requests), None, step.basis
    )
    return [(writes or mean).times(step.stage, step.requests - answered), answers.times("answers", answered)]
