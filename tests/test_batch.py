"""Batch files: written, answered elsewhere, read back; the run then asks for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher import Message, Reply, Request
from potstill.batch import write_batch
from potstill.batch_results import read_batch
from potstill.cli.app import app
from potstill.datagen.generate import GenerationOptions, generate_rows
from potstill.datagen.teachers import open_teacher
from potstill.datagen.teachers.fake import FakeTeacher
from potstill.errors import BudgetReached, DataError, OptionError, TeacherUnavailable, UserError
from potstill.task.file import read_task_file

TASK = "Classify a news article as World, Sports or Business."
USED = {"prompt_tokens": 7, "completion_tokens": 3}
# Nothing listens there: whatever is sent would fail.
TEACHER = "openai:http://127.0.0.1:9/v1#m"
SETTINGS: dict[str, Any] = {
    "teacher": TEACHER,
    "sources": "generated",
    "n": 12,
    "generation": {"attributes": "builtin", "window": 30},
}


@pytest.fixture(autouse=True)
def _no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model list is not asked, as for api.openai.com."""
    from potstill.datagen.teachers import openai_api

    monkeypatch.setattr(openai_api.OpenAITeacher, "_flavour", "openai")


def answered(line: str, **fault: Any) -> str:
    """A result line as the Batch API writes it; the fake teacher answers."""
    asked = json.loads(line)
    body = asked["body"]
    if fault:
        return json.dumps({"id": "b", "custom_id": asked["custom_id"], "response": None, "error": None, **fault})
    request = Request(
        tuple(Message(m["role"], m["content"]) for m in body["messages"]),
        max_tokens=body["max_tokens"],
        seed=body["seed"],
        schema=body["response_format"]["json_schema"]["schema"],
    )
    reply = FakeTeacher().answer(request)
    assert isinstance(reply, Reply)
    choice = {"message": {"role": "assistant", "content": reply.text}, "finish_reason": reply.finish}
    usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
    response = {"status_code": 200, "request_id": "r", "body": {"choices": [choice], "usage": usage, "id": "c"}}
    return json.dumps({"id": "b", "custom_id": asked["custom_id"], "response": response, "error": None})


def generated(run: Path) -> Any:
    """Rows from the ledger of a run, asked as `potstill run` does."""
    spec = read_task_file(TASK, draft=True).spec
    with Ledger(run / "ledger.sqlite") as ledger:
        teacher = open_teacher(TEACHER, startup_s=0.2, backoff_s=0.05)
        asker = Asker(teacher, ledger)
        options = GenerationOptions(rows=12, attributes="builtin", window=30)
        try:
            return generate_rows(spec, asker, options, out=run / "out"), asker.counts
        finally:
            teacher.close()


def test_a_round_trip_leaves_nothing_to_ask(tmp_path: Path) -> None:
    run, file = tmp_path / "run", tmp_path / "requests.jsonl"
    written = write_batch(TASK, file, out=run, **SETTINGS)
    lines = file.read_text("utf-8").splitlines()
    assert written.files == (file,)
    assert written.requests == len(lines) >= 12
    first = json.loads(lines[0])
    assert set(first) == {"custom_id", "method", "url", "body"}
    assert (first["method"], first["url"], first["body"]["model"]) == ("POST", "/v1/chat/completions", "m")
    assert len({json.loads(line)["custom_id"] for line in lines}) == len(lines)
    # Written again before anything came back: the same file.
    write_batch(TASK, tmp_path / "again.jsonl", out=run, **SETTINGS)
    assert (tmp_path / "again.jsonl").read_bytes() == file.read_bytes()

    (tmp_path / "results.jsonl").write_text("\n".join(answered(line) for line in reversed(lines)) + "\n")
    found = read_batch(run, [tmp_path / "results.jsonl"])
    assert (found.answered, found.missing, found.unknown, dict(found.failed)) == (len(lines), 0, 0, {})
    assert read_batch(run, [tmp_path / "results.jsonl"]).unknown == len(lines)
    result, counts = generated(run)
    assert result.kept == 12
    assert counts.fresh == counts.failed == 0
    assert counts.cached >= 6
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.totals("datagen").replies == len(lines)
        assert ledger.totals("datagen").completion_tokens > 0
    # All is answered, so there is nothing to write.
    hard = {**SETTINGS, "distil": {"soft_weight": 0}}
    assert write_batch(TASK, tmp_path / "none.jsonl", out=run, **hard).requests == 0
    assert not (tmp_path / "none.jsonl").exists()


