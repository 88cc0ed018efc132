"""Rows of all sources to one training set: no duplicates, no test text, no contradictions, known balance.

In: tables in the one schema. Out: kept rows, dropped rows with reasons, a report. Rows with the better provenance are
seen first (user, retrieved, generated, pseudo; pseudo before generated where the answer is a text) and win over their
duplicates; within an origin, earlier tables and rows win. So the result is a function of the tables and options alone.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from potstill.datagen.decontaminate import TestTexts, normal_hash
from potstill.datagen.novelty import NoveltyFilter
from potstill.datagen.outputs import off_form
from potstill.datagen.tally import TextSample
from potstill.decisions import FILE as DECISIONS
from potstill.errors import BadOptions, OptionFault
from potstill.events import Event, Listener, silent
from potstill.rows import Dropped, Row, dataset_to_rows, rows_to_dataset, take_rows
from potstill.task import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["MergeOptions", "MergeResult", "Splits", "merge_rows", "split_rows"]

STAGE = "merge"
_ORDER = {"user": 0, "retrieved": 1, "generated": 2, "pseudo": 3}
# Where the answer is a text, `pseudo` is a real input that the teacher answered: nearer to the task than a written one.
_ORDER_OF_TEXTS = {"user": 0, "retrieved": 1, "pseudo": 2, "generated": 3}
_WRITTEN, _WRITTEN_INPUTS = ("generated", "pseudo"), ("generated",)
_EVENT_EVERY_ROWS = 2000


@dataclass(frozen=True)
class MergeOptions:
    """How rows are merged and split.

    Attributes:
        near_duplicates: ROUGE-L F1 above which a row is dropped as a near-duplicate of a kept one; 1 keeps all but
            exact copies. Rows of people count with those of their own label alone: those that differ in a word and in
            their label stay. Of retrieved short questions 0.7 takes a tenth (benchmarks/near_duplicates.py).
        test_near: The same against test inputs.
        conflicts: What becomes of a text with several labels: `provenance` keeps the label of the better source and
            drops the text where equal sources disagree; `majority` keeps the commonest label and drops ties; `drop`
            drops the text.
        max_ratio: Cap on a label's rows, as a multiple of the rarest label's; 0 sets no cap. Generated rows go first.
        balance: `weights` gives each row a weight so that labels count alike in the loss; `none` leaves weights.
        validation: Share of rows for validation.
        heldout: Share of rows held out to measure on, where there is no real test data.
        seed: Of the split and the cap.
    """

    near_duplicates: float = 0.7
    test_near: float = 0.8
    conflicts: Literal["provenance", "majority", "drop"] = "provenance"
    max_ratio: float = 0.0
    balance: Literal["weights", "none"] = "weights"
    validation: float = 0.1
    heldout: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        faults = []
        for name in ("near_duplicates", "test_near"):
            if not 0 < getattr(self, name) <= 1:
                faults.append(OptionFault(f"{name} must be in (0, 1] (got {getattr(self, name)})", name))
        if self.validation < 0 or self.heldout < 0 or self.validation + self.heldout >= 1:
            faults.append(
                OptionFault(
                    f"validation + heldout must be in [0, 1) (got {self.validation} + {self.heldout})", "validation"
                )
            )
        if self.max_ratio and self.max_ratio < 1:
            faults.append(OptionFault(f"max_ratio must be 0 or at least 1 (got {self.max_ratio})", "max_ratio"))
        if faults:
            raise BadOptions(faults)


@dataclass(frozen=True)
class MergeResult:
    """What merging gives: kept rows, dropped ones with reasons, and a report of JSON types."""

    kept: Dataset
    dropped: tuple[Dropped, ...]
    report: dict[str, Any]


@dataclass(frozen=True)
class Splits:
    """Disjoint parts of the merged rows; `heldout` is None where nothing was held out."""

    train: Dataset
    validation: Dataset
    heldout: Dataset | None


def merge_rows(
    spec: TaskSpec,
    parts: Sequence[Dataset],
    options: MergeOptions | None = None,
    *,
    test: Dataset | None = None,
    listener: Listener = silent,
) -> MergeResult:
    """Merge tables into one.

    Args:
        spec: The task.
        parts: Tables in the one schema, from any source.
        options: Thresholds and caps.
        test: Real test rows, whose texts must not be trained on.
        listener: Called with progress.

    Returns:
        The kept rows with their origin, source and licence as they were.
    """
    options = options or MergeOptions()
    rows = [row for part in parts for row in dataset_to_rows(part)]
    exact = spec.kind == "classification"
    order = _ORDER if exact else _ORDER_OF_TEXTS
    rows.sort(key=lambda row: order[row.origin])  # stable: earlier tables and rows stay first
    dropped: list[Dropped] = []
    tests = TestTexts(test["input"] if test is not None else (), options.test_near if test is not None else None)
    rows = _resolve_conflicts(rows, options, dropped) if exact else _in_form(spec, rows, dropped)
    near = _NearDuplicates(options.near_duplicates, rows, _WRITTEN if exact else _WRITTEN_INPUTS)
    kept = _distinct(rows, tests, near, options, dropped, listener)
    if exact and options.max_ratio:
        kept = _capped(kept, spec.label_names, options, dropped)
    if exact and options.balance == "weights":
        kept = _weighted(kept)
    report = _report(spec, rows, kept, dropped, test)
    return MergeResult(rows_to_dataset(kept, spec.label_names), tuple(dropped), report)


def _resolve_conflicts(rows: list[Row], options: MergeOptions, dropped: list[Dropped]) -> list[Row]:
    """Settle texts that carry several labels (see `MergeOptions.conflicts`)."""
    labels: dict[bytes, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    hashes = [normal_hash(row.input) for row in rows]
    for row, key in zip(rows, hashes, strict=True):
        labels[key][row.output].append(row)
    winners: dict[bytes, str | None] = {}
    for key, found in labels.items():
        winners[key] = next(iter(found)) if len(found) == 1 else _winner(found, options)
    kept = []
    for row, key in zip(rows, hashes, strict=True):
        if winners[key] == row.output:
            kept.append(row)
        else:
            others = ", ".join(sorted(name for name in labels[key] if name != row.output))
            dropped.append(_drop(row, "conflicting_label", f"the same text is also labelled {others}"))
    return kept


def _in_form(spec: TaskSpec, rows: list[Row], dropped: list[Dropped]) -> list[Row]:
    """Leave out retrieved rows whose output is not in the form that the task asks for.

    Where fewer than one in five is, all stay: answers in another form teach the task better than none.
    """
    retrieved = [row for row in rows if row.origin == "retrieved"]
    off = {row.id: fault for row in retrieved if (fault := off_form(spec, row.input, row.output))}
    if len(retrieved) - len(off) < len(retrieved) / 5:
        return rows
    dropped += [_drop(row, off[row.id].reason, off[row.id].detail) for row in retrieved if row.id in off]
    return [row for row in rows if row.origin != "retrieved" or row.id not in off]


def _winner(found: dict[str, list[Row]], options: MergeOptions) -> str | None:
    if options.conflicts == "drop":
        return None
    if options.conflicts == "majority":
        ranked = sorted(((len(rows), label) for label, rows in found.items()), reverse=True)
        return ranked[0][1] if ranked[0][0] > ranked[1][0] else None
    best = {label: min(_ORDER[row.origin] for row in rows) for label, rows in found.items()}
    first = [label for label, order in best.items() if order == min(best.values())]
    return first[0] if len(first) == 1 else None


def _distinct(
    rows: list[Row],
    tests: TestTexts,
    near: _NearDuplicates,
    options: MergeOptions,
    dropped: list[Dropped],
    listener: Listener,
) -> list[Row]:
    seen: dict[bytes, Row] = {}
    kept: list[Row] = []
    for count, row in enumerate(rows):
        if count % _EVENT_EVERY_ROWS == 0:
            listener(Event(STAGE, "progress", f"{count} of {len(rows)} rows compared", count, len(rows)))
        if not row.input.strip() or not row.output.strip():
            dropped.append(_drop(row, "empty", "no input" if not row.input.strip() else "no output"))
            continue
        key = normal_hash(row.input)
        if key in seen:
            first = seen[key]
            reason = "duplicate" if first.output == row.output else "same_input_other_output"
            dropped.append(_drop(row, reason, f"the same words as a {first.origin} row ({first.id})"))
            continue
        leak = tests.found_in(row.input)
        if leak is not None:
            dropped.append(_drop(row, *leak))
            continue
        if options.near_duplicates < 1:
            found = near.admit(row)
            if found is not None:
                dropped.append(_drop(row, "near_duplicate", found))
                continue
        seen[key] = row
        kept.append(row)
    return kept


class _NearDuplicates:
    """Near-duplicates among the kept rows, which come with people's rows first.

    Rows of people that differ in a word and in their label teach what the word does, so only those with the same output
    count; a written row that is nearly one with another output is a contradiction, and counts.
    """

    def __init__(self, threshold: float, rows: Sequence[Row], written: Sequence[str]):
        self._threshold = threshold
        self._written = written  # origins
        self._written_follow = any(row.origin in written for row in rows)
        self._all = NoveltyFilter(threshold)
        self._rows: list[Row] = []
        # One filter an output, made when the output comes a second time: answers of generation tasks hardly do.
        self._alike: dict[str, NoveltyFilter] = {}
        self._with: dict[str, list[Row]] = defaultdict(list)

    def admit(self, row: Row) -> str | None:
        """Keep the row and return None, or say what it is too like."""
        if row.origin in self._written:
            found = self._all.match(row.input)
            other = None if found is None else self._rows[found.index]
        else:
            same = self._with[row.output]
            if same and row.output not in self._alike:
                self._alike[row.output] = NoveltyFilter(self._threshold)
                self._alike[row.output].add(same[0].input)
            found = self._alike[row.output].match(row.input) if same else None
            other = None if found is None else same[found.index]
            if found is None:
                same.append(row)
                if row.output in self._alike:
                    self._alike[row.output].add(row.input)
        if found is not None and other is not None:
            return f"ROUGE-L {found.f1:.2f} with a {other.origin} row ({other.id})"
        if self._written_follow:
            self._all.add(row.input)
            self._rows.append(row)
        return None


def _capped(rows: list[Row], names: Sequence[str], options: MergeOptions, dropped: list[Dropped]) -> list[Row]:
    counts = Counter(row.output for row in rows)
    present = [counts[name] for name in names if counts[name]]
    if not present:
        return rows
    cap = math.ceil(min(present) * options.max_ratio)
    gone: set[int] = set()
    for name in names:
        places = [i for i, row in enumerate(rows) if row.output == name]
        if len(places) <= cap:
            continue
        Random(f"{options.seed} {name}").shuffle(places)
        places.sort(key=lambda i: _ORDER[rows[i].origin])
        gone.update(places[cap:])
        for i in places[cap:]:
            detail = f"{counts[name]} rows, at most {cap} with max_ratio {options.max_ratio:g}"
            dropped.append(_drop(rows[i], "over_label_cap", detail))
    return [row for i, row in enumerate(rows) if i not in gone]


def _weighted(rows: list[Row]) -> list[Row]:
    """Multiply weights so that each label's sum is the same and the mean weight is what it was."""
    sums: Counter[str] = Counter()
    for row in rows:
        sums[row.output] += row.weight  # type: ignore[assignment]
    live = {name: total for name, total in sums.items() if total > 0}
    if not live:
        return rows
    each = sum(live.values()) / len(live)
    return [replace(row, weight=row.weight * each / live[row.output]) if row.output in live else row for row in rows]


