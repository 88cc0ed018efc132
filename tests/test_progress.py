"""What the libraries would say for themselves while a run tells its progress."""

from __future__ import annotations

import logging

import pytest

from potstill.progress import library_bars_off, switch_library_bars_off
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


def test_bars_of_libraries_that_are_loaded_already_are_switched_off_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says is read when they are loaded: a notebook may have done so before a command."""
    import datasets
    from transformers.utils import logging as theirs

    for variable in ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(variable, "0")  # so that it is afterwards what it was
        monkeypatch.delenv(variable)
    were = datasets.are_progress_bars_disabled(), theirs.is_progress_bar_enabled()
    try:
        datasets.enable_progress_bars()
        theirs.enable_progress_bar()
        switch_library_bars_off()
        with library_bars_off():
            assert datasets.are_progress_bars_disabled()
            assert not theirs.is_progress_bar_enabled()
    finally:
        (datasets.disable_progress_bars if were[0] else datasets.enable_progress_bars)()
        (theirs.enable_progress_bar if were[1] else theirs.disable_progress_bar)()
