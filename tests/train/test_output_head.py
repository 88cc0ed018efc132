"""Losses are those of the logits that a model really gives: biased, scaled and soft-capped ones, too."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoTokenizer

from potstill.errors import TrainingError
from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import TaskSpec
from potstill.train.causal import causal_trainer
from potstill.train.causal_model import load_causal
from potstill.train.encode import encode_prompt, end_of_turn
from potstill.train.full_divergence import full_divergence
from potstill.train.head_loss import TokenTargets, target_loss
from potstill.train.heal import HealOptions, heal
from potstill.train.loop import plan_schedule
from potstill.train.losses import hard_cross_entropy, topk_divergence
from potstill.train.options import DistilOptions, resolve_options
from potstill.train.output_head import Form, OutputHead
from potstill.train.span_loss import StoredSpans, stored_span_loss
from potstill.train.token_rows import encode_rows
from potstill.train.uncut import start_figures

sys.path.append(str(Path(__file__).parent / "prune"))

from tokens import texts

SPEC = TaskSpec(name="echo", instruction="Say it.", kind="generation", metric="exact_match")
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 64, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
# Granite divides its logits, Cohere multiplies them, Gemma 2 bends them, Phi adds a bias.
BUILDS = {
    "Granite": {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "initializer_range": 0.5},
    "Cohere": {"logit_scale": 0.0625, "initializer_range": 0.5},
    "Gemma2": {"final_logit_softcapping": 3.0, "head_dim": 16, "initializer_range": 0.5},
    "Phi": {"initializer_range": 0.3},
}


def build(name, vocabulary, seed=0):
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(vocab_size=vocabulary, **SIZES, **BUILDS[name])
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    head = model.get_output_embeddings()
    if head.bias is not None:
        torch.nn.init.normal_(head.bias)
    return model


@pytest.fixture(params=BUILDS)
def student(request, tiny_llama, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    folder = tmp_path / request.param
    build(request.param, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def table():
    return rows_to_dataset([Row(f"w{i}", word, "generated", Source(row=i)) for i, word in enumerate(["ab", "ba"])], [])


def options_for(student):
    options = DistilOptions(
        student=str(student), max_steps=1, evaluations=1, batch_size=2, soft_weight=0.0, hard_weight=1.0,
        max_length=96, early_stopping=None, precision="fp32", learning_rate=1e-3,
    )  # fmt: skip
    return resolve_options(options, "causal")


def first_loss(options, folder):
    tokenizer, model, _ = load_causal(options)
    data = encode_rows(SPEC, table(), None, model, tokenizer, options)
    trainer = causal_trainer(model, tokenizer, data, None, options, plan_schedule(2, options), folder)
    trainer.train()
    return trainer.state.log_history[0]["loss"]


def test_the_loss_is_that_of_the_models_own_logits(student, tmp_path):
    options = options_for(student)
    tokenizer, model, _ = load_causal(options)
    model.eval()
    total, count = 0.0, 0
    for row in table():
        prompt = encode_prompt(tokenizer, SPEC, row["input"], 80)
        answer = [*tokenizer(row["output"], add_special_tokens=False)["input_ids"], end_of_turn(model, tokenizer)]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        total -= float(logits.double().log_softmax(-1)[np.arange(len(answer)), answer].sum())
        count += len(answer)
    data = encode_rows(SPEC, table(), None, model, tokenizer, options)
    assert start_figures(model, data, tokenizer)["cross_entropy"] == pytest.approx(total / count, abs=1e-3)
    assert first_loss(options, tmp_path / "run") == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("name", BUILDS)
def test_healing_hears_the_teachers_own_logits(name):
    data = texts("causal", batches=1)
    teacher, other = build(name, 97), build(name, 97, seed=1)
    inputs = {key: data.batches[0][key] for key in ("input_ids", "attention_mask")}
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        ours, theirs = (model(**inputs).logits[real].log_softmax(-1) for model in (other, teacher))
    wanted = torch.nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    assert heal(copy.deepcopy(other), teacher, data, HealOptions(steps=1)).losses[0] == pytest.approx(
        float(wanted), rel=1e-4
    )


@pytest.mark.parametrize("method", ["gold", "uld", "stored", "teacher"])
@pytest.mark.parametrize("form", [Form(0.25), Form(0.5, 2.0), Form()])
def test_gradients_go_through_bias_scale_and_bend(form, method):
    torch.manual_seed(0)
    parts = [torch.randn(6, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)]
    parts.append(torch.randn(11, requires_grad=True))
    logits = OutputHead(parts[1], parts[2], form).logits(parts[0])
    labels, ones = torch.randint(0, 11, (6,)), torch.ones(6)
    top, ids = torch.randn(6, 11).log_softmax(1).topk(3)
    tail = torch.log1p(-top.exp().sum(1))
    how = {"bias": parts[2], "form": form, "chunk": 4}
    if method == "teacher":
        other = OutputHead(torch.randn(11, 7), torch.randn(11), Form(2.0, 5.0))
        states = torch.randn(6, 7)
        found = full_divergence(parts[0], OutputHead(parts[1], parts[2], form), states, other, 2.0, 4)
        ours, theirs = (value.div(2).log_softmax(1) for value in (logits, other.logits(states)))
        wanted = 4 * torch.nn.functional.kl_div(ours, theirs, reduction="sum", log_target=True)
    elif method == "stored":
        found = target_loss(
            parts[0], parts[1], TokenTargets(labels, ones, ones, ids, top, tail), temperature=2.0, **how
        )[0]
        wanted = hard_cross_entropy(logits, labels).sum() + topk_divergence(logits, ids, top, tail, 2.0).sum()
    else:
        spans = StoredSpans(labels, ones, ones, torch.ones(6, dtype=torch.int64), ids, top, tail, top[:, 0], ids[:, 0])
        shared = torch.arange(11) < 8
        found = stored_span_loss(parts[0], parts[1], spans, shared, method=method, **how)[0]
        # The same losses of a head that is nothing but its logits.
        wanted = stored_span_loss(logits, torch.eye(11), spans, shared, method=method)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    for mine, right in zip(*(torch.autograd.grad(3 * value, parts) for value in (found, wanted)), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-3, atol=1e-4)


def test_a_model_that_makes_its_logits_otherwise_is_refused(tiny_llama, tmp_path, monkeypatch):
    plain = transformers.LlamaForCausalLM.forward

    def doubled(self, *args, **kwargs):
        made = plain(self, *args, **kwargs)
        made.logits = made.logits * 2
        return made

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", doubled)
    with pytest.raises(
        TrainingError, match=r"the student \(LlamaForCausalLM\) makes its logits .* choose another model"
    ):
        first_loss(options_for(tiny_llama), tmp_path / "run")
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=97, **SIZES))
    with pytest.raises(TrainingError, match="the student"):
        heal(copy.deepcopy(model), model, texts("causal", batches=1), HealOptions(steps=1))
