"""Search: a task against a catalogue, with every refusal listed.

In: a `TaskSpec`, a `Catalogue`, an encoder. Out: a `Ranking` of `Hit`s, best first, and the datasets that would have
been near but may not be used, each with its reason.

Two searches are fused: cosine similarity of embeddings finds cards that mean the same in other words, BM25
(Robertson & Zaragoza 2009) finds names and rare terms that a small encoder has never learnt. Their scores are
scaled by their own spread over the candidates and added, which keeps how far apart two cards are; ranks alone
(reciprocal rank fusion) forget it. Then the cards near the task vote for the datasets that they name
(`potstill.retrieval.mentions`), since a well-known dataset is described by its users better than by itself, and what
is widely known is preferred (`potstill.retrieval.fusion`). A teacher may add to both ends of it
(`potstill.retrieval.expansion`).
How the weights were chosen, and what each part is worth, is told in docs/retrieval-search.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from potstill.events import Event, Listener, silent
from potstill.language.names import language_code
from potstill.models import document_vectors, query_vectors
from potstill.retrieval.cards import Card
from potstill.retrieval.catalogue import Catalogue
from potstill.retrieval.expansion import hypothetical_cards, query_likelihood
from potstill.retrieval.fusion import fuse, standing
from potstill.retrieval.index import CardIndex, Encoder, open_index
from potstill.retrieval.instruction_sets import ABOUT
from potstill.retrieval.mentions import mention_pairs
from potstill.retrieval.options import RetrievalOptions
from potstill.retrieval.words import search_words, word_index
from potstill.rows import UNKNOWN_LICENCE
from potstill.task import LicencePolicy, TaskSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from potstill.asking.asker import Asker

# A ranking holds this many times the hits that are listed: what cannot be read leaves its place to the next.
_FURTHER = 4
_MEDIA = ("image", "video", "audio", "speech", "depth", "mask-generation", "object-detection", "robotics")
MAX_QUERY = 2_000


@dataclass(frozen=True)
class Hit:
    """A dataset of the ranking.

    Attributes:
        card: Its card.
        score: Cosine similarity of task and card, -1 to 1.
        fused: What the ranking is sorted by; comparable within one ranking only.
        status: `used` when rows were taken, `skipped` otherwise.
        reason: Why it was skipped, or what was taken.
    """

    card: Card
    score: float
    fused: float
    status: Literal["used", "skipped"] = "skipped"
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """One entry of ranking.json."""
        return {
            "id": self.card.id,
            "title": self.card.title,
            "score": round(self.score, 4),
            "licence": self.card.licence,
            "languages": list(self.card.languages),
            "rows": self.card.rows,
            "status": self.status,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Refused:
    """A dataset that was near the task and may not be used."""

    id: str
    reason: str


@dataclass(frozen=True)
class Ranking:
    """What the search found. `hits` are best first; `refused` stood among them until a filter took them out.

    `further` are the next best, which take the place of hits whose rows cannot be read; they are not part of the file.
    """

    query: str
    hits: tuple[Hit, ...]
    refused: tuple[Refused, ...] = ()
    further: tuple[Hit, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The content of ranking.json."""
        return {
            "query": self.query,
            "hits": [hit.to_json() for hit in self.hits],
            "refused": [{"id": item.id, "reason": item.reason} for item in self.refused],
        }

    def _repr_html_(self) -> str:
        """Datasets in order, for a notebook; refused ones below."""
        from potstill.notebook import html_table

        lines = [(hit.card.id, hit.score, hit.card.licence, hit.card.rows or None, hit.reason) for hit in self.hits]
        shown = html_table(("dataset", "score", "licence", "rows", "what became of it"), lines)
        if self.refused:
            shown += html_table(("refused", "because"), [(item.id, item.reason) for item in self.refused])
        return shown


@dataclass(frozen=True)
class Scored:
    """A card by its position in the catalogue, with its cosine similarity and fused score."""

    position: int
    score: float
    fused: float


