"""Wanda and Bonsai hold one layer's activations beside the model: their peak does not grow with the model's depth."""

import weakref

import pytest
import torch
from tokens import texts
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from potstill.train.prune.anatomy import anatomy
from potstill.train.prune.bonsai import prune_bonsai
from potstill.train.prune.wanda import prune_wanda

SHALLOW, DEEP = 2, 12
ROWS, LENGTH, WIDTH = 8, 16, 48


class Peak(TorchDispatchMode):
    """Bytes of the storages that live at once, of all that are made inside the block."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage not in self.known:
                    self.known[storage] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self._gone, storage.nbytes())
        return made

    def _gone(self, size):
        self.now -= size


def model_of(kind, layers):
    torch.manual_seed(0)
    common = {"vocab_size": 97, "hidden_size": WIDTH, "num_hidden_layers": layers, "num_attention_heads": 6,
              "intermediate_size": 64, "max_position_embeddings": 128}  # fmt: skip
    if kind == "causal":
        return LlamaForCausalLM(LlamaConfig(num_key_value_heads=3, head_dim=8, pad_token_id=0, **common)).eval()
    return BertForSequenceClassification(BertConfig(num_labels=3, **common)).eval()


def peak(work):
    with Peak() as seen:
        work()
    return seen.most


METHODS = {
    "wanda": lambda model, data: prune_wanda(model, 0.5, data),
    "bonsai": lambda model, data: prune_bonsai(model, 0.5, data, sub_models=20, bundles=4),
}


@pytest.mark.parametrize("kind", ["causal", "classification"])
@pytest.mark.parametrize("method", METHODS)
def test_the_peak_does_not_grow_with_depth(method, kind):
    data = texts(kind, batches=24, rows=ROWS, length=LENGTH)
    a_layer = 24 * ROWS * LENGTH * WIDTH * 4  # the hidden states of all texts after one layer
    peaks = {}
    for layers in (SHALLOW, DEEP):
        model = model_of(kind, layers)
        matrices = sum(linear.weight.numel() for _, linear in anatomy(model).matrices())
        assert matrices * 4 < a_layer * layers / 4  # activations, not weights, are what is seen here
        peaks[layers] = peak(lambda model=model: METHODS[method](model, data)), matrices
    # Masks take a byte a weight, and a cut or masked copy of the weights four; activations would take ten layers.
    weights = 5 * (peaks[DEEP][1] - peaks[SHALLOW][1])
    assert peaks[DEEP][0] - peaks[SHALLOW][0] <= weights < 0.3 * (DEEP - SHALLOW) * a_layer
    # Inputs and outputs of one layer, and what one batch needs inside it.
    assert peaks[DEEP][0] <= 3 * a_layer + weights


def test_the_measure_sees_activations_that_are_kept():
    data = texts("causal", batches=4, rows=ROWS, length=LENGTH)
    kept = []

    def keep_all(model):
        for batch in data.batches:
            kept.append(model(**batch, output_hidden_states=True).hidden_states)

    shallow, deep = (
        peak(lambda layers=layers: keep_all(model_of("causal", layers).requires_grad_(False)))
        for layers in (SHALLOW, DEEP)
    )
    assert deep - shallow > (DEEP - SHALLOW) * 4 * ROWS * LENGTH * WIDTH * 4
