"""The token-level trainer: TRL's SFTTrainer with the loss of stored top-k targets.

Only the hidden states of target positions meet the output embedding (`head_loss`), so no logits of prompts or
padding exist at any time, and no teacher is in memory. Each token's hard and soft terms are divided by the sum of
the weights of the targets that it has, and the sum over tokens by the tokens of the whole accumulated batch.

Where rows have a second task (`second_task`), its sequences stand behind the outputs' in a batch, and each of the two
sums is divided by its own weights.

Rows are not packed: a flat target belongs to a row's own positions, and batches of like length leave little padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from potstill.train import loop
from potstill.train.head_loss import TokenTargets, target_loss
from potstill.train.options import DistilOptions
from potstill.train.output_head import check_head, head_of
from potstill.train.second_task import second_sequences, sequence_lengths
from potstill.train.span_loss import StoredSpans, stored_span_loss
from potstill.train.token_rows import IGNORED, TokenRows, collate_targets
from potstill.train.uncut import UncutStates, direction_loss


class TopKCollator(DataCollatorForLanguageModeling):  # type: ignore[misc]
    """TRL's padding of ids and labels, and the flat top-k targets beside them."""

    def __init__(self, pad_token_id: int, k: int, states: UncutStates | None = None):
        super().__init__(pad_token_id=pad_token_id)
        self.k = k
        self.states = states

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch: input_ids, labels, attention_mask, and the targets of `collate_targets`.

        Of rows with a second task also `second`, (n,) bool: which target tokens are its.
        """
        every = [*examples, *second_sequences(examples)]
        batch: dict[str, Any] = super().torch_call(
            [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in every]
        )
        batch |= collate_targets(every, self.k)
        if "second_ids" in examples[0]:
            first = sum(len(row["has_soft"]) for row in examples)
            batch["second"] = torch.arange(len(batch["has_soft"])) >= first
        if self.states is not None and "row" in examples[0]:
            batch["states"] = self.states.of_rows([int(row["row"]) for row in examples])
        return batch


class TopKTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose loss is hard cross-entropy and a divergence from stored top-k targets."""

    loss_is_scaled_for_ga = True
    options: DistilOptions
    started: float = 0.0

    def prepare(
        self,
        options: DistilOptions,
        data: TokenRows,
        held_out: TokenRows | None,
        shared: Sequence[int] | None = None,
    ) -> None:
        """Take the options, and teach the model's forward to give the loss of target positions.

        Args:
            options: Resolved options.
            data: Encoded rows.
            held_out: Encoded held-out rows, or None.
            shared: Tokens of the student that a teacher with another tokenizer has too, for targets along spans.

        Raises:
            TrainingError: The student makes its logits in a way that `output_head` does not know.

        The forward itself is extended, not called around: under DDP and FSDP only a call through the wrapper
        gathers weights and gradients.
        """
        self.options = options
        self.held_out_is_soft = bool(held_out and held_out.counts["soft_tokens"])
        self._lengths = sequence_lengths(data)
        self._second_weights: torch.Tensor | None = None
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        # SFTTrainer has mixtures of experts return what their routers say, for a loss that is not taken here; the
        # student would be saved so, and its answers to rows side by side end in a fault.
        config = base.config.get_text_config()
        if getattr(config, "output_router_logits", False):
            config.output_router_logits = False
        check_head(base, "the student")
        known = None
        if shared is not None:
            known = torch.zeros(len(head_of(base)), dtype=torch.bool)
            known[list(shared)] = True
        base.forward = _forward_with_targets(base, base.forward, known)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No card beside checkpoints; the student gets its own at export."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return loop.LikeLengths(self._lengths, self.args.train_batch_size, self.args.seed)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The micro-batches of one step, and the sum of their token weights over all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        local = sum((self._token_weights(batch).sum() for batch in batches), torch.zeros(()))
        if self.options.rationale_weight > 0:
            second = sum((_second_weights(batch).sum() for batch in batches), torch.zeros(()))
            self._second_weights = loop.summed_over_processes(self, second)
        return batches, loop.summed_over_processes(self, local)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted sum over target tokens, over the tokens of the whole step."""
        own, factor = self._token_weights(inputs).sum(), None
        if "second" in inputs:
            # All is divided by the outputs' weights below, and these terms are to be divided by their own.
            outputs = own if num_items_in_batch is None else num_items_in_batch
            whole = _second_weights(inputs).sum() if num_items_in_batch is None else self._second_weights
            sums = [torch.as_tensor(value, device=own.device).clamp(min=1e-12) for value in (outputs, whole)]
            factor = self.options.rationale_weight * sums[0] / sums[1]
        loss, _ = self._losses(
            model, inputs, hard=self.options.hard_weight, soft=self.options.soft_weight, second=factor
        )
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
        """Weights of the outputs' tokens that have a target."""
        weights: torch.Tensor = batch["weights"]
        weights = weights if self.options.hard_weight > 0 else weights * batch["has_soft"]
        return weights * ~batch["second"] if "second" in batch else weights

    def _losses(
        self, model: Any, inputs: dict[str, Any], *, hard: float, soft: float, second: torch.Tensor | None = None
    ) -> tuple[Any, Any]:
        """Summed loss of a batch, and the weight of the tokens that have a target.

        `second` is the factor of the cross-entropy of a second task's tokens, which know no other loss.
        """
        soft_share = soft * inputs["has_soft"]
        both = (hard + soft_share).clamp(min=1e-12)
        weights = inputs["weights"]
        labels = inputs["labels"][:, 1:]
        targets: TokenTargets | StoredSpans
        own = {
            "labels": labels[labels != IGNORED],
            "hard_weights": weights * hard / both
            if second is None
            else torch.where(inputs["second"], weights * second, weights * hard / both),
            "soft_weights": weights * soft_share / both,
            "tail": inputs["tail"],
        }
        if "counts" in inputs:
            spans = {name: inputs[name] for name in ("counts", "text", "first")}
            targets = StoredSpans(**own, **spans, ids=inputs["top_ids"], logprobs=inputs["top_logprobs"])
        else:
            targets = TokenTargets(**own, top_ids=inputs["top_ids"], top_logprobs=inputs["top_logprobs"])
        loss = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            target_mask=labels != IGNORED,
            targets=targets,
            loss_options={
                "temperature": float(self.options.temperature or 1.0),
                "kind": self.options.divergence,
                "beta": self.options.jsd_beta,
                "direction": self.options.hidden_weight,
                "method": self.options.cross_tokenizer,
            },
            wanted_states=inputs.get("states"),
            second=inputs.get("second"),
        )["loss"]
        return loss, (weights * ((hard > 0) | (soft_share > 0))).sum()


