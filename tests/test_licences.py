"""What licences ask of the whole."""

from __future__ import annotations

import pytest

from potstill.hub.cards import merge_licences
from potstill.licences import merged_terms


@pytest.mark.parametrize(
    ("licences", "sentence"),
    [("mit apache-2.0 cc-by-4.0", ""),
     ("mit cc-by-nc-4.0", "As a whole: non-commercial use only (cc-by-nc-4.0)."),
     ("cc0-1.0 cc-by-sa-4.0", "As a whole: to be shared alike (cc-by-sa-4.0)."),
     ("cc-by-sa-3.0 cc-by-sa-4.0", "As a whole: to be shared alike (cc-by-sa-3.0, cc-by-sa-4.0)."),
     ("cc-by-nc-sa-4.0 mit", "As a whole: non-commercial use only (cc-by-nc-sa-4.0); "
      "to be shared alike (cc-by-nc-sa-4.0).")],
)  # fmt: skip
def test_terms_travel_on(licences: str, sentence: str) -> None:
    terms = merged_terms(licences.split())
    assert terms.sentence == sentence
    assert terms.conflict == ""


@pytest.mark.parametrize(
    ("licences", "said"),
    [("gpl-3.0 cc-by-sa-4.0", "each ask that the whole be under their own licence"),
     ("cc-by-sa-4.0 cc-by-nc-4.0", "allows commercial use of the whole"),
     ("cc-by-nd-4.0 mit", "forbids that it is mixed")],
)  # fmt: skip
def test_conflicts_are_named(licences: str, said: str) -> None:
    assert said in merged_terms(licences.split()).conflict
    assert "Its parts conflict" in merged_terms(licences.split()).sentence


def test_unknown_and_joined_licences() -> None:
    terms = merged_terms(["mit and cc-by-nc-4.0", "", "unknown"])
    assert terms.licences == ("cc-by-nc-4.0", "mit", "unknown")
    assert terms.unknown
    assert terms.to_json()["non_commercial"] == ["cc-by-nc-4.0"]


def test_the_card_says_the_terms_of_the_whole() -> None:
    licence = merge_licences(["mit", "cc-by-nc-sa-3.0", "unknown"], "this dataset")
    assert licence.id == "other"
    assert licence.sentence.endswith("to be shared alike (cc-by-nc-sa-3.0).")
    assert "state no licence" in licence.sentence
