"""What a run settles before it asks: the window that its folder keeps, and rows that cannot suffice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from potstill.datagen.options import GenerationOptions
from potstill.errors import OptionError
from potstill.events import Event
from potstill.pipeline import open_job, run
from potstill.plan.estimate import plan_run
from potstill.preview import preview_rows
from potstill.run_dir import RunDir
from potstill.settings import resolve
from potstill.stages.start import check_start, lacking_rows, settled
from potstill.task import DataRef, Label, Rule, TaskSpec

TASK = "Classify a message as billing, delivery or other."
SPEC = TaskSpec("t", "Classify.", "classification", tuple(Label(name) for name in "abcdefghijkl"))


def test_a_folder_keeps_its_window(tmp_path: Path) -> None:
    told: list[Event] = []
    assert settled(tmp_path, GenerationOptions(), 64, told.append).window == 512
    assert settled(tmp_path, GenerationOptions(), 8, told.append).window == 512
    assert not told
    assert settled(tmp_path, GenerationOptions(), 256, told.append).window == 512
    assert [event.message for event in told] == [
        "this folder plans 512 requests ahead, as it began; 256 at a time want 2048: --set generation.window=2048"
    ]
    assert settled(tmp_path, GenerationOptions(window=7), 256).window == 7
    assert json.loads((tmp_path / "window.json").read_text()) == {"window": 512, "concurrency": 64}
    for damaged in ("", "[]", '{"window": "x"}', '{"window": 0}', "\x00"):
        (tmp_path / "window.json").write_text(damaged)
        assert settled(tmp_path, GenerationOptions(), 16).window == 128


def test_a_plan_leaves_no_window_behind(tmp_path: Path) -> None:
    assert settled(tmp_path, GenerationOptions(), 64, keep=False).window == 512
    assert list(tmp_path.iterdir()) == []


def test_another_concurrency_asks_nothing_again(tmp_path: Path) -> None:
    given = {"teacher": "fake", "sources": "generated", "rows": 40}
    asked = []
    for concurrency in (8, 200):
        with open_job(TASK, tmp_path / "run", lambda event: None, {**given, "concurrency": concurrency}) as job:
            stage = job.datagen(job.retrieval())
            asked.append((job.asker.counts.fresh, stage.reused))
    assert asked[0][0] > 30
    assert asked[1] == (0, True)
    manifest = RunDir(tmp_path / "run").finished("datagen")
    assert manifest is not None
    assert json.loads((manifest.path / "report.json").read_text())["window"] == 128


def test_fewer_rows_than_labels_are_refused_or_named() -> None:
    alone = resolve({}, {"rows": 10, "sources": "generated"})
    text = "10 rows for 12 labels: nothing would be written for 2 of them; ask for 120 with -n 120 (ten a label)"
    with pytest.raises(OptionError) as caught:
        check_start(SPEC, alone, lambda event: None)
    assert text in str(caught.value)
    told: list[Event] = []
    check_start(SPEC, resolve({}, {"rows": 10}), told.append)
    assert len(told) == 1
    assert text in told[0].message
    enough = resolve({}, {"rows": 12, "sources": "generated"})
    assert "12 rows for 12 labels leave none to measure on" in lacking_rows(SPEC, enough)
    assert lacking_rows(replace(SPEC, test=DataRef("rows.jsonl")), enough) == ""
    assert lacking_rows(SPEC, resolve({}, {"rows": 13, "sources": "generated"})) == ""
    assert lacking_rows(SPEC, resolve({}, {"rows": 10, "sources": "retrieved"})) == ""
    labelled = TaskSpec("t", "Classify.", "classification", SPEC.labels, labelled=DataRef("rows.jsonl"))
    check_start(labelled, alone, told.append)
    assert len(told) == 2


def test_the_users_own_rows_alone_have_to_be_there() -> None:
    own = resolve({}, {"sources": "labelled"})
    assert not own.retrieves
    assert not own.writes
    with pytest.raises(OptionError, match=r"the task has none; name them \(labelled: FILE"):
        check_start(SPEC, own, lambda event: None)
    told: list[Event] = []
    labelled = TaskSpec("t", "Classify.", "classification", SPEC.labels, labelled=DataRef("rows.jsonl"))
    check_start(labelled, own, told.append)
    assert told == []


def test_a_language_that_the_built_in_models_do_not_know_is_named() -> None:
    german = TaskSpec("t", "Ordne ein.", "classification", SPEC.labels, languages=("de",))
    told: list[Event] = []
    check_start(german, resolve({}, {"rows": 12}), told.append)
    assert [event.message for event in told] == [
        "de, and the built-in teacher, sentence encoder and student know English alone; give models that know de "
        "(--teacher, encoder:, distil.student:)"
    ]
    told.clear()
    other = {
        "rows": 12,
        "teacher": "openai:http://127.0.0.1:1/v1",
        "encoder": "./multilingual",
        "distil": {"student": "./multilingual"},
    }
    check_start(german, resolve({}, other), told.append)
    assert told == []


def test_a_run_refuses_what_a_preview_shows(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="2 rows for 3 labels"):
        run(TASK, out=tmp_path / "run", teacher="fake", sources="generated", rows=2)
    seen = preview_rows(TASK, rows=2, out=tmp_path / "seen", teacher="fake", sources="generated")
    assert len(seen.rows) == 2


def test_what_counts_for_nothing_is_said() -> None:
    told: list[Event] = []
    given = {"rows": 40, "teacher": "fake", "generation": {"max_words": 9, "attributes": "none", "novelty": 0.6}}
    check_start(TaskSpec("t", "Help gardeners.", "instructions"), resolve(given, {}), told.append)
    assert [event.message for event in told] == [
        "kind: instructions does not go by generation.attributes, generation.max_words"
    ]
    told.clear()
    ruled = replace(SPEC, rules=(Rule("a", "keyword", ("ant",)),))
    check_start(ruled, resolve({"rows": 40}, {"sources": "retrieved", "quality": {"votes": 2}}), told.append)
    assert [event.message for event in told] == [
        "no row is written (sources), so the checks of `quality` have nothing to look at; "
        "`rules` label the texts of `unlabelled`, and the task names none"
    ]
    told.clear()
    check_start(
        replace(ruled, unlabelled=DataRef("texts.txt")), resolve({**given, "quality": {"votes": 2}}, {}), told.append
    )
    assert told == []


def test_labelling_functions_without_texts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one text\nanother text\n")
    rewrite = f"---\nkind: generation\nunlabelled: {tmp_path / 'texts.txt'}\n---\nSay the sentence more politely.\n"
    for task, said in ((TASK, "the task names none"), (rewrite, "this is generation")):
        with pytest.raises(OptionError, match=f"labelling_functions .*{said}"):
            run(task, out=tmp_path / "run", teacher="fake", labelling_functions=[lambda text: None])
    assert not (tmp_path / "run" / "retrieval").exists()


def test_checks_that_cannot_be_made_are_refused_before_a_row_is_written(tmp_path: Path) -> None:
    rewrite = "---\nkind: generation\n---\nSay the sentence more politely.\n"
    given = {"teacher": "fake", "sources": "generated", "rows": 20, "quality": {"verify": True}}
    with pytest.raises(OptionError, match=r"quality\.verify checks labels, and the task is generation"):
        run(rewrite, out=tmp_path / "run", **given)
    assert not (tmp_path / "run" / "datagen").exists()
    with pytest.raises(OptionError, match=r"quality\.verify checks labels, and the task is generation"):
        plan_run(rewrite, out=tmp_path / "plan", **given)
