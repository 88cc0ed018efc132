"""Which weights of a model stay: one mask of booleans a parameter, kept through training and on disk.

What enters: parameter names and masks. What leaves: zeros that survive every optimiser step, and a safetensors file.
A mask that is applied once and forgotten is undone by the first step of healing; `hold` prevents that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from potstill.errors import DataError


class Masks:
    """Masks of some parameters of a model.

    Attributes:
        kept: Parameter name to a bool tensor of its shape, True where the weight stays.
    """

    def __init__(self, kept: Mapping[str, torch.Tensor]):
        self.kept = dict(kept)

    def sparsity(self) -> float:
        """Share of the masked parameters' weights that are removed."""
        total = sum(mask.numel() for mask in self.kept.values())
        return 1 - sum(int(mask.sum()) for mask in self.kept.values()) / max(total, 1)

    def within(self, other: Masks) -> Masks:
        """These masks, with what another's take away taken away as well; both are of the same parameters."""
        return Masks({name: mask & other.kept[name].to(mask.device) for name, mask in self.kept.items()})

    @torch.no_grad()
    def apply(self, model: Any) -> None:
        """Set the removed weights of a model to zero, in place.

        Raises:
            DataError: A parameter that the model lacks, or has in another shape.
        """
        for parameter, mask in self._pairs(model):
            parameter.masked_fill_(~mask.to(parameter.device), 0)

    @contextmanager
    def hold(self, model: Any) -> Iterator[None]:
        """Zeros stay zeros inside the block, whatever optimiser steps over the model.

        Gradients of removed weights are zeroed, so that neither their moments nor the norm of the gradient know them;
        after each step the masks are applied again, for optimisers that move a weight without a gradient.
        """
        pairs = self._pairs(model)
        self.apply(model)
        hooks: list[Any] = []
        for parameter, mask in pairs:
            if parameter.requires_grad:
                here = mask.to(parameter.device)
                hook = parameter.register_hook(lambda gradient, here=here: gradient * here)  # type: ignore[no-untyped-call]
                hooks.append(hook)
        hooks.append(register_optimizer_step_post_hook(lambda *_: self.apply(model)))
        try:
            yield
        finally:
            for handle in hooks:
                handle.remove()
            self.apply(model)

    def save(self, path: Path) -> None:
        """Write the masks as safetensors (bool)."""
        save_file({name: mask.contiguous() for name, mask in self.kept.items()}, path, {"format": "potstill masks 1"})

    @classmethod
    def load(cls, path: Path) -> Masks:
        """Read what `save` wrote.

        Raises:
            DataError: The file is missing or holds no masks.
        """
        try:
            kept = load_file(path)
        except Exception as error:
            raise DataError(f"{path} holds no masks ({error}); prune again") from None
        if wrong := [name for name, mask in kept.items() if mask.dtype != torch.bool]:
            raise DataError(f"{path} holds {wrong[0]!r} as {kept[wrong[0]].dtype}, not bool; it is no file of masks")
        return cls(kept)

    @classmethod
    def of_zeros(cls, model: Any, names: Iterator[str] | list[str]) -> Masks:
        """The masks that a model's own zeros are."""
        return cls({name: _parameter(model, name) != 0 for name in names})

    def _pairs(self, model: Any) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
        return [(_parameter(model, name, mask.shape), mask) for name, mask in self.kept.items()]


def _parameter(model: Any, name: str, shape: torch.Size | None = None) -> torch.nn.Parameter:
    owner_name, _, own = name.rpartition(".")
    try:
        owner = model.get_submodule(owner_name)
        # Under quantization-aware training the weight is computed, and its original is what the optimiser moves.
        if own in getattr(owner, "parametrizations", {}):
            parameter = owner.parametrizations[own].original
        else:
            parameter = owner._parameters[own]
    except (AttributeError, KeyError):
        raise DataError(
            f"the masks name {name!r}, which {type(model).__name__} lacks; they are another model's"
        ) from None
    if shape is not None and parameter.shape != shape:
        raise DataError(
            f"the mask of {name} has the shape {tuple(shape)} and the parameter {tuple(parameter.shape)}; "
            "they are another model's"
        )
    found: torch.nn.Parameter = parameter
    return found
