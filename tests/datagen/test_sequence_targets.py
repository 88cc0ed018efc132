"""Outputs that the teacher writes for the rows' inputs: which one is picked, what is kept of it, how both join."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Abilities, AnyRequest, Reply, Request, ScoreRequest, Take, TokenTop
from potstill.datagen.sequence_targets import output_targets, write_outputs
from potstill.datagen.soft import SoftOptions
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.datagen.token_targets import tail_logprob
from potstill.errors import OptionError, TeacherError, UserError
from potstill.options import build_options
from potstill.rows import Row, Source, dataset_to_rows, rows_to_dataset
from potstill.task import TaskSpec

SPEC = TaskSpec("t", "Say it better.", "generation")
SAYS = {0: ("the plain answer", -0.5), 1: ("a sure answer", -0.1), 2: ("the old grey cat sat", -0.9)}


class Scripted(FakeTeacher):
    """Says what `SAYS` holds for the number of the sample, with one log-prob a token; knows no chat."""

    def __init__(self, says: Any = SAYS, top: int = 2) -> None:
        super().__init__()
        self.says, self._top = says, top

    @property
    def abilities(self) -> Abilities:
        return Abilities(top_logprobs=self._top, scores=True)

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply]]:
        while requests := take(8):
            for request in requests:
                self.asked += 1
                if isinstance(request, ScoreRequest):
                    words = request.continuations[0].split()
                    yield request, Reply(scores=(-1.0,), score_tokens=(len(words),), top=self.top(len(words), -1.0))
                else:
                    assert isinstance(request, Request)
                    text, logprob = self.says[request.sample]
                    yield request, Reply(text, top=self.top(len(text.split()), logprob) if self._top else ())

    def top(self, tokens: int, logprob: float) -> tuple[TokenTop, ...]:
        return tuple(TokenTop(i, logprob, (i, i + 1), (logprob, -3.0)) for i in range(tokens))


def table() -> Any:
    return rows_to_dataset(
        [
            Row("one", "the old grey cat sat down", "retrieved", Source(dataset="d", row=0), licence="mit"),
            Row("two", "a surely good answer", "user", Source(row=1), weight=3.0),
        ],
        [],
    )


@pytest.fixture
def asker(tmp_path: Path) -> Iterator[Asker]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield Asker(Scripted(), ledger)


class Searching(Scripted):
    """Searches, and notes how wide it was asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: list[int] = []

    @property
    def abilities(self) -> Abilities:
        return Abilities(top_logprobs=2, scores=True, beams=True)

    def stream(self, take: Take) -> Iterator[tuple[AnyRequest, Reply]]:
        while requests := take(8):
            for request in requests:
                assert isinstance(request, Request)
                self.widths.append(request.beams)
                yield request, Reply("a searched answer", top=self.top(3, -0.2))


def test_a_beam_is_one_request_an_input_and_its_answer_is_learnt(tmp_path: Path) -> None:
    teacher = Searching()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        result = write_outputs(SPEC, table(), Asker(teacher, ledger), SoftOptions(candidates=3, pick="beam"))
        assert teacher.widths == [3, 3]
        assert list(result.table["output"]) == ["a searched answer"] * 2
        assert result.token_targets.num_rows == 2
        assert (result.report["pick"], result.report["picked_greedy"]) == ("beam", None)
        with pytest.raises(UserError, match=r"fake cannot search with beams; use --teacher transformers:MODEL, or set"):
            write_outputs(SPEC, table(), Asker(Scripted(), ledger), SoftOptions(pick="beam"))
    with pytest.raises(ValueError, match="a beam search needs candidates of 2 or more"):
        SoftOptions(pick="beam", candidates=1)


def test_an_answer_whose_lines_are_all_indented_keeps_its_own_log_probs(tmp_path: Path) -> None:
    body = "    total = 0\n    return total"
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        teacher = Scripted([(f"\n{body}\n", -0.2)])
        result = write_outputs(SPEC, table(), Asker(teacher, ledger), SoftOptions(candidates=1))
    assert list(result.table["output"]) == [body] * 2
    assert result.token_targets.num_rows == 2


def test_the_likeliest_candidate_is_learnt_with_its_own_log_probs(asker: Asker) -> None:
    result = write_outputs(SPEC, table(), asker, SoftOptions(candidates=3))
    rows = list(dataset_to_rows(result.table))
    assert [row.output for row in rows] == ["a sure answer", "a sure answer"]
    assert [row.input for row in rows] == ["one", "two"]
    assert [(row.origin, row.licence, row.weight) for row in rows] == [("pseudo", "mit", 1.0), ("pseudo", "unknown", 3)]
    assert all(row.source.teacher == "fake" and len(row.source.requests) == 1 for row in rows)
    assert rows[0].source.dataset == "d"
    assert list(result.token_targets["id"]) == [row.id for row in rows]
    # The tail makes up for the rounding of the log-probs, which are stored as float16.
    assert result.token_targets[0]["tail"] == pytest.approx([tail_logprob((-0.0999755859375, -3.0))] * 3)
    assert result.report["picked_greedy"] == 0
    assert result.report["mean_logprob"] == pytest.approx(-0.1)


