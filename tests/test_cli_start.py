"""`init`, `doctor` and `preview`: what they write, what they find, and that a run goes on from a preview."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from potstill.cli.app import app
from potstill.errors import UserError
from potstill.extras import install_command
from potstill.task.draft import Answers, draft_task, read_prompt
from potstill.task.file import read_task_file

PROMPT = "Classify support tickets as billing, bug or other."


def _call(*arguments: str, input: str = "", code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments), input=input)
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


def test_init_writes_a_file_that_reads_back_as_what_was_read(tmp_path: Path) -> None:
    file = tmp_path / "tickets.md"
    out = _call("init", PROMPT, "-o", str(file), "--yes")
    assert "billing, bug, other" in out
    assert f"potstill run {file}" in out
    spec = read_task_file(file).spec
    assert (spec.kind, spec.label_names, spec.instruction) == ("classification", ("billing", "bug", "other"), PROMPT)
    assert spec.inferred == (), "everything is written out"
    assert file.read_text().count("#") > 8, "it is commented"
    with pytest.raises(UserError, match="is there already"):
        _call("init", PROMPT, "-o", str(file), "--yes")


def test_init_asks_what_the_prompt_does_not_tell(tmp_path: Path) -> None:
    file, rows = tmp_path / "t.md", tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a", "label": "late"}\n')
    told = f"late, broken, yes\nIt came late\n\nAgreement: none\nno-such-file\n{rows}\nfake\n"
    done = CliRunner().invoke(app, ["init", "Classify the tickets.", "-o", str(file)], input=told)
    assert done.exit_code == 0
    assert "Which labels" in done.output
    assert "there is no no-such-file" in done.output
    found = read_task_file(file)
    assert {label.name: label.description for label in found.spec.labels} == {
        "late": "It came late", "broken": "", "yes": "Agreement: none",
    }  # fmt: skip
    assert found.spec.test is not None
    assert found.spec.test.path == str(rows)
    assert found.settings["teacher"] == "fake"


def test_a_task_that_init_wrote_runs_under_the_name_of_its_file(tmp_path: Path) -> None:
    out = _call("init", PROMPT, "-o", str(tmp_path / "Tickets.md"), "--yes")
    assert read_task_file(tmp_path / "Tickets.md").spec.name == "tickets"
    assert "name       tickets" in out
    _call("init", PROMPT, "-o", str(tmp_path / "task.md"), "--yes")
    assert read_task_file(tmp_path / "task.md").spec.name == "classify-support-tickets-billing-bug-other"


def test_init_asks_for_labels_where_no_word_told_the_kind(tmp_path: Path) -> None:
    file = tmp_path / "t.md"
    done = CliRunner().invoke(app, ["init", "Bestimme die Sprache.", "-o", str(file)], input="de, fr\n\n\n\n\n")
    assert done.exit_code == 0
    assert "Which labels, separated by commas? (Enter: the answer is free text)" in done.output
    assert "generation" not in done.output
    assert read_task_file(file).spec.label_names == ("de", "fr")
    done = CliRunner().invoke(app, ["init", "Bestimme die Sprache.", "-o", str(file), "--force"], input="\n\n\n")
    assert "generation  (by assumption)" in done.output


def test_init_without_answers_says_how_to_name_labels(tmp_path: Path) -> None:
    from potstill.errors import TaskError

    with pytest.raises(TaskError, match="name them in the text"):
        _call("init", "Classify the tickets.", "-o", str(tmp_path / "t.md"), "--yes")
    assert not (tmp_path / "t.md").exists()


@pytest.mark.parametrize("given", ["examples/support/task.md", "---\nname: a\n---\nSay hello to people."])
def test_init_of_a_task_file_is_refused(given: str) -> None:
    with pytest.raises(UserError):
        read_prompt(given)


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=40).map(
    lambda text: " ".join(text.split())
)


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS.filter(bool), min_size=2, max_size=4, unique_by=lambda text: text.casefold()), WORDS)
def test_any_labels_and_descriptions_survive_the_draft(labels: list[str], described: str) -> None:
    from potstill.errors import TaskError

    prompt = "Classify the tickets."
    answers = Answers(labels=tuple(labels), descriptions={labels[0]: described})
    try:
        text = draft_task(prompt, read_prompt(prompt), answers)
    except TaskError:
        return  # names that no task may have (only punctuation, too long); refused, never altered
    spec = read_task_file(text).spec
    assert spec.label_names == tuple(labels)
    assert spec.labels[0].description == described


def _checks(*arguments: str, code: int = 0) -> dict[str, Any]:
    lines = [line for line in _call("doctor", *arguments, "--json", code=code).splitlines() if line[:1] == "{"]
    return {check["name"]: check for check in map(json.loads, lines)}


@pytest.mark.real
def test_doctor_finds_a_sound_setting_sound(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    found = _checks(str(repo_root / "examples" / "support" / "task.md"), "--teacher", "fake", "-o", str(tmp_path))
    for name in ("potstill", "task", "test", "disk", "gpu", "encoder", "teacher", "log-probs", "schema", "price"):
        assert found[name]["status"] == "ok", found[name]
    assert not list(tmp_path.iterdir()), "it leaves nothing"


@pytest.mark.real
def test_doctor_names_each_fault_with_its_mend(tmp_path: Path) -> None:
    task = tmp_path / "task.md"
    task.write_text(f"---\ntest: {tmp_path / 'none.jsonl'}\n---\n{PROMPT}\n")
    blocked = tmp_path / "file"
    blocked.write_text("")
    unreachable = "openai:http://127.0.0.1:9/v1#m"
    found = _checks(str(task), "-o", str(blocked / "run"), "--teacher", unreachable, code=2)
    assert found["task"]["status"] == "fail"
    assert "none.jsonl" in found["task"]["found"]
    assert found["disk"] == found["disk"] | {"status": "fail", "mend": "choose another folder with --out"}
    assert found["teacher"]["status"] == "fail"
    assert "--teacher" in found["teacher"]["mend"]
    assert "schema" not in found, "a teacher that does not answer is asked nothing more"


def test_doctor_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from potstill.doctor_teacher import teacher_checks
    from potstill.settings import Settings

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (check,) = teacher_checks(Settings(teacher="vllm:x/y"), None, Path("run"))
    assert (check.status, check.mend) == ("fail", install_command("vllm"))


@pytest.mark.real
def test_a_run_goes_on_from_a_preview(tmp_path: Path, repo_root: Path) -> None:
    import potstill
    from potstill.events import Event
    from potstill.preview import preview_rows

    task, out = str(repo_root / "examples" / "support" / "task.md"), tmp_path / "run"
    found = preview_rows(task, rows=6, out=out, teacher="fake")
    assert len(found.rows) == 6
    assert found.found > 20
    assert {row.origin for row in found.rows} == {"generated"}
    assert found.requests >= 6
    from potstill.asking.ledger import Ledger

    with Ledger(out / "ledger.sqlite", read_only=True) as ledger:
        asked = {entry.key for entry in ledger.entries("datagen")}
    seen: list[Event] = []

    class Enough(Exception):
        pass

    def listen(event: Event) -> None:
        seen.append(event)
        if event.stage == "merge" and event.kind == "start":
            raise Enough

    with pytest.raises(Enough):
        potstill.run(task, out=out, listener=listen, teacher="fake", n=40)
    assert ("retrieval", "reused") in {(event.stage, event.kind) for event in seen}
    with Ledger(out / "ledger.sqlite", read_only=True) as ledger:
        entries = list(ledger.entries("datagen"))
    assert len({entry.key for entry in entries}) == len(entries)
    rows = {row["id"] for row in potstill.rows.read_rows(out / "datagen" / "rows.parquet")}  # type: ignore[attr-defined]
    assert {row.id for row in found.rows} <= rows, "the run holds the very rows that were shown"
    assert asked <= {entry.key for entry in entries}


def test_preview_is_bounded_by_what_is_asked_for() -> None:
    _call("preview", PROMPT, "-n", "0", code=2)


def test_a_preview_without_rows_shows_what_the_teacher_wrote_and_fails(teacher_server: Any, tmp_path: Path) -> None:
    prose = "I am not sure that I understand what you would like me to write here."
    with teacher_server.running_server(reply=lambda body: prose) as server:
        told = _call(
            "preview", PROMPT, "-n", "2", "-o", str(tmp_path / "run"), "--sources", "generated",
            "--teacher", f"openai:{server.url}#m", code=1,
        )  # fmt: skip
    assert "0 rows from" in told
    assert "refused first" in told
    assert prose[:30] in told


def test_a_preview_shows_what_is_learnt_from_beside_written_rows(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"it broke on day {i}", "label": "bad"} for i in range(1234)]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("own.md").write_text("# T\n\nIs a review good or bad?\n\n## Labels\n- good\n- bad\n")
    taken = ("--teacher", "fake", "--sources", "labelled")
    with pytest.raises(UserError, match="learns from your own rows alone, and the task has none"):
        _call("preview", "own.md", *taken)
    text = "---\nlabelled: own.jsonl\n---\n" + Path("own.md").read_text()
    Path("own.md").write_text(text)
    shown = _call("preview", "own.md", *taken)
    assert "day 2" in shown
    assert "day 3" not in shown
    assert "yours" in shown
    assert "1,234 labelled rows are yours; 3 of them are shown" in shown
    told = json.loads(_call("preview", "own.md", *taken, "--json").splitlines()[-1])
    assert (told["own"], [row["output"] for row in told["labelled"]]) == (1234, ["bad"] * 3)


@pytest.mark.real
def test_the_line_that_preview_prints_asks_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option that changes a request is given; the run ends where the rows are merged."""
    import shlex

    from potstill.asking.ledger import Ledger
    from potstill.errors import PotstillError
    from potstill.stages.job import Job

    monkeypatch.chdir(tmp_path)
    task = tmp_path / "my task.md"
    task.write_text(f"{PROMPT}\n")
    given = ["--teacher", "fake", "--seed", "7", "--sources", "generated", "--set", "generation.texts_per_request=2",
             "--set", 'generation.attributes="builtin"']  # fmt: skip
    shown = _call("preview", "my task.md", "-n", "4", "-o", "p 1", *given)
    (line,) = [line for line in shown.splitlines() if "potstill run" in line]
    words = shlex.split(line.partition("potstill ")[2])
    assert words == ["run", "my task.md", "--out", "p 1", *given]

    def asked() -> set[str]:
        with Ledger(tmp_path / "p 1" / "ledger.sqlite", read_only=True) as ledger:
            return {entry.key for entry in ledger.entries()}

    before = asked()
    assert len(before) >= 2
    seen: list[Any] = []

    def stop(job: Job, *arguments: Any) -> None:
        seen.append(job)
        raise PotstillError("enough")

    monkeypatch.setattr(Job, "merge", stop)
    with pytest.raises(PotstillError, match="enough"):
        _call(*words, "-n", "20")
    (job,) = seen
    assert job.asker.counts.cached >= len(before), "the run found all that the preview had asked"
    assert job.settings.seed == 7
    assert job.settings.sources == "generated"
    assert before < asked()
