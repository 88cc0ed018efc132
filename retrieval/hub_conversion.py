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

BRANCH = "refs/convert/parquet"
_FILE = re.compile(r"([^/]+)/(partial-)?(\w+(?:\.\w+)*)(?:-part(\d+))?/(\d{4,})\.parquet")


@dataclass(frozen=True)
class Files:
    """One split of a conversion.

    Attributes:
        paths: Its files in order, as the Hub's file system names them.
        whole: Whether they hold all its rows.
    """

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

    def files(self, split: str | None, config: str | None) -> Files:
        """Files of a split; `test` where none is asked and there is one, else the first.

        Raises:
            DataError: No such configuration or split, or several configurations and none is asked.
        """
        splits = self.configs[self._config(config)]
        chosen = split or ("test" if "test" in splits else next(iter(splits)))
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
            raise DataError(f"{self.name} has several configurations; name one of {', '.join(self.configs)}")
        raise DataError(f"{self.name} has no configuration {asked!r}; it has {', '.join(self.configs)}")


def find_conversion(name: str) -> Conversion | None:
    """The Hub's conversion of a dataset; None where it made none.

    Raises:
        HfHubHTTPError: The Hub refused, or is busy.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        info = HfApi().dataset_info(name, revision=BRANCH)
    except RevisionNotFoundError:
        return None
    configs = converted_files(name, str(info.sha), [item.rfilename for item in info.siblings or []])
    return Conversion(name, str(info.sha), configs) if configs else None


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
        configs.setdefault(config, {})[split] = Files([path for *_, path in sorted(kinds[whole])], whole)
    return configs
