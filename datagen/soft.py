"""Soft targets for classification: the teacher's calibrated probability of each label for each text.

`label_scores` asks the teacher; calibration (see `calibration`) turns its scores into probabilities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

from potstill.datagen.calibration import (
    RULES,
    Calibration,
    Rule,
    estimate_prior,
    fit_calibration,
    log_softmax,
    weighed_by,
)
from potstill.datagen.evidence import encoder_logits, join_opinions, trust_weights
from potstill.datagen.label_question import with_examples
from potstill.datagen.label_scores import label_scores, settle_form
from potstill.datagen.likeness import likeness_logits
from potstill.datagen.soft_options import SoftOptions
from potstill.datagen.wording import input_noun, with_article
from potstill.events import Event, Listener, silent
from potstill.rows import label_names
from potstill.task import TaskSpec

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

    from potstill.asking.asker import Asker
    from potstill.models import TextEncoder

__all__ = ["Calibration", "SoftOptions", "SoftResult", "add_teacher_probs", "fit_calibration"]

_CONTENT_FREE = ("N/A", "[MASK]", "")
# Nats that a rule must gain over the default one on all texts labelled by the user together: a factor of e.
_CLEAR_GAIN = 1.0
# Texts labelled by the user that choose the rule, at most.
_MOST_GOLD = 200
# Texts that are scored for an estimate of the prior, at most.
_MOST_UNLABELLED = 400


@dataclass(frozen=True)
class SoftResult:
    """What the soft-target stage gives.

    Attributes:
        table: The rows with `teacher_probs`; null where the teacher gave no scores.
        calibration: The frozen correction, to be applied to other texts as it is; None where no text was scored.
        report: Agreement of labels and teacher, mean confidence, the rule and how it was chosen.
    """

    table: Dataset
    calibration: Calibration | None
    report: dict[str, Any]


def add_teacher_probs(
    spec: TaskSpec,
    table: Dataset,
    asker: Asker,
    options: SoftOptions | None = None,
    *,
    encoder: TextEncoder | None = None,
    unlabelled: Sequence[str] = (),
    listener: Listener = silent,
) -> SoftResult:
    """Fill `teacher_probs` of a table where it has none yet; written rows that seem off their label weigh less.

    Args:
        spec: A classification task.
        table: Rows in the one schema, with their labels.
        asker: A teacher that can score (`label_scores.can_score`).
        options: How.
        encoder: Sentence encoder for the second opinion; None leaves the teacher's alone.
        unlabelled: Texts as the student will meet them; where the task asks for an estimate of its label prior, some of
            them are scored for it, beside the rows of the table that have no label.
        listener: Called with progress.

    Returns:
        The table, the calibration that was fitted on its texts, and a report.

    Raises:
        TeacherError: The teacher refused, stayed away or cannot score.
    """
    import numpy as np
    from datasets import Dataset

    options = options or SoftOptions()
    names = spec.label_names
    # Rows that have probabilities already (a label model's, or an earlier student's) keep them.
    given = table["teacher_probs"][:]
    gold_texts, gold_labels = _gold(spec, table)
    spec = with_examples(spec, table)
    asked = [i for i, probs in enumerate(given) if probs is None]
    every = table["input"][:]
    inputs = [every[i] for i in asked]
    count = len(inputs)
    extra = list(unlabelled[:_MOST_UNLABELLED]) if spec.estimate_prior else []
    listener(Event("soft", "progress", f"scoring the labels of {count + len(extra)} texts", 0, count))
    options, form = settle_form(spec, [*inputs, *extra], asker, options)
    everything = label_scores(spec, [*inputs, *extra], asker, options)
    scores = everything[:count]
    if count and not np.isfinite(everything).all(axis=1).any():
        why = f"hard labels only: {asker.teacher.name} gave no log-probs of its answers"
        listener(Event("soft", "note", why))
        return SoftResult(table, None, {"summary": why})
    labels = table["label"][:]
    hard = [None if labels[i] is None else int(labels[i]) for i in asked]
    weights = _weights(hard, len(names))
    prior = spec.prior
    rule, chosen = _choose_rule(spec, asker, options, scores, weights, gold_texts, gold_labels)
    calibration = _fit(spec, asker, options, scores, rule, weights, prior)
    # The prior comes last: what is joined and estimated before it supposes equally common labels.
    even = replace(calibration, prior=tuple([1.0 / len(names)] * len(names))).apply(everything)
    answered: NDArray[np.bool_] = np.asarray(np.isfinite(scores).all(axis=1))
    columns = {name: list(table[name]) for name in table.column_names}
    joined: dict[str, Any] = {}
    if encoder is not None and options.encoder and inputs:
        alike = likeness_logits(spec, [*inputs, *extra], encoder, fit_on=count)
        mixed = join_opinions(
            log_softmax(np.log(np.maximum(even, 1e-12))),
            encoder_logits(spec, [*inputs, *extra], encoder, fit_on=count) if alike is None else alike,
            [*hard, *[None] * len(extra)],
            overrules=alike is not None,
        )
        even, joined = mixed.probs, mixed.to_json()
        if options.trust:
            written = [columns["origin"][i] == "generated" for i in asked]
            trust = trust_weights(even[:count], hard, written)
            for place, share in zip(asked, trust.tolist(), strict=True):
                columns["weight"][place] *= share
            joined |= {"mean_trust": round(float(trust.mean()), 4), "doubted": int((trust < 0.5).sum())}
    told: dict[str, Any] = {"source": "task" if spec.label_prior else "uniform"}
    if rule == "raw":
        # The teacher's own leaning stands for a prior.
        prior, told = None, {"source": "the teacher's own"}
    elif spec.estimate_prior:
        # Without scores a text says nothing of its label.
        free = [i for i in range(len(everything)) if i >= count or hard[i] is None]
        free = [i for i in free if np.isfinite(everything[i]).all()]
        prior, told = list(estimate_prior(even[free])), {"source": "estimated", "texts": len(free)}
    probs = weighed_by(even, prior)[:count]
    calibration = replace(calibration, prior=calibration.prior if prior is None else tuple(prior), form=options.form)
    report = _report(calibration, chosen, probs, scores, answered, hard, label_names(table) or list(names))
    shares = {name: round(share, 4) for name, share in zip(names, calibration.prior, strict=True)}
    report["prior"] = told if rule == "raw" else {**told, "shares": shares}
    report["form"] = form
    if joined:
        report["joined"] = joined
    for place, row, good in zip(asked, probs, answered, strict=True):
        columns["teacher_probs"][place] = row.tolist() if good else None
    filled = Dataset.from_dict(columns, features=table.features)
    listener(Event("soft", "progress", report["summary"], count, count))
    return SoftResult(filled, calibration, report)


def calibrate_texts(
    spec: TaskSpec,
    scores: NDArray[np.float64],
    asker: Asker,
    options: SoftOptions,
    frozen: Calibration | None = None,
) -> Calibration:
    """A correction for texts that are at hand together, such as a test set; their labels are not looked at.

    Batch calibration under the task's prior. Where the prior is to be estimated, the offsets are those of the training
    texts (`frozen`) or of content-free ones, and the prior is that of these texts.

    Args:
        spec: A classification task.
        scores: (n, n_labels) as of `label_scores`.
        asker: The teacher.
        options: How scores are taken.
        frozen: What `add_teacher_probs` fitted.
    """
    if not spec.estimate_prior:
        return fit_calibration(scores, rule="batch", prior=spec.prior, order=spec.ordered)
    base = frozen if frozen is not None else _fit(spec, asker, options, scores, "contextual", None, None)
    even = replace(base, prior=tuple([1.0 / len(base.prior)] * len(base.prior)))
    return replace(even, prior=estimate_prior(even.apply(scores)))


def _weights(hard: Sequence[int | None], count: int) -> list[float] | None:
    """Weights that make the labels equally common, where most rows have one and each label occurs."""
    known = Counter(value for value in hard if value is not None)
    if len(known) < count or known.total() < len(hard) / 2:
        return None
    mean = known.total() / count
    return [1.0 if value is None else mean / known[value] for value in hard]


def _gold(spec: TaskSpec, table: Dataset) -> tuple[list[str], list[int]]:
    """Texts that the user labelled: examples, then rows of origin `user`, one of each label after the other."""
    index = {name: i for i, name in enumerate(spec.label_names)}
    pairs = [(example.input, index[example.output]) for example in spec.examples if example.output in index]
    own: list[list[tuple[str, int]]] = [[] for _ in index]
    for text, label, origin in zip(table["input"], table["label"], table["origin"], strict=True):
        if origin == "user" and label is not None:
            own[int(label)].append((text, int(label)))
    turns = (pair for turn in zip_longest(*own) for pair in turn if pair is not None)
    pairs += islice(turns, max(0, _MOST_GOLD - len(pairs)))
    return [text for text, _ in pairs], [label for _, label in pairs]


def _choose_rule(
    spec: TaskSpec,
    asker: Asker,
    options: SoftOptions,
    scores: NDArray[np.float64],
    weights: Sequence[float] | None,
    gold_texts: Sequence[str],
    gold_labels: Sequence[int],
) -> tuple[Rule, str]:
    import numpy as np

    if options.rule != "auto":
        return options.rule, "given"
    default: Rule = "balanced" if spec.estimate_prior else "batch"
    if len(set(gold_labels)) < 2:
        return default, f"default ({len(gold_texts)} texts labelled by the user, with {len(set(gold_labels))} labels)"
    gold_scores = label_scores(spec, gold_texts, asker, options)
    answered = np.isfinite(gold_scores).all(axis=1)
    gold = np.asarray(gold_labels)
    # Each label counts alike, since the probabilities suppose that all are equally common.
    shares = 1.0 / np.bincount(gold, minlength=len(spec.labels))[gold] * answered
    shares *= answered.sum() / max(float(shares.sum()), 1e-300)
    found: dict[Rule, tuple[float, float]] = {}
    for rule in RULES:
        probs = _fit(spec, asker, options, scores, rule, weights, None).apply(gold_scores)
        likely = np.log(np.maximum(probs[np.arange(len(gold)), gold], 1e-12))
        found[rule] = float(likely @ shares), float((probs.argmax(axis=1) == gold)[answered].mean())
    best = max(found, key=lambda rule: found[rule])
    if found[best][0] < found[default][0] + _CLEAR_GAIN:
        note = f"no rule is clearly likelier than {default} on"
        return default, f"{note} {len(gold)} texts labelled by the user ({found[default][1]:.0%} right)"
    return best, f"likeliest on {len(gold)} texts labelled by the user ({found[best][1]:.0%} right)"


def _fit(
    spec: TaskSpec,
    asker: Asker,
    options: SoftOptions,
    scores: NDArray[np.float64],
    rule: Rule,
    weights: Sequence[float] | None,
    prior: Sequence[float] | None,
) -> Calibration:
    reference = None
    if rule == "contextual":
        reference = label_scores(spec, _CONTENT_FREE, asker, options)
    elif rule == "dcpmi":
        reference = label_scores(spec, (f"({with_article(input_noun(spec))})",), asker, options)
    return fit_calibration(scores, rule=rule, prior=prior, weights=weights, reference=reference, order=spec.ordered)


def _report(
    calibration: Calibration,
    chosen: str,
    probs: NDArray[np.float64],
    scores: NDArray[np.float64],
    answered: NDArray[np.bool_],
    hard: Sequence[int | None],
    names: Sequence[str],
) -> dict[str, Any]:
    import numpy as np

    labelled = [i for i, value in enumerate(hard) if value is not None and answered[i]]
    gold = np.asarray([hard[i] for i in labelled], dtype=int)
    agreement = {}
    for name, values in (("raw", scores), ("calibrated", probs)):
        agreement[name] = round(float((values[labelled].argmax(axis=1) == gold).mean()), 4) if labelled else None
    told = Counter(names[int(i)] for i in probs[answered].argmax(axis=1)) if answered.any() else Counter()
    confidence = round(float(probs[answered].max(axis=1).mean()), 4) if answered.any() else None
    agreed = agreement["calibrated"]
    return {
        "summary": f"soft targets for {int(answered.sum())} of {len(hard)} rows, calibration {calibration.rule}"
        + (f", teacher agrees with {agreed:.0%} of the labels" if agreed is not None else ""),
        "rule": calibration.rule,
        "rule_chosen": chosen,
        "rows": len(hard),
        "without_scores": int((~answered).sum()),
        "agreement_with_labels": agreement,
        "mean_confidence": confidence,
        "label_distribution": {name: told.get(name, 0) for name in names},
        "offsets": dict(zip(names, (round(value, 4) for value in calibration.offsets), strict=False)),
    }
