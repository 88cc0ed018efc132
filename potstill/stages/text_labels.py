"""Labels for real texts that nobody labelled, before the student is trained: by what, and whether to believe them.

differences   how the fields of an input differ, where the user's labels say that this is what they are about
              (`potstill.datagen.pairs`)
likeness      how near the two inputs of a text lie to each other, where nobody labelled a row and the labels are
              whether they say the same (`potstill.datagen.likeness`)
student       a mixture in the space of a student that learnt from people's labels first: the user's, or those of
              retrieved rows
encoder       a mixture in the sentence encoder's space, where nobody labelled a row (`potstill.datagen.mixture`)
opinion       what that mixture starts from, where it would go elsewhere from other rows: nearness to the names of the
              labels and what the rows say, balanced over the texts (or as common as `label_prior` says)
teacher       what the teacher says of each text, where `self_training.method` asks for it, or of some, where the rows
              say nothing of them: its probabilities, corrected and joined with the encoder as they are for the rows, or
              the label that it writes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from potstill.events import Event

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray

    from potstill.datagen.pairs import Compared
    from potstill.stages.job import Job
    from potstill.train.self_training import Unlabelled


@dataclass(frozen=True)
class TextLabels:
    """Labels of texts.

    Attributes:
        probs: (n_texts, n_labels) float64, rows sum to 1, or to 0 of a text that nothing is known of.
        trust: How far they are to be believed, in [0, 1].
        least: The trust below which the texts are left out.
        space: What they come of.
        of_few: How far halves of few written rows agree on them above chance, squared; 1 where that is no matter, 0
            where retrieved rows say nothing of the texts.
    """

    probs: NDArray[np.float64]
    trust: float
    least: float
    space: Literal["differences", "student", "encoder", "opinion", "likeness", "teacher"]
    of_few: float = 1.0


def labels_of_texts(
    job: Job, texts: list[str], rows: Dataset, led: Dataset, teach: Callable[[Dataset, Path], object], folder: Path
) -> TextLabels:
    """Label texts by what the rows allow.

    Args:
        job: The run: its task, encoder, stated label prior and `self_training` options.
        texts: The texts, at least one.
        rows: All training rows.
        led: Those of them that the student learns from where there are no texts.
        teach: Trains a student on rows into a folder.
        folder: Where that first student may lie.
    """
    from potstill.datagen.mixture import above_chance
    from potstill.train.gold_rows import LEAST_HELD_OUT

    options, spec = job.settings.self_training, job.spec
    if options.method == "teacher":
        return TextLabels(teacher_labels(job, texts, rows), 1.0, 0.0, "teacher")
    origins = rows["origin"][:]
    asked = origins.count("user") >= LEAST_HELD_OUT
    if asked and (told := _compared(job, texts, led)) is not None:
        return TextLabels(told.probs, told.weighed.kappa, 0.0, "differences")
    if not asked and (alike := _alike(job, texts)) is not None:
        return TextLabels(alike, 1.0, 0.0, "likeness")
    if asked or origins.count("retrieved") >= max(LEAST_HELD_OUT, options.fewest * len(spec.labels)):
        teach(led, folder)
        found = taught_labels(job, texts, led, folder)
        if found is not None:
            # Retrieved rows that teach nothing of these texts are of another kind; the teacher may know their labels.
            strange = not asked and found[1] < options.trust
            return TextLabels(*found, options.trust, "student", of_few=0.0 if strange else 1.0)
    mixed = mixture_labels(job, texts, rows)
    if asked:
        return TextLabels(mixed.probs, mixed.believed, options.trust, "encoder")
    shared, of_few = (above_chance(share, len(spec.labels)) for share in (mixed.believed, mixed.of_few()))
    if mixed.believed >= options.agreement:
        return TextLabels(mixed.probs, mixed.believed, 0.0, "encoder", of_few)
    # Halves that agree as coins do were taught nothing, and what all rows say together is no better.
    return TextLabels(mixed.opinion, shared, options.trust, "opinion", of_few)


def _compared(job: Job, texts: list[str], rows: Dataset) -> Compared | None:
    """What the difference of an input's fields says, taught by the user's rows."""
    from potstill.datagen.pairs import compare_fields
    from potstill.models import sentence_encoder
    from potstill.rows import shared_fields

    spec = job.spec
    inputs, labels = rows["input"][:], rows["label"][:]
    own = [i for i, origin in enumerate(rows["origin"][:]) if origin == "user" and labels[i] is not None]
    given, told = [inputs[i] for i in own], [int(labels[i]) for i in own]
    names = spec.inputs if len(spec.inputs) > 1 else shared_fields(given)
    encoder = sentence_encoder(job.settings.encoder)
    return compare_fields(
        names, texts, given, told, len(spec.labels), encoder, prior=spec.prior, seed=job.settings.seed
    )


def _alike(job: Job, texts: list[str]) -> NDArray[np.float64] | None:
    """What the likeness of an input's two fields says, where the labels are whether they say the same."""
    import numpy as np

    from potstill.datagen.likeness import likeness_logits
    from potstill.datagen.mixture import even_opinion
    from potstill.models import sentence_encoder

    found = likeness_logits(job.spec, texts, sentence_encoder(job.settings.encoder))
    return None if found is None else even_opinion(np.exp(found), job.spec.prior)


