"""What a stage reads is part of what it depends on; what is measured on is not learnt from in any form."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from potstill.errors import TeacherUnavailable
from potstill.events import silent
from potstill.pipeline import open_job
from potstill.rows import Row, read_rows, rows_to_dataset, write_rows
from potstill.run_dir import Stage
from potstill.stages.job import Job
from potstill.stages.optional import _unlabelled, led_by_user
from potstill.stages.parts import held_out_rows


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def task(folder: Path, front: str, prompt: str = "Classify support tickets as billing or bug.") -> str:
    file = folder / "task.md"
    file.write_text(f"---\nname: t\n{front}\n---\n{prompt}\n")
    return str(file)


@pytest.mark.parametrize("words", [1, 40, 120, 400])
def test_a_prompt_of_one_line_may_be_longer_than_a_files_name(words: int, tmp_path: Path) -> None:
    prompt = f"Classify support tickets as billing or bug. {'Greetings do not matter. ' * (words // 3)}".strip()
    with open_job(prompt, tmp_path / "run", silent, {"teacher": "fake"}) as job:
        stage = job.task(prompt)
    assert (stage.path / "task.md").read_text() == prompt + "\n"


def test_a_catalogues_data_are_read_again_when_they_change(tmp_path: Path) -> None:
    (tmp_path / "cards.jsonl").write_text(
        json.dumps({"id": "me/tickets", "description": "Support tickets: billing or bug", "license": "mit",
                    "location": "data", "language": ["en"], "rows": 40}) + "\n"
    )  # fmt: skip
    names = ("billing", "bug")

    def retrieved(flip: int) -> tuple[bool, dict[str, str]]:
        rows = [
            {"text": f"message {i} about {names[i % 2]} {i * 7}", "label": names[(i + flip) % 2]} for i in range(40)
        ]
        lines(tmp_path / "data" / "train.jsonl", rows)
        options = {"catalogue": [str(tmp_path / "cards.jsonl")], "min_score": -1.0}
        settings = {"teacher": "fake", "sources": "retrieved", "retrieval": options}
        with open_job(task(tmp_path, "languages: [en]"), tmp_path / "run", silent, settings) as job:
            stage = job.retrieval()
        table = read_rows(stage.path / "rows.parquet")
        return stage.reused, dict(zip(table["input"][:], table["output"][:], strict=True))

    first, again, corrected = retrieved(0), retrieved(0), retrieved(1)
    assert (first[0], again[0], corrected[0]) == (False, True, False)
    assert first[1]
    assert all(corrected[1][text] != label for text, label in first[1].items())


@pytest.mark.parametrize("error", [TeacherUnavailable("the server is away"), KeyboardInterrupt()])
def test_a_failed_attempt_to_read_changed_data_again_leaves_what_was_retrieved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    card = {"id": "me/tickets", "description": "Support tickets: billing or bug", "license": "mit", "location": "data"}
    lines(tmp_path / "cards.jsonl", [{**card, "language": ["en"], "rows": 40}])

    def retrieved(flip: int) -> Stage:
        names = ("billing", "bug")
        rows = [{"text": f"message {i} about {i * 7}", "label": names[(i + flip) % 2]} for i in range(40)]
        lines(tmp_path / "data" / "train.jsonl", rows)
        options = {"catalogue": [str(tmp_path / "cards.jsonl")], "min_score": -1.0}
        settings = {"teacher": "fake", "sources": "retrieved", "retrieval": options}
        with open_job(task(tmp_path, "languages: [en]"), tmp_path / "run", silent, settings) as job:
            return job.retrieval()

    def broken(*_: Any, **__: Any) -> None:
        raise error

    first = retrieved(0)
    assert first.facts["rows"] > 0
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr("potstill.retrieval.retrieve.retrieve_rows", broken)
        assert retrieved(1).reused, "kept, since its teacher cannot be asked"
    assert (tmp_path / "run" / "retrieval" / "rows.parquet").exists()
    assert retrieved(0).reused, "the data are as they were"
    assert not retrieved(1).reused


def test_a_network_that_has_gone_leaves_what_was_retrieved_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from potstill.retrieval.retrieve import retrieve_rows

    card = {"id": "me/tickets", "description": "Support tickets: billing or bug", "license": "mit", "location": "data"}
    lines(tmp_path / "cards.jsonl", [{**card, "language": ["en"], "rows": 40}])
    rows = [{"text": f"message {i} about {i * 7}", "label": ("billing", "bug")[i % 2]} for i in range(40)]
    lines(tmp_path / "data" / "train.jsonl", rows)
    unreached = [1]

    def half(*given: Any, **named: Any) -> Any:
        result = retrieve_rows(*given, **named)
        result.report["datasets_unreached"] = unreached[0]
        return result

    monkeypatch.setattr("potstill.retrieval.retrieve.retrieve_rows", half)
    monkeypatch.setattr("potstill.hub_way.hub_unreachable", lambda: None)

    def retrieved() -> Stage:
        options = {"catalogue": [str(tmp_path / "cards.jsonl")], "min_score": -1.0}
        settings = {"teacher": "fake", "sources": "retrieved", "retrieval": options}
        with open_job(task(tmp_path, "languages: [en]"), tmp_path / "run", silent, settings) as job:
            return job.retrieval()

    assert not retrieved().reused
    unreached[0] = 2
    kept = retrieved()
    assert (kept.reused, kept.facts["unreached"]) == (True, 1), "one more is away now: the old rows are the better ones"
    unreached[0] = 0
    assert not retrieved().reused
    assert retrieved().reused


def test_seed_tasks_are_read_again_when_they_change(tmp_path: Path) -> None:
    def written(word: str) -> tuple[bool, str]:
        seeds = [
            {"instruction": f"{word} number {i} in words.", "input": "", "output": f"{word} {i}"} for i in range(12)
        ]
        lines(tmp_path / "seeds.jsonl", seeds)
        file = task(tmp_path, "kind: instructions\nseed_tasks: seeds.jsonl", "Follow users' instructions.")
        with open_job(file, tmp_path / "run", silent, {"teacher": "fake", "n": 4, "sources": "generated"}) as job:
            retrieved = job.retrieval()
            stage = job.datagen(retrieved)
        return stage.reused, stage.key

    first, again, other = written("Count"), written("Count"), written("Write")
    assert (first[0], again[0], other[0]) == (False, True, False)
    assert first[1] != other[1]


def split(folder: Path, job: Job, *, heldout: bool) -> Stage:
    """A merge of the user's rows, as `Job.merge` leaves one."""
    texts = [" ".join(f"w{Random(i * 100 + j).randrange(10**6)}" for j in range(15)) for i in range(30)]
    rows = [Row(text, ("billing", "bug")[i % 2], "user") for i, text in enumerate(texts)]
    parts = {"train": rows[:20], "validation": rows[20:25]} | ({"heldout": rows[25:]} if heldout else {})
    for name, part in parts.items():
        write_rows(rows_to_dataset(part, job.spec.label_names), folder / "merge" / f"{name}.parquet")
    return Stage("merge", folder / "merge", "key", "output", False, 0.0, {})


