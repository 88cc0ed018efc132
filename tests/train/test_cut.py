"""Students that are cut from their teacher: layers, neurons, the triple loss, and what is said of their start."""

import json
import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, SmolLM3Config, SmolLM3ForCausalLM

from potstill.errors import OptionError, UserError
from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import TaskSpec
from potstill.train.causal import causal_trainer, distil_causal
from potstill.train.causal_model import load_causal
from potstill.train.layers import keep_layers
from potstill.train.loop import plan_schedule
from potstill.train.options import DistilOptions, resolve_options
from potstill.train.student import load_student
from potstill.train.token_rows import encode_rows
from potstill.train.uncut import start_figures, uncut_states
from potstill.train.width import keep_neurons

SPEC = TaskSpec(name="echo", instruction="Say it.", kind="generation")


def rows(n=6):
    texts = [f"{'ab' * (i % 4 + 1)}{i}" for i in range(n)]
    return rows_to_dataset([Row(text, text[::-1], "generated", Source(row=i)) for i, text in enumerate(texts)], [])


@pytest.fixture
def options(tiny_llama):
    return DistilOptions(
        student=str(tiny_llama), soft_weight=0.0, epochs=2, batch_size=3, learning_rate=5e-3, max_length=96
    )


def encoded(options, table):
    chosen = resolve_options(options, "causal")
    tokenizer, model, _ = load_causal(chosen)
    return chosen, tokenizer, model, encode_rows(SPEC, table, None, model, tokenizer, chosen)


def test_the_triple_loss_is_the_dense_one(tmp_path, options):
    table = rows(3).map(lambda row, i: {"weight": 1.0 + i}, with_indices=True)
    options = replace(options, student_layers=1, hidden_weight=0.7, max_steps=1)
    chosen, tokenizer, model, data = encoded(options, table)
    states = uncut_states(data, chosen, tmp_path / "states")
    _, whole, _ = load_causal(replace(chosen, student_layers=None))
    total = weight = 0.0
    for ids, labels, w in zip(data.table["input_ids"], data.table["labels"], table["weight"], strict=True):
        at = torch.tensor(labels)[1:] != -100
        with torch.no_grad():
            cut, full = (m.base_model(torch.tensor([ids])).last_hidden_state[0, :-1][at] for m in (model, whole))
            logits = model.lm_head(cut)
        hard = torch.nn.functional.cross_entropy(logits, torch.tensor(labels)[1:][at], reduction="sum")
        cosine = (cut * full).sum(-1) / (cut.norm(dim=-1) * full.norm(dim=-1))
        total += w * float(hard + 0.7 * (1 - cosine).sum())
        weight += w * int(at.sum())
    trainer = causal_trainer(
        model, tokenizer, data, None, chosen, plan_schedule(3, chosen), tmp_path / "c", states=states
    )
    trainer.train()
    (loss,) = (entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert loss == pytest.approx(total / weight, rel=2e-4)  # the states rest in half precision


def test_hidden_states_turn_towards_the_uncut_model(tmp_path, options):
    table = rows()
    angles = {}
    for weight in (0.0, 1.0):
        chosen = replace(options, student_layers=1, hidden_weight=weight, epochs=20, early_stopping=None)
        result = distil_causal(SPEC, table, None, None, tmp_path / f"s{weight}", chosen)
        resolved, _, whole, data = encoded(options, table)
        states = uncut_states(data, resolved, tmp_path / f"states{weight}").of_rows(list(range(len(table))))
        cut = load_student(result.path).model.float().cpu()
        found = []
        for ids, labels in zip(data.table["input_ids"], data.table["labels"], strict=True):
            at = torch.tensor(labels)[1:] != -100
            with torch.no_grad():
                found.append(cut.base_model(torch.tensor([ids])).last_hidden_state[0, :-1][at])
        angles[weight] = float(torch.nn.functional.cosine_similarity(torch.cat(found), states).mean())
        assert whole.config.num_hidden_layers == 2
    assert angles[1.0] > angles[0.0] + 0.01


def test_a_cut_decoder_is_told_to_heal(tmp_path, options):
    notes = []
    result = distil_causal(
        SPEC, rows(), None, None, tmp_path / "s", replace(options, student_layers=1), listener=notes.append
    )
    assert result.report["start"]["uniform"] == pytest.approx(math.log(258), abs=1e-3)
    assert any("has to heal in training" in event.message for event in notes)
    assert "has to heal" in result.report["notes"][0]
    assert distil_causal(SPEC, rows(), None, None, tmp_path / "w", options).report["notes"] == []


def test_start_figures_are_the_models_own_loss(options):
    _, tokenizer, model, data = encoded(options, rows(3))
    losses, tokens = 0.0, 0
    for ids, labels in zip(data.table["input_ids"], data.table["labels"], strict=True):
        count = sum(token != -100 for token in labels)
        with torch.no_grad():
            losses += count * float(model(torch.tensor([ids]), labels=torch.tensor([labels])).loss)
        tokens += count
    assert start_figures(model, data, tokenizer)["cross_entropy"] == pytest.approx(losses / tokens, abs=2e-4)


def test_chosen_layers_and_neurons_reload(tmp_path, options):
    chosen = replace(options, student_layer_ids=(1,), student_ffn=0.5)
    path = distil_causal(SPEC, rows(), None, None, tmp_path / "s", chosen).path
    config = json.loads((path / "config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"]) == (1, 32)
    assert isinstance(load_student(path)("ab"), str)


def test_layers_without_positions_stay_so(tmp_path):
    torch.manual_seed(0)
    config = SmolLM3Config(
        vocab_size=60, hidden_size=32, num_hidden_layers=8, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=64, initializer_range=0.3, pad_token_id=0,
    )  # fmt: skip
    model = keep_layers(SmolLM3ForCausalLM(config).eval(), 4, [0, 3, 6, 7])
    assert model.config.no_rope_layers == [1, 0, 1, 0]
    model.save_pretrained(tmp_path)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        told, read = (m(input_ids=ids).logits for m in (model, AutoModelForCausalLM.from_pretrained(tmp_path)))
    torch.testing.assert_close(told, read)


def test_dropped_neurons_are_those_that_add_least(options):
    _, model, _ = load_causal(resolve_options(options, "causal"))
    block = model.model.layers[0].mlp
    with torch.no_grad():
        for neuron in range(0, 64, 2):
            block.down_proj.weight[:, neuron] *= 1e-6
    ids = torch.arange(20)[None] + 40
    before = model.model.layers[0].mlp(model.model.embed_tokens(ids))
    keep_neurons(model, 0.5)
    assert model.config.intermediate_size == 32
    torch.testing.assert_close(model.model.layers[0].mlp(model.model.embed_tokens(ids)), before, rtol=1e-3, atol=1e-6)


def test_impossible_cuts(tmp_path, options):
    with pytest.raises(UserError, match=r"names layer 7; .* has 0 to 1"):
        distil_causal(SPEC, rows(), None, None, tmp_path / "s", replace(options, student_layer_ids=(0, 7)))
    with pytest.raises(UserError, match="student_layers 9 is more than the 2 layers"):
        distil_causal(SPEC, rows(), None, None, tmp_path / "s", replace(options, student_layers=9))
    with pytest.raises(OptionError, match="rising layer numbers"):
        DistilOptions(student_layer_ids=(3, 1))
    with pytest.raises(OptionError, match="both given"):
        DistilOptions(student_layer_ids=(0, 1), student_layers=2)
    with pytest.raises(OptionError, match="student_ffn must lie in"):
        DistilOptions(student_ffn=0.0)