def read_by_teacher(
    job: Job, found: TextLabels, texts: list[Unlabelled], rows: Dataset, met: dict[str, Any]
) -> tuple[TextLabels, list[Unlabelled]] | None:
    """What the teacher says of some texts, where the rows say nothing of them, or little.

    Halves of written rows that agree as coins do come of a teacher that does not know how to write for a label. It may
    still know one when it reads it (docs/log.md, "Texts of which the rows say nothing"), and mostly does where halves
    of few rows agree a little better (`self_training.read_below`).

    Args:
        job: The run: its teacher, encoder and `self_training` and `soft` options.
        found: What the rows say of the texts.
        texts: The texts; `self_training.read` of them are drawn by chance.
        rows: The training rows.
        met: Gets `budget_met` (`asking.budget.as_paid`) where the budget does not reach, so that a larger one reads.

    Returns:
        The labels of the texts that were drawn, and these; None where what was found is believed, where nothing may be
        read, and where the budget does not reach for it.

    Raises:
        TeacherError: The teacher refused or stayed away.
    """
    from potstill.asking.budget import as_paid

    options = job.settings.self_training
    most = min(options.read, len(texts))
    lost = found.trust < found.least and (found.space == "opinion" or found.of_few < options.read_below)
    if not most or not (lost or found.of_few < options.read_below):
        return None
    some = Random(job.settings.seed).sample(texts, most)
    said = "nothing" if lost else "little"
    job.listener(Event("train", "note", f"the rows say {said} of the texts; the teacher reads {most} of them"))
    with as_paid(job.asker.meter, needed=False) as cut:
        return TextLabels(teacher_labels(job, [text.text for text in some], rows), 1.0, 0.0, "teacher"), some
    met.update(cut)
    whose = "a mixture" if found.space == "encoder" else "names and rows"
    instead = "the texts are left out" if lost else f"the texts are labelled by {whose}"
    job.listener(Event("train", "note", f"{instead}: {cut['budget_met']['told']}"))
    return None


def teacher_labels(job: Job, texts: list[str], rows: Dataset) -> NDArray[np.float64]:
    """Probabilities of the labels of texts that nobody labelled, by the teacher.

    One that tells how likely it finds each label is believed as it is for the rows (`potstill.datagen.soft`). One that
    only writes is asked for the label in words, which is then sure; answers that name none leave their text out.

    Args:
        job: The run: its teacher, encoder and `soft` options.
        texts: The texts, each of which the teacher is asked for.
        rows: The training rows. Their labels tell how far teacher and encoder are believed; what the teacher said of
            them is in the ledger.

    Returns:
        (len(texts), n_labels) float64; 0 of a text that it did not answer.

    Raises:
        TeacherError: The teacher refused or stayed away.
    """
    import numpy as np

    from potstill.datagen.label_scores import can_score
    from potstill.datagen.soft import add_teacher_probs
    from potstill.models import sentence_encoder
    from potstill.rows import Row, Source, dataset_to_rows, rows_to_dataset

    spec, soft = job.spec, job.settings.soft
    if can_score(job.asker, soft):
        asked = [Row(text, "", "pseudo", Source(teacher=job.asker.teacher.name)) for text in texts]
        told = [replace(row, teacher_probs=None) for row in dataset_to_rows(rows) if row.label is not None]
        table = rows_to_dataset([*told, *asked], spec.label_names)
        encoder = sentence_encoder(job.settings.encoder)
        found = add_teacher_probs(spec, table, job.asker, soft, encoder=encoder, listener=job.listener)
        if found.calibration is not None:  # else the server leaves its log-probs out
            nothing = [0.0] * len(spec.labels)
            probs = [own or nothing for own in found.table["teacher_probs"][len(told) :]]
            return np.asarray(probs, dtype=np.float64)
    return written_labels(job, texts, rows)


def written_labels(job: Job, texts: list[str], rows: Dataset) -> NDArray[np.float64]:
    """The labels that the teacher writes for texts, as probabilities of 1.

    Arguments and result are as of `teacher_labels`; a text for which it names no label, or which it refuses, has 0.

    Raises:
        TeacherError: The teacher refused or stayed away.
    """
    import numpy as np

    from potstill.datagen.label_question import with_examples
    from potstill.datagen.zero_shot import zero_shot_labels

    spec, count = with_examples(job.spec, rows), len(texts)
    job.listener(Event("train", "progress", f"{job.asker.teacher.name} writes the labels of {count} texts", 0, count))
    labels = zero_shot_labels(spec, texts, job.asker, job.settings.soft)
    probs = np.asarray([[float(name == label) for name in spec.label_names] for label in labels], dtype=np.float64)
    if nameless := labels.count(""):
        said = f"{nameless} of {count} texts are left out, for which the teacher named no label"
        job.listener(Event("train", "note", said))
    return probs.reshape(count, len(spec.labels))


