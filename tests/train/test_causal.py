"""The causal student: hard and stored soft targets, alignment, accumulation, resume, the saved folder."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from safetensors.torch import load_file

from potstill.errors import OptionError, TrainingError
from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import TaskSpec
from potstill.train.causal import causal_trainer, distil_causal
from potstill.train.causal_model import adapters, load_causal
from potstill.train.encode import encode_prompt, end_of_turn
from potstill.train.evaluate import evaluate_student
from potstill.train.loop import checkpoint_folder, plan_schedule, trainer_arguments
from potstill.train.options import DistilOptions, check_for_kind, resolve_options
from potstill.train.student import load_student
from potstill.train.token_rows import IGNORED, collate_targets, encode_rows

SPEC = TaskSpec(name="echo", instruction="Say it.", kind="generation", metric="exact_match")
WORDS = ["ab", "ba", "aab", "abb", "bab", "baa", "abab", "baba", "aabb", "bbaa", "aba", "bab"]


def rows(n=8, start=0):
    return rows_to_dataset(
        [Row(f"w{i}", WORDS[i % len(WORDS)], "generated", Source(row=i)) for i in range(start, start + n)], []
    )


@pytest.fixture
def options(tiny_llama):
    return DistilOptions(
        student=str(tiny_llama),
        epochs=2,
        batch_size=4,
        learning_rate=5e-3,
        max_length=96,
        early_stopping=None,
        precision="fp32",
    )


def make_targets(table, options, *, k=5, shift=0.0, teacher_seed=3):
    """Top-k with tail from a randomly moved copy of the student; also the full log-probs of each row."""
    chosen = resolve_options(options, "causal")
    tokenizer, teacher, _ = load_causal(chosen)
    torch.manual_seed(teacher_seed)
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    teacher.eval()
    items, full = [], {}
    for row in table:
        prompt = encode_prompt(tokenizer, SPEC, row["input"], 80)
        answer = tokenizer(row["output"], add_special_tokens=False)["input_ids"] + [end_of_turn(teacher, tokenizer)]
        with torch.no_grad():
            logits = teacher(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.log_softmax(-1)
        top, ids = logprobs.topk(k)
        tail = logprobs.scatter(1, ids, -torch.inf).logsumexp(-1)
        full[row["id"]] = logprobs
        items.append(
            {
                "id": row["id"], "token_ids": answer, "top_ids": ids.tolist(), "top_logprobs": (top + shift).tolist(),
                "tail": tail.tolist(),
            }
        )  # fmt: skip
    return Dataset.from_list(items), full


def first_losses(tmp_path, options, table, targets, *, size=4, accumulation=1, steps=1):
    """Losses and gradient norms of the first steps."""
    chosen = resolve_options(
        replace(options, batch_size=size, gradient_accumulation=accumulation, max_steps=steps, evaluations=steps),
        "causal",
    )
    tokenizer, model, _ = load_causal(chosen)
    data = encode_rows(SPEC, table, targets, model, tokenizer, chosen)
    schedule = plan_schedule(len(data.table), chosen)
    trainer = causal_trainer(model, tokenizer, data, None, chosen, schedule, tmp_path / f"{size}x{accumulation}")
    trainer.train()
    return [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("hard", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_the_trainers_loss_is_the_dense_one(tmp_path, options, hard, kind):
    table = rows(4).map(lambda row, i: {"weight": 1.0 + i}, with_indices=True)
    targets, full = make_targets(table, options, k=5)
    chosen = replace(options, hard_weight=hard, soft_weight=1 - hard, divergence=kind)
    (loss, _), *_ = first_losses(tmp_path, chosen, table, targets)

    tokenizer, model, _ = load_causal(resolve_options(chosen, "causal"))
    total = tokens = 0.0
    for row, item in zip(table, targets, strict=True):
        prompt = encode_prompt(tokenizer, SPEC, row["input"], 80)
        ids = torch.tensor([prompt + item["token_ids"]])
        with torch.no_grad():
            student = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1).numpy()
        ce = -student[np.arange(len(student)), item["token_ids"]]
        top = np.array(item["top_ids"])

        def buckets(logprobs, top=top):
            probs = np.exp(logprobs)
            picked = np.take_along_axis(probs, top, 1)
            return np.concatenate([picked, 1 - picked.sum(1, keepdims=True)], 1)

        p, q = buckets(student), buckets(full[row["id"]].double().numpy())
        m = (p + q) / 2
        soft = {
            "forward_kl": (q * np.log(q / p)).sum(1),
            "reverse_kl": (p * np.log(p / q)).sum(1),
            "jsd": 0.5 * (q * np.log(q / m)).sum(1) + 0.5 * (p * np.log(p / m)).sum(1),
        }[kind]
        total += row["weight"] * (hard * ce + (1 - hard) * soft).sum()
        tokens += row["weight"] * len(ce)
    assert loss == pytest.approx(total / tokens, rel=1e-5)


@pytest.mark.parametrize(("size", "accumulation"), [(2, 2), (1, 4)])
def test_accumulation_gives_one_step(tmp_path, options, size, accumulation):
    # Answers of several lengths and weights: a mean of means would differ.
    table = rows(4).map(lambda row, i: {"weight": 1.0 + i}, with_indices=True)
    targets, _ = make_targets(table.select([0, 2]), options)
    whole = first_losses(tmp_path, options, table, targets, steps=3)
    parts = first_losses(tmp_path, options, table, targets, size=size, accumulation=accumulation, steps=3)
    np.testing.assert_allclose(parts, whole, rtol=1e-4)


@pytest.mark.parametrize(("hard", "soft"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_each_kind_of_target_alone_and_both(tmp_path, options, hard, soft):
    train, held_out = rows(8), rows(4, 8)
    targets, _ = make_targets(train, options)
    seen = []
    chosen = replace(options, hard_weight=hard, soft_weight=soft, epochs=6)
    result = distil_causal(SPEC, train, held_out, targets, tmp_path / "student", chosen, listener=seen.append)
    losses = [point["train_loss"] for point in result.history]
    assert losses[-1] < losses[0]
    assert all(np.isfinite(point["validation_loss"]) for point in result.history)
    assert result.report["rows"]["with_targets"] == (8 if soft else 0)
    assert not checkpoint_folder(result.path).exists()
    assert any(event.total for event in seen)


def test_the_saved_student_answers_like_plain_transformers(tmp_path, options):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    train = rows(8)
    result = distil_causal(SPEC, train, None, None, tmp_path / "student", replace(options, epochs=120))
    student = load_student(result.path)
    outputs = [p.output for p in student.predict(list(train["input"]), batch_size=3)]
    scores = evaluate_student(student, SPEC, train, latency_rows=2).scores
    assert scores.exact_match == pytest.approx(np.mean([a == b for a, b in zip(outputs, train["output"], strict=True)]))
    assert scores.exact_match > 0.5

    model, tokenizer = AutoModelForCausalLM.from_pretrained(result.path), AutoTokenizer.from_pretrained(result.path)
    chat = [{"role": "user", "content": f"{SPEC.instruction}\n\n{train['input'][0]}"}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    plain = model.generate(**ids, do_sample=False, max_new_tokens=student.card.max_new_tokens)
    assert tokenizer.decode(plain[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip() == outputs[0]
    assert json.loads((result.path / "potstill.json").read_text())["kind"] == "generation"


@pytest.mark.parametrize("opens", [True, False])
def test_a_student_of_a_model_that_thinks_first_answers_at_once_wherever_it_is_asked(
    opens, tmp_path, options, tiny_llama
):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    thought = "<think>\n\n</think>\n\n"
    added = "<think>\n" if opens else f"{{% if enable_thinking is false %}}{thought}{{% endif %}}"
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n", f"assistant\n{added}")
    AutoModelForCausalLM.from_pretrained(tiny_llama).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    train = rows(8)
    chosen = replace(options, student=str(tmp_path / "base"), max_length=128)
    result = distil_causal(SPEC, train, None, None, tmp_path / "student", chosen)
    student = load_student(result.path)
    # As others ask it, who know nothing of how it was trained.
    saved = AutoTokenizer.from_pretrained(result.path)
    chat = [{"role": "user", "content": f"{SPEC.instruction}\n\n{train['input'][0]}"}]
    for told in ({}, {"enable_thinking": True}):
        prompt = saved.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **told)
        assert prompt.endswith(f"assistant\n{thought}")
        assert saved(prompt, add_special_tokens=False)["input_ids"] == student.prompt_ids(train["input"][0])


def test_a_student_with_experts_learns_and_answers(tmp_path, options, tiny_llama):
    """Its routers were made to tell what they say, for a loss that nobody takes, and rows side by side were a fault."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3MoeConfig

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        max_position_embeddings=256, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).float().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    chosen = replace(options, student=str(tmp_path / "base"), epochs=60)
    result = distil_causal(SPEC, rows(8), rows(4, 8), None, tmp_path / "student", chosen)
    assert json.loads((result.path / "config.json").read_text()).get("output_router_logits", False) is False
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    outputs = [p.output for p in load_student(result.path).predict(list(rows(8)["input"]), batch_size=3)]
    assert outputs == [load_student(result.path)(text) for text in rows(8)["input"]]


