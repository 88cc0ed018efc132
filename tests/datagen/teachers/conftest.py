"""Fixtures of the teachers' tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from potstill.asking.teacher import AnyRequest, Failure, Reply, Teacher

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
def server_module(teacher_server: Any) -> Any:
    """The test server's module, under the name that the tests of this folder use."""
    return teacher_server


@pytest.fixture(autouse=True)
def _one_torch_thread(_few_torch_threads: None) -> None:
    """Small passes gain nothing from a second thread, and lose much where other work holds the core."""
    import torch

    torch.set_num_threads(1)
