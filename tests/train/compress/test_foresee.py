"""Formats that cannot hold what a recipe leaves: told before a student is trained, and before a step is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from potstill.errors import OptionError
from potstill.settings import resolve
from potstill.stages.start import check_student_options
from potstill.task import TaskSpec
from potstill.train.compress.foresee import check_student_formats
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.recipe import parse_recipe
from potstill.train.compress.run import Material, compress_student


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> dict[str, Path]:
    """A decoder of width 192 and an encoder of width 128, with random weights."""
    place = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "num_hidden_layers": 1}
    decoder = LlamaConfig(**sizes, hidden_size=192, num_attention_heads=6, num_key_value_heads=6, head_dim=32,
                          intermediate_size=256)  # fmt: skip
    encoder = BertConfig(**sizes, hidden_size=128, num_attention_heads=4, intermediate_size=256)
    for name, model in (("decoder", LlamaForCausalLM(decoder)), ("encoder", BertForSequenceClassification(encoder))):
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    return {"decoder": place / "decoder", "encoder": place / "encoder"}


@pytest.mark.parametrize(
    ("model", "recipe", "form", "said"),
    [
        ("decoder", "int4:g64", "vllm", ""),
        ("decoder", "hidden:0.5 -> int4:g64", "vllm", "groups of 32, 64 or 128 that divide the width"),
        ("decoder", "hidden:0.5 -> int4:g32", "vllm", ""),
        ("decoder", "neurons:56 -> int4:g64", "vllm", "that divide the width"),
        ("decoder", "int4:g128", "vllm", "that divide the width"),
        ("decoder", "hidden:0.5 -> nf4", "bitsandbytes", "whole blocks of 64"),
        ("decoder", "neurons:12 -> int8", "gguf-q8_0", "do not divide rows of 244"),
        ("encoder", "hidden:0.25 -> int4:g64,embeddings=same", "onnx", "width 96 is no multiple of"),
        ("encoder", "int4:g64,embeddings=same", "onnx", ""),
        ("encoder", "hidden:0.25 -> int4:g64", "auto", ""),
    ],
)
def test_the_width_that_a_recipe_leaves_is_foreseen(
    model: str, recipe: str, form: str, said: str, folders: dict[str, Path]
) -> None:
    kind = "causal" if model == "decoder" else "classification"
    steps = parse_recipe(recipe)
    if not said:
        check_student_formats(str(folders[model]), kind, steps, (form,))
        return
    with pytest.raises(OptionError, match=f"{form}: .*{said}"):
        check_student_formats(str(folders[model]), kind, steps, (form,))


def test_a_compression_is_refused_before_its_first_step(folders: dict[str, Path], tmp_path: Path) -> None:
    options = CompressOptions(formats=("vllm",), speed="none")
    with pytest.raises(OptionError, match=r"vllm: .*that divide the width"):
        compress_student(
            str(folders["decoder"]),
            "hidden:0.5 -> int4:g64",
            tmp_path / "small",
            Material(("some words",) * 99),
            options,
        )
    assert not (tmp_path / "small.steps").exists()


@pytest.mark.parametrize("recipe", ["hidden:0.5 -> int4:g64", "int4:g128"])
def test_a_run_is_refused_before_it_asks_a_teacher(recipe: str, folders: dict[str, Path]) -> None:
    spec = TaskSpec("t", "Summarise it.", "generation")
    compress = {"recipe": recipe, "formats": ["vllm"]}
    settings = resolve({}, {"teacher": "fake", "distil": {"student": str(folders["decoder"])}, "compress": compress})
    with pytest.raises(OptionError, match=r"vllm: .*that divide the width"):
        check_student_options(spec, settings)
    fine = resolve({}, {"teacher": "fake", "distil": {"student": str(folders["decoder"])},
                        "compress": {**compress, "recipe": "int4:g64"}})  # fmt: skip
    check_student_options(spec, fine)


def test_a_students_fewer_neurons_are_foreseen(folders: dict[str, Path]) -> None:
    spec = TaskSpec("t", "Summarise it.", "generation")
    distil = {"student": str(folders["decoder"]), "student_ffn": 0.3}
    compress = {"recipe": "int4:g64", "formats": ["vllm"]}
    with pytest.raises(OptionError, match="that divide the width"):
        check_student_options(spec, resolve({}, {"teacher": "fake", "distil": distil, "compress": compress}))