def test_adapters_leave_out_what_a_kernel_reads_past_them(options):
    from types import SimpleNamespace

    chosen = replace(options, lora_rank=4)
    hybrid, plain = (SimpleNamespace(config=SimpleNamespace(model_type=kind)) for kind in ("falcon_h1", "opt"))
    assert "out_proj" in adapters(chosen, hybrid).exclude_modules
    assert not adapters(chosen, plain).exclude_modules
    assert adapters(options, plain) is None


def test_an_answer_keeps_the_indent_that_all_its_lines_have(tmp_path, options, monkeypatch):
    body = "    a\n    b"
    train = rows_to_dataset([Row(f"w{i}", body, "generated", Source(row=i)) for i in range(4)], [])
    distil_causal(SPEC, train, None, None, tmp_path / "s", replace(options, epochs=100, evaluations=1))
    assert load_student(tmp_path / "s")("w1") == body
    monkeypatch.setattr("potstill.decoding.greedy.greedy_writer", lambda model, tokenizer, slots: None)
    assert load_student(tmp_path / "s")("w1") == body, "the library's own loop writes it too"


class Killed(Exception):
    pass


def test_a_killed_training_resumes_to_the_same_weights(tmp_path, options):
    train, held_out = rows(10), rows(4, 10)
    targets, _ = make_targets(train, options)
    chosen = replace(options, epochs=4, checkpoint_steps=2)
    whole = distil_causal(SPEC, train, held_out, targets, tmp_path / "whole", chosen)

    def kill(event):
        if "held_out" in event.data and event.done >= 6:
            raise Killed

    with pytest.raises(Killed):
        distil_causal(SPEC, train, held_out, targets, tmp_path / "cut", chosen, listener=kill)
    resumed = distil_causal(SPEC, train, held_out, targets, tmp_path / "cut", chosen)
    assert resumed.report["resumed_from"] is not None
    first, second = (load_file(path / "model.safetensors") for path in (whole.path, resumed.path))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5)


