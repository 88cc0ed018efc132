"""Faults of the training rows, found before any training starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from potstill.errors import TrainingError
from potstill.rows import label_names
from potstill.task import TaskSpec
from potstill.train.options import DistilOptions

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class LabelTargets:
    """Targets of a classification table, one entry a usable row.

    Attributes:
        rows: Indices into the table of the rows that have a target.
        labels: (n,) int64, −1 where the row has soft targets only.
        probs: (n, n_labels) float32, zeros where the row has a label only.
        has_probs: (n,) bool.
        weights: (n,) float32, row weight times class weight.
        shares: (n,) float64, how often each row is drawn relative to the others; None draws each once an epoch.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    probs: NDArray[np.float32]
    has_probs: NDArray[np.bool_]
    weights: NDArray[np.float32]
    shares: NDArray[np.float64] | None = None


def label_targets(spec: TaskSpec, table: Dataset, options: DistilOptions, *, what: str = "training") -> LabelTargets:
    """Labels, probabilities and weights of a table, checked.

    Rows that have no target under these options (no label and no probabilities, or only the kind whose weight is
    0) are left out.

    Raises:
        TrainingError: Another label set, probabilities that are not a distribution, weights that are not finite
            or all zero, or no usable row.
    """
    names = list(spec.label_names)
    if len(names) < 2:
        raise TrainingError(f"the task {spec.name!r} has {len(names)} labels; a classifier needs at least 2")
    theirs = label_names(table)
    if theirs != names:
        raise TrainingError(
            f"the {what} rows know the labels {', '.join(theirs) or '(none)'} and the task has {', '.join(names)}; "
            "the label set changed since the rows were made: run the merge and soft-target stages again"
        )
    given = [-1 if label is None else int(label) for label in table["label"]]
    labels = np.array(given, dtype=np.int64) if given else np.zeros(0, dtype=np.int64)
    probs, has_probs = _probabilities(table, len(names), what)
    weights = np.array([1.0 if weight is None else weight for weight in table["weight"]], dtype=np.float32)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise TrainingError(f"the {what} rows have weights that are negative or not finite; they must be 0 or more")
    if options.hard_weight == 0:
        labels[:] = -1
    if options.soft_weight == 0:
        has_probs[:] = False
    rows = np.flatnonzero(((labels >= 0) | has_probs) & (weights > 0))
    if not len(rows):
        raise TrainingError(
            f"none of the {len(table)} {what} rows has a target for hard_weight {options.hard_weight:g} and "
            f"soft_weight {options.soft_weight:g}; run the soft-target stage, or set hard_weight above 0"
        )
    if options.class_weights == "balanced":
        weights = weights * _balanced(labels, probs, len(names))
    origins = list(table["origin"])
    shares = _shares([origins[i] for i in rows], options, what)
    return LabelTargets(rows, labels[rows], probs[rows], has_probs[rows], weights[rows], shares)


def check_label_variety(spec: TaskSpec, targets: LabelTargets, options: DistilOptions) -> None:
    """Refuse rows from which no classifier of these labels can be learnt.

    Raises:
        TrainingError: One row, one label only, or a label without any row (unless `empty_classes` allows it).
    """
    if len(targets.rows) < 2:
        raise TrainingError("there is 1 training row; a classifier needs at least 2, of different labels")
    met = {int(label) for label in targets.labels if label >= 0}
    met |= {int(label) for label in targets.probs[targets.has_probs].argmax(1)}
    if len(met) < 2:
        only = spec.label_names[next(iter(met))]
        raise TrainingError(
            f"all {len(targets.rows)} training rows have the label {only!r}; rows of at least 2 labels are needed: "
            "generate more rows, or check the label mapping"
        )
    empty = [name for i, name in enumerate(spec.label_names) if i not in met]
    if empty and options.empty_classes == "refuse":
        shown = ", ".join(map(repr, empty[:5])) + (" …" if len(empty) > 5 else "")
        raise TrainingError(
            f"{len(empty)} of {len(spec.labels)} labels have no training row, so the student could never give them: "
            f"{shown}; generate more rows (-n), take the labels out of the task, or set distil.empty_classes=allow"
        )


def check_text_rows(table: Dataset) -> None:
    """Refuse a generation table that cannot be learnt from.

    Raises:
        TrainingError: No rows, or only empty outputs.
    """
    if not any(str(output or "").strip() for output in table["output"]):
        raise TrainingError(f"none of the {len(table)} training rows has an output; run the generation stage again")


def check_not_empty(table: Dataset) -> None:
    """Refuse an empty table.

    Raises:
        TrainingError: It has no rows.
    """
    if len(table) == 0:
        raise TrainingError("there are no training rows; see the dropped rows of the merge stage for the reasons")


def _shares(origins: list[str], options: DistilOptions, what: str) -> NDArray[np.float64] | None:
    shares = np.array([options.sampling.get(origin, 1.0) for origin in origins], dtype=np.float64)
    if not shares.sum() > 0:
        raise TrainingError(
            f"distil.sampling leaves none of the {len(origins)} {what} rows ({', '.join(sorted(set(origins)))}); "
            "raise the share of an origin that occurs"
        )
    return None if (shares == shares[0]).all() else shares


def _probabilities(table: Dataset, n_labels: int, what: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    probs = np.zeros((len(table), n_labels), dtype=np.float32)
    has_probs = np.zeros(len(table), dtype=bool)
    for i, row in enumerate(table["teacher_probs"]):
        if row is None or len(row) == 0:
            continue
        if len(row) != n_labels:
            raise TrainingError(
                f"row {table['id'][i]} of the {what} rows has {len(row)} teacher probabilities for {n_labels} labels; "
                "the label set changed since they were made: run the soft-target stage again"
            )
        probs[i], has_probs[i] = row, True
    rows = probs[has_probs]
    bad = ~np.isfinite(rows).all(1) | (rows < -1e-6).any(1) | (np.abs(rows.sum(1) - 1) > 1e-2)
    if bad.any():
        first = int(np.flatnonzero(has_probs)[int(np.flatnonzero(bad)[0])])
        raise TrainingError(
            f"{int(bad.sum())} {what} rows have teacher probabilities that are no distribution; the first is row "
            f"{table['id'][first]}: {probs[first].tolist()}; run the soft-target stage again"
        )
    probs[has_probs] = np.clip(rows, 0, None) / np.clip(rows, 0, None).sum(1, keepdims=True)
    return probs, has_probs


def _balanced(labels: NDArray[np.int64], probs: NDArray[np.float32], n_labels: int) -> NDArray[np.float32]:
    effective = np.where(labels >= 0, labels, probs.argmax(1))
    counts = np.bincount(effective, minlength=n_labels)
    present = max(1, int((counts > 0).sum()))
    weights = len(labels) / (present * np.maximum(counts, 1))
    return np.asarray(weights[effective], dtype=np.float32)
