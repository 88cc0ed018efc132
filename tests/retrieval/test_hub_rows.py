"""Rows of datasets on the Hub, read by the real clients from the Hub of the tests."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from potstill.errors import DataError, UnreachableError
from potstill.retrieval.hub_conversion import Conversion, converted_files
from potstill.retrieval.hub_patience import patience

CONVERSION = "refs/convert/parquet"
READ = """
import json, sys
from potstill.errors import DataError
from potstill.retrieval.load import read_sample
from potstill.retrieval.row_texts import text_items
for asked in json.loads(sys.argv[1]):
    try:
        sample = read_sample(**asked)
        texts = list(text_items(sample.table, ["text"], "label"))
        print(json.dumps({"rows": list(sample.rows), "total": sample.total, "commit": sample.commit, "texts": texts}))
    except DataError as error:
        print(json.dumps({"kind": type(error).__name__, "said": str(error)}))
"""


def reads(hub: Any, home: Path, *asked: dict[str, Any]) -> list[dict[str, Any]]:
    """What a process with the real clients gets for each call of `read_sample`."""
    said = hub.ask(home, READ, json.dumps(asked))
    assert len(said) == len(asked)
    return said


def parquet(path: Path, texts: list[str], labels: list[int], names: tuple[str, ...] = ("bad", "good")) -> bytes:
    """A file as the Hub's converter writes it: class names in the schema's metadata, small row groups."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(names))})
    table = Dataset.from_dict({"text": texts, "label": labels}, features=features).data.table
    described = table.replace_schema_metadata(features.arrow_schema.metadata)
    pq.write_table(described, path, row_group_size=100)
    return path.read_bytes()


def test_of_a_dataset_with_a_script_the_hubs_own_parquet_is_read(hub: Any, tmp_path: Path) -> None:
    script = {"scripted.py": b"raise SystemExit('ran')\n", "README.md": b"# Scripted\n"}
    texts = [os.urandom(300).hex() for _ in range(3000)]
    for name in ("scripted", "many", "zipped", "bare", "none"):
        hub.create("datasets", f"me/{name}")
        hub.put("datasets", f"me/{name}", {f"{name}.py": b"raise SystemExit('ran')\n"} if name != "zipped" else
                {"README.md": b"# Z\n", "rows.xyz": b"?"})  # fmt: skip
    hub.put("datasets", "me/scripted", script)
    parts = [parquet(tmp_path / f"{i}", texts[1000 * i : 1000 * (i + 1)], [i % 2] * 1000) for i in range(3)]
    few = parquet(tmp_path / "few", ["only one"], [1])
    hub.put("datasets", "me/scripted", {f"plain_text/train/{i:04d}.parquet": part for i, part in enumerate(parts)} |
            {"plain_text/test/0000.parquet": few}, branch=CONVERSION)  # fmt: skip
    hub.put("datasets", "me/many", {"de/train/0000.parquet": few, "en/partial-train/0000.parquet": parts[0]},
            branch=CONVERSION)  # fmt: skip
    hub.put("datasets", "me/zipped", {"default/train/0000.parquet": few}, branch=CONVERSION)
    hub.put("datasets", "me/bare", {"duckdb.txt": b"?"}, branch=CONVERSION)
    before = len(hub.requests)
    spread, alone, no_split, no_config, several, partial, zipped, bare, none = reads(
        hub,
        tmp_path / "home",
        {"path": "me/scripted", "split": "train", "limit": 60},
        {"path": "me/scripted", "config": "default"},
        {"path": "me/scripted", "split": "absent"},
        {"path": "me/scripted", "config": "absent"},
        {"path": "me/many"},
        {"path": "me/many", "config": "en", "limit": 10},
        {"path": "me/zipped"},
        {"path": "me/bare"},
        {"path": "me/none"},
    )
    assert spread["total"] == 3000
    assert {row // 1000 for row in spread["rows"]} == {0, 1, 2}
    assert len(spread["rows"]) < 100
    assert all(text == texts[row] for row, (text, _) in zip(spread["rows"], spread["texts"], strict=True))
    assert {(row // 1000) % 2: label for row, (_, label) in zip(spread["rows"], spread["texts"], strict=True)} == {
        0: "bad",
        1: "good",
    }
    assert alone["texts"] == [["only one", "good"]], "the test split, of the only configuration"
    assert "no split 'absent'; it has test, train" in no_split["said"]
    assert "no configuration 'absent'; it has plain_text" in no_config["said"]
    assert "several configurations; name one of de, en" in several["said"]
    assert partial["total"] == 0, "a part of a split does not say how many rows the split has"
    assert len(partial["rows"]) >= 10
    assert zipped["texts"] == [["only one", "good"]]
    for refused in (bare, none):
        assert "can only be loaded by its own script, which is never run" in refused["said"]
    asked = [path for _, path in hub.requests[before:]]
    assert f"/api/datasets/me/scripted/revision/{CONVERSION.replace('/', '%2F')}" in asked


ADAPT = """
import json
import numpy as np
from potstill.retrieval.adapt import adapt_dataset
from potstill.retrieval.cards import Card, card_from_mapping
from potstill.retrieval.hub_listing import first_page, pages
from potstill.retrieval.options import RetrievalOptions
from potstill.task import Label, TaskSpec
class Same:
    def encode(self, texts):
        return np.ones((len(texts), 1), dtype=np.float32)
task = TaskSpec("t", "Judge a text.", "classification", labels=(Label("good"), Label("bad")))
listed = [card_from_mapping(item) for page in pages(first_page()) for item in page.items]
for card in sorted([*listed, *(Card(card.id, card.id) for card in listed)], key=lambda card: card.id):
    found = adapt_dataset(task, card, RetrievalOptions(), Same(), None)
    source = found.rows[0].source
    print(json.dumps([card.id, found.rows[0].input, source.config, source.split, found.note["split"]]))
"""


def test_configuration_and_split_are_chosen_whether_the_card_lists_them_or_not(hub: Any, tmp_path: Path) -> None:
    files = {name: parquet(tmp_path / name, [f"{name} text"] * 50, [0, 1] * 25) for name in ("de", "en", "full")}
    several = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}.parquet\n" for name in ("de", "en")
    )
    one = "- config_name: default\n  data_files:\n  - split: full\n    path: full.parquet\n"
    for name, listed in (("several", several), ("whole", one)):
        hub.create("datasets", f"me/{name}")
        card = f"---\nconfigs:\n{listed}---\n# Judged texts\n".encode()
        hub.put("datasets", f"me/{name}", {"README.md": card, **{f"{k}.parquet": v for k, v in files.items()}})
    said = hub.ask(tmp_path / "home", ADAPT)
    assert said[:2] == [["me/several", "en text", "en", "train", "train"]] * 2
    assert [found[:2] + found[3:] for found in said[2:]] == [["me/whole", "full text", "full", "full"]] * 2
    assert {found[2] for found in said[2:]} == {"default", None}
    (unnamed,) = reads(hub, tmp_path / "home", {"path": "me/several"})
    assert unnamed["said"] == "me/several has several configurations; name one of de, en"