def test_targets_of_another_tokenizer_are_named(tmp_path, options):
    table = rows(4)
    targets, _ = make_targets(table, options)
    shifted = targets.map(lambda item: {"token_ids": [min(t + 1, 250) for t in item["token_ids"]]})
    with pytest.raises(TrainingError, match=r"fit none of the 4 rows.*another tokenizer.*distil.student"):
        distil_causal(SPEC, table, None, shifted, tmp_path / "s", options)
    mixed = targets.map(
        lambda item, i: {"token_ids": shifted[i]["token_ids"] if i else item["token_ids"]}, with_indices=True
    )
    notes = []
    result = distil_causal(SPEC, table, None, mixed, tmp_path / "s", options, listener=notes.append)
    assert result.report["rows"]["misaligned"] == 3
    assert result.report["rows"]["with_targets"] == 1
    assert any("3 rows have token targets that do not fit" in event.message for event in notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tail": lambda v: [float("nan")] * len(v)}, "hold NaN or log-probs above 0"),
        ({"top_logprobs": lambda v: [[0.5] * len(r) for r in v]}, "hold NaN or log-probs above 0"),
        ({"top_logprobs": lambda v: [[float("inf"), *r[1:]] for r in v]}, "hold NaN or log-probs above 0"),
        ({"top_logprobs": lambda v: [[-float("inf"), *r[1:]] for r in v]}, "first log-prob is -inf"),
        ({"tail": lambda v: [t - 3 for t in v]}, r"add up to 0\.\d+ at position"),
        ({"tail": lambda v: v[:-1]}, "columns of lengths"),
        ({"top_ids": lambda v: [[] for _ in v], "top_logprobs": lambda v: [[] for _ in v]}, "without any token"),
    ],
)
def test_damaged_targets_are_refused_before_training(tmp_path, options, change, message):
    table = rows(4)
    items = list(make_targets(table, options)[0])
    items[1] = {**items[1], **{name: to(items[1][name]) for name, to in change.items()}}
    with pytest.raises(TrainingError, match=message):
        distil_causal(SPEC, table, None, Dataset.from_list(items), tmp_path / "s", options)
    assert not checkpoint_folder(tmp_path / "s").exists()


