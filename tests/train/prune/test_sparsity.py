"""Single weights that go: magnitude and Wanda, by share and n:m, against plain references."""

import copy
import itertools

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from potstill.errors import OptionError, TrainingError, UserError
from potstill.train.calibration_data import Calibration
from potstill.train.head_start import add_averaging_layer
from potstill.train.prune.anatomy import anatomy
from potstill.train.prune.control import prune_random
from potstill.train.prune.magnitude import prune_magnitude
from potstill.train.prune.methods import SPARSITY, PruneResult
from potstill.train.prune.outcome import checked, zero_share
from potstill.train.prune.sparse import keep_largest, keep_n_of_m
from potstill.train.prune.stream import stream
from potstill.train.prune.wanda import prune_wanda


def matrices(model):
    return {name: linear.weight.detach().clone() for name, linear in anatomy(model).matrices()}


WINDOWS = {
    "gemma2": (Gemma2ForCausalLM, Gemma2Config, {"sliding_window": 8}),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, {"sliding_window": 64, "layer_types": [
        *["sliding_attention"] * 3, "full_attention"]}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {
        "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["bert", "llama", *WINDOWS])
def test_each_layer_is_given_what_the_model_gives_it(kind, encoder, decoder, causal_texts):
    torch.manual_seed(0)
    model = {"bert": encoder, "llama": decoder}.get(kind)
    if model is None:
        # Layers that attend to a window have masks of their own, in Gemma 3 rotations too.
        build, config, options = WINDOWS[kind]
        model = build(config(
            vocab_size=97, hidden_size=48, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
            head_dim=12, intermediate_size=64, max_position_embeddings=64, pad_token_id=0, **options,
        )).eval()  # fmt: skip
    parts, seen = anatomy(model), []

    def note(module, arguments, made):
        seen.append(made[0] if isinstance(made, tuple) else made)

    def visit(index, block, run):
        hook = block.module.register_forward_hook(note)
        run()
        hook.remove()

    batch = causal_texts.batches[0]
    stream(parts, Calibration((batch,), "causal"), visit)
    streamed = list(seen)
    seen.clear()
    for block in parts.blocks:
        block.module.register_forward_hook(note)
    with torch.no_grad():
        model(**batch)
    assert len(streamed) == len(seen) == 4
    for ours, theirs in zip(streamed, seen, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_the_share_is_pruned_and_the_rest_is_untouched(subject, method):
    model, calibration = subject
    before, others = matrices(model), {n: p.detach().clone() for n, p in model.named_parameters()}
    result = SPARSITY[method](model, 0.5, calibration, lambda event: None)
    assert result.asked == {"zeros": pytest.approx(0.5, abs=1e-3)}
    assert result.facts["zeros"] == pytest.approx(0.5, abs=1e-3)
    assert zero_share(anatomy(model)) == result.facts["zeros"]
    assert result.masks.sparsity() == pytest.approx(0.5, abs=1e-3)
    for name, weight in matrices(model).items():
        torch.testing.assert_close(weight, before[name] * result.masks.kept[name])
    for name, parameter in model.named_parameters():
        if name not in before:
            assert torch.equal(parameter, others[name])


@pytest.mark.parametrize("share", [0.05, 0.1, 0.33, 0.9])
def test_shares_that_no_row_meets_exactly_are_met_to_half_a_weight(subject, share):
    model, calibration = subject
    result = SPARSITY["wanda"](model, share, calibration, lambda event: None)
    assert result.facts["zeros"] == pytest.approx(share, abs=0.5 / 48)


def test_what_was_zero_before_stays_so_and_counts(decoder, causal_texts):
    with torch.no_grad():
        decoder.model.layers[0].mlp.up_proj.weight[:16] = 0
    before = zero_share(anatomy(decoder))
    result = SPARSITY["wanda"](decoder, 0.3, causal_texts, lambda event: None)
    assert 0.3 < result.facts["zeros"] <= 0.3 + before + 1e-6
    assert result.masks.sparsity() == pytest.approx(result.facts["zeros"])


@pytest.mark.parametrize(
    ("method", "share", "options"),
    [("magnitude", 0.1, {"schedule": "cubic", "steps": 6}), ("magnitude", 0.6, {"schedule": "cubic", "steps": 6}),
     ("lottery", 0.1, {"rounds": 2, "steps": 3}), ("lottery", 0.6, {"rounds": 2, "steps": 3})],
)  # fmt: skip
def test_what_was_zero_before_does_not_come_back_while_the_rest_learns(subject, method, share, options):
    model, calibration = subject
    prune_magnitude(model, 0.4)
    before = {name: weight == 0 for name, weight in matrices(model).items()}
    result = SPARSITY[method](model, share, calibration, lambda event: None, learning_rate=1e-2, **options)
    assert result.facts["zeros"] >= max(0.4, share) - 1e-3
    for name, weight in matrices(model).items():
        assert not bool(weight[before[name]].any()), f"pruned weights of {name} came back"
        assert not bool((result.masks.kept[name] & before[name]).any())


def test_magnitude_drops_the_smallest_of_each_matrix(decoder):
    before = matrices(decoder)
    prune_magnitude(decoder, 0.25)
    for name, weight in matrices(decoder).items():
        gone = before[name][weight == 0].abs()
        assert gone.max() < before[name][weight != 0].abs().min()
        assert len(gone) == round(0.25 * weight.numel())


def test_global_magnitude_has_one_threshold_for_all(decoder):
    with torch.no_grad():
        for linear in anatomy(decoder).blocks[1].linears:
            linear.weight.mul_(100)
    before = matrices(decoder)
    result = prune_magnitude(decoder, 0.5, scope="global")
    assert result.facts["zeros"] == pytest.approx(0.5, abs=1e-3)
    gone = torch.cat([before[n][w == 0].abs() for n, w in matrices(decoder).items()])
    left = torch.cat([before[n][w != 0].abs() for n, w in matrices(decoder).items()])
    assert gone.max() <= left.min()
    shares = [float((w == 0).float().mean()) for n, w in matrices(decoder).items() if ".layers.1." in n]
    assert max(shares) < 0.05


def test_deviations_are_of_each_matrix_and_shared_by_all(decoder):
    plain, scaled = copy.deepcopy(decoder), decoder
    with torch.no_grad():
        for linear in anatomy(scaled).blocks[1].linears:
            linear.weight.mul_(100)
        anatomy(plain).blocks[2].down.weight[0].mul_(30)  # a few large weights: the others are small beside them
        anatomy(scaled).blocks[2].down.weight[0].mul_(30)
    ours = prune_magnitude(plain, 0.5, scope="deviation")
    theirs = prune_magnitude(scaled, 0.5, scope="deviation")
    assert ours.facts["zeros"] == pytest.approx(0.5, abs=1e-3)
    assert all(torch.equal(mask, theirs.masks.kept[name]) for name, mask in ours.masks.kept.items())
    limits = {}
    for (name, weight), mask in zip(matrices(plain).items(), ours.masks.kept.values(), strict=True):
        left = weight[mask].abs().min()
        limits[name] = (float(left), float((~mask).float().mean()))
    assert max(share for _, share in limits.values()) > 0.8, "the matrix with outliers loses most of its others"


def test_weights_go_along_a_cubic_while_the_rest_learns(subject, monkeypatch):
    from potstill.train.prune import magnitude as module

    model, calibration = subject
    before, shares, kept = matrices(model), [], []
    real = module.magnitude_masks

    def masks(parts, share, scope, **more):
        found = real(parts, share, scope, **more)
        shares.append(share)
        kept.append(found)
        return found

    monkeypatch.setattr(module, "magnitude_masks", masks)
    result = prune_magnitude(model, 0.6, calibration, schedule="cubic", steps=8)
    assert shares == pytest.approx([0.6 * (1 - (1 - step / 8) ** 3) for step in range(1, 9)])
    for one, other in itertools.pairwise(kept):
        assert not any(bool((other.kept[name] & ~mask).any()) for name, mask in one.kept.items()), "none comes back"
    assert (result.facts["schedule"], result.facts["steps"]) == ("cubic", 8)
    assert zero_share(anatomy(model)) == pytest.approx(0.6, abs=1e-3)
    moved = [
        not torch.equal(weight[weight != 0], before[name][weight != 0]) for name, weight in matrices(model).items()
    ]
    assert all(moved), "what stays has learnt"


KEEPING = {
    "magnitude": {}, "magnitude global": {"scope": "global"}, "magnitude 2:4": {"pattern": "2:4"},
    "magnitude cubic": {"schedule": "cubic", "steps": 4}, "wanda": {}, "wanda 2:4": {"pattern": "2:4"}, "random": {},
}  # fmt: skip


@pytest.mark.parametrize("how", KEEPING)
def test_what_is_kept_loses_nothing_and_the_rest_its_share(how, subject):
    model, calibration = subject
    with torch.no_grad():
        anatomy(model).blocks[1].down.weight[:5] = 0  # of a step before
    before = matrices(model)
    down = next(name for name, linear in anatomy(model).matrices() if linear is anatomy(model).blocks[0].down)
    piece = down.removesuffix(".weight").split("0.", 1)[1]  # `mlp.down_proj`, `output.dense`
    result = SPARSITY[how.split()[0]](model, 0.5, calibration, keep=f"{piece}+1", **KEEPING[how])
    after, kept = matrices(model), set()
    for name, weight in after.items():
        gone = float((weight == 0).float().mean())
        if f".{piece}." in f".{name}" or ".1." in name:
            kept.add(name)
            assert torch.equal(weight == 0, before[name] == 0)
            assert "cubic" in how or torch.equal(weight, before[name])
        elif "global" not in how:
            assert gone == pytest.approx(0.5, abs=0.03)
    assert 0 < len(kept) < len(after)
    assert set(result.masks.kept) == set(after) - kept
    assert result.masks.sparsity() == pytest.approx(0.5, abs=0.01)
    assert result.facts["keep"] == f"{piece}+1"
    assert result.facts["zeros"] == zero_share(anatomy(model)) < 0.45


def test_what_is_kept_does_not_change_what_others_lose_by_lot(decoder):
    whole, part = prune_random(copy.deepcopy(decoder), 0.3, seed=1), prune_random(decoder, 0.3, seed=1, keep="layers.0")
    assert all(torch.equal(mask, whole.masks.kept[name]) for name, mask in part.masks.kept.items())


@pytest.mark.parametrize("method", ["magnitude", "wanda", "random"])
def test_names_to_keep_that_are_none_are_refused(method, subject):
    model, calibration = subject
    for keep, why in [("layers.9", "keep=layers.9 names no matrix in the layers of"),
                      ("embed_tokens", "keep=embed_tokens names no matrix in the layers of"),
                      ("0+1+2+3", "keep=0.1.2.3 leaves nothing to prune")]:  # fmt: skip
        with pytest.raises(OptionError, match=why):
            SPARSITY[method](model, 0.5, calibration, keep=keep)
    assert zero_share(anatomy(model)) == 0


def test_a_pattern_has_to_fit_only_what_is_pruned():
    torch.manual_seed(0)
    odd = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=97, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=66,
    ))  # fmt: skip
    with pytest.raises(OptionError, match="does not fit rows of 66 weights"):
        prune_magnitude(odd, 0.5, pattern="2:4")
    assert prune_magnitude(odd, 0.5, pattern="2:4", keep="down_proj").masks.sparsity() == pytest.approx(0.5)


def test_chance_is_the_control(decoder):
    one, other = copy.deepcopy(decoder), copy.deepcopy(decoder)
    first, again = prune_random(decoder, 0.3, seed=1), prune_random(one, 0.3, seed=1)
    another = prune_random(other, 0.3, seed=2)
    for name, mask in first.masks.kept.items():
        assert torch.equal(mask, again.masks.kept[name])
        assert not torch.equal(mask, another.masks.kept[name])
        assert int((~mask).sum()) == round(0.3 * mask.numel())
    with pytest.raises(OptionError, match=r"2 is no share to remove"):
        prune_random(decoder, 2)


def reference_wanda(model, calibration, share):
    """Wanda by whole forward passes: each layer's inputs are taken anew from the model as pruned so far."""
    parts = anatomy(model)
    for block in parts.blocks:
        caught = {linear: [] for linear in block.linears}
        hooks = [
            linear.register_forward_pre_hook(lambda m, args, caught=caught: caught[m].append(args[0].detach()))
            for linear in block.linears
        ]
        with torch.no_grad():
            for batch in calibration.batches:
                model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        for hook in hooks:
            hook.remove()
        for linear in block.linears:
            tokens = torch.cat(
                [x[b["attention_mask"].bool()] for x, b in zip(caught[linear], calibration.batches, strict=True)]
            )
            score = linear.weight.detach().abs() * tokens.norm(dim=0)
            gone = score.argsort(dim=1, stable=True)[:, : round(share * score.shape[1])]
            with torch.no_grad():
                linear.weight.scatter_(1, gone, 0.0)
    return model


def test_wanda_is_the_papers_score_block_by_block(subject):
    model, calibration = subject
    wanted = reference_wanda(copy.deepcopy(model), calibration, 0.5)
    prune_wanda(model, 0.5, calibration)
    for (name, weight), expected in zip(matrices(model).items(), matrices(wanted).values(), strict=True):
        assert float(((weight == 0) != (expected == 0)).float().mean()) < 1e-3, name


def test_wanda_prunes_every_row_alike(decoder, causal_texts):
    prune_wanda(decoder, 0.25, causal_texts)
    for weight in matrices(decoder).values():
        assert set((weight == 0).sum(1).tolist()) == {round(0.25 * weight.shape[1])}


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_two_of_every_four_stay(subject, method):
    model, calibration = subject
    before = matrices(model)
    result = SPARSITY[method](model, 0.5, calibration, lambda event: None, pattern="2:4")
    assert result.facts["pattern"] == "2:4"
    for name, weight in matrices(model).items():
        fours = (weight != 0).view(weight.shape[0], -1, 4)
        assert set(fours.sum(-1).unique().tolist()) == {2}
        if method == "magnitude":
            whole = before[name].abs().view(weight.shape[0], -1, 4)
            assert bool((whole.masked_fill(fours, 0).amax(-1) <= whole.masked_fill(~fours, 9).amin(-1)).all())


def test_ties_do_not_change_the_count():
    assert keep_largest(torch.ones(3, 10), 0.3).sum(1).tolist() == [7, 7, 7]
    assert keep_largest(torch.tensor([[0.0, 0.0, 0.0, 1.0]]), 0.5).tolist() == [[True, False, False, True]]
    assert keep_n_of_m(torch.arange(7.0)[None], 1, 3).tolist() == [[False, False, True, False, False, True, True]]


BAD = [
    ({"amount": 1.0}, "1.0 is no share to remove"),
    ({"amount": 0}, "0 is no share"),
    ({"amount": float("nan")}, "nan is no share"),
    ({"amount": 0.5, "pattern": "4:2"}, "pattern '4:2' is not n:m"),
    ({"amount": 0.3, "pattern": "2:4"}, "pattern 2:4 removes 0.5 and 0.3 was asked"),
    ({"amount": 0.8, "pattern": "1:5"}, "pattern 1:5 does not fit rows of 48 weights"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_impossible_options(decoder, causal_texts, method, options, message):
    before = matrices(decoder)
    options = dict(options)
    with pytest.raises(OptionError, match=message):
        SPARSITY[method](decoder, options.pop("amount"), causal_texts, lambda event: None, **options)
    assert all(torch.equal(weight, before[name]) for name, weight in matrices(decoder).items())


def test_too_little_text_and_foreign_models(decoder, causal_texts):
    short = Calibration(({"input_ids": torch.ones(1, 5).long(), "attention_mask": torch.ones(1, 5).long()},), "causal")
    with pytest.raises(OptionError, match="5 tokens of calibration text are too few; give at least 128"):
        prune_wanda(decoder, 0.5, short)
    with pytest.raises(UserError, match="Linear cannot be pruned; supported: decoders built like Llama"):
        prune_magnitude(torch.nn.Linear(2, 2), 0.5)
    with pytest.raises(OptionError, match="scope 'row' is unknown"):
        prune_magnitude(decoder, 0.5, scope="row")
    with pytest.raises(OptionError, match="schedule 'slow' is unknown; known: once, cubic"):
        prune_magnitude(decoder, 0.5, schedule="slow")
    with pytest.raises(OptionError, match="5 tokens of calibration text are too few; give at least 64"):
        prune_magnitude(decoder, 0.5, short, schedule="cubic")
    with pytest.raises(OptionError, match="steps=3 is of the learning while weights go"):
        prune_magnitude(decoder, 0.5, steps=3)


def test_a_method_that_did_nothing_fails():
    with pytest.raises(TrainingError, match=r"zeros is 0.0, asked for 0.5"):
        checked(PruneResult({"zeros": 0.0}, None, {"zeros": 0.5}))
    with pytest.raises(TrainingError, match="layers is None"):
        checked(PruneResult({}, None, {"layers": 3.0}))
    assert checked(PruneResult({"zeros": 0.501}, None, {"zeros": 0.5})).facts == {"zeros": 0.501}


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_the_layer_that_averages_loses_its_own_share_where_all_matrices_are_ranked_together(encoder, share):
    """Its queries and keys are next to 0 by design: ranked with the others it would lose all of them."""
    add_averaging_layer(encoder)
    own = {f"bert.{name}" for name, _ in encoder.bert.named_parameters() if name.startswith("encoder.layer.4.")}
    result = prune_magnitude(encoder, share, scope="global")
    assert result.facts["zeros"] == pytest.approx(share, abs=0.01)
    masks = result.masks.kept
    assert {name for name in masks if name in own}
    for name in own & set(masks):
        assert 1 - float(masks[name].float().mean()) == pytest.approx(share, abs=0.01)
    others = [1 - float(mask.float().mean()) for name, mask in masks.items() if name not in own]
    assert max(others) - min(others) > 0.001  # still ranked together
