"""Settings: precedence, every fault at once, the nearest name."""

from __future__ import annotations

import pytest

from potstill.errors import OptionError
from potstill.settings import _NESTED, _PLAIN, _SHORT, resolve
from potstill.task_file import SETTINGS, STAGES, read_task_file


def test_the_caller_wins_over_the_task_file_and_both_are_remembered() -> None:
    settings = resolve({"n": 50, "seed": 3, "distil": {"epochs": 2}}, {"n": 70})
    assert settings.generation.rows == 70
    assert settings.seed == 3
    assert settings.distil.epochs == 2
    assert settings.origin["generation.rows"] == "caller"
    assert settings.origin["distil.epochs"] == "task file"


def test_the_seed_reaches_every_stage_that_draws() -> None:
    settings = resolve({}, {"seed": 11})
    assert settings.generation.seed == settings.distil.seed == 11


def test_all_faults_come_in_one_message_with_the_nearest_name() -> None:
    with pytest.raises(OptionError) as caught:
        resolve({"teachr": "x"}, {"distil": {"epoch": 2, "temperature": "hot"}, "sources": "bth"})
    text = str(caught.value)
    assert "did you mean 'teacher'?" in text
    assert "did you mean 'epochs'?" in text
    assert "temperature" in text
    assert "'bth'" in text


def test_a_task_file_takes_every_setting() -> None:
    assert set(STAGES) == set(_NESTED)
    assert set(SETTINGS) == {*_PLAIN, *_SHORT}
    text = "---\nlabels: [spam, ham]\nquality: {votes: 2}\nray: {workers: 3}\n---\nTell spam from ham messages."
    read = read_task_file(text, draft=True)
    settings = resolve({**read.settings, **read.options}, {})
    assert (settings.quality.votes, settings.ray.workers) == (2, 3)