def test_files_of_a_conversion_are_put_in_their_order() -> None:
    paths = ["a/train-part10/0000.parquet", "a/train-part2/0001.parquet", "a/train-part2/0000.parquet",
             "a/train-part0/0000.parquet", "a/partial-test/0000.parquet", "a/partial-dev/0000.parquet",
             "a/dev/0000.parquet", ".gitattributes", "a/index.duckdb", "a/b/c/0000.parquet"]  # fmt: skip
    found = converted_files("me/x", "c0ffee", paths)
    assert list(found) == ["a"]
    assert {name: files.whole for name, files in found["a"].items()} == {"dev": True, "test": False, "train": True}
    assert [path.split("/a/")[1] for path in found["a"]["train"].paths] == [paths[i][2:] for i in (3, 2, 1, 0)]
    assert found["a"]["dev"].paths == ["hf://datasets/me/x@c0ffee/a/dev/0000.parquet"]
    both = Conversion("me/x", "c0ffee", {"default": found["a"], "other": found["a"]})
    assert both.files(None, None) == found["a"]["test"]
    with pytest.raises(DataError, match="no configuration 'third'; it has default, other"):
        both.files(None, "third")


def test_a_revision_is_read_as_it_was_and_every_reading_tells_its_commit(hub: Any, tmp_path: Path) -> None:
    for name in ("rows", "lines", "scripted"):
        hub.create("datasets", f"me/{name}")
    old = parquet(tmp_path / "old", [f"old {i}" for i in range(500)], [i % 2 for i in range(500)])
    new = parquet(tmp_path / "new", ["new"], [0])
    commits = [
        hub.put("datasets", "me/rows", {"README.md": b"# R\n", "train.parquet": file}).oid for file in (old, new)
    ]
    hub.repo("datasets", "me/rows").tags["v1.0"] = commits[0]
    hub.repo("datasets", "me/rows").branches["of/mine"] = commits[0]
    line = b'{"text": "%s", "label": "good"}\n'
    first, _ = [hub.put("datasets", "me/lines", {"train.jsonl": line % word}).oid for word in (b"old", b"new")]
    script = hub.put("datasets", "me/scripted", {"scripted.py": b"raise SystemExit('ran')\n"}).oid
    files = [{"en/train/0000.parquet": file, "de/train/0000.parquet": new} for file in (old, new)]
    made = [hub.put("datasets", "me/scripted", found, branch=CONVERSION).oid for found in files]
    asked = [{"path": f"me/rows@{revision}", "limit": 20} for revision in (commits[0], "v1.0", "of/mine", "main")]
    asked += [{"path": path} for path in ("me/rows", f"me/lines@{first}", "me/lines")]
    asked += [{"path": f"me/scripted@{revision}", "config": "en", "limit": 20} for revision in
              (made[0], "~parquet", CONVERSION, script)]  # fmt: skip
    asked += [{"path": path} for path in (f"me/scripted@{made[0]}", "me/rows@v9", "me/rows@", "me/rows@a b", "me/x@v1")]
    said = reads(hub, tmp_path / "home", *asked)
    for found in said[:3]:
        assert found == said[0], "a commit gives the same rows by whatever name"
        assert found["commit"] == commits[0]
        assert found["texts"][0] == ["old 0", "bad"]
    assert [found["texts"] for found in said[3:5]] == [[["new", "bad"]]] * 2
    assert [found["commit"] for found in said[3:5]] == [commits[1]] * 2
    assert [found["texts"][0][0] for found in said[5:7]] == ["old", "new"]
    assert said[5]["commit"] == first
    by_commit, alias, branch, of_script, unnamed, absent, empty, odd, none = said[7:]
    assert by_commit["texts"] == said[0]["texts"]
    assert by_commit["commit"] == made[0]
    assert alias == branch
    assert (alias["texts"], alias["commit"]) == ([["new", "bad"]], made[1])
    assert f"what the Hub made of it can: me/scripted@{made[1]}" in of_script["said"]
    assert "several configurations; name one of de, en" in unnamed["said"]
    assert "me/rows@v9: the dataset has no such revision" in absent["said"]
    assert "after '@' stands a commit, a tag or a branch" in empty["said"]
    assert "after '@' stands a commit, a tag or a branch" in odd["said"]
    assert "me/x@v1" in none["said"]