def test_other_faults_before_training(tmp_path, options):
    table = rows(4)
    targets, _ = make_targets(table, options)
    with pytest.raises(TrainingError, match="there are no training rows"):
        distil_causal(SPEC, table.select([]), None, None, tmp_path / "s", options)
    with pytest.raises(TrainingError, match=r"tail at temperature 1 and distil.temperature is 2"):
        distil_causal(SPEC, table, None, targets, tmp_path / "s", replace(options, temperature=2.0))
    with pytest.raises(TrainingError, match="no row has stored token targets"):
        distil_causal(SPEC, table, None, None, tmp_path / "s", replace(options, hard_weight=0.0))
    empty = rows_to_dataset([Row("x", " ", "user")], [])
    with pytest.raises(TrainingError, match="none of the 1 training rows has an output"):
        distil_causal(SPEC, empty, None, None, tmp_path / "s", options)


def test_long_inputs_lose_their_end_and_never_the_output(options):
    chosen = resolve_options(options, "causal")
    tokenizer, model, _ = load_causal(chosen)
    table = rows_to_dataset([Row("x" * 500, "abba", "user"), Row("y", "z" * 200, "user")], [])
    data = encode_rows(SPEC, table, None, model, tokenizer, chosen)
    assert data.counts["too_long"] == 1
    (row,) = data.table
    assert len(row["input_ids"]) <= 96
    answer = [label for label in row["labels"] if label != IGNORED]
    assert tokenizer.decode(answer, skip_special_tokens=True) == "abba"
    assert tokenizer.decode(row["input_ids"]).count("<|im_start|>") == 2


