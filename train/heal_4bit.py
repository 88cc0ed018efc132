"""QLoRA as a step of a recipe: a decoder is healed while its base rests in 4 bits, and stays a model of full weights.

What enters: the decoder under compression in float32, who teaches it, texts. What leaves: the same decoder, each matrix
moved by a product of low rank.

    ŵ = NF4(w) + (α / r) · B A            A, B learn, NF4(w) rests: bitsandbytes' own tensors, double quantisation
    w ← w + (α / r) · B A                 merged into w as it was before rounding

Against `heal`, which moves every weight, only A and B have gradients and moments of AdamW, and the base takes an eighth
of the memory. The rounded copy is thrown away: merging into it would round the sum once more, and on a CPU that has
answered, bitsandbytes keeps the codes in another order and returns garbage without an error. So a rounding that is
wanted in the files is a step after this one; it rounds the merged weights afresh.

Where this leaves the paper: r is 16 (there 64), α is 2 r, so that the product counts twice (there α = 16, a quarter),
and the rate is 1e-3 (there 2e-4), since hundreds of steps stand where the paper has thousands; `rank`, `alpha` and
`learning_rate` take the paper's values. There is no dropout (there 0.05 to 0.1): as in `heal`, the teacher's answer to
a text is the target itself, and noise on the student would only move it away. Neither choice was measured against the
paper's.

Source: Dettmers et al., QLoRA, arXiv:2305.14314 §3 (adapters on every linear layer, r = 64, α = 16, rate 2e-4).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import torch

from potstill.events import Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.heal import HealOptions, HealResult, check_healing, listen
from potstill.train.prune.stream import evaluating
from potstill.train.qlora import load_4bit, lora_config, merge_into
from potstill.train.quiet import quiet_transformers


def heal_4bit(
    model: Any,
    teacher: Any,
    data: Calibration,
    options: HealOptions | None = None,
    *,
    rank: int = 16,
    alpha: float | None = None,
    listener: Listener = silent,
) -> HealResult:
    """Train adapters over a 4-bit copy of a decoder and merge them into it, in place.

    Args:
        model: The decoder, in float32.
        teacher: Whom it listens to.
        data: Running text or chats.
        options: As of `heal`; None for the defaults.
        rank: r of the adapters.
        alpha: α; None takes 2 r.
        listener: Told after each step.

    Raises:
        MissingExtra: peft or bitsandbytes is not installed.
        OptionError: As `heal`.
        TrainingError: The loss is not finite.
        UserError: bitsandbytes cannot quantise on this machine.
    """
    how = lora_config(model, rank, alpha if alpha is not None else 2.0 * rank, "qlora", "the step qlora")
    from peft import get_peft_model

    options = (options or HealOptions()).with_rate(1e-3)
    check_healing(model, teacher, data, options)
    with tempfile.TemporaryDirectory() as place, quiet_transformers():
        model.save_pretrained(place)
        base = load_4bit(place, "the step qlora")
    base.name_or_path = getattr(model, "name_or_path", "")  # peft warns where the two differ
    trained = get_peft_model(base, how)
    inner = trained.get_base_model()
    teacher.to(inner.device)
    learning = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    with evaluating(inner), evaluating(teacher):
        result = listen(inner, teacher, data, learning, options, listener=listener, name="qlora")
    teacher.to(model.device)
    with _wanting_gradients(model):
        merged = merge_into(model, trained)
    assert merged is model
    return result


@contextlib.contextmanager
def _wanting_gradients(model: torch.nn.Module) -> Iterator[None]:
    """peft freezes the base that it merges into; a later step wants to train it."""
    before = {id(parameter): parameter.requires_grad for parameter in model.parameters()}
    try:
        yield
    finally:
        for parameter in model.parameters():
            parameter.requires_grad_(before.get(id(parameter), True))
