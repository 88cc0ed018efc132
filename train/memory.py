"""Whether a training fits into memory, asked before its first step.

Counted are what is known beforehand: gradients and AdamW's two moments of every trained weight in fp32, the
activations that the backward pass keeps for the longest batch, and the chunk of logits. An estimate that is 20 %
above what is free would swap or be killed, without a message; one below it may still fail, with the message of
`loop.finish`.
"""

from __future__ import annotations

from typing import Any

import torch

from potstill.errors import TrainingError
from potstill.train.options import DistilOptions

_FLOAT = 4
_LOGITS = 3 * 64 * 2**20
_SLACK = 1.2


def needed_bytes(model: Any, options: DistilOptions, longest: int, *, shards: int = 1) -> int:
    """Bytes that a training takes on top of the loaded weights.

    Args:
        model: The student, in memory.
        options: Resolved options.
        longest: Tokens of the longest row.
        shards: Processes that share optimiser state and gradients (FSDP); 1 where each holds all.
    """
    trained: int = sum(p.numel() for p in model.parameters() if p.requires_grad)
    config = model.config.get_text_config()
    hidden, layers = int(config.hidden_size), int(config.num_hidden_layers)
    told = getattr(config, "intermediate_size", None) or 4 * hidden
    wide = int(told if isinstance(told, int) else max(told))  # Gemma 3n has one for each layer
    size = _FLOAT if options.precision == "fp32" else 2
    tokens = int(options.batch_size or 1) * longest
    # Kept a layer: inputs of its projections and norms (8 hidden states), and four tensors of the feed-forward.
    a_layer = tokens * size * (8 * hidden + 4 * wide)
    kept = a_layer + layers * tokens * size * hidden if options.gradient_checkpointing else layers * a_layer
    return 3 * _FLOAT * trained // shards + int(kept) + _LOGITS


def check_memory(model: Any, options: DistilOptions, longest: int, *, shards: int = 1) -> None:
    """Refuse a training that cannot fit.

    Raises:
        TrainingError: Free memory of the device that trains is less than the estimate.
    """
    needed, free = needed_bytes(model, options, longest, shards=shards), free_bytes(model)
    if free is not None and needed > _SLACK * free:
        raise TrainingError(
            f"this training needs about {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free: lower "
            f"distil.batch_size (now {options.batch_size}) and raise distil.gradient_accumulation by the same factor "
            "(the result is the same), set distil.gradient_checkpointing or distil.lora_rank, or choose a smaller "
            "student"
        )


def free_bytes(model: Any) -> int | None:
    """Free memory where the training will run; on a GPU that the weights have yet to enter, less their size."""
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        waiting: int = sum(p.numel() * p.element_size() for p in model.parameters() if not p.is_cuda)
        return int(free) - waiting
    import psutil

    return int(psutil.virtual_memory().available)
