"""The command line as a user meets it: a process, its output, its exit code."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

POTSTILL = [sys.executable, "-m", "potstill.cli"]


def _call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*POTSTILL, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_help_costs_less_than_three_tenths_of_a_second(tmp_path: Path) -> None:
    """Processor time, which a busy machine does not stretch; the quickest of five."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = _call("--help", cwd=tmp_path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.returncode == 0
    assert "run" in done.stdout
    assert min(times) < 0.3, times


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


def test_set_reaches_options_inside_options() -> None:
    from potstill.cli_settings import merge_settings

    assert merge_settings({}, ["distil.search.trials=4", "distil.epochs=2"]) == {
        "distil": {"search": {"trials": 4}, "epochs": 2}
    }
