"""One repository of a push: what is there, what differs, and the one commit that mends it.

What enters: a folder that holds `potstill-unit.json` beside the files that it lists. What leaves: a repository on
the Hub that holds exactly these files (and whatever others put beside them). Large files go first and are invisible
until the commit names them; the commit is refused if somebody else's came in between, and then compared again. Who may
not write to the repository proposes the commit as a pull request; one of the same unit that is open is found again.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from potstill.errors import HubError
from potstill.run_dir import file_digest

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

UNIT_FILE = "potstill-unit.json"
# The commit that brings a unit is titled after it: by these words and the beginning of its id.
UNIT_TITLE, TITLED = "potstill unit ", 12
_ATTEMPTS = 4
_MENDS = {
    401: "the token is missing, expired or wrong: set HF_TOKEN to one with write access",
    403: "the token may not write to {repo}: check its rights and the user name",
    404: "check the name and that the token can see it; a pull request needs a repository that is there",
    409: "another change is under way: push again in a moment",
    412: "others keep changing the repository: push again in a moment",
    413: "a file is too large for the Hub",
    429: "the Hub asks to slow down: push again in a few minutes",
}


def unit_files(folder: Path) -> list[str]:
    """Paths of all files below a folder, sorted, with forward slashes."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class PushedFile:
    """A file of a push.

    Attributes:
        part: `dataset` or `model`.
        path: Path in the repository.
        size: Bytes.
        change: `add`, `update`, `delete` or `same`; `send` in a dry run, which does not ask the Hub.
    """

    part: str
    path: str
    size: int
    change: str


