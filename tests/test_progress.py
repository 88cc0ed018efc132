"""What the libraries would say for themselves while a run tells its progress."""

from __future__ import annotations

import logging

import pytest

from potstill.progress import library_bars_off
from potstill.train.quiet import quiet_bars


def test_a_run_keeps_a_librarys_word_about_its_own_kernels_to_itself(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    monkeypatch.setattr(log, "filters", [])  # a command that ran in this process before has silenced it for good
    said = "Failed to load CPU gemm_4bit_forward from kernels-community: %s."
    with library_bars_off():
        log.warning(said, "no kernels")
        log.warning("another")
    assert caplog.messages == ["another"]
    log.warning(said, "no kernels")
    assert len(caplog.messages) == 2, "outside a run the caller's logging is as it was"


def test_a_student_in_8_bits_drops_the_warning_of_casts_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    products = logging.getLogger("bitsandbytes.autograd._functions")
    with quiet_bars("bitsandbytes"):
        pass
    products.warning("MatMul8bitLt: inputs will be cast from %s to float16 during quantization", "torch.float32")
    products.warning("something of products")
    logging.getLogger("bitsandbytes.optim").warning("something of optimizers")
    assert caplog.messages == ["something of products", "something of optimizers"]
