"""The Hub of the tests, judged by the real client and by its own protocol."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest


def _ask(hub: Any, method: str, path: str, body: Any = None, *, token: bool = True, **headers: str) -> Any:
    """(status, headers, body) of one plain request."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(hub.url + path, data=data, method=method, headers=headers)
    if token:
        request.add_header("Authorization", f"Bearer {hub.token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def _commit(hub: Any, parent: str | None, *lines: dict[str, Any]) -> Any:
    value = {"summary": "test", **({"parentCommit": parent} if parent else {})}
    body = "\n".join(json.dumps(line) for line in [{"key": "header", "value": value}, *lines]).encode()
    return _ask(hub, "POST", "/api/models/me/m/commit/main", body)


def test_create_refuses_a_second_time_and_tells_where_the_first_is(hub: Any) -> None:
    asked = {"name": "m", "organization": None, "type": "model", "visibility": "private"}
    assert _ask(hub, "POST", "/api/repos/create", asked)[0] == 200
    status, _, body = _ask(hub, "POST", "/api/repos/create", asked)
    assert status == 409
    assert json.loads(body)["url"] == f"{hub.url}/me/m"
    assert _ask(hub, "POST", "/api/repos/create", {**asked, "organization": "them"})[0] == 403
    assert _ask(hub, "POST", "/api/repos/create", asked, token=False)[0] == 401


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/models/me/absent", "RepoNotFound"),
        ("/api/models/me/m/revision/absent", "RevisionNotFound"),
        ("/me/m/resolve/main/absent.txt", "EntryNotFound"),
        ("/api/models/me/m/tree/main/absent", "EntryNotFound"),
    ],
)
def test_every_404_says_what_is_missing(hub: Any, path: str, code: str) -> None:
    hub.create("models", "me/m")
    status, headers, _ = _ask(hub, "GET", path)
    assert (status, headers["X-Error-Code"]) == (404, code)


def test_a_private_repo_is_absent_for_strangers(hub: Any) -> None:
    hub.create("models", "me/m", private=True)
    status, headers, _ = _ask(hub, "GET", "/api/models/me/m", token=False)
    assert (status, headers["X-Error-Code"]) == (401, "RepoNotFound")
    assert _ask(hub, "GET", "/api/models/me/m")[0] == 200


def test_a_commit_lands_whole_or_not_at_all(hub: Any) -> None:
    repo = hub.create("models", "me/m")
    head = repo.log[0].oid
    good = {"key": "file", "value": {"path": "a.txt", "content": "aGk=", "encoding": "base64"}}
    absent = {"key": "lfsFile", "value": {"path": "b.bin", "algo": "sha256", "oid": "0" * 64, "size": 1}}
    assert _commit(hub, head, good, absent)[0] == 400
    assert "a.txt" not in repo.log[0].tree
    assert _commit(hub, head, good)[0] == 200
    assert hub.read("models", "me/m", "a.txt") == b"hi"
    assert _commit(hub, head, good)[0] == 412, "the parent is stale now"
    assert _commit(hub, None, {"key": "deletedFile", "value": {"path": "zzz"}})[0] == 404
    assert _commit(hub, None, {"key": "deletedFile", "value": {"path": "a.txt"}})[0] == 200
    assert "a.txt" not in repo.log[0].tree


@pytest.mark.parametrize("path", ["../up", "/abs/../x", "a//b", "..", "a/\u0000b"])
def test_a_commit_refuses_paths_that_leave_the_repo(hub: Any, path: str) -> None:
    hub.create("models", "me/m")
    line = {"key": "file", "value": {"path": path, "content": "", "encoding": "base64"}}
    assert _commit(hub, None, line)[0] == 400


