"""The fitted start of a classifier's head: the layer that averages, what the head knows, what is kept of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from mood import SPEC, Killed, reviews, weights

from potstill.errors import OptionError
from potstill.options import build_options
from potstill.rows import dataset_to_rows, rows_to_dataset
from potstill.task import Label
from potstill.task.regression import balanced_offsets
from potstill.train.classify import distil_classifier
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.run import Material, compress_student
from potstill.train.evaluate import evaluate_student
from potstill.train.head_start import add_averaging_layer, by_chance, can_start, features, fit_regression
from potstill.train.options import DistilOptions
from potstill.train.recipe import train_classifier
from potstill.train.student import load_student

# Rates of almost nothing show where the student starts.
STILL = {"learning_rate": 1e-12, "head_learning_rate": 1e-12, "max_steps": 1, "epochs": None, "calibrate": False}


def classifier(folder, **changes):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder, num_labels=2, **changes)
    return AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float32)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_layer_that_averages_is_mean_pooling_also_beside_padding(tiny_bert, attention):
    model = classifier(tiny_bert, attn_implementation=attention).eval()
    rows = [[2, 5, 6, 7, 3], [2, 9, 3], [2, 4, 8, 12, 13, 14, 15, 16, 3]]
    means = []
    for row in rows:
        with torch.inference_mode():
            means.append(model.bert(input_ids=torch.tensor([row])).last_hidden_state[0].mean(0))
    add_averaging_layer(model)
    found = torch.from_numpy(features(model, rows)).float()
    for mean, feature in zip(means, found, strict=True):
        assert torch.nn.functional.cosine_similarity(mean - mean.mean(), feature, dim=0) > 0.99
    assert model.config.num_hidden_layers == 3
    apart = torch.nn.functional.cosine_similarity(found[0], found[2], dim=0)
    assert apart < 0.95  # or every text would give the same
    first = [model.bert(input_ids=torch.tensor([row])).last_hidden_state[0, 0] for row in rows]
    assert all(float(state.detach().norm()) == pytest.approx(32**0.5, rel=0.01) for state in first)


def test_the_regression_finds_the_labels_and_leaves_out_one_without_rows():
    draw = np.random.default_rng(0)
    gold = np.arange(60) % 2
    inputs = draw.normal(size=(60, 5)) + 3 * np.eye(5)[gold]
    wanted = np.eye(3)[gold] * 0.8 + np.array([0.1, 0.1, 0.0])
    matrix, biases = fit_regression(inputs, wanted, np.ones(60), l2=1e-3)
    assert ((inputs @ matrix.T + biases)[:, :2].argmax(1) == gold).mean() > 0.95
    assert not matrix[2].any()
    assert biases[2] == 0
    weak = fit_regression(inputs, wanted, np.ones(60), l2=1.0)[0]
    assert np.abs(weak).sum() < 0.6 * np.abs(matrix).sum()
    # A row of weight 0 says nothing.
    weighted = fit_regression(inputs, wanted, np.r_[np.ones(50), np.zeros(10)], l2=1e-3)[0]
    np.testing.assert_allclose(weighted, fit_regression(inputs[:50], wanted[:50], np.ones(50), l2=1e-3)[0], atol=1e-4)


def test_offsets_make_labels_equally_common():
    scores = np.random.default_rng(1).normal(size=(50, 4)) + np.array([0.0, 3.0, -1.0, 0.5])
    moved = scores - balanced_offsets(scores)
    likely = np.exp(moved) / np.exp(moved).sum(1, keepdims=True)
    np.testing.assert_allclose(likely.mean(0), 0.25, atol=1e-5)


def test_the_start_is_scored_reported_and_reloads_in_plain_transformers(tmp_path, options):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    chosen = replace(options, start="features", **STILL)
    result = distil_classifier(SPEC, reviews(64), reviews(40, 1), tmp_path / "s", chosen)
    start = result.report["start"]
    assert (start["head"], start["kept"]) == ("features", True)
    assert result.report["steps"]["best"] == 0
    assert start["score"] == result.report["best_score"] == result.report["held_out"]["score"]
    assert evaluate_student(load_student(result.path), SPEC, reviews(40, 2)).scores.macro_f1 > 0.8
    model = AutoModelForSequenceClassification.from_pretrained(result.path).eval()
    tokenizer = AutoTokenizer.from_pretrained(result.path)
    texts = ["the film was great", "poor plot", "a sad scene and a bad actor"]
    ours = load_student(result.path).predict(texts)
    for text, answer in zip(texts, ours, strict=True):
        logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
        np.testing.assert_allclose(logits.softmax(-1).detach().numpy(), answer.probs, atol=1e-5)
    plain = distil_classifier(SPEC, reviews(64), reviews(40, 1), tmp_path / "r", replace(chosen, start="random"))
    assert plain.report["start"] == {"head": "random"}
    assert json.loads((plain.path / "config.json").read_text())["num_hidden_layers"] == 2


def test_a_start_from_other_words_for_the_labels_is_another_training(tmp_path, options):
    chosen = replace(options, start="features", **STILL)
    told = replace(SPEC, labels=(Label("bad", "great and fine"), Label("good", "awful and sad")))
    first = distil_classifier(SPEC, reviews(16), None, tmp_path / "s", chosen)
    assert distil_classifier(SPEC, reviews(16), None, tmp_path / "s", chosen).report["reused"]
    other = distil_classifier(told, reviews(16), None, tmp_path / "s", chosen)
    assert "reused" in distil_classifier(told, reviews(16), None, tmp_path / "s", chosen).report
    assert "reused" not in other.report
    assert "reused" not in first.report
    random = replace(chosen, start="random")
    distil_classifier(SPEC, reviews(16), None, tmp_path / "r", random)
    assert distil_classifier(told, reviews(16), None, tmp_path / "r", random).report["reused"], "it reads no words"


def test_training_that_makes_it_better_replaces_the_start(tmp_path, options):
    chosen = replace(options, start="features", epochs=6)
    noisy = dataset_to_rows(reviews(64))
    turned = [replace(row, label="good", output="good") if i % 4 == 0 else row for i, row in enumerate(noisy)]
    first = distil_classifier(
        SPEC, rows_to_dataset(turned, SPEC.label_names), reviews(40, 1), tmp_path / "a", replace(chosen, **STILL)
    )
    result = distil_classifier(SPEC, reviews(64), reviews(40, 1), tmp_path / "b", chosen)
    assert first.report["start"]["kept"]
    assert result.report["best_score"] >= result.report["start"]["score"]
    assert result.report["start"]["kept"] == (result.report["steps"]["best"] == 0)
    # The layer that averages stays as it is, through all steps.
    value = weights(result.path)["bert.encoder.layer.2.attention.self.value.weight"]
    torch.testing.assert_close(value, 50 * torch.eye(32), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("held_out", "epochs", "origin", "kept"),
    [
        (12, 6, "generated", True),  # three of twelve more: one time in eight by chance
        (12, 6, "retrieved", False),  # rows of another hand are believed as they are
        (12, 6, "a third retrieved", True),
        (40, 12, "generated", False),
    ],
)
def test_held_out_rows_of_one_hand_with_the_others_replace_the_start_only_beyond_chance(
    held_out, epochs, origin, kept, tmp_path, options
):
    clean = list(dataset_to_rows(reviews(64)))
    noisy = [row if i % 3 else replace(row, label="good", output="good") for i, row in enumerate(clean)]
    others = [
        replace(row, origin=origin if origin in ("generated", "retrieved") else ("retrieved", "generated")[i % 3 > 0])
        for i, row in enumerate(list(dataset_to_rows(reviews(40, 1)))[:held_out])
    ]
    start = distil_classifier(
        SPEC, rows_to_dataset(noisy, SPEC.label_names), rows_to_dataset(others, SPEC.label_names), tmp_path / "s",
        replace(options, start="features", epochs=epochs),
    ).report["start"]  # fmt: skip
    assert start["kept"] == kept
    assert ("chance" in start) == (origin != "retrieved")
    if "chance" in start:
        assert (start["chance"] > 0.05) == kept


@pytest.mark.parametrize("wrong", [3, 2])
def test_texts_that_nobody_labelled_choose_no_evaluation(wrong, tmp_path, options):
    rows = reviews(64)
    others = [
        replace(row, origin="pseudo") if i % wrong else replace(row, origin="pseudo", label="good", output="good")
        for i, row in enumerate(dataset_to_rows(reviews(40, 1)))
    ]
    held_out = rows_to_dataset(others, SPEC.label_names)
    told = replace(options, start="features", epochs=6, early_stopping=1)
    result = distil_classifier(SPEC, rows, held_out, tmp_path / "s", told)
    steps, start = result.report["steps"], result.report["start"]
    assert steps["taken"] == steps["planned"]
    assert "chance" in start
    assert start["kept"] == (start["chance"] <= 0.05)
    assert steps["best"] == (0 if start["kept"] else steps["taken"])
    last = result.history[-1]["score"]
    assert result.report["best_score"] == (start["score"] if start["kept"] else last)
    labelled = rows_to_dataset([replace(row, origin="user") for row in others], SPEC.label_names)
    assert "chance" not in distil_classifier(SPEC, rows, labelled, tmp_path / "u", told).report["start"]


def test_changed_answers_are_better_by_chance_as_often_as_a_coin_says():
    assert by_chance(np.array([False] * 5), np.array([True] * 5)) == 1 / 32
    assert by_chance(np.array([False, False, True]), np.array([True, True, False])) == 0.5
    assert by_chance(np.array([True, True]), np.array([True, False])) == 1.0


def test_a_label_without_rows_is_known_by_its_name(tmp_path, options):
    rows = [row for row in dataset_to_rows(reviews(64)) if row.label == "good"]
    other = [replace(row, input="actor plot", label="player", output="player") for row in rows[:16]]
    spec = replace(SPEC, labels=(*SPEC.labels, Label("player")))
    table = rows_to_dataset([*rows, *other], spec.label_names)
    chosen = replace(options, start="features", empty_classes="allow", **STILL)
    # The words of the label's name are what an encoder without any training can go by.
    texts = ["bad", "bad film", "the bad", "bad and bad", "good", "good film", "the good", "good and good"]
    path = distil_classifier(spec, table, None, tmp_path / "s", chosen).path
    answers = [p.output for p in load_student(path).predict(texts)]
    assert sum(answer == "bad" for answer in answers[:4]) > 2
    assert sum(answer == "good" for answer in answers[4:]) > 2


def test_a_killed_training_resumes_with_the_same_start(tmp_path, options):
    chosen = replace(options, start="features", epochs=3, dropout=0.1)
    train, held_out = reviews(80), reviews(16, 1)
    whole = distil_classifier(SPEC, train, held_out, tmp_path / "whole", chosen)

    def kill(event):
        if "held_out" in event.data and event.done >= 10:
            raise Killed

    with pytest.raises(Killed):
        distil_classifier(SPEC, train, held_out, tmp_path / "cut", chosen, listener=kill)
    resumed = distil_classifier(SPEC, train, held_out, tmp_path / "cut", chosen)
    assert resumed.report["resumed_from"] == "checkpoint-5"
    assert resumed.report["start"] == whole.report["start"]
    for name, value in weights(whole.path).items():
        assert torch.equal(weights(resumed.path)[name], value), name


def test_students_that_cannot_be_fitted_start_at_random(tiny_llama):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    decoder = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(tiny_llama, num_labels=2))
    assert not can_start(decoder)


def test_a_base_model_cut_to_its_first_layers_is_fitted_too(tmp_path, options):
    cut = replace(options, start="features", student_layers=1, epochs=1)
    result = distil_classifier(SPEC, reviews(16), None, tmp_path / "cut", cut)
    assert result.report["start"] == {"head": "features"}
    assert load_student(result.path).model.config.num_hidden_layers == 2


def test_a_shallow_student_and_generations_work_from_it(tmp_path, options):
    chosen = replace(options, start="features", epochs=2, student_layers=1, generations=2)
    result = train_classifier(SPEC, reviews(48), reviews(24, 1), tmp_path / "s", chosen)
    student = load_student(result.path)
    # The layer that averages is not counted.
    assert student.model.config.num_hidden_layers == 2
    assert len(result.report["rounds"]) >= 1
    assert evaluate_student(student, SPEC, reviews(40, 2)).scores.macro_f1 > 0.8


@pytest.fixture(scope="module")
def fitted(tiny_bert, tmp_path_factory):
    """A trained student with the layer that averages."""
    folder = tmp_path_factory.mktemp("fitted") / "mood"
    options = DistilOptions(
        student=str(tiny_bert), start="features", epochs=6, min_steps=1, learning_rate=3e-3, dropout=0.0,
        max_length=32, freeze_embeddings=False, early_stopping=None,
    )  # fmt: skip
    distil_classifier(SPEC, reviews(96), reviews(40, 1, origin="retrieved"), folder, options)
    return folder


@pytest.mark.parametrize(
    ("recipe", "form"),
    [("int8:channel", "onnx"), ("wanda:0.5 -> int4:group=32", "packed"), ("layers:1 -> neurons:0.5", "plain")],
)
def test_compression_takes_the_layer_that_averages(tmp_path, fitted, recipe, form):
    if form == "onnx":
        pytest.importorskip("onnxscript")
    train = reviews(200, 5)
    material = Material(tuple(train["input"]), tuple(train["output"]), SPEC, reviews(60, 2))
    result = compress_student(
        fitted, recipe, tmp_path / "small", material, CompressOptions(formats=(form,), speed="none")
    )
    before, *_, after = [step["score"] for step in result.report["steps"] if "score" in step]
    assert before > 0.95
    assert after > 0.9
    texts = ["the film was great", "awful plot"]
    assert [p.output for p in load_student(result.path).predict(texts)] == ["good", "bad"]


def test_an_unknown_start_is_refused():
    assert build_options(DistilOptions, {"start": "random"}, "distil").start == "random"
    with pytest.raises(OptionError, match=r"distil\.start"):
        build_options(DistilOptions, {"start": "feature"}, "distil")
