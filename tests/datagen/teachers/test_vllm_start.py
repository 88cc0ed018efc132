"""vLLM's engine starts in a process that has loaded numba's library."""

from __future__ import annotations

import os
import sys
from types import ModuleType

import pytest

from potstill.datagen.teachers.vllm_start import told_offline, unlisted


def test_a_module_is_out_of_sight_for_a_while_and_back_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("some_library")
    monkeypatch.setitem(sys.modules, "some_library", module)

    def start() -> None:
        with unlisted("some_library"):
            assert "some_library" not in sys.modules
            raise ValueError("it died")

    with pytest.raises(ValueError, match="it died"):
        start()
    assert sys.modules["some_library"] is module
    with unlisted("no_such_library"):
        pass
    assert "no_such_library" not in sys.modules


def test_the_engine_alone_is_told_to_leave_the_hub_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with told_offline(True):
        assert os.environ["HF_HUB_OFFLINE"] == "0", "what the user says stays"
    monkeypatch.delenv("HF_HUB_OFFLINE")

    def start() -> None:
        with told_offline(True):
            assert os.environ["HF_HUB_OFFLINE"] == "1"
            raise ValueError("it died")

    with pytest.raises(ValueError, match="it died"):
        start()
    assert "HF_HUB_OFFLINE" not in os.environ
    with told_offline(False):
        assert "HF_HUB_OFFLINE" not in os.environ


@pytest.mark.vllm
def test_the_scan_that_kills_the_engine_passes() -> None:
    pytest.importorskip("numba")
    dispatcher = pytest.importorskip("vllm.triton_utils.dispatcher")
    import llvmlite.binding.ffi  # noqa: F401

    with unlisted("llvmlite.binding.ffi"):
        dispatcher._rebind_kernels([(object(), object())])
