"""An encoder classifier as one ONNX file whose integers are those of the recipe.

torch exports the model; then each matrix that was rounded gives way to nodes that work on its codes:

    int8      DynamicQuantizeLinear → MatMulInteger → scale    inputs rounded to 8 bits as they come, integer product
    4 bits    MatMulNBits (onnxruntime's own operator)         blocks of a row, a scale each
    embedding Gather of codes and of scales, multiplied        int8, or two 4-bit codes a byte

Other roundings (NF4, GOBO, one bit) have no operator that is fast, and are kept in packed files instead. Codes are
stored unsigned with zero point 128: products of unsigned and signed bytes saturate in 16 bits on processors without
VNNI.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from potstill.errors import MissingExtra, UserError
from potstill.train.compress.state import Compressed, write_around
from potstill.train.quantize.lattice import QuantizedWeight
from potstill.train.quantize.schemes import targets
from potstill.train.quiet import quiet_transformers

MODEL = "model.onnx"


def onnx_faults(state: Compressed) -> list[str]:
    """Why a student cannot become an ONNX file; empty where it can."""
    faults = []
    if state.kind != "classification":
        faults.append("onnx is for classification students; choose vllm or gguf for decoders")
    if foreign := sorted({weight.method for weight in state.quantized.values() if not _has_operator(weight)}):
        faults.append(
            f"onnxruntime has no operator for {', '.join(foreign)}; it has int8 (tensor, channel) and symmetric int4 "
            "with groups of 16, 32, 64 or 128"
        )
    for target in targets(state.model):
        weight = state.quantized.get(target.name)
        if target.part != "embeddings" or weight is None or weight.lattice.bits != 4 or not weight.lattice.group:
            continue
        if weight.codes.shape[1] % weight.lattice.group:
            faults.append(
                f"an embedding of width {weight.codes.shape[1]} is no multiple of group {weight.lattice.group}; choose "
                "another group"
            )
    if state.activations is not None and state.activations.get("threshold") is not None:
        faults.append("onnxruntime has no operator that keeps outlier features apart; choose int8:channel")
    return faults


def write_onnx(state: Compressed, folder: Path) -> None:
    """Write `model.onnx`, configuration, tokenizer and card.

    Raises:
        MissingExtra: onnx or onnxscript is not installed.
        UserError: This student or its rounding cannot be an ONNX file.
    """
    if faults := onnx_faults(state):
        raise UserError("; ".join(faults))
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError:
        raise MissingExtra("onnx", "compress", "an ONNX file") from None
    with tempfile.TemporaryDirectory() as place:
        plain = Path(place) / MODEL
        _export(state.model, state.tokenizer, plain)
        graph = onnx.load(plain)
    _Rewriter(graph, state.quantized).rewrite()
    # Tensors of the exporter's shape inference describe nodes that are gone.
    del graph.graph.value_info[:]
    onnx.save(graph, folder / MODEL)
    write_around(state, folder)


def _export(model: Any, tokenizer: Any, path: Path) -> None:
    class Logits(nn.Module):
        """The model as a function of two arrays."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    example = torch.full((2, 7), int(tokenizer.pad_token_id or 0))
    mask = torch.ones_like(example)
    mask[1, 5:] = 0  # without padding in it, the exporter would trace a mask-free model
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    shapes = ({0: batch, 1: length}, {0: batch, 1: length})
    with warnings.catch_warnings(), quiet_transformers(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Logits().eval(), (example, mask), dynamo=True, dynamic_shapes=shapes, verbose=False,
            input_names=["input_ids", "attention_mask"], output_names=["logits"],
        )  # fmt: skip
        if program is None:
            raise UserError("torch exported no ONNX program; keep the packed files (--format packed)")
        program.save(str(path))


def _has_operator(weight: QuantizedWeight) -> bool:
    lattice = weight.lattice
    if lattice.codebook is not None or lattice.zero is None:
        return False
    if lattice.bits == 8:
        return lattice.scale.shape[1] == 1
    middle = bool((lattice.zero == 8).all())
    return lattice.bits == 4 and middle and lattice.group in (16, 32, 64, 128)


