"""Inputs of the user's own that the teacher answers: which, how, and what becomes of them beside written rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted import SUMMARY, ScriptedTeacher, paragraphs
from test_generate import snapshot

from potstill.asking.asker import Asker
from potstill.asking.budget import Budget
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, Failure, Reply, Request
from potstill.datagen.answering import answer_messages
from potstill.datagen.generate import GenerationOptions, GenerationResult, generate_rows
from potstill.datagen.merge import merge_rows
from potstill.datagen.own_inputs import Own, OwnInput
from potstill.datagen.quality import QualityOptions, check_rows
from potstill.datagen.teachers.fake import FakeOptions, FakeTeacher
from potstill.errors import BudgetReached, DataError, TeacherError
from potstill.rows import Dropped, Row, Source, rows_to_dataset
from potstill.settings import resolve
from potstill.stages.own_inputs import own_inputs
from potstill.task import DataRef, Example, TaskSpec

ONE = replace(SUMMARY, instruction="Summarise a paragraph in one sentence.")
FOLLOW = TaskSpec("follow", "Follow instructions about gardens.", "instructions", metric="rouge_l")


def own(given: list[str], dropped: tuple[Dropped, ...] = ()) -> Own:
    inputs = tuple(OwnInput(text, Source(dataset="mine.txt", row=row)) for row, text in enumerate(given))
    return Own("mine.txt", inputs, dropped, len(inputs) + len(dropped))


def run(tmp_path: Path, teacher: Any, given: Own, spec: TaskSpec = ONE, **options: Any) -> GenerationResult:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        return generate_rows(spec, Asker(teacher, ledger), GenerationOptions(**options), own=given)


def said(text: Callable[[str], str], finish: str = "stop") -> Callable[[Request, int], Reply]:
    """A reply to each request by what its last message says."""
    return lambda request, _: Reply(text(request.messages[-1].content), finish)  # type: ignore[arg-type]


def test_own_inputs_suffice_and_nothing_is_written(tmp_path: Path) -> None:
    given = paragraphs(12)
    teacher = ScriptedTeacher(said(lambda asked: f"In short: {asked.split()[-3]} {len(asked)}."))
    result = run(tmp_path, teacher, own(given), rows=12)
    assert [row["input"] for row in result.rows] == given
    assert [request.messages for request in teacher.asked] == [answer_messages(ONE, text) for text in given]
    row = result.rows[3]
    assert (row["origin"], row["licence"], row["source"]["dataset"], row["source"]["row"]) == (
        "pseudo", "unknown", "mine.txt", 3
    )  # fmt: skip
    assert row["source"]["teacher"] == "scripted"
    assert len(row["source"]["requests"]) == 1
    assert result.report["own_inputs"] == {
        "data": "mine.txt", "found": 12, "asked": 12, "left": 0, "requests": 12, "kept": 12, "dropped": {}
    }  # fmt: skip
    assert result.facts(12)["summary"] == "12 inputs of yours answered, 0 rows written, 0 dropped"


def test_what_lacks_for_the_rows_is_written(tmp_path: Path) -> None:
    result = run(tmp_path, FakeTeacher(), own(paragraphs(15)), rows=40, window=16)
    assert Counter(result.rows["origin"]) == {"pseudo": 15, "generated": 25}
    assert result.report["kept"] == 40
    assert set(paragraphs(15)) == {row["input"] for row in result.rows if row["origin"] == "pseudo"}


@pytest.mark.parametrize("spec", [ONE, FOLLOW], ids=["generation", "instructions"])
def test_rows_do_not_depend_on_the_order_of_replies_and_a_rerun_asks_nothing(tmp_path: Path, spec: TaskSpec) -> None:
    made = []
    for number, options in enumerate([FakeOptions(), FakeOptions(shuffle=True, concurrency=40)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        teacher = FakeTeacher(options)
        made.append(snapshot(run(folder, teacher, own(paragraphs(20)), spec, rows=45, window=16)))
        asked = teacher.asked
        assert snapshot(run(folder, teacher, own(paragraphs(20)), spec, rows=45, window=16)) == made[0]
        assert teacher.asked == asked
    assert made[0] == made[1]


def test_written_requests_are_those_of_a_run_without_own_inputs(tmp_path: Path) -> None:
    teacher = FakeTeacher()
    run(tmp_path, teacher, Own(), rows=30, window=16)
    asked = teacher.asked
    run(tmp_path, teacher, own(paragraphs(10)), rows=40, window=16)
    assert teacher.asked == asked + 10, "the thirty rows are known already"


def test_a_dropped_output_is_told_and_not_replaced(tmp_path: Path) -> None:
    given = paragraphs(6)

    def reply(request: Request, number: int) -> Reply | Failure:
        text = request.messages[-1].content
        if given[1] in text:
            return Reply("As an AI language model, I cannot do that.", "stop")
        if given[2] in text:
            return Reply("It goes on and", "length")
        if given[3] in text:
            return Failure("the prompt has 9000 tokens, more than the context of 2048")
        return Reply(f"Number {number} is short.", "stop")

    result = run(tmp_path, ScriptedTeacher(reply), own(given), rows=6)
    assert [row["input"] for row in result.rows] == [given[0], given[4], given[5]]
    assert {item.input: item.reason for item in result.dropped} == {
        given[1]: "refusal", given[2]: "truncated_output", given[3]: "no_reply"
    }  # fmt: skip
    assert all((item.origin, item.stage, item.source.dataset) == ("pseudo", "datagen", "mine.txt")
               for item in result.dropped)  # fmt: skip
    assert result.report["own_inputs"]["dropped"] == {"no_reply": 1, "refusal": 1, "truncated_output": 1}


def test_an_output_that_is_not_in_the_form_is_asked_for_once_more(tmp_path: Path) -> None:
    spec = replace(ONE, instruction="Give the number of words, just the number.")
    given = paragraphs(4)

    def reply(request: Request, number: int) -> Reply:
        if request.sample:
            return Reply("12", "stop")
        return Reply("many" if given[0] in request.messages[-1].content else "7", "stop")

    result = run(tmp_path, ScriptedTeacher(reply), own(given), spec, rows=4)
    assert Counter(result.rows["output"]) == {"12": 1, "7": 3}
    first = next(row for row in result.rows if row["output"] == "12")
    assert len(first["source"]["requests"]) == 2
    assert result.report["own_inputs"]["requests"] == 5
    assert result.report["form"]["judged"] == 4


def test_an_instruction_is_asked_as_the_student_will_be_and_held_to_its_own_form(tmp_path: Path) -> None:
    given = ["Name three trees.\n\nThey grow in the north.", "How many legs has a spider? Give only the number."]
    replies = {"trees": "Birch, pine and spruce.", "spider": "A spider has eight legs."}
    teacher = ScriptedTeacher(said(lambda text: next(reply for word, reply in replies.items() if word in text)))
    result = run(tmp_path, teacher, own(given), FOLLOW, rows=2)
    assert [row["input"] for row in result.rows] == given[:1]
    assert teacher.asked[0].messages == answer_messages(FOLLOW, given[0])
    assert [(item.input, item.reason) for item in result.dropped] == [(given[1], "off_form")]


def test_targets_come_with_the_answers(tmp_path: Path) -> None:
    spec = replace(ONE, instruction="Summarise a paragraph.")  # of an output that is cut to a form there are none
    result = run(tmp_path, FakeTeacher(FakeOptions(top_logprobs=64)), own(paragraphs(5)), spec, rows=5, answer_top_k=4)
    assert result.token_targets is not None
    assert result.token_targets["id"][:] == result.rows["id"][:]


def test_the_budget_ends_it_and_a_later_run_goes_on(tmp_path: Path) -> None:
    given, teacher = own(paragraphs(60)), FakeTeacher()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with pytest.raises(BudgetReached):
            generate_rows(
                ONE, Asker(teacher, ledger, budget=Budget(tokens=1500)), GenerationOptions(rows=60), own=given
            )
    asked = teacher.asked
    assert 0 < asked < 60
    result = run(tmp_path, teacher, given, rows=60)
    assert result.kept == 60
    assert teacher.asked == 60


def test_a_killed_run_repeats_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, 'tests/datagen')\n"
        "from test_own_inputs import *\n"
        "class Killed(FakeTeacher):\n"
        "    def stream(self, take):\n"
        "        for pair in super().stream(take):\n"
        "            if self.asked >= 25: os.kill(os.getpid(), 9)\n"
        "            yield pair\n"
        f"run(Path({str(tmp_path)!r}), Killed(FakeOptions(concurrency=8)), own(paragraphs(40)), rows=60, window=16)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    with Ledger(tmp_path / "ledger.sqlite", read_only=True) as ledger:
        before = ledger.totals().replies
    assert 15 < before <= 25
    resumed = snapshot(run(tmp_path, FakeTeacher(), own(paragraphs(40)), rows=60, window=16))
    (tmp_path / "whole").mkdir()
    assert resumed == snapshot(run(tmp_path / "whole", FakeTeacher(), own(paragraphs(40)), rows=60, window=16))
    with (
        Ledger(tmp_path / "ledger.sqlite", read_only=True) as ledger,
        Ledger(tmp_path / "whole" / "ledger.sqlite", read_only=True) as whole,
    ):
        assert ledger.totals().attempts == ledger.totals().replies
        # What is planned beyond the last row is sent or not, as the teacher had room.
        assert abs(ledger.totals().replies - whole.totals().replies) <= 2


def test_without_a_usable_answer_the_run_ends(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="0 usable rows of 3 requests"):
        run(tmp_path, ScriptedTeacher(lambda *_: Failure("no way")), own(paragraphs(3)), rows=3)


def test_answers_to_own_inputs_are_checked_as_written_ones_are(tmp_path: Path) -> None:
    result = run(tmp_path, FakeTeacher(), own(paragraphs(4)), rows=4)
    judge = ScriptedTeacher(lambda *_: Reply("No", "stop"), Abilities())
    with Ledger(tmp_path / "judge.sqlite") as ledger:
        checked = check_rows(ONE, result.rows, Asker(judge, ledger), QualityOptions(judge=True))
    assert len(judge.asked) == 4
    assert checked.report["checked"] == 4


def _settings(**generation: Any) -> Any:
    return resolve({}, {"teacher": "fake", "sources": "generated", "generation": generation})


def _spec(tmp_path: Path, name: str, lines: list[Any], **more: Any) -> TaskSpec:
    path = tmp_path / name
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return replace(ONE, unlabelled=DataRef(str(path), training=True), **more)


def test_inputs_that_cannot_be_learnt_from_are_left_out_with_their_reasons(tmp_path: Path) -> None:
    one, two, three, four, five, six = paragraphs(6)
    spec = _spec(
        tmp_path, "in.jsonl",
        [{"text": text} for text in (one, "  ", one.upper(), two, "cut \ufffd here", three, four, five, six)],
        examples=(Example(three, "A summary."),),
    )  # fmt: skip
    for name, given in (("labelled", four), ("test", five)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps({"text": given, "summary": "It rained."}) + "\n")
        spec = replace(spec, **{name: DataRef(str(path), inputs=("text",), output="summary")})
    told: list[str] = []
    found = own_inputs(spec, _settings(rows=50), tell=told.append)
    assert [item.text for item in found.inputs] == [one, two, six]
    assert [item.source.row for item in found.inputs] == [0, 3, 8], "places are those of the file"
    assert [(item.source.row, item.reason) for item in found.dropped] == [
        (1, "empty"), (2, "duplicate"), (4, "broken_encoding"), (5, "duplicate"), (6, "duplicate"), (7, "in_test")
    ]  # fmt: skip
    assert told == [f"1 of 9 inputs in {tmp_path / 'in.jsonl'} are not UTF-8 and are left out; save it as UTF-8"]
    assert found.told(GenerationOptions(rows=50)).endswith("and writes 47 more; -n 3 writes none")


def test_of_more_inputs_than_rows_some_are_drawn_and_stay_when_others_come(tmp_path: Path) -> None:
    given = paragraphs(40)
    few = own_inputs(_spec(tmp_path, "a.txt", given), _settings(rows=10))
    more = own_inputs(
        _spec(tmp_path, "b.txt", [*given, *(f"{text} Anew." for text in paragraphs(4))]), _settings(rows=10)
    )
    drawn, redrawn = ({item.text for item in found.inputs} for found in (few, more))
    assert len(drawn) == len(redrawn) == 10
    assert len(drawn & redrawn) >= 7
    assert few.left == 30
    assert [item.text for item in few.inputs] == [text for text in given if text in drawn]
    assert len(own_inputs(_spec(tmp_path, "a.txt", given), _settings(rows=10, own_inputs=4)).inputs) == 4
    assert own_inputs(_spec(tmp_path, "a.txt", given), _settings(rows=10, own_inputs=0)) == Own()


def test_inputs_of_several_fields_are_read_by_their_columns(tmp_path: Path) -> None:
    rows = [{"passage": text, "question": f"What is {i}?"} for i, text in enumerate(paragraphs(3))]
    spec = _spec(tmp_path, "qa.jsonl", [*rows, {"passage": "Only this.", "question": ""}])
    spec = replace(spec, inputs=("passage", "question"))
    found = own_inputs(spec, _settings(rows=9))
    assert found.inputs[0].text == f"passage: {paragraphs(1)[0]}\nquestion: What is 0?"
    assert [item.reason for item in found.dropped] == ["missing_field"]
    alone = replace(_spec(tmp_path, "plain.txt", paragraphs(3)), inputs=("passage", "question"))
    with pytest.raises(DataError, match="the task's inputs have the fields passage, question, and these texts are one"):
        own_inputs(alone, _settings(rows=9))


def test_inputs_none_of_which_is_usable_are_refused(tmp_path: Path) -> None:
    spec = _spec(tmp_path, "in.txt", ["broken \ufffd", "and \ufffd too"])
    with pytest.raises(DataError, match=r"holds no input that can be learnt from \(2 broken_encoding\)"):
        own_inputs(spec, _settings(rows=9))


def test_answered_inputs_come_before_written_ones_and_stay_where_they_differ_in_a_word() -> None:
    asked = "Say how many miles the bus goes from the old town hall to the harbour: {} miles."
    rows = [
        Row(asked.format(3), "Written.", "generated", Source(teacher="t")),
        *(Row(asked.format(n), f"It goes {n}.", "pseudo", Source(dataset="mine.txt", row=n)) for n in (3, 5, 8)),
        Row(asked.format(9), "Written too.", "generated", Source(teacher="t")),
    ]
    merged = merge_rows(ONE, [rows_to_dataset(rows, [])])
    assert [row["output"] for row in merged.kept] == ["It goes 3.", "It goes 5.", "It goes 8."]
    assert Counter(item.reason for item in merged.dropped) == {"same_input_other_output": 1, "near_duplicate": 1}
