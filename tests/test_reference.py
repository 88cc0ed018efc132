"""docs/reference.md names what there is, and what a user calls; docs/commands.md says what `--help` says."""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import potstill
from potstill.settings import STAGES, Settings

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "reference.md").read_text("utf-8")
BLOCKS = re.findall(r"^::: ([\w.]+)\n(?:    options:\n      members: \[(.*?)\]\n)?", PAGE, re.M)
NAMES = {(module, name) for module, members in BLOCKS for name in members.split(", ") if members}


def commands_page() -> Any:
    """scripts/commands_page.py; scripts are no package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location("commands_page", ROOT / "scripts" / "commands_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_name_of_the_reference_is_there_and_says_what_it_does() -> None:
    assert len(NAMES) > 60
    assert len(BLOCKS) == PAGE.count("\n::: ")
    for module, name in sorted(NAMES):
        found = getattr(importlib.import_module(module), name)
        assert found.__doc__, f"{module}.{name}"
        assert found.__module__ == module, f"{name} is {found.__module__}'s, not {module}'s"


def test_what_a_user_calls_is_in_the_reference() -> None:
    listed = PAGE.partition("## Runs")[0]
    assert all(f"`{name}`" in listed for name in potstill.__all__)
    wanted = {
        "run", "load", "compress", "students", "plan_run", "preview_rows", "examine", "write_report", "write_batch",
        "read_batch", "compare_runs", "verify_run", "push", "load_unit", "read_task", "find_datasets", "retrieve_rows",
        "generate_rows", "merge_rows", "split_rows", "add_teacher_probs", "train_classifier", "evaluate_run",
        "compress_student", "load_student", "open_teacher", "listening",
    }  # fmt: skip
    assert wanted - {name for _, name in NAMES} == set()


def test_options_of_every_stage_are_in_the_reference() -> None:
    made = {type(getattr(Settings(), item.name)).__name__ for item in fields(Settings)}
    options = {name for name in made if name.endswith("Options")}
    assert {item.__name__ for item in STAGES.values()} <= options
    assert options - {name for _, name in NAMES} == set()


def test_the_picture_of_the_readme_is_what_the_records_say_and_fetches_nothing() -> None:
    spec = importlib.util.spec_from_file_location("readme_picture", ROOT / "scripts" / "readme_picture.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    drawn = made.PICTURE.read_text("utf-8")
    assert drawn == made.render(), "run: python scripts/readme_picture.py"
    assert {node.tag.rpartition("}")[2] for node in ElementTree.fromstring(drawn).iter()} == {
        "svg", "title", "desc", "style", "rect", "text", "path"
    }  # fmt: skip
    assert drawn.count("://") == 1, "the name space alone"
    assert "prefers-color-scheme:dark" in drawn
    readme = (ROOT / "README.md").read_text("utf-8")
    place = readme.index("](docs/picture.svg)")
    assert place < len(readme) / 3
    shown = re.findall(r"(\d+) %", readme[readme.index("![") : place])
    assert all(f">{share}%<" in drawn for share in shown), "what is read aloud is what is drawn"


def test_the_page_of_commands_is_what_help_says() -> None:
    made = commands_page()
    assert made.PAGE.read_text("utf-8") == made.render(), "run: python scripts/commands_page.py"


def test_the_page_of_commands_has_every_command_and_option() -> None:
    made = commands_page()
    page = made.PAGE.read_text("utf-8")
    every = list(made.commands())
    assert len(every) >= 22
    assert "potstill batch read" in dict(every)
    for words, command in every:
        part = page.partition(f"\n## {words}\n")[2].partition("\n## ")[0]
        assert part, words
        for item in command.params:
            assert item.param_type_name == "argument" or all(name in part for name in item.opts), (words, item.opts)
