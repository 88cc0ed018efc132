"""Layers, heads and neurons that go: tensors shrink, the configuration says so, the right ones go."""

import copy
import itertools
import time

import pytest
import torch
from tokens import logits
from transformers import LlamaConfig, LlamaForCausalLM

from potstill.errors import OptionError, UserError
from potstill.train.head_start import add_averaging_layer
from potstill.train.prune.anatomy import anatomy
from potstill.train.prune.cut import cut_heads, cut_hidden, cut_neurons
from potstill.train.prune.depth import block_influence, prune_layers
from potstill.train.prune.gates import gated
from potstill.train.prune.heads import head_importance, head_masks, nearest_count, prune_heads
from potstill.train.prune.loss import losses, mean_loss, with_answers
from potstill.train.prune.methods import STRUCTURE
from potstill.train.prune.neurons import prune_neurons
from potstill.train.prune.rounding import plan_units


def quiet(event):
    """A listener."""


# ---- cuts keep what the rest computes --------------------------------------------------------------------------------


def test_cut_heads_are_heads_turned_off(decoder, causal_texts, reloads):
    kept = [[0, 1, 4, 5], [2, 3, 4, 5], [0, 1, 2, 3], [0, 1, 4, 5]]
    gates = torch.stack([torch.tensor([float(h in row) for h in range(6)]) for row in kept])
    with gated(anatomy(decoder), gates):
        wanted = logits(decoder, causal_texts)
    parts = cut_heads(anatomy(decoder), kept)
    assert (parts.heads, parts.groups, decoder.config.num_key_value_heads, decoder.config.head_dim) == (4, 2, 2, 8)
    torch.testing.assert_close(logits(decoder, causal_texts), wanted, rtol=0, atol=1e-5)
    reloads(decoder, causal_texts)


def test_query_heads_can_go_from_every_group(decoder, causal_texts, reloads):
    kept = [[0, 2, 4], [1, 3, 5], [0, 3, 4], [1, 2, 5]]
    gates = torch.stack([torch.tensor([float(h in row) for h in range(6)]) for row in kept])
    with gated(anatomy(decoder), gates):
        wanted = logits(decoder, causal_texts)
    parts = cut_heads(anatomy(decoder), kept)
    assert (parts.heads, parts.groups) == (3, 3)
    torch.testing.assert_close(logits(decoder, causal_texts), wanted, rtol=0, atol=1e-5)
    reloads(decoder, causal_texts)


def test_cut_neurons_are_neurons_turned_off(subject, reloads):
    model, calibration = subject
    kept = [sorted(torch.randperm(64, generator=torch.Generator().manual_seed(i))[:40].tolist()) for i in range(4)]
    gates = torch.stack([torch.tensor([float(n in row) for n in range(64)]) for row in kept])
    with gated(anatomy(model), None, gates):
        wanted = logits(model, calibration)
    assert cut_neurons(anatomy(model), kept).neurons == model.config.intermediate_size == 40
    torch.testing.assert_close(logits(model, calibration), wanted, rtol=0, atol=1e-5)
    reloads(model, calibration)


def test_cut_channels_are_channels_that_are_zero(decoder, causal_texts, reloads):
    gone = [1, 7, 30, 47, 5, 6]
    with torch.no_grad():
        decoder.model.embed_tokens.weight.mul_(50)  # else the norms' epsilon shows
        decoder.model.embed_tokens.weight[:, gone] = 0
        for block in anatomy(decoder).blocks:
            block.out.weight[gone] = 0
            block.down.weight[gone] = 0
    wanted = logits(decoder, causal_texts)
    cut_hidden(anatomy(decoder), [i for i in range(48) if i not in gone])
    assert decoder.config.hidden_size == decoder.model.norm.weight.numel() == 42
    torch.testing.assert_close(logits(decoder, causal_texts), wanted, rtol=0, atol=2e-4)
    reloads(decoder, causal_texts)


def test_an_encoder_loses_channels_and_heads_together(encoder, class_texts, reloads):
    cut_hidden(anatomy(encoder), list(range(32)), [[0, 1, 2, 3]] * 4)
    assert (encoder.config.hidden_size, encoder.config.num_attention_heads) == (32, 4)
    assert encoder.bert.embeddings.word_embeddings.weight.shape == (97, 32)
    assert encoder.bert.pooler.dense.weight.shape == (32, 32)
    reloads(encoder, class_texts)
    with pytest.raises(UserError, match="head size 8 needs as many heads as fill 20 channels"):
        cut_hidden(anatomy(encoder), list(range(20)), [[0, 1, 2, 3]] * 4)


