"""Weights from early in a student's training, made anew: the same training from the same start, ended after some steps.

What enters: a classifier's folder, whose training.json says how it was trained, and the rows of that training. What
leaves: the state dict that the training passed through (to rounding). Rows, order, rates and draws are those of it,
so nothing has to be kept for the day when somebody asks; a share of 5 % costs a twentieth of the training.

Source: Frankle et al., arXiv:1912.05671 §2 (a lottery ticket is wound back to step k, 0-7 % of the training).
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from potstill.errors import UserError
from potstill.events import Listener, silent
from potstill.models import model_identity
from potstill.options import build_options
from potstill.task import TaskSpec
from potstill.train.options import DistilOptions
from potstill.train.student import TRAINING

if TYPE_CHECKING:
    from datasets import Dataset


def early_weights(
    student: Path, spec: TaskSpec, rows: Dataset, share: float, *, listener: Listener = silent
) -> dict[str, torch.Tensor]:
    """What a student's weights were after a share of its training.

    Args:
        student: Its folder.
        spec: Its task.
        rows: The rows that it was trained on.
        share: Of the steps that its training had planned, in [0, 1).
        listener: Progress.

    Returns:
        Parameters and buffers by name, float32 on the CPU.

    Raises:
        TrainingError: As in any training.
        UserError: The model that it started from cannot be loaded.
    """
    from potstill.train.classify import distil_classifier

    # Held-out rows choose among weights and teach none, so they are left out.
    options = replace(_training(student)[0], resume=False, keep_checkpoints=False, checkpoint_steps=None)
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "student"
        distil_classifier(spec, rows, None, out, options, share=share, listener=listener)
        found: dict[str, torch.Tensor] = load_file(out / "model.safetensors")
        return found


def early_faults(student: Path, spec: TaskSpec | None, rows: Dataset | None, tokenizer: Any) -> list[str]:
    """Why a student's early weights cannot be made; empty where they can.

    Args:
        student: Its folder.
        spec: Its task; None where it is unknown.
        rows: The rows that it was trained on; None where they are unknown.
        tokenizer: Its tokenizer.
    """
    if spec is None or spec.kind != "classification":
        return ["only a classification student's folder says how it was trained"]
    if rows is None:
        return ["the rows that the student was trained on are not here; give its run, not its folder"]
    try:
        options, training = _training(student)
        begun, learnt, more = training["start"], training["rows"]["train"], training.get("rounds")
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        return [f"{student.name}/{TRAINING} does not say how the student was trained ({error})"]
    if more or training.get("deep"):
        return ["the student began from an earlier one (generations, or layers that were cut), which is not kept"]
    if model_identity(str(options.student)) != begun:
        return [f"the model {options.student}, from which the student was trained, is another one now"]
    from potstill.train.classify import rows_digest

    if rows_digest(spec, rows, tokenizer, options) != learnt:
        return ["the rows at hand are not those that the student was trained on"]
    return []


def _training(student: Path) -> tuple[DistilOptions, dict[str, Any]]:
    """The options that a student was trained with, for one process, and all that its folder says."""
    told: dict[str, Any] = json.loads((student / TRAINING).read_text("utf-8"))
    options = build_options(DistilOptions, told["options"], "distil")
    # As many rows a step as all processes had together.
    rows_a_step = options.gradient_accumulation * options.processes
    return replace(options, processes=1, sharding="ddp", gradient_accumulation=rows_a_step), told
