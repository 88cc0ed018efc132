"""Rows that a person labelled, beside rows that were made: which are learnt from, how often, and which choose.

A hundred labelled rows teach a small encoder more than four hundred that a small teacher wrote, and together they teach
it less than the hundred alone: the written rows outnumber them, the teacher's probabilities pull at labels that are
known, and a held-out part, of written rows or of a dozen of one's own, stops the training at the wrong place. So the
label is the one target of a user's row, and

- below `ENOUGH` of them to a label on average, written rows are drawn less often the more there are (`written_share`; a
  lower weight would not do, since batches of them would still be learnt from), and the held-out rows are the user's
  alone where these are `LEAST_HELD_OUT` or more;
- from there on written rows stay only for labels with fewer than `ENOUGH` rows of the user, and held-out rows of the
  user are learnt from too while they are fewer than `ENOUGH_HELD_OUT`: the last weights stay.

The figures of both ways on five tasks stand in docs/log.md, "What a hundred labels teach".

Without rows of the user, retrieved rows (labelled by people, for another purpose) stand beside written ones (of the
task, with the labels that a teacher was to write for). Which of the two is nearer to the task differs: sentences of
film reviews teach the sentiment of product reviews better than a small teacher does, e-mails teach spam among text
messages worse. The teacher, which knows the task's words, judges both: an origin is drawn as often as its answers and
the labels agree above chance, squared, beside the origin where they agree best.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

# So many rows of the user to a label leave the written ones the least share, or none.
ENOUGH = 8
LEAST_SHARE = 0.05
LEAST_HELD_OUT = 10
# Fewer held-out rows of the user than this teach more than they can choose.
ENOUGH_HELD_OUT = 40
# Rows of an origin with an answer of the teacher, below which their agreement tells nothing.
_ENOUGH_JUDGED = 50
_MADE = ("generated", "retrieved")


@dataclass(frozen=True)
class Led:
    """What is trained on where rows of the user lead.

    Attributes:
        train: Training rows.
        validation: Held-out rows; without a row, the last weights stay.
        sampling: How often rows of an origin are drawn, as `distil.sampling` says it.
        report: What the report says of it; empty where no row is the user's.
    """

    train: Dataset
    validation: Dataset
    sampling: dict[str, float] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


def written_share(gold: int, labels: int) -> float:
    """How often a written row is drawn beside a row of the user: once without any, `LEAST_SHARE` from `ENOUGH` on.

    Examples:
        >>> written_share(0, 4), written_share(16, 4), written_share(100, 4)
        (1.0, 0.5, 0.05)
    """
    return max(LEAST_SHARE, 1.0 - gold / (ENOUGH * max(1, labels)))


def favour_gold(
    train: Dataset, validation: Dataset, labels: int, *, merged: Dataset | None = None, choose: bool = False,
    drop: bool = True,
) -> Led:  # fmt: skip
    """Let the user's own rows lead, where there are any.

    Args:
        train: Training rows in the one schema.
        validation: Held-out rows.
        labels: How many labels the task has.
        merged: The training rows as the merge weighed them; None where `train` is these.
        choose: Whether held-out rows are needed whatever they are, since more is chosen by them than the weights.
        drop: Whether written rows may be left out.

    Returns:
        Without rows of the user what `favour_agreed` returns.
    """
    origins = train["origin"][:]
    gold = origins.count("user")
    if not gold:
        return favour_agreed(train, validation, labels)
    own = [i for i, origin in enumerate(validation["origin"][:]) if origin == "user"]
    plain = [{**row, "teacher_probs": None} if row["origin"] == "user" else row for row in train]
    if drop and gold + len(own) >= ENOUGH * max(1, labels):
        join = not choose and len(own) < ENOUGH_HELD_OUT and "retrieved" not in origins
        return _alone(train, plain, train if merged is None else merged, validation, own, join=join)
    held_out = validation.select(own) if len(own) >= LEAST_HELD_OUT else validation
    sampling = {"generated": round(written_share(gold, labels), 4)} if "generated" in origins else {}
    report = {"rows": gold, "held_out": len(own), "written_left_out": 0, "written_share": sampling.get("generated")}
    return Led(type(train).from_list(plain, features=train.features), held_out, sampling, {"user_rows": report})


def favour_agreed(train: Dataset, validation: Dataset, labels: int) -> Led:
    """Let the origin lead, of written and retrieved rows, with whose labels the teacher's answers agree best.

    Args:
        train: Training rows; `teacher_probs` are the teacher's answers.
        validation: Held-out rows; those of an origin that is drawn less than half as often are left out, where enough
            others are there.
        labels: How many labels the task has.

    Returns:
        Both tables as they came where one origin alone is there, where its rows have too few answers, or where the
        better one has too few rows of some label.
    """
    rows = list(zip(train["origin"][:], train["label"][:], train["teacher_probs"][:], strict=True))
    agreement: dict[str, float] = {}
    for origin in _MADE:
        judged = [(label, told) for made, label, told in rows if made == origin and told and label is not None]
        if len(judged) < _ENOUGH_JUDGED:
            return Led(train, validation)
        same = sum(max(range(labels), key=told.__getitem__) == label for label, told in judged)
        agreement[origin] = same / len(judged)
    chance = 1 / labels
    above = {origin: max(0.0, (share - chance) / (1 - chance)) ** 2 for origin, share in agreement.items()}
    first = max(_MADE, key=above.__getitem__)
    counts = Counter(label for made, label, _ in rows if made == first)
    if above[first] <= 0 or any(counts[label] < ENOUGH for label in range(labels)):
        return Led(train, validation)
    shares = {origin: round(max(LEAST_SHARE, above[origin] / above[first]), 4) for origin in _MADE}
    fair = [i for i, origin in enumerate(validation["origin"][:]) if shares.get(origin, 1.0) >= 0.5]
    held_out = validation.select(fair) if len(fair) >= LEAST_HELD_OUT else validation
    told = {origin: {"agreement": round(agreement[origin], 4), "drawn": shares[origin]} for origin in _MADE}
    sampling = {origin: share for origin, share in shares.items() if share < 1}
    return Led(train, held_out, sampling, {"origins": told})


def _alone(
    train: Dataset, rows: list[dict[str, Any]], merged: Dataset, validation: Dataset, own: list[int], *, join: bool
) -> Led:
    """Written rows for labels alone that have few rows of the user; these lead."""
    if join:
        rows = [*rows, *({**validation[i], "teacher_probs": None} for i in own)]
    counts = Counter(row["label"] for row in rows if row["origin"] == "user")
    kept = [row for row in rows if row["origin"] != "generated" or counts[row["label"]] < ENOUGH]
    # What a label weighs among the others stays as the merge had it: that its written rows are doubted since then says
    # nothing against the user's.
    wanted, found = _weight_by_label(list(merged)), _weight_by_label(kept)
    for row in kept:
        before, now = wanted.get(row["label"], 0.0), found[row["label"]]
        if before > 0 and now > 0:
            row["weight"] *= before / now
    mean = sum(row["weight"] for row in kept) / len(kept)
    kept = [{**row, "weight": row["weight"] / mean} for row in kept] if mean > 0 else kept
    few = len(own) < LEAST_HELD_OUT
    held_out = validation.select([] if join else range(validation.num_rows) if few else own)
    report = {
        "rows": sum(counts.values()),
        "held_out": 0 if join else len(own),
        "written_left_out": len(rows) - len(kept),
        "filled_up": sorted({row["output"] for row in kept if row["origin"] == "generated"}),
    }
    return Led(type(train).from_list(kept, features=train.features), held_out, {}, {"user_rows": report})


def _weight_by_label(rows: list[dict[str, Any]]) -> dict[Any, float]:
    sums: dict[Any, float] = {}
    for row in rows:
        sums[row["label"]] = sums.get(row["label"], 0.0) + row["weight"]
    return sums
