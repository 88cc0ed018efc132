"""Whether a student can be trained as asked, before a teacher writes a row for it.

In: options and kind of task. Out: nothing, or the error that the training would end with hours later. Only the model's
`config.json` is read; whether its weights are whole is seen when they are loaded.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from potstill.errors import MissingExtra, UserError
from potstill.models import install_hint, local_model
from potstill.train.options import DistilOptions, resolve_options, student_name

if TYPE_CHECKING:
    from potstill.task import Kind


def check_student(options: DistilOptions, kind: Kind) -> None:
    """Refuse a student whose model is not there or is of another kind, and options whose library is missing.

    Args:
        options: As given, with a student in place of `auto`.
        kind: Kind of the task.

    Raises:
        UserError: A model that cannot be loaded, or that has no head for this kind of task.
        MissingExtra: A library of an option that is on.
    """
    wanted = [
        ("optuna", "search", "distil.search", options.search.trials > 0),
        ("peft", "lora", "distil.lora_rank", options.lora_rank is not None or options.qlora),
        ("bitsandbytes", "qlora", "distil.qlora", options.qlora),
    ]
    for library, extra, option, on in wanted:
        if on and importlib.util.find_spec(library) is None:
            raise MissingExtra(library, extra, option)
    sorts, name = kind == "classification", student_name(options, kind)
    config = _config(name, "the student")
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    if type(config) not in (MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING if sorts else MODEL_FOR_CAUSAL_LM_MAPPING):
        head = "classification head" if sorts else "head that writes"
        raise UserError(
            f"the student {name!r} is a {config.model_type}, which transformers gives no {head}; take a model with "
            f"one, such as {student_name(DistilOptions(), kind)}"
        )
    check_depth(name, int(getattr(config.get_text_config(), "num_hidden_layers", 0) or 0), options)
    if sorts:
        check_room(name, config, resolve_options(options, "classification"))
    if options.on_policy > 0 and options.teacher is not None:
        _config(options.teacher, "distil.teacher")


def check_depth(name: str, depth: int, options: DistilOptions) -> None:
    """Refuse layers that a model does not have.

    Args:
        name: The model.
        depth: How many layers it has; 0 where its configuration does not say.
        options: `student_layers` and `student_layer_ids` are read.

    Raises:
        UserError: More of them are to be kept than there are, or one that is not there.
    """
    last, keep = max(options.student_layer_ids or (0,)), options.student_layers or 0
    if depth and last >= depth:
        raise UserError(f"distil.student_layer_ids names layer {last}; {name} has 0 to {depth - 1}")
    if depth and keep > depth:
        raise UserError(f"distil.student_layers {keep} is more than the {depth} layers of {name}; choose 1 to {depth}")


def check_room(name: str, config: Any, options: DistilOptions) -> None:
    """Refuse inputs that are longer than a model has positions.

    Raises:
        UserError: `max_length` is too long.
    """
    room = int(getattr(config, "max_position_embeddings", 0) or 0)
    if room and int(options.max_length or 0) > room:
        raise UserError(f"max_length {options.max_length} is more than the {room} positions of {name}; lower it")


def _config(name: str, what: str) -> Any:
    from transformers import AutoConfig

    folder = local_model(name)
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{what} {name!r} cannot be loaded ({error}); {install_hint(name)}") from None
