"""What the points of a scale are told as, by the ends that a prompt names or by what it measures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.language.label_vectors import near_vectors, on_a_line
from potstill.language.label_words import label_words
from potstill.language.scale_words import QUALITY, scale_words
from potstill.task import Label, TaskSpec
from potstill.task.file import read_task

_MORE = "not {0} at all; slightly {0}; moderately {0}; quite {0}; very {0}"
_MOOD = "very negative; negative; neutral; positive; very positive"
_STARS = "1 star, terrible; 2 stars, poor; 3 stars, average; 4 stars, good; 5 stars, excellent"


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        ("Rate how positive a tweet is, from 1 (very negative) to 5 (very positive).", _MOOD),
        ("Rate the mood of a tweet from very negative (1) to very positive (5).", _MOOD),
        ("Rate the tweet from 1 to 5, where 1 is very negative and 5 is very positive.", _MOOD),
        ("Rate the tweet from 1 to 5, where 5 means very positive and 1 means very negative.", _MOOD),
        ("Rate the tweet: 1 = very negative, 5 = very positive.", _MOOD),
        ("Rate the tweet from 1 to 5, with 1 being negative and 5 positive.", _MOOD),
        ("Rate the tweet from 5 (very positive) to 1 (very negative).", _MOOD),
        ("Classify the sentiment of a review on a scale of 1 to 5.", _MOOD),
        ("Rate the review from 1 to 5, with 1 being the worst and 5 the best.", "; ".join(QUALITY)),
        ("Give the review a score from 1 to 5.", "; ".join(QUALITY)),
        ("Predict the star rating (1-5) of a product review.", _STARS),
        ("Rate the review: 1 star (terrible) to 5 stars (excellent).", _STARS),
        ("How urgent is the ticket, from 1 to 5?", _MORE.format("urgent")),
        ("Rate how funny the joke is from 1 (not funny at all) to 5 (extremely funny).", _MORE.format("funny")),
        (
            "Rate agreement from 1 (strongly disagree) to 5 (strongly agree).",
            "strongly disagree; disagree; neutral; agree; strongly agree",
        ),
        (
            "Rate the readability of a text from 1 (easy) to 5 (hard).",
            "very easy; easy; neither easy nor hard; hard; very hard",
        ),
        (
            "Rate the difficulty of a question from 1 to 5.",
            "very low difficulty; low difficulty; medium difficulty; high difficulty; very high difficulty",
        ),
        ("Score two sentences from 1 (completely different) to 5 (equivalent).",
         "completely different; different; neither different nor equivalent; rather equivalent; equivalent"),
        ("Give a number from 1 to 5.", ""),
    ],
)  # fmt: skip
def test_what_points_are_told_as(instruction: str, said: str) -> None:
    assert "; ".join(scale_words(instruction, [1, 2, 3, 4, 5])) == said


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        ("Bewerte die Rezension von 1 bis 5 Sternen.", _STARS),
        ("Valuta la recensione da 1 a 5 stelle.", _STARS),
        ("Beoordeel de recensie van 1 tot 5 sterren.", _STARS),
        ("Évalue le texte de 1 (très mauvais) à 5 (très bon).", "; ".join(QUALITY)),
        ("Califica la reseña del 1 al 5.", "; ".join(QUALITY)),
        ("Оцени отзыв от 1 до 5.", "; ".join(QUALITY)),
        ("给评论打分，1到5。", "; ".join(QUALITY)),
        ("レビューを1から5で評価してください。", "; ".join(QUALITY)),
        (
            "Bewerte den Tweet von 1 (sehr negativ) bis 5 (sehr positiv).",
            "sehr negativ; negativ; neither negativ nor positiv; positiv; sehr positiv",
        ),
    ],
)
def test_points_that_other_languages_ask_for(instruction: str, said: str) -> None:
    spec = read_task(instruction)
    assert spec.label_names == ("1", "2", "3", "4", "5")
    assert spec.ordered == (0, 1, 2, 3, 4)
    assert "; ".join(label_words(spec).values()) == said


@pytest.mark.parametrize("instruction", ["Fasse die Seiten 1 bis 5 zusammen.", "Résume les pages 1 à 5."])
def test_pages_are_no_points(instruction: str) -> None:
    assert read_task(instruction).kind == "generation"


def test_points_in_any_order_and_of_any_number() -> None:
    assert scale_words("How toxic is it, 0 to 2?", [2, 0, 1]) == ["very toxic", "not toxic at all", "moderately toxic"]
    seven = scale_words("Rate from 1 (very sad) to 7 (very happy).", list(range(1, 8)))
    assert seven[2:5] == ["slightly sad", "neutral", "slightly happy"]
    ten = scale_words("How formal is it on a scale of 1 to 10?", list(range(1, 11)))
    assert len(set(ten)) == 10


def test_what_the_user_says_of_a_point_is_told() -> None:
    described = {1: "unusable", 5: "works as promised"}
    said = scale_words("Rate the product from 1 to 5.", [1, 2, 3, 4, 5], described)
    assert (said[0], said[4]) == ("unusable", "works as promised")
    spec = TaskSpec(
        "t", "Rate the difficulty of a task from 1 to 3.", "classification",
        (Label("1", "easy"), Label("2"), Label("3", "hard")),
    )  # fmt: skip
    assert list(label_words(spec).values()) == ["easy", "neither easy nor hard", "hard"]


@given(st.text(max_size=300), st.integers(0, 3), st.integers(3, 11))
def test_any_prompt_gives_distinct_words_or_none(text: str, low: int, size: int) -> None:
    said = scale_words(f"Rate it from {low} to {low + size - 1}. {text}", list(range(low, low + size)))
    assert said == [] or (len(said) == size and len(set(said)) >= min(size, 3))


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 2**16))
def test_vectors_of_ordered_labels_lie_nearer_to_a_line(labels: int, width: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(labels, width))
    drawn = on_a_line(vectors, range(labels))
    places = np.arange(labels) - (labels - 1) / 2

    def beside_line(points: np.ndarray) -> float:
        middle = points.mean(0)
        slope = places @ (points - middle) / (places @ places)
        return float(np.linalg.norm(points - middle - places[:, None] * slope))

    assert np.allclose(drawn.mean(0), vectors.mean(0))
    assert beside_line(drawn) == pytest.approx(beside_line(vectors) / 2, abs=1e-9)  # a quarter of it, twice as wide
    turned = list(range(labels))[::-1]
    assert np.allclose(on_a_line(vectors[::-1], turned)[::-1], drawn)


def test_only_ordered_labels_are_moved() -> None:
    vectors = np.eye(3)
    spec = read_task("Classify tickets as billing, bug or praise.")
    assert near_vectors(spec, vectors, vectors[0]).tolist() == vectors.tolist()
    ordered = read_task("Rate the review from 1 to 3 stars.")
    assert near_vectors(ordered, vectors, vectors[0]).tolist() != vectors.tolist()
