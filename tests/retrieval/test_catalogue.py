"""Cards and catalogues: what is read, what is refused, and that a broken card never stops the others."""

from __future__ import annotations

import gzip
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.errors import DataError
from potstill.retrieval.cards import (
    Card,
    CardFault,
    card_from_mapping,
    check_id,
    front_matter,
    hub_configs,
    licence_id,
    plain_prose,
)
from potstill.retrieval.catalogue import card_data_files, read_catalogue, shipped_catalogue

GOOD = {
    "id": "me/reviews",
    "pretty_name": "Reviews",
    "description": "Reviews of things.",
    "languages": ["en", "pt-BR"],
    "licences": ["CC-BY-4.0"],
    "task_categories": ["text-classification"],
    "configs": {
        "default": {
            "features": {"text": "string", "label": {"class_label": ["bad", "good"], "num_classes": 2}},
            "splits": {"train": 10, "test": 5},
        }
    },
}


def write_lines(path: Path, *lines: Any) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n", "utf-8")
    return path


def read_one(raw: dict[str, Any]) -> Card:
    card = card_from_mapping(raw)
    assert card is not None
    return card


def test_a_card_in_the_catalogues_shape() -> None:
    card = read_one(GOOD)
    assert (card.id, card.title, card.rows, card.licence) == ("me/reviews", "Reviews", 15, "cc-by-4.0")
    assert card.languages == ("en", "pt")
    assert card.configs["default"].features["label"] == {"class_label": ["bad", "good"]}
    assert "bad good" in card.text
    assert "text classification" in card.text
    assert hash(card) == hash(read_one(GOOD))


def test_hub_listing_tags_are_understood() -> None:
    card = read_one({"id": "a/b", "tags": ["language:de", "license:mit", "task_categories:summarization"]})
    assert (card.languages, card.licence, card.tasks) == (("de",), "mit", ("summarization",))


@pytest.mark.parametrize(
    ("given_words", "licence"),
    [([], "unknown"), (["unstated"], "unknown"), (["other"], "unknown"), ([""], "unknown"), (["MIT"], "mit")]
    + [(["Apache 2.0"], "apache-2.0"), (["mit", "cc-by-4.0"], "mit and cc-by-4.0"), (["unlicense"], "unlicense")],
)
def test_licences_are_normalised(given_words: list[str], licence: str) -> None:
    assert licence_id(given_words) == licence


HOSTILE_IDS = [
    "../etc",
    "a/../b",
    "/etc/passwd",
    "a/b/c",
    "a\x00b",
    "a" * 97,
    ".hidden",
    "..",
    "a//b",
    "",
    "a b",
    "C:\\x",
]


