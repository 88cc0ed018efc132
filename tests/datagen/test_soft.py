"""Label scores and soft targets: what is asked, what is kept, which rule is taken."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, Failure, Reply, ScoreRequest
from potstill.datagen.calibration import Calibration
from potstill.datagen.label_question import answer_spellings
from potstill.datagen.label_scores import (
    information,
    label_scores,
    questions_for_form,
    settle_form,
)
from potstill.datagen.soft import SoftOptions, add_teacher_probs
from potstill.datagen.teachers.fake import FakeOptions, FakeTeacher
from potstill.datagen.token_targets import tail_logprob, targets_for
from potstill.rows import Row, Source, rows_to_dataset
from potstill.stages.evaluation import teacher_answers
from potstill.task import Example, Label, TaskSpec

SPEC = TaskSpec("t", "Say the kind.", "classification", tuple(Label(n) for n in ("red", "green", "blue")))


def asked(request: ScoreRequest) -> tuple[str, list[str]]:
    """The text that is asked about, and the spellings of the labels, in any form of the question."""
    said = request.messages[-1].content
    forms = [c.strip() if request.prefill else c for c in request.continuations]
    return said.split("\n\n")[1] if "\n\n" in said else said.removeprefix("Text: "), forms


class ScoringTeacher(FakeTeacher):
    """Scores a label by whether the text holds it, with a lean to `red` and its mass split over spellings."""

    def answer(self, request: Any) -> Reply | Failure:
        if not isinstance(request, ScoreRequest):
            return super().answer(request)
        text, forms = asked(request)
        if "broken" in text:
            return Failure("no reply")
        scores = [
            -1.0 * len(c) + 3.0 * (c.lower() in text) + 2.5 * (c.lower() == "red") - (c[0].isupper()) * 0.5
            for c in forms
        ]
        return Reply(scores=tuple(scores), score_tokens=(1,) * len(scores))


def test_scores_are_sums_over_spellings(tmp_path: Path) -> None:
    assert answer_spellings("red") == ("red", "Red", " red")
    assert answer_spellings("card_arrival") == ("card_arrival", "card arrival", "Card_arrival", " card_arrival")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        asker = Asker(ScoringTeacher(), ledger)
        scores = label_scores(SPEC, ["a green leaf", "broken"], asker, SoftOptions())
        plain = label_scores(SPEC, ["a green leaf"], asker, SoftOptions(variants=False))
    assert scores.shape == (2, 3)
    assert np.isnan(scores[1]).all()
    assert plain[0].tolist() == [-0.5, -2.0, -4.0]
    assert np.allclose(scores[0, 1], np.logaddexp.reduce([-2.0, -2.5, -3.0]))


class Spelling(ScoringTeacher):
    """Each label has its likely spelling, and the others a thousandth of it; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def answer(self, request: ScoreRequest) -> Reply | Failure:
        self.sizes.append(len(request.continuations))
        text = request.messages[-1].content
        if "broken" in text:
            return Failure("no reply")
        scores = [-float(len(c.split("_"))) - 7.0 * (not c[0].islower()) + (c in text) for c in request.continuations]
        return Reply(scores=tuple(scores), score_tokens=(1,) * len(scores))


def test_with_many_labels_spellings_without_probability_are_asked_of_the_first_texts_alone(tmp_path: Path) -> None:
    many = replace(SPEC, labels=tuple(Label(f"label_{i}_name") for i in range(40)))
    texts = ["broken", *(f"text of label_{i % 40}_name no {i}" for i in range(39))]
    with Ledger(tmp_path / "l.sqlite") as ledger:
        teacher = Spelling()
        scores = label_scores(many, texts, Asker(teacher, ledger), SoftOptions(form="task"))
    assert sorted(set(teacher.sizes)) == [80, 160], "two of four spellings are left"
    assert teacher.sizes.count(160) == 8
    assert np.isnan(scores[0]).all()
    assert np.isfinite(scores[1:]).all()
    exact = np.logaddexp.reduce([-3.0, -1.0, -10.0, -10.0])  # label_7_name, label 7 name, and the two left out
    assert np.allclose(scores[1:7, 7], exact, atol=0.01)
    assert np.allclose(scores[20:30, 7], exact, atol=0.01)


