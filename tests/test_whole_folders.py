"""A folder is replaced by a complete one, or stays."""

from __future__ import annotations

import gc
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from potstill.whole_folders import PassingFolder, replace_folder, written_whole


def folder(place: Path, text: str) -> Path:
    place.mkdir(parents=True)
    (place / "file").write_text(text)
    return place


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_a_folder_takes_a_place_that_is_free_or_taken(tmp_path: Path) -> None:
    final = tmp_path / "student"
    for text in ("one", "two", "three"):
        with written_whole(final) as ready:
            (ready / "deep").mkdir()
            (ready / "deep" / "file").write_text(text)
            if text == "three":  # until the end, the old one is there
                assert (final / "deep" / "file").read_text() == "two"
        assert (final / "deep" / "file").read_text() == text
    assert names(tmp_path) == ["student"]
    assert final.stat().st_mode & 0o777 == 0o755


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    final = folder(tmp_path / "student", "old")

    def write() -> None:
        with written_whole(final) as ready:
            (ready / "file").write_text("half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write()
    assert (final / "file").read_text() == "old"
    assert names(tmp_path) == ["student"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_kill_at_either_rename_leaves_the_old_folder_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    final, calls, rename = folder(tmp_path / "student", "old"), [0], os.replace

    class Killed(BaseException):
        pass

    def killed(*given: Any) -> None:
        calls[0] += 1
        if calls[0] == failing:
            raise Killed
        rename(*given)

    ready = folder(tmp_path / "ready", "new")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(Killed):
            replace_folder(ready, final)
    left = final if failing == 1 else tmp_path / ".student.before"
    assert (left / "file").read_text() == "old"
    with pytest.raises(FileNotFoundError):  # the next attempt fails as well: the old one is back in its place
        replace_folder(tmp_path / "nowhere", final)
    assert (final / "file").read_text() == "old"
    replace_folder(tmp_path / "ready", final)
    assert (final / "file").read_text() == "new"
    assert names(tmp_path) == ["student"]


def test_a_rename_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final, rename = folder(tmp_path / "student", "old"), os.replace

    def refused(source: Any, place: Any) -> None:
        if Path(source).name == "ready":
            raise PermissionError("not allowed")
        rename(source, place)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError):
        replace_folder(folder(tmp_path / "ready", "new"), final)
    assert (final / "file").read_text() == "old"


def test_a_passing_folder_goes_with_its_holder_and_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = PassingFolder(), PassingFolder()
        places = Path(first.name), Path(second.name)
        (places[0] / "inside").write_text("x")
        del first
        gc.collect()
        assert not places[0].exists()
        second.cleanup()
        second.cleanup()
        assert not places[1].exists()
