"""What fields are called, which of them are long, and what two of one kind make."""

from __future__ import annotations

import pytest

from potstill.datagen.field_words import first_noun, is_long_field, pair_of, writing_order
from potstill.datagen.long_kinds import is_long_kind
from potstill.datagen.wording import input_noun
from potstill.task import Label, TaskSpec


@pytest.mark.parametrize(
    "noun",
    [
        "dialogue", "dialog", "conversation", "conversation between two friends", "chat", "chat log", "chat transcript",
        "chat history", "customer service chat", "group chat of a family", "interview", "interview with a scientist",
        "email thread", "panel discussion", "lecture", "editorial", "movie review", "film review", "book review",
        "review of a film", "review of a book", "long product review", "dialogue in which two people plan a trip",
        "passage", "news article", "document", "minutes of a meeting", "customer call transcript", "short story",
    ],
)  # fmt: skip
def test_kinds_of_text_that_are_long(noun: str) -> None:
    assert is_long_kind(noun)


@pytest.mark.parametrize(
    "noun",
    [
        "review", "customer review", "product review", "hotel review", "short film review", "sentence of a film review",
        "movie review sentence", "movie review title", "short dialogue", "dialogue turn", "dialogue act",
        "line of a dialogue", "utterance in a dialogue", "chat message", "conversation starter", "message in a chat",
        "message from a chat", "chatbot", "interview question", "discussion question", "thread title", "topic",
        "question about a dialogue", "lecture title", "context", "text", "message", "request to a chat assistant",
        "pair of dialogues", "tweet", "comment on an interview",
    ],
)  # fmt: skip
def test_kinds_of_text_that_are_short_or_may_be(noun: str) -> None:
    assert not is_long_kind(noun)


@pytest.mark.parametrize(
    ("names", "long"),
    [
        (["context", "question"], ["context"]),
        (["question", "ctx"], ["ctx"]),
        (["text", "query"], ["text"]),
        (["question", "background"], ["background"]),
        (["source", "user_question"], ["source"]),
        (["document_text", "question"], ["document_text"]),
        (["title", "context", "question"], ["context"]),
        (["passage", "answer"], ["passage"]),
        (["dialogue", "topic"], ["dialogue"]),
        (["title", "text"], []),
        (["premise", "hypothesis"], []),
        (["sentence", "question"], []),
        (["question", "answer"], []),
        (["question", "choices"], []),
        (["topic", "question"], []),
        (["context", "utterance"], []),
        (["question1", "question2"], []),
        (["text"], []),
        (["context"], []),
    ],
)
def test_what_a_question_is_asked_of_is_long(names: list[str], long: list[str]) -> None:
    assert [name for name in names if is_long_field(name, names)] == long


def test_the_first_field_by_what_it_is() -> None:
    assert first_noun(["question", "context"]) == "passage"
    assert first_noun(["ctx", "query"]) == "passage"
    assert first_noun(["text", "question"]) == "passage"
    assert first_noun(["context", "reply"]) == "context"
    assert first_noun(["title", "text"]) == "title"
    assert writing_order(["question", "context"]) == ["context", "question"]


@pytest.mark.parametrize(
    ("instruction", "names", "expected"),
    [
        ("Given two sentences, output 1 if they are paraphrases of each other and 0 otherwise.",
         ["sentence1", "sentence2"], "pair of sentences"),
        ("Determine whether two questions asked by users are duplicates of each other (ask the same thing).",
         ["question1", "question2"], "pair of questions"),
        ("Recognise textual entailment: does sentence1 entail sentence2?", ["sentence1", "sentence2"],
         "pair of sentences"),
        ("Do the two sentences paraphrase each other?", ["sentence_1", "sentence_2"], "pair of sentences"),
        ("Decide whether two headlines contradict each other.", ["headline_a", "headline_b"], "pair of headlines"),
        ("Given two sentences, decide if each implies the other.", ["text1", "text2"], "pair of sentences"),
        ("Say whether both tweets agree with each other or not.", ["text_a", "text_b"], "pair of tweets"),
        ("Given two utterances, say how they relate to one another.", ["s1", "s2"], "pair of utterances"),
        ("Compare two short product descriptions: same product or not?", ["left", "right"],
         "pair of short product descriptions"),
        ("Do these mean the same?", ["first_query", "second_query"], "pair of queries"),
        ("Do these mean the same?", ["storyA", "storyB"], "pair of stories"),
        ("Do these mean the same?", ["news1", "news2"], "pair of news articles"),
        ("Does each contradict the other?", ["text1", "text2"], "pair of texts"),
        ("Decide for a pair of product titles if they refer to the same product.", ["title1", "title2"],
         "pair of product titles"),
        ("Which of two answers is better?", ["answer_1", "answer_2"], "pair of answers"),
        ("Judge if the first sentence entails the second.", ["sentence1", "sentence2"], "pair of sentences"),
        ("Are the commit messages about the same change?", ["message1", "message2"], "pair of messages"),
        # Two fields of different kinds, one field, three.
        ("Given a premise and a hypothesis, say whether the premise entails the hypothesis.",
         ["premise", "hypothesis"], "premise"),
        ("Classify a news article, given its title and first lines, by topic.", ["title", "text"], "news article"),
        ("Say whether the question and the answer fit each other.", ["question", "answer"], "question"),
        ("Is this comment toxic?", ["comment"], "comment"),
        ("Is this comment toxic?", [], "comment"),
        ("Which choice ends the story best?", ["story", "choice1", "choice2"], "story"),
    ],
)  # fmt: skip
def test_two_fields_of_one_kind_are_a_pair(instruction: str, names: list[str], expected: str) -> None:
    task = TaskSpec("t", instruction, "classification", (Label("a"), Label("b")), inputs=tuple(names))
    assert input_noun(task) == expected


def test_a_pair_is_told_by_its_names() -> None:
    assert pair_of(["sentence1", "sentence2"]) == "sentence"
    assert pair_of(["option a", "option b"]) == "option"
    assert pair_of(["a", "b"]) == "text"
    assert pair_of(["left", "right"]) == "text"
    assert pair_of(["title", "body"]) == ""
    assert pair_of(["sentence1"]) == ""
    assert pair_of(["vitamin_a", "mineral_b"]) == ""