class Reader(FakeTeacher):
    """Knows the label of a text in the forms given, and finds all labels alike in the others."""

    def __init__(self, **sure: float) -> None:
        super().__init__()
        self.sure, self.forms = sure, Counter[str]()

    def answer(self, request: Any) -> Reply:
        said, opening = request.messages[-1].content, request.prefill
        form = {"": "task", "This is an example of": "example", "Category:": "category"}[opening]
        assert (form == "task") == ("Answer with" in said)
        assert (form == "category") == said.startswith("Text: ")
        assert form == "task" or all(c.startswith(" ") for c in request.continuations)
        self.forms[form] += 1
        text, forms = asked(request)
        scores = [self.sure.get(form, 0.0) * (c.strip().lower() in text) - 4.0 for c in forms]
        return Reply(scores=tuple(scores), score_tokens=(1,) * len(scores))


COLOURED = [f"{('a red rose', 'a green leaf', 'a blue sky')[i % 3]} number {i}" for i in range(90)]


@pytest.mark.parametrize(
    ("sure", "chosen"),
    [
        ({"task": 0.3, "example": 2.0}, "example"),
        ({"task": 0.3, "category": 1.0, "example": 0.2}, "category"),
        # A teacher that follows the task well keeps it, even where a bare text makes it surer.
        ({"task": 4.0, "example": 9.0}, "task"),
    ],
)
def test_the_form_that_tells_most_is_taken(tmp_path: Path, sure: dict[str, float], chosen: str) -> None:
    plain = replace(SPEC, instruction="Name the colour.")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        teacher = Reader(**sure)
        asker = Asker(teacher, ledger)
        settled, report = settle_form(plain, COLOURED, asker, SoftOptions())
        assert settled.form == report["chosen"] == chosen
        assert teacher.forms == {"task": 48, "example": 48, "category": 48}
        assert questions_for_form(plain, SoftOptions(), 90) == 96
        label_scores(plain, COLOURED, asker)
        assert teacher.forms[chosen] == 90, "what was asked once is not asked again"
        assert sum(teacher.forms.values()) == 90 + questions_for_form(plain, SoftOptions(), 90)


def test_a_teacher_whose_reply_cannot_be_begun_is_asked_for_the_whole_sentence(tmp_path: Path) -> None:
    class Unbegun(Reader):
        @property
        def abilities(self) -> Abilities:
            return replace(super().abilities, prefill=False)

        def answer(self, request: Any) -> Reply:
            assert not request.prefill
            assert all(c.startswith("This is an example of ") for c in request.continuations)
            scores = [-3.0 * (c.split()[-1] not in request.messages[-1].content) for c in request.continuations]
            return Reply(scores=tuple(scores), score_tokens=(6,) * len(scores))

    with Ledger(tmp_path / "l.sqlite") as ledger:
        scores = label_scores(SPEC, COLOURED[:9], Asker(Unbegun(), ledger), SoftOptions(form="example"))
    assert scores.argmax(axis=1).tolist() == [0, 1, 2] * 3


def test_a_given_form_or_few_texts_ask_for_nothing_more(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger:
        teacher = Reader(example=2.0)
        asker = Asker(teacher, ledger)
        assert settle_form(SPEC, COLOURED[:7], asker, SoftOptions())[0].form == "task"
        assert settle_form(SPEC, COLOURED, asker, SoftOptions(form="category"))[0].form == "category"
        assert settle_form(SPEC, COLOURED, asker, SoftOptions(direction="channel"))[0].form == "auto"
        assert not teacher.forms
        assert questions_for_form(SPEC, SoftOptions(), 7) == questions_for_form(SPEC, SoftOptions(form="task"), 90) == 0


def test_the_teacher_is_measured_in_the_form_of_its_soft_targets(tmp_path: Path) -> None:
    plain = replace(SPEC, instruction="Name the colour.")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        asker = Asker(Reader(example=3.0), ledger)
        result = add_teacher_probs(plain, table(COLOURED, ["red", "green", "blue"] * 30), asker, SoftOptions())
        assert result.report["form"]["chosen"] == result.calibration.form == "example"
        assert Calibration.from_json(result.calibration.to_json()) == result.calibration
        teacher = Reader(task=9.0, example=3.0)
        tests = [text + ", of the test" for text in COLOURED[:30]]
        answers = teacher_answers(plain, tests, Asker(teacher, ledger), SoftOptions(), result.calibration)
    assert set(teacher.forms) == {"example"}
    calibrated = {name: outputs for name, outputs, _ in answers}["teacher (calibrated)"]
    assert calibrated == ["red", "green", "blue"] * 10


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**31))
def test_information_lies_between_nothing_and_everything(labels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 3, (60, labels))
    assert -1e-9 <= information(scores) <= np.log(labels) + 1e-9
    assert information(scores[:1].repeat(60, axis=0)) == pytest.approx(0, abs=1e-6)
    sure = np.where(np.eye(labels)[np.arange(10 * labels) % labels] > 0, 0.0, -40.0)
    assert information(sure + rng.normal(0, 2, labels)) == pytest.approx(np.log(labels), abs=1e-3)
    assert information(np.full((3, labels), np.nan)) == 0.0


