"""Index kinds at the Hub's size: build time, memory, latency and recall at 10 thousand, 100 thousand, a million cards.

    python benchmarks/retrieval_scale.py [--sizes 10000,100000,1000000] [--kinds flat,hnsw,ivfpq] [--folder /tmp/x]

The vectors are synthetic, 384 long, of unit length, clustered the way that embeddings of real cards are: topics of
very unequal size, in each topic subtopics, around each subtopic its cards, all with a falling spectrum (see
`make_vectors`). Queries are drawn from the same topics, never copied from a card. Ground truth is exact search.

Each index is made, written and closed; another process with one thread opens the file as the product does and asks
500 queries one by one. `ram_mib` is the peak of that whole process, Python and libraries included; `idle_mib` is
what it held before it opened the file. `chosen` marks the kind that the product takes at that size. `add_1000_s` is
the time to open the file, add 1,000 vectors and write it. A run adds to benchmarks/results/retrieval_scale.json and
replaces rows of the same size and kind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from results_file import print_table, read_results, write_results

from potstill.retrieval.index_files import StoredIndex, read_index, write_index
from potstill.retrieval.index_kinds import KINDS, Kind, kind_for, new_index, ready, sample_size, search_index

DIMENSION = 384
QUERIES = 500
_IDENTITY = "synthetic"
_PIECE = 20_000


def make_vectors(path: Path, count: int, seed: int = 0) -> Any:
    """`count` clustered unit vectors in a memory-mapped .npy file; the same for the same count and seed.

    Args:
        path: Where the file is, or is made.
        count: How many.
        seed: Of the cards; the topics are always the same.

    Returns:
        (count, 384) float32, read-only.
    """
    import numpy as np

    if not path.exists():
        topics = np.random.default_rng(7)
        spectrum = (1 + np.arange(DIMENSION)) ** -0.42
        spectrum /= np.linalg.norm(spectrum)
        mean = topics.normal(size=DIMENSION) * spectrum
        centres = topics.normal(size=(2_000, DIMENSION)) * spectrum
        inner = topics.normal(size=(2_000, 10, DIMENSION)) * spectrum
        shares = 1 / (10 + np.arange(2_000))
        shares /= shares.sum()
        rng = np.random.default_rng([seed, count])
        table = np.lib.format.open_memmap(path, "w+", np.float32, (count, DIMENSION))
        for start in range(0, count, _PIECE):
            size = min(_PIECE, count - start)
            topic = rng.choice(2_000, size=size, p=shares)
            rows = 1.0 * mean + 0.8 * centres[topic] + 0.7 * inner[topic, rng.integers(0, 10, size)]
            rows = rows + 1.1 * rng.normal(size=(size, DIMENSION)) * spectrum
            table[start : start + size] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        table.flush()
    return np.load(path, mmap_mode="r")


def exact(vectors: Any, queries: Any, k: int = 10) -> Any:
    """Rows of the k nearest of each query, by looking at all: (queries, k)."""
    import numpy as np

    best = np.full((len(queries), k), -np.inf, dtype=np.float32)
    rows = np.zeros((len(queries), k), dtype=np.int64)
    for start in range(0, len(vectors), _PIECE):
        fresh = queries @ np.asarray(vectors[start : start + _PIECE]).T
        numbers = np.broadcast_to(np.arange(start, start + fresh.shape[1]), fresh.shape)
        scores, numbers = np.concatenate([best, fresh], axis=1), np.concatenate([rows, numbers], axis=1)
        order = np.argpartition(-scores, k, axis=1)[:, :k]
        best, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
    return rows


def build(kind: Kind, vectors: Any, path: Path) -> float:
    """Make and write an index; returns seconds."""
    import numpy as np

    started = time.perf_counter()
    drawn = np.random.default_rng(0).permutation(len(vectors))[: sample_size(kind, len(vectors))]
    index = new_index(kind, DIMENSION, len(vectors), np.ascontiguousarray(vectors[np.sort(drawn)]))
    for start in range(0, len(vectors), _PIECE):
        index.add(np.ascontiguousarray(vectors[start : start + _PIECE]))
        if kind == "hnsw" and start % 100_000 == 0:
            print(f"  hnsw: {start:,} of {len(vectors):,}, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    keys = np.frombuffer(b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(len(vectors))), dtype="V32")
    write_index(path, StoredIndex(index, keys, kind), _IDENTITY)
    return time.perf_counter() - started


def add(path: Path, fresh: Any) -> float:
    """Open, add, write elsewhere; returns seconds."""
    import numpy as np

    started = time.perf_counter()
    stored = read_index(path, _IDENTITY)
    assert stored is not None
    stored.faiss_index.add(np.ascontiguousarray(fresh))
    more = np.frombuffer(b"".join(hashlib.sha256(f"new {i}".encode()).digest() for i in range(len(fresh))), dtype="V32")
    grown = path.with_suffix(".grown")
    write_index(grown, StoredIndex(stored.faiss_index, np.concatenate([stored.keys, more]), stored.kind), _IDENTITY)
    seconds = time.perf_counter() - started
    grown.unlink()
    return seconds


def ask(path: Path, queries_path: Path, truth_path: Path) -> dict[str, float]:
    """Open an index in this process and time single queries; the content of one record."""
    import faiss
    import numpy as np

    faiss.omp_set_num_threads(1)
    queries, truth = np.load(queries_path), np.load(truth_path)
    idle = _memory_mib("VmRSS")
    started = time.perf_counter()
    stored = read_index(path, _IDENTITY)
    assert stored is not None
    index = ready(stored.faiss_index, stored.kind)
    opened = time.perf_counter() - started
    times, right = [], 0
    for row in [*range(20), *range(len(queries))]:
        begun = time.perf_counter()
        _, found = search_index(index, stored.kind, queries[row : row + 1], 10)
        times.append(1000 * (time.perf_counter() - begun))
        right += len(set(found[0].tolist()) & set(truth[row].tolist())) if len(times) > 20 else 0
    p50, p99 = np.percentile(times[20:], (50, 99))
    return {
        "open_s": opened,
        "idle_mib": idle,
        "ram_mib": _memory_mib("VmHWM"),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "recall_at_10": right / (10 * len(queries)),
    }


def _memory_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


def measure(count: int, kinds: list[Kind], folder: Path) -> list[dict[str, Any]]:
    """Records of one size."""
    import numpy as np

    vectors = make_vectors(folder / f"vectors-{count}.npy", count)
    queries = np.array(make_vectors(folder / f"queries-{count}.npy", QUERIES, seed=1))
    fresh = make_vectors(folder / f"fresh-{count}.npy", 1_000, seed=2)
    if not (folder / f"truth-{count}.npy").exists():
        np.save(folder / f"truth-{count}.npy", exact(vectors, queries))
    records = []
    for kind in kinds:
        path = folder / f"{kind}-{count}.faiss"
        seconds = build(kind, vectors, path)
        names = [str(folder / f"{name}-{count}.npy") for name in ("queries", "truth")]
        told = subprocess.run(
            [sys.executable, __file__, "--ask", str(path), *names], check=True, stdout=subprocess.PIPE
        )
        record = {
            "n": count,
            "index": kind,
            "chosen": kind == kind_for(count),
            "build_s": seconds,
            **json.loads(told.stdout),
            "file_mib": path.stat().st_size / 2**20,
            "add_1000_s": add(path, fresh),
        }
        print(record, file=sys.stderr, flush=True)
        records.append(record)
        old = [r for r in read_results("retrieval_scale") if (r["n"], r["index"]) != (count, kind)]
        order = {name: place for place, name in enumerate(KINDS)}
        write_results("retrieval_scale", sorted([*old, record], key=lambda r: (r["n"], order.get(r["index"], 9))))
        path.unlink()
    return records


def main() -> None:
    """Measure, print the table, write the records."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--folder", type=Path, help="where vectors and indexes lie; 3 GB for a million")
    parser.add_argument("--ask", nargs=3, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        print(json.dumps(ask(*given.ask)))
        return
    kinds = [kind for kind in KINDS if kind in given.kinds.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for size in given.sizes.split(","):
            measure(int(size), kinds, folder)
    print_table(read_results("retrieval_scale"))


if __name__ == "__main__":
    main()
