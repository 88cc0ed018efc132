"""Generation: rows and stored top-k targets → a causal student.

What enters: rows with outputs, and the side table of teacher log-probs where the teacher gave some. What leaves: a
folder that `AutoModelForCausalLM.from_pretrained` loads, in the number format of the model that it started from
(training itself keeps fp32 weights).

The trainer is TRL's SFTTrainer with the loss replaced (`topk_trainer`): hard cross-entropy, a divergence from the
stored top-k with a tail bucket, and for a cut student the direction of the uncut model's hidden states (`uncut`). Where
the rows hold the reasoning behind their outputs, the student learns to write it as well (`second_task`).

Sources: Hinton et al., arXiv:1503.02531 §2; Kim & Rush, arXiv:1606.07947 §3 (word and sequence level);
Agarwal et al., arXiv:2306.13649 §3.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import set_seed
from trl import SFTConfig

from potstill.errors import UserError
from potstill.events import Event, Listener, silent
from potstill.models import model_identity
from potstill.rows import RATIONALE, table_digest
from potstill.task import TaskSpec
from potstill.train import loop
from potstill.train.causal_model import adapters, load_causal, save_trained
from potstill.train.encode import end_of_turn
from potstill.train.memory import check_memory
from potstill.train.options import DistilOptions, is_cut, resolve_options
from potstill.train.quiet import quiet_transformers
from potstill.train.result import DistilResult
from potstill.train.rows_check import check_not_empty, check_text_rows
from potstill.train.second_task import longest_row, with_second_task
from potstill.train.token_rows import TokenRows, encode_held_out, encode_rows
from potstill.train.topk_trainer import TopKCollator, TopKTrainer
from potstill.train.uncut import UncutStates, need_to_heal, start_figures, uncut_states

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.token_scores import TokenScores


def distil_causal(
    spec: TaskSpec,
    train: Dataset,
    validation: Dataset | None,
    targets: Dataset | None,
    out: Path,
    options: DistilOptions,
    *,
    scores: TokenScores | None = None,
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
        scores: Who is asked for the log-probs of tokens in on-policy training; None loads `options.teacher`.
        listener: Progress.

    Raises:
        TrainingError: Rows or targets that cannot be learnt from, a loss that is not finite, or not enough memory.
        MissingExtra: `lora_rank` without peft, `qlora` without bitsandbytes.
        UserError: The student's model cannot be loaded; on-policy training without a `teacher`.
        BudgetReached, TeacherError: From `scores`.
    """
    with quiet_transformers():
        return _distil(spec, train, validation, targets, out, resolve_options(options, "causal"), scores, listener)


def _distil(
    spec: TaskSpec, train: Dataset, validation: Dataset | None, targets: Dataset | None, out: Path,
    options: DistilOptions, scores: TokenScores | None, listener: Listener,
) -> DistilResult:  # fmt: skip
    started = time.monotonic()
    check_not_empty(train)
    check_text_rows(train)
    if options.on_policy > 0:
        if options.teacher is None and scores is None:
            raise UserError("distil.on_policy needs a teacher to ask; name a model with distil.teacher")
        from potstill.train.on_policy import distil_on_policy

        return distil_on_policy(spec, train, validation, out, options, listener, scores)
    set_seed(options.seed)
    tokenizer, model, stored_dtype = load_causal(options)
    targets, carried, shared = _own_targets(train, validation, targets, tokenizer, model, options)
    data = encode_rows(spec, train, targets, model, tokenizer, options)
    data, untold = with_second_task(spec, train, data, model, tokenizer, options)
    held_out, unmeasured = encode_held_out(spec, validation, targets, model, tokenizer, options)
    check_memory(model, options, longest_row(data))
    schedule = loop.plan_schedule(len(data.table), options)
    held_out_ids = [] if validation is None else validation["id"]
    content = [
        spec.instruction,
        list(train["id"]),
        list(held_out_ids),
        data.counts,
        model_identity(str(options.student)),
        None if targets is None else table_digest(targets),
        list(train["weight"]),
        list(train[RATIONALE]) if "second" in data.counts else None,
    ]
    notes = [*data.notes(), *untold, *unmeasured]
    figures = None
    if is_cut(options):
        figures = start_figures(model, data, tokenizer)
        notes.append(need_to_heal(figures))
    for note in notes:
        listener(Event("train", "note", note))
    checkpoints, resume_from = loop.prepare_checkpoints(out, options, content)
    states = None
    states_file = checkpoints / f"uncut-states-{os.environ.get('RANK', 0)}.f16"
    if is_cut(options) and options.hidden_weight > 0:
        states = uncut_states(data, options, states_file)
    trainer = causal_trainer(
        model, tokenizer, data, held_out, options, schedule, checkpoints, states=states, shared=shared,
        callbacks=loop.callbacks(options, schedule, listener, validated=held_out is not None),
    )  # fmt: skip
    trainer.started = started
    loop.finish(trainer, options, resume_from)
    states_file.unlink(missing_ok=True)
    report = {
        "rows": {**data.counts, "misaligned_examples": list(data.examples)},
        "start": figures,
        "carried_over": carried,
        "notes": notes,
    }
    save_trained(trainer, tokenizer, spec, options, stored_dtype, data.answer_tokens, out, checkpoints)
    return loop.causal_result(trainer, out, options, schedule, resume_from, report, started)


def causal_trainer(
    model: Any,
    tokenizer: Any,
    data: TokenRows,
    held_out: TokenRows | None,
    options: DistilOptions,
    schedule: loop.Schedule,
    checkpoints: Path,
    *,
    states: UncutStates | None = None,
    shared: Sequence[int] | None = None,
    callbacks: list[Any] | None = None,
) -> TopKTrainer:
    """The trainer of a causal student over encoded rows; `options` are resolved, `shared` is as in its `prepare`."""
    table = data.table if states is None else data.table.add_column("row", list(range(len(data.table))))
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
        train_dataset=table.with_format("numpy"),
        eval_dataset=None if held_out is None else held_out.table.with_format("numpy"),
        data_collator=TopKCollator(
            int(tokenizer.pad_token_id), max(data.k, 1 if held_out is None else held_out.k), states
        ),
        processing_class=tokenizer,
        callbacks=callbacks,
        peft_config=adapters(options, model),
    )
    trainer.prepare(options, data, held_out, shared)
    return trainer


def _own_targets(
    train: Dataset, validation: Dataset | None, targets: Dataset | None, tokenizer: Any, model: Any,
    options: DistilOptions,
) -> tuple[Dataset | None, dict[str, Any] | None, tuple[int, ...] | None]:  # fmt: skip
    """Targets in the student's token ids, what became of another tokenizer's, and the tokens that both have."""
    if targets is None or options.teacher_tokenizer is None or options.soft_weight == 0:
        return targets, None, None
    from datasets import concatenate_datasets

    from potstill.train.carry_over import carry_over, load_tokenizer
    from potstill.train.token_spans import spans_of_targets

    teacher = load_tokenizer(options.teacher_tokenizer)
    if teacher.get_vocab() == tokenizer.get_vocab():
        return targets, None, None
    tables = [train] if validation is None else [train, validation]
    rows = concatenate_datasets([table.select_columns(["id", "output"]) for table in tables])
    lay_out = carry_over if options.cross_tokenizer == "carry_over" else spans_of_targets
    carried = lay_out(rows, targets, teacher, tokenizer, end_of_turn(model, tokenizer))
    return carried.table, {"method": options.cross_tokenizer, **carried.report}, carried.shared
