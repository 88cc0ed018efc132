"""What both trainers share: arguments, batches of like length, exact sums under accumulation, checkpoints, history.

Training runs in the Hugging Face Trainer (TRL's for causal students), so that one program serves a laptop, a GPU
and `accelerate launch`. Added here:

- the loss is a sum over rows or tokens divided by the sum over the whole accumulated batch of all processes, so
  4x1, 2x2 and 1x4 are the same step;
- batches hold rows of like length, in an order that depends on seed and epoch alone, so that a resumed run sees
  the batches that the killed one would have seen;
- a resume takes the last checkpoint whose files are whole, and only if the rows and options are the same.

Checkpoints rest beside the student's folder while training and are deleted when it is done. They are the
Trainer's own format and are read with `weights_only`.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

from potstill.errors import TrainingError
from potstill.events import Event, Listener
from potstill.options import as_json
from potstill.train.options import DistilOptions
from potstill.train.processes import first_process_first, process_count
from potstill.train.ready import safetensors_is_whole
from potstill.train.result import DistilResult
from potstill.train.student import TRAINING

_BUCKET_BATCHES = 16
_STEP_FILES = ("optimizer.pt", "scheduler.pt")


@dataclass(frozen=True)
class Schedule:
    """How long the training is: total optimiser steps, and steps between evaluations.

    `stop` ends it after as many steps, in the middle of the schedule that all of them have; None goes to the end.
    """

    steps: int
    evaluate_each: int
    stop: int | None = None

    @property
    def end(self) -> int:
        """The last step that is taken."""
        return self.steps if self.stop is None else self.stop


def plan_schedule(rows: int, options: DistilOptions, processes: int | None = None) -> Schedule:
    """Steps of a training on `rows` rows with resolved options; `processes` None asks the launcher."""
    processes = processes or process_count()
    batch = (options.batch_size or 1) * options.gradient_accumulation * processes
    per_epoch = max(1, math.ceil(rows / batch))
    steps = options.max_steps or max(per_epoch * (options.epochs or 1), options.min_steps or 1)
    if options.evaluations:
        each = math.ceil(steps / options.evaluations)
    else:
        # Few rows make many short epochs; ten looks are enough to find the best one.
        each = max(per_epoch, math.ceil(steps / 10))
    return Schedule(steps, min(each, steps))


def trainer_arguments(
    options: DistilOptions,
    schedule: Schedule,
    checkpoints: Path,
    *,
    validated: bool,
    metric: str,
    higher: bool,
    chooses: bool = True,
) -> dict[str, Any]:
    """Keyword arguments for `TrainingArguments` or `SFTConfig`."""
    every = "steps"
    warmup = round(options.warmup_ratio * schedule.steps)
    return {
        "output_dir": str(checkpoints),
        "per_device_train_batch_size": options.batch_size,
        "gradient_accumulation_steps": options.gradient_accumulation,
        "max_steps": schedule.steps,
        "learning_rate": options.learning_rate,
        # The rate rises from 0, so a warm-up of one step would be a step that learns nothing.
        "warmup_steps": warmup if warmup > 1 else 0,
        "lr_scheduler_type": "linear",
        "weight_decay": options.weight_decay,
        "max_grad_norm": options.max_grad_norm,
        "bf16": options.precision == "bf16",
        _checkpointing_name(): options.gradient_checkpointing,
        "seed": options.seed,
        "data_seed": options.seed,
        "eval_strategy": every if validated else "no",
        "eval_steps": schedule.evaluate_each,
        "save_strategy": every,
        "save_steps": schedule.evaluate_each,
        "save_total_limit": 1,
        "load_best_model_at_end": validated and chooses,
        # So that a training that goes on is as patient as it was.
        "restore_callback_states_from_checkpoint": True,
        "metric_for_best_model": metric if validated and chooses else None,
        "greater_is_better": higher if validated and chooses else None,
        "logging_strategy": "steps",
        "logging_steps": schedule.evaluate_each,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "push_to_hub": False,
    }


class LikeLengths(torch.utils.data.Sampler[int]):
    """Row indices such that consecutive runs of `batch_size` have like lengths, shuffled by (seed, epoch).

    With `shares`, a row comes as often as its share says, on average, in an epoch of as many rows as there are.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, shares: Sequence[float] | None = None):
        self._lengths = lengths
        self._shares = None if shares is None else torch.as_tensor(shares, dtype=torch.float64)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = self._drawn(generator).tolist()
        size, pool = self._batch_size, self._batch_size * _BUCKET_BATCHES
        batches: list[list[int]] = []
        for start in range(0, len(order), pool):
            rows = sorted(order[start : start + pool], key=lambda i: self._lengths[i])
            batches += [rows[i : i + size] for i in range(0, len(rows), size)]
        # Only the last batch may be short, or every later batch would straddle two of these.
        short = batches.pop() if batches and len(batches[-1]) < size else []
        for at in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[at]
        yield from short

    def _drawn(self, generator: torch.Generator) -> torch.Tensor:
        order = torch.randperm(len(self._lengths), generator=generator)
        if self._shares is None:
            return order
        # Systematic resampling: a row of expected count 2.3 comes two or three times, never more or less.
        expected = self._shares[order] * (len(order) / self._shares.sum())
        start = torch.rand((), generator=generator, dtype=torch.float64)
        # Rounding of the sum must not cost the last row.
        ends = (expected.cumsum(0) + start).add(1e-9).floor().long()
        drawn = order.repeat_interleave(torch.diff(ends, prepend=torch.zeros(1, dtype=torch.long)))
        return drawn[torch.randperm(len(drawn), generator=generator)]


