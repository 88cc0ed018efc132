"""A task → rows from datasets that fit it.

Cards are ranked by the search; each dataset in turn is opened, its columns chosen, its labels mapped onto the
task's, and its rows taken from the training split, until enough datasets were used. A dataset that does not fit is
left out with the reason, one that cannot be reached is named as found and not reachable, and the run goes on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import DataError
from potstill.events import Event, Listener, silent
from potstill.models import SentenceEncoder
from potstill.retrieval.catalogue import Card, read_catalogue, shipped_catalogue
from potstill.retrieval.columns import choose_columns
from potstill.retrieval.configs import choose_config, train_split
from potstill.retrieval.labels import LabelMap, map_labels
from potstill.retrieval.load import read_sample, splits_of, text_items
from potstill.retrieval.options import RetrievalOptions
from potstill.retrieval.search import Ranking, find_datasets
from potstill.rows import Dropped, Row, Source, rows_to_dataset
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.asker import Asker

__all__ = ["RetrievalOptions", "RetrievalResult", "retrieve_rows"]

_MOST_WORDS = 1500


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


@dataclass(frozen=True)
class _Taken:
    rows: list[Row]
    dropped: list[Dropped]
    note: dict[str, Any]


class _LeftOutError(Exception):
    """A dataset does not fit; the text is the reason."""


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
    ranking = find_datasets(spec, catalogue, options, encoder=encoder, listener=listener)
    rows: list[Row] = []
    dropped: list[Dropped] = []
    hits, notes, used = [], {}, 0
    for number, hit in enumerate(ranking.hits):
        listener(Event("retrieval", "progress", hit.card.id, number, len(ranking.hits)))
        if used >= options.datasets:
            hits.append(replace(hit, status="skipped", reason=f"{options.datasets} better datasets were used"))
            continue
        try:
            if hit.score < _floor(spec, options):
                raise _LeftOutError(f"similarity {hit.score:.2f} is under the floor {_floor(spec, options):.2f}")
            taken = _take(spec, hit.card, options, encoder, asker)
        except (DataError, _LeftOutError) as error:
            hits.append(replace(hit, status="skipped", reason=str(error)))
            continue
        used += 1
        rows += taken.rows
        dropped += taken.dropped
        notes[hit.card.id] = taken.note
        hits.append(replace(hit, status="used", reason=f"{len(taken.rows)} rows"))
    ranking = replace(ranking, hits=tuple(hits))
    reasons = Counter(item.reason for item in dropped)
    report = {
        "cards": len(catalogue.cards),
        "cards_skipped": [{"where": s.where, "reason": s.reason} for s in catalogue.skipped][:200],
        "datasets_used": used,
        "rows": len(rows),
        "labels": dict(Counter(row.output for row in rows)) if spec.labels else {},
        "dropped": dict(reasons),
        "datasets": notes,
    }
    return RetrievalResult(ranking, rows_to_dataset(rows, spec.label_names), tuple(dropped), report)


def _floor(spec: TaskSpec, options: RetrievalOptions) -> float:
    """Nothing but the card checks that a generation dataset does the same task, so it must be nearer."""
    return options.min_score if spec.kind == "classification" else max(options.min_score, options.min_score_generation)


def _take(
    spec: TaskSpec, card: Card, options: RetrievalOptions, encoder: SentenceEncoder, asker: Asker | None
) -> _Taken:
    """Rows of one dataset, or `_LeftOutError` with the reason."""
    if card.location is None and not options.hub:
        raise _LeftOutError("its rows are on the Hub, which is switched off (retrieval.hub)")
    config = choose_config(card, spec)
    split = _split(card, config)
    # Several times the rows wanted: labels are balanced by sampling, not by the order of the file.
    sample = read_sample(card.location or card.id, split=split, config=config, limit=20 * options.rows_per_dataset)
    table = _with_class_names(sample.table, card)
    choice = choose_columns(table, spec, eval_index=card.train_eval_index, asker=asker, title=card.title)
    if choice.output is None:
        raise _LeftOutError(choice.how)
    if len(spec.inputs) > 1 and len(choice.inputs) != len(spec.inputs):
        raise _LeftOutError(f"the task reads {' + '.join(spec.inputs)}, this has {' + '.join(choice.inputs)}")
    if len(spec.inputs) <= 1 and len(choice.inputs) > 1:
        raise _LeftOutError(f"the task reads one text, this has {' + '.join(choice.inputs)}")
    items = list(text_items(table, choice.inputs, choice.output))
    mapping = _labels(spec, items, encoder, choice.output, asker) if spec.labels else None
    rows, dropped = [], []
    for index, (text, answer) in enumerate(items):
        source = Source(dataset=card.id, config=config, split=split, row=sample.rows[index])
        label = mapping.target.get(answer) if mapping else None
        reason = _fault(text, answer, mapping is not None and label is None)
        if reason == "label_unmapped" and mapping is not None and answer in mapping.several:
            reason = "label_ambiguous"
        if reason:
            dropped.append(Dropped(reason, answer[:80], text[:500], answer[:500], "retrieved", source, "retrieval"))
            continue
        output = label if label is not None else answer.strip()
        rows.append(Row(text.strip(), output, "retrieved", source, label=label, licence=card.licence))
    kept = _sample(rows, options.rows_per_dataset, options.seed, balanced=bool(spec.labels))
    if not kept:
        raise _LeftOutError(f"none of its {len(items)} rows could be used")
    note = {
        "inputs": list(choice.inputs),
        "output": choice.output,
        "how": choice.how,
        "licence": card.licence,
        "labels": None if mapping is None else dict(mapping.target),
        "labels_by": None if mapping is None else dict(mapping.how),
        "labels_several": None if mapping is None else {k: list(v) for k, v in mapping.several.items()},
        "rows_read": len(items),
        "rows_used": len(kept),
    }
    # Unmapped rows can be most of a large dataset: keep some of each reason as evidence, and the counts above.
    return _Taken(kept, dropped[: options.rows_per_dataset], note)


def _split(card: Card, config: str | None) -> str:
    """The split that feeds training, as the files or the card say; `train` where neither lists any."""
    place = Path(card.location) if card.location else None
    if place is not None and place.is_dir():
        names = list(splits_of(place, config))
    else:
        names = list(card.configs[config].splits) if config is not None and place is None else []
    split = train_split(names) if names else "train"
    if split is None:
        raise _LeftOutError(f"it has only {', '.join(names)}, and a split for testing never feeds training")
    return split


def _with_class_names(table: Dataset, card: Card) -> Dataset:
    """Give integer columns the class names that only the card states (JSON lines and CSV carry none)."""
    from datasets import ClassLabel

    for config in card.configs.values():
        for column, kind in config.features.items():
            names = kind.get("class_label") if isinstance(kind, Mapping) else None
            feature = table.features.get(column)
            if not names or feature is None or isinstance(feature, ClassLabel):
                continue
            try:
                table = table.cast_column(column, ClassLabel(names=[str(name) for name in names]))
            except (ValueError, TypeError, ArithmeticError):
                continue  # the values are no class integers; the rules look at them as they are
    return table


def _labels(
    spec: TaskSpec, items: Sequence[tuple[str, str]], encoder: SentenceEncoder, column: str, asker: Asker | None
) -> LabelMap:
    texts: dict[str, list[str]] = {}
    for text, answer in items:
        if answer:
            texts.setdefault(answer, []).append(text)
    if len(texts) > 1000:
        raise _LeftOutError(f"its output column has {len(texts)} different values, too many for labels")
    mapping = map_labels(texts, spec, encoder, column=column, asker=asker)
    need = min(2, len(spec.labels))
    if len(mapping.covered) < need:
        shown = ", ".join(sorted(texts)[:6])
        raise _LeftOutError(
            f"its labels ({shown}) cover {len(mapping.covered)} of the task's labels, at least {need} needed"
        )
    return mapping


def _fault(text: str, answer: str, unmapped: bool) -> str:
    if not text.strip():
        return "empty_input"
    if not answer.strip():
        return "empty_output"
    if unmapped:
        return "label_unmapped"
    if len(text.split()) > _MOST_WORDS:
        return "too_long"
    return ""


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
