"""Reading rows: even samples, nested columns, splits and configurations, and files that lie."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Translation, Value

from potstill.errors import DataError
from potstill.retrieval import sampling
from potstill.retrieval.arrow_files import saved_splits
from potstill.retrieval.cards import Card, Config
from potstill.retrieval.configs import choose_config, chosen_split, is_checking, train_split
from potstill.retrieval.load import open_table, read_data, read_sample, read_texts, splits_of
from potstill.retrieval.row_texts import text_items
from potstill.task import DataRef, Label, TaskSpec
from potstill.task.file import read_task


def write(path: Path, table: pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def by_label(rows: int) -> pa.Table:
    """A table sorted by its label, as many are."""
    return pa.table({"text": [f"text {i}" for i in range(rows)], "label": [i * 4 // rows for i in range(rows)]})


def test_a_group_as_writers_make_it_by_default_is_sampled_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", pa.table({"label": [i * 2 // 700_000 for i in range(700_000)]}))
    sample = read_sample(str(path), limit=50)
    assert 20 <= sample.table["label"][:].count(1) <= 30


@pytest.mark.parametrize(
    "splits",
    [
        {"train": "my_reviews_train.csv", "test": "my_reviews_test.csv"},
        {"train": "train-00000-of-00002.csv", "validation": "validation-00000-of-00001.csv"},
        {"train": "training_data.csv", "test": "eval.csv", "validation": "reviews-dev.csv"},
        {"contested": "contested-2020.csv", "reviews": "reviews.csv"},
    ],
)
def test_splits_are_read_from_the_names_of_files(splits: dict[str, str], tmp_path: Path) -> None:
    for name in splits.values():
        (tmp_path / name).write_text("text,label\na,b\n")
    assert {split: [file.name for file in files] for split, files in splits_of(tmp_path).items()} == {
        split: [name] for split, name in splits.items()
    }
    assert read_sample(str(tmp_path), split="eval" if "test" in splits else next(iter(splits))).total == 1


def test_a_folder_that_save_to_disk_wrote_is_read_by_its_splits(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    rows = {"text": [f"text {i}" for i in range(5000)], "label": [i // 2500 for i in range(5000)]}
    whole = Dataset.from_dict(rows, features=features)
    whole.save_to_disk(tmp_path / "one", num_shards=3)
    few = whole.select([4999, 0, 7])
    DatasetDict({"train": whole, "test": few}).save_to_disk(tmp_path / "dict")
    assert {split: len(files) for split, files in splits_of(tmp_path / "one").items()} == {"train": 3}
    assert {split: len(files) for split, files in splits_of(tmp_path / "dict").items()} == {"train": 1, "test": 1}
    sample = read_sample(str(tmp_path / "one"), limit=100)
    assert (sample.total, sample.table.num_rows, sample.split) == (5000, 100, "train")
    assert sample.table["text"][:] == [f"text {number}" for number in sample.rows]
    assert sample.table.features["label"] == features["label"]
    assert sample.table["label"][:].count(1) == 50
    assert read_sample(str(tmp_path / "one")).table["text"][:] == rows["text"]
    tested = read_sample(str(tmp_path / "dict"))
    assert (tested.split, tested.table["text"][:]) == ("test", ["text 4999", "text 0", "text 7"])
    assert read_sample(str(tmp_path / "dict"), training=True, limit=9).total == 5000
    assert read_sample(str(next((tmp_path / "dict" / "test").glob("*.arrow")))).total == 3
    read = read_data(DataRef(str(tmp_path / "dict"), training=True), task("Judge.", "good", "bad"))
    assert read.num_rows == 5000

    feather = tmp_path / "rows.arrow"
    with pa.ipc.new_file(str(feather), whole.data.schema) as file:
        file.write_table(whole.data.table)
    assert read_sample(str(feather), limit=10).table["text"][:] == [f"text {i * 500}" for i in range(10)]
    lines = tmp_path / "rows.ndjson"
    lines.write_text('{"text": "a"}\n{"text": "b"}\n')
    assert read_sample(str(lines)).total == 2


def test_a_folder_of_save_to_disk_names_no_file_outside_and_no_broken_one_is_followed(tmp_path: Path) -> None:
    data = Dataset.from_dict({"text": ["a" * 50, "b", "c"] * 50})
    for name in ("home", "away"):
        data.save_to_disk(tmp_path / name)
    state = tmp_path / "home" / "state.json"
    (own,) = (tmp_path / "home").glob("*.arrow")
    (other,) = (tmp_path / "away").glob("*.arrow")
    for names in ([f"../away/{other.name}"], [str(other)], ["\x00"], ["absent.arrow"], [3]):
        state.write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
        assert splits_of(tmp_path / "home") == {"data": [own]}, "by the names of its files"
    for odd in ("[1]", "{", json.dumps({"_data_files": 3})):
        state.write_text(odd)
        assert read_sample(str(tmp_path / "home")).total == 150
    assert saved_splits(tmp_path) == {}
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["home", "away", "../x", 4]}')
    assert set(saved_splits(tmp_path)) == {"away"}
    whole = own.read_bytes()
    rng = Random(0)
    for _ in range(150):
        broken = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        own.write_bytes(bytes(broken[: rng.choice((len(broken), rng.randrange(len(broken))))]))
        with contextlib.suppress(DataError):
            read_sample(str(own), limit=20)
    with pa.ipc.new_stream(str(own), pa.schema([("text", pa.null())])) as stream:
        stream.write_batch(pa.record_batch([pa.Array.from_buffers(pa.null(), 2**31 - 1, [None])], names=["text"]))
    with pytest.raises(DataError, match="claims 2,147,483,647 rows"):
        read_sample(str(own))
    with pa.ipc.new_stream(str(own), pa.schema([("text", pa.dictionary(pa.int8(), pa.string()))])) as stream:
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int8()), ["x" * 1_000_000])
        stream.write_batch(pa.record_batch([column], names=["text"]))
    with pytest.raises(DataError, match="rows hold over 381 MiB"):
        read_sample(str(own), limit=1000)
    own.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        read_sample(str(own))


def test_media_beside_a_text_are_left_where_they_are(tmp_path: Path) -> None:
    """Nothing that a table names is opened: no file, and no address."""
    from datasets import Audio, Features, Image, List, Value

    cell = {"bytes": None, "path": "http://127.0.0.1:9/asked.png"}
    text = {"text": Value("string"), "label": Value("string")}
    features = Features({**text, "picture": Image(), "sounds": List(Audio())})
    rows = [{"text": f"text {i}", "label": "ab"[i % 2], "picture": cell, "sounds": [cell]} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema), tmp_path / "train.parquet")
    assert "Image" in str(pq.read_schema(tmp_path / "train.parquet").metadata)
    sample = read_sample(str(tmp_path / "train.parquet"), limit=10)
    assert sample.table.column_names == ["text", "label"]
    assert sample.table["text"][0] == "text 0"


def test_rows_without_a_label_are_left_out_of_the_users_data(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["yes", "no"])})
    rows = {"text": [f"t {i}" for i in range(6)], "label": [0, 1, -1, 0, 1, -1]}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "own.parquet")
    read = read_data(DataRef(str(tmp_path / "own.parquet")), task("Say it.", "yes", "no"))
    assert read["input"][:] == ["t 0", "t 1", "t 3", "t 4"]
    told: list[str] = []
    read_data(DataRef(str(tmp_path / "own.parquet")), task("Say it.", "yes", "no"), tell=told.append)
    assert told == [f"2 of 6 rows in {tmp_path / 'own.parquet'} have no text or no label and are left out"]
    (tmp_path / "bare.csv").write_text("text,label\na,\nb,\n")
    with pytest.raises(DataError, match="column 'label' is empty in all 2 rows"):
        read_data(DataRef(str(tmp_path / "bare.csv"), inputs=("text",), output="label"), task("Say it.", "yes", "no"))


def test_rows_without_an_answer_are_left_out_and_empty_answers_stay(tmp_path: Path) -> None:
    task = TaskSpec("t", "Name the products in a message.", "generation")
    told: list[str] = []
    own = tmp_path / "own.jsonl"
    rows = [{"input": "a kettle", "output": "kettle"}, {"input": "hello", "output": ""}, {"input": "x", "output": None}]
    own.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert read_data(DataRef(str(own)), task, tell=told.append)["output"][:] == ["kettle", ""]
    assert told == [f"1 of 3 rows in {own} have no text or no answer and are left out"]
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("input,output\na kettle,kettle\nhello,\n")
    assert read_data(DataRef(str(sheet)), task)["output"][:] == ["kettle"]
    sheet.write_text("input,output\na kettle,\nhello,\n")
    with pytest.raises(DataError, match="column 'output' is empty in all 2 rows; name the column of the answers"):
        read_data(DataRef(str(sheet)), task)


@pytest.mark.parametrize("group", [1000, 37, 10])
def test_a_sample_of_a_sorted_parquet_holds_every_label_evenly(group: int, tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", by_label(1000), row_group_size=group)
    sample = read_sample(str(path), limit=40)
    assert 36 <= sample.table.num_rows <= 48
    assert sample.total == 1000
    counts = [sample.table["label"][:].count(label) for label in range(4)]
    assert min(counts) >= 8
    assert sample.table["text"][:] == [f"text {row}" for row in sample.rows]
    whole = read_sample(str(path))
    assert list(whole.rows) == list(range(1000))


def test_a_sample_reads_few_bytes_of_a_large_file(tmp_path: Path) -> None:
    texts = [os.urandom(200).hex() for _ in range(20_000)]
    path = write(tmp_path / "train.parquet", pa.table({"text": texts}), row_group_size=200)
    read = 0

    class Counting:
        def __init__(self) -> None:
            self.file = path.open("rb")
            self.closed = False

        def read(self, size: int = -1) -> bytes:
            nonlocal read
            found = self.file.read(size)
            read += len(found)
            return found

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    counting = Counting()
    assert sampling.sample_parquet([("x", counting)], 100).table.num_rows >= 90  # type: ignore[list-item]
    counting.file.close()
    assert read < 0.3 * path.stat().st_size


def test_several_files_are_numbered_through(tmp_path: Path) -> None:
    for part in range(2):
        write(tmp_path / f"train-{part}.parquet", pa.table({"text": [f"{part}-{i}" for i in range(50)]}))
    sample = read_sample(str(tmp_path), split="train", limit=20)
    assert [f"{row // 50}-{row % 50}" for row in sample.rows] == sample.table["text"][:]
    assert sample.total == 100
    lines = tmp_path / "lines"
    lines.mkdir()
    for part in range(2):
        (lines / f"train-{part}.jsonl").write_text("".join(f'{{"text": "{part}-{i}"}}\n' for i in range(50)))
    sample = read_sample(str(lines), split="train", limit=20)
    assert [f"{row // 50}-{row % 50}" for row in sample.rows] == sample.table["text"][:]


def test_lines_are_sampled_from_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b'{"n": %d}\n' % i for i in range(2000))))
    sample = read_sample(str(path), limit=100)
    assert sample.table["n"][:] == list(sample.rows)
    assert sample.total == 2000
    assert max(sample.rows) > 1500
    assert sum(row < 1000 for row in sample.rows) in range(30, 71)
    assert read_sample(str(path), limit=100).rows == sample.rows


def test_columns_of_mixed_types_become_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1, "b": "x"}\n{"a": "two", "c": {"d": ["e"]}}\n{"a": {"z": 1}}\n')
    table = open_table(str(path))
    assert table["a"][:] == ["1", "two", '{"z": 1}']
    assert table["c.d"][:] == [None, ["e"], None]


def test_translations_and_structs_are_flattened(tmp_path: Path) -> None:
    features = Features({"translation": Translation(languages=["de", "en"]), "label": ClassLabel(names=["a", "b"]),
                         "answers": {"text": [Value("string")], "start": [Value("int32")]}})  # fmt: skip
    data = Dataset.from_list(
        [{"translation": {"de": "ja", "en": "yes"}, "label": 1, "answers": {"text": ["y", "z"], "start": [0, 1]}}] * 3,
        features=features,
    )
    data.to_parquet(tmp_path / "train.parquet")
    table = open_table(str(tmp_path), split="train", limit=2)
    assert {"translation.de", "translation.en", "answers.text", "label"} <= set(table.column_names)
    assert next(text_items(table, ["translation.de"], "translation.en")) == ("ja", "yes")
    assert next(text_items(table, ["answers.text"], "label")) == ("y z", "b")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("answers", {"text": ["Denver", "Denver", "Denver"], "answer_start": [5, 5, 5]}, "Denver"),
        ("output", ["Oslo", "Kristiania"], "Oslo"),
        ("output", ["Jane Austen", "Austen"], "Jane Austen"),
        ("output", ["Austen", "Jane Austen"], "Austen"),
        ("answers", ["1969", "July", "1969."], "1969"),
        ("answer", ["", "Paris"], "Paris"),
        ("answer", ["yes"], "yes"),
        ("answer", "New York City", "New York City"),
        ("references", ["Ja", "Jawohl"], "Ja"),
        ("target", ["北京", "北京市"], "北京"),
        # Words of one text, or several things that are all wanted.
        ("tokens", ["It", "rains", "."], "It rains ."),
        ("target_tokens", ["Es", "regnet", "."], "Es regnet ."),
        ("summary.words", ["Rain", "today"], "Rain today"),
        ("keywords", ["rain", "flood"], "rain flood"),
        ("ner_tags", ["O", "B-PER"], "O B-PER"),
    ],
)
def test_of_several_references_the_first_counts(tmp_path: Path, column: str, value: Any, said: str) -> None:
    place = tmp_path / "test.jsonl"
    held = value
    for part in reversed(column.split(".")[1:]):
        held = {part: held}
    rows = [{"question": f"Which of the {n} cities?", column.split(".")[0]: held} for n in range(4)]
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = f"{column}.text" if isinstance(value, dict) else column
    ref = DataRef(str(place), inputs=("question",), output=output)
    spec = TaskSpec("t", "Answer the question in a few words.", "generation", metric="exact_match")
    assert read_data(ref, spec)["output"][:] == [said] * 4
    measured = read_data(ref, spec, measured=True)
    several = list(dict.fromkeys(filter(str.strip, value["text"] if isinstance(value, dict) else value)))
    if isinstance(value, str) or len(several) < 2 or (" " in said and said not in several):
        assert "references" not in measured.column_names
    else:
        assert measured["references"][:] == [several] * 4
    assert measured["output"][:] == [said] * 4
    tagging = replace(spec, instruction="Tag each word with its part of speech.")
    if isinstance(value, list) and len(value) > 1 and all(len(part.split()) == 1 for part in value):
        assert read_data(ref, tagging)["output"][0] == " ".join(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"}], "user: Hi.\nassistant: Yes?"),
        ([{"from": "human", "value": "Hi."}, {"from": "gpt", "value": ""}], "Hi."),
        ([{"role": "user", "content": [{"type": "text", "text": "Hi."}]}, {"role": "bot", "content": []}], "Hi."),
        ([{"speaker": "A", "utterance": "Rain."}, {"speaker": "B", "utterance": "Again?"}], "A: Rain.\nB: Again?"),
        ([{"text": "It rains.", "id": "7"}, {"text": "Again?", "id": "8"}], "It rains.\nAgain?"),
        (["It rains here.", "Again?"], "It rains here.\nAgain?"),
        (["It", "rains", "."], "It rains ."),
    ],
)  # fmt: skip
def test_an_input_that_is_a_list_is_read_whole(value: Any, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", pa.table({"turns": [value] * 3, "label": ["a", "b", "a"]}))
    rows = read_data(DataRef(str(path), inputs=("turns",), output="label"), task("Sort chats.", "a", "b"))
    assert rows["input"][0] == said


def test_an_answer_that_is_a_turn_of_a_chat_is_what_is_said(tmp_path: Path) -> None:
    asked = [[{"role": "user", "content": f"Is {n} odd?"}] for n in range(4)]
    rows = [{"prompt": turns, "completion": [{"role": "assistant", "content": "Yes."}]} for turns in asked]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = TaskSpec("t", "Answer the question.", "generation")
    read = read_data(DataRef(str(path), inputs=("prompt",), output="completion"), spec)
    assert (read["input"][1], read["output"][1]) == ("Is 1 odd?", "Yes.")


def test_a_list_of_labels_is_no_list_of_references(tmp_path: Path) -> None:
    place = tmp_path / "own.jsonl"
    place.write_text('{"text": "What a day!", "label": ["joy", "fear"]}\n' * 4)
    with pytest.raises(DataError, match="holds labels that the task does not have: 'joy fear'"):
        read_data(DataRef(str(place), inputs=("text",), output="label"), task("Name the emotion.", "joy", "fear"))


_TELLS = "Say hi to the whole team."
_CHAT = [{"role": "user", "content": _TELLS}, {"role": "assistant", "content": "Hi all!"}]


@pytest.mark.parametrize(
    ("row", "columns", "text"),
    [
        ({"instruction": _TELLS, "input": "", "output": "Hi all!"}, {}, _TELLS),
        ({"instruction": "Translate it into French.", "input": "Hello", "output": "Bonjour"}, {},
         "Translate it into French.\n\nHello"),
        ({"instruction": "Translate", "input": "Hello", "output": "Bonjour"}, {}, "Translate\n\nHello"),
        ({"instruction": "Define the word.", "input": "internationalisation", "output": "Making it fit for all."}, {},
         "Define the word.\n\ninternationalisation"),
        ({"instruction": "Double it.", "input": 12, "output": "24"}, {}, "Double it.\n\n12"),
        ({"prompt": _TELLS, "response": "Hi all!"}, {}, _TELLS),
        ({"question": "Who wrote it?", "context": "Ada wrote it.", "answer": "Ada"}, {},
         "Who wrote it?\n\nAda wrote it."),
        ({"messages": _CHAT}, {}, _TELLS),
        ({"conversations": [{"role": "system", "content": "Be kind."}, *_CHAT]}, {}, f"Be kind.\n\n{_TELLS}"),
        ({"instruction": _TELLS, "input": "", "output": "Hi all!"},
         {"inputs": ("instruction", "input"), "output": "output"}, _TELLS),
        ({"ask": "Sum it up.", "given": "It rains.", "wanted": "Rain."},
         {"inputs": ("ask", "given"), "output": "wanted"}, "Sum it up.\n\nIt rains."),
        ({"ask": "Sum it up.", "about": "Rain", "given": "It rains.", "wanted": "Rain."},
         {"inputs": ("ask", "about", "given"), "output": "wanted"}, "Sum it up.\n\nRain\n\nIt rains."),
        ({"instruction": "Sum it up.", "input": "It rains.", "output": "Rain."}, {"output": "output"},
         "Sum it up.\n\nIt rains."),
        ({"instruction": "Sum it up.", "input": "It rains.", "output": "Rain."}, {"inputs": ("instruction",)},
         "Sum it up."),
    ],
)  # fmt: skip
def test_rows_of_instructions_are_read_in_the_form_that_they_are_trained_in(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, Any], text: str
) -> None:
    place = tmp_path / "test.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for _ in range(6)))
    ref = DataRef(str(place), **columns)
    spec = TaskSpec("t", "Follow the instructions of users.", "instructions")
    assert read_data(ref, spec)["input"][:] == [text] * 6
    assert set(read_data(ref, spec)["output"]) & {"Hi all!", "Bonjour", "24", "Ada", "Rain.", "Making it fit for all."}
    assert read_texts(ref, spec) == [text] * 6


# ---- files that lie ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["magic", "cut", "empty", "text", "footer"])
def test_parquet_that_is_none_is_said_so(damage: str, tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", by_label(100))
    whole = path.read_bytes()
    path.write_bytes(
        {"magic": b"XXXX" + whole[4:-4] + b"XXXX", "cut": whole[: len(whole) // 2], "empty": b"", "text": b"a,b\n1,2\n",
         "footer": whole[:-8] + (2**31 - 1).to_bytes(4, "little") + b"PAR1"}[damage]
    )  # fmt: skip
    with pytest.raises(DataError, match=r"train.parquet cannot be read"):
        read_sample(str(path), limit=10)


def test_parquet_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One long text, repeated: a few kilobytes on disk, as large as one likes in memory."""
    monkeypatch.setattr(sampling, "MAX_SAMPLE_BYTES", 20_000_000)
    text = pa.array(["x" * 1_000_000]).dictionary_encode().dictionary
    bomb = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), text)
    path = write(tmp_path / "train.parquet", pa.table({"text": bomb}), compression="zstd")
    assert path.stat().st_size < 50_000
    with pytest.raises(DataError, match="too large for training text"):
        read_sample(str(path), limit=400)
    monkeypatch.setattr(sampling, "MAX_GROUP_BYTES", 1000)
    with pytest.raises(DataError, match="in one row group"):
        read_sample(str(path), limit=400)


