"""Healing: the loss is the dense one, the student comes nearer, zeros stay, nothing else changes."""

import copy
import math
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.utils import parametrize
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from potstill.errors import OptionError, TrainingError
from potstill.train.calibration_data import Calibration
from potstill.train.full_divergence import full_divergence
from potstill.train.heal import HealOptions, heal
from potstill.train.output_head import OutputHead
from potstill.train.prune.anatomy import anatomy
from potstill.train.prune.magnitude import prune_magnitude
from potstill.train.teach import fresh_batches

sys.path.append(str(Path(__file__).parent / "prune"))

from tokens import texts


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3,
        intermediate_size=64, tie_word_embeddings=True, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=97, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, intermediate_size=64, num_labels=3,
        initializer_range=0.2,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def dense(hidden, weight, theirs, teacher_weight, temperature):
    student = torch.log_softmax(hidden @ weight.T / temperature, -1)
    teacher = torch.log_softmax(theirs @ teacher_weight.T / temperature, -1)
    return temperature**2 * torch.nn.functional.kl_div(student, teacher, reduction="sum", log_target=True)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("chunk", [3, 100])
def test_the_loss_in_chunks_is_the_dense_one(temperature, chunk):
    torch.manual_seed(0)
    hidden, weight = torch.randn(10, 8, requires_grad=True), torch.randn(31, 8, requires_grad=True)
    theirs, teacher_weight = torch.randn(10, 12), torch.randn(31, 12)
    found = full_divergence(hidden, OutputHead(weight), theirs, OutputHead(teacher_weight), temperature, chunk)
    wanted = dense(hidden, weight, theirs, teacher_weight, temperature)
    torch.testing.assert_close(found, wanted)
    ours = torch.autograd.grad(2 * found, (hidden, weight))
    for one, other in zip(ours, torch.autograd.grad(2 * wanted, (hidden, weight)), strict=True):
        torch.testing.assert_close(one, other)


def test_the_loss_refuses_what_does_not_fit():
    one = torch.randn(2, 4)
    head = OutputHead(one)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        full_divergence(one, head, one, head, 0)
    with pytest.raises(ValueError, match="2 and 3 positions"):
        full_divergence(one, head, torch.randn(3, 4), head)


def distance(model, teacher, data):
    total = 0.0
    for batch in data.batches:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        real = batch["attention_mask"].bool() if data.kind == "causal" else slice(None)
        with torch.no_grad():
            ours, theirs = (m(**inputs).logits[real].log_softmax(-1) for m in (model, teacher))
        total += float(torch.nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True))
    return total / len(data.batches)


@pytest.mark.parametrize("kind", ["causal", "classification"])
def test_a_pruned_student_comes_back_and_its_zeros_stay(request, kind):
    teacher = request.getfixturevalue("decoder" if kind == "causal" else "encoder")
    data, others = texts(kind, batches=30), texts(kind, batches=4, seed=9)
    if kind == "classification":  # random labels would pull away from the teacher
        data = replace(data, batches=tuple({k: v for k, v in b.items() if k != "labels"} for b in data.batches))
    student = copy.deepcopy(teacher)
    masks = prune_magnitude(student, 0.5).masks
    before = distance(student, teacher, others)
    events = []
    result = heal(
        student, teacher, data, HealOptions(steps=60, learning_rate=3e-3), masks=masks, listener=events.append
    )
    assert distance(student, teacher, others) < 0.75 * before
    for name, mask in masks.kept.items():
        assert bool((student.get_parameter(name)[~mask] == 0).all())
    assert sum(result.losses[-5:]) < sum(result.losses[:5])
    assert (result.steps, len(result.losses), len(events)) == (60, 60, 60)
    assert result.tokens == sum(int(b["attention_mask"].sum()) for b, _ in zip(fresh_batches(data), range(60)))
    embedding = student.get_input_embeddings().weight
    assert torch.equal(embedding, teacher.get_input_embeddings().weight)
    assert embedding.requires_grad
    assert not student.training


def test_the_first_loss_is_the_distance_from_the_teacher(decoder):
    data = texts("causal", batches=1)
    student = copy.deepcopy(decoder)
    prune_magnitude(student, 0.5)
    wanted = distance(student, decoder, data)
    assert heal(student, decoder, data, HealOptions(steps=1)).losses[0] == pytest.approx(wanted, rel=1e-4)
    twin = copy.deepcopy(decoder)
    assert heal(twin, decoder, data, HealOptions(steps=1)).losses[0] == pytest.approx(0, abs=1e-6)