def table(texts: list[str], labels: list[str]) -> Any:
    return rows_to_dataset(
        [
            Row(t, y, "generated", Source(teacher="x", requests=(str(i),)), label=y)
            for i, (t, y) in enumerate(zip(texts, labels, strict=True))
        ],
        SPEC.label_names,
    )


def test_teacher_probs_fill_the_table(tmp_path: Path) -> None:
    texts = [f"a {c} thing {i}" for i in range(8) for c in ("red", "green", "blue")] + ["broken"]
    labels = ["red", "green", "blue"] * 8 + ["red"]
    rows = table(texts, labels)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        result = add_teacher_probs(SPEC, rows, Asker(ScoringTeacher(), ledger), SoftOptions())
    assert result.table["id"][:] == rows["id"][:]
    assert result.table.features == rows.features
    assert result.table[24]["teacher_probs"] is None
    assert np.allclose(np.sum(result.table["teacher_probs"][:24], axis=1), 1)
    agreement = result.report["agreement_with_labels"]
    assert agreement["calibrated"] == 1.0
    assert agreement["raw"] < 0.8
    assert result.report["without_scores"] == 1
    assert result.report["rule"] == "batch"


def test_rule_is_chosen_on_the_users_labels(tmp_path: Path) -> None:
    gold = tuple(Example(f"a {c} fruit {i}", c) for i in range(4) for c in SPEC.label_names)
    spec = TaskSpec("t", SPEC.instruction, "classification", SPEC.labels, examples=gold)
    rows = table([f"a {c} thing {i}" for i in range(6) for c in SPEC.label_names], list(SPEC.label_names) * 6)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        result = add_teacher_probs(spec, rows, Asker(ScoringTeacher(), ledger), SoftOptions())
    assert result.report["rule"] != "raw"
    assert "likeliest on 12 texts" in result.report["rule_chosen"]


def test_the_rule_is_chosen_on_texts_of_every_label_however_the_rows_are_sorted(tmp_path: Path) -> None:
    texts = [(f"a {c} fruit {i}", c) for c in SPEC.label_names for i in range(210)]
    rows = rows_to_dataset([Row(text, c, "user", label=c) for text, c in texts], SPEC.label_names)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        result = add_teacher_probs(SPEC, rows, Asker(ScoringTeacher(), ledger), SoftOptions())
    assert "likeliest on 200 texts" in result.report["rule_chosen"]


def test_a_stated_prior_is_applied_once_and_an_estimated_one_comes_from_unlabelled_texts(tmp_path: Path) -> None:
    texts = [f"a {c} thing {i}" for i in range(8) for c in SPEC.label_names]
    rows = table(texts, list(SPEC.label_names) * 8)
    told = TaskSpec(
        "t",
        SPEC.instruction,
        "classification",
        SPEC.labels,
        label_prior=dict.fromkeys(SPEC.label_names, 1) | {"red": 4},
    )
    guess = TaskSpec("t", SPEC.instruction, "classification", SPEC.labels, estimate_prior=True)
    free = [f"a green leaf {i}" for i in range(30)] + ["a red one", "a blue one"]
    with Ledger(tmp_path / "l.sqlite") as ledger:
        asker = Asker(ScoringTeacher(), ledger)
        plain = add_teacher_probs(SPEC, rows, asker)
        stated = add_teacher_probs(told, rows, asker)
        estimated = add_teacher_probs(guess, rows, asker, unlabelled=free)
        nothing = add_teacher_probs(guess, rows, asker)
        balanced = add_teacher_probs(SPEC, rows, asker, SoftOptions(rule="balanced"))
    even = np.array(plain.table["teacher_probs"][:])
    weighed = even * [4, 1, 1]
    weighed /= weighed.sum(1, keepdims=True)
    assert np.allclose(stated.table["teacher_probs"][:], weighed, atol=1e-6)
    assert plain.report["prior"] == {"source": "uniform", "shares": dict.fromkeys(SPEC.label_names, 0.3333)}
    assert stated.report["prior"]["source"] == "task"
    found = estimated.report["prior"]
    assert (found["source"], found["texts"]) == ("estimated", 32)
    assert found["shares"]["green"] > 0.6
    assert len(estimated.table) == len(rows)
    assert estimated.calibration.prior[1] == pytest.approx(found["shares"]["green"], abs=1e-3)
    assert nothing.report["prior"]["texts"] == 0
    assert np.allclose(nothing.table["teacher_probs"][:], balanced.table["teacher_probs"][:], atol=1e-6)