def taught_labels(job: Job, texts: list[str], rows: Dataset, student: Path) -> tuple[NDArray[np.float64], float] | None:
    """Probabilities of the labels of texts that nobody labelled, by a mixture in a trained student's space.

    Args:
        job: The run: its task and stated label prior.
        texts: The texts, at least one.
        rows: The training rows; those of the user stay what they are.
        student: Folder of a student that learnt from the rows; its answers are where the mixture starts.

    Returns:
        (len(texts), n_labels) float64; and how far mixture and student agree above chance, squared, in [0, 1]. None for
        a student whose head reads no vector of the whole text.
    """
    from potstill.datagen.mixture import above_chance, fit_mixture
    from potstill.train.self_training import read_texts
    from potstill.train.student import load_student

    spec = job.spec
    inputs, labels = rows["input"][:], rows["label"][:]
    told = [i for i, origin in enumerate(rows["origin"][:]) if origin == "user" and labels[i] is not None]
    model = load_student(student)
    found = read_texts(model, [*(inputs[i] for i in told), *texts])
    if found is None:
        return None
    space, start = found[0], model.in_order(spec, found[1])
    mixture = fit_mixture(space, start, known=[int(labels[i]) for i in told], prior=spec.prior)
    probs = mixture.probs(space[len(told) :])
    same = float((probs.argmax(axis=1) == start[len(told) :].argmax(axis=1)).mean())
    return probs, above_chance(same, len(spec.labels))


@dataclass(frozen=True)
class MixtureLabels:
    """What a mixture in the sentence encoder's space makes of texts that nobody labelled.

    Attributes:
        probs: (n_texts, n_labels) float64.
        believed: How far they are to be believed: by the user's rows where there are enough (`mixture.trust`), by
            halves of all rows otherwise (`mixture.agreement`).
        opinion: What it started from, settled (`mixture.settled_opinion`), of the same shape.
        of_few: How far halves of few rows agree, a share in [0, 1].
    """

    probs: NDArray[np.float64]
    believed: float
    opinion: NDArray[np.float64]
    of_few: Callable[[], float]


def mixture_labels(job: Job, texts: list[str], rows: Dataset) -> MixtureLabels:
    """Labels of texts that nobody labelled; see `potstill.datagen.mixture`.

    Args:
        job: The run: its task, encoder and stated label prior.
        texts: The texts, at least one.
        rows: The training rows; those of the user stay what they are.
    """
    import numpy as np

    from potstill.datagen.mixture import (
        DRAWS_OF_FEW,
        FEW_ROWS,
        agreement,
        first_opinion,
        fit_mixture,
        settled_opinion,
        trust,
    )
    from potstill.language.label_vectors import near_vectors
    from potstill.language.label_words import OTHER, described_words
    from potstill.models import sentence_encoder
    from potstill.train.gold_rows import LEAST_HELD_OUT

    spec = job.spec
    encoder = sentence_encoder(job.settings.encoder)

    def encode(some: list[str]) -> NDArray[np.float64]:
        found = np.asarray(encoder.encode(some), dtype=np.float64)
        unit: NDArray[np.float64] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return unit

    usable = [i for i, label in enumerate(rows["label"]) if label is not None]
    table = rows.select(usable)
    labels, gold = table["label"][:], [origin == "user" for origin in table["origin"]]
    known = encode(table["input"][:]) if usable else np.zeros((0, 1))
    real = encode(texts)
    told = [i for i, is_gold in enumerate(gold) if is_gold]
    space = np.concatenate([known[told], real]) if told else real
    weights, own_labels = table["weight"][:], [labels[i] for i in told]
    names = encode([*described_words(spec), OTHER])
    names = near_vectors(spec, names[:-1], names[-1])
    prior = spec.prior
    start = first_opinion(space, known, labels, gold, weights, names)
    if len(told) >= LEAST_HELD_OUT:
        others = [i for i, is_gold in enumerate(gold) if not is_gold]
        made, made_labels = [weights[i] for i in others], [labels[i] for i in others]
        blind = first_opinion(space, known[others], made_labels, [False] * len(others), made, names)
        believed = trust(space, blind, own_labels, prior)
    else:
        believed = agreement(real, known, labels, weights, names, prior)
    mixture = fit_mixture(space, start, known=own_labels, prior=prior)
    opinion = settled_opinion(real, start[len(told) :], prior)
    of_few = partial(agreement, real, known, labels, weights, names, prior, rows_each=FEW_ROWS, draws=DRAWS_OF_FEW)
    return MixtureLabels(mixture.probs(real), believed, opinion, of_few)
