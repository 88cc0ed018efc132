"""A recipe on tiny models, from the first step to the files."""

import json

import mood
import pytest

from potstill.errors import OptionError, TrainingError
from potstill.train.classify import distil_classifier
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.run import Material, compress_student, read_report
from potstill.train.student import load_student

QUICK = CompressOptions(formats=("packed",), speed="none")


@pytest.fixture(scope="session")
def student(tiny_bert, tmp_path_factory):
    """A tiny classifier that knows the task of `mood`."""
    from potstill.train.options import DistilOptions

    options = DistilOptions(
        student=str(tiny_bert), epochs=8, min_steps=1, learning_rate=3e-3, dropout=0.0, max_length=32,
        freeze_embeddings=False, early_stopping=None, keep_checkpoints=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("student") / "mood"
    distil_classifier(mood.SPEC, mood.reviews(200), mood.reviews(40, 1), folder, options)
    return folder


@pytest.fixture(scope="session")
def material():
    train = mood.reviews(400, 5)
    return Material(tuple(train["input"]), tuple(train["output"]), mood.SPEC, mood.reviews(60, 2))


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_int8_keeps_the_score_in_a_third_of_the_bytes_and_never_touches_the_source(student, material, tmp_path):
    before = files_of(student)
    result = compress_student(student, "int8:channel", tmp_path / "small", material, QUICK)
    original, step, files = result.report["steps"]
    assert original["score"] == 1.0
    assert step["score"] == 1.0
    assert step["agreement"] == 1.0
    assert files["size_ratio"] < 0.5
    assert files_of(student) == before
    assert [p.output for p in load_student(result.path).predict(["the film was great", "awful plot"])] == ["good", "bad"]
    assert read_report(result.path)["recipe"] == "int8:scope=row"
    assert not (tmp_path / "small.steps").exists()