def answer_with(run: Path, file: Path, reply: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer every line of a batch file, and read the results into the run."""
    lines = []
    for line in file.read_text("utf-8").splitlines():
        asked = json.loads(line)
        usage = {"prompt_tokens": 20, "completion_tokens": 2}
        body = {"choices": [{"finish_reason": "stop", **reply(asked["body"])}], "usage": usage, "id": "c"}
        response = {"status_code": 200, "request_id": "r", "body": body}
        lines.append(json.dumps({"custom_id": asked["custom_id"], "response": response, "error": None}))
    (run / "answers.jsonl").write_text("\n".join(lines))
    assert read_batch(run, [run / "answers.jsonl"]).missing == 0


@pytest.mark.real
def test_the_next_files_hold_the_checks_and_the_soft_targets(tmp_path: Path) -> None:
    """Only generation came by the file; what follows was asked for one by one, at the full price."""
    run, file = tmp_path / "run", tmp_path / "r.jsonl"
    more = {**SETTINGS, "quality": {"judge": True}}

    def said(body: dict[str, Any]) -> dict[str, Any]:
        if body.get("response_format"):
            return json.loads(answered(json.dumps({"custom_id": "", "body": body})))["response"]["body"]["choices"][0]
        text = "Yes" if "Yes" in json.dumps(body["messages"]) else "Sports"
        made = {"token": text, "logprob": -0.1, "bytes": None,
                "top_logprobs": [{"token": name, "logprob": -0.1 - 2 * i, "bytes": None}
                                 for i, name in enumerate((text, "World", "Business", "Sports"))]}  # fmt: skip
        return {"message": {"role": "assistant", "content": text}, "logprobs": {"content": [made]}}

    purposes = []
    for _ in range(6):
        written = write_batch(TASK, file, out=run, **more)
        if not written.requests:
            break
        with (run / "batch" / "pending.jsonl").open() as pending:
            purposes.append({json.loads(line)["purpose"] for line in pending})
        answer_with(run, file, said)
    assert {"datagen"} in purposes
    assert {"quality"} in purposes
    assert {"soft"} in purposes
    assert written.requests == 0
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.totals("quality").replies == 12
        assert ledger.totals("soft").replies > 1, "a question whether log-probs come, then one for each row"
    assert (run / "soft" / "manifest.json").exists()


ASKS = """\
---
labels: [refund, praise]
unlabelled: texts.txt
rules:
  - {label: refund, prompt: "Is money wanted?"}
  - {label: praise, prompt: "Is it praise?", keyword: thanks}
---
Classify messages.
"""


def told(line: str) -> str:
    """A result line for the question of a rule, with log-probs where they were asked for; others as by `answered`."""
    asked = json.loads(line)
    said = asked["body"]["messages"][-1]["content"]
    if "Question about the text" not in said:
        return answered(line)
    answer = "Yes" if ("money" in said.split("Question")[0]) == ("money wanted" in said) else "No"
    tops = [{"token": answer, "logprob": -0.1}, {"token": "No" if answer == "Yes" else "Yes", "logprob": -2.4}]
    choice = {"message": {"content": answer}, "finish_reason": "stop",
              "logprobs": {"content": [{**tops[0], "top_logprobs": tops}]}}  # fmt: skip
    body = {"choices": [choice], "usage": {"prompt_tokens": 30, "completion_tokens": 1}, "id": "c"}
    response = {"status_code": 200, "request_id": "r", "body": body}
    return json.dumps({"id": "b", "custom_id": asked["custom_id"], "response": response, "error": None})


def test_the_questions_of_rules_go_with_the_rows(tmp_path: Path) -> None:
    run, task = tmp_path / "run", tmp_path / "task.md"
    task.write_text(ASKS)
    (tmp_path / "texts.txt").write_text("\n".join(f"{'my money' if i % 2 else 'thanks'}, order {i}" for i in range(8)))
    counts = []
    for turn in range(9):
        file = tmp_path / f"{turn}.jsonl"
        if not write_batch(str(task), file, out=run, **SETTINGS, distil={"soft_weight": 0.0}).requests:
            break
        lines = file.read_text("utf-8").splitlines()
        counts.append(sum("Question about the text" in line for line in lines))
        assert turn or counts[0] < len(lines), "rows are asked for in the same file"
        (tmp_path / "results.jsonl").write_text("\n".join(map(told, lines)) + "\n")
        assert read_batch(run, [tmp_path / "results.jsonl"]).answered == len(lines)
    assert counts[:2] == [1, 15], "whether the server gives log-probs is tried first"
    assert sum(counts) == 16
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.totals("weak").replies == 16
        assert ledger.totals("datagen").replies >= 12
    report = json.loads((run / "weak" / "report.json").read_text())
    assert report["labels"] == {"refund": 4, "praise": 4}


def test_questions_with_other_answers_come_in_a_later_file(tmp_path: Path) -> None:
    run, task = tmp_path / "run", tmp_path / "task.md"
    more = "  - {prompt: What is it?, answers: {money: refund, joy: praise}}\n---\nClassify"
    task.write_text(ASKS.replace("---\nClassify", more))
    (tmp_path / "texts.txt").write_text("my money\nthanks")
    asked = []
    for turn in range(4):
        file = tmp_path / f"{turn}.jsonl"
        write_batch(str(task), file, out=run, **SETTINGS)
        lines = file.read_text("utf-8").splitlines()
        asked.append({line.partition("nothing else: ")[2][:5] for line in lines if "Question about the text" in line})
        (tmp_path / "results.jsonl").write_text("\n".join(map(told, lines)) + "\n")
        assert read_batch(run, [tmp_path / "results.jsonl"]).missing == 0
    assert asked == [{"Yes, "}, {"Yes, "}, {"money"}, {"money"}]


def test_errors_and_missing_lines_are_asked_again(tmp_path: Path) -> None:
    run, file = tmp_path / "run", tmp_path / "requests.jsonl"
    write_batch(TASK, file, out=run, **SETTINGS)
    lines = file.read_text("utf-8").splitlines()
    bad = [
        answered(lines[0], error={"code": "batch_expired", "message": "This request could not be executed."}),
        answered(lines[1], response={"status_code": 429, "body": {"error": {"message": "slow down"}}}),
        answered(lines[2], response={"status_code": 200, "body": {"choices": [], "usage": USED}}),
        answered(lines[3], response={"status_code": 200, "body": "<html>"}),
        answered(lines[4]),
        answered(lines[4]),
        answered(lines[5]).replace(json.loads(lines[5])["custom_id"], "another"),
        '{"custom_id": 7}',
        "[1, 2]",
        '{"custom_id": "x", ',
        "[" * 100_000,
    ]
    (tmp_path / "results.jsonl").write_bytes("\n".join(bad).encode() + b"\n\xff\xfe\n")
    found = read_batch(run, [tmp_path / "results.jsonl"])
    assert dict(found.failed) == {"batch_expired": 1, "HTTP 429": 1, "unusable reply": 1, "no response": 1}
    assert (found.answered, found.already, found.unknown) == (1, 1, 2)
    assert found.unreadable == 4
    assert found.missing == len(lines) - 1
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        assert (ledger.totals().replies, ledger.totals().failures) == (1, 4)
        told = ledger.totals()
        spent = {TEACHER: (told.prompt_tokens + 7, told.completion_tokens + 3)}
        assert ledger.spent() == spent, "a reply that cannot be used was paid for, too"
    # The next file holds what has no reply.
    written = write_batch(TASK, tmp_path / "second.jsonl", out=run, **SETTINGS)
    ids = {json.loads(line)["custom_id"] for line in (tmp_path / "second.jsonl").read_text("utf-8").splitlines()}
    assert json.loads(lines[4])["custom_id"] not in ids
    assert {json.loads(line)["custom_id"] for line in (*lines[:4], *lines[5:])} <= ids
    assert written.requests == len(ids)
    # And a run asks the server itself, which is away.
    with pytest.raises(TeacherUnavailable, match="could not be reached"):
        generated(run)


def test_what_the_bounds_of_the_api_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill import batch

    monkeypatch.setattr(batch, "MAX_LINES", 5)
    written = write_batch(TASK, tmp_path / "r.jsonl", out=tmp_path / "run", **SETTINGS)
    assert [file.name for file in written.files][:3] == ["r.jsonl", "r-2.jsonl", "r-3.jsonl"]
    counts = [len(file.read_text("utf-8").splitlines()) for file in written.files]
    assert sum(counts) == written.requests
    assert max(counts) == 5


def test_a_batch_holds_no_more_than_the_budget_allows(tmp_path: Path) -> None:
    """A file of any size was written beside a cap of two dollars; whoever uploads it pays for all of it."""
    run, file = tmp_path / "run", tmp_path / "requests.jsonl"
    whole = write_batch(TASK, tmp_path / "whole.jsonl", out=tmp_path / "whole", **SETTINGS)
    assert not whole.capped
    written = write_batch(TASK, file, out=run, budget="5k-tokens", **SETTINGS)
    lines = file.read_text("utf-8").splitlines()
    assert written.capped
    assert 1 <= written.requests == len(lines) < whole.requests
    assert sum(json.loads(line)["body"]["max_tokens"] for line in lines) <= 5000
    (tmp_path / "results.jsonl").write_text("\n".join(answered(line) for line in lines) + "\n")
    assert read_batch(run, [tmp_path / "results.jsonl"]).answered == len(lines)
    # What it really took is counted from then on, so that more fit.
    assert write_batch(TASK, file, out=run, budget="5k-tokens", **SETTINGS).requests > 0
    with pytest.raises(BudgetReached, match="the next request may take up to"):
        write_batch(TASK, file, out=tmp_path / "none", budget="100-tokens", **SETTINGS)
    with pytest.raises(OptionError, match="is not known, so 2 USD cannot be watched"):
        write_batch(
            TASK, file, out=tmp_path / "money", **{**SETTINGS, "teacher": "openai:https://x.example/v1#m"},
            budget="2usd",
        )  # fmt: skip
    priced = {**SETTINGS, "teacher": "openai:https://x.example/v1#m", "teacher_options": {"usd_written": 1000.0}}
    assert write_batch(TASK, file, out=tmp_path / "money", budget="2usd", **priced).capped


def test_what_cannot_be_batched(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="not 'fake'; name one with --teacher, such as openai:#gpt-5-mini"):
        write_batch(TASK, tmp_path / "r.jsonl", out=tmp_path / "run", teacher="fake")
    with pytest.raises(UserError, match=r"cannot search with beams.*soft\.pick=likeliest"):
        write_batch(
            "Summarise a paragraph in one sentence. The output is a summary.", tmp_path / "r.jsonl",
            out=tmp_path / "run", **SETTINGS, distil={"method": "sequence"}, soft={"pick": "beam"},
        )  # fmt: skip
    with pytest.raises(DataError, match="potstill batch write TASK FILE"):
        read_batch(tmp_path / "run", [tmp_path / "r.jsonl"])


def test_commands(tmp_path: Path) -> None:
    run, file = str(tmp_path / "run"), str(tmp_path / "requests.jsonl")
    command = ["batch", "write", TASK, file, "-o", run, "--teacher", TEACHER, "--sources", "generated", "-n", "6"]
    said = CliRunner().invoke(app, [*command, "--set", "generation.attributes=builtin"], catch_exceptions=False)
    assert "requests in" in said.output
    assert f"then: potstill batch submit {run} {file}" in said.output
    lines = Path(file).read_text("utf-8").splitlines()
    (tmp_path / "results.jsonl").write_text(answered(lines[0]) + "\n")
    said = CliRunner().invoke(app, ["batch", "read", run, str(tmp_path / "results.jsonl")], catch_exceptions=False)
    assert "1 replies read" in said.output
    assert f"{len(lines) - 1} without reply" in said.output
    said = CliRunner().invoke(app, ["batch", "read", run, str(tmp_path / "absent.jsonl")])
    assert isinstance(said.exception, DataError)
