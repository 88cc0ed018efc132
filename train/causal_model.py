"""The causal student before and after training: loaded and cut to some of its layers and neurons; saved."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from potstill.asking.answering_template import answering_template
from potstill.decoding.text_model import load_text_model
from potstill.errors import UserError
from potstill.masking import public_name
from potstill.models import install_hint, local_model
from potstill.train.card import StudentCard, fields_of
from potstill.train.layers import keep_layers
from potstill.train.options import DistilOptions
from potstill.train.qlora import load_4bit, lora_config, merge_into
from potstill.train.ready import check_depth
from potstill.train.student import publish
from potstill.train.width import keep_neurons

if TYPE_CHECKING:
    from potstill.task import TaskSpec


def load_causal(options: DistilOptions, *, layers: list[int] | None = None) -> tuple[Any, Any, torch.dtype]:
    """Tokenizer, model in fp32 cut to `student_layers`, and the number format that its weights rest in.

    Args:
        options: Resolved options.
        layers: Which layers to keep, instead of evenly spaced ones.

    Raises:
        UserError: It cannot be loaded, or has fewer layers than are asked for.
    """
    if options.qlora and options.student_ffn is not None:
        return _cut_and_rounded(options, layers)
    name = str(options.student)
    folder = local_model(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        quantised = options.qlora
        model = load_4bit(folder) if quantised else load_text_model(folder, dtype=torch.float32)
        stored_dtype = AutoConfig.from_pretrained(folder).dtype or torch.float32
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"the student {name!r} cannot be loaded ({error}); {install_hint(name)}") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # It is saved with the student, which so is asked by others as it was trained.
    tokenizer.chat_template = answering_template(tokenizer)
    layers = layers or (list(options.student_layer_ids) if options.student_layer_ids else None)
    if layers or options.student_layers:
        check_depth(name, int(model.config.get_text_config().num_hidden_layers), options)
        model = keep_layers(model, len(layers) if layers else int(options.student_layers or 1), layers)
    if options.student_ffn is not None:
        model = keep_neurons(model, options.student_ffn)
    if options.freeze_embeddings:
        model.get_input_embeddings().weight.requires_grad_(False)
    return tokenizer, model, stored_dtype


def _cut_and_rounded(options: DistilOptions, layers: list[int] | None) -> tuple[Any, Any, torch.dtype]:
    """`load_causal` of a student with fewer neurons: they are chosen by whole weights, which 4-bit codes hide."""
    tokenizer, whole, stored_dtype = load_causal(replace(options, qlora=False), layers=layers)
    with tempfile.TemporaryDirectory() as place:
        whole.save_pretrained(place)
        model = load_4bit(place)
    model.name_or_path = whole.name_or_path  # peft warns where the two differ
    return tokenizer, model, stored_dtype


def adapters(options: DistilOptions, model: Any) -> Any:
    """Low-rank adapters as the options want them for a model, or None.

    Raises:
        MissingExtra: peft is not installed.
    """
    if options.lora_rank is None:
        return None
    return lora_config(model, options.lora_rank, options.lora_alpha, "lora", "distil.lora_rank")


def plain_model(trainer: Any) -> Any:
    """The trained model with its own forward, adapters merged; every process calls it, the first one uses it."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if getattr(trainer, "is_fsdp_enabled", False):
        state = trainer.accelerator.get_state_dict(trainer.model)
        if not trainer.accelerator.is_main_process:
            return None
        whole = AutoModelForCausalLM.from_config(model.config, dtype=torch.float32)
        whole.load_state_dict({name.replace("_orig_mod.", ""): value for name, value in state.items()}, strict=False)
        whole.tie_weights()
        return whole
    if trainer.options.qlora:
        base = load_causal(replace(trainer.options, qlora=False))[1]
        return merge_into(base, model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    if "forward" in vars(model):
        del model.forward
    return model


def save_trained(
    trainer: Any, tokenizer: Any, spec: TaskSpec, options: DistilOptions, dtype: torch.dtype, answer_tokens: int,
    out: Path, checkpoints: Path,
) -> None:  # fmt: skip
    """Publish what a trainer made, in the number format that the model came in; every process calls it.

    Checkpoints go, unless the options keep them.
    """
    finished = plain_model(trainer)
    if trainer.accelerator.is_main_process:
        card = StudentCard(
            name=spec.name, kind=spec.kind, instruction=spec.instruction, max_length=int(options.max_length or 1024),
            max_new_tokens=answer_tokens, base=public_name(str(options.student)), inputs=fields_of(spec),
        )  # fmt: skip
        publish(finished.to(dtype), tokenizer, card, out)
        if not options.keep_checkpoints:
            shutil.rmtree(checkpoints)
    trainer.accelerator.wait_for_everyone()
