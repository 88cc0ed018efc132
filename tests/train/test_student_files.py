"""A student's folder that was changed: one error, whatever library notices it, and before the first question."""

import json
import shutil

import pytest

from potstill.errors import DataError
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
    assert asked.card.input_text({"\ud83d": "half \ud83d"}).isascii()


@pytest.mark.parametrize("labels", [["a"], ["a", "b", "c"]])
def test_a_card_with_other_labels_than_the_model_answers_with_is_refused(tmp_path, student, labels):
    folder = shutil.copytree(student, tmp_path / "student")
    write_card(folder, StudentCard("mood", "classification", labels=tuple(labels)))
    with pytest.raises(DataError, match=rf"answers with 2 labels and its card names {len(labels)} \(a"):
        load_student(folder)
