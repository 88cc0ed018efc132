"""README, docs and examples: every command parses, every snippet compiles, the pages build."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from potstill.cli.app import app
from potstill.task.file import read_task_file

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def blocks() -> Iterator[tuple[str, str, str]]:
    """(page and number, language, text) of every fenced block."""
    for page in PAGES:
        for number, (language, text) in enumerate(_BLOCK.findall(page.read_text(encoding="utf-8"))):
            yield f"{page.name}-{number}", language, text


BLOCKS = list(blocks())
COMMANDS = [
    (where, line.strip())
    for where, language, text in BLOCKS
    if language in ("", "bash")
    for line in text.replace("\\\n", " ").splitlines()
    if re.match(r"potstill\s", line.strip())
]


def parse(line: str) -> str:
    """Parse a command line as the program would, without running it; returns the command's name."""
    words = shlex.split(re.sub(r"\s#.*", "", line))[1:]  # within a word, # is no comment
    group: Any = typer.main.get_command(app)
    context = group.make_context("potstill", words, resilient_parsing=False)
    rest = [*context._protected_args, *context.args]
    while True:
        name, command, rest = group.resolve_command(context, list(rest))
        inner = command.make_context(name, list(rest), parent=context)
        if not hasattr(command, "commands"):
            return str(name)
        group, context = command, inner
        rest = [*inner._protected_args, *inner.args]


def test_the_walk_sees_pages_and_commands() -> None:
    assert len(PAGES) >= 12
    assert len(COMMANDS) >= 35
    assert {"python", "markdown", "bash"} <= {language for _, language, _ in BLOCKS}


@pytest.mark.parametrize(("where", "line"), COMMANDS, ids=[f"{w}-{i}" for i, (w, _) in enumerate(COMMANDS)])
def test_every_command_parses(where: str, line: str) -> None:
    if " USER/NAME" in line or line.rstrip().endswith("…"):
        pytest.skip("a pattern, not a command")
    parse(line)


def test_a_wrong_command_does_not_parse() -> None:
    with pytest.raises(Exception, match="No such command"):
        parse("potstill destil task.md")
    with pytest.raises(Exception, match="No such option"):
        parse("potstill run task.md --tescher fake")


PYTHON = [(where, text) for where, language, text in BLOCKS if language == "python"]


@pytest.mark.parametrize(("where", "text"), PYTHON, ids=[where for where, _ in PYTHON])
def test_every_python_snippet_compiles_and_its_imports_exist(where: str, text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                assert importlib.util.find_spec(alias.name), alias.name
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


TASKS = [(where, text) for where, language, text in BLOCKS if language == "markdown" and text.startswith("---\n")]


@pytest.mark.parametrize(("where", "text"), TASKS, ids=[where for where, _ in TASKS])
def test_every_task_in_the_docs_is_one(where: str, text: str, tmp_path: Path) -> None:
    from potstill.settings import resolve

    (tmp_path / "task.md").write_text(text)
    for name in re.findall(r"[\w.-]+\.(?:jsonl|txt)", text):
        (tmp_path / name).write_text('{"text": "a", "label": "b"}\n')
    found = read_task_file(tmp_path / "task.md")
    resolve({**found.settings, **found.options}, {})
    assert found.spec.label_names or found.spec.kind != "classification"


EXAMPLES = sorted((ROOT / "examples").rglob("*.md"))


def test_the_examples_are_of_all_kinds() -> None:
    kinds = [read_task_file(path).spec.kind for path in EXAMPLES]
    assert len(EXAMPLES) >= 6
    assert set(kinds) == {"classification", "generation", "instructions"}


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="no mkdocs here; pip install -e '.[docs]'")
    pytest.importorskip("mkdocstrings", reason="no mkdocstrings here; pip install -e '.[docs]'")
    package = tmp_path / "package" / "potstill"
    skipped = shutil.ignore_patterns("__pycache__", "shipped")
    shutil.copytree(ROOT / "potstill", package, ignore=skipped)
    for part in ("retrieval", "datagen", "prompts", "train"):
        shutil.copytree(ROOT / part, package / part, ignore=skipped)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"POTSTILL_PACKAGE": str(package.parent)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    reference = (tmp_path / "site" / "reference.html").read_text(encoding="utf-8")
    assert "potstill.pipeline.run" in reference
    assert "near_duplicates" in reference
    assert "<blockquote>" not in reference  # what `Example:` makes of `>>>`; `Examples:` makes code of it


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= listed
