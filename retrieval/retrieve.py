"""A task → rows from datasets that fit it.

Cards are ranked by the search; each dataset in turn is opened, its columns chosen, its labels mapped onto the
task's, and its rows taken from the training split, until enough datasets were used. A dataset that does not fit is
left out with the reason, one that cannot be reached is named as found and not reachable, and the run goes on.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from potstill.errors import DataError, UnreachableError
from potstill.events import Event, Listener, silent
from potstill.language.guess import other_language, own_language
from potstill.language.names import language_code
from potstill.licences import merged_terms
from potstill.models import SentenceEncoder
from potstill.retrieval.adapt import Adapted, LeftOutError, adapt_dataset
from potstill.retrieval.cards import Card
from potstill.retrieval.catalogue import read_catalogue, shipped_catalogue
from potstill.retrieval.instruction_sets import declares_instructions
from potstill.retrieval.nearest import anchors_of, nearest_rows
from potstill.retrieval.options import RetrievalOptions
from potstill.retrieval.search import Hit, Ranking, find_datasets
from potstill.rows import Dropped, Row, rows_to_dataset
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asking.asker import Asker

__all__ = ["RetrievalOptions", "RetrievalResult", "retrieve_rows"]

# Candidates of a dataset for each row that is wanted of it, where the nearest are picked.
_CANDIDATES = 4
# Share of rows in another language that tells something of a dataset.
_FOREIGN = 0.2


@dataclass(frozen=True)
class RetrievalResult:
    """What retrieval brought.

    Attributes:
        ranking: Every ranked dataset with what became of it.
        rows: Rows in the one schema.
        dropped: Rows that were refused, with reasons.
        report: Counts, label maps and coverage, JSON types.
    """

    ranking: Ranking
    rows: Dataset
    dropped: tuple[Dropped, ...]
    report: dict[str, Any] = field(default_factory=dict)


def retrieve_rows(
    spec: TaskSpec,
    options: RetrievalOptions,
    *,
    encoder: SentenceEncoder,
    asker: Asker | None = None,
    listener: Listener = silent,
) -> RetrievalResult:
    """Find datasets that fit the task and take rows from the best.

    Args:
        spec: The task.
        options: Catalogue, how many datasets and rows, floors.
        encoder: Sentence encoder for search and labels.
        asker: The teacher, for what rules cannot decide.
        listener: Progress.

    Raises:
        DataError: The catalogue itself cannot be read.
    """
    catalogue = read_catalogue(options.catalogue or [shipped_catalogue()])
    ranking = find_datasets(spec, catalogue, options, encoder=encoder, asker=asker, listener=listener)
    rows: list[Row] = []
    dropped: list[Dropped] = []
    counts: Counter[str] = Counter()
    hits: list[Hit] = []
    used = unreached = 0
    notes: dict[str, dict[str, Any]] = {}
    # A hit whose rows cannot be read, on the Hub without a network say, leaves its place to the next one.
    waiting, further = deque(ranking.hits), deque(ranking.further)
    while waiting:
        number, hit = len(hits), waiting.popleft()
        listener(Event("retrieval", "progress", hit.card.id, number, len(ranking.hits)))
        if used >= options.datasets:
            hits.append(replace(hit, status="skipped", reason=f"{options.datasets} better datasets were used"))
            continue
        try:
            if hit.score < (floor := _floor(spec, hit.card, options)):
                raise LeftOutError(f"similarity {hit.score:.2f} is under the floor {floor:.2f}")
            adapted = _in_own_language(spec, adapt_dataset(spec, hit.card, options, encoder, asker))
        except (DataError, LeftOutError) as error:
            hits.append(replace(hit, status="skipped", reason=str(error)))
            unreached += isinstance(error, UnreachableError)
            if isinstance(error, DataError) and further:
                waiting.append(further.popleft())
            continue
        used += 1
        share = options.rows_per_dataset * (_CANDIDATES if options.rows_by == "nearest" else 1)
        rows += _sample(adapted.rows, share, options.seed, balanced=bool(spec.labels))
        # Unmapped rows can be most of a large dataset: keep some of them as evidence, and all counts.
        dropped += adapted.dropped[: options.rows_per_dataset]
        counts.update(item.reason for item in adapted.dropped)
        notes[hit.card.id] = {**adapted.note, "dropped": dict(Counter(item.reason for item in adapted.dropped))}
        hits.append(replace(hit, status="used"))
    anchors = ""
    if options.rows_by == "nearest" and rows:
        texts, anchors = anchors_of(spec, asker)
        rows = [rows[i] for i in nearest_rows(rows, texts, used * options.rows_per_dataset, encoder)]
    taken = Counter(row.source.dataset for row in rows)
    for name, note in notes.items():
        note["rows_used"] = taken[name]
    told = (replace(hit, reason=f"{taken[hit.card.id]} rows") if hit.status == "used" else hit for hit in hits)
    ranking = replace(ranking, hits=tuple(told))
    report = {
        "cards": len(catalogue.cards),
        "cards_skipped": [{"where": s.where, "reason": s.reason} for s in catalogue.skipped][:200],
        "datasets_used": used,
        "datasets_unreached": unreached,
        "rows": len(rows),
        "labels": dict(Counter(row.output for row in rows)) if spec.labels else {},
        "dropped": dict(counts),
        "anchors": anchors,
        "licence": merged_terms(note["licence"] for note in notes.values()).to_json() if notes else None,
        "datasets": notes,
    }
    return RetrievalResult(ranking, rows_to_dataset(rows, spec.label_names), tuple(dropped), report)


def _in_own_language(spec: TaskSpec, adapted: Adapted) -> Adapted:
    """Without the rows whose input is clearly in none of the task's languages; a card may not say its language.

    Raises:
        LeftOutError: A fifth of the rows are, and more than are clearly in one of the task's: short ones tell nothing.
    """
    allowed = tuple(code for word in spec.languages if (code := language_code(word)))
    found = [other_language(row.input, allowed) for row in adapted.rows]
    foreign = Counter(language for language in found if language)
    if not foreign:
        return adapted
    own = sum(own_language(row.input, allowed) for row, other in zip(adapted.rows, found, strict=True) if not other)
    if foreign.total() > max(own, _FOREIGN * len(found)):
        raise LeftOutError(
            f"its rows are in {foreign.most_common(1)[0][0]} ({foreign.total()} of the {foreign.total() + own} whose "
            f"language shows); the task is in {', '.join(sorted(allowed))}"
        )
    kept = [row for row, language in zip(adapted.rows, found, strict=True) if not language]
    refused = [
        Dropped("wrong_language", f"{language}, not {', '.join(allowed)}", row.input, row.output, source=row.source)
        for row, language in zip(adapted.rows, found, strict=True)
        if language
    ]
    return replace(adapted, rows=kept, dropped=[*adapted.dropped, *refused])


def _floor(spec: TaskSpec, card: Card, options: RetrievalOptions) -> float:
    """Nothing but the card checks that a generation dataset does the same task, so it must be nearer.

    Labels check it for a classification, the columns for a dataset of instructions: one that declares them needs no
    nearness at all.
    """
    if spec.kind == "instructions" and declares_instructions(card):
        return -1.0
    return max(options.min_score, options.min_score_generation) if spec.kind == "generation" else options.min_score


def _sample(rows: list[Row], most: int, seed: int, *, balanced: bool) -> list[Row]:
    """At most `most` rows, drawn with a fixed seed; the same share of each label where there are labels."""
    rng = random.Random(seed)
    if not balanced:
        return [rows[i] for i in sorted(rng.sample(range(len(rows)), min(most, len(rows))))]
    by_label: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_label.setdefault(row.output, []).append(index)
    for places in by_label.values():
        rng.shuffle(places)
    chosen: list[int] = []
    depth = 0
    while len(chosen) < most and any(depth < len(places) for places in by_label.values()):
        chosen += [places[depth] for places in by_label.values() if depth < len(places)]
        depth += 1
    return [rows[i] for i in sorted(chosen[:most])]