def test_a_long_input_is_cut_between_its_letters(options):
    """A token is a byte here, and a Chinese letter takes three."""
    tokenizer, _, _ = load_causal(resolve_options(options, "causal"))
    question, text = len(encode_prompt(tokenizer, SPEC, "", 10_000)), "今天天气很好我们去公园"
    for room in range(1, 10):
        ids = encode_prompt(tokenizer, SPEC, text, question + room)
        assert text[: room // 3] + "<|im_end|>" in tokenizer.decode(ids)
        assert "\ufffd" not in tokenizer.decode(ids)


def test_one_answer_that_leaves_no_room_for_the_question_ends_no_training(tmp_path, options):
    """It is left out and told; the others are learnt, and an answer as long as theirs can be written."""
    tokenizer, _, _ = load_causal(resolve_options(options, "causal"))
    question = len(encode_prompt(tokenizer, SPEC, "", 80))
    assert 16 < question < 30
    events = []
    # A letter is a token here, and one more ends the answer.
    texts = ["a", "ab" * 27, ("ba" * 48)[: 96 - question]]
    assert [len(tokenizer(text)["input_ids"]) for text in texts] == [len(text) for text in texts]
    table = rows_to_dataset([Row(f"w{i}", text, "generated") for i, text in enumerate(texts)], [])
    chosen = replace(options, max_steps=1)
    result = distil_causal(SPEC, table, None, None, tmp_path / "s", chosen, listener=events.append)
    assert result.report["rows"]["too_long"] == 1
    assert any("1 rows have an output that does not fit" in event.message for event in events)
    student = load_student(tmp_path / "s")
    assert student.card.max_new_tokens == 55
    student("w1")


@pytest.mark.parametrize("fault", ["targets", "length", "empty"])
def test_faulty_held_out_rows_are_left_out_and_the_training_goes_on(tmp_path, options, fault):
    train, held_out = rows(6), rows(2, 6)
    targets, _ = make_targets(concatenate_datasets([train, held_out]), options)
    if fault == "targets":
        train_ids = set(train["id"])
        targets = targets.map(
            lambda item: {"token_ids": item["token_ids"] if item["id"] in train_ids else [2] * len(item["token_ids"])}
        )
        told, measured = "2 held-out rows have token targets that do not fit; they are measured by their text", True
    else:
        held_out = held_out.map(lambda _: {"output": " " if fault == "empty" else "z" * 200})
        told, measured = "none of the 2 held-out rows can be measured on", False
    events = []
    chosen = replace(options, epochs=1)
    result = distil_causal(SPEC, train, held_out, targets, tmp_path / "s", chosen, listener=events.append)
    assert [told in note for note in result.report["notes"]] == [True]
    assert result.report["notes"][0] in [event.message for event in events]
    assert (result.history[-1]["validation_loss"] is not None) == measured
    assert load_student(result.path)("w1") is not None


def test_one_long_answer_takes_no_input_from_the_others(tmp_path, options):
    text = "the storm moved over the coast in the night and left a thousand houses without power until noon"
    table = rows_to_dataset(
        [Row(f"{text} {i}", "a storm", "generated") for i in range(15)] + [Row("w", "w" * 150, "generated")], []
    )
    events = []
    chosen = replace(options, max_length=200, max_steps=1)
    result = distil_causal(SPEC, table, None, None, tmp_path / "s", chosen, listener=events.append)
    student = load_student(tmp_path / "s")
    room = student.card.max_length - student.card.max_new_tokens
    assert f"{text} 0" in student.tokenizer.decode(encode_prompt(student.tokenizer, SPEC, f"{text} 0", room))
    assert student.card.max_new_tokens > 16
    (note,) = result.report["notes"]
    assert re.match(
        r"1 output is longer than the \d+ tokens that the student may write.* raise distil.max_length", note
    )
    assert note in [event.message for event in events]


def test_answers_that_are_long_as_a_rule_are_written_whole_and_the_inputs_told(tmp_path, options):
    table = rows_to_dataset(
        [Row("w" * 60, "a", "generated") for _ in range(5)] + [Row(f"{i}", "ab" * 30, "generated") for i in range(5)],
        [],
    )
    chosen = replace(options, max_length=120, max_steps=1)
    result = distil_causal(SPEC, table, None, None, tmp_path / "s", chosen)
    assert load_student(tmp_path / "s").card.max_new_tokens == 61
    (note,) = result.report["notes"]
    assert note.startswith("5 inputs that were learnt whole are cut when the student answers, for up to 61 tokens of")


def test_collated_targets_stand_at_their_tokens(options):
    chosen = resolve_options(options, "causal")
    tokenizer, model, _ = load_causal(chosen)
    table = rows(3)
    targets, _ = make_targets(table.select([0, 2]), options)
    data = encode_rows(SPEC, table, targets, model, tokenizer, chosen)
    batch = collate_targets(list(data.table.with_format("numpy")), data.k)
    lengths = [len(row) for row in data.table["has_soft"]]
    assert batch["has_soft"].tolist() == [True] * lengths[0] + [False] * lengths[1] + [True] * lengths[2]
    assert batch["top_ids"][: lengths[0]].tolist() == targets[0]["top_ids"]
    np.testing.assert_allclose(batch["top_logprobs"][-lengths[2] :], targets[1]["top_logprobs"], rtol=1e-6)
    assert torch.isinf(batch["top_logprobs"][lengths[0], 1:]).all()


def test_bf16_and_checkpointing_train(tmp_path, options):
    table = rows(8)
    targets, _ = make_targets(table, options)
    chosen = replace(options, precision="bf16", gradient_checkpointing=True, epochs=6)
    history = distil_causal(SPEC, table, None, targets, tmp_path / "s", chosen).history
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_low_rank_adapters_train_like_the_rest_and_are_merged(tmp_path, options):
    pytest.importorskip("peft")
    table = rows(8)
    targets, _ = make_targets(table, options)
    chosen = replace(options, lora_rank=4, epochs=10, learning_rate=2e-2)
    for number, change in enumerate(({}, {"gradient_checkpointing": True}, {"precision": "bf16"})):
        result = distil_causal(SPEC, table, None, targets, tmp_path / f"s{number}", replace(chosen, **change))
        losses = [point["train_loss"] for point in result.history]
        assert losses[-1] < 0.97 * losses[0], change
    merged, base = load_file(result.path / "model.safetensors"), load_file(Path(options.student) / "model.safetensors")
    assert set(merged) == set(base)
    moved = {name for name, value in base.items() if not torch.equal(value, merged[name])}
    assert {name.split(".")[-2] for name in moved} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    table = table.select(range(4))
    targets = targets.select(range(4))
    plain = first_losses(tmp_path / "a", replace(options, lora_rank=None), table, targets)
    adapted = first_losses(tmp_path / "b", replace(options, lora_rank=4), table, targets)
    assert adapted[0][0] == pytest.approx(plain[0][0], rel=1e-5)
    whole = first_losses(tmp_path / "c", replace(options, lora_rank=4), table, targets, steps=3)
    parts = first_losses(tmp_path / "d", replace(options, lora_rank=4), table, targets, size=1, accumulation=4, steps=3)
    np.testing.assert_allclose(parts, whole, rtol=2e-3)


def test_a_training_that_cannot_fit_is_refused_before_its_first_step(tmp_path, options, monkeypatch):
    from potstill.train import memory

    monkeypatch.setattr(memory, "free_bytes", lambda model: 2**20)
    with pytest.raises(TrainingError, match=r"GiB are free: lower distil.batch_size \(now 4\)"):
        distil_causal(SPEC, rows(4), None, None, tmp_path / "s", options)
    assert not checkpoint_folder(tmp_path / "s").exists()


def test_the_memory_estimate_bounds_what_a_training_takes(options):
    from potstill.train.memory import needed_bytes

    chosen = resolve_options(options, "causal")
    _, model, _ = load_causal(chosen)
    trained = sum(p.numel() for p in model.parameters())
    plain = needed_bytes(model, chosen, 64)
    assert plain > 12 * trained
    assert needed_bytes(model, replace(chosen, gradient_checkpointing=True), 64) < plain
    assert needed_bytes(model, chosen, 64, shards=2) == plain - 6 * trained
    for weight in model.parameters():
        weight.requires_grad_(False)
    assert needed_bytes(model, chosen, 64) == plain - 12 * trained


def test_one_row_is_enough_for_a_causal_student(tmp_path, options):
    table = rows(1)
    targets, _ = make_targets(table, options)
    history = distil_causal(SPEC, table, None, targets, tmp_path / "s", replace(options, epochs=20)).history
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_a_training_of_one_step_learns(tmp_path, options):
    path = distil_causal(SPEC, rows(4), None, None, tmp_path / "s", replace(options, max_steps=1)).path
    trained, base = load_file(path / "model.safetensors"), load_file(Path(options.student) / "model.safetensors")
    assert max(float((trained[name] - value).abs().max()) for name, value in base.items()) > 1e-3


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (5, 0), (14, 0), (15, 2), (100, 10), (300, 30)])
def test_a_short_training_has_no_step_without_a_rate(tmp_path, options, steps, warmup):
    from transformers import get_linear_schedule_with_warmup

    chosen = resolve_options(replace(options, max_steps=steps), "causal")
    arguments = trainer_arguments(
        chosen, plan_schedule(8, chosen), tmp_path, validated=False, metric="eval_loss", higher=False
    )
    assert arguments["warmup_steps"] == warmup
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    factor = get_linear_schedule_with_warmup(optimizer, warmup, steps).lr_lambdas[0]
    assert warmup or all(factor(step) > 0 for step in range(steps))


