"""QLoRA: a student whose base model rests in 4 bits while low-rank adapters are trained on it.

What enters: the folder of a causal model. What leaves: that model with its linear layers in NF4 (double quantisation),
and after the training a plain model with the adapters merged.

The adapters are merged into a base that is loaded afresh in its own number format, never into the 4-bit weights:
those would be rounded once more (and once a model on a CPU has answered, bitsandbytes keeps them in another order
than the one that merging reads, without an error).

Source: Dettmers et al., QLoRA, arXiv:2305.14314 §3.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from potstill.decoding.text_model import load_text_model, reads_more_than_text
from potstill.errors import MissingExtra, UserError

# Their kernels read the weights of the last projection, past any adapter; peft refuses one there.
_FUSED_OUTPUT = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")


def lora_config(model: Any, rank: int, alpha: float, extra: str, what: str) -> Any:
    """Low-rank adapters on every linear layer of a causal model that can have one.

    Args:
        model: The model.
        rank: Of each adapter.
        alpha: Their scale, divided by the rank.
        extra: What installs peft, for the message.
        what: What wants them, for the message.

    Raises:
        MissingExtra: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise MissingExtra("peft", extra, what) from None
    return LoraConfig(
        r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM",
        exclude_modules=["out_proj"] if model.config.model_type in _FUSED_OUTPUT else None,
    )  # fmt: skip


def load_4bit(folder: str, why: str = "distil.qlora") -> Any:
    """A causal model with its linear layers in NF4; embeddings and norms in fp32.

    Args:
        folder: Of a causal model, or of one whose text half is one.
        why: What asked for it, for the message where it cannot be.

    Raises:
        MissingExtra: bitsandbytes is not installed.
        UserError: It cannot quantise on this machine.
    """
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise MissingExtra("bitsandbytes", "qlora", why) from None
    from transformers import BitsAndBytesConfig

    compute = torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    how = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )
    try:
        if reads_more_than_text(AutoConfig.from_pretrained(folder)):  # the text half is quantised, and not the whole
            with tempfile.TemporaryDirectory() as place:
                load_text_model(folder, dtype=torch.float32).save_pretrained(place)
                model = AutoModelForCausalLM.from_pretrained(place, quantization_config=how, dtype=torch.float32)
            model.name_or_path = folder
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=how, dtype=torch.float32)
    except RuntimeError as error:
        raise UserError(
            f"bitsandbytes cannot hold the student in 4 bits on this machine ({error}); "
            + ("leave out distil.qlora and keep distil.lora_rank" if why == "distil.qlora" else f"leave out {why}")
        ) from error
    for module in model.modules():
        # On a CPU, answering would repack the weights for bf16 kernels: other numbers than in training, and a shape
        # that not every width has.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def merge_into(base: Any, trained: Any) -> Any:
    """The adapters of a trained model, merged into a base of full precision.

    Args:
        base: The same model without quantisation, cut to the same layers; it is changed in place.
        trained: The PEFT model over 4-bit weights.

    Returns:
        A plain model.
    """
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    fresh = get_peft_model(base, trained.peft_config["default"])
    set_peft_model_state_dict(fresh, get_peft_model_state_dict(trained))
    return fresh.merge_and_unload()
