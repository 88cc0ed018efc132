"""A training in two processes over gloo gives the losses and the weights of one process."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from potstill.errors import OptionError, TrainingError, UserError
from potstill.rows import Row, Source, rows_to_dataset
from potstill.task import TaskSpec
from potstill.train.causal import distil_causal
from potstill.train.launch import command, launch, write_job
from potstill.train.options import DistilOptions, SearchOptions
from potstill.train.student import load_student

SPEC = TaskSpec(name="echo", instruction="Say it.", kind="generation")


def rows(n=4):
    return rows_to_dataset(
        [Row("ab" * (i + 1), "ba" * (2 * i + 1), "generated", Source(row=i), weight=1.0 + i) for i in range(n)], []
    )


@pytest.fixture
def options(tiny_llama):
    return DistilOptions(
        student=str(tiny_llama), soft_weight=0.0, batch_size=4, max_steps=3, evaluations=3, learning_rate=5e-3,
        max_length=96, early_stopping=None, precision="fp32",  # bfloat16 rounds two halves of a batch otherwise
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_are_one(tmp_path, options):
    table = rows()
    whole = distil_causal(SPEC, table, table, None, tmp_path / "one", options)
    shared = replace(options, batch_size=2, processes=2)
    seen = []
    job = write_job(tmp_path / "job", SPEC, table, table, None, tmp_path / "two", shared)
    result = launch(job, shared, listener=seen.append)
    assert result.path == tmp_path / "two"
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(
            [point[name] for point in result.history], [point[name] for point in whole.history], rtol=1e-5
        )
    assert [point["epoch"] for point in result.history] == [1.0, 2.0, 3.0]  # each row once an epoch, not twice
    first, second = (load_file(path / "model.safetensors") for path in (whole.path, result.path))
    assert set(first) == set(second)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-6)
    assert any(event.total for event in seen)


@pytest.mark.slow
def test_search_generations_and_a_whole_student_first_are_shared_too(tmp_path, tiny_bert):
    from mood import SPEC as MOOD
    from mood import reviews

    pytest.importorskip("optuna")
    shared = DistilOptions(
        student=str(tiny_bert), epochs=2, learning_rate=3e-3, max_length=32, precision="fp32", processes=2,
        student_layers=1, generations=2, search=SearchOptions(trials=2, minutes=9.0),
    )  # fmt: skip
    table = reviews(40, soft=True)
    job = write_job(tmp_path / "job", MOOD, table, reviews(16, 1), None, tmp_path / "s", shared)
    result = launch(job, shared)
    assert len(result.report["search"]["trials"]) == len(result.report["rounds"]) == 2
    assert result.report["deep"]
    assert load_student(result.path)("the film was great") in MOOD.label_names
    assert json.loads((result.path / "training.json").read_text())["rounds"] == result.report["rounds"]
    # What the trainings made on their way was deleted once, by one of the processes.
    assert {path.name for path in tmp_path.iterdir()} == {"job", "s"}


@pytest.mark.slow
def test_the_fault_of_a_process_is_the_users_message(tmp_path, options):
    broken = replace(options, processes=2, student_layers=9)
    job = write_job(tmp_path / "job", SPEC, rows(), None, None, tmp_path / "s", broken)
    with pytest.raises(TrainingError, match=r"student_layers 9 is more than the 2 layers of .*; choose 1 to 2"):
        launch(job, broken)


def test_a_job_is_whole_and_stays_on_the_loopback(tmp_path, options):
    job = write_job(tmp_path / "job", SPEC, rows(), None, None, tmp_path / "s", replace(options, processes=2))
    assert {path.name for path in job.iterdir()} == {"job.json", "train.parquet"}
    told = json.loads((job / "job.json").read_text())
    assert told["out"] == "../s"
    assert told["options"]["processes"] == 2
    words = command(job, replace(options, processes=2), 5)
    assert "127.0.0.1" in words
    assert words[-3:] == ["-m", "potstill.train.launch", str(job)]
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"distil.sharding=fsdp needs GPUs"):
            launch(job, replace(options, processes=2, sharding="fsdp"))
    with pytest.raises(OptionError, match="lora_rank and sharding fsdp exclude each other"):
        DistilOptions(lora_rank=4, sharding="fsdp")


@pytest.mark.parametrize(("code", "slow"), [(0, 0.0), (0, 0.4), (3, 0.0)])
def test_a_process_that_fails_after_its_result_is_no_success(tmp_path, options, monkeypatch, code, slow):
    """The result of the first process was taken, whatever became of the others."""
    script = (
        f"import json, os, pathlib, sys, time; pathlib.Path({str(tmp_path / 'result.json')!r}).write_text(json.dumps("
        "{'path': 'student', 'history': [], 'report': {}})); print('a last word', flush=True); "
        f"sys.stdout.close(); os.close(1); os.close(2); time.sleep({slow}); os._exit({code})"
    )
    monkeypatch.setattr("potstill.train.launch.command", lambda *given: [sys.executable, "-c", script])
    if code == 0:
        assert launch(tmp_path, options).path.name == "student"
        return
    with pytest.raises(TrainingError, match=r"ended with code 3:\na last word"):
        launch(tmp_path, options)
