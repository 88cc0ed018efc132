"""What is said to whoever names a run or a student that is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potstill.errors import UserError
from potstill.pages.browse import RowBrowser
from potstill.pages.serving import student_folder
from potstill.pipeline import load
from potstill.report.facts import read_run
from potstill.run_state import read_state
from potstill.verify import verify_run


@pytest.fixture(autouse=True)
def tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with one run that has got no further than its task."""
    monkeypatch.chdir(tmp_path)
    Path("runs/tickets/task").mkdir(parents=True)
    Path("runs/tickets/task/task.json").write_text("{}")


@pytest.mark.parametrize("read", [read_state, verify_run, read_run, load, RowBrowser])
def test_a_mistyped_run_is_answered_with_the_one_that_was_meant(read: Callable[[Path], Any]) -> None:
    with pytest.raises(UserError, match="no run at tickests: there is no such folder; did you mean 'runs/tickets'"):
        read(Path("tickests"))
    with pytest.raises(UserError, match=r"no run at elsewhere: there is no such folder; .*potstill run TASK"):
        read(Path("elsewhere"))


def test_a_file_or_another_folder_is_named_as_what_it_is() -> None:
    Path("task.md").write_text("Classify.")
    with pytest.raises(UserError, match=r"no run at task\.md: it is a file; .*potstill run TASK"):
        read_state(Path("task.md"))
    with pytest.raises(UserError, match=r"no run at runs: it holds no task/task\.json; .*potstill run TASK"):
        read_state(Path("runs"))


def test_a_student_that_is_not_there() -> None:
    with pytest.raises(UserError, match="no student at tickests: there is no such folder; did you mean 'runs/tickets'"):
        student_folder("tickests")
    with pytest.raises(UserError, match=r"no student at runs/tickets: the run has not trained it yet; .*status runs"):
        student_folder("runs/tickets")
    with pytest.raises(UserError, match=r"no student at runs: it holds no config\.json; give a finished run"):
        student_folder("runs")
