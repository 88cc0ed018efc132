"""The real vLLM, in process and as a server, against the transformers backend: the same numbers to tolerance."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from potstill.asking.teacher_json import reply_from_json
from potstill.datagen.teachers import open_teacher
from potstill.datagen.teachers.local import LocalOptions, LocalTeacher

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
HERE = Path(__file__).resolve().parent
# The engines add in different orders; float32 leaves this much, over a handful of tokens.
CLOSE = 2e-2


def session() -> Any:
    if "vllm_session" not in sys.modules:
        spec = importlib.util.spec_from_file_location("vllm_session", HERE / "vllm_session.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["vllm_session"] = module
        spec.loader.exec_module(module)
    return sys.modules["vllm_session"]


@pytest.fixture(scope="module")
def expected() -> dict[str, list[Any]]:
    teacher = LocalTeacher(None, LocalOptions(dtype="float32", device="cpu", concurrency=16))
    found = {name: session().answers(teacher, requests) for name, requests in session().questions().items()}
    teacher.close()
    return found


@pytest.fixture(scope="module")
def in_process() -> dict[str, list[Any]]:
    # In a process of its own: the engine changes thread pools and random states of the one it lives in.
    done = subprocess.run(
        [sys.executable, str(HERE / "vllm_session.py")], capture_output=True, text=True, timeout=600, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-3000:]
    found: dict[str, list[Any]] = json.loads(lines[0].removeprefix("RESULT "))
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from potstill.models import SMOLLM2, local_model

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", local_model(SMOLLM2),
            "--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32",
            "--enforce-eager", "--max-model-len", "1024",
        ],
        env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    os.set_blocking(process.stdout.fileno(), False)  # type: ignore[union-attr]
    log = b""
    try:
        for _ in range(600):
            time.sleep(1)
            log += process.stdout.read() or b""  # type: ignore[union-attr]
            assert process.poll() is None, log[-3000:].decode(errors="replace")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                continue
        else:
            raise AssertionError(log[-3000:].decode(errors="replace"))
        # Nobody reads the pipe from here on, and a full one would stop the server.
        os.set_blocking(process.stdout.fileno(), True)  # type: ignore[union-attr]
        import threading

        threading.Thread(target=lambda: process.stdout.read(), daemon=True).start()  # type: ignore[union-attr]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def compare(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    compared = 0
    for name in ("scores", "prefilled", "targets", "greedy"):
        for ours, theirs in zip(found[name], expected[name], strict=True):
            assert "failure" not in ours, ours
            one, two = reply_from_json(ours), reply_from_json(theirs)
            assert one.scores == pytest.approx(two.scores, abs=CLOSE * max(1, *two.score_tokens, 1))
            assert one.score_tokens == two.score_tokens
            assert one.prompt_tokens == two.prompt_tokens
            assert (one.text, one.finish) == (two.text, two.finish)
            assert [top.token_id for top in one.top] == [top.token_id for top in two.top]
            for top, other in zip(one.top, two.top, strict=True):
                assert len(top.top_ids) == len(other.top_ids)
                assert top.top_logprobs == pytest.approx(other.top_logprobs, abs=CLOSE)
                compared += len(top.top_ids)
            compared += len(one.scores)
    assert compared > 150
    assert [item["text"] for item in found["stopped"]] == [item["text"] for item in expected["stopped"]]
    assert found["choices"][0]["text"] in ("yes it is", "yes", "no")


def test_in_process_gives_the_numbers_of_transformers(
    in_process: dict[str, list[Any]], expected: dict[str, list[Any]]
) -> None:
    compare(in_process, expected)


def test_in_process_does_what_only_vllm_does(in_process: dict[str, list[Any]]) -> None:
    import jsonschema

    whole = [item for item in in_process["schema"] if item["finish"] == "stop"]
    assert whole
    for item in whole:
        jsonschema.validate(json.loads(item["text"]), session().SCHEMA)
    assert "no room" in in_process["too_long"][0]["failure"]
    assert len(in_process["many"]) == 60
    assert all("text" in item for item in in_process["many"])
    texts = [item["text"] for item in in_process["sampled"]]
    assert len(set(texts)) > 3
    assert texts == [item["text"] for item in in_process["sampled_again"]]


def test_the_server_gives_the_numbers_of_transformers(server: str, expected: dict[str, list[Any]]) -> None:
    teacher = open_teacher(f"openai:{server}")
    try:
        assert teacher.model == "smollm2"
        assert teacher.abilities.scores
        found = {name: session().answers(teacher, requests) for name, requests in session().questions().items()}
        compare(found, expected)
        [long] = session().answers(teacher, session().extra()["too_long"])
        assert "HTTP 400" in long["failure"]
        schema = session().answers(teacher, session().extra()["schema"])
    finally:
        teacher.close()
    import jsonschema

    whole = [item for item in schema if item["finish"] == "stop"]
    assert whole
    for item in whole:
        jsonschema.validate(json.loads(item["text"]), session().SCHEMA)


def test_tokens_are_scored_by_their_numbers(in_process: dict[str, list[Any]], server: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from potstill.models import SMOLLM2, local_model

    [request] = session().extra()["by_number"]
    prompt, scored = request.token_ids
    model = AutoModelForCausalLM.from_pretrained(local_model(SMOLLM2), dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *scored]])).logits[0, len(prompt) - 1 : -1]
    likeliest = logits.log_softmax(-1).topk(request.top_logprobs)
    teacher = open_teacher(f"openai:{server}")
    try:
        told = [in_process["by_number"][0], *session().answers(teacher, [request])]
        assert teacher.tokens_of("The capital of France is") == list(prompt)
    finally:
        teacher.close()
    for reply in map(reply_from_json, told):
        assert (reply.prompt_tokens, reply.completion_tokens) == (len(prompt) + len(scored), 1)
        assert tuple(item.token_id for item in reply.top) == scored
        for item, row, values in zip(reply.top, logits, likeliest.values, strict=True):
            assert item.logprob == pytest.approx(float(row.log_softmax(-1)[item.token_id]), abs=CLOSE)
            assert item.top_logprobs == pytest.approx(values.tolist(), abs=CLOSE)


def test_the_server_as_any_other_tells_labels_by_what_it_writes(server: str, tmp_path: Path) -> None:
    """Asked without what only vLLM has, it gives by the tokens' texts nearly what it scores of the labels' names."""
    import numpy as np

    from potstill.asking.asker import Asker
    from potstill.asking.ledger import Ledger
    from potstill.asking.teacher import Message, Reply, ScoreRequest
    from potstill.datagen.label_question import answer_spellings
    from potstill.datagen.said_labels import said_scores

    names = ("positive", "negative", "neutral")
    question = "Is this review positive, negative or neutral? Answer with one word.\n\n"
    reviews = ["I loved every minute of it.", "A dull, badly acted mess.", "It is two hours long.", "Great!", "Awful."]
    asked = [(Message("user", question + review),) for review in reviews]
    spellings = [answer_spellings(name) for name in names]
    every = tuple(form for own in spellings for form in own)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        whole = open_teacher(f"openai:{server}")
        plain = open_teacher(f"openai:{server}", flavour="openai")
        try:
            answers = Asker(whole, ledger).ask([ScoreRequest(item, every) for item in asked], "test")
            told = np.exp(said_scores(asked, spellings, Asker(plain, ledger), "test"))
        finally:
            whole.close()
            plain.close()
    found = []
    for answer in answers:
        assert isinstance(answer.reply, Reply)
        scores = dict(zip(every, np.exp(answer.reply.scores), strict=True))
        found.append([sum(scores[form] for form in own) for own in spellings])
    scored = np.array(found) / np.sum(found, axis=1, keepdims=True)
    assert told == pytest.approx(scored, abs=0.08)
    assert (told.argmax(axis=1) == scored.argmax(axis=1)).all()
    assert scored.std(axis=0).max() > 0.02, "the labels are told apart at all"
