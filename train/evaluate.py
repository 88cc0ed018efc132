"""From gold rows and a system's answers to its scores, with confidence intervals, size and latency.

What enters: the task, gold rows, the answers (and, for a classifier, its probabilities). What leaves: `Scores`,
whose `to_json` is one entry of `scores.json`. Every system of a report (student, teacher raw and calibrated,
majority) goes through the same `score_predictions`, so that the figures can be compared.

Latency is measured at batch 1, on a fixed number of threads, after a warm-up, on inputs of the test set.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from potstill.errors import DataError
from potstill.events import Event, Listener, silent
from potstill.rows import REFERENCES, label_names
from potstill.task import TaskSpec
from potstill.train import corpus_scores, metrics
from potstill.train.ordinal import ORDINAL, ordinal_of_draws
from potstill.train.text_scores import TEXT_FIGURES, text_scorer

if TYPE_CHECKING:
    from datasets import Dataset

    from potstill.train.student import Student

LATENCY_THREADS = 1
LATENCY_BUDGET_S = 15.0
# Figures whose names are no names of fields.
_FIELDS = {"chrf++": "chrf_pp"}
_WARM_UPS = 2
_SLOW_S = 2.0


@dataclass(frozen=True)
class Scores:
    """Scores of one system on one set of gold rows, in [0, 1] where nothing else is said.

    Attributes:
        rows: How many gold rows.
        metric: Name of the figure that the task is judged by.
        accuracy: Share of right labels (classification).
        macro_f1: Mean F1 over labels (classification).
        qwk: Cohen's kappa with quadratic weights, of labels that stand in an order; in [-1, 1].
        mae: Mean distance of answers from the right label in steps of that order; less is better.
        ece: Expected calibration error in 15 bins, where probabilities were given.
        exact_match: Share of equal texts after normalisation (generation).
        token_f1: Mean F1 of the answers' words, in any order (generation).
        rouge_l: Mean ROUGE-L F1 (generation).
        chrf: Corpus chrF (generation).
        chrf_pp: Corpus chrF++ (generation); called `chrf++` where figures have names.
        bleu: Corpus BLEU (generation).
        bleu_tokens: Which of sacrebleu's tokenizers it counts words with.
        ci: 95 % interval of each figure: Wilson's of shares of rows, else a bootstrap's.
        labels: Label names, in the order of `confusion`.
        confusion: Row = gold, column = answer, last column = an answer that is no label.
        label_distribution: Share of each label among the answers; "" is an answer that is no label.
        size_mib: Weights on disk.
        latency_ms: p50 and p95 of one input at a time, with the threads and the inputs it was measured on.
    """

    rows: int
    metric: str
    accuracy: float | None = None
    macro_f1: float | None = None
    qwk: float | None = None
    mae: float | None = None
    ece: float | None = None
    exact_match: float | None = None
    token_f1: float | None = None
    rouge_l: float | None = None
    chrf: float | None = None
    chrf_pp: float | None = None
    bleu: float | None = None
    bleu_tokens: str = ""
    ci: dict[str, tuple[float, float]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    label_distribution: dict[str, float] = field(default_factory=dict)
    size_mib: float | None = None
    latency_ms: dict[str, float] | None = None

    @property
    def value(self) -> float:
        """The figure that the task is judged by."""
        return float(getattr(self, _FIELDS.get(self.metric, self.metric)))

    def to_json(self) -> dict[str, Any]:
        """JSON types, without the figures that do not apply; a system's entry in `scores.json`, less its name."""
        figures = (
            "accuracy",
            "macro_f1",
            "qwk",
            "mae",
            "ece",
            "exact_match",
            "token_f1",
            "rouge_l",
            "chrf",
            "chrf++",
            "bleu",
            "size_mib",
            "latency_ms",
        )
        entry: dict[str, Any] = {"rows": self.rows}
        found = {figure: getattr(self, _FIELDS.get(figure, figure)) for figure in figures}
        entry |= {figure: value for figure, value in found.items() if value is not None}
        entry |= {"bleu_tokens": self.bleu_tokens} if self.bleu_tokens else {}
        entry["ci"] = {figure: list(ends) for figure, ends in self.ci.items()}
        if self.labels:
            entry["labels"] = list(self.labels)
            entry["confusion"] = [list(row) for row in self.confusion]
            entry["label_distribution"] = self.label_distribution
        return entry


@dataclass(frozen=True)
class Evaluation:
    """A student's scores with the answers that gave them.

    Attributes:
        scores: The figures.
        outputs: One answer a row, in the order of the rows.
        probs: (rows, labels) float64 in the order of the task's labels; None for generation.
    """

    scores: Scores
    outputs: tuple[str, ...]
    probs: NDArray[np.float64] | None = None


