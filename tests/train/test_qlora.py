"""Students whose base rests in 4 bits: they learn, and the adapters end in the base as it was."""

import importlib.util
import sys
from dataclasses import replace

import pytest
import torch
from mood import SPEC, reviews
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from potstill.errors import MissingExtra, OptionError
from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import TaskSpec
from potstill.train.causal import distil_causal
from potstill.train.classify import distil_classifier
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.recipe import check_recipe, parse_recipe
from potstill.train.compress.run import Material, compress_student
from potstill.train.compress.state import load_state
from potstill.train.encode import encode_prompt, end_of_turn
from potstill.train.options import DistilOptions, resolve_options
from potstill.train.student import load_student

ECHO = TaskSpec(name="echo", instruction="Say it.", kind="generation", metric="exact_match")


@pytest.fixture
def qlora(tiny_llama):
    return DistilOptions(
        student=str(tiny_llama), epochs=6, batch_size=4, learning_rate=2e-2, max_length=96, early_stopping=None,
        qlora=True, lora_rank=4, lora_alpha=8.0,
    )  # fmt: skip


def rows(n):
    return rows_to_dataset([Row(f"w{i}", "abab", "generated", Source(row=i)) for i in range(n)], [])


def test_a_4_bit_student_learns_and_is_merged_into_its_base_of_full_precision(tmp_path, qlora, tiny_llama):
    pytest.importorskip("bitsandbytes")
    result = distil_causal(ECHO, rows(12), rows(4), None, tmp_path / "s", qlora)
    losses = [point["validation_loss"] for point in result.history]
    assert losses[-1] < losses[0]
    assert result.report["options"]["qlora"]
    student = load_student(result.path)
    assert not hasattr(student.model.config, "quantization_config")
    before, after = load_file(tiny_llama / "model.safetensors"), load_file(result.path / "model.safetensors")
    assert set(before) == set(after)
    moved = 0
    for name, weight in after.items():
        change = weight.float() - before[name].float()
        if "proj" not in name:
            assert torch.equal(weight, before[name])
            continue
        # Had the adapters been merged into rounded weights, the change would be of full rank.
        strengths = torch.linalg.svdvals(change)
        assert float(strengths[0]) > 1e-3
        assert float(strengths[4]) < 1e-4 * float(strengths[0])
        moved += 1
    assert moved == 14
    # The merged model is the one that was trained, up to the rounding of its base: it says what it learnt.
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert _loss(student, student.model) == pytest.approx(min(losses), abs=0.05)
    assert _loss(student, base) > min(losses) + 0.2


def test_a_student_with_fewer_neurons_is_cut_before_its_base_is_rounded(tmp_path, qlora, tiny_llama):
    pytest.importorskip("bitsandbytes")
    chosen = replace(qlora, student_ffn=0.5, student_layers=1, hidden_weight=0.0)
    result = distil_causal(ECHO, rows(12), rows(4), None, tmp_path / "s", chosen)
    losses = [point["validation_loss"] for point in result.history]
    assert losses[-1] < losses[0]
    student = load_student(result.path)
    assert student.model.config.intermediate_size == 32
    assert student.model.config.num_hidden_layers == 1
    # The adapters were merged into the very neurons that they were trained on.
    assert _loss(student, student.model) == pytest.approx(min(losses), abs=0.05)


def _loss(student, model):
    """Nats a token of the answer and its end."""
    start = encode_prompt(student.tokenizer, ECHO, "w1", 80)
    ids = student.tokenizer("abab", add_special_tokens=False)["input_ids"] + [end_of_turn(model, student.tokenizer)]
    with torch.inference_mode():
        logits = model(torch.tensor([start + ids])).logits[0, len(start) - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits.float(), torch.tensor(ids)))


def test_4_bits_need_bitsandbytes_and_a_generation_student(tmp_path, qlora, options, monkeypatch):
    with pytest.raises(OptionError, match=r"distil\.qlora is for generation students"):
        distil_classifier(SPEC, reviews(8), None, tmp_path / "s", replace(options, qlora=True, lora_rank=None))
    assert resolve_options(DistilOptions(qlora=True), "causal").lora_rank == 16
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtra, match=r"distil\.qlora needs bitsandbytes.*pip install -e .*\[qlora\]"):
        distil_causal(ECHO, rows(8), None, None, tmp_path / "s", qlora)


def test_a_cut_student_is_healed_on_4_bits_and_keeps_full_weights(tmp_path, tiny_llama):
    pytest.importorskip("bitsandbytes")
    texts = tuple("the cat sat on the mat and said: " + word * 4 for word in map(str, range(200)))
    material = Material(texts, held_out=texts[::9])
    options = CompressOptions(speed="none", window=64, keep_steps=True, heal_tokens=4096, calibration_tokens=2048)
    recipe = "layers:1 -> qlora:steps=30,rank=2,learning_rate=1e-2 -> heal:steps=2 -> nf4"
    report = compress_student(tiny_llama, recipe, tmp_path / "s", material, options).report
    learnt = next(entry for entry in report["steps"] if entry["step"].startswith("qlora"))
    assert learnt["facts"]["loss_last"] < 0.9 * learnt["facts"]["loss_first"]
    steps = {path.name.split("-")[1]: load_state(path).model.state_dict()
             for path in (tmp_path / "s.steps").iterdir() if path.is_dir()}  # fmt: skip
    for name, weight in steps["qlora"].items():
        change = weight - steps["layers"][name]
        if "proj" in name:
            # Merged into weights that had been rounded, the change would hold the rounding and be of full rank.
            strengths = torch.linalg.svdvals(change)
            assert float(strengths[0]) > 1e-3
            assert float(strengths[2]) < 1e-4 * float(strengths[0])
        else:
            assert not change.any(), name
    assert any(not torch.equal(steps["heal"][name], steps["qlora"][name]) for name in steps["heal"])  # gradients flow


def test_the_step_needs_its_libraries_before_any_work(tmp_path, tiny_llama, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"the step qlora:steps=3 needs peft.*\[qlora\]"):
        check_recipe(parse_recipe("qlora:steps=3"), kind="causal", tokens=5000)
    monkeypatch.undo()
    with pytest.raises(OptionError, match="qlora is for causal students; this one is classification"):
        check_recipe(parse_recipe("qlora:steps=3"), kind="classification", tokens=5000)
