"""The encoder student before training: loaded with a head for the task's labels, and cut to some layers and neurons.

The layers that stay are the first ones. A model's layers hand each other states in a space that changes slowly, so that
the first k still speak to each other, while those with gaps between them have to learn it again, which a few hundred
rows do not teach. DistilBERT's every other layer (arXiv:1910.01108 §3) had 16 GB of text to heal. On 640 rows of the
training splits of TREC, SICK and customer reviews three spaced layers of MiniLM's six keep 81 to 88 % of the whole
student's macro-F1, and the first three 97 to 102 % (scratch measurements).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from potstill.errors import UserError
from potstill.models import install_hint, local_model
from potstill.task import TaskSpec
from potstill.train.head_start import averages
from potstill.train.layers import keep_layers
from potstill.train.options import DistilOptions
from potstill.train.ready import check_depth, check_room
from potstill.train.width import keep_neurons


def load_encoder(spec: TaskSpec, options: DistilOptions, deep: Path | None = None) -> tuple[Any, Any]:
    """Tokenizer, and classifier in float32, cut as the options ask.

    Args:
        spec: The task, whose labels are the classes.
        options: Resolved options.
        deep: A trained student to start from, instead of the base model.

    Raises:
        UserError: It cannot be loaded, has less room than `max_length`, or fewer layers than are asked for.
    """
    name = str(deep or options.student)
    folder = local_model(name)
    names = list(spec.label_names)
    try:
        config = AutoConfig.from_pretrained(
            folder, num_labels=len(names), id2label=dict(enumerate(names)), problem_type="single_label_classification",
            label2id={label: i for i, label in enumerate(names)},
        )  # fmt: skip
        for field in ("classifier_dropout", "seq_classif_dropout"):
            if hasattr(config, field):
                setattr(config, field, options.dropout)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float32)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"the student {name!r} cannot be loaded ({error}); {install_hint(name)}") from None
    kept = kept_layers(model, options, name)
    if len(kept) < int(model.config.num_hidden_layers):
        model = keep_layers(model, len(kept), kept)
    if options.student_ffn is not None:
        model = keep_neurons(model, options.student_ffn)
    if options.freeze_embeddings:
        model.get_input_embeddings().weight.requires_grad_(False)
    check_room(name, model.config, options)
    return tokenizer, model


def kept_layers(model: Any, options: DistilOptions, name: str) -> list[int]:
    """Numbers of the layers that a classifier keeps, from 0.

    A layer that averages (`head_start`) stands behind the model's own; it is not counted, and always stays.

    Raises:
        UserError: The model does not have them.
    """
    depth = int(model.config.num_hidden_layers)
    own = depth - averages(model)
    check_depth(name, own, options)
    if not (options.student_layers or options.student_layer_ids):
        chosen = list(range(own))
    elif options.student_layer_ids:
        chosen = list(options.student_layer_ids)
    else:
        chosen = list(range(int(options.student_layers or 1)))
    return [*chosen, *range(own, depth)]