def _checkpointing_name() -> str:
    """What transformers calls it: another name since 5.24, which warns of the old one."""
    from transformers import TrainingArguments

    names = TrainingArguments.__dataclass_fields__
    return "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"


def summed_over_processes(trainer: Any, local: torch.Tensor) -> torch.Tensor:
    """Sum of a scalar over all processes."""
    gathered: torch.Tensor = trainer.accelerator.gather(local.to(trainer.args.device).reshape(1))
    return gathered.sum()


def scaled_loss(trainer: Any, total: torch.Tensor, items: torch.Tensor | None, own: torch.Tensor) -> torch.Tensor:
    """A summed loss divided by the items of the whole step.

    Args:
        trainer: The Trainer.
        total: Summed loss of this micro-batch on this process.
        items: Items of the accumulated batch over all processes, or None outside a training step.
        own: Items of this micro-batch, used when `items` is None.

    Raises:
        TrainingError: The loss is not finite.
    """
    divisor = own if items is None else items
    loss = total / torch.as_tensor(divisor, device=total.device).clamp(min=1e-12)
    if not torch.isfinite(loss):
        raise TrainingError(
            f"the loss became {float(loss.detach())} at step {trainer.state.global_step + 1}; "
            "the last good checkpoint stays. "
            f"Lower the learning rate (now {trainer.args.learning_rate:g}) or use precision fp32"
        )
    # DDP averages gradients over processes, while `items` counts those of all of them.
    return loss * trainer.accelerator.num_processes if items is not None else loss


class Progress(TrainerCallback):  # type: ignore[misc]
    """Emits events, and sees to it that the last step is evaluated and saved."""

    def __init__(self, options: DistilOptions, schedule: Schedule, listener: Listener, *, validated: bool):
        self._options, self._schedule = options, schedule
        self._listener, self._validated = listener, validated
        self._told = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell, and choose what happens after this step."""
        last = state.global_step >= self._schedule.end
        control.should_training_stop |= last
        extra = self._options.checkpoint_steps and state.global_step % self._options.checkpoint_steps == 0
        if last:
            control.should_log = control.should_save = True
            control.should_evaluate = self._validated
        elif extra:
            control.should_save = True
        if last or time.monotonic() - self._told > 0.5:
            self._told = time.monotonic()
            message = f"step {state.global_step}/{self._schedule.steps}"
            self._listener(Event("train", "progress", message, state.global_step, self._schedule.steps))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Tell the held-out figures."""
        shown = {name.removeprefix("eval_"): round(v, 4) for name, v in metrics.items() if isinstance(v, float)}
        text = ", ".join(f"{name} {value}" for name, value in shown.items() if name in ("loss", "score"))
        message = f"epoch {state.epoch:.1f}: held-out {text}"
        self._listener(
            Event("train", "progress", message, state.global_step, self._schedule.steps, {"held_out": shown})
        )


def callbacks(
    options: DistilOptions, schedule: Schedule, listener: Listener, *, validated: bool, chooses: bool = True
) -> list[Any]:
    """The callbacks of a training whose held-out rows, if there are any, are measured on, and may choose among it."""
    found: list[Any] = [Progress(options, schedule, listener, validated=validated)]
    if validated and chooses and options.early_stopping:
        found.append(EarlyStoppingCallback(options.early_stopping))
    return found


def report_evaluation(trainer: Any, loss: float, score: float | None, started: float) -> dict[str, float]:
    """Log held-out figures the way `Trainer.evaluate` does, with the seconds of training so far."""
    earlier = [entry["eval_seconds"] for entry in trainer.state.log_history if "eval_seconds" in entry]
    if not hasattr(trainer, "seconds_before"):
        trainer.seconds_before = earlier[-1] if earlier else 0.0
    figures = {"eval_loss": loss, "eval_seconds": trainer.seconds_before + time.monotonic() - started}
    if score is not None:
        figures["eval_score"] = score
        figures["eval_choice"] = choice_figure(score, loss)
    trainer.log(figures)
    trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, figures)
    return figures