class Upload:
    """One repository of a push: what is there, what differs, and the one commit that mends it."""

    def __init__(
        self,
        api: HfApi,
        part: Literal["dataset", "model"],
        repo: str,
        folder: Path,
        secret: str,
        *,
        create_pr: bool = False,
    ):
        self.part, self.repo, self.folder, self.create_pr = part, repo, folder, create_pr
        self.url = f"{api.endpoint}/{'datasets/' if part == 'dataset' else ''}{repo}"
        self.head = ""
        self.private = True
        self.files: tuple[PushedFile, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.pull_request = ""
        self._api, self._secret = api, secret

    def open(self, *, private: bool, overwrite: bool) -> None:
        """Make the repository, or check that the one that is there may be written to, or proposed to."""
        with self._refusals("propose to" if self.create_pr else "create"):
            if not self.create_pr:
                self._api.create_repo(self.repo, repo_type=self.part, private=private, exist_ok=True)
            info = self._api.repo_info(self.repo, repo_type=self.part)
        self.head, self.private = str(info.sha), bool(info.private)
        if private and not self.private:
            raise HubError(
                f"{self.url} exists and is public; push with --public to update it in public, "
                "or make it private on its settings page first"
            )
        if not private and self.private:
            self.notes = (f"{self.url} stays private; change it on its settings page",)
        names = {item.rfilename for item in info.siblings or []}
        if names - {".gitattributes", "README.md"} and UNIT_FILE not in names and not overwrite:
            raise HubError(f"{self.url} holds files that potstill did not publish; use another name")

    def send_large_files(self) -> None:
        """Upload what a commit will only point to. Nothing of it shows until the commit."""
        with self._refusals("upload"):
            additions = [item for item in self._changes() if hasattr(item, "upload_info")]
            if additions:
                self._api.preupload_lfs_files(
                    self.repo, additions=additions, repo_type=self.part, create_pr=self.create_pr
                )

    def commit(self, message: str) -> None:
        """Make the repository hold exactly this unit, by one commit, or find that it does.

        A commit by somebody else in between is met by comparing again. So is a reply that was lost: the commit
        may have landed, and comparing again shows it; a pull request is looked for among those that are open.
        """
        from httpx2 import TransportError
        from huggingface_hub.errors import HfHubHTTPError

        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            with self._refusals("commit"):
                if attempt:
                    time.sleep(0.2 * 2**attempt)
                    self.head = str(self._api.repo_info(self.repo, repo_type=self.part).sha)
                changes = self._changes()
                if not changes or (self.create_pr and self._find_request(message)):
                    return
                try:
                    done = self._api.create_commit(
                        self.repo,
                        changes,
                        commit_message=message,
                        repo_type=self.part,
                        parent_commit=self.head,
                        create_pr=self.create_pr,
                    )
                except TransportError:
                    if last:
                        raise
                except HfHubHTTPError as error:
                    if last or error.response.status_code not in (412, 500, 502, 503, 504):
                        raise
                else:
                    self.head, self.pull_request = str(done.oid), str(done.pr_url or "")
                    return

    def _find_request(self, title: str) -> bool:
        """Whether a pull request with this unit is open; it is then taken for the one that was to be made."""
        for item in self._api.get_repo_discussions(
            self.repo, repo_type=self.part, discussion_type="pull_request", discussion_status="open"
        ):
            if item.title == title:
                self.pull_request = str(item.url)
                found = self._api.repo_info(self.repo, repo_type=self.part, revision=item.git_reference)
                self.head = str(found.sha)
                return True
        return False

    def _changes(self) -> list[Any]:
        """The operations that turn the head into this unit; also notes them in `files`, once there are any."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        there = {
            item.path: (item.lfs.sha256 if item.lfs else item.blob_id)
            for item in self._api.list_repo_tree(self.repo, recursive=True, revision=self.head, repo_type=self.part)
            if hasattr(item, "blob_id")
        }
        operations: list[Any] = []
        files = []
        for name, digests in self._digests.items():
            path = self.folder / name
            same = there.get(name) in digests
            change = "same" if same else "update" if name in there else "add"
            files.append(PushedFile(self.part, name, path.stat().st_size, change))
            if not same:
                operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path)))
        for name in sorted(self._published(there) & set(there) - set(self._digests)):
            files.append(PushedFile(self.part, name, 0, "delete"))
            operations.append(CommitOperationDelete(path_in_repo=name, is_folder=False))
        if operations or not self.files:
            self.files = tuple(files)
        return operations

    @cached_property
    def _digests(self) -> dict[str, tuple[str, str]]:
        """sha256 and git id of every file of the unit: the Hub tells one or the other, by how it stores the file."""
        names = unit_files(self.folder)
        return {name: (file_digest(self.folder / name), _git_oid(self.folder / name)) for name in names}

    def _published(self, there: dict[str, str]) -> set[str]:
        """Files of the unit that is there now: only these may be deleted, whatever else lies beside them."""
        if UNIT_FILE not in there:
            return set()
        with tempfile.TemporaryDirectory(prefix="potstill-unit-") as folder:
            path = self._api.hf_hub_download(
                self.repo, UNIT_FILE, repo_type=self.part, revision=self.head, local_dir=folder
            )
            try:
                return set(json.loads(Path(path).read_text(encoding="utf-8"))["files"])
            except (ValueError, KeyError, TypeError):
                return set()

    @contextmanager
    def _refusals(self, step: str) -> Iterator[None]:
        """Turn the client's errors into one that says what to do, with the token masked."""
        from httpx2 import HTTPError
        from huggingface_hub.errors import HfHubHTTPError

        try:
            yield
        except (HTTPError, OSError, RuntimeError, ValueError) as error:
            # An upload's refusal comes wrapped in a RuntimeError; a ValueError's own text is the useful one.
            inner = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error
            if isinstance(inner, HfHubHTTPError):
                raise HubError(self._mask(self._refused(step, inner))) from None
            detail = " ".join(str(inner).split()) or type(inner).__name__
            mend = "check the network (and HF_ENDPOINT, HF_HUB_OFFLINE), then push again"
            if isinstance(inner, ValueError):
                mend = "the Hub does not accept the card or the name; please report it"
            raise HubError(self._mask(f"could not {step} {self.url} ({detail}); {mend}")) from None

    def _refused(self, step: str, error: HfHubHTTPError) -> str:
        status = error.response.status_code
        mend = _MENDS.get(status, "push again later: what was uploaded is not sent twice").format(repo=self.repo)
        if status == 403 and not self.create_pr:
            mend += ", or propose it with --create-pr"
        detail = (error.server_message or "").strip().split("\n")[0]
        return f"the Hub refused to {step} {self.url}: {status}{f' ({detail})' if detail else ''}; {mend}"

    def _mask(self, text: str) -> str:
        return text.replace(self._secret, "hf_***")


def _git_oid(path: Path) -> str:
    """The id that git gives a file's content."""
    sums = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sums.update(block)
    return sums.hexdigest()
