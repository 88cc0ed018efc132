"""Which cards name which: the catalogue as a graph of citations.

In: cards. Out: pairs (naming card, named card). Authors describe a new dataset by the ones that their field works
with ("annotated like COCO", "sentences from SQuAD"), so the cards near a task, taken together, name the datasets that
people use for it, whether or not those datasets' own cards say so. It is the idea of link analysis in search
(Kleinberg 1999: hubs and authorities), kept to one step and to the cards near the query.

A name counts where it is written exactly, case included, and only names that cannot be ordinary words: a name that
is all lower case, that several cards share, or that the catalogue mostly writes in lower case is not looked for.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from potstill.retrieval.cards import Card

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_NAME_WORDS = 6
MAX_PROSE = 8_000
_TOKEN = re.compile(r"[A-Za-z0-9][\w+./-]*[\w+]|[A-Za-z0-9]")
_ACRONYM = re.compile(r"(?=(?:[^A-Z]*[A-Z]){2})[\w+./-]{3,20}")


def mention_pairs(cards: Sequence[Card]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of positions: the card that names, and the card that is named; each pair once.

    Returns:
        Two int64 arrays of the same length.
    """
    import numpy as np

    words = [_TOKEN.findall(card.description[:MAX_PROSE]) for card in cards]
    documents = Counter(word for found in words for word in set(found))
    owners: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for position, card in enumerate(cards):
        for name in _names(card):
            owners[tuple(_TOKEN.findall(name))].add(position)
    named = {
        name: next(iter(positions))
        for name, positions in owners.items()
        if len(positions) == 1 and len(name) <= MAX_NAME_WORDS and _distinctive(name, documents)
    }
    pairs: set[tuple[int, int]] = set()
    for position, found in enumerate(words):
        for start in range(len(found)):
            for length in range(min(MAX_NAME_WORDS, len(found) - start), 0, -1):
                target = named.get(tuple(found[start : start + length]))
                if target is not None:
                    if target != position:
                        pairs.add((position, target))
                    break
    table = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _names(card: Card) -> set[str]:
    """What others may call a dataset: its title, its id without owner, and either half of `Long Name (LN)`."""
    names = {card.title[:200], card.id.rpartition("/")[2].replace("_", " ")}
    if found := re.fullmatch(r"([^()]{3,150})\(([^()]{2,150})\)", card.title[:200].strip()):
        head, inner = found.group(1).strip(), found.group(2).strip()
        if _ACRONYM.fullmatch(inner) and " " in head:
            names |= {head, inner}
        elif _ACRONYM.fullmatch(head):
            names.add(head)
    return names


def _distinctive(name: tuple[str, ...], documents: Counter[str]) -> bool:
    text = " ".join(name)
    if len(text) < 3 or text.islower() or text.isdigit():
        return False
    if len(name) > 1:
        return True
    return documents[text.lower()] * 2 <= documents[text]