def _second_weights(batch: dict[str, Any]) -> torch.Tensor:
    """Weights of the tokens of a second task."""
    weights: torch.Tensor = batch["weights"]
    return weights * batch["second"] if "second" in batch else torch.zeros(1)


def _forward_with_targets(model: Any, plain: Callable[..., Any], shared: torch.Tensor | None) -> Callable[..., Any]:
    def forward(*args: Any, targets: TokenTargets | StoredSpans | None = None, **kwargs: Any) -> Any:
        if targets is None:
            return plain(*args, **kwargs)
        mask, loss_options = kwargs.pop("target_mask"), dict(kwargs.pop("loss_options"))
        wanted, direction = kwargs.pop("wanted_states"), loss_options.pop("direction")
        second = kwargs.pop("second")
        method = loss_options.pop("method")
        states = model.base_model(**kwargs, use_cache=False).last_hidden_state
        hidden = states[:, :-1][mask]
        head = head_of(model)
        loss_options |= {"bias": head.bias, "form": head.form}
        if isinstance(targets, StoredSpans):
            assert shared is not None
            # Stored targets are of temperature 1.
            loss_options.pop("temperature")
            known = shared.to(hidden.device)
            loss, hard, soft = stored_span_loss(hidden, head.weight, targets, known, method=method, **loss_options)
        else:
            loss, hard, soft = target_loss(hidden, head.weight, targets, **loss_options)
        if wanted is not None:
            weights = targets.hard_weights + targets.soft_weights
            if second is not None:  # of which the uncut model said nothing
                hidden, weights = hidden[~second], weights[~second]
            loss = loss + direction * direction_loss(hidden, wanted, weights)
        return {"loss": loss, "hard": hard, "soft": soft}

    return forward