class _Rewriter:
    """Puts integer nodes in the place of products and look-ups of rounded weights."""

    def __init__(self, graph: Any, quantized: dict[str, QuantizedWeight]):
        from onnx import helper, numpy_helper

        self.helper, self.arrays = helper, numpy_helper
        self.model, self.graph = graph, graph.graph
        self.stored = {item.name: item for item in self.graph.initializer}
        self.by_values: dict[bytes, QuantizedWeight] = {}
        for weight in quantized.values():
            values = weight.values().numpy()
            self.by_values[_key(values)] = weight
            self.by_values[_key(values.T)] = weight
        self.rounded: dict[str, tuple[str, str, str]] = {}
        self.put: set[str] = set()
        self.nodes: list[Any] = []
        self.contrib = False

    def rewrite(self) -> None:
        """Replace every product and look-up whose weight was rounded, and drop what is no longer used."""
        for node in self.graph.node:
            made = self._instead_of(node)
            if made is None:
                self.nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.graph.node for name in node.input} | {item.name for item in self.graph.output}
        kept = [item for item in self.graph.initializer if item.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        if self.contrib and not any(item.domain == "com.microsoft" for item in self.model.opset_import):
            self.model.opset_import.append(self.helper.make_opsetid("com.microsoft", 1))

    def _instead_of(self, node: Any) -> bool | None:
        place = {"MatMul": 1, "Gemm": 1, "Gather": 0}.get(node.op_type)
        if place is None or len(node.input) <= place or node.input[place] not in self.stored:
            return None
        found = self.stored[node.input[place]]
        if len(found.dims) != 2:
            return None
        array = self.arrays.to_array(found)
        weight = self.by_values.get(_key(array))
        if weight is None:
            return None
        if node.op_type == "Gather":
            if array.shape != tuple(weight.codes.shape):
                return None
            self._look_up(node, found.name, weight)
            return True
        if node.op_type == "Gemm" and not self._is_plain_gemm(node):
            return None
        self._product(node, found.name, weight)
        return True

    def _is_plain_gemm(self, node: Any) -> bool:
        facts = {item.name: self.helper.get_attribute_value(item) for item in node.attribute}
        return facts.get("alpha", 1.0) == 1.0 and facts.get("beta", 1.0) == 1.0 and not facts.get("transA", 0)

    def _add(self, kind: str, inputs: list[str], outputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(self.helper.make_node(kind, inputs, outputs, name=f"{name}_{kind}", **attributes))
        return outputs[0]

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self.put:
            self.put.add(name)
            self.graph.initializer.append(self.arrays.from_array(np.ascontiguousarray(value), name))
        return name

    def _product(self, node: Any, name: str, weight: QuantizedWeight) -> None:
        """x · Wᵀ on codes: (…, in) -> (…, out)."""
        out, given = node.output[0], node.input[0]
        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2] else ""
        result = f"{out}_product" if bias else out
        if weight.lattice.bits == 8:
            self._int8_product(given, name, weight, result)
        else:
            self._int4_product(given, name, weight, result)
        if bias:
            self._add("Add", [result, bias], [out], out)

    def _int8_product(self, given: str, name: str, weight: QuantizedWeight, result: str) -> None:
        if given not in self.rounded:
            parts = (f"{given}_codes", f"{given}_scale", f"{given}_zero")
            self.nodes.append(
                self.helper.make_node("DynamicQuantizeLinear", [given], list(parts), name=f"{given}_round")
            )
            self.rounded[given] = parts
        codes, scale, zero = self.rounded[given]
        lattice = weight.lattice
        assert lattice.zero is not None
        rows = weight.codes.shape[0]
        per_row = lattice.scale.expand(rows, 1).numpy().reshape(-1)
        zeros = lattice.zero.expand(rows, 1).numpy().reshape(-1).astype(np.uint8)
        if (zeros == zeros[0]).all():
            zeros = zeros[0]
        ours = [
            codes, self._constant(f"{name}_codes", weight.codes.numpy().T), zero,
            self._constant(f"{name}_zero", np.asarray(zeros)),
        ]  # fmt: skip
        whole = self._add("MatMulInteger", ours, [f"{result}_integers"], result)
        real = self._add("Cast", [whole], [f"{result}_real"], result, to=1)
        scales = self._constant(f"{name}_scales", per_row.astype(np.float32))
        both = self._add("Mul", [scale, scales], [f"{result}_scales"], f"{result}_scales")
        self._add("Mul", [real, both], [result], result)

    def _int4_product(self, given: str, name: str, weight: QuantizedWeight, result: str) -> None:
        lattice = weight.lattice
        rows, width = weight.codes.shape
        blocks = lattice.scale.shape[1]
        padded = np.full((rows, blocks * lattice.group), 8, dtype=np.uint8)
        padded[:, :width] = weight.codes.numpy()
        packed = (padded[:, 0::2] | padded[:, 1::2] << 4).reshape(rows, blocks, lattice.group // 2)
        inputs = [
            given, self._constant(f"{name}_codes", packed),
            self._constant(f"{name}_scales", lattice.scale.numpy().astype(np.float32).reshape(-1)),
        ]  # fmt: skip
        self.contrib = True
        self._add(
            "MatMulNBits", inputs, [result], result, domain="com.microsoft", K=width, N=rows, bits=4,
            block_size=lattice.group, accuracy_level=4,
        )  # fmt: skip

    def _look_up(self, node: Any, name: str, weight: QuantizedWeight) -> None:
        """Rows of an embedding from their codes: ids (…) -> (…, width)."""
        ids, out = node.input[1], node.output[0]
        lattice = weight.lattice
        assert lattice.zero is not None
        rows = weight.codes.shape[0]
        scales = lattice.scale.expand(rows, lattice.scale.shape[1]).numpy().astype(np.float32)
        scale = self._add("Gather", [self._constant(f"{name}_scales", scales), ids], [f"{out}_scale"], f"{out}_scale")
        if lattice.bits == 8:
            signed = (weight.codes.int() - lattice.zero.expand(rows, 1).int()).clamp(-128, 127).numpy()
            stored = self._constant(f"{name}_codes", signed.astype(np.int8))
            codes = self._add("Gather", [stored, ids], [f"{out}_codes"], f"{out}_codes")
            real = self._add("Cast", [codes], [f"{out}_real"], out, to=1)
            self._add("Mul", [real, scale], [out], out)
            return
        self._look_up_4(ids, out, name, weight, scale)

    def _look_up_4(self, ids: str, out: str, name: str, weight: QuantizedWeight, scale: str) -> None:
        group, width = weight.lattice.group, weight.codes.shape[1]
        codes = weight.codes.numpy()
        # A byte holds column c in its low half and column c + width/2 in its high half, so that both halves are whole.
        half = width // 2
        stored = self._constant(f"{name}_codes", codes[:, :half] | codes[:, half:] << 4)
        found = self._add("Gather", [stored, ids], [f"{out}_bytes"], out)
        low_mask = self._constant("potstill_low_half", np.array(15, dtype=np.uint8))
        shift = self._constant("potstill_half_byte", np.array(4, dtype=np.uint8))
        low = self._add("BitwiseAnd", [found, low_mask], [f"{out}_low"], out)
        high = self._add("BitShift", [found, shift], [f"{out}_high"], out, direction="RIGHT")
        both = self._add("Concat", [low, high], [f"{out}_codes"], f"{out}_codes", axis=-1)
        real = self._add("Cast", [both], [f"{out}_real"], out, to=1)
        eight = self._constant("potstill_eight", np.array(8, dtype=np.float32))
        signed = self._add("Sub", [real, eight], [f"{out}_signed"], out)
        grouped = self._constant(f"{name}_groups", np.array([0, 0, width // group, group], dtype=np.int64))
        flat = self._constant(f"{name}_width", np.array([0, 0, width], dtype=np.int64))
        cut = self._add("Reshape", [signed, grouped], [f"{out}_cut"], f"{out}_cut")
        axis = self._constant("potstill_last_axis", np.array([-1], dtype=np.int64))
        wide = self._add("Unsqueeze", [scale, axis], [f"{out}_scale_wide"], out)
        product = self._add("Mul", [cut, wide], [f"{out}_product"], f"{out}_product")
        self._add("Reshape", [product, flat], [out], out)


def _key(values: NDArray[Any]) -> bytes:
    import hashlib

    plain = np.ascontiguousarray(values, dtype=np.float32)
    return hashlib.sha256(repr(plain.shape).encode() + plain.tobytes()).digest()
