"""The run folder: stages that are reused when nothing they depend on has changed.

    RUN/
      task.md  task.json          what was asked, as given and as understood
      ledger.sqlite               every teacher request and reply
      window.json                 how far generation plans ahead, as the folder began (`stages/start.py`)
      .workers.json               address and token for workers, while the run leases requests to some
      own_teacher.json            what the teacher is called that Python gave it (`pipeline.py`)
      run.json  report.*          what it took and gave; files.json holds their sha256
      <stage>/manifest.json       key, inputs, files with sha256; written last
      <stage>/…                   the stage's output
      .work/<stage>-<key>/        a stage under way; survives a kill, so that training can resume
      .old/<stage>-<key>/         superseded outputs; moved back when their key returns
      .lock                       held (flock) by the process at work

A stage is published by one rename of a folder whose files and manifest were fsynced, so a reader sees all of it
or none. Its key is a hash of: the stage's options, the digests of its inputs, all source that its making can reach and
the versions of the libraries that this source imports (`code_version`), the prompt templates, and the models'
identities. Digests are of contents, so a recomputed stage that gives the same bytes leaves everything below it in
place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.errors import ManifestError, RunError, RunLocked, TeacherError, UnreachableError
from potstill.whole_folders import fsync_folder, fsync_tree

# Every stage of a run in its order, those that a run need not have, and those that refuse rows.
STAGES = (
    *("task", "retrieval", "datagen", "quality", "weak", "merge", "soft", "rationales", "train", "compress"),
    "evaluate",
)
OPTIONAL_STAGES = ("quality", "weak", "rationales", "compress")
REFUSING_STAGES = ("retrieval", "datagen", "quality", "weak", "merge")
MANIFEST = "manifest.json"
ROOT_FILES = "files.json"
_OS_ERROR = re.compile(r"\b(?:os error|errno) (\d+)\b")
_ROOT_NAMES = ("run.json", "report.html", "report.md")
_KNOWN_KEYS = {"stage", "key", "key_parts", "files", "output", "seconds", "made_at", "facts", "seal"}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same value gives the same text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """sha256 of a JSON value, in hex."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader, or the file after a power loss, has all of it or the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


@dataclass(frozen=True)
class Stage:
    """A finished stage.

    Attributes:
        name: Its name.
        path: Its folder.
        key: Content key that it was made under.
        output: Digest of its files; the input of stages below.
        reused: True when nothing was computed.
        seconds: Wall-clock seconds that making it took (at the time it was made).
        facts: What the stage wanted remembered (counts, scores), JSON types.
    """

    name: str
    path: Path
    key: str
    output: str
    reused: bool
    seconds: float
    facts: Mapping[str, Any]


# A forked worker shares the lock's open file: one that outlives a killed parent would hold the run for ever.
_HELD: set[int] = set()


def _drop_locks_in_child() -> None:
    for descriptor in _HELD:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _HELD.clear()


os.register_at_fork(after_in_child=_drop_locks_in_child)


