"""Whole models: activations apart, straight-through training, layer-wise distillation."""

import pytest
import torch

from potstill.train.calibration_data import Calibration
from potstill.train.compress.state import open_source
from potstill.train.heal import HealOptions, heal
from potstill.train.quantize.activations import round_inputs
from potstill.train.quantize.layerwise import distil_layers, gptq_model
from potstill.train.quantize.schemes import Scheme, quantize_model, targets
from potstill.train.quantize.straight_through import StraightThrough


@pytest.fixture
def text():
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(8):
        # Bytes that follow each other, so that there is something to learn.
        start = torch.randint(60, 120, (4, 1), generator=generator)
        ids = (start + torch.arange(32)) % 200 + 2
        batches.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids})
    return Calibration(tuple(batches), "causal")


def states(model, text):
    with torch.no_grad():
        return torch.cat([model(input_ids=b["input_ids"]).logits for b in text.batches])


def distance(model, text, wanted):
    return float((states(model, text) - wanted).norm() / wanted.norm())


def test_outlier_features_stay_and_the_others_are_rounded():
    inputs = torch.randn(5, 7, 16, generator=torch.Generator().manual_seed(0))
    inputs[2, 3, 4] = 40.0
    apart = round_inputs(inputs, 6.0)
    assert torch.equal(apart[..., 4], inputs[..., 4])
    others = [i for i in range(16) if i != 4]
    step = inputs[..., others].abs().amax(-1, keepdim=True) / 127
    assert bool(((apart - inputs)[..., others].abs() <= step / 2 + 1e-6).all())
    naive = round_inputs(inputs)
    # The row that holds the outlier: its step is that of 40 in the one and of about 2 in the other.
    assert float((naive - inputs)[2, 3].norm()) > 8 * float((apart - inputs)[2, 3].norm())


@pytest.mark.parametrize("threshold", [None, 3.0])
def test_rounded_inputs_hand_gradients_on_as_they_come(threshold):
    torch.manual_seed(0)
    inputs = torch.randn(5, 16, requires_grad=True)
    rounded = round_inputs(inputs, threshold)
    assert torch.allclose(rounded, round_inputs(inputs.detach(), threshold), atol=1e-6)
    slope = torch.randn(5, 16)
    (rounded * slope).sum().backward()
    assert torch.equal(inputs.grad, slope)


def test_llm_int8_is_that_of_bitsandbytes():
    bnb = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 32, bias=False)
    inputs = torch.randn(10, 64)
    inputs[:, 5] *= 12
    theirs = bnb.nn.Linear8bitLt(64, 32, bias=False, has_fp16_weights=False, threshold=6.0)
    theirs.weight = bnb.nn.Int8Params(layer.weight.data.clone(), requires_grad=False, has_fp16_weights=False)
    theirs = theirs.to("cpu").eval()
    with torch.no_grad():
        given = theirs(inputs.to(torch.bfloat16)).float()
        rounded = Scheme("absmax", 8).quantize(layer.weight.data).values()
        ours = torch.nn.functional.linear(round_inputs(inputs, 6.0), rounded)
    assert float((given - ours).norm() / ours.norm()) < 0.02


def test_every_matrix_is_rounded_and_a_tied_head_once(tiny_llama):
    model = open_source(tiny_llama).model
    names = [target.name for target in targets(model)]
    assert len(names) == 2 * 7 + 1
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    rounded = quantize_model(model, Scheme("absmax", 8))
    assert set(rounded) == set(names)
    assert torch.equal(model.lm_head.weight, rounded["model.embed_tokens.weight"].values())


@pytest.mark.parametrize(
    "scheme", [Scheme("absmax", 3, scope="group", group=16), Scheme("gobo", 3)], ids=["int3", "gobo3"]
)
def test_each_better_method_is_nearer_to_the_original(scheme, tiny_llama, text):
    original = open_source(tiny_llama).model
    wanted = states(original, text)
    plain, feedback, taught = (open_source(tiny_llama).model for _ in range(3))
    quantize_model(plain, scheme)
    gptq_model(feedback, text, scheme)
    result = distil_layers(taught, text, scheme, steps=30, learning_rate=1e-3)
    assert distance(feedback, text, wanted) < 0.9 * distance(plain, text, wanted)
    assert distance(taught, text, wanted) < distance(plain, text, wanted)
    assert all(after <= before for before, after in result.errors)
    assert sum(after for _, after in result.errors) < 0.95 * sum(before for before, _ in result.errors)
    weight = taught.get_parameter("model.layers.1.mlp.up_proj.weight")
    assert torch.equal(weight, result.quantized["model.layers.1.mlp.up_proj.weight"].values())


@pytest.mark.parametrize("way", ["gptq", "lkd"])
def test_padding_teaches_nothing(way, tiny_llama, text):
    batches = []
    for batch in text.batches[:2]:
        ids, nothing = batch["input_ids"], torch.ones(4, 200, dtype=torch.int64)
        mask = torch.ones_like(ids)
        batches.append({"input_ids": torch.cat([ids, nothing], 1), "attention_mask": torch.cat([mask, 0 * nothing], 1)})
    made = []
    for data in (Calibration(text.batches[:2], "causal"), Calibration(tuple(batches), "causal")):
        model, scheme = open_source(str(tiny_llama)).model, Scheme("absmax", 3, scope="group", group=16)
        if way == "gptq":
            result = gptq_model(model, data, scheme)
        else:
            result = distil_layers(model, data, scheme, steps=4, start="round", learning_rate=1e-3)
        made.append((result, states(model, text)))
    (one, said), (other, padded) = made
    assert float((said - padded).norm() / said.norm()) < 1e-3
    for pair in zip(one.errors, other.errors, strict=True):
        assert pair[0] == pytest.approx(pair[1], rel=1e-3)


def test_training_with_one_bit_a_weight_falls_and_stays_on_two_values(tiny_llama, text):
    original = open_source(tiny_llama).model
    wanted = states(original, text)
    model = open_source(tiny_llama)
    scheme = Scheme("binary", 1)
    quantize_model(model.model, scheme)
    before = distance(model.model, text, wanted)
    result = heal(
        model.model, original, text, HealOptions(steps=60, learning_rate=3e-3), quantizer=StraightThrough(scheme)
    )
    assert result.losses[-1] < result.losses[0]
    quantize_model(model.model, scheme, "keep")
    assert distance(model.model, text, wanted) < before
    row = model.model.get_parameter("model.layers.0.mlp.up_proj.weight")[0]
    assert len(row.unique()) == 2