def test_the_nearest_candidate_is_the_one_like_the_data(asker: Asker) -> None:
    result = write_outputs(SPEC, table(), asker, SoftOptions(candidates=3, pick="nearest"))
    assert list(result.table["output"]) == ["the old grey cat sat", "a sure answer"]
    assert result.report["mean_bleu_to_data"] > 20


def test_a_candidate_in_the_form_that_the_task_asks_for_goes_before_a_likelier_one(asker: Asker) -> None:
    short = replace(SPEC, instruction="Say it better, in at most three words.")
    rows = table()
    result = write_outputs(short, rows, asker, SoftOptions(candidates=3))
    assert set(result.table["output"]) == {"a sure answer"}
    two = replace(SPEC, instruction="Say it better, in at most two words.")
    result = write_outputs(two, rows, asker, SoftOptions(candidates=3))
    assert set(result.table["output"]) == {"a sure answer"}, "none is short enough, so the likeliest"
    asker.teacher.says = {**SAYS, 1: ("a very sure answer", -0.1)}  # type: ignore[attr-defined]
    with Ledger(asker.ledger.path.with_name("other.sqlite")) as ledger:
        result = write_outputs(short, rows, Asker(asker.teacher, ledger), SoftOptions(candidates=3))
    assert set(result.table["output"]) == {"the plain answer"}


def test_one_candidate_is_the_greedy_one(asker: Asker) -> None:
    assert set(write_outputs(SPEC, table(), asker, SoftOptions(candidates=1)).table["output"]) == {"the plain answer"}
    assert asker.teacher.asked == 2  # type: ignore[attr-defined]


def test_the_three_methods(asker: Asker) -> None:
    def made(method: str, **more: Any) -> Any:
        options = SoftOptions(candidates=2, top_k=2)
        return output_targets(SPEC, table(), asker, options, **{"method": method, "share": 0.25, "soft": True, **more})

    word, targets, report = made("word")
    assert (list(word["output"]), targets.num_rows) == (list(table()["output"]), 2)
    assert report == {"targets": 2}
    sequence, none, report = made("sequence")
    assert (list(sequence["output"]), none) == (["a sure answer"] * 2, None)
    assert report["summary"] == "the teacher answered 2 of 2 inputs itself"
    both, targets, _ = made("both")
    assert set(targets["id"]) == set(both["id"])
    assert list(both["output"]) == [*table()["output"], "a sure answer", "a sure answer"]
    assert list(both["weight"]) == pytest.approx([1.5, 4.5, 0.5, 1.5])
    alone, targets, _ = made("both", share=1.0)
    assert list(alone["output"]) == ["a sure answer"] * 2
    assert set(alone["id"]) < set(targets["id"])
    hard, targets, _ = made("both", soft=False)
    assert targets is None
    assert hard.num_rows == 4


def test_a_model_that_teaches_itself_tells_nothing_of_what_others_wrote(asker: Asker) -> None:
    given = table()
    mixed = given.remove_columns("origin").add_column("origin", ["generated", "retrieved"]).cast(given.features)

    def targets(rows: Any, **more: Any) -> Any:
        options = SoftOptions(candidates=2, top_k=2)
        return output_targets(SPEC, rows, asker, options, method="word", share=0.25, soft=True, **more)[1]

    assert targets(mixed).num_rows == 2
    assert targets(mixed, itself=True) is None
    assert targets(mixed.select([0]), itself=True).num_rows == 1


def test_unusable_outputs_are_counted(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        mixed = Asker(Scripted({0: ("two", -0.1), 1: ("a sure answer", -2.0)}), ledger)
        result = write_outputs(SPEC, table(), mixed, SoftOptions(candidates=2))
        assert result.report["candidates_refused"] == {"output_is_input": 1}
        assert list(result.table["output"]) == ["two", "a sure answer"]
    with Ledger(tmp_path / "other.sqlite") as ledger:
        bad = Asker(Scripted({0: ("", -0.1)}), ledger)
        with pytest.raises(TeacherError, match=r"0 usable outputs for 2 inputs \(2 empty_output\)"):
            write_outputs(SPEC, table(), bad, SoftOptions(candidates=1))


def test_the_likeliest_needs_log_probs(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        blind = Asker(Scripted(top=0), ledger)
        with pytest.raises(UserError, match=r"the likeliest of 4 outputs is unknown; set soft.pick=nearest"):
            write_outputs(SPEC, table(), blind, SoftOptions())
        assert write_outputs(SPEC, table(), blind, SoftOptions(pick="nearest", candidates=3)).table.num_rows == 2


def test_impossible_options() -> None:
    for name, value in (("candidates", 0), ("max_output_tokens", 0), ("candidate_temperature", 0.0)):
        with pytest.raises(OptionError, match=name):
            build_options(SoftOptions, {name: value}, "soft")
