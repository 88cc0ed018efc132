"""The second opinion on labels: it wins where it knows more, loses where it knows less, doubts written rows only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.datagen.evidence import LEAST_WEIGHT, encoder_logits, join_opinions, trust_weights
from potstill.datagen.soft import SoftOptions, add_teacher_probs
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.models import sentence_encoder
from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import Label, TaskSpec

SPEC = TaskSpec("t", "Say the kind.", "classification", tuple(Label(n) for n in ("red", "green", "blue")))


def opinion(gold: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    scores = rng.normal(0, 1, (len(gold), 3))
    scores[np.arange(len(gold)), gold] += strength
    return scores - np.log(np.exp(scores).sum(1, keepdims=True))


@pytest.mark.parametrize(("teacher", "encoder"), [(4.0, 0.0), (0.0, 4.0), (1.0, 1.0)])
def test_the_better_opinion_weighs_more_under_noisy_labels(teacher: float, encoder: float) -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 3, 900)
    hard = np.where(rng.random(900) < 0.4, rng.integers(0, 3, 900), gold)  # two in five labels are drawn anew
    a, b = opinion(gold, teacher, rng), opinion(gold, encoder, rng)
    joined = join_opinions(a, b, [int(value) for value in hard])
    right = (joined.probs.argmax(1) == gold).mean()
    assert right >= max((a.argmax(1) == gold).mean(), (b.argmax(1) == gold).mean()) - 0.01
    if teacher != encoder:
        assert (joined.teacher > joined.encoder) == (teacher > encoder)
    else:
        assert right > (a.argmax(1) == gold).mean() + 0.03
    assert np.allclose(joined.probs.sum(1), 1)


def test_without_known_labels_both_count_once() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 3, 5)
    joined = join_opinions(opinion(gold, 1, rng), opinion(gold, 1, rng), [None] * 5)
    assert (joined.teacher, joined.encoder) == (1.0, 1.0)


def test_only_written_rows_are_doubted() -> None:
    probs = np.array([[0.9, 0.05, 0.05]] * 3)
    weights = trust_weights(probs, [1, 1, None], [True, False, True])
    assert weights.tolist() == [LEAST_WEIGHT, 1.0, 1.0]
    assert trust_weights(np.array([[0.5, 0.4, 0.1]]), [1], [True])[0] == pytest.approx(0.8)


@pytest.mark.real
def test_names_are_found_by_meaning_and_rows_off_their_label_weigh_less(tmp_path: Path) -> None:
    labels = ("sports", "cooking", "finance")
    spec = TaskSpec("t", "Say what a text is about.", "classification", tuple(Label(name) for name in labels))
    texts = [
        *("The striker scored twice in the second half.", "Our team lost the cup final on penalties."),
        *("Fry the onions in butter until golden.", "Whisk the eggs and fold in the flour."),
        *("The bank raised its interest rate again.", "Shares fell after the quarterly earnings."),
    ]
    assert encoder_logits(spec, texts, sentence_encoder()).argmax(1).tolist() == [0, 0, 1, 1, 2, 2]
    told = ["sports", "sports", "cooking", "cooking", "finance", "sports"]  # the last one missed its label
    rows = [
        Row(text, label, "generated", Source(teacher="t"), label=label) for text, label in zip(texts, told, strict=True)
    ]
    table = rows_to_dataset(rows, labels)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = Asker(FakeTeacher(), ledger)
        plain = add_teacher_probs(spec, table, asker, SoftOptions(encoder=False), encoder=sentence_encoder())
        found = add_teacher_probs(spec, table, asker, encoder=sentence_encoder())
    assert plain.table["weight"][:] == [1.0] * 6
    assert "joined" not in plain.report
    weights = found.table["weight"][:]
    assert weights[5] == min(weights) < 0.5
    assert found.report["joined"]["encoder_power"] > 0
