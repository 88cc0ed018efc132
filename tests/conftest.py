"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Set before any library reads it: no test may reach for the Hub by accident.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder that holds pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def data_pack() -> Path:
    """The pack of real tasks and cards, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("POTSTILL_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "tasks").is_dir():
        pytest.skip(f"no data pack at {folder}; set POTSTILL_DATA to its folder")
    return folder


@pytest.fixture(autouse=True)
def _two_torch_threads() -> None:
    """Keep a test from taking every core, where it has loaded torch at all."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(2)
