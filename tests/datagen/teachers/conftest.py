"""Fixtures of the teachers' tests."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from potstill.teacher import AnyRequest, Failure, Reply, Teacher

Answered = list[tuple[AnyRequest, Reply | Failure]]


@pytest.fixture
def drain() -> Callable[[Teacher, Sequence[AnyRequest]], Answered]:
    """Ask a teacher everything; replies in the order of the requests."""

    def ask(teacher: Teacher, requests: Sequence[AnyRequest]) -> Answered:
        source = iter(requests)
        found: dict[int, Reply | Failure] = {}
        for request, reply in teacher.stream(lambda room: [r for _, r in zip(range(room), source)]):
            assert id(request) not in found, "a request was answered twice"
            found[id(request)] = reply
        return [(request, found[id(request)]) for request in requests]

    return ask


@pytest.fixture
def server_module() -> Any:
    """`tests/teacher_server.py`; tests are no package, so it is loaded by its path."""
    name = "teacher_server"
    if name not in sys.modules:
        path = Path(__file__).resolve().parents[2] / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(autouse=True)
def _one_torch_thread(_few_torch_threads: None) -> None:
    """Small passes gain nothing from a second thread, and lose much where other work holds the core."""
    import torch

    torch.set_num_threads(1)
