"""Self-training: the student learns from texts that nobody labelled.

In: training rows, held-out rows, unlabelled texts. Out: more rows to train on, or a better student.

`mixture` takes the labels from outside (`potstill.stages.text_labels`), before the student is trained. Nothing judges
that student beside one without them: the held-out rows are written ones for the most part, and a student that fits
real texts better can fit these worse.

`student` goes in rounds. A round lets the best student so far label every text anew, takes the surest texts of each
label, and trains a student from the start on the training rows and these. It ends when a round does not make the
held-out labels likelier, when too few texts are sure, or when hardly any label changes. Labels are taken in like
numbers as far as they go, since a student that prefers a label would otherwise teach itself to prefer it more.

Source: Scudder, IEEE Trans. Inf. Theory 11, 1965; training anew in each round as in Noisy Student, arXiv:1911.04252 §2.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from potstill.errors import BadOptions, OptionFault
from potstill.events import Event, Listener, silent
from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import TaskSpec
from potstill.train.gold_rows import LEAST_HELD_OUT
from potstill.whole_folders import replace_folder

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

    from potstill.train.student import Student

# Rows that the user labelled make up this share of what is drawn beside texts that a mixture labelled, or are drawn
# this many times as often.
USER_SHARE, MOST_REPEATS = 0.3, 10.0


@dataclass(frozen=True)
class SelfTrainingOptions:
    """How a student learns from texts that it labelled itself. Used where the task has `unlabelled:` texts.

    Attributes:
        method: Who labels the texts: a `mixture` of them in the space of the sentence encoder or of a first student
            (or, where the user's labels are about how an input's fields differ, that difference), the `student`, or
            the `teacher`, which is asked for each: for one that reads well.
        rounds: Most rounds; 0 leaves self-training out, of either kind.
        confidence: Texts whose likeliest label has less probability than this are not used; None takes 0.5 with a
            mixture, 0 with the teacher, 0.9 with the student.
        most: Most texts of a round, as a multiple of the training rows; None takes 8 with a mixture or the teacher, 1
            with the student.
        fewest: A round needs at least this many texts; a mixture wants eight a label.
        weight: Weight of such a row beside a training row's 1, before it is multiplied by its confidence; None takes
            1 with a mixture or the teacher, 0.5 with the student.
        trust: With ten rows of the user or more, or `fewest` retrieved ones a label, a mixture is left out where it and
            the student of these rows agree less than this (above chance, squared; without a student's space it is
            `potstill.datagen.mixture.trust`; 0 takes any).
        agreement: Without such rows, where mixtures that start from one half of the rows each agree on a smaller share
            of the texts, these are labelled by what the mixture starts from instead: nearness to the names of the
            labels and what the rows say. Where that share above chance, squared, is below `trust`, the rows say nothing
            of the texts.
        read_below: Where halves of fifteen rows a label agree on so few of the texts that this share above chance,
            squared, is below this, the rows say little of them, and the teacher is asked.
        read: How many of the texts, drawn by chance, the teacher is then asked for; 0 asks it for none, and leaves out
            texts of which the rows say nothing.
        written_weight: What the weight of written rows is multiplied by once real texts are labelled.
        min_gain: A round must make the held-out labels likelier by more than this, in nats a row.
        settled: It ends when fewer than this share of the chosen texts are new or have another label.
    """

    method: Literal["mixture", "teacher", "student"] = "mixture"
    rounds: int = 3
    confidence: float | None = None
    most: float | None = None
    fewest: int = 8
    weight: float | None = None
    trust: float = 0.3
    agreement: float = 0.9
    read_below: float = 0.4
    read: int = 400
    written_weight: float = 0.2
    min_gain: float = 0.0
    settled: float = 0.02

    def __post_init__(self) -> None:
        faults = []
        if self.rounds < 0:
            faults.append(OptionFault(f"rounds must be at least 0 (got {self.rounds})", "rounds"))
        if self.read < 0:
            faults.append(OptionFault(f"read must be at least 0 (got {self.read})", "read"))
        for name in ("confidence", "settled", "trust", "agreement", "read_below"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                faults.append(OptionFault(f"{name} must be in [0, 1] (got {getattr(self, name)})", name))
        for name in ("most", "weight", "written_weight"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                faults.append(OptionFault(f"{name} must be above 0 (got {value})", name))
        if faults:
            raise BadOptions(faults)

    @property
    def may_ask(self) -> bool:
        """Whether the teacher may be asked for the labels of texts."""
        return self.method == "teacher" or (self.method == "mixture" and self.read > 0)

    def resolved(self) -> SelfTrainingOptions:
        """With what None stands for."""
        own = {"mixture": (0.5, 8.0, 1.0), "teacher": (0.0, 8.0, 1.0), "student": (0.9, 1.0, 0.5)}[self.method]
        told = (self.confidence, self.most, self.weight)
        confidence, most, weight = (b if a is None else a for a, b in zip(told, own, strict=True))
        return replace(self, confidence=confidence, most=most, weight=weight)


@dataclass(frozen=True)
class Unlabelled:
    """A text with where it came from."""

    text: str
    dataset: str
    row: int


Stop = Literal["rounds", "no gain", "too few sure texts", "settled"]
Trainer = Callable[["Dataset", Path], Any]
"""Trains a student on rows and publishes it in a folder."""


@dataclass(frozen=True)
class SelfTrainingResult:
    """What the rounds gave.

    Attributes:
        rows: Rows of origin `pseudo` that the published student learnt from; none where no round was better.
        stopped: Why it ended.
        rounds: One entry a round: texts used, held-out score, whether it was adopted.
    """

    rows: Dataset
    stopped: Stop
    rounds: list[dict[str, Any]] = field(default_factory=list)


def pick_sure(probs: NDArray[np.float64], options: SelfTrainingOptions, room: int) -> list[int]:
    """Places of the texts to learn from: of each label the surest, in like numbers.

    Args:
        probs: (n, n_labels).
        options: The confidence wanted.
        room: Most places.
    """
    best, sure = probs.argmax(axis=1), probs.max(axis=1)
    queues = []
    for label in range(probs.shape[1]):
        least = float(options.confidence or 0)
        places = [int(i) for i in (-sure).argsort(kind="stable") if best[i] == label and sure[i] >= least]
        if places:
            queues.append(places)
    # A label that has few sure texts holds the others back: at most twice as many of them are taken.
    share = max(1, room // max(1, probs.shape[1]))
    limit = min(share, 2 * min(len(queue) for queue in queues)) if queues else 0
    return sorted(place for queue in queues for place in queue[:limit])


def self_train(
    spec: TaskSpec,
    rows: Dataset,
    validation: Dataset,
    texts: Sequence[Unlabelled],
    student: Path,
    train: Trainer,
    options: SelfTrainingOptions,
    *,
    licence: str = "unknown",
    listener: Listener = silent,
) -> SelfTrainingResult:
    """Better a trained student by its own labels; the folder `student` holds the best one afterwards.

    Args:
        spec: A classification task.
        rows: What `student` was trained on.
        validation: Rows that decide whether a round is better.
        texts: Unlabelled texts, none of them a test text or a training row.
        student: Folder of the trained student.
        train: Trains a student on rows into a folder.
        options: Rounds, confidence, stop rule.
        licence: SPDX id of the texts.
        listener: Progress.
    """
    from datasets import concatenate_datasets

    options = replace(options, method="student").resolved()
    best_score = _score(spec, student, validation)
    adopted: list[Row] = []
    before: dict[str, str] = {}
    history: list[dict[str, Any]] = [{"round": 0, "texts": 0, "score": round(best_score, 4), "adopted": True}]
    stopped: Stop = "rounds"
    for number in range(1, options.rounds + 1):
        chosen = _label(spec, student, texts, options, int((options.most or 0) * rows.num_rows), number, licence)
        now = {row.input: row.output for row in chosen}
        changed = sum(before.get(text) != label for text, label in now.items())
        if len(chosen) < options.fewest:
            stopped = "too few sure texts"
            break
        if before and changed < options.settled * len(chosen):
            stopped = "settled"
            break
        listener(Event("train", "note", f"self-training, round {number}: {len(chosen)} of {len(texts)} texts are sure"))
        attempt = student.with_name(f"{student.name}-round-{number}")
        train(concatenate_datasets([rows, rows_to_dataset(chosen, spec.label_names)]), attempt)
        score = _score(spec, attempt, validation)
        better = score > best_score + options.min_gain
        history.append(
            {"round": number, "texts": len(chosen), "changed": changed, "score": round(score, 4), "adopted": better}
        )
        if not better:
            shutil.rmtree(attempt)
            stopped = "no gain"
            break
        best_score, adopted, before = score, chosen, now
        replace_folder(attempt, student)
    for left in student.parent.glob(f"{student.name}-round-*"):  # of a run that was killed in a later round
        shutil.rmtree(left)
    return SelfTrainingResult(rows_to_dataset(adopted, spec.label_names), stopped, history)


@dataclass(frozen=True)
class MixedIn:
    """Rows to train on once texts that a mixture labelled have joined them.

    Attributes:
        rows: The training rows, written ones at less weight, and the texts as rows of origin `pseudo`.
        validation: The held-out rows that choose the student.
        chosen: Those of `rows` that are texts.
        sampling: How often rows of an origin are drawn, as `distil.sampling` says it.
    """

    rows: Dataset
    validation: Dataset
    chosen: Dataset
    sampling: dict[str, float]


def read_texts(student: Student, texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """What a classifier's head reads of texts, and what it answers.

    Args:
        student: A trained classifier.
        texts: Texts, cut at its longest input.

    Returns:
        (len(texts), width) float64 vectors of length 1, and (len(texts), labels) probabilities in the order of the
        student's labels; None for a model without such a vector (see `head_start.can_start`).
    """
    import numpy as np
    import torch

    from potstill.train.head_start import can_start, features

    if not can_start(student.model):
        return None
    cut = {"truncation": True, "max_length": student.card.max_length}
    found = features(student.model, student.tokenizer(list(texts), **cut)["input_ids"])
    weights, biases = (part.detach().double().cpu() for part in student.model.classifier.parameters())
    probs = (torch.from_numpy(found) @ weights.T + biases).softmax(1).numpy()
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), probs


def mix_in(
    spec: TaskSpec,
    rows: Dataset,
    validation: Dataset,
    texts: Sequence[Unlabelled],
    probs: NDArray[np.float64],
    options: SelfTrainingOptions,
    *,
    by: str = "mixture",
    beside: int | None = None,
    seed: int = 0,
    licence: str = "unknown",
) -> MixedIn | None:
    """Let texts with labels from elsewhere join the training rows; None where too few of them are sure.

    A tenth of the texts, at most 200, is held out in place of the written rows that were: the student is to be chosen
    by what it will read. Where the user's own held-out rows are enough, they choose alone; where both are too few, the
    written ones stay beside them.

    Args:
        spec: A classification task.
        rows: Training rows.
        validation: Held-out rows.
        texts: Unlabelled texts, none of them a test text or a row.
        probs: (len(texts), n_labels) their labels; 0 of a text that nothing is known of, which is left out.
        options: How many texts, how sure, at what weight.
        by: What labelled them, for the rows' source.
        beside: The number of rows that `options.most` multiplies; by default that of `rows`.
        seed: Decides which texts, where there are more than wanted.
        licence: SPDX id of the texts.
    """
    import numpy as np
    from datasets import concatenate_datasets

    options = replace(options, method="teacher" if by == "teacher" else "mixture").resolved()
    # Of a text that nothing is known of, the likeliest label would be the first.
    sure = [i for i in range(len(texts)) if 0 < probs[i].max() >= (options.confidence or 0)]
    if len(sure) < max(options.fewest, 8 * len(spec.label_names)):
        return None
    room = int((options.most or 0) * (rows.num_rows if beside is None else beside))
    order = np.random.default_rng(seed).permutation(sure)[:room].tolist()
    held = min(200, len(order) // 10)
    made = [_pseudo_row(spec, texts[i], probs[i], options, by, licence) for i in order]
    chosen = rows_to_dataset(made[held:], spec.label_names)
    weights = [w * (options.written_weight if o == "generated" else 1) for w, o in zip(rows["weight"], rows["origin"])]
    lighter = rows.remove_columns("weight").add_column("weight", weights).cast(rows.features)
    own = validation.select([i for i, origin in enumerate(validation["origin"]) if origin == "user"])
    judges = own
    if own.num_rows < LEAST_HELD_OUT:
        few = own.num_rows + held < LEAST_HELD_OUT
        judges = concatenate_datasets([validation if few else own, rows_to_dataset(made[:held], spec.label_names)])
    gold = rows["origin"][:].count("user")
    wanted = USER_SHARE / (1 - USER_SHARE) * chosen.num_rows / max(1, gold)
    sampling = {"user": round(min(MOST_REPEATS, max(1.0, wanted)), 4)} if gold else {}
    return MixedIn(concatenate_datasets([lighter, chosen]), judges, chosen, sampling)


def _pseudo_row(
    spec: TaskSpec, item: Unlabelled, own: NDArray[np.float64], options: SelfTrainingOptions, by: str, licence: str
) -> Row:
    label = spec.label_names[int(own.argmax())]
    return Row(
        input=item.text,
        output=label,
        origin="pseudo",
        source=Source(dataset=item.dataset, row=item.row, teacher=by),
        label=label,
        teacher_probs=tuple(own.tolist()),
        licence=licence,
        weight=float((options.weight or 0) * own.max()),
    )


def _label(
    spec: TaskSpec,
    student: Path,
    texts: Sequence[Unlabelled],
    options: SelfTrainingOptions,
    room: int,
    number: int,
    licence: str,
) -> list[Row]:
    import numpy as np

    from potstill.train.student import load_student

    if not texts:
        return []
    model = load_student(student)
    probs = model.in_order(spec, np.array([p.probs for p in model.predict([t.text for t in texts])], dtype=np.float64))
    by = f"student of round {number - 1}"
    return [_pseudo_row(spec, texts[i], probs[i], options, by, licence) for i in pick_sure(probs, options, room)]


def _score(spec: TaskSpec, student: Path, validation: Dataset) -> float:
    """Mean log-likelihood of the held-out labels, in nats: finer than a count of right answers on few rows."""
    import numpy as np

    from potstill.train.student import load_student

    model = load_student(student)
    rows = [i for i, label in enumerate(validation["label"]) if label is not None]
    inputs, labels = validation["input"][:], validation["label"][:]
    found = model.predict([inputs[i] for i in rows])
    probs = model.in_order(spec, np.array([p.probs for p in found], dtype=np.float64))
    gold = [int(labels[i]) for i in rows]
    return float(np.log(np.maximum(probs[np.arange(len(rows)), gold], 1e-9)).mean())
