"""Healing: a compressed student is taught by its uncompressed self, or by the teacher, until it speaks like it again.

What enters: the student, who teaches it, and texts as token ids. What leaves: the same student, healed in place. Its
masks hold, so a pruned weight stays zero; under a `quantizer` it learns with rounded weights (QAT).

    causal          KL(teacher ‖ student) · T² at every position, plus c · (1 − cos of the last hidden states)
    classification  KL(teacher ‖ student) · T² on the logits, plus the cross-entropy with the labels where there are any

No dropout: the teacher's answer to a text is the target itself, and noise on the student would only move it away.

The logits of a causal model exist for a chunk of positions at a time: the loss and its gradient are made there from
both models' hidden states, so a vocabulary of 49,152 costs 50 MiB and not gigabytes. Token embeddings rest unless they
are asked to learn: pruning left them as they were, and they are a fifth to a half of a small student.

Sources: Hinton et al., arXiv:1503.02531 §2; Sanh et al., arXiv:1910.01108 §3 (cosine of hidden states).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch

from potstill.errors import OptionError, TrainingError
from potstill.events import Event, Listener, silent
from potstill.train.calibration_data import Calibration
from potstill.train.output_head import check_head
from potstill.train.prune.masks import Masks
from potstill.train.prune.stream import evaluating
from potstill.train.teach import answer_loss, fresh_batches

Quantizer = Callable[[Any], AbstractContextManager[Any]]


@dataclass(frozen=True)
class HealResult:
    """A healing.

    Attributes:
        losses: Loss of each step, nats a token (causal) or a row.
        steps: Optimiser steps taken.
        tokens: Tokens that were learnt from, without padding.
        seconds: Wall-clock time.
        learning_rate: Its peak.
    """

    losses: tuple[float, ...]
    steps: int
    tokens: int
    seconds: float
    learning_rate: float


@dataclass(frozen=True)
class HealOptions:
    """How a student is healed.

    Attributes:
        steps: Optimiser steps.
        learning_rate: Peak rate of AdamW; None leaves it to the trainer: 2e-4 for decoders and 1e-4 for classifiers,
            and 1e-3 for adapters, as these are given hundreds of steps and not thousands.
        temperature: T of the soft targets.
        hidden_weight: Weight c of the direction of the last hidden states (causal).
        warmup: Share of the steps in which the rate rises; afterwards it falls along a cosine to a tenth.
        clip: Largest norm of the gradient.
        seed: Decides the order of the batches.
    """

    steps: int = 60
    learning_rate: float | None = None
    temperature: float = 1.0
    hidden_weight: float = 0.0
    warmup: float = 0.1
    clip: float = 1.0
    seed: int = 0

    def with_rate(self, otherwise: float) -> HealOptions:
        """The options with a learning rate, `otherwise` where none was given."""
        return self if self.learning_rate is not None else replace(self, learning_rate=otherwise)


def heal(
    model: Any,
    teacher: Any,
    data: Calibration,
    options: HealOptions | None = None,
    *,
    masks: Masks | None = None,
    quantizer: Quantizer | None = None,
    train_embeddings: bool = False,
    listener: Listener = silent,
) -> HealResult:
    """Distil a student from a teacher in place.

    Args:
        model: The student, in float32.
        teacher: Whom it listens to, of the same vocabulary or classes: the uncompressed student, or a larger model.
        data: Texts. Every step takes a batch that has not been seen yet, until all have been; then in a new order.
        options: How; None for the defaults.
        masks: Which weights stay zero.
        quantizer: Called with the student; a context in which its weights are computed from rounded ones.
        train_embeddings: Whether the token embeddings (and a head tied to them) learn too.
        listener: Told after each step.

    Raises:
        OptionError: Impossible options, models whose outputs differ, or no text.
        TrainingError: The loss is not finite.
    """
    options = (options or HealOptions()).with_rate(2e-4 if data.kind == "causal" else 1e-4)
    check_healing(model, teacher, data, options)
    teacher.to(model.device)
    with contextlib.ExitStack() as held:
        held.enter_context(evaluating(model))
        held.enter_context(evaluating(teacher))
        if not train_embeddings:
            held.enter_context(_resting(model.get_input_embeddings().weight))
        if masks is not None:
            held.enter_context(masks.hold(model))
        if quantizer is not None:
            held.enter_context(quantizer(model))
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return listen(model, teacher, data, learning, options, listener=listener)


def listen(
    model: Any,
    teacher: Any,
    data: Calibration,
    learning: list[torch.nn.Parameter],
    options: HealOptions,
    *,
    listener: Listener = silent,
    name: str = "heal",
) -> HealResult:
    """The steps of a healing: fresh batches, the distance from the teacher's answers, AdamW.

    Args:
        model: The student.
        teacher: Whom it listens to, on the same device.
        data: Texts.
        learning: What is trained.
        options: How, with a learning rate.
        listener: Told after each step.
        name: What the events call it.

    Raises:
        TrainingError: The loss is not finite.
    """
    rate, steps = float(options.learning_rate or 0.0), options.steps
    started = time.monotonic()
    seen: list[float] = []
    tokens = 0
    optimizer = torch.optim.AdamW(learning, lr=rate, weight_decay=0.0, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _factor(step, steps, options.warmup))
    batches = fresh_batches(data, options.seed)
    for step in range(1, steps + 1):
        batch = {key: value.to(model.device) for key, value in next(batches).items()}
        loss = answer_loss(model, teacher, batch, data.kind, options.temperature, options.hidden_weight)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {float(loss.detach())} at step {step} of healing; lower learning_rate (now {rate:g})"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learning, options.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        seen.append(float(loss.detach()))
        tokens += int(batch["attention_mask"].sum())
        listener(Event("compress", "progress", f"{name}: step {step}/{steps}, loss {seen[-1]:.4f}", step, steps))
    return HealResult(tuple(seen), steps, tokens, round(time.monotonic() - started, 2), rate)


def check_healing(model: Any, teacher: Any, data: Calibration, options: HealOptions) -> None:
    """Refuse what cannot be healed.

    Raises:
        OptionError: Every reason.
        TrainingError: A causal model makes its logits in a way that `output_head` does not know.
    """
    faults = []
    if options.steps < 1:
        faults.append(f"steps {options.steps} is too few; give at least 1")
    for name in ("learning_rate", "temperature"):
        if not (value := getattr(options, name)) > 0:
            faults.append(f"{name} {value!r} must be above 0")
    if data.tokens == 0:
        faults.append("there is no text to heal on; give some")
    ours, theirs = _outputs(model, data.kind), _outputs(teacher, data.kind)
    if ours != theirs:
        faults.append(f"the student gives {ours} logits and the teacher {theirs}; both need the same tokens or classes")
    widths = [int(m.config.get_text_config().hidden_size) for m in (model, teacher)]
    if options.hidden_weight and widths[0] != widths[1]:
        faults.append(f"hidden_weight compares states of width {widths[0]} and {widths[1]}; set it to 0")
    if options.hidden_weight and data.kind != "causal":
        faults.append("hidden_weight is for causal models; set it to 0")
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if dtypes != {torch.float32}:
        faults.append(f"the student's weights are {', '.join(map(str, dtypes))}; healing needs float32, call .float()")
    if faults:
        raise OptionError("heal", faults)
    if data.kind == "causal":
        check_head(model, "the student")
        check_head(teacher, "the teacher")


def _outputs(model: Any, kind: str) -> int:
    if kind == "classification":
        return int(model.config.num_labels)
    head = model.get_output_embeddings()
    return int(head.weight.shape[0])


@contextlib.contextmanager
def _resting(parameter: torch.nn.Parameter) -> Iterator[None]:
    before = parameter.requires_grad
    parameter.requires_grad_(False)
    try:
        yield
    finally:
        parameter.requires_grad_(before)


def _factor(step: int, steps: int, warmup: float) -> float:
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
