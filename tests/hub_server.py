"""A Hub for the tests: a real HTTP server on the standard library that speaks the model hub's protocol.

What enters: the requests of the real clients (`huggingface_hub`, `datasets`, `transformers`), pointed here by
`HF_ENDPOINT`, with `HF_HUB_DISABLE_XET=1`; both are read when the client is imported, so tests run clients in a
process of their own. What leaves: repos with commits, branches, tags and large files, kept under one folder.

The parts that matter to a publisher behave as on the Hub: a commit is one NDJSON request that lands whole or not
at all, a large file is uploaded before the commit and is invisible until one names it, a stale `parentCommit` is
refused with 412, a private repo is a 404 to strangers, and every 404 says in `X-Error-Code` what was missing.

Tests can add faults (`hub.fail(...)`) and read the requests that came (`hub.requests`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import yaml

CONVERSION = "refs/convert/parquet"
KINDS = ("models", "datasets")
LFS_SUFFIXES = (".parquet", ".safetensors", ".bin", ".arrow", ".gguf", ".zip")
LFS_FROM_BYTES = 10 * 1024 * 1024
ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()

LICENCES = frozenset(
    re.split(
        " ",
        "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigcode-openrail-m afl-3.0 artistic-2.0 "
        "bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 "
        "cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 "
        "cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 "
        "cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 "
        "gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 "
        "ncsa unlicense zlib pddl lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 gemma unknown other",
    )
)
_SIZES = "n<1K 1K<n<10K 10K<n<100K 100K<n<1M 1M<n<10M 10M<n<100M 100M<n<1B 1B<n<10B 10B<n<100B 100B<n<1T n>1T other"
# The names of `packages/tasks/src/pipelines.ts` of huggingface.js.
TASKS = frozenset(
    re.split(
        " ",
        "text-classification token-classification table-question-answering question-answering zero-shot-classification "
        "translation summarization feature-extraction text-generation text2text-generation fill-mask "
        "sentence-similarity text-to-speech text-to-audio automatic-speech-recognition audio-to-audio "
        "audio-classification audio-text-to-text voice-activity-detection depth-estimation image-classification "
        "object-detection image-segmentation text-to-image image-to-text image-to-image image-to-video "
        "unconditional-image-generation video-classification reinforcement-learning robotics tabular-classification "
        "tabular-regression tabular-to-text table-to-text multiple-choice text-ranking text-retrieval "
        "time-series-forecasting text-to-video image-text-to-text visual-question-answering "
        "document-question-answering zero-shot-image-classification graph-ml mask-generation "
        "zero-shot-object-detection text-to-3d image-to-3d image-feature-extraction video-text-to-text "
        "keypoint-detection visual-document-retrieval any-to-any other",
    )
)
# What a field may hold, where the Hub or its card templates list it.
CHOICES = {
    "size_categories": frozenset(_SIZES.split()),
    "task_categories": TASKS,
    "pipeline_tag": TASKS,
    "multilinguality": frozenset({"monolingual", "multilingual", "translation", "other"}),
    "annotations_creators": frozenset(
        {"found", "machine-generated", "expert-generated", "crowdsourced", "no-annotation", "other"}
    ),
}
LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")
DATASET_TYPE = re.compile(r"(?:[\w-]+/)?[\w.-]+")


def git_oid(content: bytes) -> str:
    """The id that git gives a blob: sha1 (hex) of its header and bytes."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class File:
    """A file of a commit. `sha256` is set for large files, `oid` is then the id of their pointer."""

    oid: str
    size: int
    sha256: str | None = None

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    tree: dict[str, File]
    title: str
    date: str


@dataclass
class Repo:
    kind: str
    id: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    requests: list[dict[str, object]] = field(default_factory=list)  # pull requests, the first has number 1
    facts: dict[str, object] = field(default_factory=dict)  # what a test wants the listing to say of it

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch, tag or (abbreviated) id; `~parquet` is the branch of the Hub's conversion."""
        revision = {"~parquet": CONVERSION}.get(revision, revision)
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid in self.commits:
            return self.commits[oid]
        return next((c for key, c in self.commits.items() if len(oid) >= 7 and key.startswith(oid)), None)

    @property
    def log(self) -> list[Commit]:
        """Commits of `main`, newest first."""
        found, oid = [], self.branches.get("main")
        while oid:
            found.append(self.commits[oid])
            oid = self.commits[oid].parent
        return found