class RunDir:
    """A run folder on disk. Open it with `RunDir(path)`; make stages with `stage`."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be a run folder ({error.strerror}); choose another with --out"
            ) from None

    @property
    def ledger_path(self) -> Path:
        return self.path / "ledger.sqlite"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            RunLocked: Another live process holds it (the lock ends with its process, kill -9 included).
        """
        with (self.path / ".lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise RunLocked(
                    f"{self.path} is in use by process {file.read().strip() or '(unknown)'}; "
                    "wait for it, or begin a new run in another folder (--out)"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            _HELD.add(file.fileno())
            try:
                yield
            finally:
                _HELD.discard(file.fileno())

    def stage(
        self,
        name: str,
        key_parts: Mapping[str, Any],
        make: Callable[[Path], Mapping[str, Any] | None],
        again: Callable[[Stage], bool] | None = None,
        tell: Callable[[str], None] = lambda said: None,
    ) -> Stage:
        """Reuse the stage whose key matches, or make it.

        Args:
            name: Folder name of the stage.
            key_parts: Everything the output depends on, as JSON types.
            make: Fills the folder it is given and returns facts to remember. The folder may hold what a killed
                run with the same key left there.
            again: Whether a stage whose key matches lacks what another call may bring. It is made again then, and
                stays as it is where the teacher or the data cannot be reached; `tell` is given a sentence that says so.
            tell: See `again`.

        Raises:
            RunError: The stage's folder holds something that no run made; it is left alone. Or the disk is full,
                read-only or failing; what the stage has so far is kept.
            ManifestError: The stage's manifest cannot be read, or `make` left a symbolic link.
        """
        try:
            return self._made_or_reused(name, key_parts, make, again, tell)
        except Exception as error:
            problem = disk_problem(error)
            if problem is None:
                raise
            raise RunError(
                f"stage {name}: {self.path} cannot be written ({problem}); free space or make it writable, then give "
                "the same command again: finished stages and replies are kept"
            ) from error

    def _made_or_reused(
        self,
        name: str,
        key_parts: Mapping[str, Any],
        make: Callable[[Path], Mapping[str, Any] | None],
        again: Callable[[Stage], bool] | None,
        tell: Callable[[str], None],
    ) -> Stage:
        key = digest({"stage": name, **key_parts})
        final = self.path / name
        if final.exists() and not (final / MANIFEST).exists():
            raise RunError(
                f"{final} exists and is no stage of a run ({MANIFEST} is missing); move it away, "
                "or choose another run folder with --out"
            )
        found = self.finished(name)
        whole = found if found is not None and found.key == key and _intact(final) else None
        if whole is not None and not (again and again(whole)):
            return whole
        kept = self.path / ".old" / f"{name}-{key[:16]}"
        work = self.path / ".work" / f"{name}-{key[:16]}"
        # A complete folder in `.work` was killed between its manifest and its publication.
        for ready in (work,) if whole is not None else (kept, work):
            if _intact(ready) and read_manifest(ready)["key"] == key:
                self._publish(ready, final)
                whole = self.finished(name)
                if whole is not None and not (again and again(whole)):
                    return whole
                break
        (work / MANIFEST).unlink(missing_ok=True)
        work.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        try:
            facts = dict(make(work) or {})
        except (TeacherError, UnreachableError) as error:
            if whole is None:
                raise
            shutil.rmtree(work)
            tell(f"{name} stays as it was made, {whole.facts.get('summary', '')}: {error}")
            return whole
        seconds = time.monotonic() - started
        files = _file_table(work)
        manifest = {
            "stage": name,
            "key": key,
            "key_parts": key_parts,
            "files": files,
            "output": digest(files),
            "seconds": round(seconds, 3),
            "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "facts": facts,
        }
        fsync_tree(work)
        write_atomic(work / MANIFEST, _manifest_text({**manifest, "seal": digest(manifest)}))
        self._publish(work, final)
        return Stage(name, final, key, str(manifest["output"]), False, seconds, facts)

    def finished(self, name: str) -> Stage | None:
        """The published stage of that name, or None."""
        path = self.path / name
        if not (path / MANIFEST).exists():
            return None
        manifest = read_manifest(path)
        return Stage(
            name,
            path,
            manifest["key"],
            manifest["output"],
            True,
            manifest["seconds"],
            manifest.get("facts", {}),
        )

    def set_aside(self, name: str) -> None:
        """Move a stage that this run does not have out of the way; with its settings again, it is found again."""
        found = self.finished(name)
        if found is not None:
            aside = self.path / ".old" / f"{name}-{found.key[:16]}"
            aside.parent.mkdir(exist_ok=True)
            if aside.exists():
                shutil.rmtree(aside)
            os.replace(found.path, aside)

    def verify(self) -> list[str]:
        """Check every file of every stage against its manifest; returns the faults, empty when all is well."""
        faults: list[str] = []
        for manifest_path in sorted(self.path.glob(f"*/{MANIFEST}")):
            faults += folder_faults(manifest_path.parent)
        return faults

    def _publish(self, ready: Path, final: Path) -> None:
        """Move a complete folder into place; what was there goes to `.old` (marked when it was damaged)."""
        if final.exists():
            mark = "" if _intact(final) else "-damaged"
            aside = self.path / ".old" / f"{final.name}-{read_manifest(final)['key'][:16]}{mark}"
            aside.parent.mkdir(exist_ok=True)
            if aside.exists():
                shutil.rmtree(aside)
            os.replace(final, aside)
        os.replace(ready, final)
        fsync_folder(self.path)


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


def disk_problem(error: BaseException) -> str | None:
    """What is wrong with the disk, where that is why something failed; None for other errors.

    Libraries in C++ and Rust raise errors of their own, with the number of the system's in the text.
    """
    link: BaseException | None = error
    for _ in range(8):
        if link is None:
            return None
        number = link.errno if isinstance(link, OSError) else None
        if number is None and (found := _OS_ERROR.search(str(link))):
            number = int(found[1])
        if number in _DISK:
            return os.strerror(number)
        link = link.__cause__ or link.__context__
    return None


def folder_faults(folder: Path) -> list[str]:
    """What is wrong with a stage's folder: files against their hashes, the manifest against its own seal and key."""
    try:
        manifest = read_manifest(folder)
        present = _file_table(folder)
    except ManifestError as error:
        return [str(error)]
    place, listed = f"{folder.name}/{MANIFEST}", manifest["files"]
    faults = []
    if digest(listed) != manifest["output"]:
        faults.append(f"{place}: its file list was changed")
    elif _changed_by_hand(folder, manifest):
        faults.append(f"{place}: content differs from its seal")
    for file in sorted(set(listed) | set(present)):
        if file not in present:
            faults.append(f"{folder.name}/{file}: missing")
        elif file not in listed:
            faults.append(f"{folder.name}/{file}: not in the manifest")
        elif listed[file] != present[file]:
            faults.append(f"{folder.name}/{file}: content differs from the manifest")
    return faults


def _changed_by_hand(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether any byte of the manifest is not as it was written. Manifests of older versions have no seal."""
    rest = {name: value for name, value in manifest.items() if name != "seal"}
    if not set(manifest) <= _KNOWN_KEYS:
        return True
    if "seal" not in manifest:
        return False
    return manifest["seal"] != digest(rest) or (folder / MANIFEST).read_bytes() != _manifest_text(manifest).encode()


def _manifest_text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"


def seal_root(folder: Path) -> None:
    """Write `files.json`: size and sha256 of the files at the top of a run folder, for `potstill verify`."""
    table = {name: _file_facts(folder / name) for name in _ROOT_NAMES if (folder / name).is_file()}
    write_atomic(folder / ROOT_FILES, _manifest_text({"files": table, "output": digest(table)}))


def root_faults(folder: Path) -> list[str]:
    """What is wrong with the files at the top of a run folder; nothing for runs of versions that did not seal them."""
    path = folder / ROOT_FILES
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
        listed = dict(found["files"])
        if digest(listed) != found["output"] or text != _manifest_text(found):
            return [f"{ROOT_FILES}: its file list was changed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{ROOT_FILES}: not readable ({error})"]
    faults = [f"{name}: missing" for name in sorted(listed) if not (folder / name).is_file()]
    for name in _ROOT_NAMES:
        if (folder / name).is_file() and listed.get(name) != _file_facts(folder / name):
            faults.append(f"{name}: content differs from {ROOT_FILES}")
    return faults


def _intact(folder: Path) -> bool:
    """Whether the manifest is readable and every file in it is there with its size (hashes are for `verify`)."""
    if not (folder / MANIFEST).exists():
        return False
    try:
        files = read_manifest(folder)["files"]
        return all((folder / name).stat().st_size == facts["bytes"] for name, facts in files.items())
    except (ManifestError, OSError, KeyError, TypeError):
        return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a stage's manifest.

    Raises:
        ManifestError: It is missing or is no JSON object.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        str(manifest["key"]), dict(manifest["files"]), str(manifest["output"]), float(manifest["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{path} is not a readable manifest ({error}); delete {folder} and run again") from None
    return dict(manifest)


def _file_table(folder: Path) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ManifestError(f"{path} is a symbolic link; stages hold plain files only")
        if path.is_file() and name != MANIFEST and not name.startswith("."):
            table[name] = _file_facts(path)
    return table


def _file_facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}
