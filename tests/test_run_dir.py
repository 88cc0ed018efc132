"""The run folder: reuse, publication in one step, locks, verification."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.errors import ManifestError, RunError, RunLocked, TeacherUnavailable, UnreachableError
from potstill.run_dir import MANIFEST, RunDir, canonical_json, digest, read_manifest, write_atomic

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


class Maker:
    """Writes one file and counts how often it was asked to."""

    def __init__(self, text: str = "hello"):
        self.text, self.calls = text, 0

    def __call__(self, folder: Path) -> dict[str, int]:
        self.calls += 1
        (folder / "rows.txt").write_text(self.text)
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "deep" / "more.txt").write_text(self.text * 2)
        return {"rows": len(self.text)}


@given(JSON)
def test_digest_depends_on_content_alone(value: object) -> None:
    again = json.loads(json.dumps(value))
    assert digest(value) == digest(again)
    assert json.loads(canonical_json(value)) == again


def test_digest_ignores_key_order_and_tells_values_apart() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})


def test_same_key_is_reused_and_other_key_recomputed(tmp_path: Path) -> None:
    run, make = RunDir(tmp_path / "run"), Maker()
    first = run.stage("merge", {"n": 1}, make)
    second = run.stage("merge", {"n": 1}, make)
    assert (first.reused, second.reused, make.calls) == (False, True, 1)
    assert second.facts == {"rows": 5}
    assert second.output == first.output
    third = run.stage("merge", {"n": 2}, make)
    assert (third.reused, make.calls) == (False, 2)
    # Other key, same bytes: the stages below must not notice.
    assert third.key != first.key
    assert third.output == first.output


def test_superseded_output_comes_back_with_its_key(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.stage("merge", {"n": 1}, Maker("one"))
    run.stage("merge", {"n": 2}, Maker("two"))
    again = Maker("never")
    back = run.stage("merge", {"n": 1}, again)
    assert (back.reused, again.calls) == (True, 0)
    assert (back.path / "rows.txt").read_text() == "one"
    forth = run.stage("merge", {"n": 2}, again)
    assert (forth.path / "rows.txt").read_text() == "two"
    assert again.calls == 0
    assert run.verify() == []


def test_failed_make_publishes_nothing_and_keeps_what_it_has(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.stage("train", {"n": 1}, Maker("old"))

    def fails(folder: Path) -> None:
        (folder / "checkpoint").write_text("half")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run.stage("train", {"n": 2}, fails)
    assert (tmp_path / "train" / "rows.txt").read_text() == "old"
    seen = []
    run.stage("train", {"n": 2}, lambda folder: seen.append((folder / "checkpoint").read_text()))
    assert seen == ["half"]


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_damaged_stage_is_made_again_and_kept_aside(tmp_path: Path, damage: str) -> None:
    run, make = RunDir(tmp_path), Maker()
    stage = run.stage("merge", {"n": 1}, make)
    if damage == "missing":
        (stage.path / "rows.txt").unlink()
    else:
        (stage.path / "rows.txt").write_text("he")
    assert not run.stage("merge", {"n": 1}, make).reused
    assert make.calls == 2
    assert run.verify() == []
    assert len(list((tmp_path / ".old").glob("merge-*-damaged"))) == 1


def test_a_damaged_old_output_is_not_brought_back(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.stage("merge", {"n": 1}, Maker("one"))
    run.stage("merge", {"n": 2}, Maker("two"))
    next((tmp_path / ".old").glob("merge-*/rows.txt")).unlink()
    make = Maker("one")
    assert (run.stage("merge", {"n": 1}, make).path / "rows.txt").read_text() == "one"
    assert make.calls == 1
    assert run.verify() == []


def test_a_folder_of_the_user_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "precious.py").write_text("mine")
    make = Maker()
    with pytest.raises(RunError, match=r"is no stage of a run .*--out"):
        RunDir(tmp_path).stage("train", {}, make)
    assert make.calls == 0
    assert (tmp_path / "train" / "precious.py").read_text() == "mine"


def test_a_run_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match=r"cannot be a run folder .*--out"):
        RunDir(tmp_path / "run")


KILLED = """
import os, signal, sys, pathlib
from potstill import run_dir
folder, when = sys.argv[1:]
def make(work):
    (work / "a.txt").write_text("a")
    if when == "middle":
        os.kill(os.getpid(), signal.SIGKILL)
    (work / "b.txt").write_text("b")
if when == "published":
    real = os.replace
    def replace(source, target):
        if str(target).endswith("merge"):
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)
    os.replace = replace
run = run_dir.RunDir(folder)
with run.lock():
    run.stage("merge", {"n": 1}, make)
