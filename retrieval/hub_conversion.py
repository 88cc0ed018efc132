"""The Parquet that the Hub keeps beside a dataset, for one that only its own script could load.

In: an id. Out: files by configuration and split, at one commit of the branch `refs/convert/parquet`. The Hub ran the
script and wrote down what it gave; here that is read, and no script is ever fetched to be run. Files lie at
`CONFIG/SPLIT/0000.parquet`. Of a split over 5 GB the Hub writes the first part alone, as `partial-SPLIT`; one of more
than ten thousand files goes on in `SPLIT-part1`. A split's own name holds no `-`, so neither can be taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from potstill.errors import DataError
from potstill.retrieval.configs import SeveralConfigsError, chosen_split

BRANCH = "refs/convert/parquet"
_ALIAS = "~parquet"
_FILE = re.compile(r"([^/]+)/(partial-)?(\w+(?:\.\w+)*)(?:-part(\d+))?/(\d{4,})\.parquet")


@dataclass(frozen=True)
class Files:
    """One split of a conversion.

    Attributes:
        split: Its name.
        paths: Its files in order, as the Hub's file system names them.
        whole: Whether they hold all its rows.
    """

    split: str
    paths: list[str]
    whole: bool


@dataclass(frozen=True)
class Conversion:
    """What the Hub wrote down of a dataset.

    Attributes:
        name: `user/name`.
        commit: Commit of the branch.
        configs: Splits of each configuration, in the order of their names.
    """

    name: str
    commit: str
    configs: dict[str, dict[str, Files]] = field(default_factory=dict)

    def files(self, split: str | None, config: str | None, training: bool = False) -> Files:
        """Files of a split; where none is asked, of the one that `chosen_split` tells.

        Raises:
            DataError: No such configuration or split, or several configurations and none is asked.
        """
        splits = self.configs[self._config(config)]
        chosen = split or chosen_split(splits, training, self.name)
        if chosen not in splits:
            raise DataError(f"{self.name} has no split {chosen!r}; it has {', '.join(splits)}")
        return splits[chosen]

    def _config(self, asked: str | None) -> str:
        if asked in self.configs:
            return str(asked)
        # A card calls what it does not name `default`, whatever the script called it.
        if asked in (None, "default"):
            if len(self.configs) == 1:
                return next(iter(self.configs))
            if asked is None and "default" in self.configs:
                return "default"
            raise SeveralConfigsError(self.name, self.configs)
        raise DataError(f"{self.name} has no configuration {asked!r}; it has {', '.join(self.configs)}")


def find_conversion(name: str) -> Conversion | None:
    """The Hub's conversion of a dataset; None where it made none.

    Raises:
        HfHubHTTPError: The Hub refused, or is busy.
    """
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        return look_up(name, BRANCH)[1]
    except RevisionNotFoundError:
        return None


def look_up(name: str, revision: str) -> tuple[str, Conversion | None]:
    """The commit that a revision stands for, and what it holds where it is one of the Hub's conversion.

    A commit says not of which branch it is. It is taken for one of the conversion where it holds nothing but files at
    the places of one: a dataset of its owner's has a card.

    Raises:
        HfHubHTTPError: No such dataset or revision, or the Hub refused, or is busy.
    """
    from huggingface_hub import HfApi

    branch = revision in (BRANCH, _ALIAS)
    info = HfApi().dataset_info(name, revision=BRANCH if branch else revision)
    commit, paths = str(info.sha), [item.rfilename for item in info.siblings or []]
    if not branch and any(path != ".gitattributes" and not _FILE.fullmatch(path) for path in paths):
        return commit, None
    configs = converted_files(name, commit, paths)
    return commit, Conversion(name, commit, configs) if configs else None


def converted_files(name: str, commit: str, paths: Iterable[str]) -> dict[str, dict[str, Files]]:
    """Files of a conversion by configuration and split; paths that are no part of one are passed over."""
    found: dict[tuple[str, str], dict[bool, list[tuple[int, int, str]]]] = {}
    for path in paths:
        if match := _FILE.fullmatch(path):
            config, partial, split, part, number = match.groups()
            place = (int(part or 0), int(number), f"hf://datasets/{name}@{commit}/{path}")
            found.setdefault((config, split), {}).setdefault(not partial, []).append(place)
    configs: dict[str, dict[str, Files]] = {}
    for (config, split), kinds in sorted(found.items()):
        whole = True in kinds
        configs.setdefault(config, {})[split] = Files(split, [path for *_, path in sorted(kinds[whole])], whole)
    return configs