def test_labels_add_their_cross_entropy(encoder):
    data = texts("classification", batches=1)
    batch = data.batches[0]
    with torch.no_grad():
        made = encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    wanted = float(torch.nn.functional.cross_entropy(made, batch["labels"]))
    assert heal(copy.deepcopy(encoder), encoder, data, HealOptions(steps=1)).losses[0] == pytest.approx(
        wanted, rel=1e-4
    )


def test_hidden_states_turn_towards_the_teachers(decoder):
    data = texts("causal", batches=30)
    cosines = []
    for weight in (0.0, 5.0):
        student = copy.deepcopy(decoder)
        masks = prune_magnitude(student, 0.7).masks
        heal(student, decoder, data, HealOptions(steps=30, learning_rate=3e-3, hidden_weight=weight), masks=masks)
        ids = texts("causal", seed=5).batches[0]["input_ids"]
        with torch.no_grad():
            states = [m.base_model(input_ids=ids).last_hidden_state for m in (student, decoder)]
        cosines.append(float(torch.nn.functional.cosine_similarity(*states, dim=-1).mean()))
    assert cosines[1] > cosines[0]


class Eighths(torch.nn.Module):
    def forward(self, weight):
        return weight + ((weight * 8).round() / 8 - weight).detach()


@contextmanager
def eighths(model):
    linears = [linear for _, linear in anatomy(model).matrices()]
    for linear in linears:
        parametrize.register_parametrization(linear, "weight", Eighths())
    yield
    for linear in linears:
        parametrize.remove_parametrizations(linear, "weight")


def test_it_learns_with_rounded_weights(decoder):
    data, others = texts("causal", batches=30), texts("causal", seed=9)
    rounded = copy.deepcopy(decoder)
    with eighths(rounded):
        pass
    before = distance(rounded, decoder, others)
    student = copy.deepcopy(decoder)
    masks = prune_magnitude(student, 0.3).masks
    heal(student, decoder, data, HealOptions(steps=30, learning_rate=3e-3), masks=masks, quantizer=eighths)
    assert before > 0
    for name, linear in anatomy(student).matrices():
        torch.testing.assert_close(linear.weight * 8, (linear.weight * 8).round())
        assert bool((linear.weight[~masks.kept[name]] == 0).all())
    plain = copy.deepcopy(decoder)
    prune_magnitude(plain, 0.3)
    with eighths(plain):
        pass
    assert distance(student, decoder, others) < distance(plain, decoder, others)


def test_batches_are_fresh_until_all_were_seen():
    data = texts("causal", batches=5)
    stream = fresh_batches(data, seed=1)
    rounds = [[id(next(stream)["input_ids"]) for _ in range(5)] for _ in range(3)]
    assert all(sorted(found) == sorted(id(b["input_ids"]) for b in data.batches) for found in rounds)
    assert len({tuple(found) for found in rounds}) > 1


def test_the_same_seed_gives_the_same_student(encoder):
    data = texts("classification")
    made = []
    for _ in range(2):
        student = copy.deepcopy(encoder)
        torch.rand(3)  # the world's random state does not matter
        heal(student, encoder, data, HealOptions(steps=3, seed=4))
        made.append(student.classifier.weight)
    assert torch.equal(*made)


def test_what_cannot_be_healed(decoder, encoder):
    data = texts("causal")
    other = LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_size=24, num_hidden_layers=1, num_attention_heads=2))
    with pytest.raises(OptionError) as found:
        heal(decoder, other, data, HealOptions(steps=0, learning_rate=-1, temperature=0, hidden_weight=1))
    for text in (
        "steps 0",
        "learning_rate -1",
        "temperature 0",
        "gives 97 logits and the teacher 50",
        "width 48 and 24",
    ):
        assert text in str(found.value)
    with pytest.raises(OptionError, match="there is no text to heal on"):
        heal(decoder, decoder, Calibration((), "causal"))
    with pytest.raises(OptionError, match=r"weights are torch.bfloat16; healing needs float32"):
        heal(copy.deepcopy(decoder).bfloat16(), decoder, data)
    with pytest.raises(OptionError, match="hidden_weight is for causal models"):
        heal(encoder, encoder, texts("classification"), HealOptions(hidden_weight=1))


def test_a_loss_that_is_not_finite_stops(decoder):
    broken = copy.deepcopy(decoder)
    with torch.no_grad():
        broken.model.norm.weight[0] = math.inf
    with pytest.raises(TrainingError, match=r"the loss became nan at step 1 of healing; lower learning_rate"):
        heal(broken, decoder, texts("causal"), HealOptions(steps=2))
    assert broken.get_input_embeddings().weight.requires_grad
