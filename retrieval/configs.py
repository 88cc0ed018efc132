"""Which configuration and which split of a dataset feed training.

A dataset of several configurations holds several tasks (`tweet_eval`) or several languages (`xnli`): the one whose
classes, name or language are the task's is taken. A split named for testing never feeds training, whatever else is
there; a dataset that has nothing else is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from potstill.errors import DataError
from potstill.language.names import language_code
from potstill.retrieval.cards import Card, Config, class_names
from potstill.retrieval.label_names import plain_label
from potstill.retrieval.words import search_words
from potstill.task import TaskSpec

_CHECKED = ("test", "validation", "valid", "val", "dev", "eval", "evaluation", "challenge", "heldout", "held_out")


class SeveralConfigsError(DataError):
    """A dataset has several configurations, and none was asked for.

    Attributes:
        names: The configurations.
    """

    def __init__(self, what: str, names: Iterable[str]):
        self.names = tuple(names)
        super().__init__(f"{what} has several configurations; name one of {', '.join(self.names)}")


def choose_config(card: Card, spec: TaskSpec) -> str | None:
    """The configuration nearest to the task; None where the card lists none."""
    if not card.configs:
        return None
    words = frozenset(search_words(spec.instruction))
    languages = {language_code(language) or language.lower() for language in spec.languages}
    return max(card.configs, key=lambda name: _fit(name, card.configs[name], spec, words, languages))


def _fit(
    name: str, config: Config, spec: TaskSpec, words: frozenset[str], languages: set[str]
) -> tuple[float, float, float]:
    """Sorts by shared classes, then language, then words; the first of equals stands first in the card."""
    wanted = {plain_label(label) for label in spec.label_names}
    shared = 0.0
    for kind in config.features.values():
        inner: Any = kind.get("sequence", kind.get("list")) if isinstance(kind, Mapping) else None
        held = {plain_label(label) for label in class_names(kind) or class_names(inner)}
        if held and wanted:
            shared = max(shared, 2 * len(held & wanted) / (len(held) + len(wanted)))
    parts = [part for part in re.split(r"[^A-Za-z0-9]+", name.lower()) if part]
    codes = {code for part in parts if len(part) == 2 and (code := language_code(part))}
    spoken = 1.0 if codes & languages else -1.0 if codes else 0.0
    said = len(words & frozenset(search_words(name.replace("_", " ").replace("-", " "))))
    return round(shared, 2), spoken, said + 0.5 * (name == "default")


def train_split(names: Iterable[str]) -> str | None:
    """The split that feeds training: `train`, one that says so, else any that is not for checking; None if none."""
    known = list(names)
    return next(
        (name for name in known if name.lower() == "train"),
        next(
            (name for name in known if "train" in name.lower()),
            next((name for name in known if not is_checking(name)), None),
        ),
    )


def chosen_split(names: Iterable[str], training: bool, what: str) -> str:
    """The split that is read where none is named: to learn from the training split, else one to check with.

    Args:
        names: The splits that there are.
        training: Whether it is learnt from.
        what: The data's name, for the error.

    Raises:
        DataError: It is to be learnt from, and every split is for checking.
    """
    known = list(names)
    measured = [name for name in known if is_checking(name)]
    order = ("test", *measured, "train", *known)
    chosen = train_split(known) if training else next((name for name in order if name in known), "train")
    if chosen is None:
        raise DataError(
            f"{what} has only splits to check with ({', '.join(known)}), and these are not learnt from unasked; "
            f"name one: {{path: {what}, split: {known[0]}}}"
        )
    return chosen


def is_checking(split: str) -> bool:
    """Whether a split's name says that it is for testing or validation."""
    parts = set(re.split(r"[^a-z]+", split.lower()))
    return "train" not in parts and bool(parts & set(_CHECKED))
