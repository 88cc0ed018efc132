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


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_from_a_sentence_to_a_published_model(hub: Any, tmp_path: Path) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    home = clean | hub.environment(tmp_path / "home", token="")
    offline = home | {"HF_HUB_OFFLINE": "1"}
    rows = tmp_path / "rows.jsonl"
    texts = {"billing": "Invoice %d is wrong", "bug": "Page %d stays blank", "other": "Are you open on day %d?"}
    lines = [f'{{"text": "{text % i}", "label": "{label}"}}' for label, text in texts.items() for i in range(20)]
    rows.write_text("\n".join(lines) + "\n")
    code, shown = on_a_terminal(
        ["init", "Classify support tickets as billing, bug or other."], tmp_path, offline,
        {"belongs to 'billing'": "invoices and charges", "belongs to 'bug'": "it does not work",
         "belongs to 'other'": "", "labelled rows to measure on": "rows.jsonl", "Which teacher": "fake"},
    )  # fmt: skip
    assert code == 0, shown
    assert "potstill doctor task.md" in shown
    code, shown = on_a_terminal(["doctor", "task.md"], tmp_path, home)
    assert code == 0, shown
    assert "60 rows in" in shown
    assert "user me" in shown, "the token was tried"
    code, shown = on_a_terminal(["plan", "task.md", *SMALL], tmp_path, offline)
    assert code == 0, shown
    assert "rows     about" in shown
    code, shown = on_a_terminal(["run", "task.md", *SMALL], tmp_path, offline)
    assert code == 0, shown
    assert "dropped" in shown, "the live view was drawn"
    (line,) = re.findall(r"publish\s+(potstill push \S+) USER/NAME", shown)
    code, shown = on_a_terminal([*line.split()[1:], "me/tickets"], tmp_path, home)
    assert code == 0, shown
    assert "model is at" in shown
    code, shown = on_a_terminal(["load", "me/tickets"], tmp_path, home)
    assert code == 0, shown
    assert (tmp_path / "tickets" / "model" / "model.safetensors").exists()


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


def test_extras_are_declared_and_missing_ones_name_their_install(repo_root: Path) -> None:
    import tomllib

    from potstill.errors import MissingExtra

    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    assert {"vllm", "vllm-cpu", "ray", "serve", "docs", "lora", "embedded"} <= extras
    named = {
        name
        for folder in ("potstill", "retrieval", "datagen", "train")
        for path in (repo_root / folder).rglob("*.py")
        for name in re.findall(r"potstill\[([\w,-]+)\]", path.read_text(encoding="utf-8"))
    }
    assert named
    assert {part for name in named for part in name.split(",")} <= extras
    assert "pip install 'potstill[ray]'" in str(MissingExtra("ray", "ray", "the Ray executor"))
