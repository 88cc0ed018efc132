"""Whether this process can batch a model: tried once where nobody knows its kind, before anything is asked of it."""

from __future__ import annotations

from typing import Any


def passes_fault(model: Any, pad: int) -> str:
    """Why texts or scores of a model would be wrong here; "" where they are right, and for a known kind."""
    from potstill.decoding.batch_check import decoding_fault, fault_of, is_known

    if is_known(model):
        return ""
    return decoding_fault(model) or fault_of(model, lambda: _scored(model, pad))


def _scored(model: Any, pad: int) -> list[float]:
    from potstill.datagen.teachers.local_scores import ScoreItem, score_batch
    from potstill.decoding.batch_check import plain_logprobs, prompts_of

    prompts = prompts_of(model)
    words = [prompts[1][first : first + 6] for first in (0, 9, 18)]
    told = score_batch(model, [ScoreItem(prompt, words) for prompt in prompts], pad)
    return [
        (score - sum(plain_logprobs(model, prompt, word))) / len(word)
        for prompt, (scores, _) in zip(prompts, told, strict=True)
        for word, score in zip(words, scores, strict=True)
    ]