def _drop(row: Row, reason: str, detail: str) -> Dropped:
    return Dropped(reason, detail, row.input, row.output, row.origin, row.source, STAGE)


def _report(
    spec: TaskSpec, rows: Sequence[Row], kept: Sequence[Row], dropped: Sequence[Dropped], test: Dataset | None
) -> dict[str, Any]:
    reasons: Counter[str] = Counter(item.reason for item in dropped)
    by_origin: dict[str, Counter[str]] = defaultdict(Counter)
    for item in dropped:
        by_origin[item.origin][item.reason] += 1
    leaks = sum(reasons[name] for name in ("in_test", "ngram_in_test", "near_test"))
    labels = Counter(row.output for row in kept) if spec.kind == "classification" else Counter()
    present = [count for count in labels.values() if count]
    return {
        "kept": len(kept),
        "dropped": dict(sorted(reasons.items())),
        "dropped_by_origin": {origin: dict(sorted(c.items())) for origin, c in sorted(by_origin.items())},
        "origins": dict(sorted(Counter(row.origin for row in kept).items())),
        "licences": dict(sorted(Counter(row.licence for row in kept).items())),
        "labels": {name: labels.get(name, 0) for name in spec.label_names},
        "near_duplicate_rate": _near_duplicate_rate(kept),
        "imbalance": round(max(present) / min(present), 3) if present else None,
        "missing_labels": [name for name in spec.label_names if not labels.get(name)],
        "test_rows": 0 if test is None else test.num_rows,
        "leaked": leaks,
        "checked_against_test": test is not None,
    }


