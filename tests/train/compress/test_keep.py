"""Exceptions: single layers or matrices that a recipe keeps as they are while the others are pruned or rounded."""

from dataclasses import replace

import mood
import pytest
import torch

from potstill.errors import OptionError, TrainingError
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.own import own_step
from potstill.train.compress.recipe import parse_recipe
from potstill.train.compress.run import compress_student
from potstill.train.compress.steps import scheme_of
from potstill.train.student import load_student

QUICK = CompressOptions(formats=("packed",), speed="none")


def same_layers(one, other):
    """Whether each layer's matrices are those of the other model."""
    ours, theirs = (model.bert.encoder.layer.state_dict() for model in (one, other))
    names = [name for name, value in ours.items() if value.ndim == 2]
    return [
        all(torch.equal(ours[name], theirs[name]) for name in names if name.startswith(f"{i}."))
        for i in range(len(one.bert.encoder.layer))
    ]


@pytest.mark.parametrize(
    "recipe", ["int8:channel,keep=layer.0", "gptq:int4,group=16,keep=layer.0", "lkd:int4,group=16,steps=2,keep=layer.0"]
)
def test_a_layer_that_is_kept_is_not_rounded(recipe, student, material, tmp_path):
    result = compress_student(student, recipe, tmp_path / "small", material, QUICK)
    before, after = load_student(student).model, load_student(result.path).model
    assert same_layers(after, before) == [True, False]
    assert result.report["steps"][1]["step"].endswith("keep=layer.0")
    assert result.report["steps"][1]["bits_per_parameter"] < 32


def test_matrices_that_are_kept_learn_in_full_beside_rounded_ones(student, material, tmp_path):
    recipe = "int4:g16,keep=query+layer.1,embeddings=keep -> heal:steps=3"
    result = compress_student(student, recipe, tmp_path / "small", material, QUICK)
    before, after = load_student(student).model, load_student(result.path).model
    assert same_layers(after, before) == [False, False]
    levels = {
        name: len(value.unique()) for name, value in after.bert.encoder.layer.state_dict().items() if value.ndim == 2
    }
    assert levels["0.attention.self.query.weight"] > 0.9 * 32 * 32, "learnt, and not rounded"
    assert levels["1.intermediate.dense.weight"] > 0.9 * 32 * 64
    assert levels["0.attention.self.key.weight"] < levels["0.attention.self.query.weight"]


@pytest.mark.parametrize("step", ["magnitude:0.5,keep=layer.0", "wanda:2:4,keep=layer.0", "random:0.5,keep=layer.0"])
def test_a_layer_that_is_kept_is_not_pruned(step, student, material, tmp_path):
    result = compress_student(student, step, tmp_path / "small", material, QUICK)
    before, after = load_student(student).model, load_student(result.path).model
    assert same_layers(after, before) == [True, False]
    assert result.report["steps"][1]["zeros"] == pytest.approx(0.25, abs=0.01)
    assert result.report["steps"][1]["step"].endswith("keep=layer.0")


def test_layers_that_are_pruned_apart_stay_so_while_all_learn(student, material, tmp_path):
    recipe = "magnitude:0.5,keep=layer.0 -> wanda:0.25,keep=layer.1 -> heal:steps=3 -> int8:channel,keep=layer.0"
    result = compress_student(student, recipe, tmp_path / "small", material, QUICK)
    layers = load_student(result.path).model.bert.encoder.layer
    gone = [
        sum(int((value == 0).sum()) for value in layer.state_dict().values() if value.ndim == 2)
        / sum(value.numel() for value in layer.state_dict().values() if value.ndim == 2)
        for layer in layers
    ]
    assert gone == [pytest.approx(0.25, abs=0.01), pytest.approx(0.5, abs=0.02)]


def test_pruned_names_that_cannot_be_are_refused_before_any_work(student, material, tmp_path):
    for recipe, why in [("layers:1,by=top -> wanda:0.5,keep=layer.1", "keep=layer.1 names no matrix in the layers of"),
                        ("random:0.5,keep=word_embeddings", "keep=word_embeddings names no matrix in the layers of"),
                        ("magnitude:0.5,keep=layer", "keep=layer leaves nothing to prune"),
                        ("magnitude:0.5,keep=*", r"keep=\* is no list of names"),
                        ("lottery:0.5,keep=layer.0", "lottery has no option 'keep'")]:  # fmt: skip
        with pytest.raises(OptionError, match=why):
            compress_student(student, recipe, tmp_path / "small", material, QUICK)
    assert not (tmp_path / "small.steps").exists()


def test_an_onnx_file_holds_both(student, material, tmp_path):
    pytest.importorskip("onnxruntime")
    options = replace(QUICK, formats=("onnx", "packed"))
    result = compress_student(student, "int8:channel,keep=layer.0", tmp_path / "small", material, options)
    texts = list(mood.reviews(20, 9)["input"])
    small, packed = load_student(result.path).predict(texts), load_student(result.more["packed"]).predict(texts)
    assert max(abs(a.probs[0] - b.probs[0]) for a, b in zip(small, packed, strict=True)) < 0.05


def test_exceptions_that_cannot_be_are_refused_before_any_work(student, material, tmp_path):
    for recipe, why in [("layers:1,by=top -> int8:keep=layer.1", "keep=layer.1 names no weight of Bert"),
                        ("layers:0.5 -> int8:keep=layer.0+layer.1", "keep=layer.1 names no weight of Bert"),
                        ("int8:keep=layer.7", "keep=layer.7 names no weight of BertForSequenceClassification"),
                        ("int8:channel,keep=layer.0,activations=int8", "activations=int8 rounds the inputs of all"),
                        ("int4:keep=a b", "int4 does not know 'b'"),
                        ("int4:keep=*", r"keep=\* is no list of names; write keep=layers.0"),
                        ("llm.int8:keep=layer.0", "llm.int8 has no option 'keep'")]:  # fmt: skip
        with pytest.raises(OptionError, match=why):
            compress_student(student, recipe, tmp_path / "small", material, QUICK)
    with pytest.raises(OptionError, match="bitsandbytes: it holds no single weights that are kept"):
        compress_student(student, "nf4:keep=layer.0", tmp_path / "small", material, replace(
            QUICK, formats=("bitsandbytes",)))  # fmt: skip
    assert not (tmp_path / "small.steps").exists()
    grid, _ = parse_recipe("qat:int4,group=16,keep=layer.0+layer.1,steps=3").steps
    assert scheme_of(grid).keep == ("layer.0", "layer.1")
    assert scheme_of(grid).title == "int4:group=16"


def test_a_layer_to_be_kept_that_a_step_took_away_ends_the_work(student, material, tmp_path):
    def first_layer_goes(model, calibration):
        model.bert.encoder.layer = model.bert.encoder.layer[1:]
        model.config.num_hidden_layers -= 1
        return model

    steps = parse_recipe([own_step(first_layer_goes, "0" * 16), "int8:keep=layer.0+layer.1"])
    with pytest.raises(TrainingError, match=r"keep=layer.1 names no weight that is left"):
        compress_student(student, steps, tmp_path / "small", material, QUICK)
