"""Flags given as environment variables."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from potstill.cli.app import app, main
from potstill.flag_variables import variables_read
from potstill.stages.parts import command_given

ROOT = Path(__file__).resolve().parent.parent


def options() -> dict[str, Any]:
    """Every option of every command, by its command's words and its flag."""

    def below(words: str, group: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                found |= below(f"{words} {name}", command)
            else:
                found |= {f"{words} {name} {item.opts[0]}": item for item in command.params
                          if item.param_type_name == "option"}  # fmt: skip
        return found

    return below("potstill", typer.main.get_command(app))


def given(*words: str) -> dict[str, Any]:
    """What a command is called with."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("potstill", list(words))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    return dict(command.make_context(name, rest, parent=context).params)


def test_every_flag_has_a_variable_of_its_own_that_means_nothing_else() -> None:
    found = options()
    names = {place: str(item.envvar) for place, item in found.items()}
    assert len(names) > 60
    assert names["potstill run -n"] == "POTSTILL_RUN_N"
    assert names["potstill run --at-budget"] == "POTSTILL_RUN_AT_BUDGET"
    assert names["potstill run --set"] == "POTSTILL_RUN_SET"
    assert names["potstill run --out"] == "POTSTILL_RUN_OUT"
    assert names["potstill catalogue search --json"] == "POTSTILL_CATALOGUE_SEARCH_JSON"
    assert all(re.fullmatch(r"POTSTILL(_[A-Z0-9]+){2,}", name) for name in names.values())
    assert len(set(names.values())) == len(names)
    read = set()
    for folder in ("potstill", "retrieval", "datagen", "train", "benchmarks", "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            if file != Path(__file__) and file.name != "flag_variables.py":
                read |= set(re.findall(r"\bPOTSTILL_[A-Z_]+\b", file.read_text(encoding="utf-8")))
    assert "POTSTILL_CACHE" in read
    assert not read & set(names.values())


def test_a_variable_stands_for_its_flag_and_the_flag_goes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_RUN_N", "50")
    monkeypatch.setenv("POTSTILL_RUN_TEACHER", "fake")
    monkeypatch.setenv("POTSTILL_RUN_SET", "distil.epochs=3 merge.heldout=0.1")
    monkeypatch.setenv("POTSTILL_RUN_JSON", "1")
    monkeypatch.setenv("POTSTILL_RUN_STUDENT", "")
    found = given("run", "Sort tickets.")
    assert (found["n"], found["teacher"], found["as_json"], found["student"]) == (50, "fake", True, None)
    assert found["options"] == ["distil.epochs=3", "merge.heldout=0.1"]
    assert given("run", "Sort tickets.", "-n", "7")["n"] == 7
    assert given("plan", "Sort tickets.")["n"] is None, "the variables of one command are not another's"


def test_a_variable_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_RUN_N", "many")
    with pytest.raises(Exception, match="valid integer") as caught:
        given("run", "Sort tickets.")
    assert "POTSTILL_RUN_N" in caught.value.format_message()  # type: ignore[attr-defined]


def test_help_shows_no_value_of_a_variable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("POTSTILL_RUN_TEACHER", "openai:https://me:sk-secret-0123456789@host/v1#m")
    with pytest.raises(SystemExit):
        app(["run", "--help"])
    said = capsys.readouterr().out
    assert "--teacher" in said
    assert "secret" not in said


def test_the_command_that_goes_on_names_the_variables_that_were_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/potstill", "run", "a b", "-n", "20"])
    monkeypatch.setenv("POTSTILL_RUN_TEACHER", "openai:https://me:sk-secret-0123456789@host/v1#m")
    monkeypatch.setenv("POTSTILL_RUN_SET", "distil.epochs=3 merge.heldout=0.1")
    monkeypatch.setenv("POTSTILL_RUN_NOTHING", "x")
    monkeypatch.setenv("POTSTILL_PLAN_N", "9")
    said = command_given()
    assert said.startswith("POTSTILL_RUN_SET='distil.epochs=3 merge.heldout=0.1' POTSTILL_RUN_TEACHER=")
    assert said.endswith("potstill run 'a b' -n 20")
    assert "secret" not in said
    assert "NOTHING" not in said
    assert "PLAN" not in said


def test_words_of_a_task_are_no_words_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """`potstill run at` took `at` for the beginning of POTSTILL_RUN_AT_BUDGET, and left the others out."""
    monkeypatch.setenv("POTSTILL_RUN_N", "5")
    monkeypatch.setenv("POTSTILL_RUN_AT_BUDGET", "train")
    monkeypatch.setenv("POTSTILL_CATALOGUE_SEARCH_JSON", "1")
    both = ["POTSTILL_RUN_AT_BUDGET=train", "POTSTILL_RUN_N=5"]
    assert variables_read(["run", "at"]) == variables_read(["run", "-n", "3"]) == variables_read(["run"]) == both
    assert variables_read(["catalogue", "search", "x"]) == ["POTSTILL_CATALOGUE_SEARCH_JSON=1"]
    assert variables_read([]) == variables_read(["--help"]) == []


def test_a_refused_setting_and_a_stopped_run_name_the_variables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag that nobody wrote was refused, and the line to go on with had lost it."""
    monkeypatch.setattr(sys, "argv", ["potstill", "plan", "Sort tickets as bug or praise.", "--sources", "bth"])
    monkeypatch.setenv("POTSTILL_PLAN_TEACHER", "openai:https://me:sk-secret-0123456789@host/v1#m")
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert "sources: 'bth' is none of" in said
    assert "from the environment: POTSTILL_PLAN_TEACHER='openai:https://***@host/v1#m'" in said
    monkeypatch.setattr("potstill.cli.app.app", lambda: sys.exit(130))
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert "To go on from here: POTSTILL_PLAN_TEACHER='openai:https://***@host/v1#m' potstill plan" in said