def test_a_temperature_that_stored_targets_lack_is_refused_before_anything_is_asked():
    check_for_kind(DistilOptions(temperature=2.0), "classification")
    check_for_kind(DistilOptions(temperature=2.0, soft_weight=0.0), "generation")
    with pytest.raises(OptionError, match=r"distil.method both is for generation students"):
        check_for_kind(DistilOptions(method="both"), "classification")
    with pytest.raises(OptionError, match=r"method sequence has hard targets only"):
        check_for_kind(DistilOptions(method="sequence", hard_weight=0.0), "generation")
    with pytest.raises(OptionError, match=r"distil.temperature 2 needs the teacher's whole distribution"):
        check_for_kind(DistilOptions(temperature=2.0), "generation")


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("generation", {"label_smoothing": 0.1}),
        ("generation", {"class_weights": "balanced"}),
        ("generation", {"altered_copies": 2}),
        ("generation", {"dropout": 0.3}),
        ("instructions", {"generations": 2}),
        ("classification", {"teacher_tokenizer": "other/model"}),
        ("classification", {"cross_tokenizer": "gold"}),
        ("classification", {"teacher": "other/model"}),
        ("classification", {"rationale_weight": 1.0}),
    ],
)
def test_options_that_only_the_other_kind_of_student_has_are_refused(kind, given):
    (name,) = given
    other = "generation" if kind == "classification" else "classification"
    with pytest.raises(OptionError, match=rf"distil\.{name} is for {other} students"):
        check_for_kind(DistilOptions(**given), kind)


