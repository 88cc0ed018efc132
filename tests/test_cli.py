"""The command line as a user meets it: a process, its output, its exit code."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import potstill
from potstill.cli.app import app

POTSTILL = [sys.executable, "-m", "potstill.cli"]


def _call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*POTSTILL, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def _every_help(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield before
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _every_help(command, (*before, name))
        else:
            yield (*before, name)


@pytest.mark.parametrize("words", _every_help(typer.main.get_command(app)), ids=lambda words: " ".join(words) or "root")
def test_help_costs_less_than_three_tenths_of_a_second(words: tuple[str, ...], tmp_path: Path) -> None:
    """Processor time, which a busy machine does not stretch; the first of seven that is quick enough."""
    times: list[float] = []
    while len(times) < 7 and min(times, default=1.0) >= 0.3:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = _call(*words, "--help", cwd=tmp_path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0
        assert f"Usage: python -m potstill.cli {' '.join(words)}".strip() in done.stdout
        assert "Example: potstill" in done.stdout
    assert min(times) < 0.3, times


def test_the_list_of_commands_begins_with_a_first_time_and_fits_80_columns(tmp_path: Path) -> None:
    done = subprocess.run([*POTSTILL, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True,
                          env={**os.environ, "COLUMNS": "80"})  # fmt: skip
    listed = [line.split() for line in done.stdout.partition("Commands:\n")[2].split("\n\n")[0].splitlines()]
    assert [words[0] for words in listed[:5]] == ["init", "doctor", "plan", "preview", "run"]
    assert {words[0] for words in listed} == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert "..." not in done.stdout.partition("Commands:")[2]


def test_help_of_a_command_loads_neither_pydantic_nor_torch(tmp_path: Path) -> None:
    """What made the difference: a flag without a default was read by a validator."""
    code = (
        "import sys\nfrom potstill.cli.app import app\ntry:\n    app(['run', '--help'])\nexcept SystemExit:\n    pass\n"
    )
    code += "print('loaded', *sorted({'pydantic', 'torch', 'transformers', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded"


def test_version_names_both_versions_and_loads_nothing(tmp_path: Path) -> None:
    done = _call("--version", cwd=tmp_path)
    assert done.stdout == f"potstill {potstill.__version__}, Python {platform.python_version()}\n"
    assert done.returncode == 0
    code = "import sys\nfrom potstill.cli.app import app\ntry:\n    app(['--version'])\nexcept SystemExit:\n    pass\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_module_is_the_command(tmp_path: Path) -> None:
    """For a machine whose scripts are not on the path."""
    command = [sys.executable, "-m", "potstill", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "python -m potstill run" in done.stderr


@pytest.mark.parametrize(
    ("words", "wanted", "unwanted"),
    [
        (("potstill", "pre"), {"predict", "preview"}, {"run"}),
        (("potstill", "run", "--stu"), {"--student"}, {"--teacher"}),
        (("potstill", "batch", ""), {"read", "write"}, {"run"}),
    ],
    ids=["command", "option", "subcommand"],
)
def test_bash_completes(words: tuple[str, ...], wanted: set[str], unwanted: set[str], tmp_path: Path) -> None:
    """The script that `--show-completion` prints, in a real bash, as pressing Tab calls it."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    line = f"COMP_WORDS=({' '.join(shlex.quote(word) for word in words)}); COMP_CWORD={len(words) - 1}"
    script = f"""
        {bash} -c 'potstill --show-completion; true' > script.sh && source ./script.sh
        name=$(complete -p potstill | sed -E 's/.* -F ([^ ]+) .*/\\1/')
        {line}; $name potstill; echo "${{COMPREPLY[@]}}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "-c", script], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PATH": path}, timeout=60
    )
    found = set(done.stdout.split())
    assert wanted <= found, done.stderr
    assert not unwanted & found


def test_an_empty_prompt_says_what_is_missing(tmp_path: Path) -> None:
    done = _call("run", "   ", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_missing_task_file_is_named(tmp_path: Path) -> None:
    done = _call("run", "no-such-task.md", cwd=tmp_path)
    assert done.returncode == 2
    assert "no-such-task.md" in done.stderr


def test_an_unknown_option_of_a_stage_has_the_nearest_name(tmp_path: Path) -> None:
    done = _call("run", "Classify tickets as bug or other.", "--set", "distil.epochz=1", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'epochs'?" in done.stderr


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = _call("status", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert "no run at" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [(["load", "me"], "the Hub's name: 1 fault\n  - 'me' is no name on the Hub"),
     (["plan", "Classify tickets as bug or other.", "--probe", "-1"], "Invalid value for '--probe'"),
     (["label", "Classify tickets as bug or other.", "none.txt"], "error: no file at none.txt; check the path")],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_a_wrong_value_is_named_with_what_is_to_be_given(words: list[str], said: str, tmp_path: Path) -> None:
    done = _call(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr


def test_set_reaches_options_inside_options() -> None:
    from potstill.cli.settings import merge_settings

    assert merge_settings({}, ["distil.search.trials=4", "distil.epochs=2"]) == {
        "distil": {"search": {"trials": 4}, "epochs": 2}
    }


@pytest.mark.parametrize("place", ["nowhere", "runs/nowhere"])
def test_compress_of_a_folder_that_is_not_there_says_so(place: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    done = _call("compress", place, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert place in done.stderr
    assert "huggingface.co" not in done.stderr
    assert "give a" in done.stderr


def test_scores_come_with_their_interval_and_few_rows_with_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    from potstill.cli.tables import print_scores

    def shown(rows: int) -> str:
        systems = [
            {"name": "student", "accuracy": 0.6, "macro_f1": 0.6667, "ci": {"macro_f1": [0.17, 1.0]}, "size_mib": 87.0},
            {"name": "teacher (calibrated)", "accuracy": 0.4, "macro_f1": 0.5, "ci": {"macro_f1": [0.1, 0.9]}},
            {"name": "majority", "accuracy": 0.4, "macro_f1": 0.19},
        ]
        print_scores({"metric": "macro_f1", "test_set": {"rows": rows, "kind": "held-out"}, "systems": systems})
        return capsys.readouterr().out

    few, many = shown(5), shown(50)
    assert "0.667     0.17–1.00" in few
    assert "5 test rows are too few to tell systems apart" in few
    assert "too few" not in many
    assert max(map(len, many.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["--n", "20"], "-n"), (["--rows", "20"], "-n"), (["--epochs", "3"], "--set distil.epochs=VALUE"),
     (["--learning-rate", "1"], "--set distil.learning_rate=VALUE"), (["--teachr", "fake"], "--teacher")],
)  # fmt: skip
def test_an_option_by_another_name_is_told_as_it_is_written_here(words: list[str], meant: str) -> None:
    from typer.testing import CliRunner

    from potstill.cli.app import app

    done = CliRunner().invoke(app, ["run", "Classify mails as good or bad.", *words])
    assert done.exit_code == 2
    assert f"No such option: {words[0]} (Possible options: {meant})" in done.output
