"""Steps of the user's own: a function of model and texts in a recipe, with the checks of every other step."""

import json

import pytest
import torch
from torch import nn

import potstill
from potstill.errors import OptionError, TrainingError
from potstill.rows import write_rows
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.own import own_step
from potstill.train.compress.recipe import parse_recipe
from potstill.train.compress.run import compress_student
from potstill.train.prune.anatomy import anatomy
from potstill.train.student import load_student

QUICK = CompressOptions(formats=("packed",), speed="none")


def small_rows(model, calibration):
    """Every second row of the matrices into the neurons becomes 0."""
    assert calibration.tokens > 0
    with torch.no_grad():
        for block in anatomy(model).blocks:
            block.into[0].weight[::2] = 0
    return model


small_rows.kind = "sparsity"


class Nudge:
    """Weights move a little; none goes."""

    name, kind = "nudge it", "heal"

    def apply(self, model, calibration):
        with torch.no_grad():
            for block in anatomy(model).blocks:
                block.down.weight.mul_(1.01)
        return model


def make(student, material, tmp_path, *parts, digest="0123456789abcdef"):
    steps = [own_step(part, digest) if not isinstance(part, str) else part for part in parts]
    return compress_student(student, steps, tmp_path / "small", material, QUICK)


def test_a_function_is_a_step_whose_zeros_stay_and_whose_name_is_stored(student, material, tmp_path):
    result = make(student, material, tmp_path, small_rows, "heal:steps=2", "int8:channel")
    _, own, healed, rounded, _ = result.report["steps"]
    assert own["step"] == "own:small_rows@0123456789ab"
    assert own["kind"] == "sparsity"
    assert own["facts"] == {"name": "small_rows", "digest": "0123456789abcdef", "kind": "sparsity"}
    assert 0.05 < own["zeros"] <= healed["zeros"] <= rounded["zeros"]
    assert result.report["recipe"].startswith("own:small_rows@0123456789ab -> heal")
    assert json.loads((result.path / "compression.json").read_text())["steps"][0] == own["step"]
    assert f"{own['step']} is a step of the user's own: it was checked by what it left" in result.report["notes"]
    for block in anatomy(load_student(result.path).model).blocks:
        assert not bool(block.into[0].weight[::2].any())


def test_an_object_with_apply_is_a_step_that_may_come_first_or_after_a_cut(student, material, tmp_path):
    result = make(student, material, tmp_path, Nudge(), "layers:1", Nudge())
    assert [entry["step"].partition("@")[0] for entry in result.report["steps"][1:4]] == [
        "own:nudge-it", "layers:1", "own:nudge-it",
    ]  # fmt: skip


def brings_back(model, calibration):
    with torch.no_grad():
        for _, linear in anatomy(model).matrices():
            linear.weight += 0.01
    return model


def fails(model, calibration):
    raise KeyError("no such thing")


def half(model, calibration):
    return model.half()


def other_answers(model, calibration):
    model.classifier = nn.Linear(model.config.hidden_size, 5)
    model.config.num_labels = 5
    return model


def unsaid_width(model, calibration):
    with torch.no_grad():
        for block in anatomy(model).blocks:
            block.into[0].weight[::2] = 0
    model.classifier.register_forward_hook(lambda _, __, made: 2 * made)
    return model


brings_back.kind = "heal"
FAULTY = [
    (("wanda:0.5", brings_back), "pruned weights of .* came back"),
    ((fails,), "own:fails@.* ended with KeyError: 'no such thing'; the steps before it are kept"),
    ((lambda model, calibration: None,), "returned NoneType, not the BertForSequenceClassification that it got"),
    ((lambda model, calibration: model,), "nothing changed"),
    ((half,), "weights are torch.float16, not float32"),
    ((other_answers,), "the model answers with 5 logits, where it had 2"),
    ((unsaid_width,), "gives another student once its files are loaded"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "message"), FAULTY)
def test_a_step_that_leaves_no_student_ends_the_work(parts, message, student, material, tmp_path):
    with pytest.raises(TrainingError, match=message):
        make(student, material, tmp_path, *parts)
    assert not (tmp_path / "small").exists()


def test_a_step_that_says_it_removes_and_does_not_ends_the_work(student, material, tmp_path):
    moves = Nudge()
    moves.kind = "sparsity"
    with pytest.raises(TrainingError, match="no weight became 0"):
        make(student, material, tmp_path, moves)
    moves.kind = "structure"
    with pytest.raises(TrainingError, match="parameters and no new zeros"):
        make(student, material, tmp_path, moves)


def test_where_an_own_step_may_not_stand():
    sparse, nudge = own_step(small_rows, "ab" * 32), own_step(Nudge(), "cd" * 32)
    for parts, why in [(["int8", sparse], "the order is structure, sparsity, quantisation"),
                       (["int8", nudge], "rounded weights have codes, which it cannot move"),
                       ([sparse, "layers:1"], "the order is structure, sparsity"),
                       ([sparse, "binary"], "has no value 0, so the pruned weights would come back")]:  # fmt: skip
        with pytest.raises(OptionError, match=why):
            parse_recipe(parts)
    assert str(parse_recipe(["layers:1", nudge, sparse, "int8"])).startswith("layers:1 -> own:nudge-it@cdcdcdcdcdcd ->")
    nudge = Nudge()
    nudge.kind = "quantize"
    with pytest.raises(OptionError, match="its kind is 'quantize'; a step of your own is one of structure, "):
        own_step(nudge, "")


def test_the_digest_is_that_of_the_source(student, material, tmp_path):
    texts = tmp_path / "rows.parquet"
    write_rows(material.test, texts)

    def scaled(by):
        def scale(model, calibration):
            with torch.no_grad():
                anatomy(model).blocks[0].down.weight.mul_(by)
            return model

        scale.kind = "heal"
        return scale

    def named(function, out):
        more = {"texts": str(texts), "formats": ("packed",), "speed": "none"}
        return potstill.compress(student, [function, "int8"], out=tmp_path / out, **more).report["steps"][1]["step"]

    one = named(scaled(1.1), "one")
    assert one.startswith("own:scale@")
    assert one == named(scaled(1.1), "again")
    assert one != named(scaled(1.2), "other")


def test_no_code_is_loaded_from_a_name():
    with pytest.raises(OptionError, match="there is no method 'own'"):
        parse_recipe("own:small_rows@0123456789ab -> int8")


def test_gradients_that_a_step_leaves_are_no_part_of_the_healing_after_it(student, material, tmp_path):
    def look_back(model, calibration):
        model = small_rows(model, calibration)
        (1e3 * model(**calibration.batches[0]).loss).backward()
        return model

    look_back.kind = "sparsity"
    healed = []
    for name, step in (("plain", small_rows), ("looked", look_back)):
        result = make(student, material, tmp_path / name, step, "heal:steps=2")
        healed.append(load_student(result.path).model.state_dict())
    assert all(torch.equal(value, healed[1][name]) for name, value in healed[0].items())


def test_a_step_may_cut_a_layer_of_a_student_with_masked_heads(student, material, tmp_path):
    def first_layer_goes(model, calibration):
        model.bert.encoder.layer = model.bert.encoder.layer[1:]
        model.config.num_hidden_layers -= 1
        return model

    result = make(student, material, tmp_path, "heads:0.5", first_layer_goes, "heal:steps=2")
    assert [entry["layers"] for entry in result.report["steps"]] == [2, 2, 1, 1, 1]
    assert result.report["steps"][-1]["zeros"] > 0.2
