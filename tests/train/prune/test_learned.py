"""Methods that try before they cut: lottery tickets, CoFi, Bonsai, hidden width."""

import copy

import pytest
import torch
from tokens import logits, texts
from transformers import LlamaConfig, LlamaForCausalLM

from potstill.errors import OptionError, TrainingError
from potstill.train.head_start import add_averaging_layer
from potstill.train.prune.anatomy import anatomy
from potstill.train.prune.bonsai import prune_bonsai
from potstill.train.prune.cofi import prune_cofi, switched
from potstill.train.prune.hard_concrete import Switches
from potstill.train.prune.hidden import prune_hidden
from potstill.train.prune.loss import mean_loss, with_answers
from potstill.train.prune.lottery import prune_lottery, randomise
from potstill.train.prune.magnitude import prune_magnitude
from potstill.train.prune.masks import Masks
from potstill.train.prune.neurons import prune_neurons
from potstill.train.prune.outcome import zero_share
from potstill.train.prune.regression import kendall, ridge_by_rank
from potstill.train.prune.rounding import block_weights, plan_units, round_units

# ---- lottery tickets -------------------------------------------------------------------------------------------------


def learner():
    """A small decoder that can learn the task of `copying`, untrained."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def copying(rows, seed):
    """Eight tokens that come twice: the second half can be known."""
    half = torch.randint(1, 16, (rows, 8), generator=torch.Generator().manual_seed(seed))
    return torch.cat([half, half], 1)


def loss_of(model, ids):
    logits = model(input_ids=ids).logits[:, 8:-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 9:].flatten())


def train_copying(model, masks, steps=100):
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    with masks.hold(model):
        for step in range(steps):
            loss_of(model, copying(24, step)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


def test_a_rewound_ticket_beats_its_mask_over_random_weights():
    model, results = learner(), {}
    train_copying(model, Masks({}))  # early in the training: the ticket is wound back to here
    early = copy.deepcopy(model.state_dict())
    train_copying(model, Masks({}), 150)
    for start in ("rewound", "random"):
        one = copy.deepcopy(model)
        result = prune_lottery(one, 0.7, texts("causal"), train=train_copying, early=early, rounds=1, start=start)
        assert result.facts["zeros"] == pytest.approx(0.7, abs=1e-3)
        assert (result.facts["rewound_to"], result.facts["rounds"]) == ("early", 1)
        with torch.no_grad():
            results[start] = float(loss_of(one, copying(200, 10_000)))
    assert results["rewound"] < results["random"] - 0.02


def test_every_round_starts_from_the_early_weights(decoder, causal_texts):
    early = {name: value.clone() for name, value in decoder.state_dict().items()}
    shares, seen = [], []

    def train(model, masks):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        shares.append(masks.sparsity())
        with torch.no_grad():  # learning that makes the first half of every row small
            for _, linear in anatomy(model).matrices():
                linear.weight[:, : linear.in_features // 2] *= 1e-3

    result = prune_lottery(decoder, 0.5, causal_texts, train=train, rounds=2)
    assert shares == pytest.approx([0, 1 - 0.5**0.5, 0.5], abs=1e-3)
    for state, share in zip(seen, shares, strict=True):
        kept = [state[name] != 0 for name in result.masks.kept]
        for name, here in zip(result.masks.kept, kept, strict=True):
            assert torch.equal(state[name][here], early[name][here])
        assert 1 - sum(int(k.sum()) for k in kept) / sum(k.numel() for k in kept) == pytest.approx(share, abs=1e-3)
    halves = [mask[:, : mask.shape[1] // 2].float().mean() for mask in result.masks.kept.values()]
    assert float(torch.stack(halves).mean()) < 0.01


def test_the_default_training_heals_and_keeps_zeros(encoder, class_texts):
    result = prune_lottery(encoder, 0.4, class_texts, rounds=1, steps=2)
    assert result.facts["rewound_to"] == "given"
    assert zero_share(anatomy(encoder)) == pytest.approx(0.4, abs=1e-3)


def test_random_weights_are_new_but_embeddings_stay(decoder):
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    randomise(anatomy(decoder), seed=3)
    assert torch.equal(decoder.state_dict()["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(decoder.state_dict()[name], before[name])
    assert float(decoder.state_dict()[name].std()) == pytest.approx(0.02, rel=0.1)


def test_the_layer_that_averages_is_not_drawn_anew(encoder):
    add_averaging_layer(encoder)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    randomise(anatomy(encoder), seed=3)
    layers = len(encoder.bert.encoder.layer)
    for index in range(layers):
        name = f"bert.encoder.layer.{index}.attention.self.value.weight"
        assert torch.equal(encoder.state_dict()[name], before[name]) is (index == layers - 1)


def test_impossible_tickets(decoder, causal_texts):
    with pytest.raises(OptionError) as found:
        prune_lottery(decoder, 0.5, causal_texts, rounds=0, start="luck", early={"a": torch.ones(1)}, rewind=2)
    for text in ("rounds 0 is too few", "start 'luck' is unknown; known: rewound, random", "rewind 2 is no share",
                 "rewind, a share of the training, and early weights as a function of it go together"):  # fmt: skip
        assert text in str(found.value)
    with pytest.raises(OptionError, match=r"the early weights lack '.*; give a state dict of this model"):
        prune_lottery(decoder, 0.5, causal_texts, early={"a": torch.ones(1)})

    def forgets(model, masks):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)

    with pytest.raises(TrainingError, match=r"the training moved pruned weights of .*; hold the masks in it"):
        prune_lottery(decoder, 0.5, causal_texts, rounds=1, train=forgets)


# ---- hidden width ----------------------------------------------------------------------------------------------------


def test_hidden_width_goes_with_what_is_allowed(subject, reloads):
    model, calibration = subject
    result = prune_hidden(model, 0.5, calibration)
    assert (result.facts["hidden"], result.asked) == (24, {"hidden": 24.0})
    assert model.get_input_embeddings().weight.shape == (97, 24)
    assert anatomy(model).head_size == 8
    reloads(model, calibration)


def test_silent_channels_go_first(decoder, causal_texts):
    gone = [0, 5, 9, 33, 40, 47]
    with torch.no_grad():
        for block in anatomy(decoder).blocks:
            for linear in (block.query, block.key, block.value, *block.into):
                linear.weight[:, gone] = 0
    kept = decoder.model.embed_tokens.weight.detach()[:, [i for i in range(48) if i not in gone]]
    prune_hidden(decoder, 6, causal_texts)
    torch.testing.assert_close(decoder.model.embed_tokens.weight.detach(), kept)


# ---- CoFi ------------------------------------------------------------------------------------------------------------


def test_expected_sparsity_is_that_of_the_weights(subject):
    model, _ = subject
    parts = anatomy(model)
    switches = Switches(parts, hidden=False)
    with torch.no_grad():
        for value in switches.log_alpha.values():
            value.fill_(50.0)
        assert float(switches.sparsity()) == pytest.approx(0, abs=1e-6)
        switches.log_alpha["neurons"][1:3] = -50.0
        switches.log_alpha["attention"][0] = -50.0
    block = parts.blocks[0]
    feedforward = sum(linear.weight.numel() for linear in (*block.into, block.down))
    attention = sum(linear.weight.numel() for linear in (block.query, block.key, block.value, block.out))
    assert float(switches.sparsity().detach()) == pytest.approx(
        (2 * feedforward + attention) / block_weights(parts), rel=1e-5
    )


def test_switches_are_open_as_often_as_expected(decoder):
    switches = Switches(anatomy(decoder), hidden=True)
    with torch.no_grad():
        switches.log_alpha["neurons"].fill_(-1.0)
    draw = torch.Generator().manual_seed(0)
    share = torch.stack([(switches.sample(draw)["neurons"] > 0).float().mean() for _ in range(50)]).mean()
    assert float(share) == pytest.approx(float(switches.open()["neurons"].detach().mean()), abs=0.01)


def test_closed_switches_are_cuts(subject):
    model, calibration = subject
    parts = anatomy(model)
    z = {
        name: torch.ones_like(value) for name, value in Switches(parts, hidden=False).sample(torch.Generator()).items()
    }
    now = logits(model, calibration)
    with switched(parts, z):
        torch.testing.assert_close(logits(model, calibration), now)
    z["neurons"][:, 40:] = 0
    with switched(parts, z):
        off = logits(model, calibration)
    with torch.no_grad():
        for block in parts.blocks:
            block.down.weight[:, 40:] = 0
    torch.testing.assert_close(off, logits(model, calibration), rtol=0, atol=1e-6)


@pytest.mark.parametrize("hidden", [False, True])
def test_cofi_cuts_to_the_share_and_reloads(subject, reloads, hidden):
    model, calibration = subject
    whole = block_weights(anatomy(model))
    result = prune_cofi(model, 0.4, calibration, steps=4, switch_rate=2.0, hidden=hidden)
    assert result.facts["structure"] == "cut"
    assert result.facts["note"] == "rounded to the same numbers in every layer"
    assert result.asked["block_weights"] == result.facts["block_weights"] == block_weights(anatomy(model))
    if not hidden:
        assert block_weights(anatomy(model)) / whole == pytest.approx(0.6, abs=0.02)
    reloads(model, calibration)


def test_cofi_leaves_what_was_zero_before_at_zero(encoder, class_texts):
    names = [name for name, _ in anatomy(encoder).matrices()]
    prune_magnitude(encoder, 0.4)
    before = Masks.of_zeros(encoder, names)
    prune_cofi(encoder, 0.3, class_texts, steps=6, learning_rate=1e-2, uniform=False)
    back = [name for name, mask in before.kept.items() if bool(encoder.get_parameter(name)[~mask].any())]
    assert not back


def test_cofi_learns_which_neurons_say_nothing(encoder, class_texts):
    with torch.no_grad():
        encoder.classifier.weight.mul_(30)
        for block in anatomy(encoder).blocks:
            block.down.weight[:, 1::2] *= 100
            block.down.weight[:, ::2] = 0
    result = prune_cofi(encoder, 0.3, class_texts, steps=30, switch_rate=0.3, learning_rate=1e-6, hidden=False, seed=1)
    assert result.facts["expected_sparsity"] > 0.1
    loud = [float(block.down.weight.abs().sum(0).ne(0).float().mean()) for block in anatomy(encoder).blocks]
    assert sum(loud) / len(loud) > 0.75  # half of them, were they drawn at random


def chances(parts, **values):
    found = {
        "attention": torch.ones(4, 1), "feedforward": torch.ones(4, 1), "groups": torch.ones(4, parts.groups),
        "neurons": torch.rand(4, parts.neurons, generator=torch.Generator().manual_seed(0)) / 2 + 0.5,
    }  # fmt: skip
    return {**found, **values}


def test_layers_that_are_off_go_and_the_rest_is_uniform(decoder, causal_texts, reloads):
    parts = anatomy(decoder)
    off = torch.tensor([[0.9], [0.1], [0.9], [0.9]])
    groups = torch.tensor([[0.9, 0.1, 0.9], [0.1, 0.1, 0.1], [0.9, 0.9, 0.1], [0.9, 0.9, 0.2]])
    result = round_units(parts, chances(parts, attention=off, feedforward=off, groups=groups), 0.5, {"method": "x"})
    assert (result.facts["layers"], result.facts["key_value_groups"]) == (3, 2)
    assert result.facts["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert result.facts["learnt_groups"] == [2, 0, 2, 2]
    reloads(decoder, causal_texts)


def test_a_large_share_takes_groups_and_then_layers(decoder, encoder):
    parts = anatomy(decoder)
    plan = plan_units(parts, chances(parts), 0.9, "x")
    assert (plan.groups, len(plan.layers) < 4) == (1, True)
    assert plan.weights / block_weights(parts) == pytest.approx(0.1, abs=0.01)
    assert len(plan_units(anatomy(encoder), chances(anatomy(encoder)), 0.8, "x").layers) == 1
    with pytest.raises(OptionError, match=r"0\.99 of the weights cannot go"):
        plan_units(parts, chances(parts), 0.99, "x")


def test_impossible_cofi(decoder, causal_texts):
    with pytest.raises(OptionError) as found:
        prune_cofi(decoder.half(), 0.5, causal_texts, steps=1, layer_weight=2)
    for text in ("steps 1 is too few", "layer_weight 2 lies outside 0 to 1", "not float32"):
        assert text in str(found.value)


# ---- Bonsai ----------------------------------------------------------------------------------------------------------


def test_ridge_finds_what_each_module_adds():
    draw = torch.Generator().manual_seed(0)
    masks = (torch.rand(120, 30, generator=draw) < 0.5).float()
    worth = torch.randn(30, generator=draw)
    beta, tau = ridge_by_rank(masks, masks @ worth + 0.1 * torch.randn(120, generator=draw))
    assert kendall(beta, worth.double()) > 0.9
    assert tau > 0.8
    _, noise = ridge_by_rank(masks, torch.randn(120, generator=draw))
    assert noise < 0.35


def test_kendall_by_hand():
    assert kendall(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 3, 2])) == pytest.approx(1 / 3)
    assert kendall(torch.tensor([1.0]), torch.tensor([1.0])) == 0


def test_bonsai_cuts_and_reloads(subject, reloads):
    model, calibration = subject
    small = type(calibration)(calibration.batches[:1], calibration.kind)
    result = prune_bonsai(model, 0.5, small, sub_models=20, bundles=8)
    assert result.facts["structure"] == "cut"
    assert result.facts["neurons"] == result.asked["neurons"] == 128
    assert model.config.intermediate_size == 32
    assert result.facts["groups"] == (8 if calibration.kind == "causal" else 24)
    reloads(model, calibration)


def test_bonsai_finds_neurons_that_look_large_and_do_nothing(encoder, class_texts):
    """Half of the neurons are loud pairs that cancel each other: by prior they would stay, and they do nothing."""
    with torch.no_grad():
        encoder.classifier.weight.mul_(30)
        for block in anatomy(encoder).blocks:
            block.down.weight[:, :32] *= 100
            for j in range(32, 64, 2):
                block.into[0].weight[j + 1] = block.into[0].weight[j]
                block.down.weight[:, j] *= 5000
                block.down.weight[:, j + 1] = -block.down.weight[:, j]
    bare = [{k: v for k, v in batch.items() if k != "labels"} for batch in class_texts.batches[:2]]
    small = type(class_texts)(tuple(bare), "classification")
    asked = with_answers(encoder, small)
    model = copy.deepcopy(encoder)
    prune_bonsai(model, 0.5, small, sub_models=60, bundles=8)
    by_prior = copy.deepcopy(encoder)
    prune_neurons(by_prior, 0.5, small)
    losses = [mean_loss(one, asked) for one in (encoder, model, by_prior)]
    assert losses[1] < min(losses[0], losses[2]) - 0.02


def test_bonsai_needs_no_gradient(decoder, causal_texts):
    small = type(causal_texts)(causal_texts.batches[:1], "causal")
    decoder.requires_grad_(False)
    result = prune_bonsai(decoder, 0.25, small, sub_models=20, bundles=4, rounds=2)
    assert len(result.facts["kendall_tau"]) == 2


def test_impossible_bonsai(decoder, causal_texts):
    with pytest.raises(OptionError) as found:
        prune_bonsai(decoder, 0.5, causal_texts, sub_models=3, rounds=0, bundles=1)
    for text in ("sub_models 3 are too few", "rounds 0", "bundles 1 is not possible for 64 neurons; choose 2 to 64"):
        assert text in str(found.value)