def score_predictions(
    spec: TaskSpec,
    gold: Dataset,
    outputs: Sequence[str],
    probs: NDArray[np.float64] | Sequence[Sequence[float]] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score answers against gold rows.

    Args:
        spec: The task; its kind decides which figures are computed.
        gold: Rows in the one schema; `label` (or `output`) is the truth, or each of `references`, where there are any.
        outputs: One answer a row; for classification, a label's name.
        probs: (rows, labels) probabilities in the order of `spec.label_names`, for the calibration error.
        resamples: Draws of the bootstrap.
        seed: Seed of the bootstrap.

    Raises:
        DataError: No gold rows, another number of answers, a gold row without a known label, or probabilities
            that are not finite or of another shape.
    """
    if len(gold) == 0:
        raise DataError("there are no gold rows to score against; give test data, or more rows for a held-out part")
    if len(gold) != len(outputs):
        raise DataError(f"{len(outputs)} answers for {len(gold)} gold rows; give one answer a row, in their order")
    if spec.kind == "classification":
        return _score_labels(spec, gold, list(outputs), probs, resamples, seed)
    return _score_texts(spec, gold, list(outputs), resamples, seed)


def evaluate_student(
    student: Student,
    spec: TaskSpec,
    test: Dataset,
    *,
    latency_rows: int = 60,
    resamples: int = 1000,
    seed: int = 0,
    listener: Listener = silent,
) -> Evaluation:
    """Answer every test row with the student and score it, with its size and latency.

    Args:
        student: The student.
        spec: The task.
        test: Gold rows.
        latency_rows: Inputs that latency is measured on, spread over the rows; 0 leaves it out.
        resamples: Draws of the bootstrap.
        seed: Seed of the bootstrap.
        listener: Progress.

    Raises:
        DataError: As `score_predictions`.
        TrainingError: The student gives probabilities that are not finite, or has other labels than the task.
    """
    student.check_labels(spec)
    inputs = list(test["input"])

    def progress(done: int) -> None:
        listener(Event("evaluate", "progress", f"student answers {done}/{len(inputs)}", done, len(inputs)))

    predictions = student.predict(inputs, progress=progress)
    probs = None
    if spec.kind == "classification" and predictions:
        probs = student.in_order(spec, np.array([p.probs for p in predictions], dtype=np.float64))
    scores = score_predictions(spec, test, [p.output for p in predictions], probs, resamples=resamples, seed=seed)
    latency = measure_latency(student, inputs, rows=latency_rows) if latency_rows else None
    scores = replace(scores, size_mib=student.size_mib, latency_ms=latency)
    return Evaluation(scores, tuple(p.output for p in predictions), probs)


def majority_answer(spec: TaskSpec, rows: Dataset, estimated: Sequence[float] | None = None) -> tuple[str, str]:
    """The label that the majority baseline always answers, and where it is from. No gold row is looked at.

    Quotas make the labels of written rows about equally common, so that their commonest says little of the texts that
    the student will meet; a prior does.

    Args:
        spec: The task; the largest class of its `label_prior` is the answer, where it states one.
        rows: What the student learnt from; their commonest label is the answer where no prior is known.
        estimated: (labels,) shares that were estimated on the user's unlabelled texts, where they were.

    Returns:
        The label, of equal ones the first in the task's order, and its source in words.

    Raises:
        DataError: No prior is known and no row has a label of the task.
    """
    names = spec.label_names
    if spec.prior is not None:
        shares, source = spec.prior, "the task's label prior"
    elif estimated is not None:
        shares, source = list(estimated), "the label prior estimated on the unlabelled texts"
    else:
        counts = Counter(_gold_texts(rows))
        shares, source = [float(counts[name]) for name in names], "the commonest label of the training rows"
    if not any(shares):
        raise DataError(f"no row has a label of the task ({', '.join(names)}), so there is no majority to answer")
    equal = shares.count(max(shares))
    if equal > 1:
        source += f", the first of {equal} equal ones"
    return names[shares.index(max(shares))], source


def majority_system(
    spec: TaskSpec, gold: Dataset, rows: Dataset, estimated: Sequence[float] | None = None
) -> dict[str, Any]:
    """The majority baseline's entry of `scores.json`: the floor for any system. Arguments as for `majority_answer`."""
    answer, source = majority_answer(spec, rows, estimated)
    scores = score_predictions(spec, gold, [answer] * len(gold))
    return {"name": "majority", **scores.to_json(), "answer": answer, "answer_from": source}


def measure_latency(
    student: Student,
    inputs: Sequence[str],
    *,
    rows: int = 60,
    threads: int = LATENCY_THREADS,
    budget_s: float = LATENCY_BUDGET_S,
) -> dict[str, float]:
    """p50 and p95 milliseconds for one input at a time, after a warm-up of two.

    Where an input takes seconds, as a generator's does on a CPU, the first two count: they cost more than cold caches.

    Args:
        student: What is measured.
        inputs: Texts to answer.
        rows: How many of them are used at most, spread over the list.
        threads: Torch threads during the measurement.
        budget_s: Stop early once this much time is spent (at least 3 inputs are measured).
    """
    import torch

    if not inputs:
        return {}
    step = max(1, len(inputs) // rows)
    chosen = list(inputs)[::step][:rows]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        times: list[float] = []
        warm_ups = chosen[:_WARM_UPS]
        start = time.perf_counter()
        for place, text in enumerate([*warm_ups, *chosen]):
            if len(times) >= 3 and time.perf_counter() - start > budget_s:
                break
            tick = time.perf_counter()
            student.predict([text])
            spent = time.perf_counter() - tick
            if place >= len(warm_ups) or spent > _SLOW_S:
                times.append(1000 * spent)
    finally:
        torch.set_num_threads(before)
    p50, p95 = np.quantile(times, [0.5, 0.95])
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3), "threads": threads, "inputs": len(times)}


