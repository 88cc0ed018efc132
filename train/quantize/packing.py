"""Codes to bytes and back: what a quantised weight takes in a file is its bits, not its bytes in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from potstill.errors import DataError
from potstill.train.quantize.codebook import NF4, SIGNS, scales_of
from potstill.train.quantize.lattice import Lattice, QuantizedWeight


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Codes side by side: (n,) uint8 -> (ceil(n · bits / 8),) uint8, the first code in the lowest bits.

    Raises:
        ValueError: `bits` is not 1 to 8.

    Examples:
        >>> pack_bits(torch.tensor([1, 2, 3], dtype=torch.uint8), 4).tolist()  # 1 + 16 · 2, and 3
        [33, 3]
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"codes of {bits} bits cannot be packed; 1 to 8 can")
    flat = codes.reshape(-1)
    if bits == 8:
        return flat.clone()
    size = -(-flat.numel() * bits // 8)
    # Eight codes fill `bits` whole bytes.
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    packed = torch.empty(padded.shape[0], bits, dtype=torch.uint8)
    for byte in range(bits):
        total = torch.zeros(padded.shape[0], dtype=torch.int16)
        for i in range(8):
            shift = i * bits - 8 * byte
            if -bits < shift < 8:
                part = padded[:, i].to(torch.int16)
                total |= part << shift if shift >= 0 else part >> -shift
        packed[:, byte] = (total & 255).to(torch.uint8)
    return packed.view(-1)[:size]


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """The reverse of `pack_bits`: (count,) uint8.

    Examples:
        >>> unpack_bits(torch.tensor([33, 3], dtype=torch.uint8), 4, 3).tolist()
        [1, 2, 3]
    """
    if bits == 8:
        return packed[:count].clone()
    padded = torch.nn.functional.pad(packed, (0, -packed.numel() % bits)).view(-1, bits).to(torch.int16)
    codes = torch.empty(padded.shape[0], 8, dtype=torch.uint8)
    for i in range(8):
        first, shift = divmod(i * bits, 8)
        value = padded[:, first] >> shift
        if shift + bits > 8:
            value = value | padded[:, first + 1] << (8 - shift)
        codes[:, i] = (value & (2**bits - 1)).to(torch.uint8)
    return codes.view(-1)[:count]


def stored_tensors(weight: QuantizedWeight) -> dict[str, Tensor]:
    """What a file holds of a weight: packed codes, scales in half precision where that is exact, zeros, outliers."""
    lattice = weight.lattice
    stored = {"codes": pack_bits(weight.codes, lattice.bits)}
    if lattice.scale_parts is not None:
        stored |= {f"scale_{name}": value for name, value in lattice.scale_parts.items()}
    elif lattice.scale.numel() > 1 or float(lattice.scale.view(-1)[0]) != 1.0:
        stored["scale"] = _half_if_exact(lattice.scale)
    if lattice.zero is not None and not _is_middle(lattice):
        stored["zero"] = pack_bits(lattice.zero.to(torch.uint8), lattice.bits)
    if lattice.codebook is not None and not _is_known(lattice.codebook):
        stored["codebook"] = lattice.codebook
    if lattice.outliers is not None and weight.kept is not None:
        stored["outliers"], stored["kept"] = lattice.outliers.to(torch.int32), _half_if_exact(weight.kept)
    return {name: tensor.contiguous() for name, tensor in stored.items()}


def stored_bits(weight: QuantizedWeight) -> float:
    """Bits a weight in a file: codes, scales, zeros, outliers."""
    stored = stored_tensors(weight)
    return 8 * sum(tensor.numel() * tensor.element_size() for tensor in stored.values()) / weight.codes.numel()


def describe(weight: QuantizedWeight) -> dict[str, Any]:
    """What `restore` needs beside the tensors, as JSON types."""
    lattice = weight.lattice
    return {
        "method": weight.method, "bits": lattice.bits, "shape": list(weight.codes.shape), "group": lattice.group,
        "scales": list(lattice.scale.shape), "low": lattice.low, "affine": lattice.zero is not None,
    }  # fmt: skip


def restore(stored: Mapping[str, Tensor], facts: Mapping[str, Any], name: str) -> QuantizedWeight:
    """A weight from what `stored_tensors` and `describe` gave.

    Raises:
        DataError: Tensors are missing or of another size.
    """
    try:
        bits, (rows, width), shape = int(facts["bits"]), facts["shape"], tuple(facts["scales"])
        codes = unpack_bits(stored["codes"], bits, rows * width).view(rows, width)
        parts = {key.removeprefix("scale_"): value for key, value in stored.items() if key.startswith("scale_")}
        if parts:
            scale = scales_of(parts, shape)
        else:
            scale = stored["scale"].float().view(shape) if "scale" in stored else torch.ones(shape)
        zero = None
        if facts["affine"]:
            middle = torch.full(shape, float(2 ** (bits - 1)))
            packed = stored.get("zero")
            zero = middle if packed is None else unpack_bits(packed, bits, scale.numel()).float().view(shape)
        book = stored.get("codebook", SIGNS if bits == 1 else NF4).float() if zero is None else None
        outliers = stored["outliers"].long() if "outliers" in stored else None
        lattice = Lattice(bits, scale, zero, book, outliers, facts["low"], facts["group"], parts or None)
        weight = QuantizedWeight(facts["method"], lattice, codes, stored["kept"].float() if "kept" in stored else None)
    except (KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"the packed weight {name!r} cannot be read ({error}); compress the student again") from None
    return weight


def narrowed(weight: QuantizedWeight) -> QuantizedWeight:
    """The weight with its outliers in half precision, as files keep them."""
    return weight if weight.kept is None else replace(weight, kept=weight.kept.half().float())


def _half_if_exact(value: Tensor) -> Tensor:
    half = value.half()
    return half if bool((half.float() == value).all()) else value.float()


def _is_known(codebook: Tensor) -> bool:
    """Whether a codebook is the one that its number of codes stands for anyway."""
    return any(torch.equal(codebook, known) for known in (NF4, SIGNS))


def _is_middle(lattice: Lattice) -> bool:
    assert lattice.zero is not None
    return bool((lattice.zero == 2 ** (lattice.bits - 1)).all())
