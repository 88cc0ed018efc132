"""A published unit, read back: the dataset and the model that belong together, checked file by file.

What enters: `user/name` on the Hub. What leaves: `NAME/dataset` and `NAME/model` on disk, as `export.build_unit` wrote
them. Each repository is read at one commit, the newest or that of the unit that is asked for, and both must carry one
unit's id and every file that it lists with its hash; a half-published or altered unit is refused. Files that the unit
does not list are not fetched: what somebody put beside a model, such as an adapter, would change what it answers.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from glob import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import HubError, OptionError, UserError
from potstill.hub.export import PARTS, check_repo
from potstill.hub.upload import TITLED, UNIT_FILE, UNIT_TITLE, unit_files
from potstill.run_dir import file_digest
from potstill.whole_folders import replace_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_UNIT = re.compile(r"[0-9a-f]{6,64}")
_TITLE = re.compile(rf"^{UNIT_TITLE}([0-9a-f]{{{TITLED}}})")


@dataclass(frozen=True)
class Loaded:
    """A unit on disk.

    Attributes:
        repo: `user/name`.
        unit: Id of the unit.
        path: Folder that holds `dataset` and `model`.
        commits: The commit of each part.
        kept: Whether the folder held this unit already.
    """

    repo: str
    unit: str
    path: Path
    commits: dict[str, str]
    kept: bool = False

    @property
    def dataset(self) -> Path:
        """Folder of the dataset, for `datasets.load_dataset`."""
        return self.path / "dataset"

    @property
    def model(self) -> Path:
        """Folder of the student, for `transformers.pipeline`."""
        return self.path / "model"

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return {**vars(self), "path": str(self.path)}


def load_unit(repo: str, out: Path | str | None = None, *, unit: str | None = None, token: str | None = None) -> Loaded:
    """Fetch what `potstill push` published.

    Args:
        repo: `user/name`.
        out: Folder to write; the name's last part by default. A unit that is there is replaced as a whole.
        unit: Id of a unit that was pushed there before, or its first six characters or more; the newest by default.
        token: Access token; by default that of `HF_TOKEN` or of `hf auth login`. Private units need one.

    Raises:
        OptionError: `repo` is no valid name, or `unit` no id.
        UserError: The folder holds something else.
        HubError: The Hub refused or cannot be reached, what is there is no whole unit of potstill, or the unit that is
            asked for was never pushed there.
    """
    check_repo(repo)
    if unit is not None and not _UNIT.fullmatch(unit):
        raise OptionError("load", [f"unit: {unit[:70]!r} is no unit's id; give six hexadecimal digits of it, or more"])
    place = Path(out) if out is not None else Path(repo.split("/")[1])
    for part in PARTS:
        if (place / part).exists() and not (place / part / UNIT_FILE).exists():
            raise UserError(f"{place / part} exists and is no unit of potstill; choose another folder with --out")
    if place.exists() and not place.is_dir():
        raise UserError(f"{place} is no folder; choose another with --out")
    commits, ids = _heads(repo, token) if unit is None else _commits_of(repo, unit, token)
    if ids["dataset"] != ids["model"]:
        raise HubError(
            f"the dataset and the model of {repo} belong to two units ({ids['dataset'][:12]}, {ids['model'][:12]}): "
            "a push was not finished; push again, or ask its owner to"
        )
    found = ids["dataset"]
    if all(_held(place / part) == found and not _faults(place / part) for part in PARTS):
        return Loaded(repo, found, place, commits, kept=True)
    place.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".load-", dir=place))
    try:
        for part in PARTS:
            _fetch(repo, part, commits[part], work / part, token)
            if faults := _faults(work / part):
                raise HubError(f"the {part} of {repo} is not as it was published: {'; '.join(faults[:5])}")
        for part in PARTS:
            replace_folder(work / part, place / part)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Loaded(repo, found, place, commits)


def _heads(repo: str, token: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """The newest commit of each part and the unit's id that it carries."""
    api = _api(token)
    commits: dict[str, str] = {}
    ids: dict[str, str] = {}
    for part in PARTS:
        with _Refusals(repo, part):
            commits[part] = str(api.repo_info(repo, repo_type=part).sha)
            ids[part] = _unit_at(repo, part, commits[part], token)
    return commits, ids


