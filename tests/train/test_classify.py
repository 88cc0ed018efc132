"""The encoder student: what it learns, what it refuses, how it resumes, how it loads."""

import json
import random
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mood import SPEC, Killed, reviews, weights

from potstill.errors import DataError, OptionError, TrainingError, UserError
from potstill.options import build_options
from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import Label, TaskSpec
from potstill.train.classify import distil_classifier, row_losses
from potstill.train.evaluate import evaluate_student, majority_system, score_predictions
from potstill.train.loop import LikeLengths, checkpoint_folder, is_whole
from potstill.train.options import DistilOptions, resolve_options
from potstill.train.student import load_student


@pytest.mark.parametrize(
    ("made", "chosen"),
    [
        ({}, {"soft_weight": 0.0, "hard_weight": 1.0}),
        ({"soft": True, "hard": False}, {"hard_weight": 0.0, "soft_weight": 1.0}),
        ({"soft": True}, {}),
        ({"soft": True}, {"divergence": "jsd", "class_weights": "balanced", "label_smoothing": 0.05}),
    ],
)
def test_each_kind_of_target_teaches_the_task(tmp_path, options, made, chosen):
    seen = []
    result = distil_classifier(
        SPEC,
        reviews(64, **made),
        reviews(24, 1),
        tmp_path / "student",
        replace(options, **chosen),
        listener=seen.append,
    )
    student, test = load_student(result.path), reviews(40, 2)
    scores = evaluate_student(student, SPEC, test, latency_rows=3).scores
    assert scores.macro_f1 > majority_system(SPEC, test, test)["macro_f1"] + 0.4
    assert scores.latency_ms["p50"] <= scores.latency_ms["p95"]
    assert scores.size_mib == pytest.approx((result.path / "model.safetensors").stat().st_size / 2**20)
    assert [point["epoch"] for point in result.history] == sorted(point["epoch"] for point in result.history)
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert set(result.history[0]) == {"epoch", "step", "train_loss", "validation_loss", "score", "seconds"}
    assert any("held_out" in event.data for event in seen)
    assert not checkpoint_folder(result.path).exists()


def test_soft_targets_keep_their_uncertainty(tmp_path, options):
    table = reviews(64, soft=True)
    hard = distil_classifier(SPEC, table, None, tmp_path / "hard", replace(options, soft_weight=0.0, epochs=30))
    soft = distil_classifier(
        SPEC, table, None, tmp_path / "soft", replace(options, hard_weight=0.0, temperature=1.0, epochs=30)
    )
    text = ["the film was good"]
    assert max(load_student(hard.path).predict(text)[0].probs) > 0.95
    assert max(load_student(soft.path).predict(text)[0].probs) == pytest.approx(0.9, abs=0.05)


def test_the_folder_loads_with_plain_transformers(tmp_path, options):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = distil_classifier(SPEC, reviews(32), None, tmp_path / "student", options).path
    model = AutoModelForSequenceClassification.from_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    texts = ["the film was great", "poor plot", "sad"]
    ours = load_student(path).predict(texts, batch_size=2)
    for text, answer in zip(texts, ours, strict=True):
        logits = model(**tokenizer(text, return_tensors="pt")).logits
        np.testing.assert_allclose(logits.softmax(-1)[0].detach().numpy(), answer.probs, atol=1e-5)
        assert model.config.id2label[int(logits.argmax())] == answer.output
    card = json.loads((path / "potstill.json").read_text())
    assert card["labels"] == ["bad", "good"]
    assert card["kind"] == "classification"


