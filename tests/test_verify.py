"""`potstill verify`: one changed byte anywhere is found, and the mend is said."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from potstill.asking.ledger import Ledger
from potstill.errors import RunLocked, UserError
from potstill.rows import Row, Source, rows_to_dataset, write_rows
from potstill.run_dir import MANIFEST, OPTIONAL_STAGES, STAGES, RunDir, seal_root
from potstill.verify import verify_run


def write_run(folder: Path) -> Path:
    """A run of small stages that were made from each other, as the pipeline chains them."""
    run = RunDir(folder)
    with run.lock(), Ledger(run.ledger_path) as ledger:
        for number in range(6):
            ledger.record(
                f"{number:064x}", purpose="generate", teacher="fake", request={"messages": [["user", f"ask {number}"]]},
                reply={"text": f"answer number {number}, which is long enough to look at"}, finish="stop",
                max_tokens=64, prompt_tokens=10, completion_tokens=8,
            ).result()  # fmt: skip

        def rows(out: Path) -> dict[str, int]:
            made = [
                Row(f"text {i}", "a", "generated", Source(teacher="fake", requests=(f"{i:064x}",)), "a")
                for i in range(6)
            ]
            write_rows(rows_to_dataset(made, ("a", "b")), out / "rows.parquet")
            return {"rows": 6}

        def words(out: Path) -> dict[str, str]:
            (out / "student").mkdir(exist_ok=True)
            (out / "student" / "config.json").write_text('{"layers": 2}\n')
            (out / "report.json").write_text('{"rows": 6}\n')
            return {"summary": "6 rows, die Größe stimmt"}

        run.stage("task", {}, words)
        retrieved = run.stage("retrieval", {"n": 1}, words)
        written = run.stage("datagen", {"retrieved": retrieved.output}, rows)
        merged = run.stage("merge", {"rows": [retrieved.output, written.output], "share": 0.1}, rows)
        soft = run.stage("soft", {"rows": [merged.output, written.output]}, rows)
        trained = run.stage("train", {"rows": soft.output}, words)
        run.stage("evaluate", {"inputs": [trained.output, soft.output, merged.output]}, words)
    (folder / "run.json").write_text('{"command": "potstill run"}\n')
    (folder / "report.html").write_text("<html></html>")
    (folder / "report.md").write_text("# Report\n")
    seal_root(folder)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def faults(folder: Path) -> list[str]:
    return [fault.what for fault in verify_run(folder).faults]


def flip(path: Path, place: int) -> bytes:
    """Change one bit of one byte; gives the bytes as they were."""
    data = path.read_bytes()
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    return data


def test_a_compressed_student_is_checked_like_the_others(run: Path) -> None:
    folder = RunDir(run)
    with folder.lock():
        before = {name: folder.finished(name) for name in ("train", "soft", "merge")}
        inputs = [stage.output for stage in before.values() if stage is not None]

        def small(out: Path) -> dict[str, str]:
            (out / "report.json").write_text("{}")
            return {"summary": "half"}

        folder.stage("compress", {"inputs": inputs}, small)
        folder.stage("train", {"rows": "others"}, small)
    assert any(what.startswith("compress: stale; it was made from an output of train") for what in faults(run))
    (run / "compress" / MANIFEST).unlink()
    assert f"compress/{MANIFEST}: missing" in faults(run)


def test_a_sound_run_has_no_fault(run: Path) -> None:
    found = verify_run(run)
    assert found.faults == ()
    assert (found.stages, found.replies) == (7, 6)
    assert found.files == 14
    assert found.notes == ()


def test_one_changed_byte_of_any_artefact_is_found(run: Path) -> None:
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.name not in (".lock", "ledger.sqlite")]
    assert len(files) == 14 + 7 + 1  # with manifests and files.json
    flips = 0
    for path in files:
        size = path.stat().st_size
        for place in range(0, size, max(1, size // 12)):
            before = flip(path, place)
            found = verify_run(run).faults
            assert found, f"{path} at byte {place}"
            assert all(fault.mend for fault in found)
            path.write_bytes(before)
            flips += 1
    assert flips > 200
    assert faults(run) == []


def test_every_byte_of_a_manifest_counts(run: Path) -> None:
    path = run / "merge" / MANIFEST
    unseen = []
    for place in range(path.stat().st_size):
        before = flip(path, place)
        if not faults(run):
            unseen.append(place)
        path.write_bytes(before)
    assert unseen == []


def test_one_changed_byte_of_a_stored_reply_is_found(run: Path) -> None:
    ledger = run / "ledger.sqlite"
    connection = sqlite3.connect(ledger)
    cells = connection.execute("SELECT key, request, reply, purpose FROM replies").fetchall()
    connection.close()
    data = ledger.read_bytes()
    flips = 0
    for key, request, reply, _ in cells:
        for cell in (key.encode(), request, reply):
            start = data.find(cell)
            assert start > 0
            for place in range(start, start + len(cell), max(1, len(cell) // 8)):
                before = flip(ledger, place)
                assert faults(run), f"byte {place}"
                ledger.write_bytes(before)
                flips += 1
    assert flips > 100
    assert faults(run) == []


@pytest.mark.parametrize("column", ["prompt_tokens", "completion_tokens", "attempts", "max_tokens", "seconds"])
def test_a_changed_count_of_the_ledger_is_found(run: Path, column: str) -> None:
    connection = sqlite3.connect(run / "ledger.sqlite")
    connection.execute(f"UPDATE replies SET {column} = {column} + 1 WHERE id = 3")
    connection.commit()
    connection.close()
    assert faults(run) == ["ledger.sqlite: reply 3 differs from its checksum"]


def test_missing_extra_and_unpublished(run: Path) -> None:
    (run / "train" / "report.json").unlink()
    (run / "soft" / "more.txt").write_text("")
    (run / "merge" / MANIFEST).unlink()
    (run / "report.md").unlink()
    found = faults(run)
    assert "train/report.json: missing" in found
    assert "soft/more.txt: not in the manifest" in found
    assert "merge/manifest.json: missing" in found
    assert "report.md: missing" in found


def test_a_stage_made_from_another_output_is_stale(run: Path) -> None:
    folder = RunDir(run)
    folder.stage("retrieval", {"n": 2}, lambda out: (out / "rows.txt").write_text("other") and None)
    found = verify_run(run).faults
    assert [fault.what.split(";")[0] for fault in found] == ["datagen: stale", "merge: stale"]
    assert all("again" in fault.mend for fault in found)


def test_a_key_that_is_not_of_its_parts(run: Path) -> None:
    from potstill.run_dir import digest

    path = run / "merge" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["key_parts"]["share"] = 0.2
    del manifest["seal"]
    manifest["seal"] = digest(manifest)
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    assert faults(run) == ["merge/manifest.json: its key is not the hash of its parts"]


def test_a_damaged_output_in_old_is_found_before_it_comes_back(run: Path) -> None:
    RunDir(run).stage("evaluate", {"inputs": ["x"]}, lambda out: (out / "s.txt").write_text("other") and None)
    [kept] = (run / ".old").glob("evaluate-*")
    flip(kept / "report.json", 2)
    assert any(what.startswith(".old/evaluate-") for what in faults(run))


def test_replies_that_rows_name_must_be_there(run: Path) -> None:
    connection = sqlite3.connect(run / "ledger.sqlite")
    connection.execute("DELETE FROM replies WHERE id = 2")
    connection.commit()
    connection.close()
    assert faults(run) == ["ledger.sqlite: 1 replies that rows of datagen name are not in it"]


@pytest.mark.parametrize("text", [b"", b"not a database at all, and longer than a header " * 40])
def test_a_ledger_that_is_none(run: Path, text: bytes) -> None:
    (run / "ledger.sqlite").write_bytes(text)
    assert faults(run)[0].startswith("ledger.sqlite: ")


def test_an_older_ledger_and_an_older_manifest_pass_with_what_they_have(run: Path) -> None:
    connection = sqlite3.connect(run / "ledger.sqlite")
    connection.execute("ALTER TABLE replies DROP COLUMN sum")
    connection.commit()
    connection.close()
    path = run / "train" / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["seal"]
    path.write_text(json.dumps(manifest))
    assert faults(run) == []
    with Ledger(run / "ledger.sqlite") as ledger:  # opened for writing, it gets the column
        old = ledger.get(f"{1:064x}")
        assert old is not None
        fields: dict[str, Any] = {"purpose": "p", "teacher": "t", "request": {}, "reply": {}, "finish": "stop"}
        ledger.record("k", **fields, max_tokens=1, prompt_tokens=1, completion_tokens=1).result()
    assert faults(run) == []


def test_a_run_in_use_is_not_judged(run: Path) -> None:
    with RunDir(run).lock(), pytest.raises(RunLocked):
        verify_run(run)


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run at"):
        verify_run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_with_4_and_says_the_mend(run: Path) -> None:
    command = [sys.executable, "-m", "potstill.cli", "verify", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "14 files of 7 stages" in done.stdout
    flip(run / "train" / "student" / "config.json", 3)
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert "train/student/config.json: content differs" in done.stderr
    assert "potstill run" in done.stderr
    assert json.loads(done.stdout)["faults"][0]["what"].startswith("train/student/config.json")


def test_the_stages_are_those_of_the_pipeline() -> None:
    from potstill.stages.job import Job

    own = {name for name in vars(Job) if name in STAGES}
    assert own | set(OPTIONAL_STAGES) == set(STAGES)