def test_few_labelled_texts_move_the_rule_only_when_they_are_clear(tmp_path: Path) -> None:
    rows = table([f"a {c} thing {i}" for i in range(6) for c in SPEC.label_names], list(SPEC.label_names) * 6)
    one = TaskSpec("t", SPEC.instruction, "classification", SPEC.labels, examples=(Example("a red fruit", "red"),))
    two = TaskSpec(
        "t", SPEC.instruction, "classification", SPEC.labels,
        examples=(Example("a red fruit", "red"), Example("a green fruit", "green")),
    )  # fmt: skip
    with Ledger(tmp_path / "l.sqlite") as ledger:
        asker = Asker(ScoringTeacher(), ledger)
        assert "default (1 texts" in add_teacher_probs(one, rows, asker).report["rule_chosen"]
        assert "no rule is clearly likelier than batch" in add_teacher_probs(two, rows, asker).report["rule_chosen"]


def test_a_teacher_without_a_leaning_is_left_alone_where_the_rows_are_uneven(tmp_path: Path) -> None:
    class Fair(FakeTeacher):
        def answer(self, request: Any) -> Reply | Failure:
            text, forms = asked(request)
            scores = [np.log(0.8 if c.strip().lower() in text else 0.1) for c in forms]
            return Reply(scores=tuple(map(float, scores)), score_tokens=(1,) * len(scores))

    texts = [f"a {c} thing {i}" for i, c in enumerate(["red"] * 40 + ["green", "blue"])]
    rows = rows_to_dataset(
        [Row(t, "", "retrieved", Source(dataset="d", row=i)) for i, t in enumerate(texts)], SPEC.label_names
    )
    gold = tuple(Example(f"a {c} fruit {i}", c) for i in range(3) for c in SPEC.label_names)
    spec = TaskSpec("t", SPEC.instruction, "classification", SPEC.labels, examples=gold)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        found = add_teacher_probs(spec, rows, Asker(Fair(), ledger)).report
    assert found["rule"] not in ("batch", "balanced")
    assert "likeliest on 9 texts" in found["rule_chosen"]


def test_channel_direction_scores_the_text(tmp_path: Path) -> None:
    asked: list[ScoreRequest] = []

    class Channel(FakeTeacher):
        def answer(self, request: Any) -> Reply | Failure:
            asked.append(request)
            label = request.messages[-1].content
            return Reply(scores=(-5.0 if '"green"' in label else -9.0,), score_tokens=(3,))

    with Ledger(tmp_path / "l.sqlite") as ledger:
        scores = label_scores(SPEC, ["leaf"], Asker(Channel(), ledger), SoftOptions(direction="channel"))
    assert scores.tolist() == [[-9.0, -5.0, -9.0]]
    assert all(request.continuations == ("leaf",) for request in asked)


def test_token_targets_reuse_what_was_stored(tmp_path: Path) -> None:
    spec = TaskSpec("g", "Repeat.", "generation")
    rows = rows_to_dataset([Row(f"in {i}", f"out {i} words", "user", Source(row=i)) for i in range(5)], ())
    teacher = FakeTeacher(FakeOptions(top_logprobs=64))
    with Ledger(tmp_path / "l.sqlite") as ledger:
        asker = Asker(teacher, ledger)
        some = targets_for(spec, rows.select([1, 3]), asker, 8)
        asked = teacher.asked
        full = targets_for(spec, rows, asker, 8, have=some)
    assert teacher.asked - asked == 3
    assert full["id"][:] == rows["id"][:]
    assert full[1] == some[0]
    for row in full:
        for logprobs, tail in zip(row["top_logprobs"], row["tail"], strict=True):
            assert np.isclose(np.exp(logprobs).sum() + np.exp(tail), 1, atol=1e-5)
            assert logprobs == sorted(logprobs, reverse=True)
            assert logprobs == np.array(logprobs, dtype=np.float16).tolist()  # half of float32's bytes on disk


def test_tail_is_finite_where_the_top_k_holds_all() -> None:
    assert tail_logprob([0.0]) == pytest.approx(np.log(1e-8))
    assert tail_logprob([np.log(0.25), np.log(0.25)]) == pytest.approx(np.log(0.5))
