"""Building catalogues: from files and folders, and from a Hub that pages, breaks off and changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from potstill.errors import DataError
from potstill.retrieval.build import build_catalogue, card_row
from potstill.retrieval.cards import Card, card_from_mapping
from potstill.retrieval.catalogue import read_catalogue, shipped_catalogue
from potstill.retrieval.hub_listing import catalogue_item

README = """---
pretty_name: Set {n}
language: [en]
license: mit
task_categories: [text-classification]
train-eval-index:
- config: default
  task: text-classification
  col_mapping: {{text: text, label: target}}
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names: {{'0': 'no', '1': 'yes'}}
  splits:
  - name: train
    num_examples: {n}
---
# Set {n}
"""


def test_a_catalogue_of_files_and_folders_is_what_was_read(tmp_path: Path) -> None:
    lines = tmp_path / "cards.jsonl"
    lines.write_text(
        '{"id": "a/b", "licences": ["mit", "cc-by-4.0"], "configs": {"x": {"features": {"t": "string"}}}}\n'
        '{"id": "../x"}\n'
    )
    result = build_catalogue([str(lines), str(shipped_catalogue())], tmp_path / "all.parquet")
    assert (result.cards, result.new, result.updated) == (7, 7, 0)
    assert result.unreachable == 6
    assert sum(result.skipped.values()) == 1
    found = {card.id: card for card in read_catalogue([result.path]).cards}
    first = read_catalogue([lines]).cards[0]
    assert found["a/b"] == first
    assert found["a/b"].configs == first.configs
    again = build_catalogue([str(lines)], tmp_path / "all.parquet")
    assert (again.cards, again.new, again.updated) == (7, 0, 0)


def test_data_inside_the_catalogues_folder_stay_reachable(tmp_path: Path) -> None:
    folder = tmp_path / "sets" / "words"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Words\n")
    (folder / "train.jsonl").write_text('{"text": "a"}\n')
    result = build_catalogue([str(tmp_path / "sets")], tmp_path / "all.parquet")
    assert result.unreachable == 0
    assert read_catalogue([result.path]).cards[0].location == str(folder)


def test_the_output_must_be_parquet_and_readable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must end in"):
        build_catalogue([str(shipped_catalogue())], tmp_path / "x.jsonl")
    (tmp_path / "x.parquet").write_bytes(b"PAR0" * 10)
    with pytest.raises(DataError, match="not a readable catalogue"):
        build_catalogue([str(shipped_catalogue())], tmp_path / "x.parquet")


def test_real_cards_survive_the_round_trip(data_pack: Path, tmp_path: Path) -> None:
    sources = [str(data_pack / "catalogue" / name) for name in ("catalogue.jsonl.gz", "hub_2023.jsonl.gz")]
    given = read_catalogue(sources)
    result = build_catalogue(sources, tmp_path / "hub.parquet")
    back = read_catalogue([result.path])
    assert result.cards == len(given.cards) == len(back.cards) > 2900
    by_id = {card.id: card for card in back.cards}
    for card in given.cards:
        assert by_id[card.id] == card
        assert by_id[card.id].configs == card.configs
        assert by_id[card.id].train_eval_index == card.train_eval_index
    assert back.digest == given.digest
    assert result.path.stat().st_size < 4_000_000


def test_an_item_of_the_listing() -> None:
    card = card_from_mapping(
        catalogue_item(
            {"id": "a/b", "gated": "manual", "downloads": 7, "tags": ["license:mit", "language:en"], "cardData": None,
             "description": "\n\t\n\t\t\n\t\tDataset Card\n\t\n\nTweets about trains."}
        )
    )  # fmt: skip
    assert card is not None
    assert (card.gated, card.downloads, card.licence, card.languages) == (True, 7, "mit", ("en",))
    assert "Tweets about trains." in card.description
    for strange in (None, 3, "x", {"id": 4, "cardData": [1]}, {}):
        assert catalogue_item(strange) is None or strange is not None
    assert "outside" not in card_row(Card("a", "a"))


def fill(hub: Any, count: int, first: int = 0) -> None:
    for n in range(first, first + count):
        repo = hub.create("datasets", f"them/set-{n:02d}")
        hub.put("datasets", f"them/set-{n:02d}", {"README.md": README.format(n=n + 1).encode()})
        repo.facts.update(
            lastModified=f"2026-01-01T00:{n // 60:02d}:{n % 60:02d}.000Z", tags=["language:en"], downloads=n
        )


def command(hub: Any, home: Path, *arguments: str, code: int = 0) -> str:
    """Run `potstill catalogue` as a process, for the client reads the Hub's address when it is imported."""
    environment = {**os.environ, **hub.environment(home), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "potstill.cli", "catalogue", *arguments],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def near(hub: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The test Hub, reachable from this process: the listing reads the client's address at each call."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name, value in {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token}.items():
        monkeypatch.setenv(name, value)
    return hub


def listed(hub: Any) -> int:
    return sum(path == "/api/datasets" for _, path in hub.requests)


def test_a_hub_is_listed_page_by_page_and_then_only_what_changed(near: Any, tmp_path: Path) -> None:
    fill(near, 25)
    near.repo("datasets", "them/set-03").facts["gated"] = "auto"
    near.repo("datasets", "them/set-04").facts["disabled"] = True
    near.repo("datasets", "them/set-05").facts["cardData"] = {"language": [{"x": 1}]}
    near.create("datasets", "me/secret", private=True).facts["lastModified"] = "2025-01-01T00:00:00.000Z"
    out = tmp_path / "hub.parquet"
    result = build_catalogue(["hub"], out, page=10)
    assert (result.cards, result.new, result.pages, listed(near)) == (23, 23, 3, 3)
    assert result.skipped["private or switched off"] == 2
    assert sum(result.skipped.values()) == 3
    cards = {card.id: card for card in read_catalogue([out]).cards}
    assert "me/secret" not in cards
    card = cards["them/set-07"]
    assert (card.rows, card.licence, card.downloads, card.gated) == (8, "mit", 7, False)
    assert card.configs["default"].features["label"] == {"class_label": ["no", "yes"]}
    assert card.train_eval_index[0]["col_mapping"] == {"text": "text", "label": "target"}
    assert cards["them/set-03"].gated

    changed = near.repo("datasets", "them/set-02")
    changed.facts.update(lastModified="2026-02-01T00:00:00.000Z", cardData={"license": "apache-2.0"})
    fill(near, 1, first=40)
    later = build_catalogue(["hub"], out, page=10)
    assert (later.cards, later.new, later.updated, later.pages) == (24, 1, 1, 1)
    assert {card.id: card.licence for card in read_catalogue([out]).cards}["them/set-02"] == "apache-2.0"
    assert build_catalogue(["hub"], out, page=10, full=True).pages == 3


def test_a_listing_that_breaks_off_goes_on_at_its_page(near: Any, tmp_path: Path) -> None:
    fill(near, 25)
    out = tmp_path / "hub.parquet"
    # The third page is refused for good, as when the process is killed there.
    near.fail("GET", "^/api/datasets$", 403, times=0)
    pages = iter(range(10))

    def third() -> None:
        if next(pages) == 1:
            near._faults[-1].status = 403

    near.fail("GET", "^/api/datasets$", 200, times=3, before=third)
    with pytest.raises(DataError, match="HF_TOKEN"):
        build_catalogue(["hub"], out, page=10)
    assert not out.exists()
    assert len(list((tmp_path / "hub.parquet.parts").glob("part-*.parquet"))) == 1
    near._faults.clear()
    before = listed(near)
    result = build_catalogue(["hub"], out, page=10)
    assert (result.cards, result.resumed, result.pages, listed(near) - before) == (25, True, 2, 2)
    assert not (tmp_path / "hub.parquet.parts").exists()


def test_what_a_limit_cut_off_is_not_taken_for_known(near: Any, tmp_path: Path) -> None:
    fill(near, 25)
    out = tmp_path / "hub.parquet"
    assert build_catalogue(["hub"], out, page=10, limit=10).cards == 10
    assert build_catalogue(["hub"], out, page=10).cards == 25


def test_no_more_cards_are_taken_than_the_limit_however_long_a_page(near: Any, tmp_path: Path) -> None:
    fill(near, 25)
    near.repo("datasets", "them/set-24").facts["disabled"] = True
    asked = build_catalogue(["hub"], tmp_path / "5.parquet", limit=5)
    assert (asked.cards, asked.pages) == (5, 2), "what is left out does not count"
    out = tmp_path / "hub.parquet"
    assert build_catalogue(["hub"], out, page=10, limit=13).cards == 13
    assert build_catalogue(["hub"], out, page=10).cards == 24, "the rest of the page is still new"
    assert build_catalogue(["hub"], tmp_path / "all.parquet", limit=24).cards == 24


def test_the_commands(hub: Any, tmp_path: Path) -> None:
    fill(hub, 3)
    out = str(tmp_path / "hub.parquet")
    assert "3 cards, 3 new" in command(hub, tmp_path, "build", "hub", "-o", out, "--filter", "language:en")
    facts = json.loads(command(hub, tmp_path, "info", out, "--json"))
    assert (facts["cards"], facts["with_features"], facts["licences"]) == (3, 3, {"mit": 3})
    assert "cards" in command(hub, tmp_path, "info")
    assert "no catalogue at" in command(hub, tmp_path, "info", str(tmp_path / "absent.parquet"), code=2)


@pytest.mark.real
def test_the_search_command_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from potstill.cli.app import app

    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path))
    asked = ["catalogue", "search", "Decide whether a text message is spam or ham.", "--top", "3", "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["hits"][0]["id"] == "short-message-spam"


def test_a_hub_out_of_reach_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        build_catalogue(["hub"], tmp_path / "x.parquet")
