"""Embeddings of cards on disk, and a FAISS index over them.

In: texts of cards and an encoder. Out: a `CardIndex` that answers with cosine similarities. Two things are kept under
`cache_folder()/indexes/<encoder>`:

- `vectors-*.npz`: embeddings by the sha256 of their text, in shards that are only ever added; a card that was
  embedded once is never embedded again, whichever catalogue it comes in;
- `index-*.faiss`: an index for one set of texts, with its keys and a checksum before the bytes that FAISS reads.
  FAISS trusts the files it reads, so none is handed to it before its checksum agrees.

A flat index is exact and fast enough below 50,000 cards; above, HNSW over 8-bit vectors (Malkov & Yashunin,
arXiv:1603.09320) answers in milliseconds, and new cards are added to the largest index whose cards they join.
Files of another encoder lie in another folder and name it inside as well; whatever is cut short is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from potstill.events import Event, Listener, silent
from potstill.models import cache_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLAT_BELOW = 50_000
HNSW_LINKS = 16
HNSW_BUILD_DEPTH = 120
HNSW_SEARCH_DEPTH = 128
_MAGIC = b"potstill-index-1\n"
_SHARD_ROWS = 4_096  # what a killed process has to embed again, at most


class Encoder(Protocol):
    """Turns texts into unit vectors; `identity` changes when the vectors would."""

    @property
    def identity(self) -> str: ...

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """(len(texts), dimension) float32, unit length."""
        ...


@dataclass(frozen=True)
class CardIndex:
    """An index over texts; position i of every answer is the i-th text that it was opened with.

    Attributes:
        faiss_index: The FAISS index.
        order: (n,) int64, position of the text that each row of the index holds.
        rows: (n,) int64, the inverse of `order`.
        kind: `flat` or `hnsw`.
        embedded: Texts that had to be embedded now.
    """

    faiss_index: Any
    order: NDArray[np.int64]
    rows: NDArray[np.int64]
    kind: str
    embedded: int = 0

    def search(self, vectors: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The nearest texts of each vector.

        Args:
            vectors: (queries, dimension) float32, unit length.
            k: Hits a query; cut to the number of texts.

        Returns:
            Cosine similarities and positions, both (queries, k), best first; position -1 where HNSW found fewer.
        """
        import numpy as np

        k = min(k, len(self.order))
        if k == 0:
            empty = (len(vectors), 0)
            return np.zeros(empty, dtype=np.float32), np.zeros(empty, dtype=np.int64)
        if self.kind == "hnsw":
            import faiss

            downcast: Any = faiss.downcast_index
            downcast(self.faiss_index).hnsw.efSearch = max(HNSW_SEARCH_DEPTH, k)
        scores, found = self.faiss_index.search(np.ascontiguousarray(vectors, dtype=np.float32), k)
        return scores, np.where(found >= 0, self.order[found], -1)

    def vectors(self, positions: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings of the texts at `positions`: (len(positions), dimension) float32 (8-bit exact for HNSW)."""
        import numpy as np

        rows = self.rows[np.asarray(positions, dtype=np.int64)]
        found: NDArray[np.float32] = self.faiss_index.reconstruct_batch(rows)
        return found


def open_index(
    texts: Sequence[str], encoder: Encoder, *, folder: Path | None = None, listener: Listener = silent
) -> CardIndex:
    """Open the index over `texts`, or make it, embedding only texts that were never embedded by this encoder.

    Args:
        texts: What is searched; equal texts share one embedding.
        encoder: Gives the vectors.
        folder: Where indexes rest; None takes `cache_folder()/indexes`.
        listener: Hears how many texts are embedded.
    """
    import numpy as np

    home = (folder or cache_folder() / "indexes") / hashlib.sha256(encoder.identity.encode()).hexdigest()[:16]
    home.mkdir(parents=True, exist_ok=True)
    keys = np.frombuffer(b"".join(_key(text) for text in texts), dtype="V32") if texts else np.zeros(0, dtype="V32")
    wanted = hashlib.sha256(np.sort(keys.view("S32")).tobytes()).hexdigest()[:16] if len(keys) else "empty"
    path = home / f"index-{wanted}.faiss"
    stored = _read_index(path, encoder.identity)
    embedded = 0
    if stored is None or len(stored[1]) != len(keys):
        stored, embedded = _build(home, path, texts, keys, encoder, listener)
    faiss_index, held = stored
    order = _positions(keys, held)
    rows = np.empty_like(order)
    rows[order] = np.arange(len(order))
    return CardIndex(faiss_index, order, rows, _kind(len(keys)), embedded)


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _kind(count: int) -> str:
    return "flat" if count < FLAT_BELOW else "hnsw"


def _positions(keys: Any, held: Any) -> NDArray[np.int64]:
    """Position in `keys` of each of `held`, the same keys in another order; equal keys are paired one by one."""
    import numpy as np

    ours = np.argsort(keys.view("S32").astype("S32"), kind="stable")
    theirs = np.argsort(held.view("S32").astype("S32"), kind="stable")
    order = np.empty(len(keys), dtype=np.int64)
    order[theirs] = ours
    return order


def _build(
    home: Path, path: Path, texts: Sequence[str], keys: Any, encoder: Encoder, listener: Listener
) -> tuple[tuple[Any, Any], int]:
    import faiss
    import numpy as np

    base = _largest_part(home, keys, encoder.identity) if _kind(len(keys)) == "hnsw" else None
    missing = np.arange(len(keys))
    if base is not None:
        missing = _not_in(keys, base[1])
    vectors, embedded = _embeddings(home, texts, keys, missing, encoder, listener)
    held = keys[missing]
    if base is not None:
        index, held = base[0], np.concatenate([base[1], held])
    elif _kind(len(keys)) == "flat":
        index = faiss.IndexFlatIP(vectors.shape[1])
    else:
        eight_bit: Any = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexHNSWSQ(vectors.shape[1], eight_bit, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_BUILD_DEPTH
        index.train(vectors[:: max(1, len(vectors) // 100_000)])
    if len(vectors):
        index.add(vectors)
    _write_index(path, index, held, encoder.identity)
    return (index, held), embedded


def _not_in(keys: Any, held: Any) -> NDArray[np.int64]:
    """Positions of `keys` that `held` lacks, counting equal keys."""
    left: dict[bytes, int] = {}
    for key in held.tolist():
        left[bytes(key)] = left.get(bytes(key), 0) + 1
    import numpy as np

    missing = []
    for position, key in enumerate(keys.tolist()):
        if left.get(bytes(key), 0) > 0:
            left[bytes(key)] -= 1
        else:
            missing.append(position)
    return np.asarray(missing, dtype=np.int64)


def _largest_part(home: Path, keys: Any, identity: str) -> tuple[Any, Any] | None:
    """The largest stored HNSW whose texts are all wanted, so that only the rest must be added."""
    wanted: dict[bytes, int] = {}
    for key in keys.tolist():
        wanted[bytes(key)] = wanted.get(bytes(key), 0) + 1
    for path in sorted(home.glob("index-*.faiss"), key=lambda p: -p.stat().st_size):
        stored = _read_index(path, identity)
        if stored is None or not FLAT_BELOW <= len(stored[1]) <= len(keys):
            continue
        counts: dict[bytes, int] = {}
        for key in stored[1].tolist():
            counts[bytes(key)] = counts.get(bytes(key), 0) + 1
        if all(wanted.get(key, 0) >= count for key, count in counts.items()):
            return stored
    return None


def _embeddings(
    home: Path, texts: Sequence[str], keys: Any, wanted: NDArray[np.int64], encoder: Encoder, listener: Listener
) -> tuple[NDArray[np.float32], int]:
    """Vectors of `texts[wanted]`, from the shards or the encoder; new ones are written as a shard."""
    import numpy as np

    where: dict[bytes, list[int]] = {}
    for place, position in enumerate(wanted.tolist()):
        where.setdefault(bytes(keys[position].tobytes()), []).append(place)
    vectors: NDArray[np.float32] | None = None
    for path in sorted(home.glob("vectors-*.npz")):
        if not where:
            break
        shard = _read_shard(path, encoder.identity)
        if shard is None:
            continue
        if vectors is None:
            vectors = np.zeros((len(wanted), shard[1].shape[1]), dtype=np.float32)
        if shard[1].shape[1] != vectors.shape[1]:
            path.unlink(missing_ok=True)
            continue
        for row, key in enumerate(shard[0]):
            for place in where.pop(key.tobytes(), ()):
                vectors[place] = shard[1][row]
    todo = list(where.items())
    for start in range(0, len(todo), _SHARD_ROWS):
        part = todo[start : start + _SHARD_ROWS]
        listener(Event("retrieval", "progress", "embedding dataset cards", start, len(todo)))
        fresh = _encode(encoder, [texts[int(wanted[places[0]])] for _, places in part], start, len(todo), listener)
        if vectors is None or vectors.shape[1] != fresh.shape[1]:
            vectors = np.zeros((len(wanted), fresh.shape[1]), dtype=np.float32)
        _write_shard(home, [key for key, _ in part], fresh, encoder.identity)
        for row, (_, places) in enumerate(part):
            vectors[places] = fresh[row]
    if vectors is None:
        vectors = np.zeros((len(wanted), encoder.encode(["empty"]).shape[1]), dtype=np.float32)
    return vectors, len(todo)


def _encode(encoder: Encoder, texts: list[str], done: int, total: int, listener: Listener) -> NDArray[np.float32]:
    import numpy as np

    parts = []
    for start in range(0, len(texts), 1024):
        parts.append(encoder.encode(texts[start : start + 1024]))
        listener(Event("retrieval", "progress", "embedding dataset cards", done + start + len(parts[-1]), total))
    return np.concatenate(parts)


def _publish(path: Path, blobs: Sequence[bytes]) -> None:
    """Write a file so that it is whole or absent."""
    handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for blob in blobs:
                file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _write_shard(home: Path, keys: Sequence[bytes], vectors: NDArray[np.float32], identity: str) -> None:
    import io

    import numpy as np

    buffer = io.BytesIO()
    raw = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), 32)
    np.savez(buffer, keys=raw, vectors=vectors.astype(np.float32), identity=np.array(identity))
    name = hashlib.sha256(raw.tobytes()).hexdigest()[:16]
    _publish(home / f"vectors-{name}.npz", [buffer.getvalue()])


def _read_shard(path: Path, identity: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
    """Keys and vectors; None, and the file gone, where it is damaged or another encoder's."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as shard:  # the archive carries a checksum of each array
            keys, vectors, made_by = shard["keys"], shard["vectors"], str(shard["identity"])
        sound = keys.dtype == np.uint8 and keys.ndim == 2 and keys.shape[1] == 32 and vectors.dtype == np.float32
        if sound and vectors.ndim == 2 and len(keys) == len(vectors) and made_by == identity:
            return keys, vectors
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    path.unlink(missing_ok=True)
    return None


def _write_index(path: Path, index: Any, held: Any, identity: str) -> None:
    import faiss

    body = faiss.serialize_index(index).tobytes()
    keys = held.tobytes()
    head = json.dumps({"identity": identity, "count": len(held), "bytes": len(body)}).encode() + b"\n"
    digest = hashlib.sha256(head)
    digest.update(keys)
    digest.update(body)
    _publish(path, [_MAGIC, digest.digest(), head, keys, body])


def _read_index(path: Path, identity: str) -> tuple[Any, Any] | None:
    """The index and its keys; None where it is absent, damaged or another encoder's."""
    import faiss
    import numpy as np

    try:
        with path.open("rb") as file:
            if file.readline(64) != _MAGIC:
                return None
            digest = file.read(32)
            head = file.readline(10_000)
            about = json.loads(head)
            rest = file.read()
        seen = hashlib.sha256(head)
        seen.update(rest)
        if seen.digest() != digest or about["identity"] != identity:
            return None
        split = about["count"] * 32
        keys = np.frombuffer(rest[:split], dtype="V32")
        index = faiss.deserialize_index(np.frombuffer(rest, dtype=np.uint8, offset=split))
        return (index, keys) if index.ntotal == len(keys) else None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None
