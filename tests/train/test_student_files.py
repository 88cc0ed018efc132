"""A student's folder that was changed: one error, whatever library notices it, and before the first question."""

import json
import shutil

import pytest

from potstill.errors import DataError, OptionError
from potstill.train.card import CARD, StudentCard, read_card, write_card
from potstill.train.student import load_student, publish


@pytest.fixture(scope="module")
def student(tmp_path_factory, tiny_bert):
    from transformers import AutoTokenizer, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("made") / "student"
    model = BertForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
    publish(
        model,
        AutoTokenizer.from_pretrained(tiny_bert),
        StudentCard("mood", "classification", labels=("a", "b")),
        folder,
    )
    return folder


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("7", "int, not an object"), ("[]", "list, not an object"), ("[" * 100_000, "recursion"), ("{", "Expecting"),
        ('{"kind": "classification"}', "name"), ('{"name": "t", "kind": "poetry"}', "poetry"),
        ('{"name": "t", "kind": []}', "none of"), ('{"name": 3, "kind": "classification"}', "not texts"),
        ('{"name": "t", "kind": "classification", "labels": "ab"}', "list of names"),
        ('{"name": "t", "kind": "classification", "labels": [1]}', "list of names"),
        ('{"name": "t", "kind": "classification", "max_length": "9"}', "numbers"),
        ('{"name": "t", "kind": "classification", "max_length": -1}', "numbers"),
        ('{"name": "t", "kind": "classification", "colour": 1}', "colour"),
    ],
)  # fmt: skip
def test_a_card_that_is_none_is_refused(tmp_path, written, told):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / CARD).write_text(written)
    with pytest.raises(DataError, match=rf"card cannot be read \(.*{told}"):
        read_card(tmp_path)


def test_a_card_comes_back_as_it_was(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    card = StudentCard("mood", "classification", "Say the mood.", ("good", "bad"), 64, 12, "some/model")
    write_card(tmp_path, card)
    assert read_card(tmp_path) == card


def test_a_tokenizer_that_panics_at_its_first_text_is_refused_when_loaded(tmp_path, student):
    folder = shutil.copytree(student, tmp_path / "student")
    assert load_student(folder).predict(["a good film"])
    file = folder / "tokenizer.json"
    value = json.loads(file.read_text())
    named = value["post_processor"]["special_tokens"]
    named["[GONE]"] = {**named.pop("[SEP]"), "id": "[GONE]"}  # the template names [SEP] all the same
    file.write_text(json.dumps(value))
    with pytest.raises(DataError, match="cannot be loaded"):
        load_student(folder)


def test_half_an_emoji_is_read_as_it_stands_in_rows(student):
    asked = load_student(student)
    assert asked.predict(["\ud83d bad", "bad"]) == asked.predict(["? bad", "bad"])
    assert asked("\ud83d bad") == asked("? bad")
    assert asked.card.input_text({"text": "half \ud83d"}).isascii()


@pytest.mark.parametrize("labels", [["a"], ["a", "b", "c"]])
def test_a_card_with_other_labels_than_the_model_answers_with_is_refused(tmp_path, student, labels):
    folder = shutil.copytree(student, tmp_path / "student")
    write_card(folder, StudentCard("mood", "classification", labels=tuple(labels)))
    with pytest.raises(DataError, match=rf"answers with 2 labels and its card names {len(labels)} \(a"):
        load_student(folder)


def test_many_inputs_are_refused_with_the_call_that_takes_them_and_that_takes_any_iterable(student):
    import numpy as np

    asked = load_student(student)
    for many in ([], ["a good film"], ("a", "b"), np.array(["a"])):
        with pytest.raises(OptionError, match=r"for many inputs: student\.predict\(\[…\]\)"):
            asked(many)
    with pytest.raises(OptionError, match=r"needed \(got nothing\)$"):
        asked()
    texts = ["a good film", "bad"]
    wanted = asked.predict(texts)
    for many in (np.array(texts), iter(texts), {"x": texts}["x"]):
        assert asked.predict(many) == wanted
    assert asked.predict(np.array([])) == []


def test_one_text_is_called_text_or_input_and_nothing_else(student):
    asked = load_student(student)
    assert asked(text="a good film") == asked(input="a good film") == asked({"text": "a good film"})
    for wrong in ({"foo": "a"}, {"text": "a", "label": "b"}, {}, {"text": None}):
        with pytest.raises(OptionError, match=r"reads one text, given as it is or as \{\"text\": \"…\"\}; the fields"):
            asked(wrong)


def test_a_plain_pipeline_that_truncates_cuts_where_the_student_does(tmp_path, student, tiny_bert):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    before = tokenizer.model_max_length
    model = AutoModelForSequenceClassification.from_pretrained(student)
    card = StudentCard("mood", "classification", labels=("a", "b"), max_length=16)
    publish(model, tokenizer, card, tmp_path / "short")
    assert tokenizer.model_max_length == before, "the caller's stays as it was"
    assert json.loads((tmp_path / "short" / "tokenizer_config.json").read_text())["model_max_length"] == 16
    text = "good " * 12 + "bad awful " * 200
    plain = pipeline("text-classification", str(tmp_path / "short"), truncation=True, top_k=None)
    (own,) = load_student(tmp_path / "short").predict([text])
    assert sorted(item["score"] for item in plain([text])[0]) == pytest.approx(sorted(own.probs), abs=1e-5)
