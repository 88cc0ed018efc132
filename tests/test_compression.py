"""Compression as a user meets it: the stage of a run, the command, the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import potstill
from potstill.compression import file_material
from potstill.datagen.soft_options import SoftOptions
from potstill.errors import DataError, OptionError, RunError
from potstill.events import silent
from potstill.report.compression_page import drawing, markdown, pareto_front
from potstill.rows import read_rows
from potstill.run_dir import RunDir, Stage
from potstill.settings import EvaluateOptions
from potstill.stages.evaluation import evaluate_run
from potstill.stages.optional import compress_stage
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.zoo import ZOO

ROOT = Path(__file__).resolve().parent.parent
TASK = ROOT / "examples" / "support" / "task.md"
SMALL = {
    "n": 24, "teacher": "fake", "sources": "generated", "distil": {"epochs": 1, "min_steps": 4},
    "evaluate": {"rows": 12, "latency_rows": 2, "teacher": False},
    "compress": {"recipe": [{"quantize": "int8-channel"}], "formats": ["packed"], "speed": "none"},
}  # fmt: skip


def report_of(*entries: tuple[str, float, float]) -> dict[str, object]:
    steps = [{"step": name, "kind": "quantize", "size_mib": size, "score": score} for name, size, score in entries]
    return {"recipe": "all", "source": "x", "metric": "macro_f1", "test_rows": 10, "steps": steps, "notes": ["a note"]}


def test_the_front_holds_what_no_other_beats_in_both() -> None:
    points = [(10.0, 0.9), (5.0, 0.8), (5.0, 0.7), (20.0, 0.9), (2.0, 0.75), (1.0, 0.1)]
    assert pareto_front(points) == [5, 4, 1, 0]


def test_the_report_shows_every_step_and_its_drawing_stands_alone() -> None:
    report = report_of(("original", 80.0, 0.9), ("int8 | <b>", 20.0, 0.89))
    text = markdown(report)
    assert "| original | 80.0 |" in text
    assert "int8 \\| <b>" in text
    assert "- a note" in text
    svg = drawing(report)
    assert svg.startswith("<svg xmlns=")
    assert svg.endswith("</svg>")
    assert "<b>" not in svg
    import xml.etree.ElementTree as tree

    assert len(tree.fromstring(svg).findall(".//{*}circle")) == 2


def test_a_recipe_that_cannot_be_is_refused_before_the_first_stage(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="did you mean 'wanda'"):
        potstill.run(str(TASK), out=tmp_path / "run", teacher="fake", compress={"recipe": "wandda:0.5"})
    assert not (tmp_path / "run" / "retrieval").exists()


def test_a_limit_that_no_recipe_meets_leaves_a_run_without_a_compressed_student(
    sample_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ZOO, "classification", ("int8:channel",))
    run, out, spec = sample_run.write_run(tmp_path / "run"), tmp_path / "compress", sample_run.spec_for()
    out.mkdir()
    options = CompressOptions(recipe="all", max_mib=1e-4, formats=("packed",), speed="none")
    job: Any = SimpleNamespace(
        spec=spec, settings=SimpleNamespace(compress=options), listener=silent,
        make_stage=lambda name, _, make: Stage(name, out, "", "", False, 0.0, make(out)),
    )  # fmt: skip
    small = compress_stage(
        job, *(Stage(name, run / name, "", "", True, 0.0, {}) for name in ("train", "soft", "merge"))
    )
    assert small is not None
    assert str(small.facts["summary"]).startswith("no recipe stays under 0.0001 MiB; the smallest takes")
    assert json.loads((out / "report.json").read_text())["recommended"] is None
    rows = read_rows(run / "merge" / "validation.parquet")
    evaluate_run(
        spec, run / "train" / "student", rows, out, test_set={"kind": "held-out", "source": "x"}, asker=None,
        soft=SoftOptions(), options=EvaluateOptions(latency_rows=1), train_rows=rows, seed=0,
        compressed=small.path / "student",
    )  # fmt: skip
    systems = json.loads((out / "scores.json").read_text())["systems"]
    assert [system["name"] for system in systems] == ["student", "majority"]


def test_the_command_lists_its_methods_and_names_a_wrong_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "potstill.cli", "compress"]
    listed = subprocess.run([*command, "--methods"], capture_output=True, text=True, timeout=120, check=True).stdout
    assert "gptq" in listed
    assert "wanda:0.5" in listed
    done = subprocess.run([*command, "x", "-r", "int88"], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no method 'int88'; did you mean 'int8'?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.real
@pytest.mark.timeout(900)
def test_a_run_with_a_recipe_scores_both_students_and_sends_both(tmp_path: Path) -> None:
    from potstill.hub.export import build_unit
    from potstill.train.student import load_student

    out = tmp_path / "run"
    result = potstill.run(str(TASK), out=out, **SMALL)
    systems = {system["name"]: system for system in result.scores["systems"]}
    small, whole = systems["student (compressed)"], systems["student"]
    assert small["size_mib"] < 0.3 * whole["size_mib"]
    assert small["macro_f1"] >= whole["macro_f1"] - 0.1
    assert result.compressed is not None
    assert result.compressed("My invoice is wrong") in result.student.labels
    report = json.loads((out / "compress" / "report.json").read_text())
    assert [entry["kind"] for entry in report["steps"]] == ["original", "quantize", "files"]
    assert "compress" in {stage.name for stage in result.stages}
    page = result.report.read_text()
    assert "student (compressed)" in page
    assert '<tr class="best"><th scope="row" class="text">files: packed</th>' in page
    assert RunDir(out).verify() == []
    again = potstill.run(str(TASK), out=out, **SMALL)
    assert all(stage.reused for stage in again.stages)
    unit = build_unit(out, tmp_path / "unit")
    assert "compressed/" in (unit.model / "README.md").read_text()
    assert load_student(unit.model / "compressed").labels == result.student.labels
    without = potstill.run(str(TASK), out=out, **{**SMALL, "compress": {}})
    assert "student (compressed)" not in {system["name"] for system in without.scores["systems"]}
    assert without.compressed is None


def test_what_a_compression_would_not_heed_is_refused(sample_run: Any, tmp_path: Path) -> None:
    run, texts = sample_run.write_run(tmp_path / "run"), tmp_path / "texts.txt"
    texts.write_text("a text\n\nanother text\n")
    out = tmp_path / "small"
    for name in ("texts", "test", "held_out"):
        with pytest.raises(OptionError, match=rf"{name} .* has its own rows; .*train/student"):
            potstill.compress(run, "bf16", out=out, **{name: str(texts)})
    with pytest.raises(OptionError, match=r"held_out .* perplexity, and .* classifies"):
        potstill.compress(run / "train" / "student", "bf16", out=out, held_out=str(texts))
    for name in ("max_mib", "max_ms"):
        with pytest.raises(OptionError, match=rf"{name} chooses among the recipes of `all`, and the recipe is bf16"):
            potstill.compress(run, "bf16", out=out, **{name: 1.0})
        with pytest.raises(OptionError, match=rf"{name} chooses among the recipes of `all`"):
            potstill.run(str(TASK), out=tmp_path / "new", teacher="fake", compress={"recipe": "bf16", name: 1.0})
    assert not out.exists()


def test_rows_of_a_student_of_several_fields_are_read_by_its_fields(sample_run: Any, tmp_path: Path) -> None:
    student = tmp_path / "student"
    sample_run.write_student(student)
    card = json.loads((student / "potstill.json").read_text())
    labels = card["labels"]
    (student / "potstill.json").write_text(json.dumps({**card, "inputs": ["review_one", "review_two"]}))
    rows = [
        {"note": f"n {i}", "review_two": f"h {i}", "review_one": f"p {i}", "label": labels[i % len(labels)]}
        for i in range(6)
    ]
    table = tmp_path / "rows.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    material = file_material(student, str(table), str(table), None)
    assert material.test is not None
    assert next(iter(material.test["input"])) == "review_one: p 0\nreview_two: h 0"
    assert "review_one: p 1\nreview_two: h 1" in material.texts


def test_a_disk_that_cannot_be_written_is_said_with_the_mend(
    sample_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    from potstill.train.compress import run as module

    student = tmp_path / "student"
    sample_run.write_student(student)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/small cannot be written .*choose another folder with --out"):
        potstill.compress(student, "bf16", out=tmp_path / "file" / "small", speed="none")

    def full(*_: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(module, "write_files", full)
    with pytest.raises(RunError, match=r"No space left on device.*steps are kept in .*small.steps: free some room"):
        potstill.compress(student, "bf16", out=tmp_path / "small", speed="none")
    monkeypatch.undo()
    done: list[str] = []
    result = potstill.compress(
        student, "bf16", out=tmp_path / "small", speed="none", listener=lambda event: done.append(event.message)
    )
    assert "1 of 1 steps were done before" in done
    assert result.path.exists()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were asked of the Hub, which is far away."""
    import transformers

    asked: list[str] = []

    def ask(name: str, **more: Any) -> Any:
        asked.append(str(name))
        raise OSError("nobody there")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", ask)
    monkeypatch.setattr("potstill.hub_way.hub_unreachable", lambda: "no network to huggingface.co")
    return asked


@pytest.mark.parametrize(
    ("given", "said"),
    [("runs/support-tikets", "did you mean runs/support-tickets"), ("support-tickets", "mean runs/support-tickets"),
     ("suport-ticket", "did you mean runs/support-tickets"), ("rnus/support-tickets", "mean runs/support-tickets"),
     ("tinny", "did you mean tiny"), ("gpt2", "a model of the Hub is named with its user"),
     ("some-user/some-decoder", "the Hub cannot be reached: no network to huggingface.co")],
)  # fmt: skip
def test_a_misspelt_run_is_told_without_the_hub(
    given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for mark in ("runs/support-tickets/task/task.json", "tiny/potstill.json", "runs/other/notes.txt"):
        (tmp_path / mark).parent.mkdir(parents=True)
        (tmp_path / mark).write_text("{}")
    with pytest.raises(DataError, match=said):
        potstill.compress(given, "int8:channel")
    assert not no_hub


def test_a_model_of_the_hub_is_asked_for_by_its_whole_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("potstill.hub_way.hub_unreachable", lambda: "")
    with pytest.raises(DataError, match="no model of that name"):
        potstill.compress("some-user/some-decoder", "int8:channel")
    assert no_hub == ["some-user/some-decoder"]
