"""What the teacher's answers cost: measured also where it gives no label scores, and set beside the student."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from potstill.asking.asker import Asker
from potstill.asking.budget import Price
from potstill.asking.ledger import Ledger
from potstill.datagen.outputs import label_reader
from potstill.datagen.soft_options import SoftOptions
from potstill.datagen.teachers import open_teacher
from potstill.plan.estimate import plan_run
from potstill.report.facts import read_run
from potstill.report.page import render_report, write_report
from potstill.report.saving import covered, list_price, saving, teacher_seen
from potstill.rows import rows_to_dataset
from potstill.settings import EvaluateOptions
from potstill.stages.evaluation import evaluate_run, teacher_answers

PRICED = "gpt-4o-mini"  # 0.15 USD for a million tokens read, 0.60 for a million written
FAST: dict[str, Any] = {
    "backoff_s": 0.01,
    "longest_pause_s": 0.1,
    "timeout_s": 5.0,
    "startup_s": 0.5,
    "patience_s": 5.0,
}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def unmeasured(sample_run: Any, tmp_path: Path) -> Path:
    """A run whose student is trained and whose teacher was asked nothing yet."""
    run: Path = sample_run.write_run(tmp_path / "run")
    (run / "ledger.sqlite").unlink()
    shutil.rmtree(run / "evaluate")
    (run / "evaluate").mkdir()
    return run


def chosen(sample_run: Any) -> Any:
    """Answers as a server does that was told its choices: right but for texts that say `invoice`."""

    def reply(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"].split("\n\n")[-2].lower()
        found = next(name for name, words in sample_run._WORDS.items() if any(word in text for word in words))
        return json.dumps({"answer": "other" if "invoice" in text else found})

    return reply


def measure(sample_run: Any, run: Path, teacher: str, options: EvaluateOptions, **how: Any) -> dict[str, Any]:
    """Measure student and teacher, and write down who the teacher was, as a run does."""
    tested = rows_to_dataset(sample_run.make_rows(24, 7), sample_run.LABELS)
    opened = open_teacher(teacher, **how)
    try:
        with Ledger(run / "ledger.sqlite") as ledger:
            evaluate_run(
                sample_run.spec_for(), run / "train" / "student", tested, run / "evaluate",
                test_set={"kind": "real", "source": "test.csv"}, asker=Asker(opened, ledger), soft=SoftOptions(),
                options=options, train_rows=tested, seed=0,
            )  # fmt: skip
        facts = json.loads((run / "run.json").read_text())
        facts |= {"teacher": dict(opened.identity), "teacher_name": opened.name}
        facts["settings"] = {**facts.get("settings", {}), "teacher_options": how}
    finally:
        opened.close()
    (run / "run.json").write_text(json.dumps(facts))
    return dict(json.loads((run / "evaluate" / "scores.json").read_text()))


def waits(run: Path, purpose: str) -> list[tuple[float, float]]:
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        answers = [entry for entry in ledger.entries() if entry.purpose == purpose]
        return [(entry.at - entry.seconds, entry.at) for entry in answers]


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_the_money_that_a_run_spent_is_that_of_all_its_teachers(sample_run: Any, tmp_path: Path) -> None:
    """A judge that is paid was told at the price of a writer that is not: as nothing."""
    run = sample_run.write_run(tmp_path / "run")
    facts = json.loads((run / "run.json").read_text()) | {"usd": 12.34}
    (run / "run.json").write_text(json.dumps(facts))
    html, _ = write_report(run)
    assert "these tokens cost 12.34 USD" in text_of(html.read_text())


def test_a_priced_teacher_without_label_scores_is_measured_by_what_it_writes(
    sample_run: Any, teacher_server: Any, unmeasured: Path
) -> None:
    with teacher_server.running_server(reply=chosen(sample_run), delay_s=0.05) as server:
        scores = measure(
            sample_run, unmeasured, f"openai:{server.url}#{PRICED}", EvaluateOptions(latency_rows=3),
            concurrency=4, usd_read=0.15, usd_written=0.60, **FAST,
        )  # fmt: skip
        assert server.asked == 1 + 24, "once whether it gives log-probs, which it does not"
        assert "logprobs" in server.bodies[0]
        formats = [body["response_format"]["json_schema"]["schema"] for body in server.bodies[1:]]
    assert {tuple(f["properties"]["answer"]["enum"]) for f in formats} == {sample_run.LABELS}
    assert all("billing, bug, other" in body["messages"][-1]["content"] for body in server.bodies)
    assert [system["name"] for system in scores["systems"]] == ["student", "teacher (raw)", "majority"]
    teacher = scores["systems"][1]
    texts = [row.input for row in sample_run.make_rows(24, 7)]
    wrong = sum("invoice" in text.lower() for text in texts)
    assert 0 < wrong < 12
    assert teacher["accuracy"] == pytest.approx(1 - wrong / 24)
    low, high = teacher["ci"]["macro_f1"]
    assert 0 < low < teacher["macro_f1"] < high <= 1
    assert "ece" not in teacher, "what has no probability has no calibration"

    facts = read_run(unmeasured)
    found = saving(facts, facts.system("student"))
    assert found is not None
    spans = waits(unmeasured, "zero-shot")
    mean = sum(end - start for start, end in spans) / 24
    assert mean > 0.05
    assert found["requests"] == 24
    assert (found["prompt_tokens"], found["completion_tokens"]) == (5_000_000, 4_000_000)
    assert found["usd"] == pytest.approx(5 * 0.15 + 4 * 0.60)
    assert found["teacher_hours"] == pytest.approx(mean * 1e6 / 3600, rel=1e-3)
    assert found["teacher_busy_hours"] == pytest.approx(covered(spans) / 24 * 1e6 / 3600, rel=1e-3)
    assert 1.5 < found["at_a_time"] <= 4.05
    assert found["teacher_busy_hours"] < found["teacher_hours"] / 1.5
    student = facts.system("student")["latency_ms"]["p50"] / 3.6
    assert found["student_hours"] == pytest.approx(student)

    html, markdown = render_report(facts)
    saved = f"{found['teacher_hours'] - student:,.1f} ({found['teacher_hours'] / student:,.1f} times)"
    for text in (text_of(html), markdown):
        for words in ("Teacher (raw) is measured by the labels that it writes", "without calibration", "3.15 USD",
                      f"at most {found['teacher_hours']:,.1f}", f"at most {saved}", "5.0M, 4.0M",
                      f"{found['at_a_time']:.1f} at a time", f"{found['teacher_busy_hours']:,.1f}"):  # fmt: skip
            assert words in text, words
    assert re.search(r"teacher \(raw\) [+-]0\.\d{3} \[[+-]\d\.\d{3}, [+-]\d\.\d{3}\]", text_of(html)), "paired interval"


def test_the_options_that_leave_the_teacher_out_or_rows_away_hold_for_it_too(
    sample_run: Any, teacher_server: Any, unmeasured: Path
) -> None:
    with teacher_server.running_server(reply=chosen(sample_run)) as server:
        name = f"openai:{server.url}#{PRICED}"
        scores = measure(sample_run, unmeasured, name, EvaluateOptions(teacher=False, latency_rows=0), **FAST)
        assert server.asked == 0
        assert [system["name"] for system in scores["systems"]] == ["student", "majority"]
        scores = measure(sample_run, unmeasured, name, EvaluateOptions(rows=9, latency_rows=0), **FAST)
        assert server.asked == 1 + 9
        assert scores["systems"][1]["rows"] == 9


def test_a_teacher_that_refuses_is_said_to_be_unmeasured(
    sample_run: Any, teacher_server: Any, unmeasured: Path
) -> None:
    with teacher_server.running_server(lambda number, text: "401") as server:
        scores = measure(
            sample_run, unmeasured, f"openai:{server.url}#{PRICED}", EvaluateOptions(latency_rows=0), **FAST
        )
    assert [system["name"] for system in scores["systems"]] == ["student", "majority"]
    assert "401" in scores["teacher_left_out"]
    html, markdown = render_report(read_run(unmeasured))
    for text in (text_of(html), markdown):
        assert "The teacher was not measured:" in text
        assert "401" in text


def test_an_own_teacher_has_hours_and_no_price(sample_run: Any, unmeasured: Path) -> None:
    scores = measure(
        sample_run, unmeasured, "fake", EvaluateOptions(latency_rows=3), delay_s=0.002, concurrency=1
    )  # fmt: skip
    assert [s["name"] for s in scores["systems"]][1:3] == ["teacher (raw)", "teacher (calibrated)"]
    assert "answer_from" not in scores["systems"][1]
    facts = read_run(unmeasured)
    found = saving(facts, facts.system("student"))
    assert found is not None
    spans = waits(unmeasured, "soft")
    assert found["requests"] == len(spans)
    assert found["own"]
    assert found["usd"] is None
    assert found["teacher_hours"] == pytest.approx(sum(b - a for a, b in spans) / len(spans) * 1e6 / 3600, rel=1e-3)
    assert found["teacher_hours"] > 0.002 * 1e6 / 3600
    html, _ = render_report(facts)
    section = text_of(html[html.index("What the student saves") : html.index('id="repeat"')])
    assert f"{found['teacher_hours']:,.1f}" in section
    assert "List price of the tokens none none none" in section


LEDGER = [  # purpose, teacher, seconds, at, prompt tokens, completion tokens
    ("datagen", "fake", 9.0, 50.0, 999, 999),
    ("zero-shot", "other", 9.0, 60.0, 999, 999),
    ("soft", "fake", 2.0, 102.0, 100, 0),
    ("soft", "fake", 2.0, 103.0, 200, 0),
    ("soft", "fake", 1.0, 110.0, 300, 0),
]


def write_ledger(run: Path, rows: list[tuple[Any, ...]]) -> None:
    import sqlite3

    (run / "ledger.sqlite").unlink(missing_ok=True)
    with Ledger(run / "ledger.sqlite") as ledger:
        for number, (purpose, teacher, seconds, _, prompt, completion) in enumerate(rows):
            ledger.record(
                f"key{number}", purpose=purpose, teacher=teacher, request={}, reply={}, finish="stop", max_tokens=64,
                prompt_tokens=prompt, completion_tokens=completion, seconds=seconds,
            ).result(5)  # fmt: skip
    with sqlite3.connect(run / "ledger.sqlite") as connection:
        for number, row in enumerate(rows):
            connection.execute("UPDATE replies SET at = ? WHERE key = ?", (row[3], f"key{number}"))
    connection.close()


@pytest.fixture
def told(sample_run: Any, tmp_path: Path) -> Path:
    """A run whose ledger is `LEDGER`, with a student that takes 3.6 ms, an hour for a million."""
    run: Path = sample_run.write_run(tmp_path / "run")
    write_ledger(run, LEDGER)
    facts = json.loads((run / "run.json").read_text()) | {"teacher_name": "fake"}
    (run / "run.json").write_text(json.dumps(facts))
    return run


STUDENT = {"latency_ms": {"p50": 3.6, "p95": 9.0}}


def test_hours_are_of_this_teacher_and_of_answers_to_the_task(told: Path) -> None:
    seen = teacher_seen(read_run(told))
    assert seen is not None
    assert (seen.requests, seen.prompt_tokens, seen.timed, seen.scored) == (3, 600, 3, True)
    assert (seen.waited, seen.busy) == (pytest.approx(5.0), pytest.approx(4.0))
    found = saving(read_run(told), STUDENT)
    assert found is not None
    assert found["student_hours"] == pytest.approx(1.0)
    assert found["teacher_hours"] == pytest.approx(5 / 3 * 1e6 / 3600)
    assert found["teacher_busy_hours"] == pytest.approx(4 / 3 * 1e6 / 3600)
    assert found["at_a_time"] == pytest.approx(1.25)
    assert found["saved"] == "462.0 (463.0 times)"
    assert found["saved_busy"] == "369.4 (370.4 times)"


def test_a_text_scored_as_written_for_each_label_takes_a_request_a_label(told: Path) -> None:
    facts = json.loads((told / "run.json").read_text())
    facts["settings"]["soft"] = {"direction": "channel"}
    (told / "run.json").write_text(json.dumps(facts))
    found = saving(read_run(told), STUDENT)
    assert found is not None
    assert found["teacher_hours"] == pytest.approx(3 * 5 / 3 * 1e6 / 3600)
    assert found["prompt_tokens"] == pytest.approx(600e6)


def test_replies_of_a_batch_have_a_price_and_no_hours(told: Path) -> None:
    write_ledger(told, [("zero-shot", "fake", 0.0, 100.0, 1000, 10), ("zero-shot", "fake", 0.0, 100.0, 1000, 10)])
    facts = json.loads((told / "run.json").read_text())
    facts["teacher"] = {"backend": "openai", "model": PRICED, "endpoint": "https://api.openai.com/v1"}
    (told / "run.json").write_text(json.dumps(facts))
    found = saving(read_run(told), STUDENT)
    assert found is not None
    assert found["teacher_hours"] is None
    assert found["saved"] == "not known"
    assert found["usd"] == pytest.approx(1000 * 0.15 + 10 * 0.60)
    section = text_of(render_report(read_run(told))[0])
    assert "156 USD 156 USD" in section
    assert "Hours, one answer after the other 1.7 not known not known" in section


def test_a_student_that_is_slower_saves_no_time(told: Path) -> None:
    found = saving(read_run(told), {"latency_ms": {"p50": 3600.0}})
    assert found is not None
    assert found["saved"] == "none: the teacher takes 537.0 fewer"
    assert saving(read_run(told), {}) is None
    (told / "ledger.sqlite").unlink()
    assert saving(read_run(told), STUDENT) is None


def test_time_is_counted_once_however_many_wait() -> None:
    assert covered([]) == 0
    assert covered([(0, 2), (1, 3), (1, 2), (5, 6)]) == 4
    assert covered([(5, 6), (0, 10)]) == 10


def test_a_list_price_is_looked_up_by_name_where_no_list_knows_the_endpoint() -> None:
    known = list_price({"backend": "openai", "model": PRICED, "endpoint": "https://api.openai.com/v1"})
    assert known is not None
    assert known == list_price({"backend": "openai", "model": PRICED, "endpoint": "http://proxy.example/v1"})
    here = {"backend": "openai", "model": PRICED, "endpoint": "http://localhost:8000/v1"}
    assert list_price(here) is None, "it runs on this machine"
    assert list_price(here, {"usd_read": 1, "usd_written": 2.0}) == Price(1.0, 2.0)
    assert list_price({"backend": "openai", "model": "my-own", "endpoint": "http://localhost:8000/v1"}) is None
    assert list_price({"backend": "vllm", "model": PRICED}) is None


@pytest.mark.parametrize(
    ("answer", "label"),
    [("US", "US"), ("us", "us"), (" US ", "us"), ("It is not_spam.", "not_spam"), ("**Not spam**", "not_spam"),
     ("spam", "spam"), ("I cannot say", None), ("", None)],
)  # fmt: skip
def test_a_written_label_is_read(answer: str, label: str | None) -> None:
    assert label_reader(("US", "us", "spam", "not_spam"))(answer) == label


@pytest.fixture
def answers(sample_run: Any, teacher_server: Any, tmp_path: Path) -> Iterator[Any]:
    """Asks a server for the labels of texts; what it replies is the text itself."""
    with (
        teacher_server.running_server(reply=lambda body: body["messages"][-1]["content"].split("\n\n")[-2]) as server,
        Ledger(tmp_path / "ledger.sqlite") as ledger,
    ):
        opened = open_teacher(f"openai:{server.url}#{PRICED}", attempts=1, **FAST)
        asker = Asker(opened, ledger)
        yield lambda texts: teacher_answers(sample_run.spec_for(), texts, asker, SoftOptions(max_chars=40))
        opened.close()


def test_an_answer_that_names_no_label_is_no_label(answers: Any) -> None:
    texts = ["bug", "nonsense", '{"answer": "billing"}', "other" + 60 * " " + "x"]
    assert answers(texts) == [("teacher (raw)", ["bug", "", "billing", "other"], None)]


def test_a_plan_counts_the_answers_that_an_api_is_asked_for(tmp_path: Path) -> None:
    data = "".join(json.dumps({"text": f"text {i}", "label": "ab"[i % 2]}) + "\n" for i in range(50))
    (tmp_path / "test.jsonl").write_text(data)
    task = tmp_path / "task.md"
    task.write_text(
        "---\nlabels: [a, b]\ntest: {path: test.jsonl, inputs: [text], output: label}\n---\nSay the kind.\n"
    )
    asked: dict[str, Any] = {"teacher": f"openai:https://api.openai.com/v1#{PRICED}", "sources": "generated", "n": 20}
    for options, requests in (({}, 50), ({"rows": 30}, 30), ({"teacher": False}, 0)):
        planned = plan_run(str(task), out=tmp_path / "run", evaluate=options, **asked)
        steps = [step for step in planned.steps if step.stage == "evaluate"]
        assert sum(step.requests for step in steps) == requests
        assert all(2 * step.requests < step.completion_tokens < 20 * step.requests for step in steps)


@pytest.mark.parametrize("name", ["ticket #1", "50%25", "what? now", "a b"])
def test_a_ledger_is_found_whatever_its_folder_is_called_and_no_file_is_made(
    sample_run: Any, tmp_path: Path, name: str
) -> None:
    run = sample_run.write_run(tmp_path / "runs" / name)
    assert teacher_seen(read_run(run)) is not None
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [name]
