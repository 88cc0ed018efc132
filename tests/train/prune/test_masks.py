"""Masks: applied, held through training whatever the optimiser, saved and read."""

import pytest
import torch
from torch.nn.utils import parametrize

from potstill.errors import DataError
from potstill.train.prune.magnitude import prune_magnitude
from potstill.train.prune.masks import Masks


def train(model, texts, optimizer, steps=4):
    for step in range(steps):
        batch = texts.batches[step % len(texts.batches)]
        model(input_ids=batch["input_ids"], labels=batch["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def zeros(model, masks):
    return sum(int((model.get_parameter(name)[~mask] == 0).sum()) for name, mask in masks.kept.items())


@pytest.mark.parametrize("maker", [torch.optim.AdamW, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_held_zeros_survive_training_and_unheld_ones_do_not(decoder, causal_texts, maker):
    masks = prune_magnitude(decoder, 0.5).masks
    count = sum(int((~mask).sum()) for mask in masks.kept.values())
    optimizer = maker(decoder.parameters())
    with masks.hold(decoder):
        train(decoder, causal_texts, optimizer)
        assert zeros(decoder, masks) == count
    assert zeros(decoder, masks) == count
    train(decoder, causal_texts, optimizer, 1)
    assert zeros(decoder, masks) < count / 2


def test_an_optimiser_that_remembers_the_weights_does_not_move_zeros(decoder, causal_texts):
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.1, momentum=0.9)
    train(decoder, causal_texts, optimizer)  # the moments know every weight now
    masks = prune_magnitude(decoder, 0.5).masks
    with masks.hold(decoder):
        train(decoder, causal_texts, optimizer)
    assert zeros(decoder, masks) == sum(int((~mask).sum()) for mask in masks.kept.values())


class Rounded(torch.nn.Module):
    def forward(self, weight):
        return weight + ((weight * 8).round() / 8 - weight).detach()


def test_masks_find_a_weight_behind_its_parametrization(decoder, causal_texts):
    masks = prune_magnitude(decoder, 0.5).masks
    linear = decoder.model.layers[0].mlp.up_proj
    with masks.hold(decoder):
        parametrize.register_parametrization(linear, "weight", Rounded())
        train(decoder, causal_texts, torch.optim.AdamW(decoder.parameters(), lr=0.1))
        original = linear.parametrizations.weight.original
        kept = masks.kept["model.layers.0.mlp.up_proj.weight"]
        assert bool((original[~kept] == 0).all())
        assert bool((original[kept] != 0).any())


def test_masks_rest_on_disk(tmp_path, decoder):
    masks = prune_magnitude(decoder, 0.3).masks
    masks.save(tmp_path / "masks.safetensors")
    again = Masks.load(tmp_path / "masks.safetensors")
    assert again.kept.keys() == masks.kept.keys()
    assert all(torch.equal(again.kept[name], mask) for name, mask in masks.kept.items())
    assert again.sparsity() == masks.sparsity() == pytest.approx(0.3, abs=1e-3)


def test_masks_of_another_model(tmp_path, decoder, encoder):
    masks = prune_magnitude(encoder, 0.3).masks
    with pytest.raises(DataError, match="LlamaForCausalLM lacks; they are another model's"):
        masks.apply(decoder)
    with pytest.raises(DataError, match=r"shape \(2, 2\) and the parameter \(64, 48\)"):
        Masks({"model.layers.0.mlp.up_proj.weight": torch.ones(2, 2).bool()}).apply(decoder)
    (tmp_path / "no").write_text("no")
    with pytest.raises(DataError, match="holds no masks"):
        Masks.load(tmp_path / "no")
