"""Embeddings of cards on disk, and a FAISS index over them.

In: texts of cards and an encoder. Out: a `CardIndex` that answers with cosine similarities. Two things are kept under
`cache_folder()/indexes/<encoder>`:

- `vectors-*.npz`: embeddings by the sha256 of their text, in shards that are only ever added; a card that was
  embedded once is never embedded again, whichever catalogue it comes in;
- `index-*.faiss`: an index for one set of texts, with its keys.

The kind is chosen by size (`index_kinds.kind_for`). Above the size where it is exact, new cards are added to the
largest index whose cards they join, and nothing else is built. Files of another encoder lie in another folder and
name it inside as well; whatever is cut short, or has vectors of another length, is made again (`index_files`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from potstill.errors import DataError
from potstill.events import Event, Listener, silent
from potstill.models import TextEncoder, cache_folder, document_vectors
from potstill.retrieval.index_files import (
    StoredIndex,
    index_keys,
    read_index,
    read_shard,
    write_index,
    write_shard,
)
from potstill.retrieval.index_kinds import (
    Kind,
    kind_for,
    new_index,
    outgrown,
    ready,
    sample_size,
    search_index,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHARD_ROWS = 4_096  # what a killed process has to embed again, at most
_ADD_ROWS = 50_000  # vectors that are held at once while a large index is built


class Encoder(TextEncoder, Protocol):
    """Turns texts into unit vectors; `identity` changes when the vectors would."""

    @property
    def identity(self) -> str: ...


@dataclass(frozen=True)
class CardIndex:
    """An index over texts; position i of every answer is the i-th text that it was opened with.

    Attributes:
        faiss_index: The FAISS index.
        order: (n,) int64, position of the text that each row of the index holds.
        rows: (n,) int64, the inverse of `order`.
        kind: Its kind; see `index_kinds`.
        embedded: Texts that had to be embedded now.
    """

    faiss_index: Any
    order: NDArray[np.int64]
    rows: NDArray[np.int64]
    kind: Kind
    embedded: int = 0

    def search(self, vectors: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The nearest texts of each vector.

        Args:
            vectors: (queries, dimension) float32, unit length.
            k: Hits a query; cut to the number of texts.

        Returns:
            Cosine similarities and positions, both (queries, k), best first; position -1 where fewer were found.

        Raises:
            DataError: The vectors are of another length than those of the index.
        """
        import numpy as np

        if len(self.order) and vectors.shape[1] != self.faiss_index.d:
            raise DataError(
                f"the encoder gives vectors of {vectors.shape[1]} numbers, the index holds {self.faiss_index.d}; "
                f"delete {cache_folder() / 'indexes'} and search again"
            )
        k = min(k, len(self.order))
        if k == 0:
            empty = (len(vectors), 0)
            return np.zeros(empty, dtype=np.float32), np.zeros(empty, dtype=np.int64)
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        scores, found = search_index(self.faiss_index, self.kind, queries, k)
        return scores, np.where(found >= 0, self.order[found], -1)

    def vectors(self, positions: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings of the texts at `positions`: (len(positions), dimension) float32 (8 bits exact unless flat)."""
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
    stored = read_index(path, encoder.identity)
    embedded = 0
    if stored is None or len(stored.keys) != len(keys):
        stored, embedded = _build(home, path, texts, keys, encoder, listener)
    order = _positions(keys, stored.keys)
    rows = np.empty_like(order)
    rows[order] = np.arange(len(order))
    return CardIndex(ready(stored.faiss_index, stored.kind), order, rows, stored.kind, embedded)


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _positions(keys: Any, held: Any) -> NDArray[np.int64]:
    """Position in `keys` of each of `held`, the same keys in another order; equal keys are paired one by one."""
    import numpy as np

    order = np.empty(len(keys), dtype=np.int64)
    order[_sorted_places(held)] = _sorted_places(keys)
    return order


def _sorted_places(keys: Any) -> NDArray[np.int64]:
    """The permutation that sorts keys of 32 bytes."""
    import numpy as np

    # Four numbers compare faster than 32 bytes, and bytes with zeros at the end are cut by numpy's own text type.
    parts = np.ascontiguousarray(keys).view(">u8").reshape(-1, 4)
    places: NDArray[np.int64] = np.lexsort((parts[:, 3], parts[:, 2], parts[:, 1], parts[:, 0]))
    return places


def _build(
    home: Path, path: Path, texts: Sequence[str], keys: Any, encoder: Encoder, listener: Listener
) -> tuple[StoredIndex, int]:
    """Make the index over `texts`, from the largest part of it that is there already, and write it."""
    import numpy as np

    kind = kind_for(len(keys))
    base = None if kind == "flat" else _largest_part(home, keys, encoder.identity)
    missing = np.arange(len(keys)) if base is None else _not_in(keys, base.keys)
    embedded = _embed_missing(home, texts, keys, missing, encoder, listener)
    if base is not None:
        index, kind = base.faiss_index, base.kind
    else:
        drawn = np.random.default_rng(0).permutation(len(keys))[: max(1, sample_size(kind, len(keys)))]
        sample = _vectors(home, keys, np.sort(drawn), encoder)
        index = new_index(kind, sample.shape[1], len(keys), sample)
    for start in range(0, len(missing), _ADD_ROWS):
        listener(Event("retrieval", "progress", "indexing dataset cards", start, len(missing)))
        index.add(_vectors(home, keys, missing[start : start + _ADD_ROWS], encoder))
    held = keys[missing] if base is None else np.concatenate([base.keys, keys[missing]])
    stored = StoredIndex(index, held, kind)
    write_index(path, stored, encoder.identity)
    return stored, embedded


def _not_in(keys: Any, held: Any) -> NDArray[np.int64]:
    """Positions of `keys` that `held` lacks, counting equal keys."""
    import numpy as np

    left: dict[bytes, int] = {}
    for key in held.tolist():
        left[key] = left.get(key, 0) + 1
    missing = []
    for position, key in enumerate(keys.tolist()):
        if left.get(key, 0) > 0:
            left[key] -= 1
        else:
            missing.append(position)
    return np.asarray(missing, dtype=np.int64)


def _largest_part(home: Path, keys: Any, identity: str) -> StoredIndex | None:
    """The largest stored index with cells or a graph whose texts are all wanted, so that only the rest is added."""
    import numpy as np

    for path in sorted(home.glob("index-*.faiss"), key=lambda p: -p.stat().st_size):
        held = index_keys(path)
        if held is None or kind_for(len(held)) == "flat" or len(held) > len(keys):
            continue
        if len(keys) - len(_not_in(keys, held)) != len(held):
            continue  # it holds texts that are not wanted
        stored = read_index(path, identity)
        if stored is not None and stored.kind != "flat" and not outgrown(stored.faiss_index, stored.kind, len(keys)):
            return StoredIndex(stored.faiss_index, np.array(stored.keys), stored.kind)
    return None


def _embed_missing(
    home: Path, texts: Sequence[str], keys: Any, wanted: NDArray[np.int64], encoder: Encoder, listener: Listener
) -> int:
    """Embed those of `texts[wanted]` that no shard holds, and write them as shards; returns how many."""
    import numpy as np

    first: dict[bytes, int] = {}
    for position in wanted.tolist():
        first.setdefault(keys[position].tobytes(), position)
    held: dict[Path, int] = {}
    for path in sorted(home.glob("vectors-*.npz")):
        if not first:
            break
        # The vectors are read too, although only the keys are wanted: a broken shard must show here.
        shard = read_shard(path, encoder.identity, lambda known: any(key.tobytes() in first for key in known))
        if shard is None:
            continue
        held[path] = shard[1].shape[1]
        for key in shard[0]:
            first.pop(key.tobytes(), None)
    todo = list(first.items())
    dimension = next(iter(held.values()), 0)
    for start in range(0, len(todo), _SHARD_ROWS):
        part = todo[start : start + _SHARD_ROWS]
        listener(Event("retrieval", "progress", "embedding dataset cards", start, len(todo)))
        fresh = _encode(encoder, [texts[position] for _, position in part], start, len(todo), listener)
        write_shard(home, [key for key, _ in part], np.asarray(fresh, dtype=np.float32), encoder.identity)
        dimension = fresh.shape[1]
    # Vectors of another length cannot be this encoder's, whatever their file says.
    foreign = [path for path, length in held.items() if length != dimension]
    for path in foreign:
        path.unlink(missing_ok=True)
    return len(todo) + (_embed_missing(home, texts, keys, wanted, encoder, listener) if foreign else 0)


def _vectors(home: Path, keys: Any, wanted: NDArray[np.int64], encoder: Encoder) -> NDArray[np.float32]:
    """(len(wanted), dimension) float32: the embeddings of `keys[wanted]`, all of which lie in shards."""
    import numpy as np

    places: dict[bytes, list[int]] = {}
    for place, position in enumerate(wanted.tolist()):
        places.setdefault(keys[position].tobytes(), []).append(place)
    vectors: NDArray[np.float32] | None = None
    for path in sorted(home.glob("vectors-*.npz")):
        if not places:
            break
        shard = read_shard(path, encoder.identity, lambda held: any(key.tobytes() in places for key in held))
        if shard is None:
            continue
        if vectors is None:
            vectors = np.zeros((len(wanted), shard[1].shape[1]), dtype=np.float32)
        for row, key in enumerate(shard[0]):
            for place in places.pop(key.tobytes(), ()):
                vectors[place] = shard[1][row]
    return np.zeros((0, encoder.encode(["length"]).shape[1]), dtype=np.float32) if vectors is None else vectors


def _encode(encoder: Encoder, texts: list[str], done: int, total: int, listener: Listener) -> NDArray[np.float32]:
    import numpy as np

    parts = []
    for start in range(0, len(texts), 1024):
        parts.append(document_vectors(encoder, texts[start : start + 1024]))
        listener(Event("retrieval", "progress", "embedding dataset cards", done + start + len(parts[-1]), total))
    return np.concatenate(parts)