def encoder_of(kind, **fields):
    """A random classifier of another build."""
    from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification

    shape = {"vocab_size": 97, "num_labels": 3}
    if kind == "distilbert":
        shape |= {"dim": 48, "n_layers": 2, "n_heads": 6, "hidden_dim": 64, "max_position_embeddings": 64}
    else:
        shape |= {
            "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 64,
            "max_position_embeddings": 66,
        }  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(CONFIG_MAPPING[kind](**shape, **fields)).eval()


@pytest.mark.parametrize("kind", ["distilbert", "mpnet"])
def test_encoders_of_other_builds_are_cut(kind, class_texts, reloads):
    model = encoder_of(kind)
    parts = anatomy(model)
    assert (parts.heads, parts.groups, parts.head_size, parts.neurons, parts.decoder) == (6, 6, 8, 64, False)
    before = logits(model, class_texts)
    with gated(parts, heads=torch.ones(2, 6), neurons=torch.ones(2, 64)):
        torch.testing.assert_close(logits(model, class_texts), before)
    off = torch.ones(2, 64)
    off[:, 40:] = 0
    with gated(parts, neurons=off):
        expected = logits(model, class_texts)
    cut_neurons(parts, [list(range(40))] * 2)
    torch.testing.assert_close(logits(model, class_texts), expected, rtol=0, atol=1e-5)
    reloads(model, class_texts)
    prune_heads(model, 0.5, class_texts)
    reloads(model, class_texts)
    prune_layers(model, 1, class_texts)
    assert reloads(model, class_texts).config.num_hidden_layers == 1
    with pytest.raises(UserError, match=r"the hidden state of .* cannot be cut: cut heads, neurons or layers instead"):
        STRUCTURE["hidden"](model, 0.5, class_texts)
    with pytest.raises(UserError, match=r"the hidden state of .* cannot be cut: set hidden=no"):
        STRUCTURE["cofi"](model, 0.3, class_texts)


@pytest.mark.parametrize("embedding", [48, 16])
def test_the_hidden_state_is_cut_behind_embeddings_of_their_own_width(embedding, class_texts, reloads):
    """An ELECTRA with fewer channels could not be loaded, which was told after they had been chosen."""
    model = encoder_of("electra", embedding_size=embedding)
    STRUCTURE["hidden"](model, 0.3, class_texts)
    assert reloads(model, class_texts).config.hidden_size == 32
    if embedding != 48:
        with pytest.raises(UserError, match="have channels of their own; set hidden=no"):
            STRUCTURE["cofi"](model, 0.3, class_texts)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("convbert", {"embedding_size": 48}),
        ("longformer", {"attention_window": [16, 16]}),
        ("mobilebert", {"embedding_size": 48, "intra_bottleneck_size": 24, "true_hidden_size": 24}),
        ("nystromformer", {}),
    ],
)
def test_layers_with_other_matrices_are_refused(kind, fields):
    """They have BERT's names, and were cut to what did not fit its other parts: a traceback, after a long look."""
    with pytest.raises(UserError, match="cannot be pruned; supported"):
        anatomy(encoder_of(kind, **fields))


def test_cuts_that_a_configuration_cannot_say(decoder, encoder):
    with pytest.raises(UserError, match="ties the size of a head to its hidden width"):
        cut_heads(anatomy(encoder), [[0]] * 4)
    with pytest.raises(UserError, match=r"would keep \[1, 2\] heads"):
        cut_heads(anatomy(decoder), [[0], [0, 1], [0], [0]])
    with pytest.raises(UserError, match=r"key-value groups would keep \[1, 2\] heads"):
        cut_heads(anatomy(decoder), [[0, 1, 2]] * 4)
    with pytest.raises(UserError, match="cannot have 40 channels: with 6 heads"):
        cut_hidden(anatomy(decoder), list(range(40)))
    with pytest.raises(UserError, match=r"would keep \[3, 4\] neurons"):
        cut_neurons(anatomy(decoder), [[0, 1, 2]] * 3 + [[0, 1, 2, 3]])


# ---- layers ----------------------------------------------------------------------------------------------------------


def test_block_influence_is_one_minus_the_cosine(subject):
    model, calibration = subject
    sums, tokens = torch.zeros(4), 0
    for batch in calibration.batches:
        real = batch["attention_mask"].bool()
        with torch.no_grad():
            states = model.base_model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
            ).hidden_states
        if calibration.kind == "causal":  # the last of transformers' states is normed, the layer's output is not
            states = states[:-1]
        for i, (before, after) in enumerate(itertools.pairwise(states)):
            sums[i] += (1 - torch.nn.functional.cosine_similarity(before[real], after[real], dim=-1)).sum()
        tokens += int(real.sum())
    found, known = block_influence(anatomy(model), calibration), len(states) - 1
    torch.testing.assert_close(found[:known], (sums / tokens)[:known], rtol=1e-4, atol=1e-6)


