"""Which FAISS index a number of vectors gets, and how each kind is made, grown and asked.

In: vectors of unit length. Out: FAISS indexes that answer with inner products, which are then cosines.

    flat    exact: every vector is looked at. float32, 1.5 KiB a card at 384 dimensions.
    hnsw    a graph over 8-bit vectors (Malkov & Yashunin, arXiv:1603.09320).
    ivfpq   cells around k-means centres; in them product codes of 4 bits for every two dimensions (Jégou et al.
            2011), scanned 32 at a time from registers (André et al., "Quicker ADC", 2019); the best by code are
            ordered again by 8-bit vectors.

`kind_for` chooses `flat` while that is fast and `ivfpq` above. `hnsw` is here because
`benchmarks/retrieval_scale.py` compares it; its table (docs/retrieval-search.md) is why it is not chosen: at a
million vectors it answers faster, but finds fewer of the neighbours and takes three times as long to build.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["flat", "hnsw", "ivfpq"]
KINDS: tuple[Kind, ...] = ("flat", "hnsw", "ivfpq")

FLAT_BELOW = 50_000
HNSW_LINKS = 16
HNSW_BUILD_DEPTH = 80
HNSW_SEARCH_DEPTH = 192
SAMPLES_PER_CELL = 40
REFINED = 30  # candidates by code, a hit wanted, that 8-bit vectors order again
MOST_REFINED = 3_000
# Cells are made anew when the collection has outgrown them this much (its size then grew by the square of it).
OUTGROWN = 4


def kind_for(count: int) -> Kind:
    """The kind for `count` vectors: exact while that is fast, cells above."""
    return "flat" if count < FLAT_BELOW else "ivfpq"


def cells_for(count: int) -> int:
    """Cells for `count` vectors: the power of two next to four times the square root, at least 16."""
    cells = 16
    while cells * 1.42 < 4 * count**0.5:
        cells *= 2
    return cells


def sample_size(kind: Kind, count: int) -> int:
    """Vectors that training a kind looks at."""
    return 0 if kind == "flat" else min(count, max(20_000, SAMPLES_PER_CELL * cells_for(count)))


def new_index(kind: Kind, dimension: int, count: int, sample: NDArray[np.float32]) -> Any:
    """An empty, trained FAISS index.

    Args:
        kind: What to make.
        dimension: Length of a vector.
        count: Vectors that it is going to hold; decides the cells.
        sample: (n, dimension) float32 to train on, `sample_size` of them drawn from all; any for `flat`.
    """
    import faiss

    product = faiss.METRIC_INNER_PRODUCT
    eight_bit: Any = faiss.ScalarQuantizer.QT_8bit
    if kind == "flat":
        return faiss.IndexFlatIP(dimension)
    if kind == "hnsw":
        hnsw: Any = faiss.IndexHNSWSQ(dimension, eight_bit, HNSW_LINKS, product)
        hnsw.hnsw.efConstruction = HNSW_BUILD_DEPTH
        hnsw.train(sample)
        return hnsw
    name = f"IVF{cells_for(count)},PQ{dimension // 2}x4fsr,Refine(SQ8)"
    index: Any = faiss.index_factory(dimension, name, product)
    # The centres are directions, as the vectors are: without this, long ones attract everything.
    cells = faiss.extract_index_ivf(index)
    cells.cp.spherical = True
    cells.cp.max_points_per_centroid = SAMPLES_PER_CELL
    cells.cp.min_points_per_centroid = 1
    index.train(sample)
    return index


def outgrown(index: Any, kind: Kind, count: int) -> bool:
    """Whether `count` vectors are too many for the cells of an index, so that it should be made anew."""
    import faiss

    return kind == "ivfpq" and cells_for(count) >= OUTGROWN * faiss.extract_index_ivf(index).nlist


def ready(index: Any, kind: Kind) -> Any:
    """The index, as FAISS read it, set up for search."""
    if kind == "ivfpq":
        import faiss

        cells = faiss.extract_index_ivf(index)
        # A quarter of a thousand cells, an eighth of four thousand: the larger, the nearer the neighbours.
        cells.nprobe = min(cells.nlist, round(8 * cells.nlist**0.5))
    return index


def search_index(
    index: Any, kind: Kind, vectors: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Inner products and rows of the `k` nearest, both (queries, k), best first; row -1 where fewer were found."""
    if kind == "hnsw":
        index.hnsw.efSearch = max(HNSW_SEARCH_DEPTH, k)
    elif kind == "ivfpq":
        index.k_factor = max(2.0, min(REFINED, MOST_REFINED / k))
    scores, rows = index.search(vectors, k)
    return scores, rows
