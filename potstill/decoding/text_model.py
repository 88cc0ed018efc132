"""Causal language models, also of checkpoints that see and hear: of those, the half that reads and writes text.

Gemma 3 and 4, Qwen3.5, Ministral 3 and others are published as one model for pictures and text. What enters is such a
folder, or that of a plain language model; what leaves is a plain one, which is saved and loaded as such.
"""

from __future__ import annotations

from typing import Any

import torch


def text_config(config: Any) -> Any:
    """The configuration of the language model in a checkpoint.

    Args:
        config: Of transformers: of a language model, or of one with pictures or sound.

    Returns:
        `config` itself where it is of a language model, its text half's, or None where transformers has no language
        model of that kind.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    half = _text_half(config)
    if type(half) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return half
    return config if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else None


def load_text_model(folder: str, **options: Any) -> Any:
    """The language model of a folder or Hub id.

    Args:
        folder: What it is loaded from.
        options: For `from_pretrained`, such as `dtype`.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no language model, and has no text half that transformers can load alone.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM

    config = AutoConfig.from_pretrained(folder)
    half = _text_half(config)
    if half is config or _loads_half(config, half):
        return AutoModelForCausalLM.from_pretrained(folder, **options)
    if text_config(config) is not half:
        raise ValueError(
            f"a {config.model_type} reads more than text, and transformers has no language model of its text half's "
            f"kind, {half.model_type}"
        )
    return _half_of(AutoModelForMultimodalLM.from_pretrained(folder, **options))


def writes_text(config: Any) -> bool:
    """Whether the weights behind a configuration are those of a language model, with pictures or without."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    named = {name for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() for name in _each(names)}
    return bool(named & set(config.architectures or ())) or (
        reads_more_than_text(config) and text_config(config) is not None
    )


def _each(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def reads_more_than_text(config: Any) -> bool:
    """Whether a configuration is of a model with pictures or sound."""
    return _text_half(config) is not config


def _text_half(config: Any) -> Any:
    """The text part of a configuration of several parts; itself where it has none."""
    return getattr(config, "text_config", None) or config


def _loads_half(config: Any, half: Any) -> bool:
    """Whether the class for language models takes the text half of such a checkpoint by itself, as Qwen3.5's does."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and isinstance(
        half, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].config_class
    )


def _half_of(whole: Any) -> Any:
    """The decoder and the output head of a loaded model as a language model; the tensors are the same."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    config, head = whole.config.get_text_config(decoder=True), whole.get_output_embeddings()
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(config, name, None) is None:
            setattr(config, name, getattr(whole.config, name, None))
    # What the whole says of its weights holds, and not what the half does by default.
    config.tie_word_embeddings = head.weight is whole.get_input_embeddings().weight
    with torch.device("meta"):
        model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]._from_config(config, dtype=whole.dtype)
    decoder = whole.get_decoder()
    if type(decoder) is not type(model.base_model):
        raise ValueError(
            f"the text half of a {whole.config.model_type} is a {type(decoder).__name__}, and not the "
            f"{type(model.base_model).__name__} of a language model"
        )
    setattr(model, model.base_model_prefix, decoder)
    model.set_output_embeddings(head)
    model.generation_config = whole.generation_config
    model.name_or_path = whole.name_or_path
    return model.train(whole.training)
