"""Self-training: which texts are taken, when it stops, and that a better student is kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potstill.errors import OptionError
from potstill.options import build_options
from potstill.rows import Row, rows_to_dataset
from potstill.task import Label, TaskSpec
from potstill.train.options import DistilOptions
from potstill.train.self_training import SelfTrainingOptions, Unlabelled, mix_in, pick_sure, read_texts, self_train

SPEC = TaskSpec("mail", "Say what a mail is about.", "classification", (Label("billing"), Label("praise")))
BILLING = ("invoice", "refund", "charge", "payment", "bill", "price")
PRAISE = ("thank you", "well done", "great work", "I love it", "perfect", "wonderful")


def texts(words: tuple[str, ...], count: int) -> list[str]:
    frames = ("About the {}, please.", "{} from all of us", "I write because of {}", "{}, as always", "so: {}!")
    return [f"{frames[i % 5].format(words[i % len(words)])} ({i})" for i in range(count)]


def table(per_label: int, start: int = 0) -> Any:
    rows = []
    for label, words in (("billing", BILLING), ("praise", PRAISE)):
        rows += [Row(text, label, "user", label=label) for text in texts(words, start + per_label)[start:]]
    return rows_to_dataset(rows, SPEC.label_names)


def test_the_surest_are_taken_in_like_numbers() -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(0.5, 1, 100)
    probs = np.stack([first, 1 - first], axis=1)
    probs[:6] = probs[:6, ::-1]  # six texts of the second label
    options = SelfTrainingOptions(confidence=0.8)
    chosen = pick_sure(probs, options, room=1000)
    second = [i for i in chosen if i < 6]
    assert 0 < len(second) <= 6
    assert len(chosen) - len(second) == 2 * len(second)
    assert all(probs[i].max() >= 0.8 for i in chosen)
    assert len(pick_sure(probs, options, room=4)) == 4
    assert pick_sure(probs, SelfTrainingOptions(confidence=1.0), room=10) == []


def test_impossible_options_are_refused_at_once() -> None:
    with pytest.raises(OptionError) as refused:
        build_options(SelfTrainingOptions, {"rounds": -1, "confidence": 3, "read": -2}, "self_training")
    said = ["rounds must be at least 0 (got -1)", "read must be at least 0 (got -2)", "confidence must be in [0, 1]"]
    assert all(fault in str(refused.value) for fault in said)


@pytest.mark.real
def test_rounds_better_a_student_or_leave_it(tmp_path: Path) -> None:
    from potstill.train.classify import distil_classifier
    from potstill.train.student import load_student

    rows, validation = table(6), table(10, start=60)
    unlabelled = [
        Unlabelled(text, "inbox", i) for i, text in enumerate((*texts(BILLING, 40)[10:], *texts(PRAISE, 40)[10:]))
    ]
    options = DistilOptions(soft_weight=0.0, epochs=1, min_steps=12)
    trained: list[int] = []

    def train(more: Any, out: Path) -> object:
        trained.append(more.num_rows)
        return distil_classifier(SPEC, more, validation, out, options)

    student = tmp_path / "student"
    train(rows, student)
    untouched = (student / "model.safetensors").read_bytes()
    shutil.copytree(student, tmp_path / "student-round-9")  # left by a run that was killed
    loose = SelfTrainingOptions(rounds=2, confidence=0.5, most=4.0)
    result = self_train(SPEC, rows, validation, unlabelled, student, train, loose)
    assert trained[1] > rows.num_rows
    adopted = [entry for entry in result.rounds[1:] if entry["adopted"]]
    assert (result.rows.num_rows > 0) == bool(adopted)
    assert ((student / "model.safetensors").read_bytes() == untouched) == (not adopted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student"]
    assert load_student(student)("Where is my invoice?") in SPEC.label_names
    for row in result.rows:
        assert row["origin"] == "pseudo"
        assert row["source"]["dataset"] == "inbox"
        assert row["source"]["teacher"].startswith("student of round")
        assert row["weight"] <= 0.5
    # More than there are texts: of so plain a task, some have a probability that rounds to 1.
    strict = SelfTrainingOptions(rounds=3, confidence=1.0, fewest=len(unlabelled) + 1)
    assert self_train(SPEC, rows, validation, unlabelled, student, train, strict).stopped == "too few sure texts"


def mixed_in(options: SelfTrainingOptions, count: int = 40) -> tuple[Any, Any]:
    """Rows, half of them written, and what `count` texts a label make of them."""
    rows = table(5)
    written = [{**row, "origin": "generated"} if i % 2 else row for i, row in enumerate(rows)]
    rows = type(rows).from_list(written, features=rows.features)
    validation = table(3, start=50)
    unlabelled = [Unlabelled(t, "inbox", i) for i, t in enumerate((*texts(BILLING, count), *texts(PRAISE, count)))]
    probs = np.tile([0.8, 0.2], (2 * count, 1))
    probs[count:] = [0.1, 0.9]
    probs[0] = [0.45, 0.55]
    return rows, mix_in(SPEC, rows, validation, unlabelled, probs, options)


def test_texts_with_labels_from_elsewhere_join_the_rows() -> None:
    rows, mixed = mixed_in(SelfTrainingOptions(confidence=0.6, written_weight=0.2))
    origins = mixed.rows["origin"][:]
    assert mixed.rows.features == rows.features
    # 79 texts are sure; a tenth is held out, beside the user's own held-out rows.
    assert origins.count("pseudo") == 72
    assert mixed.validation["origin"][:].count("pseudo") == 7
    assert mixed.validation["origin"][:].count("user") == 6
    assert not set(mixed.rows["input"]) & set(mixed.validation["input"])
    weights = {origin: {round(w, 3) for w, o in zip(mixed.rows["weight"], origins, strict=True) if o == origin}
               for origin in set(origins)}  # fmt: skip
    assert weights == {"user": {1.0}, "generated": {0.2}, "pseudo": {0.8, 0.9}}
    # Three of ten rows that are drawn are the user's: 5 · 6.17 beside 72 texts and 5 written rows.
    assert mixed.sampling == {"user": pytest.approx(0.3 / 0.7 * 72 / 5, abs=1e-3)}
    assert mixed.chosen.num_rows == 72
    assert set(mixed.chosen["output"]) == {"billing", "praise"}


def test_rows_of_the_user_are_drawn_ten_times_as_often_at_most() -> None:
    assert mixed_in(SelfTrainingOptions(most=20.0), count=100)[1].sampling == {"user": 10.0}


@pytest.mark.real
def test_the_space_of_a_student_is_what_its_head_reads(tmp_path: Path) -> None:
    from potstill.train.classify import distil_classifier
    from potstill.train.student import load_student

    rows = table(6)
    distil_classifier(SPEC, rows, None, tmp_path / "s", DistilOptions(soft_weight=0.0, epochs=1, min_steps=4))
    student = load_student(tmp_path / "s")
    some = ["Where is my invoice?", "thank you " * 400, "perfect"]
    found = read_texts(student, some)
    assert found is not None
    space, probs = found
    assert space.shape == (3, 384)
    assert np.linalg.norm(space, axis=1) == pytest.approx(1)
    raw = student.model.bert(**student.tokenizer(some[0], return_tensors="pt")).pooler_output.detach().numpy()[0]
    assert space[0] == pytest.approx(raw / np.linalg.norm(raw), abs=1e-4)
    told = np.array([prediction.probs for prediction in student.predict(some)])
    assert probs == pytest.approx(told, abs=1e-4)
    student.model.bert.pooler = None
    assert read_texts(student, some) is None


def test_few_sure_texts_are_left_out() -> None:
    assert mixed_in(SelfTrainingOptions(confidence=0.95))[1] is None
    assert mixed_in(SelfTrainingOptions(most=2.0))[1].chosen.num_rows == 18


@pytest.mark.parametrize(("count", "others"), [(10, 6), (60, 0)])
def test_a_handful_of_texts_does_not_choose_the_student_alone(count: int, others: int) -> None:
    """A tenth of twenty texts are two rows, by which ten evaluations cannot be told apart."""
    held_out = [{**row, "origin": "generated"} for row in table(3, start=50)]
    validation = type(table(1)).from_list(held_out, features=table(1).features)
    unlabelled = [Unlabelled(t, "inbox", i) for i, t in enumerate((*texts(BILLING, count), *texts(PRAISE, count)))]
    probs = np.repeat(np.eye(2), count, axis=0)
    mixed = mix_in(SPEC, table(5), validation, unlabelled, probs, SelfTrainingOptions(most=20.0))
    assert mixed is not None
    assert mixed.validation["origin"][:].count("pseudo") == 2 * count // 10
    assert mixed.validation["origin"][:].count("generated") == others


def test_texts_of_which_nothing_is_known_are_no_rows_of_the_first_label() -> None:
    """A teacher that names no label leaves a row of zeros, which no confidence may let through."""
    from potstill.train.options import resolve_options
    from potstill.train.rows_check import label_targets

    unlabelled = [Unlabelled(text, "inbox", i) for i, text in enumerate((*texts(BILLING, 30), *texts(PRAISE, 30)))]
    probs = np.repeat(np.eye(2), 30, axis=0)
    probs[::3] = 0.0
    for options, by in (
        (SelfTrainingOptions(method="teacher"), "teacher"),
        (SelfTrainingOptions(confidence=0.0), "opinion"),
    ):
        mixed = mix_in(SPEC, table(5), table(3, start=50), unlabelled, probs, options, by=by)
        assert mixed is not None
        joined = [*mixed.chosen, *(row for row in mixed.validation if row["origin"] == "pseudo")]
        assert len(joined) == 40
        assert {row["source"]["row"] % 3 for row in joined} == {1, 2}
        label_targets(SPEC, mixed.rows, resolve_options(DistilOptions(), "classification"))