@pytest.mark.parametrize("identifier", HOSTILE_IDS)
def test_ids_that_could_be_paths_are_refused(identifier: str, tmp_path: Path) -> None:
    with pytest.raises(CardFault, match="id"):
        check_id(identifier)
    found = read_catalogue([write_lines(tmp_path / "c.jsonl", {**GOOD, "id": identifier}, GOOD)])
    assert [card.id for card in found.cards] == ["me/reviews"]
    assert [item.where for item in found.skipped] == ["c.jsonl:1"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"description": "x" * 1_000_001}, "longer than 1,000,000"),
        ({"description": ["a"]}, "description must be text"),
        ({"configs": [1]}, "configs must be a mapping"),
        ({"configs": "{"}, "configs is not JSON"),
        ({"configs": {"a": 3}}, "must be a mapping"),
        ({"languages": [3]}, "short texts only"),
        ({"num_rows": "many"}, "num_rows must be a count"),
        ({"num_rows": -4}, "num_rows must be a count"),
    ],
)
def test_wrong_types_are_counted_skips(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    found = read_catalogue([write_lines(tmp_path / "c.jsonl", {**GOOD, **change, "id": "bad"}, GOOD)])
    assert [card.id for card in found.cards] == ["me/reviews"]
    assert reason in found.skipped[0].reason


def test_lines_that_are_no_cards(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "c.jsonl", "{", "[1]", "", GOOD, GOOD, {"id": "csv", "is_loader": True})
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n" + b"[" * 200_000 + b"\n")
    found = read_catalogue([path])
    assert len(found.cards) == 1
    reasons = [item.reason for item in found.skipped]
    assert len(reasons) == 5
    assert "not JSON" in reasons[0]
    assert "JSON object, not list" in reasons[1]
    assert reasons[2] == "duplicate of me/reviews"
    assert "not UTF-8" in reasons[3]


def test_a_line_of_nine_megabytes_is_skipped_whole(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    with gzip.open(path, "wb") as file:
        file.write(b'{"id": "big", "description": "' + b"x" * 9_000_000 + b'"}\n')
        file.write(json.dumps(GOOD).encode() + b"\n")
    found = read_catalogue([path])
    assert [card.id for card in found.cards] == ["me/reviews"]
    assert [(item.where, "longer than" in item.reason) for item in found.skipped] == [("c.jsonl.gz:1", True)]


def test_a_gzip_cut_short_keeps_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    lines = [{**GOOD, "id": f"d{i}", "description": os.urandom(400).hex()} for i in range(300)]
    path.write_bytes(gzip.compress("\n".join(json.dumps(line) for line in lines).encode())[:-20_000])
    found = read_catalogue([path])
    assert 100 < len(found.cards) < 300
    assert "breaks off" in found.skipped[-1].reason


@pytest.mark.parametrize("name", ["c.jsonl.gz", "c.parquet"])
def test_a_file_of_which_nothing_can_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PAR0 this is neither gzip nor Parquet")
    with pytest.raises(DataError, match=rf"{name}.*make it anew"):
        read_catalogue([tmp_path / name])


def test_paths_that_are_no_catalogue(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no catalogue at"):
        read_catalogue([tmp_path / "absent.jsonl"])
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(DataError, match="must end in"):
        read_catalogue([tmp_path / "x.txt"])
    with pytest.raises(DataError, match="no cards in"):
        read_catalogue([tmp_path])


def test_parquet_with_json_text_and_with_structs(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{**GOOD, "configs": json.dumps(GOOD["configs"])}, {**GOOD, "id": "../x", "configs": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "text.parquet")
    pq.write_table(pa.Table.from_pylist([GOOD]), tmp_path / "struct.parquet")
    text = read_catalogue([tmp_path / "text.parquet"])
    assert text.cards[0] == read_one(GOOD)
    assert len(text.skipped) == 1
    assert read_catalogue([tmp_path / "struct.parquet"]).cards[0].configs["default"].features["label"] == {
        "class_label": ["bad", "good"]
    }


README = """---
pretty_name: 'Words'
language:
- no
- en
license: other
task_categories: [text-classification]
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train.jsonl
  - split: test
    path: ../../../etc/passwd
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '1': 'yes'
          '0': 'no'
  splits:
  - name: train
    num_examples: 2
---
# Words

## Dataset Summary

Words that people say, with whether they mean yes or no, in two languages.

## Usage

Nothing.
"""


def write_folder(folder: Path, readme: str = README) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(readme, "utf-8")
    write_lines(folder / "data" / "train.jsonl", {"text": "a", "label": 0}, {"text": "b", "label": 1})
    return folder


def test_a_folder_with_a_readme(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "words")
    found = read_catalogue([tmp_path])
    assert found.skipped == ()
    card = found.cards[0]
    assert (card.id, card.title, card.licence, card.rows) == ("words", "Words", "unknown", 2)
    assert card.languages == ("no", "en")
    assert card.description.startswith("Words that people say")
    assert "Nothing" not in card.description
    assert card.configs["default"].features["label"] == {"class_label": ["no", "yes"]}
    assert card.location == str(folder)
    assert card_data_files(folder) == {"train": [folder / "data" / "train.jsonl"]}


LISTED = """---
configs:
- config_name: de
  data_files: de/*.jsonl
- config_name: en
  data_files:
  - split: full
    path: en/full.jsonl
  - split: test
    path: en/test.jsonl
- config_name: fr
  data_dir: fr
- config_name: known
  data_files:
    train: a.jsonl
dataset_info:
- config_name: known
  features:
  - name: text
    dtype: string
  splits:
  - name: all
    num_examples: 7
---
# Reviews in several languages
"""


def test_configurations_that_a_card_only_lists_are_known_with_their_splits() -> None:
    raw = front_matter(LISTED, "README.md")
    assert raw is not None
    card = card_from_mapping({**raw, "id": "me/reviews"})
    assert card is not None
    splits = {"known": {"all": 7}, "de": {"train": 0}, "en": {"full": 0, "test": 0}, "fr": {}}
    assert {name: dict(config.splits) for name, config in card.configs.items()} == splits
    assert {name: dict(config.features) for name, config in card.configs.items() if config.features} == {
        "known": {"text": "string"}
    }
    assert card.rows == 7
    many = [{"config_name": f"c{i}", "data_files": "x.csv"} for i in range(3000)]
    assert len(hub_configs(None, many)) == 2000
    unnamed = {"config_name": None, "data_files": [[], None, {"path": 4}]}
    for odd in ("x", [3], [{"data_files": 3}], [unnamed], {"a": 1}):
        assert set(hub_configs(None, odd)) <= {"default"}


BOMB = "---\na: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)
HOSTILE_YAML = [
    BOMB + "---\n",
    "---\na: &x\n  b: *x\n---\n",
    "---\na: !!python/object/apply:os.system ['touch owned']\n---\n",
    "---\na: [" + "[" * 500 + "]" * 500 + "]\n---\n",
    "---\na: 'unclosed\n---\n",
    "---\n- a list\n---\n",
]


@pytest.mark.parametrize("text", HOSTILE_YAML)
def test_hostile_yaml_is_a_counted_skip(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "c" / "bad", text)
    write_folder(tmp_path / "c" / "good")
    found = read_catalogue([tmp_path / "c"])
    assert [card.id for card in found.cards] == ["good"]
    assert [item.where for item in found.skipped] == ["c/bad"]
    assert not (tmp_path / "owned").exists()


def test_a_card_of_five_megabytes_is_skipped(tmp_path: Path) -> None:
    write_folder(tmp_path / "bad", README + "x" * 5_000_000)
    write_folder(tmp_path / "good")
    found = read_catalogue([tmp_path])
    assert [card.id for card in found.cards] == ["good"]
    assert "longer than" in found.skipped[0].reason


def test_locations_stay_inside_the_catalogues_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_folder(home / "words")
    outside = write_lines(tmp_path / "secret.jsonl", {"text": "a"})
    (home / "link.jsonl").symlink_to(outside)
    lines = [
        {**GOOD, "id": f"d{i}", "location": place} for i, place in enumerate(("words", "../secret.jsonl", "link.jsonl"))
    ]
    path = write_lines(home / "cards.jsonl", *lines)
    assert [card.location for card in read_catalogue([path]).cards] == [str(home / "words"), None, None]


def test_the_copy_with_data_wins_over_the_one_without(tmp_path: Path) -> None:
    write_folder(tmp_path / "f" / "words")
    path = write_lines(tmp_path / "c.jsonl", {**GOOD, "id": "words"})
    found = read_catalogue([path, tmp_path / "f"])
    assert found.cards[0].location == str(tmp_path / "f" / "words")
    assert found.skipped[0].reason == "duplicate of words"
    assert found.digest != read_catalogue([path]).digest


def test_markdown_leaves_the_text_that_is_embedded() -> None:
    hostile = "# Hi <script>alert(1)</script> [a](javascript:x) ![i](http://x/y.png) `code` https://x.y/z | b |"
    assert plain_prose(hostile) == "Hi alert(1) a code b"


@given(st.text(max_size=300))
def test_no_text_breaks_the_front_matter_reader(text: str) -> None:
    with suppress(CardFault):
        front_matter("---\n" + text + "\n---\n", "x")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "num_rows", "tags", "gated", "downloads", "train_eval_index", "pack"]), _json
    )
)
def test_a_card_of_any_values_is_read_or_refused(raw: dict[str, Any]) -> None:
    with suppress(CardFault):
        card = card_from_mapping({"id": "a/b", **raw})
        assert card is None or len(card.text) <= 1500


def test_the_shipped_catalogue_is_whole() -> None:
    found = read_catalogue([shipped_catalogue()])
    assert len(found.cards) >= 4
    assert found.skipped == ()
    for card in found.cards:
        assert card.location is not None
        assert card.rows > 0
        assert card.languages == ("en",)
        assert card.licence != "unknown"
        assert card_data_files(Path(card.location))


def test_the_real_catalogues(data_pack: Path) -> None:
    hub = data_pack / "catalogue"
    cards = read_catalogue([hub / "catalogue.jsonl.gz"])
    assert (len(cards.cards), len(cards.skipped)) == (765, 0)
    both = read_catalogue([hub / "catalogue.jsonl.gz", hub / "hub_2023.jsonl.gz"])
    assert len(both.cards) + len(both.skipped) == 765 + 2909
    assert {item.reason.split()[0] for item in both.skipped} == {"duplicate"}
    tasks = read_catalogue([data_pack / "tasks"])
    assert len(tasks.cards) == 17
    assert {card.id: card for card in tasks.cards}["pack/ag_news"].known_as == ("ag_news",)
    assert all(card.location and Path(card.location).is_dir() for card in tasks.cards)