@dataclass
class Fault:
    """What to do instead of answering: a status, or a cut connection when `status` is 0."""

    method: str
    path: re.Pattern[str]
    status: int
    times: int
    before: Callable[[], None] | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "", **extra: object):
        self.status, self.message, self.code, self.extra = status, message, code, extra


class Hub:
    """The state, and the server around it.

    Args:
        folder: Where blobs and large files are kept.
        token: The only token that may write or see private repos.
        user: Who that token belongs to.
        role: What the token is said to be good for.
    """

    def __init__(self, folder: Path, *, token: str = "hf_testtoken", user: str = "me", role: str = "write"):
        self.folder, self.token, self.user, self.role = folder, token, user, role
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        self._faults: list[Fault] = []
        self._lock = threading.RLock()
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        (folder / "lfs").mkdir(exist_ok=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, home: Path, *, token: str | None = "") -> dict[str, str]:
        """Variables that point a client process here; `token=None` makes it a stranger."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        if token is not None:
            variables["HF_TOKEN"] = token or self.token
        return variables

    def ask(self, home: Path, code: str, *arguments: str) -> list[Any]:
        """Run Python in a process whose clients are pointed here, and read the lines of JSON that it prints."""
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300, check=False,
            env={**os.environ, **self.environment(home), "HF_HUB_OFFLINE": "0"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("[", "{"))]

    def fail(
        self,
        method: str,
        path: str,
        status: int,
        *,
        times: int = 1,
        before: Callable[[], None] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer the next `times` requests whose path matches with `status` (0 cuts the connection)."""
        self._faults.append(Fault(method, re.compile(path), status, times, before, headers or {}))

    def repo(self, kind: str, repo_id: str) -> Repo:
        return self.repos[kind, repo_id]

    def content(self, file: File) -> bytes:
        return (self.folder / ("lfs" if file.sha256 else "blobs") / file.etag).read_bytes()

    def read(self, kind: str, repo_id: str, path: str, revision: str = "main") -> bytes:
        commit = self.repo(kind, repo_id).find(revision)
        assert commit is not None
        return self.content(commit.tree[path])

    def create(self, kind: str, repo_id: str, *, private: bool = False) -> Repo:
        repo = Repo(kind, repo_id, private)
        self.repos[kind, repo_id] = repo
        self.commit(repo, "main", {".gitattributes": self._store(ATTRIBUTES)}, "initial commit")
        return repo

    def commit(self, repo: Repo, branch: str, tree: dict[str, File], title: str) -> Commit:
        parent = repo.branches.get(branch)
        listing = json.dumps([parent, title, len(repo.commits), sorted((p, f.etag) for p, f in tree.items())])
        date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        commit = Commit(hashlib.sha1(listing.encode()).hexdigest(), parent, tree, title, date)
        repo.commits[commit.oid] = commit
        repo.branches[branch] = commit.oid
        return commit

    def put(
        self, kind: str, repo_id: str, files: dict[str, bytes], title: str = "edit", *, branch: str = "main"
    ) -> Commit:
        """Commit files behind the clients' backs, as another person would, or the Hub's converter to its branch."""
        with self._lock:
            repo = self.repo(kind, repo_id)
            head = repo.find(branch)
            tree = dict(head.tree if head else {".gitattributes": self._store(ATTRIBUTES)})
            tree.update({path: self._store(content) for path, content in files.items()})
            return self.commit(repo, branch, tree, title)

    def _store(self, content: bytes) -> File:
        oid = git_oid(content)
        (self.folder / "blobs" / oid).write_bytes(content)
        return File(oid, len(content))

    def _take_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and fault.method == method and fault.path.search(path):
                    fault.times -= 1
                    return fault
        return None

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def running_hub(folder: Path) -> Iterator[Hub]:
    """A hub on a free port of the loopback, stopped at the end."""
    with Hub(folder) as hub:
        yield hub