@pytest.mark.parametrize("heldout", [True, False])
def test_rows_that_are_measured_on_are_not_learnt_from_where_nothing_is_held_out(heldout: bool, tmp_path: Path) -> None:
    with open_job(task(tmp_path, "labels: [billing, bug]"), tmp_path / "run", silent, {"teacher": "fake"}) as job:
        (tmp_path / "merge").mkdir()
        merged = split(tmp_path, job, heldout=heldout)
        train, validation = (read_rows(merged.path / f"{name}.parquet") for name in ("train", "validation"))
        led = led_by_user(job, job.settings.distil, train, validation, merged)
    measured, said = held_out_rows(merged.path)
    assert measured.name == ("heldout.parquet" if heldout else "validation.parquet")
    assert ("validation" in said) is not heldout
    assert not set(read_rows(measured)["input"][:]) & set(led.train["input"][:])
    assert (led.train.num_rows > train.num_rows) is heldout, "own rows join where others are measured on"


def test_texts_that_quote_what_is_measured_on_are_not_learnt_from(tmp_path: Path) -> None:
    lines(tmp_path / "texts.jsonl", [{"text": "x"}])
    front = "labels: [billing, bug]\nunlabelled: texts.jsonl"
    with open_job(task(tmp_path, front), tmp_path / "run", silent, {"teacher": "fake"}) as job:
        (tmp_path / "merge").mkdir()
        merged = split(tmp_path, job, heldout=True)
        tables = {name: read_rows(merged.path / f"{name}.parquet") for name in ("train", "validation", "heldout")}
        quoted = [f"Fwd: {text}, sent from phone" for name in tables for text in tables[name]["input"][:2]]
        texts = [*quoted, "nothing of the kind was ever written"]
        (tmp_path / "weak").mkdir()
        (tmp_path / "weak" / "texts.json").write_text(json.dumps({"texts": texts, "places": list(range(len(texts)))}))
        weak = replace(merged, name="weak", path=tmp_path / "weak")
        left = [found.text for found in _unlabelled(job, weak, merged, tables["train"], tables["validation"])]
    assert left == [*quoted[:2], texts[-1]], "texts near training rows may be learnt from, as before"
