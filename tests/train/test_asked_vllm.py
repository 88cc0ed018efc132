"""A student trained on policy from the real vLLM, as a server, beside one that has the same teacher in memory."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scoring import LocalScores

from potstill.asking.asker import Asker
from potstill.asking.ledger import Ledger
from potstill.asking.teacher_json import reply_from_json
from potstill.asking.token_scores import AskedTokens
from potstill.datagen.teachers import open_teacher
from potstill.models import SMOLLM2, local_model
from potstill.rows import Row, Source, rows_to_dataset
from potstill.settings import resolve
from potstill.stages.asked_teacher import check_asked_teacher
from potstill.task import TaskSpec
from potstill.train.causal import distil_causal
from potstill.train.options import DistilOptions

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
SPEC = TaskSpec(name="town", instruction="Say one sentence about the place.", kind="generation")
PLACES = ("Ghent", "Kyoto", "Lima", "Oslo", "Cairo", "Quito", "Porto", "Delhi", "Perth", "Turin")
TOP, STEPS = 512, 6


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", local_model(SMOLLM2),
            "--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32",
            "--enforce-eager", "--max-model-len", "512", "--max-logprobs", str(TOP), "--no-enable-chunked-prefill",
        ],
        env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    said: list[bytes] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True)
    reader.start()
    try:
        for _ in range(900):
            time.sleep(1)
            assert process.poll() is None, b"".join(said)[-3000:].decode(errors="replace")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                continue
        else:
            raise AssertionError(b"".join(said)[-3000:].decode(errors="replace"))
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_a_student_learns_from_the_server_what_it_learns_from_the_weights(server: str, tmp_path: Path) -> None:
    made = [
        Row(name, f"{name} is a large town with a long past.", "generated", Source(row=i))
        for i, name in enumerate(PLACES)
    ]
    rows, held_out = rows_to_dataset(made[:8], []), rows_to_dataset(made[8:], [])
    options = DistilOptions(
        student=SMOLLM2, student_layers=28, hidden_weight=0.0, on_policy=1.0, on_policy_tokens=16, max_steps=STEPS,
        batch_size=2, learning_rate=2e-4, max_length=96, precision="fp32", early_stopping=None, evaluations=2,
    )  # fmt: skip
    distil, soft = {"student": SMOLLM2, "on_policy": 1.0}, {"top_k": TOP}
    settings = resolve({}, {"teacher": f"openai:{server}", "distil": distil, "soft": soft})
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = Asker(open_teacher(f"openai:{server}", top_logprobs=TOP), ledger)
        assert "49,152 tokens, cut alike" in check_asked_teacher(SPEC, settings, asker)
        scores = AskedTokens(asker, TOP)
        asked = distil_causal(SPEC, rows, held_out, None, tmp_path / "asked", options, scores=scores)
        told = [(entry.request["token_ids"], reply_from_json(entry.reply)) for entry in ledger.entries()]
        asker.teacher.close()
    local = LocalScores(local_model(SMOLLM2), TOP)
    for (prompt, scored), reply in told[:6]:
        for item, other in zip(reply.top, local.local.tops([*prompt, *scored], len(prompt), TOP), strict=True):
            assert item.token_id == other.token_id
            assert item.logprob == pytest.approx(other.logprob, abs=2e-2)
            assert item.top_logprobs == pytest.approx(other.top_logprobs, abs=2e-2)
    # Of the same likeliest tokens, and of the whole vocabulary, of which they are a lower bound.
    same = distil_causal(SPEC, rows, held_out, None, tmp_path / "same", options, scores=local)
    whole = distil_causal(SPEC, rows, held_out, None, tmp_path / "whole", replace(options, teacher=SMOLLM2))
    report = asked.report["asked_teacher"]
    assert (report["answers"], report["unanswered"]) == (2 * STEPS, 0)
    assert 0 < report["tail_mass"] < 0.1
    losses = [[point["validation_loss"] for point in result.history] for result in (asked, same, whole)]
    print(report, losses)
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
    assert losses[0] == pytest.approx(losses[2], rel=0.3)
    for each in losses:
        assert each[-1] < 0.9 * each[0]
