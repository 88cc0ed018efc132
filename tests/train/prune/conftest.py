"""Tiny random models of both builds, with texts to look at."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

sys.path.append(str(Path(__file__).parent))

from tokens import logits, texts


@pytest.fixture(scope="session")
def _decoder():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=48, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=3, head_dim=8,
        intermediate_size=64, max_position_embeddings=128, tie_word_embeddings=True, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def _encoder():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=97, hidden_size=48, num_hidden_layers=4, num_attention_heads=6, intermediate_size=64,
        max_position_embeddings=64, num_labels=3,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


@pytest.fixture
def decoder(_decoder):
    """Four layers, 6 heads in 3 key-value groups."""
    return copy.deepcopy(_decoder)


@pytest.fixture
def encoder(_encoder):
    """Four layers, 6 heads, three classes."""
    return copy.deepcopy(_encoder)


@pytest.fixture
def causal_texts():
    """Four batches for the decoder."""
    return texts("causal")


@pytest.fixture
def class_texts():
    """Four batches for the encoder."""
    return texts("classification")


@pytest.fixture(params=["decoder", "encoder"])
def subject(request):
    """A model and its texts, of both builds."""
    kind = "causal" if request.param == "decoder" else "classification"
    return request.getfixturevalue(request.param), texts(kind)


@pytest.fixture
def reloads(tmp_path):
    """Save a model, load it with plain transformers, and compare the logits."""

    def check(model, calibration):
        model.save_pretrained(tmp_path / "saved")
        again = type(model).from_pretrained(tmp_path / "saved").eval()
        assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in model.parameters())
        torch.testing.assert_close(logits(again, calibration), logits(model.eval(), calibration), rtol=0, atol=1e-6)
        return again

    return check
