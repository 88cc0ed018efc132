"""docs/method.md names every paper that the code stands on, and modules and options that there are."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from potstill.settings import Settings
from potstill.train.compress.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "method.md").read_text("utf-8")
_PAPER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_ROW = re.compile(r"^\| (?!algorithm|-)(.*) \|$", re.M)
ROWS = [[cell.strip() for cell in row.split(" | ")] for row in _ROW.findall(PAGE)]


def papers_of_code() -> dict[str, set[str]]:
    """arXiv ids in docstrings, by module."""
    found: dict[str, set[str]] = {}
    for part in ("potstill", "datagen", "retrieval", "train", "prompts"):
        for path in sorted((ROOT / part).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    ids = _PAPER.findall(ast.get_docstring(node) or "")
                    if ids:
                        found.setdefault(path.relative_to(ROOT).as_posix(), set()).update(ids)
    return found


def test_every_paper_of_the_code_is_on_the_page() -> None:
    code = papers_of_code()
    assert len(code) > 40
    missing = {module: sorted(ids - set(_PAPER.findall(PAGE))) for module, ids in code.items()}
    assert not {module: ids for module, ids in missing.items() if ids}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_each_row_names_modules_that_there_are_and_speak_of_its_papers(row: list[str]) -> None:
    _, source, modules, _ = row
    paths = re.findall(r"`([\w/]+\.py)`", modules)
    assert paths
    text = "".join((ROOT / path).read_text("utf-8") for path in paths)
    assert all(paper in text for paper in _PAPER.findall(source)), source


def test_options_and_steps_are_what_settings_know() -> None:
    known = {field.name for field in fields(Settings)}
    for *_, switch in ROWS:
        for name in re.findall(r"`(\w+)\.(\w+)[^`]*`", switch):
            if name != ("llm", "int8"):
                options = getattr(Settings(), name[0])
                assert name[0] in known
                assert hasattr(options, name[1]), name
    steps = PAGE.partition("## Compressing")[2]
    for row in _ROW.findall(steps):
        assert set(re.findall(r"`([\w.]+)`", row.rpartition(" | ")[2])) <= set(METHODS), row
