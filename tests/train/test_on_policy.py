"""On-policy distillation: batches that the student writes, batches of the data, held-out loss, wrong pairs."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from potstill.errors import OptionError, TrainingError, UserError
from potstill.rows import Row, Source, dataset_to_rows, rows_to_dataset
from potstill.task import TaskSpec
from potstill.train import on_policy
from potstill.train.causal import distil_causal
from potstill.train.causal_model import load_causal
from potstill.train.encode import encode_prompt, end_of_turn
from potstill.train.loop import checkpoint_folder
from potstill.train.options import DistilOptions, check_for_kind, resolve_options
from potstill.train.recipe import train_generator
from potstill.train.student import load_student


class Killed(Exception):
    """What a listener raises to end a training in its middle."""


SPEC = TaskSpec(name="echo", instruction="Say it.", kind="generation")


def rows(n=6, start=0):
    texts = [f"{'ab' * (i % 3 + 1)}{i}" for i in range(start, start + n)]
    return rows_to_dataset([Row(text, text[::-1], "generated", Source(row=i)) for i, text in enumerate(texts)], [])


@pytest.fixture
def options(tiny_llama, moved):
    return DistilOptions(
        student=str(tiny_llama), teacher=str(moved), on_policy=1.0, on_policy_tokens=8, epochs=8, batch_size=3,
        learning_rate=5e-3, max_length=96, early_stopping=None, evaluations=4,
    )  # fmt: skip


def held_out_divergence(student_folder, teacher_folder, table, kind, temperature):
    """Mean divergence per token of the rows' own outputs, from whole distributions in float64."""
    tokenizer, teacher, _ = load_causal(resolve_options(DistilOptions(student=str(teacher_folder)), "causal"))
    _, student, _ = load_causal(resolve_options(DistilOptions(student=str(student_folder)), "causal"))
    total = count = 0
    for row in table:
        prompt = encode_prompt(tokenizer, SPEC, row["input"], 80)
        answer = tokenizer(row["output"], add_special_tokens=False)["input_ids"] + [end_of_turn(student, tokenizer)]
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            q, p = (
                (m(ids).logits[0, len(prompt) - 1 : -1].double() / temperature).log_softmax(-1).numpy()
                for m in (teacher, student)
            )
        m = np.logaddexp(q, p) - np.log(2)
        total += {
            "forward_kl": (np.exp(q) * (q - p)).sum(),
            "reverse_kl": (np.exp(p) * (p - q)).sum(),
            "jsd": 0.5 * (np.exp(q) * (q - m)).sum() + 0.5 * (np.exp(p) * (p - m)).sum(),
        }[kind]
        count += len(answer)
    return total / count


@pytest.mark.parametrize(("kind", "temperature"), [("forward_kl", 1.0), ("reverse_kl", 2.0), ("jsd", 1.0)])
def test_the_held_out_loss_is_the_whole_divergence_and_falls(tmp_path, options, moved, kind, temperature):
    held_out = rows(3, 6)
    chosen = replace(options, divergence=kind, temperature=temperature)
    result = distil_causal(SPEC, rows(), held_out, None, tmp_path / "s", chosen)
    losses = [point["validation_loss"] for point in result.history]
    assert losses[-1] < losses[0]
    best = held_out_divergence(result.path, moved, held_out, kind, temperature)
    # TRL multiplies by no square of the temperature.
    assert result.report["best_loss"] == pytest.approx(best, rel=2e-3)
    assert result.report["own_batches"] == result.report["steps"]["taken"] == 16
    assert result.report["data_batches"] == 0
    assert isinstance(load_student(result.path)("ab"), str)


def test_a_share_of_the_batches_is_the_datas(tmp_path, options):
    result = distil_causal(SPEC, rows(), None, None, tmp_path / "s", replace(options, on_policy=0.5, epochs=16))
    own, data = result.report["own_batches"], result.report["data_batches"]
    assert own + data == 32
    assert 8 < own < 24
    assert "hard targets" in result.report["notes"][0]


