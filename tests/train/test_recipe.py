"""Everything around one training of a classifier: deep students, generations, search, sampling, repeating."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from mood import SPEC, Killed, reviews, weights
from safetensors.torch import load_file

from potstill.errors import DataError, MissingExtra, OptionError, TrainingError, UserError
from potstill.options import build_options
from potstill.rows import Row, Source, dataset_to_rows, rows_to_dataset
from potstill.task import Label
from potstill.train.classify import distil_classifier
from potstill.train.evaluate import evaluate_student
from potstill.train.from_deep import altered_copies, deep_targets, direction_losses, matched_layers
from potstill.train.loop import LikeLengths
from potstill.train.options import DistilOptions, SearchOptions
from potstill.train.recipe import (
    _weighted_by_origin,
    repeat_training,
    train_classifier,
    train_generator,
    training_summary,
)
from potstill.train.rounds import in_rounds, student_probs
from potstill.train.student import load_student
from potstill.train.temperature import divide_logits, fit_temperature, held_out_figures


def same_weights(one, other):
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


def test_a_shallow_student_starts_from_the_deep_one_and_learns_its_directions(tmp_path, options):
    seen = []
    options = replace(options, start="random")
    chosen = replace(options, student_layers=1, epochs=4)
    result = train_classifier(SPEC, reviews(64), reviews(24, 1), tmp_path / "s", chosen, listener=seen.append)
    assert any("the whole student first, then one of 1 layer" in event.message for event in seen)
    assert result.report["deep"]["options"]["student_layers"] is None
    assert load_student(result.path).model.config.num_hidden_layers == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    deep = distil_classifier(SPEC, reviews(64), None, tmp_path / "deep", replace(options, epochs=4))
    # A rate of almost nothing shows where the shallow student starts.
    still = replace(chosen, learning_rate=1e-12, head_learning_rate=1e-12, epochs=1, calibrate=False)
    start = distil_classifier(SPEC, reviews(64), None, tmp_path / "start", still, deep=deep.path)
    kept, whole = weights(start.path), weights(deep.path)
    assert "bert.encoder.layer.1.output.dense.weight" in whole
    for name, value in kept.items():
        torch.testing.assert_close(value, whole[name], atol=1e-6, rtol=0)
    turned = distil_classifier(SPEC, reviews(64), None, tmp_path / "turned", chosen, deep=deep.path)
    alone = distil_classifier(
        SPEC, reviews(64), None, tmp_path / "alone", replace(chosen, hidden_weight=0.0), deep=deep.path
    )
    assert _apart(turned.path, deep.path) < 0.8 * _apart(alone.path, deep.path)


def _apart(path, deep):
    texts = list(reviews(40, 2)["input"])
    states = []
    for folder in (path, deep):
        student = load_student(folder)
        inputs = student.padded([student.tokenizer(text)["input_ids"] for text in texts])
        with torch.inference_mode():
            states.append(student.model(**inputs, output_hidden_states=True).hidden_states[-1].unsqueeze(2))
    return float(direction_losses(*states, inputs["attention_mask"]).mean())


def test_direction_losses_are_one_minus_the_cosine():
    states, wanted = torch.randn(3, 5, 2, 8), torch.randn(3, 5, 2, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    found = direction_losses(states, wanted, mask)
    for row in range(3):
        cosines = [
            float(a @ b / (a.norm() * b.norm()))
            for i in range(int(mask[row].sum()))
            for a, b in zip(states[row, i], wanted[row, i], strict=True)
        ]
        assert float(found[row]) == pytest.approx(2 * (1 - np.mean(cosines)), abs=1e-5)
    with pytest.raises(TrainingError, match="width 4 and the student's 8"):
        direction_losses(states, torch.randn(3, 5, 2, 4), mask)


def test_kept_layers_learn_from_the_same_share_of_the_depth():
    assert matched_layers(6, 3) == [2, 4, 6]
    assert matched_layers(12, 4) == [3, 6, 9, 12]
    assert matched_layers(6, 1) == [6]
    assert matched_layers(5, 2)[-1] == 5
    assert matched_layers(7, 4, averages=True) == [2, 4, 6, 7]
    assert matched_layers(7, 7, averages=True) == [1, 2, 3, 4, 5, 6, 7]  # only narrower


@pytest.mark.parametrize(
    ("cut", "layers", "neurons", "said"),
    [
        ({"student_layer_ids": (1,)}, [1], 64, "1 layer"),
        ({"student_ffn": 0.5}, [0, 1], 32, "50% of the neurons"),
        ({"student_layers": 1, "student_ffn": 0.75}, [0], 48, "1 layer and 75% of the neurons"),
    ],
)
@pytest.mark.parametrize("start", ["features", "random"])
def test_a_classifier_is_cut_in_depth_and_width(tmp_path, options, cut, layers, neurons, said, start):
    chosen = replace(options, **cut, start=start, epochs=6)
    result = train_classifier(SPEC, reviews(64), reviews(24, 1), tmp_path / "s", chosen)
    assert f"kept {said}" in training_summary(result.report)
    student = load_student(result.path)
    averages = start == "features"  # the layer that averages stays, and is not counted
    assert student.model.config.num_hidden_layers == len(layers) + averages
    assert student.model.config.intermediate_size == neurons
    assert all(layer.intermediate.dense.out_features == neurons for layer in student.model.bert.encoder.layer)
    assert evaluate_student(student, SPEC, reviews(40, 2), latency_rows=0).scores.macro_f1 > 0.8
    still = replace(chosen, learning_rate=1e-12, head_learning_rate=1e-12, epochs=1, calibrate=False)
    deep = distil_classifier(SPEC, reviews(64), None, tmp_path / "deep", replace(options, start=start, epochs=1))
    begun = distil_classifier(SPEC, reviews(64), None, tmp_path / "begun", still, deep=deep.path)
    whole, kept = weights(deep.path), weights(begun.path)
    for place, layer in enumerate(layers):
        name = "bert.encoder.layer.{}.attention.self.query.weight"
        torch.testing.assert_close(kept[name.format(place)], whole[name.format(layer)], atol=1e-6, rtol=0)


def test_layers_that_a_classifier_does_not_have_are_refused(tmp_path, options):
    with pytest.raises(UserError, match=r"student_layer_ids names layer 2; .* has 0 to 1"):
        train_classifier(SPEC, reviews(16), None, tmp_path / "s", replace(options, student_layer_ids=(0, 2)))
    with pytest.raises(UserError, match=r"student_layers 3 is more than the 2 layers of .*; choose 1 to 2"):
        distil_classifier(SPEC, reviews(16), None, tmp_path / "t", replace(options, student_layers=3))


def test_altered_copies_keep_their_special_tokens_and_the_words_of_the_rows():
    rows = [[2, *range(10 + 20 * i, 20 + 20 * i), 3] for i in range(20)] + [[2, 50, 3]]
    found = altered_copies(rows, {2, 3}, 3, seed=1)
    assert found == altered_copies(rows, {2, 3}, 3, seed=1)
    assert len(found) == 63
    known = {token for row in rows for token in row}
    changed = 0
    for copy, row in zip(found, rows * 3, strict=True):
        assert (copy[0], copy[-1]) == (2, 3)
        assert 1 <= len(copy) - 2 <= 10
        assert set(copy) <= known
        assert not {2, 3} & set(copy[1:-1])
        changed += copy != row
    assert changed > 45
    assert altered_copies(rows, {2, 3}, 0, seed=1) == []


def test_a_row_of_special_tokens_alone_is_copied_as_it_is():
    assert altered_copies([[2, 3], [2, 7, 3], []], {2, 3}, 4, seed=1) == [[2, 3], [2, 7, 3], []] * 4


def test_a_deep_student_labels_copies_of_texts_that_no_word_is_known_of(tmp_path, options, monkeypatch):
    seen = []

    def told(deep, spec, rows, *more):
        seen.extend(rows)
        return deep_targets(deep, spec, rows, *more)

    monkeypatch.setattr("potstill.train.classify.deep_targets", told)
    strange = [
        Row(text, "good", "generated", Source(row=i), "good") for i, text in enumerate(["\u200b", "😀", "😀 😀"])
    ]
    rows = rows_to_dataset([*dataset_to_rows(reviews(13)), *strange], SPEC.label_names)
    train_classifier(SPEC, rows, None, tmp_path / "s", replace(options, student_layers=1, epochs=1, altered_copies=1))
    # [CLS] is 2 and [SEP] 3; a word that is not known is [UNK] 1, a token of the text like any other.
    assert all((row[0], row[-1]) == (2, 3) for row in seen)
    assert [1 in row for row in seen[:16]].count(True) == 3
    assert all(1 in row or len(row) > 2 for row in seen[16:])


def test_altered_copies_are_rows_of_an_epoch_and_have_no_label(tmp_path, options):
    chosen = replace(options, student_layers=1, epochs=2)
    few = train_classifier(SPEC, reviews(32), None, tmp_path / "few", replace(chosen, altered_copies=0))
    more = train_classifier(SPEC, reviews(32), None, tmp_path / "more", replace(chosen, altered_copies=3))
    assert more.report["steps"]["taken"] == 4 * few.report["steps"]["taken"]
    assert more.report["rows"] == few.report["rows"]
    with pytest.raises(OptionError, match=r"altered_copies must be 0 or more \(got -1\)"):
        replace(chosen, altered_copies=-1)


@pytest.mark.parametrize("ensemble", [False, True])
def test_generations_learn_from_those_before_and_the_best_stays(tmp_path, options, ensemble):
    chosen = replace(options, generations=3, ensemble=ensemble, epochs=2)
    result = train_classifier(SPEC, reviews(48, soft=True), reviews(24, 1), tmp_path / "s", chosen)
    rounds = result.report["rounds"]
    losses = [item["held_out_loss"] for item in rounds]
    kept = [item["round"] for item in rounds if item["kept"]]
    assert kept == [1 + int(np.argmin(losses))]
    assert len(rounds) == 3 or losses[-1] >= min(losses[:-1])
    assert [item.get("taught_by") for item in rounds] == [None, 1, 2 if ensemble else 1][: len(rounds)]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert result.report["held_out"]["loss"] == min(losses)
    assert json.loads((result.path / "training.json").read_text())["rounds"] == rounds
    assert f"generation {kept[0]} of {len(rounds)} kept; logits divided by" in training_summary(result.report)


def test_rounds_end_when_the_held_out_loss_no_longer_falls(tmp_path):
    losses, seen = [0.9, 0.5, 0.5, 0.1], []

    def train_one(rows, place, chosen):
        place.mkdir()
        (place / "training.json").write_text(json.dumps({"rows": place.name, "options": {}}))
        seen.append(chosen.seed)
        from potstill.train.result import DistilResult

        return DistilResult(place, [], {"held_out": {"loss": losses[len(seen) - 1]}})

    table = reviews(4)
    result = in_rounds(table, tmp_path / "s", DistilOptions(seed=7), train_one, lambda paths: (table, {}), rounds=4)
    assert seen == [7, 8, 9]
    assert [item["kept"] for item in result.report["rounds"]] == [False, True, False]
    assert json.loads((result.path / "training.json").read_text())["rows"] == "s.round-1"
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_the_search_starts_with_the_given_options_and_repeats(tmp_path, options, monkeypatch):
    pytest.importorskip("optuna")
    from potstill.train import search as module

    chosen = replace(options, epochs=3, search=SearchOptions(trials=6))
    train, held_out = reviews(32, soft=True), reviews(16, 1)
    tried = []

    def fake(place, given):
        tried.append((given.epochs, given.learning_rate, given.soft_weight))
        from potstill.train.result import DistilResult

        loss = abs(np.log(given.learning_rate) + 7) + abs(given.epochs - 6) + given.soft_weight
        return DistilResult(place, [], {"held_out": {"loss": loss, "calibrated_loss": loss}})

    whole = module.search_options(chosen, fake, tmp_path / "whole", rows=32, mixed=True)
    assert tried[0] == (3, 3e-3, 0.5)
    assert len({item for item in tried}) == 6
    assert whole.trials[whole.best]["loss"] == min(trial["loss"] for trial in whole.trials)
    assert whole.options.search.trials == 0
    assert whole.options.min_steps == 1
    short = replace(chosen, min_steps=40, batch_size=16)
    assert module.search_options(short, fake, tmp_path / "few", rows=32, mixed=True).trials[0]["values"]["epochs"] == 20
    tried = tried[:6]
    given = module.search_options(replace(chosen, max_steps=9), fake, tmp_path / "max", rows=32, mixed=False)
    assert set(given.trials[0]["values"]) == {"learning_rate"}
    first = tried[:6]
    tried.clear()

    def killed(place, given):
        if len(tried) == 3:
            raise Killed
        return fake(place, given)

    with pytest.raises(Killed):
        module.search_options(chosen, killed, tmp_path / "cut", rows=32, mixed=True)
    module.search_options(chosen, fake, tmp_path / "cut", rows=32, mixed=True)
    assert tried == first
    tried.clear()
    spent = replace(chosen, search=SearchOptions(trials=6, minutes=1e-9))
    assert len(module.search_options(spent, fake, tmp_path / "short", rows=32, mixed=True).trials) == 1
    real = train_classifier(SPEC, train, held_out, tmp_path / "s", replace(chosen, search=SearchOptions(trials=2)))
    trials = real.report["search"]["trials"]
    assert [trial["number"] for trial in trials] == [0, 1]
    assert "of 2 was best (epochs" in training_summary(real.report)
    assert real.report["options"]["epochs"] == real.report["search"]["values"]["epochs"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("s.")] == []
    with pytest.raises(TrainingError, match="needs held-out rows"):
        train_classifier(SPEC, train, None, tmp_path / "t", chosen)
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"pip install -e .*\[search\]"):
        train_classifier(SPEC, train, held_out, tmp_path / "t", chosen)


def test_one_runs_config_is_saved_and_reproduces_it(tmp_path, options):
    chosen = replace(
        options, epochs=2, dropout=0.1, seed=3, class_weights="balanced", sampling={"generated": 2.0, "pseudo": 1.0}
    )
    rows = [replace(row, origin="pseudo") if i % 3 == 0 else row for i, row in enumerate(dataset_to_rows(reviews(32)))]
    train, held_out = rows_to_dataset(rows, SPEC.label_names), reviews(16, 1)
    first = train_classifier(SPEC, train, held_out, tmp_path / "a", chosen)
    again = repeat_training(first.path, SPEC, train, held_out, tmp_path / "b")
    assert same_weights(first.path, again.path)
    assert [p["validation_loss"] for p in first.history] == [p["validation_loss"] for p in again.history]
    with pytest.raises(TrainingError, match="the rows differ from those of the first training"):
        repeat_training(first.path, SPEC, reviews(32, 9), held_out, tmp_path / "c")
    rounds = train_classifier(SPEC, train, held_out, tmp_path / "d", replace(chosen, generations=2))
    assert same_weights(rounds.path, repeat_training(rounds.path, SPEC, train, held_out, tmp_path / "e").path)
    (first.path / "training.json").unlink()
    with pytest.raises(DataError, match="does not say how the student was trained"):
        repeat_training(first.path, SPEC, train, held_out, tmp_path / "f")


def test_a_later_round_that_was_kept_is_reproduced_from_the_first_rounds_options(tmp_path, options):
    # Without held-out rows the last round is kept, which learns from the first one's probabilities.
    chosen = replace(options, epochs=1, generations=2, soft_weight=0.0, seed=4)
    train = reviews(16, soft=True)
    first = train_classifier(SPEC, train, None, tmp_path / "a", chosen)
    assert [entry["kept"] for entry in first.report["rounds"]] == [False, True]
    told = json.loads((first.path / "training.json").read_text())["options"]
    assert (told["seed"], told["soft_weight"]) == (4, 0.0)
    assert same_weights(first.path, repeat_training(first.path, SPEC, train, None, tmp_path / "b").path)


def test_a_finished_training_is_not_repeated(tmp_path, options):
    first = distil_classifier(SPEC, reviews(16), None, tmp_path / "s", replace(options, epochs=1))
    assert "reused" not in first.report
    assert distil_classifier(SPEC, reviews(16), None, tmp_path / "s", replace(options, epochs=1)).report["reused"]
    other = distil_classifier(SPEC, reviews(16), None, tmp_path / "s", replace(options, epochs=1, seed=1))
    assert "reused" not in other.report
    file = other.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    mended = distil_classifier(SPEC, reviews(16), None, tmp_path / "s", replace(options, epochs=1, seed=1))
    assert "reused" not in mended.report
    load_student(mended.path)


def test_rows_of_an_origin_are_drawn_as_often_as_their_share_says():
    lengths = [5] * 90
    shares = [2.0] * 30 + [1.0] * 30 + [0.0] * 30
    sampler = LikeLengths(lengths, 8, seed=1, shares=shares)
    counts = np.zeros(90)
    for epoch in range(50):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert len(order) == 90
        assert order == list(sampler)
        counts += np.bincount(order, minlength=90)
    assert counts[60:].sum() == 0
    assert counts[:30].mean() / counts[30:60].mean() == pytest.approx(2.0, rel=0.01)
    # Expected count 2 a row and epoch: systematic drawing never strays from it.
    assert counts[:30].min() == counts[:30].max() == 100


def test_sampling_is_checked(tmp_path, options):
    with pytest.raises(OptionError, match="'retreived' is no origin of rows; did you mean 'retrieved'"):
        build_options(DistilOptions, {"sampling": {"retreived": 1}}, "distil")
    with pytest.raises(TrainingError, match=r"distil.sampling leaves none of the 8 training rows \(generated\)"):
        distil_classifier(SPEC, reviews(8), None, tmp_path / "s", replace(options, sampling={"generated": 0.0}))
    built = build_options(DistilOptions, {"search": {"trials": 3, "minutes": 2}, "generations": 2}, "distil")
    assert built.search == SearchOptions(3, 2)
    with pytest.raises(OptionError, match="trials must be 0 or more"):
        build_options(DistilOptions, {"search": {"trials": -1}}, "distil")


def test_a_label_without_rows_is_refused_unless_allowed(tmp_path, options):
    spec = replace(SPEC, labels=(*SPEC.labels, Label("mixed")))
    rows = rows_to_dataset(list(dataset_to_rows(reviews(16))), spec.label_names)
    with pytest.raises(TrainingError, match=r"1 of 3 labels have no training row.*'mixed'; generate more rows"):
        distil_classifier(spec, rows, None, tmp_path / "s", options)
    assert list(tmp_path.iterdir()) == []
    allowed = replace(options, empty_classes="allow", epochs=1)
    path = distil_classifier(spec, rows, None, tmp_path / "s", allowed).path
    assert load_student(path).labels == ("bad", "good", "mixed")


def test_a_base_model_that_was_cut_short_is_refused(tmp_path, tiny_bert, options):
    base = tmp_path / "base"
    shutil.copytree(tiny_bert, base)
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(UserError, match="cannot be loaded"):
        distil_classifier(SPEC, reviews(8), None, tmp_path / "s", replace(options, student=str(base)))


def test_the_temperature_is_the_one_that_made_the_logits_too_sharp():
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(4000, 3))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([draw.choice(3, p=p) for p in probs])
    assert fit_temperature(logits * 3, np.eye(3)[labels]) == pytest.approx(3.0, rel=0.1)
    # Few rows say little: two right answers do not make a student sure of everything.
    assert fit_temperature(np.array([[1.0, 0.0]] * 2), np.array([[1.0, 0.0]] * 2)) > 0.6
    figures = held_out_figures(logits * 3, labels, np.zeros((4000, 3), dtype=np.float32))
    assert figures["calibrated_ece"] < 0.5 * figures["ece"]
    assert figures["calibrated_loss"] < figures["loss"]


def test_calibration_changes_confidences_and_no_answer(tmp_path, options):
    def noisy(n, seed):
        rows = enumerate(dataset_to_rows(reviews(n, seed)))
        return rows_to_dataset(
            [replace(row, output="bad", label="bad") if i % 4 == 1 else row for i, row in rows], SPEC.label_names
        )

    train, held_out = noisy(48, 0), noisy(40, 4)
    chosen = replace(options, epochs=12)
    plain = distil_classifier(SPEC, train, held_out, tmp_path / "a", replace(chosen, calibrate=False))
    right = distil_classifier(SPEC, train, held_out, tmp_path / "b", chosen)
    temperature = right.report["held_out"]["temperature"]
    texts = list(reviews(20, 8)["input"])
    one, other = student_probs(SPEC, plain.path, texts), student_probs(SPEC, right.path, texts)
    assert (one.argmax(1) == other.argmax(1)).all()
    expected = np.exp(np.log(one) / temperature)
    np.testing.assert_allclose(other, expected / expected.sum(1, keepdims=True), atol=1e-4)
    assert not divide_logits(torch.nn.Sequential(torch.nn.Linear(4, 4)), 2.0, 3)
    assert "classifier.weight" in load_file(right.path / "model.safetensors")


@pytest.mark.parametrize("build", ["Bert", "Roberta", "XLMRoberta", "Camembert", "DistilBert", "ModernBert", "MPNet"])
def test_the_temperature_goes_into_any_head(build):
    # Where a model names its head before its body, the last linear layer is one of the body's.
    sizes = {
        "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 3,
        "intermediate_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1,
        "sep_token_id": 2,
    }  # fmt: skip
    model = getattr(transformers, f"{build}ForSequenceClassification")(
        getattr(transformers, f"{build}Config")(**sizes)
    ).eval()
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        assert divide_logits(model, 2.0, 3)
        torch.testing.assert_close(model(input_ids=ids).logits * 2, before)


def test_generation_students_are_searched_and_weighted_too(tmp_path, tiny_llama):
    pytest.importorskip("optuna")
    from potstill.task import TaskSpec

    spec = TaskSpec(name="echo", instruction="Say it.", kind="generation", metric="exact_match")
    made = [
        Row(f"w{i}", "aba", "pseudo" if i % 4 == 0 else "generated", Source(row=i), weight=2.0 if i == 1 else 1.0)
        for i in range(8)
    ]
    train, held_out = rows_to_dataset(made, []), rows_to_dataset(made[:2], [])
    chosen = DistilOptions(
        student=str(tiny_llama), epochs=1, batch_size=4, max_length=96, search=SearchOptions(trials=2),
        sampling={"generated": 0.5},
    )  # fmt: skip
    result = train_generator(spec, train, held_out, None, tmp_path / "s", chosen)
    search = result.report["search"]
    assert len(search["trials"]) == 2
    assert set(search["values"]) == {"epochs", "learning_rate"}
    assert result.report["options"]["learning_rate"] == search["values"]["learning_rate"]
    weighted = _weighted_by_origin(train, chosen)
    assert sum(weighted["weight"]) == pytest.approx(8 + 0.5 / 0.625)
    assert weighted["weight"][0] / weighted["weight"][2] == pytest.approx(2.0)
    with pytest.raises(OptionError, match=r"distil\.generations is for classification students"):
        train_generator(spec, train, held_out, None, tmp_path / "t", replace(chosen, generations=2))


class _Stop(Exception):
    pass


def test_other_targets_weights_or_models_are_another_search(tmp_path, tiny_llama, monkeypatch):
    from datasets import Dataset

    from potstill.task import TaskSpec

    spec = TaskSpec(name="echo", instruction="Say it.", kind="generation", metric="exact_match")
    made = [Row(f"w{i}", "aba", "generated", Source(row=i)) for i in range(4)]
    contents = []

    def caught(*_, content, **__):
        contents.append(content)
        raise _Stop

    def content(rows, teacher, student=str(tiny_llama)):
        table = rows_to_dataset(rows, [])
        targets = Dataset.from_dict({"id": table["id"][:], "token_ids": [[1, 2]] * 4, "logprobs": [teacher] * 4})
        chosen = DistilOptions(student=student, search=SearchOptions(trials=2))
        with pytest.raises(_Stop):
            train_generator(spec, table, None, targets, tmp_path / "s", chosen)
        return contents[-1]

    monkeypatch.setattr("potstill.train.search.search_options", caught)
    first = content(made, [-0.1, -2.0])
    assert content(made, [-0.1, -2.0]) == first
    assert content(made, [-0.5, -1.0]) != first, "the same rows, taught by another teacher"
    assert content([replace(made[0], weight=2.0), *made[1:]], [-0.1, -2.0]) != first
    other = tmp_path / tiny_llama.name  # another model of the same name
    shutil.copytree(tiny_llama, other)
    assert content(made, [-0.1, -2.0], str(other)) == first
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    assert content(made, [-0.1, -2.0], str(other)) != first


def test_checkpoints_of_other_weights_are_those_of_another_training(tmp_path, tiny_llama, monkeypatch):
    from potstill.task import TaskSpec
    from potstill.train import causal

    spec = TaskSpec(name="echo", instruction="Say it.", kind="generation", metric="exact_match")
    contents = []

    def caught(_out, _options, content):
        contents.append(json.dumps(content))
        raise _Stop

    monkeypatch.setattr(causal.loop, "prepare_checkpoints", caught)
    for weight in (1.0, 1.0, 2.0):
        table = rows_to_dataset([Row(f"w{i}", "aba", "generated", Source(row=i), weight=weight) for i in range(4)], [])
        with pytest.raises(_Stop):
            train_generator(spec, table, None, None, tmp_path / "s", DistilOptions(student=str(tiny_llama)))
    assert contents[0] == contents[1] != contents[2]
