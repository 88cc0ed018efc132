"""Classification: rows → an encoder student with a head.

What enters: the merged rows with labels, calibrated teacher probabilities, or both. What leaves: a folder that
`AutoModelForSequenceClassification.from_pretrained` loads.

Each row's loss is h·CE(label) + s·T²·KL(teacher‖student at T), divided by the sum of the weights of the targets
that the row has, so that a row without probabilities counts as much as any other.

The head of a BERT reads the pooler (the first token), as plain transformers does; a sentence encoder is made for mean
pooling, so that a layer that averages comes before it, and the head starts from a regression on frozen features and the
labels' names (`head_start`). On 360 rows of TREC that a small teacher wrote, macro-F1 rises from .26–.28 to .57, on 360
clean ones from .90 to .93. The start takes part in the choice of the best evaluation: where training on noisy rows
makes it no better, it stays (Snips, written rows: .74 against .62). Held-out rows that the teacher wrote as well have
its manner and its mistakes, and flatter what was fitted to them: where most are such, training has to be better by more
than chance (`head_start.Start`; docs/log.md, "Written rows that choose"). Real texts that nobody labelled are labelled
too wrongly to choose an evaluation: where most held-out rows are such, training goes on to its last step and stands,
unless the start is better by more than chance (docs/log.md, "Texts that choose").

Sources: Hinton et al., arXiv:1503.02531 §2; Devlin et al., arXiv:1810.04805 §4.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import Trainer, TrainingArguments, set_seed

from potstill.errors import OptionError
from potstill.events import Listener, silent
from potstill.masking import public_name
from potstill.models import model_identity
from potstill.options import as_json
from potstill.task import TaskSpec
from potstill.train import loop, metrics
from potstill.train.card import StudentCard, fields_of
from potstill.train.encoder_model import load_encoder
from potstill.train.from_deep import altered_copies, deep_targets, direction_losses
from potstill.train.head_start import CHANCE, Start, by_chance, can_start, said_of_labels, start_head
from potstill.train.losses import hard_cross_entropy, label_divergence
from potstill.train.options import DistilOptions, other_kind_faults, resolve_options
from potstill.train.quiet import quiet_transformers
from potstill.train.result import DistilResult
from potstill.train.rows_check import LabelTargets, check_label_variety, check_not_empty, label_targets
from potstill.train.student import publish
from potstill.train.temperature import divide_logits, held_out_figures

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray


def distil_classifier(
    spec: TaskSpec,
    train: Dataset,
    validation: Dataset | None,
    out: Path,
    options: DistilOptions,
    *,
    deep: Path | None = None,
    share: float = 1.0,
    listener: Listener = silent,
) -> DistilResult:
    """Train one encoder student and save it (`potstill.train.recipe` adds search, deep students and generations).

    Args:
        spec: The task; its labels are the classes, in order.
        train: Rows in the one schema.
        validation: Held-out rows that choose the best evaluation; None or empty keeps the last weights.
        out: Folder of the student; published whole by a rename.
        options: How to train.
        deep: A trained student of the same task and model with more layers: this one starts from its layers and
            learns its probabilities and hidden states (see `from_deep`).
        share: Share of the steps after which the training ends where it is, in [0, 1]: the rates are those of a whole
            training, so this is a state that a whole one passes through.
        listener: Progress.

    Raises:
        TrainingError: Rows that cannot be learnt from, a loss that is not finite, or not enough memory.
        UserError: The student's model cannot be loaded.
        OptionError: An option that only generation students have.
    """
    with quiet_transformers():
        options = resolve_options(options, "classification")
        return _distil(spec, train, validation, out, options, deep, share, listener)


def rows_digest(spec: TaskSpec, train: Dataset, tokenizer: Any, options: DistilOptions) -> str:
    """What a student's training.json says of the rows that it was trained on, for rows that may be the same.

    Args:
        spec: The task.
        train: Rows in the one schema.
        tokenizer: The student's.
        options: Those of its training.
    """
    return _digest(_encode(tokenizer, train, label_targets(spec, train, options), options))


def _distil(
    spec: TaskSpec, train: Dataset, validation: Dataset | None, out: Path, options: DistilOptions, deep: Path | None,
    share: float, listener: Listener,
) -> DistilResult:  # fmt: skip
    started = time.monotonic()
    check_not_empty(train)
    if faults := other_kind_faults(options, "classification"):
        raise OptionError("distil", [f"distil.{fault}" for fault in faults])
    targets = label_targets(spec, train, options)
    check_label_variety(spec, targets, options)
    set_seed(options.seed)
    tokenizer, model = load_encoder(spec, options, deep)
    data = _encode(tokenizer, train, targets, options)
    held_out, held_out_options = None, options
    if validation is not None and len(validation):
        # Both kinds of target are read, so that the score is taken on labels even where training leaves them out.
        everything = replace(options, hard_weight=1.0, soft_weight=1.0, class_weights=None, sampling={})
        found = label_targets(spec, validation, everything, what="held-out")
        held_out = _encode(tokenizer, validation, found, options)
        if options.hard_weight == 0 and not found.has_probs.any():
            held_out_options = replace(options, hard_weight=1.0, soft_weight=0.0)
    schedule = loop.plan_schedule(len(data) * (1 if deep is None else 1 + options.altered_copies), options)
    if share < 1:
        schedule = replace(schedule, stop=round(share * schedule.steps))
    fitted = options.start == "features" and deep is None and can_start(model)
    content = [
        spec.label_names, said_of_labels(spec) if fitted else [], _digest(data), _digest(held_out or []),
        model_identity(str(deep or options.student)),
        None if targets.shares is None else targets.shares.tolist(), *([] if schedule.stop is None else [share]),
    ]  # fmt: skip
    key = loop.training_key(options, content)
    finished = loop.finished_training(out, key) if options.resume else None
    if finished is not None:
        return finished
    checkpoints, resume_from = loop.prepare_checkpoints(out, options, content)
    if fitted:
        start_head(model, tokenizer, spec, [row["input_ids"] for row in data], targets, options)
    shares = targets.shares
    if deep is not None:
        # What no word is known of is content like any other: a text of emoji may hold nothing else.
        known = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        nothing = {"label": -1, "probs": np.zeros(len(spec.label_names), dtype=np.float32), "weight": 1.0}
        copies = altered_copies([row["input_ids"] for row in data], known, options.altered_copies, options.seed)
        data += [{"input_ids": ids, **nothing} for ids in copies]
        if targets.shares is not None:
            shares = np.tile(targets.shares, 1 + options.altered_copies)
        ids, kept = [row["input_ids"] for row in data], int(model.config.num_hidden_layers)
        told = deep_targets(deep, spec, ids, checkpoints / "deep-states.f16", kept)
        for i, row in enumerate(data):
            row |= {"probs": told.probs[i], "has_probs": True, "states": told.of_row(i)}
    origins = [] if validation is None else validation["origin"][:]
    flattered, doubtful = (origins.count(origin) > len(origins) / 2 for origin in ("generated", "pseudo"))
    arguments = loop.trainer_arguments(
        options, schedule, checkpoints, validated=held_out is not None, metric="eval_choice", higher=True,
        chooses=not doubtful,
    )  # fmt: skip
    trainer = ClassifierTrainer(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=_Rows(data, shares),
        eval_dataset=None if held_out is None else _Rows(held_out),
        data_collator=_Collator(int(tokenizer.pad_token_id or 0)),
        callbacks=loop.callbacks(options, schedule, listener, validated=held_out is not None, chooses=not doubtful),
    )
    trainer.options, trainer.held_out_options = options, held_out_options
    trainer.started, trainer.n_labels, trainer.fitted = started, len(spec.label_names), fitted
    start = trainer.remember_start() if fitted and held_out is not None else None
    if schedule.end:
        loop.finish(trainer, options, resume_from)
    if start is not None:
        trainer.keep_the_better(start, flattered=flattered, doubtful=doubtful)
    history = loop.history_of(trainer.state.log_history)
    report = _report(trainer, targets, len(train), schedule, resume_from)
    report["start"] = {"head": "features" if fitted else "random"} | ({} if start is None else start.to_json())
    if start is not None and start.kept:
        report |= {"steps": {**report["steps"], "best": 0}, "best_score": start.score}
    if held_out is not None:
        report["held_out"] = _settle(trainer, held_out, spec, options)
    report["seconds"] = round(time.monotonic() - started, 2)
    training = {
        "key": key,
        "task": {"name": spec.name, "instruction": spec.instruction, "labels": list(spec.label_names)},
        "options": as_json(options), "rows": {"train": _digest(data), "validation": _digest(held_out or [])},
        "deep": None if deep is None else model_identity(str(deep)), "start": model_identity(str(options.student)),
        "history": history, "report": report,
    }  # fmt: skip
    card = StudentCard(
        name=spec.name, kind=spec.kind, instruction=spec.instruction, labels=spec.label_names,
        max_length=int(options.max_length or 256), base=public_name(str(options.student)), inputs=fields_of(spec),
    )  # fmt: skip
    if trainer.accelerator.is_main_process:
        publish(trainer.accelerator.unwrap_model(trainer.model), tokenizer, card, out, training)
        if not options.keep_checkpoints:
            shutil.rmtree(checkpoints)
    trainer.accelerator.wait_for_everyone()
    return DistilResult(out, history, report)


class ClassifierTrainer(Trainer):  # type: ignore[misc]
    """Trainer with the mixed loss, exact under accumulation, and its own held-out evaluation."""

    loss_is_scaled_for_ga = True
    optimizer: Any
    options: DistilOptions
    held_out_options: DistilOptions
    started: float
    n_labels: int
    fitted: bool

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        return loop.LikeLengths(rows.lengths, self.args.train_batch_size, self.args.seed, rows.shares)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The micro-batches of one step, and the sum of their row weights over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        local = sum((batch["weights"].sum() for batch in batches), torch.zeros(()))
        return batches, loop.summed_over_processes(self, local)

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW with a rate of its own for the head, and no decay on biases and norms."""
        if self.optimizer is None:
            model = self.model if model is None else model
            groups: dict[tuple[float, float], list[Any]] = {}
            for name, weights in model.named_parameters():
                if weights.requires_grad:
                    head = (
                        "classifier" in name
                        or ("pooler" in name and not self.fitted)
                        or name.startswith(("score.", "head."))
                    )
                    rate = self.options.head_learning_rate if head else self.options.learning_rate
                    decay = 0.0 if weights.ndim < 2 else self.options.weight_decay
                    groups.setdefault((float(rate or 0), decay), []).append(weights)
            self.optimizer = torch.optim.AdamW(
                [{"params": found, "lr": rate, "weight_decay": decay} for (rate, decay), found in groups.items()],
                fused=True,
            )
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted sum of the rows' losses over the weight of the whole step."""
        turned = "states" in inputs and self.options.hidden_weight > 0
        mask = inputs["attention_mask"]
        outputs = model(input_ids=inputs["input_ids"], attention_mask=mask, output_hidden_states=turned)
        losses = row_losses(outputs.logits, inputs["labels"], inputs["probs"], inputs["has_probs"], self.options)
        if turned:
            layers = inputs["states"].shape[2]
            own = torch.stack(outputs.hidden_states[-layers:], 2)
            apart = direction_losses(own, inputs["states"], mask)
            losses = losses + self.options.hidden_weight * apart
        weights = inputs["weights"]
        loss = loop.scaled_loss(self, (losses * weights).sum(), num_items_in_batch, weights.sum())
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Held-out loss and macro-F1 (against labels, or the teacher's likeliest where a row has none)."""
        loss, score, _ = self._measured(self.eval_dataset if eval_dataset is None else eval_dataset)
        return loop.report_evaluation(self, loss, score, self.started)

    def _measured(self, rows: Any) -> tuple[float, float, NDArray[np.bool_]]:
        """Loss, macro-F1, and which rows are answered as they are labelled, or as their teacher finds likeliest."""
        logits, batch = self.logits_of(rows), self.data_collator([rows[i] for i in range(len(rows))])
        options = self.held_out_options
        losses = row_losses(logits, batch["labels"], batch["probs"], batch["has_probs"], options)
        measured = options.hard_weight * (batch["labels"] >= 0) + options.soft_weight * batch["has_probs"] > 0
        weight = float((batch["weights"] * measured).sum())
        gold = torch.where(batch["labels"] >= 0, batch["labels"], batch["probs"].argmax(1)).numpy()
        answers = logits.argmax(1).numpy()
        counts = metrics.confusion(gold, answers, self.n_labels)
        loss = float((losses * batch["weights"]).sum()) / max(weight, 1e-12)
        return loss, float(metrics.macro_f1(counts)), answers == gold

    def remember_start(self) -> Start:
        """Evaluate the weights as they are before the first step, and keep those that training changes."""
        loss, score, right = self._measured(self.eval_dataset)
        changed = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        weights = {name: value.detach().cpu().clone() for name, value in changed.items()}
        return Start(loss, score, right, weights)

    def keep_the_better(self, start: Start, *, flattered: bool, doubtful: bool) -> None:
        """Take the weights of the start again where training made it no better.

        Args:
            start: As it was remembered.
            flattered: Whether most held-out rows are of the teacher's hand, so that training has to be better than the
                start by more than chance.
            doubtful: Whether most are real texts that nobody labelled, so that the start has to be.
        """
        best = self.state.best_metric
        # The parts of sharded weights lie in other processes.
        if self.options.sharding != "ddp":
            return
        start.kept = best is None or loop.choice_figure(start.score, start.loss) >= best
        if doubtful and self.state.global_step:
            start.chance = by_chance(self._measured(self.eval_dataset)[2], start.right)
            start.kept = start.chance <= CHANCE
        elif flattered and not start.kept:
            start.chance = by_chance(start.right, self._measured(self.eval_dataset)[2])
            start.kept = start.chance > CHANCE
        if start.kept:
            self.accelerator.unwrap_model(self.model).load_state_dict(start.weights, strict=False)

    def logits_of(self, rows: Any) -> torch.Tensor:
        """(len(rows), labels) float32 on the CPU, in the rows' order."""
        order = sorted(range(len(rows)), key=lambda i: rows.lengths[i])
        found = torch.zeros(len(rows), self.n_labels)
        self.model.eval()
        # The start is scored before the trainer has wrapped the model: in the number format of all later scores.
        with torch.no_grad(), self.accelerator.autocast():
            for start in range(0, len(order), 64):
                places = order[start : start + 64]
                batch = self._prepare_inputs(self.data_collator([rows[i] for i in places]))
                logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
                found[places] = logits.float().cpu()
        return found


def row_losses(
    logits: torch.Tensor, labels: torch.Tensor, probs: torch.Tensor, has_probs: torch.Tensor, options: DistilOptions
) -> torch.Tensor:
    """Mixed loss of each row.

    Args:
        logits: (n, labels) float.
        labels: (n,) int64, −1 where there is none.
        probs: (n, labels) float32, ignored where `has_probs` is false.
        has_probs: (n,) bool.
        options: Resolved options.

    Returns:
        (n,) float32, nats.
    """
    temperature = float(options.temperature or 1.0)
    hard = options.hard_weight * (labels >= 0)
    soft = options.soft_weight * has_probs
    cross_entropy = hard_cross_entropy(logits, labels, label_smoothing=options.label_smoothing)
    uniform = torch.full_like(probs, 1 / probs.shape[1])
    teacher = torch.where(has_probs[:, None], probs, uniform)
    softened = label_divergence(logits, teacher, temperature, options.divergence, options.jsd_beta)
    # A row with one kind of target would otherwise weigh less than a row with both.
    return (hard * cross_entropy + soft * softened) / (hard + soft).clamp(min=1e-12)


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, rows: list[dict[str, Any]], shares: NDArray[np.float64] | None = None):
        self._rows = rows
        self.shares = shares
        self.lengths = [len(row["input_ids"]) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]


