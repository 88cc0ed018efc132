"""The suites of `benchmarks/torture.py`, each in a size that takes seconds; and what the project stands on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Benchmarks and scripts can be imported."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield
    for name in [name for name in sys.modules if name == "sbom" or name.startswith("torture")]:
        del sys.modules[name]


def bad(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert records
    assert all(record["count"] > 0 for record in records)
    return [record for record in records if record["bad"]]


def test_teacher(programs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torture_teacher

    monkeypatch.setattr(torture_teacher, "FAULTS", tuple(f for f in torture_teacher.FAULTS if not f.startswith("slow")))
    records = torture_teacher.teacher(180, tmp_path)
    assert bad(records) == []
    assert records[0]["failed_with_reason"] == 2  # 77 and 177
    assert records[0]["kinds_of_fault"] >= 8


def test_fuzz(programs: None, tmp_path: Path) -> None:
    import torture_fuzz

    records = torture_fuzz.fuzz(1000, tmp_path)
    assert bad(records) == []
    assert all(record["read"] > 0 for record in records)


def test_fuzz_sees_a_crash_and_a_file_elsewhere(
    programs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torture_fuzz

    def broken(text: str) -> None:
        (tmp_path / "owned").write_text("x")
        assert "\x00" not in text, "a zero"

    monkeypatch.setattr(torture_fuzz, "parsers", lambda place: {"broken": (broken, ())})
    [record] = torture_fuzz.fuzz(300, tmp_path)
    assert record["bad"] > 1
    assert "AssertionError" in record["which"][0]


def test_leaks(programs: None) -> None:
    import torture_leaks

    records = torture_leaks.leaks(60)
    assert bad(records) == []
    recall = {record["what"].split(", ")[-1]: record["recall"] for record in records if "recall" in record}
    assert recall["1 word in 20 changed"] >= 0.95
    assert recall["1 word in 3 changed"] < recall["1 word in 10 changed"]


def test_secrets(programs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torture_secrets

    monkeypatch.setenv("OPENAI_API_KEY", "another")
    [record] = torture_secrets.secrets(tmp_path)
    assert bad([record]) == []
    assert record["requests_that_carried_it"] >= 6
    assert record["files_read"] >= 12


@pytest.mark.real
def test_secrets_of_a_run(programs: None, tmp_path: Path) -> None:
    import torture_secrets

    [record] = torture_secrets.secrets_of_a_run(tmp_path)
    assert bad([record]) == []
    assert record["requests_that_carried_it"] >= 12
    assert record["files_read"] >= 20


def test_ledger_look_ups(programs: None, tmp_path: Path) -> None:
    import torture_ledger

    assert bad(torture_ledger.ledger_size(3000, tmp_path)) == []


def test_a_power_failure_takes_what_was_not_synced_and_no_more(programs: None, tmp_path: Path) -> None:
    import torture_power

    seen = set()
    for seed in range(60):
        folder, shadow = tmp_path / f"run-{seed}", tmp_path / f"shadow-{seed}"
        folder.mkdir()
        recorder = torture_power.Recorder(folder, shadow)
        with (folder / "kept").open("w") as file:
            file.write("safe")
            file.flush()
            os.fsync(file.fileno())
            recorder.synced(file.fileno())
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            recorder.synced(descriptor)
            os.close(descriptor)
            file.write(" and more")
        (folder / "first").write_text("not synced")
        recorder.note()
        (folder / "kept").rename(folder / "renamed")
        recorder.note()
        (folder / "last").write_text("")
        torture_power.lose(folder, shadow, random.Random(seed))
        left = {path.name: path.read_text() for path in folder.iterdir()}
        kept = left.get("kept", left.get("renamed", ""))
        assert kept.startswith("safe")
        assert "safe and more".startswith(kept)
        assert "not synced".startswith(left.get("first", ""))
        names = frozenset(left)
        # Names come in order: none without those before it, and a rename leaves one of its two.
        assert names in [{"kept"}, {"kept", "first"}, {"renamed", "first"}, {"renamed", "first", "last"}]
        seen |= {names, kept, left.get("first")}
    assert {"safe", "safe and more", "", "not synced"} < seen
    assert frozenset({"kept"}) in seen
    assert frozenset({"renamed", "first", "last"}) in seen


@pytest.mark.real
def test_files(programs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torture_files

    some = ("parquet", "jsonl.gz", "index", "student's card")
    monkeypatch.setattr(torture_files, "KINDS", {kind: torture_files.KINDS[kind] for kind in some})
    records = torture_files.files(80, tmp_path)
    assert bad(records) == []
    assert {record["what"] for record in records} == set(some)
    assert sum(record["refused"] for record in records) > 20


@pytest.mark.real
def test_load(programs: None, tmp_path: Path) -> None:
    import torture_load

    few, many = torture_load.load(2, tmp_path)
    assert bad([few, many]) == []
    assert few["refused"] == 0
    assert many["refused"] > 0


@pytest.mark.real
def test_whole_runs(programs: None, tmp_path: Path) -> None:
    import torture_clock
    import torture_crash
    import torture_power
    import torture_runs

    with torture_runs.running(tmp_path) as runs:
        torture_runs.make_calm(runs, push=False)
        assert runs.steps > 50
        assert len(runs.asked) > 30
        assert bad(torture_crash.crash(runs, 2, seed=0, push=False)) == []
        assert bad(torture_power.power(runs, 3, seed=0)) == []
        assert bad(torture_clock.clock(runs, 1, seed=0)) == []
        again = runs.run(runs.calm, export=False)
        assert (again["status"], again["made"]) == (0, [])
        full = runs.run(tmp_path / "full", export=False, stage="datagen", errno=28)
        assert full["status"] == 4
        assert "No space left" in full["error"]


# ---- supply chain ---------------------------------------------------------------------------------------------------


def test_the_lock_pins_and_hashes_every_dependency() -> None:
    text = (ROOT / "requirements.lock").read_text()
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]
    pins = {}
    for entry in entries:
        name, version = re.match(r"([\w.\-]+)==([\w.+!]+)", entry).groups()  # type: ignore[union-attr]
        assert "--hash=sha256:" in entry, f"{name} has no hash"
        pins[name.lower().replace("_", "-")] = version
    for declared in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        need = Requirement(declared)
        name = need.name.lower().replace("_", "-")
        if name != "torch":
            assert need.specifier.contains(pins[name]), declared
    assert "torch" not in pins
    assert not re.search(r"https?://|file:|index-url|find-links", text), "the lock names an index"


def test_the_bill_of_materials_names_every_dependency_with_its_licence(programs: None) -> None:
    import sbom

    found = sbom.document("potstill")
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    names = {item["name"].lower() for item in found["components"]}
    assert {"torch", "transformers", "numpy", "typer"} <= names
    assert len(names) > 40
    assert sbom.problems(found) == []
    assert json.dumps(found) == json.dumps(sbom.document("potstill")), "it differs each time"
    numpy = next(item for item in found["components"] if item["name"] == "numpy")
    assert numpy["purl"] == f"pkg:pypi/numpy@{importlib.metadata.version('numpy')}"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("MIT", True), ("BSD-3-Clause AND MIT", True), ("GPL-3.0-only", False), ("GPL-2.0 OR MIT", True),
        ("MIT AND GPL-3.0-or-later", False), ("Proprietary", False), ("LGPL-2.1", True), ("", False),
    ],
)  # fmt: skip
def test_licences(text: str, good: bool, programs: None) -> None:
    import sbom

    assert sbom.allowed(text) is good