def test_gzip_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.retrieval import load

    monkeypatch.setattr(load, "_FILE_LIMIT", 1_000_000)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress((b'{"a": "' + b"x" * 1000 + b'"}\n') * 5000))
    with pytest.raises(DataError, match="unpacks to more than"):
        read_sample(str(path), limit=10)
    monkeypatch.setattr(load, "_LINE_LIMIT", 500)
    with pytest.raises(DataError, match="has a line of over"):
        read_sample(str(path), limit=10)
    monkeypatch.setattr(load, "_LINE_LIMIT", 1 << 20)
    path.write_bytes(gzip.compress(os.urandom(5000))[:-100])
    with pytest.raises(DataError, match="cannot be read"):
        read_sample(str(path), limit=10)


def test_parquet_with_text_that_is_no_utf_8_is_refused_when_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    Dataset.from_dict({"text": ["plain words", "other words"], "label": ["a", "b"]}).to_parquet(path)
    path.write_bytes(path.read_bytes().replace(b"plain words", b"pl\xef\xffn words"))
    with pytest.raises(DataError, match=r"a.parquet cannot be read .*UTF8"):
        read_sample(str(path))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("a.jsonl", b"{\n", r"cannot be read \(line 1: Expecting property name.*\); each line must"),
     ("a.jsonl", b'{"a": 1}\n\n{"a"\n', r"\(line 3: Expecting ':' delimiter, character 5\)"),
     ("a.jsonl", b'{"a": 1}\n\n[1]\n', "line 3 is list"), ("a.jsonl", b"\xff\xfe\n", "cannot be read"),
     ("a.jsonl", b"[" * 100_000 + b"\n", "cannot be read"),
     ("a.json", b'{"a": [1]}', "list of objects, or objects one a line; it holds a dict"),
     ("a.json", b"[" * 100_000, "cannot be read"), ("a.xlsx", b"PK", "no known format.*save it as CSV"),
     ("a.txt", b"so sad", "as unlabelled: it would do")],
)  # fmt: skip
def test_other_files_that_cannot_be_read(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_sample(str(tmp_path / name), limit=5)


@pytest.mark.parametrize(
    "name", ["../etc/passwd", "a/../b", "a/b/c", "/absent", "~/absent", "a\x00b", "x y/z", "absent.csv"]
)
def test_ids_that_are_paths_reach_nothing(name: str) -> None:
    with pytest.raises(DataError, match="no data at"):
        read_sample(name, limit=5)


def test_a_folder_with_a_script_only_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "load.py").write_text("raise SystemExit('ran')")
    with pytest.raises(DataError, match=r"only a loading script \(load.py\), which is never run"):
        read_sample(str(tmp_path))