def test_a_layer_that_does_nothing_goes_first(subject, reloads):
    model, calibration = subject
    if calibration.kind == "causal":
        block = anatomy(model).blocks[2]
        with torch.no_grad():
            block.out.weight.zero_()
            block.down.weight.zero_()
        wanted = logits(model, calibration)
    result = prune_layers(model, 1, calibration)
    assert (result.asked, result.facts["layers"], model.config.num_hidden_layers) == ({"layers": 3.0}, 3, 3)
    assert result.facts["parameters"] < result.facts["parameters_before"]
    if calibration.kind == "causal":
        assert result.facts["kept_layers"] == [0, 1, 3]
        torch.testing.assert_close(logits(model, calibration), wanted, rtol=0, atol=1e-5)
    reloads(model, calibration)


def test_alternate_and_top_layers(decoder, causal_texts):
    assert prune_layers(copy.deepcopy(decoder), 0.5, causal_texts, by="alternate").facts["kept_layers"] == [0, 3]
    assert prune_layers(decoder, 0.25, causal_texts, by="top").facts["kept_layers"] == [0, 1, 2]


# ---- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["influence", "alternate", "top"])
def test_the_layer_that_averages_stays(encoder, class_texts, by):
    with torch.no_grad():
        for name, weights in encoder.bert.encoder.layer[1].named_parameters():
            if "LayerNorm.weight" not in name:  # it does nothing, and yet is not what goes first by its place
                weights.zero_()
    add_averaging_layer(encoder)
    last = encoder.bert.encoder.layer[-1]
    facts = prune_layers(encoder, 2, class_texts, by=by).facts
    assert encoder.bert.encoder.layer[-1] is last
    assert len(facts["kept_layers"]) == 3
    assert facts["kept_layers"][-1] == 4
    with pytest.raises(OptionError):
        prune_layers(encoder, 2, class_texts, by=by)  # two of its own are left


def test_head_importance_is_the_slope_of_the_loss(subject):
    model, calibration = subject
    parts = anatomy(model)
    found = head_importance(parts, calibration, tokens=10**6)
    assert all(parameter.requires_grad for parameter in model.parameters())
    slopes, rows = torch.zeros(4, 6), 0
    for batch in calibration.batches:
        for layer in range(4):
            for head in range(6):
                values = []
                for value in (1.01, 0.99):
                    gates = torch.ones(4, 6)
                    gates[layer, head] = value
                    with gated(parts, gates), torch.no_grad():
                        values.append(losses(model, batch, calibration.kind))
                slopes[layer, head] += ((values[0] - values[1]) / 0.02).abs().sum()
        rows += len(batch["input_ids"])
    wanted = slopes / slopes.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=5e-3)


def test_a_decoder_loses_whole_groups(decoder, causal_texts, reloads):
    block = anatomy(decoder).blocks[1]
    with torch.no_grad():
        block.out.weight[:, 16:32] = 0  # the middle group of this layer says nothing
    result = prune_heads(decoder, 1 / 3, causal_texts)
    assert result.facts["structure"] == "cut"
    assert result.facts["kept_heads"][1] == [0, 1, 4, 5]
    assert (result.facts["heads"], result.facts["key_value_groups"]) == (16, 2)
    assert result.masks is None
    reloads(decoder, causal_texts)


def test_the_note_says_where_the_heads_cannot_be_cut_as_asked(decoder, causal_texts):
    exact = prune_heads(copy.deepcopy(decoder), 1 / 3, causal_texts)
    assert exact.facts["note"] == "4 of the 6 heads of every layer stay"
    coarse = prune_heads(decoder, 0.2, causal_texts)
    assert coarse.facts["heads"] == exact.facts["heads"] == 16
    assert "33% cut where 20% was asked" in coarse.facts["note"]


@pytest.mark.parametrize(
    ("share", "way"), [(1 / 3, (2, 3)), (0.5, (2, 2)), (0.2, (2, 3)), (0.05, (3, 3)), (0.9, (1, 1))]
)
def test_the_nearest_number_of_heads(share, way):
    assert nearest_count(9, 3, share, 576) == way