@dataclass(frozen=True)
class CardSearch:
    """A catalogue made ready for search.

    Attributes:
        cards: The cards, in the catalogue's order.
        index: Their embeddings.
        bm25: Their words.
        encoder: What embeds the query.
        mentions: Which card names which, as two arrays of positions.
        prior: (n,) how widely each dataset is known.
        vocabulary: Every word of the cards.
    """

    cards: tuple[Card, ...]
    index: CardIndex
    bm25: Any
    encoder: Encoder
    mentions: tuple[NDArray[np.int64], NDArray[np.int64]]
    prior: NDArray[np.float64]
    vocabulary: frozenset[str] = field(default_factory=frozenset, repr=False)

    def rank(
        self,
        query: str,
        options: RetrievalOptions,
        *,
        allowed: Callable[[int], bool] | None = None,
        imagined: Sequence[str] = (),
    ) -> list[Scored]:
        """Cards by fused score, best first.

        Args:
            query: What is looked for, in words.
            options: Depth and weights.
            imagined: Hypothetical cards; the mean of their embeddings and the query's is searched for.
            allowed: Says for a position whether the card takes part at all; it is asked before the scores are
                scaled, so that what is left out does not shape what stays.
        """
        import numpy as np

        count = len(self.cards)
        if count == 0:
            return []
        vector = query_vectors(self.encoder, [query])
        if imagined:
            vector = np.concatenate([vector, document_vectors(self.encoder, list(imagined))]).mean(
                axis=0, keepdims=True
            )
            vector /= max(float(np.linalg.norm(vector)), 1e-9)
        lexical = self._lexical(query)
        depth = options.depth
        while True:
            scores, found = self.index.search(vector, depth)
            near = [int(position) for position in found[0] if position >= 0]
            best = np.argsort(-lexical, kind="stable")[:depth].tolist()
            pool = [
                p for p in dict.fromkeys([*near, *(p for p in best if lexical[p] > 0)]) if allowed is None or allowed(p)
            ]
            if len(pool) >= min(options.top, count) or depth >= count:
                break
            depth *= 4
        if not pool:
            return []
        known = dict(zip(near, (float(score) for score in scores[0])))
        if unknown := [position for position in pool if position not in known]:
            known.update(zip(unknown, (float(s) for s in self.index.vectors(unknown) @ vector[0])))
        dense = np.array([known[position] for position in pool])
        fused = fuse(dense, lexical[pool], options.fusion_dense)
        if options.mentions > 0:
            fused = fused + options.mentions * np.log1p(self._votes(np.array(pool), fused, options.voters))
        fused = fused + options.popularity * self.prior[pool]
        order = np.lexsort((np.array(pool), -fused))
        return [Scored(pool[i], float(dense[i]), float(fused[i])) for i in order.tolist()]

    def _votes(self, pool: NDArray[np.int64], fused: NDArray[np.float64], voters: int) -> NDArray[np.float64]:
        """How much the best cards of the pool name each card of it; a voter's weight falls from 1 to 0 with its score.

        Args:
            pool: (n,) positions.
            fused: (n,) scores.
            voters: How many of the best cards vote.

        Returns:
            (n,) float64.
        """
        import numpy as np

        order = np.argsort(-fused, kind="stable")[: voters + 1]
        best, least = float(fused[order[0]]), float(fused[order[-1]])
        weight = np.zeros(len(self.cards))
        if best > least:
            weight[pool[order]] = (fused[order] - least) / (best - least)
        naming, named = self.mentions
        votes = np.bincount(named, weights=weight[naming], minlength=len(self.cards))
        return np.asarray(votes[pool], dtype=np.float64)

    def _lexical(self, query: str) -> NDArray[np.float64]:
        import numpy as np

        words = [word for word in search_words(query) if word in self.vocabulary]
        if self.bm25 is None or not words:
            return np.zeros(len(self.cards))
        return np.asarray(self.bm25.get_scores(words), dtype=np.float64)


def reranked(
    query: str, ranked: Sequence[Scored], cards: Sequence[Card], options: RetrievalOptions, asker: Asker
) -> list[Scored]:
    """The ranking with its first `options.rerank` ordered again by fused score and the teacher's likelihood.

    Args:
        query: What is looked for.
        ranked: Best first.
        cards: What the positions mean.
        options: How many, and the weight of the likelihood.
        asker: The teacher.

    Returns:
        The same items; a card on which the teacher was silent keeps its fused score alone.
    """
    import numpy as np

    first, rest = list(ranked[: options.rerank]), list(ranked[options.rerank :])
    likelihood = query_likelihood(query, [cards[item.position].text for item in first], asker)
    known = np.where(np.isnan(likelihood), np.nanmean(likelihood) if not np.isnan(likelihood).all() else 0, likelihood)
    fused = np.array([item.fused for item in first])
    order = np.argsort(-fuse(fused, known, 1 / (1 + options.rerank_weight)), kind="stable")
    return [*(first[i] for i in order.tolist()), *rest]


def open_search(catalogue: Catalogue, encoder: Encoder, *, listener: Listener = silent) -> CardSearch:
    """Make a catalogue ready: its index from disk or anew, and its words."""
    texts = [card.text for card in catalogue.cards]
    index = open_index(texts, encoder, listener=listener)
    corpus = [search_words(text) for text in texts]
    vocabulary = frozenset(word for words in corpus for word in words)
    bm25 = word_index(corpus) if vocabulary else None
    return CardSearch(
        catalogue.cards, index, bm25, encoder, mention_pairs(catalogue.cards), standing(catalogue.cards), vocabulary
    )


def task_query(spec: TaskSpec) -> str:
    """What is searched for: the instruction, then the names of the labels, or what datasets of instructions are."""
    names = ", ".join(spec.label_names)[:300]
    text = " ".join(spec.instruction.split())[:MAX_QUERY]
    if spec.kind == "instructions":
        return f"{text} {ABOUT}"
    return f"{text} {names}".strip() if names and names.lower() not in text.lower() else text


