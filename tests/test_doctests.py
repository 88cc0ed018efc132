"""The examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAST = 48


def modules_with_examples() -> list[str]:
    """Import names of the modules whose text holds `>>>`."""
    found = []
    for part in ("potstill", "datagen", "retrieval", "train", "prompts"):
        for path in sorted((ROOT / part).rglob("*.py")):
            if re.search(r"^\s+>>> ", path.read_text("utf-8"), re.M):
                name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
                found.append(name if part == "potstill" else f"potstill.{name}")
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


def test_there_are_as_many_examples_as_there_were() -> None:
    texts = [path.read_text("utf-8") for part in ("potstill", "datagen", "retrieval", "train", "prompts")
             for path in (ROOT / part).rglob("*.py")]  # fmt: skip
    assert sum(len(re.findall(r"^\s+>>> ", text, re.M)) for text in texts) >= LEAST