class _Collator:
    def __init__(self, pad: int):
        self._pad = pad

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self._pad)
        lengths = torch.tensor([len(row) for row in ids])
        states = {}
        if "states" in rows[0]:
            told = [torch.from_numpy(np.asarray(row["states"], dtype=np.float32)) for row in rows]
            states["states"] = torch.nn.utils.rnn.pad_sequence(told, batch_first=True)
        return states | {
            "input_ids": padded,
            "attention_mask": (torch.arange(padded.shape[1])[None] < lengths[:, None]).long(),
            "labels": torch.tensor([row["label"] for row in rows]),
            "probs": torch.from_numpy(np.stack([row["probs"] for row in rows])),
            "has_probs": torch.tensor([row["has_probs"] for row in rows]),
            "weights": torch.tensor([row["weight"] for row in rows]),
        }


def _encode(tokenizer: Any, table: Dataset, targets: LabelTargets, options: DistilOptions) -> list[dict[str, Any]]:
    texts = list(table["input"])
    encoded = tokenizer([texts[i] for i in targets.rows], truncation=True, max_length=options.max_length)["input_ids"]
    return [
        {
            "input_ids": ids,
            "label": int(targets.labels[i]),
            "probs": targets.probs[i],
            "has_probs": bool(targets.has_probs[i]),
            "weight": float(targets.weights[i]),
        }
        for i, ids in enumerate(encoded)
    ]