def _near_duplicate_rate(rows: Sequence[Row]) -> float:
    """Share of kept rows with a ROUGE-L F1 above 0.7 to one of the 50,000 before them, of whatever label."""
    sample = TextSample(0)
    for row in rows:
        sample.add(row.input)
    return round(sample.near / max(1, len(rows)), 4)


def split_rows(spec: TaskSpec, table: Dataset, options: MergeOptions | None = None) -> Splits:
    """Split merged rows, label by label, by a hash of each row's own text and the seed.

    A row stays in its part whatever becomes of the others: rows added, corrected or taken away leave it where it is,
    and shares are met as by a coin for each row. Only where a label's share would be off by more than two standard
    deviations, twice what was asked, or nothing at all, do the rows whose hashes are nearest to the border change
    sides. A label with too few rows for its share gives none to validation or the held-out part before it gives its
    last row to training: training never lacks a label. Where no label has a row to hold out, the one with most rows
    gives one. What a person corrected or took back in is always trained on.

    Args:
        spec: The task.
        table: Merged rows, without duplicates.
        options: Shares and seed.

    Returns:
        Disjoint parts, each in the table's order.
    """
    options = options or MergeOptions()
    groups: dict[str, list[tuple[float, int]]] = defaultdict(list)
    inputs, outputs = table["input"][:], table["output"][:]
    origins = table["origin"][:]
    sources = table["source"][:] if "user" in origins else []
    for i, origin in enumerate(origins):
        if origin == "user" and sources[i]["dataset"] == DECISIONS:
            continue
        drawn = _drawn(inputs[i], options.seed)
        groups[outputs[i] if spec.kind == "classification" else ""].append((drawn, i))
    held: list[int] = []
    checked: list[int] = []
    for _, group in sorted(groups.items()):
        group.sort()
        places, count = [i for _, i in group], len(group)
        under = [sum(drawn < border for drawn, _ in group) for border in (options.heldout, options.heldout
                                                                         + options.validation)]  # fmt: skip
        first = _part(options.heldout, under[0], count, count - 1)
        second = _part(options.validation, under[1] - first, count, count - 1 - first)
        held += places[:first]
        checked += places[first : first + second]
    if options.heldout > 0 and not held:
        held, checked = _one_held(groups, checked)
    taken = {*held, *checked}
    train = [i for i in range(table.num_rows) if i not in taken]
    return Splits(
        train=_select(table, train),
        validation=_select(table, checked),
        heldout=_select(table, held) if options.heldout > 0 else None,
    )


