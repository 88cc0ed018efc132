"""Search: fusion against oracles, every filter with its reason, and real prompts on real cards."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from potstill.errors import OptionError
from potstill.retrieval.cards import Card
from potstill.retrieval.catalogue import make_catalogue, read_catalogue
from potstill.retrieval.mentions import mention_pairs
from potstill.retrieval.options import RetrievalOptions
from potstill.retrieval.search import (
    Ranking,
    excluded_by,
    find_datasets,
    fuse,
    licence_refusal,
    open_search,
    refusal,
    task_query,
)
from potstill.retrieval.words import search_words, stem
from potstill.task import Label, LicencePolicy, TaskSpec


class BagEncoder:
    """A bag of hashed words as a unit vector: texts that share words are near."""

    identity = "bag-1"

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        vectors = np.full((len(texts), 64), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in search_words(text):
                vectors[row, hashlib.sha256(word.encode()).digest()[0] % 64] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))


def spec(**fields: Any) -> TaskSpec:
    given = {"name": "t", "instruction": "Tell spam messages from wanted ones.", "kind": "classification"}
    return TaskSpec(**{**given, "labels": (Label("spam"), Label("ham")), **fields})


CARDS = (
    Card("a/spam", "Spam messages", "Wanted and unwanted messages.", ("en",), "mit"),
    Card("b/news", "News topics", "News articles by topic.", ("en",), "cc-by-nc-4.0"),
    Card("c/spam-de", "Spam messages in German", "Spam and ham messages.", ("de",), "mit"),
    Card("d/gated", "Spam messages behind a gate", "Spam and ham messages.", ("en",), "mit", gated=True),
    Card("e/unknown", "Spam messages of no licence", "Spam and ham messages."),
    Card("f/pictures", "Spam messages as pictures", "Pictures.", ("en",), "mit", ("image-classification",)),
)


def rank(task: TaskSpec, cards: tuple[Card, ...] = CARDS, **options: Any) -> Ranking:
    return find_datasets(task, make_catalogue(cards), RetrievalOptions(**options), encoder=BagEncoder())


def test_every_filter_gives_its_reason() -> None:
    found = rank(spec(licences=LicencePolicy(deny=("cc-by-nc*",), unknown=False)))
    assert [hit.card.id for hit in found.hits] == ["a/spam"]
    reasons = {
        card.id: refusal(card, spec(licences=LicencePolicy(deny=("cc-by-nc*",), unknown=False))) for card in CARDS
    }
    assert reasons == {
        "a/spam": None,
        "b/news": "licence cc-by-nc-4.0 is denied by the task",
        "c/spam-de": "language de; the task is in en",
        "d/gated": "gated: its owner asks for consent first",
        "e/unknown": "licence unknown; the task refuses unknown licences",
        "f/pictures": "not text: image-classification",
    }
    assert dict((item.id, item.reason) for item in found.refused).items() <= reasons.items()


def test_without_filters_the_nearest_stands_first() -> None:
    found = rank(spec())
    assert found.hits[0].card.id in {"a/spam", "e/unknown"}
    assert found.hits[-1].card.id == "b/news"
    assert found.hits[0].score > found.hits[-1].score


def test_ranking_json() -> None:
    ranking = rank(spec())
    taken = [replace(hit, status="used", reason="40 rows") if hit.card.id == "a/spam" else hit for hit in ranking.hits]
    found = replace(ranking, hits=tuple(taken))
    value = json.loads(json.dumps(found.to_json()))
    assert set(value) == {"query", "hits", "refused"}
    hit = next(hit for hit in value["hits"] if hit["id"] == "a/spam")
    assert set(hit) == {"id", "title", "score", "licence", "languages", "rows", "status", "reason"}
    assert (hit["status"], hit["reason"]) == ("used", "40 rows")
    assert {hit["status"] for hit in value["hits"] if hit["id"] != "a/spam"} == {"skipped"}


@pytest.mark.parametrize(
    ("pattern", "identifier", "known_as", "excluded"),
    [
        ("ag_news", "ag_news", (), True),
        ("ag_news", "fancyzhx/ag_news", (), True),
        ("ag_news", "pack/AG-News", (), True),
        ("ag_news", "pack/agn", ("ag_news",), True),
        ("fancyzhx/ag_news", "ag_news", (), True),
        ("fancyzhx/*", "fancyzhx/ag_news", (), True),
        ("*_news", "fancyzhx/ag_news", (), True),
        ("fancyzhx/*", "other/ag_news", (), False),
        ("ag_news", "ag_news_long", (), False),
        ("news", "ag_news", (), False),
        ("", "ag_news", (), False),
        ("*", "ag_news", (), True),
    ],
)
def test_exclusions(pattern: str, identifier: str, known_as: tuple[str, ...], excluded: bool) -> None:
    card = Card(identifier, identifier, known_as=known_as)
    assert (excluded_by(card, (pattern,)) is not None) is excluded


def test_an_excluded_dataset_is_always_listed() -> None:
    many = tuple(Card(f"x/spam{i}", "Spam and ham messages", "Spam, ham, wanted messages.") for i in range(50))
    found = rank(spec(exclude=("news",)), (*many, Card("b/news", "News", "Topics of articles.")), top=3)
    assert len(found.hits) == 3
    assert [(item.id, item.reason) for item in found.refused] == [("b/news", "excluded by the task (news)")]


@pytest.mark.parametrize(
    ("licence", "policy", "reason"),
    [
        ("mit", LicencePolicy(), None),
        ("unknown", LicencePolicy(), None),
        ("unknown", LicencePolicy(unknown=False), "unknown"),
        ("mit", LicencePolicy(allow=("apache-2.0",)), "not among"),
        ("cc-by-4.0", LicencePolicy(allow=("cc-*",)), None),
        ("cc-by-nc-4.0", LicencePolicy(allow=("cc-*",), deny=("cc-by-nc*",)), "denied"),
        ("mit and cc-by-nc-4.0", LicencePolicy(deny=("cc-by-nc*",)), "denied"),
        ("mit and unknown", LicencePolicy(allow=("mit",), unknown=False), "unknown"),
    ],
)
def test_licence_policy(licence: str, policy: LicencePolicy, reason: str | None) -> None:
    got = licence_refusal(licence, policy)
    assert got is None if reason is None else got is not None and reason in got


def test_filters_never_starve_the_ranking() -> None:
    near = tuple(Card(f"near/{i}", "Spam and ham messages", "Spam and ham messages.", ("de",)) for i in range(300))
    far = tuple(Card(f"far/{i}", f"Other things {i}", "Weather.", ("en",)) for i in range(5))
    found = rank(spec(), (*near, *far), depth=10, top=5)
    assert {hit.card.id for hit in found.hits} == {f"far/{i}" for i in range(5)}


def test_empty_and_wordless() -> None:
    assert rank(spec(), ()).hits == ()
    assert rank(spec(instruction="?!", labels=()), (Card("a", "!?"),)).hits[0].card.id == "a"


class SearchEncoder(BagEncoder):
    """One that was trained for search: what is looked for is turned into the words of what is looked through."""

    identity = "search-1"

    def encode_query(self, texts: list[str]) -> NDArray[np.float32]:
        return self.encode([text.replace("movies", "films") for text in texts])

    def encode_document(self, texts: list[str]) -> NDArray[np.float32]:
        return self.encode([text.replace("cinema", "films") for text in texts])


def test_what_is_looked_for_and_what_is_looked_through_are_embedded_each_in_its_way() -> None:
    cards = (Card("a/cinema", "cinema", "cinema"), Card("b/ports", "ports", "weather tables"))
    search = open_search(make_catalogue(cards), SearchEncoder())
    for imagined in ((), ("cinema",)):
        first = search.rank("movies", RetrievalOptions(depth=2, fusion_dense=1.0), imagined=imagined)[0]
        assert (first.position, first.score) == (0, pytest.approx(1.0, abs=0.05))


def test_fusion_ends_are_the_two_searches() -> None:
    rng = np.random.default_rng(0)
    dense, lexical = rng.normal(size=50), rng.exponential(size=50)
    assert np.argsort(-fuse(dense, lexical, 1.0)).tolist() == np.argsort(-dense).tolist()
    assert np.argsort(-fuse(dense, lexical, 0.0)).tolist() == np.argsort(-lexical).tolist()
    assert fuse(np.ones(3), np.zeros(3), 0.5).tolist() == [0, 0, 0]


def test_scores_are_cosines_of_the_cards() -> None:
    catalogue, encoder = make_catalogue(CARDS), BagEncoder()
    search = open_search(catalogue, encoder)
    assert len(search.mentions[0]) == 0
    query = "spam messages"
    cosines = encoder.encode([card.text for card in CARDS]) @ encoder.encode([query])[0]
    for item in search.rank(query, RetrievalOptions(depth=2)):
        assert item.score == pytest.approx(float(cosines[item.position]), abs=1e-5)


def test_near_cards_vote_for_what_they_name() -> None:
    cards = (
        *(Card(f"x/{i}", f"Street scenes {i}", "Segmentation of driving scenes, as in BigCity.") for i in range(5)),
        Card("y/bigcity", "BigCity", "Fifty places."),
        Card("z/street", "Lanes", "Segmentation of lanes."),
    )
    task = spec(instruction="Segmentation of driving scenes", labels=())
    assert rank(task, cards, mentions=0.0).hits[-1].card.id == "y/bigcity"
    assert rank(task, cards, mentions=3.0).hits[0].card.id == "y/bigcity"
    # A card that is not among the best of either search is still found by its votes.
    assert "y/bigcity" in {hit.card.id for hit in rank(task, cards, mentions=3.0, depth=4).hits}


def test_names_that_are_words_are_not_mentions() -> None:
    cards = (
        Card("a", "Florence", "Faces in a city."),
        Card("b", "news", "Topics."),
        Card("c", "Hate", "Posts."),
        Card("d", "Common Objects in Context (COCO)", "Pictures."),
        Card("e", "SQuAD", "Questions, as in SQuAD."),
        Card("f", "Twin", "x"),
        Card("g", "Twin", "y"),
        Card("h", "H", "The news of hate and hate speech. Hate, SQuAD, COCO, Twin and Common Objects in Context."),
    )
    naming, named = mention_pairs(cards)
    assert [(cards[a].id, cards[b].id) for a, b in zip(naming, named)] == [("h", "d"), ("h", "e")]


def test_the_query_names_the_labels_once() -> None:
    assert task_query(spec()) == "Tell spam messages from wanted ones. spam, ham"
    assert task_query(spec(instruction="Answer spam, ham.")) == "Answer spam, ham."
    assert len(task_query(spec(instruction="word " * 5000))) < 2400


def test_words() -> None:
    assert search_words("The movies and the Müllers of 2017") == ["movy", "muller", "2017"]
    assert len({stem(word) for word in ("label", "labels", "labeled", "labeling")}) == 1
    assert stem("datasets") == stem("dataset")
    assert (stem("news"), stem("bus"), stem("2017s")) == ("new", "bus", "2017s")
    assert search_words("日本語") == ["日本", "本語"]
    assert search_words("") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी समाचार वर्गीकरण।", ["हिन्दी", "समाचार", "वर्गीकरण"]),
        ("தமிழ் செய்தி", ["தமிழ்", "செய்தி"]),
        ("বাংলা খবর", ["বাংলা", "খবর"]),
        ("తెలుగు మలയാളം ಕನ್ನಡ", ["తెలుగు", "మలയാളം", "ಕನ್ನಡ"]),
        ("क्\u200dष और", ["क्ष", "और"]),
        ("Müller Ἀθῆναι Ёлка", ["muller", "αθηναι", "елка"]),
        ("عَرَبِيّ שָׁלוֹם", ["عربي", "שלום"]),
        ("ދިވެހި", ["ދިވެހި"]),
        ("ガ行 ภาษา ລາວ", ["カ行", "ภา", "าษ", "ษา", "ລາ", "າວ"]),
    ],
)
def test_words_keep_the_vowels_that_are_written_as_signs(text: str, words: list[str]) -> None:
    assert search_words(text) == [unicodedata.normalize("NFKD", word) for word in words]


FAKE_JAX = """
import os
with open(os.environ["JAX_USES"], "a") as file:
    file.write(__name__ + "\\n")