# ---- splits and configurations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "split"),
    [("train test", "train"), ("test validation", None), ("labeled_train test", "labeled_train"), ("all", "all"),
     ("TEST dev", None), ("train_clean dev_clean", "train_clean"), ("latest test", "latest")],
)  # fmt: skip
def test_a_test_split_never_feeds_training(names: str, split: str | None) -> None:
    assert train_split(names.split()) == split
    assert split is None or not is_checking(split)


@pytest.mark.parametrize(
    ("names", "learnt", "measured"),
    [
        ("train test", "train", "test"),
        ("train validation test", "train", "test"),
        ("train dev", "train", "dev"),
        ("data", "data", "data"),
        ("unsupervised test", "unsupervised", "test"),
        ("", "train", "train"),
    ],
)
def test_where_no_split_is_named_its_use_tells_which_is_read(names: str, learnt: str, measured: str) -> None:
    assert chosen_split(names.split() or ["train"], True, "x") == learnt
    assert chosen_split(names.split(), False, "x") == measured


def test_splits_to_check_with_are_not_learnt_from_unasked() -> None:
    with pytest.raises(DataError, match=r"x has only splits to check with \(test, validation\).*split: test"):
        chosen_split(["test", "validation"], True, "x")


def test_a_folder_feeds_training_by_its_training_split_and_is_measured_on_its_test_split(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("train", "test", "validation"):
        (tmp_path / "mine" / f"{name}.jsonl").write_text(json.dumps({"text": f"a {name} text", "label": "good"}) + "\n")
    file = tmp_path / "task.md"
    file.write_text("---\nlabelled: mine\nunlabelled: mine\ntest: mine\nlabels: [good, bad]\n---\nJudge reviews.\n")
    spec = read_task(file)
    assert spec.labelled is not None
    assert spec.test is not None
    assert spec.unlabelled is not None
    assert read_data(spec.labelled, spec)["input"][:] == ["a train text"]
    assert read_texts(spec.unlabelled, spec) == ["a train text"]
    assert read_data(spec.test, spec)["input"][:] == ["a test text"]
    assert read_data(replace(spec.labelled, split="validation"), spec)["input"][:] == ["a validation text"]


def task(instruction: str, *labels: str, languages: tuple[str, ...] = ("en",)) -> TaskSpec:
    return TaskSpec("t", instruction, "classification", labels=tuple(map(Label, labels)), languages=languages)


def test_the_configuration_of_the_task_is_taken() -> None:
    def classes(*names: str) -> Config:
        return Config({"text": "string", "label": {"class_label": list(names)}})

    tweets = Card("t/e", "Tweets", configs={"emotion": classes("joy", "anger"), "hate": classes("hate", "non-hate"),
                                           "sentiment": classes("negative", "positive")})  # fmt: skip
    assert choose_config(tweets, task("Say what is felt.", "positive", "negative")) == "sentiment"
    assert choose_config(tweets, task("Find hate in a tweet.", "yes", "no")) == "hate"
    assert choose_config(tweets, task("Sort it.", "x", "y")) == "emotion"
    many = Card("x/nli", "NLI", configs={"ar": Config(), "en": Config(), "de": Config()})
    assert choose_config(many, task("Compare.", "a")) == "en"
    assert choose_config(many, task("Compare.", "a", languages=("de",))) == "de"
    assert choose_config(Card("a", "a"), task("x")) is None


# ---- the Hub -------------------------------------------------------------------------------------------------------

READ = """
import json, sys
from potstill.errors import DataError
from potstill.retrieval.load import read_sample
for name, split in (("me/rows", "train"), ("me/rows", "absent"), ("me/lines", "train"), ("me/code", "train"),
                    ("me/gated", "train"), ("me/none", "train")):
    try:
        sample = read_sample(name, split=split, limit=40)
        table = sample.table
        print(json.dumps([name, table.num_rows, sample.total, list(sample.rows), dict(table[0]), str(table.features)]))
    except DataError as error:
        print(json.dumps([name, str(error)]))
"""


def test_rows_of_the_hub_are_sampled_without_a_download(hub: Any, tmp_path: Path) -> None:
    texts = [os.urandom(300).hex() for _ in range(4000)]
    features = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b", "c", "d"])})
    data = Dataset.from_dict({"text": texts, "label": [i // 1000 for i in range(4000)]}, features=features)
    described = data.data.table.replace_schema_metadata(data.features.arrow_schema.metadata)
    path = write(tmp_path / "x.parquet", described, row_group_size=100)
    for name in ("rows", "lines", "code", "gated"):
        hub.create("datasets", f"me/{name}")
    hub.put("datasets", "me/rows", {"data/train-00000-of-00001.parquet": path.read_bytes(), "README.md": b"# Rows\n"})
    hub.put("datasets", "me/lines", {"train.jsonl": b"".join(b'{"t": "line %d"}\n' % i for i in range(100))})
    hub.put("datasets", "me/code", {"code.py": b"raise SystemExit('ran')\n", "README.md": b"# Code\n"})
    hub.put("datasets", "me/gated", {"train.jsonl": b'{"t": "x"}\n'})
    hub.fail("GET", "me/gated", 403, times=99)
    hub.fail("HEAD", "me/gated", 403, times=99)
    environment = {**os.environ, **hub.environment(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", READ], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    rows, absent, lines, code, gated, none = said
    assert rows[1] in range(36, 49)
    assert rows[2] == 4000
    assert {number // 1000 for number in rows[3]} == {0, 1, 2, 3}
    assert rows[4]["text"] == texts[rows[3][0]]
    assert "ClassLabel(names=['a', 'b', 'c', 'd'])" in rows[5]
    assert "no split 'absent'; it has train" in absent[1]
    assert lines[1] == 40
    assert "ran" not in done.stderr + done.stdout
    assert "script" in code[1] or "No (supported) data files" in code[1]
    assert "gated" in gated[1] or "403" in gated[1]
    assert "me/none" in none[1]


READ_ONE = """
import json, sys
from potstill.errors import DataError
from potstill.retrieval.load import read_sample
for name in sys.argv[1:]:
    try:
        print(json.dumps([name, read_sample(name, split="train", limit=40).table.num_rows]))
    except DataError as error:
        print(json.dumps([name, type(error).__name__, str(error)]))
"""


def test_a_busy_hub_is_asked_again_and_costs_no_dataset_for_good(hub: Any, tmp_path: Path) -> None:
    for name in ("blip", "limited", "aggregated"):
        hub.create("datasets", f"me/{name}")
    for name in ("blip", "limited"):
        hub.put("datasets", f"me/{name}", {"train.jsonl": b"".join(b'{"t": "line %d"}\n' % i for i in range(100))})
    hub.put("datasets", "me/aggregated", {"README.md": b"# Nothing but words\n"})
    hub.fail("GET", "api/datasets/me/blip", 503, times=1)
    hub.fail("GET", "api/datasets/me/limited", 429, times=99)
    names = ["me/blip", "me/limited", "me/aggregated", "me/aggregated-none"]
    blip, limited, empty, none = hub.ask(tmp_path / "home", READ_ONE, *names)
    assert blip[1] == 40
    assert limited[1] == "UnreachableError", "so that the next run asks for it again"
    assert "429" in limited[2]
    assert "gated" not in empty[2].replace("aggregated", "")
    assert "gated" not in none[2].replace("aggregated", "")


@pytest.mark.parametrize(("listens", "direct", "reached"), [(True, "", True), (False, "", False), (False, "*", False)])
def test_behind_a_proxy_the_proxy_is_tried(
    listens: bool, direct: str, reached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from potstill.hub_way import hub_unreachable

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        if listens:
            proxy.listen()
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, direct)
        said = hub_unreachable()
    assert (said == "") == reached
    assert reached or ("hub.invalid" if direct else "the proxy 127.0.0.1") in said


def test_a_network_that_comes_up_is_found_and_one_that_was_there_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from potstill import hub_way

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with socket.socket() as hub:
        hub.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        assert hub_way.hub_unreachable() == "HF_HUB_OFFLINE is set"
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        assert "no network to 127.0.0.1" in hub_way.hub_unreachable()
        hub.listen()
        assert "no network to 127.0.0.1" in hub_way.hub_unreachable(), "known for half a minute"
        monkeypatch.setattr(hub_way, "_AGAIN_S", 0.0)
        assert hub_way.hub_unreachable() == ""
    assert hub_way.hub_unreachable() == ""


def test_addresses_that_never_answer_are_given_up_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill import hub_way

    def silent(*_: Any, **__: Any) -> None:
        time.sleep(1.5)
        raise OSError("nobody there")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "https://silent.invalid")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(hub_way.socket, "create_connection", silent)
    monkeypatch.setattr(hub_way, "_PROBE_S", 0.2)
    began = time.monotonic()
    assert "no network to silent.invalid (no answer in 0.2 s)" in hub_way.hub_unreachable()
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(("given", "said"), [("split", "split 'test'"), ("config", "configuration 'en'")])
@pytest.mark.parametrize("name", ["rows.jsonl", "texts.txt"])
def test_a_file_has_no_splits_and_no_configurations(name: str, given: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text('{"text": "a", "label": "good"}\n')
    ref = DataRef(str(path), **{given: said.split("'")[1]})
    with pytest.raises(DataError, match=f"{name} is one file, which has no {said}; leave it out, or give a folder"):
        read_texts(ref, task("Say it.", "good", "bad"))


def test_what_is_wrong_with_a_users_table_is_said_in_its_words(tmp_path: Path) -> None:
    asked = task("Say it.", "good", "bad")

    def read(name: str, content: bytes) -> Any:
        (tmp_path / name).write_bytes(content)
        return read_data(DataRef(str(tmp_path / name)), asked)

    with pytest.raises(DataError, match=r"is not UTF-8 \(byte 0xf6 at 14\); save it as UTF-8"):
        read("latin.csv", "text,label\nsch\u00f6n,good\n".encode("latin-1"))
    with pytest.raises(DataError, match="has no rows"):
        read("empty.jsonl", b"")
    with pytest.raises(DataError, match="holds labels that the task does not have: 'bgu', 'hours'"):
        read("few.jsonl", b"".join(b'{"text": "a b", "label": "%s"}\n' % name for name in (b"bgu", b"hours", b"good")))
    table = read("semi.csv", b"text;label\n" + b"".join(b"it is, so to say, %d;good\n" % i for i in range(8)))
    assert table["input"][0] == "it is, so to say, 0"
    long = "word " * 40_000
    assert read("long.csv", f"text,label\n{long},good\nshort,bad\n".encode())["input"][0] == long.strip()


def test_tables_as_spreadsheets_write_them_are_read_alike(tmp_path: Path) -> None:
    asked = task("Say it.", "good", "bad")
    rows = [("It is, so to say, fine", "good"), ('He said "no" again', "bad")] * 4

    def table(separator: str) -> str:
        lines = [separator.join(['"' + cell.replace('"', '""') + '"' for cell in row]) for row in rows]
        return "\r\n".join([separator.join(["text", "label"]), *lines, ""])

    written = {
        "comma.csv": table(",").encode(),
        "marked.csv": table(";").encode("utf-8-sig"),
        "tab.csv": table("\t").encode(),
        "pipe.csv": table("|").encode(),
        "hint.csv": ("sep=;\r\n" + table(";")).encode(),
        "unicode.csv": table("\t").encode("utf-16"),
        "unicode.tsv": table("\t").encode("utf-16"),
        "mac.csv": table(",").replace("\r\n", "\r").encode(),
        "empty_cells.csv": table(",").replace("\r\n", ",,\r\n").encode(),
        "lines.json": "\n".join(json.dumps({"text": text, "label": label}) for text, label in rows).encode(),
    }
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
        read = read_data(DataRef(str(tmp_path / name)), asked)
        assert list(zip(read["input"][:], read["output"][:], strict=True)) == rows, name


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text\nWell, it broke.\nIt broke.\n", "line 2: 2 cells, where the first line names 1; put a text that holds"),
        ("label,text\ngood,ok\n\nbad,it broke, again\n", "line 4: 3 cells, where the first line names 2"),
        ("label\ttext\ngood\tok\tagain\n", "line 2: 3 cells, where the first line names 2; .* holds a tab"),
        ('label,text\ngood,"fine\nand\nwell"\nbad,"it broke\ngood,ok\n', "a double quote that opens on line 5"),
    ],
)  # fmt: skip
def test_a_csv_that_would_lose_words_is_refused_with_the_line(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(content)
    with pytest.raises(DataError, match=said):
        read_texts(DataRef(str(tmp_path / "own.csv")), task("Say it.", "good", "bad"))


def test_columns_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Exports of issue trackers hold a column for each comment; the last of a name is not taken for all."""
    rows = "".join(f"words of number {i},{'good' if i % 2 else 'bad'},note {i}\n" for i in range(8))
    (tmp_path / "own.csv").write_text("text,label,label\n" + rows)
    asked = task("Say it.", "good", "bad")
    read = read_data(DataRef(str(tmp_path / "own.csv")), asked)
    assert read["output"][:2] == ["bad", "good"]
    with pytest.raises(DataError, match=r"no column 'label'; its columns are text, label \(1\), label \(2\)"):
        read_data(DataRef(str(tmp_path / "own.csv"), inputs=("text",), output="label"), asked)


@pytest.mark.parametrize(
    ("content", "labels", "rows"),
    [
        ("It broke,bad\nIt is fine,good\nA joy to use,good\nIt fell apart,bad\n", "good bad", 4),
        (
            "ham,See you at six\nspam,Win a prize now\nham,I am late\nham,Call me back\nspam,Free ringtones\n",
            "spam ham",
            5,
        ),
        ("It is a very long day today,0\nThe second one is short,1\nThe third one is bad,0\nNone,1\n", "0 1", 4),
    ],
)
def test_a_csv_without_column_names_keeps_its_first_row(content: str, labels: str, rows: int, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(content)
    said: list[str] = []
    read = read_data(DataRef(str(tmp_path / "own.csv")), task("Say it.", *labels.split()), tell=said.append)
    assert read.num_rows == rows
    first = content.split("\n")[0].split(",")
    assert {read["input"][0], read["output"][0]} == set(first)
    assert len(said) == 1
    assert "has no line of column names: its first line holds" in said[0]
    inputs = "column 1" if labels != "spam ham" else "column 2"
    named = DataRef(str(tmp_path / "own.csv"), inputs=(inputs,), output=f"column {3 - int(inputs[-1])}")
    assert read_data(named, task("Say it.", *labels.split())).num_rows == rows


@pytest.mark.parametrize(
    "content",
    [
        "text,good\nIt broke,bad\nIt is fine,good\nA joy to use,good\nIt fell apart,bad\n",
        "Kundentext,Urteil\nIt broke,bad\nIt is fine,good\nA joy to use,good\nIt fell apart,bad\n",
        "0,1\nIt broke,0\nIt is fine,1\nA joy to use,1\nIt fell apart,0\n",
        "Kundentext,Urteil\nIt broke,bad\nIt is fine,good\nKundentext,Urteil\nA joy to use,good\nIt fell apart,bad\n",
    ],
)
def test_a_csv_with_column_names_is_read_by_them(content: str, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(content)
    said: list[str] = []
    table = read_sample(str(tmp_path / "own.csv"), tell=said.append).table
    assert (table.column_names, said) == (content.split("\n")[0].split(","), [])


def test_a_table_of_texts_alone_is_read_as_texts(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"text": f"words of message {i}"}) + "\n" for i in range(9)))
    read = read_texts(DataRef(str(tmp_path / "own.jsonl")), task("Say it.", "good", "bad"))
    assert read[0] == "words of message 0"
    assert len(read) == 9


@pytest.mark.parametrize("named", [True, False])
def test_fields_of_the_users_tables_are_called_as_the_task_calls_them(named: bool, tmp_path: Path) -> None:
    """As retrieved and written rows are: the student would be measured on inputs of another form."""
    rows = [{"Sentence1": f"it rains {i}", "Sentence2": f"it is wet {i}", "label": "ab"[i % 2]} for i in range(12)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = TaskSpec(
        "t", "Does it follow?", "classification", labels=(Label("a"), Label("b")), inputs=("premise", "hypothesis")
    )
    ref = DataRef(str(tmp_path / "own.jsonl"), inputs=("Sentence1", "Sentence2") if named else ())
    assert read_data(ref, asked)["input"][0] == "premise: it rains 0\nhypothesis: it is wet 0"
    assert read_texts(ref, asked)[0] == "premise: it rains 0\nhypothesis: it is wet 0"
    turned = replace(asked, inputs=("Sentence2", "Sentence1"))
    assert read_data(ref, turned)["input"][0] == "Sentence2: it is wet 0\nSentence1: it rains 0"
