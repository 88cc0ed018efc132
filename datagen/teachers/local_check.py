"""How this process can batch a model: tried once where nobody knows its kind, before anything is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.decoding.batch_check import Manner


def teacher_manner(model: Any, pad: int) -> tuple[Manner | None, str]:
    """The fastest way of batching a model that gives right texts and scores; None and the reason where there is none.

    Args:
        model: The model, with the library's own attention.
        pad: A token to pad with.
    """
    from potstill.decoding.batch_check import known_manner, manner_of
    from potstill.decoding.model import grouped_attention

    if model.get_output_embeddings() is None:
        return None, "it has no output layer"
    if known := known_manner(model):
        return known, ""
    manner, fault = manner_of(model)
    if manner == "slots":
        with grouped_attention(model):
            if not _side_by_side_fault(model, pad):
                return manner, ""
        manner, fault = manner_of(model, slots=False)
    fault = fault or _in_waves_fault(model, pad, pads=manner == "padded")
    return (None, fault) if fault else (manner, "")


def _side_by_side_fault(model: Any, pad: int) -> str:
    from potstill.datagen.teachers.local_scores import ScoreItem, score_batch

    return _scores_fault(model, lambda items: score_batch(model, items, pad), ScoreItem)


def _in_waves_fault(model: Any, pad: int, *, pads: bool) -> str:
    from potstill.datagen.teachers.local_scores import ScoreItem
    from potstill.datagen.teachers.local_scores_in_waves import score_in_waves
    from potstill.decoding.model import OutputHead

    head = OutputHead(model)
    return _scores_fault(model, lambda items: score_in_waves(model, head, items, pad, pads=pads), ScoreItem)


def _scores_fault(model: Any, score: Callable[[list[Any]], Sequence[Any]], item: Callable[..., Any]) -> str:
    from potstill.decoding.batch_check import fault_of, plain_logprobs, prompts_of

    prompts = prompts_of(model)
    words = [prompts[1][first : first + 6] for first in (0, 9, 18)]

    def differences() -> list[float]:
        told = score([item(prompt, words) for prompt in prompts])
        return [
            (found - sum(plain_logprobs(model, prompt, word))) / len(word)
            for prompt, (scores, _) in zip(prompts, told, strict=True)
            for word, found in zip(words, scores, strict=True)
        ]

    return fault_of(model, differences)