"""


@pytest.mark.parametrize("when", ["middle", "published"])
def test_kill_leaves_no_half_stage_and_the_next_run_goes_on(tmp_path: Path, when: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), when], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "merge").exists()
    run = RunDir(tmp_path)
    calls = []

    def make(work: Path) -> None:
        calls.append(sorted(path.name for path in work.iterdir()))
        for name in ("a", "b"):
            (work / f"{name}.txt").write_text(name)

    with run.lock():  # the killed process holds nothing
        stage = run.stage("merge", {"n": 1}, make)
    # Killed in the middle: made again in the folder it left. Killed before publication: only published.
    assert calls == ([["a.txt"]] if when == "middle" else [])
    assert sorted(path.name for path in stage.path.iterdir()) == ["a.txt", "b.txt", MANIFEST]
    assert run.verify() == []


HOLDER = """
import sys, os, time
from potstill.run_dir import RunDir
with RunDir(sys.argv[1]).lock():
    if sys.argv[2] == "fork" and os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_excludes_a_second_process_and_names_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path), "plain"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunLocked, match=rf"in use by process {holder.pid}; wait for it"), RunDir(tmp_path).lock():
            pass
        holder.kill()
        holder.wait(10)
    with RunDir(tmp_path).lock(), pytest.raises(RunLocked, match=str(os.getpid())), RunDir(tmp_path).lock():
        pass


def test_a_forked_worker_does_not_hold_the_lock_of_a_killed_run(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), "fork"], stdout=subprocess.PIPE, start_new_session=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            time.sleep(0.2)
            holder.kill()
            holder.wait(10)
            with RunDir(tmp_path).lock():
                pass
        finally:
            os.killpg(holder.pid, signal.SIGKILL)


def test_verify_finds_changed_missing_and_extra_files(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for name in ("datagen", "merge", "train"):
        run.stage(name, {}, Maker())
    assert run.verify() == []
    (tmp_path / "datagen" / "rows.txt").write_text("jello")  # same size
    (tmp_path / "merge" / "deep" / "more.txt").unlink()
    (tmp_path / "train" / "extra.txt").write_text("")
    assert run.verify() == [
        "datagen/rows.txt: content differs from the manifest",
        "merge/deep/more.txt: missing",
        "train/extra.txt: not in the manifest",
    ]


def test_verify_finds_a_changed_file_list_and_a_broken_manifest(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.stage("merge", {}, Maker())
    run.stage("train", {}, Maker())
    manifest = read_manifest(tmp_path / "merge")
    del manifest["files"]["rows.txt"]
    (tmp_path / "merge" / MANIFEST).write_text(json.dumps(manifest))
    (tmp_path / "train" / MANIFEST).write_text('{"key": "x"')
    faults = run.verify()
    assert faults[0] == "merge/manifest.json: its file list was changed"
    assert "merge/rows.txt: not in the manifest" in faults
    assert "is not a readable manifest" in faults[-1]
    with pytest.raises(ManifestError, match=r"delete .* and run again"):
        run.finished("train")


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"key": 1, "files": 3, "output": "", "seconds": 1}', "\xff"])
def test_any_broken_manifest_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(ManifestError):
        read_manifest(tmp_path)


def test_symbolic_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    run = RunDir(tmp_path / "run")
    with pytest.raises(ManifestError, match="symbolic link"):
        run.stage("merge", {}, lambda folder: (folder / "link").symlink_to(tmp_path / "secret"))
    assert not (tmp_path / "run" / "merge").exists()
    run.stage("train", {}, Maker())
    (tmp_path / "run" / "train" / "link").symlink_to(tmp_path / "secret")
    assert "symbolic link" in run.verify()[0]


def test_write_atomic_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \ud800")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["facts.json"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"),
    ],
)
def test_a_full_disk_is_one_error_with_its_mend_and_loses_nothing(tmp_path: Path, error: Exception) -> None:
    run = RunDir(tmp_path)
    run.stage("merge", {"n": 1}, Maker())

    def fails(folder: Path) -> None:
        (folder / "checkpoint").write_text("half")
        raise error

    with pytest.raises(RunError, match=r"stage train: .* cannot be written .*free space.*same command again"):
        run.stage("train", {"n": 1}, fails)
    assert not (tmp_path / "train").exists()
    assert run.verify() == []
    assert run.stage("train", {"n": 1}, Maker()).facts == {"rows": 5}


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "no such file", "rows.txt")

    with pytest.raises(FileNotFoundError):
        RunDir(tmp_path).stage("train", {}, fails)


@pytest.mark.parametrize("error", [TeacherUnavailable("away"), UnreachableError("away"), KeyboardInterrupt()])
def test_a_stage_that_is_to_be_made_again_stays_until_the_new_one_is_whole(
    tmp_path: Path, error: BaseException
) -> None:
    run, told = RunDir(tmp_path), list[str]()
    first = run.stage("one", {}, Maker("old"))

    def fails(folder: Path) -> None:
        (folder / "half").write_text("")
        raise error

    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            run.stage("one", {}, fails, again=lambda stage: True)
    else:
        kept = run.stage("one", {}, fails, again=lambda stage: True, tell=told.append)
        assert (kept.reused, len(told)) == (True, 1)
        assert "stays as it was made" in told[0]
    assert (first.path / "rows.txt").read_text() == "old"
    assert run.verify() == []
    again = run.stage("one", {}, Maker("new"), again=lambda stage: True)
    assert (again.reused, (again.path / "rows.txt").read_text()) == (False, "new")


def test_what_comes_back_with_its_key_may_have_to_be_made_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.stage("one", {"n": 1}, Maker("old"))
    run.stage("one", {"n": 2}, Maker("other"))
    stale = run.stage("one", {"n": 1}, Maker("new"), again=lambda stage: True)
    assert (stale.reused, (stale.path / "rows.txt").read_text()) == (False, "new")
