"""Checks of written rows: what agreement does to weights, to rows and to outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, AnyRequest, Failure, Reply, Request, ScoreRequest, Take
from potstill.datagen.quality import QualityOptions, QualityResult, check_rows
from potstill.errors import OptionError
from potstill.options import build_options
from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import Label, TaskSpec

SPEC = TaskSpec("kind", "Say the kind.", "classification", (Label("red"), Label("green"), Label("blue")))
SUMMARY = TaskSpec("summary", "Summarise in one sentence.", "generation", metric="rouge_l")
Answer = Callable[[AnyRequest], "Reply | Failure"]


class Checker:
    """Answers with what a function of the request says."""

    concurrency = 8
    name = "checker"

    def __init__(self, answer: Answer, abilities: Abilities):
        self._answer = answer
        self.abilities = abilities
        self.asked = 0

    @property
    def identity(self) -> Mapping[str, str]:
        return {"backend": "checker"}

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply | Failure]]:
        while requests := take(self.concurrency):
            for request in requests:
                self.asked += 1
                yield request, self._answer(request)

    def close(self) -> None:
        pass


def row(text: str, output: str, origin: Any = "generated") -> Row:
    source = Source(teacher="writer", requests=(f"key of {text}",))
    return Row(text, output, origin, source, label=output if output in SPEC.label_names else None)


def check(tmp_path: Path, spec: TaskSpec, rows: list[Row], teacher: Checker, **options: Any) -> QualityResult:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        table = rows_to_dataset(rows, spec.label_names)
        return check_rows(spec, table, Asker(teacher, ledger), QualityOptions(**options))


def scorer(bias: float = 6.0) -> Checker:
    """Knows the label that a text names first, and leans to red whatever it reads."""

    def answer(request: AnyRequest) -> Reply:
        assert isinstance(request, ScoreRequest)
        text = request.messages[-1].content.split("\n\n")[-1 if "\n\n" not in request.messages[-1].content else 1]
        text = text.removeprefix("Text: ")
        # The label is the last word of an answer in any form.
        forms = [form.lower().split()[-1] for form in request.continuations]
        return Reply(scores=tuple(-20 + 4.0 * (text.split()[0] == form) + bias * (form == "red") for form in forms))

    return Checker(answer, Abilities(scores=True))


WRITTEN = [row(f"{name} is what number {i} says", name) for i in range(12) for name in SPEC.label_names]
WRONG = [row(f"blue again in number {i}", "green") for i in range(4)]


def test_verification_lowers_the_weight_of_wrong_labels(tmp_path: Path) -> None:
    given = row("red by a person", "green", "user")
    result = check(tmp_path, SPEC, [*WRITTEN, *WRONG, given], scorer(), verify=True)
    weights = np.array(result.rows["weight"])
    assert result.rows.num_rows == 41
    assert (weights[:36] > 0.99).all()  # the teacher's leaning to red is calibrated away
    assert np.allclose(weights[36:40], 0.2)
    assert weights[40] == 1  # rows of people are not judged
    assert result.report["below_least"] == 4
    assert result.report["mean_agreement"]["verify"] == pytest.approx(0.9, abs=0.05)


def test_drops_say_what_was_found(tmp_path: Path) -> None:
    result = check(tmp_path, SPEC, [*WRITTEN, *WRONG], scorer(), verify=True, action="drop")
    assert result.rows.num_rows == 36
    assert set(result.rows["weight"]) == {1.0}
    assert [item.reason for item in result.dropped] == ["disagreement"] * 4
    assert result.dropped[0].detail.startswith("verify 0.0")
    assert result.dropped[0].detail.endswith("at least 0.2")
    assert result.report["dropped_by_label"] == {"green": 4}


def test_label_votes_are_counted_and_calibrated(tmp_path: Path) -> None:
    def answer(request: AnyRequest) -> Reply:
        assert isinstance(request, Request)
        text = request.messages[-1].content.split("\n\n")[1]
        if "number 3" in text and request.sample:
            return Reply(text="I cannot say.")
        return Reply(text=f"The answer is {text.split()[0].upper()}.", completion_tokens=5)

    teacher = Checker(answer, Abilities())
    result = check(tmp_path, SPEC, [*WRITTEN, *WRONG], teacher, votes=5, action="drop")
    assert teacher.asked == 200
    assert len(result.dropped) == 3  # of the fourth, one vote in five was heard: too little to drop it
    assert {item.input.split()[0] for item in result.dropped} == {"blue"}


def test_a_judge_that_says_yes_to_all_is_centred(tmp_path: Path) -> None:
    def answer(request: AnyRequest) -> Reply:
        assert isinstance(request, ScoreRequest)
        good = "blue again" not in request.messages[-1].content
        return Reply(scores=(-1.0, -6.0) if good else (-1.0, -2.5))

    result = check(tmp_path, SPEC, [*WRITTEN, *WRONG], Checker(answer, Abilities(scores=True)), judge=True)
    weights = np.array(result.rows["weight"])
    assert (weights[:36] == 1).all()
    assert np.allclose(weights[36:], 0.2)


def test_the_commonest_answer_wins_and_replaces_the_output(tmp_path: Path) -> None:
    rows = [row("first text", "Cats sleep all day."), row("second text", "Dogs bark at the moon every night.")]

    def answer(request: AnyRequest) -> Reply:
        assert isinstance(request, Request)
        if "first" in request.messages[-1].content:
            return Reply(text="Cats sleep for most of the day.")
        return Reply(text=("Rain falls.", "Nobody knows why.", "It is about music.")[request.sample])

    teacher = Checker(answer, Abilities())
    result = check(tmp_path, SUMMARY, rows, teacher, votes=3, action="drop", least=0.4)
    assert result.rows["output"][:] == ["Cats sleep for most of the day."]
    assert len(result.rows[0]["source"]["requests"]) == 2
    assert result.rows[0]["source"]["teacher"] == teacher.name, "whose words they are now"
    assert result.report["outputs_replaced"] == 1
    assert [item.input for item in result.dropped] == ["second text"]


def test_answers_off_the_form_that_the_task_asks_for_have_no_vote(tmp_path: Path) -> None:
    spec = replace(SUMMARY, instruction="Say in at most three words what the text is about.")
    said = ("It is about cats and their sleep.", "It is about cats and sleep.", "Sleeping cats.")
    teacher = Checker(lambda request: Reply(text=said[request.sample]), Abilities())  # type: ignore[union-attr]
    result = check(tmp_path, spec, [row("a text", "Cats asleep.")], teacher, votes=3)
    assert result.rows["output"][0] in ("Cats asleep.", "Sleeping cats.")


ANIMALS = ("cat", "dog", "bee", "owl", "fox", "hen", "cow", "pig", "emu", "ant", "elk", "yak")
TALK = "A summary is a short text about a longer one."


def reader() -> Checker:
    """Finds an output likely that names an animal of the input, and talk about summaries after any input."""

    def answer(request: AnyRequest) -> Reply:
        assert isinstance(request, ScoreRequest)
        (output,) = request.continuations
        text = request.messages[-1].content
        tokens = len(output.split())
        named = any(animal in output and animal in text for animal in ANIMALS)
        return Reply(scores=(-1.0 * tokens if named or output == TALK else -3.0 * tokens,), score_tokens=(tokens,))

    return Checker(answer, Abilities(scores=True))


def animal_rows() -> list[Row]:
    rows = [row(f"A long tale of a {name}.", f"In the end the {name} of the tale is home.") for name in ANIMALS]
    return [*rows, row("A tale of a gnu.", TALK), row("A tale of a kiwi.", "none")]


def test_outputs_that_say_nothing_of_their_input_go(tmp_path: Path) -> None:
    own = row("A tale of the user.", TALK, origin="user")
    teacher = reader()
    result = check(tmp_path, SUMMARY, [*animal_rows(), own], teacher, input_gain=True)
    assert [(item.reason, item.input) for item in result.dropped] == [("says_nothing_of_input", "A tale of a gnu.")]
    assert result.dropped[0].detail == "its input adds 0.00 nats a token, the middle row's 2.00"
    assert result.rows.num_rows == 14, "the user's row stays, and an output too short to be judged"
    assert result.report["input_gain"] == {"judged": 13, "middle": 2.0, "dropped": 1}
    assert result.report["summary"] == "1 of 13 outputs say nothing of their input"
    assert result.report["dropped"] == {"says_nothing_of_input": 1}
    assert teacher.asked == 28


def test_few_rows_are_not_compared(tmp_path: Path) -> None:
    teacher = reader()
    result = check(tmp_path, SUMMARY, animal_rows()[-9:], teacher, input_gain=True)
    assert (result.rows.num_rows, result.dropped, teacher.asked) == (9, (), 0)


def test_where_every_output_fits_any_input_none_goes(tmp_path: Path) -> None:
    rows = [row(f"A tale of a {name}.", TALK) for name in ANIMALS]
    assert check(tmp_path, SUMMARY, rows, reader(), input_gain=True).rows.num_rows == len(rows)


def test_rows_without_a_reply_stay_as_they_are(tmp_path: Path) -> None:
    teacher = Checker(lambda request: Failure("timeout"), Abilities(scores=True))
    result = check(tmp_path, SPEC, WRITTEN, teacher, verify=True, judge=True, action="drop")
    assert result.rows.num_rows == len(WRITTEN)
    assert set(result.rows["weight"]) == {1.0}


def test_what_cannot_be_checked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match=r"quality\.verify checks labels, and the task is generation; use quality\.vo"
    ):
        check(tmp_path, SUMMARY, [], scorer(), verify=True)
    with pytest.raises(OptionError, match=r"quality\.input_gain needs a teacher that scores, which checker does not"):
        check(tmp_path, SUMMARY, [], Checker(lambda request: Reply(text=""), Abilities()), input_gain=True)
    with pytest.raises(OptionError, match=r"input_gain checks written outputs, and the task is classification"):
        check(tmp_path, SPEC, [], scorer(), input_gain=True)
    with pytest.raises(
        OptionError, match=r"quality\.verify needs a teacher that scores labels, which checker does not"
    ):
        check(tmp_path, SPEC, [], Checker(lambda request: Reply(), Abilities()), verify=True)
    with pytest.raises(OptionError, match=r"(?s)votes must be at least 0 .*least must be in \(0, 1\) \(got 2"):
        build_options(QualityOptions, {"votes": -1, "least": 2}, "quality")
