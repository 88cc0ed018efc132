"""The path of somebody new, on a terminal, by the words that the program itself says: init, doctor, plan, run, push."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

SMALL = ["--set", "distil.epochs=1", "--set", "distil.min_steps=4", "--set", "evaluate.latency_rows=2",
         "--set", "retrieval.rows_per_dataset=20", "-n", "24"]  # fmt: skip


def on_a_terminal(
    arguments: list[str], cwd: Path, environment: dict[str, str], answers: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run potstill with a terminal of 100 columns; type an answer when its question is shown."""
    master, slave = pty.openpty()
    environment = environment | {"COLUMNS": "100", "TERM": "xterm"}
    command = [sys.executable, "-m", "potstill.cli", *arguments]
    child = subprocess.Popen(command, cwd=cwd, env=environment, stdin=slave, stdout=slave, stderr=slave, close_fds=True)
    os.close(slave)
    shown, waiting = "", dict(answers or {})
    until = time.monotonic() + 280
    while time.monotonic() < until:
        if select.select([master], [], [], 0.2)[0]:
            try:
                shown += os.read(master, 65536).decode("utf-8", "replace")
            except OSError:  # the terminal is closed when its last process ends
                break
        elif child.poll() is not None:
            break
        for question in [q for q in waiting if q in shown]:
            os.write(master, waiting.pop(question).encode() + b"\n")
    os.close(master)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert waiting == {}, f"never asked: {list(waiting)}\n{plain}"
    return child.wait(timeout=30), plain


def _from_a_sentence_to_a_published_model(hub: Any, folder: Path, *settings: str) -> str:
    """All of the path, each step by what the step before it said; what was shown of the run."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    home = clean | hub.environment(folder / "home", token="")
    offline = home | {"HF_HUB_OFFLINE": "1"}
    rows = folder / "rows.jsonl"
    texts = {"billing": "Invoice %d is wrong", "bug": "Page %d stays blank", "other": "Are you open on day %d?"}
    lines = [f'{{"text": "{text % i}", "label": "{label}"}}' for label, text in texts.items() for i in range(20)]
    rows.write_text("\n".join(lines) + "\n")
    code, shown = on_a_terminal(
        ["init", "Classify support tickets as billing, bug or other."], folder, offline,
        {"belongs to 'billing'": "invoices and charges", "belongs to 'bug'": "it does not work",
         "belongs to 'other'": "", "labelled rows to measure on": "rows.jsonl", "Which teacher": "fake"},
    )  # fmt: skip
    assert code == 0, shown
    said = re.findall(r"^\s+potstill (\w+ \S+)\s*$", shown, re.MULTILINE)
    assert said == ["doctor task.md", "plan task.md", "run task.md"], "what comes next is said, in order"
    for line in said:
        command, task = line.split()
        code, ran = on_a_terminal(
            [command, task, *(() if command == "doctor" else settings)],
            folder,
            home if command == "doctor" else offline,
        )
        assert code == 0, ran
        shown += ran
    assert "60 rows in" in shown
    assert "user me" in shown, "the token was tried"
    assert "rows     about" in shown, "the plan"
    assert "dropped" in ran, "the live view was drawn"
    assert re.search(r"run: .* so far, about .* left", ran), "with the time left of the whole run"
    assert Path(folder, re.findall(r"report\s+(\S+report\.html)", ran)[0]).exists()
    (line,) = re.findall(r"publish\s+(potstill push \S+) USER/NAME", ran)
    code, shown = on_a_terminal([*line.split()[1:], "me/tickets"], folder, home)
    assert code == 0, shown
    assert "model is at" in shown
    code, shown = on_a_terminal(["load", "me/tickets"], folder, home)
    assert code == 0, shown
    assert (folder / "tickets" / "model" / "model.safetensors").exists()
    return ran


@pytest.mark.real
@pytest.mark.timeout(900)
def test_from_a_sentence_to_a_published_model(hub: Any, tmp_path: Path) -> None:
    """The whole path in its smallest form: a word-list teacher, two dozen rows, no search for datasets."""
    small = ["--set", "distil.epochs=1", "--set", "distil.min_steps=2", "--set", "evaluate.latency_rows=1",
             "--set", "distil.max_length=32", "--sources", "generated", "-n", "24"]  # fmt: skip
    _from_a_sentence_to_a_published_model(hub, tmp_path, *small)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_from_a_sentence_to_a_published_model_with_found_rows(hub: Any, tmp_path: Path) -> None:
    ran = _from_a_sentence_to_a_published_model(hub, tmp_path, *SMALL)
    assert re.search(r"retrieval.*rows from [1-9]", ran)


def test_the_source_distribution_holds_everything(tmp_path: Path, repo_root: Path) -> None:
    import shutil

    pytest.importorskip("build", reason="the package `build` makes it; pip install build")
    folders = {"potstill": "", "retrieval": "", "datagen": "", "train": "", "prompts": ""}
    source = tmp_path / "source"
    for folder in folders:
        shutil.copytree(repo_root / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repo_root / name, source / name)
    build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--skip-dependency-check", "-o", str(tmp_path)]
    done = subprocess.run([*build, str(source)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {
        str(path.relative_to(source)) for folder in folders for path in (source / folder).rglob("*") if path.is_file()
    }
    assert len(wanted) > 150
    assert wanted - held == set()


def test_extras_are_declared_and_missing_ones_name_their_install(
    repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tomllib

    from potstill import extras as installs
    from potstill.errors import MissingExtra

    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    assert {"vllm", "vllm-cpu", "ray", "serve", "docs", "lora", "embedded"} <= extras
    named = {
        name
        for folder in ("potstill", "retrieval", "datagen", "train")
        for path in (repo_root / folder).rglob("*.py")
        for name in re.findall(
            r"(?:potstill\[|install_command\(['\"])([\w,-]+)['\"\]]", path.read_text(encoding="utf-8")
        )
    }
    assert named
    assert {part for name in named for part in name.split(",")} <= extras
    assert installs.install_command("ray") == f"pip install -e '{repo_root}[ray]'"
    assert installs.install_command("ray") in str(MissingExtra("ray", "ray", "the Ray executor"))
    monkeypatch.setattr(installs, "__file__", "/usr/lib/site-packages/potstill/extras.py")
    assert installs.install_command("ray") == "pip install 'potstill[ray]'", "of a wheel"
