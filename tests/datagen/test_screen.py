"""The gate that every written input passes."""

import pytest

from potstill.datagen.options import GenerationOptions
from potstill.datagen.screen import Screen
from potstill.errors import TeacherError
from potstill.task import Inferred, Label, TaskSpec


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


@pytest.mark.parametrize(
    ("instruction", "text", "kept"),
    [
        ("Translate the English word into German.", "spear", True),
        ("Convert the date to ISO format.", "tomorrow", True),
        ("Correct the search query.", "wether", True),
        ("Summarise the review in a few words.", "Good", False),
        ("Do what is asked.", "small", False),
    ],
)
def test_an_input_that_is_no_text_may_be_a_word(instruction: str, text: str, kept: bool) -> None:
    refused = Screen(TaskSpec("t", instruction, "generation"), GenerationOptions(), [], []).refuse(text, "")
    assert (refused is None) == kept


def test_fields_that_say_the_same_are_no_repetition() -> None:
    one = "A man and a woman are standing in front of the old art gallery and are looking at a large map of the town"
    spec = TaskSpec("t", "Compare.", "classification", inputs=("sentence1", "sentence2"), languages=("en",),
                    labels=(Label("paraphrase"), Label("other")))  # fmt: skip
    pair = f"sentence1: {one}\nsentence2: {one.replace('large', 'small')}"
    assert Screen(spec, GenerationOptions(), [], []).refuse(pair, "") is None
    loop = f"sentence1: {one}\nsentence2: {'look at the map and ' * 20}"
    refused = Screen(spec, GenerationOptions(), [], []).refuse(loop, "")
    assert refused is not None
    assert refused.reason == "repetition"


def test_nothing_is_never_a_text() -> None:
    spec = TaskSpec("t", "Do what is asked.", "generation")
    refused = Screen(spec, GenerationOptions(), ["!"], []).refuse("  ", "")
    assert refused is not None
    assert refused.reason == "empty"


GERMAN = [
    f"Das ist der {n}. Text über die Stadt {word}, und er ist nicht auf Englisch geschrieben, weil wir das so wollen."
    for n, word in enumerate(
        ("Aachen", "Bonn", "Celle", "Dessau", "Essen", "Fulda", "Gera", "Halle", "Jena", "Köln") * 3
    )
]


def _told(how: str, *languages: str) -> TaskSpec:
    inferred = (Inferred("languages", "en", how),) if how else ()
    return TaskSpec("t", "Summarise the text.", "generation", languages=languages, inferred=inferred)


@pytest.mark.parametrize(
    ("spec", "opened", "refused"),
    [
        (_told("assumption", "en"), False, False),
        # A small teacher knows English alone, and slips out of it by mistake.
        (_told("assumption", "en"), True, True),
        (_told("rules", "en"), False, True),
        (_told("", "en"), False, True),
        (_told("rules", "en", "de"), False, False),
    ],
)
def test_a_language_that_was_only_assumed_is_not_held_to(spec: TaskSpec, opened: bool, refused: bool) -> None:
    found = Screen(spec, GenerationOptions(), [], [], opened=opened).refuse(GERMAN[0], "")
    assert (found is not None and found.reason == "wrong_language") == refused


def test_where_all_first_texts_are_in_one_other_language_the_mend_is_said_early() -> None:
    screen = Screen(_told("rules", "en"), GenerationOptions(), [], [], opened=False)
    for text in GERMAN[:23]:
        assert screen.refuse(text, "") is not None
    with pytest.raises(TeacherError, match=r"first 24 .* are all in German \(de\), .*languages: \[de\]"):
        screen.refuse(GERMAN[23], "")
    screen = Screen(_told("rules", "en"), GenerationOptions(), [], [], opened=False)
    assert screen.refuse("The one text that is in English, as it was asked for by all of us.", "") is None
    assert {fault.reason for text in GERMAN if (fault := screen.refuse(text, ""))} == {"wrong_language"}
