"""What a task's inputs are called in prompts to the teacher: it decides what the teacher writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.datagen.wording import input_noun
from potstill.task import TaskSpec


def noun(instruction: str) -> str:
    return input_noun(TaskSpec("t", instruction, "generation"))


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Classify customer support messages of an online shop by what the customer wants: refund or other.",
         "customer support message of an online shop"),
        ("Classify support tickets as billing, bug or other.", "support ticket"),
        ("Label tweets by emotion.", "tweet"),
        ("Sort incoming emails into urgent and not urgent.", "incoming email"),
        ("Sort the messages of our help desk by urgency.", "message of our help desk"),
        ("Categorize recipes into cuisines.", "recipe"),
        ("Classify questions asked by students as factual or procedural.", "question"),
        ("Rate the essays of pupils from 1 to 5.", "essay of pupils"),
        ("Classify a doctor's notes by urgency.", "doctor's note"),
        ("Translate sentences from English to German.", "sentence"),
        ("Translate English sentences to French.", "English sentence"),
        ("Summarise the notes of a short work meeting in one sentence.", "note of a short work meeting"),
        ("Summarise the abstract of a scientific paper in one short sentence (a TLDR).",
         "abstract of a scientific paper"),
        ("Answer questions about a passage.", "question about a passage"),
    ],
)  # fmt: skip
def test_the_object_of_the_first_verb(instruction: str, expected: str) -> None:
    assert noun(instruction) == expected


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Classify a news article, given its title and first lines, by topic.", "news article"),
        ("Classify a sports headline by league.", "sports headline"),
        ("Given a message that a customer sent to an online bank, name the intent behind it.",
         "message that a customer sent to an online bank"),
        ("Given a request to a voice assistant, name the intent.", "request to a voice assistant"),
        ("Decide whether a sentence states a fact about a film plot or expresses an opinion.", "sentence"),
        ("Classify the sentiment of a tweet.", "tweet"),
        ("Detect whether the following movie review is positive or negative.", "movie review"),
        ("Classify each of the following product titles into a department.", "product title"),
        ("Is this comment toxic?", "comment"),
        ("Is this email spam or not?", "email"),
        ("Does this review recommend the product?", "review"),
        ("Decide whether an app review reports a bug, requests a feature, or neither.", "app review"),
        ("Find the date that a sentence names and write it as YYYY-MM-DD.", "sentence"),
        ("Judge the opinion in a short customer review of a household or electronic product.", "short customer review"),
        ("Label each customer complaint with the product it is about.", "customer complaint"),
        ("Assign a medical question to one of the specialties.", "medical question"),
    ],
)  # fmt: skip
def test_a_phrase_with_its_article(instruction: str, expected: str) -> None:
    assert noun(instruction) == expected


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Detect spam in SMS messages.", "SMS message"),
        ("Identify the sentiment of product reviews.", "product review"),
        ("Predict the star rating of hotel reviews.", "hotel review"),
    ],
)
def test_a_plural_after_a_preposition(instruction: str, expected: str) -> None:
    assert noun(instruction) == expected


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Given a natural language request, write a bash command.", "natural language request"),
        ("Give a title to a blog post.", "blog post"),
        ("Read a complaint and draft a polite reply.", "complaint"),
        ("Estimate the cost of the supplies required to create the given project.", "project"),
        ("Given the headline, write a short article.", "text"),
        ("Correct the spelling and grammar of the sentence.", "text"),
        ("Convert a word to its plural.", "word"),
        ("Say the time in words for a clock time such as 14:35.", "clock time"),
    ],
)
def test_what_is_to_be_written_is_no_input(instruction: str, expected: str) -> None:
    """An opened teacher goes on with what it is told to write: a command where a request was wanted."""
    assert noun(instruction) == expected


@pytest.mark.parametrize(
    "instruction",
    ["Classify news by topic.", "Decide whether two questions mean the same.", "Write a poem about a tree.", "Spam?"],
)
def test_otherwise_it_is_a_text(instruction: str) -> None:
    assert noun(instruction) == "text"


@given(st.text(alphabet=st.sampled_from("abs .,'?\n-the of a in Classify reviews or and this is"), max_size=1500))
def test_any_instruction_gives_a_short_phrase(instruction: str) -> None:
    found = input_noun(TaskSpec("t", instruction or "x", "generation"))
    assert found
    assert len(found) <= 100
    assert "\n" not in found
