"""Weak supervision: labelling rules over unlabelled texts, their votes, and a label model that weighs them.

Each rule of the task is a labelling function that votes for its label or abstains; one that asks the teacher votes as
that answers (`asked_rules`). Dawid and Skene's model (Applied Statistics 28, 1979) estimates by EM how each function
errs, from agreement alone, and gives each text a distribution over the labels. A function that copies another would
count twice and drag the model along, so near-copies are merged first. Texts on which no function votes get nothing.

Agreement tells something only where functions that know several labels meet. Elsewhere the model says what is assumed:

    rules of one label each     each is taken to be right on 0.9 of its votes, which agreement moves by half at most; a
                                rule that is always contradicted ends at 0.45 and is never turned round
    a function that meets no    taken to be right on 0.9 of its votes, whatever it votes for: a lone rule's rows have
    other on any text           a probability of 0.9
    below chance                a function of several labels whose votes the others contradict is read the other way
                                round, as in Dawid and Skene's model; where most are below chance, no model can know it
    nobody votes                every text is dropped as `no_vote`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from potstill.datagen.votes import (
    ABSTAIN,
    LabellingFunction,
    contradicted,
    rule_function,
    rule_name,
    told_of,
    votes_of,
)
from potstill.errors import DataError
from potstill.rows import Dropped, Row, Source, rows_to_dataset
from potstill.task import Rule, TaskSpec

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

    from potstill.asking.asker import Asker
    from potstill.datagen.asked_rules import Told
    from potstill.datagen.soft_options import SoftOptions

STAGE = "weak"
_SINGLE_PRIOR = 0.9


@dataclass(frozen=True)
class WeakOptions:
    """How votes become labels.

    Attributes:
        model: `dawid-skene`, or `majority` where each function counts alike.
        confidence: Texts whose likeliest label has less probability than this are dropped.
        copies: Functions that vote alike on more than this share of the texts on which either votes are one.
        smoothing: Votes that each function is supposed to have cast beforehand, mostly right.
        rounds: Most EM rounds.
        timeout_s: Seconds that a Python function may take for one text; see `potstill.datagen.votes` for what is
            stopped and what is not.
        sure: Probability from which the teacher's answer to a rule's question votes; below it the rule abstains. It
            has to be reached also were all that it votes for equally common.
        alike: Questions for the same labels whose log-odds correlate above this over the texts, or below its negative,
            are averaged, and cast one vote.
    """

    model: Literal["dawid-skene", "majority"] = "dawid-skene"
    confidence: float = 0.7
    copies: float = 0.95
    smoothing: float = 1.0
    rounds: int = 100
    timeout_s: float = 5.0
    sure: float = 0.7
    alike: float = 0.8

    def __post_init__(self) -> None:
        for name in ("sure", "alike"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1 (got {getattr(self, name)})")


@dataclass(frozen=True)
class WeakResult:
    """Pseudo-labelled rows with their distributions, texts that got no label, and a report."""

    rows: Dataset
    dropped: tuple[Dropped, ...]
    report: dict[str, Any]

    @property
    def notes(self) -> list[str]:
        """What the user should know of the rules and functions, a line each."""
        said = []
        for item in self.report["functions"]:
            if item.get("faults"):
                said.append(
                    f"{item['name']} failed on {item['faults']:,} texts and abstains there: {item['first_fault']}"
                )
            if item.get("off"):
                said.append(f"{item['name']} was stopped {item['timeouts']} times and abstains from then on")
            if item.get("unanswered"):
                said.append(f"{item['name']}: the teacher gave no answer for {item['unanswered']:,} texts")
            if item.get("asked") and not item["coverage"]:
                why = "no answer for a label reaches weak.sure; ask more plainly, or lower it"
                said.append(f"{item['name']} votes on no text: {why}")
        if not self.report["labelled"]:
            said.append(f"the rules label none of {self.report['texts']:,} texts; see weak/dropped.jsonl")
        return said


@dataclass(frozen=True)
class LabelModel:
    """A fitted model.

    Attributes:
        probs: (n, n_labels) float64; rows without votes hold the prior.
        accuracies: For each function, the estimated share of its votes that are right.
        prior: (n_labels,) estimated share of each label.
        rounds: EM rounds that were run.
    """

    probs: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    prior: NDArray[np.float64]
    rounds: int


def merge_copies(votes: NDArray[np.int64], threshold: float = 0.95) -> tuple[NDArray[np.int64], list[list[int]]]:
    """Merge functions that vote alike.

    Args:
        votes: (n, n_functions), -1 for abstaining.
        threshold: Share of the texts on which either votes that must get the same vote from both.

    Returns:
        Votes of the first function of each group, filled with the others' where it abstains; and the groups.
    """
    import numpy as np

    groups: list[list[int]] = []
    for column in range(votes.shape[1]):
        own = votes[:, column]
        for group in groups:
            other = votes[:, group[0]]
            either = (own != ABSTAIN) | (other != ABSTAIN)
            if either.any() and float((own == other)[either].mean()) > threshold:
                group.append(column)
                break
        else:
            groups.append([column])
    merged = np.full((votes.shape[0], len(groups)), ABSTAIN, dtype=np.int64)
    for place, group in enumerate(groups):
        for column in reversed(group):
            cast_here = votes[:, column] != ABSTAIN
            merged[cast_here, place] = votes[cast_here, column]
    return merged, groups


def majority_vote(votes: NDArray[np.int64], labels: int) -> LabelModel:
    """Each vote counts alike; ties share the probability."""
    import numpy as np

    counts = np.stack([(votes == label).sum(axis=1) for label in range(labels)], axis=1).astype(np.float64)
    most = (counts == counts.max(axis=1, keepdims=True)).astype(np.float64)
    probs = most / most.sum(axis=1, keepdims=True)
    return LabelModel(probs, _accuracies(votes, probs), np.full(labels, 1 / labels), 0)


def dawid_skene(
    votes: NDArray[np.int64],
    labels: int,
    *,
    prior: Sequence[float] | None = None,
    smoothing: float = 1.0,
    rounds: int = 100,
    tolerance: float = 1e-6,
) -> LabelModel:
    """Dawid and Skene's model by EM, with one figure for each function that knows a single label.

    A function that votes for several labels has a whole confusion matrix; abstaining is a missing vote. One that only
    ever votes for a single label, or never votes where another does, has a single figure, how often its votes are
    right: its errors are spread evenly over the other labels. The votes of such functions alone cannot tell who is
    right, and a free fit lets one label swallow all others, or believes a lone function wholly; so half of the figure's
    evidence is a prior of 0.9, and the labels are taken to be equally common (or as `prior` says).

    Args:
        votes: (n, n_functions), a label's index or -1.
        labels: How many labels.
        prior: Known share of each label; where it is not given it is estimated, unless a function has a single figure.
        smoothing: Pseudo-count of each cell of a function's confusion matrix, doubled on its diagonal.
        rounds: Most rounds.
        tolerance: Largest change of a probability at which it stops.

    Returns:
        The fitted model.
    """
    import numpy as np

    voted = (votes != ABSTAIN).any(axis=1)
    probs = majority_vote(votes, labels).probs
    share = np.full(labels, 1 / labels) if prior is None else np.asarray(prior, dtype=np.float64)
    # Which texts each function gives each label: a table of texts x functions x labels may not fit in memory.
    cells = [(f, k, np.flatnonzero(votes[:, f] == k)) for f in range(votes.shape[1]) for k in range(labels)]
    cells = [(f, k, rows) for f, k, rows in cells if len(rows)]
    cast_votes = votes != ABSTAIN
    counts = cast_votes.sum(axis=0)
    known = np.bincount([f for f, _, _ in cells], minlength=votes.shape[1])
    met = cast_votes[cast_votes.sum(axis=1) > 1].any(axis=0)
    simple = (known <= 1) | ~met
    prior_votes = smoothing * (1 + np.eye(labels))
    spread = (1 - np.eye(labels)) / max(1, labels - 1)
    done = 0
    while done < rounds:
        done += 1
        # (n_functions, true label, vote): how often each function says what of which.
        seen = np.zeros((votes.shape[1], labels, labels))
        for f, k, rows in cells:
            seen[f, :, k] = probs[rows].sum(axis=0)
        confusion = seen + prior_votes
        confusion /= confusion.sum(axis=2, keepdims=True)
        right = (np.einsum("fkk->f", seen) + _SINGLE_PRIOR * (counts + 2)) / (2 * counts + 2)
        confusion[simple] = right[simple, None, None] * np.eye(labels) + (1 - right[simple, None, None]) * spread
        if prior is None and voted.any() and not simple.any():
            share = (probs[voted].sum(axis=0) + 1) / (voted.sum() + labels)
        logs = np.log(np.maximum(confusion, 1e-12))
        scores = np.tile(np.log(share), (len(votes), 1))
        for f, k, rows in cells:
            scores[rows] += logs[f, :, k]
        scores -= scores.max(axis=1, keepdims=True)
        fresh = np.exp(scores)
        fresh /= fresh.sum(axis=1, keepdims=True)
        change = float(np.abs(fresh - probs).max()) if len(probs) else 0.0
        probs = fresh
        if change < tolerance:
            break
    return LabelModel(probs, _accuracies(votes, probs), share, done)


def _accuracies(votes: NDArray[np.int64], probs: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    found = np.full(votes.shape[1], np.nan)
    for column in range(votes.shape[1]):
        rows = np.flatnonzero(votes[:, column] != ABSTAIN)
        if len(rows):
            found[column] = probs[rows, votes[rows, column]].mean()
    return cast("NDArray[np.float64]", found)


def label_texts(
    spec: TaskSpec,
    texts: Sequence[str],
    options: WeakOptions | None = None,
    *,
    functions: Sequence[LabellingFunction] = (),
    asker: Asker | None = None,
    soft: SoftOptions | None = None,
    places: Sequence[int] | None = None,
    dataset: str = "unlabelled",
    licence: str = "unknown",
) -> WeakResult:
    """Label texts by the task's rules and further functions.

    Args:
        spec: A classification task; its rules are used.
        texts: Unlabelled texts.
        options: The label model and the confidence wanted.
        functions: Further labelling functions.
        asker: Asks the teacher the questions of rules.
        soft: How these are asked (see `asked_rules.ask_rules`).
        places: Place of each text in its file, for provenance; 0, 1, 2, … where it is not given.
        dataset: Where the texts are from, for provenance.
        licence: SPDX id of the texts.

    Returns:
        Rows of origin `pseudo` with `teacher_probs` from the label model and their confidence as weight; their source
        names the teacher where an answer voted.

    Raises:
        DataError: There are no rules and no functions, a function fails on every text, or a rule asks a question and
            there is nobody to ask.
        TaskError: A regular expression cannot be compiled.
        TeacherError: The teacher refused or stayed away.
    """
    import numpy as np

    from potstill.datagen.asked_rules import alike_questions, mean_known, votes_for

    options = options or WeakOptions()
    if not spec.rules and not functions:
        raise DataError("no labelling rules; write `rules:` in the task file, or pass functions")
    own: dict[int, LabellingFunction]
    own = {place: rule_function(rule) for place, rule in enumerate(spec.rules) if rule.kind != "prompt"}
    own |= {len(spec.rules) + i: function for i, function in enumerate(functions)}
    # What costs nothing comes first: a function that fails on every text ends it before an answer is paid for.
    cast_by = votes_of(list(own.values()), texts, spec.label_names, timeout_s=options.timeout_s)
    told = _asked(spec, texts, asker, soft)
    # Each voter is one function, or the questions that are averaged.
    voters = sorted([[column] for column in own] + alike_questions(told, options.alike))
    votes = np.full((len(texts), len(own) + len(told)), ABSTAIN, dtype=np.int64)
    votes[:, list(own)] = cast_by.votes
    for column, said in told.items():
        votes[:, column] = votes_for(said.labels, options.sure, said.even)
    shared = votes[:, [voter[0] for voter in voters]]
    for place, voter in enumerate(voters):
        if len(voter) > 1:
            labels, even = (
                mean_known([getattr(told[column], name) for column in voter]) for name in ("labels", "even")
            )
            shared[:, place] = votes_for(labels, options.sure, even)
    merged, copies = merge_copies(shared, options.copies)
    groups = [sorted(column for place in group for column in voters[place]) for group in copies]
    count = len(spec.labels)
    if options.model == "majority":
        model = majority_vote(merged, count)
    else:
        model = dawid_skene(merged, count, prior=spec.prior, smoothing=options.smoothing, rounds=options.rounds)
    rows: list[Row] = []
    dropped: list[Dropped] = []
    answered = (votes[:, list(told)] != ABSTAIN).any(axis=1)
    for place, text in enumerate(texts):
        by = asker.teacher.name if asker is not None and answered[place] else None
        source = Source(dataset=dataset, row=place if places is None else places[place], teacher=by)
        probs = model.probs[place]
        best = int(probs.argmax())
        if (merged[place] == ABSTAIN).all():
            dropped.append(Dropped("no_vote", "no rule matches", text, "", "pseudo", source, STAGE))
        elif probs[best] < options.confidence:
            detail = f"{spec.label_names[best]} at {probs[best]:.2f}, at least {options.confidence:g}"
            dropped.append(Dropped("unsure", detail, text, spec.label_names[best], "pseudo", source, STAGE))
        else:
            rows.append(
                Row(
                    input=text,
                    output=spec.label_names[best],
                    origin="pseudo",
                    source=source,
                    label=spec.label_names[best],
                    teacher_probs=tuple(probs.tolist()),
                    licence=licence,
                    weight=float(probs[best]),
                )
            )
    described = {column: told_of(f, cast_by, i) for i, (column, f) in enumerate(own.items())}
    described |= {column: _answered(spec.rules[column], said) for column, said in told.items()}
    against = contradicted(votes, count)
    report = {
        "texts": len(texts),
        "labelled": len(rows),
        "dropped": dict(Counter(item.reason for item in dropped)),
        "labels": dict(Counter(row.output for row in rows)),
        "functions": [
            {
                **described[column],
                "coverage": round(float((votes[:, column] != ABSTAIN).mean()), 4) if len(texts) else 0.0,
                "contradicted": against[column],
                "group": next(place for place, group in enumerate(groups) if column in group),
            }
            for column in range(votes.shape[1])
        ],
        "accuracies": [None if value != value else round(float(value), 4) for value in model.accuracies],
        "merged_copies": [group for group in groups if len(group) > 1],
        "rounds": model.rounds,
    }
    return WeakResult(rows_to_dataset(rows, spec.label_names), tuple(dropped), report)


def _asked(spec: TaskSpec, texts: Sequence[str], asker: Asker | None, soft: SoftOptions | None) -> dict[int, Told]:
    """What the teacher says to the rules that ask it, by the place of each."""
    asking = {place: rule for place, rule in enumerate(spec.rules) if rule.kind == "prompt"}
    if not asking:
        return {}
    if asker is None:
        first = next(iter(asking.values())).patterns[0]
        raise DataError(f"the rule {first!r} asks the teacher, and none was given; pass `asker`")
    from potstill.datagen.asked_rules import ask_rules
    from potstill.datagen.soft_options import SoftOptions

    told = ask_rules(list(asking.values()), texts, spec.label_names, asker, soft or SoftOptions(), spec.prior)
    return dict(zip(asking, told, strict=True))


def _answered(rule: Rule, said: Told) -> dict[str, Any]:
    """What the report says of a rule that asks: its answers, each with the texts for which it is the likeliest."""
    import numpy as np

    known: NDArray[np.bool_] = np.asarray(np.isfinite(said.answers).all(axis=1))
    likeliest = np.bincount(said.answers[known].argmax(axis=1), minlength=len(rule.choices))
    return {
        "name": rule_name(rule),
        "asked": len(rule.patterns) * len(known),
        "unanswered": int((~known).sum()),
        "answers": {answer.text: int(count) for answer, count in zip(rule.choices, likeliest, strict=True)},
    }


def usable_texts(texts: Sequence[str], dataset: str) -> tuple[list[tuple[int, str]], tuple[Dropped, ...]]:
    """Unlabelled texts that can be trained on, with their place in the file.

    What was not UTF-8 was read with the replacement character; such texts are dropped (`broken_encoding`), as are texts
    with NUL bytes, and all but the first of equal ones (`duplicate`).

    Raises:
        DataError: None is left.
    """
    kept: list[tuple[int, str]] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    for place, text in enumerate(texts):
        source = Source(dataset=dataset, row=place)
        key = " ".join(text.split()).casefold()
        if "\ufffd" in text or "\x00" in text:
            dropped.append(Dropped("broken_encoding", "not UTF-8", text[:200], "", "pseudo", source, STAGE))
        elif key in seen:
            dropped.append(Dropped("duplicate", "the same words as an earlier text", text, "", "pseudo", source, STAGE))
        else:
            seen.add(key)
            kept.append((place, text))
    if not kept:
        broken = sum(item.reason == "broken_encoding" for item in dropped)
        raise DataError(
            f"{dataset} holds no usable text ({len(texts)} texts, {broken} of broken encoding); save it as UTF-8, one "
            "text a line, or give a table with a text column"
        )
    return kept, tuple(dropped)
