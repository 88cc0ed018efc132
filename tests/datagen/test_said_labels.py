"""Probabilities of labels from the log-probs of an answer that the teacher wrote itself."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Message, Reply, Request, TokenText
from potstill.asking.teacher_json import reply_from_json, reply_to_json, request_from_json, request_to_json
from potstill.datagen.label_question import answer_spellings
from potstill.datagen.label_scores import can_score, label_scores
from potstill.datagen.quality import QualityOptions, check_rows
from potstill.datagen.said_labels import answer_shares
from potstill.datagen.soft import add_teacher_probs
from potstill.datagen.soft_options import SoftOptions
from potstill.datagen.teachers import open_teacher
from potstill.rows import Row, Source, rows_to_dataset
from potstill.stages.evaluation import teacher_answers
from potstill.task import Label, TaskSpec

FAST: dict[str, Any] = {"backoff_s": 0.01, "longest_pause_s": 0.1, "timeout_s": 20.0, "flavour": "openai"}
SPEC = TaskSpec(
    name="tickets",
    instruction="Sort support tickets.",
    kind="classification",
    labels=(Label("billing"), Label("bug"), Label("bug_report")),
)
WORDS = {"billing": ("invoice", "refund"), "bug": ("crash",), "bug_report": ("steps",)}


def token(text: str, share: float, **others: float) -> TokenText:
    """A token with its probability and those of others, by text; `_` stands for a space."""
    listed = {text: share, **{name.replace("_", " "): its for name, its in others.items()}}
    return TokenText(text, math.log(share), tuple((name, math.log(its)) for name, its in listed.items()))


def shares(said: list[TokenText], *names: str) -> list[float] | None:
    found = answer_shares(said, [answer_spellings(name) for name in names])
    return None if found is None else [round(share, 3) for share in found]


def test_what_begins_another_label_counts_for_it() -> None:
    assert shares([token("bill", 0.6, bug=0.3, The=0.1), token("ing", 1.0)], "billing", "bug") == [0.667, 0.333]


def test_a_shared_beginning_is_told_apart_where_it_was_written_and_halved_where_it_was_not() -> None:
    said = [token("card", 0.6, top=0.4), token("_arr", 0.9, _del=0.1), token("ival", 1.0)]
    said[1] = TokenText("_arr", math.log(0.9), (("_arr", math.log(0.9)), ("_del", math.log(0.1))))
    found = shares(said, "card_arrival", "card_delivery", "top_up", "top_limit")
    assert found == [0.54, 0.06, 0.2, 0.2]


@pytest.mark.parametrize(
    "said",
    [
        [token("Bug", 0.7, Billing=0.3), token(" report", 0.8), token(".", 1.0)],
        [token('"', 0.9), token("Bug", 0.7, Billing=0.3), token(" report", 0.8), token('"', 1.0)],
        [token("**", 1.0), token("BUG", 0.7, Billing=0.3), token(" REPORT", 0.8), token("**", 1.0)],
        [token("\n", 1.0), token("bug", 0.7, billing=0.3), token("_report", 0.8)],
    ],
)
def test_capitals_quotes_and_marks_are_no_part_of_an_answer(said: list[TokenText]) -> None:
    found = answer_shares(said, [answer_spellings(name) for name in SPEC.label_names])
    assert found is not None
    assert int(np.argmax(found)) == 2
    assert found[0] == pytest.approx(0.3 / (0.3 + 0.56), abs=0.1)


def test_a_label_that_begins_another_is_taken_where_the_answer_ends() -> None:
    said = [token("bug", 0.9, billing=0.1)]
    assert shares(said, "billing", "bug", "bug_report") == [0.1, 0.9, 0.0]
    said.append(token(".", 1.0))
    assert shares(said, "billing", "bug", "bug_report") == [0.1, 0.9, 0.0]
    assert shares([token("bug", 0.9), token("gy", 1.0)], "billing", "bug", "bug_report") is None


def test_capitals_part_labels_where_nothing_else_does() -> None:
    found = shares([token("US", 0.8, us=0.2)], "US", "us")
    assert found is not None
    assert found[0] > 0.8
    assert shares([token("C", 0.9, Java=0.1), token("++", 1.0)], "C", "C++", "Java") == [0.0, 0.9, 0.1]


def test_an_answer_that_is_none_tells_nothing_unless_others_were_likely() -> None:
    assert shares([token("I", 0.9, We=0.1), token(" cannot", 1.0)], "billing", "bug") is None
    assert shares([token("The", 0.9, bug=0.06, billing=0.02), token(" answer", 1.0)], "billing", "bug") == [0.25, 0.75]
    assert shares([], "billing", "bug") is None


def test_a_label_of_which_nothing_was_said_gets_less_than_any_other() -> None:
    found = answer_shares([token("bug", 0.99, billing=0.004)], [["billing"], ["bug"], ["outage"]])
    assert found is not None
    assert found[2] == pytest.approx(0.002, abs=2e-4)
    # OpenAI gives -9999 for what cannot be.
    sure = answer_shares([TokenText("bug", 0.0, (("bug", 0.0), ("billing", -9999.0)))], [["billing"], ["bug"]])
    assert sure is not None
    assert 0 < sure[0] < 1e-6


@given(
    st.lists(
        st.builds(
            TokenText,
            st.text(max_size=8),
            st.floats(-50, 0),
            st.lists(st.tuples(st.text(max_size=8), st.floats(-10_000, 0)), max_size=5).map(tuple),
        ),
        max_size=6,
    ),
    st.lists(st.text(min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=5, unique=True),
)
def test_shares_are_probabilities_whatever_was_said(said: list[TokenText], names: list[str]) -> None:
    found = answer_shares(said, [answer_spellings(name) for name in names])
    if found is not None:
        assert len(found) == len(names)
        assert all(0 < share <= 1 for share in found)
        assert sum(found) == pytest.approx(1)


@given(st.text(min_size=1, max_size=12).filter(lambda text: re.sub(r"[\W_]", "", text)), st.data())
def test_an_answer_that_is_written_out_is_found_however_it_is_cut(name: str, data: Any) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(name) - 1)), max_size=4)))
    parts = [name[a:b] for a, b in zip([0, *cuts], [*cuts, len(name)]) if name[a:b]]
    found = answer_shares([TokenText(part, 0.0, ((part, 0.0),)) for part in parts], [[name], ["another name"]])
    assert found is not None
    assert found[0] > 0.99 or "a" in name.casefold()


def test_the_ledger_keeps_what_was_said_and_the_keys_of_other_requests() -> None:
    plain = Request((Message("user", "x"),))
    assert "token_texts" not in request_to_json(plain)
    asked = Request((Message("user", "x"),), token_texts=20, max_tokens=9)
    assert request_from_json(request_to_json(asked), 9) == asked
    assert reply_from_json({"text": "bug", "finish": "stop", "tokens": [3, 1]}).said == ()
    said = (TokenText("bug", -0.5, (("bug", -0.5), ("b", -9999.0))), TokenText("é\n", 0.0))
    assert reply_from_json(reply_to_json(Reply("bug", said=said))).said == said


def tells(body: dict[str, Any], most: int = 20) -> list[tuple[str, float, list[tuple[str, float]]]]:
    """A model that knows the labels by words, and likes `bug` too much."""
    text = body["messages"][-1]["content"].casefold().split("answer with one")[0]
    strength = {name: 3.0 * any(word in text for word in words) for name, words in WORDS.items()}
    strength["bug"] += 1.5
    if "Yes or No" in body["messages"][-1]["content"]:
        strength = {"Yes": 2.0, "No": 0.0}
    total = math.log(sum(math.exp(value) for value in strength.values()))
    listed = sorted(((name, value - total) for name, value in strength.items()), key=lambda item: -item[1])
    first = {re.match("[^_]+", name)[0]: value for name, value in reversed(listed)}  # type: ignore[index]
    name, value = listed[0]
    head = re.match("[^_]+", name)[0]  # type: ignore[index]
    said = [(head, value, sorted(first.items(), key=lambda item: -item[1])[: min(most, body["top_logprobs"])])]
    return said + ([(name[len(head) :], -0.01, [(name[len(head) :], -0.01)])] if name != head else [])


TEXTS = [
    ("The invoice is wrong", "billing"), ("I want a refund", "billing"), ("A crash at start", "bug"),
    ("Crash after crash", "bug"), ("Steps to see it: open, close", "bug_report"), ("Here are the steps", "bug_report"),
] * 2  # fmt: skip


def rows() -> Any:
    made = [
        Row(
            input=f"{text} {i}.", output=label, origin="generated", source=Source(teacher="m"), label=label,
            weight=1.0,
        )
        for i, (text, label) in enumerate(TEXTS)
    ]  # fmt: skip
    return rows_to_dataset(made, SPEC.label_names)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    with Ledger(tmp_path / "ledger.sqlite") as found:
        yield found


def test_a_chat_server_gives_soft_targets(teacher_server: Any, ledger: Ledger) -> None:
    with teacher_server.running_server(tokens=tells) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **FAST)
        asker = Asker(teacher, ledger)
        assert can_score(asker, SoftOptions())
        assert not can_score(asker, SoftOptions(direction="channel"))
        result = add_teacher_probs(SPEC, rows(), asker, SoftOptions())
        answers = teacher_answers(SPEC, [text for text, _ in TEXTS], asker, SoftOptions(), result.calibration)
        asked, bodies = server.asked, list(server.bodies)
        teacher.close()
    probs = np.array(result.table["teacher_probs"])
    assert probs.argmax(axis=1).tolist() == [SPEC.label_names.index(label) for _, label in TEXTS]
    assert probs.sum(axis=1) == pytest.approx(1)
    assert result.calibration is not None
    # The leaning towards `bug` is subtracted.
    assert result.calibration.offsets[1] > max(result.calibration.offsets[0], result.calibration.offsets[2]) - 1e-9
    assert [name for name, *_ in answers] == ["teacher (raw)", "teacher (calibrated)"]
    assert answers[1][1] == [label for _, label in TEXTS]
    assert asked == 12 + 6, "one request a text, and none for a text that was asked before"
    assert all(body["top_logprobs"] == 20 and body["logprobs"] is True for body in bodies)
    assert all("response_format" not in body for body in bodies)


def test_a_server_that_gives_five_tokens_is_asked_for_five(teacher_server: Any, ledger: Ledger) -> None:
    def fault(number: int, text: str) -> Any:
        wanted = server.bodies[number].get("top_logprobs", 0)
        return (400, {"error": {"message": "top_logprobs: Input should be at most 5"}}) if wanted > 5 else None

    with teacher_server.running_server(fault, tokens=tells) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **FAST)
        found = label_scores(SPEC, [text for text, _ in TEXTS], Asker(teacher, ledger))
        wide = [body for body in server.bodies if body.get("top_logprobs", 0) > 5]
        teacher.close()
    assert np.isfinite(found).all()
    assert len(wide) <= 2


@pytest.mark.parametrize("how", ["ignores", "refuses"])
def test_a_server_without_log_probs_costs_one_request_and_leaves_hard_labels(
    how: str, teacher_server: Any, ledger: Ledger
) -> None:
    def fault(number: int, text: str) -> Any:
        said = "`logprobs` is not supported with this model"
        refuses = how == "refuses" and "logprobs" in server.bodies[number]
        return (400, {"error": {"message": said}}) if refuses else None

    notes = []
    with teacher_server.running_server(fault, reply=lambda body: '{"answer": "bug"}') as server:
        teacher = open_teacher(f"openai:{server.url}#m", **FAST)
        asker = Asker(teacher, ledger)
        result = add_teacher_probs(SPEC, rows(), asker, SoftOptions(), listener=lambda e: notes.append(e.message))
        asked = server.asked
        answers = teacher_answers(SPEC, ["A crash"], asker, SoftOptions())
        teacher.close()
    assert asked == (1 if how == "ignores" else 2)
    assert result.calibration is None
    assert result.table["teacher_probs"][:] == [None] * 12
    assert "hard labels only" in result.report["summary"]
    assert any("gave no log-probs" in note for note in notes)
    assert answers == [("teacher (raw)", ["bug"], None)]


def test_a_refused_text_does_not_speak_for_the_server(teacher_server: Any, ledger: Ledger) -> None:
    def fault(number: int, text: str) -> Any:
        return "refusal" if "invoice" in text else None

    with teacher_server.running_server(fault, tokens=tells) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **FAST)
        found = label_scores(SPEC, [text for text, _ in TEXTS[:6]], Asker(teacher, ledger))
        teacher.close()
    assert np.isfinite(found).all(axis=1).tolist() == [False, True, True, True, True, True]


def test_checks_of_written_rows_use_them_too(teacher_server: Any, ledger: Ledger) -> None:
    wrong = rows().map(lambda row, i: {"output": "bug", "label": 1} if i == 0 else {}, with_indices=True)
    with teacher_server.running_server(tokens=tells) as server:
        teacher = open_teacher(f"openai:{server.url}#m", **FAST)
        verified = check_rows(SPEC, wrong, Asker(teacher, ledger), QualityOptions(verify=True))
        judged = check_rows(SPEC, rows(), Asker(teacher, ledger), QualityOptions(judge=True))
        teacher.close()
    weights = verified.rows["weight"][:]
    assert weights[0] < 0.21 < min(weights[1:])
    assert judged.report["summary"]


def test_a_check_that_a_server_cannot_answer_is_not_said_to_be_made(teacher_server: Any, ledger: Ledger) -> None:
    notes = []
    with teacher_server.running_server(reply=lambda body: "bug") as server:
        teacher = open_teacher(f"openai:{server.url}#m", **FAST)
        options = QualityOptions(verify=True, votes=1)
        checked = check_rows(
            SPEC, rows(), Asker(teacher, ledger), options,
            listener=lambda e: notes.append(e.message) if e.kind == "note" else None,
        )  # fmt: skip
        teacher.close()
    assert checked.report["summary"].startswith("12 rows checked (votes)")
    assert checked.report["without_answer"] == ["verify"]
    (note,) = notes
    assert note.startswith("quality.verify says nothing: ")
    assert "gave no answer" in note


def test_a_thinking_model_of_openai_is_not_asked(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-used")
    for model, gives in (("gpt-5-mini", False), ("gpt-4o-mini", True)):
        teacher = open_teacher(f"openai:#{model}")
        assert can_score(Asker(teacher, ledger), SoftOptions()) == gives
        teacher.close()
