"""What the libraries would say for themselves while a run tells its progress."""

from __future__ import annotations

import logging

import pytest

from potstill.progress import library_bars_off


def test_a_run_keeps_a_librarys_word_about_its_own_kernels_to_itself(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    said = "Failed to load CPU gemm_4bit_forward from kernels-community: %s."
    with library_bars_off():
        log.warning(said, "no kernels")
        log.warning("another")
    assert caplog.messages == ["another"]
    log.warning(said, "no kernels")
    assert len(caplog.messages) == 2, "outside a run the caller's logging is as it was"
