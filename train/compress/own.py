"""A step of the user's own in a recipe: a function of the model and of texts, checked by what it left.

    def step(model, calibration): ...; return model            or an object with such a method `apply`

What enters: the student's model in float32, and `Calibration`, the batches that methods look at. What leaves: the model
itself, changed in place, or another one of the same class. `kind` on the function or object says what it does, and so
where it may stand: `structure` (some of it is cut or set to zero; where nothing is said), `sparsity` (weights are set
to zero), or `heal` (weights move, and none is removed). Nothing is loaded from a name: who calls has the function.

Its name and a digest of its source stand in the recipe of every file and report. What it says of itself counts as
little as with the methods here: zeros and parameters are counted, weights that were pruned before stay zero, and files
that are loaded again give the same answers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from potstill.errors import OptionError, PotstillError, TrainingError
from potstill.train.calibration_data import Calibration
from potstill.train.compress.methods import Method, StepKind
from potstill.train.compress.recipe import Step
from potstill.train.compress.state import Compressed
from potstill.train.prune.masks import Masks
from potstill.train.quantize.schemes import layer_list, targets

KINDS = ("structure", "sparsity", "heal")
Apply = Callable[[Any, Calibration], Any]


@dataclass(frozen=True)
class OwnStep(Step):
    """A step that a user wrote.

    Attributes:
        name: What reports call it.
        digest: Of its source and what it reads, in hex.
        does: Its kind.
        apply: Takes the model and texts, gives the model.
    """

    name: str = ""
    digest: str = ""
    does: StepKind = "structure"
    apply: Apply = lambda model, _: model

    @property
    def kind(self) -> str:
        """structure, sparsity or heal."""
        return self.does

    @property
    def about(self) -> Method:
        """What any step is asked: it needs no option, text or library that is known here."""
        return Method("own", self.does, "a step of the user's own", "")

    def __str__(self) -> str:
        return f"own:{self.name}@{self.digest[:12]}"


def is_own(given: object) -> bool:
    """Whether an item of a recipe is code of the user and no text."""
    return callable(given) or callable(getattr(given, "apply", None))


def own_step(given: Any, digest: str) -> OwnStep:
    """A function, or an object with `apply`, as a step.

    Args:
        given: It.
        digest: Of its source.

    Raises:
        OptionError: Its kind is unknown.
    """
    apply = getattr(given, "apply", None)
    told = getattr(given, "name", None) or getattr(given, "__name__", None) or type(given).__name__
    name = re.sub(r"[^\w.-]+", "-", str(told)).strip("-") or "step"
    kind = getattr(given, "kind", "structure")
    if kind not in KINDS:
        raise OptionError(
            "recipe",
            [
                f"{name}: its kind is {kind!r}; a step of your own is one of {', '.join(KINDS)}. It gives no "
                "codes, which files are written from: put int8, nf4 or another rounding after it"
            ],
        )
    chosen = apply if callable(apply) else given
    return OwnStep("own", name=name, digest=digest, does=cast(StepKind, kind), apply=cast(Apply, chosen))


def run_own(state: Compressed, step: OwnStep, calibration: Calibration) -> dict[str, Any]:
    """Let a user's step work on a student, in place.

    Args:
        state: The student; its masks grow by the zeros that the step made.
        step: The step.
        calibration: The texts that methods look at.

    Raises:
        TrainingError: It failed, gave no such model as it got, or changed nothing.
    """
    before, was, answers = _fingerprint(state.model), type(state.model), _answers(state.model)
    layers = len(layer_list(state.model))
    try:
        model = step.apply(state.model, calibration)
    except PotstillError:
        raise
    except Exception as error:
        raise TrainingError(
            f"{step} ended with {type(error).__name__}: {error}; the steps before it are kept"
        ) from error
    faults = []
    if type(model) is not was:
        raise TrainingError(f"{step} returned {type(model).__name__}, not the {was.__name__} that it got; return that")
    if (now := _answers(model)) != answers:
        faults.append(f"the model answers with {now} logits, where it had {answers}")
    if odd := sorted({str(value.dtype) for value in model.parameters() if value.dtype != torch.float32}):
        faults.append(f"weights are {', '.join(odd)}, not float32; round with a step of the recipe after it")
    if not faults and _fingerprint(model) == before:
        faults.append("nothing changed")
    if faults:
        raise TrainingError(f"{step} did not give a student: {'; '.join(faults)}; the steps before it are kept")
    state.model = model.eval().requires_grad_(True)
    model.zero_grad(set_to_none=True)  # gradients that it left would be a part of the next healing's first step
    zeros = Masks.of_zeros(model, [target.name for target in targets(model) if target.part == "blocks"]).kept
    if step.does != "heal":
        # What was masked before stays so, or the check of masks would not see it come back.
        # Of a layer that was cut, or numbered anew, the zeros alone are known.
        same = state.kept if len(layer_list(model)) == layers else {}
        found = {
            name: mask & same[name] if name in same and same[name].shape == mask.shape else mask
            for name, mask in zeros.items()
        }
        state.kept = {name: mask for name, mask in found.items() if not mask.all()}
    return {"name": step.name, "digest": step.digest, "kind": step.does}


def _answers(model: Any) -> int:
    """Labels of a classifier, or tokens of a decoder."""
    head = model.get_output_embeddings()
    return int(model.config.num_labels) if head is None else int(head.weight.shape[0])


def _fingerprint(model: nn.Module) -> str:
    """Hash of every tensor of a model."""
    sums = hashlib.sha256()
    for name, value in model.state_dict().items():
        sums.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        sums.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data if value.numel() else b"")
    return sums.hexdigest()