"""
SEARCH = """
import sys
import numpy as np
from potstill.retrieval.cards import Card
from potstill.retrieval.catalogue import make_catalogue
from potstill.retrieval.options import RetrievalOptions
from potstill.retrieval.search import open_search
class Encoder:
    identity = "ones"
    def encode(self, texts):
        return np.ones((len(texts), 4), dtype=np.float32) / 2
cards = make_catalogue([Card("a/spam", "Spam messages", ""), Card("b/news", "News topics", "")])
found = open_search(cards, Encoder()).rank("news", RetrievalOptions())
print(*(cards.cards[item.position].id for item in found), "jax" in sys.modules)
"""


@pytest.mark.parametrize("first", ["", "import jax.lax\n"], ids=["jax unused", "jax in use by the caller"])
def test_the_word_search_leaves_an_installed_jax_alone(tmp_path: Path, first: str) -> None:
    """JAX takes three quarters of a GPU's memory at its first operation, and bm25s does one when it is imported."""
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text(FAKE_JAX)
    (tmp_path / "jax" / "lax.py").write_text(FAKE_JAX + "def top_k(*given):\n    open('top_k', 'w')\n")
    shown = subprocess.run(
        [sys.executable, "-c", f"{first}{SEARCH}import jax.lax\njax.lax.top_k"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "JAX_USES": str(tmp_path / "uses")},
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    assert shown.split() == ["b/news", "a/spam", str(bool(first))]
    assert not (tmp_path / "top_k").exists()
    # Only the program's own import, before or after the search, reaches it.
    assert (tmp_path / "uses").read_text().split() == ["jax", "jax.lax"]


def test_options_list_every_fault() -> None:
    with pytest.raises(OptionError) as caught:
        RetrievalOptions(top=0, fusion_dense=2.0, min_score=-3.0, rows_per_dataset=0, pins=("a/b", "a/b@1", "b@1"))
    assert len(caught.value.faults) == 6


@pytest.mark.real
def test_real_prompts_find_their_own_dataset_better_than_each_part_alone(data_pack: Path) -> None:
    from potstill.models import sentence_encoder

    tasks = read_catalogue([data_pack / "tasks"])
    ranks: dict[float, list[int]] = {0.0: [], 1.0: [], RetrievalOptions().fusion_dense: []}
    search = open_search(tasks, sentence_encoder())
    for position, card in enumerate(tasks.cards):
        prompt = json.loads((Path(card.location or "") / "card.json").read_text())["pack"]["task_prompt"]
        for share, found in ranks.items():
            order = [item.position for item in search.rank(prompt, RetrievalOptions(fusion_dense=share))]
            found.append(order.index(position) + 1)
    assert len(tasks.cards) == 17
    reciprocal = {share: float(np.mean([1 / rank for rank in found])) for share, found in ranks.items()}
    fused = reciprocal[RetrievalOptions().fusion_dense]
    assert fused >= 0.85
    assert fused >= min(reciprocal[0.0], reciprocal[1.0])