@pytest.mark.parametrize(("count", "size", "accumulation"), [(2, 4, 1), (7, 3, 1), (5, 2, 2)])
def test_every_row_is_learnt_from_however_many_fill_a_step(tmp_path, options, monkeypatch, count, size, accumulation):
    seen = []
    plain = on_policy.OnPolicyTrainer._generate_and_score_completions

    def spy(self, inputs):
        seen.append((self.state.global_step, sorted(bytes(row["answer_ids"]) for row in inputs)))
        return plain(self, inputs)

    monkeypatch.setattr(on_policy.OnPolicyTrainer, "_generate_and_score_completions", spy)
    chosen = replace(options, on_policy=0.5, epochs=2, batch_size=size, gradient_accumulation=accumulation)
    result = distil_causal(SPEC, rows(count), None, None, tmp_path / "s", chosen)
    an_epoch = -(-count // (size * accumulation))
    assert result.report["steps"]["taken"] == result.report["steps"]["planned"] == len(seen) == 2 * an_epoch
    for epoch in (0, 1):
        told = [row for step, batch in seen if step // an_epoch == epoch for row in batch]
        assert len(set(told)) == count
        assert len(told) == an_epoch * size * accumulation


def test_rows_that_weigh_more_are_drawn_more_often(tmp_path, options, monkeypatch):
    drawn = Counter()
    plain = on_policy.OnPolicyTrainer._generate_and_score_completions

    def spy(self, inputs):
        drawn.update(len(row["answer_ids"]) for row in inputs)
        return plain(self, inputs)

    monkeypatch.setattr(on_policy.OnPolicyTrainer, "_generate_and_score_completions", spy)
    made = [Row("x", "a" * (i + 1), "user" if i == 0 else "generated", Source(row=i)) for i in range(6)]
    chosen = replace(options, on_policy=0.0001, epochs=2, sampling={"user": 5.0})
    train_generator(SPEC, rows_to_dataset(made, []), None, None, tmp_path / "s", chosen)
    assert drawn == {2: 6, **{length: drawn[length] for length in range(3, 8) if drawn[length]}}
    assert sum(drawn.values()) == 12


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("rank", [None, 2])
def test_a_killed_training_resumes_to_the_same_weights(tmp_path, options, accumulation, rank):
    if rank:
        pytest.importorskip("peft")
    chosen = replace(
        options, on_policy=0.5, epochs=8, batch_size=3 // accumulation, gradient_accumulation=accumulation,
        lora_rank=rank, checkpoint_steps=3,
    )  # fmt: skip
    whole = distil_causal(SPEC, rows(), rows(3, 6), None, tmp_path / "whole", chosen)

    def kill(event):
        if "held_out" in event.data and event.done >= 8:
            raise Killed

    with pytest.raises(Killed):
        distil_causal(SPEC, rows(), rows(3, 6), None, tmp_path / "cut", chosen, listener=kill)
    resumed = distil_causal(SPEC, rows(), rows(3, 6), None, tmp_path / "cut", chosen)
    assert resumed.report["resumed_from"] == "checkpoint-6"
    for figure in ("own_batches", "data_batches", "best_loss"):
        assert resumed.report[figure] == pytest.approx(whole.report[figure], rel=1e-5)
    first, second = (load_file(path / "model.safetensors") for path in (whole.path, resumed.path))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5)


def test_a_training_goes_on_only_with_the_same_weights_of_rows(tmp_path, options):
    chosen = replace(options, on_policy=0.0001, epochs=1, keep_checkpoints=True)
    stamp = checkpoint_folder(tmp_path / "s") / "key"
    table = rows()
    distil_causal(SPEC, table, None, None, tmp_path / "s", chosen)
    before = stamp.read_text()
    heavier = table.map(lambda row, place: {"weight": 1.0 + (place == 0)}, with_indices=True)
    distil_causal(SPEC, heavier, None, None, tmp_path / "s", chosen)
    assert stamp.read_text() != before, "a row's weight is how often it is drawn"


def test_a_cut_student_is_told_to_heal_and_what_does_not_apply(tmp_path, options):
    long = [Row("c", "d" * 200, "generated", Source(row=i)) for i in range(2)]
    table = rows_to_dataset([*dataset_to_rows(rows()), *long], [])
    told = []
    chosen = replace(options, student_layers=1, max_steps=1)
    result = distil_causal(SPEC, table, None, None, tmp_path / "s", chosen, listener=told.append)
    said = [event.message for event in told if event.kind == "note"]
    assert said == result.report["notes"]
    for words in ("2 rows have an output that does not fit", "it has to heal", "distil.hidden_weight", "hard targets"):
        assert any(words in note for note in said)
    assert result.report["start"]["uniform"] == pytest.approx(np.log(258), abs=1e-3)


def test_accumulation_and_adapters(tmp_path, options, moved):
    pytest.importorskip("peft")
    chosen = replace(options, lora_rank=2, batch_size=1, gradient_accumulation=3, learning_rate=2e-2)
    result = distil_causal(SPEC, rows(), rows(3, 6), None, tmp_path / "s", chosen)
    assert result.report["best_loss"] < held_out_divergence(options.student, moved, rows(3, 6), "forward_kl", 1.0)
    base = load_file(f"{options.student}/model.safetensors")
    assert set(load_file(result.path / "model.safetensors")) == set(base)


def test_wrong_pairs_and_missing_teachers_are_named(tmp_path, options, moved):
    from transformers import AutoTokenizer

    other = tmp_path / "other"
    tokenizer, model, _ = load_causal(resolve_options(DistilOptions(student=str(moved)), "causal"))
    model.save_pretrained(other)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(other)
    assert len(AutoTokenizer.from_pretrained(other)) == 259
    wrong = replace(options, teacher=str(other))
    with pytest.raises(TrainingError, match=r"other tokenizers.*distil.student.*distil.teacher_tokenizer"):
        distil_causal(SPEC, rows(), None, None, tmp_path / "s", wrong)
    with pytest.raises(UserError, match=r"name a model with distil\.teacher"):
        distil_causal(SPEC, rows(), None, None, tmp_path / "s", replace(options, teacher=None))
    with pytest.raises(OptionError, match=r"on_policy_teacher weights: 'openai:http:..x' has none here"):
        check_for_kind(DistilOptions(on_policy=0.5, on_policy_teacher="weights"), "generation", "openai:http://x")
    with pytest.raises(OptionError, match="exclude each other"):
        check_for_kind(DistilOptions(on_policy=0.5, method="both"), "generation")
    with pytest.raises(OptionError, match=r"on_policy must lie in \[0, 1\]"):
        DistilOptions(on_policy=1.5)
    check_for_kind(DistilOptions(on_policy=1.0, temperature=2.0), "generation", "vllm:some/model")