def _score_labels(spec: TaskSpec, gold: Dataset, outputs: list[str], probs: Any, resamples: int, seed: int) -> Scores:
    names = spec.label_names
    index = {name: i for i, name in enumerate(names)}
    unknown = sorted({text for text in _gold_texts(gold) if text not in index})
    if unknown:
        raise DataError(
            f"the gold rows have {len(unknown)} labels that the task does not: {', '.join(map(repr, unknown[:5]))}; "
            f"the task has {', '.join(names)}"
        )
    truth = np.array([index[text] for text in _gold_texts(gold)], dtype=np.int64)
    answer = np.array([index.get(text, -1) for text in outputs], dtype=np.int64)
    counts = metrics.confusion(truth, answer, len(names))
    accuracy, macro_f1 = metrics.accuracy(truth, answer), float(metrics.macro_f1(counts))
    draws = metrics.macro_f1_of_draws(truth, answer, len(names))
    ci = {
        "accuracy": metrics.share_interval(accuracy, len(truth)),
        "macro_f1": metrics.score_interval(draws, macro_f1, len(truth), resamples=resamples, seed=seed),
    }
    ordered: dict[str, float] = {
        name: float(score(counts, spec.ordered)) for name, score in ORDINAL.items() if spec.ordered
    }
    for name in ordered:
        draws = ordinal_of_draws(name, truth, answer, spec.ordered)
        ci[name] = metrics.bootstrap_interval(draws, len(truth), resamples=resamples, seed=seed)
    table = None if probs is None else _checked_probs(probs, len(truth), len(names))
    shares = counts.sum(0) / len(truth)
    distribution = {name: float(share) for name, share in zip((*names, ""), shares, strict=True) if name or share}
    return Scores(
        rows=len(truth),
        metric=spec.metric if spec.metric in ("accuracy", "macro_f1", *ordered) else "macro_f1",
        accuracy=accuracy,
        macro_f1=macro_f1,
        qwk=ordered.get("qwk"),
        mae=ordered.get("mae"),
        ece=None if table is None else metrics.expected_calibration_error(truth, table),
        ci=ci,
        labels=tuple(names),
        confusion=tuple(tuple(int(cell) for cell in row) for row in counts),
        label_distribution=distribution,
    )


def _score_texts(spec: TaskSpec, gold: Dataset, outputs: list[str], resamples: int, seed: int) -> Scores:
    right = gold[REFERENCES] if REFERENCES in gold.column_names else [[text] for text in _gold_texts(gold)]
    scorers = {name: text_scorer(name, right, outputs) for name in TEXT_FIGURES}
    whole = np.arange(len(outputs))[None]
    figures = {name: float(scorer(whole)[0]) for name, scorer in scorers.items()}
    ci = {
        name: metrics.share_interval(figures[name], len(outputs))
        if name == "exact_match"
        else metrics.score_interval(scorer, figures[name], len(outputs), resamples=resamples, seed=seed)
        for name, scorer in scorers.items()
    }
    return Scores(
        rows=len(outputs),
        metric=spec.metric if spec.metric in figures else "rouge_l",
        exact_match=figures["exact_match"],
        token_f1=figures["token_f1"],
        rouge_l=figures["rouge_l"],
        chrf=figures["chrf"],
        chrf_pp=figures["chrf++"],
        bleu=figures["bleu"],
        bleu_tokens=corpus_scores.bleu_tokens([text for texts in right for text in texts]),
        ci=ci,
    )


def _gold_texts(gold: Dataset) -> list[str]:
    names = label_names(gold)
    if not names:
        return list(gold["output"])
    pairs = zip(gold["label"], gold["output"], strict=True)
    return [output if label is None else names[label] for label, output in pairs]


def _checked_probs(probs: Any, rows: int, labels: int) -> NDArray[np.float64]:
    table = np.asarray(probs, dtype=np.float64)
    if table.shape != (rows, labels):
        raise DataError(f"probabilities have shape {table.shape}, expected {(rows, labels)} (rows, labels)")
    if not np.isfinite(table).all():
        bad = int((~np.isfinite(table).all(1)).sum())
        raise DataError(f"{bad} of {rows} rows have probabilities that are not finite; check the system that gave them")
    return table
