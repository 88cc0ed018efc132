"""Options of the distillation, one frozen dataclass for both kinds of student.

What enters: what a user set. What leaves: `resolve_options` fills each None with the default of the student's
kind, so that a report holds the values that were really used. The classification defaults were chosen on the
training split of TREC (400 rows) with a quarter of the labels replaced: rate 1e-4 gave 81 % where 5e-5 gave 79 %,
label smoothing 0.1 and batches of 32 made no difference beyond the noise of a seed, and frozen token embeddings
gave the same score (79.0 and 78.9) in three quarters of the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from potstill.errors import BadOptions, OptionError, OptionFault
from potstill.models import MINILM, SMOLLM2
from potstill.number_format import multiplies_bfloat16
from potstill.options import nearest
from potstill.rows import ORIGINS
from potstill.task import Kind

Divergence = Literal["forward_kl", "reverse_kl", "jsd"]
Precision = Literal["fp32", "bf16"]
Method = Literal["word", "sequence", "both"]
CrossTokenizer = Literal["carry_over", "gold", "uld"]
OnPolicyTeacher = Literal["auto", "weights", "asked"]
Start = Literal["features", "random"]
StudentKind = Literal["classification", "causal"]
_LORA_ALPHA = 32.0


@dataclass(frozen=True)
class SearchOptions:
    """A search over the options of the training, on the held-out rows (see `potstill.train.search`).

    Attributes:
        trials: Trainings at most, the first with the options as given; 0 searches nothing.
        minutes: No trial starts once this much time was spent on trials; None sets no such bound.
    """

    trials: int = 0
    minutes: float | None = None

    def __post_init__(self) -> None:
        faults = []
        if self.trials < 0:
            faults.append(OptionFault(f"trials must be 0 or more (got {self.trials!r})", "trials"))
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0):
            faults.append(OptionFault(f"minutes must be above 0 (got {self.minutes!r})", "minutes"))
        if faults:
            raise BadOptions(faults)


@dataclass(frozen=True)
class DistilOptions:
    """How a student is trained. A None takes the default of the student's kind (see `resolve_options`).

    Attributes:
        student: Model that the student starts from: a name, or a folder. Default: all-MiniLM-L6-v2 for
            classification, SmolLM2-135M-Instruct for generation. `auto` chooses by the cards of models that
            retrieval searches (`retrieval.students`, `retrieval.student_mib`).
        student_layers: Keep this many layers of it; None keeps all. A classifier keeps the first ones, a generation
            student evenly spaced ones with the first and the last among them; a decoder cut this way starts worse
            than uniform and needs long training.
        student_layer_ids: Which layers to keep instead, such as `[0, 2, 4]`.
        student_ffn: Share of the feed-forward neurons that each layer keeps, in (0, 1].
        hidden_weight: Weight of the direction of the hidden states (1 − cos) beside the other two losses, where the
            student is cut (DistilBERT's triple loss). A whole classifier is trained first; the cut one starts from
            it and learns its probabilities and states. A generation student learns the states of the model that it
            was cut from. 0 cuts the model as it comes.
        altered_copies: Copies of each row with some tokens dropped or replaced, which a classifier that is cut
            learns as well, as the whole one sees them. They count as rows of an epoch.
        generations: Trainings of a classifier on the last one's probabilities and the labels, itself the first
            (born-again networks). They end early once the held-out loss no longer falls; the best one stays.
        ensemble: Each generation learns the mean probabilities of all earlier ones instead of the last one's.
        method: What a generation student learns (Kim & Rush, arXiv:1606.07947). `word`: the rows' outputs, with the
            teacher's distribution of each token. `sequence`: outputs that the teacher writes for the rows' inputs, as
            hard targets. `both`: the two together, and word-level targets on the teacher's outputs as well. How the
            teacher's output is chosen is said by `soft.candidates` and `soft.pick`.
        sequence_share: Share of the teacher's outputs in the loss of `both`; 1 leaves the rows' own outputs out.
        rationale_weight: Weight of a second task beside a generation student's own: to write the reasoning that leads
            to the output, which the teacher is asked for where this is above 0 (distilling step by step,
            arXiv:2305.02301). The loss is that of the outputs plus this times that of the reasoning, each a mean over
            its own tokens. The student still answers with the output alone. 1 is the paper's; 0 asks for none.
        on_policy: Share of the batches of a generation student whose outputs it writes itself, for the teacher to say
            token by token what it would have written (GKD, arXiv:2306.13649). 0 trains on stored targets, with no
            teacher in memory; 1 never reads the rows' outputs. No hard loss applies.
        on_policy_teacher: Whether that teacher's `weights` are loaded beside the student, which compares whole
            distributions, or it is `asked` for the log-probs of its `soft.top_k` likeliest tokens: a vLLM server, or
            the run's own engine. `auto` loads them where this machine can, and asks elsewhere. One that is asked has
            the student's tokenizer, and what it reads is paid for by the run's budget.
        on_policy_tokens: Most tokens that the student writes for one input.
        teacher: Model that on-policy training loads beside the student: a name or a folder. Default: the run's
            teacher, where it is a model of this machine.
        teacher_tokenizer: Tokenizer that the stored token targets were made with, where it is not the student's: a
            name or a folder.
        cross_tokenizer: What becomes of a teacher with another tokenizer. `carry_over` gives the mass of its tokens
            to the student's tokens of the same bytes (stored targets only). `gold` compares the tokens that both have
            and sorts the others, at the bytes where both tokenizers cut; `uld` sorts all of them (see `span_loss`).
        hard_weight: Share of the cross-entropy on the row's label or output. 0 trains on soft targets alone.
        soft_weight: Share of the divergence from the teacher's distribution. 0 trains on hard targets alone.
            The two are divided by their sum; a row that has only one of both targets trains on that one.
        temperature: Softens both distributions in the soft term, which is multiplied by its square; on policy it is
            TRL's temperature, of what the student writes and of both distributions, and nothing is multiplied: no other
            term is there to be weighed against, and AdamW's steps do not depend on a factor. A teacher that is asked
            knows 1 alone.
        divergence: Direction of the soft term: `forward_kl` is KL(teacher‖student).
        jsd_beta: Weight of the teacher in the mixture of `jsd`, in (0, 1).
        epochs: Passes over the rows.
        max_steps: Optimiser steps at most; overrides `epochs`.
        min_steps: With few rows, `epochs` is raised until there are at least this many steps; 1 where `epochs` is
            given and this is not.
        batch_size: Rows a step on one device, before accumulation.
        gradient_accumulation: Batches added up before a step. The loss is exact: 4x1 = 2x2 = 1x4.
        learning_rate: Peak rate of the backbone (AdamW, linear warm-up, then linear decay to 0).
        head_learning_rate: Peak rate of the classification head.
        warmup_ratio: Share of the steps spent warming up; a training so short that it is one step has none.
        weight_decay: AdamW's decay; biases and norms have none.
        max_grad_norm: Gradients are clipped to this norm.
        dropout: Dropout before the classification head.
        label_smoothing: Mass of the hard target that is spread over all labels.
        start: Where the head of a classifier starts. `features`: fitted on the frozen encoder's features of the rows,
            joined with the labels' names (see `potstill.train.head_start`), for a BERT of all its layers; it is
            evaluated as well, and stays where training makes it no better. Other students, and `random`, start with
            random weights.
        calibrate: Divide a classifier's logits by the temperature under which the held-out labels are likeliest. The
            answers stay the same, the confidences are put right.
        class_weights: `balanced` weighs each row by the inverse frequency of its label; None does not.
        freeze_embeddings: Leave the token embeddings of the encoder as they are: half of MiniLM's weights, so a
            step costs less, at the same score.
        max_length: Tokens of one sequence at most. Longer inputs are cut at their end, never the output.
        early_stopping: Stop after this many evaluations without a better held-out figure; None never stops. A
            classifier whose held-out rows are mostly texts that nobody labelled goes on to its last step.
        evaluations: Held-out evaluations, evenly over the training; None evaluates once an epoch.
        checkpoint_steps: Also save a checkpoint each this many steps, for a resume in the middle of an epoch.
        precision: `bf16` computes in bfloat16 and keeps fp32 weights; None takes bf16 where the GPU or the CPU
            multiplies it (see `potstill.number_format`).
        gradient_checkpointing: Recompute activations in the backward pass: less memory, more time.
        lora_rank: Train low-rank adapters of this rank and merge them at the end (generation students); None trains
            all weights.
        lora_alpha: Scale of the adapters (alpha / rank).
        qlora: Hold the base model in 4 bits (NF4) while adapters are trained (generation students; `lora_rank` is 16
            where it is not given). They are merged into the base as it was.
        empty_classes: `refuse` ends before training where a label is on no row and no row's likeliest by the
            teacher; `allow` trains a student that knows the name alone.
        sampling: How often rows of an origin are drawn, relative to the others, such as `{retrieved: 2}`: an epoch
            holds as many rows as there are, and rows of this origin come twice as often. Origins that are not named
            count 1, but for written rows beside rows that the user labelled (see `potstill.train.gold_rows`). Rows of
            generation tasks weigh as much instead.
        search: Search of epochs, learning rate and mix of the two losses.
        processes: Processes that share the training on this machine, one a GPU where there are any (see
            `potstill.train.launch`). Each takes `batch_size` rows of a step.
        sharding: `ddp` keeps whole weights in each process, `fsdp` a part of weights, gradients and optimiser state.
        seed: Seed of the head's start, the row order and dropout.
        resume: Go on from the last good checkpoint in the output folder, where there is one.
        keep_checkpoints: Leave the checkpoints in place after the training.
    """

    student: str | None = None
    student_layers: int | None = None
    student_layer_ids: tuple[int, ...] | None = None
    student_ffn: float | None = None
    hidden_weight: float = 1.0
    altered_copies: int = 0
    generations: int = 1
    ensemble: bool = False
    method: Method = "word"
    sequence_share: float = 0.5
    rationale_weight: float = 0.0
    on_policy: float = 0.0
    on_policy_teacher: OnPolicyTeacher = "auto"
    on_policy_tokens: int = 128
    teacher: str | None = None
    teacher_tokenizer: str | None = None
    cross_tokenizer: CrossTokenizer = "carry_over"
    hard_weight: float = 0.5
    soft_weight: float = 0.5
    temperature: float | None = None
    divergence: Divergence = "forward_kl"
    jsd_beta: float = 0.5
    epochs: int | None = None
    max_steps: int | None = None
    min_steps: int | None = None
    batch_size: int | None = None
    gradient_accumulation: int = 1
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    warmup_ratio: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    dropout: float = 0.1
    label_smoothing: float = 0.0
    calibrate: bool = True
    start: Start = "features"
    class_weights: Literal["balanced"] | None = None
    empty_classes: Literal["refuse", "allow"] = "refuse"
    sampling: Mapping[str, float] = field(default_factory=dict)
    search: SearchOptions = field(default_factory=SearchOptions)
    freeze_embeddings: bool | None = None
    max_length: int | None = None
    early_stopping: int | None = 2
    evaluations: int | None = None
    checkpoint_steps: int | None = None
    precision: Precision | None = None
    gradient_checkpointing: bool = False
    lora_rank: int | None = None
    lora_alpha: float = _LORA_ALPHA
    qlora: bool = False
    processes: int = 1
    sharding: Literal["ddp", "fsdp"] = "ddp"
    seed: int = 0
    resume: bool = True
    keep_checkpoints: bool = False

    def __post_init__(self) -> None:
        faults = _faults(self)
        if faults:
            raise OptionError("distil", [OptionFault(f"distil.{fault}", "distil", *fault.place) for fault in faults])


_BY_KIND: dict[StudentKind, dict[str, object]] = {
    "classification": {
        "student": MINILM, "temperature": 2.0, "epochs": 5, "min_steps": 150, "batch_size": 16,
        "learning_rate": 1e-4, "head_learning_rate": 1e-3, "max_length": 256,
        "freeze_embeddings": True,
    },
    "causal": {
        "student": SMOLLM2, "temperature": 1.0, "epochs": 3, "min_steps": 1, "batch_size": 8,
        "learning_rate": 1e-4, "head_learning_rate": 1e-4, "max_length": 1024,
        "freeze_embeddings": False,
    },
}  # fmt: skip


# What the other kind of student would leave unread. None of them has a default that `resolve_options` fills in.
_GENERATION_ONLY = (
    "qlora", "lora_rank", "lora_alpha", "teacher", "teacher_tokenizer", "cross_tokenizer", "rationale_weight",
)  # fmt: skip
_CLASSIFICATION_ONLY = ("generations", "ensemble", "label_smoothing", "class_weights", "altered_copies", "dropout")


def student_name(options: DistilOptions, kind: Kind) -> str:
    """The model that the student of a task of this kind starts from."""
    return str(options.student or _BY_KIND["classification" if kind == "classification" else "causal"]["student"])


def resolve_options(options: DistilOptions, kind: StudentKind) -> DistilOptions:
    """Fill every None that has a default for this kind of student."""
    chosen = {name: value for name, value in _BY_KIND[kind].items() if getattr(options, name) is None}
    if options.epochs is not None and options.min_steps is None:
        chosen["min_steps"] = 1  # who asks for epochs gets as many
    if options.qlora and options.lora_rank is None and kind == "causal":
        chosen["lora_rank"] = 16
    if options.precision is None:
        chosen["precision"] = _fast_precision()
    return replace(options, **chosen)  # type: ignore[arg-type]


def is_cut(options: DistilOptions) -> bool:
    """Whether the student has fewer layers or neurons than the model that it starts from."""
    return bool(options.student_layers or options.student_layer_ids or options.student_ffn)


def local_teacher(ref: str) -> str | None:
    """The model behind a teacher such as `transformers:MODEL`, where it is one that this process can load."""
    backend, _, model = ref.strip().partition(":")
    return (model or SMOLLM2) if backend in ("transformers", "vllm") else None


def asks_teacher(options: DistilOptions, teacher: str) -> bool:
    """Whether on-policy training asks the run's teacher for log-probs, in place of loading one.

    Args:
        options: As given.
        teacher: The run's teacher, as `--teacher` names it.
    """
    if options.on_policy == 0 or options.teacher is not None or options.on_policy_teacher == "weights":
        return False
    return options.on_policy_teacher == "asked" or local_teacher(teacher) is None


def _on_policy_faults(options: DistilOptions, teacher: str) -> list[str]:
    faults = []
    if options.on_policy_teacher == "weights" and options.teacher is None and local_teacher(teacher) is None:
        faults.append(
            f"on_policy_teacher weights: {teacher!r} has none here; name distil.teacher, or leave it out to ask for "
            "log-probs"
        )
    if options.on_policy_teacher == "asked" and options.teacher is not None:
        faults.append(
            f"on_policy_teacher asked is for the run's own teacher, and distil.teacher {options.teacher!r} is loaded; "
            "leave one of them out"
        )
    if asks_teacher(options, teacher) and options.temperature not in (None, 1.0):
        faults.append(
            f"temperature {options.temperature:g} needs the teacher's whole distribution, and one that is asked tells "
            "log-probs at temperature 1 (vLLM's prompt_logprobs know no other): leave temperature out, or name "
            "weights that this machine can load with distil.teacher"
        )
    return faults


def check_for_kind(options: DistilOptions, kind: Kind, teacher: str = "transformers") -> None:
    """Refuse, before anything is asked of a teacher, what a student of this kind cannot be trained with.

    Args:
        options: As given.
        kind: Kind of the task.
        teacher: The run's teacher, as `--teacher` names it.

    Raises:
        OptionError: A temperature that stored token targets do not have, or what only the other kind has.
    """
    faults = other_kind_faults(options, kind)
    if kind == "classification":
        if options.method != "word":
            faults.append(f"method {options.method} is for generation students; leave it out for classification")
        if options.on_policy > 0:
            faults.append("on_policy is for generation students; leave it out for classification")
    else:
        if options.method == "sequence" and options.hard_weight == 0:
            faults.append("hard_weight is 0 and method sequence has hard targets only; raise it, or use method both")
        if options.on_policy > 0:
            faults += _on_policy_faults(options, teacher)
        if options.on_policy > 0 and options.rationale_weight > 0:
            faults.append(
                "rationale_weight and on_policy exclude each other, as no hard loss applies on policy; leave one of "
                "them out"
            )
        if options.on_policy > 0 and options.method != "word":
            faults.append(f"on_policy and method {options.method} exclude each other; leave one of them out")
        if options.on_policy == 0 and options.soft_weight > 0 and options.temperature not in (None, 1.0):
            faults.append(
                f"temperature {options.temperature:g} needs the teacher's whole distribution, and stored token targets "
                "hold its tail at temperature 1 (vLLM's prompt_logprobs know no other): leave temperature out, or "
                "train with on_policy"
            )
    if faults:
        raise OptionError("distil", [f"distil.{fault}" for fault in faults])


def other_kind_faults(options: DistilOptions, kind: Kind) -> list[str]:
    """The options, each with its mend, that only students of the other kind have."""
    if kind == "classification":
        names: tuple[str, ...] = _GENERATION_ONLY
        other = "generation students; leave it out for classification"
    else:
        names, other = _CLASSIFICATION_ONLY, "classification students; leave it out for generation"
    plain = {field.name: field.default for field in fields(DistilOptions)}
    return [f"{name} is for {other}" for name in names if getattr(options, name) != plain[name]]


def _fast_precision() -> Precision:
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bf16" if multiplies_bfloat16(device) else "fp32"


def _faults(options: DistilOptions) -> list[OptionFault]:
    faults: list[OptionFault] = []
    for name in ("hard_weight", "soft_weight", "hidden_weight", "rationale_weight"):
        value = getattr(options, name)
        if not (math.isfinite(value) and value >= 0):
            faults.append(OptionFault(f"{name} must be 0 or more (got {value!r})", name))
    if options.hard_weight == 0 and options.soft_weight == 0:
        faults.append(
            OptionFault(
                "hard_weight and soft_weight are both 0, so there is nothing to learn; raise one", "hard_weight"
            )
        )
    for name in ("temperature", "learning_rate", "head_learning_rate", "max_grad_norm", "lora_alpha"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            faults.append(OptionFault(f"{name} must be above 0 (got {value!r})", name))
    counts = (
        "epochs", "max_steps", "min_steps", "batch_size", "gradient_accumulation", "student_layers", "early_stopping",
        "evaluations", "checkpoint_steps", "lora_rank", "generations", "on_policy_tokens", "processes",
    )  # fmt: skip
    for name in counts:
        value = getattr(options, name)
        if value is not None and value < 1:
            faults.append(OptionFault(f"{name} must be at least 1 (got {value!r})", name))
    if options.altered_copies < 0:
        faults.append(
            OptionFault(f"altered_copies must be 0 or more (got {options.altered_copies!r})", "altered_copies")
        )
    if options.lora_rank is None and not options.qlora and options.lora_alpha != _LORA_ALPHA:
        faults.append(
            OptionFault(
                f"lora_alpha scales adapters (got {options.lora_alpha:g}), and there are none; set lora_rank, or leave "
                "lora_alpha out",
                "lora_alpha",
            )
        )
    if options.sharding == "fsdp" and options.lora_rank is not None:
        faults.append(
            OptionFault(
                "lora_rank and sharding fsdp exclude each other; adapters are small enough for ddp", "lora_rank"
            )
        )
    if not 0 <= options.on_policy <= 1:
        faults.append(OptionFault(f"on_policy must lie in [0, 1] (got {options.on_policy!r})", "on_policy"))
    if not 0 < options.sequence_share <= 1:
        faults.append(
            OptionFault(f"sequence_share must lie in (0, 1] (got {options.sequence_share!r})", "sequence_share")
        )
    ids = options.student_layer_ids
    if ids is not None and (not ids or list(ids) != sorted({i for i in ids if i >= 0})):
        faults.append(
            OptionFault(f"student_layer_ids must be rising layer numbers from 0 (got {list(ids)})", "student_layer_ids")
        )
    if ids is not None and options.student_layers is not None:
        faults.append(
            OptionFault("student_layers and student_layer_ids are both given; leave one out", "student_layers")
        )
    if options.student_ffn is not None and not 0 < options.student_ffn <= 1:
        faults.append(OptionFault(f"student_ffn must lie in (0, 1] (got {options.student_ffn!r})", "student_ffn"))
    if options.max_length is not None and options.max_length < 8:
        faults.append(OptionFault(f"max_length must be at least 8 tokens (got {options.max_length!r})", "max_length"))
    for name in ("warmup_ratio", "dropout", "label_smoothing"):
        value = getattr(options, name)
        if not 0 <= value < 1:
            faults.append(OptionFault(f"{name} must lie in [0, 1) (got {value!r})", name))
    if options.weight_decay < 0:
        faults.append(OptionFault(f"weight_decay must be 0 or more (got {options.weight_decay!r})", "weight_decay"))
    for origin, share in options.sampling.items():
        if origin not in ORIGINS:
            faults.append(
                OptionFault(f"sampling: {origin!r} is no origin of rows{nearest(origin, ORIGINS)}", "sampling")
            )
        elif not (math.isfinite(share) and share >= 0):
            faults.append(OptionFault(f"sampling: {origin} must be 0 or more (got {share!r})", "sampling"))
    if options.divergence == "jsd" and not 0 < options.jsd_beta < 1:
        faults.append(
            OptionFault(
                f"jsd_beta must lie between 0 and 1 (got {options.jsd_beta!r}); the ends are forward_kl and reverse_kl",
                "jsd_beta",
            )
        )
    return faults
