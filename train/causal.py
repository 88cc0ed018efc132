"""Generation: rows and stored top-k targets → a causal student.

What enters: rows with outputs, and the side table of teacher log-probs where the teacher gave some. What leaves: a
folder that `AutoModelForCausalLM.from_pretrained` loads, in the number format of the model that it started from
(training itself keeps fp32 weights).

The trainer is TRL's SFTTrainer with the loss replaced: hard cross-entropy and a divergence from the stored top-k
with a tail bucket. Only the hidden states of target positions meet the output embedding (`head_loss`), so no
logits of prompts or padding exist at any time, and no teacher is in memory. Each token's two terms are divided by
the sum of the weights of the targets that it has, and the sum over tokens by the tokens of the whole accumulated
batch.

Sources: Hinton et al., arXiv:1503.02531 §2; Kim & Rush, arXiv:1606.07947 §3 (word and sequence level);
Agarwal et al., arXiv:2306.13649 §3.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from potstill.errors import MissingExtra, UserError
from potstill.events import Event, Listener, silent
from potstill.models import install_hint, local_model, model_identity
from potstill.options import as_json
from potstill.task import TaskSpec
from potstill.train import loop
from potstill.train.head_loss import TokenTargets, target_loss
from potstill.train.layers import keep_layers
from potstill.train.options import DistilOptions, resolve_options
from potstill.train.qlora import load_4bit, merge_into
from potstill.train.quiet import quiet_transformers
from potstill.train.result import DistilResult
from potstill.train.rows_check import check_not_empty, check_text_rows
from potstill.train.student import StudentCard, publish
from potstill.train.token_rows import IGNORED, TokenRows, collate_targets, encode_rows

if TYPE_CHECKING:
    from datasets import Dataset


def distil_causal(
    spec: TaskSpec,
    train: Dataset,
    validation: Dataset | None,
    targets: Dataset | None,
    out: Path,
    options: DistilOptions,
    *,
    listener: Listener = silent,
) -> DistilResult:
    """Train a causal student and save it.

    Args:
        spec: The task.
        train: Rows in the one schema; `output` is what the student should write.
        validation: Held-out rows that choose the best evaluation by their loss; None or empty keeps the last
            weights.
        targets: Stored token targets keyed by row id (for `train` and, where there are some, `validation`).
        out: Folder of the student; published whole by a rename.
        options: How to train.
        listener: Progress.

    Raises:
        TrainingError: Rows or targets that cannot be learnt from, a loss that is not finite, or not enough memory.
        MissingExtra: `lora_rank` without peft, `qlora` without bitsandbytes.
        UserError: The student's model cannot be loaded.
    """
    with quiet_transformers():
        return _distil(spec, train, validation, targets, out, resolve_options(options, "causal"), listener)


def _distil(
    spec: TaskSpec, train: Dataset, validation: Dataset | None, targets: Dataset | None, out: Path,
    options: DistilOptions, listener: Listener,
) -> DistilResult:  # fmt: skip
    started = time.monotonic()
    check_not_empty(train)
    check_text_rows(train)
    set_seed(options.seed)
    tokenizer, model, stored_dtype = load_causal(options)
    data = encode_rows(spec, train, targets, model, tokenizer, options)
    if data.counts["misaligned"]:
        text = f"{data.counts['misaligned']} rows have token targets that do not fit; they train on hard targets alone"
        listener(Event("train", "note", text))
    held_out = None
    if validation is not None and len(validation):
        lenient = options if options.hard_weight else _with_hard(options)
        held_out = encode_rows(spec, validation, targets, model, tokenizer, lenient)
    schedule = loop.plan_schedule(len(data.table), options)
    held_out_ids = [] if validation is None else validation["id"]
    content = [
        spec.instruction,
        list(train["id"]),
        list(held_out_ids),
        data.counts,
        model_identity(str(options.student)),
    ]
    checkpoints, resume_from = loop.prepare_checkpoints(out, options, content)
    trainer = causal_trainer(
        model, tokenizer, data, held_out, options, schedule, checkpoints,
        callbacks=loop.callbacks(options, schedule, listener, validated=held_out is not None),
    )  # fmt: skip
    trainer.started = started
    loop.finish(trainer, options, resume_from)
    longest = math.ceil(1.25 * data.longest_answer)
    card = StudentCard(
        name=spec.name, kind=spec.kind, instruction=spec.instruction, max_length=int(options.max_length or 1024),
        max_new_tokens=max(16, min(longest, int(options.max_length or 1024) // 2)), base=str(options.student),
    )  # fmt: skip
    report = {
        "options": as_json(options),
        "rows": {**data.counts, "misaligned_examples": list(data.examples)},
        "steps": {
            "planned": schedule.steps,
            "taken": trainer.state.global_step,
            "best": trainer.state.best_global_step or None,
        },
        "best_loss": trainer.state.best_metric,
        "resumed_from": None if resume_from is None else Path(resume_from).name,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
    }
    if trainer.accelerator.is_main_process:
        publish(plain_model(trainer).to(stored_dtype), tokenizer, card, out)
        if not options.keep_checkpoints:
            shutil.rmtree(checkpoints)
    trainer.accelerator.wait_for_everyone()
    report["seconds"] = round(time.monotonic() - started, 2)
    return DistilResult(out, loop.history_of(trainer.state.log_history), report)


def load_causal(options: DistilOptions, *, layers: list[int] | None = None) -> tuple[Any, Any, torch.dtype]:
    """Tokenizer, model in fp32 cut to `student_layers`, and the number format that its weights rest in.

    Args:
        options: Resolved options.
        layers: Which layers to keep, instead of evenly spaced ones.

    Raises:
        UserError: It cannot be loaded.
    """
    name = str(options.student)
    folder = local_model(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        stored_dtype = AutoConfig.from_pretrained(folder).dtype or torch.float32
        quantised = options.qlora
        model = load_4bit(folder) if quantised else AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise UserError(f"the student {name!r} cannot be loaded ({error}); {install_hint(name)}") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if options.student_layers:
        model = keep_layers(model, options.student_layers, layers)
    if options.freeze_embeddings:
        model.get_input_embeddings().weight.requires_grad_(False)
    return tokenizer, model, stored_dtype


def causal_trainer(
    model: Any,
    tokenizer: Any,
    data: TokenRows,
    held_out: TokenRows | None,
    options: DistilOptions,
    schedule: loop.Schedule,
    checkpoints: Path,
    *,
    callbacks: list[Any] | None = None,
) -> TopKTrainer:
    """The trainer of a causal student over encoded rows; `options` are resolved."""
    arguments = loop.trainer_arguments(
        options, schedule, checkpoints, validated=held_out is not None, metric="eval_loss", higher=False
    )
    trainer = TopKTrainer(
        model=model,
        args=SFTConfig(
            **arguments,
            max_length=None,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=data.table.with_format("numpy"),
        eval_dataset=None if held_out is None else held_out.table.with_format("numpy"),
        data_collator=TopKCollator(int(tokenizer.pad_token_id), max(data.k, 1 if held_out is None else held_out.k)),
        processing_class=tokenizer,
        callbacks=callbacks,
        peft_config=_adapters(options),
    )
    trainer.prepare(options, data, held_out)
    return trainer


class TopKCollator(DataCollatorForLanguageModeling):  # type: ignore[misc]
    """TRL's padding of ids and labels, and the flat top-k targets beside them."""

    def __init__(self, pad_token_id: int, k: int):
        super().__init__(pad_token_id=pad_token_id)
        self.k = k

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch: input_ids, labels, attention_mask, and the targets of `collate_targets`."""
        batch: dict[str, Any] = super().torch_call(
            [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in examples]
        )
        return batch | collate_targets(examples, self.k)


class TopKTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose loss is hard cross-entropy and a divergence from stored top-k targets."""

    loss_is_scaled_for_ga = True
    options: DistilOptions
    started: float = 0.0

    def prepare(self, options: DistilOptions, data: TokenRows, held_out: TokenRows | None) -> None:
        """Take the options, and teach the model's forward to give the loss of target positions.

        The forward itself is extended, not called around: under DDP and FSDP only a call through the wrapper
        gathers weights and gradients.
        """
        self.options = options
        self.held_out_is_soft = bool(held_out and held_out.counts["soft_tokens"])
        self._lengths = [len(ids) for ids in data.table["input_ids"]]
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        base.forward = _forward_with_targets(base, base.forward)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No card beside checkpoints; the student gets its own at export."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return loop.LikeLengths(self._lengths, self.args.train_batch_size, self.args.seed)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The micro-batches of one step, and the sum of their token weights over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        local = sum((self._token_weights(batch).sum() for batch in batches), torch.zeros(()))
        return batches, loop.summed_over_processes(self, local)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted sum over target tokens, over the tokens of the whole step."""
        own = self._token_weights(inputs).sum()
        loss, _ = self._losses(model, inputs, hard=self.options.hard_weight, soft=self.options.soft_weight)
        loss = loop.scaled_loss(self, loss, num_items_in_batch, own)
        return (loss, {"loss": loss}) if return_outputs else loss

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Held-out loss of the same mixture; cross-entropy alone where the held-out rows have no soft targets."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        hard, soft = self.options.hard_weight, self.options.soft_weight
        if not self.held_out_is_soft:
            hard, soft = 1.0, 0.0
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
        size = max(1, self.args.per_device_train_batch_size)
        total = weight = 0.0
        self.model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            for start in range(0, len(order), size):
                chunk = [rows[i] for i in order[start : start + size]]
                batch = self._prepare_inputs(self.data_collator(chunk))
                loss, used = self._losses(self.model, batch, hard=hard, soft=soft)
                total += float(loss)
                weight += float(used)
        return loop.report_evaluation(self, total / max(weight, 1e-12), None, self.started)

    def _token_weights(self, batch: dict[str, Any]) -> torch.Tensor:
        weights: torch.Tensor = batch["weights"]
        return weights if self.options.hard_weight > 0 else weights * batch["has_soft"]

    def _losses(self, model: Any, inputs: dict[str, Any], *, hard: float, soft: float) -> tuple[Any, Any]:
        """Summed loss of a batch, and the weight of the tokens that have a target."""
        soft_share = soft * inputs["has_soft"]
        both = (hard + soft_share).clamp(min=1e-12)
        weights = inputs["weights"]
        labels = inputs["labels"][:, 1:]
        targets = TokenTargets(
            labels=labels[labels != IGNORED],
            hard_weights=weights * hard / both,
            soft_weights=weights * soft_share / both,
            top_ids=inputs["top_ids"],
            top_logprobs=inputs["top_logprobs"],
            tail=inputs["tail"],
        )
        loss = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            target_mask=labels != IGNORED,
            targets=targets,
            loss_options={
                "temperature": float(self.options.temperature or 1.0),
                "kind": self.options.divergence,
                "beta": self.options.jsd_beta,
            },
        )["loss"]
        return loss, (weights * ((hard > 0) | (soft_share > 0))).sum()


def plain_model(trainer: TopKTrainer) -> Any:
    """The trained model with its own forward, adapters merged."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.options.qlora:
        base = load_causal(replace(trainer.options, qlora=False))[1]
        return merge_into(base, model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    if "forward" in vars(model):
        del model.forward
    return model


def _forward_with_targets(model: Any, plain: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, targets: TokenTargets | None = None, **kwargs: Any) -> Any:
        if targets is None:
            return plain(*args, **kwargs)
        mask, loss_options = kwargs.pop("target_mask"), kwargs.pop("loss_options")
        states = model.base_model(**kwargs, use_cache=False).last_hidden_state
        hidden = states[:, :-1][mask]
        loss, hard, soft = target_loss(hidden, model.get_output_embeddings().weight, targets, **loss_options)
        return {"loss": loss, "hard": hard, "soft": soft}

    return forward


def _with_hard(options: DistilOptions) -> DistilOptions:
    return replace(options, hard_weight=1.0)


def _adapters(options: DistilOptions) -> Any:
    if options.lora_rank is None:
        return None
    try:
        from peft import LoraConfig
    except ImportError:
        raise MissingExtra("peft", "lora", "distil.lora_rank") from None
    return LoraConfig(
        r=options.lora_rank, lora_alpha=options.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