# A special reference may stand in an address as it is; every other revision has its slashes quoted.
_REV = r"(?P<rev>refs/convert/\w+|refs/pr/\d+|[^/]+)"
_API = r"/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)"
_ROUTES: list[tuple[str, re.Pattern[str], str]] = [
    (method, re.compile(f"^{pattern}$"), name)
    for method, pattern, name in [
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("POST", r"/api/repos/create", "create"),
        ("DELETE", r"/api/repos/delete", "delete"),
        ("GET", r"/api/(?P<kind>models|datasets)", "list_repos"),
        ("GET", _API, "info"),
        ("GET", _API + r"/revision/" + _REV, "info"),
        ("GET", _API + r"/tree/" + _REV + r"(?:/(?P<path>.*))?", "tree"),
        ("GET", _API + r"/refs", "refs"),
        ("GET", _API + r"/discussions", "discussions"),
        ("GET", _API + r"/commits/" + _REV, "commits"),
        ("PUT", _API + r"/settings", "settings"),
        ("POST", _API + r"/paths-info/" + _REV, "paths_info"),
        ("POST", _API + r"/preupload/" + _REV, "preupload"),
        ("POST", _API + r"/commit/" + _REV, "make_commit"),
        ("POST", _API + r"/tag/" + _REV, "tag"),
        ("POST", _API + r"/branch/(?P<name>[^/]+)", "branch"),
        ("POST", r"/(?P<ds>datasets/)?(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/upload/(?P<oid>[0-9a-f]{64})", "lfs_upload"),
        ("POST", r"/lfs/verify", "lfs_verify"),
        ("GET", r"/(?P<ds>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/" + _REV + r"/(?P<path>.+)", "resolve"),
    ]
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        """Say nothing: `hub.requests` is the log."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        self.hub.requests.append((method, parts.path))
        fault = self.hub._take_fault(method, parts.path)
        if fault is not None and fault.before is not None:
            fault.before()
        if fault is not None and fault.status == 0:
            self.close_connection = True
            self.connection.close()
            return
        self.body = self._read_body()
        try:
            if fault is not None and fault.status != 200:
                raise Refusal(fault.status, "injected fault")
            for verb, pattern, name in _ROUTES:
                match = pattern.match(parts.path)
                if match and (verb == method or (method == "HEAD" and verb == "GET")):
                    named = {key: unquote(value) for key, value in match.groupdict().items() if value}
                    getattr(self, f"_{name}")(**named)
                    return
            raise Refusal(404, f"no route {method} {parts.path}", "EntryNotFound")
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            headers |= fault.headers if fault is not None else {}
            self._json({"error": refusal.message, **refusal.extra}, refusal.status, headers)

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _need_token(self) -> None:
        if not self.headers.get("Authorization"):
            raise Refusal(401, "Invalid username or password.")
        if not self._known():
            raise Refusal(401, "Invalid credentials in Authorization header")

    def _repo(self, kind: str, id: str, *, write: bool = False) -> Repo:
        if write:
            self._need_token()
        repo = self.hub.repos.get((kind, id))
        if repo is None or (repo.private and not self._known()):
            raise Refusal(404 if self._known() else 401, "Repository not found", "RepoNotFound")
        if write and id.split("/")[0] != self.hub.user:
            raise Refusal(403, f"You don't have the rights to write to {id}")
        return repo

    def _commit_of(self, repo: Repo, rev: str) -> Commit:
        commit = repo.find(rev)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        return commit

    def _whoami(self) -> None:
        self._need_token()
        auth = {"accessToken": {"role": self.hub.role, "displayName": "test"}}
        self._json({"type": "user", "name": self.hub.user, "auth": auth, "orgs": []})

    def _create(self) -> None:
        self._need_token()
        asked = json.loads(self.body)
        kind = f"{asked.get('type') or 'model'}s"
        owner = asked.get("organization") or self.hub.user
        if owner != self.hub.user:
            raise Refusal(403, f"You don't have the rights to create a {kind[:-1]} under the namespace {owner!r}")
        repo_id = f"{owner}/{asked['name']}"
        url = f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{repo_id}"
        with self.hub._lock:
            if (kind, repo_id) in self.hub.repos:
                raise Refusal(409, f"You already created this {kind[:-1]} repo", url=url)
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.create(kind, repo_id, private=private)
        self._json({"url": url, "name": repo_id, "id": repo_id})

    def _delete(self) -> None:
        asked = json.loads(self.body)
        repo_id = f"{asked.get('organization') or self.hub.user}/{asked['name']}"
        kind = f"{asked.get('type') or 'model'}s"
        self._repo(kind, repo_id, write=True)
        del self.hub.repos[kind, repo_id]
        self._json({})

    def _settings(self, kind: str, id: str) -> None:
        repo = self._repo(kind, id, write=True)
        asked = json.loads(self.body)
        repo.private = asked.get("visibility", "private" if asked.get("private") else "public") == "private"
        self._json({"private": repo.private})

    def _summary(self, repo: Repo, commit: Commit) -> dict[str, object]:
        card: object = None
        readme = commit.tree.get("README.md")
        if readme is not None:
            card, _, _ = check_card(self.hub.content(readme).decode(), repo.kind)
        siblings = []
        for path, file in sorted(commit.tree.items()):
            item: dict[str, object] = {"rfilename": path}
            if self.query.get("blobs"):
                item |= {"size": file.size, "blobId": file.oid}
                if file.sha256:
                    item["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 130}
            siblings.append(item)
        return {
            "id": repo.id, "modelId": repo.id, "author": repo.id.split("/")[0], "sha": commit.oid,
            "private": repo.private, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": [],
            "lastModified": commit.date, "createdAt": commit.date, "cardData": card, "siblings": siblings,
        }  # fmt: skip

    def _info(self, kind: str, id: str, rev: str = "main") -> None:
        repo = self._repo(kind, id)
        self._json(self._summary(repo, self._commit_of(repo, rev)))

    def _list_repos(self, kind: str) -> None:
        """Paged as on the Hub: `limit` items, and a `Link` to the next page; `sort`, `filter` and `expand` as there."""
        word = self.query.get("search", [""])[0]
        tags = set(self.query.get("filter", []))
        found = [
            {**self._summary(repo, repo.log[0]), **repo.facts}
            for (k, name), repo in sorted(self.hub.repos.items())
            if k == kind and word in name and (not repo.private or self._known())
        ]
        found = [item for item in found if tags <= {str(tag) for tag in item["tags"]}]  # type: ignore[attr-defined]
        if self.query.get("sort") == ["lastModified"]:
            found.sort(key=lambda item: str(item["lastModified"]), reverse=True)
        if wanted := self.query.get("expand"):
            found = [{key: item[key] for key in ("id", *wanted) if key in item} for item in found]
        start, limit = int(self.query.get("cursor", ["0"])[0]), int(self.query.get("limit", ["1000"])[0])
        headers = {}
        if start + limit < len(found):
            query = {**self.query, "limit": [str(limit)], "cursor": [str(start + limit)]}
            headers["Link"] = f'<{self.hub.url}/api/{kind}?{urlencode(query, doseq=True)}>; rel="next"'
        self._json(found[start : start + limit], 200, headers)

    def _entry(self, commit: Commit, path: str) -> dict[str, object] | None:
        expand = self.query.get("expand", ["False"])[0].lower() == "true"
        last = {"lastCommit": {"id": commit.oid, "title": commit.title, "date": commit.date}} if expand else {}
        file = commit.tree.get(path)
        if file is not None:
            large = {"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 130}} if file.sha256 else {}
            return {"type": "file", "path": path, "size": file.size, "oid": file.oid, **large, **last}
        if any(name.startswith(f"{path}/") for name in commit.tree):
            oid = hashlib.sha1(f"{commit.oid}/{path}".encode()).hexdigest()
            return {"type": "directory", "path": path, "size": 0, "oid": oid, **last}
        return None

    def _tree(self, kind: str, id: str, rev: str, path: str = "") -> None:
        commit = self._commit_of(self._repo(kind, id), rev)
        prefix = f"{path}/" if path else ""
        below = [name for name in commit.tree if name.startswith(prefix)]
        if not below and path:
            raise Refusal(404, f"{path} does not exist on {rev!r}", "EntryNotFound")
        paths: set[str] = set()
        for name in below:
            steps = name.removeprefix(prefix).split("/")
            depth = len(steps) if self.query.get("recursive", ["False"])[0].lower() == "true" else 1
            paths |= {prefix + "/".join(steps[: i + 1]) for i in range(depth)}
        self._json([self._entry(commit, name) for name in sorted(paths)])

    def _paths_info(self, kind: str, id: str, rev: str) -> None:
        commit = self._commit_of(self._repo(kind, id), rev)
        if "json" in (self.headers.get("Content-Type") or ""):
            asked = json.loads(self.body)["paths"]
        else:
            asked = parse_qs(self.body.decode()).get("paths", [])
        found = (self._entry(commit, path.strip("/")) for path in asked)
        self._json([entry for entry in found if entry])

    def _refs(self, kind: str, id: str) -> None:
        repo = self._repo(kind, id)
        kinds = {"branches": "refs/heads/", "tags": "refs/tags/", "converts": "refs/convert/"}
        kinds |= {"pullRequests": "refs/pr/"} if self.query.get("include_prs") == ["1"] else {}
        answer: dict[str, list[dict[str, str]]] = {kind: [] for kind in kinds}
        for name, oid in repo.branches.items():
            special = {"refs/convert/": "converts", "refs/pr/": "pullRequests"}
            kind = next((kind for prefix, kind in special.items() if name.startswith(prefix)), "branches")
            if kind not in kinds:
                continue
            name = name.removeprefix(kinds[kind])
            answer[kind].append({"name": name, "ref": kinds[kind] + name, "targetCommit": oid})
        answer["tags"] = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": o} for n, o in repo.tags.items()]
        self._json(answer)

    def _commits(self, kind: str, id: str, rev: str) -> None:
        repo = self._repo(kind, id)
        found, oid = [], self._commit_of(repo, rev).oid
        while oid:
            commit = repo.commits[oid]
            found.append({"id": oid, "title": commit.title, "message": "", "date": commit.date, "authors": []})
            oid = commit.parent or ""
        self._json(found)

    def _tag(self, kind: str, id: str, rev: str) -> None:
        repo = self._repo(kind, id, write=True)
        name = json.loads(self.body)["tag"]
        if name in repo.tags:
            raise Refusal(409, f"Tag {name} exists already")
        repo.tags[name] = self._commit_of(repo, rev).oid
        self._json({})

    def _branch(self, kind: str, id: str, name: str) -> None:
        repo = self._repo(kind, id, write=True)
        if name in repo.branches:
            raise Refusal(409, f"Reference already exists: {name}")
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repo.branches[name] = self._commit_of(repo, start).oid
        self._json({})

    def _validate_yaml(self) -> None:
        asked = json.loads(self.body)
        _, errors, warned = check_card(asked["content"], f"{asked.get('repoType', 'model')}s")
        self.hub.warnings.extend(warned)
        answer = {"errors": [{"message": m} for m in errors], "warnings": [{"message": m} for m in warned]}
        self._json(answer, 400 if errors else 200)

    def _preupload(self, kind: str, id: str, rev: str) -> None:
        commit = self._commit_of(self._repo(kind, id, write=not self._proposes()), rev)
        files = []
        for item in json.loads(self.body)["files"]:
            large = item["path"].endswith(LFS_SUFFIXES) or item["size"] >= LFS_FROM_BYTES
            large = large or b"\0" in base64.b64decode(item["sample"])
            answer = {"path": item["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            known = commit.tree.get(item["path"])
            files.append(answer | ({"oid": known.etag} if known else {}))
        self._json({"files": files, "commitOid": commit.oid})

    def _lfs_batch(self, id: str, ds: str = "") -> None:
        asked = json.loads(self.body)
        self._need_token()
        # Who names no branch may upload without the right to write: it can end in a pull request alone.
        self._repo("datasets" if ds else "models", id, write="ref" in asked)
        objects = []
        for item in asked["objects"]:
            answer: dict[str, object] = {"oid": item["oid"], "size": item["size"]}
            if not (self.hub.folder / "lfs" / item["oid"]).exists():
                answer["actions"] = {
                    "upload": {"href": f"{self.hub.url}/lfs/upload/{item['oid']}", "header": {}},
                    "verify": {"href": f"{self.hub.url}/lfs/verify", "header": {}},
                }
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def _lfs_upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "content does not match its sha256")
        target = self.hub.folder / "lfs" / oid
        part = target.with_suffix(f".{threading.get_ident()}")
        part.write_bytes(self.body)
        part.replace(target)
        self._json({})

    def _lfs_verify(self) -> None:
        self._need_token()
        asked = json.loads(self.body)
        stored = self.hub.folder / "lfs" / Path(asked["oid"]).name
        if not stored.exists() or stored.stat().st_size != asked["size"]:
            raise Refusal(404, "object is not stored", "EntryNotFound")
        self._json({})

    def _make_commit(self, kind: str, id: str, rev: str) -> None:
        repo = self._repo(kind, id, write=not self._proposes())
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        if not lines or lines[0]["key"] != "header":
            raise Refusal(400, "the first line must be the header")
        header = lines[0]["value"]
        with self.hub._lock:
            head = self._commit_of(repo, rev)
            if header.get("parentCommit") not in (None, head.oid):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            tree = dict(head.tree)
            for line in lines[1:]:
                self._apply(tree, line["key"], line["value"])
            if self._proposes():
                number = len(repo.requests) + 1
                rev = f"refs/pr/{number}"
                repo.branches[rev] = head.oid
                repo.requests.append({"num": number, "title": header["summary"], "status": "open"})
            commit = self.hub.commit(repo, rev, tree, header["summary"])
        page = f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{id}"
        answer = {"success": True, "commitOid": commit.oid, "commitUrl": f"{page}/commit/{commit.oid}"}
        self._json(answer | ({"pullRequestUrl": f"{page}/discussions/{number}"} if self._proposes() else {}))

    def _proposes(self) -> bool:
        """Whether a commit is to become a pull request: that needs a token, and no right to write."""
        wanted = self.query.get("create_pr") == ["1"]
        if wanted:
            self._need_token()
        return wanted

    def _discussions(self, kind: str, id: str) -> None:
        repo = self._repo(kind, id)
        status = self.query.get("status", ["all"])[0]
        whole = {"author": {"name": self.hub.user}, "createdAt": repo.log[0].date, "isPullRequest": True,
                 "repo": {"name": id, "type": kind.removesuffix("s")}}  # fmt: skip
        found = [{**whole, **item} for item in repo.requests if status in ("all", item["status"])]
        start = 50 * int(self.query.get("p", ["0"])[0])
        self._json({"discussions": found[start : start + 50], "count": len(found), "start": start})

    def _apply(self, tree: dict[str, File], key: str, value: dict[str, str]) -> None:
        path = value["path"].strip("/")
        if not path or any(step in ("", ".", "..") for step in path.split("/")) or "\0" in path:
            raise Refusal(400, f"bad path {path!r}")
        if key == "file":
            tree[path] = self.hub._store(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            stored = self.hub.folder / "lfs" / Path(value["oid"]).name
            if not stored.exists():
                raise Refusal(400, f"LFS pointer of {path} points to a file that does not exist")
            size = stored.stat().st_size
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{value['oid']}\nsize {size}\n"
            tree[path] = File(git_oid(pointer.encode()), size, value["oid"])
        elif key in ("deletedFile", "deletedFolder"):
            gone = [name for name in tree if name == path or (key == "deletedFolder" and name.startswith(f"{path}/"))]
            if not gone:
                raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for name in gone:
                del tree[name]
        else:
            raise Refusal(400, f"unknown operation {key!r}")

    def _resolve(self, id: str, rev: str, path: str, ds: str = "") -> None:
        commit = self._commit_of(self._repo("datasets" if ds else "models", id), rev)
        file = commit.tree.get(path)
        if file is None:
            raise Refusal(404, f"Entry not found: {path}", "EntryNotFound")
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if file.sha256:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        content = self.hub.content(file)
        if self.headers.get("If-None-Match") == f'"{file.etag}"':
            self._send(b"", 304, headers)
            return
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if asked is None or asked.groups() == ("", ""):
            self._send(content, 200, headers)
            return
        first, last = asked.groups()
        start = int(first) if first else max(0, len(content) - int(last))
        end = min(int(last), len(content) - 1) if first and last else len(content) - 1
        if start > end:
            self._send(b"", 416, headers | {"Content-Range": f"bytes */{len(content)}"})
            return
        self._send(content[start : end + 1], 206, headers | {"Content-Range": f"bytes {start}-{end}/{len(content)}"})


def check_card(text: str, kind: str) -> tuple[object, list[str], list[str]]:
    """Judge a README's metadata by the Hub's published rules: (metadata, errors, warnings)."""
    match = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", text, re.S)
    if match is None:
        return None, [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return None, [f"YAML: {error}"], []
    if not isinstance(data, dict):
        return None, ["metadata must be a mapping"], []
    errors: list[str] = []
    warned: list[str] = []

    def several(name: str) -> list[object]:
        value = data.get(name)
        return value if isinstance(value, list) else [] if value is None else [value]

    for licence in several("license"):
        if licence not in LICENCES:
            errors.append(f'"license" must be one of the known ids, got {licence!r}')
    if not data.get("license"):
        warned.append('"license" is missing')
    if data.get("license") == "other" and not data.get("license_name"):
        warned.append('"license_name" is missing beside "license: other"')
    if data.get("license_name") and not re.fullmatch(r"[a-z0-9.\-]+", str(data["license_name"])):
        errors.append('"license_name" must be a lower-case id')
    if data.get("license_link") and not re.fullmatch(r"https?://.+|LICENSE(\.md)?", str(data["license_link"])):
        errors.append('"license_link" must be a URL, LICENSE or LICENSE.md')
    for language in several("language"):
        if not isinstance(language, str) or not LANGUAGE.fullmatch(language):
            errors.append(f'"language" must be an ISO 639 code, got {language!r}')
    for name, known in CHOICES.items():
        errors += [f'"{name}" has no {value!r}' for value in several(name) if not _is_one_of(value, known)]
    if isinstance(data.get("pipeline_tag"), list):
        errors.append('"pipeline_tag" must be one name')
    for name in ("tags", "datasets", "metrics", "base_model", "pretty_name", "library_name"):
        if any(not isinstance(item, str) or not item.strip() for item in several(name)):
            errors.append(f'"{name}" must hold strings')
    for name in ("datasets", "base_model"):
        if any(not re.fullmatch(r"\w[\w.\-]*(/\w[\w.\-]*)?", str(item)) for item in several(name)):
            errors.append(f'"{name}" must hold ids of repos')
    if kind == "datasets":
        _check_configs(data, errors)
    _check_model_index(data.get("model-index"), errors)
    return json.loads(json.dumps(data, default=str)), errors, warned


def _is_one_of(value: object, known: frozenset[str]) -> bool:
    return isinstance(value, str) and value in known


def _check_configs(data: dict[str, object], errors: list[str]) -> None:
    configs = data.get("configs", [])
    names = []
    for config in configs if isinstance(configs, list) else [configs]:
        if not isinstance(config, dict) or not config.get("config_name"):
            errors.append('"configs[].config_name" is required')
            continue
        names.append(config["config_name"])
        files = config.get("data_files") or []
        if any(not isinstance(file, dict) or not {"split", "path"} <= set(file) for file in files):
            errors.append('"configs[].data_files[]" needs split and path')
            continue
        splits = [str(file["split"]) for file in files]
        if len(set(splits)) < len(splits) or any(not re.fullmatch(r"\w+(\.\w+)*", split) for split in splits):
            errors.append('"configs[].data_files[].split" must be names, each once')
    if len(set(names)) < len(names):
        errors.append('"configs[].config_name" must be there once')


def _check_model_index(index: object, errors: list[str]) -> None:
    if index is None:
        return
    if not isinstance(index, list):
        errors.append('"model-index" must be an array')
        return
    for model in index:
        if not _is_text(model.get("name")):
            errors.append('"model-index[].name" is required')
        results = model.get("results")
        if not isinstance(results, list) or not results:
            errors.append('"model-index[].results" is required')
            continue
        for result in results:
            task, dataset, metrics = (result.get(name) or {} for name in ("task", "dataset", "metrics"))
            if not _is_one_of(task.get("type"), TASKS):
                errors.append('"model-index[].results[].task.type" must be a known task')
            if not _is_text(dataset.get("name")) or not _is_text(dataset.get("type")):
                errors.append('"model-index[].results[].dataset" needs type and name')
            elif not DATASET_TYPE.fullmatch(dataset["type"]):
                errors.append('"model-index[].results[].dataset.type" must be the id of a dataset')
            if not isinstance(metrics, list) or not metrics:
                errors.append('"model-index[].results[].metrics" is required')
                continue
            for metric in metrics:
                value = metric.get("value")
                if not _is_text(metric.get("type")) or value is None or value == "" or value != value:
                    errors.append('"model-index[].results[].metrics[]" needs type and value')


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
