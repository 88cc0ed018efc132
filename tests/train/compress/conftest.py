"""A tiny student to be compressed, and what a compression of it looks at."""

import mood
import pytest

from potstill.train.classify import distil_classifier
from potstill.train.compress.run import Material


@pytest.fixture(scope="session")
def student(tiny_bert, tmp_path_factory):
    """A tiny classifier that knows the task of `mood`."""
    from potstill.train.options import DistilOptions

    options = DistilOptions(
        student=str(tiny_bert), epochs=8, min_steps=1, learning_rate=3e-3, dropout=0.0, max_length=32,
        freeze_embeddings=False, early_stopping=None, keep_checkpoints=False, start="random",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("student") / "mood"
    distil_classifier(mood.SPEC, mood.reviews(200), mood.reviews(40, 1), folder, options)
    return folder


@pytest.fixture(scope="session")
def material():
    train = mood.reviews(400, 5)
    return Material(tuple(train["input"]), tuple(train["output"]), mood.SPEC, mood.reviews(60, 2))