def find_datasets(
    spec: TaskSpec,
    catalogue: Catalogue,
    options: RetrievalOptions,
    *,
    encoder: Encoder,
    asker: Asker | None = None,
    listener: Listener = silent,
) -> Ranking:
    """Rank the datasets of a catalogue for a task.

    Args:
        spec: The task; its languages, licences and exclusions filter.
        catalogue: The cards.
        options: Depth, weights and length of the ranking.
        encoder: The sentence encoder.
        asker: The teacher, for `options.hyde` and `options.rerank`; without one they do nothing.
        listener: Hears about embedding and the outcome.

    Returns:
        At most `options.top` hits, and the refused ones that scored at least as high as the last of them.
    """
    search = open_search(catalogue, encoder, listener=listener)
    query = task_query(spec)
    reasons = {
        position: reason for position, card in enumerate(catalogue.cards) if (reason := refusal(card, spec)) is not None
    }
    imagined = hypothetical_cards(query, options.hyde, asker, seed=options.seed) if asker and options.hyde else []
    ranked = search.rank(query, options, allowed=lambda position: position not in reasons, imagined=imagined)
    if asker is not None and options.rerank and asker.abilities.scores:
        ranked = reranked(query, ranked, catalogue.cards, options, asker)
    listed = tuple(
        Hit(catalogue.cards[item.position], item.score, item.fused) for item in ranked[: _FURTHER * options.top]
    )
    hits = listed[: options.top]
    # What was refused matters to a reader only where it would have been listed.
    floor = min((hit.score for hit in hits), default=-1.0)
    refused = tuple(
        Refused(catalogue.cards[item.position].id, reasons[item.position])
        for item in search.rank(query, options, imagined=imagined)
        if item.position in reasons and (item.score >= floor or _is_excluded(reasons[item.position]))
    )[: 5 * options.top]
    listener(
        Event(
            "retrieval",
            "note",
            f"{len(hits)} of {len(catalogue.cards)} datasets ranked, {len(reasons)} refused by the task's filters",
            data={"cards": len(catalogue.cards), "refused": len(reasons), "skipped": len(catalogue.skipped)},
        )
    )
    return Ranking(query, hits, refused, listed[options.top :])


def refusal(card: Card, spec: TaskSpec) -> str | None:
    """Why a task may not use a dataset, or None where it may."""
    if pattern := excluded_by(card, spec.exclude):
        return f"excluded by the task ({pattern})"
    if card.gated:
        return "gated: its owner asks for consent first"
    wanted = {language_code(language) or language.lower() for language in spec.languages}
    if card.languages and wanted and not wanted & set(card.languages):
        shown = ", ".join(card.languages[:5]) + (", …" if len(card.languages) > 5 else "")
        return f"language {shown}; the task is in {', '.join(sorted(wanted))}"
    if reason := licence_refusal(card.licence, spec.licences):
        return reason
    if card.tasks and all(any(word in task for word in _MEDIA) for task in card.tasks):
        return f"not text: {', '.join(card.tasks[:3])}"
    return None


def licence_refusal(licence: str, policy: LicencePolicy) -> str | None:
    """Why a policy refuses a licence, or None. Of several licences on one dataset, each must pass."""
    for part in licence.split(" and "):
        if part == UNKNOWN_LICENCE:
            if not policy.unknown:
                return "licence unknown; the task refuses unknown licences"
        elif any(fnmatchcase(part, pattern.lower()) for pattern in policy.deny):
            return f"licence {part} is denied by the task"
        elif policy.allow and not any(fnmatchcase(part, pattern.lower()) for pattern in policy.allow):
            return f"licence {part} is not among the allowed ones"
    return None


def excluded_by(card: Card, patterns: Sequence[str]) -> str | None:
    """The pattern that excludes a card: by glob over its ids, or by the same name under another owner.

    One dataset stands in catalogues under many ids (`ag_news`, `fancyzhx/ag_news`, `pack/ag-news`); to exclude it
    for a fair test means all of them, so names are compared without owner, case and punctuation.
    """
    ids = (card.id, *card.known_as)
    names = {_name(one) for one in ids}
    for pattern in patterns:
        wanted = pattern.strip().lower()
        if not wanted:
            continue
        if any(fnmatchcase(one.lower(), wanted) for one in ids):
            return pattern
        if "*" in wanted:
            last = wanted.rpartition("/")[2]
            if re.search(r"\w", last) and any(fnmatchcase(one.lower().rpartition("/")[2], last) for one in ids):
                return pattern
        elif _name(wanted) in names:
            return pattern
    return None


def _name(dataset_id: str) -> str:
    last = dataset_id.rstrip("/").rpartition("/")[2].lower()
    return re.sub(r"[\W_]+", "", last) or last


def _is_excluded(reason: str) -> bool:
    return reason.startswith("excluded by the task")