def _commits_of(repo: str, unit: str, token: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """The commit of each part that brought the unit, and the unit's whole id; its commits are told by their titles."""
    api = _api(token)
    commits: dict[str, str] = {}
    ids: dict[str, str] = {}
    for part in PARTS:
        seen: list[str] = []
        with _Refusals(repo, part):
            for commit in api.list_repo_commits(repo, repo_type=part):
                if (titled := _TITLE.search(commit.title)) is None:
                    continue
                seen.append(titled[1])
                if titled[1].startswith(unit[:TITLED]):
                    there = _unit_at(repo, part, commit.commit_id, token)
                    if there.startswith(unit):
                        commits[part], ids[part] = commit.commit_id, there
                        break
        if part not in ids:
            there = ", ".join(dict.fromkeys(seen[:8])) or "none"
            raise HubError(f"no unit {unit} was pushed as the {part} of {repo}; there are: {there}")
    return commits, ids


def _unit_at(repo: str, part: str, commit: str, token: str | None) -> str:
    """Id of the unit that a part holds at a commit."""
    from huggingface_hub import hf_hub_download

    with tempfile.TemporaryDirectory(prefix="potstill-unit-") as folder:
        file = hf_hub_download(repo, UNIT_FILE, repo_type=part, revision=commit, token=token, local_dir=folder)
        return str(json.loads(Path(file).read_text(encoding="utf-8"))["unit"])


def _api(token: str | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="potstill", library_version=version("potstill"))


def _fetch(repo: str, part: str, commit: str, folder: Path, token: str | None) -> None:
    from huggingface_hub import hf_hub_download, snapshot_download

    with _Refusals(repo, part):
        hf_hub_download(repo, UNIT_FILE, repo_type=part, revision=commit, local_dir=folder, token=token)
        names = [UNIT_FILE, *(escape(name) for name in _listed(folder))]
        snapshot_download(repo, repo_type=part, revision=commit, local_dir=folder, token=token, allow_patterns=names)
    shutil.rmtree(folder / ".cache", ignore_errors=True)


class _Refusals:
    """Turns what the client raises into one `HubError` with the mend."""

    def __init__(self, repo: str, part: str):
        self.what = f"the {part} {repo}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, at: Any) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            return
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
        )

        if isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
            raise HubError(
                f"{self.what} cannot be fetched: the Hub cannot be reached, or HF_HUB_OFFLINE is on"
            ) from None
        if isinstance(error, EntryNotFoundError):
            raise HubError(f"{self.what} was not published by potstill ({UNIT_FILE} is missing)") from None
        if isinstance(error, RepositoryNotFoundError):
            raise HubError(f"{self.what} is not there, or is private: check the name, and set HF_TOKEN") from None
        if isinstance(error, HfHubHTTPError):
            code = getattr(error.response, "status_code", 0)
            raise HubError(f"{self.what} cannot be fetched (HTTP {code}); try again later") from None
        if isinstance(error, (ValueError, KeyError, TypeError)):
            raise HubError(f"{self.what} holds an unreadable {UNIT_FILE} ({error})") from None
        if isinstance(error, OSError) or type(error).__module__.startswith("httpx"):
            raise HubError(f"{self.what} cannot be fetched ({type(error).__name__}: {error}); try again") from None


def _held(folder: Path) -> str:
    try:
        return str(json.loads((folder / UNIT_FILE).read_text(encoding="utf-8"))["unit"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _listed(folder: Path) -> dict[str, str]:
    """Files of a unit with their hashes, as it lists them."""
    files = dict(json.loads((folder / UNIT_FILE).read_text(encoding="utf-8"))["files"])
    return {str(name): str(sha) for name, sha in files.items()}


def _faults(folder: Path) -> list[str]:
    """Files that the unit lists and that are missing or differ, and files that it does not list."""
    try:
        listed = _listed(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{UNIT_FILE} cannot be read ({error})"]
    root = folder.resolve()
    # What the system leaves in a folder, such as .DS_Store, is hidden, and nothing reads it.
    own = [name for name in unit_files(folder) if not any(step.startswith(".") for step in Path(name).parts)]
    faults = [f"{name} is no file of the unit" for name in own if name not in {*listed, UNIT_FILE}]
    for name, sha in listed.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(root):
            faults.append(f"{name} lies outside the unit")
        elif not path.is_file():
            faults.append(f"{name} is missing")
        elif file_digest(path) != sha:
            faults.append(f"{name} differs")
    return faults