def test_fewer_layers_reload(tmp_path, options):
    path = distil_causal(SPEC, rows(4), None, None, tmp_path / "s", replace(options, student_layers=1, epochs=1)).path
    assert json.loads((path / "config.json").read_text())["num_hidden_layers"] == 1
    assert isinstance(load_student(path)("w1"), str)


@pytest.mark.real
def test_smollm2_learns_from_a_handful_of_rows(tmp_path):
    nouns = ["cat", "dog", "house", "tree", "car", "river", "stone", "book", "lamp", "chair", "table", "phone",
             "shirt", "glass", "plate", "spoon"]  # fmt: skip
    table = rows_to_dataset([Row(w, w + "s", "generated") for w in nouns], [])
    spec = TaskSpec(name="plural", instruction="Give the plural.", kind="generation", metric="exact_match")
    train, held_out = table.select(range(12)), table.select(range(12, 16))
    # Each evaluation writes a checkpoint of 1.6 GB, so there is one.
    options = DistilOptions(soft_weight=0.0, max_length=96, early_stopping=None, evaluations=1)
    untouched = replace(options, max_steps=1, learning_rate=1e-12)
    before = distil_causal(spec, train, held_out, None, tmp_path / "base", untouched).report["best_loss"]
    result = distil_causal(spec, train, held_out, None, tmp_path / "s", replace(options, max_steps=4))
    assert result.report["best_loss"] < 0.5 * before
    student = load_student(result.path)
    assert student("mountain")
    assert student.size_mib < 280


@pytest.mark.parametrize("spare", [6, 8, 12, 15, 17, 20])
def test_a_length_that_holds_the_rows_leaves_room_for_prompt_and_answer(tiny_llama, single, tmp_path, spare):
    spec = TaskSpec(name="echo", instruction="Say it.", kind="generation")
    rows = rows_to_dataset([Row(f"w{i}", "ab", "generated", Source(row=i)) for i in range(4)], [])
    size = len(encode_prompt(single, spec, "", 1000))
    options = DistilOptions(student=str(tiny_llama), epochs=1, batch_size=4, max_length=size + spare)
    result = distil_causal(spec, rows, None, None, tmp_path / "s", options)
    student = load_student(result.path)
    assert 3 <= student.card.max_new_tokens <= spare - 2  # what was learnt: two tokens, the answer's end, an input
    assert student.prompt_ids("w1") == encode_prompt(single, spec, "w1", 1000)
    assert len(student.predict(["w1", "a much longer input than the others"])) == 2