def test_masked_heads_are_heads_turned_off(subject):
    model, calibration = subject
    result = prune_heads(model, 0.5, calibration, uniform=False)
    assert result.facts["structure"] == "masked"
    assert result.facts["heads"] == result.asked["heads"] == 12
    assert "no tensor is smaller" in result.facts["note"]
    alive = torch.tensor([[float(h in row) for h in range(6)] for row in result.facts["kept_heads"]])
    now = logits(model, calibration)
    with gated(anatomy(model), alive):
        torch.testing.assert_close(logits(model, calibration), now, rtol=0, atol=1e-6)
    assert head_masks(anatomy(model), alive).kept.keys() == result.masks.kept.keys()


def test_texts_without_labels_are_judged_by_the_models_own_answers(encoder, class_texts):
    bare = type(class_texts)(
        tuple({k: v for k, v in batch.items() if k != "labels"} for batch in class_texts.batches), "classification"
    )
    answered = with_answers(encoder, bare)
    for batch in answered.batches:
        with torch.no_grad():
            said = encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(-1)
        assert torch.equal(batch["labels"], said)
    assert with_answers(encoder, class_texts) is class_texts
    assert prune_heads(encoder, 0.25, bare).facts["heads"] == 18


def test_an_encoder_is_masked_and_says_why(encoder, class_texts):
    facts = prune_heads(encoder, 0.25, class_texts).facts
    assert facts["structure"] == "masked"
    assert "BERT's configuration has no head size of its own" in facts["note"]


# ---- neurons ---------------------------------------------------------------------------------------------------------


def test_silent_neurons_go_first(subject, reloads):
    model, calibration = subject
    for block in anatomy(model).blocks:
        with torch.no_grad():
            block.down.weight[:, ::4] = 0
    wanted = logits(model, calibration)
    result = prune_neurons(model, 0.25, calibration)
    assert (result.facts["neurons"], result.asked) == (4 * 48, {"neurons": 192.0})
    torch.testing.assert_close(logits(model, calibration), wanted, rtol=0, atol=1e-5)
    reloads(model, calibration)


def test_neurons_by_weights_and_by_count(decoder, causal_texts):
    assert prune_neurons(decoder, 7, causal_texts, by="weights").facts["neurons"] == 4 * 57


def test_the_neurons_that_stay_fill_whole_blocks_of_engines(causal_texts):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=1024,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    parts = anatomy(model)
    ones = {name: torch.ones(2, width) for name, width in (("attention", 1), ("feedforward", 1), ("groups", 1))}
    plan = plan_units(parts, {**ones, "neurons": torch.ones(2, 1024)}, 0.3, "cofi")
    # GGUF, NF4 and int4 in groups of 64 read rows of the down projection in blocks.
    assert plan.neurons == 704
    assert prune_neurons(model, 0.3, causal_texts, by="weights").facts["neurons"] == 2 * 704
    assert model.config.intermediate_size == 704


@pytest.mark.parametrize("method", ["heads", "layers", "neurons"])
def test_impossible_amounts(decoder, causal_texts, method):
    before = sum(p.numel() for p in decoder.parameters())
    for amount in (1.0, 0.0, -0.5, True):
        with pytest.raises(OptionError, match="choose"):
            STRUCTURE[method](decoder, amount, causal_texts, quiet)
    assert sum(p.numel() for p in decoder.parameters()) == before


def test_unknown_choices(decoder, causal_texts):
    with pytest.raises(OptionError, match="by 'luck' is unknown; known: influence, alternate, top"):
        prune_layers(decoder, 1, causal_texts, by="luck")
    with pytest.raises(OptionError, match="by 'luck' is unknown; known: activations, weights"):
        prune_neurons(decoder, 1, causal_texts, by="luck")
    with pytest.raises(OptionError, match="is nearest to none; ask for more"):
        prune_heads(decoder, 0.05, causal_texts)


def test_a_cut_is_faster(causal_texts):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=97, hidden_size=256, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
        intermediate_size=1024,
    )  # fmt: skip
    whole = LlamaForCausalLM(config).eval()
    cut = copy.deepcopy(whole)
    prune_layers(cut, 0.5, causal_texts)
    prune_neurons(cut, 0.5, causal_texts)
    prune_heads(cut, 0.5, causal_texts)
    ids = torch.ones(4, 64, dtype=torch.long)
    seconds = {}
    for _ in range(5):  # interleaved, the best of each: another process may take the core for a while
        for name, model in (("whole", whole), ("cut", cut)):
            start = time.perf_counter()
            with torch.no_grad():
                model(input_ids=ids)
            seconds[name] = min(seconds.get(name, 9.0), time.perf_counter() - start)
    assert seconds["cut"] < 0.7 * seconds["whole"]
    assert mean_loss(cut, causal_texts) > 0
