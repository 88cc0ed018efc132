"""The files of an index: shards of embeddings, and a FAISS index with what it was made from.

Both are whole or absent (written beside, then renamed), and neither is believed: an embedding's shard carries the
archive's checksums, an index file opens with a sha256 over all that follows. FAISS trusts what it reads, so it is
given nothing before that sum agrees. An index is read and written as a stream, in pieces: a million cards make
half a gigabyte, which must not be held twice.

    index-*.faiss    magic line, sha256 (32 bytes), one line of JSON (identity, kind, dimension, count, bytes), the
                     keys of the texts (32 bytes each), FAISS's own bytes
    vectors-*.npz    keys, vectors, identity of the encoder
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from potstill.retrieval.index_kinds import KINDS, Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAGIC = b"potstill-index-2\n"
_PIECE = 1 << 20
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class StoredIndex:
    """A FAISS index as it lies on disk.

    Attributes:
        faiss_index: The index, as FAISS read it.
        keys: (n,) void of 32 bytes: sha256 of the text that each row holds.
        kind: Its kind.
    """

    faiss_index: Any
    keys: Any
    kind: Kind


def publish(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file by `write` so that it is whole or absent."""
    handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_index(path: Path, stored: StoredIndex, identity: str) -> None:
    """Write an index with its keys; `identity` is the encoder's."""
    faiss: Any = importlib.import_module("faiss")  # its type stubs lack the streams

    def write(file: IO[bytes]) -> None:
        keys = stored.keys.tobytes()
        about = {
            "identity": identity,
            "kind": stored.kind,
            "dimension": stored.faiss_index.d,
            "count": len(stored.keys),
        }
        head = json.dumps(about).encode() + b"\n"
        file.write(_MAGIC + bytes(_DIGEST))
        seen = hashlib.sha256(head + keys)
        file.write(head + keys)

        def take(piece: bytes) -> None:
            seen.update(piece)
            file.write(piece)

        faiss.write_index(stored.faiss_index, faiss.PyCallbackIOWriter(take, _PIECE))
        file.seek(len(_MAGIC))
        file.write(seen.digest())

    publish(path, write)


def read_index(path: Path, identity: str) -> StoredIndex | None:
    """The stored index; None where it is absent, cut short, damaged, or of another encoder."""
    import numpy as np

    faiss: Any = importlib.import_module("faiss")
    try:
        with path.open("rb") as file:
            about = _read_head(file, identity)
            if about is None:
                return None
            keys = np.frombuffer(file.read(about["count"] * 32), dtype="V32")
            index: Any = faiss.read_index(faiss.PyCallbackIOReader(lambda size: file.read(size), _PIECE))
        if index.ntotal != len(keys) or index.d != about["dimension"] or about["kind"] not in KINDS:
            return None
        return StoredIndex(index, keys, about["kind"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def _read_head(file: IO[bytes], identity: str) -> dict[str, Any] | None:
    """What the file says of itself, with `file` behind it; None where its sum or the encoder differ."""
    if file.readline(64) != _MAGIC:
        return None
    digest = file.read(_DIGEST)
    start = file.tell()
    seen = hashlib.sha256()
    while piece := file.read(_PIECE):
        seen.update(piece)
    if seen.digest() != digest:
        return None
    file.seek(start)
    about = json.loads(file.readline(10_000))
    return about if isinstance(about, dict) and about["identity"] == identity else None


def index_keys(path: Path) -> Any:
    """The keys that an index file says it holds, unchecked and without reading the rest; None where it has none."""
    import numpy as np

    try:
        with path.open("rb") as file:
            if file.readline(64) != _MAGIC:
                return None
            file.read(_DIGEST)
            count = json.loads(file.readline(10_000))["count"]
            return np.frombuffer(file.read(count * 32), dtype="V32")
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_shard(home: Path, keys: Sequence[bytes], vectors: NDArray[np.float32], identity: str) -> None:
    """Add a shard of embeddings; its name is the hash of its keys."""
    import numpy as np

    raw = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), 32)
    name = hashlib.sha256(raw.tobytes()).hexdigest()[:16]
    publish(
        home / f"vectors-{name}.npz",
        lambda file: np.savez(file, keys=raw, vectors=vectors.astype(np.float32), identity=np.array(identity)),
    )


def read_shard(
    path: Path, identity: str, wanted: Callable[[NDArray[np.uint8]], bool]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
    """Keys (n, 32) and vectors (n, dimension) of a shard.

    Args:
        path: The file.
        identity: The encoder's.
        wanted: Told the keys; says whether the vectors are to be read at all.

    Returns:
        None where nothing of it is wanted; or where it is damaged or another encoder's, and then it is deleted.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as shard:  # the archive carries a checksum of each array
            keys, made_by = shard["keys"], str(shard["identity"])
            if keys.dtype == np.uint8 and keys.ndim == 2 and keys.shape[1] == 32 and made_by == identity:
                if not wanted(keys):
                    return None
                vectors = shard["vectors"]
                if vectors.dtype == np.float32 and vectors.ndim == 2 and len(keys) == len(vectors):
                    return keys, vectors
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    path.unlink(missing_ok=True)
    return None
