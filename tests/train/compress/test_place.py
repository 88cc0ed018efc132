"""Where a compressed student may be written: never over what somebody else put there."""

import shutil
from dataclasses import replace

import pytest

from potstill.errors import OptionError, RunLocked
from potstill.run_dir import RunDir
from potstill.train.compress.options import CompressOptions
from potstill.train.compress.run import compress_student
from potstill.train.compress.zoo import compress_all

QUICK = CompressOptions(formats=("packed",), speed="none")


def test_a_folder_with_other_files_is_never_replaced(student, material, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "notes.txt").write_text("mine")
    with pytest.raises(OptionError, match=r"holds files that no compression wrote \(notes.txt\)"):
        compress_student(student, "int8", own, material, QUICK)
    with pytest.raises(OptionError, match=r"holds files that no compression wrote \(notes.txt\)"):
        compress_all(student, own, material, QUICK, recipes=("int8",))
    assert [path.name for path in own.iterdir()] == ["notes.txt"]
    with pytest.raises(OptionError, match="is a file"):
        compress_student(student, "int8", own / "notes.txt", material, QUICK)
    assert not list(tmp_path.glob("*.steps"))


def test_the_folder_that_the_student_lies_in_is_never_replaced(student, material, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(student, run / "train" / "student")
    (run / "ledger.sqlite").write_bytes(b"replies that were paid for")
    (run / "train" / "manifest.json").write_text("{}")
    for place in (run, run / "train", run / "train" / ".." / "train" / "student"):
        with pytest.raises(OptionError, match="give another folder"):
            compress_student(run / "train" / "student", "int8", place, material, QUICK)
    with pytest.raises(OptionError, match=r"lies in a stage of a run \(.*train\)"):
        compress_student(run / "train" / "student", "int8", run / "train" / "small", material, QUICK)
    assert (run / "ledger.sqlite").exists()
    assert not list(run.rglob("*.steps"))


def test_what_a_compression_wrote_is_replaced_by_the_next(student, material, tmp_path):
    small = tmp_path / "small"
    small.mkdir()  # an empty folder is as good as none
    compress_student(student, "int8", small, material, QUICK)
    compress_student(student, "bf16", small, material, QUICK)
    assert '"bf16"' in (small / "compression.json").read_text()
    zoo = tmp_path / "zoo"
    compress_all(student, zoo, material, QUICK, recipes=("int8",))
    compress_all(student, zoo, material, replace(QUICK, rows=10), recipes=("bf16",))
    with pytest.raises(OptionError, match="holds files that no compression wrote"):
        compress_student(student, "int8", zoo, material, QUICK)
    with pytest.raises(OptionError, match="holds files that no compression wrote"):
        compress_all(student, small, material, QUICK, recipes=("int8",))


def test_two_processes_do_not_compress_into_one_folder(student, material, tmp_path):
    for held, compress in (
        ("small.steps", lambda: compress_student(student, "int8", tmp_path / "small", material, QUICK)),
        ("zoo/all", lambda: compress_all(student, tmp_path / "zoo", material, QUICK, recipes=("int8",))),
    ):
        (tmp_path / held).mkdir(parents=True)
        with RunDir(tmp_path / held).lock(), pytest.raises(RunLocked, match=rf"{held} is in use by process \d+"):
            compress()
        assert compress().path.exists()
    assert not (tmp_path / "small.steps").exists()
    # A run seals these folders, and equal runs have equal files.
    assert not list(tmp_path.rglob(".lock"))