def test_files_that_the_hub_refuses_for_long_do_not_hold_a_run(hub: Any, tmp_path: Path) -> None:
    hub.create("datasets", "me/rows")
    hub.create("datasets", "me/lines")
    hub.put("datasets", "me/rows", {"train.parquet": parquet(tmp_path / "rows", ["a text"] * 9, [0] * 9)})
    hub.put("datasets", "me/lines", {"train.jsonl": b'{"text": "a text", "label": "good"}\n' * 9})
    limit = {"RateLimit": '"resolvers";r=0;t=240', "RateLimit-Policy": '"fixed window";"resolvers";q=5000;w=300'}
    for verb in ("GET", "HEAD"):
        hub.fail(verb, r"me/rows/resolve/.*\.parquet", 429, times=999, headers=limit)
        hub.fail(verb, r"me/lines/resolve/.*\.jsonl", 503, times=999, headers={"Retry-After": "120"})
    began = time.monotonic()
    rows, lines = reads(hub, tmp_path / "home", {"path": "me/rows"}, {"path": "me/lines"})
    assert time.monotonic() - began < 100
    assert (rows["kind"], lines["kind"]) == ("UnreachableError", "UnreachableError"), "so that the next run asks again"
    assert rows["said"] == "me/rows cannot be read now: the Hub answers 429 and asks to wait 240 s"
    assert lines["said"] == "me/lines cannot be read now: the Hub answers 503 and asks to wait 120 s"


def test_a_busy_hub_is_waited_for_until_one_address_was_busy_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2
    from huggingface_hub import utils

    clock = {"now": 0.0}
    statuses: list[int] = []
    answers = httpx2.MockTransport(lambda request: httpx2.Response(statuses.pop(0)))
    client = httpx2.Client(transport=answers)
    monkeypatch.setattr(utils, "get_session", lambda: client)
    monkeypatch.setattr("potstill.retrieval.hub_patience.time.monotonic", lambda: clock["now"])

    def ask(now: float, status: int, path: str = "a") -> None:
        clock["now"] = now
        statuses.append(status)
        client.get(f"https://hub.invalid/{path}?signed={now}")

    with patience("me/x"):
        ask(0, 429)
        ask(25, 429)
        ask(26, 200)
        ask(50, 429)
        ask(60, 503, "b")
        ask(79, 429)
        with pytest.raises(
            UnreachableError, match="me/x cannot be read now: the Hub answers 429 and has been busy for 31"
        ):
            ask(81, 429)
    ask(200, 429)
    assert client.event_hooks["response"] == []
