"""Which number format a device multiplies fast, for teachers that answer and students that learn.

A CPU with AVX512-BF16 or AMX multiplies bfloat16 at twice the speed of float32; one without converts around every
product and is slower than with float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are the fast ones on this device."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and _cpu_multiplies_bfloat16()


def _cpu_multiplies_bfloat16() -> bool:
    import torch

    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if ask is not None:
        return bool(ask())
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return False
