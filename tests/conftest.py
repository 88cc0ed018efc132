"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Set before any library reads it: no test may reach for the Hub by accident.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parent.parent

# Tests are no package; what those of generation share (`scripted`) is found beside them. A conftest of theirs would
# stand before that of `train`, from which tests import.
sys.path.append(str(ROOT / "tests" / "datagen"))


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


# Two threads, shared by the processes that run tests; what a test starts inherits its share.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
THREADS = max(1, 2 // _WORKERS)
if _WORKERS > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))


@pytest.fixture(autouse=True)
def _few_torch_threads() -> None:
    """Keep a test from taking every core, where it has loaded torch at all."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(THREADS)


def _sibling(name: str) -> Any:
    """A module beside this file; tests are no package, so it is loaded by its path."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def tiny_causal() -> Callable[[Path], Path]:
    """Writes a causal model with random weights into a folder (see `tiny_causal`)."""
    make: Callable[[Path], Path] = _sibling("tiny_causal").tiny_causal
    return make


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Hub on the loopback (see `hub_server`). Clients read its address at import: run them in a process."""
    with _sibling("hub_server").running_hub(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture
def chromium() -> Iterator[Any]:
    """A real browser without a window, or a skip that says what is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here; pip install playwright")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium here; install it to look at the pages")
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="session")
def teacher_server() -> Any:
    """The module of the OpenAI-compatible server on the loopback: `teacher_server.running_server(…)`."""
    return _sibling("teacher_server")


@pytest.fixture(scope="session")
def shop_files() -> Callable[[Path], None]:
    """Writes into a folder what the commands of help and docs name: a task, rows, empty batch files, own datasets."""

    def write(folder: Path) -> None:
        texts = {"billing": "My invoice is wrong", "bug": "The page is blank", "other": "Where are you?"}
        rows = [json.dumps({"text": f"{text} {i}", "label": label}) for label, text in texts.items() for i in range(4)]
        for name in ("my-tickets.jsonl", "next-month.jsonl"):
            (folder / name).write_text("\n".join(rows) + "\n")
        (folder / "task.md").write_text("Classify support tickets as billing, bug or other.\n")
        (folder / "messages.txt").write_text("".join(f"{row['text']}, again\n" for row in map(json.loads, rows)))
        for name in ("output.jsonl", "errors.jsonl"):
            (folder / name).write_text("")
        for name in ("my-datasets", "our-datasets"):
            shutil.copytree(ROOT / "retrieval" / "shipped" / "shop-helpdesk", folder / name / "shop-helpdesk")

    return write


@pytest.fixture(scope="session")
def sample_run() -> Any:
    """The module that writes a small finished run folder: `sample_run.write_run(folder, …)`."""
    return _sibling("sample_run")