def test_large_files_are_checked_by_their_hash_and_read_by_range(hub: Any) -> None:
    hub.create("models", "me/m")
    content = bytes(range(256)) * 8
    oid = hashlib.sha256(content).hexdigest()
    _, _, body = _ask(hub, "POST", "/me/m.git/info/lfs/objects/batch", {"objects": [{"oid": oid, "size": 2048}]})
    actions = json.loads(body)["objects"][0]["actions"]
    upload = actions["upload"]["href"].removeprefix(hub.url)
    assert _ask(hub, "POST", "/lfs/verify", {"oid": oid, "size": 2048})[0] == 404
    assert _ask(hub, "PUT", upload, b"other bytes", token=False)[0] == 400
    assert _ask(hub, "PUT", upload, content, token=False)[0] == 200
    assert _ask(hub, "POST", "/lfs/verify", {"oid": oid, "size": 2048})[0] == 200
    _, _, body = _ask(hub, "POST", "/me/m.git/info/lfs/objects/batch", {"objects": [{"oid": oid, "size": 2048}]})
    assert "actions" not in json.loads(body)["objects"][0], "what is stored is not asked for again"
    line = {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": oid, "size": 2048}}
    assert _commit(hub, None, line)[0] == 200
    status, headers, part = _ask(hub, "GET", "/me/m/resolve/main/w.bin", Range="bytes=10-19")
    assert (status, part, headers["Content-Range"]) == (206, content[10:20], "bytes 10-19/2048")
    assert _ask(hub, "GET", "/me/m/resolve/main/w.bin", Range="bytes=-5")[2] == content[-5:]
    assert _ask(hub, "GET", "/me/m/resolve/main/w.bin", Range="bytes=9999-")[0] == 416
    status, headers, body = _ask(hub, "HEAD", "/me/m/resolve/main/w.bin")
    assert (status, body, headers["X-Linked-Etag"], headers["Content-Length"]) == (200, b"", f'"{oid}"', "2048")


CARD = "---\n{}\n---\nText\n"


@pytest.mark.parametrize(
    ("meta", "kind", "fault"),
    [
        ("license: apache-3.0", "model", "license"),
        ("license: mit\nlanguage: [english]", "model", "language"),
        ("license: mit\nsize_categories: [few]", "dataset", "size_categories"),
        ("license: mit\nmodel-index:\n- results: []", "model", "name"),
        ("license: mit\nconfigs:\n- data_files: x", "dataset", "config_name"),
        ("license: [", "model", "YAML"),
        ("license: mit\ndatasets: ['../x']", "model", "datasets"),
    ],
)
def test_cards_are_judged(hub: Any, meta: str, kind: str, fault: str) -> None:
    asked = {"content": CARD.format(meta), "repoType": kind}
    status, _, body = _ask(hub, "POST", "/api/validate-yaml", asked)
    assert status == 400
    assert fault in json.loads(body)["errors"][0]["message"]
    assert _ask(hub, "POST", "/api/validate-yaml", {**asked, "content": CARD.format("license: mit")})[0] == 200


CLIENT = """
import json, sys
from huggingface_hub import HfApi, hf_hub_download, CommitOperationAdd, CommitOperationDelete, snapshot_download
api = HfApi()
assert api.whoami()["name"] == "me"
for kind in ("model", "dataset"):
    api.create_repo("me/thing", repo_type=kind, private=True)
    api.create_repo("me/thing", repo_type=kind, exist_ok=True)
    adds = [CommitOperationAdd("sub/a.txt", b"one"), CommitOperationAdd("w.safetensors", b"x" * 5000)]
    first = api.create_commit("me/thing", adds, commit_message="one", repo_type=kind)
    again = [CommitOperationAdd("sub/a.txt", b"one"), CommitOperationAdd("w.safetensors", b"x" * 5000)]
    assert api.create_commit("me/thing", again, commit_message="same", repo_type=kind).oid == first.oid
    api.create_tag("me/thing", tag="v1", repo_type=kind)
    api.create_branch("me/thing", branch="dev", repo_type=kind)
    api.create_commit("me/thing", [CommitOperationDelete("sub/")], commit_message="two", repo_type=kind)
    assert [f.path for f in api.list_repo_tree("me/thing", repo_type=kind)] == [".gitattributes", "w.safetensors"]
    old = api.list_repo_tree("me/thing", repo_type=kind, revision="v1", recursive=True, expand=True)
    assert {f.path for f in old} == {".gitattributes", "sub", "sub/a.txt", "w.safetensors"}
    info = api.get_paths_info("me/thing", ["w.safetensors", "absent"], repo_type=kind)
    assert [i.lfs.size for i in info] == [5000]
    assert len(api.list_repo_commits("me/thing", repo_type=kind)) == 3
    assert {b.name for b in api.list_repo_refs("me/thing", repo_type=kind).branches} == {"main", "dev"}
    path = hf_hub_download("me/thing", "w.safetensors", repo_type=kind)
    assert open(path, "rb").read() == b"x" * 5000
    snapshot_download("me/thing", repo_type=kind, revision="v1")
    assert api.repo_info("me/thing", repo_type=kind, files_metadata=True).private
names = [d.id for d in api.list_datasets(limit=5)]
assert names == ["me/thing"], names
print("fine")
"""


def test_the_real_client_writes_and_reads_both_kinds(hub: Any, tmp_path: Path) -> None:
    import os

    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | hub.environment(tmp_path / "home")
    done = subprocess.run([sys.executable, "-c", CLIENT], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "fine"
