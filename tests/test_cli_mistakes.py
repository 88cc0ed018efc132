"""Plausible mistakes on the command line: what they cost, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from potstill.cli.app import app
from potstill.errors import DataError, OptionError, RunError, UserError
from potstill.run_state import read_state
from potstill.settings import resolve

PROMPT = "Classify support tickets as billing, bug or other."


def call(*arguments: str, input: str = "", **environment: str) -> str:
    """What a command that ends well printed; errors are raised."""
    done = CliRunner().invoke(app, list(arguments), input=input, env=environment)
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def variable_of(command: str, flag: str) -> str:
    """The variable that stands for a flag."""
    return f"potstill_{command}_{flag}".upper()


@pytest.mark.parametrize("columns", [{"id": ["a"], "text": ["mine"]}, {"text": ["mine"]}, {"id": [1]}])
def test_a_table_that_is_no_catalogue_is_not_written_over(
    tmp_path: Path, repo_root: Path, columns: dict[str, Any]
) -> None:
    own = tmp_path / "own.parquet"
    pq.write_table(pa.table(columns), own)
    before = own.read_bytes()
    with pytest.raises(DataError, match=r"own.parquet is a Parquet file but no catalogue \(its columns: .*--out"):
        call("catalogue", "build", str(repo_root / "retrieval" / "shipped"), "-o", str(own))
    assert own.read_bytes() == before


def test_a_catalogue_without_a_card_says_so(tmp_path: Path) -> None:
    (tmp_path / "cards.jsonl").write_text('{"name": "no id"}\n')
    with pytest.raises(DataError, match=r"cards.jsonl holds no dataset card \(.*id.*\); build one"):
        call("catalogue", "search", PROMPT, str(tmp_path / "cards.jsonl"))


@pytest.mark.parametrize("place", ["seed", "distil", "merge", "generation", "soft"])
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_library_takes_is_refused_at_once(place: str, seed: int) -> None:
    with pytest.raises(OptionError, match=r"seed: a whole number"):
        resolve({}, {"seed": seed} if place == "seed" else {place: {"seed": seed}})
    largest = 2**32 - 1
    assert resolve({}, {"seed": largest, "distil": {"seed": largest}}).distil.seed == largest


@pytest.mark.parametrize("option", ["merge.heldout", "distil.weight_decay", "self_training.weight"])
def test_not_a_number_is_no_number(option: str) -> None:
    stage, name = option.split(".")
    with pytest.raises(OptionError, match=rf"{option}: a number is needed \(got nan\)"):
        resolve({}, {stage: {name: float("nan")}})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--teacher", "fake", "--set", "teacher.temperature=1"], "teacher is 'fake' and has no options"),
        (["-n", "5", "--set", "n.x=1"], "n is 5 and has no options"),
        (["--set", "distil.epochs=3", "--set", "distil.epochs.x=1"], "distil.epochs is 3 and has no options"),
    ],
)
def test_an_option_of_what_has_none_is_refused(flags: list[str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        call("plan", PROMPT, *flags)


def test_a_home_folder_that_no_shell_put_in_is_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    call("init", PROMPT, "--yes", "--out=~/task.md")
    call("preview", "home/task.md", "-n", "2", "--teacher", "fake", "--sources", "generated",
         **{variable_of("preview", "out"): "~/run"})  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["run", "task.md"]
    assert not (tmp_path / "~").exists()
    assert "datagen" in call("status", "~/run")


def test_a_file_is_no_run_and_a_folder_no_file(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("x")
    for command in (["report", str(file)], ["evaluate", str(file), "--on", str(file)]):
        with pytest.raises(UserError, match="it is a file"):
            call(*command)
    with pytest.raises(UserError, match=r"is a folder; name a file in it with -o"):
        call("init", PROMPT, "--yes", "-o", str(tmp_path), "--force")
    with pytest.raises(UserError, match=r"is a folder; name a file in it for the requests"):
        call("batch", "write", PROMPT, str(tmp_path), "--teacher", "openai:#gpt-5-mini", OPENAI_API_KEY="k" * 20)


def test_a_batch_that_is_written_is_no_failure(tmp_path: Path) -> None:
    run, file = tmp_path / "run", tmp_path / "requests.jsonl"
    said = call(
        "batch", "write", PROMPT, str(file), "--teacher", "openai:#gpt-5-mini", "-n", "4", "-o", str(run),
        "--sources", "generated", OPENAI_API_KEY="k" * 20,
    )  # fmt: skip
    assert "FAILED" not in said
    assert len(file.read_text().splitlines()) > 3
    state = read_state(run)
    (open_,) = [stage for stage in state.stages if stage.name == "datagen"]
    assert (open_.state, open_.told) == ("stopped", "its requests are in a batch file")
    assert state.next == f"potstill batch submit {run} {file}"


def test_labels_are_written_as_json_lines_alone(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("I was charged twice.\nIt crashes.\n")
    with pytest.raises(OptionError, match=r"the answers are JSON lines: .*l.csv must end in .jsonl"):
        call("label", PROMPT, str(tmp_path / "texts.txt"), "-o", str(tmp_path / "l.csv"))


def test_an_answer_is_no_input_of_its_own(sample_run: Any, tmp_path: Path) -> None:
    run = sample_run.write_run(tmp_path / "run")
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"body": f"text {i}", "queue": "billing"}) + "\n" for i in range(4)))
    columns = ["--input", "body", "--input", "queue", "--output", "queue"]
    with pytest.raises(DataError, match="the column 'queue' is named as an input and as the output"):
        call("evaluate", str(run), "--on", str(data), *columns)


def test_line_n_of_a_file_is_answered_by_line_n(sample_run: Any, tmp_path: Path) -> None:
    sample_run.write_student(tmp_path / "student")
    lines, table, other = tmp_path / "a.TXT", tmp_path / "b.parquet", tmp_path / "c.txt"
    lines.write_text("It crashes.\n\nI was charged twice.\n")
    pq.write_table(pa.table({"text": ["It crashes.", None, "I was charged twice."]}), table)
    for file in (lines, table):
        said = call("predict", str(tmp_path / "student"), "--file", str(file)).split("\n")
        assert [bool(line) for line in said] == [True, False, True, False]
        told = call("predict", str(tmp_path / "student"), "--file", str(file), "--json").splitlines()
        assert [json.loads(line)["output"] is None for line in told] == [False, True, False]
    other.write_bytes(b"a\xff\xfeb\n")
    with pytest.raises(DataError, match=r"1 of 1 texts in .*c.txt are not UTF-8"):
        call("predict", str(tmp_path / "student"), "--file", str(other))
    with pytest.raises(DataError, match="is a folder; give a file"):
        call("predict", str(tmp_path / "student"), "--file", str(tmp_path))


def test_what_is_said_of_the_hub_needs_the_hub(tmp_path: Path, repo_root: Path) -> None:
    shipped, out = str(repo_root / "retrieval" / "shipped"), str(tmp_path / "c.parquet")
    for flags in (["--filter", "language:fr"], ["--search", "spam"], ["--limit", "1"], ["--full"]):
        with pytest.raises(OptionError, match="name `hub` among the sources"):
            call("catalogue", "build", shipped, "-o", out, *flags)


def test_a_host_that_nobody_knows_is_mended_by_another_host() -> None:
    from potstill.pages.web import App, Server

    with pytest.raises(RunError, match="choose another with --host"):
        Server(App(get={}, post={}), "no.such.host.invalid", 0)
    with Server(App(get={}, post={})) as taken, pytest.raises(RunError, match="choose another with --port"):
        Server(App(get={}, post={}), port=taken.server_address[1])


@pytest.mark.parametrize("option", ["distil.epochs", "merge.heldout", "distil.max_steps"])
def test_yes_is_no_number(option: str) -> None:
    stage, name = option.split(".")
    with pytest.raises(OptionError, match=rf"{option}: True is yes or no"):
        resolve({}, {stage: {name: True}})
    assert resolve({}, {"distil": {"freeze_embeddings": True}}).distil.freeze_embeddings is True
