"""What `import potstill` tells the libraries before they are loaded, and which number format a processor gets."""

import os
import subprocess
import sys

import pytest
import torch

from potstill import number_format
from potstill.train.options import DistilOptions, resolve_options

CLEAN = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}


@pytest.mark.parametrize(
    ("given", "looks"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_waiting_threads_look_seldom_unless_the_user_said_how_often(given, looks):
    code = "import os, potstill; print(os.environ.get('GOMP_SPINCOUNT'), os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**CLEAN, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [looks, "1"]


@pytest.mark.parametrize(("fast", "wanted"), [(True, "bf16"), (False, "fp32")])
def test_students_learn_in_the_format_that_the_processor_multiplies(monkeypatch, fast, wanted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(number_format, "_cpu_multiplies_bfloat16", lambda: fast)
    assert resolve_options(DistilOptions(), "classification").precision == wanted
    assert resolve_options(DistilOptions(precision="fp32"), "causal").precision == "fp32"
    assert number_format.multiplies_bfloat16(torch.device("cpu")) is fast
    assert not number_format.multiplies_bfloat16(torch.device("mps"))
