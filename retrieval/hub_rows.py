"""Rows of a dataset on the Hub: a sample by range requests, never a whole download, never its code.

In: an id, a split, a configuration. Out: a `Sample`. Parquet is read as a local file is: row groups spread over the
whole, so that a file sorted by label gives all its labels. Other formats are streamed and give their first rows. Of a
dataset that only a script could load, the Parquet is read that the Hub made of it (`hub_conversion`); where there is
none, and of a gated dataset, the reason is said.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from typing import Any

from potstill.errors import DataError, UnreachableError
from potstill.hub_way import hub_unreachable
from potstill.retrieval.cards import CardFault, check_id
from potstill.retrieval.configs import SeveralConfigsError, chosen_split
from potstill.retrieval.hub_conversion import find_conversion, look_up
from potstill.retrieval.hub_patience import BUSY, patience
from potstill.retrieval.sampling import Sample, flat, is_media, sample_parquet
from potstill.task import REVISION

# Between attempts at a dataset where the Hub is busy: a moment's 502 must not cost the run a dataset.
_PAUSES_S = (1.0, 4.0)
_MOST_FILES = 16
_SCRIPT = "scripts are no longer supported"
_NO_CONFIG = "Config name is missing"
# What the client raises where the way to the Hub breaks off; the names, since they are of several libraries.
_NO_WAY = {"ConnectionError", "TransportError", "TimeoutError", "OfflineModeIsEnabled"}


def open_hub(
    name: str,
    split: str | None,
    config: str | None,
    limit: int | None,
    revision: str | None = None,
    *,
    training: bool = False,
) -> Sample:
    """Sample one split of a Hub dataset.

    Args:
        name: `user/name`.
        split: Split; None takes the one that `chosen_split` tells.
        config: Configuration; None takes the default one.
        limit: Rows wanted; None reads all.
        revision: Commit, tag or branch; None takes the dataset as it is now. A commit gives the same rows every time.
        training: Whether it is learnt from.

    Raises:
        UnreachableError: There is no way to the Hub.
        DataError: Gated, script only and not converted by the Hub, no such split or revision, or not readable.
    """
    try:
        check_id(name)
    except CardFault as fault:
        raise DataError(f"no data at {name[:80]!r} and no Hub id: {fault}") from None
    called = name if revision is None else f"{name}@{revision}"
    if revision is not None and not REVISION.fullmatch(revision):
        raise DataError(f"{called[:120]!r}: after '@' stands a commit, a tag or a branch")
    if reason := hub_unreachable():
        raise UnreachableError(f"{called} is a dataset of the Hub, which cannot be reached: {reason}")
    with patience(called):
        for pause_s in (*_PAUSES_S, None):
            try:
                return _opened(name, split, config, limit, revision, training)
            except Exception as error:  # the client raises many kinds; what does not load is left out, not fatal
                busy = _status(error) in BUSY or _status(error) >= 500
                if isinstance(error, UnreachableError) or (isinstance(error, DataError) and not busy):
                    raise
                if busy and pause_s is not None:
                    time.sleep(pause_s)
                    continue
                away = busy or _NO_WAY & {part.__name__ for part in type(error).__mro__}
                raise (UnreachableError if away else DataError)(_reason(called, error)) from None
    raise AssertionError("the last attempt returns or raises")


def _opened(
    name: str, split: str | None, config: str | None, limit: int | None, revision: str | None, training: bool
) -> Sample:
    from datasets import get_dataset_config_names, load_dataset_builder

    commit, converted = (None, None) if revision in (None, "main") else look_up(name, str(revision))
    if converted is None:
        try:
            builder = load_dataset_builder(name, config, revision=commit)
        except Exception as error:
            if config is None and _NO_CONFIG in str(error):
                raise SeveralConfigsError(name, get_dataset_config_names(name, revision=commit)) from None
            converted = find_conversion(name) if _holds_no_files(error) else None
            if converted is None:
                raise
            if commit is not None:  # the branch does not say which commit of the dataset it was made of
                raise DataError(
                    f"{name}@{revision} holds no file that can be read without its script; what the Hub made of it "
                    f"can: {name}@{converted.commit}"
                ) from None
    if converted is not None:
        found = converted.files(split, config, training)
        sample = _parquet(found.paths, limit)
        total = sample.total if found.whole else 0
        return replace(sample, total=total, commit=converted.commit, split=found.split)
    at = re.match(r"hf://datasets/[^@]+@([0-9a-f]{40})(?:/|$)", str(builder.base_path))
    if commit is not None and (at is None or at[1] != commit):  # a copy in the library's cache, of whatever commit
        raise UnreachableError(f"{name}@{revision} cannot be read from the Hub now; try again")
    return replace(_read(name, builder, split, limit, training), commit=at[1] if at else None)


def _read(name: str, builder: Any, split: str | None, limit: int | None, training: bool) -> Sample:
    """A split of what the library found in a dataset."""
    files = {str(key): [str(path) for path in found] for key, found in (builder.config.data_files or {}).items()}
    chosen = split or chosen_split(files, training, name) if files else split or "train"
    if files and chosen not in files:
        raise DataError(f"{name} has no split {chosen!r}; it has {', '.join(files)}")
    paths = files.get(chosen, [])
    if paths and all(path.endswith(".parquet") for path in paths):
        return replace(_parquet(paths, limit), split=chosen)
    return replace(_streamed(builder.as_streaming_dataset(split=chosen), limit), split=chosen)


def _holds_no_files(error: Exception) -> bool:
    """Whether a dataset has nothing that the library can read: a script, or files of formats that it does not know."""
    return _SCRIPT in str(error) or type(error).__name__ in ("DataFilesNotFoundError", "EmptyDatasetError")


def _status(error: BaseException) -> int:
    """The status that the Hub answered, where an error or one behind it says so; else 0."""
    seen: BaseException | None = error
    while seen is not None:
        status = getattr(getattr(seen, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        seen = seen.__cause__ or seen.__context__
    return 0


def _parquet(paths: list[str], limit: int | None) -> Sample:
    from huggingface_hub import HfFileSystem

    files = len(paths)
    if limit is not None and files > _MOST_FILES:
        paths = [paths[round(i * (files - 1) / (_MOST_FILES - 1))] for i in range(_MOST_FILES)]
    system = HfFileSystem()
    with ExitStack() as stack:
        opened = [(path, stack.enter_context(system.open(path, "rb", block_size=1 << 20))) for path in paths]
        sample = sample_parquet(opened, limit)
    # Files between those that were opened hold rows that nobody counted.
    return sample if len(paths) == files else Sample(sample.table, [None] * sample.table.num_rows)


def _streamed(stream: Any, limit: int | None) -> Sample:
    from datasets import Dataset

    if stream.features is not None:
        stream = stream.remove_columns([name for name, feature in stream.features.items() if is_media(feature)])
    rows = list(islice(stream, limit)) if limit else list(stream)
    table = Dataset.from_list(rows, features=stream.features)
    return Sample(flat(table), range(table.num_rows))


def _reason(name: str, error: Exception) -> str:
    """Why a dataset does not load, in words that say what it is."""
    said = f"{type(error).__name__}: {error}"
    # Not by the name: `user/aggregated` is none.
    if re.search(r"\bgated\b|GatedRepo", said.replace(name, ""), re.IGNORECASE):
        return f"{name} is gated: its owner asks for consent first"
    if _SCRIPT in said or "trust_remote_code" in said:
        return f"{name} can only be loaded by its own script, which is never run, and the Hub holds no Parquet of it"
    if "RevisionNotFound" in said:
        return f"{name}: the dataset has no such revision; give a commit, a tag or a branch after the '@'"
    if "BuilderConfig" in said:
        return f"{name} has no such configuration: {' '.join(str(error).split())[:200]}"
    return f"{name} cannot be loaded from the Hub ({' '.join(said.split())[:240]})"
