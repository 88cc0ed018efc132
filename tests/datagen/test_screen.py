"""The gate that every written input passes."""

import pytest

from potstill.datagen.options import GenerationOptions
from potstill.datagen.screen import Screen
from potstill.task import TaskSpec


@pytest.mark.parametrize(
    ("example", "text", "reason"),
    [
        ("big", "small", "too_short"),
        ("def add(a, b):", "def words_of(text):", "unfinished"),
        ("Dear [NAME], we wrote on Monday.", "Hello [NAME], your parcel left.", "meta_talk"),
        ("😀 🎂", "🚗 💨", "empty"),
    ],
)
def test_a_text_may_be_what_the_examples_are(example: str, text: str, reason: str) -> None:
    """Without an example the filter stands; an example of the user's that it would refuse takes it out."""
    spec = TaskSpec("t", "Do what is asked.", "generation")
    refused = Screen(spec, GenerationOptions(), ["An example of another form."], []).refuse(text, "")
    assert refused is not None
    assert refused.reason == reason
    assert Screen(spec, GenerationOptions(), [example], []).refuse(text, "") is None


def test_nothing_is_never_a_text() -> None:
    spec = TaskSpec("t", "Do what is asked.", "generation")
    refused = Screen(spec, GenerationOptions(), ["!"], []).refuse("  ", "")
    assert refused is not None
    assert refused.reason == "empty"
