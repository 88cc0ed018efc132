"""The question for a label: what the user said of the labels, which examples, and never a text's own label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, AnyRequest, Reply, Request, ScoreRequest, Take
from potstill.datagen.label_question import about_labels, label_questions, shown_descriptions, with_examples
from potstill.datagen.label_scores import can_score, label_scores, settle_form
from potstill.datagen.quality import QualityOptions, check_rows
from potstill.datagen.soft import add_teacher_probs
from potstill.datagen.soft_options import SoftOptions
from potstill.datagen.zero_shot import zero_shot_labels
from potstill.rows import Row, Source, rows_to_dataset
from potstill.stages.evaluation import teacher_answers
from potstill.task import Example, Label, TaskSpec

BARE = TaskSpec("p", "Sort reports.", "classification", (Label("P1"), Label("P2"), Label("P3")))
TOLD = replace(BARE, labels=(Label("P1", "all is down"), Label("P2", "one\ncannot work"), Label("P3")))
SHOWN = replace(TOLD, examples=(Example("Nothing loads", "P1"), Example("I cannot log in", "P2")))
ANSWERS = {"score_label": "Answer with one of: P1, P2, P3."}
ANSWERS["choose_label"] = "Answer with one of these names and nothing else: P1, P2, P3."
MEANING = "The answers mean:\n- P1: all is down\n- P2: one cannot work"


def question(spec: TaskSpec, text: str = "The lamp is red", *, examples: bool = True, choose: bool = False) -> str:
    (message,) = label_questions(spec, [text], "choose_label" if choose else "score_label", examples=examples)[0]
    return message.content


@pytest.mark.parametrize("choose", [False, True])
@pytest.mark.parametrize("examples", [False, True])
def test_where_the_user_said_nothing_of_the_labels_the_question_is_as_short_as_it_was(
    choose: bool, examples: bool
) -> None:
    asked = question(BARE, examples=examples, choose=choose)
    assert asked == f"Sort reports.\n\nThe lamp is red\n\n{ANSWERS['choose_label' if choose else 'score_label']}"
    assert about_labels(BARE, examples=True) == ""


@pytest.mark.parametrize("choose", [False, True])
def test_what_the_labels_mean_and_examples_stand_before_the_text(choose: bool) -> None:
    end = ANSWERS["choose_label" if choose else "score_label"]
    asked = question(SHOWN, choose=choose)
    assert asked == (
        f"Sort reports.\n\n{MEANING}\n\nExamples, each with its answer:\n\nNothing loads\nAnswer: P1\n\n"
        f"I cannot log in\nAnswer: P2\n\nNow answer for this text:\n\nThe lamp is red\n\n{end}"
    )
    assert question(SHOWN, examples=False, choose=choose) == f"Sort reports.\n\n{MEANING}\n\nThe lamp is red\n\n{end}"
    alone = question(replace(SHOWN, labels=BARE.labels), choose=choose)
    assert alone.startswith("Sort reports.\n\nExamples, each with its answer:\n\nNothing loads\nAnswer: P1\n\n")


def test_descriptions_that_the_task_says_itself_are_not_said_again() -> None:
    said = replace(TOLD, instruction="Sort reports:\n- P1: All is down\n- P2: one cannot\n  work")
    assert shown_descriptions(said) == []
    assert len(shown_descriptions(replace(said, instruction="P1: all is down."))) == 2


def test_long_descriptions_and_examples_are_cut() -> None:
    many = tuple(Label(f"label {i}", "word " * 500) for i in range(100))
    shown = shown_descriptions(replace(BARE, labels=many))
    assert sum(len(label.description) for label in shown) < 6300
    assert shown[0].description.endswith(" …")
    long = replace(BARE, examples=(Example("x" * 3000, "P1"),))
    assert len(about_labels(long, examples=True)) < 600


def test_a_text_is_never_shown_its_own_label_and_another_example_takes_its_place() -> None:
    rows = rows_of(("Nothing at all loads", "P1", "user"), ("Written", "P1", "generated"), ("Far", "P3", "user"))
    spec = with_examples(replace(SHOWN, labels=BARE.labels), rows)
    assert [one.output for one in spec.examples] == ["P1", "P1", "P2", "P3"]
    assert "Written" not in question(spec)
    for text in ("Nothing loads", "nothing  loads!", "Far"):
        asked = question(spec, text)
        assert asked.casefold().count(text.casefold()) == 1, "once, as the text that is asked about"
    assert "Nothing at all loads\nAnswer: P1" in question(spec, "Nothing loads")
    cut = replace(BARE, examples=(Example("long " * 100, "P1"),))
    assert "Answer: P1" not in question(cut, ("long " * 100)[:200])


def test_examples_are_few_short_ones_first_and_every_label_has_its_turn() -> None:
    given = [(f"text {i} of {name}", name, "user") for name in ("P1", "P2") for i in range(30)]
    given += [("long " * 200 + str(i), "P3", "user") for i in range(3)] + [("short", "P3", "user")]
    spec = with_examples(BARE, rows_of(*given))
    told = [line for line in about_labels(spec, examples=True).split("\n") if line.startswith("Answer: ")]
    assert told == ["Answer: P1", "Answer: P2", "Answer: P3"] * 4
    first = next(one.input for one in spec.examples if one.output == "P3")
    assert first == "short"
    assert len(spec.examples) <= 5 * 3


def rows_of(*given: tuple[str, str, Any]) -> Any:
    made = [Row(text, label, origin, Source(teacher="m"), label=label) for text, label, origin in given]
    return rows_to_dataset(made, BARE.label_names)


class Asked:
    """Remembers what it was asked, and answers by a function of the question."""

    concurrency = 8
    name = "asked"
    identity: Mapping[str, str] = {"backend": "asked"}

    def __init__(self, answer: Callable[[AnyRequest], Reply], **abilities: Any):
        self._answer, self.abilities = answer, Abilities(**abilities)
        self.asked: list[AnyRequest] = []

    @property
    def questions(self) -> list[str]:
        return [request.messages[-1].content for request in self.asked]

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply]]:
        while requests := take(self.concurrency):
            for request in requests:
                self.asked.append(request)
                yield request, self._answer(request)

    def close(self) -> None:
        pass


def names_it(request: AnyRequest) -> Reply:
    """Knows the label that stands in the text, and scores the others alike."""
    text = request.messages[-1].content.split("\n\nAnswer with")[0].split("\n\n")[-1].removeprefix("Text: ")
    if isinstance(request, ScoreRequest):
        return Reply(scores=tuple(8.0 * (form.split()[-1] in text) - 9 for form in request.continuations))
    return Reply(next((name for name in BARE.label_names if name in text), "I cannot say"))


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    with Ledger(tmp_path / "ledger.sqlite") as found:
        yield found


TEXTS = [f"report {i} of {BARE.label_names[i % 3]}" for i in range(12)]


def test_a_teacher_that_follows_the_task_is_shown_examples_where_they_tell_more(ledger: Ledger) -> None:
    def helped(request: AnyRequest) -> Reply:
        reply, said = names_it(request), request.messages[-1].content
        sure = 1.0 if "Examples" in said else 0.35
        return Reply(scores=tuple(sure * score for score in reply.scores))

    teacher = Asked(helped, scores=True)
    settled, report = settle_form(SHOWN, TEXTS, Asker(teacher, ledger), SoftOptions())
    assert settled.form == "shown"
    assert set(report["nats"]) == {"task", "example", "category", "shown"}
    assert sum("Examples" in said for said in teacher.questions) == len(TEXTS)
    plain = Asked(helped, scores=True)
    _, report = settle_form(TOLD, TEXTS, Asker(plain, ledger), SoftOptions())
    assert "shown" not in report["nats"]


def test_a_small_teacher_is_shown_no_examples_and_short_questions_say_nothing_of_labels(ledger: Ledger) -> None:
    def vague(request: AnyRequest) -> Reply:
        sure = 0.05 if "Answer with" in request.messages[-1].content else 1.0
        return Reply(scores=tuple(sure * score for score in names_it(request).scores))

    teacher = Asked(vague, scores=True)
    settled, _ = settle_form(SHOWN, TEXTS, Asker(teacher, ledger), SoftOptions())
    assert settled.form in ("example", "category")
    assert not any("Examples" in said for said in teacher.questions)
    assert all(("all is down" in said) == ("Answer with" in said) for said in teacher.questions)


def test_a_server_that_only_writes_is_told_all_of_it_in_every_place(ledger: Ledger) -> None:
    teacher = Asked(names_it)
    asker = Asker(teacher, ledger)
    rows = rows_of(*((text, text[-2:], "generated") for text in TEXTS))
    check_rows(SHOWN, rows, asker, QualityOptions(votes=2))
    assert zero_shot_labels(SHOWN, TEXTS, asker, SoftOptions()) == [text[-2:] for text in TEXTS]
    teacher_answers(SHOWN, TEXTS, asker, SoftOptions())
    assert all("P1: all is down" in said and "Nothing loads\nAnswer: P1" in said for said in teacher.questions)
    before = len(teacher.asked)
    zero_shot_labels(SHOWN, TEXTS, asker, SoftOptions(form="task"))
    assert len(teacher.asked) == before + len(TEXTS)
    assert not any("Examples" in said for said in teacher.questions[before:])


def test_a_run_asks_the_embedded_teacher_what_it_asked_before(ledger: Ledger) -> None:
    """Without descriptions and examples the requests are those of earlier runs, to the byte."""
    teacher = Asked(names_it, scores=True, prefill=True)
    rows = rows_of(*((text, text[-2:], "generated") for text in TEXTS))
    add_teacher_probs(BARE, rows, Asker(teacher, ledger), SoftOptions())
    said = set(teacher.questions)
    task = {f"Sort reports.\n\n{text}\n\nAnswer with one of: P1, P2, P3." for text in TEXTS}
    assert said == task | set(TEXTS) | {f"Text: {text}" for text in TEXTS}
    assert {request.prefill for request in teacher.asked if isinstance(request, ScoreRequest)} == {
        "", "This is an example of", "Category:",
    }  # fmt: skip


def test_votes_stand_for_probabilities_where_a_teacher_gives_none(ledger: Ledger) -> None:
    def wavers(request: AnyRequest) -> Reply:
        assert isinstance(request, Request)
        reply = names_it(request)
        return Reply("P3") if request.sample == 0 and "report 0 " in request.messages[-1].content else reply

    teacher = Asked(wavers, choices=True)
    asker, options = Asker(teacher, ledger), SoftOptions(votes=4)
    assert can_score(asker, options)
    assert not can_score(asker, SoftOptions())
    assert not can_score(asker, SoftOptions(votes=4, direction="channel"))
    scores = label_scores(BARE, [*TEXTS, "nothing of the kind"], asker, options)
    assert len(teacher.asked) == 4 * 13
    assert {request.temperature for request in teacher.asked if isinstance(request, Request)} == {0.7}
    assert np.exp(scores[0]) == pytest.approx([(3 + 1 / 3) / 5, 1 / 15, (1 + 1 / 3) / 5])
    assert np.isnan(scores[-1]).all(), "no answer named a label"
    rows = rows_of(*((text, text[-2:], "generated") for text in TEXTS))
    result = add_teacher_probs(BARE, rows, asker, options)
    probs = np.array(result.table["teacher_probs"])
    assert probs.argmax(axis=1).tolist() == [i % 3 for i in range(12)]
    assert [name for name, *_ in teacher_answers(BARE, TEXTS, asker, options, result.calibration)] == [
        "teacher (raw)", "teacher (calibrated)",
    ]  # fmt: skip