@pytest.mark.parametrize("size", [4, 2, 1])
def test_accumulation_gives_one_step(tmp_path, options, size):
    table = reviews(4, soft=True).map(lambda row, i: {"weight": 1.0 + i}, with_indices=True)
    options = replace(options, max_steps=3, evaluations=3, precision="fp32")
    chosen = replace(options, batch_size=size, gradient_accumulation=4 // size)
    history = distil_classifier(SPEC, table, None, tmp_path / "a", chosen).history
    whole = replace(options, batch_size=4)
    expected = distil_classifier(SPEC, table, None, tmp_path / "b", whole).history
    assert [p["train_loss"] for p in history] == pytest.approx([p["train_loss"] for p in expected], rel=1e-4)


@pytest.mark.parametrize("damage", [False, True])
def test_a_killed_training_resumes_to_the_same_weights(tmp_path, options, damage):
    chosen = replace(options, epochs=3, checkpoint_steps=3, dropout=0.1)
    train, held_out = reviews(80), reviews(16, 1)
    whole = distil_classifier(SPEC, train, held_out, tmp_path / "whole", chosen)

    def kill(event):
        if "held_out" in event.data and event.done >= 10:
            raise Killed

    with pytest.raises(Killed):
        distil_classifier(SPEC, train, held_out, tmp_path / "cut", chosen, listener=kill)
    assert not (tmp_path / "cut").exists()
    left = sorted(checkpoint_folder(tmp_path / "cut").glob("checkpoint-*"), key=lambda p: int(p.name[11:]))
    assert left
    if damage:
        file = left[-1] / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        assert not is_whole(left[-1])
    resumed = distil_classifier(SPEC, train, held_out, tmp_path / "cut", chosen)
    assert (resumed.report["resumed_from"] != left[-1].name) == damage
    assert [p["step"] for p in resumed.history] == [p["step"] for p in whole.history]
    for name, value in weights(whole.path).items():
        torch.testing.assert_close(weights(resumed.path)[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [1, 4])
def test_a_training_that_goes_on_is_as_patient_as_it_was(tmp_path, options, seed):
    """Held-out labels with noise, and early stopping as it comes: both trainings stop at the same step."""
    noisy = random.Random(seed)
    held_out = reviews(40, 100 + seed)
    turned = [label if noisy.random() < 0.7 else 1 - label for label in held_out["label"]]
    features = held_out.features
    held_out = held_out.map(
        lambda row, i: {"label": turned[i], "output": SPEC.label_names[turned[i]]}, with_indices=True, features=features
    )
    chosen = replace(options, epochs=20, early_stopping=2, learning_rate=1e-3, dropout=0.1, seed=seed, precision="fp32")
    whole = distil_classifier(SPEC, reviews(60, seed), held_out, tmp_path / "whole", chosen)
    assert whole.report["steps"]["taken"] < whole.report["steps"]["planned"], "it did not stop early, so tells nothing"

    def kill(event):
        if "held_out" in event.data and event.done >= whole.history[-1]["step"]:
            raise Killed

    with pytest.raises(Killed):
        distil_classifier(SPEC, reviews(60, seed), held_out, tmp_path / "cut", chosen, listener=kill)
    resumed = distil_classifier(SPEC, reviews(60, seed), held_out, tmp_path / "cut", chosen)
    assert resumed.report["steps"] == whole.report["steps"]
    for name, value in weights(whole.path).items():
        torch.testing.assert_close(weights(resumed.path)[name], value, rtol=1e-4, atol=1e-5)


KILL = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import mood
from pathlib import Path
from potstill.train.classify import distil_classifier
from potstill.train.options import DistilOptions

def kill(event):
    if "held_out" in event.data and event.done >= 10:
        os.kill(os.getpid(), signal.SIGKILL)

options = DistilOptions(**{options!r})
distil_classifier(mood.SPEC, mood.reviews(80), mood.reviews(16, 1), Path({out!r}), options, listener=kill)
"""


def test_kill_9_and_resume(tmp_path, options, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as here: the child's sums must come in the same order
    chosen = replace(options, epochs=3)
    code = KILL.format(folder=str(Path(__file__).parent), options=asdict(chosen), out=str(tmp_path / "cut"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    resumed = distil_classifier(SPEC, reviews(80), reviews(16, 1), tmp_path / "cut", chosen)
    assert resumed.report["resumed_from"] == "checkpoint-5"
    whole = distil_classifier(SPEC, reviews(80), reviews(16, 1), tmp_path / "whole", chosen)
    for name, value in weights(whole.path).items():
        torch.testing.assert_close(weights(resumed.path)[name], value, rtol=1e-4, atol=1e-5)


def test_checkpoints_of_other_rows_are_not_resumed(tmp_path, options):
    with pytest.raises(Killed):
        distil_classifier(SPEC, reviews(32), reviews(8, 1), tmp_path / "s", options, listener=_kill_late)
    result = distil_classifier(SPEC, reviews(32, 5), reviews(8, 1), tmp_path / "s", options)
    assert result.report["resumed_from"] is None


def _kill_late(event):
    if "held_out" in event.data and event.done >= 4:
        raise Killed


def test_same_seed_same_weights(tmp_path, options):
    first = distil_classifier(SPEC, reviews(16), None, tmp_path / "a", replace(options, epochs=2, dropout=0.1))
    again = distil_classifier(SPEC, reviews(16), None, tmp_path / "b", replace(options, epochs=2, dropout=0.1))
    other = distil_classifier(SPEC, reviews(16), None, tmp_path / "c", replace(options, epochs=2, dropout=0.1, seed=1))
    assert torch.equal(weights(first.path)["classifier.weight"], weights(again.path)["classifier.weight"])
    assert not torch.equal(weights(first.path)["classifier.weight"], weights(other.path)["classifier.weight"])


def test_fewer_layers(tmp_path, options):
    one = replace(options, student_layers=1, start="random", epochs=1)
    path = distil_classifier(SPEC, reviews(8), None, tmp_path / "s", one).path
    assert json.loads((path / "config.json").read_text())["num_hidden_layers"] == 1
    assert load_student(path)("good") in SPEC.label_names
    with pytest.raises(UserError, match=r"student_layers 3 is more than the 2 layers of .*; choose 1 to 2"):
        distil_classifier(SPEC, reviews(8), None, tmp_path / "t", replace(options, student_layers=3))


def test_a_row_with_one_kind_of_target_weighs_as_much_as_one_with_both():
    options = resolve_options(DistilOptions(), "classification")
    logits, probs = torch.randn(2, 3), torch.softmax(torch.randn(2, 3), 1)
    labels = torch.tensor([1, -1])
    only_hard = row_losses(logits, labels, probs, torch.tensor([False, True]), options)
    assert float(only_hard[0]) == pytest.approx(float(torch.nn.functional.cross_entropy(logits[:1], labels[:1])))
    soft_alone = row_losses(logits, labels, probs, torch.tensor([True, True]), replace(options, hard_weight=0.0))
    assert float(only_hard[1]) == pytest.approx(float(soft_alone[1]))


def column(table, name, value):
    return table.map(lambda row: {name: value(row)}, features=table.features)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: reviews(8).select([]), "there are no training rows"),
        (lambda: reviews(8).select([0]), "there is 1 training row"),
        (lambda: reviews(8).select([0, 2, 4]), "all 3 training rows have the label 'bad'"),
        (lambda: column(reviews(4, soft=True), "teacher_probs", lambda r: [float("nan"), 1.0]), "no distribution"),
        (lambda: column(reviews(4, soft=True), "teacher_probs", lambda r: [0.9, 0.9]), "no distribution"),
        (lambda: column(reviews(4, soft=True), "teacher_probs", lambda r: [0.2, 0.3, 0.5]), "3 teacher probabilities"),
        (lambda: column(reviews(4), "weight", lambda r: float("inf")), "weights that are negative or not finite"),
        (lambda: rows_to_dataset([Row("x", "other", "user", label="other")], ["other", "bad"]), "label set changed"),
        (lambda: reviews(4, hard=False), "has a target for hard_weight"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_learnt_from_are_refused_before_training(tmp_path, options, make, message):
    with pytest.raises(TrainingError, match=message):
        distil_classifier(SPEC, make(), None, tmp_path / "student", options)
    assert list(tmp_path.iterdir()) == []


def test_a_diverging_training_says_so_and_keeps_the_last_checkpoint(tmp_path, options):
    from potstill.train import losses

    table = reviews(16)
    broken = losses.hard_cross_entropy

    def explode(logits, labels, **kwargs):
        return broken(logits, labels, **kwargs) * (float("nan") if explode.calls > 3 else 1.0)

    explode.calls = 0
    with pytest.MonkeyPatch.context() as patch:

        def counted(*args, **kwargs):
            explode.calls += 1
            return explode(*args, **kwargs)

        patch.setattr("potstill.train.classify.hard_cross_entropy", counted)
        with pytest.raises(TrainingError, match=r"loss became nan at step \d+; the last good checkpoint stays"):
            distil_classifier(SPEC, table, None, tmp_path / "s", replace(options, soft_weight=0.0))
    assert any(is_whole(path) for path in checkpoint_folder(tmp_path / "s").glob("checkpoint-*"))


def test_adapters_are_for_generation(tmp_path, options):
    with pytest.raises(OptionError, match=r"distil.lora_rank is for generation students"):
        distil_classifier(SPEC, reviews(4), None, tmp_path / "s", replace(options, lora_rank=4))


def test_options_list_all_faults():
    with pytest.raises(OptionError) as caught:
        build_options(DistilOptions, {"hard_weight": -1, "epochs": 0, "warmup_ratio": 2}, "distil")
    assert len(caught.value.faults) == 3
    with pytest.raises(OptionError, match="both 0"):
        DistilOptions(hard_weight=0, soft_weight=0)
    assert resolve_options(DistilOptions(), "causal").temperature == 1.0


def test_batches_hold_like_lengths_and_every_row_once():
    lengths = random.Random(3).choices(range(1, 100), k=101)
    sampler = LikeLengths(lengths, 8, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(101))
    assert first == list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)

    def padding(order):
        batches = [order[i : i + 8] for i in range(0, len(order), 8)]
        return sum(max(lengths[i] for i in b) * len(b) - sum(lengths[i] for i in b) for b in batches)

    assert padding(first) < 0.5 * padding(list(range(101)))


def test_scoring_refuses_what_does_not_fit():
    gold = reviews(4)
    with pytest.raises(DataError, match="3 answers for 4 gold rows"):
        score_predictions(SPEC, gold, ["bad"] * 3)
    with pytest.raises(DataError, match="not finite"):
        score_predictions(SPEC, gold, ["bad"] * 4, np.full((4, 2), np.nan))
    with pytest.raises(DataError, match=r"shape \(4, 3\)"):
        score_predictions(SPEC, gold, ["bad"] * 4, np.ones((4, 3)))
    scores = score_predictions(SPEC, gold, ["bad", "good", "maybe", "good"])
    assert scores.accuracy == 0.75
    assert scores.label_distribution == {"bad": 0.25, "good": 0.5, "": 0.25}
    assert scores.confusion == ((1, 0, 1), (0, 2, 0))
    json.dumps(scores.to_json())


def test_a_student_of_other_labels_is_refused(tmp_path, options):
    path = distil_classifier(SPEC, reviews(8), None, tmp_path / "s", replace(options, epochs=1)).path
    other = replace(SPEC, labels=(Label("spam"), Label("ham")))
    with pytest.raises(TrainingError, match="the label set changed since it was trained"):
        evaluate_student(load_student(path), other, reviews(2))
    (path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_student(path)
    with pytest.raises(DataError, match="no student at"):
        load_student(tmp_path)


@pytest.mark.parametrize(
    ("stated", "estimated", "labels", "answer", "source"),
    [
        ({"good": 0.3, "bad": 0.7}, (0.9, 0.1), "good good bad", "bad", "the task's label prior"),
        ({}, (0.2, 0.8), "good good bad", "bad", "the label prior estimated on the unlabelled texts"),
        ({}, None, "bad good bad", "bad", "the commonest label of the training rows"),
        ({}, None, "bad good", "good", "the commonest label of the training rows, the first of 2 equal ones"),
        ({"good": 0.5, "bad": 0.5}, None, "bad bad", "good", "the task's label prior, the first of 2 equal ones"),
    ],
)
def test_the_majority_answer_is_of_the_prior_or_else_of_the_training_rows(stated, estimated, labels, answer, source):
    spec = replace(SPEC, labels=(Label("good"), Label("bad")), label_prior=stated)
    rows = rows_to_dataset(
        [Row(f"text {i}", n, "user", Source(), n) for i, n in enumerate(labels.split())], spec.label_names
    )
    gold = rows_to_dataset(
        [Row(f"gold {i}", n, "user", Source(), n) for i, n in enumerate(["bad"] * 3 + ["good"])], spec.label_names
    )
    found = majority_system(spec, gold, rows, estimated)
    assert (found["answer"], found["answer_from"]) == (answer, source)
    assert found["accuracy"] == (0.75 if answer == "bad" else 0.25)


def test_no_majority_is_made_of_rows_without_labels():
    with pytest.raises(DataError, match="no majority to answer"):
        majority_system(SPEC, reviews(4), reviews(4).select([]))


@pytest.mark.real
def test_minilm_beats_the_majority_on_real_questions(tmp_path, data_pack):
    from datasets import load_dataset

    names = ["abbreviation", "description", "entity", "human", "location", "number"]
    spec = TaskSpec(name="trec", instruction="", kind="classification", labels=tuple(Label(n) for n in names))

    def read(split, n):
        table = load_dataset(
            "parquet", data_files=str(data_pack / "tasks" / "trec" / f"{split}.parquet"), split="train"
        )
        return rows_to_dataset(
            [Row(r["text"], r["label_text"], "user", Source(row=i), r["label_text"]) for i, r in
             enumerate(table.shuffle(seed=0).select(range(n)))],
            names,
        )  # fmt: skip

    options = DistilOptions(epochs=4, min_steps=1, seed=0)
    result = distil_classifier(spec, read("train", 240), None, tmp_path / "student", options)
    test = read("test", 200)
    scores = evaluate_student(load_student(result.path), spec, test, latency_rows=5).scores
    floor = majority_system(spec, test, test)
    assert scores.ci["macro_f1"][0] > floor["ci"]["macro_f1"][1] + 0.2
    assert scores.accuracy > 0.7
    assert scores.size_mib < 95