def _digest(rows: Sequence[dict[str, Any]]) -> str:
    """Hash of everything in encoded rows that the training sees."""
    sums = hashlib.sha256()
    for row in rows:
        plain = [row["input_ids"], row["label"], row["has_probs"], round(row["weight"], 6)]
        sums.update(json.dumps(plain).encode() + np.asarray(row["probs"], dtype=np.float32).tobytes())
    return sums.hexdigest()


def _settle(trainer: Any, held_out: list[dict[str, Any]], spec: TaskSpec, options: DistilOptions) -> dict[str, Any]:
    """Held-out figures of the finished student, whose temperature is put right first (where the options ask it)."""
    rows = _Rows(held_out)
    probs = np.stack([row["probs"] for row in held_out])
    labels = np.array([row["label"] for row in held_out], dtype=np.int64)
    figures = held_out_figures(trainer.logits_of(rows).numpy().astype(np.float64), labels, probs)
    if options.calibrate:
        model = trainer.accelerator.unwrap_model(trainer.model)
        figures["calibrated"] = divide_logits(model, figures["temperature"], len(spec.labels))
    return figures


def _report(
    trainer: Any, targets: LabelTargets, given: int, schedule: loop.Schedule, resume_from: str | None
) -> dict[str, Any]:
    state = trainer.state
    evaluated = [entry["step"] for entry in state.log_history if "eval_score" in entry]
    best = state.best_global_step or (evaluated[-1] if evaluated else None)
    return {
        "options": as_json(trainer.options),
        "rows": {
            "given": given,
            "used": len(targets.rows),
            "with_label": int((targets.labels >= 0).sum()),
            "with_teacher_probs": int(targets.has_probs.sum()),
        },
        "steps": {"planned": schedule.steps, "taken": state.global_step, "best": best},
        "best_score": next(
            (x["eval_score"] for x in state.log_history if x.get("step") == best and "eval_score" in x), None
        ),
        "resumed_from": None if resume_from is None else Path(resume_from).name,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
    }
