"""On-policy distillation: the student writes, the teacher says what it would have written at each token.

What enters: rows with outputs, and a teacher whose weights fit beside the student's. What leaves: the folder of
`causal`. The trainer is TRL's DistillationTrainer (generalised JSD over the whole vocabulary, exact at any
temperature); added here are the prompts of the task, the share of batches that the data writes (GKD's λ), an order of
rows in which each is learnt from, a held-out loss on the rows' own outputs, and the checkpoints, events and memory
check of the other trainers. In place of a teacher in memory, one that runs elsewhere may be asked for the log-probs of
the likeliest tokens (`asked_teacher`). A teacher with another tokenizer reads the task's prompt in its own chat format
and the student's text in its own tokens, and is compared where both start at the same byte (`other_teacher`).

There is no hard loss: a text that the student wrote itself is no label.

Source: Agarwal et al., GKD, arXiv:2306.13649 §3, algorithm 1.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, set_seed
from trl import DistillationConfig, DistillationTrainer
from trl.trainer.utils import pad

from potstill.asking.answering_template import answering_template
from potstill.decoding.text_model import load_text_model
from potstill.errors import BudgetReached, TrainingError, UserError
from potstill.events import Event, Listener
from potstill.models import install_hint, local_model, model_identity
from potstill.run_dir import write_atomic
from potstill.train import loop
from potstill.train.asked_teacher import AskedTeacher
from potstill.train.causal_model import adapters, load_causal, save_trained
from potstill.train.memory import check_memory
from potstill.train.options import DistilOptions, is_cut
from potstill.train.other_teacher import OtherTeacher
from potstill.train.result import DistilResult
from potstill.train.token_rows import IGNORED, TokenRows, encode_held_out, encode_rows
from potstill.train.uncut import need_to_heal, start_figures

if TYPE_CHECKING:
    from potstill.asking.token_scores import TokenScores
    from potstill.task import TaskSpec

# In a checkpoint: what a teacher that is asked has read by then.
_SUMS = "asked.json"
_BETA = {"forward_kl": 0.0, "reverse_kl": 1.0}


def distil_on_policy(
    spec: TaskSpec,
    train: Dataset,
    validation: Dataset | None,
    out: Path,
    options: DistilOptions,
    listener: Listener,
    scores: TokenScores | None = None,
) -> DistilResult:
    """Train a causal student on its own outputs and save it.

    Args:
        spec: The task.
        train: Rows in the one schema, checked.
        validation: Held-out rows that choose the best evaluation.
        out: Folder of the student.
        options: Resolved options; `teacher` is a model that transformers loads, and None where one is asked.
        listener: Progress.
        scores: Who is asked where no teacher is loaded.

    Raises:
        TrainingError: Teacher and student have other vocabularies or no place in common, the training cannot fit or
            stay finite, or the teacher that is asked tells nothing.
        UserError: The teacher cannot be loaded.
        BudgetReached: The cap on what is asked was met; the last checkpoint stays. Where the run goes on at its budget
            the training ends there instead, unless no step was taken or several processes share it.
        TeacherError: The teacher that is asked refused, or could not be reached.
    """
    started = time.monotonic()
    set_seed(options.seed)
    tokenizer, model, stored_dtype = load_causal(options)
    teacher, other = (None, None) if scores is not None else _load_teacher(options, tokenizer, model)
    reader = None if other is None else OtherTeacher(spec, other, teacher, tokenizer, model, options)
    data = encode_rows(spec, train, None, model, tokenizer, _texts_only(options))
    held_out, unmeasured = encode_held_out(spec, validation, None, model, tokenizer, _texts_only(options))
    longest = max(len(ids) for ids in data.table["input_ids"])
    check_memory(model, options, longest + options.on_policy_tokens)
    schedule = loop.plan_schedule(len(data.table), options)
    content = [
        spec.instruction, list(train["id"]), [] if validation is None else list(validation["id"]),
        list(train["weight"]),
        model_identity(str(options.student)),
        model_identity(str(options.teacher)) if scores is None else [dict(scores.identity), scores.top],
    ]  # fmt: skip
    checkpoints, resume_from = loop.prepare_checkpoints(out, options, content)
    arguments = loop.trainer_arguments(
        options, schedule, checkpoints, validated=held_out is not None, metric="eval_loss", higher=False
    )
    size = None if teacher is None else teacher.config.get_text_config().vocab_size
    if teacher is not None and reader is not None:
        # TRL refuses vocabularies of unlike sizes for the sake of a loss that is not used then.
        teacher.config.get_text_config().vocab_size = model.config.get_text_config().vocab_size
    trainer = OnPolicyTrainer(
        model=model,
        teacher_model=teacher,
        args=DistillationConfig(
            **arguments,
            max_completion_length=options.on_policy_tokens,
            temperature=float(options.temperature or 1.0),
            beta=_BETA.get(options.divergence, options.jsd_beta),
        ),
        train_dataset=_prompts(data, train, reader),
        eval_dataset=None if held_out is None else _prompts(held_out, validation, reader),
        processing_class=tokenizer,
        callbacks=loop.callbacks(options, schedule, listener, validated=held_out is not None),
        peft_config=adapters(options, model),
    )
    if teacher is not None:
        teacher.config.get_text_config().vocab_size = size
    trainer.options, trainer.started, trainer.reader = options, started, reader
    trainer.compared = torch.zeros(2, dtype=torch.int64)
    if scores is not None:
        trainer.asked = AskedTeacher(scores, model.config.get_text_config().vocab_size, options)
    notes = [*data.notes(), *unmeasured]
    figures = None
    if is_cut(options):
        figures = start_figures(model, data, tokenizer)
        notes.append(need_to_heal(figures))
        if options.hidden_weight:
            notes.append("on-policy training compares no hidden states, so distil.hidden_weight does not apply")
    if options.hard_weight:
        notes.append("on-policy training knows no hard targets, so distil.hard_weight does not apply")
    for note in notes:
        listener(Event("train", "note", note))
    if trainer.asked is not None and resume_from is not None:
        trainer.restore_sums(Path(resume_from) / _SUMS)
    met = _until_paid(trainer, options, resume_from, scores)
    if met:
        ended = f"the training ended after step {trainer.state.global_step} of {schedule.steps}"
        notes.append(f"{ended}, since {met['told']}")
        listener(Event("train", "note", notes[-1]))
    if trainer.asked is not None and (untold := trainer.asked.untold):
        # A later call would go on from them to a student that has learnt nothing.
        shutil.rmtree(checkpoints, ignore_errors=True)
        raise trainer.asked.silence(f"{untold} answers")
    if reader is not None and resume_from is None:
        answers, spans = (round(float(loop.summed_over_processes(trainer, n))) for n in trainer.compared)
        if answers and not spans:
            shutil.rmtree(checkpoints, ignore_errors=True)
            raise reader.silence(f"{answers} answers")
    taken = trainer.state.global_step
    own_batches = sum(trainer.student_writes(step) for step in range(taken))
    report = {
        "rows": data.counts,
        "start": figures,
        "own_batches": own_batches,
        "data_batches": taken - own_batches,
        "other_tokenizer": None if reader is None else reader.report(),
        "asked_teacher": None if trainer.asked is None else trainer.asked.report(trainer.summed()),
        "notes": notes,
        **({"budget_met": dict(met)} if met else {}),
    }
    save_trained(trainer, tokenizer, spec, options, stored_dtype, data.answer_tokens, out, checkpoints)
    return loop.causal_result(trainer, out, options, schedule, resume_from, report, started)


def _until_paid(
    trainer: OnPolicyTrainer, options: DistilOptions, resume_from: str | None, scores: TokenScores | None
) -> Mapping[str, str]:
    """Train to the end, or to the cap of a run that goes on at its budget: what is told of the cap then, else empty.

    The best evaluation stays, as after a whole training, and the last weights where there was none.
    """
    try:
        loop.finish(trainer, options, resume_from)
    except BudgetReached:
        met = {} if scores is None else scores.budget_end
        if not met or not trainer.state.global_step:
            raise
        if trainer.state.best_model_checkpoint:
            trainer._load_best_model()
        return met
    return {}


class OnPolicyTrainer(DistillationTrainer):  # type: ignore[misc]
    """DistillationTrainer over encoded rows, where a share of the batches is taken from the data."""

    options: DistilOptions
    started: float = 0.0
    reader: OtherTeacher | None = None
    compared: torch.Tensor  # answers that were learnt from since the start or the resume, and their spans
    asked: AskedTeacher | None = None

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No card beside checkpoints; the student gets its own at export."""

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint(*args, **kwargs)
        if self.asked is not None:
            sums = self.summed()
            if self.accelerator.is_main_process:
                checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
                write_atomic(checkpoint / _SUMS, json.dumps(sums))

    def restore_sums(self, file: Path) -> None:
        """Count on from what a checkpoint says was read; one that was killed before it said so counts from there."""
        if self.asked is not None and self.accelerator.is_main_process and file.exists():
            self.asked.sums |= json.loads(file.read_text("utf-8"))

    def summed(self) -> dict[str, float]:
        """What a teacher that is asked has read for all processes."""
        sums = {} if self.asked is None else self.asked.sums
        return {
            name: float(loop.summed_over_processes(self, torch.tensor(value, dtype=torch.float64)))
            for name, value in sums.items()
        }

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        rows = self.train_dataset if dataset is None else dataset
        args = self.args
        size = args.per_device_train_batch_size * args.gradient_accumulation_steps * self.accelerator.num_processes
        return WholeSteps(rows["length"], size, args.seed, rows["weight"], args.gradient_accumulation_steps)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._rows = inputs
        scored: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.reader is None and self.asked is None:
            return scored
        answers = [
            row[mask.bool()].tolist()
            for row, mask in zip(scored["completion_ids"], scored["completion_mask"], strict=True)
        ]
        if self.reader is not None:
            told = self.reader.read([row["teacher_prompt_ids"] for row in inputs], answers)
            count = (told["spans"][:, :, 1] > 0).sum()
            self.compared += torch.tensor([len(answers), int(count)])
        else:
            assert self.asked is not None
            drawn = self.student_writes(self.state.global_step)
            told = self.asked.read([row["prompt_ids"] for row in inputs], answers, drawn=drawn)
            count = told["told"].sum()
        scored |= {name: value.to(self.accelerator.device) for name, value in told.items()}
        scored["num_items_in_batch"] = self.accelerator.gather(count.to(self.accelerator.device)).sum()
        return scored

    def _compute_loss(self, unwrapped_student: Any, inputs: dict[str, Any], num_items_in_batch: Any) -> Any:
        if self.reader is not None:
            return self.reader.loss(unwrapped_student, self.teacher_model, inputs, num_items_in_batch)
        if self.asked is None:
            return super()._compute_loss(unwrapped_student, inputs, num_items_in_batch)
        loss, count = self.asked.loss(unwrapped_student, inputs, num_items_in_batch)
        # TRL notes the student's entropy as well, for which this loss keeps no logits.
        return loss, loss.detach() * 0.0, count

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(row["prompt_ids"]) for row in self._rows], None, {}

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        if self.student_writes(self.state.global_step):
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        return [list(row["answer_ids"]) for row in self._rows]

    def student_writes(self, step: int) -> bool:
        """Whether the student writes the batches of a step; the data does otherwise."""
        # One draw a step, the same on every process, which must all generate or none, and after a resume.
        return Random(f"{self.options.seed} {step}").random() < self.options.on_policy

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, which must be finite."""
        loss = super().compute_loss(*args, **kwargs)
        value = loss[0] if isinstance(loss, tuple) else loss
        if not torch.isfinite(value):
            raise TrainingError(
                f"the loss became {float(value.detach())} at step {self.state.global_step + 1}; the last good "
                f"checkpoint stays. Lower the learning rate (now {self.args.learning_rate:g}) or use precision fp32"
            )
        return loss

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Divergence from the teacher per token of the held-out rows' own outputs, so that evaluations compare."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        total = count = 0.0
        size = max(1, self.args.per_device_train_batch_size)
        student = self.accelerator.unwrap_model(self.model)
        student.eval()
        if self.asked is not None:
            self.asked.ahead(rows["prompt_ids"][:], rows["answer_ids"][:])
        with torch.no_grad(), self.compute_loss_context_manager():
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                inputs = self._padded(batch["prompt_ids"], "prompt", "left")
                inputs |= self._padded(batch["answer_ids"], "completion", "right")
                told = {}
                if self.reader is not None:
                    told = self.reader.read(batch["teacher_prompt_ids"], batch["answer_ids"])
                if self.asked is not None:
                    told = self.asked.read(batch["prompt_ids"], batch["answer_ids"], drawn=False)
                if told:
                    inputs |= {name: value.to(self.accelerator.device) for name, value in told.items()}
                loss, _, tokens = self._compute_loss(student, inputs, None)
                total += float(loss) * float(tokens)
                count += float(tokens)
        if self.asked is not None and not count:
            # A loss of 0 would be the best of all.
            raise self.asked.silence(f"{len(rows)} held-out answers")
        if self.reader is not None and not count:
            raise self.reader.silence(f"{len(rows)} held-out answers")
        return loop.report_evaluation(self, total / max(count, 1.0), None, self.started)

    def _padded(self, rows: list[list[int]], name: str, side: str) -> dict[str, torch.Tensor]:
        ids = [torch.tensor(row) for row in rows]
        value = self._tokenizer.pad_token_id
        return {
            f"{name}_ids": pad(ids, padding_value=value, padding_side=side).to(self.accelerator.device),
            f"{name}_mask": pad([torch.ones_like(row) for row in ids], padding_value=0, padding_side=side).to(
                self.accelerator.device
            ),
        }


class WholeSteps(loop.LikeLengths):
    """`LikeLengths` for a trainer that reads a step's rows once for each of its batches: every step is a whole one.

    TRL's own sampler leaves out the rows that do not fill a step, all of them where there are fewer than one takes, and
    starts anew with the first order after a resume. Here the last step of an epoch is filled with rows from its start.
    """

    def __init__(self, lengths: Sequence[int], size: int, seed: int, weights: Sequence[float], repeats: int):
        super().__init__(lengths, size, seed, None if len(set(weights)) == 1 else weights)
        self._repeats = repeats

    def __len__(self) -> int:
        return -(-super().__len__() // self._batch_size) * self._batch_size * self._repeats

    def __iter__(self) -> Iterator[int]:
        order = list(super().__iter__())
        size = self._batch_size
        order += list(islice(cycle(order), -len(order) % size))
        for start in range(0, len(order), size):
            yield from order[start : start + size] * self._repeats


def _prompts(data: TokenRows, rows: Dataset, reader: OtherTeacher | None) -> Dataset:
    """Columns `prompt` (unused text that TRL asks for), `prompt_ids`, `answer_ids`, `teacher_prompt_ids`, and for the
    sampler `length` and `weight`."""
    prompts, answers = [], []
    for ids, labels in zip(data.table["input_ids"], data.table["labels"], strict=True):
        start = sum(label == IGNORED for label in labels)
        prompts.append(ids[:start])
        answers.append(ids[start:])
    columns = {
        "prompt": [""] * len(prompts), "prompt_ids": prompts, "answer_ids": answers,
        "length": list(map(len, data.table["input_ids"])), "weight": data.table["weight"][:],
    }  # fmt: skip
    if reader is not None:
        inputs = rows["input"][:]
        columns["teacher_prompt_ids"] = [reader.prompt(inputs[place]) for place in data.places]
    return Dataset.from_dict(columns)


def _texts_only(options: DistilOptions) -> DistilOptions:
    from dataclasses import replace

    return replace(options, hard_weight=1.0, soft_weight=0.0)


def _load_teacher(options: DistilOptions, tokenizer: Any, model: Any) -> tuple[Any, Any]:
    """The teacher in its own number format, and its tokenizer where that is not the student's."""
    name = str(options.teacher)
    folder = local_model(name)
    try:
        theirs = AutoTokenizer.from_pretrained(folder)
        teacher = load_text_model(folder, dtype="auto" if torch.cuda.is_available() else None)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"distil.teacher {name!r} cannot be loaded ({error}); {install_hint(name)}") from None
    teacher = teacher.to(torch.float32) if not torch.cuda.is_available() else teacher
    sizes = [m.config.get_text_config().vocab_size for m in (teacher, model)]
    if theirs.get_vocab() == tokenizer.get_vocab() and sizes[0] == sizes[1]:
        return teacher, None
    if options.cross_tokenizer == "carry_over":
        raise TrainingError(
            f"the teacher {name!r} ({sizes[0]} tokens) and the student {options.student!r} ({sizes[1]} tokens) have "
            "other tokenizers, and on-policy training compares whole distributions: set "
            "distil.cross_tokenizer=gold (or uld), choose a distil.student or a distil.teacher of one family, or "
            "train off policy (distil.on_policy=0) on stored targets with distil.teacher_tokenizer"
        )
    theirs.chat_template = answering_template(theirs)
    return teacher, theirs