def _one_held(groups: Mapping[str, list[tuple[float, int]]], checked: list[int]) -> tuple[list[int], list[int]]:
    """A row to measure on where no label has one to spare, and what is left to validate on.

    It is one of the label that has most to train on, so that training keeps the label; none where each has one row.
    """
    trained = {name: [i for _, i in group if i not in checked] for name, group in sorted(groups.items())}
    most = max(trained.values(), key=len, default=[])
    if len(most) > 1:
        return most[:1], checked
    return checked[:1], checked[1:]


def _drawn(text: str, seed: int) -> float:
    """A number in [0, 1) that belongs to a text: its words alone decide, the same text from another source too."""
    found = hashlib.blake2b(normal_hash(text), digest_size=8, key=f"split {seed}".encode()).digest()
    return int.from_bytes(found, "big") / 2**64


def _part(share: float, drawn: int, count: int, room: int) -> int:
    """How many rows of a group a part gets: those that were drawn, within the bounds that `split_rows` tells."""
    if share <= 0:
        return 0
    asked, spread = share * count, 2 * math.sqrt(share * (1 - share) * count)
    least = max(round(asked - spread), 1 if count >= 4 else 0)
    most = max(min(round(asked + spread), round(2 * asked)), least, 1)
    return max(0, min(room, most, max(drawn, least)))


def _select(table: Dataset, places: Sequence[int]) -> Dataset:
    return take_rows(table, sorted(places))
