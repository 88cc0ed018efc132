"""The index on disk: exact answers, nothing embedded twice, and files that cannot be trusted are made again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from potstill.errors import DataError
from potstill.retrieval import index_kinds
from potstill.retrieval.index import open_index


class HashEncoder:
    """Random unit vectors, the same for the same text; counts what it was asked."""

    def __init__(self, identity: str = "hash-1", dimension: int = 16):
        self.identity, self.dimension, self.asked = identity, dimension, list[str]()

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        self.asked += texts
        seeds = [int.from_bytes(hashlib.sha256((self.identity + t).encode()).digest()[:8], "big") for t in texts]
        rows = [np.random.default_rng(seed).normal(size=self.dimension) for seed in seeds]
        vectors = np.array(rows, dtype=np.float32).reshape(len(texts), self.dimension)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def texts(count: int, start: int = 0) -> list[str]:
    return [f"text {i}" for i in range(start, start + count)]


def brute_force(encoder: HashEncoder, corpus: list[str], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    scores = queries @ encoder.encode(corpus).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def test_answers_are_those_of_brute_force(tmp_path: Path) -> None:
    encoder = HashEncoder()
    corpus = texts(300)
    index = open_index(corpus, encoder, folder=tmp_path)
    queries = HashEncoder("other").encode(texts(20, 5000))
    scores, found = index.search(queries, 10)
    assert index.kind == "flat"
    np.testing.assert_array_equal(found, brute_force(encoder, corpus, queries, 10))
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ encoder.encode(corpus).T, found, 1), atol=1e-5)
    np.testing.assert_allclose(index.vectors([7, 3]), encoder.encode([corpus[7], corpus[3]]), atol=1e-6)


def test_nothing_is_embedded_twice(tmp_path: Path) -> None:
    encoder = HashEncoder()
    assert open_index(texts(50), encoder, folder=tmp_path).embedded == 50
    again = HashEncoder()
    assert open_index(texts(50), again, folder=tmp_path).embedded == 0
    assert again.asked == []
    grown = open_index(texts(60), again, folder=tmp_path)
    assert grown.embedded == 10
    assert again.asked == texts(10, 50)


def test_the_order_of_the_texts_does_not_matter_to_the_file(tmp_path: Path) -> None:
    encoder = HashEncoder()
    corpus = [*texts(40), "text 3", "text 3"]
    open_index(corpus, encoder, folder=tmp_path)
    turned = corpus[::-1]
    index = open_index(turned, encoder, folder=tmp_path)
    assert index.embedded == 0
    assert len(list(tmp_path.glob("*/index-*.faiss"))) == 1
    _, found = index.search(encoder.encode(["text 17"]), 1)
    assert turned[found[0, 0]] == "text 17"
    assert {turned[i] for i in index.search(encoder.encode(["text 3"]), 3)[1][0]} == {"text 3"}


def test_fewer_texts_than_hits_and_none_at_all(tmp_path: Path) -> None:
    encoder = HashEncoder()
    assert open_index(texts(3), encoder, folder=tmp_path).search(encoder.encode(["q"]), 10)[1].shape == (1, 3)
    assert open_index([], encoder, folder=tmp_path).search(encoder.encode(["q"]), 10)[1].shape == (1, 0)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "garbage"])
@pytest.mark.parametrize("pattern", ["*/index-*.faiss", "*/vectors-*.npz", "*/*"])
def test_damaged_files_are_made_again(damage: str, pattern: str, tmp_path: Path) -> None:
    encoder = HashEncoder()
    corpus = texts(200)
    open_index(corpus, encoder, folder=tmp_path)
    damaged = list(tmp_path.glob(pattern))
    assert damaged
    for path in damaged:
        blob = bytearray(path.read_bytes())
        if damage == "truncate":
            blob = blob[: len(blob) // 2]
        elif damage == "flip":
            blob[len(blob) // 2] ^= 0xFF
        else:
            blob = bytearray() if damage == "empty" else bytearray(b"\x00garbage" * 500)
        path.write_bytes(bytes(blob))
    queries = encoder.encode(texts(5, 900))
    for _ in range(2):
        _, found = open_index(corpus, encoder, folder=tmp_path).search(queries, 5)
        np.testing.assert_array_equal(found, brute_force(encoder, corpus, queries, 5))
    # The second time everything is sound again.
    assert open_index(corpus, encoder, folder=tmp_path).embedded == 0


def test_files_of_another_encoder_are_never_used(tmp_path: Path) -> None:
    first, second = HashEncoder("one"), HashEncoder("two", dimension=8)
    open_index(texts(30), first, folder=tmp_path)
    open_index(texts(30), second, folder=tmp_path)
    homes = sorted(tmp_path.iterdir())
    assert len(homes) == 2
    for path in homes[0].iterdir():  # a file that was copied into the wrong folder
        (homes[1] / path.name).write_bytes(path.read_bytes())
    for encoder in (first, second):
        _, found = open_index(texts(30), encoder, folder=tmp_path).search(encoder.encode(["text 12"]), 1)
        assert found[0, 0] == 12


def test_vectors_of_another_length_are_made_again_or_refused(tmp_path: Path) -> None:
    open_index(texts(30), HashEncoder("one", 8), folder=tmp_path)
    changed = HashEncoder("one", 16)  # the same name, other weights
    with pytest.raises(DataError, match="vectors of 16 numbers, the index holds 8; delete "):
        open_index(texts(30), changed, folder=tmp_path).search(changed.encode(["text 3"]), 1)
    grown = open_index(texts(40), changed, folder=tmp_path)
    assert grown.embedded == 40
    assert grown.search(changed.encode(["text 3"]), 1)[1].tolist() == [[3]]


def test_a_large_catalogue_takes_cells_and_grows_without_a_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_kinds, "FLAT_BELOW", 1_000)
    encoder = HashEncoder(dimension=32)
    corpus = texts(3_000)
    built = open_index(corpus, encoder, folder=tmp_path)
    assert built.kind == "ivfpq"
    queries = HashEncoder("other", dimension=32).encode(texts(50, 9000))
    oracle = brute_force(encoder, corpus, queries, 10)
    _, found = built.search(queries, 10)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, oracle)]) > 0.9

    grown_corpus = [*texts(100, 5_000), *corpus]
    adder = HashEncoder(dimension=32)
    grown = open_index(grown_corpus, adder, folder=tmp_path)
    assert sorted(adder.asked) == sorted(texts(100, 5_000))
    assert grown.faiss_index.ntotal == 3_100
    # The old rows lie where they lay: new ones were added behind them.
    assert (np.sort(grown.order[:3_000]) == np.arange(100, 3_100)).all()
    _, found = grown.search(encoder.encode(["text 5042", "text 2042"]), 1)
    assert [grown_corpus[i] for i in found[:, 0]] == ["text 5042", "text 2042"]


@pytest.mark.real
def test_with_the_real_encoder(tmp_path: Path) -> None:
    from potstill.models import sentence_encoder

    corpus = ["reviews of films", "chemical reactions", "football results"]
    index = open_index(corpus, sentence_encoder(), folder=tmp_path)
    _, found = index.search(sentence_encoder().encode(["what people thought of a movie", "sports scores"]), 1)
    assert found[:, 0].tolist() == [0, 2]


@pytest.mark.real
def test_the_encoder_loads_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sentence_transformers

    from potstill import models

    made, whole = list[str](), sentence_transformers.SentenceTransformer

    def counting(folder: str, **options: Any) -> Any:
        made.append(folder)
        return whole(folder, **options)

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", counting)
    models._encoder.cache_clear()
    for number in range(3):
        index = open_index([f"text {number}", "another"], models.sentence_encoder(), folder=tmp_path)
        index.search(models.sentence_encoder(models.MINILM).encode(["a query"]), 1)
    assert len(made) == 1