def choice_figure(score: float, loss: float) -> float:
    """What the best evaluation is chosen by: the score, and the lower loss between equal ones."""
    # Few held-out rows give the same score again and again.
    return score - 1e-6 * min(loss, 1e3)


def history_of(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The Trainer's log as the learning curve: one entry an evaluation (or a log, without held-out rows)."""
    curve: dict[int, dict[str, Any]] = {}
    for entry in log:
        if not ("loss" in entry or "eval_loss" in entry):
            continue
        empty = {"epoch": None, "step": entry["step"], "train_loss": None, "validation_loss": None, "score": None}
        point = curve.setdefault(entry["step"], {**empty, "seconds": None})
        point["epoch"] = round(float(entry["epoch"]), 4)
        for name, ours in (
            ("loss", "train_loss"), ("eval_loss", "validation_loss"), ("eval_score", "score"),
            ("eval_seconds", "seconds"),
        ):  # fmt: skip
            if name in entry:
                point[ours] = float(entry[name])
    return [curve[step] for step in sorted(curve)]


def checkpoint_folder(out: Path) -> Path:
    """Where the checkpoints of a student rest while it is trained."""
    return out.with_name(f"{out.name}.checkpoints")


def prepare_checkpoints(out: Path, options: DistilOptions, content: Sequence[Any]) -> tuple[Path, str | None]:
    """`_prepare_checkpoints`, by the first process before the others look."""
    with first_process_first():
        return _prepare_checkpoints(out, options, content)


def _prepare_checkpoints(out: Path, options: DistilOptions, content: Sequence[Any]) -> tuple[Path, str | None]:
    """The checkpoint folder, and the checkpoint to go on from.

    Checkpoints of other rows or other options are deleted, since going on from them would mix two trainings.

    Args:
        out: The student's folder.
        options: Resolved options.
        content: What else decides the training (row ids, label names, model identity), as JSON types.
    """
    folder = checkpoint_folder(out)
    key = training_key(options, content)
    stamp = folder / "key"
    if folder.exists() and (not options.resume or not stamp.exists() or stamp.read_text("utf-8") != key):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stamp.write_text(key, "utf-8")
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    whole = None
    for path in found:
        if whole is None and is_whole(path):
            whole = path
        elif whole is None:
            shutil.rmtree(path)
    return folder, None if whole is None else str(whole)


def training_key(options: DistilOptions, content: Sequence[Any]) -> str:
    """Hash of everything that decides a training: resolved options, and `content` as in `prepare_checkpoints`."""
    plain = {key: value for key, value in asdict(options).items() if key not in ("resume", "keep_checkpoints")}
    return hashlib.sha256(json.dumps([plain, list(content)], sort_keys=True, default=str).encode()).hexdigest()


def finished_training(out: Path, key: str) -> DistilResult | None:
    """The student at `out`, if it came from a training of this key to its end; else None."""
    try:
        value = json.loads((out / TRAINING).read_text("utf-8"))
        if value["key"] != key or not all(safetensors_is_whole(path) for path in out.glob("*.safetensors")):
            return None
        return DistilResult(out, list(value["history"]), {**value["report"], "reused": True})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: weights, optimiser, schedule and state."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
        weights = [*checkpoint.glob("*.safetensors")]
        steps = all(zipfile.is_zipfile(checkpoint / name) for name in _STEP_FILES)
        return bool(weights) and steps and all(safetensors_is_whole(path) for path in weights)
    except (OSError, ValueError):
        return False


def causal_result(
    trainer: Any, out: Path, options: DistilOptions, schedule: Schedule, resume_from: str | None,
    report: dict[str, Any], started: float,
) -> DistilResult:  # fmt: skip
    """What a finished causal training says of itself, whichever trainer it ran in."""
    state = trainer.state
    return DistilResult(
        out,
        history_of(state.log_history),
        {
            "options": as_json(options),
            **report,
            "steps": {
                "planned": schedule.steps,
                "taken": state.global_step,
                "best": state.best_global_step or None,
            },
            "best_loss": state.best_metric,
            "resumed_from": None if resume_from is None else Path(resume_from).name,
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "seconds": round(time.monotonic() - started, 2),
        },
    )


def finish(trainer: Any, options: DistilOptions, resume_from: str | None) -> None:
    """Train to the end, from a checkpoint or from the start.

    Raises:
        TrainingError: Out of memory.
    """
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=resume_from)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError(
            f"not enough memory with batch_size {options.batch_size} and max_length {options.max_length} ({error}); "
            "halve batch_size and double gradient_accumulation (the result is the same), or set gradient_checkpointing"
        ) from error
